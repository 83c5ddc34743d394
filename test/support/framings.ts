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

/** A length in decimal and a line's end, then as many bytes: written with the reader's operations. */
export const custom = (maxLength: number): Framing.Framing =>
  Framing.make<Uint8Array>({
    name: "custom",
    // What is around the bytes counts as well.
    maxLength: maxLength + 8,
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

const malformed = (detail: string) => Effect.fail(new FrameError.MalformedFrame({ detail }))

/** A framing, and what it can carry. */
export interface Subject {
  readonly name: string
  readonly framing: Framing.Framing
  /** Changes bytes into a frame that it can carry, of the same length. */
  readonly fit: (bytes: Uint8Array) => Uint8Array
  readonly min: number
  readonly max: number
  /** Whether several frames on a stream stay several. */
  readonly many: boolean
}

const any = (bytes: Uint8Array): Uint8Array => bytes

const without =
  (...banned: ReadonlyArray<number>) =>
  (bytes: Uint8Array): Uint8Array =>
    bytes.map((byte) => (banned.includes(byte) ? 0x2e : byte))

const subject = (name: string, framing: Framing.Framing, options: Partial<Subject> = {}): Subject => ({
  name,
  framing,
  fit: any,
  min: 0,
  max: LIMIT,
  many: true,
  ...options
})

export const LIMIT = 300

const limits = { maxLength: LIMIT }

/** Every framing, in its variants. */
export const subjects: ReadonlyArray<Subject> = [
  subject("lines", Framing.lines(limits), { fit: without(0x0a, 0x0d) }),
  subject("lines \\n", Framing.lines({ ...limits, ending: "\n" }), { fit: without(0x0a) }),
  subject("lines \\n strict", Framing.lines({ ...limits, ending: "\n", strict: true }), {
    fit: without(0x0a, 0x0d)
  }),
  subject("lines \\r\\n", Framing.lines({ ...limits, ending: "\r\n" }), { fit: without(0x0a) }),
  subject("lines \\r\\n strict", Framing.lines({ ...limits, ending: "\r\n", strict: true }), {
    fit: without(0x0a, 0x0d)
  }),
  subject("lines either strict", Framing.lines({ ...limits, strict: true }), { fit: without(0x0a, 0x0d) }),
  subject("delimited one byte", Framing.delimited("\0", limits), { fit: without(0) }),
  subject("delimited several bytes", Framing.delimited("\n\n.", limits), { fit: without(0x0a) }),
  subject("delimited by any of several", Framing.delimited(["ab", "\n"], limits), {
    fit: without(0x0a, 0x62)
  }),
  subject("fixedLength", Framing.fixedLength(LIMIT), { min: LIMIT }),
  ...([1, 2, 3, 4, 8, "varint"] as const).flatMap((width) =>
    (["big", "little"] as const).map((endian) =>
      subject(`lengthPrefixed ${width} ${endian}`, Framing.lengthPrefixed({ ...limits, width, endian }), {
        max: width === 1 ? 255 : LIMIT
      })
    )
  ),
  subject(
    "lengthPrefixed that includes itself",
    Framing.lengthPrefixed({ ...limits, width: 2, includesLength: true })
  ),
  subject(
    "lengthPrefixed in a header",
    Framing.lengthPrefixed({ ...limits, width: 2, offset: 1, adjustment: 3, skip: 6 })
  ),
  subject("netstring", Framing.netstring(limits)),
  subject("cobs", Framing.cobs(limits)),
  subject("slip", Framing.slip(limits), { min: 1 }),
  subject("whole", Framing.whole(limits), { min: 1, many: false }),
  subject("custom", custom(LIMIT), { max: LIMIT })
]

/** The value or the error of an effect that does not wait. */
export const now = <A, E>(effect: Effect.Effect<A, E>): Exit.Exit<A, E> => Effect.runSyncExit(effect)
