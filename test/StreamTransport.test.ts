import { describe } from "@effect/vitest"
import { type Cause, Effect, Exit, Queue, Sink, Stream } from "effect"
import { StreamError, StreamTransport, type Transport } from "effect-wire"
import { Conformance } from "effect-wire/testing"

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
