import type * as Effect from "effect/Effect"
import type { FrameTooLong, MalformedFrame } from "../FrameError.ts"
import type { IncompleteReadError, ReadError } from "../StreamError.ts"
import type { ReadBuffer } from "./ReadBuffer.ts"
import type { Separator } from "./Separator.ts"

/** Where a framing finds its bytes. */
export interface Source {
  readonly buffer: ReadBuffer
  readonly eof: boolean
  readonly limit: number
}

/**
 * Why the bytes in a buffer are no frame, and what lies between them and the next one: so many bytes, or everything through
 * a separator; `later` if more bytes will tell. Nothing if nobody can tell where the next one begins.
 */
export class Refusal {
  readonly reason: FrameTooLong | MalformedFrame
  readonly past: number | Separator | "later" | undefined
  /** Whether the end of input is an end of it as well. */
  readonly endsWithInput: boolean

  constructor(reason: FrameTooLong | MalformedFrame, past: Refusal["past"], endsWithInput: boolean) {
    this.reason = reason
    this.past = past
    this.endsWithInput = endsWithInput
  }
}

/** Takes a frame from the buffer in one step. */
export interface Buffered<out F> {
  readonly _tag: "Buffered"
  /** A whole frame, removed from the buffer; `undefined` if more bytes are needed; or why it is none, left in place. */
  readonly decode: (source: Source) => F | undefined | Refusal
  /** How long the frame in the buffer is going to be, if that is known. */
  readonly expected: ((source: Source) => number | undefined) | undefined
}

type DecodeError = MalformedFrame | FrameTooLong | IncompleteReadError | ReadError

/** Reads a frame step by step: an effect, or what an effect could be made of with `Effect.gen`. */
export interface Stepwise<out F, in Reader> {
  readonly _tag: "Stepwise"
  readonly decode: (
    reader: Reader
  ) => Effect.Effect<F, DecodeError> | Generator<Effect.Effect<unknown, DecodeError>, F, never>
}

/** What a framing does. */
export interface Machine<out In, in Out, in Reader> {
  readonly decoder: Buffered<In> | Stepwise<In, Reader>
  readonly encode: (
    frame: Out
  ) => Uint8Array | string | ReadonlyArray<Uint8Array | string> | MalformedFrame | FrameTooLong
}
