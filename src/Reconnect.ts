/**
 * Links that come back: one connection, kept up for a client that lives longer than any connection does.
 *
 * A link connects, runs the handshake of its protocol (logs in, subscribes), and hands out the connection to whoever asks
 * for it. When the connection is lost it waits as its schedule says and does the same again. It is noticed without
 * reading that a connection is lost: because it failed, because the peer ended it, or because somebody closed it here.
 *
 * **Example** (A client that survives its server)
 *
 * ```ts
 * import { Effect, Schedule, Stream } from "effect"
 * import { Reconnect, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const echo = Server.serve(({ reader, writer }) => Stream.run(reader.stream, writer.sink), {
 *   listen: { port: 7000 },
 *   grace: 0
 * })
 *
 * const program = Effect.gen(function* () {
 *   const link = yield* Reconnect.make("localhost:7000", { schedule: Schedule.spaced("10 millis") })
 *   const ask = link.use(({ reader, writer }) => Effect.andThen(writer.write("hello\n"), reader.readLineString))
 *   const first = yield* Effect.scoped(Effect.andThen(echo, ask))
 *   // That server is gone, and with it the connection.
 *   yield* echo
 *   return [first, yield* ask]
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer))))
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as PubSub from "effect/PubSub"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { backoff } from "./internal/backoff.ts"
import { Closing } from "./internal/closing.ts"
import * as Connection from "./internal/connection.ts"
import { addressOf } from "./internal/handshake.ts"
import * as Handshake from "./internal/handshake.ts"
import * as Limits from "./internal/limits.ts"
import { now } from "./internal/now.ts"
import * as Numbers from "./internal/numbers.ts"
import { publish } from "./internal/publish.ts"
import { formatTarget } from "./internal/target.ts"
import { within } from "./internal/within.ts"
import type { Network, Target } from "./Network.ts"
import {
  ConnectionClosed,
  ConnectionError,
  type StreamError,
  type TimeoutError,
  type TlsErrorKind
} from "./StreamError.ts"
import * as Telemetry from "./Telemetry.ts"

/**
 * Runtime type identifier of links.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-wire/Reconnect"

/**
 * Why a link has no connection: it could not connect, the handshake failed (`E`), or the connection was lost. A
 * connection that ended in order, at the peer's or by a local `close`, is a `ConnectionError` with the operation `link` and
 * the reason `ConnectionClosed`.
 *
 * @category errors
 * @since 0.1.0
 */
export type LinkError<E = never> = ConnectionError | TimeoutError | E

/**
 * What a link is doing.
 *
 * - `Connecting`: connecting, and the handshake. `attempt` counts from 1, anew whenever the schedule begins anew.
 * - `Connected`: there is a connection, and its handshake is done.
 * - `Waiting`: the last attempt failed with `error`, or the connection was lost with it; `attempt` is the number of the
 *   next attempt, which is made after `delay`.
 * - `Closed`: over for good; `error` says why, absent after `close` and after a defect.
 *
 * @category models
 * @since 0.1.0
 */
export type State<E = never> =
  | { readonly _tag: "Connecting"; readonly attempt: number }
  | { readonly _tag: "Connected"; readonly connection: Connection.Connection }
  | {
      readonly _tag: "Waiting"
      readonly error: LinkError<E>
      readonly delay: Duration.Duration
      readonly attempt: number
    }
  | { readonly _tag: "Closed"; readonly error?: LinkError<E> | undefined }

/**
 * A link. `E` is what the handshake can fail with.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reconnect<out E = never> {
  readonly [TypeId]: typeof TypeId
  /** What the link is doing now. */
  readonly state: Effect.Effect<State<E>>
  /**
   * The state, and every change of it from then on; ends after `Closed`. A reader that falls more than 64 changes behind
   * loses the oldest.
   */
  readonly changes: Stream.Stream<State<E>>
  /**
   * The connection, whose handshake is done; waits while there is none. A connection that is known to be lost is never
   * given. Fails with `TimeoutError` (operation `acquire`) after `acquireTimeout`, and with the link's error once it is
   * closed. Interrupting it has no effect on the link.
   */
  readonly get: Effect.Effect<Connection.Connection, LinkError<E>>
  /**
   * Runs an effect with the connection, waiting for one as `get` does. If the connection is lost meanwhile, the
   * effect's reads and writes fail; it is not run again. Whoever finds the peer out of step closes the connection, by
   * `abort`, and gets a new one.
   *
   * When the effect has succeeded, it waits until nothing that was written is buffered here any more, and fails with the
   * connection's error if some of it was lost, or with `TimeoutError` (operation `write`) after `writeTimeout`. An effect
   * that has read the answer to what it wrote does not wait, unless others write over the same connection.
   */
  readonly use: <A, E2, R>(
    f: (connection: Connection.Connection) => Effect.Effect<A, E2, R>
  ) => Effect.Effect<A, E2 | LinkError<E>, R>
  /**
   * Writes to the connection and waits until nothing of it is buffered here. Fails with the connection's error if that is
   * lost before, and sends nothing again: the bytes may have arrived or not. That they were handed to the operating
   * system does not say that the peer has them; only an answer says that.
   */
  readonly send: (chunk: Uint8Array | string) => Effect.Effect<void, LinkError<E>>
  /**
   * Ends the link: the connection is closed gracefully, an attempt or a pause is given up, and whoever waits for a
   * connection fails with `ConnectionClosed`. Never fails, and may be called any number of times.
   */
  readonly close: Effect.Effect<void>
  /** Waits until the link is closed. Fails with the error that it gave up with; `close` is no error. */
  readonly closed: Effect.Effect<void, LinkError<E>>
}

/**
 * The link that an application's services use: provided by `Connection.layerReconnecting`.
 *
 * @category services
 * @since 0.1.0
 */
export const Reconnect: Context.Service<Reconnect<StreamError>, Reconnect<StreamError>> = Context.Service<
  Reconnect<StreamError>
>("effect-wire/Reconnect")

/**
 * Tells whether a value is a link.
 *
 * @category guards
 * @since 0.1.0
 */
export const isReconnect = (u: unknown): u is Reconnect<unknown> => Predicate.hasProperty(u, TypeId)

/**
 * Options of links. Values out of range are `RangeError` defects of `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<E = never, R = never> {
  /**
   * When to try again after an attempt that failed and after a connection that was lost; its input is the error. When it
   * ends, the link is closed with the last error. It begins anew after a connection that was up for `stableAfter`.
   * Default `defaultSchedule`.
   */
  readonly schedule?: Schedule.Schedule<unknown, LinkError<NoInfer<E>>> | undefined
  /**
   * The handshake: runs for each connection before anybody gets it. If it fails, the attempt has failed, and the
   * connection is aborted. Its scope is the connection's: what it forks there (a heartbeat) ends with the connection, and
   * before the next attempt.
   */
  readonly onConnect?:
    ((connection: Connection.Connection) => Effect.Effect<unknown, E, R | Scope.Scope>) | undefined
  /** How long the handshake may take, else `TimeoutError` (operation `handshake`). Default 10 seconds. */
  readonly handshakeTimeout?: Duration.Input | undefined
  /** How long `get`, `use` and `send` wait for a connection. Default 30 seconds. */
  readonly acquireTimeout?: Duration.Input | undefined
  /**
   * How long a connection has to be up after its handshake for the schedule to begin anew when it is lost. A server that
   * accepts and drops at once is thus not asked again and again at the schedule's first pace. 0 is allowed. Default 5
   * seconds.
   */
  readonly stableAfter?: Duration.Input | undefined
  /**
   * Tells the errors after which trying again is no use: the link is closed with them. Default: `isPermanent`, until there
   * was a connection; what has worked once is not a matter of settings, and is tried again whatever happens.
   */
  readonly isPermanent?: ((error: LinkError<NoInfer<E>>) => boolean) | undefined
  /**
   * What the link is called in its metrics (attribute `link`; see `Telemetry`). Default: the target; "unnamed" for
   * `fromEffect`.
   */
  readonly name?: string | undefined
}

/**
 * 200 milliseconds, doubled each time up to 25 seconds, and each delay between 80 % and 120 % of that: never more than
 * 30 seconds, and clients that lost the same server do not come back in step.
 *
 * @category schedules
 * @since 0.1.0
 */
export const defaultSchedule: Schedule.Schedule<unknown> = backoff

const STATES_KEPT = 64

/** A server that ends one connection after another, and takes nothing of what is still to be sent, costs no more than this. */
const MAX_CLOSING = 4

/** About the peer's certificate but its dates, which time or the peer mends; about what both ends have; about our own. */
const permanentTlsErrors: ReadonlySet<TlsErrorKind> = new Set<TlsErrorKind>([
  "SelfSigned",
  "UnknownCa",
  "WrongHost",
  "BadCertificate",
  "NoSharedVersion",
  "NoSharedCipher",
  "NoSharedAlpn",
  "ClientCertificateRequired",
  "InvalidIdentity"
])

/**
 * Tells the errors that only other settings mend, here or at the other end:
 *
 * - a target that is no address (`InvalidAddress`), or that cannot be reached in the way it is to be (`Unsupported`);
 * - a proxy that wants other credentials (`ProxyError`, kind `AuthenticationFailed`): asking again and again may lock them;
 * - TLS (`TlsError`): a certificate that is for somebody else or not to be trusted, a client's certificate that is missing or
 *   cannot be used, nothing in common. A certificate that has expired is none: it will be renewed.
 *
 * A name that does not resolve is none either: it may be there tomorrow.
 *
 * **Example** (Also the errors of a protocol)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Reconnect } from "effect-wire"
 *
 * class WrongPassword extends Schema.TaggedError<WrongPassword>()("WrongPassword", {}) {}
 *
 * const link = Reconnect.make("db.example:5432", {
 *   onConnect: () => Effect.fail(new WrongPassword()),
 *   isPermanent: (error) => error._tag === "WrongPassword" || Reconnect.isPermanent(error)
 * })
 *
 * console.log(Effect.isEffect(link)) // true
 * ```
 *
 * @category guards
 * @since 0.1.0
 */
export const isPermanent = (error: unknown): boolean => {
  if (!(error instanceof ConnectionError)) return false
  const { reason } = error
  switch (reason._tag) {
    case "InvalidAddress":
    case "Unsupported":
      return true
    case "ProxyError":
      return reason.kind === "AuthenticationFailed"
    case "TlsError":
      return permanentTlsErrors.has(reason.kind)
    default:
      return false
  }
}

/**
 * Keeps a connection to a target up, until the scope ends: `close` if it ends well, and an abort if it fails or is
 * interrupted. Returns at once, before there is a connection; `get` waits for it.
 *
 * A connection that the peer has ended is closed gracefully, within `closeTimeout`, while the next attempt is made
 * already; the scope's end waits for it. At most 4 are closing at a time: one more, and the oldest is aborted.
 *
 * **Example** (Logged in again with each connection)
 *
 * ```ts
 * import { Effect, Option, Schedule, Schema, Stream } from "effect"
 * import { type Connection, Reconnect, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * class WrongPassword extends Schema.TaggedError<WrongPassword>()("WrongPassword", {}) {}
 *
 * const ask = (question: string, { reader, writer }: Connection.Connection) =>
 *   Effect.andThen(writer.write(`${question}\n`), Effect.map(reader.readLineString, Option.getOrThrow))
 *
 * const logIn = (connection: Connection.Connection) =>
 *   Effect.flatMap(ask("LOGIN me secret", connection), (answer) =>
 *     answer.startsWith("OK") ? Effect.void : Effect.fail(new WrongPassword())
 *   )
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve(
 *     ({ reader, writer }) => Stream.runForEach(reader.lines, (line) => writer.write(`OK ${line}\n`)),
 *     { listen: { port: 7000 } }
 *   )
 *   const link = yield* Reconnect.make("localhost:7000", {
 *     schedule: Schedule.spaced("10 millis"),
 *     onConnect: logIn,
 *     isPermanent: (error) => error._tag === "WrongPassword" || Reconnect.isPermanent(error)
 *   })
 *   console.log(yield* link.use((connection) => ask("first", connection))) // OK first
 *   // However the connection ends, the next request waits for another one.
 *   yield* link.use(({ close }) => close)
 *   console.log(yield* link.use((connection) => ask("second", connection))) // OK second
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
): Effect.Effect<Reconnect<E>, never, Network | Scope.Scope | Exclude<R, Scope.Scope>> =>
  Effect.suspend(() =>
    supervise<E, R | Network | Scope.Scope>(
      Connection.connecting(target, options),
      formatTarget(target),
      options ?? {}
    )
  )

/**
 * Keeps up a connection that is made in any other way: a WebSocket (`Connection.fromSocket`), a subprocess, several
 * targets in turn. `connect` is run for each attempt, in a scope that ends with its connection.
 *
 * **Example** (A second server, for as long as the first one is away)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Reconnect, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const connect = Effect.firstSuccessOf([
 *   Connection.connect("10.0.0.1:7000", { connectTimeout: "1 second" }),
 *   Connection.connect("10.0.0.2:7000", { connectTimeout: "1 second" })
 * ])
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve(({ reader, writer }) => Effect.andThen(writer.write("the second\n"), reader.readAll()), {
 *     listen: { host: "10.0.0.2", port: 7000 }
 *   })
 *   const link = yield* Reconnect.fromEffect(connect, { name: "either" })
 *   console.log(yield* link.use(({ reader }) => reader.readLineString)) // some("the second")
 * })
 *
 * await program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer), Effect.runPromise)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromEffect = <E, R, E2 = never, R2 = never>(
  connect: Effect.Effect<Connection.Connection, E, R>,
  options?: Options<E | E2, R2>
): Effect.Effect<Reconnect<E | E2>, never, Scope.Scope | Exclude<R | R2, Scope.Scope>> =>
  Effect.suspend(() => supervise<E | E2, R | R2>(connect, undefined, options ?? {}))

const supervise = <E, R>(
  connect: Effect.Effect<Connection.Connection, LinkError<E>, R>,
  address: string | undefined,
  options: Options<E, R>
): Effect.Effect<Reconnect<E>, never, Scope.Scope | Exclude<R, Scope.Scope>> =>
  Effect.uninterruptible(
    Effect.gen(function* () {
      const settings: Settings<E, R> = {
        connect,
        address,
        schedule: options.schedule ?? defaultSchedule,
        handshake: Handshake.make(options),
        acquireTimeout: Limits.timeout("acquireTimeout", options.acquireTimeout ?? "30 seconds"),
        stableAfter: Limits.delay("stableAfter", options.stableAfter ?? "5 seconds"),
        isPermanent: options.isPermanent ?? ((error, hasWorked) => !hasWorked && isPermanent(error))
      }
      const states = yield* PubSub.sliding<State<E>>({ capacity: STATES_KEPT, replay: 1 })
      const closing = yield* FiberSet.make<void, never>()
      const link = new Link(settings, states, closing)
      yield* link.show(options.name ?? address ?? "unnamed")
      link.fiber = yield* Effect.forkDetach(link.run, { startImmediately: true })
      yield* Effect.addFinalizer((exit) => (Exit.isSuccess(exit) ? link.close : link.abort))
      return link
    })
  )

interface Settings<E, R> {
  readonly connect: Effect.Effect<Connection.Connection, LinkError<E>, R>
  readonly address: string | undefined
  readonly schedule: Schedule.Schedule<unknown, LinkError<E>>
  readonly handshake: (
    connection: Connection.Connection
  ) => Effect.Effect<unknown, LinkError<E>, R | Scope.Scope>
  readonly acquireTimeout: number
  readonly stableAfter: number
  readonly isPermanent: (error: LinkError<E>, hasWorked: boolean) => boolean
}

/** How an attempt ended, and how long its connection was up: -1 if there was none. */
interface Ended<E> {
  readonly error: LinkError<E>
  readonly upFor: number
}

class Link<E, R> implements Reconnect<E> {
  readonly [TypeId] = TypeId
  /** What keeps the link up, and owns every connection that it makes. */
  fiber: Fiber.Fiber<void> | undefined = undefined
  private readonly settings: Settings<E, R>
  private readonly states: PubSub.PubSub<State<E>>
  /** What closes the lost connections: as long as the peer likes, within `closeTimeout`. */
  private readonly closing: FiberSet.FiberSet<void>
  private readonly lost = new Closing(MAX_CLOSING)
  /** Why the last attempt failed, or the last connection was lost. */
  private lastError: LinkError<E> | undefined = undefined
  private attempts = 0
  private losses = 0
  private current: State<E> = { _tag: "Connecting", attempt: 1 }
  private changed = Deferred.makeUnsafe<void>()
  private readonly over = Deferred.makeUnsafe<void, LinkError<E>>()
  /** What `get` comes to once the link is closed. */
  private verdict: Exit.Exit<never, LinkError<E>> | undefined = undefined

  constructor(settings: Settings<E, R>, states: PubSub.PubSub<State<E>>, closing: FiberSet.FiberSet<void>) {
    this.settings = settings
    this.states = states
    this.closing = closing
  }

  readonly state = Effect.sync(() => this.current)

  get changes(): Stream.Stream<State<E>> {
    return Stream.takeUntil(Stream.fromPubSub(this.states), (state) => state._tag === "Closed")
  }

  readonly closed = Effect.suspend(() => Effect.andThen(this.stopped, Deferred.await(this.over)))

  /** Shows the link's numbers to whoever collects metrics, until the scope ends. */
  show(name: string): Effect.Effect<void, never, Scope.Scope> {
    return Numbers.show({ link: name }, [
      Numbers.gauge(Telemetry.linkConnected, () => (this.current._tag === "Connected" ? 1 : 0)),
      Numbers.counter(Telemetry.linkAttempts, () => this.attempts),
      Numbers.counter(Telemetry.linkLosses, () => this.losses)
    ])
  }

  /** What is there now, or `undefined` if it has to be waited for. */
  private poll(): Exit.Exit<Connection.Connection, LinkError<E>> | undefined {
    const { current } = this
    if (current._tag === "Connected" && Connection.isWhole(current.connection)) {
      return Exit.succeed(current.connection)
    }
    return this.verdict
  }

  private readonly next: Effect.Effect<Connection.Connection, LinkError<E>> = Effect.suspend(
    () => this.poll() ?? Effect.flatMap(Deferred.await(this.changed), () => this.next)
  )

  readonly get: Effect.Effect<Connection.Connection, LinkError<E>> = Effect.suspend(() => {
    const { acquireTimeout, address } = this.settings
    const now = this.poll()
    if (now !== undefined) return now
    return within(
      this.next,
      "acquire",
      "acquireTimeout",
      Duration.millis(acquireTimeout),
      () => address,
      () => ({ detail: describe(this.current), cause: this.lastError })
    )
  })

  readonly use = <A, E2, R2>(
    f: (connection: Connection.Connection) => Effect.Effect<A, E2, R2>
  ): Effect.Effect<A, E2 | LinkError<E>, R2> =>
    Effect.flatMap(this.get, (connection) => Effect.tap(f(connection), () => Connection.settled(connection)))

  readonly send = (chunk: Uint8Array | string): Effect.Effect<void, LinkError<E>> =>
    this.use(({ writer }) => writer.write(chunk))

  readonly close: Effect.Effect<void> = Effect.suspend(() =>
    Effect.andThen(Effect.uninterruptible(this.beginToClose), this.stopped)
  )

  private readonly beginToClose = Effect.suspend(() => {
    const { current } = this
    if (this.verdict !== undefined) return Effect.void
    this.end(Exit.void)
    // The fiber finds its connection closed, and nothing else to do. Anything else it is doing is given up.
    if (current._tag === "Connected") {
      return Effect.forkDetach(current.connection.close, { startImmediately: true })
    }
    this.fiber?.interruptUnsafe()
    return Effect.void
  })

  readonly abort: Effect.Effect<void> = Effect.suspend(() => {
    this.end(Exit.void)
    this.fiber?.interruptUnsafe()
    const abortLost = Effect.suspend(() =>
      Effect.forEach(this.lost.items, (connection) => connection.abort, { discard: true })
    )
    return Effect.andThen(this.supervised, Effect.andThen(abortLost, this.stopped))
  })

  get run(): Effect.Effect<void, never, Exclude<R, Scope.Scope>> {
    return Effect.flatMap(Effect.exit(this.keepUp()), (exit) => {
      this.end(exit)
      return Exit.isFailure(exit) && Cause.hasDies(exit.cause)
        ? Effect.logError("a link ended with a defect", exit.cause)
        : Effect.void
    })
  }

  private readonly keepUp = Effect.fnUntraced({ self: this }, function* () {
    const { isPermanent, schedule, stableAfter } = this.settings
    let step = yield* Schedule.toStep(schedule)
    let hasWorked = false
    for (let attempt = 1; ; attempt++) {
      this.set({ _tag: "Connecting", attempt })
      this.attempts++
      const { error, upFor } = yield* this.attempt
      this.lastError = error
      if (this.verdict !== undefined) return
      hasWorked ||= upFor >= 0
      if (isPermanent(error, hasWorked)) return yield* Effect.fail(error)
      if (upFor >= stableAfter) {
        step = yield* Schedule.toStep(schedule)
        attempt = 0
      }
      const timeOfDay = yield* Clock.currentTimeMillis
      const [, delay] = yield* Pull.catchDone(step(timeOfDay, error), () => Effect.fail(error))
      // A schedule may take its time.
      if (this.verdict !== undefined) return
      this.set({ _tag: "Waiting", error, delay, attempt: attempt + 1 })
      yield* Effect.sleep(delay)
    }
  })

  /** Connects, and stays until the connection is lost. The next attempt does not wait for the old connection's closing. */
  private get attempt(): Effect.Effect<Ended<E>, never, Exclude<R, Scope.Scope>> {
    const { connect, handshake } = this.settings
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function* () {
        const own = yield* Scope.make()
        const staying = Effect.gen({ self: this }, function* () {
          const connection = yield* connect
          const stay = Effect.andThen(handshake(connection), this.stay(connection))
          return { connection, ended: yield* Effect.scoped(stay) }
        })
        const { connection, ended } = yield* Effect.onError(restore(Scope.provide(staying, own)), (cause) =>
          Scope.close(own, Exit.failCause(cause))
        )
        this.lost.add(connection)
        const forget = Effect.sync(() => this.lost.delete(connection))
        yield* FiberSet.run(this.closing, Effect.ensuring(Scope.close(own, Exit.void), forget))
        return ended
      })
    ).pipe(Effect.catch((error) => Effect.succeed({ error, upFor: -1 })))
  }

  private readonly stay = Effect.fnUntraced({ self: this }, function* (connection: Connection.Connection) {
    const since = yield* now
    this.lastError = undefined
    this.set({ _tag: "Connected", connection })
    const failure = yield* Connection.broken(connection)
    if (this.verdict === undefined) this.losses++
    const upFor = (yield* now) - since
    return { error: failure ?? closedError("link", addressOf(connection) ?? this.settings.address), upFor }
  })

  private get supervised(): Effect.Effect<void> {
    return this.fiber === undefined ? Effect.void : Effect.asVoid(Fiber.await(this.fiber))
  }

  private get stopped(): Effect.Effect<void> {
    return Effect.andThen(this.supervised, FiberSet.awaitEmpty(this.closing))
  }

  private set(state: State<E>): void {
    if (this.verdict !== undefined) return
    this.become(state)
  }

  /** Closes the link, unless it is closed already. */
  private end(exit: Exit.Exit<void, LinkError<E>>): void {
    if (this.verdict !== undefined) return
    this.verdict = Exit.isFailure(exit)
      ? Exit.failCause(exit.cause)
      : Exit.fail(closedError("acquire", this.settings.address))
    const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
    Deferred.doneUnsafe(this.over, exit)
    this.become({ _tag: "Closed", error })
  }

  private become(state: State<E>): void {
    this.current = state
    publish(this.states, state)
    const { changed } = this
    this.changed = Deferred.makeUnsafe()
    Deferred.doneUnsafe(changed, Exit.void)
  }
}

/** What a link without a connection is doing. */
const describe = (state: State<unknown>): string => {
  switch (state._tag) {
    case "Connecting":
      return `attempt ${state.attempt} is under way`
    case "Waiting":
      return `attempt ${state.attempt} follows after ${Duration.format(Duration.millis(Math.round(Duration.toMillis(state.delay))))}`
    default:
      return "the connection is lost, and what `onConnect` has acquired is not released yet"
  }
}

const closedError = (operation: string, address: string | undefined): ConnectionError =>
  new ConnectionError({ operation, address, reason: new ConnectionClosed({}) })
