import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import type { Codec } from "../Codec.ts"
import {
  EndOfStream,
  FrameError,
  type FrameErrorReason,
  InvalidMessage,
  MalformedFrame,
  type ReceiveError
} from "../FrameError.ts"
import * as Framing from "../Framing.ts"
import { IncompleteReadError } from "../StreamError.ts"
import { empty } from "./bytes.ts"
import { Cursor } from "./Cursor.ts"
import type { TimeLimits } from "./Deadlines.ts"
import { type Outcome, Ready, toEffect } from "./Immediate.ts"
import { type Input, isAboutToYield, Taking } from "./Input.ts"
import { type Buffered as Machine, Refusal } from "./Machine.ts"

type Received<A> = Outcome<A, ReceiveError>

/** What a frame holds: a message, or why there is none. */
export interface Content<In> {
  readonly exit: Exit.Exit<In, FrameError>
  /** Whether it is one that is skipped otherwise. */
  readonly isSkipped: boolean
}

// How much of the bytes around an error is shown.
const EXCERPT_BEFORE = 16
const EXCERPT = 64

/** Takes messages from an input. */
export interface Decoder<In> {
  readonly receive: Effect.Effect<In, ReceiveError>
  /** As many messages as there are. */
  readonly receiveMany: (limits: TimeLimits) => Effect.Effect<Arr.NonEmptyReadonlyArray<In>, ReceiveError>
  /**
   * What the next frame holds, also one that is skipped otherwise: whoever counts the frames must not lose count. Fails
   * for what is still there afterwards, and for what may have left a part of itself.
   */
  readonly content: (limits: TimeLimits) => Effect.Effect<Content<In>, ReceiveError>
  /** The same of as many frames as there are. */
  readonly contents: (
    limits: TimeLimits
  ) => Effect.Effect<Arr.NonEmptyReadonlyArray<Content<In>>, ReceiveError>
  readonly skipped: number
}

interface Options<In, F> {
  readonly input: Input
  readonly limits: TimeLimits
  readonly framing: Framing.Framing<F, never>
  readonly codec: Codec<In, never, F, unknown>
  readonly onInvalid: OnInvalid
}

/** What becomes of a frame that does not decode. */
export type OnInvalid = "fail" | "skip" | ((error: FrameError) => "fail" | "skip")

export const make = <In, F>(options: Options<In, F>): Decoder<In> => {
  const { decoder } = options.framing[Framing.TypeId]
  return decoder._tag === "Buffered" ? new Buffered(options, decoder) : new Stepwise(options, decoder.decode)
}

/** What does not decode: a failure, or a defect of whoever decodes. */
class Invalid {
  readonly exit: Exit.Exit<never, FrameError>
  /** Whether it is consumed, and the next frame follows. */
  readonly isPast: boolean
  readonly isSkipped: boolean

  constructor(exit: Exit.Exit<never, FrameError>, isPast: boolean, isSkipped = false) {
    this.exit = exit
    this.isPast = isPast
    this.isSkipped = isSkipped
  }
}

type Found<In> = Ready<In> | Invalid

const toReceived = <In>(found: Found<In>): Received<In> => (found instanceof Invalid ? found.exit : found)

const toContent = <In>(found: Found<In>): Received<Content<In>> => {
  if (found instanceof Ready) return new Ready({ exit: Exit.succeed(found.value), isSkipped: false })
  return found.isPast ? new Ready(found) : found.exit
}

const frameError = (input: Input, reason: FrameErrorReason, offset: number, excerpt: Uint8Array) =>
  new FrameError({ operation: "receive", reason, offset, excerpt: excerpt.slice(), address: input.address })

/** The failure for bytes that are still in the buffer, of which the frame that begins at its start is none. */
const refused = (input: Input, reason: FrameErrorReason, length = input.buffer.size): FrameError => {
  const { buffer, bytesRead } = input
  const at = reason instanceof MalformedFrame ? (reason.at ?? 0) : 0
  const from = Math.max(0, at - EXCERPT_BEFORE)
  const excerpt = buffer.slice(from, Math.max(from, Math.min(length, from + EXCERPT)))
  return frameError(input, reason, bytesRead - buffer.size + at, excerpt)
}

/** The failure for a frame that was taken from the buffer already. */
const invalid = (input: Input, reason: InvalidMessage, offset: number, frame: unknown) =>
  frameError(input, reason, offset, frame instanceof Uint8Array ? frame.subarray(0, EXCERPT) : empty)

const endOfStream = (input: Input): Exit.Exit<never, EndOfStream> =>
  Exit.fail(new EndOfStream({ address: input.address }))

/** What all decoders have. */
abstract class Base<In, F> implements Decoder<In> {
  protected readonly options: Options<In, F>
  private count = 0
  // What was found behind messages, which come first.
  private failed: Invalid | undefined = undefined

  constructor(options: Options<In, F>) {
    this.options = options
  }

  abstract readonly receive: Effect.Effect<In, ReceiveError>
  abstract receiveMany(limits: TimeLimits): Effect.Effect<Arr.NonEmptyReadonlyArray<In>, ReceiveError>
  abstract content(limits: TimeLimits): Effect.Effect<Content<In>, ReceiveError>
  abstract contents(limits: TimeLimits): Effect.Effect<Arr.NonEmptyReadonlyArray<Content<In>>, ReceiveError>

  /** The next frame, if all of it is there; those that are skipped on the way are reported, or not. */
  protected abstract find(reports: boolean): Found<In> | undefined

  get skipped(): number {
    return this.count
  }

  protected next(reports: boolean): Found<In> | undefined {
    const { failed } = this
    if (failed === undefined) return this.find(reports)
    this.failed = undefined
    return failed
  }

  /** Whether a frame that can be skipped is: counted, and not shown to anybody. */
  protected skipsUnseen(reports: boolean): boolean {
    if (this.options.onInvalid !== "skip" || reports) return false
    this.count++
    return true
  }

  /** What is to be said of an invalid frame that can be skipped; nothing if it is, and only counted. */
  protected judge(error: FrameError, reports: boolean, pastIfFailed: boolean): Invalid | undefined {
    const { onInvalid } = this.options
    try {
      const verdict = typeof onInvalid === "function" ? onInvalid(error) : onInvalid
      if (verdict !== "skip") return new Invalid(Exit.fail(error), pastIfFailed)
      if (reports) return new Invalid(Exit.fail(error), true, true)
      this.count++
      return undefined
    } catch (cause) {
      return new Invalid(Exit.die(cause), pastIfFailed)
    }
  }

  protected many<A>(
    reports: boolean,
    deliver: (found: Found<In>) => Received<A>
  ): Received<Arr.NonEmptyReadonlyArray<A>> | undefined {
    const all: Array<A> = []
    for (let found = this.next(reports); found !== undefined; found = this.find(reports)) {
      const outcome = deliver(found)
      if (outcome instanceof Ready) {
        all.push(outcome.value)
        continue
      }
      if (all.length === 0) return outcome
      if (found instanceof Invalid) this.failed = found
      break
    }
    return Arr.isReadonlyArrayNonEmpty(all) ? new Ready(all) : undefined
  }
}

/** Decodes whole frames in the step in which their last byte comes. */
class Buffered<In, F> extends Base<In, F> {
  private readonly decoder: Machine<F>
  // A frame that is skipped, and how many bytes of it are left if that is known.
  private skipping: Refusal | undefined = undefined
  private left = 0
  readonly receive: Effect.Effect<In, ReceiveError>

  constructor(options: Options<In, F>, decoder: Machine<F>) {
    super(options)
    this.decoder = decoder
    this.receive = this.run(options.limits, () => {
      const found = this.next(false)
      return found && toReceived(found)
    })
  }

  receiveMany(limits: TimeLimits): Effect.Effect<Arr.NonEmptyReadonlyArray<In>, ReceiveError> {
    return this.run(limits, () => this.many(false, toReceived))
  }

  content(limits: TimeLimits): Effect.Effect<Content<In>, ReceiveError> {
    return this.run(limits, () => {
      const found = this.next(true)
      return found && toContent(found)
    })
  }

  contents(limits: TimeLimits): Effect.Effect<Arr.NonEmptyReadonlyArray<Content<In>>, ReceiveError> {
    return this.run(limits, () => this.many(true, toContent))
  }

  private run<A>(limits: TimeLimits, attempt: () => Received<A> | undefined): Effect.Effect<A, ReceiveError> {
    const { input } = this.options
    const atEnd = () => this.atEnd()
    return input.run(limits, () => input.tryDecode(attempt, atEnd), undefined)
  }

  protected find(reports: boolean): Found<In> | undefined {
    const { input, onInvalid } = this.options
    const { buffer } = input
    while (this.skipping === undefined || this.goPast(this.skipping)) {
      const start = input.bytesRead - buffer.size
      const frame = this.decoder.decode(input)
      if (frame === undefined) return undefined
      if (frame instanceof Refusal && frame.past === "later" && onInvalid !== "fail") return undefined
      const found = frame instanceof Refusal ? this.refuse(frame, reports) : this.take(frame, start, reports)
      if (found !== undefined) return found
    }
    return undefined
  }

  private take(frame: F, start: number, reports: boolean): Found<In> | undefined {
    const { codec, input } = this.options
    const message = decodeWith(codec, frame)
    if (message instanceof Invalid) return message
    if (Result.isSuccess(message)) return new Ready(message.success)
    if (this.skipsUnseen(reports)) return undefined
    return this.judge(invalid(input, message.failure, start, frame), reports, true)
  }

  private refuse(frame: Refusal, reports: boolean): Invalid | undefined {
    const { input } = this.options
    const { past, reason } = frame
    if (past === undefined || past === "later") {
      return new Invalid(Exit.fail(refused(input, reason)), false)
    }
    const isConsumed = reason instanceof MalformedFrame && typeof past === "number"
    // One that is too long may not even be there: it is consumed only if it is skipped.
    const found = this.skipsUnseen(reports)
      ? undefined
      : this.judge(refused(input, reason), reports, isConsumed)
    if (isConsumed || found === undefined || found.isPast) {
      this.skipping = frame
      if (typeof past === "number") this.left = past
      this.goPast(frame)
    }
    return found
  }

  /** Drops what is there of the frame that is skipped; whether all of it was. */
  private goPast({ past }: Refusal): boolean {
    const { buffer } = this.options.input
    let isPast: boolean
    if (typeof past === "object") {
      const match = buffer.find(past)
      // All but what could be the beginning of the separator.
      buffer.discard(match?.end ?? Math.max(0, buffer.size - past.longest + 1))
      isPast = match !== undefined
    } else {
      const dropped = Math.min(this.left, buffer.size)
      buffer.discard(dropped)
      this.left -= dropped
      isPast = this.left === 0
    }
    if (isPast) this.skipping = undefined
    return isPast
  }

  private atEnd(): Received<never> {
    const { input } = this.options
    const { skipping } = this
    const expected =
      skipping === undefined
        ? this.decoder.expected?.(input)
        : typeof skipping.past === "number"
          ? this.left
          : undefined
    const partial = input.buffer.take(input.buffer.size)
    this.skipping = undefined
    if (skipping === undefined ? partial.length === 0 : skipping.endsWithInput) return endOfStream(input)
    const { address } = input
    return Exit.fail(new IncompleteReadError({ operation: "receive", partial, expected, address }))
  }
}

/** A codec that throws is a defect of the one who receives, not of the one who feeds the reader. */
const decodeWith = <In, F>(
  codec: Codec<In, never, F, unknown>,
  frame: F
): Result.Result<In, InvalidMessage> | Invalid => {
  try {
    return codec.decode(frame)
  } catch (cause) {
    return cause instanceof InvalidMessage ? Result.fail(cause) : new Invalid(Exit.die(cause), true)
  }
}

/** Takes what is there, if that can be had in one step, or else takes the steps that it needs. */
class Sometimes<A> extends Taking<A, ReceiveError> {
  private readonly attempt: () => Received<A> | undefined
  private readonly otherwise: Effect.Effect<A, ReceiveError>

  constructor(attempt: () => Received<A> | undefined, otherwise: Effect.Effect<A, ReceiveError>) {
    super()
    this.attempt = attempt
    this.otherwise = otherwise
  }

  protected override begin(): Ready<A> | Effect.Effect<A, ReceiveError> {
    try {
      return this.attempt() ?? this.otherwise
    } catch (cause) {
      return Exit.die(cause)
    }
  }
}

const skipped = Symbol("skipped")

// What is around a decoder that takes steps: giving the place back, and looking whether the frame was skipped.
const OPERATIONS_TO_LEAVE = 8

/**
 * Takes what was decoded, in one step with handing it on: interrupted in between, a fiber would lose it. So one that is
 * about to yield does so first.
 */
const inOneStep = <A>(take: () => Received<A>): Effect.Effect<A, ReceiveError> => {
  const fiber = Fiber.getCurrent()
  return fiber !== undefined && isAboutToYield(fiber, OPERATIONS_TO_LEAVE)
    ? Effect.flatMap(Effect.yieldNow, () => toEffect(take()))
    : toEffect(take())
}

type Decode<F> = Extract<
  Framing.Framing<F, never>[typeof Framing.TypeId]["decoder"],
  { _tag: "Stepwise" }
>["decode"]

// Quicker than to ask whether it is an effect.
const isGenerator = <F>(
  decoding: ReturnType<Decode<F>>
): decoding is Extract<ReturnType<Decode<F>>, Generator> => "next" in decoding

/** Runs a decoder that reads step by step. */
class Stepwise<In, F> extends Base<In, F> {
  private readonly decode: Decode<F>
  private readonly limit: number
  private isEffectful = false
  readonly receive: Effect.Effect<In, ReceiveError>

  constructor(options: Options<In, F>, decode: Decode<F>) {
    super(options)
    const { framing, input, limits } = options
    this.decode = decode
    this.limit = framing.maxLength ?? input.limit
    const found = (): Received<In> | undefined => {
      const next = this.next(false)
      return next && toReceived(next)
    }
    this.receive = new Sometimes(found, this.one(limits, false, toReceived))
  }

  receiveMany(limits: TimeLimits): Effect.Effect<Arr.NonEmptyReadonlyArray<In>, ReceiveError> {
    return this.several(limits, false, toReceived)
  }

  content(limits: TimeLimits): Effect.Effect<Content<In>, ReceiveError> {
    const found = (): Received<Content<In>> | undefined => {
      const next = this.next(true)
      return next && toContent(next)
    }
    return new Sometimes(found, this.one(limits, true, toContent))
  }

  contents(limits: TimeLimits): Effect.Effect<Arr.NonEmptyReadonlyArray<Content<In>>, ReceiveError> {
    return this.several(limits, true, toContent)
  }

  private several<A>(
    limits: TimeLimits,
    reports: boolean,
    deliver: (found: Found<In>) => Received<A>
  ): Effect.Effect<Arr.NonEmptyReadonlyArray<A>, ReceiveError> {
    return new Sometimes(
      () => this.many(reports, deliver),
      Effect.map(this.one(limits, reports, deliver), Arr.of)
    )
  }

  protected find(reports: boolean): Found<In> | undefined {
    const { input } = this.options
    while (!this.isEffectful && input.isFree && input.buffer.size > 0) {
      const found = this.findNow(reports)
      if (found !== skipped) return found
    }
    return undefined
  }

  // A generator that finds all that it reads is done in one step. One that does not begins anew, as an effect.
  private findNow(reports: boolean): Found<In> | typeof skipped | undefined {
    const { input, limits } = this.options
    const cursor = new Cursor(input, limits, this.limit)
    try {
      const decoding = this.decode(cursor)
      if (isGenerator(decoding)) {
        const result = decoding.next()
        return result.done === true ? this.take(result.value, cursor, reports) : undefined
      }
      this.isEffectful = true
      return undefined
    } finally {
      cursor.close()
    }
  }

  private one<A>(
    limits: TimeLimits,
    reports: boolean,
    deliver: (found: Found<In>) => Received<A>
  ): Effect.Effect<A, ReceiveError> {
    const attempt = Effect.suspend(() => this.attempt(limits, reports, deliver))
    const next: Effect.Effect<A, ReceiveError> = Effect.flatMap(attempt, (message) =>
      message === skipped ? next : Effect.succeed(message)
    )
    return next
  }

  private attempt<A>(
    limits: TimeLimits,
    reports: boolean,
    deliver: (found: Found<In>) => Received<A>
  ): Effect.Effect<A | typeof skipped, ReceiveError> {
    const cursor = new Cursor(this.options.input, limits, this.limit)
    const end = (found: Found<In> | typeof skipped): Received<A | typeof skipped> =>
      found === skipped ? new Ready(skipped) : deliver(found)
    const decoded = Effect.matchEffect(new Decoding(cursor, this.decode), {
      onFailure: (error) =>
        inOneStep(() => {
          const failed = this.refuse(error, cursor, reports)
          return Exit.isExit(failed) ? failed : end(failed)
        }),
      onSuccess: (frame) => inOneStep(() => end(this.take(frame, cursor, reports)))
    })
    const release = () => {
      cursor.release()
      return undefined
    }
    return Effect.onExitPrimitive(decoded, release)
  }

  // From here on the frame is consumed, and its message handed on.
  private take(frame: F, { position }: Cursor, reports: boolean): Found<In> | typeof skipped {
    const { codec, framing, input } = this.options
    if (position === 0) {
      const defect = new Error(`${framing.name}: decode gave a frame without having read any byte`)
      return new Invalid(Exit.die(defect), false)
    }
    const message = decodeWith(codec, frame)
    const found = message instanceof Invalid ? message : this.found(message, position, reports)
    input.discard(position)
    return found
  }

  private found(
    message: Result.Result<In, InvalidMessage>,
    length: number,
    reports: boolean
  ): Found<In> | typeof skipped {
    if (Result.isSuccess(message)) return new Ready(message.success)
    if (this.skipsUnseen(reports)) return skipped
    return this.judge(refused(this.options.input, message.failure, length), reports, true) ?? skipped
  }

  private refuse(
    error: Framing.DecodeError | EndOfStream,
    { hasFoundEnd, position }: Cursor,
    reports: boolean
  ): Invalid | typeof skipped | Exit.Exit<never, ReceiveError> {
    const { input } = this.options
    switch (error._tag) {
      case "MalformedFrame": {
        const failure = refused(input, error)
        if (position === 0) return new Invalid(Exit.fail(failure), false)
        input.discard(position)
        // Whoever counts the frames must not take for another one what may be left of it.
        return this.judge(failure, reports, !reports) ?? skipped
      }
      case "FrameTooLong":
        return new Invalid(Exit.fail(refused(input, error)), false)
      case "IncompleteReadError":
        input.discard(hasFoundEnd ? input.buffer.size : position)
        return Exit.fail(error)
      default:
        return Exit.fail(error)
    }
  }
}

/** Decodes once it is the cursor's turn. */
class Decoding<F> extends Effectable.Class<F, Framing.DecodeError | EndOfStream> {
  private readonly cursor: Cursor
  private readonly decode: Decode<F>

  constructor(cursor: Cursor, decode: Decode<F>) {
    super()
    this.cursor = cursor
    this.decode = decode
  }

  override asEffect(): Effect.Effect<F, Framing.DecodeError | EndOfStream> {
    this.cursor.reserve()
    return this.cursor.isReady ? this.decoded() : Effect.flatMap(this.cursor.start, () => this.decoded())
  }

  private decoded(): Effect.Effect<F, Framing.DecodeError> {
    const decoding = this.decode(this.cursor)
    return isGenerator(decoding) ? Effect.gen(() => decoding) : decoding
  }
}
