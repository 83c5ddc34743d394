import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import type { Codec } from "../Codec.ts"
import {
  FrameError,
  type FrameErrorReason,
  FrameTooLong,
  InvalidMessage,
  MalformedFrame
} from "../FrameError.ts"
import * as Framing from "../Framing.ts"
import type { Output } from "./Output.ts"

/** Makes a message what is written for it, or says why it cannot be sent. */
export type Encoder<Out> = (message: Out) => Framing.Encoded | Exit.Exit<never, FrameError>

export const make = <Out, F>(
  output: Output,
  framing: Framing.Framing<F>,
  codec: Codec<unknown, Out, F>
): Encoder<Out> => {
  const machine = framing[Framing.TypeId]
  const refused = (reason: FrameErrorReason): Exit.Exit<never, FrameError> =>
    Exit.fail(new FrameError({ operation: "send", reason, address: output.address }))
  return (message) => {
    try {
      const frame = codec.encode(message)
      if (Result.isFailure(frame)) return refused(frame.failure)
      const encoded = machine.encode(frame.success)
      return encoded instanceof MalformedFrame || encoded instanceof FrameTooLong ? refused(encoded) : encoded
    } catch (cause) {
      return cause instanceof InvalidMessage ? refused(cause) : Exit.die(cause)
    }
  }
}
