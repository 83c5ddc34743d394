import * as Schedule from "effect/Schedule"

/** When to try again to connect: ever more slowly, and not in step with others who have lost the same server. */
export const backoff: Schedule.Schedule<unknown> = Schedule.jittered(
  Schedule.min([Schedule.exponential("200 millis"), Schedule.spaced("25 seconds")])
)
