import { describe, it } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { Effect, Exit } from "effect"
import { Codec, Connection, Framed, Framing, StreamReader, type Transport } from "effect-wire"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import { aborting, outcome, start as begin, withSleepers } from "../support/effects.ts"
import { bytes, handDriven, start, text } from "../support/reader.ts"

// A source that has its bytes at hand gives them before the call returns that tells it to go on. What is tested here is that
// nothing passes by whoever made the call.

interface Given {
  readonly limit: number
  readonly pieces: ReadonlyArray<string>
}

/** A reader that has everything from the beginning. */
const filled = ({ limit, pieces }: Given): StreamReader.StreamReader => {
  const { feed, feedEof, reader } = StreamReader.feedable({ limit })
  for (const piece of pieces) feed(bytes(piece))
  feedEof()
  return reader
}

/** One that is fed from within whenever it wants more. */
const refilled = ({ limit, pieces }: Given): StreamReader.StreamReader => {
  const left = [...pieces]
  let isOpen = true
  const refill = (): void => {
    isOpen = true
    while (isOpen) {
      const piece = left.shift()
      if (piece === undefined) return feedEof()
      feed(bytes(piece))
    }
  }
  const onPause = (): void => {
    isOpen = false
  }
  const { feed, feedEof, reader } = StreamReader.feedable({ limit, onPause, onResume: refill })
  refill()
  return reader
}

type Step =
  | { readonly _: "readExactly" | "skip" | "peek"; readonly n: number }
  | { readonly _: "readUntil" | "skipUntil" | "readLine" | "receive" | "receiveAll" | "receiveStepwise" }

const numbered = Framing.make<string>({
  *decode(reader) {
    const [length = 0] = yield* reader.readExactly(1)
    return text(yield* reader.readExactly(length % 3))
  },
  encode: (text) => text
})

/** What each step comes to. How much of a piece that is too long has come, an overrun tells, and differs. */
const run = (reader: StreamReader.StreamReader, steps: ReadonlyArray<Step>) => {
  const lines = Framed.receiver(reader, Framing.lines({ maxLength: 3 }), Codec.string(), {
    onInvalid: "skip"
  })
  const stepwise = Framed.receiver(reader, numbered)
  const perform = (step: Step): Effect.Effect<unknown, unknown> => {
    switch (step._) {
      case "readExactly":
      case "peek":
        return Effect.map(reader[step._](step.n), text)
      case "skip":
        return reader.skip(step.n)
      case "readUntil":
        return Effect.map(reader.readUntil("ab"), text)
      case "skipUntil":
        return reader.skipUntil("ba")
      case "readLine":
        return Effect.map(reader.readLine, text)
      case "receive":
        return lines.receive
      case "receiveAll":
        return Effect.flip(Effect.forever(lines.receive, { disableYield: true }))
      case "receiveStepwise":
        return stepwise.receive
    }
  }
  return Effect.runSync(
    Effect.forEach(steps, (step) =>
      Effect.map(Effect.exit(perform(step)), (exit) => [
        step._,
        outcome(exit),
        Exit.isSuccess(exit) ? String(exit.value) : ""
      ])
    )
  )
}

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    _: fc.constantFrom("readExactly" as const, "skip" as const, "peek" as const),
    n: fc.nat(12)
  }),
  fc.record({
    _: fc.constantFrom(
      "readUntil" as const,
      "skipUntil" as const,
      "readLine" as const,
      "receive" as const,
      "receiveAll" as const,
      "receiveStepwise" as const
    )
  })
)

const piece = fc.string({ unit: fc.constantFrom("a", "b", "\n"), maxLength: 14 })

describe("a source that feeds from within", () => {
  it("every operation gives what it gives of bytes that are there", () => {
    fc.assert(
      fc.property(
        fc.record({ limit: fc.integer({ min: 1, max: 6 }), pieces: fc.array(piece, { maxLength: 12 }) }),
        fc.array(step, { maxLength: 12 }),
        (given, steps) => deepStrictEqual(run(refilled(given), steps), run(filled(given), steps))
      ),
      { numRuns: 5000 }
    )
  })

  it.effect("leaves no time limit behind of a step of a frame", () =>
    withSleepers((sleepers) =>
      Effect.gen(function* () {
        const waiting = handDriven({ readAhead: false })
        const pieces = ["a", "b\n"]
        const transport: Transport.Transport = {
          ...waiting,
          resume() {
            waiting.resume()
            const piece = pieces.shift()
            if (piece !== undefined) waiting.handler().onData(bytes(piece))
          }
        }
        const connection = yield* aborting(Connection.make(transport, { readTimeout: "1 minute" }))
        const lines = Framing.make<Uint8Array>({
          decode: (reader) => reader.readUntil("\n"),
          encode: (line) => line
        })
        const receiving = yield* start(Framed.make(connection, lines).receive)
        deepStrictEqual([text(receiving.value()), sleepers()], ["ab\n", 0])
      })
    )
  )

  it.effect("who waits behind a framing of one's own is not forgotten", () =>
    Effect.gen(function* () {
      let isReady = false
      const { feed, feedEof, reader } = StreamReader.feedable({
        limit: 4,
        onResume() {
          if (!isReady) return
          feed(bytes("\nok\n"))
          feedEof()
        }
      })
      const slow = Framing.make<Uint8Array>({
        decode: (reader) => Effect.tap(reader.readExactly(1), () => Effect.sleep(1000)),
        encode: (frame) => frame
      })
      feed(bytes("x"))
      const first = yield* begin(Framed.receiver(reader, slow).receive)
      const options = { onInvalid: "skip" } as const
      const lines = Framed.receiver(reader, Framing.lines({ maxLength: 4 }), Codec.string(), options)
      const second = yield* begin(lines.receive)
      feed(bytes("much too long"))
      isReady = true
      yield* TestClock.adjust(1000)
      deepStrictEqual([outcome(first), second.exit()], ["success", Exit.succeed("ok")])
    })
  )
})
