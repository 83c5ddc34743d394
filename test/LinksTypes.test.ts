import { strictEqual } from "@effect/vitest/utils"
import { Effect, Schedule } from "effect"
import { ConnectionPool, Reconnect } from "effect-wire"
import { describe, expectTypeOf, it } from "vitest"

type ErrorOf<A> =
  Effect.Success<A> extends Reconnect.Reconnect<infer E> | ConnectionPool.ConnectionPool<infer E> ? E : "none"

const schedule = Schedule.spaced("1 second")
const onConnect = () => Effect.fail("wrong password" as const)

// Only the types count: nothing of this runs.
describe("types of links and pools", () => {
  it("their errors are the handshake's, whatever a schedule takes", () => {
    const plain = Reconnect.make("localhost:7000", { schedule })
    expectTypeOf<ErrorOf<typeof plain>>().toEqualTypeOf<never>()
    const picky = Reconnect.make("localhost:7000", {
      schedule,
      onConnect,
      isPermanent: (error) => error === "wrong password"
    })
    expectTypeOf<ErrorOf<typeof picky>>().toEqualTypeOf<"wrong password">()
    const pool = ConnectionPool.make("localhost:7000", {
      onConnect,
      healthCheck: () => Effect.fail("unwell")
    })
    expectTypeOf<ErrorOf<typeof pool>>().toEqualTypeOf<"wrong password">()
    strictEqual(Effect.isEffect(plain) && Effect.isEffect(picky) && Effect.isEffect(pool), true)
  })
})
