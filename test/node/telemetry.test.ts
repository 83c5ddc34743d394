import { assert, it } from "@effect/vitest"
import { Effect, Metric, Stream } from "effect"
import { Connection, type Network, Server, Telemetry } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import * as path from "node:path"
import { Authority } from "../support/certificates.ts"
import { leavingNothing, portOf, tempDirectory } from "../support/sockets.ts"
import { makeTracer } from "../support/tracer.ts"

const echo = ({ reader, writer }: Connection.Connection) => Stream.run(reader.stream, writer.sink)

/** Serves one client, who says something and goes; gives the attributes of both spans. */
const conversation = Effect.fnUntraced(function* (
  serverOptions: Server.Options,
  clientOptions?: Connection.ConnectionOptions
) {
  const { named, spans, tracer } = makeTracer()
  return yield* Effect.gen(function* () {
    const server = yield* Server.serve(echo, { ...serverOptions, name: "one" })
    const [address] = server.addresses
    yield* Connection.use(address, clientOptions, ({ reader, writer }) =>
      Effect.andThen(writer.write("hello\n"), reader.readLine)
    )
    yield* server.shutdown()
    const accepted = Metric.withAttributes(Telemetry.serverConnectionsAccepted, { server: "one" })
    assert.strictEqual((yield* Metric.value(accepted)).count, 1)
    assert.deepStrictEqual(
      spans.map(({ name, status }) => [name, status._tag === "Ended" && status.exit._tag]),
      [
        ["Connection.connect", "Success"],
        ["Server.connection", "Success"]
      ]
    )
    const attributesOf = (name: string) => named(name).map((_) => Object.fromEntries(_.attributes))
    const [client, served] = [attributesOf("Connection.connect")[0], attributesOf("Server.connection")[0]]
    return { address, client, served }
  }).pipe(
    Effect.scoped,
    Effect.withTracer(tracer),
    Effect.provideService(Metric.MetricRegistry, new Map()),
    leavingNothing
  )
})

const live = (title: string, effect: Effect.Effect<unknown, unknown, Network.Network>): void =>
  it.live(title, () => Effect.provide(effect, NodeNetwork.layer))

const listen = { host: "127.0.0.1" }

live(
  "TCP",
  Effect.gen(function* () {
    const { address, client, served } = yield* conversation({ listen })
    const port = portOf(address)
    assert.deepInclude(client, {
      "server.address": "127.0.0.1",
      "server.port": port,
      "network.transport": "tcp",
      "network.type": "ipv4",
      "network.peer.address": "127.0.0.1",
      "network.peer.port": port
    })
    assert.deepInclude(served, {
      "network.transport": "tcp",
      "network.type": "ipv4",
      "network.local.address": "127.0.0.1",
      "network.local.port": port,
      "network.peer.address": "127.0.0.1",
      "network.peer.port": client?.["network.local.port"],
      "client.address": "127.0.0.1",
      "client.port": client?.["network.local.port"]
    })
  })
)

live(
  "TLS is spoken over TCP",
  Effect.gen(function* () {
    const authority = new Authority()
    const tls = { identity: authority.issue(), alpn: ["echo/1"] }
    const { client, served } = yield* conversation(
      { listen, tls },
      { tls: { ca: authority.certificate, servername: "localhost", alpn: ["echo/1"] } }
    )
    for (const attributes of [client, served]) {
      assert.deepInclude(attributes, {
        "network.transport": "tcp",
        "tls.protocol.name": "tls",
        "tls.protocol.version": "1.3",
        "tls.next_protocol": "echo/1"
      })
      assert.match(String(attributes?.["tls.cipher"]), /^TLS_/)
    }
  })
)

live(
  "Unix sockets",
  Effect.scoped(
    Effect.gen(function* () {
      const file = path.join(yield* tempDirectory, "echo.sock")
      const { client, served } = yield* conversation({ listen: { path: file } })
      assert.deepStrictEqual(
        [client?.["server.address"], client?.["network.transport"], client?.["network.type"]],
        [file, "unix", undefined]
      )
      assert.deepStrictEqual(
        [served?.["network.local.address"], served?.["network.transport"], served?.["client.address"]],
        [file, "unix", undefined]
      )
    })
  )
)
