import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Option, Redacted, Schema, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Connection, type Network, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { TestNetwork } from "effect-wire/testing"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import * as SmtpClient from "../../examples/protocols/smtpClient.ts"
import * as SmtpServer from "../../examples/protocols/smtpServer.ts"
import { Authority } from "../support/certificates.ts"
import { root } from "../support/codeBlocks.ts"
import { Exim, eximLacks } from "../support/exim.ts"
import { turns } from "../support/effects.ts"
import { describeUnless, describeWith, spawnPeer, tempFolder } from "../support/programs.ts"
import { loops, portOf } from "../support/sockets.ts"

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)

const envelope: SmtpClient.Envelope = { from: "me@example.com", to: ["you@example.org"] }

const smtpError = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => {
    assert(error instanceof SmtpClient.SmtpError, String(error))
    return error
  })

/** Runs a program to its end. */
const run = (command: string, args: ReadonlyArray<string>, input = "", env: NodeJS.ProcessEnv = {}) =>
  Effect.callback<{ readonly code: number | null; readonly output: string }>((resume) => {
    const child = spawn(command, args, { cwd: root, env: { ...process.env, ...env } })
    let output = ""
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.on("close", (code) => resume(Effect.succeed({ code, output })))
    child.stdin.end(input)
  })

describeUnless(eximLacks, "the SMTP client, with exim", () => {
  const services = Layer.provideMerge(Exim.layer, NodeNetwork.layer)

  const connect = Effect.fnUntraced(function* (options?: SmtpClient.Options) {
    const { ca, port } = yield* Exim
    return yield* SmtpClient.connect({ host: "127.0.0.1", port }, { tls: { ca }, ...options })
  })

  const login = { user: "wire", password: Redacted.make("secret") }

  /** The message that a reply says was accepted. */
  const accepted = Effect.fnUntraced(function* (reply: string) {
    const { message } = yield* Exim
    return message(reply.match(/id=(\S+)/)?.[1] ?? assert.fail(reply))
  })

  layer(services, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    it.effect("upgrades to TLS, logs in, and sends a message", () =>
      Effect.gen(function* () {
        const { extensions, send } = yield* connect({ login, name: "client.example" })
        assert.strictEqual(extensions.get("AUTH"), "PLAIN")
        assert.isFalse(extensions.has("STARTTLS"))
        const reply = yield* send(
          { from: "me@example.com", to: ["you@example.net", "her@example.net"] },
          Stream.make("Subject: dots\n\n.\n..two\n.thr", "ee\nGrüße\n", "no end")
        )
        const message = yield* accepted(reply)
        assert.include(message, "helo=client.example")
        assert.match(message, /by mail\.example with esmtpsa +\(TLS1/)
        assert.include(message, "\nSubject: dots\n\n.\n..two\n.three\nGrüße\nno end\n")
      })
    )

    it.effect("sends a long message, and another one", () =>
      Effect.gen(function* () {
        const { send } = yield* connect()
        const line = `${"x".repeat(98)}\n`
        const long = yield* send(envelope, Stream.make("\n", ...Array.from({ length: 5000 }, () => line)))
        assert.include(yield* accepted(long), `\n\n${line.repeat(5000)}`)
        assert.include(yield* accepted(yield* send(envelope, Stream.make("\nshort"))), "\n\nshort\n")
      })
    )

    it.effect("sends one message after another, whoever asks", () =>
      Effect.gen(function* () {
        const { send } = yield* connect()
        const numbers = Array.from({ length: 8 }, (_, n) => `\nnumber ${n}\n`)
        const replies = yield* Effect.forEach(numbers, (number) => send(envelope, Stream.make(number)), {
          concurrency: "unbounded"
        })
        for (const [i, reply] of replies.entries()) assert.include(yield* accepted(reply), `\nnumber ${i}\n`)
      })
    )

    it.effect("fails with what the server says, and goes on", () =>
      Effect.gen(function* () {
        const { send } = yield* connect()
        const refused = (to: string, message = "") =>
          smtpError(send({ from: "me@example.com", to: ["you@example.org", to] }, Stream.make(message)))
        const nobody = yield* refused("nobody@example.org")
        assert.deepStrictEqual(
          [nobody.code, nobody.text, nobody.command, nobody.isTransient],
          [550, ["no such user:", "nobody is not here"], "RCPT TO:<nobody@example.org>", false]
        )
        assert.deepStrictEqual((yield* refused("you@example.net")).text, ["relay not permitted"])
        const later = yield* refused("later@example.org")
        assert.deepStrictEqual([later.code, later.isTransient], [451, true])
        const big = yield* refused("her@example.org", "\n".padEnd(1024 * 1024 + 1, "x\n"))
        assert.deepStrictEqual([big.code, big.command], [552, "the message"])
        assert.include(yield* accepted(yield* send(envelope, Stream.make("\nfine"))), "fine")
      })
    )

    it.effect("does not log in with a wrong password, and keeps it for itself", () =>
      Effect.gen(function* () {
        const error = yield* smtpError(connect({ login: { user: "wire", password: Redacted.make("guess") } }))
        assert.deepStrictEqual([error.code, error.command], [535, "AUTH PLAIN"])
      })
    )

    it.effect("talks to nobody that it does not trust", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(connect({ tls: {}, login }))
        assert(error._tag === "ConnectionError" && error.reason._tag === "TlsError", String(error))
        assert.strictEqual(error.reason.kind, "UnknownCa")
      })
    )

    it.effect("sends in the clear if told to, but no password", () =>
      Effect.gen(function* () {
        const { extensions, send } = yield* connect({ tls: false })
        assert.isTrue(extensions.has("STARTTLS"))
        assert.match(yield* accepted(yield* send(envelope, Stream.make("\nplain"))), /with esmtp\s+\(Exim/)
        assert.isTrue(Exit.hasDies(yield* Effect.exit(connect({ tls: false, login }))))
      })
    )

    it.effect("a message that is interrupted at any moment is never the beginning of another one", () =>
      Effect.gen(function* () {
        let went = 0
        for (let moment = 0; moment < 40; moment++) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const { send } = yield* connect({ tls: false })
              const first = yield* Effect.forkChild(send(envelope, Stream.make("\nfirst\n")), {
                startImmediately: true
              })
              yield* loops(moment)
              yield* Fiber.interrupt(first)
              const second = yield* Effect.exit(send(envelope, Stream.make("\nsecond\n")))
              if (Exit.isSuccess(second)) {
                went++
                assert.match(yield* accepted(second.value), /\n\nsecond\n$/)
              } else {
                const error = Option.getOrUndefined(Exit.findErrorOption(second))
                assert(error?._tag === "ConnectionError", String(error))
              }
            })
          )
        }
        assert.isAbove(went, 0)
      })
    )

    it.effect("is a program", () =>
      Effect.gen(function* () {
        const { ca, port } = yield* Exim
        const file = path.join(yield* tempFolder, "ca.pem")
        fs.writeFileSync(file, ca)
        const { code, output } = yield* run(
          process.execPath,
          [
            ...["--conditions=source", "examples/run.ts", "smtp-send", "--ca", file, "--user", "wire"],
            ...["--from", "me@example.com", "--to", "you@example.net", `127.0.0.1:${port}`]
          ],
          "Subject: from a program\n\nhello\n",
          { SMTP_PASSWORD: "secret" }
        )
        assert.strictEqual(code, 0, output)
        assert.include(yield* accepted(output), "\nSubject: from a program\n\nhello\n")
      })
    )
  })
})

/** A sink on a free port that keeps what it gets. */
const sink = Effect.fnUntraced(function* (options?: Partial<SmtpServer.Options<never>>) {
  const messages: Array<SmtpServer.Message> = []
  const server = yield* SmtpServer.serve({
    listen: { host: "127.0.0.1" },
    onMessage: (message) => Effect.sync(() => messages.push(message)),
    onError: () => Effect.void,
    ...options
  })
  const port = portOf(server.addresses[0])
  return { messages, port, target: { host: "127.0.0.1", port } }
})

const live = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>) =>
  it.live(title, () => effect.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer)))

describeWith("swaks", "the SMTP sink, with swaks", () => {
  const authority = new Authority()
  const tls = { identity: authority.issue() }

  const swaks = (port: number, ...args: ReadonlyArray<string>) =>
    run("swaks", [
      ...["--server", "127.0.0.1", "--port", String(port), "--helo", "client.example"],
      ...["--from", "me@example.com", "--to", "you@example.org", ...args]
    ])

  live(
    "takes a message over TLS",
    Effect.gen(function* () {
      const { messages, port } = yield* sink({ tls })
      const { code, output } = yield* swaks(
        port,
        ...["--tls", "--tls-verify", "--tls-ca-path", authority.file],
        ...["--to", "you@example.org,her@example.org", "--data", "Subject: dots\\n\\n.\\n..two\\nGrüße\\n"]
      )
      assert.strictEqual(code, 0, output)
      assert.deepStrictEqual(
        messages.map(({ content, ...rest }) => ({ ...rest, content: text(content) })),
        [
          {
            from: "me@example.com",
            to: ["you@example.org", "her@example.org"],
            secure: true,
            content: "Subject: dots\r\n\r\n.\r\n..two\r\nGrüße\r\n\r\n"
          }
        ]
      )
    })
  )

  live(
    "takes a message in the clear, pipelined",
    Effect.gen(function* () {
      const { messages, port } = yield* sink({ tls })
      const { code, output } = yield* swaks(port, "--pipeline", "--body", "hello")
      assert.strictEqual(code, 0, output)
      assert.deepStrictEqual([messages.length, messages[0]?.secure], [1, false])
    })
  )

  live(
    "offers no TLS without a certificate, and says how long a message may be",
    Effect.gen(function* () {
      const { messages, port } = yield* sink({ maxSize: 5000 })
      const noTls = yield* swaks(port, "--tls")
      assert.notStrictEqual(noTls.code, 0)
      assert.include(noTls.output, "STARTTLS")
      const big = yield* swaks(port, "--body", "x".repeat(5000))
      assert.notStrictEqual(big.code, 0)
      assert.include(big.output, "250 SIZE 5000")
      assert.include(big.output, "552 5.3.4 more than 5000 bytes")
      assert.strictEqual(messages.length, 0)
    })
  )

  live(
    "is a program",
    Effect.gen(function* () {
      const { certificateFile, keyFile } = authority.issue()
      const program = yield* spawnPeer(process.execPath, [
        ...["--conditions=source", path.join(root, "examples/run.ts"), "smtp-sink", "--port", "0"],
        ...["--certificate", certificateFile, "--key", keyFile]
      ])
      const [, port] = /^listening on 127\.0\.0\.1:(\d+);/.exec(yield* program.line) ?? []
      const { code, output } = yield* swaks(Number(port), "--tls", "--data", "Subject: x\\n\\nhello")
      assert.strictEqual(code, 0, output)
      assert.strictEqual(yield* program.line, "--- from <me@example.com> to <you@example.org>, over TLS")
      assert.strictEqual(yield* program.line, "Subject: x\r")
    })
  )
})

describe("the SMTP sink and STARTTLS", () => {
  const identity = new Authority().issue()
  const evil = "MAIL FROM:<evil@example.com>\r\n"

  for (const behind of ["M", "RSET\r\n", evil]) {
    live(
      `begins no TLS with ${JSON.stringify(behind)} behind the wish for it`,
      Effect.gen(function* () {
        const { target } = yield* sink({ tls: { identity } })
        const { reader, writer } = yield* Connection.connect(target)
        yield* reader.readLine
        yield* writer.write(`STARTTLS\r\n${behind}`)
        assert.strictEqual(text(yield* reader.readLine), "554 5.5.1 nothing may follow it\r\n")
        // It was a command like any other, in the clear.
        yield* writer.write("\r\n")
        assert.match(text(yield* reader.readLine), /^(503|500|250) /)
      })
    )
  }

  live(
    "takes no command in the clear for one that came over TLS",
    Effect.gen(function* () {
      const failures: Array<string> = []
      const { target } = yield* sink({
        tls: { identity },
        onError: (cause) => Effect.sync(() => failures.push(String(cause)))
      })
      const { reader, writer } = yield* Connection.connect(target)
      yield* reader.readLine
      yield* writer.write("STARTTLS\r\n")
      assert.match(text(yield* reader.readLine), /^220 /)
      yield* writer.write(evil)
      yield* Effect.exit(reader.readAll())
      assert.match(failures.join(), /what .* sent is not TLS/)
    })
  )

  live(
    "forgets what was said before",
    Effect.gen(function* () {
      const { messages, target } = yield* sink({ tls: { identity } })
      const connection = yield* Connection.connect(target)
      const { reader, writer } = connection
      const ask = (line: string) =>
        Effect.andThen(writer.write(`${line}\r\n`), Effect.map(reader.readLine, text))
      yield* reader.readLine
      assert.match(yield* ask("HELO client.example"), /^250-/)
      yield* reader.readUntil("250 STARTTLS\r\n")
      assert.match(yield* ask("MAIL FROM:<evil@example.com>"), /^250 /)
      assert.match(yield* ask("RCPT TO:<you@example.org>"), /^250 /)
      assert.match(yield* ask("STARTTLS"), /^220 /)
      yield* connection.upgradeTls({ role: "client", ca: identity.certificate, verify: false })
      assert.match(yield* ask("DATA"), /^503 5\.5\.1 RCPT comes first/)
      assert.match(yield* ask("MAIL FROM:<me@example.com>"), /^503 /)
      assert.match(yield* ask("STARTTLS"), /^503 5\.5\.1 not now/)
      assert.strictEqual(messages.length, 0)
    })
  )

  live(
    "is what the client uses",
    Effect.gen(function* () {
      const { messages, target } = yield* sink({ tls: { identity } })
      const { extensions, send } = yield* SmtpClient.connect(target, { tls: { verify: false } })
      assert.isFalse(extensions.has("STARTTLS"))
      yield* send(envelope, Stream.make("hello"))
      assert.deepStrictEqual([messages.length, messages[0]?.secure], [1, true])
    })
  )
})

const inMemory = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>) =>
  it.effect(title, () => effect.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))

describe("the SMTP sink", () => {
  /** All that the sink says to all that is said, but its greeting. */
  const conversation = Effect.fnUntraced(function* (
    said: string,
    options?: Partial<SmtpServer.Options<never>>
  ) {
    const { messages, target } = yield* sink(options)
    const { reader, writer } = yield* Connection.connect(target)
    yield* writer.write(said)
    yield* writer.end
    const [greeting, ...replies] = text(yield* reader.readAll())
      .split("\r\n")
      .slice(0, -1)
    assert.strictEqual(greeting, "220 localhost ESMTP")
    return { replies, contents: messages.map(({ content }) => text(content)) }
  })

  const begin = "HELO me\r\nMAIL FROM:<>\r\nRCPT TO:<you@example.org>\r\n"
  const begun = 7

  inMemory(
    "answers a whole pipeline, in which a message may have no line",
    Effect.gen(function* () {
      const { contents, replies } = yield* conversation(`${begin}DATA\r\n.\r\nNOOP\r\nRSET\r\nQUIT\r\n`)
      assert.deepStrictEqual(replies, [
        "250-localhost at your service",
        "250-PIPELINING",
        "250-8BITMIME",
        "250-ENHANCEDSTATUSCODES",
        "250 SIZE 10485760",
        "250 2.1.0 OK",
        "250 2.1.5 OK",
        "354 end with a dot",
        "250 2.0.0 taken",
        "250 2.0.0 OK",
        "250 2.0.0 OK",
        "221 2.0.0 bye"
      ])
      assert.deepStrictEqual(contents, [""])
    })
  )

  inMemory(
    "takes a dot away from the beginning of every line that has one",
    Effect.gen(function* () {
      const { contents } = yield* conversation(`${begin}DATA\r\n..\r\n.x\r\n...\r\na.\r\n..b\r\n.\r\n`)
      assert.deepStrictEqual(contents, [".\r\nx\r\n..\r\na.\r\n.b\r\n"])
    })
  )

  inMemory(
    "takes messages up to the limit, to the byte, and goes on after one beyond it",
    Effect.gen(function* () {
      const line = "x".repeat(998)
      const again = "MAIL FROM:<>\r\nRCPT TO:<you@example.org>\r\n"
      const lines = `${line}\r\n`.repeat(300)
      const { contents, replies } = yield* conversation(
        `${begin}DATA\r\n${lines}.\r\n${again}DATA\r\nx${lines}.\r\n${again}DATA\r\nfine\r\n.\r\n`,
        { maxSize: 300_000 }
      )
      assert.deepStrictEqual(contents, [lines, "fine\r\n"])
      assert.deepStrictEqual(
        replies.filter((reply) => /taken|more/.test(reply)),
        ["250 2.0.0 taken", "552 5.3.4 more than 300000 bytes", "250 2.0.0 taken"]
      )
    })
  )

  for (const [what, said, expected] of [
    ["a message that is announced as too long", "MAIL FROM:<> SIZE=11 BODY=7BIT\r\n", "552 5.3.4"],
    ["MAIL without a path", "MAIL FROM:me@example.com\r\n", "501 5.5.4"],
    ["RCPT without a path", "MAIL FROM:<>\r\nRCPT TO:<>\r\n", "501 5.5.4"],
    ["RCPT before MAIL", "RCPT TO:<you@example.org>\r\n", "503 5.5.1"],
    ["DATA before RCPT", "MAIL FROM:<>\r\nDATA\r\n", "503 5.5.1"],
    ["MAIL twice", "MAIL FROM:<>\r\nMAIL FROM:<>\r\n", "503 5.5.1"],
    ["STARTTLS without a certificate", "STARTTLS\r\n", "503 5.5.1"],
    ["what is no command", "GET / HTTP/1.1\r\n", "500 5.5.1"],
    ["a line that ends in a bare LF", "NOOP\n\r\n", "500 5.5.1"]
  ] as const) {
    inMemory(
      `refuses ${what}`,
      Effect.gen(function* () {
        const { replies } = yield* conversation(`HELO me\r\n${said}`, { maxSize: 10 })
        assert.include(replies.at(-1), expected)
      })
    )
  }

  inMemory(
    "refuses a second message that is smuggled in behind a bare end of line",
    Effect.gen(function* () {
      for (const end of ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\r"]) {
        const smuggled = `x${end}MAIL FROM:<evil@example.com>\r\nRCPT TO:<you@example.org>\r\nDATA\r\ny\r\n.\r\n`
        const { contents, replies } = yield* Effect.scoped(conversation(`${begin}DATA\r\n${smuggled}`))
        assert.deepStrictEqual(contents, [])
        assert.deepStrictEqual(replies.slice(begun), ["354 end with a dot", "550 5.6.11 a bare CR or LF"])
      }
    })
  )

  inMemory(
    "takes so many recipients, and forgives so many errors",
    Effect.gen(function* () {
      const { replies } = yield* conversation(`${begin}${"RCPT TO:<her@example.org>\r\n".repeat(30)}`, {
        maxRecipients: 3
      })
      assert.deepStrictEqual(replies.slice(begun), [
        ...Array.from({ length: 2 }, () => "250 2.1.5 OK"),
        ...Array.from({ length: 10 }, () => "452 4.5.3 too many recipients"),
        "421 4.7.0 too many errors"
      ])
    })
  )

  inMemory(
    "reads no line without an end",
    Effect.gen(function* () {
      const { replies } = yield* conversation("x".repeat(1001))
      assert.deepStrictEqual(replies, ["500 5.5.2 a line that is too long"])
    })
  )

  inMemory(
    "takes nothing of a client that is gone within a message",
    Effect.gen(function* () {
      const { contents } = yield* conversation(`${begin}DATA\r\nbeginning of a\r\n`)
      assert.deepStrictEqual(contents, [])
    })
  )

  inMemory(
    "waits five minutes for a command",
    Effect.gen(function* () {
      const { target } = yield* sink()
      const { reader } = yield* Connection.connect(target)
      yield* reader.readLine
      const reply = yield* Effect.forkChild(reader.readAll(), { startImmediately: true })
      yield* TestClock.adjust("299 seconds")
      assert.isUndefined(reply.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(text(yield* Fiber.join(reply)), "421 4.4.2 you take too long\r\n")
    })
  )
})

describe("the SMTP client", () => {
  it.effect.prop(
    "sends any text, line by line",
    [Schema.Array(Schema.Literals([".", "\r", "\n", "\r\n", "x", "DATA", "é"]))],
    ([pieces]) =>
      Effect.gen(function* () {
        const { messages, target } = yield* sink()
        const { send } = yield* SmtpClient.connect(target, { tls: false })
        yield* send(envelope, Stream.fromIterable(pieces))
        const lines = pieces.join("").split(/\r\n|\r|\n/)
        if (lines.at(-1) === "") lines.pop()
        assert.deepStrictEqual(
          messages.map(({ content }) => text(content)),
          [lines.map((line) => `${line}\r\n`).join("")]
        )
      }).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))
  )

  inMemory(
    "ends the connection when a message fails on the way, so that it is not taken for all of it",
    Effect.gen(function* () {
      const { messages, target } = yield* sink()
      const { send } = yield* SmtpClient.connect(target, { tls: false })
      const failing = Stream.concat(Stream.make("the beginning\n"), Stream.fail("torn" as const))
      assert.strictEqual(yield* Effect.flip(send(envelope, failing)), "torn")
      const error = yield* Effect.flip(send(envelope, Stream.make("next")))
      assert(typeof error === "object" && error._tag === "ConnectionError", String(error))
      assert.strictEqual(messages.length, 0)
    })
  )

  inMemory(
    "a message that is interrupted at any moment is never the beginning of another one",
    Effect.gen(function* () {
      const outcomes = new Set<string>()
      for (let moment = 0; moment < 150; moment++) {
        const { messages, target } = yield* sink({ listen: { port: 1000 + moment } })
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { send } = yield* SmtpClient.connect(target, { tls: false })
            const first = yield* Effect.forkChild(send(envelope, Stream.make("first\n", "of two\n")), {
              startImmediately: true
            })
            for (let i = 0; i < moment; i++) yield* Effect.yieldNow
            yield* Fiber.interrupt(first)
            const second = yield* Effect.exit(send(envelope, Stream.make("second\n")))
            const contents = messages.map(({ content }) => text(content))
            const outcome = Exit.isSuccess(second)
              ? "sent"
              : Option.getOrUndefined(Exit.findErrorOption(second))?._tag
            outcomes.add(`${outcome}: ${contents.join("").replaceAll("\r\n", "; ")}`)
          })
        )
      }
      assert.deepStrictEqual([...outcomes].toSorted(), [
        "ConnectionError: ",
        "ConnectionError: first; of two; ",
        "sent: first; of two; second; ",
        "sent: second; "
      ])
    })
  )

  inMemory(
    "a message that is interrupted before the server wants to have it ends the connection",
    Effect.gen(function* () {
      const heard: Array<string> = []
      const answering = Effect.fnUntraced(function* ({ reader, writer }: Connection.Connection) {
        for (const reply of ["220 hi\r\n", "250 hi\r\n", "250 from\r\n", "250 to\r\n"]) {
          yield* writer.write(reply)
          heard.push(text(yield* reader.readLine))
        }
        // The reply to DATA takes its time.
        yield* Effect.sleep("1 second")
        yield* Effect.andThen(writer.write("354 go\r\n"), reader.readAll()).pipe(
          Effect.tap((bytes) => Effect.sync(() => heard.push(text(bytes))))
        )
      })
      const server = yield* Server.serve(answering, { listen: { port: 25 }, onError: () => Effect.void })
      const { send } = yield* SmtpClient.connect(server.addresses[0], { tls: false })
      const first = yield* Effect.forkChild(send(envelope, Stream.make("first\n")), {
        startImmediately: true
      })
      yield* turns
      assert.strictEqual(heard.at(-1), "DATA\r\n")
      yield* Fiber.interrupt(first)
      const second = yield* Effect.forkChild(Effect.flip(send(envelope, Stream.make("second\n"))))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(second))._tag, "ConnectionError")
      assert.strictEqual(heard.at(-1), "DATA\r\n")
    })
  )

  inMemory(
    "lets no address be more than one",
    Effect.gen(function* () {
      const { messages, target } = yield* sink()
      const { send } = yield* SmtpClient.connect(target, { tls: false })
      for (const address of ["a@b>\r\nDATA", "a@b> SIZE=1", "a@b c", "a\0@b"]) {
        const error = yield* Effect.flip(send({ from: address, to: ["you@example.org"] }, Stream.empty))
        assert.strictEqual(error._tag, "AddressError")
      }
      yield* send(envelope, Stream.make("fine"))
      assert.strictEqual(messages.length, 1)
    })
  )

  /** A client of a server that says these, one after another, whatever it hears. */
  const against = Effect.fnUntraced(function* (...replies: ReadonlyArray<string>) {
    const heard: Array<string> = []
    const answering = ({ reader, writer }: Connection.Connection) =>
      Effect.gen(function* () {
        for (const reply of replies) {
          yield* writer.write(reply)
          heard.push(text(yield* reader.readLine))
        }
      })
    const server = yield* Server.serve(answering, {
      listen: { host: "127.0.0.1" },
      onError: () => Effect.void
    })
    const error = yield* Effect.flip(
      SmtpClient.connect(
        { host: "127.0.0.1", port: portOf(server.addresses[0]) },
        { login: { user: "me", password: Redacted.make("secret") } }
      )
    )
    return { error, heard }
  })

  inMemory(
    "goes no further without TLS",
    Effect.gen(function* () {
      const { error, heard } = yield* against("220 hi\r\n", "250-hi\r\n250 AUTH PLAIN\r\n", "502 no\r\n")
      assert.strictEqual(error.message, "STARTTLS: 502 no")
      assert.deepStrictEqual(heard, ["EHLO localhost\r\n", "STARTTLS\r\n"])
    })
  )

  live(
    "takes no plain bytes behind the server's consent to TLS",
    Effect.gen(function* () {
      const { error } = yield* against("220 hi\r\n", "250 hi\r\n", "220 go\r\n250 AUTH PLAIN\r\n")
      assert(error._tag === "ConnectionError" && error.reason._tag === "PlaintextBuffered", String(error))
    })
  )

  for (const [reply, tag] of [
    ["hello\r\n", "FrameError"],
    ["220-hello\r\n", "IncompleteReadError"],
    ["220-hello\r\nthere\r\n", "FrameError"],
    ["554-go\r\n554 away\r\n", "SmtpError"],
    [`220-${"x".repeat(1000)}\r\n`.repeat(70), "FrameError"]
  ] as const) {
    inMemory(
      `has a typed failure for ${JSON.stringify(reply.slice(0, 30))}`,
      Effect.gen(function* () {
        const server = yield* Server.serve(({ writer }) => writer.write(reply), { listen: { port: 25 } })
        const error = yield* Effect.flip(SmtpClient.connect(server.addresses[0]))
        assert.strictEqual(error._tag, tag)
      })
    )
  }
})
