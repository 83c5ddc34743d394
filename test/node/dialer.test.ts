import { assert, it } from "@effect/vitest"
import * as NodeAddressResolver from "@effect/platform-node/NodeAddressResolver"
import { Effect, Layer, Result } from "effect"
import { AddressResolver, Dns } from "effect/net"
import { Connection, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { describe } from "vitest"
import { describeWith, spawnPeer } from "../support/programs.ts"
import { leavingNothing, portOf, rawConnect } from "../support/sockets.ts"

const hostsOf = (hosts: { readonly [name: string]: ReadonlyArray<string> }) =>
  NodeNetwork.layerWithResolver.pipe(
    Layer.provide(
      Layer.succeed(
        AddressResolver.AddressResolver,
        AddressResolver.make(Result.getOrThrow(Dns.makeStatic({ hosts })))
      )
    )
  )

const network = hostsOf({ "two.test": ["127.0.0.2", "127.0.0.1"] })

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

describe("a resolver of one's own", () => {
  it.live("is the one that is asked, also within what has another one, or the system's", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(({ writer }) => writer.write("hello\n"), {
        listen: { host: "127.0.0.1", port: 0 }
      })
      const target = { host: "own.test", port: portOf(server.addresses[0]) }
      const talk = Connection.use(target, {}, ({ info }) => Effect.succeed(String(info.remoteAddress)))
      for (const nested of [talk, Effect.provide(talk, hostsOf({ "own.test": ["127.0.0.2"] }))]) {
        const error = yield* Effect.flip(nested)
        assert(error._tag === "ConnectionError")
        assert.strictEqual(error.reason._tag, nested === talk ? "NameNotResolved" : "ConnectionRefused")
      }
      const hosts = { "own.test": ["127.0.0.1"] }
      const ofPlatform = NodeNetwork.layerWithResolver.pipe(
        Layer.provide(NodeAddressResolver.layer),
        Layer.provide(Layer.succeed(Dns.Dns, Result.getOrThrow(Dns.makeStatic({ hosts }))))
      )
      for (const network of [hostsOf(hosts), ofPlatform]) {
        assert.strictEqual(yield* Effect.provide(talk, network), `127.0.0.1:${target.port}`)
      }
    }).pipe(Effect.scoped, Effect.provide(NodeNetwork.layer))
  )
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
