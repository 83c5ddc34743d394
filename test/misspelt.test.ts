import { it } from "@effect/vitest"
import { strictEqual } from "@effect/vitest/utils"
import { Cause, Effect, Exit, Layer, type Scope } from "effect"
import {
  Codec,
  Connection,
  ConnectionPool,
  Framed,
  Framing,
  Network,
  Proxy,
  Reconnect,
  Relay,
  Server,
  StreamReader
} from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { TestNetwork } from "effect-wire/testing"
import { describe } from "vitest"

// Options come from configurations: one that was misspelt must not pass for another one.
const untyped = (input: unknown) => input as never

const defect = <A, E, R>(make: () => Effect.Effect<A, E, R>): Effect.Effect<string, never, R> =>
  Effect.map(Effect.exit(Effect.suspend(make)), (exit) =>
    Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? String(Cause.squash(exit.cause)) : String(exit)
  )

const listen = { host: "127.0.0.1", port: 7000 }
const identity = TestNetwork.identity()

const cases: Record<string, readonly [() => Effect.Effect<unknown, unknown, never>, string]> = {
  "clientCertificate of a server": [
    () =>
      Effect.scoped(
        Server.serve(() => Effect.void, {
          listen,
          tls: { identity, clientCertificate: untyped("required") }
        })
      ).pipe(Effect.provide(TestNetwork.layer)),
    'clientCertificate must be one of "none", "request", "require", received "required"'
  ],
  "leftover of an upgrade": [
    () =>
      Effect.scoped(
        Effect.flatMap(Connection.pair(), ([left]) =>
          left.upgradeTls({ role: "server", identity, leftover: untyped("reject") })
        )
      ),
    'leftover must be one of "fail", "discard", "feed", received "reject"'
  ],
  "role of an upgrade": [
    () =>
      Effect.scoped(
        Effect.flatMap(Connection.pair(), ([left]) => left.upgradeTls({ role: untyped("Client"), identity }))
      ),
    'role must be one of "client", "server", received "Client"'
  ],
  "onInvalid of messages": [
    () =>
      Effect.sync(() =>
        Framed.receiver(StreamReader.feedable().reader, Framing.lines(), Codec.bytes, {
          onInvalid: untyped("ignore")
        })
      ),
    'onInvalid must be one of "fail", "skip", received "ignore"'
  ],
  "onInvalid of a server, before it listens": [
    () =>
      Effect.scoped(
        Server.serveFramed(Framing.lines(), Codec.bytes, () => Effect.void, {
          listen,
          onInvalid: untyped("ignore")
        })
      ).pipe(Effect.provide(TestNetwork.layer)),
    'onInvalid must be one of "fail", "skip", received "ignore"'
  ],
  "halfClose of a relay": [
    () =>
      Effect.scoped(
        Effect.flatMap(Connection.pair(), ([left, right]) =>
          Relay.bidirectional(left, right, { halfClose: untyped("close") })
        )
      ),
    'halfClose must be one of "propagate", "close-both", received "close"'
  ],
  "ending of lines": [
    () => Effect.sync(() => Framing.lines({ ending: untyped("\r") })),
    String.raw`ending must be one of "\n", "\r\n", "either", received "\r"`
  ],
  "untrusted of PROXY headers": [
    () =>
      Effect.scoped(
        Server.serve(() => Effect.void, {
          listen,
          proxyProtocol: { trusted: [], untrusted: untyped("allow") }
        })
      ).pipe(Effect.provide(TestNetwork.layer)),
    'untrusted must be one of "refuse", "serve", received "allow"'
  ],
  "trusted of PROXY headers": [
    () =>
      Effect.scoped(Server.serve(() => Effect.void, { listen, proxyProtocol: untyped({}) })).pipe(
        Effect.provide(TestNetwork.layer)
      ),
    'trusted must be an array of IP networks and "unix": it says who may send a header'
  ],
  "one of trusted of PROXY headers": [
    () =>
      Effect.scoped(
        Server.serve(() => Effect.void, { listen, proxyProtocol: { trusted: ["::1/128", "10.0.0.1"] } })
      ).pipe(Effect.provide(TestNetwork.layer)),
    'trusted must name IP networks or "unix", received "10.0.0.1": ' +
      "expected an address and prefix length separated by one slash"
  ],
  "a name of a server's that has no identity": [
    () =>
      Effect.scoped(
        Server.serve(() => Effect.void, {
          listen,
          tls: { identity, names: { "a.example": untyped(undefined) } }
        })
      ).pipe(Effect.provide(TestNetwork.layer)),
    'tls: "a.example" must be a certificate and its key, or a TlsReloader'
  ],
  "grace of a server": [
    () =>
      Effect.scoped(Server.serve(() => Effect.void, { listen, grace: untyped("long") })).pipe(
        Effect.provide(TestNetwork.layer)
      ),
    'grace must be a duration, such as "5 seconds", received "long"'
  ],
  "connectTimeout that is no time": [
    () =>
      Effect.scoped(Connection.connect(listen, { connectTimeout: 0 })).pipe(
        Effect.provide(TestNetwork.layer)
      ),
    "connectTimeout must be a positive duration, received 0 ms"
  ]
}

const noVersion = 'RangeError: tls: minVersion must be "TLSv1.2" or "TLSv1.3", received "TLSv1.1"'

const connectCases: Record<string, readonly [Connection.ConnectionOptions, string]> = {
  limit: [{ limit: 0 }, "RangeError: limit must be a positive integer (bytes), received 0"],
  watermarks: [
    { watermarks: { high: 1, low: 2 } },
    "RangeError: the low watermark (2) must not be above the high one (1)"
  ],
  readTimeout: [{ readTimeout: -1 }, "RangeError: readTimeout must be a positive duration, received -1 ms"],
  writeTimeout: [{ writeTimeout: 0 }, "RangeError: writeTimeout must be a positive duration, received 0 ms"],
  idleTimeout: [{ idleTimeout: 0 }, "RangeError: idleTimeout must be a positive duration, received 0 ms"],
  closeTimeout: [{ closeTimeout: 0 }, "RangeError: closeTimeout must be a positive duration, received 0 ms"],
  connectTimeout: [
    { connectTimeout: 0 },
    "RangeError: connectTimeout must be a positive duration, received 0 ms"
  ],
  "connectTimeout that is no duration": [
    { connectTimeout: untyped("5 potatoes") },
    'RangeError: connectTimeout must be a duration, such as "5 seconds", received "5 potatoes"'
  ],
  "keepAlive that is no duration": [
    { keepAlive: untyped("on") },
    'RangeError: keepAlive must be a duration, such as "5 seconds", received "on"'
  ],
  "happyEyeballs.delay that is no duration": [
    { happyEyeballs: { delay: untyped("soon") } },
    'RangeError: happyEyeballs.delay must be a duration, such as "5 seconds", received "soon"'
  ],
  "tls that is no options": [
    { tls: untyped(false) },
    "RangeError: tls must be true or options, received false"
  ],
  "tls.handshakeTimeout": [
    { tls: { handshakeTimeout: untyped("a while") } },
    'RangeError: tls: handshakeTimeout must be a duration, such as "5 seconds", received "a while"'
  ],
  "tls.ca that is empty": [
    { tls: { ca: "" } },
    "RangeError: tls: ca must be PEM text, as a string, bytes or Redacted"
  ],
  "tls.ca that is null": [
    { tls: { ca: untyped(null) } },
    "RangeError: tls: ca must be PEM text, as a string, bytes or Redacted"
  ],
  "tls.alpn": [
    { tls: { alpn: untyped("h2") } },
    'RangeError: tls: alpn must be an array of names, received "h2"'
  ],
  "tls.servername": [
    { tls: { servername: untyped(true) } },
    'RangeError: tls: servername must be a host name or an IP address, received "true"'
  ],
  "tls.sessions": [
    { tls: { sessions: untyped(true) } },
    "RangeError: tls: sessions must be a cache of sessions, such as Tls.sessionCache()"
  ],
  "tls.identity": [
    { tls: { identity: untyped("me") } },
    "RangeError: tls: identity must be a certificate and its key, or a TlsReloader"
  ],
  keepAlive: [{ keepAlive: -1 }, "RangeError: keepAlive must be a positive, finite duration, received -1 ms"],
  "happyEyeballs.delay": [
    { happyEyeballs: { delay: -1 } },
    "RangeError: happyEyeballs.delay must not be negative, received -1 ms"
  ],
  "happyEyeballs.resolutionDelay": [
    { happyEyeballs: { resolutionDelay: -1 } },
    "RangeError: happyEyeballs.resolutionDelay must not be negative, received -1 ms"
  ],
  "happyEyeballs.firstFamilyCount": [
    { happyEyeballs: { firstFamilyCount: 0.5 } },
    "RangeError: firstFamilyCount must be a non-negative integer (addresses), received 0.5"
  ],
  proxyProtocol: [
    { proxyProtocol: { version: untyped(3) } },
    "RangeError: version must be 1 or 2, received 3"
  ],
  "the URL of a proxy": [
    { proxy: untyped("socks5://proxy:1080") },
    "TypeError: proxy must be what Proxy.socks5 or Proxy.httpConnect made; Proxy.fromUrl makes one of a URL"
  ],
  "the TLS of a proxy": [
    { proxy: { ...Proxy.httpConnect("proxy:1"), tls: { minVersion: untyped("TLSv1.1") } } },
    noVersion
  ],
  tls: [{ tls: { minVersion: untyped("TLSv1.1") } }, noVersion]
}

describe("an option of connections that is none is refused where it is given", () => {
  const target = "localhost:7000"
  const makers: Record<
    string,
    (options: Connection.ConnectionOptions) => Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>
  > = {
    "Connection.connect": (options) => Connection.connect(target, options),
    "Connection.layer": (options) => Layer.build(Connection.layer(target, options)),
    "ConnectionPool.make": (options) => ConnectionPool.make(target, options),
    "ConnectionPool.makeKeyed": (options) => ConnectionPool.makeKeyed(options),
    "Connection.layerPool": (options) => Layer.build(Connection.layerPool(target, options)),
    "Reconnect.make": (options) => Reconnect.make(target, options),
    "Connection.layerReconnecting": (options) => Layer.build(Connection.layerReconnecting(target, options))
  }
  for (const [maker, make] of Object.entries(makers)) {
    for (const [name, [options, message]] of Object.entries(connectCases)) {
      it.effect(`${name}, ${maker}`, () =>
        Effect.map(Effect.scoped(defect(() => make(options))), (text) => strictEqual(text, message)).pipe(
          Effect.provide(TestNetwork.layer)
        )
      )
    }
  }

  for (const [network, layer] of [
    ["NodeNetwork", NodeNetwork.layer],
    ["TestNetwork", TestNetwork.layer]
  ] as const) {
    it.effect(`keepAlive of ${network} itself`, () =>
      Effect.gen(function* () {
        const { connect, listen: listenOn } = yield* Network.Network
        for (const [keepAlive, shown] of [
          [-1, "-1"],
          [0, "0"],
          [Infinity, "Infinity"]
        ] as const) {
          const message = `RangeError: keepAlive must be a positive, finite duration, received ${shown} ms`
          strictEqual(yield* defect(() => connect(listen, { keepAlive })), message)
          strictEqual(yield* defect(() => listenOn({ host: "127.0.0.1" }, { keepAlive })), message)
        }
      }).pipe(Effect.scoped, Effect.provide(layer))
    )
  }

  it.effect("pools for any target need none to be made, also with TLS", () =>
    ConnectionPool.makeKeyed({ tls: true }).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))
  )
})

describe("an option that is none", () => {
  for (const [name, [make, message]] of Object.entries(cases)) {
    it.effect(name, () => Effect.map(defect(make), (text) => strictEqual(text, `RangeError: ${message}`)))
  }
})
