/**
 * Reaching a host that has several addresses: Happy Eyeballs version 2 (RFC 8305).
 *
 * The addresses of a name are tried in parallel, each a little later than the one before, IPv6 and IPv4 in turns. The
 * first that connects wins; the other attempts are given up. A network of one's own gets all of that, with the limits and
 * errors of `Network.connect`, from `make` and one function that connects to one address.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as AddressResolver from "effect/net/AddressResolver"
import * as Dns from "effect/net/Dns"
import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import { codeOf } from "./internal/code.ts"
import * as Limits from "./internal/limits.ts"
import {
  formatTarget,
  isLocalhost,
  loopbacks,
  type HostDestination,
  parseLocalAddress,
  parseTarget,
  type TargetDestination
} from "./internal/target.ts"
import { within } from "./internal/within.ts"
import type { ConnectOptions, Network } from "./Network.ts"
import {
  AddressNotAvailable,
  type ConnectAttempt,
  ConnectionError,
  type ConnectionErrorReason,
  InvalidAddress,
  NameNotResolved,
  reasonFromCause,
  type TimeoutError,
  UnknownReason
} from "./StreamError.ts"
import type { Transport } from "./Transport.ts"

/**
 * One attempt: connects to one address.
 *
 * `connected` is called with the transport as soon as there is one, before the effect succeeds; from then on the transport
 * is the dialer's, whatever becomes of the effect. Interrupting the effect before leaves nothing behind.
 *
 * @category models
 * @since 0.1.0
 */
export type ConnectOne = (
  address: NetAddress.SocketAddress,
  connected: (transport: Transport) => void
) => Effect.Effect<void, ConnectionErrorReason>

/**
 * What a dialer is made of.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly resolver: AddressResolver.AddressResolver["Service"]
  /**
   * How this network connects to one address, for one `connect`: with its options, and from `local` if it asks for an
   * address of its own. It throws for options that are out of range.
   */
  readonly connectOne: (options: ConnectOptions, local: NetAddress.InetAddress | undefined) => ConnectOne
}

/**
 * The order in which addresses are tried: `firstFamilyCount` (1 unless set) of the first address's family, then the
 * families in turns, each in its own order (RFC 8305, section 4). With 0, the order is not changed.
 *
 * **Example** (Two IPv6 addresses first)
 *
 * ```ts
 * import { Dialer } from "effect-wire"
 * import { NetAddress } from "effect/net"
 *
 * const addresses = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"].map((ip) =>
 *   NetAddress.inetAddressFromInputUnsafe({ address: ip, port: 80 })
 * )
 * const order = Dialer.interleave(addresses, 2).map((_) => NetAddress.formatHost(_))
 *
 * console.log(order.join(" ")) // 2001:db8::1 2001:db8::2 192.0.2.1 2001:db8::3 192.0.2.2
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const interleave = (
  addresses: Iterable<NetAddress.InetAddress>,
  firstFamilyCount = 1
): Array<NetAddress.InetAddress> => {
  const order = new Order(Limits.familyCount(firstFamilyCount))
  order.add(addresses)
  const result: Array<NetAddress.InetAddress> = []
  for (let next = order.take(); next !== undefined; next = order.take()) result.push(next)
  return result
}

/**
 * A `Dns` that knows `localhost`, and every name below it, by itself: look-ups of them give 127.0.0.1 and ::1, and nobody is
 * asked, neither name servers nor the hosts file (RFC 6761, section 6.3). Everything else is asked of `dns`.
 *
 * `NodeNetwork.layer` uses it. An `AddressResolver` of one's own (`NodeNetwork.layerWithResolver`) is asked for every name, so
 * that it may have a `localhost` of its own; this gives it the usual one.
 *
 * **Example** (Not asking for what is known)
 *
 * ```ts
 * import { Effect, Result } from "effect"
 * import { Dialer } from "effect-wire"
 * import { Dns } from "effect/net"
 *
 * const nobody = Result.getOrThrow(Dns.makeStatic({}))
 * const dns = Dialer.withLocalhost(nobody)
 *
 * console.log((await Effect.runPromise(dns.lookup("app.localhost"))).join(" ")) // 127.0.0.1 ::1
 * ```
 *
 * @see https://www.rfc-editor.org/rfc/rfc6761#section-6.3
 * @category combinators
 * @since 0.1.0
 */
export const withLocalhost = (dns: Dns.Dns["Service"]): Dns.Dns["Service"] =>
  Dns.make({
    lookup: (host, family) => (isLocalhost(host) ? Effect.succeed(loopbacks) : dns.lookup(host, { family })),
    resolve: (name, type) => dns.resolve(name, type),
    reverse: (address) => dns.reverse(address)
  })

/**
 * The `connect` of a network: parses the target, resolves it, races its addresses, and keeps to `connectTimeout`. Used
 * by `NodeNetwork` and `TestNetwork`.
 *
 * **Details**
 *
 * - The IPv6 and the IPv4 addresses of a name are asked for separately, at the same time. Connecting begins with the
 *   answer that has addresses first; IPv4 waits up to `resolutionDelay` for IPv6 to come first. Addresses that come later
 *   take their place among those not tried yet.
 * - The next attempt starts `delay` after the start of the one before, or as soon as that one has failed.
 * - The first attempt that connects wins. By the time it is handed out, the others are interrupted; one that connects in
 *   the same moment is aborted.
 * - If all fail, the error's `attempts` lists each address with its reason in the order of trying, and the error's reason
 *   is the last one's.
 * - From a `localAddress`, only addresses of its family are tried; if there are none, the reason is
 *   `AddressNotAvailable`.
 * - With `happyEyeballs: false` (or `firstFamilyCount: 0`), the addresses of both families are one question, and their
 *   order is the resolver's.
 *
 * **Example** (A network that reaches only what it may)
 *
 * ```ts
 * import { Effect, Result } from "effect"
 * import { Dialer, StreamError } from "effect-wire"
 * import { AddressResolver, Dns } from "effect/net"
 *
 * const dns = Result.getOrThrow(Dns.makeStatic({ hosts: { "db.internal": ["10.0.0.5", "10.0.0.6"] } }))
 *
 * const connect = Dialer.make({
 *   resolver: AddressResolver.make(dns),
 *   connectOne: () => () => Effect.fail(new StreamError.PermissionDenied({}))
 * })
 *
 * const error = await Effect.runPromise(Effect.flip(connect("db.internal:5432")))
 * console.log(error.message)
 * // connect to db.internal:5432: permission denied;
 * // tried 10.0.0.5:5432 (permission denied), 10.0.0.6:5432 (permission denied)
 * ```
 *
 * @see https://www.rfc-editor.org/rfc/rfc8305
 * @category constructors
 * @since 0.1.0
 */
export const make =
  ({ connectOne, resolver }: Options): Network["Service"]["connect"] =>
  (target, options = {}) =>
    Effect.contextWith((context: Context.Context<never>) => {
      const operation = "connect"
      const address = formatTarget(target)
      const failed = (failure: ConnectFailure) => new ConnectionError({ operation, address, ...failure })
      const duration = Limits.connectTimeout(options.connectTimeout)
      const pace = Limits.happyEyeballs(options.happyEyeballs)
      const destination = parseTarget(target)
      const local =
        options.localAddress === undefined
          ? Result.succeed(undefined)
          : parseLocalAddress(options.localAddress)
      if (Result.isFailure(destination)) return Effect.fail(failed({ reason: destination.failure }))
      if (Result.isFailure(local)) return Effect.fail(failed({ reason: local.failure }))

      const connect = fromLocal(local.success, connectOne(options, local.success))
      const found = candidates(resolver, destination.success, local.success, pace)
      const timed = (finish: Finish): Effect.Effect<Transport, ConnectionError | TimeoutError> => {
        const attempts: Array<Attempt> = []
        const dial = Effect.mapError(race(found, connect, pace.delay, finish, attempts), failed)
        return within(
          dial,
          operation,
          "connectTimeout",
          duration,
          () => address,
          () => ({ attempts: attempts.map(describe) })
        )
      }

      // A fiber of its own, so that nothing lies between the handing out and the caller: there, an interruption would
      // lose the transport.
      return Effect.callback((resume) => {
        const finish = new Finish()
        const fiber = Effect.runForkWith(context)(timed(finish))
        fiber.addObserver((exit) => {
          if (Exit.isFailure(exit)) finish.close()
          resume(exit)
        })
        return Effect.andThen(
          Fiber.interrupt(fiber),
          Effect.sync(() => finish.close())
        )
      })
    })

/** Where the attempts arrive. The first transport is the winner, any other is aborted. */
class Finish {
  readonly winner = Deferred.makeUnsafe<Transport, ConnectFailure>()
  private transport: Transport | undefined = undefined
  private closed = false

  readonly arrive = (transport: Transport): void => {
    if (this.closed || this.transport !== undefined) {
      transport.abort()
    } else {
      this.transport = transport
      Deferred.doneUnsafe(this.winner, Exit.succeed(transport))
    }
  }

  /** Nobody waits for a winner any more. */
  close(): void {
    this.closed = true
    this.transport?.abort()
  }
}

interface ConnectFailure {
  readonly reason: ConnectionErrorReason
  readonly attempts?: ReadonlyArray<ConnectAttempt> | undefined
}

const otherFamily = (family: NetAddress.IpFamily): NetAddress.IpFamily =>
  family === "IPv6" ? "IPv4" : "IPv6"

/** The addresses that were not tried yet. Those that come while others are tried take their place in the order. */
class Order {
  private readonly firstFamilyCount: number
  private readonly all: Array<NetAddress.InetAddress> = []
  private first: NetAddress.IpFamily | undefined = undefined
  private last: NetAddress.IpFamily | undefined = undefined
  private taken = 0

  constructor(firstFamilyCount: number) {
    this.firstFamilyCount = firstFamilyCount
  }

  get isEmpty(): boolean {
    return this.all.length === 0
  }

  add(addresses: Iterable<NetAddress.InetAddress>): void {
    for (const address of addresses) {
      this.first ??= NetAddress.familyOf(address)
      this.all.push(address)
    }
  }

  take(): NetAddress.InetAddress | undefined {
    const wanted = this.all.findIndex((address) => this.isNext(NetAddress.familyOf(address)))
    const [address] = this.all.splice(Math.max(wanted, 0), 1)
    if (address === undefined) return undefined
    this.last = NetAddress.familyOf(address)
    this.taken++
    return address
  }

  private isNext(family: NetAddress.IpFamily): boolean {
    if (this.firstFamilyCount === 0 || this.first === undefined || this.last === undefined) return true
    return family === (this.taken < this.firstFamilyCount ? this.first : otherFamily(this.last))
  }
}

/** Waits for an effect, but not longer than so many milliseconds. */
const upTo = <A>(effect: Effect.Effect<A>, millis: number): Effect.Effect<unknown> =>
  millis === Infinity ? effect : Effect.timeoutOption(effect, millis)

/** Where the race has its addresses from. */
interface Candidates {
  /** Whether there may be another address. */
  readonly hasMore: () => boolean
  /** Waits for the next address, or for there to be none. */
  readonly next: Effect.Effect<NetAddress.SocketAddress | undefined>
  /** Why a name has no address, if so. */
  readonly reason: () => ConnectionErrorReason
}

const known = (addresses: ReadonlyArray<NetAddress.SocketAddress>): Candidates => {
  let index = 0
  return {
    hasMore: () => index < addresses.length,
    next: Effect.sync(() => addresses[index++]),
    reason: () => new NameNotResolved({})
  }
}

type LookupFailure = NameNotResolved | InvalidAddress

const codeOfLookup = ({ cause, reason }: Dns.DnsError): string | undefined =>
  codeOf(cause) ?? (reason === "NotFound" ? "ENOTFOUND" : undefined)

/** @internal */
export const resolve = (
  resolver: AddressResolver.AddressResolver["Service"],
  destination: HostDestination,
  family?: NetAddress.IpFamily
): Effect.Effect<Arr.NonEmptyReadonlyArray<NetAddress.InetAddress>, LookupFailure> =>
  Effect.mapError(resolver.resolve(destination, { family }), (error) =>
    error._tag === "DnsError"
      ? new NameNotResolved({ code: codeOfLookup(error), cause: error })
      : new InvalidAddress({ detail: error.message, cause: error })
  )

const candidates = (
  resolver: AddressResolver.AddressResolver["Service"],
  destination: TargetDestination,
  local: NetAddress.InetAddress | undefined,
  pace: Limits.Pace
): Effect.Effect<Candidates, ConnectFailure> => {
  if (destination._tag !== "Host") return Effect.succeed(known([destination.address]))
  const both = resolve(resolver, destination)
  if (local !== undefined) {
    // Of the other family only if there is nothing else: the attempts then say why they fail.
    const ofFamily = resolve(resolver, destination, NetAddress.familyOf(local))
    return Effect.mapBoth(
      Effect.catch(ofFamily, () => both),
      { onSuccess: known, onFailure: (reason) => ({ reason }) }
    )
  }
  if (pace.firstFamilyCount === 0 || !Host.isDomainName(destination.host)) {
    return Effect.mapBoth(both, {
      onSuccess: (addresses) => known(interleave(addresses, pace.firstFamilyCount)),
      onFailure: (reason) => ({ reason })
    })
  }
  return lookUp((family) => resolve(resolver, destination, family), pace)
}

/** The addresses of both families as they are found (RFC 8305, section 3). */
const lookUp = Effect.fnUntraced(function* (
  resolveFamily: (
    family: NetAddress.IpFamily
  ) => Effect.Effect<ReadonlyArray<NetAddress.InetAddress>, LookupFailure>,
  { firstFamilyCount, resolutionDelay }: Limits.Pace
): Effect.fn.Return<Candidates> {
  const ask = (family: NetAddress.IpFamily) =>
    Effect.forkChild(Effect.result(resolveFamily(family)), { startImmediately: true })
  const ipv6 = yield* ask("IPv6")
  const ipv4 = yield* ask("IPv4")
  const order = new Order(firstFamilyCount)
  const failures: Array<LookupFailure> = []
  let pending = [ipv6, ipv4]

  // IPv6 first, where both are there.
  const collect = (): void => {
    pending = pending.filter((fiber) => {
      const exit = fiber.pollUnsafe()
      if (exit === undefined) return true
      if (Exit.isSuccess(exit)) {
        if (Result.isSuccess(exit.value)) order.add(exit.value.success)
        else failures.push(exit.value.failure)
      }
      return false
    })
  }
  // Joined, so that a defect of the resolver is not lost.
  const anyAnswer = Effect.suspend(() => Effect.raceAllFirst(pending.map(Fiber.join)))

  const answer = yield* anyAnswer
  if (Result.isSuccess(answer) && ipv6.pollUnsafe() === undefined) {
    yield* upTo(Fiber.join(ipv6), resolutionDelay)
  }
  return {
    hasMore: () => !order.isEmpty || pending.length > 0,
    next: Effect.gen(function* () {
      for (;;) {
        collect()
        const address = order.take()
        if (address !== undefined || pending.length === 0) return address
        yield* anyAnswer
      }
    }),
    // That one family has no address says less than any other failure.
    reason: () => failures.find((_) => _.code !== "ENOTFOUND") ?? failures[0] ?? new NameNotResolved({})
  }
})

/** Does not try to connect across families, and names the local address if it is what is not available. */
const fromLocal = (local: NetAddress.InetAddress | undefined, connectOne: ConnectOne): ConnectOne => {
  if (local === undefined) return connectOne
  const from = `the local address ${NetAddress.formatHost(local)}`
  return (address, connected) => {
    if (NetAddress.isUnixPathAddress(address)) return connectOne(address, connected)
    if (!NetAddress.isFamily(address, NetAddress.familyOf(local))) {
      const cause = new Error(`${from} is of another family`)
      return Effect.fail(new AddressNotAvailable({ cause, detail: cause.message }))
    }
    return Effect.mapError(connectOne(address, connected), (reason) =>
      reason._tag === "AddressNotAvailable" && reason.detail === undefined
        ? new AddressNotAvailable({
            code: reason.code,
            cause: reason.cause,
            detail: `connecting from ${from}`
          })
        : reason
    )
  }
}

interface Attempt {
  readonly address: NetAddress.SocketAddress
  readonly failed: Deferred.Deferred<void>
  reason: ConnectionErrorReason | undefined
}

const describe = ({ address, reason }: Attempt) => ({
  address: NetAddress.formatSocketAddress(address),
  reason
})

/** Whatever ends an attempt without a connection, a defect included, is a reason. */
const reasonOf = (cause: Cause.Cause<ConnectionErrorReason>): ConnectionErrorReason =>
  Option.getOrElse(Cause.findErrorOption(cause), () => reasonFromCause(Cause.squash(cause)))

const race = (
  find: Effect.Effect<Candidates, ConnectFailure>,
  connectOne: ConnectOne,
  delay: number,
  { arrive, winner }: Finish,
  attempts: Array<Attempt>
): Effect.Effect<Transport, ConnectFailure> => {
  const run = (attempt: Attempt) => {
    let arrived = false
    const connect = Effect.suspend(() =>
      connectOne(attempt.address, (transport) => {
        arrived = true
        arrive(transport)
      })
    )
    return Effect.map(Effect.exit(connect), (exit) => {
      if (arrived) return
      attempt.reason = Exit.isFailure(exit) ? reasonOf(exit.cause) : new UnknownReason({})
      Deferred.doneUnsafe(attempt.failed, Exit.void)
    })
  }

  const tryAll = Effect.gen(function* () {
    const candidates = yield* find
    for (let address = yield* candidates.next; address !== undefined; address = yield* candidates.next) {
      const next: Attempt = { address, failed: Deferred.makeUnsafe(), reason: undefined }
      attempts.push(next)
      if (candidates.hasMore()) {
        yield* Effect.forkChild(run(next), { startImmediately: true })
        if (delay > 0) yield* upTo(Deferred.await(next.failed), delay)
      } else {
        yield* run(next)
      }
    }
    const failures: Array<ConnectAttempt> = []
    let reason = candidates.reason()
    for (const attempt of attempts) {
      yield* Deferred.await(attempt.failed)
      reason = attempt.reason ?? reason
      failures.push({ ...describe(attempt), reason })
    }
    if (failures.length === 0) return yield* Effect.fail({ reason })
    return yield* Effect.fail({ reason, attempts: failures })
  })

  // A child of this fiber, as the attempts are of it: what is still under way ends before this does.
  return Effect.andThen(
    Effect.forkChild(Deferred.into(tryAll, winner), { startImmediately: true }),
    Deferred.await(winner)
  )
}
