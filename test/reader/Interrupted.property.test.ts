import { strictEqual } from "@effect/vitest/utils"
import { Cause, Effect, Exit, Fiber, Option, Pull, Scheduler, type Scope, Stream } from "effect"
import { Connection, Framed, Framing, StreamError } from "effect-wire"
import { Lockstep } from "effect-wire/testing"
import fc from "fast-check"
import { describe, it } from "vitest"
import { aborting, delayed, start } from "../support/effects.ts"
import { text } from "../support/reader.ts"

// Every step reads in some way, is interrupted at some place or not, and says what it has read. Together that is what was sent.

type Pair = readonly [Connection.Connection, Connection.Connection]

const transports: Record<string, Effect.Effect<Pair, never, Scope.Scope>> = {
  "a pair in memory": Connection.pair({ limit: 40 }),
  "a lockstep pair": Effect.flatMap(Lockstep.makePair(), ([left, right]) =>
    Effect.all([Connection.make(left), Connection.make(right)])
  )
}

const kinds = [
  "read",
  "readInto",
  "readExactly",
  "readUntil",
  "readLine",
  "skip",
  "stream",
  "lines",
  "generator",
  "effect"
] as const

interface Step {
  readonly kind: (typeof kinds)[number]
  readonly n: number
  readonly asGenerator: boolean
  /** The fiber yields after so many operations, `before` of which come before the read. */
  readonly operations: number
  readonly before: number
  /** So many turns after its beginning it is interrupted, unless it has ended. */
  readonly interruptedAfter: number | undefined
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom(...kinds),
  n: fc.integer({ min: 1, max: 30 }),
  asGenerator: fc.boolean(),
  operations: fc.constantFrom(2048, 40),
  before: fc.nat(40),
  interruptedAfter: fc.option(fc.nat(3), { nil: undefined })
})

const framings = {
  lines: Framing.lines(),
  generator: Framing.make<Uint8Array>({
    *decode(reader) {
      return yield* reader.readExactly(((yield* reader.peek(1))[0] ?? 0) % 5)
    },
    encode: (frame) => frame
  }),
  effect: Framing.make<Uint8Array>({
    decode: (reader) => Effect.flatMap(reader.peek(1), ([first = 0]) => reader.readExactly(first % 5)),
    encode: (frame) => frame
  })
}

const run = (
  pair: Effect.Effect<Pair, never, Scope.Scope>,
  pieces: ReadonlyArray<string>,
  steps: ReadonlyArray<Step>
) =>
  Effect.gen(function* () {
    const [left, connection] = yield* pair
    yield* aborting(Effect.succeed(left))
    yield* aborting(Effect.succeed(connection))
    const { reader } = connection
    const receivers = {
      lines: Framed.make(connection, framings.lines),
      generator: Framed.make(connection, framings.generator),
      effect: Framed.make(connection, framings.effect)
    }
    const sent = pieces.join("")
    let read = ""

    const perform = ({ kind, n }: Step): Effect.Effect<string, unknown> => {
      switch (kind) {
        case "read":
          return Effect.map(reader.read(n), text)
        case "readInto": {
          const target = new Uint8Array(n)
          return Effect.map(reader.readInto(target), (count) => text(target.subarray(0, count)))
        }
        case "readExactly":
          return Effect.map(reader.readExactly(n), text)
        case "readUntil":
          return Effect.map(reader.readUntil("b"), text)
        case "readLine":
          return Effect.map(reader.readLine, text)
        case "skip":
          return Effect.map(reader.skip(n), () => sent.slice(read.length, read.length + n))
        case "stream":
          return Effect.scoped(
            Effect.flatMap(Stream.toPull(reader.stream), (pull) =>
              Pull.catchDone(
                Effect.map(pull, (chunks) => chunks.map(text).join("")),
                () => Effect.succeed("")
              )
            )
          )
        case "lines":
          // The last one may not end in one.
          return Effect.map(receivers.lines.receive, (line) =>
            sent.slice(read.length, read.length + line.length + 1)
          )
        default:
          return Effect.map(receivers[kind].receive, text)
      }
    }
    const restOf = (exit: Exit.Exit<string, unknown>): string => {
      if (Exit.isSuccess(exit)) return exit.value
      const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
      return error instanceof StreamError.IncompleteReadError ? text(error.partial) : ""
    }

    yield* start(
      Effect.andThen(Effect.forEach(pieces, left.writer.write, { discard: true }), left.writer.end)
    )
    for (const step of steps) {
      const { asGenerator, before, interruptedAfter, operations } = step
      const operation = perform(step)
      const generator = Effect.gen(function* () {
        return yield* operation
      })
      const reading = delayed(asGenerator ? generator : operation, before)
      const fiber = yield* start(Effect.provideService(reading, Scheduler.MaxOpsBeforeYield, operations))
      for (let turn = 0; turn < (interruptedAfter ?? 0); turn++) yield* Effect.yieldNow
      if (interruptedAfter !== undefined) yield* fiber.interrupt
      read += restOf(yield* Fiber.await(fiber.fiber))
    }
    return [read + text(yield* reader.readAll()), sent]
  }).pipe(Effect.scoped)

describe("what any operations read, interrupted anywhere, is what was sent", () => {
  for (const [title, pair] of Object.entries(transports)) {
    it(`over ${title}`, async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.string({ unit: fc.constantFrom("a", "b", "c", "\n"), maxLength: 40 }), {
            maxLength: 20
          }),
          fc.array(step, { maxLength: 30 }),
          async (pieces, steps) => {
            const [read, sent] = await Effect.runPromise(run(pair, pieces, steps))
            strictEqual(read, sent)
          }
        ),
        { numRuns: 500 }
      )
    })
  }
})
