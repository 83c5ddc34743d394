import { describe, it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Deferred, Effect, Exit, Option, Queue, type Scope } from "effect"
import { type Connection, Connection as Connections, type Network, Relay, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { TestClock } from "effect/testing"
import type * as net from "node:net"
import { outcome } from "../support/effects.ts"
import { BLOCK, block, digestOfBlocks, drink, pour, socketDescriptors, socketsOn } from "../support/flood.ts"
import {
  event,
  hidesResets,
  leavingNothing,
  loops,
  portOf,
  rawConnect,
  rawServer,
  readToEnd
} from "../support/sockets.ts"

type Body = () => Effect.Effect<void, unknown, Network.Network | Scope.Scope>

const live = (name: string, body: Body) =>
  it.live(name, () =>
    leavingNothing(Effect.scoped(Effect.suspend(body))).pipe(Effect.provide(NodeNetwork.layer))
  )

/** On real sockets, with a clock that stands still. */
const clocked = (name: string, body: Body) =>
  it.effect(name, () =>
    leavingNothing(Effect.scoped(Effect.suspend(body))).pipe(Effect.provide(NodeNetwork.layer))
  )

interface Relayed {
  readonly client: Connection.Connection
  readonly backend: Connection.Connection
}

/** A proxy in front of a server of plain sockets, with plain sockets for clients, on loopback TCP. */
const proxied = Effect.fnUntraced(function* (options?: Relay.Options) {
  const backend = yield* rawServer()
  const relays = yield* Queue.unbounded<Relayed>()
  const exits = yield* Queue.unbounded<Exit.Exit<Relay.Report, Relay.RelayError>>()
  const proxy = yield* Server.serve(
    Effect.fnUntraced(function* (client) {
      const connection = yield* Connections.connect({ host: "127.0.0.1", port: backend.port })
      yield* Queue.offer(relays, { client, backend: connection })
      yield* Queue.offer(exits, yield* Effect.exit(Relay.bidirectional(client, connection, options)))
    }),
    { listen: { host: "127.0.0.1", port: 0 } }
  )
  const port = portOf(proxy.addresses[0])
  /** A client and the server's socket for it. */
  const dial = Effect.gen(function* () {
    const client = yield* rawConnect({ host: "127.0.0.1", port })
    const server = yield* backend.next
    server.pause()
    return { client, server, relayed: yield* Queue.take(relays) }
  })
  return { dial, exit: Queue.take(exits), ports: [port, backend.port], backend }
})

/** How much the proxy itself holds. */
const heldBy = ({ backend, client }: Relayed): Effect.Effect<number> =>
  Effect.map(
    Effect.all([
      client.reader.bufferedBytes,
      client.writer.bufferedBytes,
      backend.reader.bufferedBytes,
      backend.writer.bufferedBytes
    ]),
    (counts) => counts.reduce((sum, n) => sum + n, 0)
  )

const gone = (...sockets: ReadonlyArray<net.Socket>): Effect.Effect<void> =>
  Effect.andThen(
    Effect.forEach(sockets, (socket) => (socket.closed ? Effect.void : event(socket, "close"))),
    loops(20)
  )

// More than the buffers of two TCP connections hold, whatever the system gives them.
const BLOCKS = 1600
const TOTAL = BLOCKS * BLOCK
const DIGEST = digestOfBlocks(BLOCKS)

describe("Relay over TCP", () => {
  for (const side of ["client", "server"] as const) {
    live(`a ${side} that does not read stops the other side, and loses nothing by it`, () =>
      Effect.gen(function* () {
        const { dial, exit, ports } = yield* proxied()
        const { client, relayed, server } = yield* dial
        const [reader, sender] = side === "client" ? [client, server] : [server, client]
        const { taken } = pour(sender, BLOCKS)

        // Enough for all of it, if nothing held it up.
        const held: Array<number> = []
        for (let i = 0; i < 100; i++) {
          yield* loops(20)
          held.push(yield* heldBy(relayed))
        }
        const stuck = taken()
        assertTrue(stuck < TOTAL - BLOCK, `${stuck} of ${TOTAL} bytes were taken from the sender`)
        // Twice the limit of a reader and one read beyond it, as much as one write, and the watermark.
        const most = Math.max(...held)
        assertTrue(most > 0 && most <= 8 * 65_536, `the proxy held ${most} bytes`)
        yield* loops(500)
        strictEqual(taken(), stuck)

        reader.end()
        strictEqual(yield* drink(reader), DIGEST)
        strictEqual(taken(), TOTAL)
        sender.resume()
        const report = yield* yield* exit
        deepStrictEqual(
          [report.aToB, report.bToA, report.ending],
          side === "client" ? [0, TOTAL, "ended"] : [TOTAL, 0, "ended"]
        )
        yield* gone(client, server)
        deepStrictEqual(socketsOn(...ports), [])
      })
    )
  }

  live("an end of input is passed on, and what comes back after it is whole", () =>
    Effect.gen(function* () {
      const { dial, exit, ports } = yield* proxied()
      const { client, server } = yield* dial
      client.end("the request")
      strictEqual((yield* readToEnd(server)).toString(), "the request")
      pour(server, 200)
      strictEqual(yield* drink(client), digestOfBlocks(200))
      deepStrictEqual(yield* yield* exit, { aToB: 11, bToA: 200 * BLOCK, closedFirst: "a", ending: "ended" })
      yield* gone(client, server)
      deepStrictEqual(socketsOn(...ports), [])
    })
  )

  live("close-both delivers what came before the first end, and closes both", () =>
    Effect.gen(function* () {
      const { dial, exit, ports } = yield* proxied({ halfClose: "close-both" })
      const { client, server } = yield* dial
      pour(server, 200)
      strictEqual(yield* drink(client), digestOfBlocks(200))
      client.end()
      server.resume()
      deepStrictEqual(yield* yield* exit, { aToB: 0, bToA: 200 * BLOCK, closedFirst: "b", ending: "ended" })
      yield* gone(client, server)
      deepStrictEqual(socketsOn(...ports), [])
    })
  )

  live("a reset on one side is a reset on the other, and no end of input", () =>
    Effect.gen(function* () {
      const { dial, exit, ports } = yield* proxied()
      const { client, server } = yield* dial
      const ended = yield* Deferred.make<string>()
      client.once("end", () => {
        Deferred.doneUnsafe(ended, Exit.succeed("end"))
        client.destroy()
      })
      client.once("error", (error) =>
        Deferred.doneUnsafe(ended, Exit.succeed(String(Reflect.get(error, "code"))))
      )
      client.resume()
      server.write("only the beginning")
      server.resetAndDestroy()
      // The client is a plain socket: what it makes of the reset is Node's affair.
      assertTrue(
        (hidesResets ? ["ECONNRESET", "end"] : ["ECONNRESET"]).includes(yield* Deferred.await(ended))
      )
      const error = Option.getOrUndefined(Exit.findErrorOption(yield* exit))
      deepStrictEqual([error?.side, error && outcome(Exit.fail(error.reason))], ["b", "ConnectionReset"])
      yield* gone(client, server)
      deepStrictEqual(socketsOn(...ports), [])
    })
  )

  clocked("a peer that never ends does not keep the sockets: they are reaped after the silence", () =>
    Effect.gen(function* () {
      const { dial, exit, ports } = yield* proxied({ halfCloseIdle: "30 seconds" })
      const { client, server } = yield* dial
      const descriptors = socketDescriptors()
      client.end("bye")
      strictEqual((yield* readToEnd(server)).toString(), "bye")
      yield* loops(20)
      yield* TestClock.adjust("29 seconds")
      yield* loops(20)
      // Half-closed: the client's proxy end waits in CLOSE_WAIT for the server's end, as it has to.
      assertTrue(socketsOn(...ports).includes("CLOSE_WAIT"))
      strictEqual(socketDescriptors(), descriptors)
      client.resume()
      yield* TestClock.adjust("1 second")
      strictEqual((yield* yield* exit).ending, "halfCloseIdle")
      // It has had the end of its input, and would not notice a reset before it writes.
      server.destroy()
      yield* gone(client, server)
      deepStrictEqual(socketsOn(...ports), [])
      strictEqual(socketDescriptors(), descriptors - 4)
    })
  )

  clocked("a client that ended does not keep the sockets while the server takes nothing", () =>
    Effect.gen(function* () {
      const { dial, exit, ports } = yield* proxied({ halfCloseIdle: "30 seconds" })
      const { client, relayed, server } = yield* dial
      const descriptors = socketDescriptors()
      // More than the system takes for a server that reads nothing, and less than hides the end from the proxy.
      while ((yield* relayed.backend.writer.bufferedBytes) === 0) {
        client.write(block(0))
        yield* loops(50)
      }
      client.end()
      yield* event(client, "finish")
      yield* loops(50)
      assertTrue(yield* relayed.client.reader.atEof)
      const { bufferedBytes } = relayed.backend.writer
      const stuck = yield* bufferedBytes
      assertTrue(stuck > 0)
      yield* TestClock.adjust("29 seconds")
      yield* loops(50)
      strictEqual(yield* bufferedBytes, stuck)
      yield* TestClock.adjust("1 second")
      const report = yield* yield* exit
      deepStrictEqual([report.bToA, report.closedFirst, report.ending], [0, "a", "halfCloseIdle"])
      client.destroy()
      // It has not read as far as the reset.
      server.destroy()
      yield* gone(client, server)
      deepStrictEqual(socketsOn(...ports), [])
      strictEqual(socketDescriptors(), descriptors - 4)
    })
  )

  live("a hundred relays that end in every way leave no socket and no descriptor", () =>
    Effect.gen(function* () {
      const { dial, exit, ports } = yield* proxied()
      const descriptors = socketDescriptors()
      const sockets: Array<net.Socket> = []
      for (let i = 0; i < 100; i++) {
        const { client, server } = yield* dial
        sockets.push(client, server)
        for (const socket of [client, server]) socket.once("end", () => socket.end()).resume()
        client.write("x".repeat(i * 100))
        server.write("y".repeat(i * 50))
        const ways = [
          () => client.end(),
          () => server.end(),
          () => (client.end(), server.end()),
          () => client.destroy(),
          () => server.destroy(),
          () => (client.destroy(), server.destroy()),
          () => client.resetAndDestroy(),
          () => server.resetAndDestroy(),
          () => (client.end(), server.resetAndDestroy()),
          // Instead of its own end.
          () => (client.end(), server.removeAllListeners("end").once("end", () => server.resetAndDestroy()))
        ]
        ways[i % ways.length]?.()
      }
      for (let i = 0; i < 100; i++) yield* exit
      yield* gone(...sockets)
      deepStrictEqual(socketsOn(...ports), [])
      strictEqual(socketDescriptors(), descriptors)
    })
  )
})
