import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option, References, type Scope, Stream } from "effect"
import { NetAddress } from "effect/net"
import { Connection, type Network, ProxyProtocol, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { Authority } from "../support/certificates.ts"
import { leavingNothing, portOf, rawConnect, rawServer } from "../support/sockets.ts"

const live = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>): void =>
  it.live(title, () => leavingNothing(Effect.scoped(effect)).pipe(Effect.provide(NodeNetwork.layer)))

const authority = new Authority()
const tls = { identity: authority.issue() }
const trust = { ca: authority.certificate }

const serve = Effect.map(
  Server.serve(({ info, writer }) => writer.write(`${String(info.remoteAddress)} over ${info.transport}\n`), {
    listen: { host: "127.0.0.1" },
    proxyProtocol: { trusted: ["127.0.0.1/32"] },
    tls
  }),
  ({ addresses, events }) => ({ events, port: portOf(addresses[0]) })
)

const headers = [1, 2].map((version) =>
  ProxyProtocol.encode({
    version: version === 1 ? 1 : 2,
    addresses: {
      source: NetAddress.inetAddressFromStringUnsafe("192.0.2.7:56324"),
      destination: NetAddress.inetAddressFromStringUnsafe("198.51.100.1:443")
    }
  })
)

describe("a PROXY header before TLS", () => {
  for (const [index, header] of headers.entries()) {
    live(
      `T-035 version ${index + 1}, in one segment with the client's first TLS message`,
      Effect.gen(function* () {
        const { port } = yield* serve
        const middle = yield* rawServer()
        const client = yield* Effect.forkChild(
          Connection.use(
            { host: "localhost", port: middle.port },
            { tls: trust },
            ({ reader }) => reader.readLineString
          )
        )
        const near = yield* middle.next
        const far = yield* rawConnect({ host: "127.0.0.1", port })
        near.once("data", (hello: Buffer) => {
          far.write(Buffer.concat([header, hello]))
          near.pipe(far)
        })
        far.pipe(near)
        near.resume()
        assert.deepStrictEqual(yield* Fiber.join(client), Option.some("192.0.2.7:56324 over tls"))
      })
    )
  }

  live(
    "a client that begins with TLS has sent none",
    Effect.gen(function* () {
      const { events, port } = yield* serve
      const rejected = yield* Effect.forkChild(
        Stream.runHead(Stream.filter(events, (event) => event._tag === "ProxyHeaderRejected")),
        { startImmediately: true }
      )
      const error = yield* Effect.flip(
        Effect.scoped(Connection.connect({ host: "localhost", port }, { tls: trust }))
      )
      assert.strictEqual(error._tag, "ConnectionError")
      const event = Option.getOrThrow(yield* Fiber.join(rejected))
      assert(event._tag === "ProxyHeaderRejected" && event.error._tag === "ProxyProtocolError")
      assert.strictEqual(event.error.kind, "NotAHeader")
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  )
})
