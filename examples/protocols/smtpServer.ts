// A server that takes mail for anybody (RFC 5321), with STARTTLS (RFC 3207) and SIZE (RFC 1870), and hands it to a function:
// for tests of programs that send mail.
import { Effect } from "effect"
import { Codec, type Connection, Framed, Framing, Server, type Tls } from "effect-wire"

export interface Message {
  readonly from: string
  readonly to: ReadonlyArray<string>
  /** Header and text as they were written, with CRLF at the ends of lines. */
  readonly content: Uint8Array
  /** Whether it came over TLS. */
  readonly secure: boolean
}

export interface Options<R> extends Omit<Server.Options<unknown, never>, "tls"> {
  readonly onMessage: (message: Message) => Effect.Effect<unknown, never, R>
  /** Who it is for clients that ask for TLS. Default: none may. */
  readonly tls?: Tls.ServerOptions
  /** What it calls itself. Default `"localhost"`. */
  readonly name?: string
  /** The most bytes of a message, 10 MiB unless set. */
  readonly maxSize?: number
  /** The most recipients of a message, 100 unless set. */
  readonly maxRecipients?: number
}

export const serve = <R>(options: Options<R>) => {
  const { tls: _, ...rest } = options
  return Server.serve((connection) => session(connection, options), { readTimeout: "5 minutes", ...rest })
}

// A bare "\r" or "\n" is no end of a line: where two servers are not of one mind about that, mail can be smuggled.
export const framing = Framing.lines({ ending: "\r\n", strict: true, maxLength: 1000 })

const MAX_ERRORS = 10

const session = Effect.fnUntraced(function* <R>(connection: Connection.Connection, options: Options<R>) {
  const { maxRecipients = 100, maxSize = 10 * 1024 * 1024, name = "localhost", onMessage, tls } = options
  // Commands are taken one by one, never ahead: what follows DATA and STARTTLS is none.
  const { receive, sendAll } = Framed.make(connection, framing, Codec.string())

  const reply = (code: number, ...lines: ReadonlyArray<string>) =>
    sendAll(lines.map((line, i) => `${code}${i === lines.length - 1 ? " " : "-"}${line}`))

  let greeted = false
  let errors = 0
  let envelope: { readonly from: string; readonly to: Array<string> } | undefined

  const refuse = (code: number, text: string) => {
    errors++
    return reply(code, text)
  }

  const hello = () => {
    greeted = true
    envelope = undefined
    const canUpgrade = tls !== undefined && connection.info.tls === undefined
    return reply(
      250,
      `${name} at your service`,
      ...["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", `SIZE ${maxSize}`],
      ...(canUpgrade ? ["STARTTLS"] : [])
    )
  }

  const startTls = Effect.fnUntraced(function* () {
    if (tls === undefined || connection.info.tls !== undefined) return yield* refuse(503, "5.5.1 not now")
    // It would be taken for what the client says over TLS, and may be somebody else's.
    if ((yield* connection.reader.bufferedBytes) > 0) return yield* refuse(554, "5.5.1 nothing may follow it")
    yield* reply(220, "2.0.0 go ahead")
    // What comes in the clear from here on makes this fail, which ends the connection.
    yield* connection.upgradeTls({ role: "server", ...tls })
    greeted = false
    envelope = undefined
  })

  const mail = (argument: string) => {
    const [, from, parameters = ""] = /^FROM: ?<([^<>\s]*)>((?: \S+)*)$/i.exec(argument) ?? []
    if (!greeted || envelope !== undefined) return refuse(503, "5.5.1 not now")
    if (from === undefined) return refuse(501, "5.5.4 MAIL FROM:<address>")
    const size = /(?<= SIZE=)\d+\b/i.exec(parameters)
    if (size !== null && Number(size[0]) > maxSize) return refuse(552, `5.3.4 more than ${maxSize} bytes`)
    envelope = { from, to: [] }
    return reply(250, "2.1.0 OK")
  }

  const recipient = (argument: string) => {
    const [, to] = /^TO: ?<([^<>\s]+)>(?: \S+)*$/i.exec(argument) ?? []
    if (envelope === undefined) return refuse(503, "5.5.1 MAIL comes first")
    if (to === undefined) return refuse(501, "5.5.4 RCPT TO:<address>")
    if (envelope.to.length >= maxRecipients) return refuse(452, "4.5.3 too many recipients")
    envelope.to.push(to)
    return reply(250, "2.1.5 OK")
  }

  const data = Effect.fnUntraced(function* () {
    if (envelope === undefined || envelope.to.length === 0)
      return yield* refuse(503, "5.5.1 RCPT comes first")
    const { from, to } = envelope
    envelope = undefined
    yield* reply(354, "end with a dot")
    const content = yield* readContent(connection, maxSize)
    if (content === undefined) return yield* refuse(552, `5.3.4 more than ${maxSize} bytes`)
    if (/(?<!\r)\n|\r(?!\n)/.test(content)) return yield* refuse(550, "5.6.11 a bare CR or LF")
    const secure = connection.info.tls !== undefined
    yield* onMessage({ from, to, content: Buffer.from(content, "latin1"), secure })
    yield* reply(250, "2.0.0 taken")
  })

  const answer = (line: string) => {
    const [, verb = "", argument = ""] = /^(\S*) ?(.*)$/.exec(line) ?? []
    switch (verb.toUpperCase()) {
      case "EHLO":
      case "HELO":
        return hello()
      case "STARTTLS":
        return startTls()
      case "MAIL":
        return mail(argument)
      case "RCPT":
        return recipient(argument)
      case "DATA":
        return data()
      case "RSET":
        envelope = undefined
        return reply(250, "2.0.0 OK")
      case "NOOP":
        return reply(250, "2.0.0 OK")
      default:
        return refuse(500, "5.5.1 what?")
    }
  }

  // A line that is none, or no text, is a command that is not known. One that is too long has no end to go on from.
  const next = Effect.catchTag(receive, "FrameError", (error) =>
    error.reason._tag === "FrameTooLong" ? Effect.fail(error) : Effect.succeed("")
  )

  const conversation = Effect.gen(function* () {
    yield* reply(220, `${name} ESMTP`)
    while (errors < MAX_ERRORS) {
      const line = yield* next
      if (line.toUpperCase() === "QUIT") return yield* reply(221, "2.0.0 bye")
      yield* answer(line)
    }
    yield* reply(421, "4.7.0 too many errors")
  })

  yield* conversation.pipe(
    Effect.catchTags({
      EndOfStream: () => Effect.void,
      IncompleteReadError: () => Effect.void,
      FrameError: () => reply(500, "5.5.2 a line that is too long"),
      TimeoutError: () => reply(421, "4.4.2 you take too long")
    })
  )
})

const END = "\r\n.\r\n"

/** What comes up to a dot alone in a line, a character for each byte; nothing if it is too much, which is gone past. */
const readContent = Effect.fnUntraced(function* ({ reader }: Connection.Connection, maxSize: number) {
  // The end of the line before belongs to the command.
  const [...start] = yield* reader.peek(3)
  if (String.fromCharCode(...start) === ".\r\n") {
    yield* reader.skip(3)
    return ""
  }
  const bytes = yield* reader
    .readUntil(END, { limit: maxSize - 2 })
    .pipe(Effect.catchTag("LimitOverrunError", () => Effect.as(reader.skipUntil(END), undefined)))
  if (bytes === undefined) return undefined
  const text = Buffer.from(bytes).toString("latin1")
  return text.slice(0, -3).replaceAll(/^\./gm, "")
})
