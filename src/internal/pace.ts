import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { now } from "./now.ts"

/** So much of a second may leave at once. */
const BURST = 0.1

/** Throws a `RangeError` unless it is positive. */
const checkRate = (name: string, rate: number): number => {
  if (!(rate > 0))
    throw new RangeError(`${name} must be a positive number (bytes a second), received ${rate}`)
  return rate
}

/**
 * Lets at most so many bytes a second through, in pieces of at most a tenth of that. A piece is let through when those
 * before it have used up their time, so a stream that was silent gains one piece by it, and not more.
 */
export const pace = (name: string, rate: number | undefined) => {
  if (rate === undefined || checkRate(name, rate) === Infinity) {
    return <E, R>(stream: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Uint8Array, E, R> => stream
  }
  const size = Math.max(1, Math.floor(rate * BURST))
  return <E, R>(stream: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Uint8Array, E, R> =>
    Stream.suspend(() => {
      let freeAt = -Infinity
      const admit = (piece: Uint8Array): Effect.Effect<void> =>
        Effect.flatMap(now, (time) => {
          const start = Math.max(time, freeAt)
          freeAt = start + (piece.length / rate) * 1000
          return start > time ? Effect.sleep(start - time) : Effect.void
        })
      return stream.pipe(
        Stream.flatMap((chunk) => Stream.fromIterable(pieces(chunk, size))),
        Stream.tap(admit)
      )
    })
}

function* pieces(chunk: Uint8Array, size: number): Generator<Uint8Array> {
  for (let start = 0; start < chunk.length; start += size) yield chunk.subarray(start, start + size)
}
