import { it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Deferred, Effect, Fiber, Latch, type Scope, Stream } from "effect"
import { Connection, type Network, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { spawn } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import type * as net from "node:net"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { describe } from "vitest"
import { outcome, start, withSleepers } from "../support/effects.ts"
import { leavingNothing, loops, portOf, rawConnect, readToEnd } from "../support/sockets.ts"

const MIB = 1024 * 1024
const CHUNK = 65_536

const local = { listen: { host: "127.0.0.1", port: 0 } }

/** The sockets that are open. Timers are counted by the clock: the test runner has some of its own. */
const resources = (): ReadonlyArray<string> =>
  process
    .getActiveResourcesInfo()
    .filter((name) => /^(TCP|Pipe)/.test(name))
    .sort()

/** A test after which sockets, timers and sleeping fibers are what they were before. */
const live = (name: string, body: () => Effect.Effect<void, unknown, Network.Network | Scope.Scope>) =>
  it.live(
    name,
    () =>
      withSleepers((sleepers) =>
        Effect.gen(function* () {
          const before = resources()
          yield* Effect.scoped(Effect.suspend(body))
          yield* loops(20)
          strictEqual(sleepers(), 0)
          deepStrictEqual(resources(), before)
        })
      ).pipe(Effect.provide(NodeNetwork.layer)),
    60_000
  )

/** Waits until something has not changed for many turns of the event loop. */
const quiet = Effect.fnUntraced(function* (value: () => number) {
  for (let before = -1; before !== value();) {
    before = value()
    yield* loops(200)
  }
})

/** A server, the connection that its one handler has, and what that has come to; and its peer, a plain socket. */
const meet = Effect.fnUntraced(function* <A, E>(
  handler: (connection: Connection.Connection) => Effect.Effect<A, E>,
  options?: Partial<Server.Options<E>>
) {
  const opened = yield* Deferred.make<Connection.Connection>()
  const server = yield* Server.serve(
    (connection) => Effect.andThen(Deferred.succeed(opened, connection), handler(connection)),
    { ...local, onError: () => Effect.void, grace: 0, ...options }
  )
  const ended = yield* start(Stream.runHead(Stream.filter(server.events, (event) => event._tag === "Closed")))
  const peer = yield* rawConnect({ host: "127.0.0.1", port: portOf(server.addresses[0]) })
  const connection = yield* Deferred.await(opened)
  /** What the handler has come to, once its connection has ended. */
  const end = Effect.map(Fiber.join(ended.fiber), (event) =>
    event._tag === "Some" && event.value._tag === "Closed" ? outcome(event.value.exit) : "no end"
  )
  return { server, connection, peer, end }
})

/** Writes for ever, and counts. */
const flood = (connection: Connection.Connection, counter: { bytes: number }) =>
  Effect.forever(
    Effect.andThen(
      connection.writer.write(new Uint8Array(CHUNK)),
      Effect.sync(() => {
        counter.bytes += CHUNK
      })
    )
  )

describe("many connections", () => {
  live("1,000 at once, 1 MiB each way on each", () =>
    Effect.gen(function* () {
      const connections = 1000
      const offsets = 16
      const random = randomBytes(MIB + offsets)
      const contents = Array.from({ length: offsets }, (_, offset) => random.subarray(offset, offset + MIB))
      const hashes = contents.map((bytes) => createHash("sha256").update(bytes).digest("hex"))
      const everyone = Latch.makeUnsafe()

      const send = ({ writer }: Connection.Connection, n: number) =>
        Effect.gen(function* () {
          const content = contents[n % offsets] ?? random
          for (let at = 0; at < MIB; at += CHUNK) yield* writer.write(content.subarray(at, at + CHUNK))
          yield* writer.end
        })
      const receive = ({ reader }: Connection.Connection) =>
        Effect.suspend(() => {
          const hash = createHash("sha256")
          return Effect.map(
            Stream.runForEach(reader.stream, (chunk) =>
              Effect.sync(() => {
                hash.update(chunk)
              })
            ),
            () => hash.digest("hex")
          )
        })
      const exchange = (connection: Connection.Connection, n: number) =>
        Effect.map(
          Effect.all([receive(connection), send(connection, n)], { concurrency: "unbounded" }),
          ([hash]) => hash
        )

      // By the client's port: what the server has sent, and the hash of what it has received.
      const sent = new Map<number, number>()
      const received = new Map<number, string>()
      let accepted = 0
      const server = yield* Server.serve(
        (connection) =>
          Effect.gen(function* () {
            const port = portOf(connection.info.remoteAddress)
            const n = accepted++
            sent.set(port, n)
            if (accepted === connections) everyone.openUnsafe()
            received.set(port, yield* exchange(connection, n))
          }),
        { ...local, backlog: connections }
      )
      const results = yield* Effect.forEach(
        Array.from({ length: connections }, (_, n) => n),
        (n) =>
          Connection.use(server.addresses[0], { connectTimeout: "30 seconds" }, (connection) =>
            Effect.gen(function* () {
              yield* everyone.await
              if (n === 0) strictEqual(yield* server.activeConnections, connections)
              return { n, port: portOf(connection.info.localAddress), hash: yield* exchange(connection, n) }
            })
          ),
        { concurrency: "unbounded" }
      )
      strictEqual(results.length, connections)
      for (const { hash, n, port } of results) {
        strictEqual(hash, hashes[(sent.get(port) ?? NaN) % offsets])
        strictEqual(received.get(port), hashes[n % offsets])
      }
      yield* loops(20)
      strictEqual(yield* server.activeConnections, 0)
    })
  )
})

describe("one busy connection", () => {
  live("what is read stays as it was read, however it is read, and however much comes at a time", () =>
    Effect.gen(function* () {
      const content = randomBytes(24 * MIB)
      const { connection, peer } = yield* meet(() => Effect.never)
      const { reader } = connection
      // Pieces from a few bytes to more than the system takes at a time.
      for (let at = 0, n = 1; at < content.length; n++) {
        const size = 1 + ((n * 7919) % (n % 3 === 0 ? 300_000 : 3000))
        peer.write(content.subarray(at, at + size))
        at += size
      }
      peer.end()
      const pieces: Array<Uint8Array> = []
      const into = (size: number) => {
        const target = new Uint8Array(size)
        return Effect.map(reader.readInto(target), (count) => target.subarray(0, count))
      }
      const kinds = [() => into(CHUNK), () => into(100), () => reader.read(), () => reader.read(1000)]
      for (let n = 0; ; n++) {
        // Many of a kind in a row, as programs read.
        const piece = yield* kinds[Math.floor(n / 40) % kinds.length]?.() ?? reader.read()
        if (piece.length === 0) break
        pieces.push(piece)
      }
      assertTrue(Buffer.concat(pieces).equals(content))
    })
  )
})

describe("bounded memory", () => {
  live("a peer that never reads: what is buffered stays within the high watermark and a chunk", () =>
    Effect.gen(function* () {
      const counter = { bytes: 0 }
      const { connection, end, peer } = yield* meet((connection) =>
        Effect.all(
          Array.from({ length: 20 }, () => flood(connection, counter)),
          { concurrency: "unbounded" }
        )
      )
      yield* quiet(() => counter.bytes)
      const { writer } = connection
      const buffered = yield* writer.bufferedBytes
      assertTrue(buffered > writer.watermarks.low, `${buffered} bytes`)
      assertTrue(buffered <= writer.watermarks.high + CHUNK, `${buffered} bytes`)
      // The peer takes some, and no more is let through than it took.
      peer.resume()
      yield* loops(50)
      peer.pause()
      const before = counter.bytes
      yield* quiet(() => counter.bytes)
      assertTrue(counter.bytes >= before)
      assertTrue((yield* writer.bufferedBytes) <= writer.watermarks.high + CHUNK)
      peer.resetAndDestroy()
      strictEqual(yield* end, "ConnectionReset")
    })
  )

  live(
    "a peer that floods while nobody reads: what is buffered stays within twice the limit and two chunks",
    () =>
      Effect.gen(function* () {
        const total = 32 * MIB
        const go = Latch.makeUnsafe()
        let received = 0
        const { connection, end, peer } = yield* meet(({ reader }) =>
          Effect.andThen(
            go.await,
            Stream.runForEach(reader.stream, (chunk) =>
              Effect.sync(() => {
                received += chunk.length
              })
            )
          )
        )
        peer.end(Buffer.alloc(total))
        yield* quiet(() => peer.bytesWritten - peer.writableLength)
        const buffered = yield* connection.reader.bufferedBytes
        const { limit } = connection.reader
        assertTrue(buffered >= 2 * limit, `${buffered} bytes`)
        assertTrue(buffered <= 2 * limit + 2 * CHUNK, `${buffered} bytes`)
        // The rest is still the peer's or the kernel's.
        strictEqual(peer.writableFinished, false)
        yield* go.open
        yield* readToEnd(peer)
        strictEqual(yield* end, "success")
        strictEqual(received, total)
      })
  )

  live("the same with a small limit and small watermarks", () =>
    Effect.gen(function* () {
      const counter = { bytes: 0 }
      const { connection, end, peer } = yield* meet((connection) => flood(connection, counter), {
        limit: 1024,
        watermarks: { high: 1000, low: 10 }
      })
      peer.write(Buffer.alloc(32 * MIB))
      yield* quiet(() => counter.bytes + peer.writableLength)
      assertTrue((yield* connection.writer.bufferedBytes) <= 1000 + CHUNK)
      assertTrue((yield* connection.reader.bufferedBytes) <= 2 * 1024 + 2 * CHUNK)
      peer.resetAndDestroy()
      assertTrue(["ConnectionReset", "BrokenPipe"].includes(yield* end))
    })
  )
})

describe("a peer that resets", () => {
  /** Resets the peer once everything has come to rest, and gives what the handler has come to. */
  const resetIn = Effect.fnUntraced(function* (
    handler: (connection: Connection.Connection) => Effect.Effect<unknown, unknown>,
    options?: Partial<Server.Options<unknown>>,
    before: (peer: net.Socket) => void = () => {}
  ) {
    const { connection, end, peer, server } = yield* meet(handler, options)
    before(peer)
    yield* loops(100)
    strictEqual(yield* server.activeConnections, 1)
    peer.resetAndDestroy()
    const how = yield* end
    strictEqual(yield* server.activeConnections, 0)
    return [how, outcome(yield* Effect.exit(connection.closed))]
  })

  live("while idle, watched", () =>
    Effect.gen(function* () {
      deepStrictEqual(yield* resetIn(() => Effect.never, { interruptOnDisconnect: true }), [
        "interrupted",
        "ConnectionReset"
      ])
    })
  )

  live("while reading, with every timeout armed", () =>
    Effect.gen(function* () {
      const options = { readTimeout: "1 hour", idleTimeout: "1 hour", writeTimeout: "1 hour" } as const
      deepStrictEqual(yield* resetIn(({ reader }) => reader.readLine, options), [
        "ConnectionReset",
        "ConnectionReset"
      ])
    })
  )

  live("while writing, congested", () =>
    Effect.gen(function* () {
      const options = { writeTimeout: "1 hour" } as const
      deepStrictEqual(yield* resetIn((_) => flood(_, { bytes: 0 }), options), [
        "ConnectionReset",
        "ConnectionReset"
      ])
    })
  )

  live("half-closed by this side", () =>
    Effect.gen(function* () {
      deepStrictEqual(yield* resetIn(({ reader, writer }) => Effect.andThen(writer.end, reader.read())), [
        "ConnectionReset",
        "ConnectionReset"
      ])
    })
  )

  live("half-closed by the peer, this side writing", () =>
    Effect.gen(function* () {
      const [how, closed] = yield* resetIn(
        (connection) => Effect.andThen(connection.reader.readAll(), flood(connection, { bytes: 0 })),
        undefined,
        (peer) => peer.end("last")
      )
      // The system tells the writer of a reset that came after the end either way.
      assertTrue(how === "ConnectionReset" || how === "BrokenPipe", how)
      strictEqual(closed, how)
    })
  )

  live("while this side closes and waits for the peer's end", () =>
    Effect.gen(function* () {
      deepStrictEqual(yield* resetIn(({ writer }) => writer.write("bye"), { closeTimeout: "1 hour" }), [
        "success",
        "success"
      ])
    })
  )

  live("while this side closes and still sends", () =>
    Effect.gen(function* () {
      deepStrictEqual(
        yield* resetIn(({ writer }) => writer.write(new Uint8Array(16 * MIB)), {
          closeTimeout: "1 hour",
          watermarks: { high: 16 * MIB }
        }),
        ["success", "success"]
      )
    })
  )
})

describe("out of descriptors", () => {
  it.live("a server tells it with an event, survives, and serves again when there are some", () =>
    Effect.gen(function* () {
      const program = fileURLToPath(new URL("../support/exhaustedServer.ts", import.meta.url))
      const child = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn(
            "sh",
            ["-c", 'ulimit -n 64 && exec "$0" --conditions=source "$1"', process.execPath, program],
            {
              stdio: ["ignore", "pipe", "inherit"]
            }
          )
        ),
        (child) =>
          Effect.callback<void>((resume) => {
            child.once("close", () => resume(Effect.void))
            child.kill("SIGKILL")
          })
      )
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
      const line = Effect.promise(async () => String((await lines.next()).value))
      const port = Number((yield* line).split(":")[1])
      const options = { host: "127.0.0.1", port }
      const peers: Array<net.Socket> = []
      let served = 0
      while (peers.length < 64) {
        peers.push(yield* rawConnect(options))
        const what = yield* line
        if (what === "Opened") {
          served++
          continue
        }
        strictEqual(what, "AcceptFailed ResourcesExhausted EMFILE")
        break
      }
      assertTrue(served > 10 && served < 64, `${served} served`)
      for (const peer of peers) peer.destroy()
      for (let left = served; left > 0;) if ((yield* line) === "Closed") left--
      const peer = yield* rawConnect(options)
      peer.end()
      strictEqual((yield* readToEnd(peer)).toString(), "hello")
    }).pipe(Effect.scoped, leavingNothing)
  )
})
