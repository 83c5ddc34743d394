/**
 * MessagePack as a codec, on the package `@msgpack/msgpack`.
 *
 * **Example** (A point in seven bytes)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Connection, Framed, Framing } from "effect-wire"
 * import { Msgpack } from "effect-wire/msgpack"
 *
 * const codec = Msgpack.schema(Schema.Struct({ x: Schema.Number, y: Schema.Number }))
 * const framing = Framing.lengthPrefixed({ width: "varint" })
 *
 * const program = Effect.gen(function* () {
 *   const [left, right] = yield* Connection.pair()
 *   yield* Framed.make(left, framing, codec).send({ x: 1, y: 2 })
 *   return yield* Framed.make(right, framing, codec).receive
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // { x: 1, y: 2 }
 * ```
 *
 * @since 0.1.0
 */
import { Decoder, Encoder } from "@msgpack/msgpack"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import * as Codec from "../Codec.ts"
import { InvalidMessage } from "../FrameError.ts"

const makeEncoder = (): Encoder => new Encoder({ ignoreUndefined: true })
let encoder = makeEncoder()

// An encoder keeps as much room as its largest message took.
const MAX_KEPT = 65_536

const encode = (message: unknown): Uint8Array => {
  const frame = encoder.encode(message)
  if (frame.length > MAX_KEPT) encoder = makeEncoder()
  return frame
}

const invalid = (cause: unknown): Result.Result<never, InvalidMessage> =>
  Result.fail(new InvalidMessage({ detail: cause instanceof Error ? cause.message : String(cause), cause }))

/**
 * Any value that MessagePack has a form for: what JSON has, and bytes, and dates. Properties that are `undefined` are left out.
 * A frame holds one value; one that announces more elements than it has bytes is refused before anything is made of it.
 *
 * **Example** (Smaller than JSON, and bytes as they are)
 *
 * ```ts
 * import { Result } from "effect"
 * import { Msgpack } from "effect-wire/msgpack"
 *
 * const frame = Result.getOrThrow(Msgpack.value.encode({ id: 7, payload: Uint8Array.of(1, 2, 3) }))
 * console.log(frame.length, Result.getOrThrow(Msgpack.value.decode(frame)))
 * // 18 { id: 7, payload: Uint8Array(3) [ 1, 2, 3 ] }
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const value: Codec.Codec<unknown> = Codec.make<unknown>({
  decode: (frame) => {
    if (!isPlausible(frame)) return invalid(new RangeError("it announces more than it has bytes"))
    try {
      // A new one each time costs nothing; an old one would keep the frame.
      return Result.succeed(new Decoder().decode(frame))
    } catch (cause) {
      return invalid(cause)
    }
  },
  encode: (message) => {
    try {
      return Result.succeed(encode(message))
    } catch (cause) {
      return invalid(cause)
    }
  }
})

/**
 * MessagePack that a schema checks and transforms. It carries the schema's encoded side, which has to be something that
 * MessagePack has a form for. The schema must be synchronous and without services. The `cause` of an `InvalidMessage` is the
 * `Schema.SchemaError`.
 *
 * **Example** (What is refused)
 *
 * ```ts
 * import { Result, Schema } from "effect"
 * import { Msgpack } from "effect-wire/msgpack"
 *
 * const codec = Msgpack.schema(Schema.Struct({ name: Schema.String, age: Schema.Number }))
 * const other = Result.getOrThrow(Msgpack.value.encode({ name: "Ada", age: "old" }))
 * console.log(Result.isFailure(codec.decode(other)), Result.isSuccess(codec.encode({ name: "Ada", age: 36 }))) // true true
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const schema = <T, E>(schema: Schema.ConstraintCodec<T, E>): Codec.Codec<T> =>
  Codec.compose(value, Codec.fromSchema(schema))

// The decoder makes room for all the elements that an array announces. Arrays within arrays could make it take the square
// of a frame's size, so what is announced is added up first: every element takes a byte at least.
const isPlausible = (bytes: Uint8Array): boolean => {
  const { length } = bytes
  let wanted = 1
  let at = 0
  const uint = (width: number): number => {
    let n = 0
    for (const end = at + width; at < end; at++) n = n * 256 + (bytes[at] ?? 0)
    return n
  }
  // A length of so many bytes, and as many bytes as it says.
  const counted = (width: number): void => {
    const n = uint(width)
    at += n
  }
  for (; wanted > 0; wanted--) {
    if (wanted > length - at) return false
    const head = bytes[at++] ?? 0
    if (head < 0x80 || head >= 0xe0) continue
    if (head < 0x90) wanted += 2 * (head & 0x0f)
    else if (head < 0xa0) wanted += head & 0x0f
    else if (head < 0xc0) at += head & 0x1f
    else if (head < 0xc4) continue
    // Bytes, extensions (which have a type), strings: a length of 1, 2 or 4 bytes.
    else if (head < 0xc7) counted(2 ** (head - 0xc4))
    else if (head < 0xca) {
      counted(2 ** (head - 0xc7))
      at += 1
    } else if (head < 0xcc) at += 4 * (head - 0xc9)
    else if (head < 0xd0) at += 2 ** (head - 0xcc)
    else if (head < 0xd4) at += 2 ** (head - 0xd0)
    else if (head < 0xd9) at += 1 + 2 ** (head - 0xd4)
    else if (head < 0xdc) counted(2 ** (head - 0xd9))
    else if (head < 0xde) wanted += uint(2 * (head - 0xdb))
    else wanted += 2 * uint(2 * (head - 0xdd))
  }
  return true
}
