// PostgreSQL's wire protocol, version 3: TLS if asked for, a login with SCRAM-SHA-256, and simple queries.
// https://www.postgresql.org/docs/current/protocol.html
import { Effect, type Redacted, Result, Schema } from "effect"
import { Codec, Connection, FrameError, Framed, Framing, type Network, type Tls } from "effect-wire"
import * as Scram from "./scram.ts"

// --- The framing. A frame is an answer: all that the server says until it is the client's turn. So one `request` is one
// query, and one that is given up leaves a whole answer to be dropped.

/** A letter that says what it is, and a body. The first one of all has no letter. */
interface Packet {
  readonly type: string
  readonly body: Uint8Array
}

export const framing = (maxAnswer: number) =>
  Framing.make<ReadonlyArray<Packet>>({
    name: "PostgreSQL answer",
    maxLength: maxAnswer,
    decode: Effect.fnUntraced(function* (reader) {
      const packets: Array<Packet> = []
      let packet: Packet
      do {
        const head = Buffer.from(yield* reader.readExactly(5))
        const length = head.readInt32BE(1)
        if (length < 4) return yield* new FrameError.MalformedFrame({ detail: `a length of ${length}` })
        packet = { type: head.toString("latin1", 0, 1), body: yield* reader.readExactly(length - 4) }
        packets.push(packet)
      } while (!isLast(packet))
      return packets
    }),
    encode: (packets) => packets.flatMap(({ body, type }) => [type, int32(body.length + 4), body])
  })

/** Ready for a query, a step of the login that the client has to answer, or an error that ends the connection. */
const isLast = ({ body, type }: Packet): boolean => {
  if (type === "R") return body[3] !== Method.ok && body[3] !== Method.saslFinal
  return type === "Z" || (type === "E" && /\0V(FATAL|PANIC)\0/.test(`\0${text(body)}`))
}

const Method = { ok: 0, sasl: 10, saslFinal: 12 }

const int32 = (n: number): Uint8Array => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(n)
  return bytes
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

const text = (bytes: Uint8Array): string => decoder.decode(bytes)

// --- The codec: what the packets of an answer mean, and what a client may say.

export class PostgresError extends Schema.TaggedError<PostgresError>("PostgresError")("PostgresError", {
  severity: Schema.String,
  /** The five characters of SQLSTATE. */
  code: Schema.String,
  message: Schema.String,
  detail: Schema.optional(Schema.String),
  hint: Schema.optional(Schema.String),
  /** Where in the query, in characters from 1. */
  position: Schema.optional(Schema.Number),
  constraint: Schema.optional(Schema.String)
}) {}

export interface Column {
  readonly name: string
  /** The object ID of its type, such as 23 for `int4`. */
  readonly type: number
}

export type Row = ReadonlyArray<string | null>

type Message =
  | { readonly _tag: "Login"; readonly method: number; readonly data: string }
  | { readonly _tag: "Parameter"; readonly name: string; readonly value: string }
  | { readonly _tag: "Columns"; readonly columns: ReadonlyArray<Column> }
  | { readonly _tag: "Row"; readonly row: Row }
  | { readonly _tag: "Complete"; readonly command: string }
  | { readonly _tag: "Failed"; readonly error: PostgresError }
  | { readonly _tag: "Ready" }
  | { readonly _tag: "Other" }

/** Text is sent with the zero byte that ends it. */
interface Command {
  readonly type: string
  readonly fields: ReadonlyArray<string | Uint8Array>
}

export const codec = Codec.make<ReadonlyArray<Message>, ReadonlyArray<Command>, ReadonlyArray<Packet>>({
  decode: (packets) => Result.succeed(packets.map(toMessage)),
  encode: (commands) =>
    commands.some(({ fields }) => fields.some((field) => typeof field === "string" && field.includes("\0")))
      ? Result.fail(new FrameError.InvalidMessage({ detail: "text with a zero byte, which would end it" }))
      : Result.succeed(commands.map(toPacket))
})

const toPacket = ({ fields, type }: Command): Packet => ({
  type,
  body: Buffer.concat(fields.map((field) => (typeof field === "string" ? Buffer.from(`${field}\0`) : field)))
})

const toMessage = ({ body, type }: Packet): Message => {
  const fields = new Fields(body)
  switch (type) {
    case "R":
      return { _tag: "Login", method: fields.int32(), data: text(fields.rest()) }
    case "S":
      return { _tag: "Parameter", name: fields.string(), value: fields.string() }
    case "T":
      return { _tag: "Columns", columns: fields.many(toColumn) }
    case "D":
      return { _tag: "Row", row: fields.many(toValue) }
    case "C":
      return { _tag: "Complete", command: fields.string() }
    case "E":
      return { _tag: "Failed", error: toError(body) }
    default:
      return { _tag: type === "Z" ? "Ready" : "Other" }
  }
}

const toColumn = (fields: Fields): Column => {
  const name = fields.string()
  fields.take(6) // its table
  const type = fields.int32()
  fields.take(8) // its size, its modifier and its format, which is text
  return { name, type }
}

const toValue = (fields: Fields): string | null => {
  const length = fields.int32()
  return length === -1 ? null : text(fields.take(length))
}

const toError = (body: Uint8Array): PostgresError => {
  const { C, D, H, M, P, S, V, n } = Object.fromEntries(
    text(body)
      .split("\0")
      .map((field): [string, string] => [field.slice(0, 1), field.slice(1)])
  )
  return new PostgresError({
    severity: V ?? S ?? "ERROR",
    code: C ?? "XX000",
    message: M ?? "an error without a message",
    detail: D,
    hint: H,
    position: P !== undefined && /^\d{1,9}$/.test(P) ? Number(P) : undefined,
    constraint: n
  })
}

/** The fields of a packet, one after another. A codec may throw `InvalidMessage`. */
class Fields {
  private bytes: Buffer

  constructor(body: Uint8Array) {
    this.bytes = Buffer.from(body.buffer, body.byteOffset, body.length)
  }

  take(length: number): Buffer {
    if (length < 0 || length > this.bytes.length) {
      throw new FrameError.InvalidMessage({ detail: `a field of ${length} bytes, ${this.bytes.length} left` })
    }
    const field = this.bytes.subarray(0, length)
    this.bytes = this.bytes.subarray(length)
    return field
  }

  rest(): Buffer {
    return this.take(this.bytes.length)
  }

  int32(): number {
    return this.take(4).readInt32BE()
  }

  string(): string {
    const field = this.take(this.bytes.indexOf(0))
    this.take(1)
    return text(field)
  }

  many<A>(next: (fields: Fields) => A): ReadonlyArray<A> {
    return Array.from({ length: this.take(2).readUInt16BE() }, () => next(this))
  }
}

// --- The session.

/** The server cannot be logged in to, by this client or at all. */
export class LoginError extends Schema.TaggedError<LoginError>("LoginError")("LoginError", {
  message: Schema.String
}) {}

export interface Options extends Omit<Connection.ConnectionOptions, "tls"> {
  readonly user: string
  readonly password?: Redacted.Redacted<string>
  /** Default: the user's name. */
  readonly database?: string
  /** Asks for TLS before anything else, and goes no further without. */
  readonly tls?: Tls.ClientOptions
  /** The most bytes of an answer, 16 MiB unless set. A longer one ends the session. */
  readonly maxAnswer?: number
}

export interface ResultSet {
  readonly columns: ReadonlyArray<Column>
  readonly rows: ReadonlyArray<Row>
  /** What was done, such as `"INSERT 0 2"`. */
  readonly command: string
}

export type QueryError = PostgresError | FrameError.ReceiveError | FrameError.SendError

export interface Session {
  /** What the server says of itself, such as its `server_version`. */
  readonly parameters: ReadonlyMap<string, string>
  /**
   * Runs one or more statements, in one transaction unless they say otherwise. Concurrent queries take turns. One that is
   * interrupted goes on in the server; the next one waits for it, and gets its own answer.
   */
  readonly query: (sql: string) => Effect.Effect<ReadonlyArray<ResultSet>, QueryError>
}

export const connect = Effect.fnUntraced(function* (target: Network.Target, options: Options) {
  const { maxAnswer = 16 * 1024 * 1024, tls, ...rest } = options
  const connection = yield* Connection.connect(target, rest)
  if (tls !== undefined) yield* startTls(connection, tls)

  const framed = Framed.make(connection, framing(maxAnswer), codec)
  const ask = Effect.fnUntraced(function* (...commands: ReadonlyArray<Command>) {
    const answer = yield* framed.request(commands)
    for (const message of answer) if (message._tag === "Failed") return yield* message.error
    return answer
  })

  const greeting = yield* login(ask, options)
  yield* Effect.addFinalizer(() => Effect.ignore(framed.send([{ type: "X", fields: [] }])))

  const session: Session = {
    parameters: new Map(
      greeting.flatMap((message) => (message._tag === "Parameter" ? [[message.name, message.value]] : []))
    ),
    query: (sql) => Effect.map(ask({ type: "Q", fields: [sql] }, noCopy), toResults)
  }
  return session
})

/** Ends a `COPY … FROM STDIN`, for which there is no input here, and is ignored otherwise. */
const noCopy: Command = { type: "f", fields: ["there is no input to copy"] }

// The answer is a single letter. Bytes behind it, which a man in the middle might have added (CVE-2021-23222), are refused.
const startTls = Effect.fnUntraced(function* (connection: Connection.Connection, tls: Tls.ClientOptions) {
  yield* connection.writer.writeAll([int32(8), int32(80877103)])
  if (text(yield* connection.reader.readExactly(1)) !== "S") {
    return yield* new LoginError({ message: "the server has no TLS" })
  }
  yield* connection.upgradeTls({ role: "client", ...tls })
})

const login = Effect.fnUntraced(function* (
  ask: (command: Command) => Effect.Effect<ReadonlyArray<Message>, QueryError>,
  { database, password, user }: Options
) {
  const settings = { user, database: database ?? user, client_encoding: "UTF8" }
  let answer = yield* ask({
    type: "",
    fields: [int32(3 << 16), ...Object.entries(settings).flat(), ""]
  })
  if (stepOf(answer).method === Method.sasl) {
    if (password === undefined) return yield* new LoginError({ message: "the server wants a password" })
    if (!stepOf(answer).data.split("\0").includes(mechanism)) {
      return yield* new LoginError({ message: `the server has no ${mechanism}` })
    }
    // The name is the one that is known already.
    const scram = Scram.start("", password)
    const first = Buffer.from(scram.message)
    const challenge = yield* ask({ type: "p", fields: [mechanism, int32(first.length), first] })
    const { message, verify } = yield* scram.reply(stepOf(challenge).data)
    answer = yield* ask({ type: "p", fields: [Buffer.from(message)] })
    // Also fails if the server lets anybody in instead of showing that it knows the password.
    yield* verify(stepOf(answer).data)
  }
  if (answer.at(-1)?._tag !== "Ready") {
    const { method } = stepOf(answer)
    return yield* new LoginError({ message: `the server wants a login (${method}) that is not known here` })
  }
  return answer
})

const mechanism = "SCRAM-SHA-256"

/** The first step of the login that an answer has. */
const stepOf = (answer: ReadonlyArray<Message>): { readonly method: number; readonly data: string } =>
  answer.find((message) => message._tag === "Login") ?? { method: -1, data: "" }

const toResults = (answer: ReadonlyArray<Message>): ReadonlyArray<ResultSet> => {
  const results: Array<ResultSet> = []
  let columns: ReadonlyArray<Column> = []
  let rows: Array<Row> = []
  for (const message of answer) {
    if (message._tag === "Columns") columns = message.columns
    if (message._tag === "Row") rows.push(message.row)
    if (message._tag === "Complete") {
      results.push({ columns, rows, command: message.command })
      columns = []
      rows = []
    }
  }
  return results
}
