import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Schema, Stream } from "effect"
import { Rpc, RpcClient, RpcGroup, RpcSerialization, RpcServer } from "effect/rpc"
import { Socket, SocketServer } from "effect/socket"
import { Connection, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { TestNetwork } from "effect-wire/testing"

class Calculator extends RpcGroup.make(
  Rpc.make("Add", { payload: { a: Schema.Number, b: Schema.Number }, success: Schema.Number }),
  Rpc.make("Divide", {
    payload: { a: Schema.Number, b: Schema.Number },
    success: Schema.Number,
    error: Schema.String
  }),
  Rpc.make("Count", { payload: { to: Schema.Number }, success: Schema.Number, stream: true })
) {}

const handlers = Calculator.toLayer({
  Add: ({ a, b }) => Effect.succeed(a + b),
  Divide: ({ a, b }) => (b === 0 ? Effect.fail("division by zero") : Effect.succeed(a / b)),
  Count: ({ to }) => Stream.range(1, to)
})

/** A `SocketServer` whose sockets are this library's connections. */
const socketServer = Layer.effect(
  SocketServer.SocketServer,
  Effect.gen(function* () {
    type Handle = (connection: Connection.Connection) => Effect.Effect<unknown, unknown>
    const handle = yield* Deferred.make<Handle>()
    const server = yield* Server.serve(
      (connection: Connection.Connection) => Effect.flatMap(Deferred.await(handle), (_) => _(connection)),
      { listen: { host: "127.0.0.1" } }
    )
    return SocketServer.SocketServer.of({
      address: server.addresses[0],
      run: (handler) =>
        Effect.flatMap(Effect.context(), (context) =>
          Effect.andThen(
            Deferred.succeed(handle, (connection) =>
              Effect.provideContext(handler(Connection.toSocket(connection)), context as never)
            ),
            Effect.never
          )
        )
    })
  })
)

const rpcServer = RpcServer.layer(Calculator).pipe(
  Layer.provide(handlers),
  Layer.provide(RpcServer.layerProtocolSocketServer),
  Layer.provideMerge(socketServer)
)

const connect = Effect.gen(function* () {
  const { address } = yield* SocketServer.SocketServer
  const connection = yield* Connection.connect(address)
  const protocol = RpcClient.layerProtocolSocket().pipe(
    Layer.provide(Layer.succeed(Socket.Socket, Connection.toSocket(connection)))
  )
  return yield* Effect.provide(RpcClient.make(Calculator), yield* Layer.build(protocol))
})

const conversation = Effect.gen(function* () {
  const first = yield* connect
  const second = yield* connect
  const sums = yield* Effect.forEach(Array.from({ length: 100 }), (_, i) => first.Add({ a: i, b: i }), {
    concurrency: "unbounded"
  })
  assert.deepStrictEqual(
    sums,
    Array.from({ length: 100 }, (_, i) => 2 * i)
  )
  assert.strictEqual(yield* Effect.flip(second.Divide({ a: 1, b: 0 })), "division by zero")
  const counted = yield* Stream.runCollect(second.Count({ to: 1000 }))
  assert.strictEqual(counted.length, 1000)
})

describe("effect/rpc over connections", () => {
  for (const [name, network] of [
    ["TCP", NodeNetwork.layer],
    ["memory", TestNetwork.layer]
  ] as const) {
    it.live(`a server and two clients talk over ${name}`, () =>
      conversation.pipe(
        Effect.scoped,
        Effect.provide(rpcServer),
        Effect.provide(RpcSerialization.layerNdjson),
        Effect.provide(network)
      )
    )
  }
})
