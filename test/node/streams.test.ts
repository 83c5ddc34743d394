import { NodeFileSystem } from "@effect/platform-node"
import { describe, it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Deferred, Effect, Exit, Fiber, FileSystem, Latch, type Scope, Stream } from "effect"
import { Connection, type Network, Recording, Server } from "effect-wire"
import { NodeConnection, NodeNetwork } from "effect-wire/node"
import { TestNetwork } from "effect-wire/testing"
import { createHash } from "node:crypto"
import * as http from "node:http"
import { pipeline } from "node:stream/promises"
import { manyTimes, outcome, outcomeOf, start, turnsOfOthers } from "../support/effects.ts"
import { BLOCK, block, digestOfBlocks, drink, pour, socketsOn } from "../support/flood.ts"
import { event, leavingNothing, loops, portOf, rawServer } from "../support/sockets.ts"

const live = (name: string, body: () => Effect.Effect<void, unknown, Network.Network | Scope.Scope>) =>
  it.live(name, () =>
    leavingNothing(Effect.scoped(Effect.suspend(body))).pipe(Effect.provide(NodeNetwork.layer))
  )

const local = { listen: { host: "127.0.0.1", port: 0 } }

/** A connection, and the plain socket at its other end. */
const connected = Effect.fnUntraced(function* (options?: Connection.ConnectionOptions) {
  const server = yield* rawServer()
  const connection = yield* Connection.connect({ host: "127.0.0.1", port: server.port }, options)
  const socket = yield* server.next
  socket.pause()
  return { connection, socket, port: server.port }
})

// More than the buffers of a TCP connection hold, whatever the system gives it.
const BLOCKS = 1600
const TOTAL = BLOCKS * BLOCK
const DIGEST = digestOfBlocks(BLOCKS)

/** Blocks, and how many were asked for. */
const source = () => {
  let made = 0
  const stream = Stream.range(0, BLOCKS - 1).pipe(
    Stream.rechunk(1),
    Stream.map((i) => {
      made += BLOCK
      return block(i)
    })
  )
  return { stream, made: () => made }
}

const digest = <E, R>(stream: Stream.Stream<Uint8Array, E, R>) =>
  Effect.map(
    Stream.runFold(
      stream,
      () => createHash("sha1"),
      (hash, chunk) => hash.update(chunk)
    ),
    (hash) => hash.digest("hex")
  )

describe("streams over TCP", () => {
  live("a fiber that waits for each of its writes to be sent lets others run", () =>
    Effect.gen(function* () {
      const { connection, socket } = yield* connected()
      const { writer } = connection
      const written = Effect.andThen(writer.write("a"), writer.flush)
      assertTrue((yield* turnsOfOthers(manyTimes(written))) >= 7)
      socket.destroy()
    })
  )

  live("a consumer that is slow stops the peer, and gets everything in the end", () =>
    Effect.gen(function* () {
      const { connection, socket } = yield* connected()
      const gate = Latch.makeUnsafe(false)
      const slowly = Connection.stream(connection).pipe(Stream.tap(() => gate.await))
      const reading = yield* start(digest(slowly))
      const { taken } = pour(socket, BLOCKS)
      yield* loops(2000)
      const stuck = taken()
      assertTrue(stuck < TOTAL - BLOCK, `${stuck} of ${TOTAL} bytes were taken from the peer`)
      // Twice the limit, and one read beyond it.
      const held = yield* connection.reader.bufferedBytes
      assertTrue(held > 0 && held <= 4 * BLOCK, `${held} bytes are held`)
      yield* loops(500)
      strictEqual(taken(), stuck)
      yield* gate.open
      strictEqual(yield* Fiber.join(reading.fiber), DIGEST)
      strictEqual(taken(), TOTAL)
      socket.resume()
    })
  )

  live("a peer that does not read stops the stream that is sent, and gets everything in the end", () =>
    Effect.gen(function* () {
      const { connection, socket } = yield* connected()
      const { made, stream } = source()
      const sending = yield* start(Stream.run(stream, Connection.sink(connection, { endOnDone: true })))
      yield* loops(2000)
      const stuck = made()
      assertTrue(stuck < TOTAL - BLOCK, `${stuck} of ${TOTAL} bytes were made`)
      // The high watermark, and the chunk that went beyond it.
      const held = yield* connection.writer.bufferedBytes
      assertTrue(held > 0 && held <= 4 * BLOCK, `${held} bytes are held`)
      yield* loops(500)
      strictEqual(made(), stuck)
      strictEqual(yield* drink(socket), DIGEST)
      yield* Fiber.join(sending.fiber)
      strictEqual(made(), TOTAL)
      socket.end()
    })
  )

  live("through a channel to an echo and back: who takes nothing stops the whole circle", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(
        (connection) => Stream.run(Connection.stream(connection), Connection.sink(connection)),
        local
      )
      const connection = yield* Connection.connect(server.addresses[0])
      const gate = Latch.makeUnsafe(false)
      const { made, stream } = source()
      const circle = yield* start(
        stream.pipe(
          Stream.pipeThroughChannel(Connection.channel(connection)),
          Stream.tap(() => gate.await),
          digest
        )
      )
      yield* loops(2000)
      const stuck = made()
      assertTrue(stuck < TOTAL - BLOCK, `${stuck} of ${TOTAL} bytes were made`)
      yield* loops(500)
      strictEqual(made(), stuck)
      yield* gate.open
      strictEqual(yield* Fiber.join(circle.fiber), DIGEST)
    })
  )

  live("a stream that owns its connection: its interruption resets the peer, and leaves no socket", () =>
    Effect.gen(function* () {
      const server = yield* rawServer()
      const owned = Stream.unwrap(
        Effect.map(Connection.connect({ host: "127.0.0.1", port: server.port }), Connection.stream)
      )
      const first = yield* Deferred.make<void>()
      const reading = yield* start(Stream.runForEach(owned, () => Deferred.succeed(first, undefined)))
      const socket = yield* server.next
      const reset = yield* Deferred.make<string>()
      socket.once("error", (error) =>
        Deferred.doneUnsafe(reset, Exit.succeed(String(Reflect.get(error, "code"))))
      )
      socket.resume()
      socket.write("hello")
      yield* Deferred.await(first)
      yield* reading.interrupt
      strictEqual(outcome(reading), "interrupted")
      strictEqual(yield* Deferred.await(reset), "ECONNRESET")
      if (!socket.closed) yield* event(socket, "close")
      yield* loops(20)
      deepStrictEqual(socketsOn(server.port), [])
    })
  )

  live("a reset is the stream's typed failure, and the sink's", () =>
    Effect.gen(function* () {
      const { connection, socket } = yield* connected()
      const reading = yield* start(Stream.runDrain(Connection.stream(connection)))
      const writing = yield* start(
        Stream.run(Stream.forever(Stream.make(new Uint8Array(BLOCK))), Connection.sink(connection))
      )
      yield* loops(20)
      socket.resetAndDestroy()
      yield* Fiber.await(reading.fiber)
      yield* Fiber.await(writing.fiber)
      deepStrictEqual([outcome(reading), outcome(writing)], ["ConnectionReset", "ConnectionReset"])
    })
  )

  live("as web streams, and as a Node stream, everything goes both ways at its pace", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(
        Effect.fnUntraced(function* (connection) {
          const { readable, writable } = yield* Connection.toWebStreams(connection)
          yield* Effect.promise(() => readable.pipeTo(writable))
        }),
        local
      )
      const connection = yield* Connection.connect(server.addresses[0])
      const duplex = yield* NodeConnection.toDuplex(connection)
      const hash = createHash("sha1")
      const blocks = function* () {
        for (let i = 0; i < 200; i++) yield block(i)
      }
      yield* Effect.promise(() =>
        Promise.all([
          pipeline(blocks, duplex),
          (async () => {
            for await (const chunk of duplex) hash.update(chunk as Uint8Array)
          })()
        ])
      )
      strictEqual(hash.digest("hex"), digestOfBlocks(200))
    })
  )

  live("as Node streams, Node's own HTTP speaks over it on both sides", () =>
    Effect.gen(function* () {
      const app = http.createServer((request, response) => {
        let bytes = 0
        request.on("data", (chunk: Uint8Array) => (bytes += chunk.length))
        request.on("end", () => response.end(`${request.method} ${request.url} ${bytes}`))
      })
      const server = yield* Server.serve(
        Effect.fnUntraced(function* (connection) {
          app.emit("connection", yield* NodeConnection.toDuplex(connection))
          yield* connection.closed
        }),
        local
      )
      const connection = yield* Connection.connect(server.addresses[0])
      const duplex = yield* NodeConnection.toDuplex(connection)
      const answer = yield* Effect.callback<string, Error>((resume) => {
        const request = http.request({ path: "/a", method: "POST", createConnection: () => duplex })
        request.on("error", (error) => resume(Effect.fail(error)))
        request.on("response", (response) => {
          let text = ""
          response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
          response.on("end", () => resume(Effect.succeed(text)))
        })
        request.end("x".repeat(300_000))
      })
      strictEqual(answer, "POST /a 300000")
      yield* connection.closed
    })
  )

  live("a session recorded over TCP into a file is played in memory, to the byte", () =>
    Effect.gen(function* () {
      const files = yield* FileSystem.FileSystem
      const path = `${yield* files.makeTempDirectoryScoped()}/session.jsonl`
      const server = yield* Server.serve(
        ({ reader, writer }) =>
          Stream.runForEach(reader.lines, (line) => writer.write(`${line} is ${line.length} long\n`)),
        local
      )
      const ask = Effect.fnUntraced(function* (connection: Connection.Connection) {
        const answers: Array<string> = []
        for (const word of ["one", "three", "thirteen"]) {
          yield* connection.writer.write(`${word}\n`)
          answers.push(new TextDecoder().decode(yield* connection.reader.readLine))
        }
        yield* connection.writer.end
        answers.push(new TextDecoder().decode(yield* connection.reader.readAll()))
        return answers
      })
      const answers = yield* Effect.scoped(
        Effect.flatMap(Connection.connect(server.addresses[0]), (connection) =>
          Effect.flatMap(Connection.record(connection, Recording.toFile(path)), ask)
        )
      )
      const recording = yield* Recording.load(path)
      strictEqual(recording.header.remote, `127.0.0.1:${portOf(server.addresses[0])}`)
      strictEqual(recording.header.transport, "tcp")

      const failures: Array<string> = []
      const again = yield* Effect.scoped(
        Effect.gen(function* () {
          yield* Server.serve(TestNetwork.replay(recording), {
            listen: { port: 7000 },
            onError: (cause) => Effect.sync(() => failures.push(outcome(Exit.failCause(cause))))
          })
          const played = yield* Connection.use("localhost:7000", ask)
          strictEqual(
            yield* outcomeOf(
              Connection.use("localhost:7000", ({ reader, writer }) =>
                Effect.andThen(writer.write("two\n"), reader.readLine)
              )
            ),
            "ConnectionReset"
          )
          yield* loops(20)
          deepStrictEqual(failures, ["ReplayError"])
          return played
        })
      ).pipe(Effect.provide(TestNetwork.layer))
      deepStrictEqual(again, answers)
      deepStrictEqual(answers, ["one is 3 long\n", "three is 5 long\n", "thirteen is 8 long\n", ""])
    }).pipe(Effect.provide(NodeFileSystem.layer))
  )

  live("a throttled connection holds up a real peer as well", () =>
    Effect.gen(function* () {
      const { connection, socket } = yield* connected()
      const { abort, reader } = yield* Connection.throttle(connection, { read: 1000 })
      const { taken } = pour(socket, BLOCKS)
      strictEqual((yield* reader.readExactly(100)).length, 100)
      yield* loops(2000)
      const stuck = taken()
      assertTrue(stuck < TOTAL - BLOCK, `${stuck} of ${TOTAL} bytes were taken from the peer`)
      yield* loops(500)
      strictEqual(taken(), stuck)
      yield* abort
    })
  )
})
