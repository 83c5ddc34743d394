import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Effect, Fiber, Scheduler } from "effect"
import { Connection } from "effect-wire"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import { describe, it } from "vitest"
import { outcome, start, type Started, turns, withSleepers } from "./support/effects.ts"
import { makeFake } from "./support/FakeTransport.ts"

type Stop = "end" | "close" | "abort" | "reset" | "let go"

type Step =
  | {
      readonly _tag: "write"
      readonly producer: number
      readonly sizes: ReadonlyArray<number>
      readonly limit: number
    }
  | { readonly _tag: "accept"; readonly bytes: number }
  | { readonly _tag: "interrupt"; readonly producer: number }
  | { readonly _tag: "watermarks"; readonly high: number; readonly low: number }
  | { readonly _tag: "clock"; readonly millis: number }
  | { readonly _tag: "yield" }
  | { readonly _tag: "wait"; readonly on: "drain" | "flush" }
  | { readonly _tag: "stop"; readonly how: Stop }

const producers = 4

const size = fc.integer({ min: 0, max: 40 })

const write = fc.record({
  _tag: fc.constant("write" as const),
  producer: fc.nat(producers - 1),
  sizes: fc.array(size, { minLength: 1, maxLength: 3 }),
  // No limit, most of the time.
  limit: fc.oneof({ weight: 4, arbitrary: fc.constant(Infinity) }, fc.integer({ min: 1, max: 100 }))
})

const marks = fc.record({ high: fc.nat(60), low: fc.nat(60) })

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 10, arbitrary: write },
  {
    weight: 6,
    arbitrary: fc.record({ _tag: fc.constant("accept" as const), bytes: fc.integer({ min: 1, max: 80 }) })
  },
  {
    weight: 3,
    arbitrary: fc.record({ _tag: fc.constant("interrupt" as const), producer: fc.nat(producers - 1) })
  },
  {
    weight: 1,
    arbitrary: fc.record({ _tag: fc.constant("watermarks" as const), high: fc.nat(60), low: fc.nat(60) })
  },
  {
    weight: 2,
    arbitrary: fc.record({ _tag: fc.constant("clock" as const), millis: fc.integer({ min: 1, max: 60 }) })
  },
  { weight: 4, arbitrary: fc.constant({ _tag: "yield" } as const) },
  {
    weight: 1,
    arbitrary: fc.record({ _tag: fc.constant("wait" as const), on: fc.constantFrom("drain", "flush") })
  }
)

const scenario = fc.record({
  marks,
  // Whether fibers yield at every few operations, so that anything may happen between any two.
  operations: fc.oneof(fc.constant(2048), fc.integer({ min: 3, max: 12 })),
  before: fc.array(step, { maxLength: 40 }),
  stop: fc.option(fc.constantFrom<Stop>("end", "close", "abort", "reset", "let go"), { nil: undefined }),
  after: fc.array(step, { maxLength: 15 })
})

type Scenario = typeof scenario extends fc.Arbitrary<infer A> ? A : never

interface Write {
  readonly id: number
  readonly producer: number
  readonly bytes: number
  readonly fiber: Started<void, unknown>
}

const ordered = ({ high, low }: { readonly high: number; readonly low: number }) => ({
  high: Math.max(high, low),
  low: Math.min(high, low)
})

/** The runs of equal bytes: every write consists of its own number, repeated. */
const runsOf = (bytes: Uint8Array): ReadonlyArray<{ readonly id: number; readonly length: number }> => {
  const runs: Array<{ id: number; length: number }> = []
  for (const byte of bytes) {
    const last = runs.at(-1)
    if (last?.id === byte) last.length++
    else runs.push({ id: byte, length: 1 })
  }
  return runs
}

const run = ({ after, before, marks, operations, stop }: Scenario) =>
  withSleepers((sleepers) =>
    Effect.gen(function* () {
      const transport = makeFake({ prompt: true })
      const connection = yield* Connection.make(transport, {
        watermarks: ordered(marks),
        closeTimeout: "1 hour"
      })
      const { writer } = connection
      transport.onWrite = () => {
        if (transport.bufferedBytes > writer.watermarks.high) throw new Error("written while congested")
      }
      const yielding = Effect.provideService(Scheduler.MaxOpsBeforeYield, operations)
      const writes: Array<Write> = []
      const waits: Array<Started<void, unknown>> = []
      // In the order in which the writes were made.
      const made: Array<number> = []
      let stopped: Stop | undefined
      let gone = false

      const perform = Effect.fnUntraced(function* (step: Step) {
        switch (step._tag) {
          case "write": {
            const id = writes.length + 1
            const previous = writes.findLast((_) => _.producer === step.producer)?.fiber.fiber
            const timed = Connection.withTimeouts(connection, { write: step.limit }).writer
            const chunks = step.sizes.map((length) => new Uint8Array(length).fill(id))
            const fiber = yield* start(
              Effect.gen(function* () {
                if (previous !== undefined) yield* Fiber.await(previous)
                made.push(id)
                yield* chunks.length === 1 && chunks[0] !== undefined
                  ? timed.write(chunks[0])
                  : timed.writeAll(chunks)
              }).pipe(yielding)
            )
            const bytes = step.sizes.reduce((sum, length) => sum + length, 0)
            writes.push({ id, producer: step.producer, bytes, fiber })
            return
          }
          case "accept":
            if (!gone) transport.accept(step.bytes)
            gone ||= stopped === "close" && transport.calls.includes("close") && transport.bufferedBytes === 0
            return
          case "interrupt": {
            const current = writes.find((_) => _.producer === step.producer && outcome(_.fiber) === "waiting")
            if (current !== undefined) yield* start(current.fiber.interrupt)
            return
          }
          case "watermarks":
            return yield* writer.setWatermarks(ordered(step))
          case "clock":
            return yield* TestClock.adjust(step.millis)
          case "yield":
            return yield* Effect.yieldNow
          case "wait":
            waits.push(yield* start(yielding(writer[step.on])))
            return
          case "stop": {
            stopped = step.how
            switch (step.how) {
              case "end":
                waits.push(yield* start(yielding(writer.end)))
                return
              case "close":
                yield* start(connection.close)
                transport.receiveEnd()
                gone = transport.bufferedBytes === 0
                return
              case "abort":
                gone = true
                yield* start(connection.abort)
                return
              case "reset":
                gone = true
                transport.reset()
                return
              case "let go":
                gone = true
                transport.letGo()
                return
            }
          }
        }
      })

      for (const step of before) yield* perform(step)
      if (stop !== undefined) yield* perform({ _tag: "stop", how: stop })
      for (const step of after) yield* perform(step)

      // The peer takes everything, until nobody writes any more.
      yield* turns
      for (let n = 0; n < 100 && !gone; n++) {
        yield* perform({ _tag: "accept", bytes: Infinity })
        yield* turns
      }
      yield* turns
      const settled = writes.map((_) => outcome(_.fiber))
      strictEqual(settled.includes("waiting"), false, `writes: ${settled.join(", ")}`)
      deepStrictEqual(waits.map(outcome).includes("waiting"), false)
      strictEqual(sleepers(), 0)

      // Each write whole and contiguous, at most once.
      const runs = runsOf(transport.written())
      const ids = runs.map((_) => _.id)
      strictEqual(new Set(ids).size, ids.length, "torn or doubled")
      for (const { id, length } of runs) strictEqual(length, writes[id - 1]?.bytes)

      // In order: each producer's, and all of them where no fiber yields.
      for (let producer = 0; producer < producers; producer++) {
        const own = ids.filter((id) => writes[id - 1]?.producer === producer)
        deepStrictEqual(
          own,
          own.toSorted((a, b) => a - b)
        )
      }
      if (operations === 2048) {
        deepStrictEqual(
          ids,
          made.filter((id) => ids.includes(id))
        )
      }

      // What succeeded was sent; what was refused was not.
      const sent = new Set(ids)
      for (const { bytes, fiber, id } of writes) {
        const result = outcome(fiber)
        if (result === "success" && bytes > 0) strictEqual(sent.has(id), true, `lost ${id}`)
        if (result === "BrokenPipe") strictEqual(sent.has(id), false, `sent ${id}`)
        if (result.startsWith("defect")) throw new Error(result)
      }

      // Without a failure, a write that was not interrupted or timed out succeeded, unless it came after the end.
      const allowed = new Set(["success", "interrupted", "TimeoutError write"])
      if (stopped === "end") allowed.add("BrokenPipe")
      if (stopped === undefined || stopped === "end") {
        deepStrictEqual(
          settled.filter((result) => !allowed.has(result)),
          []
        )
      }
      const last = transport.calls.findLast((call) => call.startsWith("write") || call === "end")
      if (stopped === "end") strictEqual(last, "end")
      transport.finish()
    }).pipe(Effect.scoped)
  )

describe("StreamWriter", () => {
  it("keeps its laws, whatever its users, its peer and its connection do", async () => {
    await fc.assert(
      fc.asyncProperty(scenario, (given) => Effect.runPromise(Effect.provide(run(given), TestClock.layer()))),
      { numRuns: 400 }
    )
  })
})
