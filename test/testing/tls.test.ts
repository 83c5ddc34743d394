import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Logger, Option, References, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Connection, Network, Proxy, Relay, Server, StreamError, Tls, type Transport } from "effect-wire"
import { Conformance, TestNetwork } from "effect-wire/testing"
import { outcome, outcomeOf, start, turns } from "../support/effects.ts"

const identity = TestNetwork.identity({ names: ["service.test", "*.service.test"] })

const network = TestNetwork.layerWith({
  hosts: { "service.test": ["10.0.0.1"], "proxy.test": ["10.0.0.9"] }
})

const test = <A, E>(name: string, body: () => Effect.Effect<A, E, Network.Network | Scope.Scope>): void => {
  it.effect(name, () => Effect.scoped(Effect.suspend(body)).pipe(Effect.provide(network)))
}

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)

const ignore: Transport.Handler = { onData() {}, onEnd() {}, onDrain() {}, onClosed() {} }

/** Two ends of simulated TLS, neither started. */
const securedPair = (options?: Partial<Tls.CommonOptions>) =>
  Effect.gen(function* () {
    const network = yield* TestNetwork.make()
    const listener = yield* network.listen({ host: "127.0.0.1" })
    const near = yield* network.connect(listener.address)
    const far = yield* listener.accept
    for (const transport of [near, far]) transport.start(ignore)
    const upgrade = (transport: Transport.Transport, handshake: Tls.Handshake) =>
      transport.upgradeTls?.(handshake, new Uint8Array(0)) ?? Effect.die("no TLS")
    return yield* Effect.all(
      [
        upgrade(near, Tls.clientHandshake(Tls.checkClient({ ...options }), "service.test")),
        upgrade(far, Tls.serverHandshake(Tls.checkServer({ ...options, identity })))
      ],
      { concurrency: "unbounded" }
    )
  })

describe("simulated TLS 1.3", () => Conformance.transport(Conformance.layerPair(securedPair())))

describe("simulated TLS 1.2", () =>
  Conformance.transport(
    Conformance.layerPair(securedPair({ maxVersion: "TLSv1.2" }), { halfClose: false, linger: true })
  ))

/** A client and a server, connected and not upgraded. */
const plainPair = Effect.fnUntraced(function* () {
  const network = yield* Network.Network
  const listener = yield* network.listen({ host: "10.0.0.1", port: 0 })
  const client = yield* Connection.connect(listener.address)
  const server = yield* Connection.make(yield* listener.accept)
  yield* Effect.addFinalizer(() => Effect.all([client.abort, server.abort], { discard: true }))
  return { client, server }
})

const both = <A, E, B, E2>(client: Effect.Effect<A, E>, server: Effect.Effect<B, E2>) =>
  Effect.all([Effect.exit(client), Effect.exit(server)], { concurrency: "unbounded" })

const echo = ({ reader, writer }: Connection.Connection) => Stream.run(reader.stream, writer.sink)

const kindOf = (exit: Exit.Exit<unknown, unknown>): string => {
  const error = Exit.isFailure(exit) ? Option.getOrUndefined(Exit.findErrorOption(exit)) : undefined
  return error instanceof StreamError.ConnectionError && error.reason._tag === "TlsError"
    ? error.reason.kind
    : outcome(exit)
}

describe("a handshake", () => {
  test("agrees on a version, a protocol and a name, and both sides can see it", () =>
    Effect.gen(function* () {
      const seen: Array<Tls.TlsInfo | undefined> = []
      yield* Server.serve(
        (connection) => {
          seen.push(connection.info.tls)
          return echo(connection)
        },
        {
          listen: { host: "10.0.0.1", port: 443 },
          tls: { identity, alpn: ["b", "a"], clientCertificate: "request" }
        }
      )
      const client = yield* Connection.connect("service.test:443", {
        tls: { alpn: ["a", "b", "c"], identity: TestNetwork.identity({ names: ["me"] }) }
      })
      const { info } = client
      assert.strictEqual(info.transport, "tls")
      assert.include(info.tls, {
        protocol: "TLSv1.3",
        alpn: "b",
        servername: "service.test",
        authorized: true,
        resumed: false
      })
      assert.deepStrictEqual(info.tls?.peerCertificate?.subjectAltName, [
        "DNS:service.test",
        "DNS:*.service.test"
      ])
      const sent = new Uint8Array(200_000).map((_, i) => i % 251)
      yield* Effect.forkChild(client.writer.write(sent))
      assert.deepStrictEqual(yield* client.reader.readExactly(sent.length), sent)
      assert.include(seen[0], {
        protocol: "TLSv1.3",
        alpn: "b",
        servername: "service.test",
        authorized: true
      })
      assert.strictEqual(seen[0]?.peerCertificate?.subject["CN"], "me")
    }))

  test("shows the identity for the name, and takes the highest version of both", () =>
    Effect.gen(function* () {
      yield* Server.serve(echo, {
        listen: { host: "10.0.0.1", port: 443 },
        tls: { identity, names: { "*.other.test": TestNetwork.identity({ names: ["a.other.test"] }) } }
      })
      const named = yield* Connection.connect("service.test:443", {
        tls: { servername: "a.other.test", maxVersion: "TLSv1.2" }
      })
      assert.deepStrictEqual(
        [named.info.tls?.peerCertificate?.subject["CN"], named.info.tls?.protocol, named.writer.canEnd],
        ["a.other.test", "TLSv1.2", false]
      )
    }))

  const alice = TestNetwork.identity({ names: ["alice"] })
  const lonely = TestNetwork.identity({ names: ["service.test"], selfSigned: true })
  const refusals: ReadonlyArray<
    readonly [
      client: string,
      server: string,
      clientOptions: Tls.ClientOptions,
      serverOptions: Partial<Tls.ServerOptions>
    ]
  > = [
    ["success", "success", {}, {}],
    ["WrongHost", "Refused", { servername: "other.test" }, {}],
    ["WrongHost", "Refused", { servername: "a.b.service.test" }, {}],
    ["success", "success", { servername: "a.service.test" }, {}],
    [
      "success",
      "success",
      { servername: "bücher.test" },
      { identity: TestNetwork.identity({ names: ["*.test", "Bücher.test"] }) }
    ],
    ["success", "success", { servername: false }, {}],
    ["success", "success", { servername: "other.test", verify: false }, {}],
    ["NoSharedAlpn", "NoSharedAlpn", { alpn: ["a"] }, { alpn: ["b"] }],
    ["success", "success", { alpn: ["a"] }, {}],
    ["success", "success", {}, { alpn: ["b"] }],
    ["NoSharedVersion", "NoSharedVersion", { minVersion: "TLSv1.3" }, { maxVersion: "TLSv1.2" }],
    ["ClientCertificateRequired", "ClientCertificateRequired", {}, { clientCertificate: "require" }],
    ["success", "success", { identity: alice }, { clientCertificate: "require" }],
    ["Refused", "UnknownCa", { identity: alice }, { clientCertificate: "require", ca: "another" }],
    ["success", "success", {}, { clientCertificate: "request" }],
    ["SelfSigned", "Refused", {}, { identity: lonely }],
    ["success", "success", { ca: lonely.certificate }, { identity: lonely }],
    ["UnknownCa", "Refused", { ca: lonely.certificate }, {}],
    ["success", "success", { extraCa: lonely.certificate }, {}],
    ["success", "success", { extraCa: lonely.certificate }, { identity: lonely }],
    ["success", "success", { ca: "another", extraCa: [lonely.certificate] }, { identity: lonely }],
    ["UnknownCa", "Refused", { ca: "another", extraCa: lonely.certificate }, {}],
    [
      "CertificateExpired",
      "Refused",
      {},
      { identity: TestNetwork.identity({ names: ["service.test"], validTo: "2020-01-01T00:00:00Z" }) }
    ],
    [
      "CertificateNotYetValid",
      "Refused",
      {},
      { identity: TestNetwork.identity({ names: ["service.test"], validFrom: "2030-01-01T00:00:00Z" }) }
    ],
    ["success", "success", {}, { identity: { certificate: "of another kind", key: "none" } }]
  ]
  for (const [onClient, onServer, clientOptions, serverOptions] of refusals) {
    test(`${onClient} and ${onServer}: ${JSON.stringify([clientOptions, serverOptions])}`, () =>
      Effect.gen(function* () {
        yield* TestClock.setTime(Date.UTC(2025, 0, 1))
        const { client, server } = yield* plainPair()
        const exits = yield* both(
          client.upgradeTls({ role: "client", servername: "service.test", ...clientOptions }),
          server.upgradeTls({ role: "server", identity, ...serverOptions })
        )
        assert.deepStrictEqual(exits.map(kindOf), [onClient, onServer])
        if (onClient === "success") {
          const isVerified = clientOptions.verify !== false
          assert.strictEqual(client.info.tls?.authorized, isVerified)
          assert.strictEqual(server.info.tls?.authorized, clientOptions.identity !== undefined)
        } else {
          yield* turns
          for (const { closed, reader } of [client, server]) {
            assert.strictEqual(kindOf(yield* Effect.exit(closed)), kindOf(yield* Effect.exit(reader.read())))
          }
        }
      }))
  }

  test("of a peer that says nothing ends with handshakeTimeout", () =>
    Effect.gen(function* () {
      const { client, server } = yield* plainPair()
      const upgrading = yield* start(
        client.upgradeTls({ role: "client", servername: "x", handshakeTimeout: "3 seconds" })
      )
      yield* TestClock.adjust("2999 millis")
      assert.strictEqual(outcome(upgrading), "waiting")
      yield* TestClock.adjust("1 millis")
      yield* turns
      assert.strictEqual(outcome(upgrading), "TimeoutError handshake")
      assert.strictEqual(yield* outcomeOf(server.closed), "ConnectionReset")
    }))

  test("with somebody who speaks no TLS is NotTls, and one that is hung up on is ConnectionReset", () =>
    Effect.gen(function* () {
      for (const [act, expected] of [
        [({ writer }: Connection.Connection) => writer.write("220 ready\r\n"), "NotTls"],
        [({ writer }: Connection.Connection) => writer.end, "ConnectionReset"],
        [({ abort }: Connection.Connection) => abort, "ConnectionReset"]
      ] as const) {
        for (const role of ["client", "server"] as const) {
          const { client, server } = yield* plainPair()
          const [own, peer] = role === "client" ? [client, server] : [server, client]
          const upgrading = yield* start(
            own.upgradeTls(role === "client" ? { role, servername: "x" } : { role, identity })
          )
          yield* act(peer)
          yield* turns
          assert.strictEqual(kindOf(upgrading.exit() ?? Exit.void), expected)
        }
      }
    }))

  test("that is interrupted aborts the connection", () =>
    Effect.gen(function* () {
      const { client, server } = yield* plainPair()
      const upgrading = yield* start(client.upgradeTls({ role: "client", servername: "x" }))
      yield* turns
      yield* upgrading.interrupt
      yield* turns
      assert.strictEqual(yield* outcomeOf(server.closed), "ConnectionReset")
      assert.strictEqual(yield* outcomeOf(client.reader.read()), "ConnectionAborted")
    }))
})

describe("a handshake that fails on a server", () => {
  test("is a debug line in the log, with the peer and the reason, and no error of a handler", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      lines.push(`${logLevel} ${String(message)}`)
    })
    return Effect.gen(function* () {
      yield* Server.serve(echo, { listen: { host: "10.0.0.1", port: 443 }, tls: { identity } })
      const client = yield* Connection.connect("10.0.0.1:443")
      yield* client.writer.write("GET / HTTP/1.1\r\n")
      yield* turns
      assert.strictEqual(lines.length, 1)
      assert.match(
        lines[0] ?? "",
        /^Debug connection refused: handshake on 127\.0\.0\.1:\d+: what 127\.0\.0\.1:\d+ sent is not TLS/
      )
    }).pipe(
      Effect.provide(Layer.mergeAll(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel, "All")))
    )
  })
})

describe("a shutdown", () => {
  test("counts a connection whose handshake fails as aborted: there was no handler to finish", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, {
        listen: { host: "10.0.0.1", port: 443 },
        tls: { identity }
      })
      const failing = yield* Connection.connect("10.0.0.1:443")
      const served = yield* Connection.connect("service.test:443", { tls: true })
      const waiting = yield* Connection.connect("10.0.0.1:443")
      yield* turns
      const stopping = yield* start(server.shutdown({ grace: "5 seconds" }))
      yield* failing.writer.write("hello?\r\n")
      yield* failing.close
      yield* served.close
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* Fiber.join(stopping.fiber), { finished: 1, interrupted: 1, aborted: 1 })
      yield* waiting.close
    }))
})

describe("an upgrade", () => {
  test("fails while plain bytes wait, or feeds them to the handshake", () =>
    Effect.gen(function* () {
      const { client, server } = yield* plainPair()
      yield* server.writer.write("go ahead\nforged\n")
      yield* client.reader.readLine
      assert.strictEqual(
        yield* outcomeOf(client.upgradeTls({ role: "client", servername: "service.test" })),
        "PlaintextBuffered"
      )
      yield* client.reader.readLine
      const upgrading = yield* start(client.upgradeTls({ role: "client", servername: "service.test" }))
      yield* turns
      assert.isAbove(yield* server.reader.bufferedBytes, 0)
      yield* server.upgradeTls({ role: "server", identity, leftover: "feed" })
      yield* Fiber.join(upgrading.fiber)
      yield* server.writer.write("genuine\n")
      assert.strictEqual(text(yield* client.reader.readLine), "genuine\n")
    }))

  test("what the peer sends behind its handshake is read after it", () =>
    Effect.gen(function* () {
      const { client, server } = yield* plainPair()
      const upgrading = yield* start(server.upgradeTls({ role: "server", identity }))
      yield* client.upgradeTls({ role: "client", servername: "service.test" })
      yield* client.writer.write("first\n")
      yield* client.writer.end
      yield* Fiber.join(upgrading.fiber)
      assert.strictEqual(text(yield* server.reader.readAll()), "first\n")
    }))
})

describe("the end over TLS", () => {
  const secured = Effect.fnUntraced(function* () {
    const network = yield* Network.Network
    const listener = yield* network.listen({ host: "10.0.0.1", port: 0 })
    const client = yield* Connection.connect(listener.address)
    const below = yield* listener.accept
    const server = yield* Connection.make(below)
    yield* Effect.addFinalizer(() => Effect.all([client.abort, server.abort], { discard: true }))
    yield* both(
      client.upgradeTls({ role: "client", servername: "service.test" }),
      server.upgradeTls({ role: "server", identity })
    )
    yield* server.writer.write("last")
    return { client, server, below }
  })

  test("with a close_notify is the end of input", () =>
    Effect.gen(function* () {
      const { client, server } = yield* secured()
      yield* server.writer.end
      assert.strictEqual(text(yield* client.reader.readAll()), "last")
      yield* client.writer.write("and you?")
      assert.strictEqual(text(yield* server.reader.read()), "and you?")
      yield* Effect.all([client.close, server.close], { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* Effect.all([outcomeOf(client.closed), outcomeOf(server.closed)]), [
        "success",
        "success"
      ])
    }))

  test("without one is TlsTruncated, behind all that came", () =>
    Effect.gen(function* () {
      const { below, client } = yield* secured()
      below.end()
      yield* turns
      assert.strictEqual(text(yield* client.reader.read()), "last")
      assert.strictEqual(yield* outcomeOf(client.reader.read()), "TlsTruncated")
      assert.strictEqual(yield* outcomeOf(client.closed), "TlsTruncated")
    }))

  test("by an abort is a reset, and what is no record is NotTls", () =>
    Effect.gen(function* () {
      const { client, server } = yield* secured()
      yield* turns
      yield* server.abort
      yield* turns
      assert.strictEqual(yield* outcomeOf(client.closed), "ConnectionReset")
      const other = yield* secured()
      other.below.write("plain text")
      yield* turns
      assert.strictEqual(kindOf(yield* Effect.exit(other.client.closed)), "NotTls")
    }))
})

describe("through a proxy", () => {
  /** A proxy that connects to 10.0.0.1:443, whatever it is asked for, and a server there. */
  const proxied = Effect.fnUntraced(function* (tls?: Tls.ServerOptions) {
    yield* Server.serve(echo, { listen: { host: "10.0.0.1", port: 443 }, tls: { identity } })
    yield* Server.serve(
      Effect.fnUntraced(function* (client: Connection.Connection) {
        yield* client.reader.readUntil("\r\n\r\n")
        const target = yield* Connection.connect("10.0.0.1:443")
        yield* client.writer.write("HTTP/1.1 200 OK\r\n\r\n")
        yield* Relay.bidirectional(client, target)
      }),
      { listen: { host: "10.0.0.9", port: 3128 }, tls }
    )
  })
  const proxyIdentity = TestNetwork.identity({ names: ["proxy.test"] })

  test("the transport is TLS only if the target speaks it", () =>
    Effect.gen(function* () {
      yield* proxied({ identity: proxyIdentity })
      const proxy = Proxy.httpConnect("proxy.test:3128", { tls: true })
      const plain = yield* Connection.connect("service.test:443", { proxy })
      assert.deepStrictEqual([plain.info.transport, plain.info.tls], ["memory", undefined])
      yield* plain.upgradeTls({ role: "client" })
      assert.strictEqual(plain.info.transport, "tls")
      assert.isDefined(plain.info.tls)
    }))

  for (const withTls of [false, true]) {
    const where = withTls ? ", inside of TLS with the proxy" : ""
    test(`a tunnel that was made by hand is upgraded for its target${where}`, () =>
      Effect.gen(function* () {
        yield* proxied(withTls ? { identity: proxyIdentity } : undefined)
        const proxy = Proxy.httpConnect("proxy.test:3128")
        const connection = yield* Connection.connect(
          "proxy.test:3128",
          withTls ? { tls: { alpn: ["http/1.1"] } } : undefined
        )
        yield* Proxy.tunnel(connection, proxy, "service.test:443")
        assert.deepStrictEqual(
          [connection.info.transport, connection.info.tls, connection.info.target],
          ["memory", undefined, "service.test:443"]
        )
        yield* connection.upgradeTls({ role: "client" })
        assert.strictEqual(connection.info.tls?.servername, "service.test")
        yield* connection.writer.write("there and back")
        assert.strictEqual(text(yield* connection.reader.readExactly(14)), "there and back")
      }))
  }

  test("a tunnel that was refused leaves the connection with the proxy what it was", () =>
    Effect.gen(function* () {
      const { client, server } = yield* plainPair()
      yield* server.writer.write("HTTP/1.1 403 Forbidden\r\n\r\n")
      const error = yield* Effect.flip(
        Proxy.tunnel(client, Proxy.httpConnect("proxy.test:3128"), "service.test:443")
      )
      assert.strictEqual(error._tag === "ConnectionError" && error.reason._tag, "ProxyError")
      assert.isUndefined(client.info.target)
    }))
})

describe("TLS inside of TLS", () => {
  test("with the target, through a proxy that is spoken to over TLS", () =>
    Effect.gen(function* () {
      yield* Server.serve(echo, {
        listen: { host: "10.0.0.1", port: 443 },
        tls: { identity, alpn: ["echo"] }
      })
      const asked: Array<string> = []
      yield* Server.serve(
        Effect.fnUntraced(function* (client: Connection.Connection) {
          asked.push(text(yield* client.reader.readUntil("\r\n\r\n")).split("\r\n")[0] ?? "")
          const target = yield* Connection.connect("10.0.0.1:443")
          yield* client.writer.write("HTTP/1.1 200 OK\r\n\r\n")
          yield* Relay.bidirectional(client, target)
        }),
        {
          listen: { host: "10.0.0.9", port: 3128 },
          tls: { identity: TestNetwork.identity({ names: ["proxy.test"] }) }
        }
      )
      const proxy = Proxy.httpConnect("proxy.test:3128", { tls: true })
      const plain = yield* Connection.connect("service.test:443", { proxy })
      assert.isUndefined(plain.info.tls)
      yield* plain.upgradeTls({ role: "client", alpn: ["echo"] })
      const secured = yield* Connection.connect("service.test:443", { proxy, tls: { alpn: ["echo"] } })
      for (const { info, reader, writer } of [plain, secured]) {
        assert.strictEqual(info.tls?.alpn, "echo")
        assert.strictEqual(info.tls?.servername, "service.test")
        yield* writer.write("there and back")
        yield* writer.end
        assert.strictEqual(text(yield* reader.readAll()), "there and back")
      }
      assert.deepStrictEqual(asked, Array(2).fill("CONNECT service.test:443 HTTP/1.1"))
      const wrong = Proxy.httpConnect("proxy.test:3128", { tls: { servername: "else.test" } })
      const exit = yield* Effect.exit(Connection.connect("service.test:443", { proxy: wrong }))
      assert.strictEqual(kindOf(exit), "WrongHost")
    }))
})
