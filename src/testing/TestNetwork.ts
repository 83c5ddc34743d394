/**
 * A network in memory, for tests: what an application does over TCP and Unix sockets, it does here, with the same
 * addresses, errors and limits, and with no port, no file and no real time.
 *
 * It is one host. Every IP address is its own, so a server can listen on the address that a name stands for in
 * production. Ports that the network chooses count up from 49152, the same in every run.
 *
 * @since 0.1.0
 */
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Scheduler from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import * as AddressResolver from "effect/net/AddressResolver"
import * as Dns from "effect/net/Dns"
import * as NetAddress from "effect/net/NetAddress"
import * as Dialer from "../Dialer.ts"
import * as Limits from "../internal/limits.ts"
import { formatListen, isLocalhost, loopbacks, parseListen } from "../internal/target.ts"
import * as MemoryTransport from "../MemoryTransport.ts"
import {
  type ConnectOptions,
  type ListenAddress,
  type Listener,
  type ListenOptions,
  Network
} from "../Network.ts"
import {
  AddressInUse,
  AddressNotAvailable,
  type ConnectionErrorReason,
  ConnectionRefused,
  ListenError,
  NotFound,
  Unreachable
} from "../StreamError.ts"
import { hostName, type Identity } from "../Tls.ts"
import type { Transport } from "../Transport.ts"
import {
  certificateOf,
  describeCertificate,
  FIRST_DAY,
  LAST_DAY,
  makeIdentity
} from "./internal/certificates.ts"
import { upgradable } from "./internal/tls.ts"

/**
 * How an address is reached.
 *
 * @category models
 * @since 0.1.0
 */
export interface Route {
  /** How long an attempt to connect takes to be answered, yes or no. Default 0. An infinite one is a black hole. */
  readonly latency?: Duration.Input | undefined
  /** Whether the answer is `Unreachable`, also where somebody listens. Default `false`. */
  readonly unreachable?: boolean | undefined
}

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The names that resolve, and to which addresses, in the order of each family. Besides them only `localhost` and the
   * names below it do, to 127.0.0.1 and ::1 unless they are given here.
   */
  readonly hosts?: { readonly [name: string]: ReadonlyArray<NetAddress.IpAddressInput> } | undefined
  /** The IP addresses that are not reached at once. */
  readonly routes?: { readonly [address: string]: Route } | undefined
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
 * - the addresses of a name are raced as `Dialer.make` says; the last failure is the error's reason, and all are in its
 *   `attempts`; `routes` tells which addresses answer late, never, or as unreachable;
 * - `localAddress` is what the server sees as the peer's address; without it that is the loopback address of the same
 *   family, and a port of its own;
 * - `noDelay` and `keepAlive` are checked, and have no effect;
 * - TLS is simulated: **nothing is encrypted**, no key is used, and no certificate is verified but those of `identity`. See
 *   there.
 *
 * A `hosts` or `routes` table that contains no valid name or address is a defect.
 *
 * **Example** (An address that never answers)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Network } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   const network = yield* TestNetwork.make({
 *     hosts: { "db.internal": ["10.0.0.5", "10.0.0.6"] },
 *     routes: { "10.0.0.5": { latency: "Infinity" } }
 *   })
 *   yield* network.listen({ host: "10.0.0.6", port: 5432 })
 *   // The second address is tried after a quarter of a second.
 *   const connecting = Effect.provideService(Connection.connect("db.internal:5432"), Network.Network, network)
 *   return String((yield* connecting).info.remoteAddress)
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // 10.0.0.6:5432
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<Network["Service"]> =>
  Effect.sync(() => {
    const hosts = Result.getOrThrow(Dns.makeStatic({ hosts: options?.hosts }))
    const dns = Dns.make({
      lookup: (host) =>
        Effect.catch(hosts.lookup(host), (error) =>
          isLocalhost(host) ? Effect.succeed(loopbacks) : Effect.fail(error)
        )
    })
    return simulate({
      resolver: AddressResolver.make(dns),
      routes: new Map(
        Object.entries(options?.routes ?? {}).map(([address, route]) => [
          String(Result.getOrThrow(NetAddress.ipFromInput(address))),
          { ...route, latency: Limits.delay("latency", route.latency ?? 0) }
        ])
      )
    })
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

export { replay, ReplayError, type ReplayOptions } from "./internal/replay.ts"

/**
 * What the certificate of a simulated identity says.
 *
 * @category models
 * @since 0.1.0
 */
export interface IdentityOptions {
  /** Whom it is for: host names, `"*.example.org"`, or IP addresses. Default `localhost` and `127.0.0.1`. */
  readonly names?: ReadonlyArray<string> | undefined
  /** From when on it is valid, by the `Clock`. Default: always. */
  readonly validFrom?: DateTime.DateTime.Input | undefined
  /** Until when it is valid, by the `Clock`. Default: always. */
  readonly validTo?: DateTime.DateTime.Input | undefined
  /** Whether nobody vouches for it: it is trusted only by who has it as `ca`. Default `false`: whom the platform trusts does. */
  readonly selfSigned?: boolean | undefined
}

/**
 * An identity for simulated TLS, for servers and clients on this network. It is of no use on any other.
 *
 * What TLS on this network simulates:
 *
 * - the handshake as far as it can be seen from outside: the version, the application protocol (ALPN), the name (SNI) and the
 *   server's identity for it, client certificates, `handshakeTimeout`, and what is refused, with the `TlsError` that both
 *   sides see. A server refuses a client's certificate in the handshake, as in TLS 1.2;
 * - the certificate of such an identity is verified as its options say, at the time of the `Clock`. Any other certificate, also
 *   a real one, is not looked at, and accepted;
 * - `upgradeTls`, with what was received before; TLS inside of TLS, through a proxy;
 * - the end: a close_notify is the end of input, a FIN without one is `TlsTruncated`, an abort is a reset.
 *
 * Nothing is encrypted: the records hold what is sent as it is. Sessions are not resumed, `ciphers` have no effect, and the
 * cipher is said to be `TLS_NULL_WITH_NULL_NULL`.
 *
 * **Example** (A service with TLS, in memory)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve((connection) => connection.writer.write("hello\n"), {
 *     listen: { host: "10.0.0.5", port: 5433 },
 *     tls: { identity: TestNetwork.identity({ names: ["db.internal"] }), alpn: ["db/1"] }
 *   })
 *   const connection = yield* Connection.connect("db.internal:5433", { tls: { alpn: ["db/1"] } })
 *   console.log(connection.info.tls?.authorized, connection.info.tls?.alpn) // true db/1
 *   const wrong = Connection.connect("db.internal:5433", { tls: { servername: "other.internal" } })
 *   console.log((yield* Effect.flip(wrong)).message)
 *   // handshake on 10.0.0.5:5433: the certificate is not for other.internal
 * }).pipe(Effect.scoped, Effect.provide(TestNetwork.layerWith({ hosts: { "db.internal": ["10.0.0.5"] } })))
 *
 * await Effect.runPromise(program)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const identity = (options?: IdentityOptions): Identity =>
  makeIdentity({
    names: options?.names?.map((name) => hostName(name) ?? name) ?? ["localhost", "127.0.0.1"],
    validFrom:
      options?.validFrom === undefined ? FIRST_DAY : DateTime.makeUnsafe(options.validFrom).epochMilliseconds,
    validTo:
      options?.validTo === undefined ? LAST_DAY : DateTime.makeUnsafe(options.validTo).epochMilliseconds,
    selfSigned: options?.selfSigned ?? false
  })

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

  /** Admits a connection once there is room. Gives what ends its waiting. */
  connect(waiting: Waiting): Effect.Effect<void> {
    if (this.connecting.size === 0 && this.hasRoom()) waiting.admit()
    else this.connecting.add(waiting)
    return Effect.sync(() => {
      this.connecting.delete(waiting)
    })
  }

  /** Queues the server's end of a connection, or hands it to who waits for one. */
  offer(server: Transport): void {
    const [take] = this.accepting
    if (take === undefined) {
      this.queue.push(server)
    } else {
      this.accepting.delete(take)
      take(server)
    }
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

const unreachable = new Unreachable({ code: "EHOSTUNREACH" })

/** The address of a Unix socket that is bound to no path. */
const unnamed = NetAddress.unixPathAddress("")

const inUse = new AddressInUse({ code: "EADDRINUSE" })
const notAvailable = new AddressNotAvailable({ code: "EADDRNOTAVAIL" })

interface Simulation {
  readonly resolver: AddressResolver.AddressResolver["Service"]
  readonly routes: ReadonlyMap<
    string,
    { readonly latency: number; readonly unreachable?: boolean | undefined }
  >
}

const simulate = ({ resolver, routes }: Simulation): Network["Service"] => {
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
      return Result.fail(new AddressNotAvailable({ cause, detail: cause.message }))
    }
    return local.port !== 0 && overlapping(local).length > 0 ? Result.fail(inUse) : withFreePort(local)
  }

  /** Waits for the answer of an address, which never comes in the same turn. */
  const travel = (address: NetAddress.SocketAddress): Effect.Effect<void, Unreachable> => {
    const route = NetAddress.isInetAddress(address) ? routes.get(String(address.address)) : undefined
    const { latency, unreachable: fails } = route ?? { latency: 0 }
    if (latency === Infinity) return Effect.never
    return Effect.andThen(
      latency === 0 ? Effect.yieldNow : Effect.sleep(latency),
      fails === true ? Effect.fail(unreachable) : Effect.void
    )
  }

  const connectOne = (
    options: ConnectOptions,
    local: NetAddress.InetAddress | undefined
  ): Dialer.ConnectOne => {
    Limits.keepAlive(options.keepAlive)
    return Effect.fnUntraced(function* (address, connected) {
      const remote = concrete(canonical(address))
      const from = yield* Effect.fromResult(source(remote, local))
      const pair = yield* MemoryTransport.makePair({ localAddress: from, remoteAddress: remote })
      const dispatcher = (yield* Scheduler.Scheduler).makeDispatcher()
      const [near, far] = [upgradable(pair[0], dispatcher), upgradable(pair[1], dispatcher)]
      yield* travel(remote)
      yield* Effect.callback<void, ConnectionErrorReason>((resume) => {
        const bound = reach(remote)
        if (bound === undefined) return resume(Effect.fail(nobodyAt(remote)))
        return bound.connect({
          admit: () => {
            bound.offer(far)
            connected(near)
            resume(Effect.void)
          },
          refuse: () => resume(Effect.fail(refused))
        })
      })
    })
  }

  const listen = (
    address: ListenAddress,
    options?: ListenOptions
  ): Effect.Effect<Listener, ListenError, Scope.Scope> =>
    Effect.gen(function* () {
      const backlog = Limits.backlog(options?.backlog)
      Limits.keepAlive(options?.keepAlive)
      const dispatcher = (yield* Scheduler.Scheduler).makeDispatcher()
      const destination = yield* Effect.fromResult(parseListen(address))
      // A name stands for the first of its addresses.
      const wanted =
        destination._tag === "Any"
          ? anyAddress(destination.port)
          : destination._tag === "Host"
            ? (yield* Dialer.resolve(resolver, destination))[0]
            : canonical(destination.address)

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

  return Network.of({
    connect: Dialer.make({ resolver, connectOne }),
    listen,
    checkTls: ({ identity }) => Effect.sync(() => describeCertificate(certificateOf(identity.current())))
  })
}
