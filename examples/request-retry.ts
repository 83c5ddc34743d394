// Request and reply with time limits, tried again with backoff while the server is down.
//   npm run example -- request-retry
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Fiber, Schedule } from "effect"
import { Connection, type Network, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

const request = Effect.fnUntraced(function* (target: Network.Target, question: string) {
  return yield* Connection.use(
    target,
    { connectTimeout: "2 seconds", writeTimeout: "10 seconds", readTimeout: "10 seconds" },
    ({ reader, writer }) =>
      Effect.gen(function* () {
        yield* writer.write(`${question}\n`)
        return yield* reader.readUntil("\n")
      })
  )
})

/** 100 ms, 200 ms, 400 ms, … up to 8 times. */
const backoff = Schedule.exponential("100 millis").pipe(Schedule.upTo({ times: 8 }))

const patient = (target: Network.Target, question: string) =>
  request(target, question).pipe(
    Effect.tapError((error) => Console.log(`client: ${error.message}; trying again`)),
    Effect.retry(backoff),
    Effect.map((reply) => new TextDecoder().decode(reply).trimEnd())
  )

const answer = ({ reader, writer }: Connection.Connection) => Effect.flatMap(reader.readLine, writer.write)

const serveAt = (port: number) => Server.serve(answer, { listen: { host: "127.0.0.1", port } })

const program = Effect.gen(function* () {
  const first = yield* serveAt(0)
  const [target] = first.addresses
  yield* Console.log("client:", yield* patient(target, "are you there?"))

  yield* first.shutdown()
  yield* Console.log("server: down")
  const asking = yield* Effect.forkChild(patient(target, "and now?"))

  yield* Effect.sleep("500 millis")
  yield* serveAt("port" in target ? target.port : 0)
  yield* Console.log("server: back")
  yield* Console.log("client:", yield* Fiber.join(asking))
})

program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), NodeRuntime.runMain)
