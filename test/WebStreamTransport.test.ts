import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Stream } from "effect"
import { Connection } from "effect-wire"

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
