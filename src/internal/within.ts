import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { TimeoutError } from "../StreamError.ts"

/** What else a `TimeoutError` has to say, found out when it is made. */
type More = Pick<TimeoutError, "attempts" | "detail" | "cause">

/** Fails with a `TimeoutError` once the time that an option sets is over, and sets no timer if it never is. */
export const within = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  operation: string,
  option: string,
  duration: Duration.Duration,
  address: () => string | undefined,
  more?: () => Partial<More>
): Effect.Effect<A, E | TimeoutError, R> =>
  Duration.isFinite(duration)
    ? Effect.timeoutOrElse(self, {
        duration,
        orElse: () =>
          Effect.fail(new TimeoutError({ operation, duration, address: address(), option, ...more?.() }))
      })
    : self
