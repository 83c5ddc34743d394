import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import { dual } from "effect/Function"
import type * as NetAddress from "effect/net/NetAddress"
import { type ConnectOptions, Network, type Target } from "../Network.ts"
import * as Proxy from "../Proxy.ts"
import * as ProxyProtocol from "../ProxyProtocol.ts"
import {
  ConnectionClosed,
  ConnectionError,
  type ConnectionErrorReason,
  type ReadError,
  TimeoutError,
  UnreadInput,
  Unsupported,
  type WriteError
} from "../StreamError.ts"
import * as StreamReader from "../StreamReader.ts"
import * as StreamWriter from "../StreamWriter.ts"
import * as Tls from "../Tls.ts"
import type { Kind, Transport } from "../Transport.ts"
import { ConnectionCore, type Settings } from "./ConnectionCore.ts"
import type { TimeLimits } from "./Deadlines.ts"
import * as Limits from "./limits.ts"
import * as Spans from "./spans.ts"
import { formatTarget, hostOf } from "./target.ts"
import { type Tunnelled, tunnelled } from "./tunnelled.ts"

// What connections are, and how they are made: below the links and pools that are made of them, which `Connection` in turn
// provides as layers.

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
  /**
   * What the bytes travel on. `"tls"` is TLS with whom the connection speaks to: through a proxy that is spoken to
   * over TLS, to a target that is not, it is what lies below, such as `"tcp"`.
   */
  readonly transport: Kind
  /** The facts of TLS with whom the connection speaks to, not of TLS with a proxy on the way. */
  readonly tls?: Tls.TlsInfo | undefined
  /**
   * Whom the connection speaks to through proxies, as `connect` or `Proxy.tunnel` was given it. `remoteAddress` is the
   * first proxy's.
   */
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
   *
   * The exceptions: once more than 2 × `limit` bytes wait to be read, reading from the peer stops, and Node shows no reset
   * until it goes on, or a write fails. A peer that sends more than anybody reads and then vanishes is noticed by a time
   * limit only. And after the peer's end of input, Node shows a reset only by a write that fails.
   */
  readonly closed: Effect.Effect<void, ConnectionError>
  /**
   * Makes TLS of a plain connection (STARTTLS), within `handshakeTimeout`. What was written before is sent first; what is
   * written meanwhile waits. Reader, writer, limits and timeouts stay the same.
   *
   * Fails with `ConnectionError` (operation `handshake`) and `TimeoutError` (operation `handshake`); the connection has
   * ended then, as it has when this is interrupted. It is left as it was by `PlaintextBuffered` (see `leftover`), unless
   * the bytes came while the handshake began, and by `Unsupported`: over a transport that knows no TLS, or for the second
   * time. A client verifies the certificate for the host that was connected to unless `servername` says otherwise; with
   * neither, it is a `RangeError` defect. Without a `role`, this is the client's side.
   *
   * **Example** (Both sides)
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Connection, Network } from "effect-wire"
   * import { TestNetwork } from "effect-wire/testing"
   *
   * const program = Effect.gen(function* () {
   *   const network = yield* Network.Network
   *   const listener = yield* network.listen({ port: 587 })
   *   const client = yield* Connection.connect("localhost:587")
   *   const server = yield* Connection.make(yield* listener.accept)
   *   const identity = TestNetwork.identity({ names: ["localhost"] })
   *   yield* Effect.all([client.upgradeTls({ role: "client" }), server.upgradeTls({ role: "server", identity })], {
   *     concurrency: "unbounded"
   *   })
   *   console.log(client.info.transport, server.info.tls?.servername) // tls localhost
   *   yield* Effect.all([client.close, server.close], { concurrency: "unbounded" })
   * })
   *
   * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))
   * ```
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

export const implementation = (self: Connection): ConnectionImpl => {
  if (!(self instanceof ConnectionImpl)) throw new TypeError("not a connection made by this module")
  return self
}

const coreOf = (self: Connection): ConnectionCore => implementation(self).core

/**
 * Whether both directions are still open.
 */
export const isWhole = (self: Connection): boolean => coreOf(self).isWhole

/**
 * Whether both directions are open, nothing waits to be read, and nobody waits to read or to write.
 */
export const isClean = (self: Connection): boolean => coreOf(self).isClean

/**
 * Why a connection whose handshake is over cannot be lent, if so: it is not clean.
 */
export const unfitAfterHandshake = (self: Connection): ConnectionError | undefined => {
  const core = coreOf(self)
  if (core.isClean) return undefined
  const { size } = core.input.buffer
  const failed = (reason: ConnectionErrorReason) => core.error("handshake", reason)
  if (!core.isWhole) return core.failure ?? failed(new ConnectionClosed({}))
  if (size > 0) return failed(new UnreadInput({ bytes: size }))
  return failed(
    new Unsupported({
      detail: "`onConnect` has left a fiber behind that reads or writes, so the connection cannot be lent"
    })
  )
}

/**
 * Waits until the peer has ended its direction, or the connection is closed, aborted or lost; noticed without reading.
 * Gives the error that it was lost with, if it was.
 */
export const broken = (self: Connection): Effect.Effect<ConnectionError | undefined> => coreOf(self).broken

/**
 * Waits until all that was written has left the process. Fails if any of it was lost; that the connection has ended since is
 * no failure.
 */
export const settled = (self: Connection): Effect.Effect<void, WriteError> => {
  const { core, timeouts } = implementation(self)
  return core.output.settled(timeouts.writing)
}

/**
 * Reads the PROXY header of a client that was just accepted.
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
  /**
   * How long a graceful close may take before it becomes an abort, which also drops what the operating system has not
   * sent yet. Default 5 seconds: raise it for peers that may read the last bytes slower than that.
   */
  readonly closeTimeout?: Duration.Input | undefined
}

export const checkOptions = (options: Options | undefined): Settings => ({
  limit: Limits.readLimit(options?.limit),
  watermarks: Limits.watermarks(options?.watermarks),
  ...timeLimits(
    Limits.timeout("readTimeout", options?.readTimeout),
    Limits.timeout("writeTimeout", options?.writeTimeout),
    Limits.timeout("idleTimeout", options?.idleTimeout)
  ),
  closing: {
    ...Limits.noTimeouts,
    operation: "close",
    timeout: Limits.timeout("closeTimeout", options?.closeTimeout ?? DEFAULT_CLOSE_TIMEOUT),
    timeoutOption: "closeTimeout"
  }
})

const DEFAULT_CLOSE_TIMEOUT = "5 seconds"

type OperationTimeouts = Pick<Settings, "reading" | "writing">

/** What an error says of a time limit: which option raises it. */
type OptionNames = Readonly<Record<"read" | "write" | "idle", string>>

const optionNames: OptionNames = { read: "readTimeout", write: "writeTimeout", idle: "idleTimeout" }

const timeLimits = (
  read: number,
  write: number,
  idle: number,
  options: OptionNames = optionNames
): OperationTimeouts => {
  const limits = (operation: "read" | "write", timeout: number): TimeLimits => ({
    operation,
    timeout,
    timeoutOption: options[operation],
    idle,
    idleOption: options.idle
  })
  return { reading: limits("read", read), writing: limits("write", write) }
}

class ConnectionImpl implements Connection, Tunnelled {
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
    const { localAddress, openedAt, proxyProtocol, remoteAddress, target, tls, transportKind } = this.core
    return {
      localAddress,
      remoteAddress,
      transport: transportKind,
      tls,
      target,
      proxyProtocol,
      openedAt: DateTime.makeUnsafe(openedAt)
    }
  }

  [tunnelled](target: Target): void {
    this.core.tunnelled(target)
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

  get upgradeTls(): Connection["upgradeTls"] {
    return (options) =>
      Effect.suspend(() => {
        Limits.oneOf("role", options.role ?? "client", ["client", "server"])
        const handshake =
          options.role === "server"
            ? Tls.serverHandshake(Tls.checkServer(options))
            : Tls.clientHandshake(Tls.checkClient(options), this.host, '; the server says role: "server"')
        const leftover = Limits.oneOf("leftover", options.leftover ?? "fail", ["fail", "discard", "feed"])
        return this.core.upgradeTls(handshake, leftover)
      })
  }

  withTimeouts(options: Timeouts): ConnectionImpl {
    const { reading, writing } = this.timeouts
    const choose = (name: "read" | "write" | "idle", present: number): number =>
      options[name] === undefined ? present : Limits.timeout(name, options[name])
    const name = (name: "read" | "write" | "idle", present: string): string =>
      options[name] === undefined ? present : `withTimeouts({ ${name} })`
    return new ConnectionImpl(
      this.core,
      timeLimits(
        choose("read", reading.timeout),
        choose("write", writing.timeout),
        choose("idle", reading.idle),
        {
          read: name("read", reading.timeoutOption),
          write: name("write", writing.timeoutOption),
          idle: name("idle", reading.idleOption)
        }
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

export const open = (transport: Transport, settings: Settings): Effect.Effect<ConnectionImpl> =>
  Effect.withFiberSucceed(({ context }) => openIn(context, transport, settings))

export const openIn = (
  context: Context.Context<never>,
  transport: Transport,
  settings: Settings
): ConnectionImpl => {
  const core = new ConnectionCore(transport, settings, Context.get(context, Clock.Clock), context)
  core.start()
  return new ConnectionImpl(core, settings)
}

/** Aborts a connection here and now, and does not wait until the transport has let go. */
export const abortNow = (self: Connection): void => coreOf(self).abortNow()

export const release = (connection: Connection, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> =>
  Exit.isSuccess(exit) ? connection.close : connection.abort

/** The same, begun here and now; calls back once the connection is closed. */
export const releaseNow = (
  connection: Connection,
  exit: Exit.Exit<unknown, unknown>,
  onReleased: () => void
): void => {
  const core = coreOf(connection)
  if (Exit.isSuccess(exit)) core.closeNow()
  else core.abortNow()
  core.whenFinished(onReleased)
}

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
   * target. `connectTimeout` covers all of it, TLS with the proxies included, and `happyEyeballs` and `localAddress` apply
   * to the first. Default none.
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
  Effect.suspend(() => connecting(target, options))

/**
 * What `connect` does, as often as it is run. Options that are out of range are thrown here and now: whoever connects later,
 * and again and again, finds them out when it is made.
 */
export const connecting = (
  target: Target,
  options: ConnectionOptions | undefined
): Effect.Effect<Connection, ConnectionError | TimeoutError, Network | Scope.Scope> => {
  const settings = checkOptions(options)
  Limits.connectTimeout(options?.connectTimeout)
  Limits.happyEyeballs(options?.happyEyeballs)
  Limits.keepAlive(options?.keepAlive)
  const proxies = options?.proxy === undefined ? [] : Arr.ensure(options.proxy)
  const header =
    options?.proxyProtocol === undefined ? undefined : ProxyProtocol.sender(options.proxyProtocol)
  const plain =
    proxies.length === 0 && header === undefined
      ? connectTo(target, options, settings)
      : connectWith(proxies, header, target, options, settings)
  const connected = options?.tls === undefined ? plain : secured(plain, options.tls, target)
  return Effect.withFiber(({ context }) =>
    Spans.isTraced(context) ? Spans.connecting(target, connected, (_) => _.core) : connected
  )
}

const secured = (
  plain: Effect.Effect<ConnectionImpl, ConnectionError | TimeoutError, Network | Scope.Scope>,
  options: true | Tls.ClientOptions,
  target: Target
): typeof plain => {
  const handshake = Tls.clientHandshake(Tls.checkClient(options), hostOf(target))
  return owned(Effect.tap(plain, ({ core }) => core.upgradeTls(handshake, "feed")))
}

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
export const unlimited: Timeouts = {
  read: Duration.infinity,
  write: Duration.infinity,
  idle: Duration.infinity
}

const ofProxyFor = (
  proxyFor: string,
  { address, attempts, operation, reason }: ConnectionError
): ConnectionError => new ConnectionError({ operation, reason, address, attempts, proxyFor })

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
  const handshakes = proxies.map((proxy) => Proxy.tlsHandshake(Proxy.check(proxy)))
  const [first, ...hops] = Arr.append(
    proxies.map((proxy) => proxy.target),
    target
  )

  const connected = Effect.gen(function* () {
    for (const hop of hops) yield* Proxy.checkTarget(hop)
    const began = yield* Clock.monotonicTimeNanos
    let proxy: TimeoutError["proxy"] =
      proxies.length === 0 ? undefined : { address: formatTarget(first), stage: "connect" }
    const timedOut = (attempts?: TimeoutError["attempts"]) =>
      Effect.fail(
        new TimeoutError({
          operation: "connect",
          option: "connectTimeout",
          duration,
          address,
          attempts,
          proxy
        })
      )

    const connection = yield* Effect.catchTags(connectTo(first, options, settings), {
      TimeoutError: ({ attempts }) => timedOut(attempts),
      ConnectionError: (error) => Effect.fail(proxies.length === 0 ? error : ofProxyFor(address, error))
    })
    const passed = Duration.nanos((yield* Clock.monotonicTimeNanos) - began)
    const handshaking = connection.withTimeouts(unlimited)
    const { core } = connection

    const introduced = Effect.gen(function* () {
      for (const [[next, hop], handshake] of Arr.zip(Arr.zip(proxies, hops), handshakes)) {
        const via = formatTarget(next.target)
        proxy = { address: via, stage: "tls" }
        if (handshake !== undefined) {
          yield* Effect.catchTag(core.upgradeTls(handshake, "feed"), "ConnectionError", (error) =>
            Effect.fail(ofProxyFor(address, error))
          )
        }
        proxy = { address: via, stage: "tunnel" }
        yield* Proxy.tunnel(handshaking, next, hop)
      }
      if (header !== undefined) {
        const { localAddress, remoteAddress } = core
        const own = proxies.length === 0
        yield* handshaking.writer.write(
          own ? header(localAddress, remoteAddress) : header(undefined, undefined)
        )
      }
    })
    // What is left of the time that connecting had all of.
    yield* Duration.isFinite(duration)
      ? Effect.timeoutOrElse(introduced, {
          duration: Duration.max(Duration.subtract(duration, passed), Duration.zero),
          orElse: () => timedOut()
        })
      : introduced
    return connection
  })
  return owned(connected)
}

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
} = dual(2, (self: Connection, options: Timeouts): Connection => implementation(self).withTimeouts(options))
