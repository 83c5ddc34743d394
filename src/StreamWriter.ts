/**
 * Writing with real backpressure.
 *
 * A write goes straight to the transport and returns, until the transport holds more than the high watermark: then it
 * suspends until the transport has drained to the low one. There is no drain to forget. The laws:
 *
 * - Bytes go out in the order in which the writes were made, each write whole.
 * - A write that is interrupted (or times out) while it waits sends all of its bytes or none of them.
 * - Every write settles: when the connection fails or is closed, all waiting writes fail at once with the same reason.
 * - Many small writes of one turn of the event loop leave in one system call.
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import type { TimeLimits } from "./internal/Deadlines.ts"
import * as Limits from "./internal/limits.ts"
import { type Output, Write, WriteAll } from "./internal/Output.ts"
import type { WriteError } from "./StreamError.ts"

/**
 * Runtime type identifier of writers.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-wire/StreamWriter"

/**
 * The bytes that a writer's transport may hold: above `high`, writes suspend; at or below `low`, they go on.
 *
 * @category models
 * @since 0.1.0
 */
export interface Watermarks {
  readonly high: number
  readonly low: number
}

/**
 * The writing side of a connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamWriter {
  readonly [TypeId]: typeof TypeId

  /**
   * Sends bytes, or text as UTF-8; suspends while the connection is congested. The chunk must not be changed afterwards:
   * it is kept, not copied, until it is sent. Success means that the bytes are on their way, not that they arrived.
   *
   * Fails with `BrokenPipe` after `end`, with `ConnectionClosed` after a local close, with the connection's own error
   * once that failed.
   */
  readonly write: (chunk: Uint8Array | string) => Effect.Effect<void, WriteError>

  /** Sends several chunks as one write: contiguous, and with one system call where the system has one for it. */
  readonly writeAll: (chunks: Iterable<Uint8Array | string>) => Effect.Effect<void, WriteError>

  /** Waits until the connection is not congested: the buffered bytes have fallen to the low watermark. */
  readonly drain: Effect.Effect<void, WriteError>

  /** Waits until nothing is buffered: all bytes were handed to the operating system. */
  readonly flush: Effect.Effect<void, WriteError>

  /**
   * Closes this direction after everything written (half-close, a TCP FIN); reading goes on. Later writes fail with
   * `BrokenPipe`. Ending twice does nothing. Fails with `Unsupported` where `canEnd` is false.
   */
  readonly end: Effect.Effect<void, WriteError>

  /** Whether this direction can be closed alone. */
  readonly canEnd: boolean

  /** Whether the connection was closed, aborted or lost. The peer's end of input does not count. */
  readonly isClosing: Effect.Effect<boolean>

  /** Bytes written that have not left the process. At most `high` and one write more. */
  readonly bufferedBytes: Effect.Effect<number>

  /** 65,536 and 16,384 bytes unless set. */
  readonly watermarks: Watermarks

  /**
   * Sets the watermarks; `low` is a quarter of `high` unless given. A `RangeError` defect unless both are non-negative
   * integers and `low` is not above `high`.
   */
  readonly setWatermarks: (watermarks: {
    readonly high: number
    readonly low?: number | undefined
  }) => Effect.Effect<void>

  /** Writes all that a stream gives, in batches. Does not end the direction. */
  readonly sink: Sink.Sink<void, Uint8Array | string, never, WriteError>
}

/**
 * Tells whether a value is a writer.
 *
 * @category guards
 * @since 0.1.0
 */
export const isStreamWriter = (u: unknown): u is StreamWriter => Predicate.hasProperty(u, TypeId)

/**
 * A queue for many producers, whose messages a fiber writes in batches. Offers wait while `capacity` messages (16 unless
 * set) are queued; once the writer failed, the queue has its failure and refuses offers (`offer` gives `false`), those
 * that wait too.
 *
 * When the scope ends well, what is queued is still written; that takes as long as the writer's time limits let it. When
 * the scope fails or is interrupted, what is queued is dropped. A capacity that is not a positive integer is a defect
 * (`RangeError`).
 *
 * **Example** (Many producers, one writer)
 *
 * ```ts
 * import { Effect, Queue } from "effect"
 * import { Connection, StreamWriter } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [client, server] = yield* Connection.pair()
 *   const queue = yield* StreamWriter.toQueue(client.writer)
 *   yield* Queue.offer(queue, "one\n")
 *   yield* Queue.offer(queue, "two\n")
 *   console.log(yield* server.reader.readLineString, yield* server.reader.readLineString) // some("one") some("two")
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const toQueue = (
  self: StreamWriter,
  options?: { readonly capacity?: number | undefined }
): Effect.Effect<Queue.Enqueue<Uint8Array | string, WriteError | Cause.Done>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const capacity = Limits.positive("capacity", options?.capacity ?? 16, "messages")
    const queue = yield* Queue.bounded<Uint8Array | string, WriteError | Cause.Done>(capacity)
    const pump = yield* Queue.takeAll(queue).pipe(
      Effect.flatMap(self.writeAll),
      Effect.forever({ disableYield: true }),
      // A failed queue keeps those waiting that wait to offer, until it is shut down.
      Effect.onError((cause) => Effect.andThen(Queue.failCause(queue, cause), Queue.shutdown(queue))),
      Effect.forkDetach({ startImmediately: true })
    )
    // Detached, so that a scope that ends well lets it write what is queued instead of interrupting it.
    yield* Effect.addFinalizer((exit) =>
      Exit.isSuccess(exit) ? Effect.andThen(Queue.end(queue), Fiber.await(pump)) : Fiber.interrupt(pump)
    )
    return queue
  })

/** @internal */
export const fromOutput = (
  output: Output,
  timeouts: TimeLimits,
  connection: { readonly isClosing: boolean }
): StreamWriter => new Writer(output, timeouts, connection)

/** @internal */
export const backingOf = (
  writer: StreamWriter
): { readonly output: Output; readonly timeouts: TimeLimits } => {
  if (!(writer instanceof Writer)) throw new TypeError("not a writer made by this library")
  return writer
}

// Functions are made by functions: see `StreamReader`.

const writeOf =
  (output: Output, timeouts: TimeLimits): StreamWriter["write"] =>
  (chunk) =>
    new Write(output, timeouts, chunk)

const writeAllOf =
  (output: Output, timeouts: TimeLimits): StreamWriter["writeAll"] =>
  (chunks) =>
    new WriteAll(output, timeouts, chunks)

// Each operation is made when it is used, the busy ones once.
class Writer implements StreamWriter {
  readonly [TypeId] = TypeId
  private readonly connection: { readonly isClosing: boolean }
  readonly output: Output
  readonly timeouts: TimeLimits
  private one: StreamWriter["write"] | undefined = undefined
  private several: StreamWriter["writeAll"] | undefined = undefined

  constructor(output: Output, timeouts: TimeLimits, connection: { readonly isClosing: boolean }) {
    this.output = output
    this.timeouts = timeouts
    this.connection = connection
  }

  get write(): StreamWriter["write"] {
    return (this.one ??= writeOf(this.output, this.timeouts))
  }

  get writeAll(): StreamWriter["writeAll"] {
    return (this.several ??= writeAllOf(this.output, this.timeouts))
  }

  get drain(): StreamWriter["drain"] {
    return this.output.drain(this.timeouts)
  }

  get flush(): StreamWriter["flush"] {
    return this.output.flush(this.timeouts)
  }

  get end(): StreamWriter["end"] {
    return this.output.end(this.timeouts)
  }

  get canEnd(): boolean {
    return this.output.canEnd
  }

  get isClosing(): Effect.Effect<boolean> {
    return Effect.sync(() => this.connection.isClosing)
  }

  get bufferedBytes(): Effect.Effect<number> {
    return Effect.sync(() => this.output.bufferedBytes)
  }

  get watermarks(): Watermarks {
    return this.output.watermarks
  }

  get setWatermarks(): StreamWriter["setWatermarks"] {
    return (watermarks) => Effect.sync(() => this.output.setWatermarks(Limits.watermarks(watermarks)))
  }

  get sink(): StreamWriter["sink"] {
    return Sink.forEachArray(this.writeAll)
  }
}
