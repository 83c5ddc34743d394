import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  DateTime,
  Effect,
  Exit,
  Fiber,
  Logger,
  Option,
  Queue,
  Redacted,
  References,
  type Scope,
  Stream
} from "effect"
import { TestClock } from "effect/testing"
import { Connection, type Network, Proxy, Server, type StreamError, Tls, TlsReloader } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { randomBytes } from "node:crypto"
import { once } from "node:events"
import * as fs from "node:fs"
import * as path from "node:path"
import * as nodeTls from "node:tls"
import { Authority, type Issued } from "../support/certificates.ts"
import {
  event,
  leavingNothing,
  loops,
  portOf,
  rawConnect,
  rawServer,
  readToEnd,
  tempDirectory
} from "../support/sockets.ts"

const live = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>): void =>
  it.live(title, () => leavingNothing(Effect.scoped(effect)).pipe(Effect.provide(NodeNetwork.layer)))

/** With a clock that stands still: real sockets, and no real time. */
const timed = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>): void =>
  it.effect(title, () => Effect.scoped(effect).pipe(Effect.provide(NodeNetwork.layer)))

const authority = new Authority()
const ca = authority.certificate
const identity = authority.issue()
const encoder = new TextEncoder()

const echo = ({ reader, writer }: Connection.Connection) => Stream.run(reader.stream, writer.sink)

const listen = { host: "127.0.0.1" }

/** An echo server over TLS; gives its port. */
const secureEcho = (tls: Partial<Tls.ServerOptions> = {}) =>
  Effect.map(
    Server.serve(echo, { listen, tls: { identity, ...tls }, onError: () => Effect.void }),
    ({ addresses }) => portOf(addresses[0])
  )

describe("TLS between client and server", () => {
  live(
    "T-001, T-012, T-028 a client and a server: bytes both ways, and the facts of the connection",
    Effect.gen(function* () {
      const port = yield* secureEcho()
      const connection = yield* Connection.connect({ host: "localhost", port }, { tls: { ca } })
      const sent = randomBytes(3_000_000)
      const [received] = yield* Effect.all(
        [connection.reader.readExactly(sent.length), connection.writer.write(sent)],
        { concurrency: "unbounded" }
      )
      assert.isTrue(sent.equals(received))
      const { tls, transport } = connection.info
      assert.strictEqual(transport, "tls")
      assert.isDefined(tls)
      assert.strictEqual(tls.protocol, "TLSv1.3")
      assert.match(tls.cipher, /^TLS_/)
      assert.strictEqual(tls.servername, "localhost")
      assert.isTrue(tls.authorized)
      assert.isFalse(tls.resumed)
      assert.isUndefined(tls.alpn)
      const certificate = tls.peerCertificate
      assert.isDefined(certificate)
      assert.strictEqual(certificate.subject["CN"], "localhost")
      assert.strictEqual(certificate.issuer["CN"], "Test CA")
      assert.deepStrictEqual(certificate.subjectAltName, ["DNS:localhost", "IP Address:127.0.0.1"])
      assert.match(certificate.fingerprint256, /^([0-9A-F]{2}:){31}[0-9A-F]{2}$/)
      const { validFrom, validTo } = certificate
      assert(validFrom !== undefined && validTo !== undefined)
      assert.isBelow(DateTime.toEpochMillis(validFrom), DateTime.toEpochMillis(validTo))
      assert.isAbove(certificate.raw.length, 200)
      yield* connection.close
      yield* connection.closed
      assert.strictEqual(connection.info.tls, tls)
      assert.strictEqual(connection.info.tls?.peerCertificate, certificate)
    })
  )

  live(
    "an IP address is verified as one, and sent as no name",
    Effect.gen(function* () {
      const port = yield* secureEcho({
        identity: {
          certificate: encoder.encode(identity.certificate),
          key: Redacted.make(encoder.encode(identity.key))
        }
      })
      const connection = yield* Connection.connect({ host: "127.0.0.1", port }, { tls: { ca: [ca] } })
      yield* connection.writer.write("hello\n")
      assert.strictEqual(
        String(yield* connection.reader.readLineString),
        String(yield* Effect.succeedSome("hello"))
      )
      assert.isUndefined(connection.info.tls?.servername)
      assert.isTrue(connection.info.tls?.authorized)
    })
  )

  live(
    "T-022 a peer that drops TCP without close_notify: TlsTruncated, after the bytes that came",
    Effect.gen(function* () {
      const raw = yield* rawServer()
      const connecting = yield* Effect.forkChild(
        Connection.connect({ host: "localhost", port: raw.port }, { tls: { ca } })
      )
      const socket = yield* raw.next
      const inner = yield* rawConnect({ host: "127.0.0.1", port: yield* secureEcho() })
      socket.on("data", (chunk: Buffer) => inner.write(chunk))
      inner.on("data", (chunk: Buffer) => socket.write(chunk))
      socket.resume()
      inner.resume()
      const connection = yield* Fiber.join(connecting)
      yield* connection.writer.write("partial")
      assert.strictEqual((yield* connection.reader.peek(7)).length, 7)
      socket.end()
      const error = yield* Effect.flip(connection.reader.readAll())
      assert(error._tag === "ConnectionError", error.message)
      assert.strictEqual(error.reason._tag, "TlsTruncated")
    })
  )
})

describe("upgradeTls", () => {
  live(
    "T-029 a plain line each way, both upgrade, a line over TLS: the same reader and writer",
    Effect.gen(function* () {
      const server = yield* Server.serve(
        Effect.fnUntraced(function* (connection: Connection.Connection) {
          const { reader, writer } = connection
          yield* writer.write(yield* reader.readLine)
          yield* connection.upgradeTls({ role: "server", identity })
          yield* writer.write(yield* reader.readLine)
        }),
        { listen }
      )
      const port = portOf(server.addresses[0])
      const connection = yield* Connection.connect({ host: "localhost", port })
      const { id, reader, writer } = connection
      yield* writer.write("plain\n")
      assert.deepStrictEqual(yield* reader.readLineString, Option.some("plain"))
      assert.isUndefined(connection.info.tls)
      yield* connection.upgradeTls({ role: "client", ca })
      assert.strictEqual(connection.info.transport, "tls")
      assert.strictEqual(connection.id, id)
      assert.strictEqual(connection.reader, reader)
      yield* writer.write("secret\n")
      assert.deepStrictEqual(yield* reader.readLineString, Option.some("secret"))
      assert.deepStrictEqual(yield* reader.readLineString, Option.none())
    })
  )
})

/** What a connection error is about. */
const reasonOf = (error: StreamError.StreamError): StreamError.ConnectionErrorReason["_tag"] => {
  assert(error._tag === "ConnectionError", error.message)
  return error.reason._tag
}

/** Tests end with one side still open. */
const closeTimeout = "10 millis"

/** A handler's connections, handed to the test, which ends them. */
const serving = Effect.fnUntraced(function* (options: Omit<Server.Options, "listen" | "onError"> = {}) {
  const accepted = yield* Queue.unbounded<Connection.Connection>()
  const server = yield* Server.serve(
    (connection) => Effect.andThen(Queue.offer(accepted, connection), Effect.ignore(connection.closed)),
    { listen, grace: 0, onError: () => Effect.void, ...options }
  )
  return { server, port: portOf(server.addresses[0]), next: Queue.take(accepted) }
})

/** Both ends of a plain TCP connection. */
const plainPair = Effect.fnUntraced(function* () {
  const { next, port } = yield* serving()
  const client = yield* Connection.connect({ host: "localhost", port }, { closeTimeout })
  return { client, server: yield* next }
})

const serverSide = { role: "server", identity } as const
const clientSide = { role: "client", ca } as const

/** Both ends of a connection over TLS. */
const securePair = Effect.fnUntraced(function* (
  serverOptions: Partial<Tls.ServerOptions> = {},
  clientOptions: Tls.ClientOptions = {}
) {
  const { next, port, server: listening } = yield* serving({ tls: { identity, ...serverOptions } })
  const client = yield* Connection.connect(
    { host: "localhost", port },
    { closeTimeout, tls: { ca, ...clientOptions } }
  )
  return { client, server: yield* next, port, listening }
})

describe("what is agreed on", () => {
  live(
    "ALPN: the server's preference among what the client offers",
    Effect.gen(function* () {
      const { client, server } = yield* securePair({ alpn: ["two", "one"] }, { alpn: ["one", "two"] })
      assert.strictEqual(client.info.tls?.alpn, "two")
      assert.strictEqual(server.info.tls?.alpn, "two")
    })
  )

  for (const [maxVersion, ciphers] of [
    ["TLSv1.2", ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"]],
    ["TLSv1.3", ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"]]
  ] as const) {
    live(
      `the cipher: the server's preference, whatever the client's is (${maxVersion})`,
      Effect.gen(function* () {
        const [a, b] = ciphers
        const chosen = (server: string, client: string) =>
          Effect.map(
            securePair({ maxVersion, ciphers: server }, { ciphers: client }),
            ({ client }) => client.info.tls?.cipher
          )
        const first = yield* chosen(`${a}:${b}`, `${b}:${a}`)
        const second = yield* chosen(`${b}:${a}`, `${a}:${b}`)
        assert.match(String(first), /_AES_256_/)
        assert.match(String(second), /_AES_128_/)
      })
    )
  }

  live(
    "the version",
    Effect.gen(function* () {
      const { client, server } = yield* securePair({ maxVersion: "TLSv1.2" })
      assert.strictEqual(client.info.tls?.protocol, "TLSv1.2")
      assert.strictEqual(server.info.tls?.protocol, "TLSv1.2")
    })
  )

  live(
    "SNI: a certificate for each name, with a wildcard, and the default for the rest",
    Effect.gen(function* () {
      const one = authority.issue({ name: "one", altName: "DNS:one.example" })
      const any = authority.issue({ name: "any", altName: "DNS:*.any.example" })
      const { port } = yield* serving({
        tls: { identity, names: { "One.Example": one, "*.any.example": any } }
      })
      const shown = (servername: string) =>
        Effect.scoped(
          Effect.map(
            Connection.connect({ host: "127.0.0.1", port }, { closeTimeout, tls: { ca, servername } }),
            ({ info }) => info.tls?.peerCertificate?.subject["CN"]
          )
        )
      assert.strictEqual(yield* shown("one.example"), "one")
      assert.strictEqual(yield* shown("x.any.example"), "any")
      assert.strictEqual(yield* shown("localhost"), "localhost")
    })
  )

  live(
    "an international name is sent and looked for in its ASCII form",
    Effect.gen(function* () {
      const books = authority.issue({ name: "books", altName: "DNS:xn--bcher-kva.example" })
      const { client, server } = yield* securePair(
        { names: { "bücher.example": books } },
        { servername: "Bücher.example" }
      )
      assert.strictEqual(client.info.tls?.peerCertificate?.subject["CN"], "books")
      assert.strictEqual(client.info.tls?.servername, "xn--bcher-kva.example")
      assert.strictEqual(server.info.tls?.servername, "xn--bcher-kva.example")
    })
  )

  live(
    "a link-local address is looked for without its zone, and sent as no name",
    Effect.gen(function* () {
      const { client, server } = yield* securePair(
        { identity: authority.issue({ altName: "IP:fe80::1" }) },
        { servername: "fe80::1%eth0" }
      )
      assert.isTrue(client.info.tls?.authorized)
      assert.isUndefined(server.info.tls?.servername)
    })
  )

  live(
    "without a name to check, authorized tells of the authority alone",
    Effect.gen(function* () {
      const other = authority.issue({ altName: "DNS:other.example" })
      const seen: Array<boolean | undefined> = []
      for (const options of [
        { verify: false },
        { servername: false } as const,
        { verify: false, ca: other.certificate }
      ]) {
        const { client, server } = yield* plainPair()
        // The side that was connected to is the client: nobody has told it a host.
        yield* Effect.all(
          [
            server.upgradeTls({ role: "client", ca, ...options }),
            client.upgradeTls({ role: "server", identity: other })
          ],
          { concurrency: "unbounded" }
        )
        seen.push(server.info.tls?.authorized)
      }
      assert.deepStrictEqual(seen, [true, true, false])
    })
  )

  live(
    "ALPN: nothing is chosen for a client that offers nothing, and it is served",
    Effect.gen(function* () {
      const { client, server } = yield* securePair({ alpn: ["h2"] })
      assert.isUndefined(client.info.tls?.alpn)
      assert.isUndefined(server.info.tls?.alpn)
      yield* client.writer.write("x")
      assert.strictEqual((yield* server.reader.readExactly(1)).length, 1)
    })
  )

  live(
    "mutual TLS: each sees the other's certificate",
    Effect.gen(function* () {
      const me = authority.issue({ name: "me", altName: "DNS:me" })
      const { client, server } = yield* securePair({ ca, clientCertificate: "require" }, { identity: me })
      assert.isTrue(client.info.tls?.authorized)
      assert.isTrue(server.info.tls?.authorized)
      assert.strictEqual(server.info.tls?.peerCertificate?.subject["CN"], "me")
      assert.strictEqual(server.info.tls?.servername, "localhost")
    })
  )

  live(
    "a certificate that is asked for and not there, or not trusted: authorized tells",
    Effect.gen(function* () {
      const none = yield* securePair({ ca, clientCertificate: "request" })
      assert.isFalse(none.server.info.tls?.authorized)
      assert.isUndefined(none.server.info.tls?.peerCertificate)
      const other = yield* securePair(
        { ca, clientCertificate: "request" },
        { identity: authority.selfSigned("me") }
      )
      assert.isFalse(other.server.info.tls?.authorized)
      assert.strictEqual(other.server.info.tls?.peerCertificate?.subject["CN"], "me")
    })
  )

  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    live(
      `the name that a client asked for is known of a session that is resumed as well (${maxVersion})`,
      Effect.gen(function* () {
        const one = authority.issue({ name: "one", altName: "DNS:one.example" })
        for (const names of [undefined, { "one.example": one }]) {
          const infos = yield* Queue.unbounded<Tls.TlsInfo | undefined>()
          const server = yield* Server.serve(
            (connection) => Effect.andThen(Queue.offer(infos, connection.info.tls), echo(connection)),
            { listen, tls: { identity, names, maxVersion } }
          )
          const target = { host: "127.0.0.1", port: portOf(server.addresses[0]) }
          const sessions = Tls.sessionCache()
          const others = names === undefined ? [] : ["one.example"]
          for (const resumed of [false, true, true]) {
            for (const servername of ["localhost", undefined, ...others]) {
              yield* Connection.use(target, { tls: { ca, servername, sessions } }, ({ reader, writer }) =>
                Effect.andThen(writer.write("x"), reader.readExactly(1))
              )
              const tls = yield* Queue.take(infos)
              assert.deepStrictEqual([tls?.resumed, tls?.servername], [resumed, servername])
            }
          }
        }
      })
    )
  }

  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    live(
      `a session is resumed (${maxVersion})`,
      Effect.gen(function* () {
        const port = yield* secureEcho({ maxVersion, ca, clientCertificate: "request" })
        const sessions = Tls.sessionCache()
        const once = Effect.scoped(
          Effect.gen(function* () {
            const { info, reader, writer } = yield* Connection.connect(
              { host: "localhost", port },
              { tls: { ca, sessions } }
            )
            yield* writer.write("hello\n")
            yield* reader.readLine
            assert.isTrue(info.tls?.authorized)
            assert.strictEqual(info.tls?.peerCertificate?.subject["CN"], "localhost")
            return info.tls?.resumed
          })
        )
        assert.isFalse(yield* once)
        assert.isTrue(yield* once)
        assert.isTrue(yield* once)
      })
    )
  }
})

describe("whom a client trusts", () => {
  live(
    "extraCa is trusted beside the platform's, or beside ca, and ca is instead of the platform's",
    Effect.gen(function* () {
      const [platform, own, third] = [authority, new Authority("Own CA"), new Authority("Third CA")]
      const before = nodeTls.getCACertificates("default")
      nodeTls.setDefaultCACertificates([platform.certificate])
      yield* Effect.addFinalizer(() => Effect.sync(() => nodeTls.setDefaultCACertificates(before)))
      const ports = yield* Effect.forEach([platform, own, third], (_) => secureEcho({ identity: _.issue() }))
      const trusted = (tls: Tls.ClientOptions) =>
        Effect.forEach(ports, (port) =>
          Effect.isSuccess(Effect.scoped(Connection.connect({ host: "localhost", port }, { tls })))
        )
      const sessions = Tls.sessionCache()
      const extraCa = [own.certificate]
      assert.deepStrictEqual(yield* trusted({}), [true, false, false])
      assert.deepStrictEqual(yield* trusted({ ca: own.certificate }), [false, true, false])
      assert.deepStrictEqual(yield* trusted({ extraCa: own.certificate, sessions }), [true, true, false])
      assert.deepStrictEqual(yield* trusted({ ca: third.certificate, extraCa }), [false, true, true])
      // A session is for who trusts the same.
      assert.deepStrictEqual(yield* trusted({ sessions }), [true, false, false])
    })
  )
})

describe("the end", () => {
  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    live(
      `T-020, T-021 what was written is read before the end, and close_notify is the end (${maxVersion})`,
      Effect.gen(function* () {
        const { client, server } = yield* securePair({ maxVersion })
        yield* client.writer.write(new Uint8Array(1_000_000))
        yield* client.writer.write("last")
        const closing = yield* Effect.forkChild(client.close)
        const all = yield* server.reader.readAll({ maxBytes: 2_000_000 })
        assert.strictEqual(all.length, 1_000_004)
        yield* server.close
        yield* Fiber.join(closing)
        yield* client.closed
        yield* server.closed
      })
    )

    live(
      `T-024 a peer that sends on after our close does no harm (${maxVersion})`,
      Effect.gen(function* () {
        const { client, server } = yield* securePair({ maxVersion })
        const flood = yield* Effect.forkChild(
          Effect.exit(Effect.forever(server.writer.write(new Uint8Array(65_536))))
        )
        yield* client.close
        yield* client.closed
        yield* Fiber.join(flood)
      })
    )

    timed(
      `T-023 a peer that never answers close_notify: closeTimeout (${maxVersion})`,
      Effect.gen(function* () {
        const { client, server } = yield* securePair({ maxVersion })
        const closing = yield* Effect.forkChild(client.close, { startImmediately: true })
        assert.strictEqual((yield* server.reader.readAll()).length, 0)
        yield* TestClock.adjust(closeTimeout)
        yield* Fiber.join(closing)
        yield* client.closed
      })
    )

    live(
      `what was written is read, though the peer sends on and reads later (${maxVersion})`,
      Effect.gen(function* () {
        const size = 500_000
        const { next, port } = yield* serving({ tls: { identity, maxVersion } })
        const options = { port, host: "127.0.0.1", ca, allowHalfOpen: true }
        const client = nodeTls.connect(options)
        yield* Effect.addFinalizer(() => Effect.sync(() => client.destroy()))
        client.pause().on("error", () => {})
        yield* event(client, "secureConnect")
        const server = yield* next
        yield* Effect.forkChild(server.writer.write(new Uint8Array(size)), { startImmediately: true })
        const closing = yield* Effect.forkChild(server.close, { startImmediately: true })
        for (let sent = 0; sent < 600_000; sent += 20_000) {
          client.write(Buffer.alloc(20_000))
          yield* loops(2)
        }
        assert.strictEqual((yield* readToEnd(client)).length, size)
        client.end()
        yield* Fiber.join(closing)
        yield* server.closed
      })
    )
  }

  live(
    "half-close in TLS 1.3: the other direction goes on",
    Effect.gen(function* () {
      const { client, server } = yield* securePair()
      assert.isTrue(client.writer.canEnd)
      yield* client.writer.write("question")
      yield* client.writer.end
      assert.strictEqual((yield* server.reader.readAll()).length, 8)
      yield* server.writer.write(new Uint8Array(300_000))
      yield* server.writer.write("answer")
      yield* server.writer.end
      assert.strictEqual((yield* client.reader.readAll({ maxBytes: 400_000 })).length, 300_006)
      yield* client.closed
      yield* server.closed
    })
  )

  live(
    "T-019 no half-close in TLS 1.2",
    Effect.gen(function* () {
      const { client, server } = yield* securePair({ maxVersion: "TLSv1.2" })
      assert.isFalse(client.writer.canEnd)
      assert.strictEqual(reasonOf(yield* Effect.flip(client.writer.end)), "Unsupported")
      yield* client.writer.write("bye")
      yield* Effect.forkChild(client.close, { startImmediately: true })
      assert.strictEqual((yield* server.reader.readAll()).length, 3)
    })
  )

  live(
    "T-026 a write after close fails",
    Effect.gen(function* () {
      const { client } = yield* securePair()
      yield* Effect.forkChild(client.close, { startImmediately: true })
      assert.strictEqual(reasonOf(yield* Effect.flip(client.writer.write("late"))), "ConnectionClosed")
    })
  )

  live(
    "abort resets, and the peer sees that",
    Effect.gen(function* () {
      const { client, server } = yield* securePair()
      yield* client.abort
      assert.strictEqual(reasonOf(yield* Effect.flip(server.reader.readAll())), "ConnectionReset")
    })
  )

  live(
    "T-018 a reader that does not read holds the writer back, and flush waits for the system",
    Effect.gen(function* () {
      const { client, server } = yield* securePair()
      const size = 16_777_216
      const writing = yield* Effect.forkChild(client.writer.write(new Uint8Array(size)), {
        startImmediately: true
      })
      assert.isAbove(yield* client.writer.bufferedBytes, 65_536)
      assert.isUndefined(writing.pollUnsafe())
      yield* server.reader.skip(size)
      yield* Fiber.join(writing)
      yield* client.writer.flush
      assert.strictEqual(yield* client.writer.bufferedBytes, 0)
    })
  )
})

describe("handshakes that come to nothing", () => {
  timed(
    "T-008 a silent server: TimeoutError after handshakeTimeout",
    Effect.gen(function* () {
      const raw = yield* rawServer()
      const target = { host: "localhost", port: raw.port }
      const connecting = yield* Effect.forkChild(
        Effect.flip(Effect.scoped(Connection.connect(target, { tls: { ca, handshakeTimeout: "3 seconds" } })))
      )
      const socket = yield* raw.next
      yield* event(socket.resume(), "data")
      yield* TestClock.adjust("3 seconds")
      const error = yield* Fiber.join(connecting)
      assert(error._tag === "TimeoutError", error.message)
      assert.strictEqual(error.operation, "handshake")
      assert.include(error.message, "3s")
    })
  )

  timed(
    "T-015 a silent client: dropped after handshakeTimeout, its slot is free again",
    Effect.gen(function* () {
      const { port, next, server } = yield* serving({ tls: { identity }, maxConnections: 1 })
      const failed = yield* Effect.forkChild(
        Stream.runHead(Stream.filter(server.events, (_) => _._tag === "HandshakeFailed")),
        { startImmediately: true }
      )
      const silent = yield* rawConnect({ host: "127.0.0.1", port })
      const lost = yield* Effect.forkChild(event(silent.resume(), "close"), { startImmediately: true })
      while ((yield* server.activeConnections) === 0) yield* loops(1)
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(lost)
      const client = yield* Connection.connect({ host: "localhost", port }, { tls: { ca } })
      yield* next
      yield* client.abort
      const first = Option.getOrThrow(yield* Fiber.join(failed))
      assert(first._tag === "HandshakeFailed")
      assert.strictEqual(first.error._tag, "TimeoutError")
    })
  )

  for (const close of ["end", "resetAndDestroy"] as const) {
    live(
      `T-016, T-032 a peer that goes during the handshake (${close})`,
      Effect.gen(function* () {
        const raw = yield* rawServer()
        const connection = yield* Connection.connect({ host: "localhost", port: raw.port })
        const upgrading = yield* Effect.forkChild(Effect.flip(connection.upgradeTls(clientSide)))
        const socket = yield* raw.next
        yield* event(socket.resume(), "data")
        socket[close]()
        const error = yield* Fiber.join(upgrading)
        assert.strictEqual(reasonOf(error), "ConnectionReset")
        assert.strictEqual(yield* Effect.flip(connection.closed), error)
        assert.strictEqual(yield* Effect.flip(connection.reader.read()), error)
        assert.strictEqual(yield* Effect.flip(connection.writer.write("x")), error)
      })
    )
  }

  live(
    "T-017, T-033 interrupting an upgrade aborts the connection, as closing it does",
    Effect.gen(function* () {
      for (const stop of ["interrupt", "close", "abort"] as const) {
        const raw = yield* rawServer()
        const connection = yield* Connection.connect({ host: "localhost", port: raw.port })
        const upgrading = yield* Effect.forkChild(connection.upgradeTls(clientSide))
        const socket = yield* raw.next
        yield* event(socket.resume(), "data")
        const writing = yield* Effect.forkChild(Effect.flip(connection.writer.write("waits")), {
          startImmediately: true
        })
        if (stop === "interrupt") yield* Fiber.interrupt(upgrading)
        else yield* connection[stop]
        assert.isTrue(Exit.isFailure(yield* Fiber.await(upgrading)))
        assert.strictEqual(reasonOf(yield* Fiber.join(writing)), "ConnectionAborted")
        assert.strictEqual(reasonOf(yield* Effect.flip(connection.reader.read())), "ConnectionAborted")
        yield* connection.closed
      }
    })
  )

  live(
    "a client that is cut off after each byte of its handshake leaves nothing behind",
    Effect.gen(function* () {
      // What a client says first.
      const raw = yield* rawServer()
      yield* Effect.forkChild(
        Effect.exit(Effect.scoped(Connection.connect({ host: "localhost", port: raw.port }, { tls: { ca } })))
      )
      const hello = yield* Effect.promise(async () => {
        const socket = await Effect.runPromise(raw.next)
        const [chunk] = (await once(socket.resume(), "data")) as [Buffer]
        socket.destroy()
        return chunk
      })
      const { port, server } = yield* serving({ tls: { identity } })
      const count = yield* Effect.forkChild(
        server.events.pipe(
          Stream.filter((_) => _._tag === "HandshakeFailed"),
          Stream.take(hello.length),
          Stream.runCount
        ),
        { startImmediately: true }
      )
      for (let n = 0; n < hello.length; n++) {
        const socket = yield* rawConnect({ host: "127.0.0.1", port })
        socket.end(hello.subarray(0, n))
        yield* event(socket.resume(), "close")
      }
      assert.strictEqual(yield* Fiber.join(count), hello.length)
      assert.strictEqual(yield* server.activeConnections, 0)
    })
  )
})

describe("upgradeTls and what was received before", () => {
  live(
    "T-034 plain bytes that were not read: the upgrade fails with their number, and changes nothing",
    Effect.gen(function* () {
      const { client, server } = yield* plainPair()
      yield* server.writer.write("greet\nextra")
      yield* client.reader.peek(11)
      yield* client.reader.readLine
      const error = yield* Effect.flip(client.upgradeTls(clientSide))
      assert(error._tag === "ConnectionError" && error.reason._tag === "PlaintextBuffered", error.message)
      assert.strictEqual(error.reason.bytes, 5)
      assert.include(error.message, "5 bytes")
      assert.strictEqual((yield* client.reader.readExactly(5)).length, 5)
      yield* Effect.all([client.upgradeTls(clientSide), server.upgradeTls(serverSide)], {
        concurrency: "unbounded"
      })
      yield* client.writer.write("over TLS\n")
      assert.deepStrictEqual(yield* server.reader.readLineString, Option.some("over TLS"))
    })
  )

  live(
    "they can be discarded",
    Effect.gen(function* () {
      const { client, server } = yield* plainPair()
      yield* server.writer.write("injected")
      yield* client.reader.peek(8)
      yield* Effect.all(
        [client.upgradeTls({ ...clientSide, leftover: "discard" }), server.upgradeTls(serverSide)],
        { concurrency: "unbounded" }
      )
      yield* server.writer.write("over TLS\n")
      assert.deepStrictEqual(yield* client.reader.readLineString, Option.some("over TLS"))
    })
  )

  live(
    "T-035 a header and the first TLS message in one segment: fed to the handshake",
    Effect.gen(function* () {
      const { next, port } = yield* serving()
      const proxy = yield* rawServer()
      const connecting = yield* Effect.forkChild(
        Connection.connect({ host: "localhost", port: proxy.port }, { closeTimeout, tls: { ca } })
      )
      const front = yield* proxy.next
      const back = yield* rawConnect({ host: "127.0.0.1", port })
      front.once("data", (hello: Buffer) => {
        back.write(Buffer.concat([Buffer.from("PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n"), hello]))
        front.pipe(back)
      })
      front.resume()
      back.pipe(front)
      const server = yield* next
      yield* server.reader.peek(40)
      yield* server.reader.readLine
      yield* server.upgradeTls({ ...serverSide, leftover: "feed" })
      const client = yield* Fiber.join(connecting)
      yield* client.writer.write("hello\n")
      assert.deepStrictEqual(yield* server.reader.readLineString, Option.some("hello"))
    })
  )

  live(
    "T-030 wrong options are a defect, and the connection stays usable",
    Effect.gen(function* () {
      const { client, server } = yield* plainPair()
      const exit = yield* Effect.exit(client.upgradeTls({ role: "client", servername: "" }))
      assert.isTrue(Exit.hasDies(exit))
      // A server's connection was connected to nobody: whom it is to verify has to be said.
      assert.isTrue(Exit.hasDies(yield* Effect.exit(server.upgradeTls(clientSide))))
      yield* client.writer.write("plain\n")
      assert.deepStrictEqual(yield* server.reader.readLineString, Option.some("plain"))
    })
  )

  live(
    "T-031 a peer that answers rubbish: a TLS error, which reads and writes fail with from then on",
    Effect.gen(function* () {
      const { client, server } = yield* plainPair()
      const upgrading = yield* Effect.forkChild(Effect.flip(client.upgradeTls(clientSide)))
      yield* server.reader.read()
      yield* server.writer.write("502 what do you mean?\r\n")
      const error = yield* Fiber.join(upgrading)
      assert.strictEqual(reasonOf(error), "TlsError")
      assert.strictEqual(yield* Effect.flip(client.reader.read()), error)
      assert.strictEqual(yield* Effect.flip(client.closed), error)
    })
  )

  live(
    "T-036, T-037 what was written before precedes the handshake, what is written meanwhile follows it",
    Effect.gen(function* () {
      const { client, server } = yield* plainPair()
      const plain = 5_000_000
      yield* Effect.forkChild(client.writer.write(new Uint8Array(plain)), { startImmediately: true })
      const upgrading = yield* Effect.forkChild(client.upgradeTls(clientSide), { startImmediately: true })
      const writing = yield* Effect.forkChild(client.writer.write(new Uint8Array(plain).fill(1)), {
        startImmediately: true
      })
      yield* server.reader.skip(plain)
      // The write that came before the handshake has begun is plain as well.
      const next = yield* server.reader.peek(1)
      if (next[0] === 1) yield* server.reader.skip(plain)
      yield* server.upgradeTls({ ...serverSide, leftover: "feed" })
      yield* Fiber.join(upgrading)
      if (next[0] !== 1) yield* server.reader.skip(plain)
      yield* Fiber.join(writing)
      // The reader holds back the connection over TLS.
      const flooding = yield* Effect.forkChild(server.writer.write(new Uint8Array(16_777_216)), {
        startImmediately: true
      })
      yield* client.reader.skip(1000)
      assert.isUndefined(flooding.pollUnsafe())
      yield* client.reader.skip(16_776_216)
      yield* Fiber.join(flooding)
    })
  )

  live(
    "T-038 once only",
    Effect.gen(function* () {
      const { client } = yield* securePair()
      assert.strictEqual(reasonOf(yield* Effect.flip(client.upgradeTls(clientSide))), "Unsupported")
      assert.strictEqual(client.info.transport, "tls")
      const [memory] = yield* Connection.pair()
      const error = yield* Effect.flip(memory.upgradeTls({ ...clientSide, servername: "x" }))
      assert.strictEqual(reasonOf(error), "Unsupported")
      yield* memory.writer.write("still there")
    })
  )

  live(
    "a busy connection, which reads into a buffer of its own by then",
    Effect.gen(function* () {
      const { client, server } = yield* plainPair()
      for (let n = 0; n < 60; n++) {
        yield* client.writer.write("ping\n")
        yield* server.reader.readLine
        yield* server.writer.write("pong\n")
        yield* client.reader.readLine
      }
      yield* Effect.all([client.upgradeTls(clientSide), server.upgradeTls(serverSide)], {
        concurrency: "unbounded"
      })
      const sent = randomBytes(1_000_000)
      yield* Effect.forkChild(client.writer.write(sent))
      assert.isTrue(sent.equals(yield* server.reader.readExactly(sent.length)))
    })
  )
})

describe("through a proxy", () => {
  live(
    "TLS is spoken with the target, inside the tunnel",
    Effect.gen(function* () {
      const port = yield* secureEcho()
      // A proxy that knows one target.
      const proxy = yield* Server.serve(
        Effect.fnUntraced(function* ({ reader, writer }: Connection.Connection) {
          yield* reader.readUntil("\r\n\r\n")
          const target = yield* Connection.connect({ host: "127.0.0.1", port })
          yield* writer.write("HTTP/1.1 200 OK\r\n\r\n")
          yield* Effect.all(
            [Stream.run(reader.stream, target.writer.sink), Stream.run(target.reader.stream, writer.sink)],
            {
              concurrency: "unbounded"
            }
          )
        }),
        { listen }
      )
      const { info, reader, writer } = yield* Connection.connect(
        { host: "localhost", port },
        { proxy: Proxy.httpConnect(`127.0.0.1:${portOf(proxy.addresses[0])}`), tls: { ca } }
      )
      yield* writer.write("hello\n")
      assert.deepStrictEqual(yield* reader.readLineString, Option.some("hello"))
      assert.strictEqual(info.transport, "tls")
      assert.strictEqual(info.tls?.servername, "localhost")
    })
  )
})

describe("options out of range", () => {
  const defect = (options: Tls.ClientOptions, target: Network.Target = "localhost:1") =>
    Effect.map(Effect.exit(Effect.scoped(Connection.connect(target, { tls: options }))), (exit) => {
      assert.isTrue(Exit.hasDies(exit), JSON.stringify(options))
    })

  live(
    "T-003, T-007, T-040 are defects, before anything is connected",
    Effect.gen(function* () {
      yield* defect({ handshakeTimeout: 0 })
      yield* defect({ handshakeTimeout: -1 })
      yield* defect({ servername: "" })
      yield* defect({ alpn: [""] })
      yield* defect({ ca: "" })
      yield* defect({ minVersion: "TLSv1.3", maxVersion: "TLSv1.2" })
      // Nobody to verify.
      yield* defect({ ca }, { path: "/nowhere" })
    })
  )
})

describe("TlsReloader", () => {
  live(
    "new handshakes show the new certificate, connections stay, and a bad pair changes nothing",
    Effect.gen(function* () {
      const first = authority.issue({ name: "first" })
      const second = authority.issue({ name: "second" })
      let next: Tls.Identity = first
      const identity = yield* TlsReloader.make(Effect.sync(() => next))
      const port = yield* secureEcho({ identity })
      const connect = Connection.connect({ host: "localhost", port }, { tls: { ca } })
      const shownTo = (connection: Connection.Connection) =>
        connection.info.tls?.peerCertificate?.subject["CN"]
      const old = yield* connect
      assert.strictEqual(shownTo(old), "first")
      assert.isFalse(yield* identity.reload)

      next = { certificate: second.certificate, key: first.key }
      const bad = yield* Effect.flip(identity.reload)
      assert.strictEqual(bad.kind, "InvalidIdentity")
      next = authority.issue({ from: "20200101000000Z", to: "20200102000000Z" })
      assert.strictEqual((yield* Effect.flip(identity.reload)).kind, "CertificateExpired")
      assert.strictEqual(shownTo(yield* connect), "first")

      next = second
      assert.isTrue(yield* identity.reload)
      assert.strictEqual((yield* identity.certificate).subject["CN"], "second")
      assert.strictEqual(shownTo(yield* connect), "second")
      yield* old.writer.write("still there\n")
      assert.deepStrictEqual(yield* old.reader.readLineString, Option.some("still there"))
    })
  )

  timed(
    "a certificate is not switched to, nor begun with, before its time",
    Effect.gen(function* () {
      const from = Date.parse("2030-06-01T00:00:00Z")
      yield* TestClock.setTime(from - 1)
      const early = authority.issue({ name: "early", from: "20300601000000Z", to: "20310601000000Z" })
      const failure = yield* Effect.flip(TlsReloader.make(Effect.succeed(early)))
      assert.strictEqual(failure.kind, "CertificateNotYetValid")

      const present = authority.issue({ name: "present", from: "20300101000000Z", to: "20310101000000Z" })
      let next: Tls.Identity = present
      const reloader = yield* TlsReloader.make(Effect.sync(() => next))
      next = early
      const error = yield* Effect.flip(reloader.reload)
      assert.strictEqual(error.kind, "CertificateNotYetValid")
      assert.include(error.message, "2030-06-01T00:00:00.000Z")
      assert.strictEqual(reloader.current(), present)

      yield* TestClock.adjust("1 millis")
      assert.isTrue(yield* reloader.reload)
      assert.strictEqual(reloader.current(), early)
    })
  )

  const logged: Array<string> = []
  const logger = Logger.make<unknown, void>(({ cause, fiber, logLevel, message }) => {
    const why = Cause.hasInterruptsOnly(cause) ? "interrupted" : String(Cause.squash(cause))
    const { certificate } = fiber.getRef(References.CurrentLogAnnotations)
    logged.push(`${logLevel} ${String(message)}: ${why} [${String(certificate)}]`)
  })

  timed(
    "goes on after a load that dies and after a report that dies, and says both in the log",
    Effect.gen(function* () {
      yield* TestClock.setTime(Date.now())
      const renewed = authority.issue({ name: "renewed" })
      let loads = 0
      const load = Effect.suspend(() => {
        loads++
        if (loads === 2) throw new Error("a bug in load")
        if (loads === 3) return Effect.fail("not there")
        if (loads === 4) return Effect.interrupt
        return Effect.succeed(loads === 1 ? identity : renewed)
      })
      const reloader = yield* TlsReloader.make(load, {
        every: "1 hour",
        onError: () => Effect.die(new Error("a bug in onError"))
      })
      yield* TestClock.adjust("2 hours")
      assert.strictEqual(loads, 5)
      assert.strictEqual((yield* reloader.certificate).subject["CN"], "renewed")
      assert.deepStrictEqual(logged, [
        "Error TLS reload failed: Error: a bug in load [DNS:localhost, IP Address:127.0.0.1]",
        "Error onError of a TLS reload failed: Error: a bug in onError [DNS:localhost, IP Address:127.0.0.1]",
        "Error TLS reload failed: interrupted [DNS:localhost, IP Address:127.0.0.1]"
      ])
    }).pipe(Effect.provide(Logger.layer([logger])))
  )

  timed(
    "a pair that does not work is loaded again after 1, 2, 4, … seconds, and never later than `every`",
    Effect.gen(function* () {
      yield* TestClock.setTime(Date.now())
      const loads: Array<number> = []
      const began = yield* Clock.currentTimeMillis
      let next: Tls.Identity = identity
      yield* TlsReloader.make(
        Effect.gen(function* () {
          loads.push(((yield* Clock.currentTimeMillis) - began) / 1000)
          return next
        }),
        { every: "10 seconds", onError: () => Effect.void }
      )
      next = { certificate: identity.certificate, key: authority.issue().key }
      yield* TestClock.adjust("45 seconds")
      next = identity
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(loads, [0, 10, 11, 13, 17, 25, 35, 45, 55, 65, 75])
    })
  )

  timed(
    "files are loaded again at intervals, and what goes wrong is reported",
    Effect.gen(function* () {
      const directory = yield* tempDirectory
      const certificate = path.join(directory, "certificate.pem")
      const key = path.join(directory, "key.pem")
      const put = (issued: Issued) => {
        fs.writeFileSync(certificate, issued.certificate)
        fs.writeFileSync(key, issued.key)
      }
      yield* TestClock.setTime(Date.now())
      put(identity)
      const reports = yield* Queue.unbounded<string>()
      const reloader = yield* TlsReloader.make(TlsReloader.files({ certificate, key }), {
        every: "1 hour",
        onError: (error) => Queue.offer(reports, error._tag)
      })
      const name = Effect.map(reloader.certificate, ({ subject }) => subject["CN"])
      fs.rmSync(key)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* Queue.take(reports), "PlatformError")
      // Empty is what a file is while somebody writes it.
      for (const [file, content, detail] of [
        [key, "nonsense", "`key` has no private key in PEM"],
        [key, "", "`key` has no private key in PEM"],
        [certificate, "", "`certificate` has no certificate in PEM"]
      ] as const) {
        fs.writeFileSync(file, content)
        const error = yield* Effect.flip(reloader.reload)
        assert(error._tag === "TlsError" && error.kind === "InvalidIdentity")
        assert.include(error.message, detail)
        const first = yield* Effect.flip(TlsReloader.make(TlsReloader.files({ certificate, key })))
        assert.strictEqual(first.message, error.message)
      }
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* Queue.take(reports), "TlsError")
      assert.strictEqual(yield* name, "localhost")
      put(authority.issue({ name: "renewed" }))
      yield* TestClock.adjust("1 hour")
      while ((yield* name) !== "renewed") yield* loops(1)
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )
})
