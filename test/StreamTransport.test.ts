import { describe, it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { type Cause, Effect, Exit, Latch, Queue, Scope, Sink, Stream } from "effect"
import { Connection, StreamError, StreamTransport, type Transport } from "effect-wire"
import { Conformance } from "effect-wire/testing"
import { NetAddress } from "effect/net"
import { aborting, outcome, outcomeOf, start, turns } from "./support/effects.ts"

const reset = new StreamError.ConnectionError({
  operation: "read",
  reason: new StreamError.ConnectionReset({ code: "ECONNRESET" })
})

/** One direction: a sink whose interruption the stream sees as a reset, and the other way round. */
const makePipe = Effect.gen(function* () {
  const queue = yield* Queue.bounded<Uint8Array, StreamError.ConnectionError | Cause.Done>(0)
  const broken = Effect.andThen(Queue.fail(queue, reset), Queue.shutdown(queue))
  return {
    sink: Sink.forEach((chunk: Uint8Array) =>
      Effect.flatMap(Queue.offer(queue, chunk), (taken) => (taken ? Effect.void : Effect.fail(reset)))
    ).pipe(Sink.onExit((exit) => (Exit.isSuccess(exit) ? Queue.end(queue) : broken))),
    stream: Stream.fromQueue(queue).pipe(
      Stream.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Queue.shutdown(queue)))
    )
  }
})

const makePair = Effect.gen(function* () {
  const there = yield* makePipe
  const back = yield* makePipe
  const pair: [Transport.Transport, Transport.Transport] = [
    yield* StreamTransport.make({ stream: back.stream, sink: there.sink }),
    yield* StreamTransport.make({ stream: there.stream, sink: back.sink })
  ]
  return pair
})

describe("StreamTransport", () => {
  Conformance.transport(Conformance.layerPair(makePair))
})

/** A connection over a sink and a stream that the test feeds. */
const over = Effect.fnUntraced(function* <E>(
  sink: Sink.Sink<unknown, Uint8Array, unknown, E>,
  options?: Connection.Options
) {
  const input = yield* Queue.bounded<Uint8Array, Cause.Done | Error>(0)
  const connection = yield* aborting(
    Connection.fromStreams({ stream: Stream.fromQueue(input), sink }, options)
  )
  return { connection, input }
})

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

describe("Connection.fromStreams", () => {
  it.effect("names itself as it is told", () =>
    Effect.gen(function* () {
      const streams = { stream: Stream.never, sink: Sink.drain }
      const plain = yield* aborting(Connection.fromStreams(streams))
      const named = yield* aborting(
        Connection.fromStreams(streams, {
          kind: "carrier-pigeon",
          canEnd: false,
          remoteAddress: NetAddress.unixPathAddress("/loft")
        })
      )
      deepStrictEqual([plain.info.transport, plain.writer.canEnd], ["stream", true])
      deepStrictEqual([named.info.transport, named.writer.canEnd], ["carrier-pigeon", false])
      deepStrictEqual(named.info.remoteAddress, NetAddress.unixPathAddress("/loft"))
    })
  )

  it.effect("a sink that fails, or is done early, fails the writes, and what comes is still read", () =>
    Effect.gen(function* () {
      const failing = (code: string) =>
        Sink.forEach(() => Effect.fail(Object.assign(new Error(code), { code })))
      const reset = new StreamError.ConnectionError({
        operation: "write",
        reason: new StreamError.ConnectionReset({ code: "ECONNRESET" })
      })
      const cases: ReadonlyArray<readonly [Sink.Sink<unknown, Uint8Array, unknown, unknown>, string]> = [
        [failing("EPIPE"), "BrokenPipe"],
        [failing("ERR_STREAM_DESTROYED"), "BrokenPipe"],
        [failing("ERR_STREAM_PREMATURE_CLOSE"), "BrokenPipe"],
        [failing("EWHATEVER"), "UnknownReason"],
        [Sink.forEach(() => Effect.fail(reset)), "ConnectionReset"],
        [Sink.forEach(() => Effect.die("a defect")), "UnknownReason"],
        [Sink.take(1), "BrokenPipe"]
      ]
      for (const [sink, reason] of cases) {
        const { connection, input } = yield* over(sink)
        yield* Effect.exit(connection.writer.write("x"))
        yield* turns
        strictEqual(yield* outcomeOf(connection.writer.write("y")), reason)
        strictEqual(yield* outcomeOf(connection.writer.flush), reason)
        yield* Queue.offer(input, bytes("still here"))
        strictEqual(yield* outcomeOf(connection.reader.readExactly(10)), "success")
        yield* Queue.end(input)
        strictEqual((yield* connection.reader.read()).length, 0)
        strictEqual(yield* outcomeOf(connection.closed), reason)
      }
    })
  )

  it.effect("after a sink has failed, the stream is still pulled only as far as the limit wants", () =>
    Effect.gen(function* () {
      let pulled = 0
      const stream = Stream.fromEffectRepeat(Effect.sync(() => new Uint8Array(((pulled += 10), 10)))).pipe(
        Stream.take(10_000)
      )
      const sink = Sink.forEach(() => Effect.fail(reset))
      const connection = yield* aborting(Connection.fromStreams({ stream, sink }, { limit: 100 }))
      yield* Effect.exit(connection.writer.write("x"))
      yield* turns
      strictEqual(yield* outcomeOf(connection.writer.write("y")), "ConnectionReset")
      yield* connection.reader.readExactly(150)
      yield* turns
      assertTrue(pulled < 1000, `${pulled} bytes were pulled, and 150 read`)
      strictEqual((yield* connection.reader.readAll()).length, 100_000 - 150)
    })
  )

  it.effect("a stream that fails is the connection's failure, after what came before it", () =>
    Effect.gen(function* () {
      const { connection, input } = yield* over(Sink.drain)
      yield* Queue.offer(input, bytes("before"))
      yield* Queue.fail(input, Object.assign(new Error("the tape is torn"), { code: "EIO" }))
      strictEqual((yield* connection.reader.readExactly(6)).length, 6)
      const error = yield* Effect.flip(connection.reader.read())
      assertTrue(error.message.includes("EIO"), error.message)
      strictEqual(yield* outcomeOf(connection.closed), yield* outcomeOf(connection.reader.read()))
    })
  )

  it.effect("pulls the stream only as far as the reader's limit wants", () =>
    Effect.gen(function* () {
      let pulled = 0
      const stream = Stream.fromEffectRepeat(Effect.sync(() => new Uint8Array(((pulled += 10), 10))))
      const connection = yield* aborting(Connection.fromStreams({ stream, sink: Sink.drain }, { limit: 100 }))
      yield* turns
      const held = pulled
      yield* turns
      strictEqual(pulled, held)
      assertTrue(held >= 200 && held < 300, `${held} bytes were pulled`)
      yield* connection.reader.skip(1000)
      assertTrue(pulled >= 1000)
    })
  )

  it.effect("a slow sink congests the writer; what it is given was all that waited", () =>
    Effect.gen(function* () {
      const gate = Latch.makeUnsafe(false)
      const batches: Array<number> = []
      const sink = Sink.forEachArray((chunks: ReadonlyArray<Uint8Array>) =>
        Effect.andThen(
          gate.await,
          Effect.sync(() => batches.push(chunks.length))
        )
      )
      const { connection } = yield* over(sink, { watermarks: { high: 100 } })
      const { writer } = connection
      yield* writer.write(new Uint8Array(60))
      yield* turns
      const waiting = yield* start(
        Effect.all([writer.write(new Uint8Array(60)), writer.write(new Uint8Array(60))])
      )
      yield* turns
      deepStrictEqual([outcome(waiting), yield* writer.bufferedBytes], ["waiting", 120])
      yield* gate.open
      yield* turns
      deepStrictEqual([outcome(waiting), yield* writer.bufferedBytes], ["success", 0])
      strictEqual(
        batches.reduce((sum, n) => sum + n, 0),
        3
      )
    })
  )

  it.effect("the scope's end interrupts both, and waits until they have let go", () =>
    Effect.gen(function* () {
      const released: Array<string> = []
      const releasing = (name: string) =>
        Effect.andThen(
          Effect.yieldNow,
          Effect.sync(() => released.push(name))
        )
      const scope = yield* Scope.make()
      const connection = yield* Scope.provide(
        Connection.fromStreams({
          stream: Stream.ensuring(Stream.never, releasing("stream")),
          sink: Sink.forEach(() => Effect.ensuring(Effect.never, releasing("sink")))
        }),
        scope
      )
      yield* connection.writer.write("x")
      const reading = yield* start(connection.reader.read())
      yield* turns
      yield* Scope.close(scope, Exit.fail("over"))
      deepStrictEqual(released.sort(), ["sink", "stream"])
      strictEqual(outcome(reading), "ConnectionAborted")
    })
  )
})
