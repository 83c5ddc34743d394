// The Redis serialization protocol: RESP2 and RESP3, as https://redis.io/docs/latest/develop/reference/protocol-spec has it.
import { Effect, Result } from "effect"
import { Codec, FrameError, Framing } from "effect-wire"

/** A value of RESP. A bulk string is bytes, a simple string is a string; what only RESP3 has is received, never sent. */
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Failure
  | Push
  | ReadonlyArray<Value>
  | ReadonlyMap<Value, Value>
  | ReadonlySet<Value>

/** An error as a value. By convention its first word says which. */
export class Failure {
  readonly message: string
  constructor(message: string) {
    this.message = message
  }
}

/** What a server sends without having been asked. */
export class Push {
  readonly items: ReadonlyArray<Value>
  constructor(items: ReadonlyArray<Value>) {
    this.items = items
  }
}

/** A name and its arguments. */
export type Command = readonly [name: string, ...args: ReadonlyArray<string | number | Uint8Array>]

const encoder = new TextEncoder()
const decoder = new TextDecoder()

export const text = (bytes: Uint8Array): string => decoder.decode(bytes)

/** For showing it: a bulk string as text, anything else as it is. */
export const readable = (value: Value): Value => (value instanceof Uint8Array ? text(value) : value)

export const isList = (value: Value): value is ReadonlyArray<Value> => Array.isArray(value)

const MAX_LENGTH = 16 * 1024 * 1024
const MAX_DEPTH = 32
const MAX_TYPED = 65_536

const malformed = (detail: string) => new FrameError.MalformedFrame({ detail })

const shown = (text: string): string => `"${text.slice(0, 30)}"`

const readLine = (reader: Framing.FrameReader) =>
  Effect.map(reader.readUntil("\r\n"), (line) => text(line.subarray(0, -2)))

// Digits and nothing else, and not any number of them: `Number` takes more than that for a number, and gives NaN, Infinity, or
// what is no length.

const parseInteger = (digits: string): Effect.Effect<number | bigint, FrameError.MalformedFrame> => {
  if (!/^[+-]?\d{1,10000}$/.test(digits)) return Effect.fail(malformed(`${shown(digits)} is no integer`))
  const n = Number(digits)
  return Effect.succeed(Number.isSafeInteger(n) ? n : BigInt(digits))
}

const parseLength = (digits: string): Effect.Effect<number, FrameError.MalformedFrame> =>
  /^\d{1,15}$/.test(digits)
    ? Effect.succeed(Number(digits))
    : Effect.fail(malformed(`${shown(digits)} is no length`))

const parseDouble = (digits: string): Effect.Effect<number, FrameError.MalformedFrame> => {
  if (digits === "nan") return Effect.succeed(NaN)
  if (/^[+-]?inf$/.test(digits)) return Effect.succeed(digits.startsWith("-") ? -Infinity : Infinity)
  return /^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$/.test(digits)
    ? Effect.succeed(Number(digits))
    : Effect.fail(malformed(`${shown(digits)} is no double`))
}

const readBulk = Effect.fnUntraced(function* (reader: Framing.FrameReader, digits: string) {
  const bytes = yield* reader.readExactly(yield* parseLength(digits))
  if (text(yield* reader.readExactly(2)) !== "\r\n") {
    return yield* malformed("a bulk string that is longer than it says")
  }
  return bytes
})

const readItems = Effect.fnUntraced(function* (reader: Framing.FrameReader, count: number, depth: number) {
  if (depth >= MAX_DEPTH) return yield* malformed(`values nested deeper than ${MAX_DEPTH}`)
  const items: Array<Value> = []
  while (items.length < count) items.push(yield* readValue(reader, yield* readLine(reader), depth + 1))
  return items
})

/** The value that begins with a line: its type in the first character, then itself, its length or its number of items. */
const readValue: (
  reader: Framing.FrameReader,
  line: string,
  depth: number
) => Effect.Effect<Value, Framing.DecodeError> = Effect.fnUntraced(function* (reader, line, depth) {
  const rest = line.slice(1)
  switch (line[0]) {
    case "+":
      return rest
    case "-":
      return new Failure(rest)
    case ":":
      return yield* parseInteger(rest)
    case "$":
      return rest === "-1" ? null : yield* readBulk(reader, rest)
    case "*":
      return rest === "-1" ? null : yield* readItems(reader, yield* parseLength(rest), depth)
    case "_":
      return null
    case "#":
      if (rest !== "t" && rest !== "f") return yield* malformed(`${shown(rest)} is no boolean`)
      return rest === "t"
    case ",":
      return yield* parseDouble(rest)
    case "(":
      return BigInt(yield* parseInteger(rest))
    case "!":
      return new Failure(text(yield* readBulk(reader, rest)))
    case "=": // Three letters and a colon say which kind of text it is.
      return text(yield* readBulk(reader, rest)).slice(4)
    case "%": {
      const items = yield* readItems(reader, 2 * (yield* parseLength(rest)), depth)
      return new Map(items.flatMap((key, i) => (i % 2 === 0 ? [[key, items[i + 1] ?? null] as const] : [])))
    }
    case "~":
      return new Set(yield* readItems(reader, yield* parseLength(rest), depth))
    case ">":
      return new Push(yield* readItems(reader, yield* parseLength(rest), depth))
    case "|": // Attributes of the value that follows.
      yield* readItems(reader, 2 * (yield* parseLength(rest)), depth)
      return yield* readValue(reader, yield* readLine(reader), depth + 1)
    default:
      return yield* malformed(`${shown(line)} begins no value`)
  }
})

const oneLine = (type: string, line: string) =>
  /[\r\n]/.test(line) ? malformed("a simple string must be one line") : `${type}${line}\r\n`

/** Adds a value to the chunks of a frame, or says why it cannot be sent. */
const add = (chunks: Array<Uint8Array | string>, value: Value): FrameError.MalformedFrame | undefined => {
  if (value instanceof Uint8Array) {
    chunks.push(`$${value.length}\r\n`, value, "\r\n")
    return undefined
  }
  if (isList(value)) {
    chunks.push(`*${value.length}\r\n`)
    for (const item of value) {
      const refused = add(chunks, item)
      if (refused !== undefined) return refused
    }
    return undefined
  }
  const line = lineOf(value)
  if (typeof line !== "string") return line
  chunks.push(line)
  return undefined
}

const lineOf = (value: Value): string | FrameError.MalformedFrame => {
  if (value === null) return "$-1\r\n"
  if (typeof value === "bigint" || (typeof value === "number" && Number.isSafeInteger(value))) {
    return `:${value}\r\n`
  }
  if (typeof value === "string") return oneLine("+", value)
  return value instanceof Failure ? oneLine("-", value.message) : malformed("a value that only RESP3 has")
}

const encode = (value: Value): Framing.Encoded | FrameError.MalformedFrame => {
  const chunks: Array<Uint8Array | string> = []
  return add(chunks, value) ?? chunks
}

/** Values, for a client. */
export const values = Framing.make<Value>({
  name: "resp",
  maxLength: MAX_LENGTH,
  decode: (reader) => Effect.flatMap(readLine(reader), (line) => readValue(reader, line, 0)),
  encode
})

/** Values, for a server: who types by hand sends a line of words instead of an array. */
export const commands = Framing.make<Value>({
  name: "resp",
  maxLength: MAX_LENGTH,
  decode: (reader) =>
    Effect.flatMap(readLine(reader), (line): Effect.Effect<Value, Framing.DecodeError> => {
      if (line.startsWith("*")) return readValue(reader, line, 0)
      if (line.length > MAX_TYPED) return Effect.fail(malformed("a line that is too long for a command"))
      return Effect.succeed(
        line
          .split(" ")
          .filter((word) => word !== "")
          .map(bulk)
      )
    }),
  encode
})

/** A bulk string. */
export const bulk = (word: string | number | Uint8Array): Uint8Array =>
  word instanceof Uint8Array ? word : encoder.encode(String(word))

/** What a client says. */
export const client = Codec.make<Value, Command, Value>({
  decode: Result.succeed,
  encode: (words) => Result.succeed(words.map(bulk))
})

const isBytes = (value: Value): value is Uint8Array => value instanceof Uint8Array

/** What a server understands: the words of a command. */
export const server = Codec.make<ReadonlyArray<Uint8Array>, Value, Value>({
  decode: (value) =>
    isList(value) && value.every(isBytes)
      ? Result.succeed(value)
      : Result.fail(new FrameError.InvalidMessage({ detail: "a command is an array of bulk strings" })),
  encode: Result.succeed
})
