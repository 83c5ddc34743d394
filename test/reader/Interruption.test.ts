import { deepStrictEqual } from "@effect/vitest/utils"
import { Cause, Effect, Exit, type Fiber, Scheduler } from "effect"
import { describe, it } from "vitest"
import type { StreamReader } from "effect-wire"
import { delayed } from "../support/effects.ts"
import { given } from "../support/reader.ts"

// A fiber yields when it has done so many operations in a row, wherever that may be: also between an attempt of a read to
// take bytes and what comes after it. Here every such place is visited, with what may happen there.

/**
 * Runs an effect after `before` operations; it yields after every `maxOps` of them, until the next `step`. A scheduler
 * may do so by a rule of its own, of which the fiber knows nothing: then `announced` is something else.
 */
const steppedFiber = <A, E>(
  effect: Effect.Effect<A, E>,
  before: number,
  maxOps: number,
  announced = maxOps
) => {
  const tasks: Array<() => void> = []
  const scheduler: Scheduler.Scheduler = {
    executionMode: "async",
    shouldYield: (fiber) => fiber.currentOpCount >= maxOps,
    makeDispatcher: () => ({
      scheduleTask: (task) => {
        tasks.push(task)
      },
      flush() {}
    })
  }
  const fiber: Fiber.Fiber<A, E> = Effect.runFork(
    Effect.provideService(delayed(effect, before), Scheduler.MaxOpsBeforeYield, announced),
    { scheduler }
  )
  return { fiber, step: () => tasks.shift()?.() }
}

const reads: Record<string, (reader: StreamReader.StreamReader) => Effect.Effect<unknown, unknown>> = {
  read: (reader) => reader.read(),
  "read(5)": (reader) => reader.read(5),
  readInto: (reader) => reader.readInto(new Uint8Array(5)),
  readExactly: (reader) => reader.readExactly(5),
  readUntil: (reader) => reader.readUntil("\r\n"),
  readLine: (reader) => reader.readLine,
  readLineString: (reader) => reader.readLineString,
  skip: (reader) => reader.skip(5),
  skipUntil: (reader) => reader.skipUntil("\n")
}

interface Place {
  readonly before: number
  readonly steps: number
  readonly maxOps: number
  readonly announced?: number
}

const places = function* (): Generator<Place> {
  for (let before = 0; before < 60; before++) {
    for (let steps = 0; steps < 6; steps++) yield { before, steps, maxOps: 24 }
  }
  // As it is unless it is set.
  for (let before = 2000; before < 2060; before++) {
    for (let steps = 0; steps < 3; steps++) yield { before, steps, maxOps: 2048 }
  }
}

// A wake-up must not be lost whatever the scheduler's rule.
const anyPlaces = function* (): Generator<Place> {
  yield* places()
  for (let before = 0; before < 40; before++) {
    for (let steps = 0; steps < 12; steps++) yield { before, steps, maxOps: 8, announced: 2048 }
  }
}

describe("a read that yields", () => {
  for (const [name, read] of Object.entries(reads)) {
    it(`${name}: interrupted there, it has its bytes or left them all`, () => {
      for (const { before, maxOps, steps } of places()) {
        const { reader } = given({ chunks: ["one", "\r\n"] })
        const { fiber, step } = steppedFiber(read(reader), before, maxOps)
        for (let i = 0; i < steps; i++) step()
        fiber.interruptUnsafe()
        while (fiber.pollUnsafe() === undefined) step()
        const exit = fiber.pollUnsafe()
        const left = Effect.runSync(reader.bufferedBytes)
        const expected = exit !== undefined && Exit.isSuccess(exit) ? 0 : 5
        deepStrictEqual({ before, steps, left }, { before, steps, left: expected })
      }
    })

    it(`${name}: bytes that come there do not pass it by`, () => {
      for (const { announced, before, maxOps, steps } of anyPlaces()) {
        const { feed, reader } = given()
        const { fiber, step } = steppedFiber(read(reader), before, maxOps, announced)
        for (let i = 0; i < steps; i++) step()
        feed("one\r\n")
        for (let i = 0; i < 200; i++) step()
        deepStrictEqual({ before, steps, exit: fiber.pollUnsafe()?._tag }, { before, steps, exit: "Success" })
      }
    })

    it(`${name}: an end of input that comes there does not pass it by`, () => {
      for (const { announced, before, maxOps, steps } of anyPlaces()) {
        const { feedEof, reader } = given()
        const { fiber, step } = steppedFiber(read(reader), before, maxOps, announced)
        for (let i = 0; i < steps; i++) step()
        feedEof()
        for (let i = 0; i < 200; i++) step()
        const exit = fiber.pollUnsafe()
        const settled = exit !== undefined && (Exit.isSuccess(exit) || !Cause.hasInterrupts(exit.cause))
        deepStrictEqual({ before, steps, settled }, { before, steps, settled: true })
      }
    })
  }
})
