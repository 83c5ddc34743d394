// An echo server with limits, until Ctrl-C.
//   npm run example -- echo-server 8888
// Without a port it takes a free one, lets one client in, and ends.
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Stream } from "effect"
import { NetAddress } from "effect/net"
import { Connection, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

const echo = Effect.fnUntraced(function* ({ info, reader, writer }: Connection.Connection) {
  const peer = info.remoteAddress === undefined ? "?" : NetAddress.formatSocketAddress(info.remoteAddress)
  yield* Console.log(`${peer} connected`)
  yield* Stream.run(reader.stream, writer.sink)
  yield* Console.log(`${peer} ended`)
})

const port = Number(process.argv[2] ?? 0)

const program = Effect.gen(function* () {
  const server = yield* Server.serve(echo, {
    listen: { host: "127.0.0.1", port },
    maxConnections: 1000,
    idleTimeout: "5 minutes"
  })
  const [address] = server.addresses
  yield* Console.log(`listening on ${NetAddress.formatSocketAddress(address)}`)
  if (port !== 0) return yield* Effect.never

  yield* Connection.use(address, ({ reader, writer }) =>
    Effect.flatMap(Effect.andThen(writer.write("hello\n"), reader.readLineString), Console.log)
  )
  yield* Effect.flatMap(server.shutdown(), Console.log)
})

program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), NodeRuntime.runMain)
