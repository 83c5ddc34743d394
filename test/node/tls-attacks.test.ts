import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, type Scope, Stream } from "effect"
import { Connection, type Network, Server, StreamError, Tls } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { once } from "node:events"
import * as net from "node:net"
import * as tls from "node:tls"
import { Authority } from "../support/certificates.ts"
import { leavingNothing, portOf } from "../support/sockets.ts"

const live = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>): void =>
  it.live(title, () => leavingNothing(Effect.scoped(effect)).pipe(Effect.provide(NodeNetwork.layer)))

const authority = new Authority()
const identity = authority.issue()
const listen = { host: "127.0.0.1" }

const echo = ({ reader, writer }: Connection.Connection) => Stream.run(reader.stream, writer.sink)

/** The code and the kind of the TLS failure that a read died of. */
const tlsFailure = (exit: Exit.Exit<unknown, unknown>): string => {
  const error = Exit.isFailure(exit)
    ? exit.cause.reasons.map((_) => ("error" in _ ? _.error : undefined))[0]
    : undefined
  return error instanceof StreamError.ConnectionError ? error.reason._tag : String(exit)
}

/** A well-formed record of application data that nobody who has the keys has made. */
const forged = Buffer.concat([Buffer.from([0x17, 0x03, 0x03, 0x00, 0x20]), Buffer.alloc(32, 1)])

describe.each(["TLSv1.2", "TLSv1.3"] as const)("a forged record, %s", (maxVersion) => {
  live(
    "ends a server's connection with a TLS error, and never waits",
    Effect.gen(function* () {
      const seen = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
      const server = yield* Server.serve(
        ({ reader, writer }) =>
          writer.write("hello").pipe(
            Effect.andThen(Effect.exit(reader.read())),
            Effect.flatMap((exit) => Deferred.succeed(seen, exit))
          ),
        { listen, tls: { identity, maxVersion } }
      )
      const raw = net.connect(portOf(server.addresses[0]), "127.0.0.1")
      const client = tls.connect({ socket: raw, rejectUnauthorized: false })
      client.on("error", () => {})
      raw.on("error", () => {})
      yield* Effect.addFinalizer(() => Effect.sync(() => raw.destroy()))
      // Only then has the server seen the end of the handshake. Its "hello" is just on its way.
      client.once("data", () => raw.write(forged))
      assert.strictEqual(tlsFailure(yield* Deferred.await(seen)), "TlsError")
    })
  )

  live(
    "ends a client's connection with a TLS error",
    Effect.gen(function* () {
      const server = net.createServer((raw) => {
        const socket = new tls.TLSSocket(raw, {
          isServer: true,
          cert: identity.certificate,
          key: identity.key,
          maxVersion
        })
        socket.on("error", () => {})
        socket.once("data", () => raw.write(forged))
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => server.close()))
      yield* Effect.promise(() => once(server.listen(0, "127.0.0.1"), "listening"))
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      const connection = yield* Connection.connect(
        { host: "localhost", port },
        { tls: { ca: authority.certificate } }
      )
      yield* connection.writer.write("hello")
      assert.strictEqual(tlsFailure(yield* Effect.exit(connection.reader.read())), "TlsError")
    })
  )
})

describe("renegotiation", () => {
  live(
    "is refused to a client of TLS 1.2",
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, {
        listen,
        tls: { identity, maxVersion: "TLSv1.2" },
        onError: () => Effect.void
      })
      const client = tls.connect({
        port: portOf(server.addresses[0]),
        host: "127.0.0.1",
        rejectUnauthorized: false
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => client.destroy()))
      yield* Effect.promise(() => once(client, "secureConnect"))
      const answer = yield* Effect.callback<unknown>((resume) => {
        client.on("error", (error) => resume(Effect.succeed(error)))
        client.renegotiate({}, (error) => resume(Effect.succeed(error)))
      })
      assert.match(String(answer), /no renegotiation/i)
    })
  )
})

describe.each(["TLSv1.2", "TLSv1.3"] as const)("a cache of sessions that clients share, %s", (maxVersion) => {
  /** Connects once, long enough to be given a session. */
  const visit = (port: number, options: Tls.ClientOptions) =>
    Effect.scoped(
      Effect.gen(function* () {
        const { info, reader, writer } = yield* Connection.connect(
          { host: "localhost", port },
          { tls: options }
        )
        yield* writer.write("x")
        yield* reader.readExactly(1)
        return info.tls?.resumed
      })
    )

  live(
    "resumes nothing for a client that trusts somebody else",
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, { listen, tls: { identity, maxVersion } })
      const port = portOf(server.addresses[0])
      const sessions = Tls.sessionCache()
      const ca = authority.certificate
      yield* visit(port, { ca, sessions })
      assert.isTrue(yield* visit(port, { ca, sessions }), "other options, the same trust")
      const other = new Authority("Another CA").certificate
      const exit = yield* Effect.exit(visit(port, { ca: other, sessions }))
      assert.strictEqual(tlsFailure(exit), "TlsError")
    })
  )

  live(
    "resumes nothing for a client that is somebody else",
    Effect.gen(function* () {
      const ca = authority.certificate
      const server = yield* Server.serve(echo, {
        listen,
        tls: { identity, ca, clientCertificate: "require", maxVersion }
      })
      const port = portOf(server.addresses[0])
      const sessions = Tls.sessionCache()
      const alice = authority.issue({ name: "alice" })
      yield* visit(port, { ca, sessions, identity: alice })
      assert.isTrue(yield* visit(port, { ca, sessions, identity: { ...alice } }), "the same certificate")
      assert.isFalse(yield* visit(port, { ca, sessions, identity: authority.issue({ name: "bob" }) }))
    })
  )
})
