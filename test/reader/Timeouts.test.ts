import { describe, it } from "@effect/vitest"
import { assertInstanceOf, assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Clock, Duration, Effect, Fiber, pipe, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Connection, StreamError, type StreamReader } from "effect-wire"
import { rangeError, type Started, start, startText, text, turns } from "../support/reader.ts"

/** A pair whose timers are counted. */
const pair = Effect.fnUntraced(function* (options?: Connection.Options) {
  const clock = yield* Clock.Clock
  const sleeps = { all: 0, active: 0 }
  const counting: Clock.Clock = {
    ...clock,
    sleep: (duration) =>
      Effect.suspend(() => {
        sleeps.all++
        sleeps.active++
        return Effect.ensuring(
          clock.sleep(duration),
          Effect.sync(() => {
            sleeps.active--
          })
        )
      })
  }
  const [left, right] = yield* Effect.provideService(Connection.pair(options), Clock.Clock, counting)
  return { left, right, reader: left.reader, sleeps }
})

const send = (connection: Connection.Connection, chunk: string) =>
  Effect.andThen(connection.writer.write(chunk), turns)

const expectTimeout = (started: Started<unknown, unknown>, operation: string, duration: Duration.Input) => {
  const error = started.error()
  assertInstanceOf(error, StreamError.TimeoutError)
  strictEqual(error.operation, operation)
  deepStrictEqual(Duration.toMillis(error.duration), Duration.toMillis(duration))
}

const operations: Record<string, (reader: StreamReader.StreamReader) => Effect.Effect<unknown, unknown>> = {
  "read of a second one in line": (_) => Effect.andThen(_.readExactly(2), _.readExactly(3)),
  readExactly: (_) => _.readExactly(3),
  readUntil: (_) => _.readUntil(";"),
  readLine: (_) => _.readLine,
  readLineString: (_) => _.readLineString,
  readAll: (_) => _.readAll(),
  peek: (_) => _.peek(3),
  skip: (_) => _.skip(3),
  lines: (_) => Stream.runHead(_.lines)
}

describe("readTimeout", () => {
  for (const [name, operation] of Object.entries(operations)) {
    it.effect(`${name}: a TimeoutError when it has waited so long, and its bytes are left`, () =>
      Effect.gen(function* () {
        const { reader, right, sleeps } = yield* pair({ readTimeout: "1 second" })
        const inLine = name.startsWith("read of")
        yield* send(right, inLine ? "xxab" : "ab")
        const waiting = yield* start(operation(reader))
        yield* TestClock.adjust(999)
        assertTrue(waiting.isWaiting())
        yield* TestClock.adjust(1)
        expectTimeout(waiting, "read", "1 second")
        strictEqual(sleeps.active, 0)
        yield* send(right, "c")
        strictEqual(text(yield* reader.readExactly(3)), "abc")
      })
    )
  }

  it.effect("read and stream", () =>
    Effect.gen(function* () {
      const { reader, right } = yield* pair({ readTimeout: "1 second" })
      for (const operation of [reader.read(), reader.read(1), Stream.runHead(reader.stream)]) {
        const waiting = yield* start<unknown, unknown, never>(operation)
        yield* TestClock.adjust("1 second")
        expectTimeout(waiting, "read", "1 second")
      }
      yield* send(right, "abc")
      strictEqual(text(yield* reader.read()), "abc")
    })
  )

  it.effect("skipUntil: what was searched is gone, and the next call goes on", () =>
    Effect.gen(function* () {
      const { reader, right } = yield* pair({ readTimeout: "1 second" })
      yield* send(right, "long\r")
      const waiting = yield* start(reader.skipUntil("\r\n"))
      yield* TestClock.adjust("1 second")
      expectTimeout(waiting, "read", "1 second")
      strictEqual(yield* reader.bufferedBytes, 1)
      yield* send(right, "\nok")
      strictEqual(yield* reader.skipUntil("\r\n"), 2)
      strictEqual(text(yield* reader.read()), "ok")
    })
  )

  it.effect("bytes that are not enough do not move it", () =>
    Effect.gen(function* () {
      const { reader, right } = yield* pair({ readTimeout: "1 second" })
      const line = yield* start(reader.readLine)
      for (let i = 0; i < 9; i++) {
        yield* TestClock.adjust(100)
        yield* send(right, "x")
      }
      assertTrue(line.isWaiting())
      yield* TestClock.adjust(100)
      expectTimeout(line, "read", "1 second")
      strictEqual(yield* reader.bufferedBytes, 9)
    })
  )

  it.effect("a read that waits for its turn has its own", () =>
    Effect.gen(function* () {
      const { left, reader, right, sleeps } = yield* pair({ readTimeout: "1 second" })
      const first = yield* start(Connection.withTimeouts(left, { read: "10 seconds" }).reader.readExactly(3))
      yield* TestClock.adjust(500)
      const second = yield* start(reader.readExactly(3))
      yield* TestClock.adjust(500)
      assertTrue(second.isWaiting())
      yield* TestClock.adjust(500)
      expectTimeout(second, "read", "1 second")
      assertTrue(first.isWaiting())
      yield* send(right, "abcd")
      strictEqual(text(first.value()), "abc")
      strictEqual(sleeps.active, 0)
      strictEqual(text(yield* reader.read()), "d")
    })
  )

  it.effect("the first times out: what it waited for may be enough for the next", () =>
    Effect.gen(function* () {
      const { left, reader, right } = yield* pair({ readTimeout: "1 second" })
      yield* send(right, "ab")
      const first = yield* start(reader.readExactly(5))
      const second = yield* startText(
        Connection.withTimeouts(left, { read: Duration.infinity }).reader.readExactly(2)
      )
      assertTrue(second.isWaiting())
      yield* TestClock.adjust("1 second")
      expectTimeout(first, "read", "1 second")
      strictEqual(second.value(), "ab")
    })
  )

  it.effect("two that are due together", () =>
    Effect.gen(function* () {
      const { reader, sleeps } = yield* pair({ readTimeout: "1 second" })
      const first = yield* start(reader.read())
      const second = yield* start(reader.readLine)
      strictEqual(sleeps.active, 1)
      yield* TestClock.adjust("1 second")
      expectTimeout(first, "read", "1 second")
      expectTimeout(second, "read", "1 second")
      strictEqual(sleeps.active, 0)
    })
  )

  it.effect("does not change what end of input, failure and local close mean", () =>
    Effect.gen(function* () {
      const { left, reader, right, sleeps } = yield* pair({ readTimeout: "1 second" })
      const read = yield* startText(reader.read())
      yield* right.writer.end
      yield* turns
      strictEqual(read.value(), "")
      strictEqual(sleeps.active, 0)
      const other = yield* start(right.reader.read())
      strictEqual(sleeps.active, 1)
      yield* left.abort
      yield* turns
      strictEqual(other.error()._tag, "ConnectionError")
      strictEqual(sleeps.active, 0)
    })
  )
})

describe("the timer", () => {
  it.effect("exists only while an operation waits", () =>
    Effect.gen(function* () {
      const { reader, right, sleeps } = yield* pair({ readTimeout: "1 second", idleTimeout: "3 seconds" })
      strictEqual(sleeps.active, 0)
      const line = yield* startText(reader.readLine)
      strictEqual(sleeps.active, 1)
      yield* send(right, "line\nrest")
      strictEqual(line.value(), "line\n")
      strictEqual(sleeps.active, 0)
      strictEqual(text(yield* reader.read()), "rest")
      strictEqual(sleeps.active, 0)
      yield* TestClock.adjust("1 minute")
      strictEqual(sleeps.all, 1)
    })
  )

  it.effect("is not armed for what the buffer serves, nor without a limit", () =>
    Effect.gen(function* () {
      const limited = yield* pair({ readTimeout: "1 second", idleTimeout: "1 second" })
      yield* send(limited.right, "a\nb\n".repeat(100))
      for (let i = 0; i < 200; i++) yield* limited.reader.readLine
      strictEqual(limited.sleeps.all, 0)
      const free = yield* pair()
      const read = yield* startText(free.reader.read())
      strictEqual(free.sleeps.all, 0)
      yield* send(free.right, "x")
      strictEqual(read.value(), "x")
    })
  )

  it.effect("is disarmed by interruption", () =>
    Effect.gen(function* () {
      const { reader, right, sleeps } = yield* pair({ readTimeout: "1 second" })
      const first = yield* start(reader.readExactly(2))
      const second = yield* start(reader.read())
      strictEqual(sleeps.active, 1)
      yield* first.interrupt
      strictEqual(sleeps.active, 1)
      yield* second.interrupt
      strictEqual(sleeps.active, 0)
      yield* TestClock.adjust("1 minute")
      yield* send(right, "abc")
      strictEqual(text(yield* reader.read()), "abc")
    })
  )

  it.effect("is one for many reads that follow each other at once", () =>
    Effect.gen(function* () {
      const { reader, right, sleeps } = yield* pair({ readTimeout: "1 second", idleTimeout: "1 second" })
      const lines = yield* start(Effect.repeat(reader.readLine, { times: 999 }))
      for (let i = 0; i < 1000; i++) yield* Effect.andThen(right.writer.write("line\n"), Effect.yieldNow)
      yield* Fiber.join(lines.fiber)
      strictEqual(sleeps.all, 1)
      strictEqual(sleeps.active, 0)
    })
  )

  it.effect("sleeps about once per timeout, however many reads there are", () =>
    Effect.gen(function* () {
      const { reader, right, sleeps } = yield* pair({ readTimeout: "1 second" })
      const lines = yield* start(Effect.repeat(reader.readLine, { times: 100 }))
      for (let i = 0; i < 100; i++) {
        yield* TestClock.adjust(100)
        yield* send(right, "line\n")
      }
      assertTrue(lines.isWaiting())
      // 10 seconds with a limit of 1: a deadline is looked at when the timer fires, not when it is replaced.
      assertTrue(sleeps.all <= 12, `${sleeps.all} timers`)
      strictEqual(sleeps.active, 1)
      yield* TestClock.adjust("1 second")
      expectTimeout(lines, "read", "1 second")
      strictEqual(sleeps.active, 0)
    })
  )

  it.effect("comes forward for a shorter limit", () =>
    Effect.gen(function* () {
      const { left, reader, sleeps } = yield* pair({ readTimeout: "1 minute" })
      const slow = yield* start(reader.read())
      const quick = yield* start(Connection.withTimeouts(left, { read: 10 }).reader.read())
      strictEqual(sleeps.active, 1)
      yield* TestClock.adjust(10)
      expectTimeout(quick, "read", 10)
      assertTrue(slow.isWaiting())
      strictEqual(sleeps.active, 1)
      yield* TestClock.adjust("1 minute")
      expectTimeout(slow, "read", "1 minute")
    })
  )
})

describe("idleTimeout", () => {
  it.effect("fails a read once nothing came or went for so long", () =>
    Effect.gen(function* () {
      const { reader, right } = yield* pair({ idleTimeout: "1 second" })
      yield* send(right, "ab")
      yield* TestClock.adjust("10 seconds")
      const read = yield* start(reader.readExactly(3))
      yield* TestClock.adjust(999)
      assertTrue(read.isWaiting())
      yield* TestClock.adjust(1)
      expectTimeout(read, "idle", "1 second")
      strictEqual(text(yield* reader.read()), "ab")
    })
  )

  it.effect("is moved by bytes that come", () =>
    Effect.gen(function* () {
      const { reader, right } = yield* pair({ idleTimeout: "1 second" })
      const read = yield* start(reader.readExactly(100))
      for (let i = 0; i < 5; i++) {
        yield* TestClock.adjust(900)
        yield* send(right, "x")
      }
      assertTrue(read.isWaiting())
      yield* TestClock.adjust(999)
      assertTrue(read.isWaiting())
      yield* TestClock.adjust(1)
      expectTimeout(read, "idle", "1 second")
    })
  )

  it.effect("is moved by bytes that go", () =>
    Effect.gen(function* () {
      const { left, reader } = yield* pair({ idleTimeout: "1 second" })
      const read = yield* start(reader.read())
      for (let i = 0; i < 5; i++) {
        yield* TestClock.adjust(900)
        yield* send(left, "x")
      }
      assertTrue(read.isWaiting())
      yield* TestClock.adjust(1000)
      expectTimeout(read, "idle", "1 second")
    })
  )

  it.effect("and readTimeout: whichever comes first", () =>
    Effect.gen(function* () {
      const { reader, right } = yield* pair({ readTimeout: "3 seconds", idleTimeout: "2 seconds" })
      const idle = yield* start(reader.read())
      yield* TestClock.adjust("2 seconds")
      expectTimeout(idle, "idle", "2 seconds")
      const slow = yield* start(reader.readExactly(9))
      yield* TestClock.adjust("1500 millis")
      yield* send(right, "x")
      yield* TestClock.adjust("1500 millis")
      expectTimeout(slow, "read", "3 seconds")
    })
  )
})

describe("withTimeouts", () => {
  it.effect("limits the reads of its own, and shares the rest", () =>
    Effect.gen(function* () {
      const { left, right } = yield* pair()
      const hasty = Connection.withTimeouts(left, { read: 100 })
      const read = yield* start(hasty.reader.read())
      yield* TestClock.adjust(100)
      expectTimeout(read, "read", 100)
      const patient = yield* startText(left.reader.read())
      yield* TestClock.adjust("1 hour")
      assertTrue(patient.isWaiting())
      yield* send(right, "abc")
      strictEqual(patient.value(), "abc")
      yield* send(right, "def")
      strictEqual(yield* hasty.reader.bufferedBytes, 3)
      strictEqual(text(yield* hasty.reader.read()), "def")
    })
  )

  it.effect("keeps what it leaves out, and takes a limit away with infinity", () =>
    Effect.gen(function* () {
      const { left } = yield* pair({ readTimeout: "1 second", idleTimeout: "2 seconds" })
      const idleOnly = pipe(left, Connection.withTimeouts({ read: Duration.infinity }))
      const idle = yield* start(idleOnly.reader.read())
      yield* TestClock.adjust("2 seconds")
      expectTimeout(idle, "idle", "2 seconds")
      const readOnly = Connection.withTimeouts(left, { idle: Duration.infinity })
      const read = yield* start(readOnly.reader.read())
      yield* TestClock.adjust("1 second")
      expectTimeout(read, "read", "1 second")
    })
  )

  it.effect("a limit that is not positive is refused", () =>
    Effect.gen(function* () {
      const { left } = yield* pair()
      for (const read of [0, -1]) {
        const refused = yield* rangeError(Effect.sync(() => Connection.withTimeouts(left, { read })))
        assertTrue(refused.message.startsWith("read must be a positive duration"))
      }
      const refused = yield* rangeError(Connection.pair({ idleTimeout: 0 }))
      assertTrue(refused.message.startsWith("idleTimeout must be a positive duration"))
    })
  )
})
