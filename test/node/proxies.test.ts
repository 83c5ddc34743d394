import { assert, it } from "@effect/vitest"
import { Effect, Schedule, type Scope, Stream } from "effect"
import { NetAddress } from "effect/net"
import { Connection, type Network, Proxy, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import { describeWith, spawnPeer, tempFolder } from "../support/programs.ts"
import { rawServer } from "../support/sockets.ts"

const live = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>): void =>
  it.live(title, () => effect.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer)))

/** A port that nobody listens on. */
const freePort = Effect.map(Effect.scoped(rawServer()), ({ port }) => port)

const echo = Effect.map(
  Server.serve(({ reader, writer }) => Stream.run(reader.stream, writer.sink), {
    listen: { host: "127.0.0.1" }
  }),
  ({ addresses }) => {
    const [address] = addresses
    return NetAddress.isInetAddress(address) ? address.port : assert.fail("not an internet address")
  }
)

/** Some programs do not say when they are ready. */
const ready = (port: number) =>
  Effect.retry(Effect.scoped(Connection.connect(`127.0.0.1:${port}`)), {
    schedule: Schedule.spaced("20 millis"),
    times: 250
  })

/** Has a megabyte echoed through proxies. */
const echoes = Effect.fnUntraced(function* (
  target: Network.Target,
  proxy: Proxy.Proxy | ReadonlyArray<Proxy.Proxy>
) {
  const { reader, writer } = yield* Connection.connect(target, { proxy })
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
  yield* ready(port)
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
      const [kind] = yield* failure(
        `127.0.0.1:${port}`,
        Proxy.httpConnect(address, { username: "ali", password: "wrong" })
      )
      assert.notStrictEqual(kind, "MalformedReply")
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
