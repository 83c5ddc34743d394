import { Cause, Effect, Exit, Fiber, Stream } from "effect"
import {
  Codec,
  Connection,
  Framed,
  type Framing,
  type Server,
  StreamError,
  type StreamReader
} from "effect-wire"
import { TestNetwork } from "effect-wire/testing"
import { describe, expect, it } from "vitest"
import * as Http from "../../examples/protocols/http.ts"
import * as HttpServer from "../../examples/protocols/httpServer.ts"
import * as Memcached from "../../examples/protocols/memcached.ts"
import * as Postgres from "../../examples/protocols/postgres.ts"
import * as RedisServer from "../../examples/protocols/redisServer.ts"
import * as Resp from "../../examples/protocols/resp.ts"
import * as SmtpClient from "../../examples/protocols/smtpClient.ts"
import * as SmtpServer from "../../examples/protocols/smtpServer.ts"
import { ended, hex, now } from "../support/framings.ts"
import { cutAtRandom, ending, exhaust, hostile, randoms } from "../support/fuzz.ts"

const RUNS = 20_000

/** What a peer can do to a protocol: what it says if it means well, and the pieces that it can make anything else of. */
interface Subject {
  readonly name: string
  /** What comes of the bytes of a peer; throws unless it is what was received, or a typed failure. */
  readonly receive: (reader: StreamReader.StreamReader, bytes: number) => ReadonlyArray<unknown>
  readonly valid: ReadonlyArray<Uint8Array>
  readonly tokens: ReadonlyArray<Uint8Array>
}

const bytesOf = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "latin1"))

/** Lengths and numbers that are none, or large ones, and ends of lines. */
const common = [
  ...["\r\n", "\r", "\n", "\0", " ", "-1", "-0", "+1", "0", "1", "2", "3", "1e3", "0x10", "1.5", ".", "NaN"],
  ...[
    "9".repeat(20),
    "18446744073709551616",
    "9007199254740993",
    "4294967295",
    "2147483648",
    "-9223372036854775808"
  ],
  ...["16777216", "1000000", "__proto__", "constructor", "toString", "\xff\xfe", "é"]
]

const subject = (
  name: string,
  receive: Subject["receive"],
  valid: ReadonlyArray<string | Uint8Array>,
  tokens: ReadonlyArray<string | Uint8Array>
): Subject => {
  const toBytes = (_: string | Uint8Array) => (typeof _ === "string" ? bytesOf(_) : _)
  return { name, receive, valid: valid.map(toBytes), tokens: [...tokens, ...common].map(toBytes) }
}

const framed =
  <In, Out, F>(framing: Framing.Framing<F>, codec: Codec.Codec<In, Out, F>): Subject["receive"] =>
  (reader, bytes) =>
    exhaust(Framed.receiver(reader, framing, codec).receive, bytes)

/** As much as there is in a message: bytes, characters and values. */
const sizeOf = (u: unknown): number => {
  if (typeof u === "string" || u instanceof Uint8Array) return u.length + 1
  if (typeof u === "function" || typeof u === "symbol") throw new Error(`${String(u)} is no message`)
  if (u instanceof Map || u instanceof Set) return sizeOf([...u])
  if (typeof u !== "object" || u === null) return 1
  return (Array.isArray(u) ? u : Object.values(u)).reduce<number>((sum, part) => sum + sizeOf(part), 1)
}

const resp = [
  ...[
    "+OK\r\n",
    "-ERR no\r\n",
    ":12\r\n",
    "$5\r\nhello\r\n",
    "$-1\r\n",
    "*2\r\n$1\r\na\r\n:1\r\n",
    "*-1\r\n",
    "_\r\n"
  ],
  ...[
    "#t\r\n",
    ",1.5\r\n",
    ",inf\r\n",
    "(123456789012345678901234567890\r\n",
    "!3\r\nERR\r\n",
    "=5\r\ntxt:x\r\n"
  ],
  ...[
    "%1\r\n+a\r\n:1\r\n",
    "~2\r\n:1\r\n:2\r\n",
    ">2\r\n+message\r\n:1\r\n",
    "|1\r\n+ttl\r\n:3\r\n:1\r\n",
    "*1\r\n*1\r\n*0\r\n"
  ]
]

const respTokens = [
  "+",
  "-",
  ":",
  "$",
  "*",
  "_",
  "#",
  ",",
  "(",
  "!",
  "=",
  "%",
  "~",
  ">",
  "|",
  "t",
  "f",
  "inf",
  "nan",
  "txt:"
]

const packet = (type: string, body: string | Uint8Array): Uint8Array => {
  const bytes = Buffer.from(body)
  const head = Buffer.alloc(type.length + 4)
  head.write(type, "latin1")
  head.writeInt32BE(bytes.length + 4, type.length)
  return Buffer.concat([head, bytes])
}

const row = packet("D", hex("0003 00000001 61 ffffffff 00000000"))
const columns = packet("T", hex("0001 6100 00000000 0000 00000017 0004 ffffffff 0000"))
const ready = packet("Z", "I")

const head = "GET /path HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"

const subjects: ReadonlyArray<Subject> = [
  subject("RESP values", framed(Resp.values, Resp.client), resp, respTokens),
  subject(
    "RESP commands",
    framed(Resp.commands, Resp.server),
    [...resp, "PING hello\r\n", "*1\r\n$4\r\nPING\r\n", "*2\r\n$3\r\nGET\r\n$1\r\na\r\n"],
    respTokens
  ),
  subject(
    "memcached",
    framed(Memcached.framing, Memcached.codec),
    [
      ...[
        "END\r\n",
        "STORED\r\n",
        "12\r\n",
        "VALUE k 0 5\r\nhello\r\nEND\r\n",
        "SERVER_ERROR out of memory\r\n"
      ],
      "VALUE a 1 1 7\r\nx\r\nVALUE b 4294967295 0 18446744073709551615\r\n\r\nEND\r\n"
    ],
    ["VALUE", "VALUE k ", "END", "STORED", "ERROR"]
  ),
  subject(
    "replies of SMTP",
    framed(SmtpClient.framing, SmtpClient.codec),
    ["220 hi\r\n", "250-one\r\n250-TWO\r\n250 SIZE 10\r\n", "550\r\n", "354 go\r\n", "421 4.4.2 bye\r\n"],
    ["220", "250-", "250 ", "600 ", "199-"]
  ),
  subject(
    "commands of SMTP",
    framed(SmtpServer.framing, Codec.string()),
    [
      "EHLO me\r\n",
      "MAIL FROM:<a@b> SIZE=10\r\n",
      "RCPT TO:<a@b>\r\n",
      "DATA\r\n",
      "line\r\n.\r\n",
      "x".repeat(998)
    ],
    ["EHLO ", "MAIL FROM:", "RCPT TO:", "<a@b>", " SIZE=", "DATA", ".", "x".repeat(500)]
  ),
  subject(
    "PostgreSQL",
    framed(Postgres.framing(100_000), Postgres.codec),
    [
      Buffer.concat([
        packet("R", hex("00000000")),
        packet("S", "a\0b\0"),
        packet("K", hex("0000000100000002")),
        ready
      ]),
      packet("R", Buffer.concat([hex("0000000a"), Buffer.from("SCRAM-SHA-256\0\0")])),
      Buffer.concat([columns, row, row, packet("C", "SELECT 2\0"), ready]),
      Buffer.concat([packet("E", "SERROR\0VERROR\0C22012\0Mno\0P7\0\0"), ready]),
      packet("E", "SFATAL\0VFATAL\0C57P01\0Mbye\0\0")
    ],
    [
      ...["R", "S", "T", "D", "C", "E", "Z", "SERROR\0", "VFATAL\0", "P12x\0", "n\0"],
      ...["00000004", "00000003", "ffffffff", "7fffffff", "0000ffff", "000186a0", "80000000", "0000000c"].map(
        hex
      )
    ]
  ),
  subject(
    "heads of HTTP",
    (reader, bytes) =>
      exhaust(Framed.receiver(reader, Http.heads).receive, bytes).map((_) =>
        Http.parseHead(Buffer.from(_).toString("latin1"))
      ),
    [head, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"],
    [
      "GET ",
      "POST / HTTP/1.1",
      "HTTP/9.9",
      "host:",
      "Content-Length: ",
      "transfer-encoding: chunked",
      ":",
      "\t",
      ", ",
      "\r\n\r\n",
      "x".repeat(9000)
    ]
  ),
  subject(
    "chunks of HTTP",
    (reader) => {
      const exit = now(Stream.runCollect(Http.chunksOf(reader)))
      if (Exit.isSuccess(exit)) return exit.value
      const error = Cause.squash(exit.cause)
      if (error instanceof Http.HttpError || error instanceof StreamError.IncompleteReadError) return []
      throw error
    },
    ["5\r\nhello\r\n0\r\n\r\n", "A;x=y\r\n0123456789\r\n1\r\nx\r\n0\r\nA: b\r\n\r\n", "0\r\n\r\n"],
    [
      "a",
      "F",
      ";",
      ";x",
      "0\r\n",
      "f".repeat(12),
      "f".repeat(13),
      "fffffffffffff",
      "x: y\r\n",
      "x".repeat(300)
    ]
  )
]

describe.each(subjects)(`${RUNS} hostile inputs: $name`, ({ name, receive, tokens, valid }) => {
  it("are messages or a typed error, come to an end, and are no larger than they were", () => {
    const random = randoms(name.length * 7919)
    const next = hostile(random, valid, tokens)
    let received = 0
    let pieces: ReadonlyArray<Uint8Array> = []
    const attack = () => {
      for (let run = 0; run < RUNS; run++) {
        const bytes = next()
        pieces = cutAtRandom(random, bytes)
        const messages = receive(ended(pieces), bytes.length)
        expect(sizeOf(messages)).toBeLessThanOrEqual(10 * bytes.length + 100)
        received += messages.length
      }
    }
    // Most of the time would go into stacks.
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    try {
      ending(attack)
    } catch (cause) {
      const shown = pieces.map((_) => JSON.stringify(Buffer.from(_).toString("latin1"))).join(" ")
      throw new Error(`${shown.slice(0, 2000)}: ${String(cause)}`, { cause })
    } finally {
      Error.stackTraceLimit = stackTraceLimit
    }
    // Damage did not leave nothing but damage.
    expect(received).toBeGreaterThan(RUNS / 10)
  })
})

const SESSIONS = 2000

type Options = Required<Pick<Server.Options, "listen" | "onError">>

const onLoopback = { listen: { host: "127.0.0.1", port: 0 } }

const servers = {
  "RESP commands": (options: Options) => RedisServer.serve(options),
  "commands of SMTP": (options: Options) =>
    SmtpServer.serve({ ...options, onMessage: () => Effect.void, maxSize: 100 }),
  "heads of HTTP": (options: Options) =>
    HttpServer.serve(({ body }) => Effect.as(Stream.runDrain(body), { status: 200 }), options)
}

describe.each(Object.entries(servers))(`${SESSIONS} hostile sessions: %s`, (name, serve) => {
  it("come to an end, and are nothing that the server did not reckon with", () => {
    const random = randoms(name.length * 104_729)
    const valid = subjects.flatMap((_) => (_.name === name ? _.valid : []))
    const tokens = subjects.flatMap((_) => (_.name === name ? _.tokens : []))
    const next = hostile(random, valid, tokens)
    const program = Effect.gen(function* () {
      const causes: Array<Cause.Cause<unknown>> = []
      const onError = (cause: Cause.Cause<unknown>) => Effect.sync(() => void causes.push(cause))
      const server = yield* serve({ ...onLoopback, onError })
      for (let session = 0; session < SESSIONS; session++) {
        const pieces = cutAtRandom(random, next())
        const conversation = Connection.use(server.addresses[0], ({ reader, writer }) =>
          Effect.gen(function* () {
            const reading = yield* Effect.forkChild(reader.readAll())
            for (const piece of pieces) yield* writer.write(piece)
            yield* writer.end
            yield* Fiber.join(reading)
          })
        )
        // Who is not understood may be hung up on.
        yield* Effect.exit(conversation)
        expect(causes.filter(Cause.hasDies).map(Cause.pretty)).toEqual([])
      }
    })
    return program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer), Effect.runPromise)
  })
})
