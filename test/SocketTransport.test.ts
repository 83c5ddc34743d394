import { NodeSocket, NodeSocketServer, NodeWS } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import { NetAddress } from "effect/net"
import { Socket } from "effect/socket"
import { Connection, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

const portOf = (address: NetAddress.SocketAddress): number =>
  NetAddress.isInetAddress(address) ? address.port : assert.fail("not an internet address")

const closeError = (code: number) => new Socket.SocketError({ reason: new Socket.SocketCloseError({ code }) })

/** A socket that is told what to do. */
const scripted = (options: {
  readonly pull?: Effect.Effect<readonly [Uint8Array | string], Socket.SocketError>
  readonly write?: (chunk: ReadonlyArray<Uint8Array | string>) => Effect.Effect<void, Socket.SocketError>
}): Socket.Socket =>
  Socket.make({
    reader: Effect.succeed({
      pull: options.pull ?? Effect.never,
      upgrade: Socket.SocketUpgradeError.unsupported
    }),
    writer: Effect.succeed({
      write: () => Effect.void,
      writeAll: (chunks) => options.write?.(chunks) ?? Effect.void
    })
  })

const reasonOfRead = (connection: Connection.Connection) =>
  Effect.map(Effect.flip(connection.reader.readExactly(100)), (error) => {
    assert(error._tag === "ConnectionError")
    return error.reason
  })

/** A WebSocket server on a free port, each of whose sockets becomes a connection. */
const serveWebSocket = <E>(handler: (connection: Connection.Connection) => Effect.Effect<unknown, E>) =>
  Effect.gen(function* () {
    const server = yield* NodeSocketServer.makeWebSocket({ host: "127.0.0.1", port: 0 })
    yield* Effect.forkScoped(
      server.run((socket) => Effect.scoped(Effect.flatMap(Connection.fromSocket(socket), handler)))
    )
    return `ws://127.0.0.1:${portOf(server.address)}`
  })

const connectWebSocket = (url: string) =>
  Socket.makeWebSocket(url).pipe(
    Effect.provideService(Socket.WebSocketConstructor, (url) => new NodeWS.WebSocket(url)),
    Effect.flatMap(Connection.fromSocket)
  )

describe("SocketTransport", () => {
  it.effect("reads lines from a WebSocket, whatever messages they came in, and answers", () =>
    Effect.gen(function* () {
      const url = yield* serveWebSocket(({ reader, writer }) =>
        Stream.runForEach(reader.lines, (line) => writer.write(`${line.toUpperCase()}\n`))
      )
      const client = yield* connectWebSocket(url)
      for (const piece of ["one\ntw", "o\r\nthr", new TextEncoder().encode("ee\n")]) {
        yield* client.writer.write(piece)
        yield* client.writer.flush
      }
      const lines = yield* Stream.runCollect(Stream.take(client.reader.lines, 3))
      assert.deepStrictEqual(lines, ["ONE", "TWO", "THREE"])
    }).pipe(Effect.scoped)
  )

  it.effect("the close of a WebSocket is the end of input, and no half-close is offered", () =>
    Effect.gen(function* () {
      const received = yield* Deferred.make<string>()
      const url = yield* serveWebSocket(({ reader }) =>
        Effect.flatMap(reader.readAll(), (bytes) => Deferred.succeed(received, text(bytes)))
      )
      const client = yield* connectWebSocket(url)
      assert.isFalse(client.writer.canEnd)
      const refused = yield* Effect.flip(client.writer.end)
      assert(refused._tag === "ConnectionError")
      assert.strictEqual(refused.reason._tag, "Unsupported")
      yield* client.writer.write("all of it")
      yield* client.close
      assert.strictEqual(yield* Deferred.await(received), "all of it")
      yield* client.closed
    }).pipe(Effect.scoped)
  )

  it.effect("carries a megabyte each way over a NodeSocket", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(
        ({ reader, writer }: Connection.Connection) =>
          Effect.flatMap(reader.readExactly(1 << 20), writer.write),
        { listen: { host: "127.0.0.1" } }
      )
      const socket = yield* NodeSocket.makeNet({ host: "127.0.0.1", port: portOf(server.addresses[0]) })
      const client = yield* Connection.fromSocket(socket)
      const sent = Uint8Array.from({ length: 1 << 20 }, (_, i) => (i * 31) ^ (i >> 8))
      const sending = yield* Effect.forkChild(client.writer.write(sent))
      assert.deepStrictEqual(yield* client.reader.readExactly(sent.length), sent)
      yield* Fiber.join(sending)
    }).pipe(Effect.scoped, Effect.provide(NodeNetwork.layer))
  )

  it.effect("a refused connection is ConnectionRefused", () =>
    Effect.gen(function* () {
      const socket = yield* NodeSocket.makeNet({ host: "127.0.0.1", port: 1 })
      const error = yield* Effect.flip(Connection.fromSocket(socket))
      assert.strictEqual(error.operation, "connect")
      assert.strictEqual(error.reason._tag, "ConnectionRefused")
      assert.strictEqual(error.reason.code, "ECONNREFUSED")
    }).pipe(Effect.scoped)
  )

  for (const [code, tag] of [
    [1006, "ConnectionReset"],
    [1011, "UnknownReason"]
  ] as const) {
    it.effect(`close code ${code} is ${tag}`, () =>
      Effect.gen(function* () {
        const connection = yield* Connection.fromSocket(scripted({ pull: Effect.fail(closeError(code)) }))
        const reason = yield* reasonOfRead(connection)
        assert.strictEqual(reason._tag, tag)
        assert.strictEqual(reason.code, String(code))
      }).pipe(Effect.scoped)
    )
  }

  for (const code of [1000, 1001, 1005]) {
    it.effect(`close code ${code} is an end of input`, () =>
      Effect.gen(function* () {
        const connection = yield* Connection.fromSocket(scripted({ pull: Effect.fail(closeError(code)) }))
        assert.strictEqual((yield* connection.reader.read()).length, 0)
        yield* connection.closed
      }).pipe(Effect.scoped)
    )
  }

  it.effect("a pull that dies is a typed failure", () =>
    Effect.gen(function* () {
      const connection = yield* Connection.fromSocket(
        scripted({ pull: Effect.die(new Error("broken driver")) })
      )
      const reason = yield* reasonOfRead(connection)
      assert.strictEqual(reason._tag, "UnknownReason")
      assert.strictEqual(reason.message, "broken driver")
    }).pipe(Effect.scoped)
  )

  it.effect("a write that fails ends the connection with its reason", () =>
    Effect.gen(function* () {
      const cause = Object.assign(new Error("write EPIPE"), { code: "EPIPE" })
      const failure = new Socket.SocketError({ reason: new Socket.SocketWriteError({ cause }) })
      const connection = yield* Connection.fromSocket(scripted({ write: () => Effect.fail(failure) }))
      yield* connection.writer.write("x")
      const error = yield* Effect.flip(connection.closed)
      assert.strictEqual(error.operation, "write")
      assert.strictEqual(error.reason._tag, "BrokenPipe")
    }).pipe(Effect.scoped)
  )

  it.effect("does not pull while nobody wants bytes", () =>
    Effect.gen(function* () {
      let pulls = 0
      const connection = yield* Connection.fromSocket(
        scripted({
          pull: Effect.sync(() => {
            pulls++
            return [new Uint8Array(1024)] as const
          })
        }),
        { limit: 2048 }
      )
      yield* connection.reader.peek(1024)
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      assert.isAtMost(pulls, 6)
      assert.isAtMost(yield* connection.reader.bufferedBytes, 5 * 1024)
    }).pipe(Effect.scoped)
  )

  it.effect(
    "writes made while one is under way go out in one batch, and the writer is suspended by them",
    () =>
      Effect.gen(function* () {
        const batches: Array<number> = []
        const gate = yield* Deferred.make<void>()
        const connection = yield* Connection.fromSocket(
          scripted({
            write: (chunks) => {
              batches.push(chunks.length)
              return batches.length === 1 ? Deferred.await(gate) : Effect.void
            }
          })
        )
        yield* connection.writer.write("first")
        yield* Effect.yieldNow
        yield* Effect.forEach(["a", "b", "c"], connection.writer.write, { discard: true })
        assert.strictEqual(yield* connection.writer.bufferedBytes, 8)
        yield* Deferred.succeed(gate, undefined)
        yield* connection.writer.flush
        assert.deepStrictEqual(batches, [1, 3])
      }).pipe(Effect.scoped)
  )
})
