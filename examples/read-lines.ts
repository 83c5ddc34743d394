// Reads lines until the peer closes: a line that is too long is skipped, a last line without its end is noticed.
//   npm run example -- read-lines
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { Connection, Server, type StreamReader } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

const text = (bytes: Uint8Array): string => JSON.stringify(new TextDecoder().decode(bytes))

/** Reads one line; succeeds with whether there may be more. */
const readOne = (reader: StreamReader.StreamReader) =>
  reader.readUntil("\n").pipe(
    Effect.flatMap((line) => Console.log(`line: ${text(line)}`)),
    Effect.as(true),
    Effect.catchTags({
      LimitOverrunError: (error) =>
        Effect.gen(function* () {
          const skipped = yield* reader.skipUntil("\n")
          yield* Console.log(`too long (limit ${error.limit}): skipped ${skipped} bytes`)
          return true
        }),
      IncompleteReadError: (error) =>
        Effect.gen(function* () {
          if (error.partial.length > 0)
            yield* Console.log(`the peer closed within a line: ${text(error.partial)}`)
          return false
        })
    })
  )

const readLines = ({ reader }: Connection.Connection) =>
  Effect.repeat(readOne(reader), { while: (more) => more }).pipe(
    Effect.andThen(Console.log("the peer has closed"))
  )

const program = Effect.gen(function* () {
  const server = yield* Server.serve(
    ({ writer }: Connection.Connection) =>
      writer.writeAll(["first line\n", `${"x".repeat(1000)}\n`, "third line\n", "no end"]),
    { listen: { host: "127.0.0.1" } }
  )
  yield* Connection.use(server.addresses[0], { limit: 64 }, readLines)
})

program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), NodeRuntime.runMain)
