import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import type { Codec } from "../Codec.ts"
import {
  EndOfStream,
  FrameError,
  type FrameErrorReason,
  type FrameTooLong,
  InvalidMessage,
  MalformedFrame,
  type ReceiveError
} from "../FrameError.ts"
import * as Framing from "../Framing.ts"
import { IncompleteReadError } from "../StreamError.ts"
import { empty } from "./bytes.ts"
import { Cursor } from "./Cursor.ts"
import type { TimeLimits } from "./Deadlines.ts"
import { type Outcome, Ready } from "./Immediate.ts"
import type { Input } from "./Input.ts"
import { type Buffered as Machine, Refusal } from "./Machine.ts"

type Received<A> = Outcome<A, ReceiveError>

// How much of the bytes around an error is shown.
const EXCERPT_BEFORE = 16
const EXCERPT = 64

/** Takes messages from an input. */
export interface Decoder<In> {
  readonly receive: Effect.Effect<In, ReceiveError>
  /** As many messages as there are. */
  readonly receiveMany: Effect.Effect<Arr.NonEmptyReadonlyArray<In>, ReceiveError>
  readonly skipped: () => number
}

interface Options<In, F> {
  readonly input: Input
  readonly limits: TimeLimits
  readonly framing: Framing.Framing<F>
  readonly codec: Codec<In, never, F>
  readonly skips: boolean
}

export const make = <In, F>(options: Options<In, F>): Decoder<In> => {
  const { decoder } = options.framing[Framing.TypeId]
  return decoder._tag === "Buffered" ? new Buffered(options, decoder) : new Stepwise(options, decoder.decode)
}

const frameError = (
  input: Input,
  reason: FrameErrorReason,
  offset: number,
  excerpt: Uint8Array
): Exit.Exit<never, FrameError> =>
  Exit.fail(
    new FrameError({
      operation: "receive",
      reason,
      offset,
      excerpt: excerpt.slice(),
      address: input.address
    })
  )

/** The failure for bytes that are still in the buffer, of which the frame that begins at its start is none. */
const refused = (input: Input, reason: MalformedFrame | FrameTooLong): Exit.Exit<never, FrameError> => {
  const { buffer, bytesRead } = input
  const at = reason instanceof MalformedFrame ? (reason.at ?? 0) : 0
  const from = Math.max(0, at - EXCERPT_BEFORE)
  const excerpt = buffer.slice(from, Math.min(buffer.size, from + EXCERPT))
  return frameError(input, reason, bytesRead - buffer.size + at, excerpt)
}

/** The failure for a frame that was taken from the buffer already. */
const invalid = (input: Input, reason: InvalidMessage, offset: number, frame: unknown) =>
  frameError(input, reason, offset, frame instanceof Uint8Array ? frame.subarray(0, EXCERPT) : empty)

const endOfStream = (input: Input): Exit.Exit<never, EndOfStream> =>
  Exit.fail(new EndOfStream({ address: input.address }))

/** Decodes whole frames in the step in which their last byte comes. */
class Buffered<In, F> implements Decoder<In> {
  private readonly options: Options<In, F>
  private readonly decoder: Machine<F>
  private count = 0
  // What is left of a frame that is skipped.
  private past: Refusal["past"] = undefined
  // A failure that was found behind messages, which come first.
  private failed: Exit.Exit<never, ReceiveError> | undefined = undefined
  readonly receive: Effect.Effect<In, ReceiveError>
  readonly receiveMany: Effect.Effect<Arr.NonEmptyReadonlyArray<In>, ReceiveError>

  constructor(options: Options<In, F>, decoder: Machine<F>) {
    this.options = options
    this.decoder = decoder
    const { input, limits } = options
    const next = (): Received<In> | undefined => this.next()
    const many = () => this.many()
    const atEnd = () => this.atEnd()
    this.receive = input.run(limits, () => input.tryDecode(next, atEnd), undefined)
    this.receiveMany = input.run(limits, () => input.tryDecode(many, atEnd), undefined)
  }

  readonly skipped = (): number => this.count

  private next(): Received<In> | undefined {
    const { failed } = this
    if (failed !== undefined) {
      this.failed = undefined
      return failed
    }
    const { codec, input, skips } = this.options
    const { buffer } = input
    while (this.past === undefined || this.goPast()) {
      const start = input.bytesRead - buffer.size
      const frame = this.decoder.decode(input)
      if (frame === undefined) return undefined
      if (frame instanceof Refusal) {
        if (!skips || frame.past === undefined) return this.refuse(frame)
        this.past = frame.past
      } else {
        const message = decodeWith(codec, frame)
        if (Exit.isExit(message)) return message
        if (Result.isSuccess(message)) return new Ready(message.success)
        if (!skips) return invalid(input, message.failure, start, frame)
      }
      this.count++
    }
    return undefined
  }

  private many(): Received<Arr.NonEmptyReadonlyArray<In>> | undefined {
    const messages: Array<In> = []
    for (let outcome = this.next(); outcome !== undefined; outcome = this.next()) {
      if (!(outcome instanceof Ready)) {
        if (messages.length === 0) return outcome
        this.failed = outcome
        break
      }
      messages.push(outcome.value)
    }
    return Arr.isReadonlyArrayNonEmpty(messages) ? new Ready(messages) : undefined
  }

  // A frame whose end is known is consumed with its failure; one that is too long may not even be there.
  private refuse({ past, reason }: Refusal): Received<never> {
    const { input } = this.options
    const failure = refused(input, reason)
    if (reason instanceof MalformedFrame && typeof past === "number") input.buffer.discard(past)
    return failure
  }

  /** Drops what is there of the frame that is skipped; whether all of it was. */
  private goPast(): boolean {
    const { past } = this
    const { buffer } = this.options.input
    if (past === undefined) return true
    if (typeof past === "number") {
      const dropped = Math.min(past, buffer.size)
      buffer.discard(dropped)
      this.past = dropped === past ? undefined : past - dropped
    } else {
      const match = buffer.find(past)
      // All but what could be the beginning of the separator.
      const dropped = match?.end ?? Math.max(0, buffer.size - past.longest + 1)
      buffer.discard(dropped)
      if (match !== undefined) this.past = undefined
    }
    return this.past === undefined
  }

  private atEnd(): Received<never> {
    const { input } = this.options
    if (input.buffer.size === 0 && this.past === undefined) return endOfStream(input)
    const expected = this.past === undefined ? this.decoder.expected?.(input) : undefined
    this.past = undefined
    const partial = input.buffer.take(input.buffer.size)
    return Exit.fail(
      new IncompleteReadError({ operation: "receive", partial, expected, address: input.address })
    )
  }
}

/** A codec that throws is a defect of the one who receives, not of the one who feeds the reader. */
const decodeWith = <In, F>(
  codec: Codec<In, never, F>,
  frame: F
): Result.Result<In, InvalidMessage> | Exit.Exit<never> => {
  try {
    return codec.decode(frame)
  } catch (cause) {
    return cause instanceof InvalidMessage ? Result.fail(cause) : Exit.die(cause)
  }
}

/** Runs a decoder that reads step by step, one at a time. */
class Stepwise<In, F> implements Decoder<In> {
  private readonly options: Options<In, F>
  private readonly decode: (reader: Framing.FrameReader) => Effect.Effect<F, Framing.DecodeError>
  private readonly turn = Semaphore.makeUnsafe(1)
  private count = 0
  // Whether the frame that was refused last is consumed.
  private isPast = false
  readonly receive: Effect.Effect<In, ReceiveError>
  readonly receiveMany: Effect.Effect<Arr.NonEmptyReadonlyArray<In>, ReceiveError>

  constructor(
    options: Options<In, F>,
    decode: (reader: Framing.FrameReader) => Effect.Effect<F, Framing.DecodeError>
  ) {
    this.options = options
    this.decode = decode
    this.receive = this.turn.withPermit(this.next)
    this.receiveMany = Effect.map(this.receive, Arr.of)
  }

  readonly skipped = (): number => this.count

  private get next(): Effect.Effect<In, ReceiveError> {
    const { framing, input, limits, skips } = this.options
    const begun = input.run(
      limits,
      () =>
        input.tryDecode<void, EndOfStream>(
          () => (input.buffer.size > 0 ? new Ready(undefined) : undefined),
          () => endOfStream(input)
        ),
      undefined
    )
    const one = Effect.flatMap(begun, () => {
      const cursor = new Cursor(input, limits, framing.maxLength ?? input.limit)
      return Effect.matchEffect(this.decode(cursor), {
        onFailure: (error) =>
          error._tag === "MalformedFrame" || error._tag === "FrameTooLong"
            ? this.refuse(error, cursor)
            : Effect.fail(error),
        onSuccess: (frame) => this.take(frame, cursor)
      })
    })
    if (!skips) return one
    const skipping: Effect.Effect<In, ReceiveError> = Effect.catchTag(one, "FrameError", (error) => {
      if (!this.isPast) return Effect.fail(error)
      this.count++
      return skipping
    })
    return skipping
  }

  // In one step: from here on the frame is consumed, and its message handed on.
  private take(frame: F, cursor: Cursor): Effect.Effect<In, ReceiveError> {
    const { codec, input, limits } = this.options
    const take = (): Received<In> => {
      const start = input.bytesRead - input.buffer.size
      input.buffer.discard(cursor.position)
      const message = decodeWith(codec, frame)
      if (Exit.isExit(message)) return message
      if (Result.isSuccess(message)) return new Ready(message.success)
      this.isPast = cursor.position > 0
      return invalid(input, message.failure, start, frame)
    }
    return input.run(limits, () => input.tryDecode(take, () => endOfStream(input)), undefined)
  }

  private refuse(reason: MalformedFrame | FrameTooLong, cursor: Cursor): Effect.Effect<never, ReceiveError> {
    const { input, limits } = this.options
    const refuse = (): Received<never> => {
      const failure = refused(input, reason)
      this.isPast = reason instanceof MalformedFrame && cursor.position > 0
      if (this.isPast) input.buffer.discard(cursor.position)
      return failure
    }
    return input.run(limits, () => input.tryDecode(refuse, () => endOfStream(input)), undefined)
  }
}
