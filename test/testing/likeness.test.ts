import { it } from "@effect/vitest"
import { deepStrictEqual } from "@effect/vitest/utils"
import { Effect, type Layer, Schema } from "effect"
import { NodeNetwork } from "effect-wire/node"
import { Network } from "effect-wire/Network"
import { ConnectionError, ListenError, TimeoutError } from "effect-wire/StreamError"
import { TestNetwork } from "effect-wire/testing"
import { NetAddress } from "effect/net"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { describe } from "vitest"

const encodeError = Schema.encodeUnknownSync(Schema.Union([ConnectionError, ListenError, TimeoutError]))

/** What a failure says, without what is the platform's own. */
const told = (error: ConnectionError | ListenError | TimeoutError): unknown =>
  JSON.parse(
    JSON.stringify(encodeError(error), (key, value: unknown) =>
      key === "cause" || key === "stack" || key === "message" ? undefined : value
    )
  )

// Everything an application can see of one network, with the ports that differ from run to run named.
const observe = Effect.fnUntraced(function* (directory: string) {
  const network = yield* Network
  const seen: Array<unknown> = []
  const ports = new Map<string, string>()
  const see = (what: unknown) => {
    const text = JSON.stringify(what).replace(/(?<=[\]\d*]:)\d{4,5}\b/g, (port) => {
      const name = ports.get(port) ?? `port${ports.size}`
      ports.set(port, name)
      return name
    })
    seen.push(JSON.parse(text))
  }
  const failure = <A, R>(effect: Effect.Effect<A, ConnectionError | ListenError | TimeoutError, R>) =>
    Effect.flatMap(Effect.flip(effect), (error) => Effect.sync(() => see(told(error))))
  const meet = Effect.fnUntraced(function* (
    listener: Effect.Success<ReturnType<Network["Service"]["listen"]>>,
    ...args: Parameters<Network["Service"]["connect"]>
  ) {
    const near = yield* network.connect(...args)
    const far = yield* listener.accept
    see([near.localAddress, near.remoteAddress, far.localAddress, far.remoteAddress].map(String))
    const ignore = { onData() {}, onEnd() {}, onDrain() {}, onClosed() {} }
    for (const transport of [near, far]) {
      transport.start(ignore)
      transport.abort()
    }
  })
  const portOf = (address: NetAddress.SocketAddress) => (NetAddress.isInetAddress(address) ? address.port : 0)

  const v4 = yield* network.listen({ host: "127.0.0.1" })
  const port = portOf(v4.address)
  see(String(v4.address))
  yield* meet(v4, `127.0.0.1:${port}`)
  yield* meet(v4, { host: "localhost", port })
  yield* meet(v4, { host: "0.0.0.0", port })
  yield* meet(v4, v4.address, { localAddress: { host: "127.0.0.2" } })
  yield* failure(network.listen({ host: "127.0.0.1", port }))
  yield* failure(network.listen({ port }))
  yield* failure(network.listen({ host: "0.0.0.0", port }))
  yield* failure(network.connect(v4.address, { localAddress: { host: "127.0.0.1", port } }))
  yield* failure(network.connect(v4.address, { localAddress: { host: "::1" } }))
  yield* v4.close
  yield* failure(network.connect(`127.0.0.1:${port}`))

  const any = yield* network.listen({ port: 0 })
  see(String(any.address))
  for (const host of ["127.0.0.1", "::1", "localhost", "::"]) {
    yield* meet(any, { host, port: portOf(any.address) })
  }

  const file = path.join(directory, "a.sock")
  yield* failure(network.connect({ path: file }))
  const unix = yield* network.listen({ path: file })
  see(String(unix.address))
  yield* meet(unix, { path: file })
  yield* failure(network.listen({ path: file }))
  yield* unix.close
  yield* failure(network.connect({ path: file }))

  yield* failure(network.connect("localhost:0"))
  yield* failure(network.connect("localhost"))
  yield* failure(network.connect({ path: "a".repeat(108) }))
  yield* failure(network.listen({ port: 65_536 }))
  yield* failure(network.listen({ path: "" }))
  yield* failure(network.connect("127.0.0.1:1", { localAddress: { host: "localhost" } }))
  return seen
})

const temporaryDirectory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "likeness-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true }))
)

describe("the simulated network", () => {
  it.live("shows what the operating system's shows", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const on = (layer: Layer.Layer<Network>) =>
        Effect.scoped(Effect.provide(observe(directory), layer, { local: true }))
      deepStrictEqual(yield* on(TestNetwork.layer), yield* on(NodeNetwork.layer))
    })
  )
})
