// A TCP proxy: listens on a port and relays every client to a target, both ways, each at the speed of the other.
//   npm run example -- tcp-proxy 8888 example.org:80            then: nc 127.0.0.1 8888
//   npm run example -- tcp-proxy 8888 example.org:80 --dump     prints all bytes as well
// Without arguments it plays a scene of its own.
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { NetAddress } from "effect/net"
import { Connection, type Network, Relay, Server, Tap } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

const peerOf = ({ info }: Connection.Connection): string =>
  info.remoteAddress === undefined ? "?" : NetAddress.formatSocketAddress(info.remoteAddress)

const relayTo = (target: Network.Target, dump: boolean) =>
  Effect.fnUntraced(function* (client: Connection.Connection) {
    const peer = peerOf(client)
    // What the client sends waits meanwhile; if there is nobody, its connection is reset.
    const backend = yield* Connection.connect(target, { connectTimeout: "5 seconds" })
    const front = dump ? yield* Connection.tap(client, Tap.hexDump(Console.log)) : client
    // `idle`: a client that is gone is not noticed while the target does not take what it has sent.
    const report = yield* Relay.bidirectional(front, backend, {
      halfCloseIdle: "30 seconds",
      idle: "5 minutes"
    })
    const first = report.closedFirst === "a" ? "the client" : "the target"
    yield* Console.log(
      `${peer}: ${report.aToB} bytes there, ${report.bToA} bytes back, ${first} ended first (${report.ending})`
    )
  })

const proxy = (port: number, target: Network.Target, dump: boolean) =>
  Server.serve(relayTo(target, dump), {
    listen: { host: "127.0.0.1", port },
    maxConnections: 1000,
    onError: (cause, info) => Effect.logWarning("a client was lost", info.remoteAddress, cause)
  })

/** Answers a request, which goes on until the end of input, with as many bytes as it had. */
const counter = ({ reader, writer }: Connection.Connection) =>
  Effect.flatMap(reader.readAll({ maxBytes: 1e9 }), ({ length }) =>
    writer.write(`${length} bytes received\n`)
  )

const scene = Effect.gen(function* () {
  const onLoopback = { listen: { host: "127.0.0.1", port: 0 } } as const
  const target = yield* Server.serve(counter, onLoopback)

  yield* Console.log("--- a request and its answer, as the proxy sees them")
  const dumping = yield* proxy(0, target.addresses[0], true)
  const ask = (request: string | Uint8Array) => (connection: Connection.Connection) =>
    Effect.gen(function* () {
      yield* connection.writer.write(request)
      // Only this direction ends: the answer still comes.
      yield* connection.writer.end
      const answer = yield* connection.reader.readAll()
      yield* Console.log(`client: ${new TextDecoder().decode(answer).trimEnd()}`)
    })
  yield* Connection.use(dumping.addresses[0], ask("hello through the proxy\n"))
  yield* dumping.shutdown({ grace: "5 seconds" })

  yield* Console.log("--- 100 MiB")
  const plain = yield* proxy(0, target.addresses[0], false)
  yield* Connection.use(plain.addresses[0], ask(new Uint8Array(100 * 1024 * 1024)))
  yield* plain.shutdown({ grace: "5 seconds" })

  yield* Console.log("--- nobody there")
  yield* target.shutdown()
  const lost = yield* proxy(0, target.addresses[0], false)
  yield* Connection.use(lost.addresses[0], ask("hello?")).pipe(
    Effect.catchTag("ConnectionError", (error) => Console.log(`client: ${error.message}`))
  )
})

const [port, target, dump] = process.argv.slice(2)

const program =
  port === undefined || target === undefined
    ? scene
    : Effect.gen(function* () {
        const server = yield* proxy(Number(port), target, dump === "--dump")
        yield* Console.log(`${NetAddress.formatSocketAddress(server.addresses[0])} -> ${target}`)
        return yield* Effect.never
      })

program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), NodeRuntime.runMain)
