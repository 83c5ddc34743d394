import { assert, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { AddressResolver, Dns } from "effect/net"
import { Connection, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { describeWith, spawnPeer } from "../support/programs.ts"
import { leavingNothing, rawConnect } from "../support/sockets.ts"

const network = NodeNetwork.layerWithResolver.pipe(
  Layer.provide(
    Layer.succeed(
      AddressResolver.AddressResolver,
      AddressResolver.make(
        Result.getOrThrow(Dns.makeStatic({ hosts: { "two.test": ["127.0.0.2", "127.0.0.1"] } }))
      )
    )
  )
)

/** Listens with room for one connection, and never accepts it. */
const neverAccepts = `
import socket, time
listener = socket.socket()
listener.bind(("127.0.0.2", 0))
listener.listen(0)
print(listener.getsockname()[1], flush=True)
time.sleep(60)
`

/** Where the kernel drops what comes. */
const blackHole = Effect.gen(function* () {
  const { line } = yield* spawnPeer("python3", ["-c", neverAccepts])
  const port = Number(yield* line)
  yield* rawConnect({ host: "127.0.0.2", port })
  return port
})

describeWith("python3", "a black hole before the host", () => {
  it.live("costs a delay, and its socket is closed", () =>
    Effect.gen(function* () {
      const port = yield* blackHole
      const talk = Effect.gen(function* () {
        yield* Server.serve(({ writer }) => writer.write("hello\n"), { listen: { host: "127.0.0.1", port } })
        return yield* Connection.use(
          { host: "two.test", port },
          { happyEyeballs: { delay: "50 millis" } },
          ({ info, reader }) => Effect.map(reader.readAll(), () => String(info.remoteAddress))
        )
      })
      assert.strictEqual(yield* leavingNothing(Effect.scoped(talk)), `127.0.0.1:${port}`)
    }).pipe(Effect.scoped, Effect.provide(network))
  )

  it.live("is waited for when the addresses are not raced", () =>
    Effect.gen(function* () {
      const port = yield* blackHole
      yield* Server.serve(({ writer }) => writer.write("hello\n"), { listen: { host: "127.0.0.1", port } })
      const error = yield* leavingNothing(
        Effect.flip(
          Effect.scoped(
            Connection.connect(`two.test:${port}`, { happyEyeballs: false, connectTimeout: "200 millis" })
          )
        )
      )
      assert.strictEqual(error._tag, "TimeoutError")
    }).pipe(Effect.scoped, Effect.provide(network))
  )
})
