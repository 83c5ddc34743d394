// How messages of HTTP/1.1 begin, and how long they are: RFC 9112, on the side of who receives requests.
import { Effect, Schema, Stream } from "effect"
import { Framing, type StreamError, StreamReader } from "effect-wire"

/** A request that is answered with an error, after which the connection is closed. */
export class HttpError extends Schema.TaggedError<HttpError>("HttpError")("HttpError", {
  status: Schema.Number,
  message: Schema.String
}) {}

export type BodyError = HttpError | StreamError.IncompleteReadError | StreamError.ReadError

export const MAX_HEAD = 16_384
const MAX_FIELDS = 100

const bad = (message: string) => new HttpError({ status: 400, message })

// --- The head of a request.

/** Text up to an empty line. */
export const heads = Framing.delimited("\r\n\r\n", { maxLength: MAX_HEAD })

const token = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+"
const requestLine = new RegExp(`^(${token}) ([\\x21-\\x7e]+) HTTP/(\\d)\\.(\\d)$`)
const fieldLine = new RegExp(`^(${token}):([\\t\\x20-\\x7e\\x80-\\xff]*)$`)

// By hand: a pattern for the blanks at an end looks at those in between again and again.
export const trim = (text: string): string => {
  const isBlank = (at: number) => text[at] === " " || text[at] === "\t"
  let start = 0
  let end = text.length
  while (isBlank(start)) start++
  while (end > start && isBlank(end - 1)) end--
  return text.slice(start, end)
}

export interface Head {
  readonly method: string
  readonly target: string
  readonly headers: ReadonlyMap<string, string>
  readonly minor: number
  /** How long the body is, if it is not in chunks. */
  readonly length: number | "chunked"
}

export const parseHead = (text: string): Head | HttpError => {
  const [first = "", ...lines] = text.split("\r\n")
  const [, method = "", target = "", major, minor] = requestLine.exec(first) ?? []
  if (major === undefined) return bad("no request line")
  if (major !== "1") return new HttpError({ status: 505, message: "only HTTP/1 is spoken here" })
  if (method === "CONNECT") return new HttpError({ status: 501, message: "no tunnels" })
  if (lines.length > MAX_FIELDS) return new HttpError({ status: 431, message: "too many header fields" })

  const headers = new Map<string, string>()
  for (const line of lines) {
    const [, name, value = ""] = fieldLine.exec(line) ?? []
    if (name === undefined) return bad("no header field")
    const key = name.toLowerCase()
    const before = headers.get(key)
    headers.set(key, before === undefined ? trim(value) : `${before}, ${trim(value)}`)
  }
  const host = headers.get("host")
  if (minor !== "0" && (host === undefined || host.includes(","))) return bad("one host is needed")

  // Whoever says two lengths may want this server and a proxy before it to disagree on where the next request begins.
  const length = headers.get("content-length")
  const coding = headers.get("transfer-encoding")
  if (coding === undefined) {
    if (length !== undefined && !/^\d{1,15}$/.test(length)) return bad("no content length")
    return { method, target, headers, minor: Number(minor), length: Number(length ?? 0) }
  }
  if (length !== undefined || minor === "0") return bad("two lengths of the body")
  if (coding.toLowerCase() !== "chunked") return new HttpError({ status: 501, message: "an unknown coding" })
  return { method, target, headers, minor: Number(minor), length: "chunked" }
}

// --- A body in chunks.

const latin1 = new TextDecoder("latin1")

const readLine = (reader: StreamReader.StreamReader, limit: number) =>
  reader.readUntil("\r\n", { limit }).pipe(
    Effect.map((line) => latin1.decode(line.subarray(0, -2))),
    Effect.catchTag("LimitOverrunError", () => Effect.fail(bad("a line in the body is too long")))
  )

const readChunkSize = Effect.fnUntraced(function* (reader: StreamReader.StreamReader) {
  const [, size] = /^([0-9a-fA-F]{1,12})[ \t]*(?:;.*)?$/.exec(yield* readLine(reader, 256)) ?? []
  return size === undefined ? yield* bad("no chunk size") : Number.parseInt(size, 16)
})

const readChunkEnd = Effect.fnUntraced(function* (reader: StreamReader.StreamReader) {
  if ((yield* readLine(reader, 256)) !== "") return yield* bad("a chunk that is longer than it says")
})

const skipTrailers = Effect.fnUntraced(function* (reader: StreamReader.StreamReader) {
  for (let lines = 0; (yield* readLine(reader, MAX_HEAD)) !== ""; lines++) {
    if (lines === MAX_FIELDS) return yield* bad("too many trailer fields")
  }
})

/** A stream that only does something. */
export const only = <E>(effect: Effect.Effect<unknown, E>): Stream.Stream<never, E> =>
  Stream.drain(Stream.fromEffect(effect))

/** A body in chunks, to its end. */
export const chunksOf = (reader: StreamReader.StreamReader): Stream.Stream<Uint8Array, BodyError> =>
  Stream.fromEffectRepeat(readChunkSize(reader)).pipe(
    Stream.takeWhile((size) => size > 0),
    Stream.flatMap((size) =>
      Stream.concat(StreamReader.streamExactly(reader, size), only(readChunkEnd(reader)))
    ),
    Stream.concat(only(skipTrailers(reader)))
  )

/** Pieces of a body as chunks. */
export const inChunks = (pieces: ReadonlyArray<Uint8Array>): Array<Uint8Array | string> =>
  // A chunk of no bytes would be the last.
  pieces.flatMap((piece) => (piece.length === 0 ? [] : [`${piece.length.toString(16)}\r\n`, piece, "\r\n"]))
