import { describe, it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Effect } from "effect"
import { Connection, type StreamReader, type Transport } from "effect-wire"
import fc from "fast-check"
import { aborting } from "../support/effects.ts"
import { bytes, given, handDriven, start, text } from "../support/reader.ts"

const filled = (size: number) => new Uint8Array(size).fill(0x2e)

describe("readInto", () => {
  it.effect("fills the target from its beginning, and leaves the rest of it", () =>
    Effect.gen(function* () {
      const { reader } = given({ chunks: ["ab", "cd", "e"] })
      const target = filled(8)
      strictEqual(yield* reader.readInto(target.subarray(0, 3)), 3)
      strictEqual(text(target), "abc.....")
      strictEqual(yield* reader.readInto(target), 2)
      strictEqual(text(target), "dec.....")
    })
  )

  it.effect("waits for one byte, and leaves the target alone until then", () =>
    Effect.gen(function* () {
      const { feed, reader } = given()
      const target = filled(4)
      const reading = yield* start(reader.readInto(target))
      assertTrue(reading.isWaiting())
      yield* reading.interrupt
      feed("a")
      strictEqual(text(target), "....")
      strictEqual(yield* reader.readInto(target), 1)
      strictEqual(text(target), "a...")
    })
  )

  it.effect("gives 0 at the end of input, and for an empty target at once", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given()
      strictEqual(yield* reader.readInto(new Uint8Array(0)), 0)
      feedEof()
      strictEqual(yield* reader.readInto(filled(4)), 0)
      strictEqual(yield* reader.readInto(filled(4)), 0)
    })
  )

  it.effect("gives 0 for a target that is transferred to somebody else while it waits", () =>
    Effect.gen(function* () {
      const transport = handDriven()
      const { reader } = yield* aborting(Connection.make(transport))
      const target = filled(8)
      const reading = yield* start(reader.readInto(target))
      structuredClone(target, { transfer: [target.buffer] })
      strictEqual(deliver(transport.handler(), "abc"), false)
      strictEqual(reading.value(), 0)
      strictEqual(text(yield* reader.read()), "abc")
    })
  )

  it.effect("lets reading go on when it has made room", () =>
    Effect.gen(function* () {
      const transport = handDriven()
      const { reader } = yield* aborting(Connection.make(transport, { limit: 4 }))
      transport.handler().onData(bytes("123456789"))
      deepStrictEqual(transport.calls, ["resume", "pause"])
      yield* reader.readInto(filled(4))
      deepStrictEqual(transport.calls, ["resume", "pause"])
      yield* reader.readInto(filled(1))
      deepStrictEqual(transport.calls, ["resume", "pause", "resume"])
    })
  )
})

// --- Bytes in a place that the transport uses again.

type Read =
  { readonly _: "readInto" | "read" | "readExactly"; readonly n: number } | { readonly _: "readLine" }

const perform = (reader: StreamReader.StreamReader, read: Read): Effect.Effect<Uint8Array, unknown> => {
  switch (read._) {
    case "readInto": {
      const target = new Uint8Array(read.n)
      return Effect.map(reader.readInto(target), (count) => target.subarray(0, count))
    }
    case "readLine":
      return reader.readLine
    default:
      return reader[read._](read.n)
  }
}

const read: fc.Arbitrary<Read> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ _: fc.constant("readInto" as const), n: fc.integer({ min: 1, max: 12 }) })
  },
  fc.record({
    _: fc.constantFrom("read" as const, "readExactly" as const),
    n: fc.integer({ min: 1, max: 12 })
  }),
  fc.constant({ _: "readLine" as const })
)

const piece = fc.string({ unit: fc.constantFrom("a", "b", "\n"), minLength: 1, maxLength: 10 })

/** Delivers a piece as a transport does that reads to one place. */
const deliver = ({ onData, onLent }: Transport.Handler, piece: string): boolean => {
  const lent = bytes(piece)
  const isUsed = onLent?.(lent) === true
  if (!isUsed) onData(lent.slice())
  lent.fill(0x21)
  return isUsed
}

describe("lent bytes", () => {
  it("are what was sent, whoever reads them and however they are cut", () => {
    fc.assert(
      fc.property(fc.array(read, { maxLength: 12 }), fc.array(piece, { maxLength: 12 }), (reads, pieces) => {
        const program = Effect.gen(function* () {
          const transport = handDriven()
          const connection = yield* aborting(Connection.make(transport))
          const results: Array<Uint8Array> = []
          // Some read one after the other, some wait in line.
          const reading = yield* start(
            Effect.forEach(
              reads,
              (read) => Effect.map(perform(connection.reader, read), (result) => results.push(result)),
              { discard: true, concurrency: 1 + (reads.length % 3) }
            )
          )
          for (const piece of pieces) deliver(transport.handler(), piece)
          yield* reading.interrupt
          const rest = yield* connection.reader.read(yield* connection.reader.bufferedBytes)
          return text(Buffer.concat([...results, rest]))
        })
        strictEqual(Effect.runSync(Effect.scoped(program)), pieces.join(""))
      }),
      { numRuns: 3000 }
    )
  })

  it.effect("are used by a readInto that waits, and has room for them", () =>
    Effect.gen(function* () {
      const transport = handDriven()
      const { reader } = yield* aborting(Connection.make(transport))
      strictEqual(deliver(transport.handler(), "a"), false)
      yield* reader.read()
      const target = filled(4)
      const reading = yield* start(reader.readInto(target))
      strictEqual(deliver(transport.handler(), "12345"), false)
      strictEqual(reading.value(), 4)
      yield* reader.read()
      const again = yield* start(reader.readInto(target))
      strictEqual(deliver(transport.handler(), "abc"), true)
      strictEqual(again.value(), 3)
      strictEqual(text(target), "abc4")
      strictEqual(yield* reader.bufferedBytes, 0)
    })
  )

  it.effect("are nobody's once the connection is closed", () =>
    Effect.gen(function* () {
      const transport = handDriven()
      const connection = yield* aborting(Connection.make(transport))
      const reading = yield* start(connection.reader.readInto(filled(4)))
      yield* connection.abort
      strictEqual(deliver(transport.handler(), "abc"), false)
      assertTrue(!reading.isWaiting())
    })
  )
})
