/**
 * What a frame means.
 *
 * A codec turns a frame into a message and back, at once and without effects; where it cannot, it says why with an
 * `InvalidMessage`. Codecs compose: `compose` puts one on top of another, `map` changes the message.
 *
 * **Example** (JSON checked by a schema)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Codec } from "effect-wire"
 *
 * const codec = Codec.schema(Schema.Struct({ name: Schema.String, born: Schema.DateFromString }))
 *
 * const frame = codec.encode({ name: "Ada", born: new Date("1815-12-10") })
 * console.log(frame) // {"name":"Ada","born":"1815-12-10T00:00:00.000Z"}, as bytes
 * ```
 *
 * @since 0.1.0
 */
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaBinary from "effect/encoding/SchemaBinary"
import { dual } from "effect/Function"
import { InvalidMessage } from "./FrameError.ts"
import { encode } from "./internal/bytes.ts"
import { onOneLine, printableError } from "./internal/printable.ts"
import * as Text from "./internal/text.ts"

/**
 * Runtime type identifier of codecs.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-wire/Codec"

/**
 * Turns frames `FIn` into messages `In`, and messages `Out` into frames `FOut`. The two kinds of messages are the same unless
 * `duplex` puts two codecs together, the two kinds of frames unless the framing has two.
 *
 * @category models
 * @since 0.1.0
 */
export interface Codec<out In, in Out = In, in FIn = Uint8Array, out FOut = FIn> {
  readonly [TypeId]: typeof TypeId
  readonly decode: (frame: FIn) => Result.Result<In, InvalidMessage>
  readonly encode: (message: Out) => Result.Result<FOut, InvalidMessage>
}

/**
 * Tells whether a value is a codec.
 *
 * @category guards
 * @since 0.1.0
 */
export const isCodec = (u: unknown): u is Codec<unknown, never, never, unknown> =>
  Predicate.hasProperty(u, TypeId)

/**
 * A codec of your own. What `decode` or `encode` throws is a defect of the `receive` or `send`, unless it is an
 * `InvalidMessage`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <In, Out = In, FIn = Uint8Array, FOut = FIn>(options: {
  readonly decode: (frame: FIn) => Result.Result<In, InvalidMessage>
  readonly encode: (message: Out) => Result.Result<FOut, InvalidMessage>
}): Codec<In, Out, FIn, FOut> => ({ [TypeId]: TypeId, decode: options.decode, encode: options.encode })

const invalid = (detail: string, cause?: unknown): Result.Result<never, InvalidMessage> =>
  Result.fail(new InvalidMessage({ detail, cause }))

/**
 * The frame itself: its bytes, or whatever a framing of your own gives.
 *
 * @category constructors
 * @since 0.1.0
 */
export const identity = <In, Out = In>(): Codec<In, Out, In, Out> =>
  make<In, Out, In, Out>({ decode: Result.succeed, encode: Result.succeed })

/**
 * The bytes of the frame, a view of what was received wherever the frame lies in one chunk.
 *
 * @category constructors
 * @since 0.1.0
 */
export const bytes: Codec<Uint8Array> = identity()

/**
 * Text. Bytes that are no text in the encoding, and characters that it does not have, are an `InvalidMessage`. Default
 * `"utf-8"`; a byte order mark is kept.
 *
 * @category constructors
 * @since 0.1.0
 */
export const string = (encoding: "utf-8" | "utf-16le" | "latin1" | "ascii" = "utf-8"): Codec<string> => {
  const { decode, encode, strangerIn } = Text.coders[encoding]
  return make({
    decode: (frame) => {
      const text = decode(frame)
      return text === undefined ? notText(encoding, frame) : Result.succeed(text)
    },
    encode: (text) => {
      const frame = encode(text)
      if (frame !== undefined) return Result.succeed(frame)
      const at = strangerIn(text)
      return invalid(`${encoding} has no ${Text.codePoint(text, at)}, which is character ${at} of the text`)
    }
  })
}

const notText = (
  encoding: keyof typeof Text.coders,
  frame: Uint8Array
): Result.Result<never, InvalidMessage> => invalid(`not ${encoding}: ${Text.coders[encoding].faultOf(frame)}`)

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/**
 * JSON in UTF-8, whatever it holds: for what a schema says is in it, see `schema`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const json: Codec<unknown> = make<unknown>({
  decode: (frame) => {
    const text = Text.coders["utf-8"].decode(frame)
    if (text === undefined) return notText("utf-8", frame)
    try {
      const message: unknown = JSON.parse(text)
      return Result.succeed(message)
    } catch (cause) {
      const shown = printableError(cause)
      return invalid(messageOf(shown), shown)
    }
  },
  encode: (message) => {
    try {
      // Not a string for what JSON has no form for, such as `undefined`.
      const text: unknown = JSON.stringify(message)
      if (typeof text !== "string") return invalid(`${typeof message} has no form in JSON`)
      return Result.succeed(encode(text))
    } catch (cause) {
      return invalid(messageOf(cause), cause)
    }
  }
})

/**
 * A schema on top of a codec that gives whatever it finds, such as `json`: checks and transforms it by the schema's encoded
 * side. Conditions and errors are those of `schema`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromSchema = <T, E>(schema: Schema.ConstraintCodec<T, E>): Codec<T, T, unknown> => {
  const decode = Schema.decodeUnknownResult(schema)
  const encode = Schema.encodeUnknownResult(schema)
  return make<T, T, unknown>({
    decode: (frame) => Result.mapError(decode(frame), refuse),
    encode: (message) => Result.mapError(encode(message), refuse)
  })
}

const refuse = (error: Schema.SchemaError): InvalidMessage =>
  new InvalidMessage({ detail: onOneLine(error.message), cause: error })

/**
 * JSON in UTF-8 that a schema checks and transforms, by its canonical JSON form (`Schema.toCodecJson`): dates, maps, bytes
 * and the like are no obstacle. The schema must be synchronous and without services; an asynchronous one is a defect. The
 * `cause` of an `InvalidMessage` is the `Schema.SchemaError`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const schema = <T, E>(schema: Schema.ConstraintCodec<T, E>): Codec<T> =>
  compose(json, fromSchema(Schema.toCodecJson(schema)))

/**
 * A schema's compact binary form (`effect/encoding/SchemaBinary`), several times smaller and faster than JSON. Both peers
 * need the same schema, or compatible ones; with `fingerprint`, exactly the same, for still smaller frames. Conditions and
 * errors are those of `schema`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const schemaBinary = <T, E>(
  schema: Schema.ConstraintCodec<T, E>,
  options?: SchemaBinary.Options
): Codec<T> => {
  const binary = SchemaBinary.toCodec(schema, options)
  const decode = Schema.decodeUnknownResult(binary)
  const encode = Schema.encodeUnknownResult(binary)
  return make<T>({
    decode: (frame) => Result.mapError(decode(frame), refuse),
    encode: (message) => Result.mapError(encode(message), refuse)
  })
}

/**
 * A codec on top of another: the messages of the first are the frames of the second.
 *
 * @category combinators
 * @since 0.1.0
 */
export const compose: {
  <In2, Out2, A, B>(
    that: Codec<In2, Out2, A, B>
  ): <FIn, FOut>(self: Codec<A, B, FIn, FOut>) => Codec<In2, Out2, FIn, FOut>
  <A, B, FIn, FOut, In2, Out2>(
    self: Codec<A, B, FIn, FOut>,
    that: Codec<In2, Out2, A, B>
  ): Codec<In2, Out2, FIn, FOut>
} = dual(
  2,
  <A, B, FIn, FOut, In2, Out2>(
    self: Codec<A, B, FIn, FOut>,
    that: Codec<In2, Out2, A, B>
  ): Codec<In2, Out2, FIn, FOut> =>
    make<In2, Out2, FIn, FOut>({
      decode: (frame) => Result.flatMap(self.decode(frame), that.decode),
      encode: (message) => Result.flatMap(that.encode(message), self.encode)
    })
)

/**
 * Other messages by a pair of functions, which must not throw.
 *
 * @category combinators
 * @since 0.1.0
 */
export const map: {
  <A, B, C = A, D = B>(options: {
    readonly decode: (message: A) => B
    readonly encode: (message: D) => C
  }): <FIn, FOut>(self: Codec<A, C, FIn, FOut>) => Codec<B, D, FIn, FOut>
  <A, C, FIn, FOut, B, D = B>(
    self: Codec<A, C, FIn, FOut>,
    options: { readonly decode: (message: A) => B; readonly encode: (message: D) => C }
  ): Codec<B, D, FIn, FOut>
} = dual(
  2,
  <A, C, FIn, FOut, B, D = B>(
    self: Codec<A, C, FIn, FOut>,
    options: { readonly decode: (message: A) => B; readonly encode: (message: D) => C }
  ): Codec<B, D, FIn, FOut> =>
    make<B, D, FIn, FOut>({
      decode: (frame) => Result.map(self.decode(frame), options.decode),
      encode: (message) => self.encode(options.encode(message))
    })
)

/**
 * The same by functions that may refuse a message, with an `InvalidMessage` that says why.
 *
 * **Example** (Only ports)
 *
 * ```ts
 * import { Result } from "effect"
 * import { Codec, FrameError } from "effect-wire"
 *
 * const check = (n: number) =>
 *   Number.isInteger(n) && n > 0 && n < 65_536
 *     ? Result.succeed(n)
 *     : Result.fail(new FrameError.InvalidMessage({ detail: `no port: ${n}` }))
 *
 * const port = Codec.mapOrFail(Codec.string(), {
 *   decode: (text) => check(Number(text)),
 *   encode: (n: number) => Result.map(check(n), String)
 * })
 *
 * console.log(port.decode(new TextEncoder().encode("80000"))) // a failure: no port: 80000
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const mapOrFail: {
  <A, B, C = A, D = B>(options: {
    readonly decode: (message: A) => Result.Result<B, InvalidMessage>
    readonly encode: (message: D) => Result.Result<C, InvalidMessage>
  }): <FIn, FOut>(self: Codec<A, C, FIn, FOut>) => Codec<B, D, FIn, FOut>
  <A, C, FIn, FOut, B, D = B>(
    self: Codec<A, C, FIn, FOut>,
    options: {
      readonly decode: (message: A) => Result.Result<B, InvalidMessage>
      readonly encode: (message: D) => Result.Result<C, InvalidMessage>
    }
  ): Codec<B, D, FIn, FOut>
} = dual(
  2,
  <A, C, FIn, FOut, B, D = B>(
    self: Codec<A, C, FIn, FOut>,
    options: {
      readonly decode: (message: A) => Result.Result<B, InvalidMessage>
      readonly encode: (message: D) => Result.Result<C, InvalidMessage>
    }
  ): Codec<B, D, FIn, FOut> => compose(self, make<B, D, A, C>(options))
)

/**
 * One codec for what is received and another for what is sent: the requests and the replies of a protocol.
 *
 * @category combinators
 * @since 0.1.0
 */
export const duplex = <In, Out, FIn, FOut>(options: {
  readonly receive: Codec<In, never, FIn, unknown>
  readonly send: Codec<unknown, Out, never, FOut>
}): Codec<In, Out, FIn, FOut> =>
  make<In, Out, FIn, FOut>({ decode: options.receive.decode, encode: options.send.encode })
