/**
 * Connections that are lent, given back and lent again.
 *
 * A pool keeps up to `max` connections to one target. Who borrows one has it alone, until its scope ends. A connection
 * is lent again only if it came back in order: its borrower succeeded, both directions are open, nothing waits to be read,
 * nobody waits to read or to write, and it is neither too old nor used up. A connection that breaks while nobody has it is
 * dropped at once.
 *
 * **Example** (Many requests over few connections)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { ConnectionPool, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve(({ reader, writer }) => Stream.run(reader.stream, writer.sink), {
 *     listen: { port: 7000 }
 *   })
 *   const pool = yield* ConnectionPool.make("localhost:7000", { max: 4 })
 *   const ask = (text: string) =>
 *     pool.use(({ reader, writer }) => Effect.andThen(writer.write(`${text}\n`), reader.readLineString))
 *   yield* Effect.forEach(Array.from({ length: 100 }, (_, i) => `question ${i}`), ask, { concurrency: 20 })
 *   return yield* pool.stats
 * })
 *
 * const stats = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))
 * console.log(stats) // { inUse: 0, idle: 4, waiting: 0, created: 4, evicted: 0 }
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Pool from "effect/Pool"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import { Closing } from "./internal/closing.ts"
import * as Connection from "./internal/connection.ts"
import * as Handshake from "./internal/handshake.ts"
import type { Lendable } from "./internal/lendable.ts"
import * as Limits from "./internal/limits.ts"
import { now } from "./internal/now.ts"
import * as Numbers from "./internal/numbers.ts"
import { Room } from "./internal/room.ts"
import { isNew, Stock } from "./internal/stock.ts"
import { formatTarget } from "./internal/target.ts"
import { Targets } from "./internal/targets.ts"
import { within } from "./internal/within.ts"
import type { Network, Target } from "./Network.ts"
import { ConnectionClosed, ConnectionError, type StreamError, type TimeoutError } from "./StreamError.ts"
import * as Telemetry from "./Telemetry.ts"

/**
 * Runtime type identifier of pools.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-wire/ConnectionPool"

/**
 * Why a pool gives no connection: it could not connect, nothing became free in time (`TimeoutError`, operation `acquire`),
 * or the handshake failed (`E`).
 *
 * @category errors
 * @since 0.1.0
 */
export type PoolError<E = never> = ConnectionError | TimeoutError | E

/**
 * A pool's numbers at one time.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Connections that are lent, or being checked before that. */
  readonly inUse: number
  /** Connections that are not. */
  readonly idle: number
  /** Borrowers that wait for a connection. */
  readonly waiting: number
  /** Connections made since the pool began, their handshakes included. */
  readonly created: number
  /** Connections that the pool has given up since, for whatever reason but its own end. */
  readonly evicted: number
}

/**
 * A pool of connections to one target. `E` is what the handshake can fail with.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectionPool<out E = never> {
  readonly [TypeId]: typeof TypeId
  /**
   * Borrows a connection until the scope ends: one that came back last, a new one, or else the next that becomes free,
   * first come, first served. If the scope ends well the connection can be lent again; if the scope fails or is
   * interrupted nobody knows what still comes, and the connection is aborted.
   *
   * Fails with what connecting failed with, and with `TimeoutError` (operation `acquire`) after `acquireTimeout`.
   */
  readonly get: Effect.Effect<Connection.Connection, PoolError<E>, Scope.Scope>
  /**
   * Borrows a connection for an effect. An error that the connection survives is to be handled inside of `f`: one that
   * leaves it costs the connection.
   */
  readonly use: <A, E2, R>(
    f: (connection: Connection.Connection) => Effect.Effect<A, E2, R>
  ) => Effect.Effect<A, E2 | PoolError<E>, Exclude<R, Scope.Scope>>
  readonly stats: Effect.Effect<Stats>
}

/**
 * The pool that an application's services use: provided by `Connection.layerPool`.
 *
 * @category services
 * @since 0.1.0
 */
export const ConnectionPool: Context.Service<
  ConnectionPool<StreamError>,
  ConnectionPool<StreamError>
> = Context.Service<ConnectionPool<StreamError>>("effect-wire/ConnectionPool")

/**
 * Tells whether a value is a pool.
 *
 * @category guards
 * @since 0.1.0
 */
export const isConnectionPool = (u: unknown): u is ConnectionPool<unknown> => Predicate.hasProperty(u, TypeId)

/**
 * Options of pools. Values out of range are `RangeError` defects of `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<E = never, R = never> {
  /**
   * How many connections are kept also when nobody needs them: made at once, in the background, and made up for when they
   * are lost. Where that fails, or the peer drops a new one within a second, the next try is 200 milliseconds later, and
   * twice as long each time up to 25 seconds, give or take a fifth; at once when a borrower has found the server well.
   * Default 0.
   */
  readonly min?: number | undefined
  /**
   * The most connections at a time. Beside them, as many may be closing that the pool has given up, each within
   * `closeTimeout`; for one more, the oldest of those is aborted. Default 10.
   */
  readonly max?: number | undefined
  /** How long a borrower waits, connecting and the health check included. Default 30 seconds. */
  readonly acquireTimeout?: Duration.Input | undefined
  /**
   * How long a connection may lie unused: then it is closed, and replaced by a new one if fewer than `min` remain. So what is
   * lent is never older than that since its last use, and the minimum is new. Default 1 minute.
   */
  readonly maxIdle?: Duration.Input | undefined
  /** How old a connection may become; one that is lent then is closed when it comes back. Default: no limit. */
  readonly maxAge?: Duration.Input | undefined
  /** How often a connection is lent. Default: no limit. */
  readonly maxUses?: number | undefined
  /**
   * The handshake: runs for each connection before it is lent for the first time. Its scope is the connection's. It has to
   * read all that it makes the peer send, and what the peer sends without being asked (a greeting), and to leave nobody
   * behind who reads. Otherwise the connection is not lent, and its borrower fails with `ConnectionError` (operation
   * `handshake`), whose reason is `UnreadInput` or `Unsupported`.
   */
  readonly onConnect?:
    ((connection: Connection.Connection) => Effect.Effect<unknown, E, R | Scope.Scope>) | undefined
  /** How long the handshake may take, else `TimeoutError` (operation `handshake`). Default 10 seconds. */
  readonly handshakeTimeout?: Duration.Input | undefined
  /**
   * Runs before a connection is lent, unless it is new. If it fails, the connection is aborted and the borrower gets
   * another one. It has to read all that it makes the peer send. Default: none.
   */
  readonly healthCheck?:
    ((connection: Connection.Connection) => Effect.Effect<unknown, unknown, R>) | undefined
  /** How long the health check may take; after that it has failed. Default 5 seconds. */
  readonly healthCheckTimeout?: Duration.Input | undefined
  /** What the pool is called in its metrics (attribute `pool`; see `Telemetry`). Default: the target. */
  readonly name?: string | undefined
}

/**
 * Makes a pool that belongs to the scope. When the scope ends well, the pool waits until what is lent comes back and
 * closes its connections; when the scope fails or is interrupted, all connections are aborted at once, also the lent ones.
 * Whoever asks for a connection then fails with `ConnectionClosed`.
 *
 * **Example** (Logged in once, and asked before it is lent again)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { type Connection, ConnectionPool, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const ask =
 *   (question: string) =>
 *   ({ reader, writer }: Connection.Connection) =>
 *     Effect.andThen(writer.write(`${question}\n`), reader.readLineString)
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve(
 *     ({ reader, writer }) => Stream.runForEach(reader.lines, (line) => writer.write(`OK ${line}\n`)),
 *     { listen: { port: 7000 } }
 *   )
 *   const pool = yield* ConnectionPool.make("localhost:7000", {
 *     max: 2,
 *     maxUses: 1000,
 *     onConnect: ask("LOGIN me"),
 *     healthCheck: ask("PING")
 *   })
 *   console.log(yield* pool.use(ask("first"))) // some("OK first")
 *   console.log(yield* pool.use(ask("second"))) // some("OK second"), over the same connection
 *   console.log(yield* pool.stats) // { inUse: 0, idle: 1, waiting: 0, created: 1, evicted: 0 }
 * })
 *
 * await program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer), Effect.runPromise)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <E = never, R = never>(
  target: Target,
  options?: Connection.ConnectionOptions & Options<E, R>
): Effect.Effect<ConnectionPool<E>, never, Network | Scope.Scope | Exclude<R, Scope.Scope>> =>
  makeLending(target, options, undefined)

interface Settings {
  readonly address: string
  readonly min: number
  readonly max: number
  readonly acquireTimeout: number
  readonly maxIdle: number
  readonly maxAge: number
  readonly maxUses: number
  readonly healthCheckTimeout: number
}

const count = (name: string, value: number, least: 0 | 1): number => {
  if (value !== Infinity && !(Number.isSafeInteger(value) && value >= least)) {
    throw new RangeError(`${name} must be an integer from ${least}, received ${value}`)
  }
  return value
}

const checkOptions = <E, R>(
  target: Target,
  options: (Connection.ConnectionOptions & Options<E, R>) | undefined
): Settings => {
  const min = count("min", options?.min ?? 0, 0)
  const max = count("max", options?.max ?? 10, 1)
  if (!(min <= max) || min === Infinity) {
    throw new RangeError(`min (${min}) must be finite and not above max (${max})`)
  }
  return {
    address: formatTarget(target),
    min,
    max,
    acquireTimeout: Limits.timeout("acquireTimeout", options?.acquireTimeout ?? "30 seconds"),
    maxIdle: Limits.timeout("maxIdle", options?.maxIdle ?? "1 minute"),
    maxAge: Limits.timeout("maxAge", options?.maxAge),
    maxUses: count("maxUses", options?.maxUses ?? Infinity, 1),
    healthCheckTimeout: Limits.timeout("healthCheckTimeout", options?.healthCheckTimeout ?? "5 seconds")
  }
}

/** What options are checked with before there is a target. */
const anywhere: Target = { host: "any", port: 1 }

/** What the pools of many targets share. */
interface Shared {
  readonly room: Room
  readonly closing: Closing
}

const makeLending = <E, R>(
  target: Target,
  options: (Connection.ConnectionOptions & Options<E, R>) | undefined,
  shared: Shared | undefined
): Effect.Effect<Lending<E>, never, Network | Scope.Scope | Exclude<R, Scope.Scope>> =>
  Effect.uninterruptible(
    Effect.gen(function* () {
      const settings = checkOptions(target, options)
      const connecting = Connection.connecting(target, options).pipe(
        Effect.tap(Handshake.make<E, R>(options ?? {})),
        Effect.tap((connection) => failWith(Connection.unfitAfterHandshake(connection)))
      )
      const context = yield* Effect.context<Network | Exclude<R, Scope.Scope>>()
      const open = (own: Scope.Scope) => Effect.provideContext(Scope.provide(connecting, own), context)
      const { healthCheck } = options ?? {}
      const check: Check | undefined =
        healthCheck && ((_) => Effect.provideContext(Effect.scoped(healthCheck(_)), context))

      const { max, maxAge, maxIdle, min } = settings
      const closings = yield* FiberSet.make()
      yield* Effect.addFinalizer(() => FiberSet.awaitEmpty(closings))
      const room = shared?.room
      const closing = shared?.closing ?? new Closing(max)
      const stock = new Stock<PoolError<E>>({ open, min, closing, room, maxIdle, maxAge }, closings)
      if (room !== undefined) {
        yield* Effect.acquireRelease(
          Effect.sync(() => room.admit(stock)),
          (leave) => Effect.sync(leave)
        )
      }
      yield* Effect.addFinalizer(() => stock.closeAll)
      const { acquire, strategy } = stock
      const pool = yield* Pool.makeWithStrategy({ acquire, min: 0, max, strategy })
      stock.withdraw = (item) => Pool.invalidate(pool, item)
      yield* Effect.addFinalizer(() => stock.closeReserve)
      if (min > 0) yield* Effect.forkScoped(stock.replenish, { startImmediately: true })
      if (maxIdle !== Infinity) yield* Effect.forkScoped(stock.sweep)

      const lending = new Lending(settings, pool, stock, room, check)
      yield* lending.show(options?.name ?? settings.address)
      yield* Effect.addFinalizer((exit) => lending.end(exit))
      return lending
    })
  )

const failWith = <E>(error: E | undefined): Effect.Effect<void, E> =>
  error === undefined ? Effect.void : Effect.fail(error)

type Check = (connection: Connection.Connection) => Effect.Effect<unknown, unknown>

/** How far a borrower has come. */
interface Attempt {
  isChecking: boolean
}

class Lending<E> implements ConnectionPool<E> {
  readonly [TypeId] = TypeId
  private readonly settings: Settings
  private readonly pool: Pool.Pool<Lendable, PoolError<E>>
  private readonly stock: Stock<PoolError<E>>
  private readonly room: Room | undefined
  private readonly check: Check | undefined

  constructor(
    settings: Settings,
    pool: Pool.Pool<Lendable, PoolError<E>>,
    stock: Stock<PoolError<E>>,
    room: Room | undefined,
    check: Check | undefined
  ) {
    this.settings = settings
    this.pool = pool
    this.stock = stock
    this.room = room
    this.check = check
  }

  readonly get: Effect.Effect<Connection.Connection, PoolError<E>, Scope.Scope> = Effect.uninterruptibleMask(
    (restore) =>
      Effect.gen({ self: this }, function* () {
        if (this.stock.hasEnded) return yield* Effect.fail(endedError(this.settings.address))
        const lease = yield* Scope.fork(yield* Effect.scope)
        const attempt: Attempt = { isChecking: false }
        const item = yield* restore(this.timed(this.borrow(lease, attempt), attempt)).pipe(
          Effect.onError((cause) => Scope.close(lease, Exit.failCause(cause))),
          // Effect's pool interrupts whoever waits when it ends.
          Effect.catchCause((cause) =>
            this.stock.hasEnded && Cause.hasInterruptsOnly(cause)
              ? Effect.fail(endedError(this.settings.address))
              : Effect.failCause(cause)
          )
        )
        item.uses++
        // Runs before the pool has it back.
        yield* Scope.addFinalizerExit(lease, (exit) => this.giveBack(item, exit))
        return item.connection
      })
  )

  readonly use = <A, E2, R>(
    f: (connection: Connection.Connection) => Effect.Effect<A, E2, R>
  ): Effect.Effect<A, E2 | PoolError<E>, Exclude<R, Scope.Scope>> =>
    Effect.scoped(Effect.flatMap(this.get, f))

  readonly stats: Effect.Effect<Stats> = Effect.suspend(() =>
    Effect.map(Pool.stats(this.pool), ({ pending }) => {
      const { created, evicted, items } = this.stock
      const inUse = Array.from(items).filter((item) => item.lent).length
      return { inUse, idle: items.size - inUse, waiting: pending, created, evicted }
    })
  )

  /** A connection that can be lent; those that cannot are given up on the way. */
  private borrow(lease: Scope.Scope, attempt: Attempt): Effect.Effect<Lendable, PoolError<E>> {
    return Effect.gen({ self: this }, function* () {
      const { created } = this.stock
      for (;;) {
        const own = yield* Scope.fork(lease)
        let item: Lendable | undefined = undefined
        // Runs when the pool has it back.
        const end = Effect.suspend(() => {
          if (item !== undefined) return this.stock.returned(item)
          this.stock.borrowing--
          return this.room?.settle ?? Effect.void
        })
        const begin = Effect.suspend(() => {
          this.stock.borrowing++
          return Scope.addFinalizer(own, end)
        })
        yield* Effect.uninterruptible(begin)
        if (this.room !== undefined) yield* this.room.settle
        item = yield* Scope.provide(Pool.get(this.pool), own)
        item.lent = true
        this.stock.borrowing--
        attempt.isChecking = true
        if (yield* this.isFit(item)) return item
        attempt.isChecking = false
        item.unfit = true
        // Of one that was made just now, another try would come to the same, again and again.
        if (item.number > created) {
          yield* failWith(Connection.unfitAfterHandshake(item.connection))
        }
        yield* Scope.close(own, Exit.void)
      }
    })
  }

  private timed<A, E2>(effect: Effect.Effect<A, E2>, attempt: Attempt): Effect.Effect<A, E2 | TimeoutError> {
    const { acquireTimeout, address } = this.settings
    return within(
      effect,
      "acquire",
      "acquireTimeout",
      Duration.millis(acquireTimeout),
      () => address,
      () =>
        attempt.isChecking
          ? { detail: "a connection was being checked (`healthCheck`)" }
          : { detail: this.describe(), cause: this.stock.lastError }
    )
  }

  /** What a borrower who gives up has waited for. */
  private describe(): string {
    const { max } = this.settings
    const { inUse, waiting } = Effect.runSync(this.stats)
    const { connecting } = this.stock
    if (this.room?.isFull === true) {
      return `all ${this.room.size} connections of all targets (\`maxTotal\`) are in use`
    }
    const parts = [`${inUse < max ? `${inUse} of` : "all"} ${max} connections (\`max\`) are in use`]
    if (connecting > 0) parts.push(`${connecting} on the way`)
    if (waiting > 0) parts.push(`${waiting} other ${waiting === 1 ? "borrower waits" : "borrowers wait"}`)
    return parts.join(", ")
  }

  private isFit(item: Lendable): Effect.Effect<boolean> {
    return Effect.flatMap(now, (time) => {
      if (!this.isCurrent(item, time)) return Effect.succeed(false)
      return this.check === undefined || isNew(item, time)
        ? Effect.succeed(true)
        : this.passes(item, this.check)
    })
  }

  private isCurrent({ connection, createdAt, idleSince, unfit, uses }: Lendable, time: number): boolean {
    const { maxAge, maxIdle, maxUses } = this.settings
    return (
      !unfit &&
      Connection.isClean(connection) &&
      uses < maxUses &&
      time - createdAt < maxAge &&
      time - idleSince < maxIdle
    )
  }

  // Whoever interrupts it leaves a question without its answer: then the connection has failed as well.
  private passes(item: Lendable, check: Check): Effect.Effect<boolean> {
    return Effect.suspend(() => check(item.connection)).pipe(
      Effect.timeout(this.settings.healthCheckTimeout),
      Effect.exit,
      Effect.map((exit) => Exit.isSuccess(exit) && Connection.isClean(item.connection)),
      Effect.onExit((exit) => (Exit.isSuccess(exit) && exit.value ? Effect.void : this.discard(item)))
    )
  }

  private giveBack(item: Lendable, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    if (Exit.isFailure(exit)) return this.discard(item)
    return Effect.map(now, (time) => {
      item.idleSince = time
      item.unfit = !this.isCurrent(item, time)
      if (!item.unfit) this.stock.approve()
    })
  }

  private discard(item: Lendable): Effect.Effect<void> {
    return Effect.suspend(() => {
      item.unfit = true
      return item.connection.abort
    })
  }

  /** Shows the pool's numbers to whoever collects metrics, until the scope ends. */
  show(name: string): Effect.Effect<void, never, Scope.Scope> {
    const present = (): Stats => Effect.runSync(this.stats)
    return Numbers.show({ pool: name }, [
      Numbers.gauge(Telemetry.poolInUse, () => present().inUse),
      Numbers.gauge(Telemetry.poolIdle, () => present().idle),
      Numbers.gauge(Telemetry.poolWaiting, () => present().waiting),
      Numbers.counter(Telemetry.poolCreated, () => this.stock.created),
      Numbers.counter(Telemetry.poolEvicted, () => this.stock.evicted)
    ])
  }

  end(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.stock.hasEnded = true
      return Exit.isSuccess(exit) ? Effect.void : this.abort
    })
  }

  get abort(): Effect.Effect<void> {
    return this.stock.abortAll
  }
}

const endedError = (address: string): ConnectionError =>
  new ConnectionError({ operation: "acquire", address, reason: new ConnectionClosed({}) })

/**
 * Pools by target. Each target has a pool of its own, made when it is first asked for, and closed when it was not asked
 * for during `targetIdle`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Keyed<out E = never> {
  /**
   * Borrows a connection to a target, as `ConnectionPool.get` does. What means the same is one target: `"db:1"` and
   * `{ host: "DB", port: 1 }`. A name and its addresses are not.
   */
  readonly get: (target: Target) => Effect.Effect<Connection.Connection, PoolError<E>, Scope.Scope>
  /** Borrows a connection to a target for an effect. */
  readonly use: <A, E2, R>(
    target: Target,
    f: (connection: Connection.Connection) => Effect.Effect<A, E2, R>
  ) => Effect.Effect<A, E2 | PoolError<E>, Exclude<R, Scope.Scope>>
  /** The numbers of each pool that there is. */
  readonly stats: Effect.Effect<ReadonlyArray<readonly [Target, Stats]>>
}

/**
 * The pools that an application's services use: provided by `Connection.layerKeyedPool`.
 *
 * @category services
 * @since 0.1.0
 */
export const Keyed: Context.Service<Keyed<StreamError>, Keyed<StreamError>> = Context.Service<
  Keyed<StreamError>
>("effect-wire/ConnectionPool/Keyed")

/**
 * Options of pools by target: `max` and the others hold for each target. Values out of range are `RangeError` defects of
 * `makeKeyed`.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedOptions<E = never, R = never> extends Omit<Options<E, R>, "name"> {
  /** How long the pool of a target outlives its last borrower. Default 1 minute. */
  readonly targetIdle?: Duration.Input | undefined
  /**
   * How many targets have a pool. Beyond that, a pool that nobody uses is closed before its time, the one first that was not
   * used for longest; there are more only while more are in use. Default 1,000.
   */
  readonly maxTargets?: number | undefined
  /**
   * The most connections at a time to all targets. Where that is reached, the connection that was idle for longest is closed
   * for one more, whatever its target, also one of a `min`; if none is idle, borrowers wait in their order. Beside them, as
   * many may be closing, as `max` says. Default: no limit.
   */
  readonly maxTotal?: number | undefined
}

/**
 * Makes pools for any number of targets, all with the same options. They belong to the scope as `make` says.
 *
 * **Example** (Two servers, a connection to each)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { ConnectionPool, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve(({ reader, writer }) => Stream.run(reader.stream, writer.sink), {
 *     listen: { port: 7000 }
 *   })
 *   const pools = yield* ConnectionPool.makeKeyed({ max: 4, maxTotal: 100, targetIdle: "10 seconds" })
 *   const ask = (host: string) =>
 *     pools.use({ host, port: 7000 }, ({ reader, writer }) =>
 *       Effect.andThen(writer.write("hello\n"), reader.readLineString)
 *     )
 *   yield* Effect.forEach(["10.0.0.1", "10.0.0.2", "10.0.0.1"], ask)
 *   return yield* pools.stats
 * })
 *
 * const stats = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))
 * for (const [target, { created, idle }] of stats) console.log(target, created, idle)
 * // { host: '10.0.0.1', port: 7000 } 1 1
 * // { host: '10.0.0.2', port: 7000 } 1 1
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeKeyed = <E = never, R = never>(
  options?: Connection.ConnectionOptions & KeyedOptions<E, R>
): Effect.Effect<Keyed<E>, never, Network | Scope.Scope | Exclude<R, Scope.Scope>> =>
  Effect.uninterruptible(
    Effect.gen(function* () {
      checkOptions(anywhere, options)
      Connection.connecting(anywhere, options)
      Handshake.make(options ?? {})
      const idle = Limits.delay("targetIdle", options?.targetIdle ?? "1 minute")
      const max = count("maxTargets", options?.maxTargets ?? 1000, 1)
      const maxTotal = count("maxTotal", options?.maxTotal ?? Infinity, 1)
      const shared =
        maxTotal === Infinity ? undefined : { room: new Room(maxTotal), closing: new Closing(maxTotal) }
      const context = yield* Effect.context<Network | Exclude<R, Scope.Scope>>()
      const endings = yield* FiberSet.make()
      const targets = new Targets<Lending<E>>(
        {
          make: (target) =>
            Effect.flatMap(Effect.scope, (own) =>
              Effect.provideContext(Scope.provide(makeLending(target, options, shared), own), context)
            ),
          abort: (pool) => pool.abort,
          idle,
          max
        },
        endings
      )
      yield* Effect.addFinalizer((exit) => targets.endAll(exit))
      if (idle > 0 && idle < Infinity) yield* Effect.forkScoped(targets.sweep)

      const get: Keyed<E>["get"] = (target) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.gen(function* () {
            const lease = yield* Scope.fork(yield* Effect.scope)
            const pool = yield* Scope.provide(targets.get(target), lease)
            const borrowed = pool?.get ?? Effect.fail(endedError(formatTarget(target)))
            return yield* Effect.onError(restore(Scope.provide(borrowed, lease)), (cause) =>
              Scope.close(lease, Exit.failCause(cause))
            )
          })
        )
      return {
        get,
        use: (target, f) => Effect.scoped(Effect.flatMap(get(target), f)),
        stats: Effect.suspend(() =>
          Effect.forEach(targets.all, ({ target, value }) =>
            Effect.map(value.stats, (stats) => [target, stats] as const)
          )
        )
      }
    })
  )
