import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { Connection, Network } from "effect-wire"
import { TestNetwork } from "effect-wire/testing"

const target = "127.0.0.1:1"

/** A listener that lets one connection wait, and has one waiting: the next one finds no room. */
const fullListener = Effect.gen(function* () {
  const network = yield* Network.Network
  const listener = yield* network.listen({ host: "127.0.0.1", port: 1 }, { backlog: 1 })
  yield* Connection.connect(target)
  return listener
})

describe("connecting", () => {
  it.effect("H-022 addresses are tried in the resolver's order, and listed with their reasons", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Connection.connect("db.internal:5432"))
      assert(error._tag === "ConnectionError")
      assert.deepStrictEqual(
        error.attempts?.map(({ address, reason }) => [address, reason._tag]),
        [
          ["10.0.0.2:5432", "ConnectionRefused"],
          ["10.0.0.1:5432", "ConnectionRefused"]
        ]
      )
    }).pipe(
      Effect.scoped,
      Effect.provide(TestNetwork.layerWith({ hosts: { "db.internal": ["10.0.0.2", "10.0.0.1"] } }))
    )
  )

  const leavesNothing = (
    ended: (
      connecting: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>
    ) => Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>
  ) =>
    Effect.gen(function* () {
      const listener = yield* fullListener
      yield* ended(Connection.connect(target))

      // Only the one that waited before is there to be accepted.
      const accepted = yield* listener.accept
      const another = yield* Effect.forkChild(listener.accept, { startImmediately: true })
      yield* Effect.repeat(Effect.yieldNow, { times: 5 })
      assert.isUndefined(another.pollUnsafe())
      const connection = yield* Connection.make(accepted)
      yield* connection.abort
    }).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))

  it.effect("H-012 a timeout around connecting leaves nothing behind", () =>
    leavesNothing((connecting) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(Effect.timeoutOption(connecting, "1 second"))
        yield* TestClock.adjust("1 second")
        assert.isTrue(Option.isNone(yield* Fiber.join(fiber)))
      })
    )
  )

  it.effect("X-021 connecting that is interrupted leaves nothing behind", () =>
    leavesNothing((connecting) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(connecting)
        yield* Effect.repeat(Effect.yieldNow, { times: 3 })
        assert.isUndefined(fiber.pollUnsafe())
        yield* Fiber.interrupt(fiber)
      })
    )
  )
})
