/**
 * A connection that speaks messages.
 *
 * A `Framing` cuts the stream, a `Codec` gives the pieces a meaning, and `Framed` puts both on a connection. The laws:
 *
 * - `receive` takes whole frames: interrupted or timed out, it leaves every byte of an unfinished one in the buffer.
 * - Concurrent calls of `receive` each get a message, in the order of the calls. Concurrent sends do not mix.
 * - A frame that does not decode is one failure: it is consumed, and the next `receive` gives the next message. It
 *   remains only where nobody can tell what follows (a frame that is too long, or whose end cannot be found); then
 *   every `receive` fails alike.
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
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import * as Codec from "./Codec.ts"
import type { Connection } from "./Connection.ts"
import type { EndOfStream, FrameError, ReceiveError, SendError } from "./FrameError.ts"
import * as Framing from "./Framing.ts"
import type { TimeLimits } from "./internal/Deadlines.ts"
import * as Decoder from "./internal/Decoder.ts"
import * as Encoder from "./internal/Encoder.ts"
import type { Input } from "./internal/Input.ts"
import * as Limits from "./internal/limits.ts"
import * as Requests from "./internal/Requests.ts"
import * as StreamReader from "./StreamReader.ts"
import * as StreamWriter from "./StreamWriter.ts"

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
   * The messages until the end of the stream: many per pull, the fast way. Messages that were pulled and not used when
   * the stream is left are gone; to take some and then go on in another way, use `receive`. So does a server before
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
  /**
   * Sends several messages with one write; if one of them cannot be encoded, none, and the error's `index` says which.
   */
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
   * Sends a message and receives the reply, for protocols that answer in order. Concurrent requests take turns. A
   * request that is given up after it was sent (interrupted, or timed out, also while its write still drains) leaves
   * its reply to come: the next request drops it. A reply that does not decode is a reply: it fails its request, also
   * where `onInvalid` skips such frames.
   */
  readonly request: (message: Out) => Effect.Effect<In, ReceiveError | SendError>
  /**
   * For protocols that answer out of order: from now on, until the scope ends, all messages are received here and
   * handed to the requests that they answer. Nobody else may receive in the meantime. Of a frame that does not decode
   * nobody can tell whom it answers: it ends everything, unless `onInvalid` skips it.
   */
  readonly correlate: <Id>(
    options: CorrelateOptions<In | Out, Id>
  ) => Effect.Effect<Correlated<In, Out>, never, Scope.Scope>
  /**
   * The same for protocols that answer in order: any number of requests are on their way at once, and each gets the
   * reply whose turn it is. A frame that does not decode fails the request whose turn it is, also where `onInvalid`
   * skips such frames. It ends everything if it is still there afterwards (it is too long and not skipped, or nobody
   * can tell where it ends), and if `isReply` is given: it may be a reply or not. It also does if it is not skipped and
   * no request waits for it, or if it is a `MalformedFrame` of a framing of your own, of which something may be left.
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
  /** How long a request may take unless it says so itself. Default: no limit but those of the connection. */
  readonly timeout?: Duration.Input | undefined
  /** How many unsolicited messages are kept for `unsolicited`; the oldest are dropped, and counted. Default 256. */
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
   * none). It is asked once for each message, in their order. Those that answer none are `unsolicited`. Default: all
   * do.
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
  /**
   * What a request and its reply have in common; compared as the key of a `Map`. `undefined` for messages that answer
   * none.
   */
  readonly idOf: (message: M) => Id | undefined
}

/**
 * A connection on which many requests are in flight at once.
 *
 * When the connection ends, all of them fail at once with what it ended of (`EndOfStream`, `ConnectionError`, …), and
 * later ones with the same; with the scope's end it is `ConnectionClosed`.
 *
 * The connection's `readTimeout` and `idleTimeout` hold for each request while it waits for its reply, as they would
 * for a `receive`, and for nothing else: a connection may be idle while no request is in flight, and `unsolicited` may
 * wait.
 *
 * @category models
 * @since 0.1.0
 */
export interface Correlated<out In, in Out> {
  /**
   * Sends a message and waits for its reply. Fails with `TimeoutError` when it takes longer than its `timeout`
   * (operation `request`) or than the connection's limits (`read`, `idle`, `write`). An interrupted or timed-out
   * request is forgotten: its reply, should it come, is dropped. With `correlate`, a message without an id is a
   * `RangeError` defect, as is one with the id of a request that is in flight, or that was given up and whose reply has
   * not come: nobody could tell the two replies apart. (The last 10,000 of those are remembered.)
   */
  readonly request: (
    message: Out,
    options?: { readonly timeout?: Duration.Input | undefined }
  ) => Effect.Effect<In, ReceiveError | SendError>
  /** Sends a message that nobody answers. */
  readonly send: (message: Out) => Effect.Effect<void, SendError>
  /**
   * The messages that answer none, from the first; each goes to one consumer. Ends or fails with the connection. Of
   * those that nobody takes the last `unsolicitedCapacity` are kept; `dropped` counts the others.
   */
  readonly unsolicited: Stream.Stream<In, Exclude<ReceiveError, EndOfStream>>
  /** How many requests wait for their reply. */
  readonly inFlight: Effect.Effect<number>
  /** How many replies came that nobody waited for any more. */
  readonly unmatched: Effect.Effect<number>
  /** How many messages that answer none were dropped because nobody took them in time (`unsolicitedCapacity`). */
  readonly dropped: Effect.Effect<number>
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
   * `skipped` and goes on with the next. A frame that is too long is skipped without being buffered. Where nobody can
   * tell where the next frame begins, it is a failure all the same.
   *
   * A function is asked about each frame that can be skipped: it can log the error, or decide by it. About one that is
   * too long and not skipped it is asked at every `receive`. What it throws is a defect of that `receive`.
   */
  readonly onInvalid?: "fail" | "skip" | ((error: FrameError) => "fail" | "skip") | undefined
}

/**
 * Tells whether a value is a framed connection.
 *
 * @category guards
 * @since 0.1.0
 */
export const isFramed = (u: unknown): u is Framed<unknown, never> => Predicate.hasProperty(u, TypeId)

/**
 * Receives messages from a reader, whatever feeds it: a connection, a file, a test. Throws a `TypeError` if the reader
 * was not made by this library.
 *
 * **Example** (Messages without a connection)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Codec, Framed, Framing, StreamReader } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const reader = yield* StreamReader.fromStream(Stream.make("1\n2", "\n3\n").pipe(Stream.encodeText))
 *   return yield* Stream.runCollect(Framed.receiver(reader, Framing.lines(), Codec.json).messages)
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // [ 1, 2, 3 ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const receiver: {
  <In>(reader: StreamReader.StreamReader, framing: Framing.Framing<In, never>): Receiver<In>
  <In, FIn>(
    reader: StreamReader.StreamReader,
    framing: Framing.Framing<FIn, never>,
    codec: Codec.Codec<In, never, FIn, unknown>,
    options?: Options
  ): Receiver<In>
} = <In>(
  reader: StreamReader.StreamReader,
  framing: Framing.Framing<In, never>,
  codec: Codec.Codec<In, never, In, unknown> = Codec.identity<In>(),
  options?: Options
): Receiver<In> => {
  const { input, timeouts } = StreamReader.backingOf(reader)
  return new Incoming(decoderOf(input, timeouts, framing, codec, options), timeouts)
}

const decoderOf = <In, FIn>(
  input: Input,
  limits: TimeLimits,
  framing: Framing.Framing<FIn, never>,
  codec: Codec.Codec<In, never, FIn, unknown>,
  options: Options | undefined
): Decoder.Decoder<In> =>
  Decoder.make({ input, limits, framing, codec, onInvalid: Limits.onInvalid(options?.onInvalid) })

// Of its parts most connections use one or two: each is made when it is used, the busy ones once.
class Incoming<In> implements Receiver<In> {
  private readonly decoder: Decoder.Decoder<In>
  private readonly limits: TimeLimits

  constructor(decoder: Decoder.Decoder<In>, limits: TimeLimits) {
    this.decoder = decoder
    this.limits = limits
  }

  get receive(): Receiver<In>["receive"] {
    return this.decoder.receive
  }

  get messages(): Receiver<In>["messages"] {
    return messagesOf(this.decoder, this.limits)
  }

  get skipped(): Receiver<In>["skipped"] {
    return skippedBy(this.decoder)
  }
}

const messagesOf = <In>(decoder: Decoder.Decoder<In>, limits: TimeLimits): Receiver<In>["messages"] =>
  Stream.fromPull(
    Effect.succeed(Effect.catchTag(decoder.receiveMany(limits), "EndOfStream", () => Cause.done()))
  )

const skippedBy = (decoder: Decoder.Decoder<unknown>): Effect.Effect<number> =>
  Effect.sync(() => decoder.skipped)

/**
 * Sends messages with a writer. Throws a `TypeError` if it was not made by this library.
 *
 * **Example** (Messages out, bytes in)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Codec, Connection, Framed, Framing } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [left, right] = yield* Connection.pair()
 *   const { sendAll } = Framed.sender(left.writer, Framing.netstring(), Codec.string())
 *   yield* sendAll(["hello", "world"])
 *   yield* left.writer.end
 *   return new TextDecoder().decode(yield* right.reader.readAll())
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // 5:hello,5:world,
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const sender: {
  <Out>(writer: StreamWriter.StreamWriter, framing: Framing.Framing<unknown, Out>): Sender<Out>
  <Out, FOut>(
    writer: StreamWriter.StreamWriter,
    framing: Framing.Framing<unknown, FOut>,
    codec: Codec.Codec<unknown, Out, never, FOut>
  ): Sender<Out>
} = <Out>(
  writer: StreamWriter.StreamWriter,
  framing: Framing.Framing<unknown, Out>,
  codec: Codec.Codec<unknown, Out, never, Out> = Codec.identity<Out>()
): Sender<Out> => {
  const { output, timeouts } = StreamWriter.backingOf(writer)
  return new Outgoing({ output, writing: timeouts, encode: Encoder.make(output, framing, codec) })
}

class Outgoing<Out> implements Sender<Out> {
  private readonly to: Encoder.Destination<Out>
  readonly send: Sender<Out>["send"]

  constructor(to: Encoder.Destination<Out>) {
    this.to = to
    this.send = (message) => new Encoder.Send(to, message)
  }

  get sendAll(): Sender<Out>["sendAll"] {
    return (messages) => new Encoder.SendAll(this.to, messages, true)
  }

  get sink(): Sender<Out>["sink"] {
    // Of a batch nobody knows where in the stream it was.
    return Sink.forEachArray((batch) => new Encoder.SendAll(this.to, batch, false))
  }
}

/**
 * Speaks messages on a connection, which stays its owner's: its reader, its writer and its end are as before. Without a
 * codec the messages are the frames. For one that receives and sends different messages, see `Codec.duplex`.
 *
 * Throws a `TypeError` if the connection's reader or writer was not made by this library.
 *
 * **Example** (Frames without a codec)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Framed, Framing } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [left, right] = yield* Connection.pair()
 *   const framing = Framing.lengthPrefixed({ width: 2 })
 *   yield* Framed.make(left, framing).send(Uint8Array.of(1, 2, 3))
 *   return yield* Framed.make(right, framing).receive
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // 1, 2, 3
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  <In, Out>(connection: Connection, framing: Framing.Framing<In, Out>): Framed<In, Out>
  <In, Out, FIn, FOut>(
    connection: Connection,
    framing: Framing.Framing<FIn, FOut>,
    codec: Codec.Codec<In, Out, FIn, FOut>,
    options?: Options
  ): Framed<In, Out>
} = <In, Out>(
  connection: Connection,
  framing: Framing.Framing<In, Out>,
  codec: Codec.Codec<In, Out, In, Out> = Codec.identity<In, Out>(),
  options?: Options
): Framed<In, Out> => {
  const { input, timeouts: reading } = StreamReader.backingOf(connection.reader)
  const { output, timeouts: writing } = StreamWriter.backingOf(connection.writer)
  const decoder = decoderOf(input, reading, framing, codec, options)
  const encode = Encoder.make(output, framing, codec)
  const wire: Requests.Wire<In, Out> = { input, reading, decoder, output, writing, encode }
  return new Both(connection, wire)
}

class Both<In, Out> extends Outgoing<Out> implements Framed<In, Out> {
  readonly [TypeId] = TypeId
  readonly connection: Connection
  private readonly wire: Requests.Wire<In, Out>
  private inTurn: Framed<In, Out>["request"] | undefined = undefined

  constructor(connection: Connection, wire: Requests.Wire<In, Out>) {
    super(wire)
    this.connection = connection
    this.wire = wire
  }

  get receive(): Framed<In, Out>["receive"] {
    return this.wire.decoder.receive
  }

  get messages(): Framed<In, Out>["messages"] {
    return messagesOf(this.wire.decoder, this.wire.reading)
  }

  get skipped(): Framed<In, Out>["skipped"] {
    return skippedBy(this.wire.decoder)
  }

  // One for all requests, which take turns.
  get request(): Framed<In, Out>["request"] {
    return (this.inTurn ??= Requests.inTurn(this.wire))
  }

  get correlate(): Framed<In, Out>["correlate"] {
    return (options) => this.withSend(Requests.byId(this.wire, options))
  }

  get pipeline(): Framed<In, Out>["pipeline"] {
    return (options) => this.withSend(Requests.inOrder(this.wire, options))
  }

  private withSend<R>(
    requests: Effect.Effect<Requests.Requests<In, Out>, never, R>
  ): Effect.Effect<Correlated<In, Out>, never, R> {
    return Effect.map(requests, (requests) => ({ ...requests, send: this.send }))
  }
}

/**
 * Options of `jsonLines`.
 *
 * @category models
 * @since 0.1.0
 */
export interface JsonLinesOptions extends Options, Framing.Options {}

const MAX_JSON_LINE = 1024 * 1024

/**
 * Speaks JSON lines: one line of JSON for each message, checked and transformed by a schema, or by one for each
 * direction. A line has at most `maxLength` bytes, 1 MiB unless set, in both directions. It is short for
 * `Framing.lines` with `Codec.schema`.
 *
 * **Example** (A question and its answer)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Connection, Framed } from "effect-wire"
 *
 * const Question = Schema.Struct({ question: Schema.String })
 * const Answer = Schema.Struct({ answer: Schema.Number })
 *
 * const program = Effect.gen(function* () {
 *   const [left, right] = yield* Connection.pair()
 *   const client = Framed.jsonLines(left, { receive: Answer, send: Question })
 *   const server = Framed.jsonLines(right, { receive: Question, send: Answer })
 *   yield* Effect.forkScoped(
 *     Effect.flatMap(server.receive, ({ question }) => server.send({ answer: question.length }))
 *   )
 *   return yield* client.request({ question: "how long?" })
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // { answer: 9 }
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const jsonLines: {
  <T, E>(connection: Connection, schema: Schema.ConstraintCodec<T, E>, options?: JsonLinesOptions): Framed<T>
  <In, EIn, Out, EOut>(
    connection: Connection,
    schemas: {
      readonly receive: Schema.ConstraintCodec<In, EIn>
      readonly send: Schema.ConstraintCodec<Out, EOut>
    },
    options?: JsonLinesOptions
  ): Framed<In, Out>
} = <In, EIn, Out, EOut>(
  connection: Connection,
  schemas: OneSchema<In, EIn, Out, EOut> | Schemas<In, EIn, Out, EOut>,
  options?: JsonLinesOptions
): Framed<In, Out> => {
  const { receive, send } = isOne(schemas) ? { receive: schemas, send: schemas } : schemas
  return make(
    connection,
    Framing.lines({ maxLength: options?.maxLength ?? MAX_JSON_LINE }),
    Codec.duplex({ receive: Codec.schema(receive), send: Codec.schema(send) }),
    options
  )
}

interface Schemas<In, EIn, Out, EOut> {
  readonly receive: Schema.ConstraintCodec<In, EIn>
  readonly send: Schema.ConstraintCodec<Out, EOut>
}

type OneSchema<In, EIn, Out, EOut> = Schema.ConstraintCodec<In, EIn> & Schema.ConstraintCodec<Out, EOut>

const isOne = <In, EIn, Out, EOut>(
  schemas: OneSchema<In, EIn, Out, EOut> | Schemas<In, EIn, Out, EOut>
): schemas is OneSchema<In, EIn, Out, EOut> => Schema.isSchema(schemas)
