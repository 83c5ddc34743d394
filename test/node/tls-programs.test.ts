import { assert, it } from "@effect/vitest"
import { Effect, Option, Queue, type Scope, Stream } from "effect"
import type { NetAddress } from "effect/net"
import { Connection, type Network, Server, StreamError, Tls } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import * as RedisClient from "../../examples/protocols/redisClient.ts"
import * as RedisServer from "../../examples/protocols/redisServer.ts"
import { Authority, type Issued } from "../support/certificates.ts"
import { describeWith, says, spawnPeer, tempFolder } from "../support/programs.ts"
import { freePort, portOf } from "../support/sockets.ts"

const live = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>): void =>
  it.live(title, () => effect.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer)))

const authority = new Authority()
const ca = authority.certificate
const identity = authority.issue()
const me = authority.issue({ name: "me", altName: "DNS:me" })
const listen = { host: "127.0.0.1" }
const versions = ["TLSv1.2", "TLSv1.3"] as const

const at = (address: NetAddress.SocketAddress | undefined) => String(address)

/** What became of a connection's first read, in two words. */
const refusal = (error: unknown): readonly [reason: string, kind: string | undefined] => {
  assert(error instanceof StreamError.ConnectionError, String(error))
  const { reason } = error
  return [reason._tag, reason._tag === "TlsError" ? reason.kind : undefined]
}

describeWith("redis-server", "TLS with redis-server", () => {
  /** Redis, which serves nobody without a certificate of our authority. */
  const redis = Effect.gen(function* () {
    const port = yield* freePort
    const server = yield* spawnPeer("redis-server", [
      ...["--port", "0", "--bind", "127.0.0.1", "--tls-port", String(port), "--save", ""],
      ...["--tls-cert-file", identity.certificateFile, "--tls-key-file", identity.keyFile],
      ...["--tls-ca-cert-file", authority.file, "--tls-auth-clients", "yes"]
    ])
    yield* says(server, /ready to accept connections/i)
    return { host: "localhost", port }
  })

  for (const maxVersion of versions) {
    live(
      `${maxVersion}, with a client certificate: commands, a value of 4 MiB, and a session that is resumed`,
      Effect.gen(function* () {
        const target = yield* redis
        const tls = { ca, identity: me, maxVersion, sessions: Tls.sessionCache() }
        const value = randomBytes(4 * 1024 * 1024)
        const visit = (resumed: boolean) =>
          Effect.scoped(
            Effect.gen(function* () {
              const connection = yield* Connection.connect(target, { tls })
              assert.strictEqual(connection.info.tls?.protocol, maxVersion)
              assert.strictEqual(connection.info.tls?.resumed, resumed)
              const { command } = yield* RedisClient.make(connection)
              assert.strictEqual(yield* command("SET", "value", value), "OK")
              const back = yield* command("GET", "value")
              assert(back instanceof Uint8Array && value.equals(back))
            })
          )
        yield* visit(false)
        yield* visit(true)
      })
    )
  }

  live(
    "without a certificate: TLS 1.2 fails in the handshake, TLS 1.3 at the first read; the reason says so",
    Effect.gen(function* () {
      const target = yield* redis
      const failure = (maxVersion: Tls.Version) =>
        Effect.scoped(
          Effect.gen(function* () {
            const { reader } = yield* Connection.connect(target, { tls: { ca, maxVersion } })
            yield* reader.read()
          })
        ).pipe(
          Effect.flip,
          Effect.map((error) => [error._tag === "ConnectionError" && error.operation, ...refusal(error)])
        )
      assert.deepStrictEqual(yield* failure("TLSv1.3"), ["read", "TlsError", "ClientCertificateRequired"])
      assert.deepStrictEqual(yield* failure("TLSv1.2"), ["handshake", "TlsError", "Refused"])
    })
  )

  live(
    "a server of another authority is not trusted, and has heard nothing from us",
    Effect.gen(function* () {
      const target = yield* redis
      const other = new Authority("Another CA")
      const error = yield* Effect.flip(
        Effect.scoped(Connection.connect(target, { tls: { ca: other.certificate, identity: me } }))
      )
      assert.deepStrictEqual(refusal(error), ["TlsError", "UnknownCa"])
    })
  )
})

describeWith("redis-benchmark", "TLS with Redis's own programs", () => {
  const secure = ["--tls", "--cacert", authority.file, "--cert", me.certificateFile, "--key", me.keyFile]
  const serve = Effect.map(
    RedisServer.serve({ listen, tls: { identity, ca, clientCertificate: "require" } }),
    ({ addresses }) => portOf(addresses[0])
  )

  live(
    "redis-cli",
    Effect.gen(function* () {
      const port = yield* serve
      const { child, exit } = yield* spawnPeer("redis-cli", [
        "-h",
        "localhost",
        "-p",
        String(port),
        ...secure
      ])
      child.stdin?.end("SET colour 'deep blue'\nGET colour\n")
      assert.deepStrictEqual(yield* exit, { code: 0, output: "OK\ndeep blue\n" })
    })
  )

  live(
    "redis-benchmark: SET and GET, 16 at a time from 50 clients",
    Effect.gen(function* () {
      const port = yield* serve
      const { exit } = yield* spawnPeer("redis-benchmark", [
        ...["-h", "127.0.0.1", "-p", String(port), ...secure],
        ...["-t", "set,get", "-n", "2000", "-c", "50", "-P", "16", "-d", "1000", "-q"]
      ])
      const { code, output } = yield* exit
      assert.strictEqual(code, 0, output)
      assert.notMatch(output, /error|warning/i)
      for (const name of ["SET", "GET"]) {
        assert.match(output, new RegExp(`${name}: [1-9][\\d.]* requests per second`))
      }
    })
  )
})

const streamModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

describeWith("nginx", "TLS with nginx", () => {
  /** An nginx that passes connections on; gives its port. */
  const nginx = Effect.fnUntraced(function* (...lines: ReadonlyArray<string>) {
    const folder = yield* tempFolder
    const port = yield* freePort
    const file = path.join(folder, "nginx.conf")
    const config = [
      ...(fs.existsSync(streamModule) ? [`load_module ${streamModule};`] : []),
      "daemon off;",
      "master_process off;",
      `pid ${folder}/pid;`,
      "error_log stderr notice;",
      "events {}",
      "stream {",
      "  server {",
      `    listen 127.0.0.1:${port}${lines.some((line) => line.startsWith("ssl_")) ? " ssl" : ""};`,
      ...lines.map((line) => `    ${line};`),
      "  }",
      "}",
      ""
    ]
    fs.writeFileSync(file, config.join("\n"))
    const { line } = yield* spawnPeer("nginx", ["-p", folder, "-c", file, "-e", "stderr"])
    while (!/using the ".*" event method/.test(yield* line)) {
      // It listens before it says so.
    }
    return port
  })

  const terminate = [
    `ssl_certificate ${identity.certificateFile}`,
    `ssl_certificate_key ${identity.keyFile}`,
    "ssl_protocols TLSv1.2 TLSv1.3"
  ]

  const initiate = ({ certificateFile, keyFile }: Issued, name: string) => [
    "proxy_ssl on",
    `proxy_ssl_certificate ${certificateFile}`,
    `proxy_ssl_certificate_key ${keyFile}`,
    `proxy_ssl_trusted_certificate ${authority.file}`,
    "proxy_ssl_protocols TLSv1.2 TLSv1.3",
    "proxy_ssl_verify on",
    "proxy_ssl_server_name on",
    `proxy_ssl_name ${name}`
  ]

  for (const maxVersion of versions) {
    live(
      `it terminates our ${maxVersion}, with ALPN, a client certificate and a PROXY header, and resumes a session`,
      Effect.gen(function* () {
        const server = yield* Server.serve(
          ({ info, writer }) => writer.write(`${at(info.remoteAddress)} ${info.proxyProtocol?.version}\n`),
          { listen, proxyProtocol: { trusted: ["127.0.0.1/32"] } }
        )
        const port = yield* nginx(
          ...terminate,
          "ssl_alpn wire/1",
          `ssl_client_certificate ${authority.file}`,
          "ssl_verify_client on",
          "proxy_protocol on",
          `proxy_pass 127.0.0.1:${portOf(server.addresses[0])}`
        )
        const tls = { ca, identity: me, alpn: ["wire/1"], maxVersion, sessions: Tls.sessionCache() }
        const visit = Effect.scoped(
          Effect.gen(function* () {
            const { info, reader } = yield* Connection.connect({ host: "localhost", port }, { tls })
            const line = yield* reader.readLineString
            assert.deepStrictEqual(line, Option.some(`${at(info.localAddress)} 1`))
            assert.strictEqual((yield* reader.readAll()).length, 0)
            assert.strictEqual(info.tls?.alpn, "wire/1")
            assert.strictEqual(info.tls?.protocol, maxVersion)
            return info.tls?.resumed
          })
        )
        assert.isFalse(yield* visit)
        assert.isTrue(yield* visit)
      })
    )

    live(
      `it speaks ${maxVersion} to our server, verified both ways, and resumes a session`,
      Effect.gen(function* () {
        const infos = yield* Queue.unbounded<Tls.TlsInfo | undefined>()
        const ended = yield* Queue.unbounded<string>()
        const server = yield* Server.serve(
          ({ info, reader, writer }) =>
            Stream.run(reader.stream, writer.sink).pipe(
              Effect.andThen(Queue.offer(infos, info.tls)),
              Effect.onExit((exit) => Queue.offer(ended, exit._tag))
            ),
          { listen, tls: { identity, ca, clientCertificate: "require", maxVersion } }
        )
        const port = yield* nginx(
          ...initiate(me, "localhost"),
          `proxy_pass 127.0.0.1:${portOf(server.addresses[0])}`
        )
        const sent = randomBytes(1_000_000)
        for (const resumed of [false, true]) {
          yield* Connection.use(`127.0.0.1:${port}`, ({ reader, writer }) =>
            Effect.gen(function* () {
              const [received] = yield* Effect.all([reader.readExactly(sent.length), writer.write(sent)], {
                concurrency: "unbounded"
              })
              assert.isTrue(sent.equals(received))
            })
          )
          // Its close_notify comes with the end: the handler has read an orderly one.
          assert.strictEqual(yield* Queue.take(ended), "Success")
          const tls = yield* Queue.take(infos)
          assert.strictEqual(tls?.protocol, maxVersion)
          assert.strictEqual(tls?.servername, "localhost")
          assert.strictEqual(tls?.peerCertificate?.subject["CN"], "me")
          assert.isTrue(tls?.authorized)
          assert.strictEqual(tls?.resumed, resumed)
        }
      })
    )
  }

  live(
    "it does not trust our server: it leaves in order after the handshake, and passes nothing on",
    Effect.gen(function* () {
      const received = yield* Queue.unbounded<number>()
      const server = yield* Server.serve(
        ({ reader }) => Effect.flatMap(reader.readAll(), ({ length }) => Queue.offer(received, length)),
        { listen, tls: { identity } }
      )
      const port = yield* nginx(
        ...initiate(me, "other.example"),
        `proxy_pass 127.0.0.1:${portOf(server.addresses[0])}`
      )
      const { reader } = yield* Connection.connect(`127.0.0.1:${port}`)
      assert.strictEqual((yield* reader.readAll()).length, 0)
      assert.strictEqual(yield* Queue.take(received), 0)
    })
  )
})
