import { NodeSocket, NodeSocketServer, NodeWS } from "@effect/platform-node"
import { describe } from "@effect/vitest"
import { Effect, Layer, Queue } from "effect"
import { NetAddress } from "effect/net"
import { Socket, type SocketServer } from "effect/socket"
import { Connection, MemoryTransport, SocketTransport, type Transport, WebStreamTransport } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { Conformance, Lockstep, TestNetwork } from "effect-wire/testing"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"

const portOf = ({ address }: SocketServer.SocketServer["Service"]): number =>
  NetAddress.isInetAddress(address) ? address.port : 0

/** Pairs of sockets, of which a server accepts the other end. */
const layerSockets = <E, R>(
  serve: Effect.Effect<SocketServer.SocketServer["Service"], E, R>,
  connect: (port: number) => Effect.Effect<Socket.Socket>,
  capabilities: Partial<Conformance.Capabilities>
) =>
  Layer.effect(
    Conformance.Pair,
    Effect.gen(function* () {
      const server = yield* serve
      const accepted = yield* Queue.unbounded<Transport.Transport>()
      yield* Effect.forkScoped(
        server.run((socket) =>
          Effect.scoped(
            Effect.gen(function* () {
              yield* Queue.offer(accepted, yield* SocketTransport.make(socket))
              yield* Effect.never
            })
          )
        )
      )
      return Conformance.Pair.of({
        make: Effect.all(
          [Effect.flatMap(connect(portOf(server)), SocketTransport.make), Queue.take(accepted)],
          { concurrency: "unbounded" }
        ),
        capabilities: { ...Conformance.defaultCapabilities, halfClose: false, ...capabilities }
      })
    })
  )

describe("MemoryTransport", () => {
  Conformance.transport(Conformance.layerPair(MemoryTransport.makePair()))
})

describe("MemoryTransport without a buffer", () => {
  Conformance.transport(Conformance.layerPair(MemoryTransport.makePair({ capacity: 0 })))
})

describe("Lockstep", () => {
  Conformance.transport(Conformance.layerPair(Lockstep.makePair(), { readAhead: false }))
})

describe("MemoryTransport, for the laws of reading and writing alone", () => {
  const layer = Conformance.layerPair(MemoryTransport.makePair())
  Conformance.reader(layer)
  Conformance.writer(layer)
})

describe("TestNetwork", () => {
  Conformance.transport(TestNetwork.layer)
  Conformance.server(TestNetwork.layer)
})

describe("NodeNetwork over TCP", () => {
  Conformance.transport(Layer.provide(Conformance.layerNetwork(), NodeNetwork.layer))
  Conformance.server(NodeNetwork.layer)
})

describe("NodeNetwork over a Unix socket", () => {
  const directory = Layer.unwrap(
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "conformance-"))),
        (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true, force: true }))
      ),
      (folder) => Conformance.layerNetwork({ path: path.join(folder, "socket") }, { abort: "end" })
    )
  )
  Conformance.transport(Layer.provide(directory, NodeNetwork.layer))
})

describe("SocketTransport over a NodeSocket", () => {
  Conformance.transport(
    layerSockets(
      NodeSocketServer.make({ host: "127.0.0.1", port: 0 }),
      (port) => NodeSocket.makeNet({ host: "127.0.0.1", port }),
      { abort: "end" }
    )
  )
})

describe("SocketTransport over a WebSocket", () => {
  Conformance.transport(
    layerSockets(
      NodeSocketServer.makeWebSocket({ host: "127.0.0.1", port: 0 }),
      (port) =>
        Effect.provideService(
          Socket.makeWebSocket(`ws://127.0.0.1:${port}`),
          Socket.WebSocketConstructor,
          (url) => new NodeWS.WebSocket(url)
        ),
      { abort: "failure", backpressure: false }
    )
  )
})

describe("WebStreamTransport", () => {
  Conformance.transport(
    Conformance.layerPair(
      Effect.suspend(() => {
        const [there, back] = [
          new TransformStream<Uint8Array, Uint8Array>(),
          new TransformStream<Uint8Array, Uint8Array>()
        ]
        return Effect.all([
          WebStreamTransport.make({ readable: back.readable, writable: there.writable }),
          WebStreamTransport.make({ readable: there.readable, writable: back.writable })
        ])
      })
    )
  )
})

describe("Connection.pair", () => {
  const layer = Conformance.layerConnections((options) => Connection.pair(options))
  Conformance.connection(layer)
})
