import { describe, it } from "@effect/vitest"
import { assertInstanceOf, assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Cause, Effect, Exit, Fiber, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Connection, StreamError, type StreamReader } from "effect-wire"
import { bytes, given, handDriven, reset, start, startText, text } from "../support/reader.ts"

describe("several reads", () => {
  it.effect("X-001 a second read waits for its turn", () =>
    Effect.gen(function* () {
      const { feed, reader } = given()
      const first = yield* startText(reader.read(5))
      const second = yield* startText(reader.read(5))
      feed("abcdefg")
      strictEqual(first.value(), "abcde")
      strictEqual(second.value(), "fg")
    })
  )

  it.effect("X-002 readLine while a read waits", () =>
    Effect.gen(function* () {
      const { feed, reader } = given()
      const read = yield* startText(reader.read())
      const line = yield* startText(reader.readLine)
      feed("ab")
      strictEqual(read.value(), "ab")
      assertTrue(line.isWaiting())
      feed("c\n")
      strictEqual(line.value(), "c\n")
    })
  )

  it.effect("X-003 read(0) returns at once, whoever waits", () =>
    Effect.gen(function* () {
      const { feed, reader } = given()
      const read = yield* startText(reader.read())
      const none = yield* startText(reader.read(0))
      strictEqual(none.value(), "")
      assertTrue(read.isWaiting())
      feed("a")
      strictEqual(read.value(), "a")
    })
  )

  it.effect("X-004 read(1) does not steal from a waiting readExactly(5)", () =>
    Effect.gen(function* () {
      const { feed, reader } = given({ chunks: ["ab"] })
      const exactly = yield* startText(reader.readExactly(5))
      const one = yield* startText(reader.read(1))
      assertTrue(one.isWaiting())
      feed("cdef")
      strictEqual(exactly.value(), "abcde")
      strictEqual(one.value(), "f")
    })
  )

  it.effect("X-004 nor does any other operation", () =>
    Effect.gen(function* () {
      const { feed, reader } = given({ chunks: ["a\n"] })
      const exactly = yield* startText(reader.readExactly(5))
      const others: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        reader.read(),
        reader.readLine,
        reader.readLineString,
        reader.readUntil("\n"),
        reader.skipUntil("\n"),
        reader.readExactly(1),
        reader.skip(1),
        reader.peek(1),
        reader.readAll({ maxBytes: 1 }),
        Stream.runHead(reader.stream),
        Stream.runHead(reader.lines)
      ]
      const started = yield* Effect.forEach(others, (_) => start(_))
      deepStrictEqual(
        started.map((_) => _.isWaiting()),
        started.map(() => true)
      )
      feed("bcd")
      strictEqual(exactly.value(), "a\nbcd")
    })
  )

  it.effect("X-005 readLine, readExactly(3) and read in line", () =>
    Effect.gen(function* () {
      const { feed, reader } = given()
      const line = yield* startText(reader.readLine)
      const exactly = yield* startText(reader.readExactly(3))
      const read = yield* startText(reader.read())
      feed("a\nbcdxyz")
      deepStrictEqual([line.value(), exactly.value(), read.value()], ["a\n", "bcd", "xyz"])
    })
  )

  it.effect(
    "X-005 the one that was resumed reads again before the next: it goes to the end of the line",
    () =>
      Effect.gen(function* () {
        const { feed, reader } = given()
        const twice = yield* start(Effect.zip(reader.read(1), reader.read(1)))
        const once = yield* startText(reader.read(1))
        feed("abc")
        deepStrictEqual(twice.value().map(text), ["a", "c"])
        strictEqual(once.value(), "b")
      })
  )

  it.effect("X-005 the one that was resumed feeds: the next finds it", () =>
    Effect.gen(function* () {
      const { feed, reader } = given()
      const first = yield* start(
        Effect.andThen(
          reader.read(),
          Effect.sync(() => feed("b\n", "c\n"))
        )
      )
      const line = yield* startText(reader.readLine)
      const other = yield* startText(reader.readLine)
      feed("a")
      assertTrue(!first.isWaiting())
      deepStrictEqual([line.value(), other.value()], ["b\n", "c\n"])
    })
  )

  it.effect(
    "X-006 the middle one of three is interrupted: the others keep their order and lose nothing",
    () =>
      Effect.gen(function* () {
        const { feed, reader } = given()
        const first = yield* startText(reader.readExactly(2))
        const middle = yield* startText(reader.readExactly(2))
        const last = yield* startText(reader.readExactly(2))
        feed("a")
        yield* middle.interrupt
        feed("bcd")
        deepStrictEqual([first.value(), last.value()], ["ab", "cd"])
      })
  )

  it.effect("X-006 the first is interrupted: what it waited for may be enough for the next", () =>
    Effect.gen(function* () {
      const { buffered, reader } = given({ chunks: ["abc"] })
      const first = yield* startText(reader.readExactly(5))
      const second = yield* startText(reader.readExactly(2))
      const third = yield* startText(reader.readExactly(5))
      assertTrue(second.isWaiting())
      yield* first.interrupt
      strictEqual(second.value(), "ab")
      assertTrue(third.isWaiting())
      yield* third.interrupt
      strictEqual(yield* buffered, "c")
    })
  )

  it.effect("X-007 a failure: bytes first, then all that wait fail", () =>
    Effect.gen(function* () {
      const { fail, feed, reader } = given()
      const three = yield* Effect.forEach([2, 3, 4], (n) => start(Effect.exit(reader.readExactly(n))))
      const last = yield* startText(reader.read())
      feed("a")
      const error = reset()
      fail(error)
      for (const read of three) deepStrictEqual(read.value(), Exit.fail(error))
      strictEqual(last.value(), "a")
      strictEqual(yield* Effect.flip(reader.read()), error)
    })
  )

  it.effect("X-008 the end: the rest for readLine, the end for the others", () =>
    Effect.gen(function* () {
      const { feed, feedEof, reader } = given()
      const line = yield* startText(reader.readLine)
      const read = yield* startText(reader.read())
      const text_ = yield* start(reader.readLineString)
      const exactly = yield* start(Effect.flip(reader.readExactly(2)))
      const all = yield* startText(reader.readAll())
      feed("rest")
      feedEof()
      strictEqual(line.value(), "rest")
      strictEqual(read.value(), "")
      assertTrue(Option.isNone(text_.value()))
      assertInstanceOf(exactly.value(), StreamError.IncompleteReadError)
      strictEqual(all.value(), "")
    })
  )

  it.effect("X-025 a connection that is lost fails the waiting read with its error", () =>
    Effect.gen(function* () {
      const transport = handDriven()
      const { reader } = yield* Connection.make(transport)
      const reads = yield* Effect.forEach([reader.read(), reader.readLine], (_) => start(_))
      const error = new StreamError.ConnectionError({
        operation: "read",
        reason: new StreamError.Unreachable({ code: "ETIMEDOUT" })
      })
      transport.handler().onClosed(error)
      for (const read of reads) strictEqual(read.error(), error)
    })
  )
})

describe("interruption", () => {
  it.effect("X-009 of a waiting read: a later one works", () =>
    Effect.gen(function* () {
      const { feed, reader } = given()
      const read = yield* start(reader.read())
      yield* read.interrupt
      feed("abc")
      strictEqual(text(yield* reader.read()), "abc")
    })
  )

  it.effect("X-010 of a waiting readUntil", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given({ chunks: ["part"] })
      const read = yield* start(reader.readUntil("\n"))
      yield* read.interrupt
      strictEqual(yield* buffered, "part")
      feed("\n")
      strictEqual(text(yield* reader.readUntil("\n")), "part\n")
    })
  )

  it.effect("X-011 of a waiting readExactly", () =>
    Effect.gen(function* () {
      const { buffered, reader } = given({ chunks: ["abc"] })
      const read = yield* start(reader.readExactly(5))
      yield* read.interrupt
      strictEqual(yield* buffered, "abc")
    })
  )

  it.effect("X-012 of a waiting readAll: what came is still there", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given()
      const read = yield* start(reader.readAll())
      feed("a", "b")
      yield* read.interrupt
      strictEqual(yield* buffered, "ab")
    })
  )

  it.effect(
    "X-010 X-011 of any operation that waits with bytes there: they are left, in chunks as they came",
    () =>
      Effect.gen(function* () {
        const operations: ReadonlyArray<
          (reader: StreamReader.StreamReader) => Effect.Effect<unknown, unknown>
        > = [
          (_) => _.readAll(),
          (_) => _.readExactly(9),
          (_) => _.readUntil("\n"),
          (_) => _.readUntil(["\n", "long separator"]),
          (_) => _.readLine,
          (_) => _.readLineString,
          (_) => _.peek(9),
          (_) => _.skip(9),
          (_) => Stream.runHead(_.lines)
        ]
        for (const operation of operations) {
          const { buffered, feed, reader } = given({ chunks: ["ab", "c"] })
          const waiting = yield* start(operation(reader))
          feed("d")
          assertTrue(waiting.isWaiting())
          yield* waiting.interrupt
          strictEqual(yield* buffered, "abcd")
          deepStrictEqual(yield* Stream.runHead(reader.stream), Option.some(bytes("ab")))
        }
      })
  )

  it.effect("X-013 bytes and interruption in the same turn: the read has them, or the buffer", () =>
    Effect.gen(function* () {
      const { feed, reader } = given()
      const read = yield* startText(reader.read())
      feed("hey")
      read.fiber.interruptUnsafe()
      strictEqual(read.value(), "hey")

      const other = given()
      const waiting = yield* startText(other.reader.read())
      waiting.fiber.interruptUnsafe()
      other.feed("hey")
      const exit = yield* Fiber.await(waiting.fiber)
      assertTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      strictEqual(yield* other.buffered, "hey")
    })
  )

  it.effect("X-014 interrupted and read again in the same turn", () =>
    Effect.gen(function* () {
      const { feed, reader } = given()
      const first = yield* start(reader.read())
      first.fiber.interruptUnsafe()
      const second = yield* startText(reader.read())
      feed("a")
      strictEqual(second.value(), "a")
    })
  )

  it.effect("X-015 a timeout around readLine: the next readLine has the whole line", () =>
    Effect.gen(function* () {
      const { feed, reader } = given()
      const read = yield* start(Effect.timeoutOption(reader.readLine, "1 second"))
      feed("be")
      yield* TestClock.adjust("1 second")
      assertTrue(Option.isNone(read.value()))
      feed("gin\n")
      strictEqual(text(yield* reader.readLine), "begin\n")
    })
  )

  it.effect("X-015 a race: the loser left its bytes", () =>
    Effect.gen(function* () {
      const a = given()
      const b = given()
      const race = yield* startText(Effect.raceFirst(a.reader.readExactly(3), b.reader.readExactly(3)))
      a.feed("aa")
      b.feed("bbb")
      yield* Effect.yieldNow
      strictEqual(race.value(), "bbb")
      strictEqual(yield* a.buffered, "aa")
    })
  )
})
