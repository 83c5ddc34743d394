import { it } from "@effect/vitest"
import { assertInclude, assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Cause, Duration, Effect, Exit, Fiber, Queue, Scheduler, Scope, type Sink, Stream } from "effect"
import { TestClock } from "effect/testing"
import { describe, expectTypeOf } from "vitest"
import { Connection, type StreamError, StreamWriter } from "effect-wire"
import { connect, outcome, outcomeOf, pair, start, turns, withSleepers } from "./support/effects.ts"

const kilobytes = (n: number) => "x".repeat(n * 1024)

const small = { watermarks: { high: 10, low: 2 } }

// Bytes that take the transport above `high: 10`, and fibers that wait behind them.
const congested = Effect.fnUntraced(function* (options?: Connection.Options) {
  const made = yield* connect({ ...small, ...options })
  const first = yield* start(made.writer.write("0123456789ab"))
  made.transport.takeCalls()
  return { ...made, first }
})

describe("W: watermarks", () => {
  it.effect("W-001: 65,536 and 16,384 bytes by default", () =>
    Effect.gen(function* () {
      const { writer } = yield* connect()
      deepStrictEqual(writer.watermarks, { high: 65_536, low: 16_384 })
    })
  )

  it.effect("W-002: exactly `high` bytes do not suspend, one more does", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect()
      strictEqual(yield* outcomeOf(writer.write(kilobytes(64))), "success")
      strictEqual(yield* outcomeOf(writer.drain), "success")
      const write = yield* start(writer.write("y"))
      strictEqual(outcome(write), "waiting")
      strictEqual(transport.bufferedBytes, 65_537)
    })
  )

  it.effect("W-003: suspended writers go on at `low` bytes, not at one more", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect()
      const write = yield* start(writer.write("x".repeat(65_537)))
      const drain = yield* start(writer.drain)
      transport.accept(65_537 - 16_385)
      deepStrictEqual(
        [yield* writer.bufferedBytes, outcome(write), outcome(drain)],
        [16_385, "waiting", "waiting"]
      )
      transport.accept(1)
      deepStrictEqual(
        [yield* writer.bufferedBytes, outcome(write), outcome(drain)],
        [16_384, "success", "success"]
      )
    })
  )

  it.effect(
    "W-004: `low` is a quarter of `high` unless given; marks out of range are RangeError defects",
    () =>
      Effect.gen(function* () {
        const { writer } = yield* connect()
        const marks = Effect.fnUntraced(function* (given: { high: number; low?: number }) {
          yield* writer.setWatermarks(given)
          return writer.watermarks
        })
        deepStrictEqual(yield* marks({ high: 0 }), { high: 0, low: 0 })
        deepStrictEqual(yield* marks({ high: 10 }), { high: 10, low: 2 })
        deepStrictEqual(yield* marks({ high: 10, low: 10 }), { high: 10, low: 10 })
        for (const bad of [
          { high: 5, low: 10 },
          { high: -1 },
          { high: 5, low: -1 },
          { high: 1.5 },
          { high: 10, low: 0.5 },
          { high: NaN },
          { high: 5, low: NaN },
          { high: Infinity }
        ]) {
          const exit = yield* Effect.exit(writer.setWatermarks(bad))
          assertTrue(
            Exit.isFailure(exit) && Cause.squash(exit.cause) instanceof RangeError,
            JSON.stringify(bad)
          )
        }
        deepStrictEqual(writer.watermarks, { high: 10, low: 10 })
      })
  )

  it.effect("W-004: with high 0 every buffered byte suspends", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect({ watermarks: { high: 0 } })
      const write = yield* start(writer.write("x"))
      strictEqual(outcome(write), "waiting")
      transport.accept()
      strictEqual(outcome(write), "success")
    })
  )

  it.effect("raising the low mark lets suspended writers go on, lowering the high one suspends", () =>
    Effect.gen(function* () {
      const { first, transport, writer } = yield* congested()
      const second = yield* start(writer.write("cd"))
      yield* writer.setWatermarks({ high: 100, low: 5 })
      deepStrictEqual([outcome(first), outcome(second), transport.calls.length], ["waiting", "waiting", 0])
      yield* writer.setWatermarks({ high: 100, low: 12 })
      deepStrictEqual([outcome(first), outcome(second)], ["success", "success"])
      strictEqual(transport.text(), "0123456789abcd")
      yield* writer.setWatermarks({ high: 1 })
      const drain = yield* start(writer.drain)
      strictEqual(outcome(drain), "waiting")
      transport.accept()
      strictEqual(outcome(drain), "success")
    })
  )
})

describe("W: writing", () => {
  it.effect("W-005: text is sent as UTF-8", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      yield* left.writer.writeAll(["grüß ", Uint8Array.of(0xe2, 0x82, 0xac)])
      yield* left.writer.end
      strictEqual(new TextDecoder().decode(yield* right.reader.readAll()), "grüß €")
    })
  )

  it.effect("W-006: an empty write does nothing, also while congested", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      yield* writer.write("")
      yield* writer.write(new Uint8Array(0))
      yield* writer.writeAll(["", new Uint8Array(0)])
      deepStrictEqual(transport.calls, [])
    })
  )

  it.effect("W-007: an uncongested write goes to the transport at once, without suspending", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect(small, { room: 100 })
      transport.takeCalls()
      deepStrictEqual(Effect.runSyncExit(writer.write("abc")), Exit.void)
      deepStrictEqual([transport.takeCalls(), transport.bufferedBytes], [["write abc"], 0])
    })
  )

  it.effect("W-008: what the system does not take at once is counted and sent later", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect(undefined, { room: 2 })
      yield* writer.write("12345")
      strictEqual(yield* writer.bufferedBytes, 3)
      const flush = yield* start(writer.flush)
      strictEqual(outcome(flush), "waiting")
      transport.accept(2)
      strictEqual(outcome(flush), "waiting")
      transport.accept(1)
      strictEqual(outcome(flush), "success")
      strictEqual(transport.text(), "12345")
    })
  )

  it.effect("W-009: writes behind buffered bytes keep their order", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      const letters = ["c", "d", "e"]
      const writes = yield* Effect.forEach(letters, (letter) => start(writer.write(letter)))
      deepStrictEqual([writes.map(outcome), transport.calls], [["waiting", "waiting", "waiting"], []])
      transport.accept()
      deepStrictEqual(writes.map(outcome), ["success", "success", "success"])
      strictEqual(transport.text(), "0123456789abcde")
    })
  )

  it.effect("W-010: a transport that takes nothing has all of the write buffered", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect()
      yield* writer.write("abc")
      deepStrictEqual([transport.bufferedBytes, yield* writer.bufferedBytes], [3, 3])
    })
  )

  it.effect(
    "W-011: a failed send fails the suspended write, the reader, drain and closed alike; later writes too",
    () =>
      Effect.gen(function* () {
        const { connection, first, reader, transport, writer } = yield* congested()
        const waiting = yield* Effect.all([
          start(writer.write("c")),
          start(writer.drain),
          start(reader.read()),
          start(connection.closed)
        ])
        const error = transport.reset()
        for (const { exit } of [first, ...waiting]) deepStrictEqual(exit(), Exit.fail(error))
        deepStrictEqual(yield* Effect.exit(writer.write("d")), Exit.fail(error))
        strictEqual(transport.text(), "0123456789ab")
      })
  )

  it.effect("W-012: every write after the loss fails, and logs nothing", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect()
      const error = transport.reset()
      for (let n = 0; n < 7; n++) deepStrictEqual(yield* Effect.exit(writer.write("x")), Exit.fail(error))
    })
  )

  it.effect("W-013: writeAll hands its chunks on in one call", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect()
      transport.takeCalls()
      yield* writer.writeAll(new Set(["a", "", "b", "c"]))
      deepStrictEqual(transport.calls, ["writeAll a|b|c"])
    })
  )

  it.effect("W-014: what the system leaves of a writeAll is sent in order", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect(small, { room: 4 })
      const write = yield* start(writer.writeAll(["01234", "56789", "abcde"]))
      deepStrictEqual([outcome(write), yield* writer.bufferedBytes], ["waiting", 11])
      transport.accept()
      strictEqual(outcome(write), "success")
      strictEqual(transport.text(), "0123456789abcde")
    })
  )

  it.effect("W-015: writeAll of nothing does nothing", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect()
      transport.takeCalls()
      yield* writer.writeAll([])
      deepStrictEqual(transport.calls, [])
    })
  )

  it.effect("W-016: a writeAll that takes the transport above `high` suspends", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect(small)
      const write = yield* start(writer.writeAll(["012345", "678901"]))
      strictEqual(outcome(write), "waiting")
      const second = yield* start(writer.writeAll(["a", "b"]))
      strictEqual(transport.bufferedBytes, 12)
      transport.accept(10)
      deepStrictEqual([outcome(write), outcome(second)], ["success", "success"])
      strictEqual(transport.text(), "012345678901ab")
    })
  )

  it.effect("a writeAll behind others is one call when its turn comes", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      yield* start(writer.writeAll(["c", "d"]))
      yield* start(writer.write("e"))
      transport.accept()
      deepStrictEqual(transport.calls, ["writeAll c|d", "writeAll e"])
    })
  )

  it.effect("queued writes go on up to the high mark, and no further", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      const writes = yield* Effect.forEach(["cccccc", "dddddd", "eeeeee"], (text) =>
        start(writer.write(text))
      )
      transport.accept()
      deepStrictEqual(transport.calls, ["writeAll cccccc", "writeAll dddddd"])
      // What the transport took is drained together.
      deepStrictEqual(writes.map(outcome), ["waiting", "waiting", "waiting"])
      transport.accept()
      deepStrictEqual(writes.map(outcome), ["success", "success", "success"])
      strictEqual(transport.text(), "0123456789abccccccddddddeeeeee")
    })
  )

  it.effect("W-017: an uncongested drain and an idle flush return without suspending", () =>
    Effect.gen(function* () {
      const { writer } = yield* connect()
      deepStrictEqual(Effect.runSyncExit(writer.drain), Exit.void)
      deepStrictEqual(Effect.runSyncExit(writer.flush), Exit.void)
    })
  )

  it.effect("W-018: a loop of writes to a peer that closed ends with an error", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      yield* Effect.forkChild(right.close, { startImmediately: true })
      const loop = yield* start(
        Effect.forever(Effect.andThen(left.writer.write(kilobytes(1)), left.writer.drain))
      )
      yield* TestClock.adjust("5 seconds")
      yield* turns
      strictEqual(outcome(loop), "ConnectionReset")
    })
  )

  it.effect("W-019: ten drains wait and return together", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      const drains = yield* Effect.forEach(Array.from({ length: 10 }), () => start(writer.drain))
      deepStrictEqual(new Set(drains.map(outcome)), new Set(["waiting"]))
      transport.accept(10)
      deepStrictEqual(new Set(drains.map(outcome)), new Set(["success"]))
    })
  )

  it.effect("W-020: an abort fails waiting drains, and later ones", () =>
    Effect.gen(function* () {
      const { connection, first, transport, writer } = yield* congested()
      const drains = yield* Effect.all([start(writer.drain), start(writer.drain), start(writer.flush)])
      const queued = yield* start(writer.write("c"))
      const abort = yield* start(connection.abort)
      deepStrictEqual(
        [...drains, first, queued].map(outcome),
        Array.from({ length: 5 }, () => "ConnectionAborted")
      )
      strictEqual(yield* outcomeOf(writer.drain), "ConnectionAborted")
      strictEqual(yield* outcomeOf(writer.flush), "ConnectionAborted")
      strictEqual(outcome(abort), "waiting")
      transport.letGo()
      strictEqual(outcome(abort), "success")
      strictEqual(yield* outcomeOf(writer.drain), "ConnectionAborted")
    })
  )

  it.effect("W-021: a waiting drain fails with the connection's error", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      const drain = yield* start(writer.drain)
      deepStrictEqual(drain.exit(), undefined)
      const error = transport.reset()
      deepStrictEqual(drain.exit(), Exit.fail(error))
    })
  )

  it.effect("W-022: drain and flush after a clean loss fail with ConnectionClosed", () =>
    Effect.gen(function* () {
      const { connection, transport, writer } = yield* connect()
      yield* start(connection.close)
      transport.receiveEnd()
      transport.letGo()
      strictEqual(yield* outcomeOf(writer.drain), "ConnectionClosed")
      strictEqual(yield* outcomeOf(writer.flush), "ConnectionClosed")
      // A transport that the peer's end takes along, such as a WebSocket.
      const other = yield* connect(undefined, { canEnd: false })
      other.transport.receiveEnd()
      other.transport.letGo()
      strictEqual(yield* outcomeOf(other.writer.drain), "ConnectionClosed")
    })
  )

  it.effect("W-023: drain fails with the connection's failure though nothing is buffered", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect()
      const error = transport.reset()
      deepStrictEqual(yield* Effect.exit(writer.drain), Exit.fail(error))
      deepStrictEqual(yield* Effect.exit(writer.flush), Exit.fail(error))
      deepStrictEqual(yield* Effect.exit(writer.end), Exit.fail(error))
    })
  )

  it.effect("W-024: a write after close fails with ConnectionClosed", () =>
    Effect.gen(function* () {
      const [left] = yield* pair()
      yield* start(left.close)
      strictEqual(yield* outcomeOf(left.writer.write("data")), "ConnectionClosed")
      strictEqual(yield* outcomeOf(left.writer.writeAll(["data"])), "ConnectionClosed")
    })
  )

  it.effect("W-025: also with nothing buffered, and an empty write too", () =>
    Effect.gen(function* () {
      const { connection, transport, writer } = yield* connect()
      yield* start(connection.close)
      strictEqual(yield* outcomeOf(writer.write("data")), "ConnectionClosed")
      strictEqual(yield* outcomeOf(writer.write("")), "ConnectionClosed")
      strictEqual(yield* outcomeOf(writer.writeAll([])), "ConnectionClosed")
      strictEqual(transport.text(), "")
    })
  )

  it.effect("W-026: a write after close fails while bytes are still on their way, which arrive", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair({ watermarks: { high: 1 << 20 } })
      yield* left.writer.write("x".repeat(200_000))
      const close = yield* start(left.close)
      strictEqual(yield* outcomeOf(left.writer.write("LATE")), "ConnectionClosed")
      strictEqual((yield* right.reader.readAll()).length, 200_000)
      strictEqual(outcome(close), "waiting")
      yield* right.close
      yield* Fiber.join(close.fiber)
    })
  )

  it.effect("W-027: drain and flush during a close wait for what was written, and return", () =>
    Effect.gen(function* () {
      const { connection, first, transport, writer } = yield* congested()
      const close = yield* start(connection.close)
      const drain = yield* start(writer.drain)
      const flush = yield* start(writer.flush)
      transport.accept(10)
      deepStrictEqual([first, drain, flush].map(outcome), ["success", "success", "waiting"])
      transport.accept()
      deepStrictEqual([flush, close].map(outcome), ["success", "waiting"])
    })
  )
})

describe("W: the end", () => {
  it.effect("W-028: with nothing queued, the transport is ended at once", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect()
      transport.takeCalls()
      yield* writer.end
      deepStrictEqual(transport.calls, ["end"])
    })
  )

  it.effect("W-029: with writes queued, the transport is ended after them", () =>
    Effect.gen(function* () {
      const { first, transport, writer } = yield* congested()
      const write = yield* start(writer.write("cdefghijklmn"))
      const last = yield* start(writer.write("o"))
      const end = yield* start(writer.end)
      deepStrictEqual([transport.calls, outcome(end)], [[], "waiting"])
      transport.accept()
      deepStrictEqual(
        [[first, write, last, end].map(outcome), transport.calls],
        [["success", "waiting", "waiting", "waiting"], ["writeAll cdefghijklmn"]]
      )
      transport.accept()
      deepStrictEqual([write, last, end].map(outcome), ["success", "success", "success"])
      deepStrictEqual(transport.calls, ["writeAll cdefghijklmn", "writeAll o", "end"])
    })
  )

  it.effect("W-030: ending twice does nothing, at any time", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      const ends = yield* Effect.all([start(writer.end), start(writer.end)])
      deepStrictEqual(ends.map(outcome), ["success", "success"])
      const write = yield* start(writer.end)
      strictEqual(outcome(write), "success")
      transport.accept()
      yield* writer.end
      deepStrictEqual(transport.calls, ["end"])
    })
  )

  it.effect("W-030: and while writes are queued both wait for them", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      yield* start(writer.write("c"))
      const ends = yield* Effect.all([start(writer.end), start(writer.end)])
      deepStrictEqual(ends.map(outcome), ["waiting", "waiting"])
      transport.accept()
      deepStrictEqual(ends.map(outcome), ["success", "success"])
      deepStrictEqual(transport.calls, ["writeAll c", "end"])
    })
  )

  it.effect("W-031: every write after the end fails with BrokenPipe, an empty one too", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect()
      yield* writer.end
      strictEqual(yield* outcomeOf(writer.write("x")), "BrokenPipe")
      strictEqual(yield* outcomeOf(writer.write("")), "BrokenPipe")
      strictEqual(yield* outcomeOf(writer.writeAll(["x"])), "BrokenPipe")
      strictEqual(transport.text(), "")
    })
  )

  it.effect("W-031: from the moment of the end, also while earlier writes wait", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      yield* start(writer.write("c"))
      yield* start(writer.end)
      strictEqual(yield* outcomeOf(writer.write("d")), "BrokenPipe")
      transport.accept()
      strictEqual(transport.text(), "0123456789abc")
    })
  )

  it.effect("W-032: end after close does nothing", () =>
    Effect.gen(function* () {
      const { connection, transport, writer } = yield* connect()
      transport.takeCalls()
      yield* start(connection.close)
      yield* writer.end
      deepStrictEqual(transport.calls, ["end", "resume"])
    })
  )

  it.effect("W-033: after the end the peer reads all of it and can still answer", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      yield* left.writer.write("hi")
      yield* left.writer.end
      deepStrictEqual(new TextDecoder().decode(yield* right.reader.readAll()), "hi")
      yield* right.writer.write("reply")
      deepStrictEqual(new TextDecoder().decode(yield* left.reader.read()), "reply")
    })
  )

  it.effect("W-034: drain and flush after the end return", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect()
      yield* writer.write("abc")
      yield* writer.end
      yield* writer.drain
      const flush = yield* start(writer.flush)
      strictEqual(outcome(flush), "waiting")
      transport.accept()
      strictEqual(outcome(flush), "success")
    })
  )

  it.effect("W-034: also once both directions have ended in order", () =>
    Effect.gen(function* () {
      const { connection, transport, writer } = yield* connect()
      yield* writer.write("abc")
      yield* writer.end
      transport.receiveEnd()
      transport.accept()
      transport.letGo()
      yield* connection.closed
      deepStrictEqual(
        [yield* outcomeOf(writer.drain), yield* outcomeOf(writer.flush), yield* outcomeOf(writer.end)],
        ["success", "success", "success"]
      )
      strictEqual(yield* outcomeOf(writer.write("x")), "BrokenPipe")
    })
  )

  it.effect("W-035: a transport without half-close says so, and end fails with Unsupported", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect(undefined, { canEnd: false })
      strictEqual(writer.canEnd, false)
      const error = yield* Effect.flip(writer.end)
      assertInclude(error.message, "a fake connection cannot be closed for writing alone")
      strictEqual(outcome(Exit.fail(error)), "Unsupported")
      yield* writer.write("still")
      strictEqual(transport.text(), "still")
      strictEqual((yield* connect()).writer.canEnd, true)
    })
  )

  it.effect("an interrupted end still ends the direction", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      yield* start(writer.write("c"))
      const end = yield* start(writer.end)
      yield* end.interrupt
      transport.accept()
      deepStrictEqual(transport.calls, ["writeAll c", "end"])
    })
  )

  it.effect("when the last queued write is interrupted, the end goes out", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      const write = yield* start(writer.write("c"))
      const end = yield* start(writer.end)
      yield* write.interrupt
      strictEqual(outcome(end), "success")
      deepStrictEqual(transport.calls, ["end"])
    })
  )

  it.effect("writes queued before the end fail with the connection's own error, not with BrokenPipe", () =>
    Effect.gen(function* () {
      const { first, transport, writer } = yield* congested()
      const write = yield* start(writer.write("c"))
      const end = yield* start(writer.end)
      const error = transport.reset()
      for (const { exit } of [first, write, end]) deepStrictEqual(exit(), Exit.fail(error))
    })
  )
})

describe("W: congestion", () => {
  it.effect("W-036: the peer gets the bytes as they were when written, in memory", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair({ capacity: 0, watermarks: { high: 10 } })
      const chunk = new TextEncoder().encode("before")
      yield* left.writer.write(chunk)
      chunk.set(new TextEncoder().encode("after!"))
      strictEqual(new TextDecoder().decode(yield* right.reader.readExactly(6)), "before")
    })
  )

  it.effect("W-037: 1 MiB to a peer that does not read suspends, and interrupting it sends all of it", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair({ limit: 1024 })
      const write = yield* start(left.writer.write(kilobytes(1024)))
      yield* turns
      strictEqual(outcome(write), "waiting")
      yield* write.interrupt
      yield* left.writer.end
      strictEqual((yield* right.reader.readAll()).length, 1024 * 1024)
    })
  )

  it.effect("W-038: the pieces of one write stay together", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect({ watermarks: { high: 4, low: 1 } })
      const writes = yield* Effect.forEach(["a", "b", "c", "d"], (letter) =>
        start(writer.writeAll(Array.from({ length: 3 }, () => letter)))
      )
      while (transport.bufferedBytes > 0) transport.accept(1)
      deepStrictEqual(writes.map(outcome), ["success", "success", "success", "success"])
      strictEqual(transport.text(), "aaabbbcccddd")
    })
  )

  it.effect(
    "a drain returns once the low mark was reached, though writers in the queue congest anew; flush does not",
    () =>
      Effect.gen(function* () {
        const { first, transport, writer } = yield* congested()
        const second = yield* start(writer.write("0123456789ab"))
        const drain = yield* start(writer.drain)
        const flush = yield* start(writer.flush)
        transport.accept()
        strictEqual(transport.bufferedBytes, 12)
        deepStrictEqual([first, second, drain, flush].map(outcome), [
          "success",
          "waiting",
          "success",
          "waiting"
        ])
        transport.accept()
        deepStrictEqual([second, flush].map(outcome), ["success", "success"])
      })
  )

  it.effect("a flush by a writer whose turn has come waits for its own bytes", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      const flushed = yield* start(Effect.andThen(writer.write("c"), writer.flush))
      transport.accept()
      deepStrictEqual([outcome(flushed), transport.text()], ["waiting", "0123456789abc"])
      transport.accept()
      strictEqual(outcome(flushed), "success")
    })
  )

  it.effect("a writer that goes on as it is resumed queues behind those that wait", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect(small)
      const greedy = yield* start(
        Effect.andThen(
          writer.write("0123456789ab"),
          Effect.andThen(writer.write("AAAAAAAAAAAA"), writer.write("A"))
        )
      )
      const patient = yield* start(Effect.andThen(writer.write("pppppppppppp"), writer.write("p")))
      for (let n = 0; n < 5; n++) transport.accept()
      deepStrictEqual([greedy, patient].map(outcome), ["success", "success"])
      strictEqual(transport.text(), "0123456789abppppppppppppAAAAAAAAAAAApA")
    })
  )

  it.effect("what resumed writers write does not overrun the high mark by more than a write", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect(small)
      let worst = 0
      transport.onWrite = () => {
        worst = Math.max(worst, transport.bufferedBytes)
      }
      const writers = yield* Effect.forEach(Array.from({ length: 20 }), () =>
        start(Effect.andThen(writer.write("0123456789ab"), writer.write("0123456789ab")))
      )
      for (let n = 0; n < 100; n++) transport.accept(3 + (n % 5))
      transport.accept()
      while (transport.bufferedBytes > 0) transport.accept()
      deepStrictEqual(new Set(writers.map(outcome)), new Set(["success"]))
      assertTrue(worst <= 10, `${worst}`)
      strictEqual(transport.text().length, 20 * 24)
    })
  )

  it.effect("a writer that is resumed may end the connection: the others fail, nobody is lost", () =>
    Effect.gen(function* () {
      const { connection, transport, writer } = yield* connect(small)
      const aborts = yield* start(Effect.andThen(writer.write("0123456789ab"), connection.abort))
      const others = yield* Effect.forEach(["c", "0123456789ab", "d"], (text) => start(writer.write(text)))
      transport.accept()
      deepStrictEqual(others.map(outcome), ["ConnectionAborted", "ConnectionAborted", "ConnectionAborted"])
      strictEqual(transport.text(), "0123456789ab")
      transport.letGo()
      strictEqual(outcome(aborts), "success")
    })
  )

  it.effect("a fiber that is resumed by a failure may use the writer, which refuses", () =>
    Effect.gen(function* () {
      const outcomes: Array<string> = []
      const { connection, reader, transport, writer } = yield* congested()
      const retry = Effect.flatMap(
        Effect.all([outcomeOf(writer.write("again")), outcomeOf(writer.drain), outcomeOf(writer.end)]),
        (found) => Effect.sync(() => outcomes.push(...found))
      )
      yield* start(Effect.ensuring(reader.read(), retry))
      yield* start(Effect.ensuring(writer.write("c"), retry))
      yield* start(Effect.ensuring(connection.closed, retry))
      transport.reset()
      deepStrictEqual(
        outcomes,
        Array.from({ length: 9 }, () => "ConnectionReset")
      )
      strictEqual(transport.text(), "0123456789ab")
    })
  )

  it.effect("once the connection has failed no waiter succeeds any more, whatever the others do", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      yield* start(Effect.ensuring(writer.drain, writer.setWatermarks({ high: 100, low: 100 })))
      const drain = yield* start(writer.drain)
      const error = transport.reset()
      deepStrictEqual(drain.exit(), Exit.fail(error))
    })
  )

  it.effect("a reader that a close or an abort wakes can write no more", () =>
    Effect.gen(function* () {
      for (const how of ["close", "abort"] as const) {
        const { connection, reader, transport, writer } = yield* connect()
        const answer = yield* start(Effect.catch(reader.read(), () => outcomeOf(writer.write("late"))))
        yield* start(connection[how])
        deepStrictEqual(
          answer.exit(),
          Exit.succeed(how === "close" ? "ConnectionClosed" : "ConnectionAborted")
        )
        strictEqual(transport.text(), "")
      }
    })
  )

  it.effect("no wake-up is lost, wherever a fiber yields", () =>
    Effect.gen(function* () {
      for (const limits of [{}, { writeTimeout: "1 minute" }, { idleTimeout: "1 minute" }] as const) {
        for (let ops = 3; ops < 24; ops++) {
          for (let when = 0; when < 12; when++) {
            const { connection, transport, writer } = yield* connect({ ...small, ...limits })
            const yielding = Effect.provideService(Scheduler.MaxOpsBeforeYield, ops)
            const fibers = yield* Effect.all([
              start(yielding(writer.write("0123456789ab"))),
              start(yielding(Effect.andThen(writer.write("cdefghijklmn"), writer.drain))),
              start(yielding(Effect.andThen(writer.write("o"), writer.flush)))
            ])
            for (let n = 0; n < when; n++) yield* Effect.yieldNow
            transport.accept()
            yield* turns
            transport.accept()
            yield* turns
            transport.accept()
            yield* turns
            deepStrictEqual(fibers.map(outcome), ["success", "success", "success"], `${ops} ${when}`)
            strictEqual(transport.text().length, 25)
            const last = yield* start(yielding(writer.write("0123456789ab")))
            const late = yield* start(yielding(writer.write("p")))
            const ended = yield* start(yielding(when % 2 === 0 ? writer.end : connection.abort))
            for (let n = 0; n < when; n++) yield* Effect.yieldNow
            transport.reset()
            yield* turns
            assertTrue(
              [last, late, ended].every((fiber) => outcome(fiber) !== "waiting"),
              `${ops} ${when}`
            )
          }
        }
      }
    })
  )
})

describe("X: interruption and concurrency", () => {
  it.effect("X-016: an interrupted drain leaves the bytes and the other drains alone", () =>
    Effect.gen(function* () {
      const { first, transport, writer } = yield* congested()
      const drains = yield* Effect.all([start(writer.drain), start(writer.drain), start(writer.drain)])
      yield* drains[1].interrupt
      deepStrictEqual(drains.map(outcome), ["waiting", "interrupted", "waiting"])
      transport.accept()
      deepStrictEqual([first, ...drains].map(outcome), ["success", "success", "interrupted", "success"])
      strictEqual(transport.text(), "0123456789ab")
    })
  )

  it.effect("X-022: two fibers' writes go out in the order in which they were made, each whole", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair({ watermarks: { high: 1000 }, capacity: 100, limit: 100 })
      const order: Array<string> = []
      const write = (letter: string) =>
        Effect.suspend(() => {
          order.push(letter)
          return left.writer.writeAll([letter.repeat(300), letter.repeat(300)])
        })
      const fibers = yield* Effect.forEach(["a", "b"], (letter) =>
        start(Effect.forEach([1, 2, 3], () => write(letter), { discard: true }))
      )
      const text = new TextDecoder().decode(yield* right.reader.readExactly(3600))
      strictEqual(text, order.map((letter) => letter.repeat(600)).join(""))
      yield* turns
      deepStrictEqual(fibers.map(outcome), ["success", "success"])
    })
  )

  it.effect(
    "X-028: a write interrupted in the queue sends nothing, one that the transport has sends all",
    () =>
      Effect.gen(function* () {
        const { first, transport, writer } = yield* congested()
        const [second, third, fourth] = yield* Effect.all([
          start(writer.writeAll(["cc", "cc"])),
          start(writer.writeAll(["dd", "dd"])),
          start(writer.writeAll(["ee", "ee"]))
        ])
        yield* first.interrupt
        yield* third.interrupt
        transport.accept()
        deepStrictEqual([first, second, third, fourth].map(outcome), [
          "interrupted",
          "success",
          "interrupted",
          "success"
        ])
        strictEqual(transport.text(), "0123456789abcccceeee")
      })
  )

  it.effect("X-028: between the turn of a write and its drain, interruption sends all", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested()
      const write = yield* start(writer.writeAll(["cccccc", "cccccc"]))
      transport.accept()
      strictEqual(outcome(write), "waiting")
      yield* write.interrupt
      transport.accept()
      strictEqual(transport.text(), "0123456789abcccccccccccc")
    })
  )

  it.effect("a write in an uninterruptible region is finished", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested({ writeTimeout: "1 minute" })
      const write = yield* start(Effect.uninterruptible(writer.write("c")))
      const interrupt = yield* start(write.interrupt)
      strictEqual(outcome(write), "waiting")
      transport.accept()
      strictEqual(transport.text(), "0123456789abc")
      yield* turns
      strictEqual(outcome(interrupt), "success")
    })
  )
})

describe("timeouts", () => {
  const timed = { ...small, writeTimeout: "1 second" } as const

  it.effect("a write that waits for its turn fails after writeTimeout, and sends nothing", () =>
    Effect.gen(function* () {
      const { first, transport, writer } = yield* congested(timed)
      yield* TestClock.adjust("500 millis")
      const second = yield* start(writer.write("c"))
      yield* TestClock.adjust("499 millis")
      deepStrictEqual([first, second].map(outcome), ["waiting", "waiting"])
      yield* TestClock.adjust("1 millis")
      deepStrictEqual([first, second].map(outcome), ["TimeoutError write", "waiting"])
      const third = yield* start(writer.write("d"))
      yield* TestClock.adjust("500 millis")
      deepStrictEqual([second, third].map(outcome), ["TimeoutError write", "waiting"])
      transport.accept()
      yield* turns
      strictEqual(outcome(third), "success")
      strictEqual(transport.text(), "0123456789abd")
      yield* start(writer.write("x".repeat(11)))
      const last = yield* start(Effect.flip(writer.write("e")))
      yield* TestClock.adjust("1 second")
      const error = yield* Fiber.join(last.fiber)
      assertTrue(error._tag === "TimeoutError")
      deepStrictEqual([error.operation, error.duration], ["write", Duration.seconds(1)])
    })
  )

  it.effect("a write that was taken fails after writeTimeout while it drains, and all of it is sent", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* congested(timed)
      const write = yield* start(writer.write("cccccccccccc"))
      yield* TestClock.adjust("400 millis")
      transport.accept()
      yield* TestClock.adjust("599 millis")
      strictEqual(outcome(write), "waiting")
      yield* TestClock.adjust("1 millis")
      strictEqual(outcome(write), "TimeoutError write")
      transport.accept()
      strictEqual(transport.text(), "0123456789abcccccccccccc")
      yield* writer.write("d")
    })
  )

  it.effect("writes with a time limit keep their order in the queue", () =>
    Effect.gen(function* () {
      const { connection, transport, writer } = yield* congested(timed)
      const unlimited = Connection.withTimeouts(connection, { write: Duration.infinity }).writer
      const idle = Connection.withTimeouts(connection, { write: Duration.infinity, idle: "2 seconds" }).writer
      const writes = yield* Effect.forEach(Array.from({ length: 9 }), (_, n) =>
        start([writer, unlimited, idle][n % 3]!.write(`${n}`))
      )
      transport.accept()
      yield* turns
      deepStrictEqual(new Set(writes.map(outcome)), new Set(["success"]))
      strictEqual(transport.text(), "0123456789ab012345678")
    })
  )

  it.effect("drain, flush and end fail after writeTimeout; the connection stays usable", () =>
    Effect.gen(function* () {
      const { connection, transport, writer } = yield* congested(timed)
      yield* start(Connection.withTimeouts(connection, { write: "1 hour" }).writer.write("c"))
      const waiting = yield* Effect.all([start(writer.drain), start(writer.flush), start(writer.end)])
      yield* TestClock.adjust("1 second")
      deepStrictEqual(waiting.map(outcome), [
        "TimeoutError write",
        "TimeoutError write",
        "TimeoutError write"
      ])
      transport.accept()
      yield* turns
      deepStrictEqual([transport.calls, yield* outcomeOf(writer.end)], [["writeAll c", "end"], "success"])
    })
  )

  it.effect(
    "idleTimeout: a write that nobody takes fails with the operation idle; one that makes progress does not",
    () =>
      Effect.gen(function* () {
        const { first, transport, writer } = yield* congested({ idleTimeout: "1 second" })
        const second = yield* start(writer.write("c"))
        const flush = yield* start(writer.flush)
        yield* TestClock.adjust("900 millis")
        transport.accept(1)
        yield* TestClock.adjust("900 millis")
        transport.receive("news")
        yield* TestClock.adjust("999 millis")
        deepStrictEqual([first, second, flush].map(outcome), ["waiting", "waiting", "waiting"])
        yield* TestClock.adjust("1 millis")
        deepStrictEqual(
          [first, second, flush].map(outcome),
          Array.from({ length: 3 }, () => "TimeoutError idle")
        )
        transport.accept()
        strictEqual(transport.text(), "0123456789ab")
      })
  )

  it.effect("without a limit a write waits for ever, and no timer runs", () =>
    withSleepers((sleepers) =>
      Effect.gen(function* () {
        const { first, writer } = yield* congested({
          writeTimeout: Duration.infinity,
          idleTimeout: "Infinity"
        })
        const second = yield* start(writer.write("c"))
        yield* TestClock.adjust("365 days")
        deepStrictEqual([outcome(first), outcome(second), sleepers()], ["waiting", "waiting", 0])
      })
    )
  )

  it.effect("a timer runs only while an operation waits, and one for all", () =>
    withSleepers((sleepers) =>
      Effect.gen(function* () {
        const { connection, transport, writer } = yield* connect({ ...timed, idleTimeout: "3 seconds" })
        const seen: Array<number> = []
        const look = Effect.sync(() => seen.push(sleepers()))
        yield* writer.write("short")
        yield* writer.drain
        yield* look
        const write = yield* start(writer.write("0123456789ab"))
        yield* look
        const queued = yield* start(writer.write("c"))
        yield* start(writer.drain)
        const flush = yield* start(writer.flush)
        yield* start(writer.end)
        yield* look
        yield* flush.interrupt
        yield* queued.interrupt
        yield* write.interrupt
        yield* look
        transport.accept()
        yield* turns
        yield* look
        deepStrictEqual(seen, [0, 1, 1, 1, 0])
        const close = yield* start(connection.close)
        strictEqual(sleepers(), 1)
        transport.letGo()
        strictEqual(outcome(close), "success")
        strictEqual(sleepers(), 0)
      })
    )
  )

  it.effect("no timer is left by a failure, by a timeout, or by an interruption", () =>
    withSleepers((sleepers) =>
      Effect.gen(function* () {
        for (const how of ["reset", "timeout", "interrupt", "abort", "close"]) {
          const { connection, first, transport, writer } = yield* congested({
            ...timed,
            idleTimeout: "3 seconds"
          })
          const waiting = yield* Effect.all([
            start(writer.write("c")),
            start(writer.drain),
            start(writer.flush),
            start(writer.end)
          ])
          strictEqual(sleepers(), 1)
          if (how === "reset") transport.reset()
          else if (how === "timeout") yield* TestClock.adjust("1 second")
          else if (how === "interrupt") yield* Effect.forEach([first, ...waiting], (one) => one.interrupt)
          else yield* start(connection[how === "abort" ? "abort" : "close"])
          if (how === "close") transport.finish()
          assertTrue(
            [first, ...waiting].every((one) => outcome(one) !== "waiting"),
            how
          )
          strictEqual(sleepers(), 0, how)
        }
      })
    )
  )

  it.effect("options out of range are RangeError defects", () =>
    Effect.gen(function* () {
      for (const bad of [0, -1, NaN, "-1 second", "0 millis"] as const) {
        for (const name of ["writeTimeout", "readTimeout", "idleTimeout", "closeTimeout"] as const) {
          const exit = yield* Effect.exit(connect({ [name]: bad }))
          assertTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) instanceof RangeError, `${name} ${bad}`)
        }
      }
    })
  )
})

describe("sink", () => {
  it.effect("writes what a stream gives, in order and in batches, and does not end the direction", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect()
      transport.takeCalls()
      yield* Stream.run(Stream.fromArray(["a", "b", "c"]), writer.sink)
      yield* Stream.run(Stream.fromArray([new TextEncoder().encode("d")]), writer.sink)
      deepStrictEqual(transport.calls, ["writeAll a|b|c", "writeAll d"])
    })
  )

  it.effect("suspends the stream while the connection is congested, and fails with the writer", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect(small)
      let pulled = 0
      const source = Stream.map(Stream.rechunk(Stream.range(1, 100), 1), () => {
        pulled++
        return "0123456789ab"
      })
      const run = yield* start(Stream.run(source, writer.sink))
      assertTrue(pulled <= 2, `${pulled}`)
      strictEqual(transport.bufferedBytes, 12)
      const error = transport.reset()
      yield* turns
      deepStrictEqual(run.exit(), Exit.fail(error))
    })
  )
})

describe("toQueue", () => {
  it.effect("many producers: every message once, each producer's in order, in batches", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      yield* Effect.gen(function* () {
        const queue = yield* StreamWriter.toQueue(left.writer, { capacity: 8 })
        yield* Effect.forEach(
          Array.from({ length: 20 }),
          (_, producer) =>
            Effect.forEach(Array.from({ length: 25 }), (_, n) => Queue.offer(queue, `${producer}:${n}\n`)),
          { concurrency: "unbounded" }
        )
      }).pipe(Effect.scoped)
      yield* left.writer.end
      const lines = new TextDecoder()
        .decode(yield* right.reader.readAll())
        .trimEnd()
        .split("\n")
      strictEqual(new Set(lines).size, 500)
      for (let producer = 0; producer < 20; producer++) {
        const own = lines.filter((line) => line.startsWith(`${producer}:`))
        deepStrictEqual(
          own,
          Array.from({ length: 25 }, (_, n) => `${producer}:${n}`)
        )
      }
    })
  )

  it.effect("what is queued while a write waits goes out as one writeAll", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect(small)
      const queue = yield* StreamWriter.toQueue(writer)
      transport.takeCalls()
      yield* Queue.offer(queue, "0123456789ab")
      yield* turns
      yield* Queue.offerAll(queue, ["c", "d", "e"])
      yield* turns
      deepStrictEqual(transport.calls, ["writeAll 0123456789ab"])
      transport.accept()
      yield* turns
      deepStrictEqual(transport.calls, ["writeAll 0123456789ab", "writeAll c|d|e"])
    })
  )

  it.effect("offers wait while `capacity` messages are queued, 16 by default", () =>
    Effect.gen(function* () {
      for (const capacity of [undefined, 3]) {
        const { transport, writer } = yield* connect(small)
        const queue = yield* StreamWriter.toQueue(writer, { capacity })
        yield* Queue.offer(queue, "0123456789ab")
        yield* turns
        for (let n = 0; n < (capacity ?? 16); n++) strictEqual(yield* Queue.offer(queue, "c"), true)
        const offer = yield* start(Queue.offer(queue, "d"))
        yield* turns
        strictEqual(outcome(offer), "waiting")
        transport.accept()
        yield* turns
        strictEqual(outcome(offer), "success")
        transport.accept()
        yield* turns
        strictEqual(transport.text(), `0123456789ab${"c".repeat(capacity ?? 16)}d`)
      }
    })
  )

  it.effect("a capacity that is no count is a RangeError defect", () =>
    Effect.gen(function* () {
      const { writer } = yield* connect()
      for (const capacity of [0, -1, 1.5, NaN, Infinity]) {
        const exit = yield* Effect.exit(StreamWriter.toQueue(writer, { capacity }))
        assertTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) instanceof RangeError, `${capacity}`)
      }
    })
  )

  it.effect(
    "when the writer fails, offers that wait and later ones are refused, and the queue has the failure",
    () =>
      Effect.gen(function* () {
        const { transport, writer } = yield* connect(small)
        const queue = yield* StreamWriter.toQueue(writer, { capacity: 1 })
        yield* Queue.offer(queue, "0123456789ab")
        yield* turns
        yield* Queue.offer(queue, "c")
        const offers = yield* Effect.all([start(Queue.offer(queue, "d")), start(Queue.offer(queue, "e"))])
        transport.reset()
        yield* turns
        deepStrictEqual(
          offers.map(({ exit }) => exit()),
          [Exit.succeed(false), Exit.succeed(false)]
        )
        strictEqual(yield* Queue.offer(queue, "f"), false)
        strictEqual(transport.text(), "0123456789ab")
      })
  )

  it.effect("a scope that ends well waits until what is queued was written", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect(small)
      const scope = yield* Scope.make()
      const queue = yield* Scope.provide(StreamWriter.toQueue(writer, { capacity: 2 }), scope)
      const offers = yield* Effect.forEach(["0123456789ab", "c", "d", "e", "f"], (text) =>
        Effect.tap(start(Queue.offer(queue, text)), () => turns)
      )
      const close = yield* start(Scope.close(scope, Exit.void))
      yield* turns
      strictEqual(outcome(close), "waiting")
      strictEqual(yield* Queue.offer(queue, "late"), false)
      transport.accept()
      yield* turns
      strictEqual(outcome(close), "success")
      deepStrictEqual(new Set(offers.map(outcome)), new Set(["success"]))
      strictEqual(transport.text(), "0123456789abcdef")
    })
  )

  it.effect("a scope that ends well after the writer failed does not wait", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect(small)
      const scope = yield* Scope.make()
      const queue = yield* Scope.provide(StreamWriter.toQueue(writer), scope)
      yield* Queue.offerAll(queue, ["0123456789ab", "c"])
      yield* turns
      transport.reset()
      yield* Scope.close(scope, Exit.void)
    })
  )

  it.effect("a scope that fails drops what is queued and refuses who waits", () =>
    Effect.gen(function* () {
      const { transport, writer } = yield* connect(small)
      const scope = yield* Scope.make()
      const queue = yield* Scope.provide(StreamWriter.toQueue(writer, { capacity: 1 }), scope)
      yield* Queue.offer(queue, "0123456789ab")
      yield* turns
      yield* Queue.offer(queue, "c")
      const offer = yield* start(Queue.offer(queue, "d"))
      yield* Scope.close(scope, Exit.fail("failed"))
      yield* turns
      deepStrictEqual(offer.exit(), Exit.succeed(false))
      strictEqual(yield* Queue.offer(queue, "e"), false)
      transport.accept()
      yield* turns
      strictEqual(transport.text(), "0123456789ab")
    })
  )
})

describe("types", () => {
  it.effect("are what the contract says", () =>
    Effect.gen(function* () {
      const { writer } = yield* connect()
      expectTypeOf(writer).toEqualTypeOf<StreamWriter.StreamWriter>()
      expectTypeOf(writer.write).toEqualTypeOf<
        (chunk: Uint8Array | string) => Effect.Effect<void, StreamError.WriteError>
      >()
      expectTypeOf(writer.writeAll).toEqualTypeOf<
        (chunks: Iterable<Uint8Array | string>) => Effect.Effect<void, StreamError.WriteError>
      >()
      expectTypeOf(writer.drain).toEqualTypeOf<Effect.Effect<void, StreamError.WriteError>>()
      expectTypeOf(writer.flush).toEqualTypeOf<Effect.Effect<void, StreamError.WriteError>>()
      expectTypeOf(writer.end).toEqualTypeOf<Effect.Effect<void, StreamError.WriteError>>()
      expectTypeOf(writer.canEnd).toEqualTypeOf<boolean>()
      expectTypeOf(writer.isClosing).toEqualTypeOf<Effect.Effect<boolean>>()
      expectTypeOf(writer.bufferedBytes).toEqualTypeOf<Effect.Effect<number>>()
      expectTypeOf(writer.watermarks).toEqualTypeOf<StreamWriter.Watermarks>()
      expectTypeOf(writer.sink).toEqualTypeOf<
        Sink.Sink<void, Uint8Array | string, never, StreamError.WriteError>
      >()
      expectTypeOf(StreamWriter.toQueue(writer)).toEqualTypeOf<
        Effect.Effect<
          Queue.Enqueue<Uint8Array | string, StreamError.WriteError | Cause.Done>,
          never,
          Scope.Scope
        >
      >()
      strictEqual(StreamWriter.isStreamWriter(writer), true)
      strictEqual(StreamWriter.isStreamWriter({}), false)
    })
  )
})
