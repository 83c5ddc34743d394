import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { IncompleteReadError, LimitOverrunError, type ReadError } from "../StreamError.ts"
import { empty } from "./bytes.ts"
import { type Deadline, isLimited, type Surroundings, type TimeLimits } from "./Deadlines.ts"
import { ReadBuffer } from "./ReadBuffer.ts"
import { Failure } from "./Failure.ts"
import { newline, type Separator } from "./Separator.ts"

/** Where the bytes come from: something that can be told to stop and to go on. */
export interface Source {
  readonly readAhead: boolean
  readonly pause: () => void
  readonly resume: () => void
}

/** An operation that waits for its turn or for bytes. A fiber waits for one at a time. */
interface Waiter {
  readonly fiber: Fiber.Fiber<unknown, unknown> | undefined
  readonly attempt: Attempt<unknown, unknown>
  readonly resume: (exit: Exit.Exit<unknown, unknown>) => void
  deadline: Deadline | undefined
  next: Waiter | undefined
}

/** Looks whether the operation can end now; `undefined` if it has to wait for more bytes. */
export type Attempt<A, E> = (input: Input) => Exit.Exit<A, E> | undefined

const NEWLINE = 0x0a

// Enough operations to hand a result on through the combinators around a read.
const OPERATIONS_TO_DELIVER = 16

const isAboutToYield = ({ cache, currentOpCount }: Fiber.Fiber<unknown, unknown>): boolean =>
  currentOpCount + OPERATIONS_TO_DELIVER > cache.maxOpsBeforeYield && !cache.preventYield

/**
 * An operation as an effect: it runs now if it can end now, in its turn otherwise. It is a class, as the next
 * one is, because a connection holds it for as long as it waits: closures take three times the memory.
 */
class Operation<A, E> extends Effectable.Class<A, E | ReadError> {
  private readonly input: Input
  private readonly limits: TimeLimits
  private readonly attempt: Attempt<A, E>
  // Made once for an operation that is run often, and only if it ever waits.
  private waiting: Effect.Effect<A, E | ReadError> | undefined = undefined

  constructor(input: Input, limits: TimeLimits, attempt: Attempt<A, E>) {
    super()
    this.input = input
    this.limits = limits
    this.attempt = attempt
  }

  override asEffect(): Effect.Effect<A, E | ReadError> {
    const fiber = Fiber.getCurrent()
    // Between taking bytes and handing them on the fiber must not yield: interrupted there, it would lose them. So a
    // fiber that is about to yield does so first.
    if (fiber !== undefined && isAboutToYield(fiber)) return this.afterYield()
    return this.begin()
  }

  private begin(): Effect.Effect<A, E | ReadError> {
    return this.input.attemptFirst(this.attempt) ?? (this.waiting ??= this.wait())
  }

  private afterYield(): Effect.Effect<A, E | ReadError> {
    return Effect.flatMap(Effect.yieldNow, () => this.begin())
  }

  private wait(): Effect.Effect<A, E | ReadError> {
    return Effect.callback((resume) => this.input.wait(this.limits, this.attempt, resume))
  }
}

/** An operation that is interrupted while it waits: evaluated by its fiber. */
class Withdrawal extends Effectable.Class<void> {
  private readonly input: Input

  constructor(input: Input) {
    super()
    this.input = input
  }

  override asEffect(): Effect.Effect<void> {
    this.input.withdraw(Fiber.getCurrent())
    return Exit.void
  }
}

const exitEmpty = Exit.succeed(empty)

/**
 * The receiving half of a connection: a buffer, the operations that wait for it in order, and the flow control of
 * its source.
 */
export class Input {
  readonly limit: number
  readonly buffer = new ReadBuffer()
  eof = false
  bytesRead = 0
  private readonly surroundings: Surroundings
  private failure: Failure<"read", ReadError> | undefined = undefined
  // Those that wait, in their order: a list by links, since there is one of them as a rule.
  private first: Waiter | undefined = undefined
  private withdrawal: Withdrawal | undefined = undefined
  private serving = false
  private source: Source | undefined = undefined
  private paused = false

  constructor(limit: number, surroundings: Surroundings) {
    this.limit = limit
    this.surroundings = surroundings
  }

  /** The peer's address, for errors. */
  get address(): string | undefined {
    return this.surroundings.address
  }

  /** Whether nothing waits to be read, and nobody waits to read. */
  get isIdle(): boolean {
    return this.buffer.size === 0 && this.first === undefined
  }

  /** Connects the source, which is expected to be paused. */
  attach(source: Source): void {
    this.source = source
    this.paused = true
    if (source.readAhead || this.first !== undefined) this.resumeSource()
  }

  /** Lets go of the source, and gives what came from it and was not read. */
  detach(): Uint8Array {
    this.source?.pause()
    this.source = undefined
    return this.buffer.take(this.buffer.size)
  }

  feed(chunk: Uint8Array): void {
    if (chunk.length === 0 || this.eof || this.failure !== undefined) return
    this.bytesRead += chunk.length
    this.buffer.push(chunk)
    this.surroundings.deadlines?.touch()
    this.serve()
    this.holdBack()
  }

  feedEof(): void {
    if (this.failure !== undefined) return
    this.eof = true
    this.serve()
  }

  /** What is buffered stays readable; the first read that needs more fails. An end of input that was seen remains. */
  fail(error: (operation: "read") => ReadError): void {
    if (this.failure !== undefined || this.eof) return
    this.failure = new Failure("read", error)
    this.serve()
  }

  /** Runs an operation now if it can end now, in its turn otherwise. */
  run<A, E>(limits: TimeLimits, attempt: Attempt<A, E>): Effect.Effect<A, E | ReadError> {
    return new Operation(this, limits, attempt)
  }

  /** Runs an operation now, if nobody waits before it. */
  attemptFirst<A, E>(attempt: Attempt<A, E>): Exit.Exit<A, E> | undefined {
    return this.first === undefined ? attempt(this) : undefined
  }

  /** Has an operation wait for its turn and for bytes. */
  wait<A, E>(
    limits: TimeLimits,
    attempt: Attempt<A, E>,
    resume: (exit: Exit.Exit<A, E | ReadError>) => void
  ): Effect.Effect<void> | undefined {
    // Bytes may have come since the first attempt, if the fiber yielded in between.
    const exit = this.attemptFirst(attempt)
    if (exit !== undefined) {
      resume(exit)
      return undefined
    }
    const waiter: Waiter = {
      fiber: Fiber.getCurrent(),
      attempt,
      // The attempt of this waiter gives what this operation's callback takes.
      resume: resume as (exit: Exit.Exit<unknown, unknown>) => void,
      deadline: undefined,
      next: undefined
    }
    this.append(waiter)
    if (isLimited(limits)) {
      waiter.deadline = this.surroundings.timed?.arm(limits, (error) => {
        this.remove(waiter)
        resume(Exit.fail(error))
      })
    }
    this.resumeSource()
    return (this.withdrawal ??= new Withdrawal(this))
  }

  /** Takes back what a fiber waits for. */
  withdraw(fiber: Fiber.Fiber<unknown, unknown> | undefined): void {
    let waiter = this.first
    while (waiter !== undefined && waiter.fiber !== fiber) waiter = waiter.next
    if (waiter === undefined) return
    this.surroundings.deadlines?.disarm(waiter.deadline)
    this.remove(waiter)
    this.surroundings.deadlines?.settle()
  }

  private append(waiter: Waiter): void {
    if (this.first === undefined) {
      this.first = waiter
      return
    }
    let last = this.first
    while (last.next !== undefined) last = last.next
    last.next = waiter
  }

  private remove(waiter: Waiter): void {
    if (this.first === waiter) {
      this.first = waiter.next
      // What the removed one waited for may be more than the next one needs.
      this.serve()
    } else {
      let previous = this.first
      while (previous !== undefined && previous.next !== waiter) previous = previous.next
      if (previous === undefined) return
      previous.next = waiter.next
    }
    this.holdBack()
  }

  private serve(): void {
    if (this.serving || this.first === undefined) return
    this.serving = true
    for (let waiter: Waiter | undefined = this.first; waiter !== undefined; waiter = this.first) {
      const exit = waiter.attempt(this)
      if (exit === undefined) break
      this.first = waiter.next
      this.surroundings.deadlines?.disarm(waiter.deadline)
      waiter.resume(exit)
    }
    this.serving = false
    this.surroundings.deadlines?.settle()
  }

  // Stops the source when nobody waits and there is enough; with a lockstep source, anything is enough.
  private holdBack(): void {
    if (this.source === undefined || this.paused || this.first !== undefined) return
    if (this.source.readAhead && this.buffer.size <= 2 * this.limit) return
    this.paused = true
    this.source.pause()
  }

  private resumeSource(): void {
    if (this.source === undefined || !this.paused || this.eof || this.failure !== undefined) return
    this.paused = false
    this.source.resume()
  }

  private consumed(): void {
    if (this.paused && this.source?.readAhead === true && this.buffer.size <= this.limit) this.resumeSource()
  }

  private take(n: number): Uint8Array {
    const bytes = this.buffer.take(n)
    this.consumed()
    return bytes
  }

  private use<A>(n: number, use: (bytes: Uint8Array) => A): A {
    const result = this.buffer.use(n, use)
    this.consumed()
    return result
  }

  // The operations. Each looks at the buffer first, then at the failure, then at the end of input.

  tryRead(max: number): Exit.Exit<Uint8Array, ReadError> | undefined {
    const { size } = this.buffer
    if (size > 0) return Exit.succeed(this.take(size > max ? max : size))
    return this.failure?.exit ?? (this.eof ? exitEmpty : undefined)
  }

  tryReadExactly(n: number): Exit.Exit<Uint8Array, IncompleteReadError | ReadError> | undefined {
    if (this.buffer.size >= n) return Exit.succeed(this.take(n))
    return this.ended("readExactly", n)
  }

  tryPeek(n: number): Exit.Exit<Uint8Array, IncompleteReadError | ReadError> | undefined {
    if (this.buffer.size >= n) return Exit.succeed(this.buffer.peek(n))
    return (
      this.failure?.exit ??
      (this.eof ? this.incomplete("peek", this.buffer.peek(this.buffer.size), n) : undefined)
    )
  }

  trySkip(n: number): Exit.Exit<void, IncompleteReadError | ReadError> | undefined {
    if (this.buffer.size < n) return this.ended("skip", n)
    this.buffer.discard(n)
    this.consumed()
    return Exit.void
  }

  tryReadAll(maxBytes: number): Exit.Exit<Uint8Array, LimitOverrunError | ReadError> | undefined {
    const { size } = this.buffer
    if (size > maxBytes) return this.overrun("readAll", maxBytes, size)
    return this.failure?.exit ?? (this.eof ? Exit.succeed(this.take(size)) : undefined)
  }

  tryReadUntil(
    separator: Separator,
    limit: number
  ): Exit.Exit<Uint8Array, IncompleteReadError | LimitOverrunError | ReadError> | undefined {
    const end = this.trySeek("readUntil", separator, limit)
    if (typeof end === "number") return Exit.succeed(this.take(end))
    return end ?? this.ended("readUntil", undefined)
  }

  tryReadLine(): Exit.Exit<Uint8Array, LimitOverrunError | ReadError> | undefined {
    const line = this.buffer.takeThrough(NEWLINE, this.limit)
    if (line !== undefined) {
      this.consumed()
      return Exit.succeed(line)
    }
    const end = this.trySeek("readLine", newline, this.limit)
    if (typeof end === "number") return Exit.succeed(this.take(end))
    return end ?? this.failure?.exit ?? (this.eof ? Exit.succeed(this.take(this.buffer.size)) : undefined)
  }

  /** Discards up to and including a separator; `skipped` counts across attempts. */
  trySkipUntil(
    separator: Separator,
    skipped: { bytes: number }
  ): Exit.Exit<number, IncompleteReadError | ReadError> | undefined {
    const match = this.buffer.find(separator)
    if (match !== undefined) {
      this.buffer.discard(match.end)
      this.consumed()
      return Exit.succeed(skipped.bytes + match.end)
    }
    if (this.failure !== undefined || this.eof) return this.ended("skipUntil", undefined)
    const surplus = this.buffer.size - separator.longest + 1
    if (surplus > 0) {
      this.buffer.discard(surplus)
      skipped.bytes += surplus
    }
    return undefined
  }

  /**
   * What `use` makes of as many lines as are buffered, or of the unterminated last one; `undefined` at the end of input.
   * `use` must not keep the bytes.
   */
  tryLines<A>(
    use: (bytes: Uint8Array) => A
  ): Exit.Exit<A | undefined, LimitOverrunError | ReadError> | undefined {
    // The first line is sought as every line is: what was searched in vain is not searched again.
    const first = this.trySeek("readLine", newline, this.limit)
    // No line that ends within the first limit + 1 bytes can be too long.
    if (typeof first === "number")
      return Exit.succeed(this.use(this.buffer.lastEndOf(NEWLINE, this.limit + 1), use))
    if (first !== undefined) return first
    if (this.failure !== undefined) return this.failure.exit
    if (!this.eof) return undefined
    return Exit.succeed(this.buffer.size === 0 ? undefined : this.use(this.buffer.size, use))
  }

  tryChunks(): Exit.Exit<Arr.NonEmptyReadonlyArray<Uint8Array> | undefined, ReadError> | undefined {
    const chunks = this.buffer.takeChunks()
    if (!Arr.isReadonlyArrayNonEmpty(chunks))
      return this.failure?.exit ?? (this.eof ? Exit.succeed(undefined) : undefined)
    this.consumed()
    return Exit.succeed(chunks)
  }

  /**
   * What `decode` makes of the buffer, from which it removes what it is done with. When it needs more and there is no
   * more to come, the failure, or what `atEnd` makes of the end of input.
   */
  tryDecode<A, E>(
    decode: () => Exit.Exit<A, E> | undefined,
    atEnd: () => Exit.Exit<A, E>
  ): Exit.Exit<A, E | ReadError> | undefined {
    const exit = decode()
    this.consumed()
    return exit ?? this.failure?.exit ?? (this.eof ? atEnd() : undefined)
  }

  // Where the first piece ends, or the overrun. The limit counts the bytes before the separator.
  private trySeek(
    operation: string,
    separator: Separator,
    limit: number
  ): number | Exit.Exit<never, LimitOverrunError> | undefined {
    const match = this.buffer.find(separator)
    if (match === undefined) {
      const searched = this.buffer.size + 1 - separator.longest
      return searched > limit ? this.overrun(operation, limit, searched) : undefined
    }
    const before = match.end - match.length
    return before > limit ? this.overrun(operation, limit, before) : match.end
  }

  private ended(
    operation: string,
    expected: number | undefined
  ): Exit.Exit<never, IncompleteReadError | ReadError> | undefined {
    if (this.failure !== undefined) return this.failure.exit
    return this.eof ? this.incomplete(operation, this.take(this.buffer.size), expected) : undefined
  }

  private incomplete(
    operation: string,
    partial: Uint8Array,
    expected: number | undefined
  ): Exit.Exit<never, IncompleteReadError> {
    return Exit.fail(
      new IncompleteReadError({ operation, partial, expected, address: this.surroundings.address })
    )
  }

  private overrun(operation: string, limit: number, consumed: number): Exit.Exit<never, LimitOverrunError> {
    return Exit.fail(
      new LimitOverrunError({ operation, limit, consumed, address: this.surroundings.address })
    )
  }
}
