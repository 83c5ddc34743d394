/**
 * Connections as scoped resources: a reader, a writer, and a life that ends with its scope.
 *
 * A connection belongs to the scope it was made in. When the scope ends well, the connection is closed: what was written
 * is sent, and the peer's end awaited for a bounded time. When the scope fails or is interrupted, the connection is
 * aborted at once.
 *
 * **Example** (A client)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Server } from "effect-wire"
 * import { NodeNetwork } from "effect-wire/node"
 *
 * const program = Effect.gen(function* () {
 *   const echo = yield* Server.serve(({ reader, writer }) => Effect.flatMap(reader.readLine, writer.write), {
 *     listen: { host: "127.0.0.1", port: 0 }
 *   })
 *   const connection = yield* Connection.connect(echo.addresses[0])
 *   yield* connection.writer.write("hello\n")
 *   return yield* connection.reader.readLineString
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer)))) // some("hello")
 * ```
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import type * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stdio from "effect/Stdio"
import type * as Stream from "effect/Stream"
import { dual } from "effect/Function"
import type * as Socket from "effect/socket/Socket"
import * as ConnectionPool from "./ConnectionPool.ts"
import { channelOf } from "./internal/channelOf.ts"
import {
  checkOptions,
  connect,
  Connection,
  type ConnectionOptions,
  fromTransport,
  implementation,
  make,
  open,
  type Options,
  release,
  unlimited
} from "./internal/connection.ts"
import { pace } from "./internal/pace.ts"
import { socketOf } from "./internal/socketOf.ts"
import { type Transforms, transportThrough } from "./internal/transportThrough.ts"
import { webStreamsOf } from "./internal/webStreamsOf.ts"
import * as MemoryTransport from "./MemoryTransport.ts"
import type { Network, Target } from "./Network.ts"
import * as Reconnect from "./Reconnect.ts"
import * as Recording from "./Recording.ts"
import * as SocketTransport from "./SocketTransport.ts"
import type { ConnectionError, ReadError, StreamError, TimeoutError, WriteError } from "./StreamError.ts"
import * as StreamTransport from "./StreamTransport.ts"
import * as Tap from "./Tap.ts"
import * as WebStreamTransport from "./WebStreamTransport.ts"

export {
  Connection,
  type ConnectionInfo,
  type ConnectionOptions,
  connect,
  isConnection,
  make,
  type Options,
  type Timeouts,
  TypeId,
  withTimeouts
} from "./internal/connection.ts"

/**
 * Connects, runs an effect with the connection, and ends the connection: `close` if the effect succeeds, `abort` if it
 * fails or is interrupted.
 *
 * **Example** (One request)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-wire"
 *
 * const ping = Connection.use("127.0.0.1:6379", { readTimeout: "1 second" }, ({ reader, writer }) =>
 *   Effect.andThen(writer.write("PING\r\n"), reader.readLineString)
 * )
 *
 * console.log(Effect.isEffect(ping)) // true
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const use: {
  <A, E, R>(
    target: Target,
    f: (connection: Connection) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | ConnectionError | TimeoutError, Network | Exclude<R, Scope.Scope>>
  <A, E, R>(
    target: Target,
    options: ConnectionOptions | undefined,
    f: (connection: Connection) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | ConnectionError | TimeoutError, Network | Exclude<R, Scope.Scope>>
} = <A, E, R>(
  target: Target,
  ...rest:
    | readonly [(connection: Connection) => Effect.Effect<A, E, R>]
    | readonly [ConnectionOptions | undefined, (connection: Connection) => Effect.Effect<A, E, R>]
): Effect.Effect<A, E | ConnectionError | TimeoutError, Network | Exclude<R, Scope.Scope>> => {
  const [options, f] = rest.length === 1 ? [undefined, rest[0]] : rest
  return Effect.scoped(Effect.flatMap(connect(target, options), f))
}

/**
 * A connection as a layer, for services that are written against the `Connection` service.
 *
 * **Example** (A service on a connection that it is given)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Connection, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const ask = Effect.gen(function* () {
 *   const { reader, writer } = yield* Connection.Connection
 *   yield* writer.write("ping\n")
 *   return yield* reader.readLineString
 * })
 *
 * const echo = Server.layer(({ reader, writer }) => Effect.flatMap(reader.readLine, writer.write), {
 *   listen: { port: 7000 }
 * })
 * const live = Connection.layer("localhost:7000").pipe(Layer.provide(echo), Layer.provide(TestNetwork.layer))
 *
 * console.log(await Effect.runPromise(Effect.provide(ask, live))) // some("ping")
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  target: Target,
  options?: ConnectionOptions
): Layer.Layer<Connection, ConnectionError | TimeoutError, Network> =>
  Layer.effect(Connection, connect(target, options))

/**
 * A connection that is kept up, as a layer, for services that are written against the `Reconnect` service. The layer is
 * built at once, before there is a connection: an application starts while its server is still starting, and its first
 * request waits. The options are those of `Reconnect.make`.
 *
 * A handshake with errors of its own has them handled in `onConnect`, or is provided under a tag of the application's, with
 * `Layer.effect` and `Reconnect.make`.
 *
 * **Example** (An application that starts before its server)
 *
 * ```ts
 * import { Effect, Layer, Schedule, Stream } from "effect"
 * import { Connection, Reconnect, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const ask = Effect.gen(function* () {
 *   const link = yield* Reconnect.Reconnect
 *   return yield* link.use(({ reader, writer }) =>
 *     Effect.andThen(writer.write("anybody there?\n"), reader.readLineString)
 *   )
 * })
 *
 * const echo = Server.serve(({ reader, writer }) => Stream.run(reader.stream, writer.sink), {
 *   listen: { port: 7000 }
 * })
 *
 * const program = Effect.gen(function* () {
 *   console.log((yield* (yield* Reconnect.Reconnect).state)._tag) // Connecting
 *   yield* echo
 *   console.log(yield* ask) // some("anybody there?")
 * })
 *
 * const live = Connection.layerReconnecting("localhost:7000", { schedule: Schedule.spaced("10 millis") }).pipe(
 *   Layer.provideMerge(TestNetwork.layer)
 * )
 *
 * await program.pipe(Effect.scoped, Effect.provide(live), Effect.runPromise)
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerReconnecting = <E extends StreamError = never, R = never>(
  target: Target,
  options?: ConnectionOptions & Reconnect.Options<E, R>
): Layer.Layer<Reconnect.Reconnect<StreamError>, never, Network | Exclude<R, Scope.Scope>> =>
  Layer.effect(Reconnect.Reconnect, Reconnect.make(target, options))

/**
 * Connections that are lent, as a layer, for services that are written against the `ConnectionPool` service. The layer is
 * built at once, before there is a connection. The options are those of `ConnectionPool.make`; what `layerReconnecting`
 * says of handshakes with errors of their own holds here as well.
 *
 * **Example** (A service that asks over few connections)
 *
 * ```ts
 * import { Context, Effect, Layer, Option, Stream } from "effect"
 * import { Connection, ConnectionPool, Server, type StreamError } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * class Greeter extends Context.Service<
 *   Greeter,
 *   { readonly greet: (name: string) => Effect.Effect<Option.Option<string>, StreamError.StreamError> }
 * >()("app/Greeter") {
 *   static readonly layer = Layer.effect(
 *     Greeter,
 *     Effect.gen(function* () {
 *       const pool = yield* ConnectionPool.ConnectionPool
 *       return Greeter.of({
 *         greet: (name) =>
 *           pool.use(({ reader, writer }) =>
 *             Effect.andThen(writer.write(`hello ${name}\n`), reader.readLineString)
 *           )
 *       })
 *     })
 *   )
 * }
 *
 * const echo = Server.layer(({ reader, writer }) => Stream.run(reader.stream, writer.sink), {
 *   listen: { port: 7000 }
 * })
 *
 * const app = Greeter.layer.pipe(
 *   Layer.provide(Connection.layerPool("localhost:7000", { max: 4 })),
 *   Layer.provide(echo),
 *   Layer.provide(TestNetwork.layer)
 * )
 *
 * const program = Effect.flatMap(Greeter, ({ greet }) => greet("world"))
 *
 * console.log(await program.pipe(Effect.provide(app), Effect.runPromise)) // some("hello world")
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerPool = <E extends StreamError = never, R = never>(
  target: Target,
  options?: ConnectionOptions & ConnectionPool.Options<E, R>
): Layer.Layer<ConnectionPool.ConnectionPool<StreamError>, never, Network | Exclude<R, Scope.Scope>> =>
  Layer.effect(ConnectionPool.ConnectionPool, ConnectionPool.make(target, options))

/**
 * Connections to any number of targets that are lent, as a layer, for services that are written against the
 * `ConnectionPool.Keyed` service. The options are those of `ConnectionPool.makeKeyed`; what `layerReconnecting` says of
 * handshakes with errors of their own holds here as well.
 *
 * **Example** (A service that asks whichever server it is told to)
 *
 * ```ts
 * import { Effect, Layer, Stream } from "effect"
 * import { Connection, ConnectionPool, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const ask = Effect.fnUntraced(function* (server: string) {
 *   const pools = yield* ConnectionPool.Keyed
 *   return yield* pools.use(`${server}:7000`, ({ reader, writer }) =>
 *     Effect.andThen(writer.write(`hello ${server}\n`), reader.readLineString)
 *   )
 * })
 *
 * const echo = Server.layer(({ reader, writer }) => Stream.run(reader.stream, writer.sink), {
 *   listen: { port: 7000 }
 * })
 *
 * const app = Connection.layerKeyedPool({ max: 2, maxTotal: 100 }).pipe(
 *   Layer.provide(echo),
 *   Layer.provide(TestNetwork.layer)
 * )
 *
 * const program = Effect.forEach(["10.0.0.1", "10.0.0.2"], ask, { concurrency: "unbounded" })
 *
 * console.log(await program.pipe(Effect.provide(app), Effect.runPromise))
 * // [ some("hello 10.0.0.1"), some("hello 10.0.0.2") ]
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerKeyedPool = <E extends StreamError = never, R = never>(
  options?: ConnectionOptions & ConnectionPool.KeyedOptions<E, R>
): Layer.Layer<ConnectionPool.Keyed<StreamError>, never, Network | Exclude<R, Scope.Scope>> =>
  Layer.effect(ConnectionPool.Keyed, ConnectionPool.makeKeyed(options))

/**
 * Two connections in memory, each the other's peer, with the semantics of a network connection. What one writes, the
 * other reads; at most `capacity` bytes (65,536 unless set) are on the way.
 *
 * **Example** (A conversation in memory)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [left, right] = yield* Connection.pair()
 *   yield* left.writer.write("hello\n")
 *   return yield* right.reader.readLineString
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // some("hello")
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const pair = (
  options?: Options & { readonly capacity?: number | undefined }
): Effect.Effect<[Connection, Connection], never, Scope.Scope> =>
  Effect.suspend(() => {
    const settings = checkOptions(options)
    // Released together: each waits for the other's end.
    return Effect.acquireRelease(
      Effect.flatMap(MemoryTransport.makePair({ capacity: options?.capacity }), ([left, right]) =>
        Effect.all([open(left, settings), open(right, settings)])
      ),
      ([left, right], exit) =>
        Effect.all([release(left, exit), release(right, exit)], { concurrency: "unbounded", discard: true })
    )
  })

/**
 * A connection over any `effect/socket` `Socket`: a WebSocket, a Bun or Deno socket, a Node one. Fails if the socket cannot
 * be opened. A `Socket` has no half-close, so `writer.canEnd` is `false`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromSocket = (
  socket: Socket.Socket,
  options?: Options
): Effect.Effect<Connection, ConnectionError, Scope.Scope> =>
  Effect.flatMap(SocketTransport.make(socket), (transport) => make(transport, options))

/**
 * A connection over a pair of web streams.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromWebStreams = (
  streams: WebStreamTransport.WebStreams,
  options?: Options
): Effect.Effect<Connection, never, Scope.Scope> =>
  Effect.flatMap(WebStreamTransport.make(streams), (transport) => make(transport, options))

/**
 * A connection over a stream of what comes and a sink for what goes. See `StreamTransport.make`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromStreams = <E, R, E2, R2>(
  streams: StreamTransport.Streams<E, R, E2, R2>,
  options?: Options & StreamTransport.Options
): Effect.Effect<Connection, never, R | R2 | Scope.Scope> =>
  Effect.flatMap(StreamTransport.make(streams, options), (transport) => make(transport, options))

/**
 * The program's standard input and output as a connection, of whatever `Stdio` is provided: `NodeServices.layer` of
 * `@effect/platform-node` has the process's own. Standard error is left alone.
 *
 * Standard output cannot be ended alone (`writer.canEnd` is `false`); it ends with the process. When the scope ends,
 * what was written is handed over first, and the end of standard input is not waited for.
 *
 * Node keeps a process that has read standard input alive until the input ends: a program that is done before has to
 * exit (`process.exit`).
 *
 * **Example** (Answering on standard output)
 *
 * ```ts
 * import { NodeServices } from "@effect/platform-node"
 * import { Effect, Stream } from "effect"
 * import { Connection } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const { reader, writer } = yield* Connection.stdio()
 *   yield* Stream.runForEach(reader.lines, (line) => writer.write(`${line.toUpperCase()}\n`))
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const stdio = (options?: Options): Effect.Effect<Connection, never, Stdio.Stdio | Scope.Scope> =>
  Stdio.Stdio.use(({ stdin, stdout }) =>
    fromStreams({ stream: stdin, sink: stdout() }, { ...options, kind: "stdio", canEnd: false })
  )

/**
 * The bytes of a connection, until its end of input, in the chunks they came in. The peer is held up when they are not
 * taken. The same as `reader.stream`, as a function.
 *
 * The connection stays its scope's: a stream that owns one is `Stream.unwrap(Effect.map(Connection.connect(target),
 * Connection.stream))`, whose end closes it, and whose failure or interruption aborts it.
 *
 * @category conversions
 * @since 0.1.0
 */
export const stream = (self: Connection): Stream.Stream<Uint8Array, ReadError> => self.reader.stream

/**
 * A sink that sends what it is given, as fast as the peer takes it. With `endOnDone`, the direction is ended after the last
 * chunk (half-close); without, it is left open for more.
 *
 * **Example** (A whole conversation)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Connection } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [near, far] = yield* Connection.pair()
 *   yield* Stream.run(Stream.make("one ", "two"), Connection.sink(near, { endOnDone: true }))
 *   return yield* Stream.mkString(Stream.decodeText(Connection.stream(far)))
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // one two
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const sink = (
  self: Connection,
  options?: { readonly endOnDone?: boolean | undefined }
): Sink.Sink<void, Uint8Array | string, never, WriteError> =>
  options?.endOnDone === true ? Sink.mapEffect(self.writer.sink, () => self.writer.end) : self.writer.sink

/**
 * A connection as a channel: what it is given is sent, what it gives is received. For `Stream.pipeThroughChannel` and
 * friends.
 *
 * The end of what it is given ends the direction (half-close, where `writer.canEnd`); a failure of it fails the channel.
 * The channel ends with the end of input, and stops sending then.
 *
 * **Example** (Through an echo)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Connection } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [near, far] = yield* Connection.pair()
 *   yield* Effect.forkScoped(Stream.run(Connection.stream(far), Connection.sink(far, { endOnDone: true })))
 *   return yield* Stream.make("there ", "and back").pipe(
 *     Stream.pipeThroughChannel(Connection.channel(near)),
 *     Stream.decodeText,
 *     Stream.mkString
 *   )
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // there and back
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const channel = <IE = never>(
  self: Connection
): Channel.Channel<
  Arr.NonEmptyReadonlyArray<Uint8Array>,
  ReadError | WriteError | IE,
  void,
  Arr.NonEmptyReadonlyArray<Uint8Array | string>,
  IE
> => channelOf(self)

/**
 * A connection as a pair of web streams, for what is written against those.
 *
 * - `readable` reads only when it is asked to, and errors with the connection's own error.
 * - A write has succeeded when the operating system has the chunk. Closing `writable` ends the direction (a connection that
 *   cannot be ended alone is closed).
 * - Cancelling `readable` closes the connection if `writable` was closed before, and aborts it otherwise, as aborting
 *   `writable` does.
 *
 * The connection stays its scope's.
 *
 * **Example** (Reading as a web stream)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [near, far] = yield* Connection.pair()
 *   yield* far.writer.write("hello")
 *   yield* far.writer.end
 *   const { readable } = yield* Connection.toWebStreams(near)
 *   return yield* Effect.promise(() => new Response(readable).text())
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // hello
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const toWebStreams = (self: Connection): Effect.Effect<WebStreamTransport.WebStreams> =>
  webStreamsOf(self)

/**
 * A connection as an `effect/socket` `Socket`, for `effect/rpc` and whatever else is written against that.
 *
 * The connection stays owned by its own scope: the end of the socket's reader does not close it, a written `CloseEvent`
 * does, and the end of the writer's scope half-closes it where that is possible. The peer's end of input is the close code
 * 1000; `upgrade` is not supported.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toSocket = (self: Connection): Socket.Socket => socketOf(self)

export type { Transforms }

/**
 * A connection over a connection, with something done to the bytes on their way. It is used in place of the first
 * one, and has the same options; it is closed with the scope, or before, and closes the first one.
 *
 * - What holds up one of the streams holds up the peer, or the writer.
 * - The end of the `sent` stream ends the direction, the end of the `received` one is the end of input; a failure aborts the
 *   connection.
 * - `flush` waits until the last connection below has sent its bytes.
 * - It cannot be upgraded to TLS; upgrade the first one before.
 *
 * `tap`, `throttle` and `record` are made of it.
 *
 * **Example** (A cipher that nobody should use)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Connection } from "effect-wire"
 *
 * const rotate = Stream.map((chunk: Uint8Array) => chunk.map((byte) => byte ^ 0x20))
 *
 * const program = Effect.gen(function* () {
 *   const [near, far] = yield* Connection.pair()
 *   const ciphered = yield* Connection.through(near, { received: rotate, sent: rotate })
 *   yield* ciphered.writer.write("hello")
 *   return new TextDecoder().decode(yield* far.reader.readExactly(5))
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // HELLO
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const through: {
  <E = never, R = never, E2 = never, R2 = never>(
    transforms: Transforms<E, R, E2, R2>
  ): (self: Connection) => Effect.Effect<Connection, never, R | R2 | Scope.Scope>
  <E = never, R = never, E2 = never, R2 = never>(
    self: Connection,
    transforms: Transforms<E, R, E2, R2>
  ): Effect.Effect<Connection, never, R | R2 | Scope.Scope>
} = dual(
  2,
  <E, R, E2, R2>(
    self: Connection,
    transforms: Transforms<E, R, E2, R2>
  ): Effect.Effect<Connection, never, R | R2 | Scope.Scope> =>
    Effect.suspend(() => {
      const below = implementation(self)
      const { core, timeouts } = below
      // Nobody waits for the reads and writes of this layer itself: the limits are those of the layer above.
      const { kind, localAddress, remoteAddress } = core.transport
      const about = { kind, localAddress, remoteAddress, tls: core.tls }
      const transport = transportThrough(below.withTimeouts(unlimited), core.release, about, transforms)
      return transport.pipe(
        Effect.flatMap((_) => fromTransport(_, { ...core.settings, ...timeouts })),
        Effect.map((connection) => {
          connection.core.target = core.target
          connection.core.connectedTo = core.connectedTo
          connection.core.proxyProtocol = core.proxyProtocol
          return connection
        })
      )
    })
)

/**
 * The same connection with somebody listening in: see `Tap` for what is observed, and for observers that print. Bytes go on
 * when the observer is done with them, so a slow one slows the connection down. It sees what comes from now on, what
 * was received and not read yet included; over TLS, that is the plain text.
 *
 * Use the connection that it gives in place of the first one. It belongs to the scope.
 *
 * **Example** (Seeing what a client says)
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import { Connection, Tap } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [near, far] = yield* Connection.pair()
 *   const { writer } = yield* Connection.tap(near, Tap.text(Console.log))
 *   yield* writer.write("PING\r\n") // > "PING\r\n"
 *   yield* far.reader.readLine
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const tap: {
  <E, R>(
    observer: Tap.Observer<E, R>
  ): (self: Connection) => Effect.Effect<Connection, never, R | Scope.Scope>
  <E, R>(self: Connection, observer: Tap.Observer<E, R>): Effect.Effect<Connection, never, R | Scope.Scope>
} = dual(
  2,
  <E, R>(self: Connection, observer: Tap.Observer<E, R>): Effect.Effect<Connection, never, R | Scope.Scope> =>
    through(self, { received: Tap.observe("received", observer), sent: Tap.observe("sent", observer) })
)

/**
 * Bytes a second that a connection may carry.
 *
 * @category models
 * @since 0.1.0
 */
export interface Rates {
  /** Of what the peer sends. Default: no limit. */
  readonly read?: number | undefined
  /** Of what is sent to the peer. Default: no limit. */
  readonly write?: number | undefined
}

/**
 * The same connection at a limited speed, each way by itself. A tenth of a second's bytes at most pass at once; a peer
 * that sends faster is held up. What one side holds for the other is limited as ever, but at a low rate it takes its time:
 * a close that takes longer than `closeTimeout` becomes an abort.
 *
 * Use the connection that it gives in place of the first one. It belongs to the scope. A rate that is not positive is a
 * `RangeError` defect.
 *
 * **Example** (A slow line)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [near, far] = yield* Connection.pair()
 *   const { writer } = yield* Connection.throttle(near, { write: 1000 })
 *   yield* writer.write(new Uint8Array(200))
 *   const [duration] = yield* Effect.timed(far.reader.readExactly(200))
 *   return duration
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // about 100 milliseconds
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const throttle: {
  (rates: Rates): (self: Connection) => Effect.Effect<Connection, never, Scope.Scope>
  (self: Connection, rates: Rates): Effect.Effect<Connection, never, Scope.Scope>
} = dual(2, (self: Connection, rates: Rates): Effect.Effect<Connection, never, Scope.Scope> =>
  Effect.suspend(() =>
    through(self, {
      received: pace("throttle: read", rates.read),
      sent: pace("throttle: write", rates.write)
    })
  )
)

/**
 * The same connection with its session written down: a line for each thing that happens, in the format of `Recording`,
 * into a sink such as `Recording.toFile(path)`. A recorder that is slow slows the connection down. One that fails, or is
 * done early, fails the connection with the next byte, and is logged when the scope ends: no recording is incomplete without
 * notice.
 *
 * Use the connection that it gives in place of the first one. It belongs to the scope, whose end waits until everything is
 * written down.
 *
 * **Example** (Recording into memory)
 *
 * ```ts
 * import { Console, Effect, Sink } from "effect"
 * import { Connection } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [near, far] = yield* Connection.pair()
 *   const lines = Sink.forEach((line: string) => Console.log(line.trimEnd()))
 *   const { writer } = yield* Connection.record(near, lines)
 *   yield* writer.write("hello")
 *   yield* far.reader.readExactly(5)
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const record: {
  <E, R>(
    lines: Sink.Sink<unknown, string, unknown, E, R>
  ): (self: Connection) => Effect.Effect<Connection, never, R | Scope.Scope>
  <E, R>(
    self: Connection,
    lines: Sink.Sink<unknown, string, unknown, E, R>
  ): Effect.Effect<Connection, never, R | Scope.Scope>
} = dual(
  2,
  <E, R>(
    self: Connection,
    lines: Sink.Sink<unknown, string, unknown, E, R>
  ): Effect.Effect<Connection, never, R | Scope.Scope> =>
    Effect.flatMap(Recording.recorder(self.info, lines), (recorder) => tap(self, recorder))
)
