import * as Predicate from "effect/Predicate"

/** The code of a platform's error, such as `ECONNRESET`. */
export const codeOf = (cause: unknown): string | undefined =>
  Predicate.hasProperty(cause, "code") && typeof cause.code === "string" ? cause.code : undefined
