import { assert, describe, it } from "@effect/vitest"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { Cause, Effect, Exit, Fiber, Option, Queue, type Scope, Semaphore, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Connection, type Network, Server, StreamError, type Tls, TlsReloader } from "effect-wire"
import { NodeNetwork, NodeTransport } from "effect-wire/node"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { createSecureContext, TLSSocket } from "node:tls"
import { Authority } from "../support/certificates.ts"
import { withFibers, withSleepers } from "../support/effects.ts"
import { leavingNothing, loops, portOf, rawConnect, rawServer, tempDirectory } from "../support/sockets.ts"

type Body = Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>

/** Runs a test and holds it to leave no socket, no sleeper and no fiber behind. */
const nothingLeft = (body: Body): Effect.Effect<void, unknown> =>
  withSleepers((sleepers) =>
    withFibers((fibers) =>
      Effect.gen(function* () {
        const before = fibers()
        yield* leavingNothing(Effect.scoped(body))
        assert.deepStrictEqual({ sleepers: sleepers(), fibers: fibers() }, { sleepers: 0, fibers: before })
      })
    )
  ).pipe(Effect.provide(NodeNetwork.layer))

const live = (title: string, body: Body): void => it.live(title, () => nothingLeft(body))

/** With a clock that stands still: real sockets, and no real time. */
const timed = (title: string, body: Body): void => it.effect(title, () => nothingLeft(body))

const authority = new Authority()
const ca = authority.certificate
const identity = authority.issue()
const me = authority.issue({ name: "me", altName: "DNS:me" })
const listen = { host: "127.0.0.1" }

type Direction = "toClient" | "toServer"
type Cut = "end" | "resetAndDestroy"

/** What passes connections on, and cuts each after so many bytes of one direction. */
const cutter = Effect.fnUntraced(function* (port: number) {
  const passed = { toClient: 0, toServer: 0 }
  let plan: { readonly direction: Direction; readonly after: number; readonly cut: Cut } | undefined
  const { port: front, server } = yield* rawServer({ host: "127.0.0.1", port: 0 }, { pauseOnConnect: false })
  server.on("connection", (near: net.Socket) => {
    passed.toClient = 0
    passed.toServer = 0
    const { after, cut, direction } = plan ?? { direction: "toClient", after: Infinity, cut: "end" }
    const far = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true })
    const both = [near, far]
    for (const socket of both) socket.on("error", () => {})
    let isCut = false
    const cutNow = (): void => {
      isCut = true
      // Both get what came before.
      for (const socket of both) socket.write("", () => socket[cut]())
    }
    const pass = (to: net.Socket, which: Direction) => (chunk: Buffer) => {
      if (isCut) return
      const left = which === direction ? after - passed[which] : Infinity
      passed[which] += chunk.length
      to.write(left < chunk.length ? chunk.subarray(0, left) : chunk)
      if (left <= chunk.length) cutNow()
    }
    near.on("data", pass(far, "toServer"))
    far.on("data", pass(near, "toClient"))
    for (const [from, to] of [
      [near, far],
      [far, near]
    ] as const) {
      from.once("end", () => to.end())
      from.once("close", () => to.destroy())
    }
    if (after === 0) far.once("connect", cutNow)
  })
  return {
    port: front,
    passed,
    /** How the connections to come are cut. */
    use: (next: typeof plan) => {
      plan = next
    }
  }
})

/** "read TlsTruncated", "handshake ConnectionReset", …; a read that succeeds is "an end". */
const howItEnded = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return "an end"
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  assert(error instanceof StreamError.ConnectionError, Cause.pretty(exit.cause))
  return `${error.operation} ${error.reason._tag}`
}

/** A server that tells what became of each connection: of its handshake, or of its first read. */
const telling = Effect.fnUntraced(function* (tls: Tls.ServerOptions) {
  const ends = yield* Queue.unbounded<string>()
  const server = yield* Server.serve(
    ({ reader }) => Effect.flatMap(Effect.exit(reader.read()), (exit) => Queue.offer(ends, howItEnded(exit))),
    { listen, tls }
  )
  yield* Effect.forkScoped(
    Stream.runForEach(server.events, (_) =>
      _._tag === "HandshakeFailed" ? Queue.offer(ends, howItEnded(Exit.fail(_.error))) : Effect.void
    ),
    { startImmediately: true }
  )
  /** Waits for the server to have let go of all connections. */
  const idle = Effect.gen(function* () {
    while ((yield* server.activeConnections) > 0) yield* loops(1)
  })
  return { ends, idle, port: portOf(server.addresses[0]) }
})

describe.each(["TLSv1.2", "TLSv1.3"] as const)(
  "a connection that is cut in its handshake, %s",
  (maxVersion) => {
    const tls: Tls.ServerOptions = { identity, ca, clientCertificate: "require", maxVersion }

    for (const [cut, reason] of [
      ["end", "TlsTruncated"],
      ["resetAndDestroy", "ConnectionReset"]
    ] as const) {
      for (const direction of ["toClient", "toServer"] as const) {
        live(
          `${direction}, by ${cut}, after any number of bytes: both sides fail, and know how far they were`,
          Effect.gen(function* () {
            const { ends, idle, port: back } = yield* telling(tls)
            const { passed, port, use } = yield* cutter(back)
            const connect = Connection.connect({ host: "127.0.0.1", port }, { tls: { ca, identity: me } })

            // How many bytes there are to be cut; signatures differ in length by some.
            yield* Effect.scoped(connect)
            assert.strictEqual(yield* Queue.take(ends), "an end")
            const total = passed[direction] - 40
            assert.isAbove(total, 1000)

            const clients: Array<string> = []
            const servers: Array<string> = []
            for (let after = 0; after < total; after += after < 6 ? 1 : 17) {
              use({ direction, after, cut })
              const read = Effect.scoped(Effect.flatMap(connect, ({ reader }) => reader.read()))
              clients.push(howItEnded(yield* Effect.exit(read)))
              servers.push(yield* Queue.take(ends))
            }
            yield* idle
            assert.strictEqual(yield* Queue.size(ends), 0)
            const known = (ends: ReadonlyArray<string>) => [...new Set(ends)].sort()
            const failed = "handshake ConnectionReset"
            // In TLS 1.3 the client is done first, in TLS 1.2 the server: that one may be cut behind its handshake.
            const first = maxVersion === "TLSv1.3"
            assert.deepStrictEqual(known(clients), first ? [failed, `read ${reason}`] : [failed])
            assert.deepStrictEqual(
              known(servers),
              direction === "toServer" ? [failed] : [failed, `read ${reason}`]
            )
            // What of the handshake was missing is missed: only who had all of it goes on to read.
            if (cut === "end") {
              for (const side of [clients, servers]) {
                assert.strictEqual(side.lastIndexOf(failed) + 1, side.filter((_) => _ === failed).length)
              }
            }
          })
        )
      }
    }
  }
)

describe.each(["TLSv1.2", "TLSv1.3"] as const)(
  "a connection that is cut while its reader is held up, %s",
  (maxVersion) => {
    live(
      "all that came before can be read",
      Effect.gen(function* () {
        const { next, port } = yield* rawServer()
        const near = yield* rawConnect({ host: "127.0.0.1", port })
        const far = yield* next
        const context = createSecureContext({ cert: identity.certificate, key: identity.key, maxVersion })
        const peer = new TLSSocket(far, { isServer: true, secureContext: context })
        peer.on("error", () => {})
        const connection = yield* Connection.make(NodeTransport.fromDuplex(near), { limit: 1024 })
        yield* connection.upgradeTls({ role: "client", ca, servername: "localhost" })

        // More than Node's TLS keeps of plaintext.
        const sent = Buffer.alloc(140_000, "abcdefg")
        yield* Effect.callback<void>((resume) => {
          peer.write(sent, () => resume(Effect.void))
        })
        while (near.bytesRead < far.bytesWritten) yield* loops(1)
        far.resetAndDestroy()
        assert.strictEqual(howItEnded(yield* Effect.exit(connection.closed)), "read ConnectionReset")

        const read = Effect.tap(connection.reader.read(), (chunk) => Effect.sync(() => received.push(chunk)))
        const received: Array<Uint8Array> = []
        assert.strictEqual(howItEnded(yield* Effect.exit(Effect.forever(read))), "read ConnectionReset")
        assert.isTrue(sent.equals(Buffer.concat(received)), `${Buffer.concat(received).length} bytes`)
      })
    )
  }
)

describe("a connection that is cut in its upgrade", () => {
  for (const direction of ["toClient", "toServer"] as const) {
    live(
      `${direction}, after any number of bytes: both sides fail, and have let go before their scopes end`,
      Effect.gen(function* () {
        const ends = yield* Queue.unbounded<string>()
        const server = yield* Server.serve(
          (connection) =>
            connection.upgradeTls({ role: "server", identity, leftover: "feed" }).pipe(
              Effect.andThen(connection.reader.read()),
              Effect.exit,
              Effect.tap((exit) => (Exit.isSuccess(exit) ? Effect.void : Effect.exit(connection.closed))),
              Effect.flatMap((exit) => Queue.offer(ends, howItEnded(exit)))
            ),
          { listen }
        )
        const { passed, port, use } = yield* cutter(portOf(server.addresses[0]))
        const upgradeAndRead = Effect.fnUntraced(function* () {
          const connection = yield* Connection.connect({ host: "127.0.0.1", port })
          const upgrade = connection.upgradeTls({ role: "client", ca })
          const exit = yield* Effect.exit(Effect.andThen(upgrade, connection.reader.read()))
          // Whatever it died of, it is over, and says the same.
          assert.strictEqual(howItEnded(yield* Effect.exit(connection.closed)), howItEnded(exit))
          return howItEnded(exit)
        })

        // How many bytes there are to be cut.
        yield* Effect.scoped(
          Effect.flatMap(Connection.connect({ host: "127.0.0.1", port }), (connection) =>
            connection.upgradeTls({ role: "client", ca })
          )
        )
        assert.strictEqual(yield* Queue.take(ends), "an end")
        const total = passed[direction] - 40
        // What a client says first is longer than all of it was before OpenSSL 3.5.
        assert.isAbove(total, 300)
        const known = ["handshake ConnectionReset", "read TlsTruncated"]
        for (let after = 0; after < total; after += after < 6 ? 1 : 47) {
          use({ direction, after, cut: "end" })
          assert.include(known, yield* Effect.scoped(upgradeAndRead()))
          assert.include(known, yield* Queue.take(ends))
        }
      })
    )
  }
})

describe("a client that does not accept the certificate", () => {
  for (const [maxVersion, seen] of [
    ["TLSv1.2", "read TlsTruncated"],
    ["TLSv1.3", "handshake ConnectionReset"]
  ] as const) {
    live(
      `sends no alert: over ${maxVersion}, the server's is a ${seen}`,
      Effect.gen(function* () {
        const { ends, port } = yield* telling({ identity, maxVersion })
        const error = yield* Effect.flip(
          Effect.scoped(Connection.connect({ host: "127.0.0.1", port }, { tls: { ca: me.certificate } }))
        )
        assert.strictEqual(howItEnded(Exit.fail(error)), "handshake TlsError")
        assert.strictEqual(yield* Queue.take(ends), seen)
      })
    )
  }
})

describe("certificates that change under load", () => {
  live(
    "300 connections, a new certificate every 15: none fails, and each shows the one of its time",
    Effect.gen(function* () {
      const directory = yield* tempDirectory
      const certificate = path.join(directory, "certificate.pem")
      const key = path.join(directory, "key.pem")
      const generations = Array.from({ length: 20 }, (_, n) => authority.issue({ name: `generation ${n}` }))
      const write = (file: string, n: number) =>
        fs.writeFileSync(file, generations[n]?.[file === key ? "key" : "certificate"] ?? assert.fail())
      write(certificate, 0)
      write(key, 0)
      const reloader = yield* Effect.provide(
        TlsReloader.make(TlsReloader.files({ certificate, key })),
        NodeFileSystem.layer
      )
      const server = yield* Server.serve(({ reader, writer }) => Stream.run(reader.stream, writer.sink), {
        listen,
        tls: { identity: reloader }
      })
      const port = portOf(server.addresses[0])
      const tls = { ca }

      let generation = 0
      let started = 0
      const scope = yield* Effect.scope
      // One at a time: on a busy machine, the next one is due before the files are read.
      const turn = Semaphore.makeUnsafe(1)
      const swaps: Array<Fiber.Fiber<void, unknown>> = []
      const swap = Effect.gen(function* () {
        const next = generation + 1
        // Between the two files there is no pair: nothing changes.
        write(certificate, next)
        const error = yield* Effect.flip(reloader.reload)
        assert(error._tag === "TlsError")
        assert.strictEqual(error.kind, "InvalidIdentity")
        write(key, next)
        assert.isTrue(yield* reloader.reload)
        generation = next
      }).pipe(turn.withPermits(1))
      const visit = Effect.fnUntraced(function* () {
        const before = generation
        if (++started % 15 === 0 && swaps.length + 1 < generations.length) {
          swaps.push(yield* Effect.forkIn(swap, scope))
        }
        const { info, reader, writer } = yield* Connection.connect({ host: "127.0.0.1", port }, { tls })
        yield* writer.write("hello")
        assert.strictEqual((yield* reader.readExactly(5)).length, 5)
        const name = String(info.tls?.peerCertificate?.subject["CN"])
        const shown = generations.findIndex((_, n) => name === `generation ${n}`)
        // One that was loaded meanwhile may be ahead of who has loaded it.
        assert.isTrue(shown >= before && shown <= generation + 1, `${name}, of ${before} to ${generation}`)
      })
      const early = yield* Connection.connect({ host: "127.0.0.1", port }, { tls })
      yield* Effect.forEach(Array.from({ length: 300 }), () => Effect.scoped(visit()), {
        concurrency: 10,
        discard: true
      })
      for (const fiber of swaps) yield* Fiber.join(fiber)
      assert.strictEqual(generation, generations.length - 1)
      yield* early.writer.write("still here")
      assert.strictEqual((yield* early.reader.readExactly(10)).length, 10)
      assert.strictEqual(early.info.tls?.peerCertificate?.subject["CN"], "generation 0")
    })
  )
})

describe("clients that connect and never speak", () => {
  timed(
    "500 of them: each gives its slot of maxConnections back after handshakeTimeout, and a client is served",
    Effect.gen(function* () {
      const server = yield* Server.serve(({ writer }) => writer.write("hello"), {
        listen,
        maxConnections: 100,
        tls: { identity, handshakeTimeout: "5 seconds" }
      })
      const port = portOf(server.addresses[0])
      const failures: Array<string> = []
      yield* Effect.forkScoped(
        Stream.runForEach(server.events, (_) =>
          Effect.sync(() => {
            if (_._tag === "HandshakeFailed") failures.push(_.error._tag)
          })
        ),
        { startImmediately: true }
      )
      let lost = 0
      yield* Effect.forEach(Array.from({ length: 500 }), () =>
        Effect.map(rawConnect({ host: "127.0.0.1", port }), (silent) => {
          silent.once("close", () => lost++)
          silent.resume()
        })
      )
      const client = yield* Effect.forkChild(
        Connection.use(
          { host: "127.0.0.1", port },
          { tls: { ca, handshakeTimeout: "1 minute" } },
          ({ reader }) => reader.readAll()
        ),
        { startImmediately: true }
      )
      for (let round = 1; round <= 5; round++) {
        while ((yield* server.activeConnections) < 100) yield* loops(1)
        yield* TestClock.adjust("4999 millis")
        assert.strictEqual(failures.length, 100 * (round - 1))
        yield* TestClock.adjust("1 millis")
        while (failures.length < 100 * round) yield* loops(1)
      }
      assert.strictEqual((yield* Fiber.join(client)).length, 5)
      while (lost < 500) yield* loops(1)
      assert.deepStrictEqual(new Set(failures), new Set(["TimeoutError"]))
      assert.strictEqual(failures.length, 500)
    })
  )
})

describe("the time of a handshake", () => {
  timed(
    "T-009 one that is slow and in time succeeds, on both sides",
    Effect.gen(function* () {
      const handshakeTimeout = "3 seconds"
      const server = yield* Server.serve(({ reader, writer }) => Stream.run(reader.stream, writer.sink), {
        listen,
        tls: { identity, handshakeTimeout }
      })
      // Passes on what comes when the test says so, until it is told to be quick.
      const front = yield* rawServer({ host: "127.0.0.1", port: 0 }, { pauseOnConnect: false })
      const held: Array<() => void> = []
      let isSlow = true
      front.server.on("connection", (near: net.Socket) => {
        const far = net.connect({ host: "127.0.0.1", port: portOf(server.addresses[0]), allowHalfOpen: true })
        near.once("close", () => far.destroy())
        for (const [from, to] of [
          [near, far],
          [far, near]
        ] as const) {
          const pass = (step: () => void) => (isSlow ? void held.push(step) : step())
          from.on("error", () => {}).on("end", () => pass(() => to.end()))
          from.on("data", (chunk: Buffer) => pass(() => to.write(chunk)))
        }
      })
      const connecting = yield* Effect.forkChild(
        Connection.connect({ host: "127.0.0.1", port: front.port }, { tls: { ca, handshakeTimeout } }),
        { startImmediately: true }
      )
      for (let flight = 0; flight < 2; flight++) {
        while (held.length === 0) yield* loops(1)
        yield* TestClock.adjust("1499 millis")
        assert.isUndefined(connecting.pollUnsafe())
        for (const step of held.splice(0)) step()
      }
      isSlow = false
      const { reader, writer } = yield* Fiber.join(connecting)
      yield* writer.write("hello")
      assert.strictEqual((yield* reader.readExactly(5)).length, 5)
    })
  )

  it.effect("T-039 no timer is left of a handshake, nor of an end", () =>
    withSleepers((sleepers) =>
      Effect.gen(function* () {
        const server = yield* Server.serve(({ reader, writer }) => Stream.run(reader.stream, writer.sink), {
          listen,
          tls: { identity }
        })
        const connection = yield* Connection.connect(
          { host: "127.0.0.1", port: portOf(server.addresses[0]) },
          { tls: { ca } }
        )
        yield* connection.writer.write("hello")
        yield* connection.reader.readExactly(5)
        assert.strictEqual(sleepers(), 0)
        yield* connection.close
        while ((yield* server.activeConnections) > 0) yield* loops(1)
        assert.strictEqual(sleepers(), 0)
      })
    ).pipe(Effect.scoped, Effect.provide(NodeNetwork.layer))
  )
})
