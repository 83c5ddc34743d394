import { assert, it } from "@effect/vitest"
import { ConfigProvider, Effect, type Scope, Stream } from "effect"
import { NetAddress } from "effect/net"
import { Connection, type Network, Proxy, Server, type Tls } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import { Authority, type Issued } from "../support/certificates.ts"
import { describeWith, ready, spawnPeer, tempFolder } from "../support/programs.ts"
import { freePort } from "../support/sockets.ts"

const live = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>): void =>
  it.live(title, () => effect.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer)))

const echoWith = (tls: Tls.ServerOptions | undefined) =>
  Effect.map(
    Server.serve(({ reader, writer }) => Stream.run(reader.stream, writer.sink), {
      listen: { host: "127.0.0.1" },
      tls
    }),
    ({ addresses }) => {
      const [address] = addresses
      return NetAddress.isInetAddress(address) ? address.port : assert.fail("not an internet address")
    }
  )

const echo = echoWith(undefined)

/** Has a megabyte echoed through proxies. */
const echoes = Effect.fnUntraced(function* (
  target: Network.Target,
  proxy: Proxy.Proxy | ReadonlyArray<Proxy.Proxy>,
  options?: Connection.ConnectionOptions
) {
  const { reader, writer } = yield* Connection.connect(target, { proxy, ...options })
  const sent = randomBytes(1024 * 1024)
  const [received] = yield* Effect.all([reader.readExactly(sent.length), writer.write(sent)], {
    concurrency: "unbounded"
  })
  assert.isTrue(sent.equals(received))
})

const failure = (target: Network.Target, proxy: Proxy.Proxy) =>
  Effect.map(Effect.flip(Effect.scoped(Connection.connect(target, { proxy }))), (error) => {
    assert(error._tag === "ConnectionError" && error.reason._tag === "ProxyError", error.message)
    return [error.reason.kind, error.reason.code]
  })

const microsocks = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
  const port = yield* freePort
  yield* spawnPeer("microsocks", ["-i", "127.0.0.1", "-p", String(port), ...args])
  yield* ready(`127.0.0.1:${port}`)
  return `127.0.0.1:${port}`
})

const tinyproxy = Effect.fnUntraced(function* (...lines: ReadonlyArray<string>) {
  const port = yield* freePort
  const file = path.join(yield* tempFolder, "tinyproxy.conf")
  fs.writeFileSync(
    file,
    [`Port ${port}`, "Listen 127.0.0.1", "Timeout 60", "MaxClients 20", ...lines, ""].join("\n")
  )
  const { line } = yield* spawnPeer("tinyproxy", ["-d", "-c", file])
  while (!(yield* line).includes("Accepting connections")) {
    // The lines before that one tell of its start.
  }
  return `127.0.0.1:${port}`
})

/** Speaks TLS for a proxy that does not. */
const haproxy = Effect.fnUntraced(function* (backend: string, { certificate, key }: Issued) {
  const folder = yield* tempFolder
  const port = yield* freePort
  const pem = path.join(folder, "both.pem")
  fs.writeFileSync(pem, certificate + key)
  const file = path.join(folder, "haproxy.cfg")
  fs.writeFileSync(
    file,
    [
      "defaults",
      "  mode tcp",
      "  timeout connect 5s",
      "  timeout client 30s",
      "  timeout server 30s",
      "listen proxy",
      `  bind 127.0.0.1:${port} ssl crt ${pem}`,
      `  server plain ${backend}`,
      ""
    ].join("\n")
  )
  yield* spawnPeer("haproxy", ["-db", "-f", file])
  yield* ready(`127.0.0.1:${port}`)
  return { host: "localhost", port }
})

const authority = new Authority()
const identity = authority.issue()
const ca = authority.certificate

const overTls = (): void => {
  live(
    "and plainly with the target",
    Effect.gen(function* () {
      const target = `localhost:${yield* echo}`
      const proxy = Proxy.httpConnect(yield* haproxy(yield* tinyproxy("BasicAuth ali sesame"), identity), {
        username: "ali",
        password: "sesame",
        tls: { ca }
      })
      yield* echoes(target, proxy)
      const connection = yield* Connection.connect(target, { proxy })
      assert.isUndefined(connection.info.tls)
      assert.strictEqual(connection.info.target, target)
    })
  )

  live(
    "and TLS inside of that with the target, from the beginning and later",
    Effect.gen(function* () {
      const port = yield* echoWith({ identity: authority.issue({ name: "target" }), alpn: ["echo"] })
      const target = `localhost:${port}`
      const proxy = Proxy.httpConnect(yield* haproxy(yield* tinyproxy(), identity), { tls: { ca } })
      const tls = { ca, alpn: ["echo"] }
      yield* echoes(target, proxy, { tls })
      for (const later of [false, true]) {
        const connection = yield* Connection.connect(target, { proxy, ...(!later && { tls }) })
        if (later) yield* connection.upgradeTls({ role: "client", ...tls })
        assert.strictEqual(connection.info.tls?.alpn, "echo")
        assert.strictEqual(connection.info.tls?.peerCertificate?.subject["CN"], "target")
        const again = yield* Effect.flip(connection.upgradeTls({ role: "client", ...tls }))
        assert(again._tag === "ConnectionError" && again.reason._tag === "Unsupported", again.message)
        yield* connection.writer.write("and back")
        assert.strictEqual(new TextDecoder().decode(yield* connection.reader.readExactly(8)), "and back")
      }
    })
  )

  live(
    "twice, and TLS with the target inside of both",
    Effect.gen(function* () {
      const target = `localhost:${yield* echoWith({ identity })}`
      const first = Proxy.httpConnect(yield* haproxy(yield* tinyproxy(), identity), { tls: { ca } })
      const second = Proxy.httpConnect(yield* haproxy(yield* tinyproxy(), identity), { tls: { ca } })
      yield* echoes(target, [first, second], { tls: { ca } })
    })
  )

  live(
    "which is not trusted, or is for another name, or speaks no TLS",
    Effect.gen(function* () {
      const secured = yield* haproxy(yield* tinyproxy(), identity)
      const { addresses } = yield* Server.serve(
        ({ writer }) => writer.write("HTTP/1.1 400 Bad Request\r\n\r\n"),
        { listen: { host: "127.0.0.1" } }
      )
      for (const [where, tls, kind] of [
        [secured, true, "UnknownCa"],
        [secured, { ca, servername: "other.test" }, "WrongHost"],
        [addresses[0], { ca }, "NotTls"]
      ] as const) {
        const proxy = Proxy.httpConnect(where, { tls })
        const target = `localhost:${yield* echo}`
        const error = yield* Effect.flip(Effect.scoped(Connection.connect(target, { proxy })))
        assert(error._tag === "ConnectionError" && error.reason._tag === "TlsError", error.message)
        assert.deepStrictEqual(
          [error.operation, error.reason.kind, error.proxyFor],
          ["handshake", kind, target]
        )
      }
    })
  )
}

describeWith("tinyproxy", "through tinyproxy behind haproxy", () => {
  describeWith("haproxy", "over TLS with the proxy", overTls)
})

describeWith("microsocks", "through microsocks", () => {
  live(
    "by name and by address",
    Effect.gen(function* () {
      const port = yield* echo
      const proxy = Proxy.socks5(yield* microsocks())
      yield* echoes(`127.0.0.1:${port}`, proxy)
      yield* echoes(`localhost:${port}`, proxy)
      assert.deepStrictEqual(yield* failure(`127.0.0.1:${yield* freePort}`, proxy), [
        "Refused",
        "SOCKS5_CONNECTION_REFUSED"
      ])
      const [kind] = yield* failure("host.invalid:80", proxy)
      assert.strictEqual(kind, "Refused")
    })
  )

  live(
    "with a password, and not without",
    Effect.gen(function* () {
      const port = yield* echo
      const address = yield* microsocks("-u", "ali", "-P", "sesame")
      yield* echoes(`127.0.0.1:${port}`, Proxy.socks5(address, { username: "ali", password: "sesame" }))
      for (const credentials of [undefined, { username: "ali", password: "wrong" }]) {
        assert.deepStrictEqual(yield* failure(`127.0.0.1:${port}`, Proxy.socks5(address, credentials)), [
          "AuthenticationFailed",
          undefined
        ])
      }
    })
  )

  live(
    "twice",
    Effect.gen(function* () {
      const first = Proxy.socks5(yield* microsocks())
      const second = Proxy.socks5(yield* microsocks("-u", "ali", "-P", "sesame"), {
        username: "ali",
        password: "sesame"
      })
      yield* echoes(`localhost:${yield* echo}`, [first, second])
    })
  )
})

describeWith("tinyproxy", "through tinyproxy", () => {
  live(
    "by name and by address",
    Effect.gen(function* () {
      const port = yield* echo
      const proxy = Proxy.httpConnect(yield* tinyproxy())
      yield* echoes(`127.0.0.1:${port}`, proxy)
      yield* echoes(`localhost:${port}`, proxy)
      const [kind, code] = yield* failure(`127.0.0.1:${yield* freePort}`, proxy)
      assert.strictEqual(kind, "Refused")
      assert.match(code ?? "", /^HTTP_5\d\d$/)
    })
  )

  live(
    "with a password, and not without",
    Effect.gen(function* () {
      const port = yield* echo
      const address = yield* tinyproxy("BasicAuth ali sesame")
      yield* echoes(`127.0.0.1:${port}`, Proxy.httpConnect(address, { username: "ali", password: "sesame" }))
      assert.deepStrictEqual(yield* failure(`127.0.0.1:${port}`, Proxy.httpConnect(address)), [
        "AuthenticationFailed",
        "HTTP_407"
      ])
      assert.deepStrictEqual(
        yield* failure(
          `127.0.0.1:${port}`,
          Proxy.httpConnect(address, { username: "ali", password: "wrong" })
        ),
        ["AuthenticationFailed", "HTTP_401"]
      )
    })
  )

  live(
    "with the password in a header, and a proxy that the environment names",
    Effect.gen(function* () {
      const port = yield* echo
      const address = yield* tinyproxy("BasicAuth ali sesame")
      const headers = { "Proxy-Authorization": `Basic ${Buffer.from("ali:sesame").toString("base64")}` }
      yield* echoes(`127.0.0.1:${port}`, Proxy.httpConnect(address, { headers }))
      const proxyFor = yield* Proxy.fromEnvironment.parse(
        ConfigProvider.fromEnv({
          env: { ALL_PROXY: `http://ali:sesame@${address}`, NO_PROXY: "127.0.0.0/8" }
        })
      )
      const proxy = proxyFor(`localhost:${port}`)
      assert.isTrue(Proxy.isProxy(proxy))
      if (proxy !== undefined) yield* echoes(`localhost:${port}`, proxy)
      assert.isUndefined(proxyFor(`127.0.0.1:${port}`))
    })
  )

  live(
    "where it may not",
    Effect.gen(function* () {
      const proxy = Proxy.httpConnect(yield* tinyproxy("ConnectPort 1"))
      assert.deepStrictEqual(yield* failure(`127.0.0.1:${yield* echo}`, proxy), ["Refused", "HTTP_403"])
    })
  )
})
