import { describe, it } from "@effect/vitest"
import { assertFalse, assertInstanceOf, assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { type Cause, Context, Duration, Effect, Exit, Option, Queue, Scope, Stream } from "effect"
import { StreamError, StreamReader } from "effect-wire"
import { bytes, reasonOf, start, startText, text, turns } from "../support/reader.ts"

const chunks = (...texts: ReadonlyArray<string>) => Stream.fromIterable(texts.map(bytes))

/** Chunks of `size` bytes, as many as are asked for; `pulled` counts them. */
const endless = (size: number) => {
  const counted = { pulled: 0 }
  const stream = Stream.fromEffectRepeat(
    Effect.sync(() => {
      counted.pulled++
      return new Uint8Array(size)
    })
  )
  return { counted, stream }
}

describe("fromStream", () => {
  it.effect("the stream's end is the end of input", () =>
    Effect.gen(function* () {
      const reader = yield* StreamReader.fromStream(chunks("one\nt", "", "wo\nrest"))
      strictEqual(text(yield* reader.readLine), "one\n")
      strictEqual(text(yield* reader.readLine), "two\n")
      strictEqual(text(yield* reader.readLine), "rest")
      strictEqual(text(yield* reader.read()), "")
      assertTrue(yield* reader.atEof)
    })
  )

  it.effect("an empty stream", () =>
    Effect.gen(function* () {
      const reader = yield* StreamReader.fromStream(Stream.empty)
      strictEqual(text(yield* reader.readAll()), "")
    })
  )

  it.effect("a failure that a reader knows comes as it is, after the bytes", () =>
    Effect.gen(function* () {
      for (const error of [
        new StreamError.ConnectionError({ operation: "read", reason: new StreamError.ConnectionReset({}) }),
        new StreamError.TimeoutError({ operation: "read", duration: Duration.seconds(1) })
      ]) {
        const reader = yield* StreamReader.fromStream(Stream.concat(chunks("ab"), Stream.fail(error)))
        strictEqual(text(yield* reader.readExactly(2)), "ab")
        strictEqual(yield* Effect.flip(reader.read()), error)
        strictEqual(yield* Effect.flip(reader.read()), error)
        assertFalse(yield* reader.atEof)
      }
    })
  )

  it.effect("any other failure is the cause of a ConnectionError, a defect too", () =>
    Effect.gen(function* () {
      const incomplete = new StreamError.IncompleteReadError({ partial: bytes("a") })
      const defect = new Error("defect")
      const failing: ReadonlyArray<[Stream.Stream<Uint8Array, unknown>, unknown]> = [
        [Stream.fail("mine"), "mine"],
        [Stream.fail(incomplete), incomplete],
        [Stream.die(defect), defect]
      ]
      for (const [stream, cause] of failing) {
        const reader = yield* StreamReader.fromStream(stream)
        const error = yield* Effect.flip(reader.read())
        assertInstanceOf(error, StreamError.ConnectionError)
        deepStrictEqual([error.operation, error.reason._tag], ["read", "UnknownReason"])
        strictEqual(error.reason.cause, cause)
      }
    })
  )

  it.effect("is pulled in the background up to 2 × limit, then again once at most limit is left", () =>
    Effect.gen(function* () {
      const { counted, stream } = endless(5)
      const reader = yield* StreamReader.fromStream(stream, { limit: 20 })
      yield* turns
      strictEqual(yield* reader.bufferedBytes, 45)
      strictEqual(counted.pulled, 9)
      yield* reader.skip(24)
      yield* turns
      strictEqual(counted.pulled, 9)
      yield* reader.skip(1)
      yield* turns
      strictEqual(yield* reader.bufferedBytes, 45)
      strictEqual(counted.pulled, 14)
    })
  )

  it.effect("is pulled beyond that for a read that needs more", () =>
    Effect.gen(function* () {
      const { counted, stream } = endless(5)
      const reader = yield* StreamReader.fromStream(stream, { limit: 1 })
      yield* turns
      strictEqual(counted.pulled, 1)
      strictEqual((yield* reader.readExactly(50)).length, 50)
      yield* turns
      strictEqual(counted.pulled, 11)
    })
  )

  it.effect("the scope's end stops the pull: no end of input, but ConnectionClosed", () =>
    Effect.gen(function* () {
      const queue = yield* Queue.unbounded<Uint8Array, Cause.Done>()
      let finalized = false
      const stream = Stream.fromQueue(queue).pipe(
        Stream.ensuring(
          Effect.sync(() => {
            finalized = true
          })
        )
      )
      const scope = yield* Scope.make()
      const reader = yield* Scope.provide(StreamReader.fromStream(stream), scope)
      yield* Queue.offer(queue, bytes("abc"))
      yield* turns
      const waiting = yield* start(reader.readExactly(5))
      yield* Scope.close(scope, Exit.void)
      assertTrue(finalized)
      strictEqual(reasonOf(waiting.error()), "ConnectionClosed")
      strictEqual(text(yield* reader.read()), "abc")
      strictEqual(reasonOf(yield* Effect.flip(reader.read())), "ConnectionClosed")
      assertFalse(yield* reader.atEof)
    })
  )

  it.effect("the scope's end stops it also while it is held back", () =>
    Effect.gen(function* () {
      const { counted, stream } = endless(5)
      const scope = yield* Scope.make()
      const reader = yield* Scope.provide(StreamReader.fromStream(stream, { limit: 1 }), scope)
      yield* turns
      yield* Scope.close(scope, Exit.void)
      strictEqual((yield* reader.read()).length, 5)
      yield* turns
      strictEqual(counted.pulled, 1)
      strictEqual(reasonOf(yield* Effect.flip(reader.read())), "ConnectionClosed")
    })
  )

  it.effect("has the services of the stream", () =>
    Effect.gen(function* () {
      class Greeting extends Context.Service<Greeting, { readonly text: string }>()("Greeting") {}
      const stream = Stream.fromEffect(Greeting.use((_) => Effect.succeed(bytes(_.text))))
      const reader = yield* Effect.provideService(StreamReader.fromStream(stream), Greeting, {
        text: "hello"
      })
      strictEqual(text(yield* reader.readAll()), "hello")
    })
  )
})

describe("stream", () => {
  it.effect("is the bytes in their chunks, all that is there per pull, until the end", () =>
    Effect.gen(function* () {
      const { feed, feedEof, reader } = StreamReader.feedable()
      feed(bytes("ab"))
      feed(bytes("cd"))
      yield* reader.skip(1)
      const seen: Array<ReadonlyArray<string>> = []
      const each = yield* start(
        Stream.runForEachArray(reader.stream, (_) => Effect.sync(() => seen.push(_.map(text))))
      )
      deepStrictEqual(seen, [["b", "cd"]])
      feed(bytes("ef"))
      deepStrictEqual(seen, [["b", "cd"], ["ef"]])
      feedEof()
      strictEqual(each.value(), undefined)
      deepStrictEqual(yield* Stream.runCollect(reader.stream), [])
    })
  )

  it.effect("round trip through fromStream", () =>
    Effect.gen(function* () {
      const first = yield* StreamReader.fromStream(chunks("abc", "", "def"))
      const second = yield* StreamReader.fromStream(first.stream)
      strictEqual(text(yield* second.readAll()), "abcdef")
    })
  )

  it.effect("interrupted while it waits, it has taken nothing", () =>
    Effect.gen(function* () {
      const { feed, reader } = StreamReader.feedable()
      const each = yield* start(Stream.runDrain(reader.stream))
      yield* each.interrupt
      feed(bytes("a"))
      strictEqual(text(yield* reader.read()), "a")
    })
  )
})

/** The lines of the same bytes, by `lines` and by `readLineString`, cut at a place. */
const linesOf = Effect.fnUntraced(function* (input: Uint8Array, cut: number) {
  const make = () => {
    const { feed, feedEof, reader } = StreamReader.feedable()
    feed(input.subarray(0, cut))
    feed(input.subarray(cut))
    feedEof()
    return reader
  }
  const one = make()
  const singly: Array<string> = []
  for (;;) {
    const line = yield* one.readLineString
    if (Option.isNone(line)) break
    singly.push(line.value)
  }
  const lines: ReadonlyArray<ReadonlyArray<string>> = [yield* Stream.runCollect(make().lines), singly]
  return lines
})

const cutAnywhere = (title: string, input: Uint8Array, expected: ReadonlyArray<string>) =>
  it.effect(`${title}, cut anywhere`, () =>
    Effect.gen(function* () {
      for (let cut = 0; cut <= input.length; cut++) {
        deepStrictEqual(yield* linesOf(input, cut), [expected, expected])
      }
    })
  )

describe("text", () => {
  cutAnywhere("characters of two, three and four bytes", bytes("é\n€uro\n😀 smile\n"), [
    "é",
    "€uro",
    "😀 smile"
  ])
  cutAnywhere('"\\r\\n"', bytes("a\r\nb\r\n\r\nc"), ["a", "b", "", "c"])
  cutAnywhere('"\\n" and "\\r\\n" mixed', bytes("a\nb\r\nc\n\r\n\nd\r\n"), ["a", "b", "c", "", "", "d"])
  cutAnywhere('"\\r" alone is part of the line', bytes("a\rb\n\r\r\nc\r"), ["a\rb", "\r", "c\r"])
  cutAnywhere('a "\\r" at the very end', bytes("a\r"), ["a\r"])
  cutAnywhere("empty lines", bytes("\n\n\r\n"), ["", "", ""])
  cutAnywhere("nothing", bytes(""), [])
  cutAnywhere("a byte order mark is kept", bytes("\uFEFFa\n\uFEFFb\n"), ["\uFEFFa", "\uFEFFb"])
  cutAnywhere("zero bytes", bytes("a\0b\n\0\n"), ["a\0b", "\0"])
  cutAnywhere(
    "invalid UTF-8 is replaced, and never reaches over a line's end",
    Uint8Array.of(0x61, 0xff, 0x0a, 0xe2, 0x82, 0x0a, 0xac, 0x0a, 0xf0, 0x9f),
    ["a\uFFFD", "\uFFFD", "\uFFFD", "\uFFFD"]
  )
  cutAnywhere("other line ends of Unicode are no line ends", bytes("a\u2028b\u0085c\fd\n"), [
    "a\u2028b\u0085c\fd"
  ])

  it.effect("lines: many per pull, as they come", () =>
    Effect.gen(function* () {
      const { feed, feedEof, reader } = StreamReader.feedable()
      const seen: Array<ReadonlyArray<string>> = []
      const each = yield* start(
        Stream.runForEachArray(reader.lines, (_) => Effect.sync(() => seen.push([..._])))
      )
      feed(bytes("a\nb\nc"))
      feed(bytes("d"))
      deepStrictEqual(seen, [["a", "b"]])
      feed(bytes("\ne"))
      feedEof()
      deepStrictEqual(seen, [["a", "b"], ["cd"], ["e"]])
      strictEqual(each.value(), undefined)
    })
  )

  it.effect("lines: none is longer than the limit, also when many come at once", () =>
    Effect.gen(function* () {
      const { feed, reader } = StreamReader.feedable({ limit: 4 })
      feed(bytes("a\nbbbb\ncc\nddddd\ne\n"))
      const seen: Array<string> = []
      const error = yield* Effect.flip(
        Stream.runForEach(reader.lines, (_) => Effect.sync(() => seen.push(_)))
      )
      deepStrictEqual(seen, ["a", "bbbb", "cc"])
      assertInstanceOf(error, StreamError.LimitOverrunError)
      deepStrictEqual([error.operation, error.limit, error.consumed], ["readLine", 4, 5])
      strictEqual(yield* reader.bufferedBytes, 8)
    })
  )

  it.effect("lines: a failure comes after the lines, and leaves what is no line", () =>
    Effect.gen(function* () {
      const { fail, feed, reader } = StreamReader.feedable()
      feed(bytes("a\nb"))
      const error = new StreamError.ConnectionError({
        operation: "read",
        reason: new StreamError.ConnectionReset({})
      })
      fail(error)
      const seen: Array<string> = []
      const exit = yield* Effect.exit(Stream.runForEach(reader.lines, (_) => Effect.sync(() => seen.push(_))))
      deepStrictEqual(exit, Exit.fail(error))
      deepStrictEqual(seen, ["a"])
      strictEqual(text(yield* reader.read()), "b")
    })
  )

  it.effect("readLineString of a line in many chunks", () =>
    Effect.gen(function* () {
      const { feed, reader } = StreamReader.feedable()
      const line = yield* start(reader.readLineString)
      const other = yield* startText(reader.readLine)
      for (const byte of bytes("€😀\r\nx\r\n")) feed(Uint8Array.of(byte))
      deepStrictEqual(line.value(), Option.some("€😀"))
      strictEqual(other.value(), "x\r\n")
    })
  )
})
