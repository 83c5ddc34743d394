// A server that runs out of descriptors: it is started with a low limit, and tells on its output what happens.
import { Effect, Logger, Stream } from "effect"
import { type Connection, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

const say = (line: string): Effect.Effect<void> =>
  Effect.sync(() => {
    process.stdout.write(`${line}\n`)
  })

const handler = ({ reader, writer }: Connection.Connection) =>
  Effect.andThen(writer.write("hello"), Effect.exit(reader.readAll()))

const program = Effect.gen(function* () {
  const server = yield* Server.serve(handler, { listen: { host: "127.0.0.1" } })
  yield* say(`listening ${String(server.addresses[0])}`)
  yield* Stream.runForEach(server.events, (event) =>
    say(
      event._tag === "AcceptFailed"
        ? `AcceptFailed ${event.error.reason._tag} ${event.error.reason.code}`
        : event._tag
    )
  )
})

Effect.runFork(
  program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), Effect.provide(Logger.layer([])))
)
