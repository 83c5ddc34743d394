import { describe, it } from "@effect/vitest"
import { assertInstanceOf, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Effect, Fiber, Stream } from "effect"
import * as fc from "fast-check"
import { StreamError, StreamReader } from "effect-wire"
import { given, rangeError, reset, start, text } from "../support/reader.ts"

const collect = <E>(stream: Stream.Stream<Uint8Array, E>): Effect.Effect<ReadonlyArray<string>, E> =>
  Effect.map(Stream.runCollect(stream), (chunks) => Array.from(chunks, text))

describe("streamExactly", () => {
  it.effect("gives the bytes as they come, and leaves what follows", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given({ chunks: ["abc"] })
      const given10 = yield* start(collect(StreamReader.streamExactly(reader, 10)))
      feed("de")
      feed("fghijklm")
      deepStrictEqual(given10.value(), ["abc", "de", "fghij"])
      strictEqual(yield* buffered, "klm")
    })
  )

  it.effect("never waits for a byte that it does not need", () =>
    Effect.gen(function* () {
      const { reader } = given({ chunks: ["abc"] })
      deepStrictEqual(yield* collect(StreamReader.streamExactly(reader, 3)), ["abc"])
      deepStrictEqual(yield* collect(StreamReader.streamExactly(reader, 0)), [])
    })
  )

  it("any cut of the bytes: the concatenation is the same", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ minLength: 1, unit: "grapheme-ascii" }), { maxLength: 8 }),
        fc.nat(),
        async (chunks, at) => {
          const { buffered, reader } = given({ chunks })
          const all = chunks.join("")
          const n = at % (all.length + 1)
          const parts = await Effect.runPromise(collect(StreamReader.streamExactly(reader, n)))
          strictEqual(parts.join(""), all.slice(0, n))
          strictEqual(await Effect.runPromise(buffered), all.slice(n))
        }
      ),
      { numRuns: 200 }
    )
  })

  it.effect("the end of input before that: what came, then IncompleteReadError with what is missing", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given({ chunks: ["abc"] })
      feedEof()
      const heard: Array<string> = []
      const error = yield* StreamReader.streamExactly(reader, 10).pipe(
        Stream.runForEach((chunk) => Effect.sync(() => heard.push(text(chunk)))),
        Effect.flip
      )
      deepStrictEqual(heard, ["abc"])
      assertInstanceOf(error, StreamError.IncompleteReadError)
      strictEqual(error.expected, 7)
      strictEqual(error.partial.length, 0)
    })
  )

  it.effect("a lost connection is its own error", () =>
    Effect.gen(function* () {
      const { fail, reader } = given({ chunks: ["abc"] })
      fail(reset())
      const error = yield* Effect.flip(collect(StreamReader.streamExactly(reader, 10)))
      assertInstanceOf(error, StreamError.ConnectionError)
    })
  )

  it.effect("interrupted while it waits, it has taken what it handed out", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given({ chunks: ["abc"] })
      const { fiber } = yield* start(collect(StreamReader.streamExactly(reader, 10)))
      yield* Fiber.interrupt(fiber)
      feed("def")
      strictEqual(yield* buffered, "def")
    })
  )

  it.effect("a negative or fractional count is a RangeError defect", () =>
    Effect.gen(function* () {
      const { reader } = given()
      for (const n of [-1, 1.5, NaN]) {
        const { message } = yield* rangeError(collect(StreamReader.streamExactly(reader, n)))
        strictEqual(message, `streamExactly: n must be a non-negative integer, received ${n}`)
      }
    })
  )
})
