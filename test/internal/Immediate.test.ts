import { assert, describe, it } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Cause, Effect, Exit, Fiber, Scheduler } from "effect"
import { Connection, StreamReader } from "effect-wire"
import { outcome, start, turns, turnsOfOthers } from "../support/effects.ts"
import { bytes, text } from "../support/reader.ts"

// Far more than a fiber takes in a row.
const MANY = 100_000

/** A reader that gives no bytes, again and again. */
const ended = (): StreamReader.StreamReader => {
  const { feedEof, reader } = StreamReader.feedable()
  feedEof()
  return reader
}

const repeating = (effect: Effect.Effect<unknown, unknown>, times: number) =>
  Effect.gen(function* () {
    for (let i = 0; i < times; i++) yield* effect
  })

describe("an operation that can end at once", () => {
  it.effect("lets other fibers run", () =>
    Effect.gen(function* () {
      const [connection] = yield* Connection.pair()
      for (const operation of [ended().read(), ended().readLine, connection.writer.write("")]) {
        assert.isAtLeast(yield* turnsOfOthers(repeating(operation, MANY)), 20)
      }
    })
  )

  it.effect("as often as the fiber's own rule says", () =>
    Effect.gen(function* () {
      const often = turnsOfOthers(repeating(ended().read(), MANY)).pipe(
        Effect.provideService(Scheduler.MaxOpsBeforeYield, 100)
      )
      assert.isAtLeast(yield* often, 500)
      const never = turnsOfOthers(
        Effect.provideService(repeating(ended().read(), MANY), Scheduler.PreventSchedulerYield, true)
      )
      assert.isAtMost(yield* never, 2)
    })
  )

  it.effect("can be interrupted between two of its kind", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(repeating(ended().read(), MANY))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(fiber)
      const exit = yield* Fiber.await(fiber)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
    })
  )

  it.effect("runs anew each time, and not before its turn", () =>
    Effect.gen(function* () {
      const { feed, reader } = StreamReader.feedable()
      const read = reader.readExactly(2)
      feed(bytes("abcde"))
      strictEqual(text(yield* read), "ab")
      strictEqual(text(yield* read), "cd")
      const first = yield* start(read)
      const second = yield* start(
        Effect.gen(function* () {
          return text(yield* reader.read(1))
        })
      )
      strictEqual(outcome(second), "waiting")
      feed(bytes("fg"))
      yield* turns
      deepStrictEqual(second.exit(), Exit.succeed("g"))
      deepStrictEqual(Exit.map(first.exit() ?? Exit.die("waits"), text), Exit.succeed("ef"))
    })
  )

  it.effect("fails as an effect does", () =>
    Effect.gen(function* () {
      const failing = Effect.gen(function* () {
        yield* ended().readExactly(1)
      })
      strictEqual((yield* Effect.flip(failing))._tag, "IncompleteReadError")
      const { feed, reader } = StreamReader.feedable({ limit: 4 })
      feed(bytes("too long a line"))
      const caught = Effect.gen(function* () {
        return yield* Effect.catchTag(reader.readLine, "LimitOverrunError", ({ consumed }) =>
          reader.read(consumed)
        )
      })
      strictEqual(text(yield* caught), "too long a line")
    })
  )

  it("does nothing where no fiber runs", () => {
    const { feed, reader } = StreamReader.feedable()
    feed(bytes("kept"))
    reader.readExactly(2)[Symbol.iterator]().next()
    strictEqual(Effect.runSync(reader.bufferedBytes), 4)
  })
})
