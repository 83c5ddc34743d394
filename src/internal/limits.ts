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

/** What becomes of frames that do not decode. Throws a `RangeError` for anything else than the types allow. */
export const onInvalid = <A>(
  input: "fail" | "skip" | ((error: A) => "fail" | "skip") = "fail"
): "fail" | "skip" | ((error: A) => "fail" | "skip") =>
  typeof input === "function" ? input : oneOf<"fail" | "skip">("onInvalid", input, ["fail", "skip"])

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

/** Whoever waits for the peer's end before he lets go discards at most this many bytes meanwhile. */
export const CLOSE_BUDGET = 1024 * 1024

const DEFAULT_BACKLOG = 511

/** Throws a `RangeError` unless it is a positive integer. */
export const backlog = (connections: number = DEFAULT_BACKLOG): number =>
  positive("backlog", connections, "connections")

/** For what the types do not allow to be anything else; it does not narrow, as `Array.isArray` would, to `any`. */
export const isArray = (u: unknown): boolean => Array.isArray(u)

/** Throws a `RangeError` for what is none. */
const duration = (name: string, input: Duration.Input): Duration.Duration => {
  try {
    return Duration.fromInputUnsafe(input)
  } catch {
    throw new RangeError(`${name} must be a duration, such as "5 seconds", received ${JSON.stringify(input)}`)
  }
}

/** In milliseconds, infinite if absent. Throws a `RangeError` unless it is positive. */
export const timeout = (name: string, input: Duration.Input | undefined): number => {
  if (input === undefined) return Infinity
  const millis = Duration.toMillis(duration(name, input))
  if (!(millis > 0)) throw new RangeError(`${name} must be a positive duration, received ${millis} ms`)
  return millis
}

/** The time for a connect, all of it. Throws a `RangeError` unless it is positive. */
export const connectTimeout = (input: Duration.Input = "10 seconds"): Duration.Duration =>
  Duration.millis(timeout("connectTimeout", input))

/** In milliseconds. Throws a `RangeError` unless it is 0 or more. */
export const delay = (name: string, input: Duration.Input): number => {
  const millis = Duration.toMillis(duration(name, input))
  if (!(millis >= 0)) throw new RangeError(`${name} must not be negative, received ${millis} ms`)
  return millis
}

/** Whether TCP keep-alive is on, or its idle time in milliseconds. Throws a `RangeError` unless that is positive and finite. */
export const keepAlive = (input: boolean | Duration.Input = false): boolean | number => {
  if (typeof input === "boolean") return input
  const idle = Duration.toMillis(duration("keepAlive", input))
  if (!(idle > 0 && idle < Infinity)) {
    throw new RangeError(`keepAlive must be a positive, finite duration, received ${idle} ms`)
  }
  return idle
}

/** The options of Happy Eyeballs, checked. Times are milliseconds. */
export interface Pace {
  readonly delay: number
  readonly firstFamilyCount: number
  readonly resolutionDelay: number
}

const inOrder: Pace = { delay: Infinity, firstFamilyCount: 0, resolutionDelay: 0 }

const DEFAULT_DELAY = Duration.millis(250)
const DEFAULT_RESOLUTION_DELAY = Duration.millis(50)

/** Throws a `RangeError` for a time that is negative and for a count of addresses that is none. */
export const happyEyeballs = (
  options:
    | false
    | {
        readonly delay?: Duration.Input | undefined
        readonly firstFamilyCount?: number | undefined
        readonly resolutionDelay?: Duration.Input | undefined
      } = {}
): Pace =>
  options === false
    ? inOrder
    : {
        delay: delay("happyEyeballs.delay", options.delay ?? DEFAULT_DELAY),
        firstFamilyCount: familyCount(options.firstFamilyCount ?? 1),
        resolutionDelay: delay(
          "happyEyeballs.resolutionDelay",
          options.resolutionDelay ?? DEFAULT_RESOLUTION_DELAY
        )
      }

/** Throws a `RangeError` unless it is a non-negative integer, or infinite. */
export const familyCount = (count: number): number => {
  if (count !== Infinity && !isCount(count)) {
    throw new RangeError(`firstFamilyCount must be a non-negative integer (addresses), received ${count}`)
  }
  return count
}

/** Where a reader is that belongs to no connection. */
export const nowhere: Surroundings = { address: undefined, deadlines: undefined, timed: undefined }

export const noTimeouts: TimeLimits = {
  operation: "read",
  timeout: Infinity,
  idle: Infinity,
  timeoutOption: "readTimeout",
  idleOption: "idleTimeout"
}
