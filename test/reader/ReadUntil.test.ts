import { describe, it } from "@effect/vitest"
import {
  assertInclude,
  assertInstanceOf,
  assertNone,
  assertTrue,
  deepStrictEqual,
  strictEqual
} from "@effect/vitest/utils"
import { Effect, Exit, Option, Schema } from "effect"
import { StreamError, type StreamReader } from "effect-wire"
import { bytes, type Given, given, rangeError, reset, start, startText, text } from "../support/reader.ts"

const until = (reader: StreamReader.StreamReader, separator: StreamReader.Separator) =>
  Effect.map(reader.readUntil(separator), text)

const expectOverrun = (error: unknown, limit: number, consumed: number) => {
  assertInstanceOf(error, StreamError.LimitOverrunError)
  deepStrictEqual([error.limit, error.consumed], [limit, consumed])
}

const expectIncomplete = (error: unknown, partial: string) => {
  assertInstanceOf(error, StreamError.IncompleteReadError)
  deepStrictEqual([text(error.partial), error.expected], [partial, undefined])
}

describe("separators", () => {
  it.effect("U-001 an empty one is a defect, also when a failure is stored", () =>
    Effect.gen(function* () {
      const { fail, reader } = given()
      fail(reset())
      for (const separator of ["", new Uint8Array(0)]) {
        assertInclude((yield* rangeError(reader.readUntil(separator))).message, "at least one byte")
        assertInclude((yield* rangeError(reader.skipUntil(separator))).message, "at least one byte")
      }
    })
  )

  it.effect("U-002 an empty list is a defect", () =>
    Effect.gen(function* () {
      assertInclude((yield* rangeError(given().reader.readUntil([]))).message, "must not be empty")
    })
  )

  it.effect("U-003 a list with an empty member is a defect", () =>
    Effect.gen(function* () {
      assertInclude((yield* rangeError(given().reader.readUntil(["", "a"]))).message, "at least one byte")
      assertInclude((yield* rangeError(given().reader.readUntil(["a", ""]))).message, "at least one byte")
    })
  )

  it.effect("U-004 text and lists are separators; anything else is a type error", () =>
    Effect.gen(function* () {
      const { reader } = given({ chunks: ["a\nb€c;"] })
      strictEqual(yield* until(reader, "\n"), "a\n")
      strictEqual(yield* until(reader, "€"), "b€")
      strictEqual(yield* until(reader, [bytes(";")]), "c;")
      const unsound = () => {
        // @ts-expect-error a number is no separator
        void reader.readUntil(10)
        // @ts-expect-error nor is nothing
        void reader.readUntil()
      }
      strictEqual(typeof unsound, "function")
    })
  )

  it.effect("U-013 bytes, a Buffer, a view", () =>
    Effect.gen(function* () {
      const { reader } = given({ chunks: ["a\r\nb\r\nc\r\nd"] })
      strictEqual(yield* until(reader, bytes("\r\n")), "a\r\n")
      strictEqual(yield* until(reader, Buffer.from("\r\n")), "b\r\n")
      strictEqual(yield* until(reader, bytes("x\r\nx").subarray(1, 3)), "c\r\n")
    })
  )

  it.effect("U-013 changing its bytes while the read waits changes nothing", () =>
    Effect.gen(function* () {
      for (const f of [(_: Uint8Array) => _, (_: Uint8Array) => [_]]) {
        const { feed, reader } = given({ chunks: ["a"] })
        const separator = bytes("\r\n")
        const read = yield* startText(reader.readUntil(f(separator)))
        separator.set(bytes("xx"))
        feed("xx\r\nb")
        strictEqual(read.value(), "axx\r\n")
      }
    })
  )

  it.effect("more different ones than are remembered", () =>
    Effect.gen(function* () {
      const separators = Array.from({ length: 200 }, (_, i) => `<${i}>`)
      const { reader } = given({ chunks: [separators.join("")] })
      for (const separator of separators) strictEqual(yield* until(reader, separator), separator)
    })
  )
})

describe("readUntil", () => {
  it.effect("U-005 U-006 up to and including the separator", () =>
    Effect.gen(function* () {
      for (const rest of ["", "xxx"]) {
        const { buffered, reader } = given({ chunks: [`lineAAA${rest}`] })
        strictEqual(yield* until(reader, "AAA"), "lineAAA")
        strictEqual(yield* buffered, rest)
      }
    })
  )

  it.effect("U-007 U-008 U-009 U-010 a separator over chunks", () =>
    Effect.gen(function* () {
      for (const [chunks, expected] of [
        [["QWEaa", "XYaa", "a"], "QWEaaXYaaa"],
        [["QWEaa", "XYa", "aa"], "QWEaaXYaaa"],
        [["aaa"], "aaa"],
        [["XXX", "a", "a", "a"], "XXXaaa"]
      ] as const) {
        const { buffered, reader } = given({ chunks })
        strictEqual(yield* until(reader, "aaa"), expected)
        strictEqual(yield* buffered, "")
        const later = given()
        const read = yield* startText(later.reader.readUntil("aaa"))
        later.feed(...chunks)
        strictEqual(read.value(), expected)
      }
    })
  )

  it.effect("U-011 a separator cut in two while the read waits", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given()
      const read = yield* startText(reader.readUntil("\r\n"))
      feed("ab\r")
      assertTrue(read.isWaiting())
      feed("\ncd")
      strictEqual(read.value(), "ab\r\n")
      strictEqual(yield* buffered, "cd")
    })
  )

  it.effect("U-012 a false start that overlaps the separator", () =>
    Effect.gen(function* () {
      const { feed, reader } = given()
      const read = yield* startText(reader.readUntil("aab"))
      feed("aa")
      assertTrue(read.isWaiting())
      feed("ab")
      strictEqual(read.value(), "aaab")
    })
  )

  it.effect("U-014 at the end of input: IncompleteReadError with the rest, which is consumed", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given({ chunks: ["some dataAA"] })
      feedEof()
      const error = yield* Effect.flip(reader.readUntil("AAA"))
      expectIncomplete(error, "some dataAA")
      assertTrue(yield* reader.atEof)
    })
  )

  it.effect("U-015 of nothing at the end of input", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given()
      feedEof()
      expectIncomplete(yield* Effect.flip(reader.readUntil("\n")), "")
    })
  )

  it.effect("U-016 the separator came with the last bytes, the end is known", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given({ chunks: ["a", "b\n"] })
      feedEof()
      strictEqual(yield* until(reader, "\n"), "ab\n")
    })
  )

  it.effect(
    "U-017 U-018 U-019 limit 3: overruns leave the buffer, consumed bytes can be read, then the rest",
    () =>
      Effect.gen(function* () {
        const { buffered, feed, reader } = given({ limit: 3, chunks: ["some dataAA"] })
        const notFound = yield* Effect.flip(reader.readUntil("AAA"))
        expectOverrun(notFound, 3, 9)
        strictEqual(yield* buffered, "some dataAA")
        feed("A")
        expectOverrun(yield* Effect.flip(reader.readUntil("AAA")), 3, 9)
        strictEqual(yield* buffered, "some dataAAA")
        strictEqual(text(yield* reader.readExactly(9)), "some data")
        strictEqual(yield* until(reader, "AAA"), "AAA")
      })
  )

  it.effect("U-029 past the limit at the end of input: the overrun comes first", () =>
    Effect.gen(function* () {
      const { buffered, feedEof, reader } = given({ limit: 7, chunks: ["12345678"] })
      feedEof()
      expectOverrun(yield* Effect.flip(reader.readUntil("\n")), 7, 8)
      strictEqual(yield* buffered, "12345678")
    })
  )

  it.effect("U-031 at the limit at the end of input: incomplete; readLine gives the rest", () =>
    Effect.gen(function* () {
      const first = given({ limit: 7, chunks: ["1234567"] })
      first.feedEof()
      expectIncomplete(yield* Effect.flip(first.reader.readUntil("\n")), "1234567")
      const second = given({ limit: 7, chunks: ["1234567"] })
      second.feedEof()
      strictEqual(text(yield* second.reader.readLine), "1234567")
    })
  )

  it.effect("U-044 after an overrun, read returns what is buffered", () =>
    Effect.gen(function* () {
      const { reader } = given({ limit: 3, chunks: ["abc", "def"] })
      yield* Effect.flip(reader.readUntil("\n"))
      strictEqual(text(yield* reader.read(100)), "abcdef")
    })
  )

  it.effect("U-045 the separator at the limit, and one byte further", () =>
    Effect.gen(function* () {
      for (const separator of ["\n", "\r\n"]) {
        const at = given({ limit: 5, chunks: [`12345${separator}`] })
        strictEqual(yield* until(at.reader, separator), `12345${separator}`)
        const beyond = given({ limit: 5, chunks: [`123456${separator}`] })
        expectOverrun(yield* Effect.flip(beyond.reader.readUntil(separator)), 5, 6)
      }
    })
  )

  it.effect("U-045 a limit of the call goes before the reader's, and is checked", () =>
    Effect.gen(function* () {
      const { feed, reader } = given({ limit: 5, chunks: ["123456\n"] })
      expectOverrun(yield* Effect.flip(reader.readUntil("\n")), 5, 6)
      strictEqual(text(yield* reader.readUntil("\n", { limit: 6 })), "123456\n")
      feed("123\n")
      expectOverrun(yield* Effect.flip(reader.readUntil("\n", { limit: 2 })), 2, 3)
      strictEqual(text(yield* reader.readUntil("\n", { limit: undefined })), "123\n")
      for (const limit of [0, -1, 1.5]) {
        assertInclude((yield* rangeError(reader.readUntil("\n", { limit }))).message, "limit must be")
      }
    })
  )

  it("U-047 the error keeps its text and numbers when it is sent", () => {
    const codec = Schema.toCodecJson(StreamError.LimitOverrunError)
    const error = new StreamError.LimitOverrunError({
      operation: "readUntil",
      limit: 3,
      consumed: 9,
      address: "127.0.0.1:1"
    })
    const restored = Schema.decodeSync(codec)(JSON.parse(JSON.stringify(Schema.encodeSync(codec)(error))))
    assertInstanceOf(restored, StreamError.LimitOverrunError)
    deepStrictEqual([restored.consumed, restored.limit, restored.message], [9, 3, error.message])
    assertInclude(error.message, "the limit of 3 bytes from 127.0.0.1:1 (9 bytes can be skipped")
  })
})

describe("several separators", () => {
  it.effect("U-038 whichever comes first", () =>
    Effect.gen(function* () {
      const { reader } = given({ chunks: ["line 1\nline 2\r"] })
      strictEqual(yield* until(reader, ["\r", "\n"]), "line 1\n")
      strictEqual(yield* until(reader, ["\r", "\n"]), "line 2\r")
    })
  )

  it.effect("U-039 the one that ends first, not the one that begins first", () =>
    Effect.gen(function* () {
      const { buffered, reader } = given({ chunks: ["ABCDEFG"] })
      strictEqual(yield* until(reader, ["DEF", "BCDE"]), "ABCDE")
      strictEqual(yield* buffered, "FG")
    })
  )

  it.effect("U-039 however the bytes were cut", () =>
    Effect.gen(function* () {
      for (let cut = 1; cut < 7; cut++) {
        const whole = "ABCDEFG"
        const { reader } = given({ chunks: [whole.slice(0, cut), whole.slice(cut)] })
        strictEqual(yield* until(reader, ["DEF", "BCDE"]), "ABCDE")
      }
    })
  )

  it.effect('U-040 "\\r" ends before "\\r\\n" does', () =>
    Effect.gen(function* () {
      const { reader } = given({ chunks: ["a\r\nb"] })
      strictEqual(yield* until(reader, ["\r\n", "\n", "\r"]), "a\r")
      strictEqual(yield* until(reader, ["\r\n", "\n", "\r"]), "\n")
    })
  )

  it.effect("U-041 of two that end together the shorter counts for the limit", () =>
    Effect.gen(function* () {
      for (const separators of [
        ["A", "ome dataA"],
        ["ome dataA", "A"]
      ]) {
        const { buffered, reader } = given({ limit: 3, chunks: ["some dataA"] })
        expectOverrun(yield* Effect.flip(reader.readUntil(separators)), 3, 9)
        strictEqual(yield* buffered, "some dataA")
      }
    })
  )

  it.effect("U-042 of different lengths, over chunks, while the read waits", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given({ chunks: ["data"] })
      const read = yield* startText(reader.readUntil(["A", "long sep"]))
      feed("Z")
      assertTrue(read.isWaiting())
      feed("Aaaa")
      strictEqual(read.value(), "dataZA")
      strictEqual(yield* buffered, "aaa")
    })
  )

  it.effect("U-043 the longest counts for what can be skipped when none is found", () =>
    Effect.gen(function* () {
      const { feed, reader } = given({ limit: 8, chunks: ["x".repeat(9)] })
      const read = yield* start(reader.readUntil(["y", "zzzz"]))
      assertTrue(read.isWaiting())
      feed("xxx")
      expectOverrun(read.error(), 8, 9)
    })
  )
})

describe("readLine", () => {
  it.effect("U-020 a line of exactly limit bytes", () =>
    Effect.gen(function* () {
      strictEqual(text(yield* given({ limit: 7, chunks: ["1234567\n"] }).reader.readLine), "1234567\n")
    })
  )

  const overruns: ReadonlyArray<
    [title: string, given: () => Given, limit: number, consumed: number, rest: string]
  > = [
    ["U-021 one byte more", () => given({ limit: 7, chunks: ["12345678\n"] }), 7, 8, "12345678\n"],
    [
      "U-022 one byte more, no newline yet",
      () => given({ limit: 7, chunks: ["12345678"] }),
      7,
      8,
      "12345678"
    ],
    [
      "U-024 a line too long before another",
      () => given({ limit: 3, chunks: ["line1\nline2\n"] }),
      3,
      5,
      "line1\nline2\n"
    ],
    ["U-025 in chunks", () => given({ limit: 3, chunks: ["li", "ne1", "li"] }), 3, 7, "line1li"],
    [
      "U-026 in chunks, with the end",
      () => {
        const g = given({ limit: 7, chunks: ["chunk1", "chunk2", "chunk3\n"] })
        g.feedEof()
        return g
      },
      7,
      18,
      "chunk1chunk2chunk3\n"
    ],
    [
      "U-027 in chunks, with a line behind and the end",
      () => {
        const g = given({ limit: 7, chunks: ["chunk1", "chunk2\n", "chunk3\n"] })
        g.feedEof()
        return g
      },
      7,
      12,
      "chunk1chunk2\nchunk3\n"
    ],
    [
      "U-030 no newline, with the end",
      () => {
        const g = given({ limit: 7, chunks: ["12345678"] })
        g.feedEof()
        return g
      },
      7,
      8,
      "12345678"
    ]
  ]
  for (const [title, make, limit, consumed, rest] of overruns) {
    it.effect(`${title}: an overrun, and the buffer is as it was`, () =>
      Effect.gen(function* () {
        const { buffered, reader } = make()
        for (const read of [Effect.asVoid(reader.readLine), Effect.asVoid(reader.readLineString)]) {
          const error = yield* Effect.flip(read)
          expectOverrun(error, limit, consumed)
          strictEqual(yield* buffered, rest)
        }
      })
    )
  }

  it.effect("U-023 limit bytes without newline: it waits", () =>
    Effect.gen(function* () {
      const { feed, reader } = given({ limit: 7, chunks: ["1234567"] })
      const line = yield* startText(reader.readLine)
      assertTrue(line.isWaiting())
      feed("\n")
      strictEqual(line.value(), "1234567\n")
    })
  )

  it.effect("U-032 a line in pieces", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given({ chunks: ["chunk1 "] })
      const line = yield* startText(reader.readLine)
      feed("chunk2 ", "chunk3 ", "\n chunk4")
      strictEqual(line.value(), "chunk1 chunk2 chunk3 \n")
      strictEqual(yield* buffered, " chunk4")
    })
  )

  it.effect("U-033 a line that is there does not wait", () =>
    Effect.gen(function* () {
      const line = yield* startText(given({ chunks: ["line1\n", "line2\nline3\n"] }).reader.readLine)
      strictEqual(line.value(), "line1\n")
    })
  )

  it.effect("U-034 the unterminated rest at the end of input", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given({ chunks: ["some ", "data"] })
      feedEof()
      strictEqual(text(yield* reader.readLine), "some data")
      strictEqual(text(yield* reader.readLine), "")
    })
  )

  it.effect("U-035 at the end of input no bytes; as text none, which an empty line is not", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given({ chunks: ["\n"] })
      feedEof()
      deepStrictEqual(yield* reader.readLineString, Option.some(""))
      strictEqual(text(yield* reader.readLine), "")
      assertNone(yield* reader.readLineString)
      assertNone(yield* reader.readLineString)
    })
  )

  it.effect("U-036 an empty line", () =>
    Effect.gen(function* () {
      const { buffered, reader } = given({ chunks: ["\n\n"] })
      strictEqual(text(yield* reader.readLine), "\n")
      strictEqual(yield* buffered, "\n")
    })
  )

  it.effect('U-037 "\\r\\n" stays; as text it goes', () =>
    Effect.gen(function* () {
      strictEqual(text(yield* given({ chunks: ["a\r\nb"] }).reader.readLine), "a\r\n")
      deepStrictEqual(yield* given({ chunks: ["a\r\nb"] }).reader.readLineString, Option.some("a"))
    })
  )

  it.effect("U-046 the default limit: a line of 65,536 bytes, and one more", () =>
    Effect.gen(function* () {
      strictEqual((yield* given({ chunks: ["x".repeat(65_536) + "\n"] }).reader.readLine).length, 65_537)
      const beyond = given({ chunks: ["x".repeat(65_537) + "\n"] })
      expectOverrun(yield* Effect.flip(beyond.reader.readLine), 65_536, 65_537)
    })
  )
})

describe("skipUntil", () => {
  it.effect("U-021 U-024 U-027 goes past the long line, and leaves the next", () =>
    Effect.gen(function* () {
      for (const [limit, chunks, skipped, rest] of [
        [7, ["12345678\n"], 9, ""],
        [3, ["line1\nline2\n"], 6, "line2\n"],
        [7, ["chunk1", "chunk2\n", "chunk3\n"], 13, "chunk3\n"]
      ] as const) {
        const { buffered, reader } = given({ limit, chunks })
        yield* Effect.flip(reader.readLine)
        strictEqual(yield* reader.skipUntil("\n"), skipped)
        strictEqual(yield* buffered, rest)
      }
    })
  )

  it.effect("U-028 the tail of a long line never poses as a line", () =>
    Effect.gen(function* () {
      const { feed, reader } = given({ limit: 7, chunks: ["12345678"] })
      yield* Effect.flip(reader.readLine)
      const skip = yield* start(reader.skipUntil("\n"))
      feed("9\nok\n")
      strictEqual(skip.value(), 10)
      strictEqual(text(yield* reader.readLine), "ok\n")
    })
  )

  it.effect("U-030 at the end of input: not found, everything is consumed", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given({ limit: 7, chunks: ["12345678"] })
      feedEof()
      yield* Effect.flip(reader.readLine)
      const error = yield* Effect.flip(reader.skipUntil("\n"))
      expectIncomplete(error, "12345678")
      assertTrue(yield* reader.atEof)
    })
  )

  it.effect("U-030 at the end of input after what was dropped: partial is what was left", () =>
    Effect.gen(function* () {
      const { feed, feedEof, reader } = given({ chunks: ["123"] })
      const skip = yield* start(reader.skipUntil("\r\n"))
      feed("456\r")
      feedEof()
      expectIncomplete(skip.error(), "\r")
      assertTrue(yield* reader.atEof)
    })
  )

  it.effect("U-048 of a long line that is there", () =>
    Effect.gen(function* () {
      const { buffered, reader } = given({ limit: 7, chunks: ["12345678\nok\n"] })
      strictEqual(yield* reader.skipUntil("\n"), 9)
      strictEqual(yield* buffered, "ok\n")
    })
  )

  it.effect("U-049 over chunks, without holding them", () =>
    Effect.gen(function* () {
      const { feed, reader } = given({ limit: 7 })
      const skip = yield* start(reader.skipUntil("\n"))
      for (const chunk of ["1234567", "89", "x".repeat(1000)]) {
        feed(chunk)
        strictEqual(yield* reader.bufferedBytes, 0)
      }
      feed("\nok\n")
      strictEqual(skip.value(), 1010)
      strictEqual(text(yield* reader.readLine), "ok\n")
    })
  )

  it.effect("U-050 a separator cut in two", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given()
      const skip = yield* start(reader.skipUntil("\r\n"))
      feed("ab\r")
      assertTrue(skip.isWaiting())
      feed("\ncd")
      strictEqual(skip.value(), 4)
      strictEqual(yield* buffered, "cd")
    })
  )

  it.effect("U-050 interrupted, what was searched is gone, and the next call goes on", () =>
    Effect.gen(function* () {
      const { buffered, feed, reader } = given()
      const skip = yield* start(reader.skipUntil(["\n", "\r\n.\r\n"]))
      feed("ab\r")
      yield* skip.interrupt
      strictEqual(yield* buffered, "ab\r")
      feed("cdef")
      const again = yield* start(reader.skipUntil("\r\n"))
      strictEqual(yield* reader.bufferedBytes, 1)
      feed("\r\nrest")
      strictEqual(again.value(), 9)
      strictEqual(yield* buffered, "rest")
    })
  )

  it.effect("U-050 a failure while it waits", () =>
    Effect.gen(function* () {
      const { fail, feed, reader } = given()
      const skip = yield* start(Effect.exit(reader.skipUntil("\r\n")))
      feed("ab\r")
      const error = reset()
      fail(error)
      deepStrictEqual(skip.value(), Exit.fail(error))
      strictEqual(text(yield* reader.read()), "\r")
    })
  )
})
