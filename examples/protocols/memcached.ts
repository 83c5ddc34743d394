// A client for memcached, in its text protocol: https://github.com/memcached/memcached/blob/master/doc/protocol.txt
import { Clock, Duration, Effect, Option, Result, Schema } from "effect"
import { Codec, type Connection, FrameError, Framed, Framing } from "effect-wire"

// --- The messages: a request is a line, with data after it if it stores something. A reply is a line, or a list of items.

interface Request {
  readonly verb: string
  readonly keys: ReadonlyArray<string>
  readonly numbers?: ReadonlyArray<number | bigint>
  readonly data?: Uint8Array
  /** Comes after the length of the data. */
  readonly cas?: bigint
}

export interface Item {
  readonly key: string
  readonly value: Uint8Array
  readonly flags: number
  /** Changes whenever the item does; for `compareAndSet`. Present if it was asked for. */
  readonly cas: bigint | undefined
}

type Reply = { readonly line: string } | { readonly items: ReadonlyArray<Item> }

// --- The framing.

const MAX_LENGTH = 16 * 1024 * 1024

const malformed = (detail: string) => new FrameError.MalformedFrame({ detail })

const encoder = new TextEncoder()
const decoder = new TextDecoder()

const readLine = (reader: Framing.FrameReader) =>
  Effect.map(reader.readUntil("\r\n"), (line) => decoder.decode(line.subarray(0, -2)))

// Digits and nothing else, and no more than the numbers have: `Number` would make something of anything.
const header = /^VALUE (?<key>\S+) (?<flags>\d{1,10}) (?<length>\d{1,15})(?: (?<cas>\d{1,20}))?$/

const readReply = Effect.fnUntraced(function* (reader: Framing.FrameReader) {
  const items: Array<Item> = []
  for (;;) {
    const line = yield* readLine(reader)
    if (line === "END") return { items }
    const fields = header.exec(line)?.groups
    // Where the data ends, and the next reply begins, only the header says.
    if (fields === undefined && line.startsWith("VALUE")) return yield* malformed("a header that is none")
    // What went wrong may be said in the middle of a list, which then has no end.
    if (fields === undefined) return { line }
    const { cas, flags, key = "", length } = fields
    const value = yield* reader.readExactly(Number(length))
    if ((yield* readLine(reader)) !== "") return yield* malformed(`more than ${length} bytes of data`)
    items.push({ key, value, flags: Number(flags), cas: cas === undefined ? undefined : BigInt(cas) })
  }
})

const encodeRequest = ({ cas, data, keys, numbers = [], verb }: Request): Framing.Encoded => {
  const words: Array<string | number | bigint> = [verb, ...keys, ...numbers]
  if (data === undefined) return `${words.join(" ")}\r\n`
  words.push(data.length)
  if (cas !== undefined) words.push(cas)
  return [`${words.join(" ")}\r\n`, data, "\r\n"]
}

export const framing = Framing.make<Request | Reply>({
  name: "memcached",
  maxLength: MAX_LENGTH,
  decode: readReply,
  encode: (message) => ("verb" in message ? encodeRequest(message) : malformed("a client sends no reply"))
})

// --- The codec: a key with a space or an end of line in it would become another command.

const isKey = (key: string): boolean =>
  !/[\x00-\x20\x7f]/.test(key) && key !== "" && encoder.encode(key).length <= 250

export const codec = Codec.make<Reply, Request, Request | Reply>({
  decode: (message) =>
    "verb" in message
      ? Result.fail(new FrameError.InvalidMessage({ detail: "a request" }))
      : Result.succeed(message),
  encode: (request) =>
    request.keys.every(isKey)
      ? Result.succeed(request)
      : Result.fail(
          new FrameError.InvalidMessage({
            detail: "a key is 1 to 250 bytes without spaces and control characters"
          })
        )
})

// --- The client.

/** `ERROR`, `CLIENT_ERROR` or `SERVER_ERROR`, and why; also any reply that does not fit its request. */
export class MemcachedError extends Schema.TaggedError<MemcachedError>("MemcachedError")("MemcachedError", {
  message: Schema.String
}) {}

export interface StoreOptions {
  /** After which the item is gone. Memcached counts in seconds; begun ones count. Default: never. */
  readonly expiresIn?: Duration.Input
  /** 32 bits for the application. Default 0. */
  readonly flags?: number
}

const THIRTY_DAYS = 30 * 24 * 60 * 60

/** Seconds from now; those of more than 30 days would be taken for a date, so they become one. */
const expiry = (expiresIn: Duration.Input = Duration.infinity): Effect.Effect<number> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    const seconds = Math.max(1, Math.ceil(Duration.toSeconds(expiresIn)))
    if (seconds === Infinity) return 0
    return seconds > THIRTY_DAYS ? Math.floor(now / 1000) + seconds : seconds
  })

const toBytes = (value: Uint8Array | string): Uint8Array =>
  typeof value === "string" ? encoder.encode(value) : value

export const make = Effect.fnUntraced(function* (connection: Connection.Connection) {
  const { request } = yield* Framed.make(connection, framing, codec).pipeline({ timeout: "10 seconds" })

  const unexpected = ({ verb }: Request, reply: string) =>
    new MemcachedError({
      message: /^(CLIENT_|SERVER_)?ERROR/.test(reply) ? reply : `${verb}: unexpected ${reply}`
    })

  /** The reply, if it is one of the lines that are given, and what each of them means. */
  const ask = <A>(message: Request, meanings: Record<string, A>) =>
    Effect.flatMap(request(message), (reply) => {
      const line = "line" in reply ? reply.line : "items"
      const meaning = Object.hasOwn(meanings, line) ? meanings[line] : undefined
      return meaning === undefined ? Effect.fail(unexpected(message, line)) : Effect.succeed(meaning)
    })

  const fetch = (verb: "get" | "gets", keys: ReadonlyArray<string>) =>
    Effect.flatMap(request({ verb, keys }), (reply) =>
      "items" in reply ? Effect.succeed(reply.items) : Effect.fail(unexpected({ verb, keys }, reply.line))
    )

  const store =
    (verb: "set" | "add" | "replace" | "append" | "prepend") =>
    (key: string, value: Uint8Array | string, { expiresIn, flags = 0 }: StoreOptions = {}) =>
      Effect.flatMap(expiry(expiresIn), (seconds) =>
        ask(
          { verb, keys: [key], numbers: [flags, seconds], data: toBytes(value) },
          { STORED: true, NOT_STORED: false }
        )
      )

  const count =
    (verb: "incr" | "decr") =>
    (key: string, by: number | bigint = 1) => {
      const message = { verb, keys: [key], numbers: [by] }
      return Effect.flatMap(request(message), (reply) => {
        const line = "line" in reply ? reply.line : "items"
        if (line === "NOT_FOUND") return Effect.succeedNone
        return /^\d{1,20}$/.test(line)
          ? Effect.succeedSome(BigInt(line))
          : Effect.fail(unexpected(message, line))
      })
    }

  return {
    get: (key: string) =>
      Effect.map(fetch("get", [key]), ([item]) =>
        Option.map(Option.fromNullishOr(item), ({ value }) => value)
      ),
    /** Of several keys, the items that there are, with what `compareAndSet` wants. */
    gets: (keys: ReadonlyArray<string>) =>
      Effect.map(
        keys.length === 0 ? Effect.succeed([]) : fetch("gets", keys),
        (items) => new Map(items.map((item) => [item.key, item]))
      ),
    set: store("set"),
    /** Only if there is no such item yet. */
    add: store("add"),
    /** Only if there is one. */
    replace: store("replace"),
    append: store("append"),
    prepend: store("prepend"),
    /** Only if nobody else has changed the item meanwhile. */
    compareAndSet: (
      item: Item,
      value: Uint8Array | string,
      { expiresIn, flags = item.flags }: StoreOptions = {}
    ) =>
      Effect.flatMap(expiry(expiresIn), (seconds) =>
        ask(
          {
            verb: "cas",
            keys: [item.key],
            numbers: [flags, seconds],
            data: toBytes(value),
            cas: item.cas ?? 0n
          },
          { STORED: "stored", EXISTS: "changed", NOT_FOUND: "gone" }
        )
      ),
    delete: (key: string) => ask({ verb: "delete", keys: [key] }, { DELETED: true, NOT_FOUND: false }),
    /** The new number, if there is such an item. At 2^64 it begins anew. */
    increment: count("incr"),
    /** The same; it stops at 0. */
    decrement: count("decr")
  }
})
