import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Fiber, Option, Redacted, type Scope, Stream } from "effect"
import { Connection, type Network, Server, type Tls } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { randomBytes } from "node:crypto"
import { Authority } from "../support/certificates.ts"
import { leavingNothing, portOf, rawConnect, rawServer } from "../support/sockets.ts"

const live = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>): void =>
  it.live(title, () => leavingNothing(Effect.scoped(effect)).pipe(Effect.provide(NodeNetwork.layer)))

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
    "T-001, T-012 a client and a server: bytes both ways, and the facts of the connection",
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
      assert.isBelow(
        DateTime.toEpochMillis(certificate.validFrom),
        DateTime.toEpochMillis(certificate.validTo)
      )
      assert.isAbove(certificate.raw.length, 200)
      yield* connection.close
      yield* connection.closed
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
