// Sends lines to an echo server and prints what comes back.
//   npm run example -- echo-client 127.0.0.1:8888
// Without a target it starts a server of its own.
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Stream } from "effect"
import { Connection, type Network, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

const client = ({ reader, writer }: Connection.Connection) =>
  Effect.forEach(["hello", "world"], (line) =>
    Effect.gen(function* () {
      yield* Console.log(`> ${line}`)
      yield* writer.write(`${line}\n`)
      yield* Console.log("<", yield* reader.readLineString)
    })
  )

const ownServer = Effect.map(
  Server.serve(({ reader, writer }: Connection.Connection) => Stream.run(reader.stream, writer.sink), {
    listen: { host: "127.0.0.1" }
  }),
  (server): Network.Target => server.addresses[0]
)

const [, , argument] = process.argv

const program = Effect.gen(function* () {
  const target = argument ?? (yield* ownServer)
  yield* Connection.use(target, { connectTimeout: "2 seconds", readTimeout: "10 seconds" }, client)
}).pipe(
  Effect.catchReason("ConnectionError", "ConnectionRefused", () => Console.error("nobody listens there")),
  Effect.catchTag("TimeoutError", (error) => Console.error(error.message))
)

program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), NodeRuntime.runMain)
