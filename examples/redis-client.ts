// A client for Redis: a pipeline, messages of a channel, and a value that is streamed.
//   npm run example -- redis-client 127.0.0.1:6379
// Without a target it starts a redis-server of its own, which has to be in the PATH.
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Stream } from "effect"
import { Connection, ConnectionPool, type Network } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import * as RedisClient from "./protocols/redisClient.ts"
import { text } from "./protocols/resp.ts"
import { ownRedis } from "./support/servers.ts"

const MIB = 1024 * 1024

const program = Effect.gen(function* () {
  const argument = process.argv[2]
  const target: Network.Target = argument ?? (yield* ownRedis)
  const connection = yield* Connection.connect(target)
  const { command, messages, subscribe } = yield* RedisClient.make(connection)

  yield* command("DEL", "counter")
  const counts = yield* Effect.forEach(Array.from({ length: 1000 }), () => command("INCR", "counter"), {
    concurrency: "unbounded"
  })
  yield* Console.log("1000 commands at once, the last reply:", counts.at(-1))

  yield* command("INCR", "counter", "nonsense").pipe(
    Effect.catchTag("RedisError", (error) => Console.log(`refused: ${error.message}`))
  )

  // Over RESP3, messages and replies share the connection.
  yield* subscribe("news")
  yield* Effect.forEach(["one", "two"], (message) => command("PUBLISH", "news", message))
  yield* messages.pipe(
    Stream.take(2),
    Stream.runForEach(({ channel, message }) => Console.log(`on ${channel}: ${text(message)}`))
  )

  // SETRANGE fills up with zeros: a value of 64 MiB. It is read with at most 128 KiB of it in memory.
  yield* command("SETRANGE", "big", 64 * MIB - 1, "!")
  const pool = yield* ConnectionPool.make(target)
  const size = yield* RedisClient.streamValue(pool, "big").pipe(
    Stream.runFold(
      () => 0,
      (bytes, chunk) => bytes + chunk.length
    )
  )
  yield* command("DEL", "big")
  yield* Console.log(`streamed ${size / MIB} MiB`)
})

program.pipe(Effect.scoped, Effect.provide([NodeServices.layer, NodeNetwork.layer]), NodeRuntime.runMain)
