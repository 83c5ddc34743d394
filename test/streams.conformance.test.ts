import { describe } from "@effect/vitest"
import { Effect, type Scope, Sink } from "effect"
import { Connection, MemoryTransport, type Transport, WebStreamTransport } from "effect-wire"
import { NodeConnection, NodeTransport } from "effect-wire/node"
import { Conformance } from "effect-wire/testing"

type Wrap = (connection: Connection.Connection) => Effect.Effect<Connection.Connection, never, Scope.Scope>

/** Connections in memory, of which both ends are connections over connections. */
const layerWrapped = (wrap: Wrap) =>
  Conformance.layerConnections((options, peerOptions) =>
    Effect.gen(function* () {
      const [left, right] = yield* MemoryTransport.makePair()
      const near = yield* Effect.flatMap(Connection.make(left, options), wrap)
      const far = yield* Effect.flatMap(Connection.make(right, peerOptions), wrap)
      return [near, far] as const
    })
  )

const wrapped = (name: string, wrap: Wrap) =>
  describe(name, () => {
    const layer = layerWrapped(wrap)
    Conformance.connection(layer)
    Conformance.reader(layer)
    Conformance.writer(layer)
  })

wrapped("Connection.through", Connection.through({}))

wrapped(
  "Connection.tap",
  Connection.tap(() => Effect.yieldNow)
)

wrapped("Connection.record", Connection.record(Sink.drain))

/** Transports over what connections in memory were turned into. */
const layerTurned = (
  turn: (connection: Connection.Connection) => Effect.Effect<Transport.Transport, never, Scope.Scope>
) =>
  Conformance.layerPair(
    Effect.gen(function* () {
      const [left, right] = yield* Connection.pair({ closeTimeout: "1 minute" })
      return [yield* turn(left), yield* turn(right)] as const
    })
  )

describe("Connection.toWebStreams", () => {
  Conformance.transport(
    layerTurned((connection) => Effect.flatMap(Connection.toWebStreams(connection), WebStreamTransport.make))
  )
})

describe("NodeConnection.toDuplex", () => {
  Conformance.transport(
    layerTurned((connection) => Effect.map(NodeConnection.toDuplex(connection), NodeTransport.fromDuplex))
  )
})
