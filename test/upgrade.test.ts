import { describe, it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Deferred, Effect, Fiber } from "effect"
import { Connection, type Tls } from "effect-wire"
import { expectTypeOf } from "vitest"
import { connect, outcome, outcomeOf, start, turns } from "./support/effects.ts"
import { makeFake } from "./support/FakeTransport.ts"

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)

/** A connection that can be upgraded, while `meanwhile` happens on the transport below. */
const upgradable = Effect.fnUntraced(function* (
  meanwhile: (below: ReturnType<typeof makeFake>) => void,
  handshake: Effect.Effect<void> = Effect.void
) {
  const below = makeFake({ prompt: true })
  const above = makeFake({ prompt: true })
  const upgradeTls = () => {
    meanwhile(below)
    return Effect.as(handshake, above)
  }
  const connection = yield* Connection.make(Object.assign(below, { upgradeTls }))
  yield* Effect.addFinalizer(() => Effect.sync(above.finish))
  const upgrade = (leftover?: Tls.UpgradeOptions["leftover"]) =>
    connection.upgradeTls({ role: "client", servername: "example.org", leftover })
  return { above, connection, upgrade, reader: connection.reader }
})

describe("the side that one is", () => {
  for (const [role, expected] of [
    [undefined, "client"],
    ["client", "client"]
  ] as const) {
    it.effect(`${role}: a ${expected}`, () =>
      Effect.gen(function* () {
        const below = makeFake({ prompt: true })
        const above = makeFake({ prompt: true })
        const asked: Array<string> = []
        const connection = yield* Connection.make(
          Object.assign(below, {
            upgradeTls: (handshake: { readonly role: string }) => {
              asked.push(handshake.role)
              return Effect.succeed(above)
            }
          })
        )
        yield* Effect.addFinalizer(() => Effect.sync(above.finish))
        yield* connection.upgradeTls({ role, servername: "example.org" })
        deepStrictEqual(asked, [expected])
      })
    )
  }

  it.effect("a server that does not say that it is one is told so, and its connection is as it was", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      const identity = { certificate: "a certificate", key: "a key" }
      strictEqual(
        yield* outcomeOf(connection.upgradeTls({ identity })),
        "defect RangeError: tls: servername is missing: there is no host to verify the certificate for; " +
          'give a name, or false to check none; the server says role: "server"'
      )
      yield* connection.writer.write("still plain")
      strictEqual(transport.text(), "still plain")
    })
  )

  it("the options of a client are those of connect", () => {
    expectTypeOf<NonNullable<Connection.ConnectionOptions["tls"]>>().toEqualTypeOf<true | Tls.TlsOptions>()
    expectTypeOf<Tls.TlsOptions>().toExtend<Parameters<Connection.Connection["upgradeTls"]>[0]>()
    expectTypeOf<{ readonly role: "server" }>().not.toExtend<Tls.UpgradeOptions>()
  })
})

describe("plain bytes that come while the handshake begins", () => {
  for (const leftover of ["fail", "feed"] as const) {
    it.effect(`${leftover}: end the connection, and are not read as if they had come over TLS`, () =>
      Effect.gen(function* () {
        const { above, connection, reader, upgrade } = yield* upgradable((below) => below.receive("forged\n"))
        const error = yield* Effect.flip(upgrade(leftover))
        assertTrue(error._tag === "ConnectionError" && error.reason._tag === "PlaintextBuffered")
        deepStrictEqual([error.operation, error.reason.bytes], ["handshake", 7])
        deepStrictEqual(above.calls, ["start", "abort"])
        strictEqual(yield* outcomeOf(reader.readLine), "PlaintextBuffered")
        strictEqual(yield* outcomeOf(connection.writer.write("x")), "PlaintextBuffered")
        strictEqual(yield* Effect.flip(connection.closed), error)
      })
    )
  }

  it.effect("fail: also when a read that waited has taken them", () =>
    Effect.gen(function* () {
      const { above, reader, upgrade } = yield* upgradable((below) => below.receive("forged\n"))
      const reading = yield* start(reader.readLine)
      strictEqual(outcome(reading), "waiting")
      strictEqual(yield* outcomeOf(upgrade()), "PlaintextBuffered")
      deepStrictEqual(above.calls, ["start", "abort"])
    })
  )

  it.effect("discard: are dropped", () =>
    Effect.gen(function* () {
      const { above, reader, upgrade } = yield* upgradable((below) => below.receive("forged\n"))
      yield* upgrade("discard")
      const reading = yield* start(reader.readLine)
      yield* turns
      above.receive("genuine\n")
      strictEqual(text(yield* Fiber.join(reading.fiber)), "genuine\n")
    })
  )

  it.effect("none: the connection goes on over TLS", () =>
    Effect.gen(function* () {
      const { above, connection, reader, upgrade } = yield* upgradable(() => {})
      yield* upgrade()
      above.receive("genuine\n")
      strictEqual(text(yield* reader.readLine), "genuine\n")
      yield* connection.writer.write("x")
      strictEqual(above.text(), "x")
    })
  )
})

describe("a second upgrade", () => {
  it.effect("is refused, and leaves the connection and the first one as they were", () =>
    Effect.gen(function* () {
      const first = Deferred.makeUnsafe<void>()
      const { above, connection, upgrade } = yield* upgradable(() => {}, Deferred.await(first))
      const upgrading = yield* start(upgrade())
      strictEqual(yield* outcomeOf(upgrade()), "Unsupported")
      strictEqual(outcome(upgrading), "waiting")
      yield* Deferred.succeed(first, undefined)
      yield* Fiber.join(upgrading.fiber)
      strictEqual(yield* outcomeOf(upgrade()), "Unsupported")
      above.receive("genuine\n")
      strictEqual(text(yield* connection.reader.readLine), "genuine\n")
      yield* connection.writer.write("x")
      strictEqual(above.text(), "x")
    })
  )
})
