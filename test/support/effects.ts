import { Cause, Clock, Effect, Exit, Fiber, Metric, Option, Predicate, type Scope } from "effect"
import { Connection } from "effect-wire"
import { type FakeOptions, makeFake } from "./FakeTransport.ts"

/** A fiber that began at once; `exit` is what it has come to so far. */
export interface Started<A, E> {
  readonly fiber: Fiber.Fiber<A, E>
  readonly exit: () => Exit.Exit<A, E> | undefined
  readonly interrupt: Effect.Effect<void>
}

export const start = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Started<A, E>, never, R> =>
  Effect.map(Effect.forkChild(effect, { startImmediately: true }), (fiber) => ({
    fiber,
    exit: () => fiber.pollUnsafe(),
    interrupt: Fiber.interrupt(fiber)
  }))

/** Lets every fiber and every transport in memory do what it can. */
export const turns: Effect.Effect<void> = Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow, {
  discard: true
})

const tagOf = (u: unknown): string => {
  if (Predicate.hasProperty(u, "reason") && Predicate.hasProperty(u.reason, "_tag"))
    return String(u.reason._tag)
  const tag = Predicate.hasProperty(u, "_tag") ? String(u._tag) : String(u)
  return tag === "TimeoutError" && Predicate.hasProperty(u, "operation")
    ? `${tag} ${String(u.operation)}`
    : tag
}

/** What something came to, in a word or two: a failure's tag, or its reason's. */
export const outcome = (
  from: Exit.Exit<unknown, unknown> | Started<unknown, unknown> | undefined
): string => {
  const exit = from !== undefined && "fiber" in from ? from.exit() : from
  if (exit === undefined) return "waiting"
  if (Exit.isSuccess(exit)) return "success"
  if (Cause.hasInterrupts(exit.cause)) return "interrupted"
  return Option.match(Cause.findErrorOption(exit.cause), {
    onNone: () => `defect ${String(Cause.squash(exit.cause))}`,
    onSome: tagOf
  })
}

/** Runs an effect and says what it came to. */
export const outcomeOf = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<string, never, R> =>
  Effect.map(Effect.exit(effect), outcome)

/** A connection over a transport that does what the test says. The transport lets go before the test's scope ends. */
export const connect = Effect.fnUntraced(function* (options?: Connection.Options, fake?: FakeOptions) {
  const transport = makeFake(fake)
  const connection = yield* Connection.make(transport, options)
  yield* Effect.addFinalizer(() => Effect.sync(transport.finish))
  return { transport, connection, reader: connection.reader, writer: connection.writer }
})

/** A pair that is aborted before the test's scope ends. */
export const pair = Effect.fnUntraced(function* (options?: Parameters<typeof Connection.pair>[0]) {
  const [left, right] = yield* Connection.pair(options)
  yield* Effect.addFinalizer(() =>
    Effect.all([left.abort, right.abort], { concurrency: "unbounded", discard: true })
  )
  return [left, right] as const
})

/** A connection that is aborted before its scope ends, which would wait for the peer, and for the time. */
export const aborting = <E, R>(
  self: Effect.Effect<Connection.Connection, E, R>
): Effect.Effect<Connection.Connection, E, R | Scope.Scope> =>
  Effect.tap(self, (connection) => Effect.addFinalizer(() => connection.abort))

/** A clock that does some things in another way. */
const changed = (clock: Clock.Clock, changes: Partial<Clock.Clock>): Clock.Clock => {
  const copy: Clock.Clock = { ...clock, ...changes }
  // The live clock's methods are its class's.
  const prototype: unknown = Object.getPrototypeOf(clock)
  if (typeof prototype === "object") Object.setPrototypeOf(copy, prototype)
  return copy
}

/** Runs an effect with a clock that counts who sleeps. */
export const withSleepers = <A, E, R>(
  f: (sleepers: () => number) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.clockWith((clock) => {
    let sleeping = 0
    const counting = changed(clock, {
      sleep: (duration) =>
        Effect.suspend(() => {
          sleeping++
          return Effect.ensuring(
            clock.sleep(duration),
            Effect.sync(() => {
              sleeping--
            })
          )
        })
    })
    return Effect.provideService(
      f(() => sleeping),
      Clock.Clock,
      counting
    )
  })

/** Runs an effect with a clock whose time of day can be set, by so many milliseconds; time passes as before. */
export const withTimeOfDay = <A, E, R>(
  f: (set: (by: number) => void) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.clockWith((clock) => {
    let off = 0
    const now = (): number => clock.currentTimeMillisUnsafe() + off
    return Effect.provideService(
      f((by) => {
        off += by
      }),
      Clock.Clock,
      changed(clock, { currentTimeMillisUnsafe: now, currentTimeMillis: Effect.sync(now) })
    )
  })

/** Runs an effect with a clock that is a millisecond later each time that it is looked at. */
export const withTicks = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.clockWith((clock) => {
    let ticks = 0n
    const now = (): bigint => clock.monotonicTimeNanosUnsafe() + ++ticks * 1_000_000n
    return Effect.provideService(
      effect,
      Clock.Clock,
      changed(clock, { monotonicTimeNanosUnsafe: now, monotonicTimeNanos: Effect.sync(now) })
    )
  })

/** Runs an effect with a count of the fibers that it has begun and that have not ended. */
export const withFibers = <A, E, R>(
  f: (fibers: () => number) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    let running = 0
    return Effect.provideService(
      f(() => running),
      Metric.FiberRuntimeMetrics,
      {
        recordFiberStart: () => {
          running++
        },
        recordFiberEnd: () => {
          running--
        }
      }
    )
  })

/** How often another fiber comes to its turn while an effect runs. */
export const turnsOfOthers = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
  let count = 0
  const other = yield* Effect.forkChild(
    Effect.forever(
      Effect.andThen(
        Effect.yieldNow,
        Effect.sync(() => count++)
      ),
      { disableYield: true }
    ),
    { startImmediately: true }
  )
  yield* effect
  yield* Fiber.interrupt(other)
  return count
})

/** An effect 8,192 times over, by a fiber that does not yield for it. */
export const manyTimes = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<void, E, R> =>
  Effect.forEach(Array.from({ length: 8192 }), () => effect, { discard: true })

/** An effect after so many operations. */
export const delayed = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  operations: number
): Effect.Effect<A, E, R> => {
  let all = effect
  for (let i = 0; i < operations; i++) {
    const next = all
    all = Effect.suspend(() => next)
  }
  return all
}
