import * as Duration from "effect/Duration"
import type { Surroundings, TimeLimits } from "./Deadlines.ts"

const DEFAULT_LIMIT = 65_536

export interface Watermarks {
  readonly high: number
  readonly low: number
}

export const isCount = (n: number): boolean => Number.isSafeInteger(n) && n >= 0

/** Throws a `RangeError` unless it is a positive integer. */
export const readLimit = (limit: number = DEFAULT_LIMIT): number => positive("limit", limit, "bytes")

/** Throws a `RangeError` unless it is a positive integer. */
export const positive = (name: string, n: number, unit: string): number => {
  if (!Number.isSafeInteger(n) || n < 1) {
    throw new RangeError(`${name} must be a positive integer (${unit}), received ${n}`)
  }
  return n
}

/** Throws a `RangeError` for what the types do not allow: a value that was misspelt must not pass for another one. */
export const oneOf = <A extends string>(name: string, value: A, allowed: ReadonlyArray<A>): A => {
  if (!allowed.includes(value)) {
    const values = allowed.map((_) => JSON.stringify(_)).join(", ")
    throw new RangeError(`${name} must be one of ${values}, received ${JSON.stringify(value)}`)
  }
  return value
}

/** Throws a `RangeError` unless it is a non-negative integer. */
export const natural = (name: string, n: number): number => {
  if (!isCount(n)) throw new RangeError(`${name} must be a non-negative integer, received ${n}`)
  return n
}

/** Throws a `RangeError` unless both are non-negative integers and `low` is not above `high`. */
export const watermarks = (options?: {
  readonly high: number
  readonly low?: number | undefined
}): Watermarks => {
  const high = options?.high ?? DEFAULT_LIMIT
  const low = options?.low ?? Math.floor(high / 4)
  if (!isCount(high) || !isCount(low)) {
    throw new RangeError(
      `watermarks must be non-negative integers (bytes), received high ${high} and low ${low}`
    )
  }
  if (low > high) {
    throw new RangeError(`the low watermark (${low}) must not be above the high one (${high})`)
  }
  return { high, low }
}

const DEFAULT_BACKLOG = 511

/** Throws a `RangeError` unless it is a positive integer. */
export const backlog = (connections: number = DEFAULT_BACKLOG): number =>
  positive("backlog", connections, "connections")

/** In milliseconds, infinite if absent. Throws a `RangeError` unless it is positive. */
export const timeout = (name: string, input: Duration.Input | undefined): number => {
  if (input === undefined) return Infinity
  const millis = Duration.toMillis(Duration.fromInputUnsafe(input))
  if (!(millis > 0)) throw new RangeError(`${name} must be a positive duration, received ${millis} ms`)
  return millis
}

/** The time for a connect, all of it. Throws a `RangeError` unless it is positive. */
export const connectTimeout = (input: Duration.Input = "10 seconds"): Duration.Duration =>
  Duration.millis(timeout("connectTimeout", input))

/** In milliseconds. Throws a `RangeError` unless it is 0 or more. */
export const delay = (name: string, input: Duration.Input): number => {
  const millis = Duration.toMillis(Duration.fromInputUnsafe(input))
  if (!(millis >= 0)) throw new RangeError(`${name} must not be negative, received ${millis} ms`)
  return millis
}

/** Where a reader is that belongs to no connection. */
export const nowhere: Surroundings = { address: undefined, deadlines: undefined, timed: undefined }

export const noTimeouts: TimeLimits = { operation: "read", timeout: Infinity, idle: Infinity }
