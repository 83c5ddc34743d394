/**
 * A connection that speaks messages.
 *
 * A `Framing` cuts the stream, a `Codec` gives the pieces a meaning, and `Framed` puts both on a connection. The laws:
 *
 * - `receive` takes whole frames: interrupted or timed out, it leaves every byte of an unfinished one in the buffer.
 * - Concurrent calls of `receive` each get a message, in the order of the calls. Concurrent sends do not mix.
 * - A frame that does not decode is one failure: it is consumed, and the next `receive` gives the next message. It remains
 *   only where nobody can tell what follows (a frame that is too long, or whose end cannot be found); then every `receive`
 *   fails alike.
 * - What goes out for a message is written in one go.
 *
 * **Example** (Messages as JSON lines)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Codec, Connection, Framed, Framing } from "effect-wire"
 *
 * const codec = Codec.schema(Schema.Struct({ name: Schema.String, age: Schema.Number }))
 *
 * const program = Effect.gen(function* () {
 *   const [left, right] = yield* Connection.pair()
 *   yield* Framed.make(left, Framing.lines(), codec).send({ name: "Ada", age: 36 })
 *   return yield* Framed.make(right, Framing.lines(), codec).receive
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // { name: "Ada", age: 36 }
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import * as Codec from "./Codec.ts"
import type { Connection } from "./Connection.ts"
import {
  EndOfStream,
  FrameError,
  type FrameErrorReason,
  FrameTooLong,
  MalformedFrame,
  type ReceiveError,
  type SendError
} from "./FrameError.ts"
import * as Framing from "./Framing.ts"
import * as Decoder from "./internal/Decoder.ts"
import * as Limits from "./internal/limits.ts"
import { within } from "./internal/within.ts"
import { ConnectionClosed, ConnectionError } from "./StreamError.ts"
import * as StreamReader from "./StreamReader.ts"
import { addressOf, type StreamWriter } from "./StreamWriter.ts"

/**
 * Runtime type identifier of framed connections.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-wire/Framed"

/**
 * The receiving half.
 *
 * @category models
 * @since 0.1.0
 */
export interface Receiver<out In> {
  /**
   * The next message. Fails with `EndOfStream` when the peer has ended its direction between frames, with
   * `IncompleteReadError` when it did so within one, and with `FrameError` for a frame that does not decode.
   *
   * - On success: consumes the frame.
   * - On timeout: consumes nothing.
   * - On interruption: consumes nothing.
   * - On failure: a frame that does not decode is consumed. One that is too long, or of which nobody can tell where it
   *   ends, is not: every further call fails alike. At the end of input within a frame, the rest is consumed.
   */
  readonly receive: Effect.Effect<In, ReceiveError>
  /**
   * The messages until the end of the stream: many per pull, the fast way. Messages that were pulled and not used when the
   * stream is left are gone; to take some and then go on in another way, use `receive`. So does a server before
   * `upgradeTls`, which cannot refuse what was pulled with the message that asked for it.
   */
  readonly messages: Stream.Stream<In, Exclude<ReceiveError, EndOfStream>>
  /** How many frames were skipped so far because they did not decode (`onInvalid: "skip"`). */
  readonly skipped: Effect.Effect<number>
}

/**
 * The sending half. A message that the codec or the framing cannot encode fails with `FrameError`, and nothing is sent.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sender<in Out> {
  /** Sends one message, with one write. Interrupted while it waits for the peer, it sends all of it or nothing. */
  readonly send: (message: Out) => Effect.Effect<void, SendError>
  /** Sends several messages with one write; if one of them cannot be encoded, none. */
  readonly sendAll: (messages: Iterable<Out>) => Effect.Effect<void, SendError>
  /** Sends all that a stream gives, in batches. Does not end the direction. */
  readonly sink: Sink.Sink<void, Out, never, SendError>
}

/**
 * A connection that speaks messages: it receives an `In` and sends an `Out`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Framed<out In, in out Out = In> extends Receiver<In>, Sender<Out> {
  readonly [TypeId]: typeof TypeId
  readonly connection: Connection
  /**
   * Sends a message and receives the reply, for protocols that answer in order. Concurrent requests take turns. A request
   * that is interrupted after it was sent leaves its reply to come: the next request drops it.
   */
  readonly request: (message: Out) => Effect.Effect<In, ReceiveError | SendError>
  /**
   * For protocols that answer out of order: from now on, until the scope ends, all messages are received here and handed to
   * the requests that they answer. Nobody else may receive in the meantime.
   */
  readonly correlate: <Id>(
    options: CorrelateOptions<In | Out, Id>
  ) => Effect.Effect<Correlated<In, Out>, never, Scope.Scope>
  /**
   * The same for protocols that answer in order: any number of requests are on their way at once, and each gets the reply
   * whose turn it is.
   */
  readonly pipeline: (
    options?: PipelineOptions<In, Out>
  ) => Effect.Effect<Correlated<In, Out>, never, Scope.Scope>
}

/**
 * Options of `correlate` and `pipeline`.
 *
 * @category models
 * @since 0.1.0
 */
export interface RequestOptions {
  /** How long a request may take unless it says so itself. Default: no limit. */
  readonly timeout?: Duration.Input | undefined
  /** How many unsolicited messages are kept for `unsolicited`; the oldest are dropped. Default 256. */
  readonly unsolicitedCapacity?: number | undefined
}

/**
 * Options of `pipeline`.
 *
 * @category models
 * @since 0.1.0
 */
export interface PipelineOptions<in In, in Out = unknown> extends RequestOptions {
  /**
   * Whether a message answers the request whose turn it is, the oldest one that has no reply yet (`undefined`: there is
   * none). It is asked once for each message, in their order. Those that answer none are `unsolicited`. Default: all do.
   */
  readonly isReply?: ((message: In, request: Out | undefined) => boolean) | undefined
}

/**
 * Options of `correlate`.
 *
 * @category models
 * @since 0.1.0
 */
export interface CorrelateOptions<in M, out Id> extends RequestOptions {
  /** What a request and its reply have in common; compared as the key of a `Map`. `undefined` for messages that answer none. */
  readonly idOf: (message: M) => Id | undefined
}

/**
 * A connection on which many requests are in flight at once.
 *
 * When the connection ends, all of them fail at once with what it ended of (`EndOfStream`, `ConnectionError`, …), and later
 * ones with the same; with the scope's end it is `ConnectionClosed`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Correlated<out In, in Out> {
  /**
   * Sends a message and waits for its reply. Fails with `TimeoutError` (operation `request`) when it takes too long. An
   * interrupted or timed-out request is forgotten: its reply, should it come, is dropped. With `correlate`, a message without
   * an id, or with one that is in flight already, is a `RangeError` defect.
   */
  readonly request: (
    message: Out,
    options?: { readonly timeout?: Duration.Input | undefined }
  ) => Effect.Effect<In, ReceiveError | SendError>
  /** Sends a message that nobody answers. */
  readonly send: (message: Out) => Effect.Effect<void, SendError>
  /** The messages that answer none, from the first; each goes to one consumer. Ends or fails with the connection. */
  readonly unsolicited: Stream.Stream<In, Exclude<ReceiveError, EndOfStream>>
  /** How many requests wait for their reply. */
  readonly inFlight: Effect.Effect<number>
  /** How many replies came that nobody waited for any more. */
  readonly unmatched: Effect.Effect<number>
}

/**
 * Options of framed connections.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * What becomes of a frame that does not decode: `"fail"` (the default) fails the `receive`, `"skip"` counts it in
   * `skipped` and goes on with the next. A frame that is too long is skipped without being buffered. Where nobody can tell
   * where the next frame begins, it is a failure all the same.
   */
  readonly onInvalid?: "fail" | "skip" | undefined
}

/**
 * Tells whether a value is a framed connection.
 *
 * @category guards
 * @since 0.1.0
 */
export const isFramed = (u: unknown): u is Framed<unknown, never> => Predicate.hasProperty(u, TypeId)

/**
 * Receives messages from a reader, whatever feeds it: a connection, a file, a test.
 *
 * @category constructors
 * @since 0.1.0
 */
export const receiver: {
  <F>(reader: StreamReader.StreamReader, framing: Framing.Framing<F>): Receiver<F>
  <In, Out, F>(
    reader: StreamReader.StreamReader,
    framing: Framing.Framing<F>,
    codec: Codec.Codec<In, Out, F>,
    options?: Options
  ): Receiver<In>
} = <F>(
  reader: StreamReader.StreamReader,
  framing: Framing.Framing<F>,
  codec: Codec.Codec<F, never, F> = Codec.identity<F>(),
  options?: Options
): Receiver<F> => {
  const { input, timeouts } = StreamReader.backingOf(reader)
  const { receive, receiveMany, skipped } = Decoder.make({
    input,
    limits: timeouts,
    framing,
    codec,
    skips: Limits.oneOf("onInvalid", options?.onInvalid ?? "fail", ["fail", "skip"]) === "skip"
  })
  const pull = Effect.catchTag(receiveMany, "EndOfStream", () => Cause.done())
  return {
    receive,
    messages: Stream.fromPull(Effect.succeed(pull)),
    skipped: Effect.sync(skipped)
  }
}

/**
 * Sends messages with a writer.
 *
 * @category constructors
 * @since 0.1.0
 */
export const sender: {
  <F>(writer: StreamWriter, framing: Framing.Framing<F>): Sender<F>
  <In, Out, F>(writer: StreamWriter, framing: Framing.Framing<F>, codec: Codec.Codec<In, Out, F>): Sender<Out>
} = <F>(
  writer: StreamWriter,
  framing: Framing.Framing<F>,
  codec: Codec.Codec<unknown, F, F> = Codec.identity()
): Sender<F> => {
  const encode = encoderOf(writer, framing, codec)
  const sendAll = (messages: Iterable<F>): Effect.Effect<void, SendError> =>
    Effect.suspend((): Effect.Effect<void, SendError> => {
      const chunks: Array<Chunk> = []
      for (const message of messages) {
        const encoded = encode(message)
        if (encoded instanceof FrameError) return Effect.fail(encoded)
        if (isChunk(encoded)) chunks.push(encoded)
        else chunks.push(...encoded)
      }
      return writer.writeAll(chunks)
    })
  return {
    send: (message) =>
      Effect.suspend(() => {
        const encoded = encode(message)
        return encoded instanceof FrameError ? Effect.fail(encoded) : write(writer, encoded)
      }),
    sendAll,
    sink: Sink.forEachArray(sendAll)
  }
}

type Chunk = Uint8Array | string

const isChunk = (encoded: Framing.Encoded): encoded is Chunk =>
  typeof encoded === "string" || encoded instanceof Uint8Array

const write = (writer: StreamWriter, encoded: Framing.Encoded): Effect.Effect<void, SendError> =>
  isChunk(encoded) ? writer.write(encoded) : writer.writeAll(encoded)

const encoderOf = <Out, F>(
  writer: StreamWriter,
  framing: Framing.Framing<F>,
  codec: Codec.Codec<unknown, Out, F>
): ((message: Out) => Framing.Encoded | FrameError) => {
  const machine = framing[Framing.TypeId]
  const refused = (reason: FrameErrorReason): FrameError =>
    new FrameError({ operation: "send", reason, address: addressOf(writer) })
  return (message) => {
    const frame = codec.encode(message)
    if (Result.isFailure(frame)) return refused(frame.failure)
    const encoded = machine.encode(frame.success)
    return encoded instanceof MalformedFrame || encoded instanceof FrameTooLong ? refused(encoded) : encoded
  }
}

/**
 * Speaks messages on a connection, which stays its owner's: its reader, its writer and its end are as before. Without a
 * codec the messages are the frames. For one that receives and sends different messages, see `Codec.duplex`.
 *
 * Throws a `TypeError` if the connection's reader was not made by this library.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  <F>(connection: Connection, framing: Framing.Framing<F>): Framed<F>
  <In, Out, F>(
    connection: Connection,
    framing: Framing.Framing<F>,
    codec: Codec.Codec<In, Out, F>,
    options?: Options
  ): Framed<In, Out>
} = <F>(
  connection: Connection,
  framing: Framing.Framing<F>,
  codec: Codec.Codec<F, F, F> = Codec.identity(),
  options?: Options
): Framed<F> => {
  const { writer } = connection
  const incoming = receiver(connection.reader, framing, codec, options)
  const outgoing = sender(writer, framing, codec)
  const encode = encoderOf(writer, framing, codec)
  return {
    [TypeId]: TypeId,
    connection,
    ...incoming,
    ...outgoing,
    request: requester(incoming.receive, writer, encode),
    correlate: (options) => correlate(incoming, outgoing, writer, options),
    pipeline: (options) => pipeline(incoming, outgoing, writer, encode, options)
  }
}

const sizeOf = (encoded: Framing.Encoded): number => {
  // Three bytes are the most that a character takes.
  if (isChunk(encoded)) return typeof encoded === "string" ? 3 * encoded.length : encoded.length
  return encoded.reduce((sum, chunk) => sum + sizeOf(chunk), 0)
}

/**
 * Writes a request of which it must be known whether it was sent, or its reply would be taken for the next one's: a write
 * that can wait goes on by itself when the request is interrupted.
 */
const transmit = <E>(
  writer: StreamWriter,
  encoded: Framing.Encoded,
  written: Effect.Effect<void, E>
): Effect.Effect<void, E> => {
  const { high, low } = writer.watermarks
  return Effect.flatMap(writer.bufferedBytes, (held) =>
    held <= low && held + sizeOf(encoded) <= high ? Effect.uninterruptible(written) : detached(written)
  )
}

const detached = <E>(written: Effect.Effect<void, E>): Effect.Effect<void, E> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.forkDetach(written, { startImmediately: true, uninterruptible: true }), (fiber) =>
      restore(Fiber.join(fiber))
    )
  )

/** Requests and replies in turn. */
const requester = <In, Out>(
  receive: Effect.Effect<In, ReceiveError>,
  writer: StreamWriter,
  encode: (message: Out) => Framing.Encoded | FrameError
): ((message: Out) => Effect.Effect<In, ReceiveError | SendError>) => {
  const turn = Semaphore.makeUnsafe(1)
  // Replies to come: that of the request whose turn it is, after those of requests that were given up.
  let owed = 0

  const send = (encoded: Framing.Encoded): Effect.Effect<void, SendError> =>
    Effect.suspend(() => {
      owed++
      return Effect.onError(write(writer, encoded), () => Effect.sync(() => owed--))
    })

  const reply: Effect.Effect<In, ReceiveError> = Effect.suspend(() =>
    Effect.matchEffect(receive, {
      onSuccess: (message) => (--owed > 0 ? reply : Effect.succeed(message)),
      // A reply that does not decode is one all the same.
      onFailure: (error) => (error._tag === "FrameError" && --owed > 0 ? reply : Effect.fail(error))
    })
  )

  return (message) =>
    turn.withPermit(
      Effect.suspend(() => {
        const encoded = encode(message)
        if (encoded instanceof FrameError) return Effect.fail(encoded)
        return Effect.andThen(transmit(writer, encoded, send(encoded)), reply)
      })
    )
}

type Reply<In> = Deferred.Deferred<In, ReceiveError>

/** Hands every message to the request that it answers, in a fiber of the scope, and all requests the end. */
const dispatch = Effect.fnUntraced(function* <In, Out>(
  { messages }: Receiver<In>,
  { send }: Sender<Out>,
  writer: StreamWriter,
  options: RequestOptions | undefined,
  requests: {
    /** Which reply a message is: nobody's that waits (`undefined`), or none at all. */
    readonly take: (message: In) => Reply<In> | undefined | "none"
    readonly takeAll: () => ReadonlyArray<Reply<In>>
    readonly inFlight: () => number
    readonly request: (
      message: Out,
      ended: () => Exit.Exit<never, ReceiveError> | undefined
    ) => Effect.Effect<In, ReceiveError | SendError>
  }
): Effect.fn.Return<Correlated<In, Out>, never, Scope.Scope> {
  const capacity = Limits.positive(
    "unsolicitedCapacity",
    options?.unsolicitedCapacity ?? DEFAULT_UNSOLICITED,
    "messages"
  )
  const defaultTimeout = Limits.timeout("timeout", options?.timeout)
  const unsolicited = yield* Queue.sliding<In, StreamFailure | Cause.Done>(capacity)
  let unmatched = 0
  // What requests fail with once nothing more is received.
  let ended: Exit.Exit<never, ReceiveError> | undefined

  const take = (message: In): void => {
    const reply = requests.take(message)
    if (reply === undefined) unmatched++
    else if (reply === "none") Queue.offerUnsafe(unsolicited, message)
    else Deferred.doneUnsafe(reply, Exit.succeed(message))
  }

  const end = (exit: Exit.Exit<unknown, StreamFailure>): void => {
    const cause = endedBy(exit, addressOf(writer))
    const failure: Exit.Exit<never, ReceiveError> =
      cause === undefined ? Exit.fail(new EndOfStream({ address: addressOf(writer) })) : Exit.failCause(cause)
    ended = failure
    Queue.failCauseUnsafe(unsolicited, cause ?? Cause.fail(Cause.Done()))
    for (const reply of requests.takeAll()) Deferred.doneUnsafe(reply, failure)
  }

  yield* messages.pipe(
    Stream.runForEachArray((batch) => Effect.sync(() => batch.forEach(take))),
    Effect.onExit((exit) => Effect.sync(() => end(exit))),
    Effect.exit,
    Effect.forkScoped({ startImmediately: true })
  )

  const request = (message: Out): Effect.Effect<In, ReceiveError | SendError> =>
    requests.request(message, () => ended)

  return {
    request: (message, own) =>
      Effect.suspend(() => {
        const millis = own?.timeout === undefined ? defaultTimeout : Limits.timeout("timeout", own.timeout)
        return within(request(message), "request", "timeout", Duration.millis(millis), () =>
          addressOf(writer)
        )
      }),
    send,
    unsolicited: Stream.fromQueue(unsolicited),
    inFlight: Effect.sync(requests.inFlight),
    unmatched: Effect.sync(() => unmatched)
  }
})

const DEFAULT_UNSOLICITED = 256

/** Requests and replies by their ids. */
const correlate = <In, Out, Id>(
  incoming: Receiver<In>,
  outgoing: Sender<Out>,
  writer: StreamWriter,
  options: CorrelateOptions<In | Out, Id>
): Effect.Effect<Correlated<In, Out>, never, Scope.Scope> =>
  Effect.suspend(() => {
    const { idOf } = options
    const waiting = new Map<Id, Reply<In>>()
    return dispatch(incoming, outgoing, writer, options, {
      take: (message) => {
        const id = idOf(message)
        if (id === undefined) return "none"
        const reply = waiting.get(id)
        waiting.delete(id)
        return reply
      },
      takeAll: () => {
        const all = [...waiting.values()]
        waiting.clear()
        return all
      },
      inFlight: () => waiting.size,
      request: (message, ended) =>
        Effect.suspend(() => {
          const failure = ended()
          if (failure !== undefined) return failure
          const id = idOf(message)
          if (id === undefined) return Effect.die(new RangeError("request: a message without an id"))
          if (waiting.has(id)) {
            return Effect.die(
              new RangeError(`request: a request with the id ${String(id)} is in flight already`)
            )
          }
          const reply: Reply<In> = Deferred.makeUnsafe()
          waiting.set(id, reply)
          return Effect.onExit(Effect.andThen(outgoing.send(message), Deferred.await(reply)), (exit) => {
            // The id of one that was answered may be in flight again.
            if (Exit.isFailure(exit) && waiting.get(id) === reply) waiting.delete(id)
            return Effect.void
          })
        })
    })
  })

/** Requests and replies by their order. */
const pipeline = <In, Out>(
  incoming: Receiver<In>,
  outgoing: Sender<Out>,
  writer: StreamWriter,
  encode: (message: Out) => Framing.Encoded | FrameError,
  options: PipelineOptions<In, Out> | undefined
): Effect.Effect<Correlated<In, Out>, never, Scope.Scope> =>
  Effect.suspend(() => {
    const turn = Semaphore.makeUnsafe(1)
    // In the order of sending. The place of a request that was given up is kept for its reply.
    const places = new Map<Reply<In>, Out>()
    const givenUp = new WeakSet<Reply<In>>()
    let inFlight = 0
    return dispatch(incoming, outgoing, writer, options, {
      take: (message) => {
        const [place] = places
        if (options?.isReply?.(message, place?.[1]) === false) return "none"
        if (place === undefined) return undefined
        const [first] = place
        places.delete(first)
        return givenUp.has(first) ? undefined : first
      },
      takeAll: () => {
        const all = [...places.keys()]
        places.clear()
        return all
      },
      inFlight: () => inFlight,
      request: (message, ended) =>
        Effect.suspend(() => {
          const encoded = encode(message)
          if (encoded instanceof FrameError) return Effect.fail(encoded)
          const reply: Reply<In> = Deferred.makeUnsafe()
          const written = Effect.suspend((): Effect.Effect<void, SendError | ReceiveError> => {
            const failure = ended()
            if (failure !== undefined) return failure
            places.set(reply, message)
            return Effect.onError(write(writer, encoded), () => Effect.sync(() => places.delete(reply)))
          })
          inFlight++
          return turn.withPermit(transmit(writer, encoded, written)).pipe(
            Effect.andThen(Deferred.await(reply)),
            Effect.onExit((exit) => {
              inFlight--
              if (Exit.isFailure(exit)) givenUp.add(reply)
              return Effect.void
            })
          )
        })
    })
  })

type StreamFailure = Exclude<ReceiveError, EndOfStream>

/** Why no more messages come, if it is not the end of the stream. */
const endedBy = (
  exit: Exit.Exit<unknown, StreamFailure>,
  address: string | undefined
): Cause.Cause<StreamFailure> | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  return Cause.hasInterruptsOnly(exit.cause)
    ? Cause.fail(new ConnectionError({ operation: "request", address, reason: new ConnectionClosed({}) }))
    : exit.cause
}
