/**
 * How a stream of bytes is cut into frames.
 *
 * A framing says where a frame begins and ends, and what goes around it on the wire; what the frame means is a
 * `Codec`'s business. `Framed` puts the two on a connection.
 *
 * Every framing has a maximum frame length, which is checked before anything is buffered: a header that announces more
 * fails at once. It is 8 MiB for those that announce a length (`lengthPrefixed`, `netstring`), and the reader's own
 * limit (65,536 bytes unless set) for those that search for an end.
 *
 * **Example** (Length-prefixed frames)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Codec, Connection, Framed, Framing } from "effect-wire"
 *
 * const framing = Framing.lengthPrefixed({ width: 2 })
 *
 * const program = Effect.gen(function* () {
 *   const [left, right] = yield* Connection.pair()
 *   yield* Framed.make(left, framing, Codec.string()).send("hello") // 00 05 h e l l o
 *   return yield* Framed.make(right, framing, Codec.string()).receive
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // hello
 * ```
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import { FrameTooLong, MalformedFrame } from "./FrameError.ts"
import { empty, indexOf } from "./internal/bytes.ts"
import * as Cobs from "./internal/cobs.ts"
import * as Limits from "./internal/limits.ts"
import { type Machine, Refusal, type Source } from "./internal/Machine.ts"
import * as Separators from "./internal/Separator.ts"
import * as Slip from "./internal/slip.ts"
import type { IncompleteReadError, ReadError } from "./StreamError.ts"
import type { Separator } from "./StreamReader.ts"

/**
 * Runtime type identifier of framings.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-wire/Framing"

/**
 * How a stream of bytes is cut into frames. Those that are received are an `In` and those that are sent an `Out`: their
 * bytes, unless `make` says otherwise. The two are the same unless a protocol's requests and replies are cut in
 * different ways.
 *
 * @category models
 * @since 0.1.0
 */
export interface Framing<out In = Uint8Array, in Out = In> {
  readonly [TypeId]: Machine<In, Out, FrameReader>
  /** What it is called in errors. */
  readonly name: string
  /** The most bytes of a frame; the reader's limit if absent. */
  readonly maxLength: number | undefined
}

/**
 * What goes on the wire for one frame: one chunk, or several that are written as one.
 *
 * @category models
 * @since 0.1.0
 */
export type Encoded = Uint8Array | string | ReadonlyArray<Uint8Array | string>

/**
 * What `decode` of a framing of your own can fail with. `MalformedFrame` says that what was read is no frame.
 *
 * @category errors
 * @since 0.1.0
 */
export type DecodeError = MalformedFrame | StepError

/**
 * What a step within a frame can fail with: `FrameTooLong`, at once, when the frame would become longer than the
 * framing's maximum; `IncompleteReadError` at the end of input, with all of the unfinished frame as `partial`.
 *
 * @category errors
 * @since 0.1.0
 */
export type StepError = FrameTooLong | IncompleteReadError | ReadError

/**
 * The reader's operations, within one frame: they read on from where the one before left off, and nothing is consumed
 * until the frame is complete. Of use until `decode` has ended; a defect afterwards.
 *
 * @category models
 * @since 0.1.0
 */
export interface FrameReader {
  /** Exactly `n` bytes. A negative or fractional `n` is a `RangeError` defect. */
  readonly readExactly: (n: number) => Effect.Effect<Uint8Array, StepError>
  /** Up to and including a separator. An empty separator is a `RangeError` defect. */
  readonly readUntil: (separator: Separator) => Effect.Effect<Uint8Array, StepError>
  /** Up to and including a `"\n"`. */
  readonly readLine: Effect.Effect<Uint8Array, StepError>
  /** The same as text (UTF-8), without its `"\n"` or `"\r\n"`. */
  readonly readLineString: Effect.Effect<string, StepError>
  /** One byte, as a number. */
  readonly readUint8: Effect.Effect<number, StepError>
  /** Two bytes, as a number. Default `"big"`. */
  readonly readUint16: (endian?: "big" | "little") => Effect.Effect<number, StepError>
  /** Four bytes, as a number. Default `"big"`. */
  readonly readUint32: (endian?: "big" | "little") => Effect.Effect<number, StepError>
  /** Everything up to the end of input, which may be nothing. */
  readonly readRest: Effect.Effect<Uint8Array, FrameTooLong | ReadError>
  /** The next `n` bytes; the operation after it reads them again. */
  readonly peek: (n: number) => Effect.Effect<Uint8Array, StepError>
  /** Goes past the next `n` bytes. */
  readonly skip: (n: number) => Effect.Effect<void, StepError>
  /** Goes past a separator, and gives how many bytes that were. They count as a part of the frame. */
  readonly skipUntil: (separator: Separator) => Effect.Effect<number, StepError>
}

/**
 * What a generator function gives that reads a part of a frame: `decode` of a framing of your own delegates to it with
 * `yield*`.
 *
 * @category models
 * @since 0.1.0
 */
export type Steps<A> = Generator<Effect.Effect<unknown, DecodeError>, A, never>

/**
 * Tells whether a value is a framing.
 *
 * @category guards
 * @since 0.1.0
 */
export const isFraming = (u: unknown): u is Framing<unknown, never> => Predicate.hasProperty(u, TypeId)

/**
 * Options that most framings have.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The most bytes of a frame, what is around it on the wire not counted: a positive integer. Set, it holds for frames
   * that are sent as well as for those that are received. Where the reader's limit holds because it is not set, frames
   * of any length are sent: nobody knows the limit of the peer's reader.
   */
  readonly maxLength?: number | undefined
}

const DEFAULT_ANNOUNCED = 8 * 1024 * 1024

const maxLengthOf = (options: Options | undefined): number | undefined =>
  options?.maxLength === undefined ? undefined : Limits.positive("maxLength", options.maxLength, "bytes")

const tooLong = (length: number, limit: number, past: Refusal["past"]): Refusal =>
  new Refusal(new FrameTooLong({ length, limit }), past, false)

/** So much of it is there, and no end. */
const endless = (length: number, limit: number, past: Refusal["past"], endsWithInput = false): Refusal =>
  new Refusal(new FrameTooLong({ length, limit, orMore: true }), past, endsWithInput)

const malformed = (detail: string, past?: number, at?: number): Refusal =>
  new Refusal(new MalformedFrame({ detail, at }), past, false)

const buffered = (options: {
  readonly name: string
  readonly maxLength: number | undefined
  readonly decode: (source: Source) => Uint8Array | undefined | Refusal
  readonly encode: Encode
  readonly expected?: (source: Source) => number | undefined
}): Framing => {
  return {
    [TypeId]: {
      decoder: { _tag: "Buffered", decode: options.decode, expected: options.expected },
      encode: options.encode
    },
    name: options.name,
    maxLength: options.maxLength
  }
}

type Encode = (frame: Uint8Array) => Encoded | MalformedFrame | FrameTooLong

/** What holds for frames that are received holds for those that are sent. */
const atMost = (maxLength: number | undefined, encode: Encode): Encode =>
  maxLength === undefined
    ? encode
    : (frame) =>
        frame.length > maxLength
          ? new FrameTooLong({ length: frame.length, limit: maxLength })
          : encode(frame)

const CR = 0x0d
const LF = 0x0a

const crlf = Separators.make("\r\n")

/**
 * Options of `lines`.
 *
 * @category models
 * @since 0.1.0
 */
export interface LinesOptions extends Options {
  /**
   * What ends a line: `"\n"`, `"\r\n"`, or `"either"` (the default): a `"\n"`, with or without a `"\r"` before it.
   * Lines are sent with `"\n"`, or with `"\r\n"` where only that is an end.
   */
  readonly ending?: "\n" | "\r\n" | "either" | undefined
  /**
   * Whether a `"\r"` or `"\n"` that is not part of a line's end is a `MalformedFrame`, and an unterminated last line an
   * `IncompleteReadError`. Default `false`: the former belong to the line, and the latter is a line.
   */
  readonly strict?: boolean | undefined
}

/**
 * Lines, without their ends. A line that cannot be told apart on the wire (one with an end in it) is not sent but fails
 * with `MalformedFrame`: nobody can smuggle in a second one.
 *
 * Text protocols that care (SMTP, HTTP) want `{ ending: "\r\n", strict: true }`.
 *
 * **Example** (Lines with either end)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Codec, Framed, Framing, StreamReader } from "effect-wire"
 *
 * const { feed, feedEof, reader } = StreamReader.feedable()
 * feed(new TextEncoder().encode("one\r\ntwo\nthree"))
 * feedEof()
 *
 * const { messages } = Framed.receiver(reader, Framing.lines(), Codec.string())
 *
 * console.log(await Effect.runPromise(Stream.runCollect(messages))) // [ "one", "two", "three" ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const lines = (options?: LinesOptions): Framing => {
  const maxLength = maxLengthOf(options)
  const ending = Limits.oneOf("ending", options?.ending ?? "either", ["\n", "\r\n", "either"])
  const strict = options?.strict ?? false
  // Where both bytes make the end and others may be in the line, both are sought; otherwise any "\n" is decisive.
  const separator = ending === "\r\n" && !strict ? crlf : Separators.newline
  // A "\r" before the "\n" that may turn out to belong to the end.
  const slack = ending === "\n" || separator === crlf ? 0 : 1

  const decode = ({ buffer, eof, limit }: Source): Uint8Array | undefined | Refusal => {
    const max = maxLength ?? limit
    const match = buffer.find(separator)
    if (match === undefined) {
      const { size } = buffer
      if (eof && !strict && size > 0 && size <= max) return buffer.take(size)
      // At the end of input, too, a "\r" may be the first half of a strict line's end, which was cut off.
      const isAllContent = eof && !(strict && size > 0 && buffer.byteAt(size - 1) === CR)
      const searched = isAllContent ? size : size + 1 - separator.longest - slack
      return searched > max ? endless(searched, max, separator, !strict) : undefined
    }
    let length = match.end - match.length
    const returned = slack === 1 && length > 0 && buffer.byteAt(length - 1) === CR
    if (returned) length--
    if (length > max) return tooLong(length, max, separator)
    if (!strict) return buffer.extract(0, length, match.end)
    if (ending === "\r\n" && !returned)
      return malformed('a line that ends in a bare "\\n", and not in "\\r\\n"', match.end, length)
    const at = buffer.slice(0, length).indexOf(CR)
    if (at !== -1) return malformed('a bare "\\r" within a line', match.end, at)
    return buffer.extract(0, length, match.end)
  }

  const end = ending === "\r\n" ? "\r\n" : "\n"
  const encode = (line: Uint8Array): Encoded | MalformedFrame => {
    const at =
      separator === crlf && !strict
        ? indexOf(line, crlfBytes, 0)
        : indexOfEnd(line, strict, ending === "either")
    return at === -1
      ? [line, end]
      : new MalformedFrame({ detail: "a line must not contain an end of line", at })
  }

  return buffered({ name: "lines", maxLength, decode, encode: atMost(maxLength, encode) })
}

const crlfBytes = Uint8Array.of(CR, LF)

// A "\n" anywhere; in strict lines a "\r" as well, and in others one that would be taken for a part of the end.
const indexOfEnd = (line: Uint8Array, strict: boolean, either: boolean): number => {
  const at = line.indexOf(LF)
  if (at !== -1) return at
  if (strict) return line.indexOf(CR)
  return either && line[line.length - 1] === CR ? line.length - 1 : -1
}

/**
 * Frames that end with a separator, which is not part of them. Of several separators any ends a frame; of those that
 * end in the same place the longest does, so that `["\r\n", "\n"]` leaves no `"\r"` at the end of a frame. The first
 * one is what is sent. A frame that would be cut in another place than before its separator is not sent but fails with
 * `MalformedFrame`.
 *
 * Throws a `RangeError` for an empty separator, and for a first one that contains another one before its end: nothing
 * that is sent with it would arrive whole.
 *
 * **Example** (Records that end with a zero byte)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Codec, Framed, Framing, StreamReader } from "effect-wire"
 *
 * const { feed, feedEof, reader } = StreamReader.feedable()
 * feed(new TextEncoder().encode("one\0two\0"))
 * feedEof()
 *
 * const { messages } = Framed.receiver(reader, Framing.delimited("\0"), Codec.string())
 *
 * console.log(await Effect.runPromise(Stream.runCollect(messages))) // [ "one", "two" ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const delimited = (separator: Separator, options?: Options): Framing => {
  const maxLength = maxLengthOf(options)
  const compiled = Separators.make(separator)
  const { longest, patterns } = compiled
  const [end = empty] = patterns
  if (patterns.some((pattern) => isWithin(end, pattern))) {
    throw new RangeError(`delimited: the first separator must not contain another one before its end`)
  }

  const decode = ({ buffer, limit }: Source): Uint8Array | undefined | Refusal => {
    const max = maxLength ?? limit
    const match = buffer.find(compiled)
    if (match === undefined) {
      const searched = buffer.size + 1 - longest
      return searched > max ? endless(searched, max, compiled) : undefined
    }
    // Of several that end there the search gives the shortest.
    const separator =
      patterns.length === 1
        ? match.length
        : longestAtEnd(buffer.slice(Math.max(0, match.end - longest), match.end), patterns)
    const length = match.end - separator
    return length > max ? tooLong(length, max, compiled) : buffer.extract(0, length, match.end)
  }

  const encode = (frame: Uint8Array): Encoded | MalformedFrame => {
    const at = cutOf(compiled, frame, end)
    return at === -1
      ? [frame, end]
      : new MalformedFrame({ detail: "a frame must not contain its separator", at })
  }

  return buffered({ name: "delimited", maxLength, decode, encode: atMost(maxLength, encode) })
}

const isWithin = (bytes: Uint8Array, pattern: Uint8Array): boolean => {
  const at = indexOf(bytes, pattern, 0)
  return at !== -1 && at + pattern.length < bytes.length
}

const longestAtEnd = (bytes: Uint8Array, patterns: ReadonlyArray<Uint8Array>): number => {
  let longest = 0
  for (const pattern of patterns) {
    const from = bytes.length - pattern.length
    if (pattern.length > longest && from >= 0 && pattern.every((byte, i) => bytes[from + i] === byte)) {
      longest = pattern.length
    }
  }
  return longest
}

// Where a frame that is sent with its end would be cut, if not before that, or -1.
const cutOf = ({ longest, patterns }: Separators.Separator, frame: Uint8Array, end: Uint8Array): number => {
  for (const pattern of patterns) {
    const at = indexOf(frame, pattern, 0)
    if (at !== -1) return at
  }
  // A match that begins in the frame and ends in its separator.
  const before = Math.min(frame.length, longest - 1)
  if (before === 0) return -1
  const seam = new Uint8Array(before + end.length)
  seam.set(frame.subarray(frame.length - before), 0)
  seam.set(end, before)
  for (const pattern of patterns) {
    const at = indexOf(seam, pattern, 0)
    if (at !== -1 && at < before) return frame.length - before + at
  }
  return -1
}

/**
 * Frames of exactly `length` bytes. A frame of another length is not sent but fails with `MalformedFrame`. Throws a
 * `RangeError` unless the length is a positive integer.
 *
 * **Example** (Records of four bytes)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Codec, Framed, Framing, StreamReader } from "effect-wire"
 *
 * const { feed, feedEof, reader } = StreamReader.feedable()
 * feed(new TextEncoder().encode("onestwos"))
 * feedEof()
 *
 * const { messages } = Framed.receiver(reader, Framing.fixedLength(4), Codec.string())
 *
 * console.log(await Effect.runPromise(Stream.runCollect(messages))) // [ "ones", "twos" ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fixedLength = (length: number): Framing => {
  Limits.positive("fixedLength: length", length, "bytes")
  return buffered({
    name: "fixedLength",
    maxLength: length,
    decode: ({ buffer }) => (buffer.size < length ? undefined : buffer.extract(0, length, length)),
    encode: (frame) =>
      frame.length === length
        ? frame
        : new MalformedFrame({ detail: `a frame of ${frame.length} bytes, all have ${length}` }),
    expected: () => length
  })
}

/**
 * Options of `lengthPrefixed`: what Tokio's `LengthDelimitedCodec` and Netty's `LengthFieldBasedFrameDecoder` can
 * express.
 *
 * @category models
 * @since 0.1.0
 */
export interface LengthPrefixedOptions extends Options {
  /** Bytes of the length, or `"varint"`: base 128, as Protocol Buffers writes it, at most 10 bytes. */
  readonly width: 1 | 2 | 3 | 4 | 8 | "varint"
  /** The order of the length's bytes. Default `"big"`. A varint has none. */
  readonly endian?: "big" | "little" | undefined
  /** Bytes of the header before the length. Default 0. */
  readonly offset?: number | undefined
  /**
   * Added to the length to get the number of bytes that follow it: positive where more follow than are counted (the
   * rest of a header), negative where bytes before it are counted as well. Default 0.
   */
  readonly adjustment?: number | undefined
  /** Whether the length counts its own bytes as well. Not with a varint. Default `false`. */
  readonly includesLength?: boolean | undefined
  /**
   * Bytes that are dropped from the front of what is received, and sent as zeros. Default: up to the end of the length.
   * Where it is less, the rest of the header belongs to the frame; a frame that is sent begins with the same bytes, and
   * its length is filled in. A varint is not: it has to be right, or the frame is a `MalformedFrame`.
   */
  readonly skip?: number | undefined
}

/**
 * Frames that begin with their length. Throws a `RangeError` for options that make no sense.
 *
 * `maxLength`, 8 MiB unless set, is compared with what the header announces, before any of it is buffered. A frame that
 * does not fit its prefix is not sent but fails with `FrameTooLong`.
 *
 * **Example** (A header of which the length is a part)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Codec, Framed, Framing, StreamReader } from "effect-wire"
 *
 * // Type, length of the body in two bytes, sequence number, body; all of it is the frame.
 * const framing = Framing.lengthPrefixed({ width: 2, offset: 1, adjustment: 1, skip: 0 })
 *
 * const { feed, reader } = StreamReader.feedable()
 * feed(Uint8Array.of(7, 0, 2, 42, 0x68, 0x69))
 *
 * console.log(await Effect.runPromise(Framed.receiver(reader, framing, Codec.bytes).receive)) // 7, 0, 2, 42, 104, 105
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const lengthPrefixed = (options: LengthPrefixedOptions): Framing => {
  const { width } = options
  const maxLength = maxLengthOf(options) ?? DEFAULT_ANNOUNCED
  const offset = Limits.natural("lengthPrefixed: offset", options.offset ?? 0)
  const skip = options.skip === undefined ? undefined : Limits.natural("lengthPrefixed: skip", options.skip)
  const adjustment = options.adjustment ?? 0
  if (!Number.isSafeInteger(adjustment)) {
    throw new RangeError(`lengthPrefixed: adjustment must be an integer, received ${adjustment}`)
  }
  if (width === "varint") {
    if (options.includesLength === true) {
      throw new RangeError("lengthPrefixed: a varint cannot count its own bytes")
    }
    if (skip !== undefined && skip > offset) {
      throw new RangeError(
        `lengthPrefixed: with a varint, skip must not be above the offset (${offset}), received ${skip}`
      )
    }
    return varintPrefixed(maxLength, offset, adjustment, skip)
  }
  if (![1, 2, 3, 4, 8].includes(width)) {
    throw new RangeError(`lengthPrefixed: width must be 1, 2, 3, 4, 8 or "varint", received ${String(width)}`)
  }
  const counted = adjustment - (options.includesLength === true ? width : 0)
  return fixedPrefixed(maxLength, offset, width, options.endian === "little", counted, skip ?? offset + width)
}

// `counted` is added to the length to get the number of bytes after it.
const fixedPrefixed = (
  maxLength: number,
  offset: number,
  width: 1 | 2 | 3 | 4 | 8,
  littleEndian: boolean,
  counted: number,
  skip: number
): Framing => {
  const header = offset + width
  const greatest = width === 8 ? Number.MAX_SAFE_INTEGER : 256 ** width - 1
  // What the length has to count at least: all that belongs to the header, or is skipped.
  const least = Math.max(0, Math.max(header, skip) - header - counted)

  const decode = ({ buffer }: Source): Uint8Array | undefined | Refusal => {
    const { size } = buffer
    if (size < header) return undefined
    const announced = buffer.uint(offset, width, littleEndian)
    const total = header + announced + counted
    if (total - skip > maxLength) return tooLong(total - skip, maxLength, total)
    if (announced < least) return tooSmall(announced, least, offset)
    return size < total ? undefined : buffer.extract(skip, total, total)
  }

  const writeLength = (out: Uint8Array, value: number): void => {
    let rest = value
    for (let i = 0; i < width; i++) {
      out[littleEndian ? offset + i : header - 1 - i] = rest % 256
      rest = Math.floor(rest / 256)
    }
  }

  const encode = (frame: Uint8Array): Encoded | MalformedFrame | FrameTooLong => {
    const value = skip + frame.length - header - counted
    if (value > greatest) {
      return new FrameTooLong({
        length: frame.length,
        limit: greatest + header + counted - skip,
        prefix: width
      })
    }
    const shortest = Math.max(0, header - skip, header + counted - skip)
    if (frame.length < shortest) return tooShort(frame, shortest)
    // What is skipped on receipt has no content that is known here.
    const head = new Uint8Array(Math.max(header, skip))
    const own = Math.max(0, header - skip)
    if (own > 0) head.set(frame.subarray(0, own), skip)
    writeLength(head, value)
    return frame.length === own ? head : [head, own === 0 ? frame : frame.subarray(own)]
  }

  const expected = ({ buffer }: Source): number =>
    buffer.size < header ? header : header + buffer.uint(offset, width, littleEndian) + counted

  return buffered({
    name: "lengthPrefixed",
    maxLength,
    decode,
    encode: atMost(maxLength, encode),
    expected
  })
}

const tooSmall = (announced: number, least: number, at: number): Refusal =>
  malformed(`a length of ${announced}, which is at least ${least} where it counts the header`, undefined, at)

const tooShort = (frame: Uint8Array, shortest: number): MalformedFrame =>
  new MalformedFrame({ detail: `a frame of ${frame.length} bytes, of which the header takes ${shortest}` })

const VARINT_BYTES = 10

const varintPrefixed = (
  maxLength: number,
  offset: number,
  adjustment: number,
  skip: number | undefined
): Framing => {
  const decode = ({ buffer }: Source): Uint8Array | undefined | Refusal => {
    const { size } = buffer
    let announced = 0
    let unit = 1
    for (let at = offset; at < size; at++) {
      const byte = buffer.byteAt(at)
      announced += (byte & 0x7f) * unit
      unit *= 128
      const header = at + 1
      if (byte < 0x80) {
        // Ten times seven bits are more than 64.
        if (header - offset === VARINT_BYTES && byte > 1)
          return malformed("a varint beyond 64 bits", undefined, at)
        const from = skip ?? header
        const total = header + announced + adjustment
        if (total - from > maxLength) return tooLong(total - from, maxLength, total)
        if (total < header) return tooSmall(announced, -adjustment, offset)
        return size < total ? undefined : buffer.extract(from, total, total)
      }
      if (header - offset === VARINT_BYTES) return malformed("a varint of more than 10 bytes", undefined, at)
    }
    return undefined
  }

  const encode = (frame: Uint8Array): Encoded | MalformedFrame => {
    if (skip !== undefined) return withOwnVarint(frame, offset - skip, adjustment, skip)
    let rest = frame.length - adjustment
    if (rest < 0) return tooShort(frame, adjustment)
    const head = Array.from({ length: offset }, () => 0)
    for (; rest > 127; rest = Math.floor(rest / 128)) head.push((rest % 128) | 0x80)
    head.push(rest)
    return frame.length === 0 ? Uint8Array.from(head) : [Uint8Array.from(head), frame]
  }

  const expected = ({ buffer }: Source): number | undefined => {
    let announced = 0
    for (let at = offset, unit = 1; at < buffer.size; at++, unit *= 128) {
      const byte = buffer.byteAt(at)
      announced += (byte & 0x7f) * unit
      if (byte < 0x80) return at + 1 + announced + adjustment
    }
    return undefined
  }

  return buffered({
    name: "lengthPrefixed",
    maxLength,
    decode,
    encode: atMost(maxLength, encode),
    expected
  })
}

// A frame that begins with its header: its varint is as long as it is, so it cannot be filled in, only checked.
const withOwnVarint = (
  frame: Uint8Array,
  offset: number,
  adjustment: number,
  skip: number
): Encoded | MalformedFrame => {
  let announced = 0
  let unit = 1
  for (let at = offset; at < Math.min(frame.length, offset + VARINT_BYTES); at++) {
    const byte = frame[at] ?? 0
    announced += (byte & 0x7f) * unit
    unit *= 128
    if (byte >= 0x80) continue
    const length = at + 1 + announced + adjustment
    if (length === frame.length) return skip === 0 ? frame : [new Uint8Array(skip), frame]
    const detail = `a frame of ${frame.length} bytes whose own varint makes it ${length}`
    return new MalformedFrame({ detail, at: offset })
  }
  return new MalformedFrame({ detail: `a frame of ${frame.length} bytes without its own varint`, at: offset })
}

const shown = (byte: number): string =>
  byte > 0x20 && byte < 0x7f
    ? JSON.stringify(String.fromCharCode(byte))
    : `0x${byte.toString(16).padStart(2, "0")}`

const ZERO = 0x30
const COLON = 0x3a
const COMMA = 0x2c

/**
 * Netstrings, as D. J. Bernstein wrote them down: the length in decimal, a colon, the bytes, a comma. `maxLength` is 8
 * MiB unless set; a length above it fails before its last digit has come, or is skipped once it has. See
 * https://cr.yp.to/proto/netstrings.txt.
 *
 * **Example** (Two netstrings)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Codec, Framed, Framing, StreamReader } from "effect-wire"
 *
 * const { feed, feedEof, reader } = StreamReader.feedable()
 * feed(new TextEncoder().encode("5:hello,0:,"))
 * feedEof()
 *
 * const { messages } = Framed.receiver(reader, Framing.netstring(), Codec.string())
 *
 * console.log(await Effect.runPromise(Stream.runCollect(messages))) // [ "hello", "" ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const netstring = (options?: Options): Framing => {
  const maxLength = maxLengthOf(options) ?? DEFAULT_ANNOUNCED

  const decode = ({ buffer }: Source): Uint8Array | undefined | Refusal => {
    const { size } = buffer
    let announced = 0
    for (let at = 0; at < size; at++) {
      const byte = buffer.byteAt(at)
      if (byte === COLON && at > 0) {
        const end = at + 1 + announced
        if (announced > maxLength) return tooLong(announced, maxLength, end + 1)
        if (size <= end) return undefined
        if (buffer.byteAt(end) !== COMMA) {
          const detail = `a netstring of ${announced} bytes with ${shown(buffer.byteAt(end))} behind it, not a comma`
          return malformed(detail, undefined, end)
        }
        return buffer.extract(at + 1, end, end + 1)
      }
      const digit = byte - ZERO
      if (digit < 0 || digit > 9) {
        if (announced > maxLength) return endless(announced, maxLength, undefined)
        const detail = `a netstring's length must be decimal digits and a colon, found ${shown(byte)}`
        return malformed(detail, undefined, at)
      }
      if (at > 0 && announced === 0) {
        return malformed(`a netstring's length has a leading zero, before ${shown(byte)}`, undefined, at)
      }
      announced = announced * 10 + digit
      if (announced > Number.MAX_SAFE_INTEGER) return endless(announced, maxLength, undefined)
    }
    // Whoever skips it needs the rest of its length.
    return announced > maxLength ? endless(announced, maxLength, "later") : undefined
  }

  const expected = ({ buffer }: Source): number | undefined => {
    let announced = 0
    for (let at = 0; at < buffer.size; at++) {
      const byte = buffer.byteAt(at)
      if (byte === COLON) return at + 1 + announced + 1
      announced = announced * 10 + byte - ZERO
    }
    return undefined
  }

  return buffered({
    name: "netstring",
    maxLength,
    decode,
    encode: atMost(maxLength, (frame) => [`${frame.length}:`, frame, ","]),
    expected
  })
}

// What ends a frame that was encoded so that the byte is not in it. Empty ones in between are noise, and dropped.
const escaped = (options: {
  readonly name: string
  readonly maxLength: number | undefined
  readonly end: Separators.Separator
  readonly encodedLength: (length: number) => number
  readonly decode: (encoded: Uint8Array) => Uint8Array | MalformedFrame
  readonly encode: (frame: Uint8Array) => Encoded | MalformedFrame
}): Framing => {
  const { encodedLength, end, maxLength, name } = options
  const decode = ({ buffer, limit }: Source): Uint8Array | undefined | Refusal => {
    const max = maxLength ?? limit
    const most = encodedLength(max)
    for (let match = buffer.find(end); match !== undefined; match = buffer.find(end)) {
      const length = match.end - 1
      if (length === 0) {
        buffer.discard(1)
        continue
      }
      if (length > most) return tooLong(length, max, end)
      const frame = options.decode(buffer.slice(0, length))
      if (frame instanceof MalformedFrame) return new Refusal(frame, match.end, false)
      if (frame.length > max) return tooLong(frame.length, max, end)
      buffer.discard(match.end)
      return frame
    }
    return buffer.size > most ? endless(buffer.size, max, end) : undefined
  }
  return buffered({ name, maxLength, decode, encode: atMost(maxLength, options.encode) })
}

/**
 * Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999): a frame is encoded without zero bytes, at a cost of one
 * byte in 254 at most, and ends with one. A receiver that comes in late, or finds a frame damaged, goes on at the next
 * zero.
 *
 * **Example** (A frame with zeros in it)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Codec, Framed, Framing, StreamReader } from "effect-wire"
 *
 * const { feed, feedEof, reader } = StreamReader.feedable()
 * feed(Uint8Array.of(1, 2, 0x11, 1, 0))
 * feedEof()
 *
 * const { messages } = Framed.receiver(reader, Framing.cobs(), Codec.bytes)
 *
 * console.log(await Effect.runPromise(Stream.runCollect(messages))) // [ Uint8Array [ 0, 17, 0 ] ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const cobs = (options?: Options): Framing =>
  escaped({
    name: "cobs",
    maxLength: maxLengthOf(options),
    end: Separators.make("\0"),
    encodedLength: Cobs.encodedLength,
    decode: Cobs.decode,
    encode: Cobs.encode
  })

/**
 * SLIP (RFC 1055): a frame ends with `C0`; `C0` and `DB` in it are sent as `DB DC` and `DB DD`. As the RFC advises, a
 * frame is sent with a `C0` before it as well, so that noise on the line ends up in a frame of its own. An empty frame
 * cannot be told from none, and is not sent but fails with `MalformedFrame`.
 *
 * **Example** (A frame between its ends)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Codec, Framed, Framing, StreamReader } from "effect-wire"
 *
 * const { feed, feedEof, reader } = StreamReader.feedable()
 * feed(Uint8Array.of(0xc0, 1, 0xdb, 0xdc, 2, 0xc0))
 * feedEof()
 *
 * const { messages } = Framed.receiver(reader, Framing.slip(), Codec.bytes)
 *
 * console.log(await Effect.runPromise(Stream.runCollect(messages))) // [ Uint8Array [ 1, 192, 2 ] ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const slip = (options?: Options): Framing =>
  escaped({
    name: "slip",
    maxLength: maxLengthOf(options),
    end: Separators.make(Uint8Array.of(Slip.END)),
    encodedLength: (length) => 2 * length,
    decode: Slip.decode,
    encode: (frame) =>
      frame.length === 0
        ? new MalformedFrame({ detail: "slip cannot carry an empty frame" })
        : Slip.encode(frame)
  })

/**
 * Everything up to the end of input is one frame; none if there is nothing. What is sent becomes one frame when the
 * writer is ended, which is the caller's business.
 *
 * **Example** (One message for a connection)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Codec, Framed, Framing, StreamReader } from "effect-wire"
 *
 * const { feed, feedEof, reader } = StreamReader.feedable()
 * feed(new TextEncoder().encode("everything\nthat came"))
 * feedEof()
 *
 * const { messages } = Framed.receiver(reader, Framing.whole(), Codec.string())
 *
 * console.log(await Effect.runPromise(Stream.runCollect(messages))) // [ "everything\nthat came" ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const whole = (options?: Options): Framing => {
  const maxLength = maxLengthOf(options)
  return buffered({
    name: "whole",
    maxLength,
    decode: ({ buffer, eof, limit }) => {
      const max = maxLength ?? limit
      if (buffer.size > max) return endless(buffer.size, max, Infinity, true)
      return eof && buffer.size > 0 ? buffer.take(buffer.size) : undefined
    },
    encode: atMost(maxLength, (frame) => frame)
  })
}

/**
 * A framing of your own, written with the reader's operations. A frame need not be bytes: it is what `decode` gives,
 * and what `encode` takes, which may be of two kinds (`make<Reply, Request>`).
 *
 * `decode` runs once at least one byte is there, and reads one frame: a generator, or an effect. A generator is several
 * times as fast where all of the frame is there already; where it is not, it begins anew. Nobody else reads in the
 * meantime.
 *
 * Nothing that `decode` reads is consumed before it has succeeded: interrupted, timed out or cut off by a failed
 * connection, it leaves every byte, and the next `receive` begins anew with the same frame. When it fails with
 * `MalformedFrame`, what it has read so far is consumed, and the next frame begins after that; so it is best to fail
 * after having read to the end of the frame. At the end of input within a frame the rest is consumed. A frame for which
 * nothing was read is a defect, as is reading from the connection in another way.
 *
 * `encode` gives the bytes of a frame, or (as a value) the error that says why there are none.
 *
 * `maxLength` is the most bytes that `decode` may read for one frame: the reader's limit unless set. What is sent is
 * not held to it, since it may be of another kind: `encode` can refuse what is too long.
 *
 * **Example** (A count of records, and the records)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Framed, Framing, StreamReader } from "effect-wire"
 *
 * const records = Framing.make<ReadonlyArray<string>>({
 *   name: "records",
 *   *decode(reader) {
 *     const count = yield* reader.readUint8
 *     const lines: Array<string> = []
 *     while (lines.length < count) lines.push(yield* reader.readLineString)
 *     return lines
 *   },
 *   encode: (lines) => [Uint8Array.of(lines.length), ...lines.map((line) => `${line}\n`)]
 * })
 *
 * const { feed, reader } = StreamReader.feedable()
 * feed(new TextEncoder().encode("\x02first\nsecond\n"))
 *
 * console.log(await Effect.runPromise(Framed.receiver(reader, records).receive)) // [ "first", "second" ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <In, Out = In>(options: {
  readonly name?: string | undefined
  readonly maxLength?: number | undefined
  readonly decode: (reader: FrameReader) => Steps<In> | Effect.Effect<In, DecodeError>
  readonly encode: (frame: Out) => Encoded | MalformedFrame | FrameTooLong
}): Framing<In, Out> => ({
  [TypeId]: { decoder: { _tag: "Stepwise", decode: options.decode }, encode: options.encode },
  name: options.name ?? "custom",
  maxLength: maxLengthOf(options)
})
