import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"

/** A result that is there: `yield*` takes it as it is. */
export class Ready<out A> implements IteratorReturnResult<A> {
  readonly done = true
  readonly value: A

  constructor(value: A) {
    this.value = value
  }

  next(): IteratorReturnResult<A> {
    return this
  }

  [Symbol.iterator](): this {
    return this
  }
}

/** Done, without a result. */
export const done = new Ready<void>(undefined)

/** What an operation comes to when it ends: a result, or a failure. */
export type Outcome<A, E> = Ready<A> | Exit.Exit<never, E>

export const toEffect = <A, E>(begun: Ready<A> | Effect.Effect<A, E>): Effect.Effect<A, E> =>
  begun instanceof Ready ? Exit.succeed(begun.value) : begun

// Results that were taken without a step since a fiber was last made to yield for it.
let taken = 0

/** A fiber that only takes what is there yields as often as one that takes steps: others have to run, too. */
const mayTake = (): boolean => {
  const fiber = Fiber.getCurrent()
  if (fiber === undefined) return false
  if (++taken < fiber.cache.maxOpsBeforeYield || fiber.cache.preventYield) return true
  taken = 0
  return false
}

/**
 * An operation that often has its result at once. `yield*` takes such a result then and there: a step of the fiber costs
 * more than a buffered read.
 */
export abstract class Immediate<A, E> extends Effectable.Class<A, E> {
  /** Gives the result if there is one already, or else what waits for it. */
  protected abstract begin(): Ready<A> | Effect.Effect<A, E>

  override asEffect(): Effect.Effect<A, E> {
    return toEffect(this.begin())
  }

  override [Symbol.iterator](): Effect.EffectIterator<Effect.Effect<A, E>> {
    return mayTake() ? this.begin()[Symbol.iterator]() : this.afterYield()[Symbol.iterator]()
  }

  protected afterYield(): Effect.Effect<A, E> {
    return Effect.flatMap(Effect.yieldNow, () => toEffect(this.begin()))
  }
}
