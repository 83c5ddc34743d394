// A connection is a resource of a scope: it is closed when the scope ends well, and aborted when it fails.
//   npm run example -- resource
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Exit } from "effect"
import { Connection, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

/** Tells how each client ended. */
const witness = ({ reader }: Connection.Connection) =>
  reader.readAll().pipe(
    Effect.matchEffect({
      onSuccess: (bytes) => Console.log(`server: ${bytes.length} bytes, then the end`),
      onFailure: (error) => Console.log(`server: ${error.message}`)
    })
  )

const program = Effect.gen(function* () {
  const server = yield* Server.serve(witness, { listen: { host: "127.0.0.1" } })
  const target = server.addresses[0]

  yield* Console.log("--- ends well: everything written arrives, then the end")
  yield* Connection.use(target, ({ writer }) => writer.write("all of it"))

  yield* Console.log("--- fails: the connection is aborted, and the peer knows")
  const failed = yield* Effect.exit(
    Connection.use(target, ({ writer }) =>
      Effect.andThen(writer.write("half"), Effect.fail("something broke"))
    )
  )
  yield* Console.log(`client: ${Exit.isFailure(failed) ? "failed" : "succeeded"}`)

  yield* Console.log("--- several connections in one scope end together")
  yield* Effect.scoped(
    Effect.gen(function* () {
      const left = yield* Connection.connect(target)
      const right = yield* Connection.connect(target)
      yield* left.writer.write("left")
      yield* right.writer.write("right!")
    })
  )
  yield* server.shutdown()
})

program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), NodeRuntime.runMain)
