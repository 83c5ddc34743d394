// A client that connects to the same server again and again resumes its TLS session: a shorter handshake, without the
// certificate. Needs openssl in the PATH.
//   npm run example -- tls-sessions
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, FileSystem, Stream } from "effect"
import { Connection, Server, Tls } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { selfSigned, temporaryFiles } from "./support/selfSigned.ts"

const program = Effect.gen(function* () {
  const files = yield* temporaryFiles
  const ca = yield* selfSigned("a server", files)
  const key = yield* FileSystem.FileSystem.use((fs) => fs.readFileString(files.key))
  const server = yield* Server.serve(({ reader, writer }) => Stream.run(reader.stream, writer.sink), {
    listen: { host: "127.0.0.1", port: 0 },
    tls: { identity: { certificate: ca, key } }
  })
  // One cache for all connections with the same `ca` and the same identity.
  const tls = { ca, sessions: Tls.sessionCache() }
  for (let n = 1; n <= 3; n++) {
    yield* Connection.use(server.addresses[0], { tls }, ({ info, reader, writer }) =>
      Effect.gen(function* () {
        yield* writer.write("hello\n")
        yield* reader.readLine
        yield* Console.log(`connection ${n}: ${info.tls?.resumed === true ? "resumed" : "a full handshake"}`)
      })
    )
  }
})

NodeRuntime.runMain(program.pipe(Effect.scoped, Effect.provide([NodeNetwork.layer, NodeServices.layer])))
