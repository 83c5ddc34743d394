import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import type { Codec } from "../Codec.ts"
import {
  FrameError,
  type FrameErrorReason,
  FrameTooLong,
  InvalidMessage,
  MalformedFrame,
  type SendError
} from "../FrameError.ts"
import * as Framing from "../Framing.ts"
import type { TimeLimits } from "./Deadlines.ts"
import { Immediate, type Ready } from "./Immediate.ts"
import type { Output } from "./Output.ts"

/** A message that cannot be sent. */
export class Unsendable {
  readonly exit: Exit.Exit<never, FrameError>

  constructor(exit: Exit.Exit<never, FrameError>) {
    this.exit = exit
  }
}

/** Makes a message what is written for it. `index` is its place among several. */
export type Encoder<Out> = (message: Out, index?: number) => Framing.Encoded | Unsendable

export const make = <Out, F>(
  output: Output,
  framing: Framing.Framing<unknown, F>,
  codec: Codec<unknown, Out, never, F>
): Encoder<Out> => {
  const machine = framing[Framing.TypeId]
  const refused = (reason: FrameErrorReason, index: number | undefined): Unsendable =>
    new Unsendable(Exit.fail(new FrameError({ operation: "send", reason, index, address: output.address })))
  return (message, index) => {
    try {
      const frame = codec.encode(message)
      if (Result.isFailure(frame)) return refused(frame.failure, index)
      const encoded = machine.encode(frame.success)
      return encoded instanceof MalformedFrame || encoded instanceof FrameTooLong
        ? refused(encoded, index)
        : encoded
    } catch (cause) {
      return cause instanceof InvalidMessage ? refused(cause, index) : new Unsendable(Exit.die(cause))
    }
  }
}

export const isChunk = (encoded: Framing.Encoded): encoded is Uint8Array | string =>
  typeof encoded === "string" || encoded instanceof Uint8Array

/** Where messages go. */
export interface Destination<in Out> {
  readonly output: Output
  readonly writing: TimeLimits
  readonly encode: Encoder<Out>
}

/** A message as an effect that sends it. */
export class Send<Out> extends Immediate<void, SendError> {
  private readonly to: Destination<Out>
  private readonly message: Out

  constructor(to: Destination<Out>, message: Out) {
    super()
    this.to = to
    this.message = message
  }

  protected override begin(): Ready<void> | Effect.Effect<void, SendError> {
    const { encode, output, writing } = this.to
    const encoded = encode(this.message)
    if (encoded instanceof Unsendable) return encoded.exit
    return isChunk(encoded) ? output.write(writing, encoded) : output.writeAll(writing, encoded)
  }
}

/** Several messages, sent with one write. */
export class SendAll<Out> extends Immediate<void, SendError> {
  private readonly to: Destination<Out>
  private readonly messages: Iterable<Out>
  private readonly isIndexed: boolean

  constructor(to: Destination<Out>, messages: Iterable<Out>, isIndexed: boolean) {
    super()
    this.to = to
    this.messages = messages
    this.isIndexed = isIndexed
  }

  protected override begin(): Ready<void> | Effect.Effect<void, SendError> {
    const { isIndexed, messages, to } = this
    const { encode, output, writing } = to
    const chunks: Array<Uint8Array | string> = []
    let index = 0
    try {
      for (const message of messages) {
        const encoded = encode(message, isIndexed ? index++ : undefined)
        if (encoded instanceof Unsendable) return encoded.exit
        if (isChunk(encoded)) chunks.push(encoded)
        // One by one: they may be more than a call takes arguments.
        else for (const chunk of encoded) chunks.push(chunk)
      }
    } catch (cause) {
      return Exit.die(cause)
    }
    return output.writeAll(writing, chunks)
  }
}
