import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Scheduler from "effect/Scheduler"
import { BrokenPipe, ConnectionError, Unsupported, type WriteError } from "../StreamError.ts"
import type { Transport } from "../Transport.ts"
import { type Deadline, type Deadlines, isLimited, type Surroundings, type TimeLimits } from "./Deadlines.ts"
import { Failure } from "./Failure.ts"
import { done, Immediate, type Ready, toEffect } from "./Immediate.ts"
import { noTimeouts, type Watermarks } from "./limits.ts"

type Chunks = ReadonlyArray<Uint8Array | string>

/**
 * A whole write, and who is told when the transport takes it: from then on it is sent, whatever becomes of the writer.
 */
interface Batch {
  readonly chunks: Chunks
  readonly onTaken: (() => void) | undefined
}

type OnFailure = (operation: "write") => WriteError

type Refusal = Failure<"write", WriteError>

/** What is waited for: room, that everything has left the process, that this direction has ended. */
type Goal = "drain" | "flush" | "end"

interface Waiter {
  readonly goal: Goal
  readonly resume: (exit: Exit.Exit<void, WriteError>) => void
  deadline: Deadline | undefined
}

/** A write as an effect. */
export class Write extends Immediate<void, WriteError> {
  private readonly output: Output
  private readonly limits: TimeLimits
  private readonly chunk: Uint8Array | string

  constructor(output: Output, limits: TimeLimits, chunk: Uint8Array | string) {
    super()
    this.output = output
    this.limits = limits
    this.chunk = chunk
  }

  protected override begin(): Ready<void> | Effect.Effect<void, WriteError> {
    return this.output.write(this.limits, this.chunk)
  }
}

/** A write of several chunks as an effect. */
export class WriteAll extends Immediate<void, WriteError> {
  private readonly output: Output
  private readonly limits: TimeLimits
  private readonly chunks: Iterable<Uint8Array | string>

  constructor(output: Output, limits: TimeLimits, chunks: Iterable<Uint8Array | string>) {
    super()
    this.output = output
    this.limits = limits
    this.chunks = chunks
  }

  protected override begin(): Ready<void> | Effect.Effect<void, WriteError> {
    return this.output.writeAll(this.limits, this.chunks)
  }
}

/** A write that says when the transport takes it. */
export class Transmission extends Immediate<void, WriteError> {
  private readonly output: Output
  private readonly limits: TimeLimits
  private readonly chunks: Chunks
  private readonly onTaken: () => void

  constructor(output: Output, limits: TimeLimits, chunks: Chunks, onTaken: () => void) {
    super()
    this.output = output
    this.limits = limits
    this.chunks = chunks
    this.onTaken = onTaken
  }

  protected override begin(): Ready<void> | Effect.Effect<void, WriteError> {
    return this.output.transmit(this.limits, this.chunks, this.onTaken)
  }
}

/**
 * The sending half of a connection.
 *
 * Writes go straight to the transport until it holds more than the high watermark. From then on writers wait in a queue,
 * each with its whole write, until the transport has drained to the low watermark.
 */
export class Output {
  private transport: Transport
  private readonly surroundings: Surroundings & { readonly timed: Deadlines }
  private marks: Watermarks
  private congested = false
  // What carries the bytes is being changed: writers wait, as if it were congested.
  private held = false
  // What new writes fail with: the end of this direction, a local close, or the connection's failure.
  private refusal: Refusal | undefined = undefined
  // Why nothing can be sent any more, and whether something was to be sent then.
  private failure: Refusal | undefined = undefined
  private hasLost = false
  // `none`: open; `requested`: the transport is told once no writer waits any more; `sent`: it was told.
  private half: "none" | "requested" | "sent" = "none"
  // Writers that wait for the transport. The capacity is 0: an offer is taken only by the transport, and one that is
  // interrupted before that takes all its chunks along.
  private outbound: Queue.Queue<Batch> | undefined = undefined
  private offers = 0
  // In the order of their coming. Made for the first one.
  private waiters: Set<Waiter> | undefined = undefined
  // A writer whose chunks were taken from the queue goes on before the transport has them.
  private admitting = false
  private advancing: "no" | "yes" | "again" = "no"

  constructor(
    transport: Transport,
    marks: Watermarks,
    surroundings: Surroundings & { readonly timed: Deadlines }
  ) {
    this.transport = transport
    this.marks = marks
    this.surroundings = surroundings
  }

  get address(): string | undefined {
    return this.surroundings.address
  }

  get watermarks(): Watermarks {
    return this.marks
  }

  get canEnd(): boolean {
    return this.transport.canEnd
  }

  /** Whether a close can end this direction and wait for the peer's end. */
  get canLinger(): boolean {
    return this.transport.canLinger ?? this.transport.canEnd
  }

  /** Whether new writes are taken. */
  get isOpen(): boolean {
    return this.refusal === undefined
  }

  get bufferedBytes(): number {
    return this.transport.bufferedBytes
  }

  get hasEnded(): boolean {
    return this.half !== "none"
  }

  /** Whether nobody waits to write, or for what was written to be sent. */
  get isIdle(): boolean {
    return this.offers === 0 && !this.isAwaited
  }

  setWatermarks(marks: Watermarks): void {
    this.marks = marks
    if (this.transport.bufferedBytes > marks.high) this.congested = true
    this.advance()
  }

  /** Lets nothing through until `release`; `false`, and nothing done, while something is on its way. */
  hold(): boolean {
    if (this.offers > 0 || this.transport.bufferedBytes > 0) return false
    this.held = true
    this.congested = true
    return true
  }

  release(transport: Transport): void {
    this.transport = transport
    this.held = false
    this.advance()
  }

  /** Writes now if there is room, in its turn otherwise. */
  write(limits: TimeLimits, chunk: Uint8Array | string): Ready<void> | Effect.Effect<void, WriteError> {
    if (this.refusal !== undefined) return this.refusal.exit
    if (chunk.length === 0) return done
    if (this.congested) return this.enqueue(limits, { chunks: [chunk], onTaken: undefined })
    this.transport.write(chunk)
    return this.written(limits)
  }

  /** The same with several chunks, as one write. */
  writeAll(
    limits: TimeLimits,
    chunks: Iterable<Uint8Array | string>
  ): Ready<void> | Effect.Effect<void, WriteError> {
    if (this.refusal !== undefined) return this.refusal.exit
    const batch = Array.from(chunks).filter((chunk) => chunk.length > 0)
    if (batch.length === 0) return done
    if (this.congested) return this.enqueue(limits, { chunks: batch, onTaken: undefined })
    this.transport.writeAll(batch)
    return this.written(limits)
  }

  /**
   * The same, for those who have to know whether it was sent: `onTaken` is called when the transport takes it, in the
   * order of the writes, or never.
   */
  transmit(
    limits: TimeLimits,
    chunks: Chunks,
    onTaken: () => void
  ): Ready<void> | Effect.Effect<void, WriteError> {
    if (this.refusal !== undefined) return this.refusal.exit
    const batch = { chunks: chunks.filter((chunk) => chunk.length > 0), onTaken }
    if (this.congested) return this.enqueue(limits, batch)
    this.give(batch)
    return this.written(limits)
  }

  /** Waits until the transport is not congested, or has drained in between. */
  drain(limits: TimeLimits): Effect.Effect<void, WriteError> {
    return this.until(limits, "drain")
  }

  /** Waits until everything written has left the process. */
  flush(limits: TimeLimits): Effect.Effect<void, WriteError> {
    return this.until(limits, "flush")
  }

  /** The same, but that the connection has ended is a failure only if it has lost something. */
  settled(limits: TimeLimits): Effect.Effect<void, WriteError> {
    return Effect.suspend(() =>
      this.failure !== undefined && !this.hasLost ? Exit.void : this.flush(limits)
    )
  }

  end(limits: TimeLimits): Effect.Effect<void, WriteError> {
    return Effect.suspend(() => {
      if (!this.transport.canEnd) {
        const detail = `a ${this.transport.kind} connection cannot be closed for writing alone`
        return Exit.fail(this.error("end", new Unsupported({ detail })))
      }
      if (this.half === "none" && this.refusal === undefined) {
        this.half = "requested"
        this.refusal = new Failure("write", () => this.error("write", new BrokenPipe({})))
        this.advance()
      }
      return this.half === "requested" ? this.until(limits, "end") : (this.failure?.exit ?? Exit.void)
    })
  }

  /** Refuses new writes and those that wait for their turn; what the transport holds is sent, then the end. */
  close(error: OnFailure): void {
    this.refusal = new Failure("write", error)
    if (this.outbound !== undefined) Queue.shutdownUnsafe(this.outbound)
    if (this.half === "none" && this.canLinger) this.half = "requested"
    this.advance()
  }

  /** Nothing can be sent any more. */
  fail(error: OnFailure): void {
    if (this.failure !== undefined) return
    const failure = new Failure("write", error)
    this.failure = failure
    this.hasLost = this.transport.bufferedBytes > 0
    this.refusal ??= failure
    if (this.outbound !== undefined) Queue.shutdownUnsafe(this.outbound)
    this.waiters?.forEach((waiter) => this.settle(waiter, failure.exit))
    this.surroundings.deadlines?.settle()
  }

  /**
   * The transport has let go in order, without a local close. After an end of this direction that means that all was
   * sent: there is nothing left to wait for, and nothing to fail with.
   */
  finish(error: OnFailure): void {
    if (this.half === "sent" && this.transport.bufferedBytes === 0) this.advance()
    else this.fail(error)
  }

  /** The transport holds fewer bytes than before. */
  drained(): void {
    this.surroundings.deadlines?.touch()
    if (this.congested || this.half === "requested" || this.isAwaited) this.advance()
  }

  private written(limits: TimeLimits): Ready<void> | Effect.Effect<void, WriteError> {
    this.surroundings.deadlines?.touch()
    if (this.failure !== undefined) return this.failure.exit
    if (this.transport.bufferedBytes <= this.marks.high) return done
    this.congested = true
    return this.drain(limits)
  }

  // A fiber may yield between any two steps, and what it found may have changed by the time it goes on. So it looks again
  // once it cannot yield any more before its offer is in the queue: nobody would take it otherwise.
  private enqueue(limits: TimeLimits, batch: Batch): Effect.Effect<void, WriteError> {
    const enter = Effect.suspend(() => {
      if (this.refusal !== undefined) return this.refusal.exit
      if (this.congested) return this.offer(limits, batch)
      this.give(batch)
      return toEffect(this.written(limits))
    })
    return Effect.provideService(enter, Scheduler.PreventSchedulerYield, true)
  }

  private offer(limits: TimeLimits, batch: Batch): Effect.Effect<void, WriteError> {
    const offer = Effect.flatMap(
      this.outbound === undefined ? Queue.bounded<Batch>(0) : Effect.succeed(this.outbound),
      (queue) => {
        this.outbound = queue
        this.offers++
        return Queue.offer(queue, batch)
      }
    ).pipe(
      Effect.onExit(() =>
        Effect.sync(() => {
          this.offers--
          this.advance()
        })
      ),
      Effect.flatMap((taken) =>
        taken ? this.drain(noTimeouts) : (this.failure?.exit ?? this.refusal?.exit ?? Exit.void)
      )
    )
    return isLimited(limits) ? Effect.raceFirst(offer, this.surroundings.timed.expiry(limits)) : offer
  }

  private get isAwaited(): boolean {
    return this.waiters !== undefined && this.waiters.size > 0
  }

  private isReached(goal: Goal): boolean {
    switch (goal) {
      case "drain":
        return !this.congested || (this.transport.bufferedBytes <= this.marks.low && !this.admitting)
      case "flush":
        return this.offers === 0 && this.transport.bufferedBytes === 0
      case "end":
        return this.half === "sent"
    }
  }

  // Looks and waits in one step, between which the fiber cannot yield.
  private until(limits: TimeLimits, goal: Goal): Effect.Effect<void, WriteError> {
    return Effect.callback((resume) => {
      if (this.failure !== undefined) return resume(this.failure.exit)
      if (this.isReached(goal)) return resume(Exit.void)
      const waiter: Waiter = { goal, resume, deadline: undefined }
      this.waiters ??= new Set()
      this.waiters.add(waiter)
      if (isLimited(limits)) {
        waiter.deadline = this.surroundings.timed.arm(limits, (error) =>
          this.settle(waiter, Exit.fail(error))
        )
      }
      return Effect.sync(() => {
        this.waiters?.delete(waiter)
        this.surroundings.deadlines?.disarm(waiter.deadline)
        this.surroundings.deadlines?.settle()
      })
    })
  }

  private settle(waiter: Waiter, exit: Exit.Exit<void, WriteError>): void {
    this.waiters?.delete(waiter)
    this.surroundings.deadlines?.disarm(waiter.deadline)
    waiter.resume(exit)
  }

  // Does whatever has become possible. A fiber that is resumed here may call this again; then the outer call goes round
  // once more.
  private advance(): void {
    if (this.advancing !== "no") {
      this.advancing = "again"
      return
    }
    do {
      this.advancing = "yes"
      if (this.congested && !this.held && this.transport.bufferedBytes <= this.marks.low) this.relieve()
      if (this.half === "requested" && !this.held && this.offers === 0 && !this.hasFailed()) {
        this.half = "sent"
        this.transport.end()
      }
      this.settleReady()
    } while (this.isAdvancingAgain())
    this.advancing = "no"
    this.surroundings.deadlines?.settle()
  }

  private isAdvancingAgain(): boolean {
    return this.advancing === "again" && !this.hasFailed()
  }

  private hasFailed(): boolean {
    return this.failure !== undefined
  }

  private settleReady(): void {
    if (this.waiters === undefined) return
    for (const waiter of this.waiters) {
      // A fiber that was resumed may have aborted the connection.
      if (this.hasFailed()) return
      if (this.isReached(waiter.goal)) this.settle(waiter, Exit.void)
    }
  }

  // The transport has drained to the low watermark. Who waited for that goes on now, before the writers in the queue
  // congest the transport again; what it writes comes after theirs.
  private relieve(): void {
    if (this.offers > 0) this.settleReady()
    this.admitting = true
    this.admit()
    this.admitting = false
  }

  // Lets waiting writers through, in their order, until the transport is congested again.
  private admit(): void {
    while (this.outbound !== undefined && this.transport.bufferedBytes <= this.marks.high) {
      const offer = Queue.takeUnsafe(this.outbound)
      if (offer === undefined || Exit.isFailure(offer)) break
      this.give(offer.value)
    }
    this.congested = this.transport.bufferedBytes > this.marks.high
  }

  private give({ chunks, onTaken }: Batch): void {
    // First: the answer may come before the transport returns.
    onTaken?.()
    if (chunks.length > 0) this.transport.writeAll(chunks)
  }

  private error(operation: string, reason: ConnectionError["reason"]): ConnectionError {
    return new ConnectionError({ operation, reason, address: this.address })
  }
}
