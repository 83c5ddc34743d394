import * as Exit from "effect/Exit"

/** A failure that is made when it is first asked for, and is the same for all who ask. */
export const failOnce = <E>(error: () => E): (() => Exit.Exit<never, E>) => {
  let exit: Exit.Exit<never, E> | undefined
  return () => (exit ??= Exit.fail(error()))
}
