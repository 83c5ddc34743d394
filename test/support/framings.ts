import { Effect, type Exit } from "effect"
import { FrameError, Framing, StreamReader } from "effect-wire"

export const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"))

export const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

export const concat = (...parts: ReadonlyArray<Uint8Array>): Uint8Array =>
  Uint8Array.from(Buffer.concat(parts))

/** What a framing puts on the wire for a frame, or why it cannot. */
export const encode = <F>(
  framing: Framing.Framing<F>,
  frame: F
): Uint8Array | FrameError.MalformedFrame | FrameError.FrameTooLong => {
  const encoded = framing[Framing.TypeId].encode(frame)
  if (encoded instanceof Error) return encoded
  const chunks = typeof encoded === "string" || encoded instanceof Uint8Array ? [encoded] : encoded
  return Uint8Array.from(Buffer.concat(chunks.map((_) => (typeof _ === "string" ? Buffer.from(_) : _))))
}

/** A reader that was fed chunks, and then the end of input. */
export const ended = (chunks: Iterable<Uint8Array>, limit?: number): StreamReader.StreamReader => {
  const { feed, feedEof, reader } = StreamReader.feedable(limit === undefined ? {} : { limit })
  for (const chunk of chunks) feed(chunk)
  feedEof()
  return reader
}

const malformed = (detail: string) => new FrameError.MalformedFrame({ detail })

/** A length in decimal and a line's end, then as many bytes: written with the reader's operations. */
export const custom = (maxLength: number): Framing.Framing =>
  Framing.make<Uint8Array>({
    name: "custom",
    // What is around the bytes counts as well.
    maxLength: maxLength + String(maxLength).length + 2,
    decode: Effect.fnUntraced(function* (reader) {
      const head = Buffer.from(yield* reader.readUntil("\n")).toString("latin1")
      if (!/^\d{1,6}\n$/.test(head)) return yield* malformed(`no length: ${JSON.stringify(head)}`)
      const length = Number(head)
      const next = yield* reader.peek(length + 1)
      if (next[length] !== 0x3b) return yield* malformed("no semicolon")
      yield* reader.skip(0)
      const frame = yield* reader.readExactly(length)
      yield* reader.skip(1)
      return frame
    }),
    encode: (frame) => [`${frame.length}\n`, frame, ";"]
  })

/** Two bytes of length, the bytes, and a zero: the same as a generator. */
const generated = (maxLength: number): Framing.Framing =>
  Framing.make<Uint8Array>({
    name: "generated",
    maxLength: maxLength + 3,
    *decode(reader) {
      const frame = yield* reader.readExactly(yield* reader.readUint16("little"))
      if ((yield* reader.readUint8) !== 0) return yield* malformed("no zero")
      return frame
    },
    encode: (frame) => [Uint8Array.of(frame.length % 256, frame.length >> 8), frame, Uint8Array.of(0)]
  })

/** What becomes of the bytes between the last whole frame and the end of input. */
export type AtEnd = "end" | "too long" | { readonly frame: Uint8Array } | { readonly incomplete: Uint8Array }

/** A framing, and what it can carry. */
export interface Subject {
  readonly name: string
  readonly make: (maxLength: number) => Framing.Framing
  /** Around which sizes are chosen. */
  readonly limit: number
  /** Changes bytes into a frame that it can carry, of the same length. */
  readonly fit: (bytes: Uint8Array) => Uint8Array
  readonly min: number
  /** Whether all frames have the size of the limit. */
  readonly fixed: boolean
  /** Whether several frames on a stream stay several. */
  readonly many: boolean
  /** Whether it can go past a frame that is too long. */
  readonly skips: boolean
  readonly atEnd: (rest: Uint8Array) => AtEnd
}

const any = (bytes: Uint8Array): Uint8Array => bytes

const without =
  (...banned: ReadonlyArray<number>) =>
  (bytes: Uint8Array): Uint8Array =>
    bytes.map((byte) => (banned.includes(byte) ? 0x2e : byte))

const incomplete = (rest: Uint8Array): AtEnd => (rest.length === 0 ? "end" : { incomplete: rest })

/** The rest is a frame. */
const frame = (rest: Uint8Array): AtEnd => {
  if (rest.length === 0) return "end"
  return rest.length > LIMIT ? "too long" : { frame: rest }
}

const subject = (
  name: string,
  make: (maxLength: number) => Framing.Framing,
  options: Partial<Subject> = {}
): Subject => ({
  name,
  make,
  limit: LIMIT,
  fit: any,
  min: 0,
  fixed: false,
  many: true,
  skips: true,
  atEnd: incomplete,
  ...options
})

// Twice as many still fit a prefix of one byte.
export const LIMIT = 120

const lines = (
  name: string,
  options: Framing.LinesOptions,
  banned: ReadonlyArray<number>,
  atEnd: Subject["atEnd"]
): Subject =>
  subject(name, (maxLength) => Framing.lines({ ...options, maxLength }), { fit: without(...banned), atEnd })

const delimited = (name: string, separator: StreamReader.Separator, banned: ReadonlyArray<number>): Subject =>
  subject(name, (maxLength) => Framing.delimited(separator, { maxLength }), { fit: without(...banned) })

const lengthPrefixed = (
  name: string,
  options: Framing.LengthPrefixedOptions,
  frames: Partial<Subject> = {}
): Subject => subject(name, (maxLength) => Framing.lengthPrefixed({ ...options, maxLength }), frames)

/** Bytes that begin with a header of four, in which two say how many follow. */
const withHeader = (bytes: Uint8Array): Uint8Array => {
  const rest = bytes.length - 4
  return concat(bytes.subarray(0, 1), Uint8Array.of(rest >> 8, rest % 256), bytes.subarray(3))
}

/** Bytes that begin with one, and a varint that says how many follow. */
const withVarint = (bytes: Uint8Array): Uint8Array => {
  const varint =
    bytes.length < 130 ? [bytes.length - 2] : [((bytes.length - 3) % 128) | 0x80, (bytes.length - 3) >> 7]
  return concat(bytes.subarray(0, 1), Uint8Array.from(varint), bytes.subarray(1 + varint.length))
}

/** Every framing, in its variants. */
export const subjects: ReadonlyArray<Subject> = [
  lines("lines", {}, [0x0a, 0x0d], frame),
  lines("lines \\n", { ending: "\n" }, [0x0a], frame),
  lines("lines \\n strict", { ending: "\n", strict: true }, [0x0a, 0x0d], incomplete),
  lines("lines \\r\\n", { ending: "\r\n" }, [0x0a], frame),
  lines("lines \\r\\n strict", { ending: "\r\n", strict: true }, [0x0a, 0x0d], incomplete),
  lines("lines either strict", { strict: true }, [0x0a, 0x0d], incomplete),
  delimited("delimited by one byte", "\0", [0]),
  delimited("delimited by several bytes", "\n\n.", [0x0a]),
  delimited("delimited by any of several", ["ab", "\n"], [0x0a, 0x62]),
  delimited("delimited by one that ends in another", ["\r\n", "\n"], [0x0a]),
  subject("fixedLength", Framing.fixedLength, { min: LIMIT, fixed: true }),
  ...([1, 2, 3, 4, 8] as const).flatMap((width) =>
    (["big", "little"] as const).map((endian) =>
      lengthPrefixed(`lengthPrefixed ${width} ${endian}`, { width, endian })
    )
  ),
  lengthPrefixed("lengthPrefixed varint", { width: "varint" }),
  lengthPrefixed("lengthPrefixed that includes itself", { width: 2, includesLength: true }),
  lengthPrefixed("lengthPrefixed in a header", { width: 2, offset: 1, adjustment: 3, skip: 6 }),
  lengthPrefixed(
    "lengthPrefixed that keeps its header",
    { width: 2, offset: 1, adjustment: 1, skip: 0 },
    { fit: withHeader, min: 4 }
  ),
  lengthPrefixed(
    "lengthPrefixed that keeps its varint",
    { width: "varint", offset: 1, skip: 0 },
    { fit: withVarint, min: 2 }
  ),
  subject("netstring", (maxLength) => Framing.netstring({ maxLength })),
  // Its blocks have 254 bytes at most.
  subject("cobs", (maxLength) => Framing.cobs({ maxLength }), { limit: 300 }),
  subject("slip", (maxLength) => Framing.slip({ maxLength }), {
    min: 1,
    // What a frame begins with is noise by itself.
    atEnd: (rest) => incomplete(rest[0] === 0xc0 ? rest.subarray(1) : rest)
  }),
  subject("whole", (maxLength) => Framing.whole({ maxLength }), { min: 1, many: false, atEnd: frame }),
  subject("custom", custom, { skips: false }),
  subject("custom, as a generator", generated, { skips: false })
]

/** The value or the error of an effect that does not wait. */
export const now = <A, E>(effect: Effect.Effect<A, E>): Exit.Exit<A, E> => Effect.runSyncExit(effect)
