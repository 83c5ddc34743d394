import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import type * as Pool from "effect/Pool"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { backoff } from "./backoff.ts"
import type { Closing } from "./closing.ts"
import * as Connection from "./connection.ts"
import type { Lendable } from "./lendable.ts"
import { now } from "./now.ts"
import type { Room } from "./room.ts"

/** Times in milliseconds, infinite where there is no limit. */
export interface Settings<E> {
  /** Makes a connection that belongs to a scope. */
  readonly open: (own: Scope.Scope) => Effect.Effect<Connection.Connection, E>
  readonly min: number
  /** What is closing, of this pool or of all that share a bound. */
  readonly closing: Closing
  /** What the pools of many targets share, if they share anything. */
  readonly room: Room | undefined
  readonly maxIdle: number
  readonly maxAge: number
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** A connection that was never lent counts as new for so long, in milliseconds. */
const NEW = 1000

/** Whether it is new enough to be lent unchecked. */
export const isNew = (item: Lendable, time: number): boolean => item.uses === 0 && time - item.createdAt < NEW

/**
 * The connections of a pool: who makes them, who gives them up, and how many there are.
 *
 * Most of them are lent by an Effect pool, which asks for one more when all that it has are lent. That pool does not look
 * after the minimum: it would not try again after a connect that has failed, and count that as a connection. What is missing
 * from the minimum is made here, ever more slowly while that fails, and kept in reserve until the pool asks for it.
 */
export class Stock<E> {
  /** All that are open, or seem to be. */
  readonly items = new Set<Lendable>()
  created = 0
  evicted = 0
  hasEnded = false
  /** How many borrowers have no connection yet. */
  borrowing = 0
  /** Takes an item from the pool that lends, which closes it. Where somebody has it, it would be replaced too early. */
  withdraw: (item: Lendable) => Effect.Effect<void> = () => Effect.void
  private readonly settings: Settings<E>
  private readonly room: Room | undefined
  private readonly closings: FiberSet.FiberSet
  private readonly closing = new Set<Lendable>()
  private readonly reserve = new Set<Lendable>()
  /** Why the last connection could not be made, if it could not. */
  lastError: E | undefined = undefined
  /** Connections on their way, and those of them that are for the reserve. */
  connecting = 0
  private underway = 0
  /** Who waits for one that is on its way to the reserve. */
  private claims: ReadonlyArray<(exit: Exit.Exit<Lendable, E>) => void> = []
  /** Whether the last connection failed, or was of no use as soon as it was there. */
  private isTroubled = false
  private readonly shortage = Latch.makeUnsafe()
  private readonly relief = Latch.makeUnsafe()

  constructor(settings: Settings<E>, closings: FiberSet.FiberSet) {
    this.settings = settings
    this.room = settings.room
    this.closings = closings
  }

  /** One for the pool that lends: from the reserve, from its way there, or a new one. */
  get acquire(): Effect.Effect<Lendable, E, Scope.Scope> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.tap(this.take(restore), (item) => Effect.addFinalizer(() => this.close(item)))
    )
  }

  /** What the pool that lends does with an item that it has got. */
  get strategy(): Pool.Strategy<Lendable, E> {
    return {
      run: () => Effect.void,
      // One that has broken on its way there could not be withdrawn.
      onAcquire: ({ exit }) =>
        Exit.isSuccess(exit) && !exit.value.lent && (exit.value.unfit || this.room?.reclaims(this) === true)
          ? this.evict(exit.value)
          : Effect.void,
      reclaim: () => Effect.undefined
    }
  }

  /** An item has come back. */
  returned(item: Lendable): Effect.Effect<void> {
    const isClaimed = this.room?.claims(this) === true
    item.lent = false
    return item.unfit || isClaimed ? this.evict(item) : Effect.void
  }

  /** Gives up an item that is not lent, also if whoever asks for that is interrupted. */
  readonly evict = (item: Lendable): Effect.Effect<void> =>
    Effect.uninterruptible(
      Effect.suspend(() => {
        item.unfit = true
        return this.reserve.delete(item) ? Effect.asVoid(this.close(item)) : this.withdraw(item)
      })
    )

  /** A connection has proved good: what is missing need not wait any longer. */
  approve(): void {
    this.isTroubled = false
    this.relief.openUnsafe()
  }

  /** Makes up for what is missing from the minimum. */
  readonly replenish: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    let pause = yield* Schedule.toStepWithSleep(backoff)
    for (;;) {
      if (this.missing <= 0) {
        this.shortage.closeUnsafe()
        yield* this.shortage.await
        continue
      }
      if (this.isTroubled) {
        this.relief.closeUnsafe()
        yield* Effect.raceFirst(Effect.exit(pause(undefined)), this.relief.await)
        this.isTroubled = false
      } else {
        pause = yield* Schedule.toStepWithSleep(backoff)
      }
      yield* Effect.replicateEffect(this.advance, Math.max(this.missing, 0), {
        concurrency: "unbounded",
        discard: true
      })
    }
  })

  /** Gives up what has been idle for too long. What is missing from the minimum then is made anew. */
  readonly sweep: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    const { maxIdle } = this.settings
    for (;;) {
      const time = yield* now
      let next = time + maxIdle
      for (const item of Array.from(this.items)) {
        const end = item.idleSince + maxIdle
        if (item.lent || item.unfit) continue
        if (end > time) next = Math.min(next, end)
        else yield* this.evict(item)
      }
      // Rounded up, so that the clock is never found just short of it.
      yield* Effect.sleep(Math.ceil(next - time))
    }
  })

  get closeReserve(): Effect.Effect<void> {
    return Effect.suspend(() => Effect.forEach(this.reserve, (item) => this.evict(item), { discard: true }))
  }

  /** Closes whatever is left. */
  get closeAll(): Effect.Effect<void> {
    return Effect.suspend(() => Effect.forEach(this.items, (item) => this.close(item), { discard: true }))
  }

  /** Aborts all, also what is closing. */
  get abortAll(): Effect.Effect<void> {
    return Effect.suspend(() =>
      Effect.forEach([...this.items, ...this.closing], ({ connection }) => connection.abort, {
        concurrency: "unbounded",
        discard: true
      })
    )
  }

  private get missing(): number {
    return this.hasEnded ? 0 : this.settings.min - this.items.size - this.connecting
  }

  private take(restore: Restore): Effect.Effect<Lendable, E> {
    return Effect.suspend(() => {
      const [item] = this.reserve
      if (item !== undefined) {
        this.reserve.delete(item)
        return Effect.succeed(item)
      }
      if (this.underway > this.claims.length) return restore(this.claim)
      const made = this.make(restore)
      return this.room === undefined ? made : Effect.andThen(this.room.enter(restore, this), made)
    })
  }

  private get claim(): Effect.Effect<Lendable, E> {
    return Effect.callback((resume) => {
      this.claims = [...this.claims, resume]
      return Effect.sync(() => {
        this.claims = this.claims.filter((_) => _ !== resume)
      })
    })
  }

  /** Makes one for the reserve, or for whoever has claimed it. A failure that nobody has claimed is tried again later. */
  private get advance(): Effect.Effect<void> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        if (this.room?.tryEnter() === false) {
          this.isTroubled = true
          return Effect.void
        }
        this.underway++
        return Effect.flatMap(Effect.exit(this.make(restore)), (exit) => {
          this.underway--
          if (Exit.isFailure(exit)) this.isTroubled = true
          const [claim, ...claims] = this.claims
          this.claims = claims
          if (claim !== undefined) claim(exit)
          else if (Exit.isSuccess(exit)) {
            this.reserve.add(exit.value)
            if (this.room?.recalls(this) === true) return this.evict(exit.value)
          } else if (Cause.hasDies(exit.cause)) {
            return Effect.logError("a connection of a pool's minimum ended with a defect", exit.cause)
          }
          return Effect.void
        })
      })
    )
  }

  /** Makes one, for which there is room. */
  private make(restore: Restore): Effect.Effect<Lendable, E> {
    return Effect.gen({ self: this }, function* () {
      this.connecting++
      const own = yield* Scope.make()
      const exit = yield* Effect.exit(restore(this.settings.open(own)))
      const createdAt = yield* now
      if (Exit.isFailure(exit)) {
        yield* Scope.close(own, exit)
        this.connecting--
        this.room?.leave()
        this.lastError = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
        this.shortage.openUnsafe()
        return yield* Exit.failCause(exit.cause)
      }
      const { value: connection } = exit
      this.lastError = undefined
      const item: Lendable = {
        connection,
        number: ++this.created,
        createdAt,
        own,
        idleSince: createdAt,
        uses: 0,
        lent: false,
        unfit: false
      }
      this.connecting--
      this.items.add(item)
      const lapsed = Effect.raceFirst(Connection.broken(connection), lapse(this.settings.maxAge))
      yield* Effect.forkIn(Effect.andThen(lapsed, this.lapse(item)), own)
      return item
    })
  }

  /** A connection has broken, or become too old. */
  private lapse(item: Lendable): Effect.Effect<void> {
    return Effect.suspend(() => {
      item.unfit = true
      return item.lent ? Effect.void : this.evict(item)
    })
  }

  /**
   * Closing takes as long as the peer likes, within `closeTimeout`. Nobody is to wait for it, so there is a bound to how many
   * are closing.
   */
  private close(item: Lendable): Effect.Effect<unknown> {
    return Effect.flatMap(now, (time) => {
      this.items.delete(item)
      if (!this.hasEnded) this.evicted++
      if (isNew(item, time) && !Connection.isClean(item.connection)) this.isTroubled = true
      this.closing.add(item)
      this.settings.closing.add(item.connection)
      // Whoever waits for these goes on at once, and before the closing has begun.
      this.room?.leave()
      this.shortage.openUnsafe()
      const forget = Effect.sync(() => {
        this.closing.delete(item)
        this.settings.closing.delete(item.connection)
      })
      return FiberSet.run(this.closings, Effect.ensuring(Scope.close(item.own, Exit.void), forget))
    })
  }
}

const lapse = (millis: number): Effect.Effect<void> =>
  millis === Infinity ? Effect.never : Effect.sleep(millis)
