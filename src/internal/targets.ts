import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Target } from "../Network.ts"
import { now } from "./now.ts"
import { keyOf } from "./target.ts"

/** What there is for one target. */
interface Entry<A> {
  readonly key: string
  readonly target: Target
  readonly value: A
  /** Whose end ends it. */
  readonly own: Scope.Closeable
  users: number
  /** Since when nobody uses it, as `now` tells it, and how many had been left by then. */
  idleSince: number
  idleNumber: number
}

interface Settings<A> {
  readonly make: (target: Target) => Effect.Effect<A, never, Scope.Scope>
  /** Ends at once what is ending. */
  readonly abort: (value: A) => Effect.Effect<void>
  /** How long it is kept when nobody uses it, in milliseconds. */
  readonly idle: number
  /** How many targets may be there when some of them are not used. */
  readonly max: number
}

/**
 * Something for each of many targets: made when it is first asked for, and ended when nobody has used it for some time. It
 * takes what time it needs to end, and nobody waits for that.
 */
export class Targets<A> {
  private readonly settings: Settings<A>
  private readonly endings: FiberSet.FiberSet
  private readonly entries = new Map<string, Entry<A>>()
  private readonly ending = new Set<Entry<A>>()
  private readonly making = Semaphore.makeUnsafe(1)
  private leavings = 0
  private hasEnded = false

  constructor(settings: Settings<A>, endings: FiberSet.FiberSet) {
    this.settings = settings
    this.endings = endings
  }

  get all(): ReadonlyArray<Entry<A>> {
    return Array.from(this.entries.values())
  }

  /** What there is for a target, in use until the scope ends; nothing once all has ended. */
  get(target: Target): Effect.Effect<A | undefined, never, Scope.Scope> {
    return Effect.map(
      Effect.acquireRelease(this.enter(target), (entry) =>
        entry === undefined ? Effect.void : this.leave(entry)
      ),
      (entry) => entry?.value
    )
  }

  /** Ends what nobody has used for too long. */
  readonly sweep: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    const { idle } = this.settings
    for (;;) {
      const time = yield* now
      let next = time + idle
      for (const entry of this.all) {
        const end = entry.idleSince + idle
        if (entry.users > 0) continue
        if (end > time) next = Math.min(next, end)
        else yield* this.end(entry)
      }
      // Rounded up, so that the clock is never found just short of it.
      yield* Effect.sleep(Math.ceil(next - time))
    }
  })

  endAll(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    // What is being made is there by then.
    const last = this.making.withPermits(1)(
      Effect.sync(() => {
        this.hasEnded = true
      })
    )
    const abort = Effect.suspend(() => Effect.forEach(this.ending, ({ value }) => this.settings.abort(value)))
    const ended = Effect.suspend(() =>
      Effect.forEach(this.all, (entry) => this.close(entry, exit), { concurrency: "unbounded" })
    )
    return last.pipe(
      Effect.andThen(Exit.isSuccess(exit) ? Effect.void : abort),
      Effect.andThen(ended),
      Effect.andThen(FiberSet.awaitEmpty(this.endings))
    )
  }

  private enter(target: Target): Effect.Effect<Entry<A> | undefined> {
    const key = keyOf(target)
    return Effect.suspend(() => {
      const there = this.reenter(key)
      return there === undefined ? this.making.withPermits(1)(this.make(key, target)) : Effect.succeed(there)
    })
  }

  private reenter(key: string): Entry<A> | undefined {
    const entry = this.entries.get(key)
    if (entry !== undefined) entry.users++
    return entry
  }

  private readonly make = Effect.fnUntraced({ self: this }, function* (key: string, target: Target) {
    if (this.hasEnded) return undefined
    const there = this.reenter(key)
    if (there !== undefined) return there
    const own = yield* Scope.make()
    const value = yield* Scope.provide(this.settings.make(target), own)
    const entry: Entry<A> = { key, target, value, own, users: 1, idleSince: 0, idleNumber: 0 }
    this.entries.set(key, entry)
    yield* this.trim
    return entry
  })

  private leave(entry: Entry<A>): Effect.Effect<void> {
    return Effect.flatMap(now, (time) => {
      entry.users--
      if (entry.users > 0 || !this.entries.has(entry.key)) return Effect.void
      entry.idleSince = time
      entry.idleNumber = ++this.leavings
      return this.settings.idle === 0 ? this.end(entry) : this.trim
    })
  }

  private get trim(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const spare = this.entries.size - this.settings.max
      if (spare <= 0) return Effect.void
      const unused = this.all.filter(({ users }) => users === 0)
      const longest = unused.sort((a, b) => a.idleNumber - b.idleNumber).slice(0, spare)
      return Effect.forEach(longest, (entry) => this.end(entry), { discard: true })
    })
  }

  private end(entry: Entry<A>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.entries.delete(entry.key)
      return Effect.asVoid(FiberSet.run(this.endings, this.close(entry, Exit.void)))
    })
  }

  private close(entry: Entry<A>, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.entries.delete(entry.key)
      this.ending.add(entry)
      return Effect.ensuring(
        Scope.close(entry.own, exit),
        Effect.sync(() => this.ending.delete(entry))
      )
    })
  }
}
