import { describe, it } from "@effect/vitest"
import {
  assertFalse,
  assertInclude,
  assertInstanceOf,
  assertTrue,
  deepStrictEqual,
  strictEqual
} from "@effect/vitest/utils"
import { Effect, Exit, Fiber, Schema, Stream } from "effect"
import { Connection, MemoryTransport, StreamError } from "effect-wire"
import {
  bytes,
  DATA,
  given,
  handDriven,
  rangeError,
  reasonOf,
  reset,
  start,
  startText,
  text,
  turns
} from "../support/reader.ts"

/** A connection whose peer is a bare transport. */
const connected = Effect.gen(function* () {
  const [transport, peer] = yield* MemoryTransport.makePair()
  const connection = yield* Connection.make(transport)
  peer.start({ onData() {}, onEnd() {}, onDrain() {}, onClosed() {} })
  peer.resume()
  return { connection, peer, reader: connection.reader }
})

describe("a failure", () => {
  it.effect("E-001 E-003 comes after the bytes that were received", () =>
    Effect.gen(function* () {
      const { fail, reader } = given({ chunks: ["line\n"] })
      strictEqual(text(yield* reader.read(2)), "li")
      const error = reset()
      fail(error)
      strictEqual(text(yield* reader.read(1)), "n")
      strictEqual(text(yield* reader.readExactly(2)), "e\n")
      strictEqual(yield* Effect.flip(reader.read(2)), error)
      strictEqual(yield* Effect.flip(reader.readExactly(1)), error)
    })
  )

  it.effect(
    "E-001 every operation: from the buffer as long as it can, then the failure, and the rest stays",
    () =>
      Effect.gen(function* () {
        const { buffered, fail, reader } = given({ chunks: ["a\nb\nc\nd\nrest"] })
        const error = reset()
        fail(error)
        strictEqual(text(yield* reader.readLine), "a\n")
        strictEqual(text(yield* reader.readUntil("\n")), "b\n")
        strictEqual(yield* reader.skipUntil("\n"), 2)
        yield* reader.skip(2)
        strictEqual(text(yield* reader.peek(4)), "rest")
        for (const operation of [
          reader.readLine,
          reader.readLineString,
          reader.readUntil("\n"),
          reader.skipUntil("\n"),
          reader.readExactly(5),
          reader.skip(5),
          reader.peek(5),
          reader.readAll(),
          Stream.runCollect(reader.lines)
        ]) {
          strictEqual(yield* Effect.flip(Effect.asVoid<unknown, unknown, never>(operation)), error)
          strictEqual(yield* buffered, "rest")
        }
        const seen: Array<string> = []
        const each = Stream.runForEach(reader.stream, (chunk) => Effect.sync(() => seen.push(text(chunk))))
        strictEqual(yield* Effect.flip(each), error)
        deepStrictEqual(seen, ["rest"])
      })
  )

  it.effect("E-002 a line, then the failure", () =>
    Effect.gen(function* () {
      const { fail, reader } = given({ chunks: ["line\n"] })
      strictEqual(text(yield* reader.readLine), "line\n")
      const error = reset()
      fail(error)
      strictEqual(yield* Effect.flip(reader.readLine), error)
      strictEqual(yield* reader.bufferedBytes, 0)
    })
  )

  it.effect("E-004 is the same object for every read; a second failure does not replace it", () =>
    Effect.gen(function* () {
      const { fail, reader } = given()
      const error = reset()
      fail(error)
      fail(reset())
      strictEqual(yield* Effect.flip(reader.read()), error)
      strictEqual(yield* Effect.flip(reader.readLine), error)
    })
  )

  it.effect("E-005 fails a waiting readLine", () =>
    Effect.gen(function* () {
      const { fail, reader } = given()
      const line = yield* start(reader.readLine)
      const error = reset()
      fail(error)
      strictEqual(line.error(), error)
    })
  )

  it.effect("E-006 after an interrupted readLine: nobody waits, nothing crashes", () =>
    Effect.gen(function* () {
      const { fail, reader } = given()
      const line = yield* start(reader.readLine)
      yield* line.interrupt
      const error = reset()
      fail(error)
      strictEqual(yield* Effect.flip(reader.readLine), error)
    })
  )

  it.effect("E-007 reads of no bytes succeed all the same", () =>
    Effect.gen(function* () {
      const { buffered, fail, reader } = given({ chunks: ["abc"] })
      fail(reset())
      strictEqual(text(yield* reader.read(0)), "")
      strictEqual(text(yield* reader.readExactly(0)), "")
      strictEqual(yield* buffered, "abc")
    })
  )

  it.effect("E-008 the argument is checked first", () =>
    Effect.gen(function* () {
      const { fail, reader } = given()
      fail(reset())
      assertInclude((yield* rangeError(reader.readExactly(-1))).message, "readExactly: n")
    })
  )

  it.effect("E-009 is no end of input", () =>
    Effect.gen(function* () {
      const { fail, reader } = given({ chunks: ["abc"] })
      fail(reset())
      assertFalse(yield* reader.atEof)
      yield* reader.read()
      assertFalse(yield* reader.atEof)
    })
  )

  it.effect("E-010 never turns into the end of input", () =>
    Effect.gen(function* () {
      const { fail, feedEof, reader } = given()
      const error = reset()
      fail(error)
      feedEof()
      for (let i = 0; i < 3; i++) strictEqual(yield* Effect.flip(reader.read()), error)
      assertFalse(yield* reader.atEof)
    })
  )

  it.effect("E-011 while readExactly(5) waits with 3 bytes: it fails, the bytes are still readable", () =>
    Effect.gen(function* () {
      const { fail, reader } = given({ chunks: ["abc"] })
      const read = yield* start(reader.readExactly(5))
      const error = reset()
      fail(error)
      strictEqual(read.error(), error)
      strictEqual(text(yield* reader.read()), "abc")
      strictEqual(yield* Effect.flip(reader.read()), error)
    })
  )

  it.effect("E-012 while readAll waits: it fails, the bytes are still readable", () =>
    Effect.gen(function* () {
      const { fail, feed, reader } = given({ chunks: ["ab"] })
      const read = yield* start(reader.readAll())
      feed("c")
      const error = reset()
      fail(error)
      strictEqual(read.error(), error)
      strictEqual(text(yield* reader.read()), "abc")
      strictEqual(yield* Effect.flip(reader.readAll()), error)
    })
  )

  it.effect("E-026 that nobody reads is nobody's unhandled rejection", () =>
    Effect.gen(function* () {
      const unhandled: Array<unknown> = []
      const note = (error: unknown) => unhandled.push(error)
      yield* Effect.acquireRelease(
        Effect.sync(() => process.on("unhandledRejection", note)),
        () => Effect.sync(() => process.off("unhandledRejection", note))
      )
      given().fail(reset())
      const { peer } = yield* connected
      peer.abort()
      yield* turns
      yield* Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))
      deepStrictEqual(unhandled, [])
    })
  )
})

describe("the end of input", () => {
  it.effect("E-014 in readExactly: what came, what was asked for, and the text", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given({ chunks: [DATA] })
      const read = yield* start(reader.readExactly(36))
      feedEof()
      const error = read.error()
      assertInstanceOf(error, StreamError.IncompleteReadError)
      deepStrictEqual([text(error.partial), error.expected], [DATA, 36])
      assertInclude(error.message, "readExactly: end of input, 18 bytes read on a total of 36 expected bytes")
      strictEqual(yield* reader.bufferedBytes, 0)
    })
  )

  it.effect("E-015 with nothing received", () =>
    Effect.gen(function* () {
      const { feedEof, reader } = given()
      feedEof()
      const error = yield* Effect.flip(reader.readExactly(3))
      assertInstanceOf(error, StreamError.IncompleteReadError)
      deepStrictEqual([text(error.partial), error.expected], ["", 3])
    })
  )

  it("E-016 the error has its own tag, and says what was expected", () => {
    const make = (expected?: number) =>
      new StreamError.IncompleteReadError({ partial: bytes("abc"), expected })
    strictEqual(make(10)._tag, "IncompleteReadError")
    assertInclude(make(10).message, "3 bytes read on a total of 10 expected bytes")
    assertInclude(make().message, "end of input, 3 bytes read, and no separator among them")
    assertTrue(make() instanceof Error)
  })

  it("E-017 the error keeps its text, bytes and number when it is sent", () => {
    const codec = Schema.toCodecJson(StreamError.IncompleteReadError)
    for (const expected of [10, undefined]) {
      const error = new StreamError.IncompleteReadError({
        operation: "readExactly",
        partial: Uint8Array.of(0, 10, 255),
        expected,
        address: "127.0.0.1:1"
      })
      const restored = Schema.decodeSync(codec)(JSON.parse(JSON.stringify(Schema.encodeSync(codec)(error))))
      assertInstanceOf(restored, StreamError.IncompleteReadError)
      deepStrictEqual([...restored.partial], [0, 10, 255])
      deepStrictEqual([restored.expected, restored.message], [expected, error.message])
    }
  })
})

describe("the end of a connection", () => {
  it.effect("E-013 the peer sends and resets: its bytes, then the reset", () =>
    Effect.gen(function* () {
      const transport = handDriven()
      const { reader } = yield* Connection.make(transport)
      transport.handler().onData(bytes("data"))
      transport
        .handler()
        .onClosed(
          new StreamError.ConnectionError({ operation: "read", reason: new StreamError.ConnectionReset({}) })
        )
      strictEqual(text(yield* reader.read(10)), "data")
      strictEqual(reasonOf(yield* Effect.flip(reader.read(10))), "ConnectionReset")
    })
  )

  it.effect("E-018 lost at once: the read fails, closing does not", () =>
    Effect.gen(function* () {
      const { connection, peer, reader } = yield* connected
      peer.abort()
      yield* turns
      strictEqual(reasonOf(yield* Effect.flip(reader.read())), "ConnectionReset")
      strictEqual(reasonOf(yield* Effect.flip(connection.closed)), "ConnectionReset")
      yield* connection.close
      yield* connection.abort
    })
  )

  it.effect("E-019 the peer ended, then reset: it stays the end", () =>
    Effect.gen(function* () {
      const transport = handDriven()
      const { closed, reader } = yield* Connection.make(transport)
      const read = yield* startText(reader.read())
      transport.handler().onEnd()
      strictEqual(read.value(), "")
      transport
        .handler()
        .onClosed(
          new StreamError.ConnectionError({ operation: "read", reason: new StreamError.ConnectionReset({}) })
        )
      strictEqual(text(yield* reader.read()), "")
      assertTrue(yield* reader.atEof)
      strictEqual(reasonOf(yield* Effect.flip(closed)), "ConnectionReset")
    })
  )

  it.effect("E-020 closed here with bytes unread: the bytes, then ConnectionClosed", () =>
    Effect.gen(function* () {
      const { connection, peer, reader } = yield* connected
      peer.write("abc")
      yield* turns
      const closing = yield* start(connection.close)
      strictEqual(text(yield* reader.read()), "abc")
      strictEqual(reasonOf(yield* Effect.flip(reader.read())), "ConnectionClosed")
      peer.write("late")
      peer.close()
      yield* Fiber.join(closing.fiber)
      strictEqual(reasonOf(yield* Effect.flip(reader.read())), "ConnectionClosed")
    })
  )

  it.effect("E-020 closed here after the peer's end: the bytes, then still the end", () =>
    Effect.gen(function* () {
      const { connection, peer, reader } = yield* connected
      peer.write("abc")
      peer.close()
      yield* turns
      yield* connection.close
      strictEqual(text(yield* reader.read()), "abc")
      strictEqual(text(yield* reader.read()), "")
      assertTrue(yield* reader.atEof)
    })
  )

  it.effect("E-021 closed here: no end of input", () =>
    Effect.gen(function* () {
      const { connection, peer, reader } = yield* connected
      peer.close()
      const read = yield* start(reader.read())
      const closing = yield* start(connection.close)
      strictEqual(reasonOf(read.error()), "ConnectionClosed")
      yield* Fiber.join(closing.fiber)
      yield* connection.closed
      assertFalse(yield* reader.atEof)
      strictEqual(reasonOf(yield* Effect.flip(reader.read())), "ConnectionClosed")
    })
  )

  it.effect("E-022 aborted here: ConnectionAborted for the reader, success for closed", () =>
    Effect.gen(function* () {
      const { connection, peer, reader } = yield* connected
      peer.write("abc")
      yield* turns
      yield* connection.abort
      yield* connection.closed
      strictEqual(text(yield* reader.read()), "abc")
      strictEqual(reasonOf(yield* Effect.flip(reader.read())), "ConnectionAborted")
      assertFalse(yield* reader.atEof)
    })
  )

  it.effect("E-023 the transport dies of something else: the reader and closed fail with it", () =>
    Effect.gen(function* () {
      const transport = handDriven()
      const { closed, reader } = yield* Connection.make(transport)
      const read = yield* start(reader.read())
      const error = new StreamError.ConnectionError({
        operation: "read",
        reason: new StreamError.UnknownReason({ code: "EIO" })
      })
      transport.handler().onClosed(error)
      strictEqual(read.error(), error)
      strictEqual(yield* Effect.flip(closed), error)
    })
  )

  it.effect("E-025 lost without error, twice, or after the end: harmless", () =>
    Effect.gen(function* () {
      const transport = handDriven()
      const { closed, reader } = yield* Connection.make(transport)
      const read = yield* start(Effect.exit(reader.read()))
      transport.handler().onClosed()
      transport.handler().onClosed()
      transport.handler().onData(bytes("late"))
      transport.handler().onEnd()
      assertTrue(Exit.isFailure(read.value()))
      strictEqual(reasonOf(yield* Effect.flip(reader.read())), "ConnectionClosed")
      yield* closed

      const ended = handDriven()
      const connection = yield* Connection.make(ended)
      ended.handler().onEnd()
      ended.handler().onClosed()
      strictEqual(text(yield* connection.reader.read()), "")
      yield* connection.closed
    })
  )
})
