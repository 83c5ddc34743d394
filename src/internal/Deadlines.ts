import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { TimeoutError } from "../StreamError.ts"
import { nowUnsafe } from "./now.ts"

/** The time limits of one operation, in milliseconds; infinite where there is none. */
export interface TimeLimits {
  readonly operation: string
  readonly timeout: number
  readonly idle: number
  /** What raises them, as error messages say it. */
  readonly timeoutOption: string
  readonly idleOption: string
}

export const isLimited = ({ idle, timeout }: TimeLimits): boolean => timeout !== Infinity || idle !== Infinity

/** A waiting operation's time limit. */
export interface Deadline {
  readonly limits: TimeLimits
  /** When the operation began to wait. */
  readonly since: number
  readonly expire: (error: TimeoutError) => void
  /** When to look next. */
  at: number
}

/** What the two halves of a connection share. */
export interface Surroundings {
  /** The peer's address, for errors. */
  readonly address: string | undefined
  /** The deadlines, if a time limit has been set so far. */
  readonly deadlines: Deadlines | undefined
  /** The deadlines, to set a time limit, where there can be one. */
  readonly timed: Deadlines | undefined
}

const closing = new WeakMap<Clock.Clock, Deadlines>()

/**
 * The deadlines of a connection: one timer, armed only while an operation waits.
 *
 * An operation that ends does not stop the timer at once, since the fiber that it resumes usually waits again before
 * `settle` is called; the timer then finds the later deadline when it fires and sleeps on.
 */
export class Deadlines {
  /** When bytes last came or went while somebody waited. */
  private activeAt = 0
  private tracksActivity = false
  private armed: Array<Deadline> = []
  private timer: Fiber.Fiber<void> | undefined = undefined
  private timerAt = Infinity
  private readonly clock: Clock.Clock
  private readonly context: Context.Context<never>
  private readonly address: () => string | undefined

  constructor(clock: Clock.Clock, context: Context.Context<never>, address: () => string | undefined) {
    this.clock = clock
    this.context = context
    this.address = address
  }

  /** The one timer of all connections of a clock that are closing: most of them have closed long before it fires. */
  static ofClosing(clock: Clock.Clock): Deadlines {
    let deadlines = closing.get(clock)
    if (deadlines === undefined) {
      deadlines = new Deadlines(clock, Context.make(Clock.Clock, clock), () => undefined)
      closing.set(clock, deadlines)
    }
    return deadlines
  }

  private now(): number {
    return nowUnsafe(this.clock)
  }

  /** Bytes came or went, which matters to whoever waits already. */
  touch(): void {
    if (this.tracksActivity && this.armed.length > 0) this.activeAt = this.now()
  }

  /** Arms a deadline, or does nothing if there is no limit. */
  arm(limits: TimeLimits, expire: (error: TimeoutError) => void): Deadline | undefined {
    if (!isLimited(limits)) return undefined
    const since = this.now()
    if (limits.idle !== Infinity) this.tracksActivity = true
    const deadline: Deadline = { limits, since, expire, at: since + Math.min(limits.timeout, limits.idle) }
    this.armed.push(deadline)
    if (deadline.at < this.timerAt) this.schedule(deadline.at, since)
    return deadline
  }

  /** Takes a deadline back; `settle` is to follow once whoever waited was resumed. Whether it was armed still. */
  disarm(deadline: Deadline | undefined): boolean {
    const index = deadline === undefined ? -1 : this.armed.indexOf(deadline)
    if (index === -1) return false
    this.armed.splice(index, 1)
    return true
  }

  /** Stops the timer if nothing waits any more. */
  settle(): void {
    if (this.timer !== undefined && this.armed.length === 0) this.stop()
  }

  /** Fails when the limit has passed, for as long as it is waited for. */
  expiry(limits: TimeLimits): Effect.Effect<never, TimeoutError> {
    return Effect.callback((resume) => {
      const deadline = this.arm(limits, (error) => resume(Effect.fail(error)))
      return Effect.sync(() => {
        this.disarm(deadline)
        this.settle()
      })
    })
  }

  private stop(): void {
    const timer = this.timer
    this.timer = undefined
    this.timerAt = Infinity
    timer?.interruptUnsafe()
  }

  private schedule(at: number, now: number): void {
    this.stop()
    this.timerAt = at
    // Rounded up, so that the clock is never found just short of the deadline.
    const sleep = this.clock.sleep(Duration.millis(Math.max(0, Math.ceil(at - now))))
    this.timer = Effect.runForkWith(this.context)(
      Effect.andThen(
        sleep,
        Effect.sync(() => this.fire())
      )
    )
  }

  private fire(): void {
    this.timer = undefined
    this.timerAt = Infinity
    const now = this.now()
    for (const deadline of this.armed.filter((_) => _.at <= now)) {
      const error = this.expired(deadline, now)
      // Whoever was resumed for one may have taken back another.
      if (error !== undefined && this.disarm(deadline)) deadline.expire(error)
    }
    const next = this.armed.reduce((at, deadline) => Math.min(at, deadline.at), Infinity)
    if (next < this.timerAt) this.schedule(next, now)
  }

  private expired(deadline: Deadline, now: number): TimeoutError | undefined {
    const { idle, idleOption, operation, timeout, timeoutOption } = deadline.limits
    if (now >= deadline.since + timeout) {
      return this.timeout(operation, timeout, timeoutOption)
    }
    const idleAt = Math.max(this.activeAt, deadline.since) + idle
    if (now >= idleAt) {
      return this.timeout("idle", idle, idleOption)
    }
    deadline.at = Math.min(deadline.since + timeout, idleAt)
    return undefined
  }

  private timeout(operation: string, millis: number, option: string): TimeoutError {
    return new TimeoutError({
      operation,
      duration: Duration.millis(millis),
      address: this.address(),
      option
    })
  }
}
