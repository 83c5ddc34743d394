import { Cause, type Effect, Exit, Option } from "effect"
import type { FrameError } from "effect-wire"
import * as vm from "node:vm"
import { concat, now } from "./framings.ts"

export type Random = (below: number) => number

/** A small generator: fast-check would take minutes for as many inputs. */
export const randoms = (seed: number): Random => {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

const nothing = new Uint8Array(0)

/**
 * Makes inputs that mean no good: noise, what the protocol is made of in any order, and valid input that was damaged by
 * replacing bytes, by taking out or putting in, and by cutting it off.
 */
export const hostile = (
  random: Random,
  valid: ReadonlyArray<Uint8Array>,
  tokens: ReadonlyArray<Uint8Array>
): (() => Uint8Array) => {
  const oneOf = (from: ReadonlyArray<Uint8Array>): Uint8Array => from[random(from.length)] ?? nothing
  const damaged = (bytes: Uint8Array): Uint8Array => {
    const at = random(bytes.length + 1)
    const head = bytes.subarray(0, at)
    switch (random(5)) {
      case 0:
        return concat(head, oneOf(tokens), bytes.subarray(at))
      case 1:
        return concat(head, oneOf(tokens), bytes.subarray(at + random(4)))
      case 2:
        return concat(head, bytes.subarray(at + random(bytes.length + 1)))
      case 3:
        return concat(head, Uint8Array.of(random(256)), bytes.subarray(at + 1))
      default:
        return head
    }
  }
  return () => {
    const kind = random(8)
    if (kind === 0) return Uint8Array.from({ length: random(40) }, () => random(256))
    if (kind === 1) return concat(...Array.from({ length: random(12) }, () => oneOf(tokens)))
    let bytes = concat(...Array.from({ length: 1 + random(2) }, () => oneOf(valid)))
    for (let n = 1 + random(3); n > 0; n--) bytes = damaged(bytes)
    return bytes
  }
}

/** Bytes in pieces: whole, cut at some places, or byte by byte. */
export const cutAtRandom = (random: Random, bytes: Uint8Array): ReadonlyArray<Uint8Array> => {
  const kind = random(8)
  const pieces: Array<Uint8Array> = []
  for (let at = 0; at < bytes.length;) {
    const size = kind === 0 ? 1 : kind < 4 ? bytes.length : 1 + random(bytes.length)
    pieces.push(bytes.subarray(at, at + size))
    at += size
  }
  return pieces
}

const MOST_MILLIS = 60_000

/** Does what takes no turn of the event loop; throws if it goes on for ever, which a test's own limit would not notice. */
export const ending = (run: () => void): void => {
  vm.runInNewContext("run()", { run }, { timeout: MOST_MILLIS })
}

/** Receives to the end, or to a failure that stays, and gives what was received; throws if it is no typed failure. */
export const exhaust = <A>(
  receive: Effect.Effect<A, FrameError.ReceiveError>,
  bytes: number
): ReadonlyArray<A> => {
  const received: Array<A> = []
  let failedAt: number | undefined
  for (let results = 0; results <= bytes + 1; results++) {
    const exit = now(receive)
    if (Exit.isSuccess(exit)) {
      received.push(exit.value)
      continue
    }
    const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
    if (error?._tag === "EndOfStream") return received
    if (error?._tag !== "FrameError" && error?._tag !== "IncompleteReadError")
      throw new Error(String(exit.cause), { cause: Cause.squash(exit.cause) })
    if (error._tag === "FrameError" && error.offset === failedAt) return received
    failedAt = error._tag === "FrameError" ? error.offset : undefined
  }
  throw new Error(`more results than ${bytes} bytes`)
}
