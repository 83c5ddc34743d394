// A server that speaks enough of Redis for redis-cli and redis-benchmark, until Ctrl-C.
//   npm run example -- redis-server 6380     then: redis-benchmark -p 6380 -t ping,set,get,incr -P 16 -q
// Without a port it takes a free one, and has a conversation with a client of its own.
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { NetAddress } from "effect/net"
import { Connection } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import * as RedisClient from "./protocols/redisClient.ts"
import * as RedisServer from "./protocols/redisServer.ts"
import { type Command, readable } from "./protocols/resp.ts"

const conversation: ReadonlyArray<Command> = [
  ["SET", "colour", "deep blue"],
  ["GET", "colour"],
  ["INCR", "visits"],
  ["INCR", "visits"],
  ["INCR", "colour"]
]

const port = Number(process.argv[2] ?? 0)

const program = Effect.gen(function* () {
  const server = yield* RedisServer.serve({ listen: { host: "127.0.0.1", port }, maxConnections: 1000 })
  const [address] = server.addresses
  yield* Console.log(`listening on ${NetAddress.formatSocketAddress(address)}`)
  if (port !== 0) return yield* Effect.never

  const { command } = yield* RedisClient.make(yield* Connection.connect(address), { protocol: 2 })
  for (const words of conversation) {
    const reply = yield* command(...words).pipe(
      Effect.map(readable),
      Effect.catchTag("RedisError", (error) => Effect.succeed(error.message))
    )
    yield* Console.log(words.join(" "), "->", reply)
  }
})

program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), NodeRuntime.runMain)
