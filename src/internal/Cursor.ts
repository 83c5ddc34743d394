import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { EndOfStream, FrameTooLong } from "../FrameError.ts"
import type { FrameReader, StepError } from "../Framing.ts"
import { IncompleteReadError, type ReadError } from "../StreamError.ts"
import type { Separator as SeparatorInput } from "../StreamReader.ts"
import { indexOf, toLine } from "./bytes.ts"
import type { Deadline, TimeLimits } from "./Deadlines.ts"
import { done, Immediate, type Outcome, Ready, toEffect } from "./Immediate.ts"
import { Holder, type Input } from "./Input.ts"
import * as Limits from "./limits.ts"
import type { ReadBuffer } from "./ReadBuffer.ts"
import * as Separators from "./Separator.ts"

const FIRST_BLOCK = 256

/** Looks whether a step can end now; `undefined` if it has to wait for more bytes. */
type Attempt<A, E, P> = (cursor: Cursor, parameter: P) => Outcome<A, E> | undefined

/** A step that waits. */
interface Wait {
  /** Ends it, if it can end now. */
  readonly tryEnd: () => boolean
  deadline: Deadline | undefined
}

/** One step within a frame, as an effect: it looks at the buffer directly, and waits only if bytes are missing. */
class Step<A, E, P> extends Immediate<A, E | ReadError> {
  private readonly cursor: Cursor
  private readonly attempt: Attempt<A, E, P>
  private readonly parameter: P

  constructor(cursor: Cursor, attempt: Attempt<A, E, P>, parameter: P) {
    super()
    this.cursor = cursor
    this.attempt = attempt
    this.parameter = parameter
  }

  protected override begin(): Ready<A> | Effect.Effect<A, E | ReadError> {
    return this.cursor.begin(this.attempt, this.parameter)
  }
}

/**
 * Reads on through the frame at the start of the buffer and leaves everything in place, so that whoever is interrupted
 * within a frame has lost nothing. Nobody else reads from the input in the meantime.
 */
export class Cursor extends Holder implements FrameReader {
  /** Where the next step begins. */
  position = 0
  /** Whether a step has found the end of input before it had all that it wanted. */
  hasFoundEnd = false
  owner: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private readonly input: Input
  private readonly limits: TimeLimits
  private readonly max: number
  private waiting: ReadonlyArray<Wait> = none
  private isOver = false

  constructor(input: Input, limits: TimeLimits, max: number) {
    super()
    this.input = input
    this.limits = limits
    this.max = max
  }

  get needsBytes(): boolean {
    return this.waiting.length > 0
  }

  /** Waits for its turn, and for the first byte of a frame. */
  get start(): Effect.Effect<void, EndOfStream | ReadError> {
    return new Step(this, tryStart, undefined)
  }

  /** Whether a frame can begin now. */
  get isReady(): boolean {
    return this.input.buffer.size > 0 && this.input.isHeldBy(this)
  }

  reserve(): void {
    this.owner = Fiber.getCurrent()
    this.input.reserve(this)
  }

  /** Lets others read. */
  release(): void {
    this.close()
    this.input.release(this)
  }

  /** Whoever kept it must not read with it any more. */
  close(): void {
    this.isOver = true
  }

  // Each is made when it is used: a frame takes one or two of them.

  get readExactly(): FrameReader["readExactly"] {
    return (n) => new Step(this, tryReadExactly, n)
  }

  get readUntil(): FrameReader["readUntil"] {
    return (separator) => this.searching(tryReadUntil, separator)
  }

  get skipUntil(): FrameReader["skipUntil"] {
    return (separator) => this.searching(trySkipUntil, separator)
  }

  private searching<A, E>(
    attempt: Attempt<A, E, Search>,
    separator: SeparatorInput
  ): Effect.Effect<A, E | ReadError> {
    try {
      return new Step(this, attempt, new Search(separator))
    } catch (cause) {
      return Effect.die(cause)
    }
  }

  get readLine(): FrameReader["readLine"] {
    return new Step(this, tryReadLine, new Search("\n"))
  }

  get readLineString(): FrameReader["readLineString"] {
    return new Step(this, tryReadLineString, new Search("\n"))
  }

  get readUint8(): FrameReader["readUint8"] {
    return new Step(this, tryReadUint8, undefined)
  }

  get readUint16(): FrameReader["readUint16"] {
    return (endian) => new Step(this, tryReadUint16, endian)
  }

  get readUint32(): FrameReader["readUint32"] {
    return (endian) => new Step(this, tryReadUint32, endian)
  }

  get readRest(): FrameReader["readRest"] {
    return new Step(this, tryReadRest, undefined)
  }

  get peek(): FrameReader["peek"] {
    return (n) => new Step(this, tryPeek, n)
  }

  get skip(): FrameReader["skip"] {
    return (n) => new Step(this, trySkip, n)
  }

  begin<A, E, P>(attempt: Attempt<A, E, P>, parameter: P): Ready<A> | Effect.Effect<A, E | ReadError> {
    const outcome = this.waiting.length === 0 ? this.try(attempt, parameter) : undefined
    return outcome ?? Effect.callback((resume) => this.wait(attempt, parameter, resume))
  }

  private try<A, E, P>(attempt: Attempt<A, E, P>, parameter: P): Outcome<A, E> | undefined {
    if (this.isOver) return Exit.die(new Error("the reader of a frame was used after the frame was decoded"))
    try {
      return attempt(this, parameter)
    } catch (cause) {
      return Exit.die(cause)
    }
  }

  private wait<A, E, P>(
    attempt: Attempt<A, E, P>,
    parameter: P,
    resume: (effect: Effect.Effect<A, E | ReadError>) => void
  ): Effect.Effect<void> | undefined {
    const tryEnd = (): boolean => {
      const outcome = this.try(attempt, parameter)
      if (outcome === undefined) return false
      this.forget(wait)
      resume(toEffect(outcome))
      return true
    }
    const wait: Wait = { tryEnd, deadline: undefined }
    // Bytes may have come since the first attempt, if the fiber yielded in between.
    if (this.waiting.length === 0 && tryEnd()) return undefined
    this.waiting = [...this.waiting, wait]
    wait.deadline = this.input.arm(this.limits, (error) => {
      this.forget(wait)
      resume(Exit.fail(error))
    })
    // Last: the source may feed from within, which ends the wait.
    this.input.needMore()
    return Effect.sync(() => {
      this.forget(wait)
      this.input.settle()
    })
  }

  private forget(wait: Wait): void {
    this.waiting = this.waiting.filter((_) => _ !== wait)
    this.input.disarm(wait.deadline)
  }

  advance(): void {
    while (this.input.isHeldBy(this) && this.waiting[0]?.tryEnd() === true);
  }

  // The steps. What they do not find may still come, unless the input has failed or ended.

  tryStart(): Outcome<void, EndOfStream | ReadError> | undefined {
    if (!this.input.isHeldBy(this)) return undefined
    const { buffer, eof, failed } = this.input
    if (buffer.size > 0) return done
    return failed ?? (eof ? Exit.fail(new EndOfStream({ address: this.input.address })) : undefined)
  }

  tryBytes(operation: string, n: number, advance: number): Outcome<Uint8Array, StepError> | undefined {
    const { position } = this
    const end = this.endOf(operation, n)
    if (typeof end !== "number") return end
    this.position = position + advance
    return new Ready(this.input.buffer.slice(position, end))
  }

  trySkip(n: number): Outcome<void, StepError> | undefined {
    const end = this.endOf("skip", n)
    if (typeof end !== "number") return end
    this.position = end
    return done
  }

  // Where the next `n` bytes end, all of which are there.
  private endOf(operation: string, n: number): number | Exit.Exit<never, StepError> | undefined {
    const end = this.position + n
    // First: what a peer says may be beyond any integer.
    if (end > this.max) return this.tooLong(end)
    Limits.natural(`${operation}: n`, n)
    return end <= this.input.buffer.size ? end : this.ended(operation, end)
  }

  tryReadUntil(operation: string, search: Search): Outcome<Uint8Array, StepError> | undefined {
    const { position } = this
    const end = this.endAfter(operation, search)
    if (typeof end !== "number") return end
    this.position = end
    return new Ready(this.input.buffer.slice(position, end))
  }

  trySkipUntil(search: Search): Outcome<number, StepError> | undefined {
    const { position } = this
    const end = this.endAfter("skipUntil", search)
    if (typeof end !== "number") return end
    this.position = end
    return new Ready(end - position)
  }

  // Just past the separator that comes next.
  private endAfter(operation: string, search: Search): number | Exit.Exit<never, StepError> | undefined {
    const { buffer } = this.input
    const end = search.endIn(buffer, this.position)
    if (end > this.max) return this.tooLong(end)
    if (end !== -1) return end
    return buffer.size > this.max ? this.tooLong(buffer.size) : this.ended(operation, undefined)
  }

  tryReadUint(width: 1 | 2 | 4, endian: "big" | "little" = "big"): Outcome<number, StepError> | undefined {
    const { position } = this
    if (endian !== "big") Limits.oneOf("endian", endian, ["big", "little"])
    const end = this.endOf(UINT[width], width)
    if (typeof end !== "number") return end
    this.position = end
    return new Ready(this.input.buffer.uint(position, width, endian === "little"))
  }

  tryReadRest(): Outcome<Uint8Array, FrameTooLong | ReadError> | undefined {
    const { buffer, eof, failed } = this.input
    const { size } = buffer
    if (size > this.max) return this.tooLong(size)
    if (failed !== undefined || !eof) return failed
    const rest = buffer.slice(this.position, size)
    this.position = size
    return new Ready(rest)
  }

  // `partial` is all of the unfinished frame, not only what this step would have read.
  private ended(
    operation: string,
    expected: number | undefined
  ): Exit.Exit<never, IncompleteReadError | ReadError> | undefined {
    const { address, buffer, eof, failed } = this.input
    if (failed !== undefined || !eof) return failed
    this.hasFoundEnd = true
    const partial = buffer.slice(0, buffer.size)
    // There is no more to read, should whoever decodes go on with what there is.
    if (operation !== "peek") this.position = buffer.size
    return Exit.fail(new IncompleteReadError({ operation, partial, expected, address }))
  }

  private tooLong(length: number): Exit.Exit<never, FrameTooLong> {
    return Exit.fail(new FrameTooLong({ length, limit: this.max, orMore: true }))
  }
}

/** Where a separator ends that is sought from step to step. */
class Search {
  private readonly separator: Separators.Separator
  private start = -1
  private searched = 0

  constructor(separator: SeparatorInput) {
    this.separator = Separators.make(separator)
  }

  /** Just past the match that ends first, or -1. */
  endIn(buffer: ReadBuffer, start: number): number {
    const { longest } = this.separator
    // From where a match could begin that was not complete the last time.
    const from = start === this.start ? Math.max(start, start + this.searched - longest + 1) : start
    const end = this.find(buffer, from)
    this.start = end === -1 ? start : -1
    this.searched = buffer.size - start
    return end
  }

  private find(buffer: ReadBuffer, from: number): number {
    const { longest, patterns } = this.separator
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
}

const none: ReadonlyArray<Wait> = []

const tryStart = (cursor: Cursor) => cursor.tryStart()
const tryReadExactly = (cursor: Cursor, n: number) => cursor.tryBytes("readExactly", n, n)
const tryPeek = (cursor: Cursor, n: number) => cursor.tryBytes("peek", n, 0)
const trySkip = (cursor: Cursor, n: number) => cursor.trySkip(n)
const tryReadUntil = (cursor: Cursor, search: Search) => cursor.tryReadUntil("readUntil", search)
const trySkipUntil = (cursor: Cursor, search: Search) => cursor.trySkipUntil(search)
const tryReadUint8 = (cursor: Cursor) => cursor.tryReadUint(1)
const tryReadUint16 = (cursor: Cursor, endian?: "big" | "little") => cursor.tryReadUint(2, endian)
const tryReadUint32 = (cursor: Cursor, endian?: "big" | "little") => cursor.tryReadUint(4, endian)
const tryReadRest = (cursor: Cursor) => cursor.tryReadRest()
const tryReadLine = (cursor: Cursor, search: Search) => cursor.tryReadUntil("readLine", search)
const tryReadLineString = (cursor: Cursor, search: Search) => {
  const line = cursor.tryReadUntil("readLineString", search)
  return line instanceof Ready ? new Ready(toLine(line.value)) : line
}

const UINT = { 1: "readUint8", 2: "readUint16", 4: "readUint32" } as const
