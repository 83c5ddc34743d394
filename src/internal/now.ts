import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/** Milliseconds that have passed since some time: for ages and pauses, which setting the time of day must not change. */
export const now: Effect.Effect<number> = Effect.map(
  Clock.monotonicTimeNanos,
  (nanos) => Number(nanos) / 1_000_000
)
