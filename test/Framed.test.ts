import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  type Duration,
  Effect,
  Exit,
  Fiber,
  Latch,
  Result,
  Scheduler,
  Schema,
  Scope,
  Stream
} from "effect"
import { TestClock } from "effect/testing"
import {
  Codec,
  Connection,
  FrameError,
  Framed,
  Framing,
  type Network,
  Server,
  StreamError,
  StreamReader
} from "effect-wire"
import { TestNetwork } from "effect-wire/testing"
import { connect, delayed, pair, turns, withSleepers } from "./support/effects.ts"
import { bytes, rangeError, start, text } from "./support/reader.ts"

const feedable = (...chunks: ReadonlyArray<string>) => {
  const given = StreamReader.feedable({ limit: 64 })
  for (const chunk of chunks) given.feed(bytes(chunk))
  return { ...given, feed: (chunk: string) => given.feed(bytes(chunk)) }
}

const Point = Schema.Struct({ x: Schema.Number, y: Schema.Number })

const lines = Framing.lines()

const frameError = (error: unknown): FrameError.FrameError => {
  if (!(error instanceof FrameError.FrameError))
    throw new Error(`expected a FrameError, received ${String(error)}`)
  return error
}

const failure = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.map(Effect.flip(effect), frameError)

/** An effect in fibers that yield within it: in each after one operation of it less. */
const yieldingEarlier = <A, E, R>(effect: Effect.Effect<A, E, R>): ReadonlyArray<Effect.Effect<A, E, R>> =>
  Array.from({ length: 40 }, (_, before) =>
    Effect.provideService(delayed(effect, before), Scheduler.MaxOpsBeforeYield, 40)
  )

describe("receive", () => {
  it.effect("gives messages in order, then EndOfStream, every time", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = feedable("one\ntw", "o\n")
      feedEof()
      const { receive } = Framed.receiver(reader, lines, Codec.string())
      assert.deepStrictEqual([yield* receive, yield* receive], ["one", "two"])
      assert.strictEqual((yield* Effect.flip(receive))._tag, "EndOfStream")
      assert.strictEqual((yield* Effect.flip(receive))._tag, "EndOfStream")
    })
  )

  it.effect(
    "within a frame the end of input is an IncompleteReadError, with what came and what was announced",
    () =>
      Effect.gen(function* () {
        const { feed, feedEof, reader } = StreamReader.feedable()
        feed(Uint8Array.of(0, 5, 1, 2))
        feedEof()
        const { receive } = Framed.receiver(reader, Framing.lengthPrefixed({ width: 2 }))
        const error = yield* Effect.flip(receive)
        assert.instanceOf(error, StreamError.IncompleteReadError)
        assert.deepStrictEqual([Array.from(error.partial), error.expected], [[0, 5, 1, 2], 7])
        assert.strictEqual((yield* Effect.flip(receive))._tag, "EndOfStream")
      })
  )

  it.effect("what was received before a failure comes first, then the failure", () =>
    Effect.gen(function* () {
      const { fail, reader } = feedable("one\nrest")
      fail(
        new StreamError.ConnectionError({ operation: "read", reason: new StreamError.ConnectionReset({}) })
      )
      const { receive } = Framed.receiver(reader, lines, Codec.string())
      assert.strictEqual(yield* receive, "one")
      assert.strictEqual((yield* Effect.flip(receive))._tag, "ConnectionError")
      assert.strictEqual(text(yield* reader.read()), "rest")
    })
  )

  it.effect("concurrent receives take turns", () =>
    Effect.gen(function* () {
      const { feed, reader } = feedable()
      const { receive } = Framed.receiver(reader, lines, Codec.string())
      const first = yield* start(receive)
      const second = yield* start(receive)
      feed("one\n")
      assert.deepStrictEqual([first.value(), second.isWaiting()], ["one", true])
      feed("two\n")
      assert.strictEqual(second.value(), "two")
    })
  )

  it.effect("a read timeout consumes nothing", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair({ readTimeout: "1 second" })
      const { receive } = Framed.make(right, Framing.lengthPrefixed({ width: 1 }), Codec.string())
      yield* left.writer.write("\x03ab")
      const waiting = yield* start(Effect.flip(receive))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(waiting.value()._tag, "TimeoutError")
      yield* left.writer.write("c")
      assert.strictEqual(yield* receive, "abc")
    })
  )

  it.effect("a frame that lies in one chunk is a view of it", () =>
    Effect.gen(function* () {
      const chunk = bytes("xxx\x05hello\x05world")
      for (const framing of [Framing.lengthPrefixed({ width: 1, offset: 3, skip: 4 }), Framing.lines()]) {
        const { feed, reader } = StreamReader.feedable()
        feed(framing.name === "lines" ? bytes("hello\nworld") : chunk)
        const frame = yield* Framed.receiver(reader, framing).receive
        assert.strictEqual(text(frame), "hello")
        assert.isAbove(frame.buffer.byteLength, frame.byteLength)
      }
      // At the end of its chunk, and where the decoder reads step by step.
      const own = Framing.make<Uint8Array>({
        decode: (reader) => Effect.andThen(reader.skip(1), reader.readExactly(5)),
        encode: (frame) => frame
      })
      for (const framing of [Framing.lengthPrefixed({ width: 1 }), own]) {
        const { feed, reader } = StreamReader.feedable()
        const whole = bytes("\x05hello")
        feed(whole)
        assert.strictEqual((yield* Framed.receiver(reader, framing).receive).buffer, whole.buffer)
      }
    })
  )
})

describe("a frame that does not decode", () => {
  const codec = Codec.schema(Point)

  it.effect("says what, where, and shows the bytes; the cause is the SchemaError", () =>
    Effect.gen(function* () {
      const { reader } = feedable('{"x":1,"y":2}\n', '{"x":1}\n{"x":3,"y":4}\n')
      const { receive } = Framed.receiver(reader, lines, codec)
      assert.deepStrictEqual(yield* receive, { x: 1, y: 2 })
      const error = yield* failure(receive)
      assert.strictEqual(error.operation, "receive")
      assert.strictEqual(error.offset, 14)
      assert.strictEqual(text(error.excerpt ?? new Uint8Array()), '{"x":1}')
      assert.strictEqual(error.reason._tag, "InvalidMessage")
      assert.isTrue(error.reason._tag === "InvalidMessage" && Schema.isSchemaError(error.reason.cause))
      assert.match(error.message, /^receive at byte 14: invalid message: .*Missing key.*near "\{"x":1\}"/s)
      // It is one failure: the next message is there.
      assert.deepStrictEqual(yield* receive, { x: 3, y: 4 })
    })
  )

  it.effect("the excerpt is bounded", () =>
    Effect.gen(function* () {
      const { feed, reader } = StreamReader.feedable()
      feed(bytes(`${"x".repeat(10_000)}\n`))
      const error = yield* failure(Framed.receiver(reader, lines, Codec.json).receive)
      assert.strictEqual(error.excerpt?.length, 64)
      assert.isBelow(error.message.length, 400)
    })
  )

  it.effect("a violation inside a frame is located, and the frame consumed", () =>
    Effect.gen(function* () {
      const { reader } = feedable("ab\n", "first\rsecond\r\nnext\r\n")
      const { receive } = Framed.receiver(reader, Framing.lines({ strict: true }), Codec.string())
      assert.strictEqual(yield* receive, "ab")
      const error = yield* failure(receive)
      assert.deepStrictEqual([error.offset, error.reason._tag], [8, "MalformedFrame"])
      assert.strictEqual(yield* receive, "next")
    })
  )

  it.effect("messages before it are delivered first, and the stream fails after them", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = feedable('{"x":1,"y":2}\n{"x":3,"y":4}\nnonsense\n{"x":5,"y":6}\n')
      feedEof()
      const { messages, receive } = Framed.receiver(reader, lines, codec)
      const seen: Array<unknown> = []
      const error = yield* failure(Stream.runForEach(messages, (_) => Effect.sync(() => seen.push(_))))
      assert.deepStrictEqual(seen, [
        { x: 1, y: 2 },
        { x: 3, y: 4 }
      ])
      assert.strictEqual(error.offset, 28)
      assert.deepStrictEqual(yield* receive, { x: 5, y: 6 })
    })
  )

  it.effect('onInvalid "skip" goes on, and counts', () =>
    Effect.gen(function* () {
      const { feedEof, reader } = feedable('{"x":1,"y":2}\nnonsense\n{}\n{"x":3,"y":4}\n')
      feedEof()
      const { messages, skipped } = Framed.receiver(reader, lines, codec, { onInvalid: "skip" })
      assert.deepStrictEqual(Array.from(yield* Stream.runCollect(messages)), [
        { x: 1, y: 2 },
        { x: 3, y: 4 }
      ])
      assert.strictEqual(yield* skipped, 2)
    })
  )

  it.effect("onInvalid can be a function, which sees each error and decides", () =>
    Effect.gen(function* () {
      const own = Framing.make<Uint8Array>({
        *decode(reader) {
          const line = yield* reader.readUntil("\n")
          if (line[0] === 0x3f) return yield* new FrameError.MalformedFrame({ detail: "a question" })
          return line.subarray(0, -1)
        },
        encode: (frame) => frame
      })
      for (const framing of [Framing.lines({ maxLength: 20 }), own]) {
        const seen: Array<string> = []
        const { feedEof, reader } = feedable('1\nbad\n"skip"\n2\n{\n3\n')
        feedEof()
        const { receive, skipped } = Framed.receiver(reader, framing, Codec.schema(Schema.Number), {
          onInvalid: (error) => {
            const excerpt = text(error.excerpt ?? new Uint8Array())
            seen.push(`${error.offset} ${excerpt.trim()}`)
            return excerpt.startsWith("{") ? "fail" : "skip"
          }
        })
        assert.deepStrictEqual([yield* receive, yield* receive, yield* skipped], [1, 2, 2])
        assert.strictEqual((yield* failure(receive)).offset, 15)
        assert.strictEqual(yield* receive, 3)
        assert.deepStrictEqual([seen, yield* skipped], [["2 bad", '6 "skip"', "15 {"], 2])
      }
    })
  )

  it.effect("also of frames that are too long, malformed, or skipped once more of them has come", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const options = (verdict: () => "fail" | "skip"): Framed.Options => ({
        onInvalid: ({ reason }) => {
          seen.push(reason._tag)
          return verdict()
        }
      })
      const long = feedable("too long\nok\n")
      let skips = false
      const lines = Framed.receiver(
        long.reader,
        Framing.lines({ maxLength: 3 }),
        Codec.string(),
        options(() => (skips ? "skip" : "fail"))
      )
      yield* failure(lines.receive)
      yield* failure(lines.receive)
      assert.strictEqual(yield* long.reader.bufferedBytes, 12)
      skips = true
      assert.strictEqual(yield* lines.receive, "ok")

      const netstrings = feedable("10")
      const receiver = Framed.receiver(
        netstrings.reader,
        Framing.netstring({ maxLength: 3 }),
        Codec.string(),
        options(() => "skip")
      )
      const waiting = yield* start(receiver.receive)
      netstrings.feed(":0123456789,2:ok,")
      assert.strictEqual(waiting.value(), "ok")

      const strict = feedable("a\rb\nok\n")
      const ending = Framed.receiver(
        strict.reader,
        Framing.lines({ strict: true }),
        Codec.string(),
        options(() => "skip")
      )
      assert.strictEqual(yield* ending.receive, "ok")
      // Nobody can tell where these end: there is nothing to decide.
      const lost = feedable("x")
      yield* failure(
        Framed.receiver(
          lost.reader,
          Framing.netstring(),
          Codec.string(),
          options(() => "skip")
        ).receive
      )
      assert.deepStrictEqual(seen, [
        "FrameTooLong",
        "FrameTooLong",
        "FrameTooLong",
        "FrameTooLong",
        "MalformedFrame"
      ])
    })
  )

  it.effect("what it throws is a defect of the receive, and of nobody else", () =>
    Effect.gen(function* () {
      const { feed, reader } = feedable()
      const { receive } = Framed.receiver(reader, lines, Codec.json, {
        onInvalid: () => {
          throw new Error("a bug")
        }
      })
      const first = yield* start(Effect.exit(receive))
      const second = yield* start(receive)
      feed("bad\n1\n")
      assert.match(String(first.value()), /Die\(Error: a bug\)/)
      assert.strictEqual(second.value(), 1)
    })
  )

  it.effect("a codec that throws is a defect of its receive, and of nobody else", () =>
    Effect.gen(function* () {
      const { feed, reader } = feedable()
      const broken = Codec.make<string>({
        decode: (frame) => {
          if (frame.length === 3) throw new Error("a bug")
          return Result.succeed(text(frame))
        },
        encode: (message) => Result.succeed(bytes(message))
      })
      const { receive } = Framed.receiver(reader, lines, broken)
      const first = yield* start(Effect.exit(receive))
      const second = yield* start(receive)
      feed("bad\ngood\n")
      const exit = first.value()
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      assert.strictEqual(second.value(), "good")
    })
  )
})

describe("a frame that is too long", () => {
  it.effect("fails at once, for every receive alike; nothing is consumed", () =>
    Effect.gen(function* () {
      for (const [header, width, length] of [
        ["ffffffff", 4, 2 ** 32 - 1],
        ["ffffffffffffffff", 8, 2 ** 64],
        ["0020000000000001", 8, 2 ** 53],
        ["ffffffffffffffffff01", "varint", 2 ** 64]
      ] as const) {
        const { feed, reader } = StreamReader.feedable()
        feed(Uint8Array.from(Buffer.from(header, "hex")))
        const { receive } = Framed.receiver(reader, Framing.lengthPrefixed({ width }))
        const before = process.memoryUsage().arrayBuffers
        for (let i = 0; i < 2; i++) {
          const { reason } = yield* failure(receive)
          assert.deepInclude(reason, { _tag: "FrameTooLong", length, limit: 8 * 1024 * 1024 })
        }
        assert.isBelow(process.memoryUsage().arrayBuffers - before, 65_536)
        assert.strictEqual(yield* reader.bufferedBytes, header.length / 2)
      }
    })
  )

  it.effect("skipped, it is never buffered, and counts once", () =>
    Effect.gen(function* () {
      const { feed, reader } = feedable("5:")
      const framing = Framing.lengthPrefixed({ width: 4, maxLength: 10 })
      const { receive, skipped } = Framed.receiver(reader, framing, Codec.string(), { onInvalid: "skip" })
      assert.strictEqual(text(yield* reader.readExactly(2)), "5:")
      const waiting = yield* start(receive)
      feed("\x00\x01\x00\x00")
      for (let i = 0; i < 65_536 / 1024; i++) {
        feed("x".repeat(1024))
        assert.strictEqual(yield* reader.bufferedBytes, 0)
      }
      feed("\x00\x00\x00\x02ok")
      assert.deepStrictEqual([waiting.value(), yield* skipped], ["ok", 1])
    })
  )

  it.effect("lines: one error per line when they are skipped, however they are cut", () =>
    Effect.gen(function* () {
      for (const width of [1, 2, 3, 7, 64]) {
        const { feed, feedEof, reader } = StreamReader.feedable()
        const { messages, skipped } = Framed.receiver(
          reader,
          Framing.lines({ maxLength: 4 }),
          Codec.string(),
          { onInvalid: "skip" }
        )
        const all = yield* Effect.forkChild(Stream.runCollect(messages), { startImmediately: true })
        const input = bytes("ok\nabcde\r\nabcd\r\nxxxxxxxxxxxxxxxxxxxx\n\nabcd\nyyyyy\nend")
        for (let at = 0; at < input.length; at += width) feed(input.subarray(at, at + width))
        feedEof()
        assert.deepStrictEqual(Array.from(yield* Fiber.join(all)), ["ok", "abcd", "", "abcd", "end"])
        assert.strictEqual(yield* skipped, 3)
      }
    })
  )

  it.effect("with a separator of several bytes, which may come in pieces", () =>
    Effect.gen(function* () {
      for (const width of [1, 2, 3, 5]) {
        const { feed, feedEof, reader } = StreamReader.feedable()
        const framing = Framing.delimited("-=-", { maxLength: 5 })
        const { messages, skipped } = Framed.receiver(reader, framing, Codec.string(), { onInvalid: "skip" })
        const all = yield* Effect.forkChild(Stream.runCollect(messages), { startImmediately: true })
        const input = bytes("ok-=-too long-=-abcd-=-xxxxxxxxxxxx-=-=-end-=-")
        for (let at = 0; at < input.length; at += width) feed(input.subarray(at, at + width))
        feedEof()
        assert.deepStrictEqual(Array.from(yield* Fiber.join(all)), ["ok", "abcd", "=-end"])
        assert.strictEqual(yield* skipped, 2)
      }
    })
  )

  it.effect("netstrings: skipped once the rest of the length has come", () =>
    Effect.gen(function* () {
      for (const width of [1, 2, 3, 100]) {
        const { feed, feedEof, reader } = StreamReader.feedable()
        const framing = Framing.netstring({ maxLength: 2 })
        const { messages, skipped } = Framed.receiver(reader, framing, Codec.string(), { onInvalid: "skip" })
        const all = yield* Effect.forkChild(Stream.runCollect(messages), { startImmediately: true })
        const input = bytes(`1:x,3:abc,2:yy,1000:${"z".repeat(1000)},0:,`)
        for (let at = 0; at < input.length; at += width) {
          feed(input.subarray(at, at + width))
          assert.isAtMost(yield* reader.bufferedBytes, 5)
        }
        feedEof()
        assert.deepStrictEqual(Array.from(yield* Fiber.join(all)), ["x", "yy", ""])
        assert.strictEqual(yield* skipped, 2)
      }
      // Nobody can tell where these end.
      for (const input of ["99999999999999999999:x,", "100x,", "9".repeat(20)]) {
        const { feed, reader } = StreamReader.feedable()
        const framing = Framing.netstring({ maxLength: 2 })
        feed(bytes(input))
        const { receive } = Framed.receiver(reader, framing, Codec.string(), { onInvalid: "skip" })
        assert.strictEqual((yield* failure(receive)).reason._tag, "FrameTooLong")
      }
      // Without skipping, before the last digit has come.
      const { feed, feedEof, reader } = StreamReader.feedable()
      feed(bytes("100"))
      const framing = Framing.netstring({ maxLength: 99 })
      assert.strictEqual(
        (yield* failure(Framed.receiver(reader, framing).receive)).reason._tag,
        "FrameTooLong"
      )
      feedEof()
      const skipping = Framed.receiver(reader, framing, Codec.bytes, { onInvalid: "skip" })
      assert.strictEqual((yield* Effect.flip(skipping.receive))._tag, "IncompleteReadError")
    })
  )

  it.effect("one that the end of input ends is skipped to there", () =>
    Effect.gen(function* () {
      const last = (framing: Framing.Framing, pieces: ReadonlyArray<string>) =>
        Effect.gen(function* () {
          const { feed, feedEof, reader } = StreamReader.feedable()
          const { receive, skipped } = Framed.receiver(reader, framing, Codec.string(), { onInvalid: "skip" })
          const waiting = yield* start(Effect.flip(receive))
          for (const piece of pieces) feed(bytes(piece))
          feedEof()
          const again = yield* Effect.flip(receive)
          return [waiting.value()._tag, again._tag, yield* skipped, yield* reader.bufferedBytes]
        })
      const maxLength = 4
      const end = ["EndOfStream", "EndOfStream", 1, 0]
      assert.deepStrictEqual(yield* last(Framing.lines({ maxLength }), ["too", "long"]), end)
      assert.deepStrictEqual(yield* last(Framing.lines({ maxLength, ending: "\r\n" }), ["toolong\r"]), end)
      assert.deepStrictEqual(yield* last(Framing.whole({ maxLength }), ["too", "long", "again"]), end)
      // These end in the middle of it.
      const cut = ["IncompleteReadError", "EndOfStream", 1, 0]
      assert.deepStrictEqual(yield* last(Framing.lines({ maxLength, strict: true }), ["too", "long"]), cut)
      assert.deepStrictEqual(yield* last(Framing.delimited("--", { maxLength }), ["too", "long-"]), cut)
      assert.deepStrictEqual(yield* last(Framing.lengthPrefixed({ maxLength, width: 1 }), ["\x09abc"]), cut)
    })
  )

  it.effect(
    "of a framing of one's own, before any of it is buffered, however long the peer says that it is",
    () =>
      Effect.gen(function* () {
        for (const length of [11, 2 ** 53, Number("99999999999999999999"), Infinity]) {
          for (const step of ["readExactly", "peek", "skip"] as const) {
            const framing = Framing.make<unknown>({
              maxLength: 10,
              decode: (reader) => reader[step](length),
              encode: () => ""
            })
            const { reader } = feedable("x")
            const { reason } = yield* failure(Framed.receiver(reader, framing).receive)
            assert.deepInclude(reason, { _tag: "FrameTooLong", length, limit: 10 })
          }
        }
      })
  )
})

describe("a framing of one's own", () => {
  const framing = Framing.make<string>({
    decode: Effect.fnUntraced(function* (reader) {
      const kind = text(yield* reader.readExactly(1))
      const line = text(yield* reader.readUntil(["\n", "\r\n"])).trimEnd()
      if (kind === "!") return yield* new FrameError.MalformedFrame({ detail: "it says so" })
      return `${kind} ${line} ${text(yield* reader.readExactly(2))}`
    }),
    encode: (frame) => frame
  })

  it.effect("reads on from step to step, across chunks, and consumes whole frames only", () =>
    Effect.gen(function* () {
      const { feed, reader } = feedable("a", "bc")
      const { receive } = Framed.receiver(reader, framing)
      const interrupted = yield* start(receive)
      feed("d\r")
      yield* interrupted.interrupt
      const waiting = yield* start(receive)
      assert.strictEqual(yield* reader.bufferedBytes, 5)
      feed("\nx")
      assert.isTrue(waiting.isWaiting())
      feed("y,next")
      assert.strictEqual(waiting.value(), "a bcd xy")
      assert.strictEqual(text(yield* reader.read()), ",next")
    })
  )

  it.effect("a malformed frame is consumed as far as it was read, or skipped", () =>
    Effect.gen(function* () {
      for (const onInvalid of ["fail", "skip"] as const) {
        const { reader } = feedable("!no\nok\n12")
        const { receive, skipped } = Framed.receiver(reader, framing, Codec.identity<string>(), { onInvalid })
        if (onInvalid === "fail") {
          const error = yield* failure(receive)
          assert.deepStrictEqual([error.offset, error.reason.message], [0, "malformed frame: it says so"])
        }
        assert.strictEqual(yield* receive, "o k 12")
        assert.strictEqual(yield* skipped, onInvalid === "skip" ? 1 : 0)
      }
    })
  )

  it.effect("a frame that the codec refuses is consumed, or skipped", () =>
    Effect.gen(function* () {
      const codec = Codec.make<string, string, string>({
        decode: (frame) =>
          frame.startsWith("?")
            ? Result.fail(new FrameError.InvalidMessage({ detail: frame }))
            : Result.succeed(frame),
        encode: Result.succeed
      })
      for (const onInvalid of ["fail", "skip"] as const) {
        const { reader } = feedable("?no\n11ok\n22")
        const { receive, skipped } = Framed.receiver(reader, framing, codec, { onInvalid })
        if (onInvalid === "fail") {
          const { excerpt, offset } = yield* failure(receive)
          assert.deepStrictEqual([offset, text(excerpt ?? new Uint8Array())], [0, "?no\n11"])
        }
        assert.strictEqual(yield* receive, "o k 22")
        assert.strictEqual(yield* skipped, onInvalid === "skip" ? 1 : 0)
      }
    })
  )

  it.effect("finds a separator wherever it lies, and however it is cut", () =>
    Effect.gen(function* () {
      const framing = Framing.make<string>({
        decode: (reader) =>
          Effect.flatMap(reader.readExactly(1), () => Effect.map(reader.readUntil(["=-=", "\r\n"]), text)),
        encode: (frame) => frame
      })
      for (const end of ["=-=", "\r\n"]) {
        for (const length of [0, 1, 2, 3, 253, 254, 255, 256, 257, 258, 766, 767, 768, 769]) {
          const line = `${"-".repeat(length)}${end}`
          for (const cut of [1, 2, 3, length, length + 1, length + 2, length + 3]) {
            const { feed, reader } = StreamReader.feedable()
            const { receive } = Framed.receiver(reader, framing)
            const waiting = yield* start(receive)
            const whole = bytes(`>${line}rest`)
            feed(whole.subarray(0, cut))
            feed(whole.subarray(cut))
            assert.strictEqual(waiting.value(), line)
            assert.strictEqual(text(yield* reader.read()), "rest")
          }
        }
      }
    })
  )

  // Both ways to write one: as an effect, and as a generator.
  const twoBytes = {
    effect: Framing.make<string>({
      decode: (reader) =>
        Effect.flatMap(reader.readExactly(1), (first) =>
          Effect.map(reader.readExactly(1), (second) => text(first) + text(second))
        ),
      encode: (frame) => frame
    }),
    generator: Framing.make<string>({
      *decode(reader) {
        return text(yield* reader.readExactly(1)) + text(yield* reader.readExactly(1))
      },
      encode: (frame) => frame
    })
  }
  for (const [kind, framing] of Object.entries(twoBytes)) {
    it.effect(`${kind}: nobody reads within a frame but its decoder`, () =>
      Effect.gen(function* () {
        const { feed, reader } = feedable()
        const first = yield* start(Framed.receiver(reader, framing).receive)
        const second = yield* start(Framed.receiver(reader, framing).receive)
        const rest = yield* start(Effect.map(reader.read(), text))
        feed("a")
        yield* turns
        assert.isTrue(first.isWaiting() && second.isWaiting() && rest.isWaiting())
        feed("bcd")
        yield* turns
        assert.deepStrictEqual([first.value(), second.value(), rest.isWaiting()], ["ab", "cd", true])
        feed("ef")
        assert.strictEqual(rest.value(), "ef")
        assert.strictEqual(yield* reader.bufferedBytes, 0)
      })
    )

    it.effect(`${kind}: whoever waits behind it is served, however it ends`, () =>
      Effect.gen(function* () {
        const interrupted = feedable()
        const given = yield* start(Framed.receiver(interrupted.reader, framing).receive)
        const next = yield* start(Effect.map(interrupted.reader.read(), text))
        interrupted.feed("a")
        yield* given.interrupt
        yield* turns
        assert.strictEqual(next.value(), "a")

        const ended = feedable("x")
        const incomplete = yield* start(Framed.receiver(ended.reader, framing).receive)
        const none = yield* start(ended.reader.read())
        ended.feedEof()
        yield* turns
        assert.deepInclude(incomplete.error(), { _tag: "IncompleteReadError", expected: 2 })
        assert.strictEqual(none.value().length, 0)

        const [left, right] = yield* pair({ readTimeout: "1 second" })
        yield* left.writer.write("x")
        const late = yield* start(Effect.flip(Framed.receiver(right.reader, framing).receive))
        yield* TestClock.adjust("500 millis")
        const after = yield* start(Effect.map(right.reader.readExactly(1), text))
        yield* TestClock.adjust("500 millis")
        yield* turns
        assert.deepStrictEqual([late.value()._tag, after.value()], ["TimeoutError", "x"])
      })
    )

    it.effect(`${kind}: interrupted at any step, it has given the frame or left it`, () =>
      Effect.gen(function* () {
        const outcomes = new Set<boolean>()
        // With fewer, a result could not be handed on in one go.
        for (let operations = 24; operations < 90; operations++) {
          for (let steps = 0; steps < 12; steps++) {
            const { reader } = feedable("ab")
            const { receive } = Framed.receiver(reader, framing)
            const given = yield* Effect.map(receive, (frame) => frame).pipe(
              Effect.provideService(Scheduler.MaxOpsBeforeYield, operations),
              Effect.forkChild({ startImmediately: true })
            )
            for (let i = 0; i < steps; i++) yield* Effect.yieldNow
            yield* Fiber.interrupt(given)
            const exit = yield* Fiber.await(given)
            const left = yield* reader.bufferedBytes
            assert.strictEqual(left, Exit.isSuccess(exit) ? 0 : 2)
            outcomes.add(Exit.isSuccess(exit))
          }
        }
        assert.strictEqual(outcomes.size, 2)
      })
    )

    it.effect(`${kind}: one after the other, none lost, whatever is interrupted`, () =>
      Effect.gen(function* () {
        const { feed, reader } = feedable()
        const { messages } = Framed.receiver(reader, framing)
        const all = yield* Effect.forkChild(Stream.runCollect(Stream.take(messages, 3)), {
          startImmediately: true
        })
        const given = yield* start(Framed.receiver(reader, framing).receive)
        for (const byte of "aabbccdd") {
          feed(byte)
          yield* turns
          yield* given.interrupt
        }
        assert.deepStrictEqual(Array.from(yield* Fiber.join(all)), ["aa", "bb", "cc"])
        assert.strictEqual(text(yield* reader.read()), "dd")
      })
    )
  }

  it.effect("stops the peer while it does something else than to wait for bytes", () =>
    Effect.gen(function* () {
      let paused = false
      const { feed, reader } = StreamReader.feedable({
        limit: 8,
        onPause: () => (paused = true),
        onResume: () => (paused = false)
      })
      const latch = yield* Latch.make()
      const slow = Framing.make<string>({
        decode: (reader) => Effect.andThen(latch.await, Effect.map(reader.readExactly(4), text)),
        encode: (frame) => frame
      })
      const receiving = yield* start(Framed.receiver(reader, slow).receive)
      const behind = yield* start(reader.readExactly(30))
      feed(bytes("x".repeat(16)))
      assert.isFalse(paused)
      feed(bytes("x"))
      assert.isTrue(paused)
      yield* latch.open
      yield* turns
      assert.strictEqual(receiving.value(), "xxxx")
      // Which needs more than has come.
      assert.isFalse(paused)
      feed(bytes("x".repeat(17)))
      assert.strictEqual(behind.value().length, 30)
    })
  )

  it.effect("what makes no sense is a defect that says so", () =>
    Effect.gen(function* () {
      const leaked: Array<Framing.FrameReader> = []
      const { feed, reader } = feedable()
      const dies = (decode: (reader: Framing.FrameReader) => Effect.Effect<string, Framing.DecodeError>) =>
        Effect.gen(function* () {
          feed("x")
          const framing = Framing.make<string>({ name: "odd", decode, encode: (frame) => frame })
          const exit = yield* Effect.exit(Framed.receiver(reader, framing).receive)
          yield* reader.read()
          return Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? String(Cause.squash(exit.cause)) : exit
        })
      assert.strictEqual(
        yield* dies(() => Effect.succeed("nothing read")),
        "Error: odd: decode gave a frame without having read any byte"
      )
      assert.strictEqual(
        yield* dies(() => Effect.map(Effect.ignore(reader.readExactly(2)), () => "")),
        "Error: a framing's decode must read with the reader that it is given"
      )
      const { receive } = Framed.receiver(reader, lines)
      assert.strictEqual(
        yield* dies(() => Effect.map(Effect.ignore(receive), () => "")),
        "Error: a framing's decode must read with the reader that it is given"
      )
      const nested = Framed.receiver(reader, twoBytes.effect)
      assert.strictEqual(
        yield* dies(() => Effect.map(Effect.ignore(nested.receive), () => "")),
        "Error: a framing's decode must read with the reader that it is given"
      )
      assert.match(
        String(
          yield* dies((frame) => {
            leaked.push(frame)
            throw new Error("a bug")
          })
        ),
        /a bug/
      )
      const exit = yield* Effect.exit(leaked[0]?.readExactly(1) ?? Effect.void)
      assert.match(String(exit), /the reader of a frame was used after the frame was decoded/)
    })
  )

  it.effect("reads lines, numbers, what it goes past, and the rest", () =>
    Effect.gen(function* () {
      const framing = Framing.make<ReadonlyArray<unknown>>({
        *decode(reader) {
          const seen: Array<unknown> = [text(yield* reader.readLine), yield* reader.readLineString]
          seen.push(yield* reader.readLineString, yield* reader.readUint8)
          seen.push(yield* reader.readUint16(), yield* reader.readUint16("little"))
          seen.push(yield* reader.readUint32("big"), yield* reader.readUint32("little"))
          seen.push(yield* reader.skipUntil(["--", "=="]), text(yield* reader.peek(2)))
          seen.push(text(yield* reader.readRest), (yield* reader.readRest).length)
          return seen
        },
        encode: () => ""
      })
      const wire = Buffer.concat([
        bytes("one\r\ntwo é\r\nthree\n"),
        Uint8Array.of(0xff, 1, 2, 1, 2, 0xff, 0, 0, 1, 1, 0, 0, 0xff),
        bytes("skipped==the rest")
      ])
      const expected = [
        "one\r\n",
        "two é",
        "three",
        255,
        258,
        513,
        0xff000001,
        0xff000001,
        9,
        "th",
        "the rest",
        0
      ]
      for (let width = 1; width <= wire.length; width++) {
        const { feed, feedEof, reader } = StreamReader.feedable()
        const receiving = yield* start(Framed.receiver(reader, framing).receive)
        for (let at = 0; at < wire.length; at += width) feed(wire.subarray(at, at + width))
        feedEof()
        assert.deepStrictEqual(receiving.value(), expected)
        assert.strictEqual(yield* reader.bufferedBytes, 0)
      }
    })
  )

  it.effect("each step says what it missed, and is held to the limit", () =>
    Effect.gen(function* () {
      const steps: Record<
        string,
        readonly [
          (reader: Framing.FrameReader) => Effect.Effect<unknown, Framing.StepError>,
          number | undefined
        ]
      > = {
        readExactly: [(_) => _.readExactly(5), 6],
        readUntil: [(_) => _.readUntil("\n"), undefined],
        readLine: [(_) => _.readLine, undefined],
        readLineString: [(_) => _.readLineString, undefined],
        readUint16: [(_) => Effect.andThen(_.skip(1), _.readUint16()), 4],
        readUint32: [(_) => _.readUint32("little"), 5],
        peek: [(_) => _.peek(7), 8],
        skip: [(_) => _.skip(8), 9],
        skipUntil: [(_) => _.skipUntil("\n"), undefined]
      }
      for (const [operation, [step, expected]] of Object.entries(steps)) {
        const framing = (maxLength: number) =>
          Framing.make<unknown>({
            maxLength,
            decode: (reader) => Effect.andThen(reader.readUint8, step(reader)),
            encode: () => ""
          })
        const { feedEof, reader } = feedable("abc")
        feedEof()
        const incomplete = yield* Effect.flip(Framed.receiver(reader, framing(100)).receive)
        if (incomplete._tag !== "IncompleteReadError") throw incomplete
        const { partial } = incomplete
        assert.deepStrictEqual(
          [incomplete.operation, incomplete.expected, text(partial)],
          [operation, expected, "abc"]
        )
        const long = feedable("abcd")
        const { reason } = yield* failure(Framed.receiver(long.reader, framing(3)).receive)
        assert.deepInclude(reason, { _tag: "FrameTooLong", limit: 3, orMore: true })
      }
      const rest = Framing.make<unknown>({ maxLength: 3, decode: (_) => _.readRest, encode: () => "" })
      const { reason } = yield* failure(Framed.receiver(feedable("abcd").reader, rest).receive)
      assert.deepInclude(reason, { _tag: "FrameTooLong", length: 4, limit: 3 })
      const misspelt = Framing.make<number>({
        // @ts-expect-error: neither end
        decode: (_) => _.readUint16("Big"),
        encode: () => ""
      })
      yield* rangeError(Framed.receiver(feedable("abcd").reader, misspelt).receive)
      const empty = Framing.make<number>({ decode: (_) => _.skipUntil(""), encode: () => "" })
      yield* rangeError(Framed.receiver(feedable("abcd").reader, empty).receive)
    })
  )

  it.effect("may be of two kinds, one for each direction, and so may the codecs upon it", () =>
    Effect.gen(function* () {
      const framing = Framing.make<ReadonlyArray<string>, { readonly verb: string }>({
        *decode(reader) {
          return text(yield* reader.readUntil("\n"))
            .trim()
            .split(" ")
        },
        encode: ({ verb }) => `${verb}\n`
      })
      const codec = Codec.identity<ReadonlyArray<string>, { readonly verb: string }>()
      const counted = Codec.map(codec, {
        decode: (words) => words.length,
        encode: (verb: string) => ({ verb })
      })
      const shouted = Codec.compose(
        counted,
        Codec.make<string, string, number, string>({
          decode: (count) => Result.succeed(`${count} words`),
          encode: (verb) => Result.succeed(verb.toUpperCase())
        })
      )
      const [left, right] = yield* pair()
      yield* right.writer.write("a b c\n")
      assert.strictEqual(yield* Framed.make(left, framing, shouted).request("list"), "3 words")
      assert.strictEqual(text(yield* right.reader.readLine), "LIST\n")
      yield* right.writer.write("d e\n")
      const plain = Framed.make(left, framing, Codec.duplex({ receive: counted, send: codec }))
      assert.strictEqual(yield* plain.request({ verb: "quit" }), 2)
      yield* right.writer.write("f\n")
      assert.deepStrictEqual(yield* Framed.make(left, framing).request({ verb: "end" }), ["f"])
      assert.strictEqual(text(yield* right.reader.readExactly(9)), "quit\nend\n")
    })
  )

  it.effect("several steps at once take turns", () =>
    Effect.gen(function* () {
      const framing = Framing.make<ReadonlyArray<string>>({
        decode: (reader) =>
          Effect.map(
            Effect.all([reader.readExactly(1), reader.readUntil(";"), reader.readExactly(2)], {
              concurrency: "unbounded"
            }),
            (parts) => parts.map(text)
          ),
        encode: () => ""
      })
      const { feed, reader } = feedable()
      const receiving = yield* start(Framed.receiver(reader, framing).receive)
      for (const byte of "abc;de") feed(byte)
      yield* turns
      assert.deepStrictEqual(receiving.value(), ["a", "bc;", "de"])
    })
  )

  it.effect("goes on with what is there at the end of input, if it likes", () =>
    Effect.gen(function* () {
      const framing = Framing.make<string>({
        decode: (reader) =>
          Effect.andThen(
            reader.readExactly(1),
            Effect.map(
              Effect.catchTag(reader.readUntil("\n"), "IncompleteReadError", ({ partial }) =>
                Effect.succeed(partial)
              ),
              text
            )
          ),
        encode: (frame) => frame
      })
      const { feedEof, reader } = feedable("1ab\n2c")
      feedEof()
      const { receive } = Framed.receiver(reader, framing)
      assert.deepStrictEqual([yield* receive, yield* receive], ["ab\n", "2c"])
      assert.deepStrictEqual([yield* reader.bufferedBytes, yield* reader.atEof], [0, true])
      assert.strictEqual((yield* Effect.flip(receive))._tag, "EndOfStream")
    })
  )

  it.effect("peeking beyond the end takes nothing, unless it fails the frame", () =>
    Effect.gen(function* () {
      const framing = Framing.make<string>({
        decode: (reader) =>
          Effect.matchEffect(reader.peek(3), {
            onSuccess: () => Effect.map(reader.readExactly(3), text),
            onFailure: () => Effect.map(reader.readExactly(2), text)
          }),
        encode: (frame) => frame
      })
      const { feedEof, reader } = feedable("abcdef")
      feedEof()
      const { receive } = Framed.receiver(reader, framing)
      assert.strictEqual(yield* receive, "abc")
      yield* reader.skip(1)
      assert.strictEqual(yield* receive, "ef")
      assert.strictEqual((yield* Effect.flip(receive))._tag, "EndOfStream")
    })
  )

  it.effect("an IncompleteReadError of another reader fails the frame, and not the stream", () =>
    Effect.gen(function* () {
      const framing = Framing.make<string>({
        decode: (reader) =>
          Effect.flatMap(reader.readUntil(";"), (frame) => {
            const inner = StreamReader.feedable()
            inner.feed(frame)
            inner.feedEof()
            return Effect.map(inner.reader.readExactly(3), text)
          }),
        encode: (frame) => frame
      })
      const { reader } = feedable("a;bc;d")
      const { receive } = Framed.receiver(reader, framing)
      assert.strictEqual((yield* Effect.flip(receive))._tag, "IncompleteReadError")
      assert.strictEqual(yield* receive, "bc;")
      assert.strictEqual(text(yield* reader.read()), "d")
    })
  )

  it.effect("concurrent receives do not mix, and plain wrong arguments are defects", () =>
    Effect.gen(function* () {
      const { feed, reader } = feedable()
      const { receive } = Framed.receiver(reader, framing)
      const first = yield* start(receive)
      const second = yield* start(receive)
      for (const byte of "aaa\n11bbb\n22") feed(byte)
      assert.deepStrictEqual(
        [yield* Fiber.join(first.fiber), yield* Fiber.join(second.fiber)],
        ["a aa 11", "b bb 22"]
      )
      feed("x")
      for (const n of [-1, 0.5, NaN]) {
        const wrong = Framing.make<Uint8Array>({ decode: (_) => _.readExactly(n), encode: (_) => _ })
        yield* rangeError(Framed.receiver(reader, wrong).receive)
      }
      const empty = Framing.make<Uint8Array>({ decode: (_) => _.readUntil(""), encode: (_) => _ })
      yield* rangeError(Framed.receiver(reader, empty).receive)
    })
  )
})

describe("send", () => {
  it.effect("what cannot be encoded fails, and nothing is sent, of several nothing at all", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const { send, sendAll, sink } = Framed.make(left, lines, Codec.string())
      const error = yield* failure(send("two\nlines"))
      assert.deepStrictEqual(
        [error.operation, error.reason._tag, error.offset],
        ["send", "MalformedFrame", undefined]
      )
      const second = yield* failure(sendAll(["one", "two\nlines"]))
      assert.deepStrictEqual([second.index, second.operation], [1, "send"])
      const { index } = yield* failure(Stream.run(Stream.make("a", "b\n"), sink))
      assert.strictEqual(index, undefined)
      yield* failure(Framed.make(left, Framing.lengthPrefixed({ width: 1 })).send(new Uint8Array(256)))
      yield* failure(Framed.make(left, Framing.fixedLength(2)).send(new Uint8Array(3)))
      yield* failure(Framed.make(left, lines, Codec.json).send(undefined))
      yield* sendAll(["one", "two"])
      assert.strictEqual(text(yield* right.reader.readExactly(8)), "one\ntwo\n")
    })
  )

  it.effect("a frame and what is around it are one write, and so are several messages", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect({}, { room: Infinity })
      transport.takeCalls()
      yield* Framed.make(connection, Framing.netstring(), Codec.string()).send("ab")
      yield* Framed.make(connection, lines, Codec.string()).sendAll(["a", "b"])
      yield* Framed.make(connection, Framing.whole(), Codec.string()).send("end")
      assert.deepStrictEqual(transport.takeCalls(), ["writeAll 2:|ab|,", "writeAll a|\n|b|\n", "write end"])
    })
  )

  it.effect("any number of chunks, with any number of messages", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect({}, { room: Infinity })
      const framing = Framing.make<number>({
        decode: (reader) => Effect.map(reader.readExactly(1), ([byte = 0]) => byte),
        encode: (count) => Array.from({ length: count }, () => "x")
      })
      const framed = Framed.make(connection, framing)
      yield* framed.send(200_000)
      yield* framed.sendAll([200_000, 1, 200_000])
      assert.strictEqual(transport.written().length, 600_001)
    })
  )

  it.effect("encodes each time that it is run, and sends at once", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect({}, { room: Infinity })
      let encoded = 0
      const codec = Codec.make<string>({
        decode: () => Result.succeed(""),
        encode: (message) => Result.succeed(bytes(`${message}${encoded++}`))
      })
      const { send, sendAll } = Framed.make(connection, lines, codec)
      const both = [send("a"), sendAll(["b", "c"])]
      assert.strictEqual(encoded, 0)
      for (const effect of [...both, ...both]) {
        const before = transport.written().length
        const fiber = Effect.runFork(effect)
        assert.isDefined(fiber.pollUnsafe())
        assert.isAbove(transport.written().length, before)
      }
      assert.strictEqual(transport.text(), "a0\nb1\nc2\na3\nb4\nc5\n")
    })
  )

  it.effect("what a codec throws is a defect, unless it is an InvalidMessage", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const codec = Codec.make<string>({
        decode: () => Result.succeed(""),
        encode: (message) => {
          if (message === "invalid") throw new FrameError.InvalidMessage({ detail: "no" })
          throw new Error("a bug")
        }
      })
      const framed = Framed.make(left, lines, codec)
      const pipeline = yield* framed.pipeline()
      function* broken() {
        yield "invalid"
        throw new Error("a bug")
      }
      for (const send of [
        framed.send,
        framed.request,
        pipeline.request,
        (_: string) => framed.sendAll([_])
      ]) {
        assert.strictEqual((yield* failure(send("invalid"))).reason._tag, "InvalidMessage")
        const exit = yield* Effect.exit(send("a"))
        assert.match(String(exit), /Die\(Error: a bug\)/)
      }
      const good = Framed.make(left, lines, Codec.string())
      assert.match(String(yield* Effect.exit(good.sendAll(broken()))), /Die\(Error: a bug\)/)
      yield* good.send("end")
      assert.strictEqual(text(yield* right.reader.readLine), "end\n")
    })
  )

  it.effect("a sink sends all that a stream gives", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const codec = Codec.schema(Schema.Number)
      yield* Stream.run(Stream.range(1, 1000), Framed.make(left, lines, codec).sink)
      yield* left.writer.end
      const all = yield* Stream.runCollect(Framed.make(right, lines, codec).messages)
      assert.deepStrictEqual(
        Array.from(all),
        Array.from({ length: 1000 }, (_, i) => i + 1)
      )
    })
  )
})

describe("request", () => {
  const setup = Effect.fnUntraced(function* (options?: Connection.Options) {
    const [left, right] = yield* pair(options)
    return [Framed.make(left, lines, Codec.string()), Framed.make(right, lines, Codec.string())] as const
  })

  it.effect("concurrent requests take turns", () =>
    Effect.gen(function* () {
      const [client, server] = yield* setup()
      const first = yield* start(client.request("a"))
      const second = yield* start(client.request("b"))
      assert.strictEqual(yield* server.receive, "a")
      assert.strictEqual(yield* server.connection.reader.bufferedBytes, 0)
      yield* server.send("A")
      assert.strictEqual(yield* server.receive, "b")
      yield* server.send("B")
      assert.deepStrictEqual([yield* Fiber.join(first.fiber), yield* Fiber.join(second.fiber)], ["A", "B"])
    })
  )

  it.effect("the reply of an interrupted request is not taken for the next one's", () =>
    Effect.gen(function* () {
      const [client, server] = yield* setup()
      for (const message of ["a", "b"]) {
        const given = yield* start(client.request(message))
        assert.strictEqual(yield* server.receive, message)
        yield* given.interrupt
      }
      const third = yield* start(client.request("c"))
      yield* server.sendAll(["A", "B"])
      assert.strictEqual(yield* server.receive, "c")
      assert.isTrue(third.isWaiting())
      yield* server.send("C")
      assert.strictEqual(yield* Fiber.join(third.fiber), "C")
      const fourth = yield* start(client.request("d"))
      yield* server.send("D")
      assert.strictEqual(yield* Fiber.join(fourth.fiber), "D")
    })
  )

  it.effect("nor if it was interrupted while it was being sent", () =>
    Effect.gen(function* () {
      const [client, server] = yield* setup({ watermarks: { high: 8, low: 4 } })
      const long = "x".repeat(200_000)
      const given = yield* start(client.request(long))
      assert.isTrue(given.isWaiting())
      yield* given.interrupt
      const next = yield* start(client.request("b"))
      const { receive } = Framed.make(
        server.connection,
        Framing.lines({ maxLength: 1_000_000 }),
        Codec.string()
      )
      assert.strictEqual((yield* receive).length, long.length)
      assert.strictEqual(yield* receive, "b")
      yield* server.sendAll(["A", "B"])
      assert.strictEqual(yield* Fiber.join(next.fiber), "B")
    })
  )

  it.effect("nor if its write was taken and then timed out", () =>
    Effect.gen(function* () {
      for (const limit of ["writeTimeout", "idleTimeout"] as const) {
        const [client, server] = yield* setup({ [limit]: "1 second", watermarks: { high: 8, low: 4 } })
        const long = "x".repeat(1_000_000)
        const late = yield* start(Effect.flip(client.request(long)))
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(late.fiber))._tag, "TimeoutError")
        const { receive } = Framed.make(
          server.connection,
          Framing.lines({ maxLength: 1_000_000 }),
          Codec.string()
        )
        assert.strictEqual((yield* receive).length, long.length)
        const next = yield* start(client.request("b"))
        assert.strictEqual(yield* receive, "b")
        yield* server.sendAll(["A", "B"])
        assert.strictEqual(yield* Fiber.join(next.fiber), "B")
      }
    })
  )

  it.effect("one that was never sent leaves no reply to come", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair({ writeTimeout: "1 second", watermarks: { high: 8, low: 4 } })
      const client = Framed.make(left, lines, Codec.string())
      const server = Framed.make(right, Framing.lines({ maxLength: 1_000_000 }), Codec.string())
      yield* start(Effect.exit(client.send("x".repeat(1_000_000))))
      const given = yield* start(client.request("a"))
      const late = yield* start(Effect.flip(client.request("b")))
      yield* given.interrupt
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(late.fiber))._tag, "TimeoutError")
      yield* server.receive
      const next = yield* start(client.request("c"))
      assert.strictEqual(yield* server.receive, "c")
      yield* server.send("C")
      assert.strictEqual(yield* Fiber.join(next.fiber), "C")
    })
  )

  it.effect("a reply that does not decode is a reply", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const client = Framed.make(left, lines, Codec.json)
      yield* right.writer.write("nonsense\n1\n")
      yield* failure(client.request(0))
      assert.strictEqual(yield* client.request(0), 1)
    })
  )

  // What a framing of one's own reads step by step is counted in the same way.
  const ownLines = Framing.make<Uint8Array>({
    decode: Effect.fnUntraced(function* (reader) {
      const line = yield* reader.readUntil("\n")
      if (line[0] === 0x3f) return yield* new FrameError.MalformedFrame({ detail: "a question" })
      return line
    }),
    encode: (line) => [line, "\n"]
  })

  it.effect("so is one that is skipped, or that the codec dies of, whoever made its request", () =>
    Effect.gen(function* () {
      const codec = Codec.make<string>({
        decode: (frame) => {
          const reply = text(frame).trim()
          if (reply === "dies") throw new Error("a bug")
          return reply === "bad"
            ? Result.fail(new FrameError.InvalidMessage({ detail: reply }))
            : Result.succeed(reply)
        },
        encode: (message) => Result.succeed(bytes(message))
      })
      const cases = [Framing.lines(), ownLines, Framing.lines({ strict: true })]
      for (const onInvalid of ["fail", "skip"] as const) {
        for (const framing of cases) {
          const [left, right] = yield* pair()
          const client = Framed.make(left, framing, codec, { onInvalid })
          const malformed = framing === ownLines ? "?" : "\r?"
          for (const wrong of ["bad", "dies", ...(framing === cases[0] ? [] : [malformed])]) {
            const given = yield* start(client.request("given up"))
            yield* given.interrupt
            yield* right.writer.write(`${wrong}\n`)
            const exit = yield* start(Effect.exit(client.request("a")))
            yield* right.writer.write(`${wrong}\n`)
            const failed = yield* Fiber.join(exit.fiber)
            assert.isTrue(Exit.isFailure(failed) && Cause.hasDies(failed.cause) === (wrong === "dies"))
            yield* right.writer.write("B\n")
            assert.strictEqual(yield* client.request("b"), "B")
          }
          assert.strictEqual(yield* client.skipped, 0)
        }
      }
    })
  )

  it.effect("one that is too long is skipped, if others are, and fails its request", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const framing = Framing.lines({ maxLength: 4 })
      const client = Framed.make(left, framing, Codec.string(), { onInvalid: "skip" })
      const late = yield* start(client.request("a"))
      yield* right.writer.write("too")
      yield* late.interrupt
      yield* right.writer.write(" long\n")
      const failed = yield* start(Effect.flip(client.request("b")))
      yield* right.writer.write("that, too\nC\n")
      assert.strictEqual(frameError(yield* Fiber.join(failed.fiber)).reason._tag, "FrameTooLong")
      assert.strictEqual(yield* client.request("c"), "C")
    })
  )

  it.effect("a reply that comes after the read timeout is not taken for the next one's", () =>
    Effect.gen(function* () {
      const [client, server] = yield* setup({ readTimeout: "1 second" })
      const late = yield* start(Effect.flip(client.request("a")))
      yield* TestClock.adjust("1 second")
      assert.deepInclude(late.value(), { _tag: "TimeoutError", operation: "read" })
      const next = yield* start(client.request("b"))
      yield* server.sendAll(["A", "B"])
      assert.strictEqual(yield* Fiber.join(next.fiber), "B")
    })
  )

  it.effect("fails with EndOfStream when the peer has ended", () =>
    Effect.gen(function* () {
      const [client, server] = yield* setup()
      const waiting = yield* start(client.request("a"))
      yield* server.connection.writer.end
      assert.strictEqual((yield* Effect.flip(Fiber.join(waiting.fiber)))._tag, "EndOfStream")
    })
  )
})

class Ask extends Schema.Class<Ask>("Ask")({ id: Schema.Number, question: Schema.String }) {}
class Answer extends Schema.Class<Answer>("Answer")({
  id: Schema.optional(Schema.Number),
  answer: Schema.String
}) {}

const clientCodec = Codec.duplex({ receive: Codec.schema(Answer), send: Codec.schema(Ask) })
const serverCodec = Codec.duplex({ receive: Codec.schema(Ask), send: Codec.schema(Answer) })

const ask = (id: number) => new Ask({ id, question: `?${id}` })
const answer = (id: number | undefined, text = "!") => new Answer({ id, answer: text })

describe("correlate", () => {
  const setup = Effect.fnUntraced(function* (options?: { readonly timeout?: Duration.Input }) {
    const [left, right] = yield* pair()
    const client = yield* Framed.make(left, lines, clientCodec).correlate({
      idOf: ({ id }) => id,
      ...options
    })
    return { client, server: Framed.make(right, lines, serverCodec), left, right }
  })

  it.effect(
    "one that is interrupted where its fiber yields is not in flight, and its id is free if it was not sent",
    () =>
      Effect.gen(function* () {
        const { client, left } = yield* setup()
        yield* left.writer.setWatermarks({ high: 0 })
        yield* left.writer.write("x".repeat(100_000)).pipe(Effect.forkScoped({ startImmediately: true }))
        for (const request of yieldingEarlier(client.request(ask(1)))) {
          yield* (yield* start(request)).interrupt
          assert.strictEqual(yield* client.inFlight, 0)
        }
      })
  )

  it.effect("replies out of order find their requests", () =>
    Effect.gen(function* () {
      const { client, server } = yield* setup()
      const first = yield* start(client.request(ask(1)))
      const second = yield* start(client.request(ask(2)))
      assert.strictEqual(yield* client.inFlight, 2)
      yield* server.sendAll([answer(2, "two"), answer(1, "one")])
      assert.strictEqual((yield* Fiber.join(first.fiber)).answer, "one")
      assert.strictEqual((yield* Fiber.join(second.fiber)).answer, "two")
      assert.strictEqual(yield* client.inFlight, 0)
    })
  )

  it.effect("10,000 in flight on one connection, answered in random order", () =>
    Effect.gen(function* () {
      const N = 10_000
      const { client, server } = yield* setup({ timeout: "1 minute" })
      const serving = yield* Effect.forkChild(
        Effect.gen(function* () {
          const asked: Array<Ask> = []
          while (asked.length < N) asked.push(yield* server.receive)
          // All are in flight by now; a permutation with a step that has no divisor in common.
          for (let i = 0; i < N; i++) {
            const { id, question } = asked[(i * 7919) % N] ?? ask(-1)
            yield* server.send(answer(id, `${question} ${id}`))
          }
        })
      )
      let highest = 0
      const replies = yield* Effect.forEach(
        Array.from({ length: N }, (_, id) => id),
        (id) =>
          Effect.tap(client.request(ask(id)), () =>
            Effect.map(client.inFlight, (inFlight) => (highest = Math.max(highest, inFlight)))
          ),
        { concurrency: "unbounded" }
      )
      yield* Fiber.join(serving)
      replies.forEach((reply, id) => assert.strictEqual(reply.answer, `?${id} ${id}`))
      assert.isAtLeast(highest, N - 1)
      assert.strictEqual(yield* client.inFlight, 0)
    })
  )

  it.effect("an interrupted request is forgotten, and its late reply dropped", () =>
    Effect.gen(function* () {
      const { client, server } = yield* setup()
      const given = yield* start(client.request(ask(1)))
      const other = yield* start(client.request(ask(2)))
      yield* given.interrupt
      assert.strictEqual(yield* client.inFlight, 1)
      yield* server.sendAll([answer(1), answer(2)])
      yield* Fiber.join(other.fiber)
      assert.strictEqual(yield* client.unmatched, 1)
    })
  )

  it.effect("each has its own time", () =>
    Effect.gen(function* () {
      const { client, server } = yield* setup({ timeout: "10 seconds" })
      const quick = yield* start(Effect.flip(client.request(ask(1), { timeout: "1 second" })))
      const slow = yield* start(client.request(ask(2)))
      yield* TestClock.adjust("1 second")
      const error = quick.value()
      assert.deepInclude(error, { _tag: "TimeoutError", operation: "request" })
      assert.isTrue(slow.isWaiting())
      yield* server.sendAll([answer(1), answer(2)])
      yield* Fiber.join(slow.fiber)
      assert.deepStrictEqual([yield* client.inFlight, yield* client.unmatched], [0, 1])
    })
  )

  it.effect("all fail at once when the connection ends, with its reason, and later ones too", () =>
    Effect.gen(function* () {
      const { client, right } = yield* setup()
      const waiting = yield* Effect.forEach([1, 2, 3], (id) => start(Effect.flip(client.request(ask(id)))))
      yield* right.abort
      for (const { fiber } of waiting) assert.strictEqual((yield* Fiber.join(fiber))._tag, "ConnectionError")
      assert.strictEqual((yield* Effect.flip(client.request(ask(4))))._tag, "ConnectionError")
      assert.strictEqual((yield* Effect.flip(Stream.runDrain(client.unsolicited)))._tag, "ConnectionError")
    })
  )

  it.effect("with the end of the stream it is EndOfStream, and the unsolicited ones end", () =>
    Effect.gen(function* () {
      const { client, right } = yield* setup()
      const waiting = yield* start(Effect.flip(client.request(ask(1))))
      yield* right.writer.end
      assert.strictEqual((yield* Fiber.join(waiting.fiber))._tag, "EndOfStream")
      assert.deepStrictEqual(Array.from(yield* Stream.runCollect(client.unsolicited)), [])
    })
  )

  it.effect("with the scope it is ConnectionClosed", () =>
    Effect.gen(function* () {
      const [left] = yield* pair()
      const scope = yield* Scope.make()
      const client = yield* Framed.make(left, lines, clientCodec)
        .correlate({ idOf: ({ id }) => id })
        .pipe(Scope.provide(scope))
      const waiting = yield* start(Effect.flip(client.request(ask(1))))
      yield* Scope.close(scope, Exit.void)
      const error = yield* Fiber.join(waiting.fiber)
      assert.isTrue(error._tag === "ConnectionError" && error.reason._tag === "ConnectionClosed")
    })
  )

  it.effect("an idOf that throws is a defect of those that wait", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const client = yield* Framed.make(left, lines, Codec.string()).correlate({
        idOf: (message) => {
          if (message === "bad") throw new Error("a bug")
          return message
        }
      })
      const waiting = yield* start(Effect.exit(client.request("a")))
      yield* right.writer.write("bad\n")
      const exit = yield* Fiber.join(waiting.fiber)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
    })
  )

  it.effect("messages without an id are a stream, of which the oldest are dropped", () =>
    Effect.gen(function* () {
      const { client, server } = yield* setup()
      const one = yield* start(client.request(ask(1)))
      yield* server.sendAll(Array.from({ length: 300 }, (_, i) => answer(undefined, String(i))))
      yield* server.send(answer(1))
      yield* Fiber.join(one.fiber)
      assert.strictEqual(yield* client.dropped, 44)
      const next = yield* Stream.runCollect(Stream.take(client.unsolicited, 2))
      assert.deepStrictEqual(
        Array.from(next, ({ answer }) => answer),
        ["44", "45"]
      )
    })
  )

  it.effect("no id, and one that is in flight, are defects", () =>
    Effect.gen(function* () {
      const [left] = yield* pair()
      const client = yield* Framed.make(left, lines, Codec.string()).correlate({
        idOf: (message) => (message === "" ? undefined : message)
      })
      yield* start(client.request("a"))
      yield* rangeError(client.request("a"))
      yield* rangeError(client.request(""))
      yield* rangeError(client.request("b", { timeout: 0 }))
      assert.strictEqual(yield* client.inFlight, 1)
    })
  )

  it.effect("nor is one of a request that was given up, until its reply has come", () =>
    Effect.gen(function* () {
      const { client, server } = yield* setup()
      const given = yield* start(client.request(ask(1)))
      yield* given.interrupt
      assert.match((yield* rangeError(client.request(ask(1)))).message, /id 1 was given up/)
      yield* server.send(answer(1, "late"))
      yield* turns
      assert.strictEqual(yield* client.unmatched, 1)
      const again = yield* start(client.request(ask(1)))
      yield* server.send(answer(1, "its own"))
      assert.strictEqual((yield* Fiber.join(again.fiber)).answer, "its own")
    })
  )

  it.effect("one that was never sent is forgotten, and of the others the last 10,000 are remembered", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect({ watermarks: { high: 8, low: 4 } })
      const client = yield* Framed.make(connection, lines, Codec.string()).correlate({ idOf: (_) => _ })
      yield* start(client.request("x".repeat(10)))
      for (let i = 0; i < 2; i++) {
        const given = yield* start(client.request("waits"))
        yield* given.interrupt
      }
      transport.accept()
      yield* turns
      yield* connection.writer.setWatermarks({ high: 1_000_000 })
      for (let id = 0; id <= 10_000; id++) {
        const given = yield* start(client.request(`${id}`))
        yield* given.interrupt
      }
      yield* rangeError(client.request("1"))
      yield* start(client.request("0"))
      assert.strictEqual(yield* client.inFlight, 2)
    })
  )
})

describe("pipeline", () => {
  const setup = Effect.fnUntraced(function* (
    options?: Framed.PipelineOptions<string, string>,
    connectionOptions?: Connection.Options
  ) {
    const [left, right] = yield* pair(connectionOptions)
    const client = yield* Framed.make(left, lines, Codec.string()).pipeline(options)
    return { client, server: Framed.make(right, Framing.lines({ maxLength: 1_000_000 }), Codec.string()) }
  })

  it.effect("1,000 on their way at once get their replies in order", () =>
    Effect.gen(function* () {
      const { client, server } = yield* setup()
      const N = 1000
      const all = yield* Effect.forkChild(
        Effect.forEach(
          Array.from({ length: N }, (_, i) => i),
          (i) => client.request(`${i}`),
          { concurrency: "unbounded" }
        ),
        { startImmediately: true }
      )
      assert.strictEqual(yield* client.inFlight, N)
      const asked = yield* Stream.runCollect(Stream.take(server.messages, N))
      yield* server.sendAll(Array.from(asked, (question) => `!${question}`))
      const replies = yield* Fiber.join(all)
      replies.forEach((reply, i) => assert.strictEqual(reply, `!${i}`))
      assert.strictEqual(yield* client.inFlight, 0)
    })
  )

  it.effect("what came behind a reply does not answer a request that the reply has let go on", () =>
    Effect.gen(function* () {
      const { client, server } = yield* setup({ isReply: (_, request) => request !== undefined })
      const asking = yield* start(Effect.andThen(client.request("first"), client.request("second")))
      // In one piece.
      yield* server.connection.writer.write("reply to the first\na notice\n")
      const notices = yield* Stream.runCollect(Stream.take(client.unsolicited, 1))
      assert.deepStrictEqual(Array.from(notices), ["a notice"])
      assert.strictEqual(asking.isWaiting(), true)
      yield* server.send("reply to the second")
      assert.strictEqual(yield* Fiber.join(asking.fiber), "reply to the second")
    })
  )

  it.effect("one that is interrupted where its fiber yields is not in flight", () =>
    Effect.gen(function* () {
      const { client } = yield* setup()
      for (const request of yieldingEarlier(client.request("a"))) {
        yield* (yield* start(request)).interrupt
        assert.strictEqual(yield* client.inFlight, 0)
      }
    })
  )

  it.effect("one that is interrupted or too slow keeps its place for its reply", () =>
    Effect.gen(function* () {
      const { client, server } = yield* setup()
      const given = yield* start(client.request("a"))
      const slow = yield* start(Effect.flip(client.request("b", { timeout: "1 second" })))
      const kept = yield* start(client.request("c"))
      yield* given.interrupt
      yield* TestClock.adjust("1 second")
      assert.strictEqual(slow.value()._tag, "TimeoutError")
      assert.strictEqual(yield* client.inFlight, 1)
      yield* server.sendAll(["A", "B", "C", "nobody's"])
      assert.strictEqual(yield* Fiber.join(kept.fiber), "C")
      yield* turns
      const last = yield* start(client.request("d"))
      yield* server.send("D")
      assert.strictEqual(yield* Fiber.join(last.fiber), "D")
      assert.strictEqual(yield* client.unmatched, 3)
    })
  )

  it.effect("also if it was interrupted while it was being sent, or while it waited to be", () =>
    Effect.gen(function* () {
      const { client, server } = yield* setup(undefined, { watermarks: { high: 8, low: 4 } })
      const long = "x".repeat(200_000)
      const sending = yield* start(client.request(long))
      const next = yield* start(client.request("b"))
      const never = yield* start(client.request("c"))
      yield* never.interrupt
      yield* sending.interrupt
      assert.strictEqual((yield* server.receive).length, long.length)
      assert.strictEqual(yield* server.receive, "b")
      yield* server.sendAll(["A", "B"])
      assert.strictEqual(yield* Fiber.join(next.fiber), "B")
      assert.strictEqual(yield* client.unmatched, 1)
    })
  )

  it.effect("or if its write timed out, taken or not", () =>
    Effect.gen(function* () {
      const { client, server } = yield* setup(undefined, {
        writeTimeout: "1 second",
        watermarks: { high: 8, low: 4 }
      })
      const long = "x".repeat(1_000_000)
      const taken = yield* start(Effect.flip(client.request(long)))
      const never = yield* start(Effect.flip(client.request("a")))
      yield* TestClock.adjust("1 second")
      for (const { fiber } of [taken, never]) {
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "TimeoutError")
      }
      assert.strictEqual((yield* server.receive).length, long.length)
      const next = yield* start(client.request("b"))
      assert.strictEqual(yield* server.receive, "b")
      yield* server.sendAll(["A", "B"])
      assert.strictEqual(yield* Fiber.join(next.fiber), "B")
      assert.strictEqual(yield* client.unmatched, 1)
    })
  )

  it.effect("a reply that does not decode, also one that is skipped, fails its request and no other", () =>
    Effect.gen(function* () {
      for (const onInvalid of ["fail", "skip"] as const) {
        const [left, right] = yield* pair()
        const framed = Framed.make(left, Framing.lines({ maxLength: 10 }), Codec.json, { onInvalid })
        const client = yield* framed.pipeline()
        const replies = yield* Effect.forEach(["a", "b", "c", "d"], (_) =>
          start(Effect.result(client.request(_)))
        )
        yield* right.writer.write('bad\n"B"\n{\n"D"\n')
        const results = yield* Effect.forEach(replies, ({ fiber }) => Fiber.join(fiber))
        assert.deepStrictEqual(
          results.map((_) => (Result.isSuccess(_) ? _.success : _.failure._tag)),
          ["FrameError", "B", "FrameError", "D"]
        )
        // A request that was given up has its reply all the same.
        const given = yield* start(client.request("given up"))
        yield* given.interrupt
        yield* right.writer.write("bad\n")
        const last = yield* start(client.request("e"))
        yield* right.writer.write('"E"\n')
        assert.strictEqual(yield* Fiber.join(last.fiber), "E")
        assert.deepStrictEqual([yield* client.unmatched, yield* framed.skipped], [1, 0])
        // One that is too long is still there, unless it is skipped.
        const long = yield* start(Effect.flip(client.request("f")))
        const after = yield* start(Effect.result(client.request("g")))
        yield* right.writer.write('"far too long"\n"G"\n')
        assert.strictEqual(frameError(yield* Fiber.join(long.fiber)).reason._tag, "FrameTooLong")
        const result = yield* Fiber.join(after.fiber)
        if (onInvalid === "skip") assert.deepStrictEqual(result, Result.succeed("G"))
        else {
          assert.strictEqual(
            Result.isFailure(result) && frameError(result.failure).reason._tag,
            "FrameTooLong"
          )
          assert.strictEqual((yield* failure(client.request("h"))).reason._tag, "FrameTooLong")
        }
      }
    })
  )

  it.effect(
    "of a framing of one's own, a malformed frame ends it, unless it is skipped: who knows what is left",
    () =>
      Effect.gen(function* () {
        const blocks = Framing.make<string>({
          *decode(reader) {
            const head = yield* reader.readLineString
            if (!/^\d+$/.test(head))
              return yield* new FrameError.MalformedFrame({ detail: `no length: ${head}` })
            return text(yield* reader.readExactly(Number(head)))
          },
          encode: (block) => `${block}\n`
        })
        for (const onInvalid of ["fail", "skip"] as const) {
          const [left, right] = yield* pair()
          const framed = Framed.make(left, blocks, Codec.identity<string>(), { onInvalid })
          const client = yield* framed.pipeline()
          const first = yield* start(Effect.flip(client.request("a")))
          const second = yield* start(Effect.result(client.request("b")))
          // Its content could pass for a reply.
          yield* right.writer.write("x\n3\nA!!2\nOK")
          assert.strictEqual(frameError(yield* Fiber.join(first.fiber)).reason._tag, "MalformedFrame")
          const result = yield* Fiber.join(second.fiber)
          if (onInvalid === "skip") assert.deepStrictEqual(result, Result.succeed("A!!"))
          else assert.strictEqual(Result.isFailure(result) && result.failure._tag, "FrameError")
        }
      })
  )

  it.effect("one that answers nothing ends it, unless it is skipped: nobody else could be told", () =>
    Effect.gen(function* () {
      for (const onInvalid of ["fail", "skip"] as const) {
        const [left, right] = yield* pair()
        const client = yield* Framed.make(left, lines, Codec.json, { onInvalid }).pipeline()
        yield* right.writer.write("bad\n")
        yield* turns
        const request = yield* start(Effect.result(client.request("a")))
        yield* right.writer.write('"A"\n')
        const result = yield* Fiber.join(request.fiber)
        if (onInvalid === "skip") assert.deepStrictEqual(result, Result.succeed("A"))
        else assert.strictEqual(Result.isFailure(result) && result.failure._tag, "FrameError")
        assert.strictEqual(yield* client.unmatched, onInvalid === "skip" ? 1 : 0)
      }
    })
  )

  it.effect("a codec that throws is a defect of its request, and of no other", () =>
    Effect.gen(function* () {
      const codec = Codec.make<string>({
        decode: (frame) => {
          if (frame.length === 3) throw new Error("a bug")
          return Result.succeed(text(frame))
        },
        encode: (message) => Result.succeed(bytes(message))
      })
      const [left, right] = yield* pair()
      const client = yield* Framed.make(left, lines, codec).pipeline()
      const first = yield* start(Effect.exit(client.request("a")))
      const second = yield* start(client.request("b"))
      yield* right.writer.write("bad\nB\n")
      const exit = yield* Fiber.join(first.fiber)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      assert.strictEqual(yield* Fiber.join(second.fiber), "B")
    })
  )

  it.effect("where not all messages are replies, one that does not decode ends it: it may be either", () =>
    Effect.gen(function* () {
      for (const onInvalid of ["fail", "skip"] as const) {
        const [left, right] = yield* pair()
        const client = yield* Framed.make(left, lines, Codec.json, { onInvalid }).pipeline({
          isReply: (message) => message !== ">"
        })
        const waiting = yield* Effect.forEach(["a", "b"], (_) => start(Effect.flip(client.request(_))))
        yield* right.writer.write('">"\nbad\n"A"\n')
        for (const { fiber } of waiting) assert.strictEqual((yield* Fiber.join(fiber))._tag, "FrameError")
        assert.strictEqual((yield* Effect.flip(client.request("c")))._tag, "FrameError")
      }
    })
  )

  it.effect("what is no reply is unsolicited", () =>
    Effect.gen(function* () {
      const { client, server } = yield* setup({ isReply: (message) => !message.startsWith(">") })
      const waiting = yield* start(client.request("a"))
      yield* server.sendAll([">one", "A", ">two"])
      assert.strictEqual(yield* Fiber.join(waiting.fiber), "A")
      const pushed = yield* Stream.runCollect(Stream.take(client.unsolicited, 2))
      assert.deepStrictEqual(Array.from(pushed), [">one", ">two"])
    })
  )

  it.effect("what is a reply can depend on the request whose turn it is, given up or not", () =>
    Effect.gen(function* () {
      const asked: Array<readonly [string, string | undefined]> = []
      const { client, server } = yield* setup({
        isReply: (message, request) => {
          asked.push([message, request])
          return request === undefined || message.endsWith(request)
        }
      })
      const [a, b] = [yield* start(client.request("a")), yield* start(client.request("b"))]
      yield* a.interrupt
      yield* server.sendAll(["1", "b", "2 a", "3", "4 b", "5"])
      assert.strictEqual(yield* Fiber.join(b.fiber), "4 b")
      const unsolicited = yield* Stream.runCollect(Stream.take(client.unsolicited, 3))
      assert.deepStrictEqual(Array.from(unsolicited), ["1", "b", "3"])
      yield* turns
      assert.deepStrictEqual(
        asked.map(([, request]) => request),
        ["a", "a", "a", "b", "b", undefined]
      )
      assert.strictEqual(yield* client.unmatched, 2)
    })
  )

  it.effect(
    "all fail with the end of the connection, later ones too; what cannot be encoded has no place",
    () =>
      Effect.gen(function* () {
        const { client, server } = yield* setup()
        yield* failure(client.request("two\nlines"))
        const waiting = yield* Effect.forEach(["a", "b"], (_) => start(Effect.flip(client.request(_))))
        yield* server.connection.writer.end
        for (const { fiber } of waiting) assert.strictEqual((yield* Fiber.join(fiber))._tag, "EndOfStream")
        assert.strictEqual((yield* Effect.flip(client.request("c")))._tag, "EndOfStream")
        assert.strictEqual(yield* client.inFlight, 0)
      })
  )
})

describe("the connection's time limits", () => {
  const kinds = {
    pipeline: (framed: Framed.Framed<string>) => framed.pipeline(),
    correlate: (framed: Framed.Framed<string>) =>
      framed.correlate({ idOf: (message) => message.toLowerCase() })
  }
  for (const [kind, make] of Object.entries(kinds)) {
    const setup = Effect.fnUntraced(function* (options: Connection.Options) {
      const [left, right] = yield* pair()
      const limited = Connection.withTimeouts(left, {
        read: options.readTimeout ?? "1 hour",
        idle: options.idleTimeout ?? "1 hour"
      })
      return {
        client: yield* make(Framed.make(limited, lines, Codec.string())),
        server: Framed.make(right, lines, Codec.string())
      }
    })

    it.effect(`${kind}: nothing ends while nothing is in flight`, () =>
      Effect.gen(function* () {
        for (const limit of ["readTimeout", "idleTimeout"] as const) {
          const { client, server } = yield* setup({ [limit]: "1 second" })
          yield* TestClock.adjust("10 seconds")
          const late = yield* start(client.request("a"))
          yield* server.send("A")
          assert.strictEqual(yield* Fiber.join(late.fiber), "A")
          yield* TestClock.adjust("10 seconds")
          const last = yield* start(client.request("b"))
          yield* server.send("B")
          assert.strictEqual(yield* Fiber.join(last.fiber), "B")
        }
      })
    )

    it.effect(`${kind}: each request waits for its reply as long as a read would, and fails alone`, () =>
      Effect.gen(function* () {
        const { client, server } = yield* setup({ readTimeout: "1 second" })
        const late = yield* start(Effect.flip(client.request("a")))
        yield* TestClock.adjust("600 millis")
        const next = yield* start(client.request("b"))
        yield* TestClock.adjust("400 millis")
        assert.deepInclude(late.value(), { _tag: "TimeoutError", operation: "read" })
        yield* server.sendAll(["A", "B"])
        assert.strictEqual(yield* Fiber.join(next.fiber), "B")
        assert.deepStrictEqual([yield* client.inFlight, yield* client.unmatched], [0, 1])
      })
    )

    it.effect(`${kind}: or as long as bytes come or go`, () =>
      Effect.gen(function* () {
        const { client, server } = yield* setup({ idleTimeout: "1 second" })
        const waiting = yield* start(Effect.flip(client.request("a")))
        yield* TestClock.adjust("900 millis")
        yield* server.connection.writer.write("half a ")
        yield* TestClock.adjust("900 millis")
        assert.isTrue(waiting.isWaiting())
        yield* TestClock.adjust("100 millis")
        assert.deepInclude(waiting.value(), { _tag: "TimeoutError", operation: "idle" })
      })
    )

    it.effect(`${kind}: no timer is left`, () =>
      withSleepers(
        Effect.fnUntraced(function* (sleepers) {
          const { client, server } = yield* setup({ readTimeout: "1 second" })
          const one = yield* start(client.request("a"))
          const given = yield* start(client.request("b"))
          assert.strictEqual(sleepers(), 1)
          yield* server.send("A")
          yield* Fiber.join(one.fiber)
          yield* given.interrupt
          yield* turns
          assert.strictEqual(sleepers(), 0)
        })
      )
    )
  }
})

describe("jsonLines", () => {
  it.effect("speaks a schema, or one for each direction, in lines of limited length", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const Ask = Schema.Struct({ at: Schema.Date })
      const client = Framed.jsonLines(left, { receive: Schema.Number, send: Ask })
      const server = Framed.jsonLines(right, { receive: Ask, send: Schema.Number })
      const answer = yield* start(client.request({ at: new Date(7) }))
      yield* server.send((yield* server.receive).at.getTime())
      assert.strictEqual(yield* Fiber.join(answer.fiber), 7)

      const [one, other] = [Framed.jsonLines(left, Schema.String), Framed.jsonLines(right, Schema.String)]
      // With its quotation marks, as long as a line may be.
      const longest = "x".repeat(1024 * 1024 - 2)
      const received = yield* start(other.receive)
      yield* one.send(longest)
      assert.strictEqual(yield* Fiber.join(received.fiber), longest)
      assert.deepInclude((yield* failure(one.send(`${longest}x`))).reason, { limit: 1024 * 1024 })

      const short = Framed.jsonLines(right, Schema.String, { maxLength: 10, onInvalid: "skip" })
      yield* one.sendAll(["x".repeat(9), "short"])
      assert.strictEqual(yield* short.receive, "short")
      assert.strictEqual(yield* short.skipped, 1)
    })
  )
})

describe("serveFramed", () => {
  it.effect("gives each client's messages to the handler", () =>
    Effect.gen(function* () {
      yield* Server.serveFramed(
        lines,
        Codec.schema(Schema.Number),
        ({ messages, send }) => Stream.runForEach(messages, (n) => send(n * 2)),
        { listen: { port: 7000 }, onInvalid: "skip" }
      )
      const connection = yield* Connection.connect("localhost:7000")
      const client = Framed.make(connection, lines, Codec.schema(Schema.Number))
      yield* connection.writer.write("nonsense\n")
      assert.strictEqual(yield* client.request(21), 42)
    }).pipe(Effect.provide(TestNetwork.layer))
  )
})

describe("guards", () => {
  it.effect("know their own", () =>
    Effect.gen(function* () {
      const [left] = yield* pair()
      assert.isTrue(Framed.isFramed(Framed.make(left, lines)))
      assert.isTrue(Framing.isFraming(lines) && Codec.isCodec(Codec.bytes))
      assert.isFalse(Framed.isFramed(lines) || Framing.isFraming(Codec.bytes) || Codec.isCodec(left))
      const { reader, writer } = left
      const [otherReader, otherWriter] = [{ ...reader }, { ...writer }]
      assert.throws(() => Framed.receiver(otherReader, lines), TypeError)
      assert.throws(() => Framed.sender(otherWriter, lines), TypeError)
    })
  )
})

describe("errors name the peer", () => {
  const peer = "127.0.0.1:7000"

  /** A client whose server answers nothing, and ends its direction when it is told to, or the test ends. */
  const client = Effect.gen(function* () {
    const hung = yield* Latch.make()
    yield* Server.serve(({ writer }) => Effect.andThen(hung.await, writer.end), {
      listen: { host: "127.0.0.1", port: 7000 }
    })
    const connection = yield* Connection.connect(peer)
    yield* Effect.addFinalizer(() => hung.open)
    return { connection, framed: Framed.make(connection, lines, Codec.string()), end: hung.open }
  })
  const within = (title: string, effect: Effect.Effect<void, unknown, Network.Network | Scope.Scope>) =>
    it.effect(title, () => Effect.scoped(effect).pipe(Effect.provide(TestNetwork.layer)))

  const messageOf = <A, E extends Error, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.map(Effect.flip(effect), ({ message }) => message)

  within(
    "of what cannot be sent, in every way of sending",
    Effect.gen(function* () {
      const { connection, framed } = yield* client
      const pipeline = yield* framed.pipeline()
      const correlated = yield* framed.correlate({ idOf: () => 1 })
      const sender = Framed.sender(connection.writer, lines, Codec.string())
      for (const send of [
        framed.send("a\n"),
        framed.sendAll(["a", "b\n"]),
        framed.request("a\n"),
        pipeline.request("a\n"),
        correlated.request("a\n"),
        sender.send("a\n")
      ]) {
        assert.strictEqual(
          (yield* messageOf(send)).replace(" message 1 of several", ""),
          `send to ${peer} at byte 1 of the frame: malformed frame: a line must not contain an end of line`
        )
      }
      const json = Framed.make(connection, lines, Codec.json)
      assert.strictEqual(
        yield* messageOf(json.send(undefined)),
        `send to ${peer}: invalid message: undefined has no form in JSON`
      )
    })
  )

  within(
    "of a request that takes too long, and of one after the end",
    Effect.gen(function* () {
      const { end, framed } = yield* client
      const { request } = yield* framed.pipeline({ timeout: "1 second" })
      const late = yield* Effect.forkChild(messageOf(request("a")))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(
        yield* Fiber.join(late),
        `request on ${peer}: timed out after 1s; raise it with \`timeout\``
      )
      const waiting = yield* Effect.forkChild(messageOf(request("b")))
      yield* end
      assert.strictEqual(yield* Fiber.join(waiting), `receive from ${peer}: end of stream`)
      assert.strictEqual(yield* messageOf(request("c")), `receive from ${peer}: end of stream`)
    })
  )
})
