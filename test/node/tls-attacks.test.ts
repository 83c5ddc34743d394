import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Logger, Option, Result, type Scope, Stream } from "effect"
import { Connection, type Network, Server, StreamError, Tls, TlsReloader } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { once } from "node:events"
import * as net from "node:net"
import nodeTls, * as tls from "node:tls"
import { vi } from "vitest"
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

/** The first handshake that fails. */
const firstFailure = (server: Server.Server) =>
  Stream.runHead(
    Stream.filterMap(server.events, (_) =>
      _._tag === "HandshakeFailed" ? Result.succeed(_.error) : Result.failVoid
    )
  ).pipe(Effect.map(Option.getOrThrow), Effect.forkChild({ startImmediately: true }))

const reasonOf = (error: StreamError.StreamError): StreamError.TlsError => {
  assert(error._tag === "ConnectionError" && error.reason._tag === "TlsError", error.message)
  return error.reason
}

describe("a certificate whose dates are none", () => {
  const never = "991399000000Z"
  const forge = (to: string) => authority.withDates(authority.issue({ name: "client-7" }), never, to)
  const forged = forge("491231235959Z")
  const ca = authority.certificate

  for (const [kind, whose] of [
    ["BadCertificate", forged],
    ["CertificateExpired", forge("200102000000Z")]
  ] as const) {
    live(
      `a client's: the client is refused by its name, and the next one is served (${kind})`,
      Effect.gen(function* () {
        const server = yield* Server.serve(echo, {
          listen,
          tls: { identity, ca, clientCertificate: "require" },
          onError: () => Effect.void
        })
        const failed = yield* firstFailure(server)
        const target = { host: "localhost", port: portOf(server.addresses[0]) }
        const visit = (identity: Tls.Identity) =>
          Connection.use(target, { tls: { ca, identity } }, ({ reader, writer }) =>
            Effect.andThen(writer.write("x"), reader.readExactly(1))
          )
        yield* Effect.exit(visit(whose))
        const reason = reasonOf(yield* Fiber.join(failed))
        assert.strictEqual(reason.kind, kind)
        assert.include(reason.message, "client-7")
        yield* visit(authority.issue())
      })
    )
  }

  live(
    "a server's: it is refused, and can be looked at without being verified",
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, { listen, tls: { identity: forged } })
      const target = { host: "localhost", port: portOf(server.addresses[0]) }
      const error = yield* Effect.flip(Effect.scoped(Connection.connect(target, { tls: { ca } })))
      assert.strictEqual(reasonOf(error).kind, "BadCertificate")
      const { info } = yield* Connection.connect(target, { tls: { ca, verify: false } })
      const certificate = info.tls?.peerCertificate
      assert.strictEqual(certificate?.subject["CN"], "client-7")
      assert.isUndefined(certificate?.validFrom)
      assert.isDefined(certificate?.validTo)
    })
  )

  live(
    "and what is held against a certificate in words that are not known here: a bad one, of the host",
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, { listen, tls: { identity } })
      const check = vi.spyOn(nodeTls, "checkServerIdentity")
      check.mockReturnValue(Object.assign(new Error("too round"), { code: "CERT_TOO_ROUND" }))
      const error = yield* Effect.flip(
        Connection.connect({ host: "localhost", port: portOf(server.addresses[0]) }, { tls: { ca } })
      ).pipe(Effect.ensuring(Effect.sync(() => check.mockRestore())))
      const { code, kind, message } = reasonOf(error)
      assert.deepStrictEqual([kind, code], ["BadCertificate", "CERT_TOO_ROUND"])
      assert.strictEqual(message, "the certificate of localhost is not accepted: too round")
    })
  )

  live(
    "the own: a reloader does not begin with it",
    Effect.gen(function* () {
      const error = yield* Effect.flip(TlsReloader.make(Effect.succeed(forged)))
      assert.strictEqual(error.kind, "InvalidIdentity")
      assert.include(error.message, "date")
    })
  )
})

describe("what throws while a handshake is looked at", () => {
  for (const side of ["client", "server"] as const) {
    live(
      `is the ${side}'s failure of the handshake, and the process goes on`,
      Effect.gen(function* () {
        const server = yield* Server.serve(echo, { listen, tls: { identity } })
        const failed = yield* firstFailure(server)
        const target = { host: "localhost", port: portOf(server.addresses[0]) }
        const read = vi.spyOn(tls.TLSSocket.prototype, "getProtocol")
        read.mockImplementation(function (this: tls.TLSSocket) {
          const isServer: unknown = Reflect.get(Object(Reflect.get(this, "_tlsOptions")), "isServer")
          if ((isServer === true) === (side === "server")) throw new Error("out of order")
          return "TLSv1.3"
        })
        const connect = Connection.connect(target, { tls: { ca: authority.certificate } })
        const error = yield* (
          side === "client" ? Effect.flip(connect) : Effect.andThen(Effect.exit(connect), Fiber.join(failed))
        ).pipe(Effect.ensuring(Effect.sync(() => read.mockRestore())))
        const { kind, message } = reasonOf(error)
        assert.strictEqual(kind, "Failed")
        assert.include(message, "out of order")
      })
    )
  }
})

describe("an identity that cannot be had when a client comes", () => {
  for (const servername of ["one.example", "localhost"]) {
    live(
      `for ${servername}: fails that handshake, and the next client is served`,
      Effect.gen(function* () {
        let isBroken = false
        const source: Tls.IdentitySource = {
          current: () => {
            if (isBroken) throw new Error("out of order")
            return identity
          }
        }
        const server = yield* Server.serve(echo, {
          listen,
          tls:
            servername === "localhost" ? { identity: source } : { identity, names: { [servername]: source } }
        })
        const failed = yield* firstFailure(server)
        const target = { host: "127.0.0.1", port: portOf(server.addresses[0]) }
        const connect = Connection.connect(target, { tls: { servername, verify: false } })
        isBroken = true
        yield* Effect.flip(connect)
        const { kind, message } = reasonOf(yield* Fiber.join(failed))
        assert.strictEqual(kind, "InvalidIdentity")
        assert.include(message, "out of order")
        isBroken = false
        yield* connect
      })
    )
  }
})

describe("a cache of sessions that does not work", () => {
  const ca = authority.certificate

  const visit = (port: number, sessions: Tls.SessionCache) =>
    Effect.scoped(
      Effect.gen(function* () {
        const { info, reader, writer } = yield* Connection.connect(
          { host: "localhost", port },
          { tls: { ca, sessions } }
        )
        yield* writer.write("x")
        yield* reader.readExactly(1)
        return info.tls?.resumed
      })
    )

  const logging = Effect.fnUntraced(function* <A, E, R>(body: Effect.Effect<A, E, R>) {
    const logged: Array<string> = []
    const logger = Logger.make<unknown, void>(({ cause, logLevel, message }) => {
      logged.push(`${logLevel} ${String(message)}: ${String(Cause.squash(cause))}`)
    })
    yield* Effect.provide(body, Logger.layer([logger]))
    return logged
  })

  const oops = (): never => {
    throw new Error("disk full")
  }
  const good = Tls.sessionCache()

  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    for (const [what, make, expected] of [
      ["get throws", (): Tls.SessionCache => ({ ...good, get: oops }), "Error: disk full"],
      ["set throws", (): Tls.SessionCache => ({ ...good, set: oops }), "Error: disk full"],
      ["get gives bytes that are too few", () => ({ ...good, get: () => new Uint8Array(3) }), undefined],
      [
        "get gives a length that is none",
        () => ({ ...good, get: () => new Uint8Array(9).fill(255) }),
        undefined
      ],
      [
        "get gives no certificate",
        () => ({ ...good, get: () => new Uint8Array([0, 0, 0, 1, 2, 3]) }),
        undefined
      ]
    ] as const) {
      live(
        `${what}: as if there were none, and said in the log once (${maxVersion})`,
        Effect.gen(function* () {
          const server = yield* Server.serve(echo, { listen, tls: { identity, maxVersion } })
          const port = portOf(server.addresses[0])
          const cache = make()
          const logged = yield* logging(
            Effect.gen(function* () {
              for (let n = 0; n < 3; n++) assert.isFalse(yield* visit(port, cache))
            })
          )
          assert.lengthOf(logged, 1)
          assert.include(logged[0], expected ?? "not a session that it was given")
        })
      )
    }

    live(
      `a session that is damaged anywhere is none (${maxVersion})`,
      Effect.gen(function* () {
        const server = yield* Server.serve(echo, { listen, tls: { identity, maxVersion } })
        const port = portOf(server.addresses[0])
        const whole = new Map<string, Uint8Array>()
        yield* visit(port, { get: () => undefined, set: (name, session) => whole.set(name, session) })
        const [session = new Uint8Array()] = whole.values()
        assert.isAbove(session.length, 100)
        yield* logging(
          Effect.gen(function* () {
            for (let at = 0; at < session.length; at += 29) {
              const damaged = session.slice()
              damaged[at] = ~(damaged[at] ?? 0)
              assert.isFalse(yield* visit(port, { get: () => damaged, set: () => {} }))
              assert.isFalse(yield* visit(port, { get: () => session.slice(0, at), set: () => {} }))
            }
          })
        )
      })
    )
  }
})
