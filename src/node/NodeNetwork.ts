/**
 * The operating system's network: TCP and Unix sockets of Node.
 *
 * @since 0.1.0
 */
import * as NodeAddressResolver from "@effect/platform-node/NodeAddressResolver"
import * as NodeDns from "@effect/platform-node/NodeDns"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as AddressResolver from "effect/net/AddressResolver"
import * as Dns from "effect/net/Dns"
import * as NetAddress from "effect/net/NetAddress"
import { randomUUID } from "node:crypto"
import * as fs from "node:fs"
import * as net from "node:net"
import { devNull } from "node:os"
import * as path from "node:path"
import * as Dialer from "../Dialer.ts"
import { codeOf } from "../internal/code.ts"
import * as Limits from "../internal/limits.ts"
import {
  type AnyDestination,
  formatListen,
  type InetDestination,
  parseListen,
  type UnixDestination
} from "../internal/target.ts"
import {
  type ConnectOptions,
  type ListenAddress,
  type Listener,
  type ListenOptions,
  Network,
  type SocketOptions
} from "../Network.ts"
import {
  AddressNotAvailable,
  type ConnectionErrorReason,
  ListenError,
  listenErrorFromCause,
  type ListenErrorReason,
  NotFound,
  reasonFromCause
} from "../StreamError.ts"
import type { Transport } from "../Transport.ts"
import { interfaceScopeIds } from "./internal/interfaces.ts"
import * as TlsContext from "./internal/tlsContext.ts"
import * as NodeTransport from "./NodeTransport.ts"

/** More failures to accept than these are not kept for `accept`: they tell nothing new. */
const MAX_ACCEPT_FAILURES = 8

/** Looking for a free descriptor costs as much as a fifth of a short connection, so many share it. */
const PROBE_MILLIS = 10

const nativeHost = (address: NetAddress.InetAddress): string =>
  NetAddress.isInetAddressV6(address) && address.scopeId !== 0
    ? NetAddress.formatNativeHost(address, interfaceScopeIds(), process.platform)
    : NetAddress.formatHost(address)

const nativeOptions = ({ keepAlive, noDelay }: SocketOptions) => {
  const idle = Limits.keepAlive(keepAlive)
  if (typeof idle === "boolean") return { noDelay: noDelay ?? true, keepAlive: idle }
  // The system counts whole seconds, and takes 0 for its own default.
  return {
    noDelay: noDelay ?? true,
    keepAlive: true,
    keepAliveInitialDelay: Math.ceil(idle / 1000) * 1000
  }
}

const openSocket = (
  options: net.NetConnectOpts,
  addresses: NodeTransport.Options,
  connected: (transport: Transport) => void
): Effect.Effect<void, ConnectionErrorReason> =>
  Effect.callback((resume) => {
    const socket = net.connect(options)
    const onError = (cause: Error): void => resume(Effect.fail(reasonFromCause(cause)))
    const onConnect = (): void => {
      const transport = NodeTransport.fromOwnSocket(socket, addresses)
      socket.off("error", onError)
      connected(transport)
      resume(Effect.void)
    }
    socket.on("error", onError)
    socket.once("connect", onConnect)
    return Effect.sync(() => {
      if (socket.listenerCount("connect", onConnect) > 0) socket.destroy()
    })
  })

const connectOne = (
  options: ConnectOptions,
  local: NetAddress.InetAddress | undefined
): Dialer.ConnectOne => {
  const socketOptions = nativeOptions(options)
  const localOptions =
    local === undefined ? undefined : { localAddress: nativeHost(local), localPort: local.port }
  return (address, connected) =>
    NetAddress.isUnixPathAddress(address)
      ? openSocket(
          { path: address.path, allowHalfOpen: true },
          { kind: "unix", localAddress: unnamed, remoteAddress: address },
          connected
        )
      : openSocket(
          {
            host: nativeHost(address),
            port: address.port,
            allowHalfOpen: true,
            autoSelectFamily: false,
            ...socketOptions,
            ...localOptions
          },
          { kind: "tcp" },
          connected
        )
}

/** The address of a Unix socket that is bound to no path. */
const unnamed = NetAddress.unixPathAddress("")

/** A fiber that waits for a connection. */
interface Acceptor {
  readonly resume: (effect: Effect.Effect<Transport, ListenError>) => void
  /** What it was given, and gives back if it is interrupted before it has taken it. */
  offered: Transport | undefined
}

/** Who takes all connections that come. */
interface Taker {
  readonly serve: (transport: Transport) => void
  readonly fail: (error: ListenError) => void
}

/** The accepted connections that nobody has asked for yet, and the fibers that ask while there are none. */
class AcceptQueue {
  private readonly address: string
  private readonly backlog: number
  private readonly transports: Array<Transport> = []
  private readonly failures: Array<ListenError> = []
  private readonly acceptors: Array<Acceptor> = []
  private taker: Taker | undefined = undefined
  private probe: NodeJS.Timeout | undefined = undefined
  private exhausted = false
  private closed = false

  constructor(address: string, backlog: number) {
    this.address = address
    this.backlog = backlog
  }

  readonly accept: Effect.Effect<Transport, ListenError> = Effect.callback((resume) => {
    const acceptor: Acceptor = { resume, offered: undefined }
    this.acceptors.push(acceptor)
    // Later: only a fiber that was suspended gives back what it was offered.
    if (this.transports.length + this.failures.length > 0) queueMicrotask(this.serve)
    return Effect.sync(() => this.withdraw(acceptor))
  })

  readonly acceptAll = (serve: Taker["serve"]): Effect.Effect<never, ListenError> =>
    Effect.callback((resume) => {
      const taker: Taker = { serve, fail: (error) => resume(Effect.fail(error)) }
      this.taker = taker
      this.serve()
      return Effect.sync(() => {
        if (this.taker === taker) this.taker = undefined
      })
    })

  add(transport: Transport): void {
    // Node accepts on its own and cannot be told to stop: the surplus is turned away.
    if (this.closed || this.transports.length >= this.backlog) {
      transport.abort()
      return
    }
    this.probe ??= setTimeout(this.onProbe, PROBE_MILLIS)
    if (this.taker !== undefined && this.transports.length === 0) return this.taker.serve(transport)
    this.transports.push(transport)
    this.serve()
  }

  fail(cause: unknown): void {
    if (this.closed || this.failures.length >= MAX_ACCEPT_FAILURES) return
    this.failures.push(listenErrorFromCause({ cause, address: this.address, operation: "accept" }))
    this.serve()
  }

  close(): void {
    this.closed = true
    clearTimeout(this.probe)
    this.failures.length = 0
    for (const transport of this.transports.splice(0)) transport.abort()
  }

  // Out of descriptors, libuv accepts connections and closes them at once, and says so to nobody. All that can be seen
  // is that the table is full, so that is looked at shortly after something was accepted.
  private readonly onProbe = (): void => {
    this.probe = undefined
    const cause = descriptorFailure()
    if (cause !== undefined && !this.exhausted) this.fail(cause)
    this.exhausted = cause !== undefined
  }

  private readonly serve = (): void => {
    if (this.taker !== undefined) this.serveTaker(this.taker)
    for (let acceptor = this.acceptors[0]; acceptor !== undefined; acceptor = this.acceptors[0]) {
      const effect = this.offer(acceptor)
      if (effect === undefined) return
      this.acceptors.shift()
      acceptor.resume(effect)
    }
  }

  private serveTaker({ fail, serve }: Taker): void {
    for (let next = this.transports.shift(); next !== undefined; next = this.transports.shift()) serve(next)
    const failure = this.failures.shift()
    if (failure === undefined) return
    this.taker = undefined
    fail(failure)
  }

  private offer(acceptor: Acceptor): Effect.Effect<Transport, ListenError> | undefined {
    const transport = this.transports.shift()
    if (transport === undefined) {
      const failure = this.failures.shift()
      return failure === undefined ? undefined : Effect.fail(failure)
    }
    acceptor.offered = transport
    return Effect.succeed(transport)
  }

  // The fiber is interrupted. What it was offered and has not taken is the next one's.
  private withdraw(acceptor: Acceptor): void {
    const index = this.acceptors.indexOf(acceptor)
    if (index !== -1) this.acceptors.splice(index, 1)
    const { offered } = acceptor
    if (offered === undefined) return
    if (this.closed) {
      offered.abort()
    } else {
      this.transports.unshift(offered)
      this.serve()
    }
  }
}

/** Why no descriptor can be had, if so. */
const descriptorFailure = (): unknown => {
  try {
    fs.closeSync(fs.openSync(devNull, "r"))
    return undefined
  } catch (cause) {
    return reasonFromCause(cause)._tag === "ResourcesExhausted" ? cause : undefined
  }
}

/** Binds and listens. A server whose attempt failed can be told to listen again. */
const bind = (server: net.Server, options: net.ListenOptions): Effect.Effect<void, Error> =>
  Effect.callback((resume) => {
    const onListening = (): void => {
      server.off("error", onError)
      resume(Effect.void)
    }
    const onError = (error: Error): void => {
      server.off("listening", onListening)
      resume(Effect.fail(error))
    }
    server.once("error", onError)
    server.once("listening", onListening)
    server.listen(options)
  })

interface PathEntry {
  /** Tells whether a path still names the same file. */
  readonly identity: string
  readonly isSocket: boolean
}

/** What is at a path. An abstract name is nothing in the file system. */
const entryAt = (path: string): PathEntry | undefined => {
  try {
    const stats = fs.lstatSync(path, { bigint: true })
    return { identity: `${stats.dev}:${stats.ino}:${stats.birthtimeNs}`, isSocket: stats.isSocket() }
  } catch {
    return undefined
  }
}

/** Whether nobody listens on the socket file any more: only a refusal proves it. */
const isStale = (path: string): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const probe = net.connect({ path })
    const settle = (stale: boolean): void => {
      probe.destroy()
      resume(Effect.succeed(stale))
    }
    probe.once("connect", () => settle(false))
    probe.on("error", (error) => settle(codeOf(error) === "ECONNREFUSED"))
    return Effect.sync(() => {
      probe.destroy()
    })
  })

/** Listens on a path; the socket file of a server that is gone is replaced. */
const bindPath = (
  server: net.Server,
  options: net.ListenOptions & { readonly path: string }
): Effect.Effect<void, Error> =>
  Effect.catchIf(
    bind(server, options),
    (error) => codeOf(error) === "EADDRINUSE",
    Effect.fnUntraced(function* (error: Error): Effect.fn.Return<void, Error> {
      const found = entryAt(options.path)
      if (found?.isSocket !== true || !(yield* isStale(options.path))) return yield* Effect.fail(error)
      // Nothing else of this process runs between the check and the new file.
      if (entryAt(options.path)?.identity === found.identity) {
        yield* Effect.try({ try: () => fs.unlinkSync(options.path), catch: () => error })
      }
      return yield* bind(server, options)
    })
  )

/**
 * Closes a server on a path. libuv removes whatever is at the path by then, so what took the place of the server's own
 * file is moved aside meanwhile.
 */
const closePath = (server: net.Server, file: string, own: PathEntry | undefined): void => {
  const found = entryAt(file)
  if (found === undefined || found.identity === own?.identity) {
    server.close()
    return
  }
  const aside = path.join(path.dirname(file), `.${randomUUID()}`)
  try {
    fs.renameSync(file, aside)
    server.close()
    fs.renameSync(aside, file)
  } catch {
    // A directory that may not be written to: libuv cannot remove anything there either.
    server.close()
  }
}

interface Binding {
  readonly destination: InetDestination | AnyDestination | UnixDestination
  readonly address: string
  readonly backlog: number
  readonly options: ListenOptions
}

const bindTo = (
  server: net.Server,
  { backlog, destination, options }: Binding
): Effect.Effect<void, Error> => {
  if (destination._tag === "Unix") return bindPath(server, { path: destination.path, backlog })
  const reusePort = options.reusePort ?? false
  return destination._tag === "Any"
    ? bind(server, { port: destination.port, backlog, reusePort })
    : bind(server, {
        host: nativeHost(destination.address),
        port: destination.address.port,
        backlog,
        reusePort
      })
}

const bindError = ({ address, destination }: Binding, cause: Error): ListenError => {
  // libuv reports a directory that is missing as one that may not be entered.
  const isMissing =
    destination._tag === "Unix" &&
    codeOf(cause) === "EACCES" &&
    !fs.existsSync(path.dirname(destination.path))
  return isMissing
    ? new ListenError({
        address,
        reason: new NotFound({ code: "ENOENT", cause })
      })
    : listenErrorFromCause({ address, cause })
}

const boundAddress = (server: net.Server): NetAddress.InetAddress => {
  const address = server.address()
  if (address === null || typeof address === "string")
    throw new Error("the server is not bound to an IP address")
  return NetAddress.inetAddressFromNativeUnsafe(address.address, address.port, interfaceScopeIds())
}

/** The own address of every connection, if the listener is bound to one alone: the system need not be asked for it. */
const localAddressOf = (
  destination: Binding["destination"],
  bound: NetAddress.SocketAddress
): NetAddress.SocketAddress | undefined =>
  destination._tag === "Inet" && !NetAddress.isUnspecified(destination.address.address) ? bound : undefined

const open = Effect.fnUntraced(function* (binding: Binding): Effect.fn.Return<Listener, ListenError> {
  const { destination } = binding
  const server = net.createServer({
    allowHalfOpen: true,
    pauseOnConnect: true,
    ...nativeOptions(binding.options)
  })
  yield* Effect.mapError(bindTo(server, binding), (cause) => bindError(binding, cause))
  const isUnix = destination._tag === "Unix"
  const address = isUnix ? destination.address : boundAddress(server)
  const queue = new AcceptQueue(NetAddress.formatSocketAddress(address), binding.backlog)
  const addresses: NodeTransport.Options = isUnix
    ? { kind: "unix", localAddress: address, remoteAddress: unnamed }
    : { kind: "tcp", localAddress: localAddressOf(destination, address) }
  server.on("connection", (socket) => queue.add(NodeTransport.fromOwnSocket(socket, addresses)))
  server.on("error", (cause) => queue.fail(cause))
  const own = isUnix ? entryAt(destination.path) : undefined
  return {
    address,
    accept: queue.accept,
    acceptAll: queue.acceptAll,
    close: Effect.sync(() => {
      if (!server.listening) return
      queue.close()
      if (isUnix) closePath(server, destination.path, own)
      else server.close()
    })
  }
})

const makeListen =
  (resolver: AddressResolver.AddressResolver["Service"]) =>
  (address: ListenAddress, options: ListenOptions = {}): Effect.Effect<Listener, ListenError, Scope.Scope> =>
    Effect.gen(function* () {
      const text = formatListen(address)
      const backlog = Limits.backlog(options.backlog)
      const failWith = (reason: ListenErrorReason) => new ListenError({ address: text, reason })
      const destination = yield* Effect.mapError(Effect.fromResult(parseListen(address)), failWith)
      const listen = (destination: Binding["destination"]) =>
        Effect.acquireRelease(
          open({ destination, address: text, backlog, options }),
          (listener) => listener.close
        )
      if (destination._tag !== "Host") return yield* listen(destination)
      const addresses = yield* Effect.mapError(Dialer.resolve(resolver, destination), failWith)
      // The first address of the host's that is one of this machine's.
      let error = failWith(new AddressNotAvailable({}))
      for (const address of addresses) {
        const result = yield* Effect.result(listen({ _tag: "Inet", address }))
        if (Result.isSuccess(result)) return result.success
        error = result.failure
        if (error.reason._tag !== "AddressNotAvailable") break
      }
      return yield* Effect.fail(error)
    })

/**
 * The operating system's network, with names resolved by the `AddressResolver` that is provided, such as one with
 * static entries. It is asked for every name, `localhost` included. Otherwise the same as `layer`.
 *
 * It is made anew wherever it is provided: parts of a program may have resolvers of their own.
 *
 * **Example** (A name of one's own)
 *
 * ```ts
 * import { Layer, Result } from "effect"
 * import { AddressResolver, Dns } from "effect/net"
 * import { NodeNetwork } from "effect-wire/node"
 *
 * const dns = Result.getOrThrow(Dns.makeStatic({ hosts: { "db.internal": ["127.0.0.1"] } }))
 *
 * export const network = NodeNetwork.layerWithResolver.pipe(
 *   Layer.provide(Layer.succeed(AddressResolver.AddressResolver, AddressResolver.make(dns)))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWithResolver: Layer.Layer<Network, never, AddressResolver.AddressResolver> = Layer.fresh(
  Layer.effect(
    Network,
    Effect.map(Effect.service(AddressResolver.AddressResolver), (resolver) =>
      Network.of({
        connect: Dialer.make({ resolver, connectOne }),
        listen: makeListen(resolver),
        checkTls: TlsContext.check
      })
    )
  )
)

/**
 * The operating system's network: TCP and Unix sockets, names resolved by the system.
 *
 * **Details**
 *
 * - `localhost` and the names below it are 127.0.0.1 and ::1, and nobody is asked (RFC 6761): see `Dialer.withLocalhost`.
 * - The addresses of a name are raced, as `Dialer.make` says. The error of a `connect` that failed lists them all in
 *   `attempts`, with the last one's reason.
 * - A missing host means all interfaces: both IP families where the system has IPv6, IPv4 otherwise.
 * - The socket file that a server left behind is replaced, and only that: a live server's, a plain file or a directory
 *   at the path is `AddressInUse`. Closing removes the file if it is still the listener's own.
 * - Node accepts connections as soon as they come. Those that nobody has asked for with `accept` wait, unread, in a queue
 *   of `backlog` connections (on top of the kernel's queue); more are reset. As in the kernel's queue, one whose peer has
 *   gone meanwhile is handed out all the same, and ends when it is read.
 * - Out of file descriptors, libuv accepts what comes and closes it at once, without a word; peers see a connection that
 *   ends. `accept` fails once with `ResourcesExhausted` when accepting has used up the last descriptor, and goes on
 *   accepting when there are descriptors again.
 *
 * **Example** (A client)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-wire"
 * import { NodeNetwork } from "effect-wire/node"
 *
 * export const time = Effect.scoped(
 *   Effect.gen(function* () {
 *     const connection = yield* Connection.connect({ host: "127.0.0.1", port: 13 })
 *     return yield* connection.reader.readLineString
 *   })
 * ).pipe(Effect.provide(NodeNetwork.layer))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Network> = layerWithResolver.pipe(
  Layer.provide(NodeAddressResolver.layer),
  Layer.provide(Layer.effect(Dns.Dns, Effect.map(Effect.service(Dns.Dns), Dialer.withLocalhost))),
  Layer.provide(NodeDns.layer),
  // Else its resolver would be that of whoever has one of the same kind within, with a `Dns` of their own.
  Layer.fresh
)
