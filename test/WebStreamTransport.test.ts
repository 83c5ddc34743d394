import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Stream } from "effect"
import { NetAddress } from "effect/net"
import { Connection, WebStreamTransport } from "effect-wire"
import { manyTimes, turnsOfOthers } from "./support/effects.ts"
import { closed, loops, until } from "./support/sockets.ts"
import { record } from "./support/transports.ts"

/** Two ends, each the other's peer, as a program gets them from two transform streams. */
const makeStreams = (): [
  { readable: ReadableStream<Uint8Array>; writable: WritableStream<Uint8Array> },
  { readable: ReadableStream<Uint8Array>; writable: WritableStream<Uint8Array> }
] => {
  const there = new TransformStream<Uint8Array, Uint8Array>()
  const back = new TransformStream<Uint8Array, Uint8Array>()
  return [
    { readable: back.readable, writable: there.writable },
    { readable: there.readable, writable: back.writable }
  ]
}

const connect = Effect.gen(function* () {
  const [left, right] = makeStreams()
  return [yield* Connection.fromWebStreams(left), yield* Connection.fromWebStreams(right)] as const
})

const closeBoth = ([left, right]: readonly [Connection.Connection, Connection.Connection]) =>
  Effect.all([left.close, right.close], { concurrency: "unbounded", discard: true })

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

const never = {}

describe("WebStreamTransport", () => {
  it.effect("carries bytes both ways, in order", () =>
    Effect.gen(function* () {
      const both = yield* connect
      const [left, right] = both
      const lines = Array.from({ length: 1000 }, (_, i) => `line ${i}\n`)
      const answer = yield* Effect.forkChild(
        Effect.andThen(Stream.runDrain(Stream.take(right.reader.lines, 1000)), right.writer.write("thanks\n"))
      )
      yield* Effect.forEach(lines, left.writer.write, { discard: true })
      assert.strictEqual(text(yield* left.reader.readLine), "thanks\n")
      yield* Fiber.join(answer)
      yield* closeBoth(both)
    })
  )

  it.effect("lets others run while streams in memory have everything done at once", () =>
    Effect.gen(function* () {
      const { reader, writer, abort } = yield* Connection.fromWebStreams({
        readable: new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(8)) }),
        writable: new WritableStream()
      })
      assert.isAtLeast(yield* turnsOfOthers(manyTimes(reader.read())), 7)
      assert.isAtLeast(yield* turnsOfOthers(manyTimes(Effect.andThen(writer.write("a"), writer.flush))), 7)
      yield* abort
    })
  )

  it.effect("sends the writes of one turn as one chunk", () =>
    Effect.gen(function* () {
      const written: Array<string> = []
      const connection = yield* Connection.fromWebStreams({
        readable: new ReadableStream(never),
        writable: new WritableStream({ write: (chunk: Uint8Array) => void written.push(text(chunk)) })
      })
      yield* Effect.forEach(["a", "b", "c"], connection.writer.write, { discard: true })
      yield* connection.writer.flush
      assert.deepStrictEqual(written, ["abc"])
      yield* connection.abort
    })
  )

  it.effect("half-closes: the answer comes after the end", () =>
    Effect.gen(function* () {
      const [left, right] = yield* connect
      yield* left.writer.write("question")
      yield* left.writer.end
      assert.strictEqual(text(yield* right.reader.readAll()), "question")
      yield* right.writer.write("answer")
      yield* right.writer.end
      assert.strictEqual(text(yield* left.reader.readAll()), "answer")
      yield* Effect.all([left.closed, right.closed])
    })
  )

  it.effect("an error of the readable stream is the connection's, after what came before it", () =>
    Effect.gen(function* () {
      let controller: ReadableStreamDefaultController<Uint8Array> | undefined
      const connection = yield* Connection.fromWebStreams({
        readable: new ReadableStream<Uint8Array>({
          start: (_) => {
            controller = _
          }
        }),
        writable: new WritableStream()
      })
      const reading = yield* Effect.forkChild(connection.reader.read())
      yield* Effect.yieldNow
      controller?.enqueue(new TextEncoder().encode("before"))
      assert.strictEqual(text(yield* Fiber.join(reading)), "before")
      controller?.error(Object.assign(new Error("torn"), { code: "ECONNRESET" }))
      const error = yield* Effect.flip(connection.reader.read())
      assert(error._tag === "ConnectionError")
      assert.strictEqual(error.reason._tag, "ConnectionReset")
      assert.strictEqual((yield* Effect.flip(connection.closed)).reason._tag, "ConnectionReset")
    })
  )

  it.effect("an error of the writable stream fails the waiting writes", () =>
    Effect.gen(function* () {
      const stuck = Promise.withResolvers<(error: Error) => void>()
      const connection = yield* Connection.fromWebStreams(
        {
          readable: new ReadableStream(never),
          writable: new WritableStream({
            write: () =>
              new Promise<void>((_, reject) => {
                stuck.resolve(reject)
              })
          })
        },
        { watermarks: { high: 4 } }
      )
      const writing = yield* Effect.forkChild(connection.writer.write("stuck in the stream"))
      const queued = yield* Effect.forkChild(connection.writer.write("waits for its turn"))
      const fail = yield* Effect.promise(() => stuck.promise)
      fail(Object.assign(new Error("gone"), { code: "EPIPE" }))
      for (const fiber of [writing, queued]) {
        const error = yield* Effect.flip(Fiber.join(fiber))
        assert(error._tag === "ConnectionError")
        assert.strictEqual(error.reason._tag, "BrokenPipe")
      }
    })
  )

  it.effect("suspends a writer whose peer does not read, and does not read what nobody wants", () =>
    Effect.gen(function* () {
      let pulls = 0
      const both = yield* connect
      const reading = yield* Connection.fromWebStreams(
        {
          readable: new ReadableStream<Uint8Array>(
            {
              pull: (controller) => {
                pulls++
                controller.enqueue(new Uint8Array(1024))
              }
            },
            { highWaterMark: 0 }
          ),
          writable: new WritableStream()
        },
        { limit: 2048 }
      )
      yield* reading.reader.peek(1024)
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      assert.isAtMost(pulls, 6)
      assert.isAtMost(yield* reading.reader.bufferedBytes, 5 * 1024)
      yield* reading.abort
      yield* closeBoth(both)
    })
  )

  it.effect("abort while a write is stuck cancels both streams", () =>
    Effect.gen(function* () {
      const calls: Array<string> = []
      const connection = yield* Connection.fromWebStreams(
        {
          readable: new ReadableStream<Uint8Array>({ cancel: () => void calls.push("cancel") }),
          writable: new WritableStream({
            write: () => new Promise(() => {}),
            abort: () => void calls.push("abort")
          })
        },
        { watermarks: { high: 4 } }
      )
      const writing = yield* Effect.forkChild(connection.writer.write("stuck in the stream"))
      yield* Effect.yieldNow
      yield* connection.abort
      const exit = yield* Effect.exit(Fiber.join(writing))
      assert.isTrue(Exit.isFailure(exit))
      assert.include(calls, "cancel")
      yield* connection.closed
    })
  )
})

const encode = (s: string) => new TextEncoder().encode(s)

/** Transports on both sides of two transform streams. */
const pair = Effect.gen(function* () {
  const [left, right] = makeStreams()
  return {
    streams: { left, right },
    left: record(yield* WebStreamTransport.make(left)),
    right: record(yield* WebStreamTransport.make(right))
  }
})

/** A transport whose readable stream is fed by the test. */
const fed = Effect.fnUntraced(function* (writable: WritableStream<Uint8Array> = new WritableStream()) {
  const { promise, resolve } = Promise.withResolvers<ReadableStreamDefaultController<Uint8Array>>()
  let pulls = 0
  const readable = new ReadableStream<Uint8Array>(
    {
      start: resolve,
      pull: () => {
        pulls++
      }
    },
    { highWaterMark: 0 }
  )
  const transport = yield* WebStreamTransport.make({ readable, writable })
  const controller = yield* Effect.promise(() => promise)
  return { controller, recorder: record(transport), pulls: () => pulls, readable, writable }
})

const failing = (code: string) => Object.assign(new Error(code), { code })

describe("WebStreamTransport as a transport", () => {
  it.live("carries bytes both ways, half-closes, and lets go of the streams", () =>
    Effect.gen(function* () {
      const { left, right, streams } = yield* pair
      left.transport.resume()
      right.transport.resume()
      left.transport.writeAll(["one ", encode("two "), "", "thrée"])
      left.transport.end()
      yield* until(right, () => right.events.includes("end"))
      assert.strictEqual(right.text(), "one two thrée")
      assert.strictEqual(left.transport.bufferedBytes, 0)
      assert.notInclude(right.events, "closed")
      right.transport.write("answer")
      right.transport.end()
      yield* closed(left)
      yield* closed(right)
      assert.strictEqual(left.text(), "answer")
      assert.deepStrictEqual(left.events, ["drain", "data", "end", "closed"])
      assert.isUndefined(left.error())
      assert.isUndefined(right.error())
      for (const { readable, writable } of [streams.left, streams.right]) {
        assert.isFalse(readable.locked)
        assert.isFalse(writable.locked)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("describes itself", () =>
    Effect.gen(function* () {
      const remoteAddress = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:7")
      const [streams, others] = makeStreams()
      const plain = yield* WebStreamTransport.make(streams)
      assert.strictEqual(plain.kind, "web")
      assert.isTrue(plain.canEnd)
      const named = yield* WebStreamTransport.make(others, { kind: "deno", remoteAddress })
      assert.strictEqual(named.kind, "deno")
      assert.strictEqual(named.remoteAddress, remoteAddress)
    }).pipe(Effect.scoped)
  )

  it.effect("a locked stream is a defect, and the other one stays as it was", () =>
    Effect.gen(function* () {
      const [{ readable, writable }, other] = makeStreams()
      writable.getWriter()
      other.readable.getReader()
      for (const streams of [
        { readable, writable },
        { readable: other.readable, writable: other.writable }
      ]) {
        const exit = yield* Effect.exit(WebStreamTransport.make(streams))
        assert(Exit.isFailure(exit))
        assert.instanceOf(Cause.squash(exit.cause), TypeError)
      }
      assert.isFalse(readable.locked)
      assert.isFalse(other.writable.locked)
    }).pipe(Effect.scoped)
  )

  it.live("reads nothing before resume nor while paused, except for the chunk on its way", () =>
    Effect.gen(function* () {
      const { controller, pulls, recorder } = yield* fed()
      const { transport } = recorder
      yield* loops(2)
      assert.strictEqual(pulls(), 0)
      transport.resume()
      yield* loops(2)
      assert.strictEqual(pulls(), 1)
      transport.pause()
      controller.enqueue(encode("on its way"))
      controller.enqueue(encode(", later"))
      yield* loops(2)
      assert.strictEqual(recorder.text(), "on its way")
      assert.strictEqual(pulls(), 1)
      transport.resume()
      yield* until(recorder, () => recorder.text() === "on its way, later")
    }).pipe(Effect.scoped)
  )

  it.live("the chunk on its way is not lost when the stream fails while paused", () =>
    Effect.gen(function* () {
      const { controller, recorder } = yield* fed()
      recorder.transport.resume()
      yield* loops(2)
      recorder.transport.pause()
      controller.enqueue(encode("before"))
      yield* loops(2)
      controller.error(failing("ECONNRESET"))
      yield* closed(recorder)
      assert.deepStrictEqual(recorder.events, ["data", "closed"])
      assert.strictEqual(recorder.text(), "before")
      assert.strictEqual(recorder.error()?.operation, "read")
      assert.strictEqual(recorder.error()?.reason._tag, "ConnectionReset")
    }).pipe(Effect.scoped)
  )

  it.live("an empty chunk is no bytes", () =>
    Effect.gen(function* () {
      const { controller, recorder } = yield* fed()
      recorder.transport.resume()
      controller.enqueue(new Uint8Array(0))
      controller.enqueue(encode("x"))
      controller.close()
      yield* until(recorder, () => recorder.events.includes("end"))
      assert.deepStrictEqual(recorder.events, ["data", "end"])
    }).pipe(Effect.scoped)
  )

  it.live("streams that failed before the start end the transport after it", () =>
    Effect.gen(function* () {
      const broken = {
        readable: new ReadableStream<Uint8Array>({ start: (_) => _.error(failing("ECONNRESET")) }),
        writable: new WritableStream<Uint8Array>({ start: (_) => _.error(failing("EPIPE")) })
      }
      for (const [streams, operation] of [
        [{ readable: broken.readable, writable: new WritableStream() }, "read"],
        [{ readable: new ReadableStream(), writable: broken.writable }, "write"]
      ] as const) {
        const transport = yield* WebStreamTransport.make(streams)
        yield* loops(2)
        const recorder = record(transport)
        yield* closed(recorder)
        assert.strictEqual(recorder.error()?.operation, operation)
      }
    }).pipe(Effect.scoped)
  )

  for (const what of ["write", "end"] as const) {
    it.live(`${what} on a stream that was closed already is an error, not silence`, () =>
      Effect.gen(function* () {
        const writable = new WritableStream<Uint8Array>()
        yield* Effect.promise(() => writable.close())
        const { recorder } = yield* fed(writable)
        if (what === "write") recorder.transport.write("x")
        else recorder.transport.end()
        yield* closed(recorder)
        assert.strictEqual(recorder.error()?.operation, "write")
      }).pipe(Effect.scoped)
    )
  }

  it.live("an empty write is none", () =>
    Effect.gen(function* () {
      let writes = 0
      const { recorder } = yield* fed(new WritableStream({ write: () => void writes++ }))
      recorder.transport.writeAll(["", new Uint8Array(0)])
      yield* loops(2)
      assert.strictEqual(writes, 0)
    }).pipe(Effect.scoped)
  )

  it.live("one batch at a time, in order, and counted until the stream has taken it", () =>
    Effect.gen(function* () {
      const written: Array<string> = []
      const gates: Array<() => void> = []
      const { recorder } = yield* fed(
        new WritableStream(
          {
            write: (chunk) => {
              written.push(text(chunk))
              // As a sink does that hands the chunk to another thread.
              if (chunk.buffer instanceof ArrayBuffer) chunk.buffer.transfer()
              return new Promise<void>((resolve) => gates.push(resolve))
            }
          },
          // The stream would take more.
          { highWaterMark: 10 }
        )
      )
      const { transport } = recorder
      transport.write("a")
      yield* loops(2)
      transport.writeAll(["b", "c"])
      yield* loops(2)
      transport.write("é")
      transport.end()
      yield* loops(2)
      assert.deepStrictEqual(written, ["a"])
      assert.strictEqual(transport.bufferedBytes, 5)
      gates[0]?.()
      yield* loops(2)
      assert.deepStrictEqual(written, ["a", "bcé"])
      assert.strictEqual(transport.bufferedBytes, 4)
      gates[1]?.()
      yield* loops(2)
      assert.strictEqual(transport.bufferedBytes, 0)
      assert.deepStrictEqual(recorder.events, ["drain", "drain"])
    }).pipe(Effect.scoped)
  )

  it.live("close sends what was written to a peer that is slow to read", () =>
    Effect.gen(function* () {
      const { left, right } = yield* pair
      left.transport.write("all of it")
      left.transport.close()
      left.transport.close()
      yield* loops(3)
      assert.deepStrictEqual(left.events, [])
      right.transport.resume()
      yield* closed(left)
      assert.isUndefined(left.error())
      yield* until(right, () => right.events.includes("end"))
      assert.strictEqual(right.text(), "all of it")
    }).pipe(Effect.scoped)
  )

  it.live("a sink that fails to close is the transport's failure", () =>
    Effect.gen(function* () {
      const { recorder } = yield* fed(new WritableStream({ close: () => Promise.reject(failing("EPIPE")) }))
      recorder.transport.end()
      yield* closed(recorder)
      assert.strictEqual(recorder.error()?.operation, "write")
      assert.strictEqual(recorder.error()?.reason._tag, "BrokenPipe")
    }).pipe(Effect.scoped)
  )

  it.live("a write that fails after a close ends the transport without an error", () =>
    Effect.gen(function* () {
      const { recorder } = yield* fed(new WritableStream({ write: () => Promise.reject(failing("EPIPE")) }))
      recorder.transport.write("x")
      recorder.transport.close()
      yield* closed(recorder)
      assert.isUndefined(recorder.error())
      assert.strictEqual(recorder.transport.bufferedBytes, 1)
    }).pipe(Effect.scoped)
  )

  it.live("abort lets go at once though a write is stuck, and overtakes close", () =>
    Effect.gen(function* () {
      const signal = Promise.withResolvers<AbortSignal>()
      const { readable, recorder, writable } = yield* fed(
        new WritableStream({
          start: (controller) => signal.resolve(controller.signal),
          write: () => new Promise(() => {})
        })
      )
      recorder.transport.resume()
      recorder.transport.write("stuck")
      yield* loops(2)
      recorder.transport.close()
      yield* loops(2)
      assert.deepStrictEqual(recorder.events, [])
      recorder.transport.abort()
      recorder.transport.abort()
      yield* closed(recorder)
      yield* loops(2)
      assert.deepStrictEqual(recorder.events, ["closed"])
      assert.isUndefined(recorder.error())
      assert.isTrue((yield* Effect.promise(() => signal.promise)).aborted)
      assert.isFalse(readable.locked)
      assert.isFalse(writable.locked)
    }).pipe(Effect.scoped)
  )

  it.live("the peer of an abort sees a reset, and no end of input", () =>
    Effect.gen(function* () {
      const { left, right } = yield* pair
      right.transport.resume()
      left.transport.write("x")
      yield* until(right, () => right.text() === "x")
      left.transport.abort()
      yield* closed(right)
      assert.deepStrictEqual(right.events, ["data", "closed"])
      assert.strictEqual(right.error()?.reason._tag, "ConnectionReset")
      assert.strictEqual(right.error()?.reason.code, "ECONNRESET")
    }).pipe(Effect.scoped)
  )

  it.live("the end of the scope aborts, also before the start", () =>
    Effect.gen(function* () {
      const started = yield* Effect.scoped(pair)
      yield* closed(started.left)
      assert.isUndefined(started.left.error())
      const [{ readable, writable }] = makeStreams()
      yield* Effect.scoped(WebStreamTransport.make({ readable, writable }))
      assert.isFalse(readable.locked)
      assert.isFalse(writable.locked)
    })
  )

  it.live("an abort from within onDrain and onData is the last that happens", () =>
    Effect.gen(function* () {
      for (const what of ["drain", "data"]) {
        const { controller, recorder } = yield* fed()
        recorder.on = (happened) => {
          if (happened === what) recorder.transport.abort()
        }
        recorder.transport.resume()
        if (what === "data") controller.enqueue(encode("x"))
        else recorder.transport.writeAll(["x"])
        yield* loops(3)
        assert.deepStrictEqual(recorder.events, [what, "closed"])
      }
    }).pipe(Effect.scoped)
  )
})
