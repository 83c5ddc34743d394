/**
 * A network in memory, for tests: what an application does over TCP and Unix sockets, it does here, with the same
 * addresses, errors and limits, and with no port, no file and no real time.
 *
 * It is one host. Every IP address is its own, so a server can listen on the address that a name stands for in
 * production. Ports that the network chooses count up from 49152, the same in every run.
 *
 * @since 0.1.0
 */
import { Array as Arr, Duration, Effect, Equal, Exit, Layer, Result, Scheduler, type Scope } from "effect"
import { AddressResolver, Dns, NetAddress } from "effect/net"
import * as Limits from "../internal/limits.ts"
import {
  formatListen,
  formatTarget,
  parseListen,
  parseLocalAddress,
  parseTarget,
  type TargetDestination
} from "../internal/target.ts"
import * as MemoryTransport from "../MemoryTransport.ts"
import {
  type ConnectOptions,
  type ListenAddress,
  type Listener,
  type ListenOptions,
  Network,
  type Target
} from "../Network.ts"
import {
  AddressInUse,
  AddressNotAvailable,
  type ConnectAttempt,
  ConnectionError,
  type ConnectionErrorReason,
  ConnectionRefused,
  InvalidAddress,
  ListenError,
  NameNotResolved,
  NotFound,
  TimeoutError
} from "../StreamError.ts"
import type { Transport } from "../Transport.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The names that resolve, and to which addresses, in the order in which they are tried. Besides them only `localhost`
   * does, to 127.0.0.1 unless it is given here.
   */
  readonly hosts?: { readonly [name: string]: ReadonlyArray<NetAddress.IpAddressInput> } | undefined
}

/**
 * Makes a network of its own: what listens on one network is not reached from another.
 *
 * `connect` and `listen` behave as `Network` says. In particular
 *
 * - an address that nobody listens on refuses (`ConnectionRefused`), a Unix path that nobody listens on is `NotFound`, a
 *   name that is not in `hosts` is `NameNotResolved`;
 * - a listener without a host, or on `::`, is reached through every address, one on `0.0.0.0` through every IPv4 address;
 * - a listener queues at most `backlog` connections that were not accepted yet (511 unless set); further
 *   connects wait for room, up to `connectTimeout` (default 10 seconds);
 * - a name with several addresses is tried in their order; the last failure is the error's reason, and all are in its
 *   `attempts`;
 * - `localAddress` is what the server sees as the peer's address; without it that is the loopback address of the same
 *   family, and a port of its own;
 * - `noDelay` and `keepAlive` have no effect.
 *
 * A `hosts` table that contains no valid name or address is a defect.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<Network["Service"]> =>
  Effect.sync(() => {
    const hosts = Dns.makeStatic({ hosts: { localhost: [NetAddress.ipv4Loopback], ...options?.hosts } })
    return simulate(AddressResolver.make(Result.getOrThrow(hosts)))
  })

/**
 * A network in memory, in which no name but `localhost` resolves. See `make` for how it behaves.
 *
 * **Example** (Serving and connecting without a port)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve((connection) => connection.writer.write("hello\n"), { listen: { port: 7000 } })
 *   return yield* Connection.use("localhost:7000", (connection) => connection.reader.readLineString)
 * }).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))
 *
 * console.log(await Effect.runPromise(program)) // some("hello")
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Network> = Layer.effect(Network, make())

/**
 * A network in memory with names of its own.
 *
 * **Example** (A name as in production)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Network } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   const network = yield* Network.Network
 *   yield* network.listen({ host: "10.0.0.5", port: 5432 })
 *   const transport = yield* network.connect("db.internal:5432")
 *   return String(transport.remoteAddress)
 * }).pipe(Effect.scoped, Effect.provide(TestNetwork.layerWith({ hosts: { "db.internal": ["10.0.0.5"] } })))
 *
 * console.log(await Effect.runPromise(program)) // 10.0.0.5:5432
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options: Options): Layer.Layer<Network> => Layer.effect(Network, make(options))

const defaultConnectTimeout = Duration.seconds(10)
const firstEphemeralPort = 49_152
const lastPort = 65_535

const refused = new ConnectionRefused({ code: "ECONNREFUSED" })

/**
 * Has the fiber yield before the effect rather than, as it happens, behind it: interrupted there, it would lose the
 * connection that the effect has given it.
 */
const yieldingFirst = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.andThen(Effect.yieldNow, effect)

/** A connect that waits until the listener has room, or is closed. */
interface Waiting {
  readonly admit: () => void
  readonly refuse: () => void
}

/** A bound address, with its queue of connections that were not accepted yet. */
class Bound {
  readonly address: NetAddress.SocketAddress
  readonly reusePort: boolean
  private readonly backlog: number
  private readonly dispatcher: Scheduler.SchedulerDispatcher
  private readonly queue: Array<Transport> = []
  private readonly connecting = new Set<Waiting>()
  private readonly accepting = new Set<(server: Transport) => void>()

  constructor(
    address: NetAddress.SocketAddress,
    reusePort: boolean,
    backlog: number,
    dispatcher: Scheduler.SchedulerDispatcher
  ) {
    this.address = address
    this.reusePort = reusePort
    this.backlog = backlog
    this.dispatcher = dispatcher
  }

  /** Queues the server's end of a connection once there is room. */
  connect(
    server: Transport,
    resume: (connected: Effect.Effect<void, ConnectionRefused>) => void
  ): Effect.Effect<void> {
    const waiting: Waiting = {
      admit: () => {
        this.offer(server)
        resume(Effect.void)
      },
      refuse: () => resume(Effect.fail(refused))
    }
    if (this.connecting.size === 0 && this.hasRoom()) waiting.admit()
    else this.connecting.add(waiting)
    return Effect.sync(() => {
      this.connecting.delete(waiting)
    })
  }

  private readonly next: Effect.Effect<Transport> = Effect.callback((resume) => {
    const server = this.queue.shift()
    if (server !== undefined) {
      // Not now: what a client does next might interrupt this very fiber, and the connection would be lost.
      if (this.connecting.size > 0) this.dispatcher.scheduleTask(this.admit, 0)
      return resume(Effect.succeed(server))
    }
    const take = (server: Transport) => resume(Effect.succeed(server))
    this.accepting.add(take)
    return Effect.sync(() => {
      this.accepting.delete(take)
    })
  })

  readonly accept = yieldingFirst(this.next)

  close(): void {
    for (const server of this.queue.splice(0)) server.abort()
    for (const waiting of [...this.connecting]) {
      this.connecting.delete(waiting)
      waiting.refuse()
    }
  }

  private hasRoom(): boolean {
    return this.queue.length < this.backlog
  }

  private offer(server: Transport): void {
    const [take] = this.accepting
    if (take === undefined) {
      this.queue.push(server)
    } else {
      this.accepting.delete(take)
      take(server)
    }
  }

  private readonly admit = (): void => {
    for (const waiting of this.connecting) {
      if (!this.hasRoom()) return
      this.connecting.delete(waiting)
      waiting.admit()
    }
  }
}

/** Whether a listener on `bound` is reached through `address`, which has the same port. */
const covers = (bound: NetAddress.SocketAddress, address: NetAddress.SocketAddress): boolean =>
  Equal.equals(bound, address) ||
  (NetAddress.isInetAddress(bound) &&
    NetAddress.isInetAddress(address) &&
    NetAddress.isUnspecified(bound.address) &&
    (NetAddress.isInetAddressV6(bound) || NetAddress.isInetAddressV4(address)))

const withPort = (address: NetAddress.InetAddress, port: number): NetAddress.InetAddress =>
  NetAddress.isInetAddressV4(address)
    ? NetAddress.inetAddressUnsafe(address.address, port)
    : NetAddress.inetAddressFromInputUnsafe({ address: address.address, port, scopeId: address.scopeId })

const anyAddress = (port: number): NetAddress.InetAddress =>
  NetAddress.inetAddressUnsafe(NetAddress.ipv6Unspecified, port)

/** An IPv4 address may be dressed as IPv6. */
const canonical = <A extends NetAddress.SocketAddress>(address: A): A | NetAddress.InetAddress =>
  NetAddress.isInetAddress(address) ? NetAddress.toCanonical(address) : address

/** The address that a wildcard stands for on the connecting side. */
const concrete = <A extends NetAddress.SocketAddress>(address: A): A | NetAddress.InetAddress =>
  NetAddress.isInetAddress(address) && NetAddress.isUnspecified(address.address)
    ? NetAddress.inetAddressUnsafe(loopback(address), address.port)
    : address

const loopback = (address: NetAddress.InetAddress): NetAddress.IpAddress =>
  NetAddress.isInetAddressV4(address) ? NetAddress.ipv4Loopback : NetAddress.ipv6Loopback

const key = (address: NetAddress.SocketAddress): number | string =>
  NetAddress.isUnixPathAddress(address) ? address.path : address.port

const nobodyAt = (address: NetAddress.SocketAddress): ConnectionErrorReason =>
  // An abstract Unix address is no file that could be missing.
  NetAddress.isUnixPathAddress(address) && !address.path.startsWith("\0")
    ? new NotFound({ code: "ENOENT" })
    : refused

/** The address of a Unix socket that is bound to no path. */
const unnamed = NetAddress.unixPathAddress("")

const inUse = new AddressInUse({ code: "EADDRINUSE" })
const notAvailable = new AddressNotAvailable({ code: "EADDRNOTAVAIL" })

/** Why a connect failed: of several addresses that were tried, the last one's reason, and all of them. */
interface ConnectFailure {
  readonly reason: ConnectionErrorReason
  readonly attempts?: ReadonlyArray<ConnectAttempt> | undefined
}

const because = (reason: ConnectionErrorReason): ConnectFailure => ({ reason })

const simulate = (resolver: AddressResolver.AddressResolver["Service"]): Network["Service"] => {
  const listeners = new Map<number | string, Array<Bound>>()
  let nextPort = firstEphemeralPort
  let turn = 0

  const at = (address: NetAddress.SocketAddress): ReadonlyArray<Bound> => listeners.get(key(address)) ?? []

  const overlapping = (address: NetAddress.SocketAddress): ReadonlyArray<Bound> =>
    at(address).filter((bound) => covers(bound.address, address) || covers(address, bound.address))

  /** The listener that a connection to `address` comes to: of several that share a port, the next in turn. */
  const reach = (address: NetAddress.SocketAddress): Bound | undefined => {
    const reached = at(address).filter((bound) => covers(bound.address, address))
    return reached.length < 2 ? reached[0] : reached[turn++ % reached.length]
  }

  /** The address with a port that nobody listens on, where the port was left open. */
  const withFreePort = (
    address: NetAddress.SocketAddress
  ): Result.Result<NetAddress.SocketAddress, AddressNotAvailable> => {
    if (NetAddress.isUnixPathAddress(address) || address.port !== 0) return Result.succeed(address)
    for (let tries = firstEphemeralPort; tries <= lastPort; tries++) {
      const candidate = withPort(address, nextPort)
      nextPort = nextPort === lastPort ? firstEphemeralPort : nextPort + 1
      if (overlapping(candidate).length === 0) return Result.succeed(candidate)
    }
    return Result.fail(notAvailable)
  }

  const resolve = (
    destination: TargetDestination
  ): Effect.Effect<Arr.NonEmptyReadonlyArray<NetAddress.SocketAddress>, InvalidAddress | NameNotResolved> =>
    destination._tag === "Host"
      ? Effect.mapError(resolver.resolve(destination), (cause) =>
          cause._tag === "DnsError"
            ? new NameNotResolved({ code: "ENOTFOUND", cause })
            : new InvalidAddress({ detail: cause.message, cause })
        )
      : Effect.succeed(Arr.of(canonical(destination.address)))

  /** The address that a connection to `remote` comes from. */
  const source = (
    remote: NetAddress.SocketAddress,
    wanted: NetAddress.InetAddress | undefined
  ): Result.Result<NetAddress.SocketAddress, ConnectionErrorReason> => {
    if (NetAddress.isUnixPathAddress(remote)) return Result.succeed(unnamed)
    const local =
      wanted === undefined ? NetAddress.inetAddressUnsafe(loopback(remote), 0) : concrete(canonical(wanted))
    if (local._tag !== remote._tag) {
      const cause = new Error(
        `the local address ${NetAddress.formatSocketAddress(local)} is of another family`
      )
      return Result.fail(new AddressNotAvailable({ cause }))
    }
    return local.port !== 0 && overlapping(local).length > 0 ? Result.fail(inUse) : withFreePort(local)
  }

  const connect = (
    target: Target,
    options?: ConnectOptions
  ): Effect.Effect<Transport, ConnectionError | TimeoutError> =>
    Effect.suspend(() => {
      const address = formatTarget(target)
      const duration = Duration.fromInputUnsafe(options?.connectTimeout ?? defaultConnectTimeout)
      let client: Transport | undefined

      const reachOne = Effect.fnUntraced(function* (
        remote: NetAddress.SocketAddress,
        local: NetAddress.SocketAddress
      ): Effect.fn.Return<Transport, ConnectionErrorReason> {
        const [near, far] = yield* MemoryTransport.makePair({ localAddress: local, remoteAddress: remote })
        client = near
        yield* Effect.callback<void, ConnectionErrorReason>((resume) => {
          const bound = reach(remote)
          return bound === undefined ? resume(Effect.fail(nobodyAt(remote))) : bound.connect(far, resume)
        })
        return near
      })

      const reachAny = Effect.fnUntraced(function* (
        addresses: ReadonlyArray<NetAddress.SocketAddress>,
        local: NetAddress.InetAddress | undefined
      ): Effect.fn.Return<Transport, ConnectFailure> {
        const attempts: Array<ConnectAttempt> = []
        let reason: ConnectionErrorReason = refused
        for (const remote of addresses.map(concrete)) {
          const result = yield* Effect.fromResult(source(remote, local)).pipe(
            Effect.flatMap((from) => reachOne(remote, from)),
            Effect.result
          )
          if (Result.isSuccess(result)) return result.success
          reason = result.failure
          attempts.push({ address: NetAddress.formatSocketAddress(remote), reason })
        }
        return yield* Effect.fail({ reason, attempts })
      })

      const dial = Effect.gen(function* () {
        const destination = yield* Effect.mapError(Effect.fromResult(parseTarget(target)), because)
        const local =
          options?.localAddress === undefined
            ? undefined
            : yield* Effect.mapError(Effect.fromResult(parseLocalAddress(options.localAddress)), because)
        const addresses = yield* Effect.mapError(resolve(destination), because)
        return yield* reachAny(addresses, local)
      })

      return dial.pipe(
        Effect.mapError((failure) => new ConnectionError({ operation: "connect", address, ...failure })),
        Effect.timeoutOrElse({
          duration,
          orElse: () => Effect.fail(new TimeoutError({ operation: "connect", duration, address }))
        }),
        // The server may have its end already, and has to see that nobody is there.
        Effect.onExit((exit) => (Exit.isFailure(exit) ? Effect.sync(() => client?.abort()) : Effect.void)),
        yieldingFirst
      )
    })

  const listen = (
    address: ListenAddress,
    options?: ListenOptions
  ): Effect.Effect<Listener, ListenError, Scope.Scope> =>
    Effect.gen(function* () {
      const backlog = Limits.backlog(options?.backlog)
      const dispatcher = (yield* Scheduler.Scheduler).makeDispatcher()
      const destination = yield* Effect.fromResult(parseListen(address))
      // A name stands for the first of its addresses.
      const wanted =
        destination._tag === "Any" ? anyAddress(destination.port) : (yield* resolve(destination))[0]

      const bind = Effect.suspend((): Effect.Effect<Bound, AddressInUse | AddressNotAvailable> => {
        const free = withFreePort(wanted)
        if (Result.isFailure(free)) return Effect.fail(free.failure)
        const reusePort = options?.reusePort === true && NetAddress.isInetAddress(free.success)
        if (overlapping(free.success).some((bound) => !(bound.reusePort && reusePort)))
          return Effect.fail(inUse)
        const bound = new Bound(free.success, reusePort, backlog, dispatcher)
        listeners.set(key(bound.address), [...at(bound.address), bound])
        return Effect.succeed(bound)
      })

      const close = (bound: Bound) =>
        Effect.sync(() => {
          const others = at(bound.address).filter((other) => other !== bound)
          if (others.length > 0) listeners.set(key(bound.address), others)
          else listeners.delete(key(bound.address))
          bound.close()
        })

      const bound = yield* Effect.acquireRelease(bind, close)
      return { address: bound.address, accept: bound.accept, close: close(bound) }
    }).pipe(Effect.mapError((reason) => new ListenError({ address: formatListen(address), reason })))

  return Network.of({ connect, listen })
}
