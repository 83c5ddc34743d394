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
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer)))) // Some("hello")
 * ```
 *
 * @since 0.1.0
 */
import {
  Array as Arr,
  type Channel,
  Clock,
  Context,
  DateTime,
  Duration,
  Effect,
  Exit,
  type Fiber,
  Layer,
  Predicate,
  Scope,
  Sink,
  Stdio,
  type Stream
} from "effect"
import { dual } from "effect/Function"
import { type NetAddress } from "effect/net"
import { type Socket } from "effect/socket"
import { channelOf } from "./internal/channelOf.ts"
import { ConnectionCore, type Settings } from "./internal/ConnectionCore.ts"
import * as Limits from "./internal/limits.ts"
import { pace } from "./internal/pace.ts"
import { socketOf } from "./internal/socketOf.ts"
import { formatTarget, hostOf } from "./internal/target.ts"
import { type Transforms, transportThrough } from "./internal/transportThrough.ts"
import { webStreamsOf } from "./internal/webStreamsOf.ts"
import { within } from "./internal/within.ts"
import * as MemoryTransport from "./MemoryTransport.ts"
import { type ConnectOptions, Network, type Target } from "./Network.ts"
import * as Proxy from "./Proxy.ts"
import * as ProxyProtocol from "./ProxyProtocol.ts"
import * as Recording from "./Recording.ts"
import * as SocketTransport from "./SocketTransport.ts"
import type { ConnectionError, ReadError, TimeoutError, WriteError } from "./StreamError.ts"
import * as StreamReader from "./StreamReader.ts"
import * as StreamTransport from "./StreamTransport.ts"
import * as StreamWriter from "./StreamWriter.ts"
import * as Tap from "./Tap.ts"
import * as Tls from "./Tls.ts"
import type { Kind, Transport } from "./Transport.ts"
import * as WebStreamTransport from "./WebStreamTransport.ts"

/**
 * Runtime type identifier of connections.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-wire/Connection"

/**
 * What is known of a connection, for as long as anyone holds it.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectionInfo {
  readonly localAddress: NetAddress.SocketAddress | undefined
  readonly remoteAddress: NetAddress.SocketAddress | undefined
  readonly transport: Kind
  readonly tls?: Tls.TlsInfo | undefined
  /** Whom the connection speaks to through proxies, as `connect` was given it. `remoteAddress` is the first proxy's. */
  readonly target?: string | undefined
  /**
   * The PROXY header that the connection began with, on a server that reads it. If it names addresses, `remoteAddress` is
   * the client's, `localAddress` what the client had connected to, and `proxyProtocol.proxy` who sent the header.
   */
  readonly proxyProtocol?: ProxyProtocol.Received | undefined
  readonly openedAt: DateTime.Utc
}

/**
 * A connection to a peer.
 *
 * @category models
 * @since 0.1.0
 */
export interface Connection {
  readonly [TypeId]: typeof TypeId
  /** Unique within the process: the transport's kind and a number. */
  readonly id: string
  readonly reader: StreamReader.StreamReader
  readonly writer: StreamWriter.StreamWriter
  readonly info: ConnectionInfo
  /**
   * Closes gracefully: what was written is sent, then a FIN, then the peer's FIN is awaited while what it still sends is
   * discarded, up to 1 MiB and for `closeTimeout`; past either, the connection is aborted. Reads and writes fail with
   * `ConnectionClosed` from now on; bytes received before are still readable. Never fails, and may be called any number
   * of times; interrupting it does not stop the closing.
   */
  readonly close: Effect.Effect<void>
  /** Ends the connection at once, with a reset where the protocol has one; bytes not sent yet are dropped. */
  readonly abort: Effect.Effect<void>
  /**
   * Waits until the connection has ended. Fails with the error that it died of, if it did, noticed without reading; a
   * local `close` or `abort` and an orderly end of both directions are no errors. The peer's end of input alone does
   * not end a connection.
   */
  readonly closed: Effect.Effect<void, ConnectionError>
  /**
   * Makes TLS of a plain connection (STARTTLS), within `handshakeTimeout`. What was written before is sent first; what is
   * written meanwhile waits. Reader, writer, limits and timeouts stay the same.
   *
   * Fails with `ConnectionError` (operation `handshake`) and `TimeoutError` (operation `handshake`); the connection has
   * ended then, as it has when this is interrupted. It is left as it was by `PlaintextBuffered` (see `leftover`), unless
   * the bytes came while the handshake began, and by `Unsupported`: over a transport that knows no TLS, or for the second time. A client verifies the certificate for the
   * host that was connected to unless `servername` says otherwise; with neither, it is a `RangeError` defect.
   */
  readonly upgradeTls: (options: Tls.UpgradeOptions) => Effect.Effect<void, ConnectionError | TimeoutError>
}

/**
 * The connection that an application's services use, when there is one: provided by `layer`.
 *
 * @category services
 * @since 0.1.0
 */
export const Connection: Context.Service<Connection, Connection> =
  Context.Service<Connection>("effect-wire/Connection")

/**
 * Tells whether a value is a connection.
 *
 * @category guards
 * @since 0.1.0
 */
export const isConnection = (u: unknown): u is Connection => Predicate.hasProperty(u, TypeId)

const implementation = (self: Connection): ConnectionImpl => {
  if (!(self instanceof ConnectionImpl)) throw new TypeError("not a connection made by this module")
  return self
}

const coreOf = (self: Connection): ConnectionCore => implementation(self).core

/**
 * Whether both directions are still open.
 *
 * @internal
 */
export const isWhole = (self: Connection): boolean => coreOf(self).isWhole

/**
 * Whether both directions are open, nothing waits to be read, and nobody waits to read or to write.
 *
 * @internal
 */
export const isClean = (self: Connection): boolean => coreOf(self).isClean

/**
 * Waits until the peer has ended its direction, or the connection is closed, aborted or lost; noticed without reading.
 * Gives the error that it was lost with, if it was.
 *
 * @internal
 */
export const broken = (self: Connection): Effect.Effect<ConnectionError | undefined> => coreOf(self).broken

/**
 * Reads the PROXY header of a client that was just accepted.
 *
 * @internal
 */
export const receiveProxyHeader = (
  self: Connection,
  receive: ProxyProtocol.Receiver
): Effect.Effect<void, ProxyProtocol.ProxyProtocolError | ReadError> => {
  const core = coreOf(self)
  return Effect.map(
    receive(StreamReader.fromInput(core.input, Limits.noTimeouts), core.transport),
    (header) => {
      core.proxyProtocol = header
    }
  )
}

/**
 * The server's handshake with a client that was just accepted.
 *
 * @internal
 */
export const secure = (
  self: Connection,
  settings: Tls.ServerSettings
): Effect.Effect<void, ConnectionError | TimeoutError> =>
  coreOf(self).upgradeTls(Tls.serverHandshake(settings), "feed")

/**
 * Options of a connection, whatever it runs on. Values out of range are `RangeError` defects where the options are given.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** See `StreamReader.limit`. Default 65,536 bytes. */
  readonly limit?: number | undefined
  /** See `StreamWriter.Watermarks`. Default 65,536 and 16,384 bytes; `low` is a quarter of `high` unless given. */
  readonly watermarks?: { readonly high: number; readonly low?: number | undefined } | undefined
  /** How long one read may wait. Default: no limit. */
  readonly readTimeout?: Duration.Input | undefined
  /** How long one write, drain, flush or end may wait. Default: no limit. */
  readonly writeTimeout?: Duration.Input | undefined
  /** How long a read or a write may wait while no byte comes or goes in either direction. Default: no limit. */
  readonly idleTimeout?: Duration.Input | undefined
  /** How long a graceful close may take before it becomes an abort. Default 5 seconds. */
  readonly closeTimeout?: Duration.Input | undefined
}

/** @internal */
export const checkOptions = (options: Options | undefined): Settings => ({
  limit: Limits.readLimit(options?.limit),
  watermarks: Limits.watermarks(options?.watermarks),
  ...timeLimits(
    Limits.timeout("readTimeout", options?.readTimeout),
    Limits.timeout("writeTimeout", options?.writeTimeout),
    Limits.timeout("idleTimeout", options?.idleTimeout)
  ),
  closeTimeout: Limits.timeout("closeTimeout", options?.closeTimeout ?? DEFAULT_CLOSE_TIMEOUT)
})

const DEFAULT_CLOSE_TIMEOUT = "5 seconds"

type OperationTimeouts = Pick<Settings, "reading" | "writing">

const timeLimits = (read: number, write: number, idle: number): OperationTimeouts => ({
  reading: { operation: "read", timeout: read, idle },
  writing: { operation: "write", timeout: write, idle }
})

class ConnectionImpl implements Connection {
  readonly [TypeId] = TypeId
  readonly core: ConnectionCore
  readonly reader: StreamReader.StreamReader
  readonly writer: StreamWriter.StreamWriter

  readonly timeouts: OperationTimeouts

  constructor(core: ConnectionCore, timeouts: OperationTimeouts) {
    this.core = core
    this.timeouts = timeouts
    this.reader = StreamReader.fromInput(core.input, timeouts.reading)
    this.writer = StreamWriter.fromOutput(core.output, timeouts.writing, core)
  }

  get id(): string {
    return this.core.id
  }

  get info(): ConnectionInfo {
    const { localAddress, openedAt, proxyProtocol, remoteAddress, target, transport } = this.core
    return {
      localAddress,
      remoteAddress,
      transport: transport.kind,
      tls: transport.tls,
      target,
      proxyProtocol,
      openedAt: DateTime.makeUnsafe(openedAt)
    }
  }

  get close(): Effect.Effect<void> {
    return this.core.close
  }

  get abort(): Effect.Effect<void> {
    return this.core.abort
  }

  get closed(): Effect.Effect<void, ConnectionError> {
    return this.core.closed
  }

  private get host(): string | undefined {
    const { connectedTo } = this.core
    return connectedTo === undefined ? undefined : hostOf(connectedTo)
  }

  upgradeTls(options: Tls.UpgradeOptions): Effect.Effect<void, ConnectionError | TimeoutError> {
    return Effect.suspend(() => {
      const handshake =
        options.role === "client"
          ? Tls.clientHandshake(Tls.checkClient(options), this.host)
          : Tls.serverHandshake(Tls.checkServer(options))
      return this.core.upgradeTls(handshake, options.leftover ?? "fail")
    })
  }

  withTimeouts(options: Timeouts): ConnectionImpl {
    const { reading, writing } = this.timeouts
    const choose = (name: "read" | "write" | "idle", present: number): number =>
      options[name] === undefined ? present : Limits.timeout(name, options[name])
    return new ConnectionImpl(
      this.core,
      timeLimits(
        choose("read", reading.timeout),
        choose("write", writing.timeout),
        choose("idle", reading.idle)
      )
    )
  }
}

/**
 * Makes a connection of a transport that was not started yet, and owns it from then on: the scope's end closes it, the
 * scope's failure aborts it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  transport: Transport,
  options?: Options
): Effect.Effect<Connection, never, Scope.Scope> =>
  Effect.suspend(() => fromTransport(transport, checkOptions(options)))

const open = (transport: Transport, settings: Settings): Effect.Effect<ConnectionImpl> =>
  Effect.withFiber((fiber) => Effect.succeed(openIn(fiber, transport, settings)))

/** @internal */
export const openIn = (
  fiber: Fiber.Fiber<unknown, unknown>,
  transport: Transport,
  settings: Settings
): ConnectionImpl => {
  const core = new ConnectionCore(transport, settings, fiber.getRef(Clock.Clock), fiber.context)
  core.start()
  return new ConnectionImpl(core, settings)
}

/** @internal */
export const release = (connection: Connection, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> =>
  Exit.isSuccess(exit) ? connection.close : connection.abort

/** @internal */
export const fromTransport = (
  transport: Transport,
  settings: Settings
): Effect.Effect<ConnectionImpl, never, Scope.Scope> =>
  Effect.acquireRelease(open(transport, settings), release)

/**
 * Options of `connect`: those of the connection and those of the socket.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectionOptions extends Options, ConnectOptions {
  /**
   * The proxy to go through, or several: the first is connected to, and each is asked for the next one, the last for the
   * target. `connectTimeout` covers all of it, and `happyEyeballs` and `localAddress` apply to the first. Default none.
   */
  readonly proxy?: Proxy.Proxy | ReadonlyArray<Proxy.Proxy> | undefined
  /**
   * Sends a PROXY header first, before TLS: `{}` for one of version 2 with the connection's own addresses (through a
   * `proxy`, unless `addresses` says more: not known). Default none.
   */
  readonly proxyProtocol?: ProxyProtocol.EncodeOptions | undefined
  /**
   * Speak TLS from the beginning: with what the platform trusts, and the target's host as the name, or as the options say.
   * Through a proxy, TLS is spoken with the target, inside the tunnel. Default: not.
   */
  readonly tls?: true | Tls.ClientOptions | undefined
}

/**
 * Connects to a target, within `connectTimeout` (10 seconds unless set). The connection belongs to the scope.
 *
 * Fails with `ConnectionError` (operation `connect`) when nobody listens, the name does not resolve, the target is no
 * address, a proxy refuses, …, and with `TimeoutError` (operation `connect`); with `tls`, both also with the operation
 * `handshake`, for which `handshakeTimeout` is the limit. Interrupting it leaves nothing behind.
 *
 * @category constructors
 * @since 0.1.0
 */
export const connect = (
  target: Target,
  options?: ConnectionOptions
): Effect.Effect<Connection, ConnectionError | TimeoutError, Network | Scope.Scope> =>
  Effect.suspend(() => {
    const settings = checkOptions(options)
    const proxies = options?.proxy === undefined ? [] : Arr.ensure(options.proxy)
    const header =
      options?.proxyProtocol === undefined ? undefined : ProxyProtocol.sender(options.proxyProtocol)
    const plain =
      proxies.length === 0 && header === undefined
        ? connectTo(target, options, settings)
        : connectWith(proxies, header, target, options, settings)
    if (options?.tls === undefined) return plain
    const handshake = Tls.clientHandshake(Tls.checkClient(options.tls), hostOf(target))
    return owned(Effect.tap(plain, ({ core }) => core.upgradeTls(handshake, "feed")))
  })

const connectTo = (
  target: Target,
  options: ConnectOptions | undefined,
  settings: Settings
): Effect.Effect<ConnectionImpl, ConnectionError | TimeoutError, Network | Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Network.use((network) => restore(network.connect(target, options))).pipe(
      Effect.flatMap((transport) => fromTransport(transport, settings)),
      Effect.map((connection) => {
        connection.core.connectedTo = target
        return connection
      })
    )
  )

/** A scope that ends at once if it comes to nothing, and with the caller's otherwise. */
const owned = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R | Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.flatMap(Effect.scope, Scope.fork), (scope) =>
      Effect.onExit(Scope.provide(restore(self), scope), (exit) =>
        Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void
      )
    )
  )

/** How long something takes that a limit of its own covers. */
const unlimited: Timeouts = { read: Duration.infinity, write: Duration.infinity, idle: Duration.infinity }

/** Connects to the first proxy, on from each to the next, and sends the PROXY header. */
const connectWith = (
  proxies: ReadonlyArray<Proxy.Proxy>,
  header: ProxyProtocol.Sender | undefined,
  target: Target,
  options: ConnectionOptions | undefined,
  settings: Settings
): Effect.Effect<ConnectionImpl, ConnectionError | TimeoutError, Network | Scope.Scope> => {
  const duration = Limits.connectTimeout(options?.connectTimeout)
  const address = formatTarget(target)
  const [first, ...hops] = Arr.append(
    proxies.map((proxy) => proxy.target),
    target
  )

  const connected = Effect.gen(function* () {
    const direct = { ...options, connectTimeout: Duration.infinity }
    const connection = yield* connectTo(first, direct, settings)
    const handshaking = connection.withTimeouts(unlimited)
    for (const [proxy, hop] of Arr.zip(proxies, hops)) yield* Proxy.tunnel(handshaking, proxy, hop)
    if (proxies.length > 0) connection.core.target = address
    connection.core.connectedTo = target
    if (header !== undefined) {
      const { localAddress, remoteAddress } = connection.core
      const own = proxies.length === 0
      yield* handshaking.writer.write(
        own ? header(localAddress, remoteAddress) : header(undefined, undefined)
      )
    }
    return connection
  })
  return owned(within(connected, "connect", duration, () => address))
}

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
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  target: Target,
  options?: ConnectionOptions
): Layer.Layer<Connection, ConnectionError | TimeoutError, Network> =>
  Layer.effect(Connection, connect(target, options))

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
 * console.log(await Effect.runPromise(Effect.scoped(program))) // Some("hello")
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

/**
 * Time limits of a connection's operations.
 *
 * @category models
 * @since 0.1.0
 */
export interface Timeouts {
  readonly read?: Duration.Input | undefined
  readonly write?: Duration.Input | undefined
  readonly idle?: Duration.Input | undefined
}

/**
 * The same connection with other time limits; what the options leave out stays as it is, and `Duration.infinity` takes a
 * limit away. The original keeps its own. Values that are not positive are a `RangeError`.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withTimeouts: {
  (options: Timeouts): (self: Connection) => Connection
  (self: Connection, options: Timeouts): Connection
} = dual(2, (self: Connection, options: Timeouts): Connection => {
  if (!(self instanceof ConnectionImpl)) {
    throw new TypeError("withTimeouts: not a connection made by this module")
  }
  return self.withTimeouts(options)
})

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
  <E, R, E2, R2>(
    transforms: Transforms<E, R, E2, R2>
  ): (self: Connection) => Effect.Effect<Connection, never, R | R2 | Scope.Scope>
  <E, R, E2, R2>(
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
      const transport = transportThrough(below.withTimeouts(unlimited), core.transport, transforms)
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
 * into a sink such as `Recording.toFile(path)`. A recorder that is slow slows the connection down; one that
 * fails, or is done early, fails it, so no recording is incomplete without notice.
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
