import { assert, describe, it } from "@effect/vitest"
import { Cause, type Duration, Effect, Exit, Fiber, Latch, Result, Schema, Scope, Stream } from "effect"
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
import { connect, pair, turns } from "./support/effects.ts"
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
        for (let i = 0; i < 2; i++) {
          const { reason } = yield* failure(receive)
          assert.deepInclude(reason, { _tag: "FrameTooLong", length, limit: 8 * 1024 * 1024 })
        }
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

  it.effect("of a framing of one's own, before any of it is buffered", () =>
    Effect.gen(function* () {
      const framing = Framing.make<Uint8Array>({
        maxLength: 10,
        decode: (reader) => reader.readExactly(11),
        encode: (frame) => frame
      })
      const { reader } = feedable("x")
      const { reason } = yield* failure(Framed.receiver(reader, framing).receive)
      assert.deepInclude(reason, { _tag: "FrameTooLong", length: 11, limit: 10 })
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
        if (onInvalid === "fail") assert.strictEqual((yield* failure(receive)).offset, 0)
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
      const wrong = Framing.make<Uint8Array>({ decode: (_) => _.readExactly(-1), encode: (_) => _ })
      feed("x")
      yield* rangeError(Framed.receiver(reader, wrong).receive)
    })
  )
})

describe("send", () => {
  it.effect("what cannot be encoded fails, and nothing is sent, of several nothing at all", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const { send, sendAll } = Framed.make(left, lines, Codec.string())
      const error = yield* failure(send("two\nlines"))
      assert.deepStrictEqual(
        [error.operation, error.reason._tag, error.offset],
        ["send", "MalformedFrame", undefined]
      )
      yield* failure(sendAll(["one", "two\nlines"]))
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

  it.effect("a reply that does not decode is a reply", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const client = Framed.make(left, lines, Codec.json)
      yield* right.writer.write("nonsense\n1\n")
      yield* failure(client.request(0))
      assert.strictEqual(yield* client.request(0), 1)
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
      const other = { ...left.reader }
      assert.throws(() => Framed.receiver(other, lines), TypeError)
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
          yield* messageOf(send),
          `send to ${peer}: malformed frame: a line must not contain an end of line`
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
