// A client of mail servers (RFC 5321): STARTTLS (RFC 3207), AUTH PLAIN (RFC 4616), and messages of any length.
import { Cause, Effect, Exit, Option, Redacted, Result, Schema, Semaphore, Stream } from "effect"
import { Codec, Connection, FrameError, Framed, Framing, type Network, type Tls } from "effect-wire"

// --- The framing. A frame is a reply, which has one or more lines: "250-", "250-", …, "250 ". A command is one line.

export const framing = Framing.make<ReadonlyArray<string>>({
  name: "SMTP reply",
  decode: Effect.fnUntraced(function* (reader) {
    const lines: Array<string> = []
    let line: string
    do {
      line = new TextDecoder().decode(yield* reader.readUntil("\r\n")).slice(0, -2)
      if (!/^[2-5]\d\d([ -]|$)/.test(line)) {
        return yield* new FrameError.MalformedFrame({ detail: `not the line of a reply: ${line}` })
      }
      lines.push(line)
    } while (line[3] === "-")
    return lines
  }),
  encode: (lines) =>
    lines.some((line) => /[\r\n]/.test(line))
      ? new FrameError.MalformedFrame({ detail: "a command must not contain an end of line" })
      : lines.map((line) => `${line}\r\n`)
})

// --- The codec.

interface Reply {
  readonly code: number
  readonly text: ReadonlyArray<string>
}

export const codec = Codec.make<Reply, string, ReadonlyArray<string>>({
  decode: (lines) =>
    Result.succeed({ code: Number(lines.at(-1)?.slice(0, 3)), text: lines.map((line) => line.slice(4)) }),
  encode: (command) => Result.succeed([command])
})

// --- The session.

/** The server does not do what it was asked to. */
export class SmtpError extends Schema.TaggedError<SmtpError>("SmtpError")("SmtpError", {
  /** What it was asked, without secrets. */
  command: Schema.String,
  code: Schema.Number,
  text: Schema.Array(Schema.String)
}) {
  /** Whether the same may go well later. */
  get isTransient(): boolean {
    return this.code < 500
  }

  override get message(): string {
    return `${this.command}: ${this.code} ${this.text.join(" ")}`
  }
}

/** An address that would be something else within a command. */
export class AddressError extends Schema.TaggedError<AddressError>("AddressError")("AddressError", {
  address: Schema.String
}) {
  override get message(): string {
    return `not a mail address: ${JSON.stringify(this.address)}`
  }
}

export interface Options extends Omit<Connection.ConnectionOptions, "tls"> {
  /** What the client calls itself. Default `"localhost"`. */
  readonly name?: string
  /** Default: TLS with whom the platform trusts, or nothing at all. `false` sends in the clear. */
  readonly tls?: Tls.ClientOptions | false
  /** Whom to log in as; over TLS only. */
  readonly login?: { readonly user: string; readonly password: Redacted.Redacted<string> }
}

export interface Envelope {
  readonly from: string
  readonly to: readonly [string, ...ReadonlyArray<string>]
}

export type SendError = AddressError | SmtpError | FrameError.ReceiveError | FrameError.SendError

export interface Session {
  /** What the server can do besides, in capitals, with its parameters: `SIZE` and `"102400"`. */
  readonly extensions: ReadonlyMap<string, string>
  /**
   * Sends a message: its text, header included, with whatever ends of lines. Gives what the server says that it did with it.
   * Unless all recipients are accepted, nothing is sent. Several messages take turns. One that fails or is interrupted once
   * the server was told that its text comes ends the connection, so that nobody takes its beginning for all of it, or the
   * next command for a part of it.
   */
  readonly send: <E, R>(
    envelope: Envelope,
    message: Stream.Stream<string, E, R>
  ) => Effect.Effect<string, SendError | E, R>
}

export const connect = Effect.fnUntraced(function* (target: Network.Target, options: Options = {}) {
  const { login, name = "localhost", tls = {}, ...rest } = options
  if (login !== undefined && tls === false) {
    return yield* Effect.die(new RangeError("a password is sent over TLS only"))
  }
  const connection = yield* Connection.connect(target, rest)
  const framed = Framed.make(connection, framing, codec)

  // The first digit says it all: 2 is done, 3 is go on, 4 is not now and 5 is no.
  const expect = (reply: Reply, digit: 2 | 3, command: string): Effect.Effect<Reply, SmtpError> =>
    Math.floor(reply.code / 100) === digit
      ? Effect.succeed(reply)
      : Effect.fail(new SmtpError({ command, ...reply }))
  const command = (text: string, digit: 2 | 3 = 2, shown = text) =>
    Effect.flatMap(framed.request(text), (reply) => expect(reply, digit, shown))
  yield* Effect.flatMap(framed.receive, (reply) => expect(reply, 2, "connect"))
  const hello = Effect.map(command(`EHLO ${name}`), ({ text }) => toExtensions(text))
  let extensions = yield* hello
  if (tls !== false) {
    yield* command("STARTTLS")
    // Fails if more than that reply has come: it would be taken for what the server says over TLS.
    yield* connection.upgradeTls({ role: "client", ...tls })
    // What was said before may be forged.
    extensions = yield* hello
  }
  if (login !== undefined) {
    const credentials = Buffer.from(`\0${login.user}\0${Redacted.value(login.password)}`)
    yield* command(`AUTH PLAIN ${credentials.toString("base64")}`, 2, "AUTH PLAIN")
  }
  yield* Effect.addFinalizer((exit) =>
    Exit.isSuccess(exit) ? Effect.ignore(framed.send("QUIT")) : Effect.void
  )

  const turn = Semaphore.makeUnsafe(1)
  // Whether the server may be in the middle of another message's envelope.
  let begun = false

  const send = Effect.fnUntraced(function* <E, R>(
    { from, to }: Envelope,
    message: Stream.Stream<string, E, R>
  ) {
    const parameters = extensions.has("8BITMIME") ? " BODY=8BITMIME" : ""
    const commands = [`MAIL FROM:<${yield* checkAddress(from)}>${parameters}`]
    for (const address of to) commands.push(`RCPT TO:<${yield* checkAddress(address)}>`)
    if (begun) yield* command("RSET")
    begun = true
    for (const text of commands) yield* command(text)
    const text = yield* transfer(message)
    begun = false
    return text.join(" ")
  })

  // From DATA on, the server takes all that comes for the message: who leaves that midway, or does not know, has to hang up.
  const transfer = <E, R>(message: Stream.Stream<string, E, R>) =>
    Effect.gen(function* () {
      yield* command("DATA", 3)
      yield* message.pipe(
        // Whatever ends a line here does so over there, and nothing else (SMTP smuggling); a dot alone is the end.
        Stream.splitLines,
        Stream.map((line) => (line.startsWith(".") ? `.${line}\r\n` : `${line}\r\n`)),
        Stream.run(connection.writer.sink),
        Effect.onError(() => connection.abort)
      )
      const { text } = yield* command(".", 2, "the message")
      return text
    }).pipe(
      Effect.onError((cause) =>
        Option.exists(Cause.findErrorOption(cause), (_) => _ instanceof SmtpError)
          ? Effect.void
          : connection.abort
      )
    )

  const session: Session = {
    extensions,
    send: (envelope, message) => turn.withPermit(send(envelope, message))
  }
  return session
})

const toExtensions = ([, ...lines]: ReadonlyArray<string>): ReadonlyMap<string, string> =>
  new Map(
    lines.map((line) => {
      const [keyword = "", ...parameters] = line.split(" ")
      return [keyword.toUpperCase(), parameters.join(" ")]
    })
  )

const checkAddress = (address: string): Effect.Effect<string, AddressError> =>
  /^[^\s<>\p{Cc}]*$/u.test(address) ? Effect.succeed(address) : Effect.fail(new AddressError({ address }))
