import { assert, it } from "@effect/vitest"
import { Effect, Option, Queue, type Scope, Stream } from "effect"
import { Connection, type Network, Server, type StreamError, Tls, TlsReloader } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { randomBytes } from "node:crypto"
import * as net from "node:net"
import { fileURLToPath } from "node:url"
import { Authority } from "../support/certificates.ts"
import { describeWith, ready, says, spawnPeer } from "../support/programs.ts"
import { freePort, portOf, rawServer } from "../support/sockets.ts"

const peers = fileURLToPath(new URL("./peers", import.meta.url))

const live = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>): void =>
  it.live(title, () => effect.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer)))

const authority = new Authority()
const ca = authority.certificate
const identity = authority.issue()
const listen = { host: "127.0.0.1" }

const echo = ({ reader, writer }: Connection.Connection) => Stream.run(reader.stream, writer.sink)

/** An echo server over TLS: its port, and what its handlers failed with. */
const secureEcho = Effect.fnUntraced(function* (tls: Partial<Tls.ServerOptions> = {}) {
  const errors = yield* Queue.unbounded<string>()
  const infos = yield* Queue.unbounded<Tls.TlsInfo | undefined>()
  const server = yield* Server.serve(
    (connection) => Effect.andThen(Queue.offer(infos, connection.info.tls), echo(connection)),
    {
      listen,
      tls: { identity, ...tls },
      onError: (cause) =>
        Queue.offer(errors, cause.reasons.map((_) => (_._tag === "Fail" ? tagOf(_.error) : _._tag)).join())
    }
  )
  return { port: portOf(server.addresses[0]), errors, infos, server }
})

const tagOf = (error: StreamError.StreamError): string =>
  error._tag === "ConnectionError" ? error.reason._tag : error._tag

const echoes = Effect.fnUntraced(function* ({ reader, writer }: Connection.Connection) {
  const sent = randomBytes(1_000_000)
  const [received] = yield* Effect.all([reader.readExactly(sent.length), writer.write(sent)], {
    concurrency: "unbounded"
  })
  assert.isTrue(sent.equals(received))
})

describeWith("python3", "TLS with Python's asyncio", () => {
  for (const scenario of ["tls13", "tls12"]) {
    live(
      `its client (${scenario})`,
      Effect.gen(function* () {
        const { port, server } = yield* secureEcho()
        const args = [`${peers}/tls_client.py`, scenario, String(port), authority.file]
        const { output } = yield* (yield* spawnPeer("python3", args)).exit
        assert.strictEqual(output, "done\n")
        const { aborted, interrupted } = yield* server.shutdown()
        assert.deepStrictEqual({ aborted, interrupted }, { aborted: 0, interrupted: 0 })
      })
    )
  }

  live(
    "its client that ends without close_notify: TlsTruncated",
    Effect.gen(function* () {
      const { errors, port } = yield* secureEcho()
      yield* spawnPeer("python3", [`${peers}/tls_client.py`, "abrupt", String(port), authority.file])
      assert.strictEqual(yield* Queue.take(errors), "TlsTruncated")
    })
  )

  live(
    "its client's start_tls",
    Effect.gen(function* () {
      const server = yield* Server.serve(
        Effect.fnUntraced(function* (connection: Connection.Connection) {
          yield* connection.reader.readLine
          yield* connection.writer.write("go ahead\r\n")
          yield* connection.upgradeTls({ role: "server", identity })
          yield* echo(connection)
        }),
        { listen }
      )
      const args = [`${peers}/tls_client.py`, "starttls", String(portOf(server.addresses[0])), authority.file]
      assert.strictEqual((yield* (yield* spawnPeer("python3", args)).exit).output, "done\n")
    })
  )

  live(
    "its server",
    Effect.gen(function* () {
      const args = [`${peers}/tls_server.py`, "tls", identity.certificateFile, identity.keyFile]
      const port = Number(yield* (yield* spawnPeer("python3", args)).line)
      const connection = yield* Connection.connect({ host: "localhost", port }, { tls: { ca } })
      yield* echoes(connection)
      yield* connection.writer.end
      assert.strictEqual((yield* connection.reader.readAll()).length, 0)
    })
  )

  live(
    "its server's start_tls",
    Effect.gen(function* () {
      const args = [`${peers}/tls_server.py`, "starttls", identity.certificateFile, identity.keyFile]
      const port = Number(yield* (yield* spawnPeer("python3", args)).line)
      const connection = yield* Connection.connect({ host: "localhost", port })
      yield* connection.writer.write("STARTTLS\r\n")
      assert.deepStrictEqual(yield* connection.reader.readLineString, Option.some("go ahead"))
      yield* connection.upgradeTls({ role: "client", ca })
      yield* echoes(connection)
    })
  )
})

describeWith("python3", "certificates that are replaced under the load of another program", () => {
  live(
    "300 connections of Python's ssl, 10 at a time, a new certificate every 10: none fails",
    Effect.gen(function* () {
      const generations = Array.from({ length: 20 }, (_, n) => authority.issue({ name: `generation ${n}` }))
      let present = 0
      const reloader = yield* TlsReloader.make(Effect.sync(() => generations[present] ?? identity))
      let served = 0
      const server = yield* Server.serve(
        (connection) =>
          Effect.gen(function* () {
            if (++served % 10 === 0 && present + 1 < generations.length) {
              present++
              yield* reloader.reload
            }
            yield* echo(connection)
          }),
        { listen, tls: { identity: reloader } }
      )
      const { output } = yield* (yield* spawnPeer("python3", [
        `${peers}/tls_visits.py`,
        ...[String(portOf(server.addresses[0])), authority.file, "300", "10"]
      ])).exit
      const lines = output.trimEnd().split("\n")
      assert.strictEqual(lines.pop(), "failed: 0 []")
      assert.strictEqual(lines.length, 300)
      assert.deepStrictEqual(new Set(lines), new Set(generations.map((_, n) => `generation ${n}`)))
    })
  )
})

/** What `openssl s_client` says, which sends a line and waits for it to come back. */
const sClient = Effect.fnUntraced(function* (port: number, ...args: ReadonlyArray<string>) {
  const peer = yield* spawnPeer("openssl", [
    ...["s_client", "-connect", `127.0.0.1:${port}`, "-servername", "localhost", "-CAfile", authority.file],
    ...["-verify_return_error", "-ign_eof", ...args]
  ])
  // It has nothing to read from then on, and ends when the server does.
  peer.child.stdin?.end("hello\n")
  return yield* peer.exit
})

/** A server that sends a line back and ends. */
const lineEcho = Effect.fnUntraced(function* (tls: Partial<Tls.ServerOptions> = {}) {
  const infos = yield* Queue.unbounded<Tls.TlsInfo | undefined>()
  const server = yield* Server.serve(
    Effect.fnUntraced(function* ({ info, reader, writer }: Connection.Connection) {
      yield* Queue.offer(infos, info.tls)
      yield* writer.write(yield* reader.readLine)
    }),
    { listen, tls: { identity, ...tls }, onError: () => Effect.void }
  )
  return { port: portOf(server.addresses[0]), infos }
})

describeWith("openssl", "TLS with openssl s_client", () => {
  for (const version of ["tls1_2", "tls1_3"]) {
    live(
      `version ${version}, with ALPN, a client certificate and a session that is resumed`,
      Effect.gen(function* () {
        const { infos, port } = yield* lineEcho({ alpn: ["wire/1"], ca, clientCertificate: "require" })
        const me = authority.issue({ name: "me", altName: "DNS:me" })
        const session = `${me.keyFile}.session`
        const args = [
          ...[`-${version}`, "-alpn", "other,wire/1"],
          ...["-cert", me.certificateFile, "-key", me.keyFile]
        ]
        const first = yield* sClient(port, ...args, "-sess_out", session)
        assert.include(first.output, "ALPN protocol: wire/1")
        assert.include(first.output, "Verify return code: 0 (ok)")
        assert.include(first.output, "hello\n")
        const info = yield* Queue.take(infos)
        assert.strictEqual(info?.alpn, "wire/1")
        assert.strictEqual(info?.servername, "localhost")
        assert.strictEqual(info?.protocol, version === "tls1_2" ? "TLSv1.2" : "TLSv1.3")
        assert.strictEqual(info?.peerCertificate?.subject["CN"], "me")
        assert.isTrue(info?.authorized)
        const second = yield* sClient(port, ...args, "-sess_in", session)
        assert.include(second.output, "Reused, TLSv1")
        const resumed = yield* Queue.take(infos)
        assert.isTrue(resumed?.resumed)
        assert.isTrue(resumed?.authorized)
        assert.strictEqual(resumed?.peerCertificate?.subject["CN"], "me")
      })
    )
  }

  live(
    "killed in the middle: TlsTruncated",
    Effect.gen(function* () {
      const { errors, port } = yield* secureEcho()
      const peer = yield* spawnPeer("openssl", ["s_client", "-connect", `127.0.0.1:${port}`, "-quiet"])
      peer.child.stdin?.write("hello\n")
      yield* says(peer, /^hello$/)
      peer.child.kill("SIGKILL")
      assert.strictEqual(yield* Queue.take(errors), "TlsTruncated")
    })
  )

  live(
    "KeyUpdate of TLS 1.3, with and without asking for ours, in the middle of a connection",
    Effect.gen(function* () {
      const { errors, port, server } = yield* secureEcho()
      const peer = yield* spawnPeer("openssl", ["s_client", "-connect", `127.0.0.1:${port}`, "-tls1_3"])
      for (const line of ["first", "second", "third"]) {
        peer.child.stdin?.write(`${line}\n`)
        yield* says(peer, new RegExp(`^${line}$`))
        peer.child.stdin?.write(line === "first" ? "K\n" : "k\n")
        yield* says(peer, /KEYUPDATE/)
      }
      peer.child.stdin?.write("last\n")
      yield* says(peer, /^last$/)
      peer.child.stdin?.end()
      yield* peer.exit
      const { aborted, interrupted } = yield* server.shutdown()
      assert.deepStrictEqual({ aborted, interrupted }, { aborted: 0, interrupted: 0 })
      assert.strictEqual(yield* Queue.size(errors), 0)
    })
  )

  live(
    "KeyUpdate that asks for ours after our end: what follows is read",
    Effect.gen(function* () {
      const heard = yield* Queue.unbounded<string>()
      const ended = yield* Queue.unbounded<void>()
      const exits = yield* Queue.unbounded<string>()
      const server = yield* Server.serve(
        ({ reader, writer }) =>
          Effect.gen(function* () {
            yield* writer.write(yield* reader.readLine)
            yield* reader.readLine
            yield* writer.end
            yield* Queue.offer(ended, undefined)
            yield* Stream.runForEach(reader.lines, (line) => Queue.offer(heard, line))
          }).pipe(Effect.onExit((exit) => Queue.offer(exits, exit._tag))),
        { listen, tls: { identity } }
      )
      // It ends when it hears of our end, which is kept from it until it has spoken.
      const front = yield* rawServer({ host: "127.0.0.1", port: 0 }, { pauseOnConnect: false })
      const held: Array<() => void> = []
      let isHolding = false
      front.server.on("connection", (near) => {
        const far = net.connect({ host: "127.0.0.1", port: portOf(server.addresses[0]), allowHalfOpen: true })
        near.pipe(far)
        const pass = (step: () => void) => (isHolding ? void held.push(step) : step())
        far.on("data", (chunk: Buffer) => pass(() => near.write(chunk)))
        far.on("end", () => pass(() => near.end())).on("error", () => {})
      })
      const peer = yield* spawnPeer("openssl", ["s_client", "-connect", `127.0.0.1:${front.port}`, "-tls1_3"])
      peer.child.stdin?.write("hello\n")
      yield* says(peer, /^hello$/)
      isHolding = true
      peer.child.stdin?.write("end\n")
      yield* Queue.take(ended)
      for (const line of ["one", "two"]) {
        peer.child.stdin?.write("K\n")
        yield* says(peer, /KEYUPDATE/)
        peer.child.stdin?.write(`${line}\n`)
        assert.strictEqual(yield* Queue.take(heard), line)
      }
      isHolding = false
      assert.isAbove(held.length, 0)
      for (const step of held) step()
      yield* says(peer, /^closed$/)
      yield* peer.exit
      assert.strictEqual(yield* Queue.take(exits), "Success")
    })
  )

  live(
    "TLS 1.1 is refused",
    Effect.gen(function* () {
      const { port } = yield* lineEcho()
      const { code, output } = yield* sClient(port, "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0")
      assert.notStrictEqual(code, 0)
      assert.include(output, "alert protocol version")
    })
  )
})

describeWith("openssl", "TLS with openssl s_server", () => {
  const sServer = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
    const port = yield* freePort
    yield* spawnPeer("openssl", [
      ...["s_server", "-accept", `127.0.0.1:${port}`, "-quiet", "-rev"],
      ...["-cert", identity.certificateFile, "-key", identity.keyFile, ...args]
    ])
    yield* ready(`127.0.0.1:${port}`)
    return port
  })

  for (const version of ["tls1_2", "tls1_3"]) {
    live(
      `version ${version}, with ALPN, and a session that is resumed`,
      Effect.gen(function* () {
        const port = yield* sServer(`-${version}`, "-alpn", "wire/1")
        const tls = { ca, alpn: ["wire/1"], sessions: Tls.sessionCache() }
        const once = Effect.scoped(
          Effect.gen(function* () {
            const { info, reader, writer } = yield* Connection.connect({ host: "localhost", port }, { tls })
            yield* writer.write("hello\n")
            assert.deepStrictEqual(yield* reader.readLineString, Option.some("olleh"))
            assert.strictEqual(info.tls?.alpn, "wire/1")
            assert.strictEqual(info.tls?.protocol, version === "tls1_2" ? "TLSv1.2" : "TLSv1.3")
            return info.tls?.resumed
          })
        )
        assert.isFalse(yield* once)
        assert.isTrue(yield* once)
      })
    )
  }

  live(
    "killed in the middle: TlsTruncated",
    Effect.gen(function* () {
      const port = yield* freePort
      const peer = yield* spawnPeer("openssl", [
        ...["s_server", "-accept", `127.0.0.1:${port}`, "-quiet", "-rev"],
        ...["-cert", identity.certificateFile, "-key", identity.keyFile]
      ])
      yield* ready(`127.0.0.1:${port}`)
      const { reader, writer } = yield* Connection.connect({ host: "localhost", port }, { tls: { ca } })
      yield* writer.write("hello\n")
      assert.deepStrictEqual(yield* reader.readLineString, Option.some("olleh"))
      peer.child.kill("SIGKILL")
      const error = yield* Effect.flip(reader.read())
      assert.strictEqual(tagOf(error), "TlsTruncated")
    })
  )

  const stranger = new Authority("Another CA")
  for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
    const failing = version === "TLSv1.2" ? "handshake" : "read"
    const mutual = sServer(
      ...["-Verify", "1", "-verify_return_error", "-CAfile", authority.file],
      version === "TLSv1.2" ? "-tls1_2" : "-tls1_3"
    )
    /** What becomes of a client that asks for a line to be reversed. */
    const ask = Effect.fnUntraced(function* (port: number, me?: Tls.Identity) {
      const tls = { ca, identity: me }
      return yield* Effect.scoped(
        Effect.gen(function* () {
          const { reader, writer } = yield* Connection.connect({ host: "localhost", port }, { tls })
          yield* Effect.forkChild(Effect.exit(writer.write("hello\n")), { startImmediately: true })
          return yield* reader.readLineString
        })
      )
    })
    const refusal = (port: number, me?: Tls.Identity) =>
      Effect.map(Effect.flip(ask(port, me)), (error) => {
        assert(error._tag === "ConnectionError" && error.reason._tag === "TlsError", error.message)
        assert.include(error.reason.message, "localhost")
        // OpenSSL 3.5 calls some alerts otherwise than versions before it, up to the alert's own name.
        return [error.operation, error.reason.kind, error.reason.code?.replace(/^.*_ALERT_/, "")]
      })

    live(
      `that wants our certificate (${version}): the alert says what is wrong with others than the right one`,
      Effect.gen(function* () {
        const port = yield* mutual
        assert.deepStrictEqual(
          yield* ask(port, authority.issue({ name: "me", altName: "DNS:me" })),
          Option.some("olleh")
        )
        assert.deepStrictEqual(
          yield* refusal(port),
          version === "TLSv1.2"
            ? [failing, "Refused", "HANDSHAKE_FAILURE"]
            : [failing, "ClientCertificateRequired", "CERTIFICATE_REQUIRED"]
        )
        assert.deepStrictEqual(yield* refusal(port, stranger.issue({ name: "me", altName: "DNS:me" })), [
          failing,
          "Refused",
          "UNKNOWN_CA"
        ])
        const past = authority.issue({ name: "me", from: "20200101000000Z", to: "20200102000000Z" })
        assert.deepStrictEqual(yield* refusal(port, past), [failing, "Refused", "CERTIFICATE_EXPIRED"])
      })
    )
  }
})
