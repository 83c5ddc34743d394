import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, Redacted, Result, type Scope, Stream } from "effect"
import { Connection, type Network, Server, type StreamError, type Tls } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { createPrivateKey, generateKeyPairSync, X509Certificate } from "node:crypto"
import * as net from "node:net"
import { inspect } from "node:util"
import { Authority } from "../support/certificates.ts"
import { leavingNothing, portOf, rawConnect, rawServer, readToEnd } from "../support/sockets.ts"

const live = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>): void =>
  it.live(title, () => leavingNothing(Effect.scoped(effect)).pipe(Effect.provide(NodeNetwork.layer)))

const authority = new Authority()
const stranger = new Authority("Another CA")
const ca = authority.certificate
const identity = authority.issue()
const past = { from: "20200101000000Z", to: "20200102000000Z" }
const future = { from: "20900101000000Z", to: "20900102000000Z" }

type HandshakeError = StreamError.ConnectionError | StreamError.TimeoutError

/** Serves; gives the port, the number of handlers that ran, and a wait for the error of the first failed handshake. */
const serving = Effect.fnUntraced(function* (tls: Partial<Tls.ServerOptions>) {
  let handled = 0
  let reported = 0
  const server = yield* Server.serve(
    ({ reader, writer }) => {
      handled++
      return Stream.run(reader.stream, writer.sink)
    },
    {
      listen: { host: "127.0.0.1" },
      tls: { identity, ...tls },
      onError: () => Effect.sync(() => void reported++)
    }
  )
  const failed = yield* Effect.forkChild(
    server.events.pipe(
      Stream.filterMap((event) =>
        event._tag === "HandshakeFailed" ? Result.succeed(event.error) : Result.failVoid
      ),
      Stream.runHead
    ),
    { startImmediately: true }
  )
  const failure = Effect.map(Fiber.join(failed), Option.getOrThrow)
  return {
    server,
    port: portOf(server.addresses[0]),
    failure,
    counts: () => ({ handled, reported })
  }
})

const tlsReason = (error: HandshakeError): StreamError.TlsError => {
  assert(error._tag === "ConnectionError" && error.reason._tag === "TlsError", error.message)
  assert.strictEqual(error.operation, "handshake")
  return error.reason
}

const connecting = (port: number, tls: Tls.ClientOptions, host = "localhost") =>
  Effect.flip(Effect.scoped(Connection.connect({ host, port }, { tls })))

/** What the client says about a server with an identity. */
const clientSays = Effect.fnUntraced(function* (
  server: Tls.Identity,
  tls: Tls.ClientOptions = { ca },
  host?: string
) {
  const { counts, port } = yield* serving({ identity: server })
  const reason = tlsReason(yield* connecting(port, tls, host))
  assert.deepStrictEqual(counts(), { handled: 0, reported: 0 })
  return reason
})

describe("what the client says about the server's certificate", () => {
  const cases: ReadonlyArray<
    readonly [
      title: string,
      kind: StreamError.TlsErrorKind,
      given: () => readonly [Tls.Identity, Tls.ClientOptions?, string?],
      says: string
    ]
  > = [
    [
      "it has expired",
      "CertificateExpired",
      () => [authority.issue(past)],
      "the certificate of localhost has expired: valid until 2020-01-02T00:00:00.000Z"
    ],
    [
      "it is not yet valid",
      "CertificateNotYetValid",
      () => [authority.issue(future)],
      "the certificate of localhost is not yet valid: valid from 2090-01-01T00:00:00.000Z"
    ],
    [
      "that of its authority has expired",
      "CertificateExpired",
      () => {
        const old = authority.withDates(authority.root, "200101000000Z", "200102000000Z").certificate
        return [{ ...identity, certificate: identity.certificate + old }, { ca: old }]
      },
      "has expired: that of Test CA, which vouches for it, is valid until 2020-01-02T00:00:00.000Z"
    ],
    [
      "it is self-signed",
      "SelfSigned",
      () => [authority.selfSigned()],
      "the certificate of localhost is self-signed; the option `ca` can make it trusted"
    ],
    [
      "T-010 its authority is not trusted",
      "UnknownCa",
      () => [stranger.issue()],
      "is not from an authority that is trusted: issued by Another CA; the option `ca` names others, and the peer has to send intermediate certificates"
    ],
    [
      "T-010 its authority is not trusted, and comes with it",
      "UnknownCa",
      () => {
        const { certificate, key } = stranger.issue()
        return [{ certificate: certificate + stranger.certificate, key }]
      },
      "is not from an authority that is trusted: issued by Another CA; the option `ca` names others, and the peer has to send intermediate certificates"
    ],
    [
      "T-002 without options, the platform does not know its authority",
      "UnknownCa",
      () => [identity, {}],
      "issued by Test CA"
    ],
    [
      "it is for another name",
      "WrongHost",
      () => [authority.issue({ altName: "DNS:other.example" })],
      "the certificate is not for localhost: "
    ],
    [
      "it is for another address",
      "WrongHost",
      () => [authority.issue({ altName: "DNS:localhost" }), { ca }, "127.0.0.1"],
      "the certificate is not for 127.0.0.1: IP: 127.0.0.1 is not among the certificate's names: DNS:localhost"
    ],
    [
      "it has an address for a name",
      "WrongHost",
      () => [authority.issue({ name: "127.0.0.1", altName: "DNS:127.0.0.1" }), { ca }, "127.0.0.1"],
      "the certificate is not for 127.0.0.1: "
    ]
  ]
  for (const [title, kind, make, says] of cases) {
    live(
      title,
      Effect.gen(function* () {
        const reason = yield* clientSays(...make())
        assert.strictEqual(reason.kind, kind)
        assert.include(reason.message, says)
      })
    )
  }

  live(
    "T-011 a wrong name: the message has the one that was expected and the ones that it is for",
    Effect.gen(function* () {
      const reason = yield* clientSays(authority.issue({ altName: "DNS:other.example" }))
      assert.include(reason.message, "localhost")
      assert.include(reason.message, "other.example")
    })
  )

  live(
    "T-013 without verification anybody will do, and authorized tells",
    Effect.gen(function* () {
      const { port } = yield* serving({ identity: authority.selfSigned("other") })
      const connection = yield* Connection.connect({ host: "localhost", port }, { tls: { verify: false } })
      assert.isFalse(connection.info.tls?.authorized)
      assert.strictEqual(connection.info.tls?.peerCertificate?.subject["CN"], "other")
    })
  )

  live(
    "T-005 the name can be another one than the host, or none",
    Effect.gen(function* () {
      const { port } = yield* serving({ identity: authority.issue({ altName: "DNS:other.example" }) })
      const target = { host: "localhost", port }
      const other = yield* Connection.connect(target, { tls: { ca, servername: "Other.Example" } })
      assert.strictEqual(other.info.tls?.servername, "other.example")
      const none = yield* Connection.connect(target, { tls: { ca, servername: false } })
      assert.isUndefined(none.info.tls?.servername)
      assert.isTrue(none.info.tls?.authorized)
    })
  )
})

describe("nothing in common", () => {
  live(
    "no version",
    Effect.gen(function* () {
      const { failure, port } = yield* serving({ minVersion: "TLSv1.3" })
      const reason = tlsReason(yield* connecting(port, { ca, maxVersion: "TLSv1.2" }))
      assert.strictEqual(reason.kind, "NoSharedVersion")
      assert.include(reason.message, "no TLS version in common with localhost: this side has TLSv1.2; ")
      const own = tlsReason(yield* failure)
      assert.strictEqual(own.kind, "NoSharedVersion")
      assert.include(own.message, "this side has TLSv1.3; ")
    })
  )

  live(
    "no cipher",
    Effect.gen(function* () {
      const maxVersion = "TLSv1.2"
      const { failure, port } = yield* serving({ ciphers: "ECDHE-ECDSA-AES256-GCM-SHA384", maxVersion })
      const client = { ca, ciphers: "ECDHE-ECDSA-AES128-GCM-SHA256", maxVersion } as const
      const reason = tlsReason(yield* connecting(port, client))
      assert.strictEqual(reason.kind, "Refused")
      assert.include(reason.message, "localhost")
      const own = tlsReason(yield* failure)
      assert.strictEqual(own.kind, "NoSharedCipher")
      assert.include(own.message, "127.0.0.1")
      assert.include(own.message, ": this side has ECDHE-ECDSA-AES256-GCM-SHA384; the option `ciphers`")
    })
  )

  live(
    "no application protocol",
    Effect.gen(function* () {
      const { failure, port } = yield* serving({ alpn: ["h2", "http/1.1"] })
      const reason = tlsReason(yield* connecting(port, { ca, alpn: ["smtp"] }))
      assert.strictEqual(reason.kind, "NoSharedAlpn")
      assert.include(reason.message, 'with localhost: this side has "smtp"; the option `alpn`')
      const own = tlsReason(yield* failure)
      assert.strictEqual(own.kind, "NoSharedAlpn")
      assert.include(own.message, 'this side has "h2", "http/1.1"; ')
    })
  )

  live(
    "T-014 a client that speaks something else sees the end; the server reports an event only, and goes on",
    Effect.gen(function* () {
      const { counts, failure, port } = yield* serving({})
      const socket = yield* rawConnect({ host: "127.0.0.1", port })
      socket.write("GET / HTTP/1.1\r\n\r\n")
      yield* Effect.exit(readToEnd(socket))
      const reason = tlsReason(yield* failure)
      assert.strictEqual(reason.kind, "NotTls")
      assert.include(reason.message, "127.0.0.1")
      assert.deepStrictEqual(counts(), { handled: 0, reported: 0 })
      yield* Connection.connect({ host: "localhost", port }, { tls: { ca } })
    })
  )

  live(
    "a server that speaks something else",
    Effect.gen(function* () {
      const raw = yield* rawServer()
      const failing = yield* Effect.forkChild(connecting(raw.port, { ca }))
      const socket = yield* raw.next
      socket.write("220 hello, this is a mail server\r\n")
      const reason = tlsReason(yield* Fiber.join(failing))
      assert.strictEqual(reason.kind, "NotTls")
    })
  )
})

describe("client certificates", () => {
  /**
   * What a client sees that sends so many bytes at once and reads: the error of its handshake, or of its first read.
   */
  const clientSees = (port: number, tls: Tls.ClientOptions, size = 0) =>
    Effect.scoped(
      Effect.gen(function* () {
        const { reader, writer } = yield* Connection.connect({ host: "localhost", port }, { tls })
        yield* Effect.forkChild(Effect.exit(writer.write(new Uint8Array(size))), { startImmediately: true })
        return yield* reader.read()
      })
    ).pipe(
      Effect.flip,
      Effect.map((error) => {
        assert(error._tag === "ConnectionError", error.message)
        return { seen: `${error.operation} ${kindOf(error.reason)}`, message: error.message }
      })
    )

  const kindOf = (reason: StreamError.ConnectionErrorReason): string =>
    reason._tag === "TlsError" ? reason.kind : reason._tag

  // In TLS 1.3 the client has finished its handshake by then, and reads why.
  for (const [maxVersion, expected] of [
    ["TLSv1.2", "handshake Refused"],
    ["TLSv1.3", "read ClientCertificateRequired"]
  ] as const) {
    // The alert is behind whatever the client sends: more than the server takes, in the end.
    for (const size of [0, 10, 500_000, 5_000_000]) {
      live(
        `one is required, and none is shown, by a client that sends ${size} bytes (${maxVersion})`,
        Effect.gen(function* () {
          const { counts, failure, port } = yield* serving({ ca, clientCertificate: "require", maxVersion })
          const { message, seen } = yield* clientSees(port, { ca }, size)
          assert.strictEqual(seen, expected)
          assert.include(message, "localhost")
          const own = tlsReason(yield* failure)
          assert.strictEqual(own.kind, "ClientCertificateRequired")
          assert.include(own.message, "127.0.0.1")
          for (const text of [message, own.message]) assert.include(text, "`identity`")
          assert.deepStrictEqual(counts(), { handled: 0, reported: 0 })
        })
      )
    }
  }

  const refused: ReadonlyArray<
    readonly [title: string, kind: StreamError.TlsErrorKind, given: () => Tls.Identity, says: string]
  > = [
    [
      "expired",
      "CertificateExpired",
      () => authority.issue({ name: "client-7", ...past }),
      "has expired: valid until 2020-01-02T00:00:00.000Z"
    ],
    [
      "of an unknown authority",
      "UnknownCa",
      () => stranger.issue({ name: "client-7" }),
      "is not from an authority that is trusted: issued by Another CA"
    ],
    ["self-signed", "SelfSigned", () => authority.selfSigned("client-7"), "is self-signed"]
  ]
  for (const [title, kind, make, says] of refused) {
    for (const [maxVersion, expected] of [
      ["TLSv1.2", "handshake ConnectionReset"],
      ["TLSv1.3", "read TlsTruncated"]
    ] as const) {
      live(
        `one that is ${title} is refused (${maxVersion})`,
        Effect.gen(function* () {
          const { counts, failure, port } = yield* serving({ ca, clientCertificate: "require", maxVersion })
          const { message, seen } = yield* clientSees(port, { ca, identity: make() }, 500_000)
          // Node looks at the certificate behind OpenSSL's handshake, and can send no alert then.
          assert.strictEqual(seen, expected)
          if (maxVersion === "TLSv1.3") {
            assert.include(message, "the server may not accept the certificate of this side")
          }
          const reason = tlsReason(yield* failure)
          assert.strictEqual(reason.kind, kind)
          assert.match(reason.message, /the certificate of client-7 at 127\.0\.0\.1:\d+ /)
          assert.include(reason.message, says)
          assert.deepStrictEqual(counts(), { handled: 0, reported: 0 })
        })
      )
    }
  }

  live(
    "a truncation has nothing to do with the certificate once something was read",
    Effect.gen(function* () {
      const server = yield* Server.serve(
        ({ abort, reader, writer }) =>
          Effect.andThen(writer.write("hello"), Effect.andThen(reader.readExactly(1), abort)),
        { listen: { host: "127.0.0.1" }, tls: { identity, ca, clientCertificate: "require" } }
      )
      const relayed = yield* rawServer({ host: "127.0.0.1", port: 0 }, { pauseOnConnect: false })
      relayed.server.on("connection", (near) => {
        const far = net.connect({ host: "127.0.0.1", port: portOf(server.addresses[0]) })
        near.pipe(far)
        far.pipe(near, { end: false })
        far.on("error", () => {}).on("close", () => near.end())
      })
      const tls = { ca, identity: authority.issue({ name: "me" }) }
      const { reader, writer } = yield* Connection.connect({ host: "localhost", port: relayed.port }, { tls })
      yield* reader.readExactly(5)
      yield* writer.write("x")
      const error = yield* Effect.flip(reader.read())
      assert(error._tag === "ConnectionError" && error.reason._tag === "TlsTruncated", error.message)
      assert.notInclude(error.message, "certificate")
    })
  )
})

describe("a name that would steer a terminal", () => {
  const hostile = "evil\u001b[2J\n\u202eERROR all is well"
  const harmless = "evil\\u001b[2J\\u000a\\u202eERROR all is well"

  const isHarmless = (error: HandshakeError, reason: StreamError.TlsError): void => {
    const printed = [error.message, reason.message, reason.peer, reason.detail, reason.cause]
    for (const text of printed.map(String)) assert.notMatch(text, /[\p{Cc}\p{Bidi_Control}]/u)
    assert.include(error.message, harmless)
    assert.notMatch(inspect(error, { depth: 9 }), /[^\P{Cc}\n]|\p{Bidi_Control}|^ERROR/mu)
  }

  live(
    "in a client's certificate that nobody vouches for",
    Effect.gen(function* () {
      const { failure, port } = yield* serving({ ca, clientCertificate: "require" })
      const client = { ca, identity: authority.selfSigned(hostile, "DNS:client") }
      yield* Effect.exit(
        Effect.scoped(
          Effect.flatMap(Connection.connect({ host: "localhost", port }, { tls: client }), ({ reader }) =>
            reader.readAll()
          )
        )
      )
      const error = yield* failure
      const reason = tlsReason(error)
      assert.strictEqual(reason.kind, "SelfSigned")
      isHarmless(error, reason)
    })
  )

  live(
    "in a server's certificate that is for somebody else",
    Effect.gen(function* () {
      const server = authority.selfSigned(hostile, "")
      const { port } = yield* serving({ identity: server })
      const error = yield* connecting(port, { ca: server.certificate })
      const reason = tlsReason(error)
      assert.strictEqual(reason.kind, "WrongHost")
      isHarmless(error, reason)
    })
  )

  live(
    "and is as long as can be",
    Effect.gen(function* () {
      const names = Array.from({ length: 1000 }, (_, i) => `DNS:${i}.example`).join()
      const error = yield* clientSays(authority.issue({ altName: names }))
      assert.strictEqual(error.kind, "WrongHost")
      assert.isBelow(error.message.length, 400)
    })
  )
})

describe("the own identity", () => {
  live(
    "a key of another certificate: the server does not start, and says why without the key",
    Effect.gen(function* () {
      const other = authority.issue()
      const error = yield* Effect.flip(
        serving({ identity: { certificate: identity.certificate, key: other.key } })
      )
      assert.strictEqual(error.reason._tag, "TlsError")
      assert(error.reason._tag === "TlsError")
      assert.strictEqual(error.reason.kind, "InvalidIdentity")
      assert.notInclude(JSON.stringify(error), "PRIVATE")
    })
  )

  live(
    "a key of another kind: OpenSSL takes it, and no handshake would succeed",
    Effect.gen(function* () {
      const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 })
      const key = privateKey.export({ type: "pkcs8", format: "pem" }).toString()
      const error = yield* Effect.flip(serving({ names: { other: { ...identity, key } } }))
      assert(error.reason._tag === "TlsError")
      assert.strictEqual(error.reason.kind, "InvalidIdentity")
      assert.include(error.message, `for "other", the key is not the certificate's`)
    })
  )

  live(
    "a key with a passphrase works, with the certificate in the same text, and not with another passphrase",
    Effect.gen(function* () {
      const cipher = "aes-256-cbc"
      const passphrase = "open sesame"
      const key = createPrivateKey(identity.key)
        .export({ type: "pkcs8", format: "pem", cipher, passphrase })
        .toString()
      const both = `${key}\n${identity.certificate}`
      const { port } = yield* serving({
        identity: { certificate: both, key: both, passphrase: Redacted.make(passphrase) }
      })
      yield* Connection.connect({ host: "localhost", port }, { tls: { ca } })
      const error = yield* Effect.flip(
        serving({ identity: { certificate: both, key: both, passphrase: "open" } })
      )
      assert(error.reason._tag === "TlsError")
      assert.strictEqual(error.reason.kind, "InvalidIdentity")
      assert.include(error.message, "`key` does not open with this `passphrase`")
      const without = yield* Effect.flip(serving({ identity: { certificate: both, key: both } }))
      assert.include(without.message, "`key` is encrypted, and there is no `passphrase`")
    })
  )

  const { certificate, key } = identity
  const unusable: ReadonlyArray<readonly [what: string, identity: Tls.Identity, detail: string]> = [
    ["no certificate", { certificate: "nonsense", key }, "`certificate` has no certificate in PEM"],
    ["a key for a certificate", { certificate: key, key }, "`certificate` has no certificate in PEM"],
    [
      "a certificate that is not PEM",
      { certificate: new X509Certificate(certificate).raw, key },
      "`certificate` has no certificate in PEM"
    ],
    [
      "a certificate that is cut off",
      { certificate: certificate.replace(/.{64}\n/, ""), key },
      "`certificate` has one that cannot be read"
    ],
    ["no key", { certificate, key: "nonsense" }, "`key` has no private key in PEM"],
    ["a certificate for a key", { certificate, key: certificate }, "`key` has no private key in PEM"],
    ["a key that is cut off", { certificate, key: key.replace(/.{64}\n/, "") }, "`key` cannot be read"]
  ]
  for (const [what, own, detail] of unusable) {
    live(
      `${what}: the client's handshake fails, the server does not listen, and both say which of the two it is`,
      Effect.gen(function* () {
        const { port } = yield* serving({})
        const reason = tlsReason(yield* connecting(port, { ca, identity: own }))
        const error = yield* Effect.flip(serving({ identity: own }))
        assert(error.reason._tag === "TlsError")
        for (const { kind, message } of [reason, error.reason]) {
          assert.strictEqual(kind, "InvalidIdentity")
          assert.include(message, detail)
          assert.notInclude(message, "PRIVATE")
        }
      })
    )
  }
})

describe("an option that cannot be used is named", () => {
  const broken = `${ca}\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`
  const cases: ReadonlyArray<readonly [what: string, options: Tls.CommonOptions, detail: string]> = [
    ["ca that is no PEM", { ca: "no certificate at all" }, "`ca` has no certificate in PEM"],
    ["ca that is a key", { ca: identity.key }, "`ca` has no certificate in PEM"],
    [
      "ca of which a part is broken",
      { ca: broken },
      "`ca` has a certificate that cannot be read, number 2 of 2"
    ],
    ["ciphers that there are none of", { ciphers: "NOPE" }, "`ciphers`"]
  ]
  for (const [what, options, detail] of cases) {
    live(
      `${what}: by connect, and by serve before it listens`,
      Effect.gen(function* () {
        const { port } = yield* serving({})
        const reason = tlsReason(yield* connecting(port, { ca, ...options }))
        const error = yield* Effect.flip(serving(options))
        assert(error.reason._tag === "TlsError")
        for (const { kind, message } of [reason, error.reason]) {
          assert.strictEqual(kind, "InvalidOptions")
          assert.include(message, detail)
          assert.notInclude(message, "PRIVATE")
        }
      })
    )
  }

  live(
    "extraCa that is no PEM: by connect",
    Effect.gen(function* () {
      const { port } = yield* serving({})
      const reason = tlsReason(yield* connecting(port, { ca, extraCa: "no certificate at all" }))
      assert.strictEqual(reason.kind, "InvalidOptions")
      assert.include(reason.message, "`extraCa` has no certificate in PEM")
    })
  )

  const path = "/etc/ssl/private/some.pem"
  const given: ReadonlyArray<readonly [what: string, options: Tls.ClientOptions, message: string]> = [
    [
      "the path of ca",
      { ca: path },
      `tls: ca must be PEM text: "${path}" looks like the path of a file, which has to be read first`
    ],
    [
      "the path of extraCa",
      { extraCa: [ca, path] },
      `tls: extraCa must be PEM text: "${path}" looks like the path of a file, which has to be read first`
    ],
    [
      "the path of a certificate",
      { identity: { certificate: "./some.crt", key: identity.key } },
      'tls: the certificate of identity must be PEM text: "./some.crt" looks like the path of a file, ' +
        "which has to be read first"
    ],
    [
      "the path of a key",
      { identity: { certificate: identity.certificate, key: Redacted.make(path) } },
      "tls: the key of identity must be PEM text: it looks like the path of a file, which has to be read first"
    ],
    ["no ciphers", { ciphers: "" }, "tls: ciphers must not be empty"]
  ]
  for (const [what, options, message] of given) {
    live(
      `${what}: a defect, before anything is connected`,
      Effect.gen(function* () {
        const exit = yield* Effect.exit(Connection.connect("localhost:1", { tls: options }))
        assert(Exit.isFailure(exit))
        const defect = Cause.squash(exit.cause)
        assert.instanceOf(defect, RangeError)
        assert.strictEqual(defect.message, message)
      })
    )
  }
})
