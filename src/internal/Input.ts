import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { IncompleteReadError, LimitOverrunError, type ReadError, type TimeoutError } from "../StreamError.ts"
import { empty, plain, view } from "./bytes.ts"
import { type Deadline, isLimited, type Surroundings, type TimeLimits } from "./Deadlines.ts"
import { ReadBuffer } from "./ReadBuffer.ts"
import { Failure } from "./Failure.ts"
import { done, Immediate, type Outcome, Ready, toEffect } from "./Immediate.ts"
import { newline, type Separator } from "./Separator.ts"

/** Where the bytes come from: something that can be told to stop and to go on. */
export interface Source {
  readonly readAhead: boolean
  readonly pause: () => void
  readonly resume: () => void
}

/** Looks whether the operation can end now; `undefined` if it has to wait for more bytes. */
export type Attempt<A, E, P> = (input: Input, parameter: P) => Outcome<A, E> | undefined

/** What an operation attempts, with what it was given. */
interface Attempted<A, E, P> {
  readonly attempt: Attempt<A, E, P>
  readonly parameter: P
  /** Where it copies bytes to, if it does not hand them on. */
  readonly target: Uint8Array | undefined
}

/** An operation that waits for its turn or for bytes. A fiber waits for one at a time. */
class Waiter<A, E, P> {
  readonly fiber = Fiber.getCurrent()
  readonly resume: (effect: Effect.Effect<A, E | ReadError>) => void
  deadline: Deadline | undefined = undefined
  next: AnyWaiter | undefined = undefined
  private readonly operation: Attempted<A, E, P>
  private outcome: Outcome<A, E> | undefined = undefined

  constructor(operation: Attempted<A, E, P>, resume: (effect: Effect.Effect<A, E | ReadError>) => void) {
    this.operation = operation
    this.resume = resume
  }

  get target(): Uint8Array | undefined {
    return this.operation.target
  }

  /** Whether it can end now. */
  canEnd(input: Input): boolean {
    this.outcome = this.operation.attempt(input, this.operation.parameter)
    return this.outcome !== undefined
  }

  /** Hands on what it ended with. */
  end(): void {
    if (this.outcome !== undefined) this.resume(toEffect(this.outcome))
  }

  get needsBytes(): boolean {
    return true
  }
}

/** What the line of those that wait needs to know of each. */
interface AnyWaiter extends Pick<
  Waiter<unknown, unknown, unknown>,
  "fiber" | "target" | "deadline" | "canEnd" | "end" | "needsBytes"
> {
  next: AnyWaiter | undefined
}

/**
 * Somebody who reads in several steps, and keeps the place in the line until it is given back: nobody else reads in
 * between. `advance` is called when it is at the head and something has come.
 */
export abstract class Holder implements AnyWaiter {
  // Not to be found by the fiber: it is given back by name.
  readonly fiber = undefined
  readonly deadline = undefined
  readonly target = undefined
  next: AnyWaiter | undefined = undefined
  /** Who would wait for itself with an operation of the input. */
  abstract readonly owner: Fiber.Fiber<unknown, unknown> | undefined
  abstract readonly needsBytes: boolean
  abstract advance(): void

  canEnd(): boolean {
    this.advance()
    return false
  }

  end(): void {}
}

const NEWLINE = 0x0a

// Enough operations to hand a result on through the combinators around a read.
const OPERATIONS_TO_DELIVER = 16

/**
 * Whether a fiber yields before it has handed on a result; `more` are the operations that the result takes before that.
 */
export const isAboutToYield = ({ cache, currentOpCount }: Fiber.Fiber<unknown, unknown>, more = 0): boolean =>
  currentOpCount + more + OPERATIONS_TO_DELIVER > cache.maxOpsBeforeYield && !cache.preventYield

/**
 * What takes bytes. Between that and handing them on the fiber must not yield: interrupted there, it would lose them.
 * So a fiber that is about to yield does so first.
 */
export abstract class Taking<A, E> extends Immediate<A, E> {
  override asEffect(): Effect.Effect<A, E> {
    const fiber = Fiber.getCurrent()
    return fiber !== undefined && isAboutToYield(fiber) ? this.afterYield() : super.asEffect()
  }
}

/**
 * An operation as an effect: it runs now if it can end now, in its turn otherwise. It is a class, as the next
 * one is, because a connection holds it for as long as it waits: closures take three times the memory.
 */
class Operation<A, E, P> extends Taking<A, E | ReadError> implements Attempted<A, E, P> {
  readonly attempt: Attempt<A, E, P>
  readonly parameter: P
  readonly target: Uint8Array | undefined
  private readonly input: Input
  private readonly limits: TimeLimits
  // Made once for an operation that is run often, and only if it ever waits.
  private waiting: Effect.Effect<A, E | ReadError> | undefined = undefined

  constructor(
    input: Input,
    limits: TimeLimits,
    attempt: Attempt<A, E, P>,
    parameter: P,
    target: Uint8Array | undefined
  ) {
    super()
    this.input = input
    this.limits = limits
    this.attempt = attempt
    this.parameter = parameter
    this.target = target
  }

  protected override begin(): Ready<A> | Effect.Effect<A, E | ReadError> {
    return this.input.attemptFirst(this.attempt, this.parameter) ?? (this.waiting ??= this.wait())
  }

  private wait(): Effect.Effect<A, E | ReadError> {
    return Effect.callback((resume) => this.input.wait(this.limits, new Waiter(this, resume)))
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

const nothing = new Ready(empty)
const none = new Ready(0)
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
  private first: AnyWaiter | undefined = undefined
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

  /** What it has failed with: comes after what is buffered. */
  get failed(): Exit.Exit<never, ReadError> | undefined {
    return this.failure?.exit
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
    this.buffer.push(plain(chunk))
    this.surroundings.deadlines?.touch()
    this.serve()
    this.holdBack()
  }

  /** Feeds bytes that cannot be kept to an operation that waits and copies them, if there is one; whether it has. */
  lend(chunk: Uint8Array): boolean {
    // Looked up now: a target that was transferred to somebody else meanwhile has no room any more.
    const room = this.first?.target?.length ?? 0
    if (room < chunk.length || this.buffer.size > 0 || this.serving) return false
    this.feed(chunk)
    return true
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

  /** Runs an operation now if it can end now, in its turn otherwise. One that copies says where to: see `lend`. */
  run<A, E, P>(
    limits: TimeLimits,
    attempt: Attempt<A, E, P>,
    parameter: P,
    target?: Uint8Array
  ): Effect.Effect<A, E | ReadError> {
    return new Operation(this, limits, attempt, parameter, target)
  }

  /** Runs an operation now, if nobody waits before it. */
  attemptFirst<A, E, P>(attempt: Attempt<A, E, P>, parameter: P): Outcome<A, E> | undefined {
    return this.first === undefined ? attempt(this, parameter) : undefined
  }

  /** Has an operation wait for its turn and for bytes. */
  wait<A, E, P>(limits: TimeLimits, waiter: Waiter<A, E, P>): Effect.Effect<void> | undefined {
    // Bytes may have come since the first attempt, if the fiber yielded in between.
    if (this.first === undefined && waiter.canEnd(this)) {
      waiter.end()
      return undefined
    }
    this.refuseHolder(Fiber.getCurrent())
    this.append(waiter)
    if (isLimited(limits)) {
      waiter.deadline = this.surroundings.timed?.arm(limits, (error) => {
        this.remove(waiter)
        waiter.resume(Exit.fail(error))
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

  /** Gives somebody the head of the line, at once or after those that wait, until `release`. */
  reserve(holder: Holder): void {
    this.refuseHolder(holder.owner)
    this.append(holder)
  }

  // Who holds the head of the line would wait for itself.
  private refuseHolder(fiber: Fiber.Fiber<unknown, unknown> | undefined): void {
    if (this.first instanceof Holder && this.first.owner === fiber) {
      throw new Error("a framing's decode must read with the reader that it is given")
    }
  }

  /** Whether nobody waits to read. */
  get isFree(): boolean {
    return this.first === undefined
  }

  isHeldBy(holder: Holder): boolean {
    return this.first === holder
  }

  /**
   * Gives the place back. Those that wait come to their turn in a step of their own: they must not come between the
   * fiber that has read and the hands that it passes its result to.
   */
  release(holder: Holder): void {
    this.unlink(holder)
    if (this.first === undefined) return this.holdBack()
    const pass = (): void => {
      this.serve()
      if (this.first?.needsBytes === true) this.resumeSource()
      this.holdBack()
    }
    const fiber = Fiber.getCurrent()
    if (fiber === undefined) pass()
    else fiber.currentDispatcher.scheduleTask(pass, 0)
  }

  /** Has more bytes come for whoever holds the head of the line. */
  needMore(): void {
    this.resumeSource()
  }

  /** Holds a wait to its limits. */
  arm(limits: TimeLimits, expire: (error: TimeoutError) => void): Deadline | undefined {
    return isLimited(limits) ? this.surroundings.timed?.arm(limits, expire) : undefined
  }

  /** A wait is over: `settle` is to follow once whoever waited was resumed, unless it was in `advance`. */
  disarm(deadline: Deadline | undefined): void {
    this.surroundings.deadlines?.disarm(deadline)
  }

  settle(): void {
    this.surroundings.deadlines?.settle()
  }

  private append(waiter: AnyWaiter): void {
    if (this.first === undefined) {
      this.first = waiter
      return
    }
    let last = this.first
    while (last.next !== undefined) last = last.next
    last.next = waiter
  }

  private remove(waiter: AnyWaiter): void {
    const wasFirst = this.first === waiter
    this.unlink(waiter)
    // What the removed one waited for may be more than the next one needs.
    if (wasFirst) this.serve()
    this.holdBack()
  }

  private unlink(waiter: AnyWaiter): void {
    if (this.first === waiter) {
      this.first = waiter.next
      return
    }
    let previous = this.first
    while (previous !== undefined && previous.next !== waiter) previous = previous.next
    if (previous !== undefined) previous.next = waiter.next
  }

  private serve(): void {
    if (this.serving || this.first === undefined) return
    this.serving = true
    for (let waiter: AnyWaiter | undefined = this.first; waiter !== undefined; waiter = this.first) {
      if (!waiter.canEnd(this)) {
        if (waiter === this.first) break
        // It held the head of the line, and has given it back.
        continue
      }
      this.first = waiter.next
      this.surroundings.deadlines?.disarm(waiter.deadline)
      waiter.end()
    }
    this.serving = false
    this.surroundings.deadlines?.settle()
  }

  // Stops the source when nobody waits and there is enough; with a lockstep source, anything is enough. Not after a failure:
  // whoever closes reads on by himself, up to the peer's end.
  private holdBack(): void {
    if (this.source === undefined || this.paused || this.failure !== undefined) return
    if (this.first?.needsBytes === true) return
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

  discard(n: number): void {
    this.buffer.discard(n)
    this.consumed()
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

  tryRead(max: number): Outcome<Uint8Array, ReadError> | undefined {
    const { size } = this.buffer
    if (size > 0) return new Ready(this.take(size > max ? max : size))
    return this.failure?.exit ?? (this.eof ? nothing : undefined)
  }

  tryReadInto(target: Uint8Array): Outcome<number, ReadError> | undefined {
    const bytes = Math.min(this.buffer.size, target.length)
    if (bytes > 0) {
      this.buffer.takeInto(view(target, 0, bytes))
      this.consumed()
      return new Ready(bytes)
    }
    return this.failure?.exit ?? (this.eof || target.length === 0 ? none : undefined)
  }

  tryReadExactly(n: number): Outcome<Uint8Array, IncompleteReadError | ReadError> | undefined {
    if (this.buffer.size >= n) return new Ready(this.take(n))
    return this.ended("readExactly", n)
  }

  tryPeek(n: number): Outcome<Uint8Array, IncompleteReadError | ReadError> | undefined {
    if (this.buffer.size >= n) return new Ready(this.buffer.peek(n))
    return (
      this.failure?.exit ??
      (this.eof ? this.incomplete("peek", this.buffer.peek(this.buffer.size), n) : undefined)
    )
  }

  trySkip(n: number): Outcome<void, IncompleteReadError | ReadError> | undefined {
    if (this.buffer.size < n) return this.ended("skip", n)
    this.buffer.discard(n)
    this.consumed()
    return done
  }

  tryReadAll(maxBytes: number): Outcome<Uint8Array, LimitOverrunError | ReadError> | undefined {
    const { size } = this.buffer
    if (size > maxBytes) return this.overrun("readAll", maxBytes, size)
    return this.failure?.exit ?? (this.eof ? new Ready(this.take(size)) : undefined)
  }

  tryReadUntil(
    separator: Separator,
    limit: number
  ): Outcome<Uint8Array, IncompleteReadError | LimitOverrunError | ReadError> | undefined {
    const end = this.trySeek("readUntil", separator, limit)
    if (typeof end === "number") return new Ready(this.take(end))
    return end ?? this.ended("readUntil", undefined)
  }

  tryReadLine(): Outcome<Uint8Array, LimitOverrunError | ReadError> | undefined {
    const line = this.buffer.takeThrough(NEWLINE, this.limit)
    if (line !== undefined) {
      this.consumed()
      return new Ready(line)
    }
    const end = this.trySeek("readLine", newline, this.limit)
    if (typeof end === "number") return new Ready(this.take(end))
    return end ?? this.failure?.exit ?? (this.eof ? new Ready(this.take(this.buffer.size)) : undefined)
  }

  /** Discards up to and including a separator; `skipped` counts across attempts. */
  trySkipUntil(
    separator: Separator,
    skipped: { bytes: number }
  ): Outcome<number, IncompleteReadError | ReadError> | undefined {
    const match = this.buffer.find(separator)
    if (match !== undefined) {
      this.buffer.discard(match.end)
      this.consumed()
      return new Ready(skipped.bytes + match.end)
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
  ): Outcome<A | undefined, LimitOverrunError | ReadError> | undefined {
    // The first line is sought as every line is: what was searched in vain is not searched again.
    const first = this.trySeek("readLine", newline, this.limit)
    // No line that ends within the first limit + 1 bytes can be too long.
    if (typeof first === "number")
      return new Ready(this.use(this.buffer.lastEndOf(NEWLINE, this.limit + 1), use))
    if (first !== undefined) return first
    if (this.failure !== undefined) return this.failure.exit
    if (!this.eof) return undefined
    return new Ready(this.buffer.size === 0 ? undefined : this.use(this.buffer.size, use))
  }

  tryChunks(): Outcome<Arr.NonEmptyReadonlyArray<Uint8Array> | undefined, ReadError> | undefined {
    const chunks = this.buffer.takeChunks()
    if (!Arr.isReadonlyArrayNonEmpty(chunks))
      return this.failure?.exit ?? (this.eof ? new Ready(undefined) : undefined)
    this.consumed()
    return new Ready(chunks)
  }

  /**
   * What `decode` makes of the buffer, from which it removes what it is done with. When it needs more and there is no
   * more to come, the failure, or what `atEnd` makes of the end of input.
   */
  tryDecode<A, E>(
    decode: () => Outcome<A, E> | undefined,
    atEnd: () => Outcome<A, E>
  ): Outcome<A, E | ReadError> | undefined {
    for (;;) {
      const { bytesRead } = this
      const outcome = decode() ?? this.failure?.exit ?? (this.eof ? atEnd() : undefined)
      this.consumed()
      // A source that is told to go on may feed, or end, before it returns.
      const isNew = this.bytesRead > bytesRead || this.eof || this.failure !== undefined
      if (outcome !== undefined || !isNew) return outcome
    }
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
