import { NodeSocket, NodeSocketServer, NodeWS } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Queue, Scope, Stream } from "effect"
import { NetAddress } from "effect/net"
import { Socket } from "effect/socket"
import { Connection, Server, SocketTransport } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { manyTimes, turnsOfOthers } from "./support/effects.ts"
import { closed, event, leavingNothing, loops, rawServer, readToEnd, until } from "./support/sockets.ts"
import { record } from "./support/transports.ts"

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

  it.effect("lets others run while a socket has everything done at once", () =>
    Effect.gen(function* () {
      const { reader, writer } = yield* Connection.fromSocket(
        scripted({ pull: Effect.succeed([new Uint8Array(8)]), write: () => Effect.void })
      )
      assert.isAtLeast(yield* turnsOfOthers(manyTimes(reader.read())), 7)
      assert.isAtLeast(yield* turnsOfOthers(manyTimes(Effect.andThen(writer.write("a"), writer.flush))), 7)
    }).pipe(Effect.scoped)
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

type Chunks = ReadonlyArray<Uint8Array | string>

/** A socket in the test's hands: `pulls` counts, `incoming` is what they get, `log` is what happened to it. */
const driven = Effect.fnUntraced(function* (options?: {
  readonly writeAll?: (chunks: Chunks) => Effect.Effect<void, Socket.SocketError>
  readonly write?: Effect.Effect<void>
  readonly release?: Effect.Effect<void>
}) {
  const incoming =
    yield* Queue.unbounded<Exit.Exit<readonly [string, ...Array<string>], Socket.SocketError>>()
  const log: Array<string> = []
  const counts = { pulls: 0 }
  const socket = Socket.make({
    reader: Effect.acquireRelease(
      Effect.succeed({
        pull: Effect.suspend(() => {
          counts.pulls++
          return Effect.flatten(Queue.take(incoming))
        }),
        upgrade: Socket.SocketUpgradeError.unsupported
      }),
      () =>
        Effect.andThen(
          options?.release ?? Effect.void,
          Effect.sync(() => log.push("reader released"))
        )
    ),
    writer: Effect.acquireRelease(
      Effect.succeed({
        write: (chunk) =>
          Effect.suspend(() => {
            log.push(Socket.isCloseEvent(chunk) ? `close ${chunk.code}` : "write")
            return options?.write ?? Effect.void
          }),
        writeAll: (chunks) =>
          Effect.suspend(() => {
            log.push(`send ${chunks.join()}`)
            return options?.writeAll?.(chunks) ?? Effect.void
          })
      }),
      () => Effect.sync(() => log.push("writer released"))
    )
  })
  return { socket, incoming, log, counts }
})

const receive = (...chunks: readonly [string, ...Array<string>]) => Exit.succeed(chunks)

const inet = NetAddress.inetAddressFromStringUnsafe

const address = inet("127.0.0.1:7")

/** A WebSocket server each of whose sockets is handed to the test as a transport, which lives as long as the server. */
const webSocketTransports = Effect.gen(function* () {
  const accepted = yield* Queue.unbounded<ReturnType<typeof record>>()
  const server = yield* NodeSocketServer.makeWebSocket({ host: "127.0.0.1", port: 0 })
  yield* Effect.forkScoped(
    server.run((socket) =>
      Effect.gen(function* () {
        const recorder = record(yield* SocketTransport.make(socket, { kind: "websocket" }))
        recorder.transport.resume()
        yield* Queue.offer(accepted, recorder)
        return yield* Effect.never
      }).pipe(Effect.scoped)
    )
  )
  const socket = yield* webSocket(portOf(server.address))
  const client = record(yield* SocketTransport.make(socket))
  client.transport.resume()
  return { client, server: yield* Queue.take(accepted) }
})

const webSocket = (port: number) =>
  Socket.makeWebSocket(`ws://127.0.0.1:${port}`).pipe(
    Effect.provideService(Socket.WebSocketConstructor, (url) => new NodeWS.WebSocket(url))
  )

const netTransport = Effect.fnUntraced(function* (port: number) {
  const socket = yield* NodeSocket.makeNet({ host: "127.0.0.1", port })
  return record(yield* SocketTransport.make(socket))
})

describe("SocketTransport as a transport", () => {
  describe("opening", () => {
    it.live("a refused WebSocket is ConnectionRefused, with the address that was tried", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(
          SocketTransport.make(yield* webSocket(1), { remoteAddress: address })
        )
        assert.strictEqual(error.operation, "connect")
        assert.strictEqual(error.reason._tag, "ConnectionRefused")
        assert.strictEqual(error.address, "127.0.0.1:7")
      }).pipe(Effect.scoped)
    )

    it.effect("a socket that dies is a typed failure, and what it acquired is released", () =>
      Effect.gen(function* () {
        let released = 0
        const socket = Socket.make({
          reader: Effect.andThen(
            Effect.addFinalizer(() => Effect.sync(() => released++)),
            Effect.die(new Error("broken driver"))
          ),
          writer: Effect.never
        })
        const error = yield* Effect.flip(SocketTransport.make(socket))
        assert.strictEqual(error.operation, "connect")
        assert.strictEqual(error.reason._tag, "UnknownReason")
        assert.strictEqual(error.reason.message, "broken driver")
        assert.strictEqual(released, 1)
      }).pipe(Effect.scoped)
    )

    it.effect("interrupted while it opens, it releases what it acquired", () =>
      Effect.gen(function* () {
        let released = 0
        const socket = Socket.make({
          reader: Effect.andThen(
            Effect.addFinalizer(() => Effect.sync(() => released++)),
            Effect.never
          ),
          writer: Effect.never
        })
        const opening = yield* Effect.forkChild(Effect.scoped(SocketTransport.make(socket)), {
          startImmediately: true
        })
        yield* Fiber.interrupt(opening)
        assert.strictEqual(released, 1)
      })
    )

    it.effect("describes itself", () =>
      Effect.gen(function* () {
        const { socket } = yield* driven()
        const plain = yield* SocketTransport.make(socket)
        assert.strictEqual(plain.kind, "socket")
        assert.isUndefined(plain.remoteAddress)
        const local = inet("127.0.0.1:8")
        const named = yield* SocketTransport.make(socket, {
          kind: "websocket",
          localAddress: local,
          remoteAddress: address
        })
        assert.strictEqual(named.kind, "websocket")
        assert.strictEqual(named.localAddress, local)
        assert.strictEqual(named.remoteAddress, address)
        assert.isFalse(named.canEnd)
      }).pipe(Effect.scoped)
    )
  })

  describe("reading", () => {
    it.live("does not pull before resume, nor while paused, and keeps the rest of a batch", () =>
      Effect.gen(function* () {
        const { counts, incoming, socket } = yield* driven()
        const recorder = record(yield* SocketTransport.make(socket))
        const { transport } = recorder
        yield* Queue.offer(incoming, receive("a", "b", "c"))
        yield* Queue.offer(incoming, receive("d"))
        yield* loops(3)
        assert.strictEqual(counts.pulls, 0)
        recorder.on = (what) => {
          if (what === "data") transport.pause()
        }
        transport.resume()
        yield* loops(3)
        assert.strictEqual(recorder.text(), "a")
        assert.strictEqual(counts.pulls, 1)
        transport.resume()
        yield* loops(3)
        assert.strictEqual(recorder.text(), "ab")
        assert.strictEqual(counts.pulls, 1)
        recorder.on = () => {}
        transport.resume()
        yield* loops(3)
        assert.strictEqual(recorder.text(), "abcd")
        assert.strictEqual(counts.pulls, 3)
      }).pipe(Effect.scoped)
    )

    it.live("an empty message is no bytes", () =>
      Effect.gen(function* () {
        const { incoming, socket } = yield* driven()
        const recorder = record(yield* SocketTransport.make(socket))
        recorder.transport.resume()
        yield* Queue.offer(incoming, receive("", "é", ""))
        yield* until(recorder, () => recorder.chunks.length > 0)
        yield* loops(3)
        assert.deepStrictEqual(recorder.events, ["data"])
        assert.strictEqual(recorder.text(), "é")
      }).pipe(Effect.scoped)
    )

    it.live("what came before a failed write is delivered before the end", () =>
      Effect.gen(function* () {
        const { incoming, socket } = yield* driven({ writeAll: () => Effect.die(new Error("broken driver")) })
        const recorder = record(yield* SocketTransport.make(socket, { remoteAddress: address }))
        recorder.on = (what) => {
          if (what === "data") recorder.transport.pause()
        }
        recorder.transport.resume()
        yield* Queue.offer(incoming, receive("a", "b", "c"))
        yield* loops(3)
        assert.strictEqual(recorder.text(), "a")
        recorder.transport.write("x")
        yield* closed(recorder)
        assert.deepStrictEqual(recorder.events, ["data", "data", "closed"])
        assert.strictEqual(recorder.text(), "abc")
        assert.strictEqual(recorder.error()?.operation, "write")
        assert.strictEqual(recorder.error()?.reason.message, "broken driver")
        assert.strictEqual(recorder.error()?.address, "127.0.0.1:7")
      }).pipe(Effect.scoped)
    )
  })

  describe("writing", () => {
    it.live("one write at a time, in order, whenever the writes are made", () =>
      Effect.gen(function* () {
        const gates: Array<() => void> = []
        let underWay = 0
        let most = 0
        const { log, socket } = yield* driven({
          writeAll: () =>
            Effect.callback((resume) => {
              most = Math.max(most, ++underWay)
              gates.push(() => {
                underWay--
                resume(Effect.void)
              })
            })
        })
        const recorder = record(yield* SocketTransport.make(socket))
        const { transport } = recorder
        recorder.on = (what) => {
          if (what === "drain" && !log.includes("send b,c,d")) transport.writeAll(["b", "", "c"])
        }
        transport.write("a")
        yield* loops(2)
        assert.strictEqual(transport.bufferedBytes, 1)
        gates[0]?.()
        transport.write("d")
        yield* loops(2)
        transport.write("é")
        yield* loops(2)
        assert.strictEqual(transport.bufferedBytes, 5)
        for (let i = 1; i < 4; i++) {
          gates[i]?.()
          yield* loops(2)
        }
        assert.deepStrictEqual(log, ["send a", "send b,c,d", "send é"])
        assert.strictEqual(most, 1)
        assert.strictEqual(transport.bufferedBytes, 0)
      }).pipe(Effect.scoped)
    )

    it.live("close sends what was written, then releases the socket, the writer first", () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const { log, socket } = yield* driven({ writeAll: () => Deferred.await(gate) })
        const recorder = record(yield* SocketTransport.make(socket))
        recorder.transport.write("a")
        yield* loops(2)
        recorder.transport.write("b")
        recorder.transport.close()
        recorder.transport.close()
        yield* loops(3)
        assert.deepStrictEqual(recorder.events, [])
        yield* Deferred.succeed(gate, undefined)
        yield* closed(recorder)
        assert.deepStrictEqual(log, ["send a", "send b", "writer released", "reader released"])
        assert.deepStrictEqual(recorder.events, ["drain", "drain", "closed"])
        assert.isUndefined(recorder.error())
      }).pipe(Effect.scoped)
    )

    it.live("a write that fails after a close ends the transport without an error", () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<never, Socket.SocketError>()
        const { socket } = yield* driven({ writeAll: () => Deferred.await(gate) })
        const recorder = record(yield* SocketTransport.make(socket))
        recorder.transport.write("a")
        recorder.transport.close()
        yield* loops(2)
        yield* Deferred.fail(gate, closeError(1006))
        yield* closed(recorder)
        assert.deepStrictEqual(recorder.events, ["closed"])
        assert.isUndefined(recorder.error())
        assert.strictEqual(recorder.transport.bufferedBytes, 1)
      }).pipe(Effect.scoped)
    )

    it.live("a write under way when the peer closes is finished", () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const { counts, incoming, log, socket } = yield* driven({ writeAll: () => Deferred.await(gate) })
        const recorder = record(yield* SocketTransport.make(socket))
        recorder.transport.resume()
        recorder.transport.write("a")
        yield* loops(2)
        yield* Queue.offer(incoming, Exit.fail(closeError(1000)))
        yield* until(recorder, () => recorder.events.includes("end"))
        recorder.transport.pause()
        recorder.transport.resume()
        yield* loops(3)
        assert.deepStrictEqual(recorder.events, ["end"])
        assert.strictEqual(counts.pulls, 1)
        yield* Deferred.succeed(gate, undefined)
        yield* closed(recorder)
        assert.deepStrictEqual(recorder.events, ["end", "drain", "closed"])
        assert.isUndefined(recorder.error())
        assert.strictEqual(recorder.transport.bufferedBytes, 0)
        assert.deepStrictEqual(log, ["send a", "writer released", "reader released"])
      }).pipe(Effect.scoped)
    )

    it.live("what waits behind it cannot be sent any more, and that is an error", () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const { incoming, log, socket } = yield* driven({ writeAll: () => Deferred.await(gate) })
        const recorder = record(yield* SocketTransport.make(socket))
        recorder.transport.resume()
        recorder.transport.write("a")
        yield* loops(2)
        recorder.transport.write("b")
        yield* Queue.offer(incoming, Exit.fail(closeError(1000)))
        yield* until(recorder, () => recorder.events.includes("end"))
        yield* Deferred.succeed(gate, undefined)
        yield* closed(recorder)
        assert.strictEqual(recorder.error()?.operation, "write")
        assert.strictEqual(recorder.error()?.reason._tag, "BrokenPipe")
        assert.notInclude(log, "send b")
      }).pipe(Effect.scoped)
    )
  })

  describe("ending", () => {
    it.live("abort interrupts a write and a pull that hang, and drops what waits", () =>
      Effect.gen(function* () {
        let interrupted = 0
        const hang = Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++))
        const { log, socket } = yield* driven({ writeAll: () => hang, write: hang })
        const recorder = record(yield* SocketTransport.make(socket))
        recorder.transport.resume()
        recorder.transport.write("a")
        yield* loops(2)
        recorder.transport.write("b")
        recorder.transport.close()
        recorder.transport.abort()
        recorder.transport.abort()
        yield* closed(recorder)
        yield* loops(3)
        assert.deepStrictEqual(recorder.events, ["closed"])
        assert.isUndefined(recorder.error())
        assert.deepStrictEqual(log, ["send a", "close 4000", "reader released", "writer released"])
        // The write, and the close event that the socket does not take.
        assert.strictEqual(interrupted, 2)
      }).pipe(Effect.scoped)
    )

    it.live("abort overtakes a socket that does not let go in order", () =>
      Effect.gen(function* () {
        const letGo = yield* Deferred.make<void>()
        const socket = Socket.make({
          reader: Effect.succeed({ pull: Effect.never, upgrade: Socket.SocketUpgradeError.unsupported }),
          writer: Effect.acquireRelease(
            Effect.succeed({ write: () => Effect.void, writeAll: () => Effect.void }),
            () => Deferred.await(letGo)
          )
        })
        const transport = yield* SocketTransport.make(socket)
        let ends = 0
        transport.start({ onData() {}, onEnd() {}, onDrain() {}, onClosed: () => ends++ })
        transport.close()
        yield* loops(3)
        assert.strictEqual(ends, 0)
        transport.abort()
        yield* loops(3)
        assert.strictEqual(ends, 1)
        yield* Deferred.succeed(letGo, undefined)
        yield* loops(3)
        assert.strictEqual(ends, 1)
      }).pipe(Effect.scoped)
    )

    it.live("the end of the scope aborts, and waits until the socket is released", () =>
      Effect.gen(function* () {
        const { log, socket } = yield* driven({ release: Effect.yieldNow })
        const scope = yield* Scope.make()
        const recorder = record(yield* Scope.provide(SocketTransport.make(socket), scope))
        recorder.transport.resume()
        yield* loops(2)
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(log, ["close 4000", "reader released", "writer released"])
        assert.deepStrictEqual(recorder.events, ["closed"])
      })
    )

    it.live("the end of the scope releases a transport that was never started", () =>
      Effect.gen(function* () {
        const { log, socket } = yield* driven()
        yield* Effect.scoped(SocketTransport.make(socket))
        assert.include(log, "reader released")
        assert.include(log, "writer released")
      })
    )

    it.live("a release that dies is the end as any other", () =>
      Effect.gen(function* () {
        const { log, socket } = yield* driven({ release: Effect.die(new Error("broken driver")) })
        const recorder = record(yield* SocketTransport.make(socket))
        recorder.transport.close()
        yield* closed(recorder)
        assert.isUndefined(recorder.error())
        assert.deepStrictEqual(log, ["writer released"])
      }).pipe(Effect.scoped)
    )
  })

  describe("over NodeSocket", () => {
    it.live("echoes through a TCP server, and leaves nothing behind", () =>
      leavingNothing(
        Effect.gen(function* () {
          const server = yield* rawServer()
          const recorder = yield* netTransport(server.port)
          const peer = yield* server.next
          peer.pipe(peer)
          recorder.transport.resume()
          recorder.transport.writeAll(["one ", new TextEncoder().encode("two "), "thrée"])
          yield* until(recorder, () => recorder.text() === "one two thrée")
          assert.strictEqual(recorder.transport.bufferedBytes, 0)
          peer.end()
          yield* closed(recorder)
          assert.deepStrictEqual(recorder.events.slice(-2), ["end", "closed"])
          assert.isUndefined(recorder.error())
        }).pipe(Effect.scoped)
      )
    )

    it.live("close sends megabytes to a peer that is slow to read", () =>
      leavingNothing(
        Effect.gen(function* () {
          const server = yield* rawServer()
          const recorder = yield* netTransport(server.port)
          const peer = yield* server.next
          recorder.transport.write(new Uint8Array(32 << 20))
          recorder.transport.close()
          yield* loops(5)
          assert.strictEqual(recorder.transport.bufferedBytes, 32 << 20)
          assert.strictEqual((yield* readToEnd(peer)).length, 32 << 20)
          yield* closed(recorder)
          assert.isUndefined(recorder.error())
        }).pipe(Effect.scoped)
      )
    )

    it.live("abort drops what a stuck peer has not taken", () =>
      leavingNothing(
        Effect.gen(function* () {
          const server = yield* rawServer()
          const recorder = yield* netTransport(server.port)
          const peer = yield* server.next
          recorder.transport.write(new Uint8Array(64 << 20))
          yield* loops(5)
          recorder.transport.abort()
          yield* closed(recorder)
          assert.isUndefined(recorder.error())
          let received = 0
          peer.on("data", (chunk: Buffer) => {
            received += chunk.length
          })
          peer.once("end", () => peer.destroy())
          peer.resume()
          yield* event(peer, "close")
          assert.isBelow(received, 64 << 20)
        }).pipe(Effect.scoped)
      )
    )

    it.live("a reset is ConnectionReset", () =>
      leavingNothing(
        Effect.gen(function* () {
          const server = yield* rawServer()
          const recorder = yield* netTransport(server.port)
          recorder.transport.resume()
          const peer = yield* server.next
          peer.resetAndDestroy()
          yield* closed(recorder)
          assert.deepStrictEqual(recorder.events, ["closed"])
          assert.strictEqual(recorder.error()?.operation, "read")
          assert.strictEqual(recorder.error()?.reason._tag, "ConnectionReset")
        }).pipe(Effect.scoped)
      )
    )
  })

  describe("over WebSocket", () => {
    it.live("carries binary and text both ways, and a close is the peer's end of input", () =>
      leavingNothing(
        Effect.gen(function* () {
          const { client, server } = yield* webSocketTransports
          assert.strictEqual(server.transport.kind, "websocket")
          client.transport.writeAll(["text ", new Uint8Array([0xc3]), new Uint8Array([0xa9])])
          yield* until(server, () => server.text() === "text é")
          server.transport.writeAll([new TextEncoder().encode("bytes "), "é"])
          yield* until(client, () => client.text() === "bytes é")
          client.transport.write("last")
          client.transport.close()
          yield* closed(server)
          assert.strictEqual(server.text(), "text élast")
          assert.deepStrictEqual(server.events.slice(-2), ["end", "closed"])
          assert.isUndefined(server.error())
          yield* closed(client)
          assert.isUndefined(client.error())
          assert.notInclude(client.events, "end")
        }).pipe(Effect.scoped)
      )
    )

    for (const side of ["client", "server"] as const) {
      it.live(`an abort of the ${side} is no end of input`, () =>
        leavingNothing(
          Effect.gen(function* () {
            const both = yield* webSocketTransports
            const peer = side === "client" ? both.server : both.client
            both[side].transport.abort()
            yield* closed(peer)
            assert.deepStrictEqual(peer.events, ["closed"])
            assert.strictEqual(peer.error()?.reason.code, "4000")
            yield* closed(both[side])
            assert.isUndefined(both[side].error())
          }).pipe(Effect.scoped)
        )
      )
    }
  })
})
