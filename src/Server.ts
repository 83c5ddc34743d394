/**
 * Servers as supervised fibers.
 *
 * A server accepts connections and runs its handler for each, in a fiber and a scope of its own. What happens in one
 * handler stays there: a failure, a defect or an interruption ends its own connection and is reported. Accepting goes on
 * whatever handlers do.
 *
 * **Example** (An echo server)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Connection, Server } from "effect-wire"
 * import { NodeNetwork } from "effect-wire/node"
 *
 * const echo = (connection: Connection.Connection) => Stream.run(connection.reader.stream, connection.writer.sink)
 *
 * const program = Effect.gen(function* () {
 *   const server = yield* Server.serve(echo, { listen: { host: "127.0.0.1", port: 0 } })
 *   const reply = yield* Connection.use(server.addresses[0], ({ reader, writer }) =>
 *     Effect.andThen(writer.write("hello\n"), reader.readLineString)
 *   )
 *   console.log(reply) // some("hello")
 *   console.log(yield* server.shutdown()) // { finished: 1, … } or { finished: 0, … }
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer)))
 * ```
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type * as Take from "effect/Take"
import * as Tracer from "effect/Tracer"
import * as NetAddress from "effect/net/NetAddress"
import type { Codec } from "./Codec.ts"
import * as Framed from "./Framed.ts"
import type { Framing } from "./Framing.ts"
import * as Connection from "./internal/connection.ts"
import type { Settings } from "./internal/ConnectionCore.ts"
import * as Limits from "./internal/limits.ts"
import { type Linked, LinkedList } from "./internal/LinkedList.ts"
import * as Numbers from "./internal/numbers.ts"
import { printable } from "./internal/printable.ts"
import { publish } from "./internal/publish.ts"
import * as Spans from "./internal/spans.ts"
import { formatAddress, formatListen } from "./internal/target.ts"
import { type ListenAddress, type Listener, type ListenOptions, Network, type UnixTarget } from "./Network.ts"
import * as ProxyProtocol from "./ProxyProtocol.ts"
import {
  type ConnectionError,
  ListenError,
  type ListenErrorReason,
  type ReadError,
  type TimeoutError,
  Unsupported
} from "./StreamError.ts"
import * as Telemetry from "./Telemetry.ts"
import * as Tls from "./Tls.ts"
import type { Transport } from "./Transport.ts"

/**
 * Runtime type identifier of servers.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-wire/Server"

/**
 * What happens in a server, as it happens:
 *
 * - `Opened`: a connection was accepted, with its PROXY header and with TLS if that was asked for, and its handler is about to
 *   run.
 * - `ProxyHeaderRejected`: a connection was accepted and came to nothing, because its PROXY header is missing, is none, does
 *   not come in time, or comes from somebody who is not trusted.
 * - `HandshakeFailed`: a connection was accepted and came to nothing, because its TLS handshake failed or took too long.
 * - `Closed`: a connection that was opened has ended; `exit` is its handler's.
 * - `AcceptFailed`: the system could not accept (out of descriptors); it is tried again after pauses of 100 ms to 1 s.
 * - `ShuttingDown`: the server has stopped accepting.
 *
 * @category models
 * @since 0.1.0
 */
export type ServerEvent = Data.TaggedEnum<{
  Opened: { readonly id: string; readonly info: Connection.ConnectionInfo }
  Closed: {
    readonly id: string
    readonly info: Connection.ConnectionInfo
    readonly exit: Exit.Exit<unknown, unknown>
  }
  ProxyHeaderRejected: {
    readonly id: string
    readonly info: Connection.ConnectionInfo
    readonly error: ProxyProtocol.ProxyProtocolError | ReadError
  }
  HandshakeFailed: {
    readonly id: string
    readonly info: Connection.ConnectionInfo
    readonly error: ConnectionError | TimeoutError
  }
  AcceptFailed: { readonly error: ListenError }
  ShuttingDown: { readonly activeConnections: number }
}>

/**
 * Constructors and matchers of `ServerEvent`.
 *
 * @category models
 * @since 0.1.0
 */
export const ServerEvent = Data.taggedEnum<ServerEvent>()

/**
 * What became of the connections that were there when a shutdown began; each is counted once.
 *
 * @category models
 * @since 0.1.0
 */
export interface ShutdownReport {
  /** Handlers that ended by themselves within the grace, and whose connections were closed. */
  readonly finished: number
  /** Handlers that were interrupted when the grace was over, or the PROXY header or the TLS handshake before them. */
  readonly interrupted: number
  /**
   * Connections that came to nothing, because their PROXY header was rejected or their TLS handshake failed; and those
   * whose handler had ended, and that were still closing when the grace was over.
   */
  readonly aborted: number
}

/**
 * A running server. It belongs to the scope it was made in, whose end shuts it down.
 *
 * @category models
 * @since 0.1.0
 */
export interface Server {
  readonly [TypeId]: typeof TypeId
  /** The bound addresses, in the order of `listen`, with the port that port 0 became. */
  readonly addresses: Arr.NonEmptyReadonlyArray<NetAddress.SocketAddress>
  readonly activeConnections: Effect.Effect<number>
  readonly connections: Effect.Effect<ReadonlyArray<Connection.ConnectionInfo>>
  /** Events from now on. A slow consumer misses the oldest of more than 256 unread ones. Ends after the server's last. */
  readonly events: Stream.Stream<ServerEvent>
  /**
   * Stops accepting, tells the handlers (`draining`), lets them finish for `grace` (the server's own unless given; 0 is
   * allowed), then interrupts them and aborts what is left. May be called again, with a shorter grace, to hurry.
   * Interrupting it only stops the waiting: the server does not accept again, and nobody is cut off until the next call
   * or the scope's end.
   *
   * It completes when every handler has ended: one that is uninterruptible is waited for, however long it takes.
   */
  readonly shutdown: (options?: {
    readonly grace?: Duration.Input | undefined
  }) => Effect.Effect<ShutdownReport>
  /** Waits until the server has shut down. */
  readonly closed: Effect.Effect<void>
}

/**
 * The server that `layer` provides.
 *
 * @category services
 * @since 0.1.0
 */
export const Server: Context.Service<Server, Server> = Context.Service<Server>("effect-wire/Server")

/**
 * What a server does with each connection. Its scope is the connection's: when the handler ends well the connection is
 * closed, when it fails or is interrupted the connection is aborted.
 *
 * @category models
 * @since 0.1.0
 */
export type Handler<E, R> = (connection: Connection.Connection) => Effect.Effect<unknown, E, R>

/**
 * Options of servers. Values out of range are `RangeError` defects of `serve`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<E = unknown, R = never> extends Connection.Options, ListenOptions {
  /** Where to listen; several listeners with port 0 share one port. An address that is named twice counts once. */
  readonly listen: ListenAddress | ReadonlyArray<ListenAddress>
  /**
   * Speak TLS with every client. The handshake is part of the connection: it counts for `maxConnections`, for at most
   * `handshakeTimeout`. One that fails is an event, `HandshakeFailed`, and a debug line in the log. Default: no TLS.
   */
  readonly tls?: Tls.ServerOptions | undefined
  /** How many connections are served at once; more wait until one ends. Default: no limit. */
  readonly maxConnections?: number | undefined
  /** Runs for each handler that fails or dies. Default: an error in the log, with the peer's address. */
  readonly onError?:
    ((cause: Cause.Cause<E>, info: Connection.ConnectionInfo) => Effect.Effect<unknown, never, R>) | undefined
  /**
   * Interrupts a handler whose connection is lost (reset by the peer), even if it is doing something else. The client's end
   * of input is no loss. As with `Connection.closed`, a loss is not noticed while more than 2 × `limit` bytes of the client's
   * wait to be read, nor, by Node, after the client's end until a write fails. Default `false`.
   */
  readonly interruptOnDisconnect?: boolean | undefined
  /** How long a shutdown, or the end of the scope, lets the handlers finish; 0 is allowed. Default 5 seconds. */
  readonly grace?: Duration.Input | undefined
  /**
   * Has connections begin with a PROXY header, versions 1 and 2, and takes the client's address from it. A connection whose
   * header is missing, malformed, late or not trusted is cut off; `events` and the log tell. Default: no header is read.
   */
  readonly proxyProtocol?: ProxyProtocol.ServerOptions | undefined
  /** What the server is called in its metrics (attribute `server`; see `Telemetry`). Default: its addresses. */
  readonly name?: string | undefined
}

const EVENTS_KEPT = 256
const DEFAULT_GRACE = "5 seconds"
const PORT_ATTEMPTS = 10

// Trying at once again would spin: what was missing has to be given back first.
const acceptBackoff = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("1 second")])

interface Client extends Linked<Client> {
  readonly connection: Connection.Connection
  /** Whether its handler still runs; afterwards the connection is only closing. */
  handling: boolean
  /** Whether it has come to its handler, which follows the PROXY header and the TLS handshake. */
  isOpen: boolean
  fate: keyof ShutdownReport
  /** What runs for it: its handler, or what reports its failure. */
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  /** What it is traced in, if it is. */
  span: Tracer.Span | undefined
}

/**
 * Starts a server: it is listening when this returns, and runs until it is shut down or its scope ends.
 *
 * Fails with `ListenError` if an address is in use, not one of this host, not permitted or no address at all; then
 * none is left open.
 *
 * **Example** (Serving one handler per connection)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   const server = yield* Server.serve(({ reader, writer }) => reader.readAll().pipe(Effect.flatMap(writer.write)), {
 *     listen: { port: 7000 }
 *   })
 *   console.log(String(server.addresses[0])) // [::]:7000
 *   const client = yield* Connection.connect("localhost:7000")
 *   yield* client.writer.write("hello")
 *   yield* client.writer.end
 *   console.log(yield* client.reader.readLineString) // some("hello")
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const serve = <E, R, R2 = never>(
  handler: Handler<E, R>,
  options: Options<E, R2>
): Effect.Effect<Server, ListenError, Network | Scope.Scope | Exclude<R | R2, Scope.Scope>> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const settings = checkOptions(options)
      const proxyHeader = options.proxyProtocol && ProxyProtocol.receiver(options.proxyProtocol)
      if (settings.tls !== undefined) yield* restore(checkTls(settings.tls, options.listen))
      const listening = yield* Scope.fork(yield* Effect.scope)
      const listeners = yield* restore(Scope.provide(listenAll(options.listen, options), listening))
      const drain = new Drain()
      const own = yield* Effect.context<Exclude<R | R2, Scope.Scope>>()
      const context = Context.add(own, CurrentDrain, drain)
      const supervisor = new Supervisor(
        listeners,
        listening,
        yield* PubSub.sliding<Take.Take<ServerEvent>>(EVENTS_KEPT),
        settings.grace,
        drain,
        context
      )
      yield* supervisor.show(options.name)
      const slots =
        options.maxConnections === undefined ? undefined : Semaphore.makeUnsafe(options.maxConnections)
      const { onError } = options

      const report = (
        cause: Cause.Cause<E>,
        info: Connection.ConnectionInfo
      ): Effect.Effect<unknown, never, R2> => {
        if (onError === undefined) return logFailure("connection handler failed", cause, info)
        return Effect.tapCause(
          Effect.suspend(() => onError(cause, info)),
          (ownCause) => logFailure("onError of a connection failed", ownCause, info)
        )
      }

      const handle = (client: Client): Effect.Effect<unknown, E, R | R2> => {
        const { connection } = client
        supervisor.opened(client)
        const served = handler(connection)
        return options.interruptOnDisconnect === true ? Effect.raceFirst(served, lost(connection)) : served
      }

      const { tls } = settings
      const secure =
        tls === undefined
          ? handle
          : (client: Client) =>
              Effect.matchEffect(Connection.secure(client.connection, tls), {
                onFailure: (error) => supervisor.refused(client, error),
                onSuccess: () => handle(client)
              })
      const serveClient =
        proxyHeader === undefined
          ? secure
          : (client: Client) =>
              Effect.matchEffect(Connection.receiveProxyHeader(client.connection, proxyHeader), {
                // Interrupted, and so cut off.
                onFailure: (error) => Effect.andThen(supervisor.rejected(client, error), Effect.interrupt),
                onSuccess: () => secure(client)
              })

      const runFork = Effect.runForkWith(context)
      const isTraced = Spans.isTraced(context)

      const close = (client: Client, exit: Exit.Exit<unknown, unknown>): void => {
        client.handling = false
        Connection.releaseNow(client.connection, exit, () => {
          supervisor.ended(client, exit)
          if (slots !== undefined) Effect.runSync(slots.release(1))
        })
      }

      // The handler and its scope are over. A failure is reported before the connection is closed.
      const handled = (client: Client, exit: Exit.Exit<unknown, E>): void => {
        if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return close(client, exit)
        supervisor.failed++
        const { connection, span } = client
        const run =
          span === undefined ? runFork : Effect.runForkWith(Context.add(context, Tracer.ParentSpan, span))
        const reporting = run(Effect.scoped(report(exit.cause, connection.info)))
        client.fiber = reporting
        reporting.addObserver(() => close(client, exit))
      }

      // The fiber runs from here and now, so that there is no moment in which nobody owns the transport. It runs the handler
      // and nothing else: the rest of a client's life is callbacks, which cost much less.
      const start = (transport: Transport): void => {
        const client = supervisor.add(Connection.openIn(context, transport, settings))
        const handling = Effect.withFiber<unknown, E, R | R2>((fiber) => {
          client.fiber = fiber
          return serveClient(client)
        })
        const serving = Effect.scoped(handling)
        runFork(isTraced ? traced(client, transport, serving) : serving).addObserver((exit) =>
          handled(client, exit)
        )
      }

      const refuse = (transport: Transport): Effect.Effect<void> =>
        Effect.scoped(Effect.flatMap(Connection.fromTransport(transport, settings), (_) => _.abort))

      // The slot is taken after accepting: a listener that waits for a client must not keep a slot from another one.
      const admit = (transport: Transport): Effect.Effect<void> =>
        slots === undefined
          ? Effect.sync(() => start(transport))
          : Effect.interruptible(slots.take(1)).pipe(
              Effect.onInterrupt(() => refuse(transport)),
              Effect.andThen(Effect.sync(() => start(transport)))
            )

      for (const listener of listeners) {
        const accept =
          slots === undefined && listener.acceptAll !== undefined
            ? listener.acceptAll(start)
            : listener.accept
        yield* supervisor.next(listener, accept).pipe(
          Effect.interruptible,
          Effect.flatMap(admit),
          Effect.forever({ disableYield: true }),
          // Uninterruptible but while it waits: an accepted connection reaches its fiber, or is refused.
          Effect.forkIn(listening, { startImmediately: true, uninterruptible: true })
        )
      }
      yield* Effect.addFinalizer(() => supervisor.shutdown())
      return supervisor
    })
  )

/**
 * Serves clients that speak messages: `serve`, with a `Framed` for each connection. Where more than that is wanted, such as
 * a layer, a handler of `serve`, `layer` or `run` makes its own with `Framed.make`.
 *
 * **Example** (A calculator in JSON lines)
 *
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { Codec, Connection, Framed, Framing, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const codec = Codec.schema(Schema.Array(Schema.Number))
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serveFramed(
 *     Framing.lines(),
 *     codec,
 *     ({ messages, send }) => Stream.runForEach(messages, (numbers) => send([numbers.reduce((a, b) => a + b, 0)])),
 *     { listen: { port: 7000 } }
 *   )
 *   const client = Framed.make(yield* Connection.connect("localhost:7000"), Framing.lines(), codec)
 *   return yield* client.request([1, 2, 3])
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))) // [ 6 ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const serveFramed = <In, Out, FIn, FOut, E, R, R2 = never>(
  framing: Framing<FIn, FOut>,
  codec: Codec<In, Out, FIn, FOut>,
  handler: (framed: Framed.Framed<In, Out>) => Effect.Effect<unknown, E, R>,
  options: Options<E, R2> & Framed.Options
): Effect.Effect<Server, ListenError, Network | Scope.Scope | Exclude<R | R2, Scope.Scope>> =>
  Effect.suspend(() => {
    // Checked here, not for each client.
    const onInvalid = Limits.onInvalid(options.onInvalid)
    return serve((connection) => handler(Framed.make(connection, framing, codec, { onInvalid })), options)
  })

/**
 * A server as a layer: it listens when the layer is built, and shuts down when the layer's scope ends.
 *
 * **Example** (A server beside its client)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Connection, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const greeter = Server.layer(({ writer }) => writer.write("hello"), { listen: { port: 7000 } })
 *
 * const program = Connection.use("localhost:7000", ({ reader }) => reader.readAll())
 *
 * const live = Layer.provideMerge(greeter, TestNetwork.layer)
 *
 * console.log(String(Buffer.from(await Effect.runPromise(Effect.provide(program, live))))) // hello
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <E, R, R2 = never>(
  handler: Handler<E, R>,
  options: Options<E, R2>
): Layer.Layer<Server, ListenError, Network | Exclude<R | R2, Scope.Scope>> =>
  Layer.effect(Server, serve(handler, options))

/**
 * Serves until it is interrupted, then shuts down: asyncio's `serve_forever`.
 *
 * **Example** (A program that only serves)
 *
 * ```ts
 * import { Effect, Fiber } from "effect"
 * import { Connection, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const serving = Server.run(({ writer }) => writer.write("hello"), { listen: { port: 7000 } })
 *
 * const program = Effect.gen(function* () {
 *   const server = yield* Effect.forkChild(serving, { startImmediately: true })
 *   const greeting = yield* Connection.use("localhost:7000", ({ reader }) => reader.readAll())
 *   yield* Fiber.interrupt(server)
 *   return new TextDecoder().decode(greeting)
 * })
 *
 * console.log(await Effect.runPromise(Effect.provide(program, TestNetwork.layer))) // hello
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = <E, R, R2 = never>(
  handler: Handler<E, R>,
  options: Options<E, R2>
): Effect.Effect<never, ListenError, Network | Exclude<R | R2, Scope.Scope>> =>
  Effect.scoped(Effect.andThen(serve(handler, options), Effect.never))

/** Whether a server shuts down, as its handlers know it. A latch looks through all who wait whenever one of them gives up. */
class Drain {
  hasBegun = false
  private readonly waiters = new Set<() => void>()

  readonly wait: Effect.Effect<void> = Effect.callback((resume) => {
    const waiter = (): void => resume(Effect.void)
    if (this.hasBegun) return waiter()
    this.waiters.add(waiter)
    return Effect.sync(() => {
      this.waiters.delete(waiter)
    })
  })

  begin(): void {
    this.hasBegun = true
    for (const waiter of this.waiters) waiter()
    this.waiters.clear()
  }
}

/** Of the server that a fiber runs in. It is in the context that all handlers of a server share. */
const CurrentDrain: Context.Reference<Drain | undefined> = Context.Reference<Drain | undefined>(
  "effect-wire/Server/CurrentDrain",
  { defaultValue: () => undefined }
)

/**
 * Waits until the server that this handler, or a fiber of it, runs in begins to shut down (`shutdown`, or the end of its
 * scope); completes at once if it has, and never where there is no server. `grace` runs from then on.
 *
 * For a handler that serves one request after another: it finishes the one that it is at, and takes no other. Raced with the
 * read of the next one, it ends the waiting for it; a read that is interrupted loses no byte.
 *
 * **Example** (Keep-alive, until the server goes)
 *
 * ```ts
 * import { Effect, Option } from "effect"
 * import { Connection, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const handler = Effect.fnUntraced(function* ({ reader, writer }: Connection.Connection) {
 *   const next = Effect.raceFirst(reader.readLineString, Effect.as(Server.draining, Option.none<string>()))
 *   for (let line = yield* next; Option.isSome(line); line = yield* next) yield* writer.write(`${line.value}\n`)
 *   yield* writer.write("goodbye\n")
 * })
 *
 * const program = Effect.gen(function* () {
 *   const server = yield* Server.serve(handler, { listen: { port: 7000 } })
 *   const client = yield* Connection.connect("localhost:7000")
 *   yield* client.writer.write("hello\n")
 *   console.log(yield* client.reader.readLineString) // some("hello")
 *   yield* Effect.forkChild(server.shutdown({ grace: "10 seconds" }))
 *   console.log(yield* client.reader.readLineString) // some("goodbye")
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))
 * ```
 *
 * @category shutdown
 * @since 0.1.0
 */
export const draining: Effect.Effect<void> = Effect.withFiber(
  ({ context }) => Context.get(context, CurrentDrain)?.wait ?? Effect.never
)

/**
 * Whether the server that this handler, or a fiber of it, runs in has begun to shut down; `false` where there is no server. For
 * an answer that says whether the connection may be used again, such as HTTP's `Connection: close`.
 *
 * @category shutdown
 * @since 0.1.0
 */
export const isDraining: Effect.Effect<boolean> = Effect.withFiberSucceed(
  ({ context }) => Context.get(context, CurrentDrain)?.hasBegun ?? false
)

interface ServerSettings extends Settings {
  readonly grace: Duration.Duration
  readonly tls: Tls.ServerSettings | undefined
}

/** A certificate that does not work shall not show with the first client only. */
const checkTls = (
  settings: Tls.ServerSettings,
  listen: ListenAddress | ReadonlyArray<ListenAddress>
): Effect.Effect<unknown, ListenError, Network> =>
  Network.use(({ checkTls }): Effect.Effect<unknown, ListenErrorReason> =>
    checkTls === undefined
      ? Effect.fail(new Unsupported({ detail: "this network knows no TLS" }))
      : checkTls(settings)
  ).pipe(
    Effect.mapError(
      (reason) =>
        new ListenError({ reason, address: Arr.ensure<ListenAddress>(listen).map(formatListen).join(", ") })
    )
  )

const checkOptions = (options: Options<never, unknown>): ServerSettings => {
  const { maxConnections } = options
  if (maxConnections !== undefined && (!Number.isSafeInteger(maxConnections) || maxConnections < 1)) {
    throw new RangeError(`maxConnections must be a positive integer, received ${maxConnections}`)
  }
  return {
    ...Connection.checkOptions(options),
    grace: checkGrace(options.grace ?? DEFAULT_GRACE),
    tls: options.tls && Tls.checkServer(options.tls)
  }
}

const checkGrace = (input: Duration.Input): Duration.Duration => Duration.millis(Limits.delay("grace", input))

const traced = <A, E, R>(
  client: Client,
  transport: Transport,
  serving: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>> =>
  Spans.serving(client.connection.id, transport, (span) => {
    client.span = span
    return serving
  })

const logFailure = (
  message: string,
  cause: Cause.Cause<unknown>,
  info: Connection.ConnectionInfo
): Effect.Effect<void> =>
  Effect.logError(message, cause).pipe(
    Effect.annotateLogs({
      peer: printable(formatAddress(info.remoteAddress) ?? "unknown")
    })
  )

// Whoever only looks whether somebody listens leaves without a byte, or before the address could be asked for.
const isProbe = (error: ProxyProtocol.ProxyProtocolError | ReadError): boolean =>
  error._tag === "ConnectionError" ||
  (error._tag === "ProxyProtocolError" &&
    ((error.kind === "Truncated" && error.offset === 0) ||
      (error.kind === "Untrusted" && error.address === undefined)))

// Interrupts whoever races with it once the connection is lost.
const lost = (connection: Connection.Connection): Effect.Effect<never> =>
  Effect.matchEffect(connection.closed, { onFailure: () => Effect.interrupt, onSuccess: () => Effect.never })

const hasFreePort = (address: ListenAddress): address is Exclude<ListenAddress, UnixTarget> =>
  address.path === undefined && (address.port ?? 0) === 0

const isSame = (a: ListenAddress, b: ListenAddress): boolean =>
  a.path === undefined
    ? b.path === undefined && (a.host ?? "") === (b.host ?? "") && (a.port ?? 0) === (b.port ?? 0)
    : a.path === b.path

const listenAll = (
  listen: ListenAddress | ReadonlyArray<ListenAddress>,
  options: ListenOptions
): Effect.Effect<Arr.NonEmptyReadonlyArray<Listener>, ListenError, Network | Scope.Scope> => {
  const addresses = Arr.dedupeWith(Arr.ensure<ListenAddress>(listen), isSame)
  if (!Arr.isReadonlyArrayNonEmpty(addresses)) throw new RangeError("listen must name at least one address")
  const attempt = Effect.gen(function* () {
    const network = yield* Network
    let shared: number | undefined
    return yield* Effect.forEach(addresses, (address) =>
      Effect.map(
        network.listen(hasFreePort(address) ? { host: address.host, port: shared } : address, options),
        (listener) => {
          if (hasFreePort(address) && NetAddress.isInetAddress(listener.address))
            shared = listener.address.port
          return listener
        }
      )
    )
  })
  // The port that was free on the first address may be taken on another one: then all begin anew with another port.
  const isClash = (error: ListenError): boolean =>
    error.reason._tag === "AddressInUse" && addresses.length > 1 && addresses.every(hasFreePort)
  return Effect.gen(function* () {
    const own = yield* Scope.fork(yield* Effect.scope)
    return yield* Effect.onError(Scope.provide(attempt, own), (cause) =>
      Scope.close(own, Exit.failCause(cause))
    )
  }).pipe(Effect.retry({ while: isClash, times: PORT_ATTEMPTS }))
}

/** The clients of a server, and its end. */
class Supervisor implements Server {
  readonly [TypeId] = TypeId
  readonly addresses: Arr.NonEmptyReadonlyArray<NetAddress.SocketAddress>
  private readonly listening: Scope.Closeable
  private readonly bus: PubSub.PubSub<Take.Take<ServerEvent>>
  private readonly grace: Duration.Duration
  private readonly drain: Drain
  private readonly context: Context.Context<never>
  // Events are made for somebody only.
  private subscribers = 0
  private accepted = 0
  private acceptFailures = 0
  private refusals = 0
  /** How many handlers have failed or died. */
  failed = 0
  private readonly clients = new LinkedList<Client>()
  private readonly empty = Latch.makeUnsafe(true)
  private readonly down = Latch.makeUnsafe(false)
  // Counted from the beginning of the shutdown.
  private report: Record<keyof ShutdownReport, number> | undefined = undefined

  constructor(
    listeners: Arr.NonEmptyReadonlyArray<Listener>,
    listening: Scope.Closeable,
    bus: PubSub.PubSub<Take.Take<ServerEvent>>,
    grace: Duration.Duration,
    drain: Drain,
    context: Context.Context<never>
  ) {
    this.addresses = Arr.map(listeners, (_) => _.address)
    this.listening = listening
    this.bus = bus
    this.grace = grace
    this.drain = drain
    this.context = context
  }

  readonly activeConnections = Effect.sync(() => this.clients.size)

  readonly connections = Effect.sync(() => Array.from(this.clients, (_) => _.connection.info))

  readonly closed = this.down.await

  get events(): Stream.Stream<ServerEvent> {
    const listen = Effect.acquireRelease(
      Effect.sync(() => void this.subscribers++),
      () => Effect.sync(() => void this.subscribers--)
    )
    return Stream.unwrap(Effect.as(listen, Stream.fromPubSubTake(this.bus)))
  }

  /** Shows the server's numbers to whoever collects metrics, until the scope ends. */
  show(name: string | undefined): Effect.Effect<void, never, Scope.Scope> {
    const server = name ?? this.addresses.map(NetAddress.formatSocketAddress).join(", ")
    return Numbers.show({ server }, [
      Numbers.gauge(Telemetry.serverConnectionsActive, () => this.clients.size),
      Numbers.counter(Telemetry.serverConnectionsAccepted, () => this.accepted),
      Numbers.counter(Telemetry.serverConnectionsRejected, () => this.refusals),
      Numbers.counter(Telemetry.serverHandlerFailures, () => this.failed),
      Numbers.counter(Telemetry.serverAcceptFailures, () => this.acceptFailures)
    ])
  }

  /** The next connection of a listener, by `accept`. What cannot be accepted now is tried again, after a pause. */
  next(listener: Listener, accept: Effect.Effect<Transport, ListenError>): Effect.Effect<Transport> {
    const report = (error: ListenError): Effect.Effect<void> => {
      this.acceptFailures++
      this.publish(() => ServerEvent.AcceptFailed({ error }))
      return Effect.logWarning(error.message)
    }
    // The schedule is only made when something has failed.
    const retry = (error: ListenError): Effect.Effect<Transport> => {
      let failed: ListenError | undefined = error
      return Effect.suspend((): Effect.Effect<Transport, ListenError> => {
        if (failed === undefined) return listener.accept
        failed = undefined
        return Effect.fail(error)
      }).pipe(Effect.tapError(report), Effect.retry(acceptBackoff), Effect.orDie)
    }
    return Effect.catch(accept, retry)
  }

  add(connection: Connection.Connection): Client {
    const client: Client = {
      connection,
      handling: true,
      isOpen: false,
      fate: "finished",
      fiber: undefined,
      span: undefined,
      previous: undefined,
      next: undefined
    }
    this.clients.add(client)
    this.accepted++
    this.empty.closeUnsafe()
    return client
  }

  opened(client: Client): void {
    const { connection } = client
    client.isOpen = true
    if (client.span !== undefined) Spans.opened(client.span, connection.info)
    this.publish(() => ServerEvent.Opened({ id: connection.id, info: connection.info }))
  }

  rejected(client: Client, error: ProxyProtocol.ProxyProtocolError | ReadError): Effect.Effect<void> {
    const { connection } = client
    this.turnedAway(client, error)
    this.publish(() => ServerEvent.ProxyHeaderRejected({ id: connection.id, info: connection.info, error }))
    return (isProbe(error) ? Effect.logDebug : Effect.logWarning)(`connection rejected: ${error.message}`)
  }

  refused(client: Client, error: ConnectionError | TimeoutError): Effect.Effect<void> {
    const { connection } = client
    this.turnedAway(client, error)
    this.publish(() => ServerEvent.HandshakeFailed({ id: connection.id, info: connection.info, error }))
    // Whoever scans ports causes it at will: an operator who looks for it lets it be shown.
    return Effect.logDebug(`connection refused: ${error.message}`)
  }

  private turnedAway(client: Client, error: unknown): void {
    const { span } = client
    client.fate = "aborted"
    this.refusals++
    if (span !== undefined) Spans.refused(span, this.context, error)
  }

  ended(client: Client, exit: Exit.Exit<unknown, unknown>): void {
    this.clients.remove(client)
    if (this.report !== undefined) this.report[client.fate]++
    if (client.isOpen) {
      this.publish(() => ServerEvent.Closed({ id: client.connection.id, info: client.connection.info, exit }))
    }
    if (this.clients.size === 0) this.empty.openUnsafe()
  }

  readonly shutdown = (options?: {
    readonly grace?: Duration.Input | undefined
  }): Effect.Effect<ShutdownReport> =>
    Effect.gen({ self: this }, function* () {
      const grace = options?.grace === undefined ? this.grace : checkGrace(options.grace)
      const report = yield* Effect.uninterruptible(Effect.suspend(() => this.begin()))
      yield* Effect.timeoutOption(this.empty.await, grace)
      // In a fiber of its own: the one that waits here may be a handler, and is then interrupted with the others.
      yield* Effect.forkDetach(this.cutOffAll, { startImmediately: true })
      yield* this.down.await
      return { ...report }
    })

  // Goes on to the end whoever interrupts the shutdown.
  private begin(): Effect.Effect<Record<keyof ShutdownReport, number>> {
    if (this.report !== undefined) return Effect.succeed(this.report)
    const report = (this.report = { finished: 0, interrupted: 0, aborted: 0 })
    this.publish(() => ServerEvent.ShuttingDown({ activeConnections: this.clients.size }))
    return Scope.close(this.listening, Exit.void).pipe(
      Effect.andThen(Effect.sync(() => this.drain.begin())),
      Effect.andThen(this.empty.await),
      Effect.andThen(
        Effect.sync(() => {
          PubSub.endUnsafe(this.bus, Exit.void)
          this.down.openUnsafe()
        })
      ),
      Effect.forkDetach({ startImmediately: true }),
      Effect.as(report)
    )
  }

  private get cutOffAll(): Effect.Effect<void> {
    return Effect.forEach(this.clients, (client) => this.cutOff(client), {
      concurrency: "unbounded",
      discard: true
    })
  }

  // The connection is aborted as well as the handler interrupted: a handler that cannot be interrupted while it reads or
  // writes finds the connection closed.
  private cutOff(client: Client): Effect.Effect<void> {
    client.fate = client.handling ? "interrupted" : "aborted"
    client.fiber?.interruptUnsafe()
    return client.connection.abort
  }

  private publish(make: () => ServerEvent): void {
    if (this.subscribers === 0) return
    publish(this.bus, [make()])
  }
}
