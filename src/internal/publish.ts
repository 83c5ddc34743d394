import * as Effect from "effect/Effect"
import * as PubSub from "effect/PubSub"

/**
 * Publishes to a sliding `PubSub` now. The unsafe way alone does not slide: with a subscriber that lags, it would drop the
 * value for all.
 */
export const publish = <A>(bus: PubSub.PubSub<A>, value: A): void => {
  if (!PubSub.publishUnsafe(bus, value)) Effect.runSync(PubSub.publish(bus, value))
}
