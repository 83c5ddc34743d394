import { describe, it } from "@effect/vitest"
import {
  assertFalse,
  assertInclude,
  assertInstanceOf,
  assertTrue,
  deepStrictEqual,
  strictEqual,
  throws
} from "@effect/vitest/utils"
import { Effect, Stream } from "effect"
import { Framed, Framing, StreamError, StreamReader } from "effect-wire"
import { bytes, DATA, given, rangeError, reset, start, startText, text } from "../support/reader.ts"

describe("feeding", () => {
  it.effect("R-001 an empty feed: nothing is buffered, a waiting read goes on waiting", () =>
    Effect.gen(function* () {
      const { feed, reader } = given()
      const read = yield* start(reader.read())
      feed("")
      assertTrue(read.isWaiting())
      strictEqual(yield* reader.bufferedBytes, 0)
    })
  )

  it.effect("R-002 what is fed is buffered", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given()
      feed(DATA)
      strictEqual(yield* reader.bufferedBytes, 18)
      strictEqual(yield* buffered, DATA)
    })
  )

  it.effect("R-033 a feed after the end of input is ignored", () =>
    Effect.gen(function* () {
      const { feed, feedEof, reader } = given({ chunks: ["a"] })
      feedEof()
      feed("x")
      strictEqual(text(yield* reader.readAll()), "a")
      assertTrue(yield* reader.atEof)
    })
  )

  it.effect("R-033 a feed after a failure is ignored", () =>
    Effect.gen(function* () {
      const { fail, feed, reader } = given()
      const error = reset()
      fail(error)
      feed("x")
      strictEqual(yield* Effect.flip(reader.read()), error)
    })
  )

  it.effect("R-034 a second end of input has no effect", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given({ chunks: ["a"] })
      feedEof()
      feedEof()
      strictEqual(text(yield* reader.read()), "a")
      strictEqual(text(yield* reader.read()), "")
    })
  )

  it.effect("R-038 returned bytes do not change later, and a whole chunk is not copied", () =>
    Effect.gen(function* () {
      const { feed, reader } = StreamReader.feedable()
      const chunk = bytes("abc")
      feed(chunk)
      const first = yield* reader.read(2)
      strictEqual(first.buffer, chunk.buffer)
      feed(bytes("def"))
      const second = yield* reader.readExactly(3)
      feed(bytes("ghi"))
      strictEqual(text(yield* reader.read(1)), "f")
      strictEqual(yield* Effect.map(reader.read(), text), "ghi")
      deepStrictEqual([text(first), text(second)], ["ab", "cde"])
      feed(chunk)
      strictEqual(yield* reader.read(), chunk)
    })
  )
})

describe("a Buffer of Node's", () => {
  const fed = (chunk: Uint8Array) => {
    const { feed, feedEof, reader } = StreamReader.feedable()
    feed(chunk)
    feedEof()
    return reader
  }
  const operations: Record<
    string,
    (reader: StreamReader.StreamReader) => Effect.Effect<Uint8Array, unknown>
  > = {
    read: (reader) => reader.read(),
    readAll: (reader) => reader.readAll(),
    readExactly: (reader) => reader.readExactly(4),
    readLine: (reader) => reader.readLine,
    peek: (reader) => reader.peek(4),
    stream: (reader) => Effect.map(Stream.runCollect(reader.stream), ([chunk]) => chunk ?? new Uint8Array()),
    "a frame": (reader) => Framed.receiver(reader, Framing.fixedLength(4)).receive
  }
  for (const [name, operation] of Object.entries(operations)) {
    it.effect(`is read as a plain Uint8Array, whose slice copies: ${name}`, () =>
      Effect.gen(function* () {
        const chunk = Buffer.from("one\n")
        const result = yield* operation(fed(chunk))
        strictEqual(Object.getPrototypeOf(result), Uint8Array.prototype)
        strictEqual(text(result), "one\n")
        // Still a view.
        strictEqual(result.buffer, chunk.buffer)
      })
    )
  }
})

describe("read", () => {
  it.effect("R-003 read(0): nothing, at once, and the buffer is unchanged", () =>
    Effect.gen(function* () {
      const { buffered, reader } = given({ chunks: [DATA] })
      strictEqual(text(yield* reader.read(0)), "")
      strictEqual(yield* buffered, DATA)
    })
  )

  it.effect("R-004 read(0) does not wait", () =>
    Effect.gen(function* () {
      const read = yield* startText(given().reader.read(0))
      strictEqual(read.value(), "")
    })
  )

  it.effect("R-005 a waiting read(30) gets the 18 bytes that come", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given()
      const read = yield* startText(reader.read(30))
      assertTrue(read.isWaiting())
      feed(DATA)
      strictEqual(read.value(), DATA)
      strictEqual(yield* buffered, "")
    })
  )

  it.effect("R-006 read(5) of two chunks gives the first", () =>
    Effect.gen(function* () {
      const { buffered, reader } = given({ chunks: ["line1", "line2"] })
      strictEqual(text(yield* reader.read(5)), "line1")
      strictEqual(yield* buffered, "line2")
    })
  )

  it.effect("R-006 read spans chunks", () =>
    Effect.gen(function* () {
      const { buffered, reader } = given({ chunks: ["ab", "cd", "ef"] })
      strictEqual(text(yield* reader.read(1)), "a")
      strictEqual(text(yield* reader.read(4)), "bcde")
      strictEqual(yield* buffered, "f")
    })
  )

  it.effect("R-007 read(10) returns the 3 bytes that are there", () =>
    Effect.gen(function* () {
      const read = yield* startText(given({ chunks: ["abc"] }).reader.read(10))
      strictEqual(read.value(), "abc")
    })
  )

  it.effect("R-008 a waiting read ends empty at the end of input", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given()
      const read = yield* startText(reader.read(1024))
      assertTrue(read.isWaiting())
      feedEof()
      strictEqual(read.value(), "")
    })
  )

  it.effect("R-009 reads at the end of input are empty, every time", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given()
      feedEof()
      strictEqual(text(yield* reader.read(5)), "")
      strictEqual(text(yield* reader.read(5)), "")
      strictEqual(text(yield* reader.read()), "")
    })
  )

  it.effect("R-011 a negative, fractional or infinite max is a defect, and takes nothing", () =>
    Effect.gen(function* () {
      const { buffered, feedEof, reader } = given({ chunks: ["ab"] })
      feedEof()
      for (const max of [-2, -1, 0.5, NaN, Infinity]) {
        assertInclude((yield* rangeError(reader.read(max))).message, `received ${max}`)
      }
      strictEqual(yield* buffered, "ab")
    })
  )

  it.effect("R-012 read() returns what is there", () =>
    Effect.gen(function* () {
      const read = yield* startText(given({ chunks: ["a", "bc"] }).reader.read())
      strictEqual(read.value(), "abc")
    })
  )

  it.effect("R-013 read() of nothing waits for the first bytes, not for the end", () =>
    Effect.gen(function* () {
      const { feed, reader } = given()
      const read = yield* startText(reader.read())
      assertTrue(read.isWaiting())
      feed("x")
      strictEqual(read.value(), "x")
    })
  )

  it.effect("R-014 the limit does not bound read", () =>
    Effect.gen(function* () {
      strictEqual(text(yield* given({ limit: 3, chunks: ["chunk"] }).reader.read(5)), "chunk")
    })
  )

  it.effect("R-037 a read of what is there lets no other fiber run first", () =>
    Effect.gen(function* () {
      const { reader } = given({ chunks: ["abc"] })
      const order: Array<string> = []
      yield* Effect.forkChild(Effect.sync(() => order.push("other")))
      order.push(text(yield* reader.read(1)))
      yield* Effect.yieldNow
      deepStrictEqual(order, ["a", "other"])
    })
  )

  it.effect("R-039 a waiting read takes the first of two feeds", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given()
      const read = yield* startText(reader.read(4))
      feed("a", "b")
      strictEqual(read.value(), "a")
      strictEqual(yield* buffered, "b")
    })
  )

  it.effect("R-040 readLine, then read(7)", () =>
    Effect.gen(function* () {
      const { buffered, reader } = given({ chunks: [DATA] })
      strictEqual(text(yield* reader.readLine), "line1\n")
      strictEqual(text(yield* reader.read(7)), "line2\nl")
      strictEqual(yield* buffered, "ine3\n")
    })
  )
})

describe("readAll", () => {
  it.effect("R-010 all that comes until the end", () =>
    Effect.gen(function* () {
      const { feed, feedEof, reader } = given()
      const read = yield* startText(reader.readAll())
      feed("chunk1\n", "chunk2")
      assertTrue(read.isWaiting())
      feedEof()
      strictEqual(read.value(), "chunk1\nchunk2")
      strictEqual(text(yield* reader.readAll()), "")
    })
  )

  it.effect("R-015 a source that pauses at 3 bytes of 4: no deadlock", () =>
    Effect.gen(function* () {
      const calls: Array<string> = []
      const { feed, feedEof, reader } = given({
        limit: 1,
        onPause: () => calls.push("pause"),
        onResume() {
          calls.push("resume")
          feed("d")
          feedEof()
        }
      })
      feed("a", "b", "c")
      deepStrictEqual(calls, ["pause"])
      strictEqual(text(yield* reader.readAll()), "abcd")
      deepStrictEqual(calls, ["pause", "resume"])
    })
  )

  it.effect("more than maxBytes fails as soon as they are there, and takes nothing", () =>
    Effect.gen(function* () {
      const { buffered, feed, feedEof, reader } = given({ chunks: ["abc"] })
      const read = yield* start(reader.readAll({ maxBytes: 4 }))
      feed("d")
      assertTrue(read.isWaiting())
      feed("e")
      const error = read.error()
      assertInstanceOf(error, StreamError.LimitOverrunError)
      strictEqual(error.limit, 4)
      assertInclude(error.message, "readAll: more than the limit of 4 bytes")
      strictEqual(yield* buffered, "abcde")
      feedEof()
      strictEqual(text(yield* reader.readAll({ maxBytes: 5 })), "abcde")
      strictEqual(text(yield* reader.readAll({ maxBytes: 0 })), "")
    })
  )

  it.effect("16 MiB unless set, and not bounded by the limit", () =>
    Effect.gen(function* () {
      const { feed, feedEof, reader } = StreamReader.feedable({ limit: 1 })
      feed(new Uint8Array(16 * 1024 * 1024))
      const read = yield* start(reader.readAll())
      assertTrue(read.isWaiting())
      feed(new Uint8Array(1))
      strictEqual(read.error()._tag, "LimitOverrunError")
      feedEof()
      strictEqual((yield* reader.readAll({ maxBytes: 16 * 1024 * 1024 + 1 })).length, 16 * 1024 * 1024 + 1)
    })
  )

  it.effect("a maxBytes that is no number of bytes is a defect", () =>
    Effect.gen(function* () {
      const { reader } = given()
      assertInclude((yield* rangeError(reader.readAll({ maxBytes: -1 }))).message, "maxBytes")
      assertInclude((yield* rangeError(reader.readAll({ maxBytes: 1.5 }))).message, "maxBytes")
    })
  )
})

describe("limit", () => {
  it("R-016 a limit that is not a positive integer", () => {
    for (const limit of [0, -1, 1.5, NaN, Infinity]) {
      throws(
        () => void StreamReader.feedable({ limit }),
        (error) => {
          assertInstanceOf(error, RangeError)
          assertInclude(error.message, "limit must be a positive integer")
        }
      )
    }
  })

  it.effect("R-016 in fromStream it is a defect", () =>
    Effect.gen(function* () {
      assertInclude((yield* rangeError(StreamReader.fromStream(Stream.empty, { limit: 0 }))).message, "limit")
    })
  )

  it("R-017 the limit is 65,536 unless set", () => {
    strictEqual(given().reader.limit, 65_536)
    strictEqual(given({ limit: 5 }).reader.limit, 5)
  })
})

describe("readExactly", () => {
  it.effect("R-018 of 0 bytes", () =>
    Effect.gen(function* () {
      const { buffered, reader } = given({ chunks: [DATA] })
      strictEqual(text(yield* reader.readExactly(0)), "")
      strictEqual(yield* buffered, DATA)
    })
  )

  it.effect("R-019 of −1 or half a byte: a defect, and the buffer is unchanged", () =>
    Effect.gen(function* () {
      const { buffered, reader } = given({ chunks: [DATA] })
      assertInclude((yield* rangeError(reader.readExactly(-1))).message, "readExactly: n")
      assertInclude((yield* rangeError(reader.readExactly(0.5))).message, "readExactly: n")
      strictEqual(yield* buffered, DATA)
    })
  )

  it.effect("R-020 of 36 bytes, fed in thrice 18", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given()
      const read = yield* startText(reader.readExactly(36))
      feed(DATA)
      assertTrue(read.isWaiting())
      feed(DATA, DATA)
      strictEqual(read.value(), DATA + DATA)
      strictEqual(yield* buffered, DATA)
    })
  )

  it.effect("R-021 is not bounded by the limit", () =>
    Effect.gen(function* () {
      strictEqual(text(yield* given({ limit: 3, chunks: ["chunk"] }).reader.readExactly(5)), "chunk")
    })
  )

  it.effect("R-022 of 0 bytes at the end of input", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given()
      feedEof()
      strictEqual(text(yield* reader.readExactly(0)), "")
    })
  )

  it.effect("R-023 of all that is there", () =>
    Effect.gen(function* () {
      const { buffered, reader } = given({ chunks: ["ab", "c"] })
      strictEqual(text(yield* reader.readExactly(3)), "abc")
      strictEqual(yield* buffered, "")
    })
  )
})

describe("peek", () => {
  it.effect("waits for all bytes, and leaves them", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given({ limit: 1 })
      const peek = yield* startText(reader.peek(4))
      feed("ab")
      assertTrue(peek.isWaiting())
      feed("cde")
      strictEqual(peek.value(), "abcd")
      strictEqual(text(yield* reader.peek(2)), "ab")
      strictEqual(text(yield* reader.peek(0)), "")
      strictEqual(yield* buffered, "abcde")
    })
  )

  it.effect("at the end of input fails with what is there, and leaves it", () =>
    Effect.gen(function* () {
      const { buffered, feedEof, reader } = given({ chunks: ["ab"] })
      feedEof()
      const error = yield* Effect.flip(reader.peek(3))
      assertInstanceOf(error, StreamError.IncompleteReadError)
      deepStrictEqual([text(error.partial), error.expected, error.operation], ["ab", 3, "peek"])
      strictEqual(yield* buffered, "ab")
      assertFalse(yield* reader.atEof)
    })
  )

  it.effect("of a negative number is a defect", () =>
    Effect.gen(function* () {
      assertInclude((yield* rangeError(given().reader.peek(-1))).message, "peek: n")
    })
  )
})

describe("skip", () => {
  it.effect("drops exactly n bytes, over chunks", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given({ chunks: ["ab", "c"] })
      const skip = yield* start(reader.skip(5))
      assertTrue(skip.isWaiting())
      strictEqual(yield* reader.bufferedBytes, 3)
      feed("def")
      strictEqual(skip.value(), undefined)
      strictEqual(yield* buffered, "f")
      yield* reader.skip(0)
      strictEqual(yield* buffered, "f")
    })
  )

  it.effect("at the end of input fails with the rest, which is consumed", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given({ chunks: ["ab"] })
      feedEof()
      const error = yield* Effect.flip(reader.skip(3))
      assertInstanceOf(error, StreamError.IncompleteReadError)
      deepStrictEqual([text(error.partial), error.expected, error.operation], ["ab", 3, "skip"])
      assertTrue(yield* reader.atEof)
    })
  )

  it.effect("of a negative number is a defect", () =>
    Effect.gen(function* () {
      assertInclude((yield* rangeError(given().reader.skip(-1))).message, "skip: n")
    })
  )
})

describe("atEof", () => {
  it.effect("R-024 is true once the end was seen and everything was read", () =>
    Effect.gen(function* () {
      const { feed, feedEof, reader } = given()
      assertFalse(yield* reader.atEof)
      feed("some data\n")
      assertFalse(yield* reader.atEof)
      yield* reader.readLine
      assertFalse(yield* reader.atEof)
      feed("some data\n")
      feedEof()
      assertFalse(yield* reader.atEof)
      yield* reader.readLine
      assertTrue(yield* reader.atEof)
    })
  )

  it.effect("R-025 with bytes left it is false", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given({ chunks: ["abc"] })
      feedEof()
      assertFalse(yield* reader.atEof)
      strictEqual(text(yield* reader.read(3)), "abc")
      assertTrue(yield* reader.atEof)
    })
  )
})

describe("flow control", () => {
  const controlled = (limit: number) => {
    const calls: Array<string> = []
    return {
      ...given({ limit, onPause: () => calls.push("pause"), onResume: () => calls.push("resume") }),
      takeCalls: () => calls.splice(0)
    }
  }

  it("R-026 2 × limit bytes do not pause", () => {
    const { feed, takeCalls } = controlled(5)
    feed("0123456789")
    deepStrictEqual(takeCalls(), [])
  })

  it("R-027 one more pauses, once", () => {
    const { feed, takeCalls } = controlled(5)
    feed("0123456789", "x")
    deepStrictEqual(takeCalls(), ["pause"])
    feed("y")
    deepStrictEqual(takeCalls(), [])
  })

  it.effect("R-028 resumes once at most limit bytes are left, whatever takes them", () =>
    Effect.gen(function* () {
      for (const take of ["read", "readExactly", "skip"] as const) {
        const { feed, reader, takeCalls } = controlled(5)
        feed("0123456789xy")
        deepStrictEqual(takeCalls(), ["pause"])
        yield* reader[take](6)
        deepStrictEqual(takeCalls(), [])
        yield* reader[take](1)
        deepStrictEqual(takeCalls(), ["resume"])
        yield* reader[take](1)
        deepStrictEqual(takeCalls(), [])
      }
      for (const take of ["readUntil", "skipUntil"] as const) {
        const { feed, reader, takeCalls } = controlled(5)
        feed("0\n1\n2\n3\n4\n5\n")
        for (let i = 0; i < 3; i++) yield* reader[take]("\n")
        deepStrictEqual(takeCalls(), ["pause"])
        yield* reader[take]("\n")
        deepStrictEqual(takeCalls(), ["resume"])
      }
    })
  )

  it.effect("R-028 stream and lines resume too", () =>
    Effect.gen(function* () {
      const { feed, reader, takeCalls } = controlled(5)
      feed("0123456789xy")
      yield* Stream.runHead(reader.stream)
      deepStrictEqual(takeCalls(), ["pause", "resume"])
      feed("0\n1\n2\n3\n4\n5\n")
      yield* Stream.runHead(reader.lines)
      deepStrictEqual(takeCalls(), ["pause"])
      yield* Stream.runHead(reader.lines)
      deepStrictEqual(takeCalls(), ["resume"])
    })
  )

  it.effect("R-028 peek leaves the source paused", () =>
    Effect.gen(function* () {
      const { feed, reader, takeCalls } = controlled(5)
      feed("0123456789x")
      yield* reader.peek(11)
      deepStrictEqual(takeCalls(), ["pause"])
    })
  )

  it.effect("R-029 a read that needs more than is there resumes at once", () =>
    Effect.gen(function* () {
      const { feed, reader, takeCalls } = controlled(5)
      feed("0123456789x")
      const read = yield* startText(reader.readExactly(20))
      deepStrictEqual(takeCalls(), ["pause", "resume"])
      feed("x".repeat(8))
      assertTrue(read.isWaiting())
      feed("y")
      strictEqual(read.value(), "0123456789" + "x".repeat(9) + "y")
      deepStrictEqual(takeCalls(), [])
      feed("0123456789x")
      deepStrictEqual(takeCalls(), ["pause"])
    })
  )

  it.effect("R-029 interrupted, it pauses the source again", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader, takeCalls } = controlled(5)
      feed("0123456789x")
      const read = yield* start(reader.readExactly(20))
      const other = yield* start(reader.readExactly(21))
      takeCalls()
      yield* read.interrupt
      deepStrictEqual(takeCalls(), [])
      yield* other.interrupt
      deepStrictEqual(takeCalls(), ["pause"])
      strictEqual(yield* buffered, "0123456789x")
    })
  )

  it.effect("R-030 an overrun leaves the source paused and the buffer as it was", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader, takeCalls } = controlled(5)
      feed("0123456789x")
      strictEqual((yield* Effect.flip(reader.readUntil("\n")))._tag, "LimitOverrunError")
      deepStrictEqual(takeCalls(), ["pause"])
      strictEqual(yield* buffered, "0123456789x")
    })
  )

  it.effect("R-031 an overrun of readLine too; skipUntil resumes", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader, takeCalls } = controlled(5)
      feed("0123456789x")
      strictEqual((yield* Effect.flip(reader.readLine))._tag, "LimitOverrunError")
      deepStrictEqual(takeCalls(), ["pause"])
      strictEqual(yield* buffered, "0123456789x")
      const skip = yield* start(reader.skipUntil("\n"))
      deepStrictEqual(takeCalls(), ["resume"])
      feed("\nab")
      strictEqual(skip.value(), 12)
      strictEqual(yield* buffered, "ab")
    })
  )

  it.effect("R-032 a source that cannot pause: everything is buffered", () =>
    Effect.gen(function* () {
      const { feed, reader } = given({ limit: 1 })
      for (let i = 0; i < 1000; i++) feed("0123456789")
      strictEqual(yield* reader.bufferedBytes, 10_000)
      strictEqual((yield* reader.readExactly(10_000)).length, 10_000)
    })
  )

  it.effect("nothing is resumed after the end of input or a failure", () =>
    Effect.gen(function* () {
      for (const end of ["feedEof", "fail"] as const) {
        const source = controlled(1)
        source.feed("abcd")
        if (end === "fail") source.fail(reset())
        else source.feedEof()
        yield* source.reader.read()
        yield* Effect.exit(source.reader.read())
        deepStrictEqual(source.takeCalls(), ["pause"])
      }
    })
  )
})

describe("lines", () => {
  it.effect("R-035 of an ended input", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given({ chunks: ["a\nb\nc"] })
      feedEof()
      deepStrictEqual(yield* Stream.runCollect(reader.lines), ["a", "b", "c"])
      deepStrictEqual(yield* Stream.runCollect(reader.lines), [])
    })
  )

  it.effect("R-036 a line past the limit fails the stream, again and again until it is skipped", () =>
    Effect.gen(function* () {
      const { buffered, feedEof, reader } = given({ limit: 3, chunks: ["a\nlonger\nb\n"] })
      feedEof()
      const seen: Array<string> = []
      const each = Stream.runForEach(reader.lines, (line) => Effect.sync(() => seen.push(line)))
      const error = yield* Effect.flip(each)
      assertInstanceOf(error, StreamError.LimitOverrunError)
      deepStrictEqual([error.limit, error.consumed], [3, 6])
      deepStrictEqual(seen, ["a"])
      strictEqual((yield* Effect.flip(each))._tag, "LimitOverrunError")
      strictEqual(yield* buffered, "longer\nb\n")
      strictEqual(yield* reader.skipUntil("\n"), 7)
      yield* each
      deepStrictEqual(seen, ["a", "b"])
    })
  )
})
