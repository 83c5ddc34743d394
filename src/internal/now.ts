import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/** Milliseconds that have passed since some time: for ages and pauses, which setting the time of day must not change. */
export const nowUnsafe = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000

export const now: Effect.Effect<number> = Clock.clockWith((clock) => Effect.succeed(nowUnsafe(clock)))
