/**
 * What a frame means.
 *
 * A codec turns a frame into a message and back, at once and without effects; where it cannot, it says why with an
 * `InvalidMessage`. Codecs compose: `compose` puts one on top of another, `map` changes the message.
 * MessagePack is in `effect-wire/msgpack`, since it needs a package of its own.
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
 * Turns frames `FIn` into messages `In`, and messages `Out` into frames `FOut`. The two kinds of messages are the same
 * unless `duplex` puts two codecs together, the two kinds of frames unless the framing has two.
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
 * **Example** (A number in one byte)
 *
 * ```ts
 * import { Result } from "effect"
 * import { Codec, FrameError } from "effect-wire"
 *
 * const small = Codec.make<number>({
 *   decode: (frame) =>
 *     frame.length === 1
 *       ? Result.succeed(frame[0] ?? 0)
 *       : Result.fail(new FrameError.InvalidMessage({ detail: `${frame.length} bytes, and not one` })),
 *   encode: (n) => Result.succeed(Uint8Array.of(n))
 * })
 *
 * console.log(small.decode(Uint8Array.of(7))) // a success: 7
 * ```
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
 * **Example** (Frames that are messages already)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Codec, Framed, Framing, StreamReader } from "effect-wire"
 *
 * const pairs = Framing.make<readonly [number, number]>({
 *   *decode(reader) {
 *     return [yield* reader.readUint8, yield* reader.readUint8]
 *   },
 *   encode: (pair) => Uint8Array.from(pair)
 * })
 *
 * const { feed, reader } = StreamReader.feedable()
 * feed(Uint8Array.of(1, 2))
 *
 * const { receive } = Framed.receiver(reader, pairs, Codec.identity<readonly [number, number]>())
 *
 * console.log(await Effect.runPromise(receive)) // [ 1, 2 ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const identity = <In, Out = In>(): Codec<In, Out, In, Out> =>
  make<In, Out, In, Out>({ decode: Result.succeed, encode: Result.succeed })

/**
 * The bytes of the frame, a view of what was received wherever the frame lies in one chunk.
 *
 * **Example** (Bytes as they come)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Codec, Framed, Framing, StreamReader } from "effect-wire"
 *
 * const { feed, reader } = StreamReader.feedable()
 * feed(Uint8Array.of(2, 10, 20))
 *
 * const { receive } = Framed.receiver(reader, Framing.lengthPrefixed({ width: 1 }), Codec.bytes)
 *
 * console.log(await Effect.runPromise(receive)) // 10, 20
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const bytes: Codec<Uint8Array> = identity()

/**
 * Text. Bytes that are no text in the encoding, and characters that it does not have, are an `InvalidMessage`. Default
 * `"utf-8"`; a byte order mark is kept.
 *
 * **Example** (Text of another age)
 *
 * ```ts
 * import { Codec } from "effect-wire"
 *
 * const latin1 = Codec.string("latin1")
 *
 * console.log(latin1.encode("é")) // a success: the byte e9
 * console.log(latin1.encode("€")) // a failure: latin1 has no U+20AC, which is character 0 of the text
 * ```
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
 * **Example** (Whatever it holds)
 *
 * ```ts
 * import { Codec } from "effect-wire"
 *
 * console.log(Codec.json.decode(new TextEncoder().encode('{"a":[1,2]}'))) // a success: { a: [ 1, 2 ] }
 * ```
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
 * A schema on top of a codec that gives whatever it finds, such as `json`: checks and transforms it by the schema's
 * encoded side. Conditions and errors are those of `schema`.
 *
 * **Example** (A schema on messages of a codec of your own)
 *
 * ```ts
 * import { Result, Schema } from "effect"
 * import { Codec } from "effect-wire"
 *
 * const words = Codec.make<unknown, unknown>({
 *   decode: (frame) => Result.succeed(new TextDecoder().decode(frame).split(" ")),
 *   encode: (message) => Result.succeed(new TextEncoder().encode(String(message)))
 * })
 *
 * const move = Codec.compose(words, Codec.fromSchema(Schema.Tuple([Schema.String, Schema.NumberFromString])))
 *
 * console.log(move.decode(new TextEncoder().encode("north 3"))) // a success: [ "north", 3 ]
 * ```
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
 * JSON in UTF-8 that a schema checks and transforms, by its canonical JSON form (`Schema.toCodecJson`): dates, maps,
 * bytes and the like are no obstacle. The schema must be synchronous and without services; an asynchronous one is a
 * defect. The `cause` of an `InvalidMessage` is the `Schema.SchemaError`.
 *
 * **Example** (Dates in JSON)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Codec } from "effect-wire"
 *
 * const codec = Codec.schema(Schema.Struct({ at: Schema.Date }))
 *
 * console.log(codec.decode(new TextEncoder().encode('{"at":"2026-01-01T00:00:00.000Z"}'))) // a success, with a Date
 * console.log(codec.decode(new TextEncoder().encode("{}"))) // a failure: Missing key at ["at"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const schema = <T, E>(schema: Schema.ConstraintCodec<T, E>): Codec<T> =>
  compose(json, fromSchema(Schema.toCodecJson(schema)))

/**
 * A schema's compact binary form (`effect/encoding/SchemaBinary`), several times smaller and faster than JSON. Both
 * peers need the same schema, or compatible ones; with `fingerprint`, exactly the same, for still smaller frames.
 * Conditions and errors are those of `schema`.
 *
 * **Example** (Several times smaller than JSON)
 *
 * ```ts
 * import { Result, Schema } from "effect"
 * import { Codec } from "effect-wire"
 *
 * const Point = Schema.Struct({ x: Schema.Number, y: Schema.Number })
 * const size = (codec: Codec.Codec<typeof Point.Type>) =>
 *   Result.getOrThrow(codec.encode({ x: 100_000, y: 200_000 })).length
 *
 * console.log(size(Codec.schemaBinary(Point)) < size(Codec.schema(Point))) // true
 * ```
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
 * **Example** (Base64 around JSON)
 *
 * ```ts
 * import { Result } from "effect"
 * import { Codec } from "effect-wire"
 *
 * const base64 = Codec.make<Uint8Array>({
 *   decode: (frame) => Result.succeed(Uint8Array.from(Buffer.from(String(Buffer.from(frame)), "base64"))),
 *   encode: (bytes) => Result.succeed(new TextEncoder().encode(Buffer.from(bytes).toString("base64")))
 * })
 *
 * const codec = Codec.compose(base64, Codec.json)
 *
 * console.log(codec.decode(new TextEncoder().encode("eyJhIjoxfQ=="))) // a success: { a: 1 }
 * ```
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
 * **Example** (Words)
 *
 * ```ts
 * import { Codec } from "effect-wire"
 *
 * const words = Codec.map(Codec.string(), {
 *   decode: (text) => text.split(" "),
 *   encode: (words) => words.join(" ")
 * })
 *
 * console.log(words.decode(new TextEncoder().encode("one two"))) // a success: [ "one", "two" ]
 * ```
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
 * **Example** (A client that asks in text and is answered in JSON)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Codec, Connection, Framed, Framing } from "effect-wire"
 *
 * const codec = Codec.duplex({ receive: Codec.json, send: Codec.string() })
 *
 * const program = Effect.gen(function* () {
 *   const [left, right] = yield* Connection.pair()
 *   yield* right.writer.write('{"colour":"blue"}\n')
 *   return yield* Framed.make(left, Framing.lines(), codec).request("colour?")
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // { colour: "blue" }
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const duplex = <In, Out, FIn, FOut>(options: {
  readonly receive: Codec<In, never, FIn, unknown>
  readonly send: Codec<unknown, Out, never, FOut>
}): Codec<In, Out, FIn, FOut> =>
  make<In, Out, FIn, FOut>({ decode: options.receive.decode, encode: options.send.encode })
