import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { FrameTooLong } from "../FrameError.ts"
import type { FrameReader } from "../Framing.ts"
import { IncompleteReadError, type ReadError } from "../StreamError.ts"
import type { Separator as SeparatorInput } from "../StreamReader.ts"
import { indexOf } from "./bytes.ts"
import type { TimeLimits } from "./Deadlines.ts"
import { type Outcome, Ready } from "./Immediate.ts"
import type { Input } from "./Input.ts"
import * as Limits from "./limits.ts"
import * as Separators from "./Separator.ts"

const FIRST_BLOCK = 256

type CursorError = FrameTooLong | IncompleteReadError | ReadError

/**
 * Reads on through the frame at the start of the buffer and leaves everything in place, so that whoever is interrupted
 * within a frame has lost nothing.
 */
export class Cursor implements FrameReader {
  position = 0
  private readonly input: Input
  private readonly limits: TimeLimits
  private readonly max: number

  constructor(input: Input, limits: TimeLimits, max: number) {
    this.input = input
    this.limits = limits
    this.max = max
  }

  readExactly = (n: number): Effect.Effect<Uint8Array, CursorError> => this.bytes("readExactly", n, n)

  peek = (n: number): Effect.Effect<Uint8Array, CursorError> => this.bytes("peek", n, 0)

  skip = (n: number): Effect.Effect<void, CursorError> => this.bytes("skip", n, n)

  readUntil = (separator: SeparatorInput): Effect.Effect<Uint8Array, CursorError> =>
    Effect.suspend(() => {
      const sought = Separators.make(separator)
      let searched = 0
      return this.run("readUntil", undefined, () => {
        const start = this.position
        const { buffer } = this.input
        // From where a match could begin that was not complete the last time.
        const from = Math.max(start, start + searched - sought.longest + 1)
        const end = this.endOf(sought, from)
        if (end === -1) {
          searched = buffer.size - start
          return buffer.size > this.max ? this.tooLong(buffer.size) : undefined
        }
        if (end > this.max) return this.tooLong(end)
        this.position = end
        return new Ready(buffer.slice(start, end))
      })
    })

  /** Just past the match that ends first, or -1. */
  private endOf({ longest, patterns }: Separators.Separator, from: number): number {
    const { buffer } = this.input
    // Block by block, twice as large each time: what comes after the match may be long, and is not to be copied.
    for (let low = from, width = FIRST_BLOCK; low < buffer.size; low += width, width *= 2) {
      const origin = Math.max(from, low - longest + 1)
      const block = buffer.slice(origin, Math.min(low + width, buffer.size))
      let best = -1
      for (const pattern of patterns) {
        const at = indexOf(block, pattern, 0)
        if (at !== -1 && (best === -1 || at + pattern.length < best)) best = at + pattern.length
      }
      if (best !== -1) return origin + best
    }
    return -1
  }

  private bytes(operation: string, n: number, advance: number): Effect.Effect<Uint8Array, CursorError> {
    return Effect.suspend(() => {
      Limits.natural(`${operation}: n`, n)
      return this.run(operation, n, () => {
        const start = this.position
        const end = start + n
        if (end > this.max) return this.tooLong(end)
        if (this.input.buffer.size < end) return undefined
        this.position = start + advance
        return new Ready(this.input.buffer.slice(start, end))
      })
    })
  }

  private run<A>(
    operation: string,
    expected: number | undefined,
    attempt: () => Outcome<A, CursorError> | undefined
  ): Effect.Effect<A, CursorError> {
    const { input } = this
    // All of the unfinished frame, not only what this operation would have read.
    const atEnd = (): Outcome<A, CursorError> =>
      Exit.fail(
        new IncompleteReadError({
          operation,
          partial: input.buffer.take(input.buffer.size),
          expected: expected === undefined ? undefined : this.position + expected,
          address: input.address
        })
      )
    return input.run(this.limits, () => input.tryDecode(attempt, atEnd), undefined)
  }

  private tooLong(length: number): Exit.Exit<never, FrameTooLong> {
    return Exit.fail(new FrameTooLong({ length, limit: this.max }))
  }
}
