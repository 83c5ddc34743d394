import { assert, it } from "@effect/vitest"
import { Deferred, Effect, Option, Result, type Scope } from "effect"
import { NetAddress } from "effect/net"
import { Connection, type Network, ProxyProtocol, Server, Tls } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import * as fs from "node:fs"
import * as path from "node:path"
import { Authority, type Issued } from "../support/certificates.ts"
import { describeWith, ready, spawnPeer, tempFolder } from "../support/programs.ts"
import { freePort, portOf } from "../support/sockets.ts"

const live = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>): void =>
  it.live(title, () => effect.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer)))

/** HAProxy, listening on `front`. It does not say when it does. */
const haproxy = Effect.fnUntraced(function* (front: Network.Target, ...lines: ReadonlyArray<string>) {
  const file = path.join(yield* tempFolder, "haproxy.cfg")
  const config = [
    "global",
    "  maxconn 100",
    "defaults",
    "  mode tcp",
    "  timeout connect 10s",
    "  timeout client 10s",
    "  timeout server 10s",
    "  unique-id-format %[src]:%[src_port]",
    "listen a",
    ...lines,
    ""
  ]
  fs.writeFileSync(file, config.join("\n"))
  yield* spawnPeer("haproxy", ["-db", "-f", file])
  yield* ready(front)
})

const trusted = ["127.0.0.0/8", "unix"]

const at = (address: NetAddress.SocketAddress | undefined) => String(address)

/** A server that tells its client in a line what the server makes of the connection. */
const teller = Effect.fnUntraced(function* (options?: Partial<Server.Options>) {
  const infos: Array<Connection.ConnectionInfo> = []
  /** Of the connection of a client with this own address. */
  const infoOf = (client: NetAddress.SocketAddress | undefined) =>
    infos.find((info) => at(info.remoteAddress) === at(client)) ?? assert.fail("no such connection")
  const server = yield* Server.serve(
    ({ info, reader, writer }) => {
      infos.push(info)
      const { proxyProtocol: header } = info
      return Effect.flatMap(reader.readLine, (line) =>
        writer.writeAll([
          `${at(info.remoteAddress)} ${at(info.localAddress)} ${header?.version} ${header?.command} `,
          line
        ])
      )
    },
    { listen: { host: "127.0.0.1" }, proxyProtocol: { trusted }, onError: () => Effect.void, ...options }
  )
  return { port: portOf(server.addresses[0]), infoOf }
})

/** Connects, says hello, and gives what the server said and who one is. */
const ask = Effect.fnUntraced(function* (target: Network.Target, options?: Connection.ConnectionOptions) {
  const { info, reader, writer } = yield* Connection.connect(target, options)
  yield* writer.write("hello\n")
  return { line: Option.getOrThrow(yield* reader.readLineString), info }
})

const original = {
  source: NetAddress.inetAddressFromStringUnsafe("192.0.2.7:56324"),
  destination: NetAddress.inetAddressFromStringUnsafe("198.51.100.1:443")
}

const original6 = {
  source: NetAddress.inetAddressFromStringUnsafe("[2001:db8::7]:56324"),
  destination: NetAddress.inetAddressFromStringUnsafe("[2001:db8::1]:443")
}

describeWith("haproxy", "from haproxy to a server", () => {
  for (const [version, option] of [
    [1, "send-proxy"],
    [2, "send-proxy-v2"]
  ] as const) {
    live(
      `with ${option}`,
      Effect.gen(function* () {
        const { port } = yield* teller()
        const front = yield* freePort
        yield* haproxy(
          `127.0.0.1:${front}`,
          `  bind 127.0.0.1:${front}`,
          `  server s 127.0.0.1:${port} ${option}`
        )
        const { info, line } = yield* ask(`127.0.0.1:${front}`)
        assert.strictEqual(line, `${at(info.localAddress)} 127.0.0.1:${front} ${version} PROXY hello`)
      })
    )
  }

  live(
    "with a checksum and a unique identifier",
    Effect.gen(function* () {
      const { infoOf, port } = yield* teller()
      const front = yield* freePort
      yield* haproxy(
        `127.0.0.1:${front}`,
        `  bind 127.0.0.1:${front}`,
        `  server s 127.0.0.1:${port} send-proxy-v2 proxy-v2-options crc32c,unique-id`
      )
      const { info, line } = yield* ask(`127.0.0.1:${front}`)
      assert.strictEqual(line, `${at(info.localAddress)} 127.0.0.1:${front} 2 PROXY hello`)
      const { proxyProtocol: header } = infoOf(info.localAddress)
      assert(header !== undefined)
      const id = ProxyProtocol.findTlv(header, ProxyProtocol.TlvType.uniqueId)
      assert.strictEqual(Buffer.from(Option.getOrThrow(id)).toString(), at(info.localAddress))
      assert.strictEqual(header.tlvs.length, 1)
    })
  )

  live(
    "over a Unix socket",
    Effect.gen(function* () {
      const back = path.join(yield* tempFolder, "back.sock")
      yield* teller({ listen: { path: back } })
      const front = yield* freePort
      yield* haproxy(
        `127.0.0.1:${front}`,
        `  bind 127.0.0.1:${front}`,
        `  server s unix@${back} send-proxy-v2`
      )
      const { info, line } = yield* ask(`127.0.0.1:${front}`)
      assert.strictEqual(line, `${at(info.localAddress)} 127.0.0.1:${front} 2 PROXY hello`)
    })
  )

  live(
    "a health check, which is LOCAL",
    Effect.gen(function* () {
      const checked = yield* Deferred.make<Connection.ConnectionInfo>()
      const server = yield* Server.serve(
        ({ info, writer }) =>
          Effect.andThen(
            writer.write("ready\n"),
            info.proxyProtocol?.command === "LOCAL" ? Deferred.succeed(checked, info) : Effect.void
          ),
        { listen: { host: "127.0.0.1" }, proxyProtocol: { trusted }, onError: () => Effect.void }
      )
      const port = portOf(server.addresses[0])
      const front = yield* freePort
      yield* haproxy(
        `127.0.0.1:${front}`,
        `  bind 127.0.0.1:${front}`,
        "  option tcp-check",
        "  tcp-check expect string ready",
        `  server s 127.0.0.1:${port} send-proxy-v2 check check-send-proxy inter 50ms`
      )
      const info = yield* Deferred.await(checked)
      assert.strictEqual(at(info.remoteAddress), at(info.proxyProtocol?.proxy))
      assert.strictEqual(at(info.localAddress), `127.0.0.1:${port}`)
    })
  )
})

describeWith("haproxy", "from a client to haproxy", () => {
  for (const version of [1, 2] as const) {
    live(
      `version ${version}`,
      Effect.gen(function* () {
        const { port } = yield* teller()
        const front = yield* freePort
        yield* haproxy(
          `127.0.0.1:${front}`,
          `  bind 127.0.0.1:${front} accept-proxy`,
          `  server s 127.0.0.1:${port} send-proxy-v2`
        )
        for (const addresses of [original, original6]) {
          const { line } = yield* ask(`127.0.0.1:${front}`, { proxyProtocol: { version, addresses } })
          assert.strictEqual(line, `${at(addresses.source)} ${at(addresses.destination)} 2 PROXY hello`)
        }
        // The client's own.
        const { info, line } = yield* ask(`127.0.0.1:${front}`, { proxyProtocol: { version } })
        assert.strictEqual(line, `${at(info.localAddress)} 127.0.0.1:${front} 2 PROXY hello`)
      })
    )
  }

  live(
    "a checksum, which haproxy verifies, and TLVs, which it passes on as they are asked for",
    Effect.gen(function* () {
      const { port } = yield* teller()
      const front = yield* freePort
      yield* haproxy(
        `127.0.0.1:${front}`,
        `  bind 127.0.0.1:${front} accept-proxy`,
        "  tcp-request inspect-delay 5s",
        "  tcp-request content accept if { fc_pp_authority -m str example.org }",
        "  tcp-request content reject",
        `  server s 127.0.0.1:${port} send-proxy`
      )
      const proxyProtocol: ProxyProtocol.EncodeOptions = {
        addresses: original,
        checksum: true,
        tlvs: [{ type: ProxyProtocol.TlvType.authority, value: new TextEncoder().encode("example.org") }]
      }
      const { line } = yield* ask(`127.0.0.1:${front}`, { proxyProtocol })
      assert.strictEqual(line, "192.0.2.7:56324 198.51.100.1:443 1 PROXY hello")

      // A checksum that is wrong is not believed.
      const header = new Uint8Array(ProxyProtocol.encode(proxyProtocol))
      const last = header.length - 1
      header[last] = (header[last] ?? 0) ^ 1
      const { reader, writer } = yield* Connection.connect(`127.0.0.1:${front}`)
      yield* Effect.ignore(writer.writeAll([header, "hello\n"]))
      const rest = yield* Effect.exit(reader.readAll())
      assert.isTrue(rest._tag === "Failure" || rest.value.length === 0)
    })
  )

  live(
    "LOCAL and nothing known: the socket's own addresses",
    Effect.gen(function* () {
      const { port } = yield* teller()
      const front = yield* freePort
      yield* haproxy(
        `127.0.0.1:${front}`,
        `  bind 127.0.0.1:${front} accept-proxy`,
        `  server s 127.0.0.1:${port} send-proxy-v2`
      )
      const { info, line } = yield* ask(`127.0.0.1:${front}`, { proxyProtocol: { command: "LOCAL" } })
      assert.strictEqual(line, `${at(info.localAddress)} 127.0.0.1:${front} 2 PROXY hello`)
    })
  )
})

describeWith("haproxy", "haproxy and TLS", () => {
  /** HAProxy wants a certificate and its key in one file. */
  const inOneFile = (authority: Authority, identity: Issued) => {
    const pem = path.join(authority.directory, `${path.basename(identity.keyFile)}.both.pem`)
    fs.writeFileSync(pem, identity.certificate + identity.key)
    return pem
  }
  const issue = () => {
    const authority = new Authority()
    const identity = authority.issue()
    const me = authority.issue({ name: "me", altName: "DNS:me" })
    return {
      ca: authority.certificate,
      caFile: authority.file,
      identity,
      pem: inOneFile(authority, identity),
      me,
      myPem: inOneFile(authority, me)
    }
  }
  let made: ReturnType<typeof issue> | undefined
  const certificates = Effect.sync(() => (made ??= issue()))

  live(
    "the header comes before TLS: from haproxy, in one piece with the handshake or not",
    Effect.gen(function* () {
      const { identity } = yield* certificates
      const { infoOf, port } = yield* teller({ tls: { identity } })
      const front = yield* freePort
      yield* haproxy(
        `127.0.0.1:${front}`,
        `  bind 127.0.0.1:${front}`,
        `  server s 127.0.0.1:${port} send-proxy-v2 ssl verify none`
      )
      const { info, line } = yield* ask(`127.0.0.1:${front}`)
      assert.strictEqual(line, `${at(info.localAddress)} 127.0.0.1:${front} 2 PROXY hello`)
      const seen = infoOf(info.localAddress)
      assert.strictEqual(seen.transport, "tls")
      assert.match(seen.tls?.protocol ?? "", /^TLSv1\./)
    })
  )

  live(
    "the header comes before TLS: from a client to haproxy, and from a client to a server",
    Effect.gen(function* () {
      const { ca, identity, pem } = yield* certificates
      const plain = yield* teller()
      const secure = yield* teller({ tls: { identity } })
      const front = yield* freePort
      yield* haproxy(
        `127.0.0.1:${front}`,
        `  bind 127.0.0.1:${front} accept-proxy ssl crt ${pem}`,
        `  server s 127.0.0.1:${plain.port} send-proxy-v2`
      )
      for (const version of [1, 2] as const) {
        for (const port of [front, secure.port]) {
          const { info, line } = yield* ask(
            { host: "localhost", port },
            {
              tls: { ca },
              proxyProtocol: { version, addresses: original },
              happyEyeballs: { firstFamilyCount: 0 }
            }
          )
          const seen = port === front ? 2 : version
          assert.strictEqual(line, `192.0.2.7:56324 198.51.100.1:443 ${seen} PROXY hello`)
          assert.strictEqual(info.transport, "tls")
        }
      }
    })
  )

  live(
    "what haproxy tells of the client's TLS",
    Effect.gen(function* () {
      const { ca, pem } = yield* certificates
      const { infoOf, port } = yield* teller()
      const front = yield* freePort
      yield* haproxy(
        `127.0.0.1:${front}`,
        `  bind 127.0.0.1:${front} ssl crt ${pem} alpn wire`,
        `  server s 127.0.0.1:${port} send-proxy-v2 proxy-v2-options ssl,cert-cn,ssl-cipher,authority`
      )
      const { info } = yield* ask({ host: "localhost", port: front }, { tls: { ca, alpn: ["wire"] } })
      const header = infoOf(info.localAddress).proxyProtocol ?? assert.fail("no header")
      const tlv = (type: number) => Option.getOrThrow(ProxyProtocol.findTlv(header, type))
      const ssl = Result.getOrThrow(ProxyProtocol.decodeSsl(tlv(ProxyProtocol.TlvType.ssl)))
      assert.isTrue(ssl.tls)
      assert.isUndefined(ssl.certificate)
      assert.isFalse(ssl.verified)
      assert.strictEqual(ssl.version, info.tls?.protocol)
      assert.strictEqual(ssl.cipher, info.tls?.cipher)
      assert.strictEqual(Buffer.from(tlv(ProxyProtocol.TlvType.authority)).toString(), "localhost")
      assert.strictEqual(Buffer.from(tlv(ProxyProtocol.TlvType.alpn)).toString(), "wire")
    })
  )

  live(
    "haproxy wants the client's certificate, and tells whose it is, also when the session is resumed",
    Effect.gen(function* () {
      const { ca, caFile, me, pem } = yield* certificates
      const { infoOf, port } = yield* teller()
      const front = yield* freePort
      yield* haproxy(
        `127.0.0.1:${front}`,
        `  bind 127.0.0.1:${front} ssl crt ${pem} ca-file ${caFile} verify required`,
        `  server s 127.0.0.1:${port} send-proxy-v2 proxy-v2-options ssl,cert-cn`
      )
      const tls = { ca, identity: me, sessions: Tls.sessionCache() }
      for (const certificate of ["connection", "session"]) {
        const { info } = yield* Effect.scoped(ask({ host: "localhost", port: front }, { tls }))
        assert.strictEqual(info.tls?.resumed, certificate === "session")
        const header = infoOf(info.localAddress).proxyProtocol ?? assert.fail("no header")
        const tlv = Option.getOrThrow(ProxyProtocol.findTlv(header, ProxyProtocol.TlvType.ssl))
        const ssl = Result.getOrThrow(ProxyProtocol.decodeSsl(tlv))
        assert.deepStrictEqual(
          [ssl.tls, ssl.certificate, ssl.verified, ssl.commonName],
          [true, certificate, true, "me"]
        )
      }
    })
  )

  live(
    "haproxy speaks TLS with our server behind the header: verified both ways, with a name and ALPN",
    Effect.gen(function* () {
      const { ca, caFile, identity, myPem } = yield* certificates
      const { infoOf, port } = yield* teller({
        tls: { identity, ca, clientCertificate: "require", alpn: ["wire"] }
      })
      const front = yield* freePort
      yield* haproxy(
        `127.0.0.1:${front}`,
        `  bind 127.0.0.1:${front}`,
        `  server s 127.0.0.1:${port} send-proxy-v2 ssl verify required ca-file ${caFile} crt ${myPem} ` +
          "sni str(localhost) verifyhost localhost alpn wire"
      )
      const { info, line } = yield* ask(`127.0.0.1:${front}`)
      assert.strictEqual(line, `${at(info.localAddress)} 127.0.0.1:${front} 2 PROXY hello`)
      const { tls } = infoOf(info.localAddress)
      assert.deepStrictEqual(
        [tls?.servername, tls?.alpn, tls?.authorized, tls?.peerCertificate?.subject["CN"]],
        ["localhost", "wire", true, "me"]
      )
    })
  )
})
