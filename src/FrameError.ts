/**
 * What goes wrong with messages: a frame that is none, is too long, or holds no message, and the end of the stream.
 *
 * A `FrameError` says what was being done, where in the stream, and shows the bytes there; its `reason` is one of
 * `FrameTooLong`, `MalformedFrame` and `InvalidMessage`, so that a single reason can be handled with
 * `Effect.catchReason`.
 *
 * **Example** (A frame that is too long)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Codec, Framed, Framing, StreamReader } from "effect-wire"
 *
 * const { feed, reader } = StreamReader.feedable()
 * feed(Uint8Array.of(0xff, 0xff, 0xff, 0xff))
 *
 * const program = Framed.receiver(reader, Framing.lengthPrefixed({ width: 4 }), Codec.bytes).receive.pipe(
 *   Effect.asVoid,
 *   Effect.catchReason("FrameError", "FrameTooLong", ({ length, limit }) =>
 *     Effect.sync(() => console.log(`${length} bytes, the limit is ${limit}`))
 *   )
 * )
 *
 * await Effect.runPromise(program) // 4294967295 bytes, the limit is 8388608
 * ```
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { printable } from "./internal/printable.ts"
import type { IncompleteReadError, ReadError, WriteError } from "./StreamError.ts"

const bytes = (n: number): string => (n === 1 ? "1 byte" : `${n} bytes`)

/**
 * A frame is longer than the framing allows. `length` is how long it is, as far as that is known: what its header
 * announces (rounded beyond 2^53), or, with `orMore`, how much of it was read or searched for its end. `limit` is what
 * is allowed: the framing's `maxLength`, or, of a frame that is to be sent, what a prefix of `prefix` bytes can say.
 *
 * @category reasons
 * @since 0.1.0
 */
export class FrameTooLong extends Schema.TaggedError<FrameTooLong>("effect-wire/FrameTooLong")(
  "FrameTooLong",
  {
    length: Schema.Number,
    limit: Schema.Number,
    orMore: Schema.optional(Schema.Boolean),
    prefix: Schema.optional(Schema.Number)
  }
) {
  override get message(): string {
    const frame = `a frame of ${bytes(this.length)}${this.orMore === true ? " or more" : ""}`
    return this.prefix === undefined
      ? `${frame}, the limit is ${bytes(this.limit)}; raise it with the framing's maxLength`
      : `${frame}, with a prefix of ${bytes(this.prefix)} it can have ${this.limit}; choose a wider one`
  }
}

/**
 * The bytes are no frame of the framing, or no frame of the framing can hold the bytes. `at` is where in the frame, 0
 * unless given.
 *
 * @category reasons
 * @since 0.1.0
 */
export class MalformedFrame extends Schema.TaggedError<MalformedFrame>("effect-wire/MalformedFrame")(
  "MalformedFrame",
  { detail: Schema.String, at: Schema.optional(Schema.Number) }
) {
  override get message(): string {
    return printable(`malformed frame: ${this.detail}`)
  }
}

/**
 * A frame is no message of the codec, or the codec cannot encode a message. `cause` is a `Schema.SchemaError` where a
 * schema refused it, or what the parser threw.
 *
 * @category reasons
 * @since 0.1.0
 */
export class InvalidMessage extends Schema.TaggedError<InvalidMessage>("effect-wire/InvalidMessage")(
  "InvalidMessage",
  { detail: Schema.String, cause: Schema.optional(Schema.Defect()) }
) {
  override get message(): string {
    return printable(`invalid message: ${this.detail}`)
  }
}

/**
 * Schema of the reasons of a `FrameError`.
 *
 * @category reasons
 * @since 0.1.0
 */
export const FrameErrorReason = Schema.Union([FrameTooLong, MalformedFrame, InvalidMessage])

/**
 * Why a message could not be received or sent.
 *
 * @category reasons
 * @since 0.1.0
 */
export type FrameErrorReason = typeof FrameErrorReason.Type

// Printable ASCII as it is, the rest as \xNN.
const show = (excerpt: Uint8Array): string =>
  Array.from(excerpt, (byte) =>
    byte >= 0x20 && byte < 0x7f && byte !== 0x5c
      ? String.fromCharCode(byte)
      : `\\x${byte.toString(16).padStart(2, "0")}`
  ).join("")

/**
 * A message could not be received or sent. `operation` is `receive` or `send`. When several were to be sent at once,
 * `index` is which of them, from 0. When receiving, `offset` is where in the stream (bytes since the connection was
 * made) and `excerpt` the bytes around it, at most 64.
 *
 * @category errors
 * @since 0.1.0
 */
export class FrameError extends Schema.TaggedError<FrameError>("effect-wire/FrameError")("FrameError", {
  operation: Schema.Literals(["receive", "send"]),
  reason: FrameErrorReason,
  index: Schema.optional(Schema.Number),
  offset: Schema.optional(Schema.Number),
  excerpt: Schema.optional(Schema.Uint8Array),
  address: Schema.optional(Schema.String)
}) {
  override get message(): string {
    const address =
      this.address === undefined ? "" : ` ${this.operation === "receive" ? "from" : "to"} ${this.address}`
    const which = this.index === undefined ? "" : ` message ${this.index} of several`
    const where = this.offset === undefined ? this.whereInFrame : ` at byte ${this.offset}`
    const near =
      this.excerpt === undefined || this.excerpt.length === 0 ? "" : ` (near "${show(this.excerpt)}")`
    return printable(`${this.operation}${which}${address}${where}: ${this.reason.message}${near}`)
  }

  private get whereInFrame(): string {
    return this.reason._tag === "MalformedFrame" && this.reason.at !== undefined
      ? ` at byte ${this.reason.at} of the frame`
      : ""
  }
}

/**
 * The peer has ended its direction, and not within a frame: there are no more messages.
 *
 * @category errors
 * @since 0.1.0
 */
export class EndOfStream extends Schema.TaggedError<EndOfStream>("effect-wire/EndOfStream")("EndOfStream", {
  address: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return printable(`receive${this.address === undefined ? "" : ` from ${this.address}`}: end of stream`)
  }
}

/**
 * What receiving a message can fail with: `EndOfStream` between frames, `IncompleteReadError` within one.
 *
 * @category errors
 * @since 0.1.0
 */
export type ReceiveError = EndOfStream | FrameError | IncompleteReadError | ReadError

/**
 * What sending a message can fail with.
 *
 * @category errors
 * @since 0.1.0
 */
export type SendError = FrameError | WriteError
