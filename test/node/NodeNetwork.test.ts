import { it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Cause, Duration, Effect, Exit, Fiber, Layer, References, Result, Scope } from "effect"
import { AddressResolver, Dns } from "effect/net"
import { TestClock } from "effect/testing"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Worker } from "node:worker_threads"
import { describe } from "vitest"
import {
  type ConnectOptions,
  type Listener,
  type ListenOptions,
  Network,
  type Target
} from "effect-wire/Network"
import { NodeNetwork } from "effect-wire/node"
import type { ConnectionError, TimeoutError } from "effect-wire/StreamError"
import type { Transport } from "effect-wire/Transport"
import {
  closed,
  freePort,
  leavingNothing,
  loops,
  openHandles,
  portOf,
  rawConnect,
  rawServer,
  readToEnd,
  tempDirectory,
  until
} from "../support/sockets.ts"
import { record } from "../support/transports.ts"
import { remedies } from "../support/remedies.ts"

const connect = (target: Target, options?: ConnectOptions) =>
  Effect.flatMap(Network, (network) => network.connect(target, options))

const listen = (address: Parameters<Network["Service"]["listen"]>[0], options?: ListenOptions) =>
  Effect.flatMap(Network, (network) => network.listen(address, options))

/** A test on the real network that leaves no socket behind. */
const live = (name: string, test: () => Effect.Effect<void, unknown, Network | Scope.Scope>) =>
  it.live(name, () =>
    leavingNothing(Effect.scoped(Effect.suspend(test))).pipe(Effect.provide(NodeNetwork.layer))
  )

/** Closes transports with the scope. */
const owned = <R>(transport: Effect.Effect<Transport, ConnectionError | TimeoutError, R>) =>
  Effect.acquireRelease(transport, (transport) => Effect.sync(() => transport.abort()))

const accepted = (listener: Listener) =>
  Effect.acquireRelease(listener.accept, (transport) => Effect.sync(() => transport.abort()))

/** Says what an interruptible effect has given, unless that was interrupted. */
const handedTo = <A, E, R>(effect: Effect.Effect<A, E, R>, take: (value: A) => void) =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(restore(effect), (value) =>
      Effect.sync(() => {
        take(value)
      })
    )
  )

const nextTick = Effect.callback<void>((resume) => {
  process.nextTick(() => resume(Effect.void))
})

// Targets and options come from configurations, so what the types forbid is tested as well.
const untyped = (input: unknown) => input as Target

const hasIpv6 = Effect.promise(
  () =>
    new Promise<boolean>((resolve) => {
      const server = net.createServer()
      server.once("error", () => resolve(false))
      server.listen({ host: "::1", port: 0 }, () => server.close(() => resolve(true)))
    })
)

const withNames = (hosts: Record<string, ReadonlyArray<string>>): Layer.Layer<Network> =>
  NodeNetwork.layerWithResolver.pipe(
    Layer.provide(
      Layer.succeed(
        AddressResolver.AddressResolver,
        AddressResolver.make(Result.getOrThrow(Dns.makeStatic({ hosts })))
      )
    )
  )

const codeOf = (error: unknown): unknown =>
  typeof error === "object" && error !== null && "code" in error ? error.code : undefined

const defectOf = (exit: Exit.Exit<unknown, unknown>): unknown =>
  Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined

describe("localhost", () => {
  // Found neither in a hosts file nor by a name server.
  const name = "nobody-has-heard-of.this.localhost"

  live("and the names below it are the loopback addresses, and nobody is asked", () =>
    Effect.gen(function* () {
      const listener = yield* listen({ host: "127.0.0.1" })
      for (const host of ["localhost", "LocalHost.", name]) {
        const client = yield* owned(connect({ host, port: portOf(listener.address) }))
        strictEqual(String(client.remoteAddress), String(listener.address))
      }
      const error = yield* Effect.flip(connect({ host: name, port: yield* freePort }))
      deepStrictEqual(
        error.attempts?.map(({ address }) => address.replace(/:\d+$/, "")),
        ["[::1]", "127.0.0.1"]
      )
    })
  )

  live("can be listened on", () =>
    Effect.gen(function* () {
      const listener = yield* listen({ host: name })
      strictEqual(String(listener.address), `127.0.0.1:${portOf(listener.address)}`)
    })
  )

  it.live("is what a resolver of one's own says", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const listener = yield* listen({ host: "app.localhost" })
          const client = yield* owned(connect({ host: "localhost", port: portOf(listener.address) }))
          strictEqual(String(client.remoteAddress), `127.0.0.2:${portOf(listener.address)}`)
          const error = yield* Effect.flip(connect({ host: name, port: 1 }))
          strictEqual(error._tag === "ConnectionError" && error.reason._tag, "NameNotResolved")
        })
      )
    ).pipe(Effect.provide(withNames({ localhost: ["127.0.0.2"], "app.localhost": ["127.0.0.2"] })))
  )
})

describe("connect", () => {
  live("to host and port, by string, object and address", () =>
    Effect.gen(function* () {
      const listener = yield* listen({ host: "127.0.0.1" })
      const { address } = listener
      const port = portOf(address)
      for (const target of [`127.0.0.1:${port}`, { host: "127.0.0.1", port }, address, `localhost:${port}`]) {
        const client = yield* owned(connect(target))
        const server = yield* accepted(listener)
        strictEqual(String(client.remoteAddress), String(address))
        strictEqual(String(server.remoteAddress), String(client.localAddress))
        strictEqual(String(server.localAddress), String(address))
        deepStrictEqual([client.kind, server.kind], ["tcp", "tcp"])
        const [left, right] = [record(client), record(server)]
        client.resume()
        server.resume()
        client.write("ping")
        client.end()
        server.write("pong")
        server.end()
        yield* closed(left)
        yield* closed(right)
        deepStrictEqual([left.text(), right.text()], ["pong", "ping"])
      }
    })
  )

  it.live("over IPv6", ({ skip }) =>
    Effect.gen(function* () {
      if (!(yield* hasIpv6)) return skip("no ::1 on this machine")
      const listener = yield* listen({ host: "::1" })
      const client = yield* owned(connect(`[::1]:${portOf(listener.address)}`))
      strictEqual(String(client.remoteAddress), `[::1]:${portOf(listener.address)}`)
      strictEqual(client.remoteAddress?._tag, "InetAddressV6")
    }).pipe(Effect.scoped, leavingNothing, Effect.provide(NodeNetwork.layer))
  )

  live("to a Unix path", () =>
    Effect.gen(function* () {
      const file = path.join(yield* tempDirectory, "s")
      const listener = yield* listen({ path: file })
      const client = yield* owned(connect({ path: file }))
      const server = yield* accepted(listener)
      deepStrictEqual(
        [client, server].map((_) => [_.kind, String(_.localAddress), String(_.remoteAddress)]),
        [
          ["unix", "", file],
          ["unix", file, ""]
        ]
      )
      const recorder = record(server)
      record(client)
      server.resume()
      client.write("hello")
      yield* until(recorder, () => recorder.text() === "hello")
    })
  )

  live("from the given address and port", () =>
    Effect.gen(function* () {
      const listener = yield* listen({ host: "127.0.0.1" })
      const port = yield* freePort
      const client = yield* owned(connect(listener.address, { localAddress: { host: "127.0.0.2", port } }))
      strictEqual(String(client.localAddress), `127.0.0.2:${port}`)
      const other = yield* owned(connect(listener.address, { localAddress: { host: "127.0.0.3" } }))
      strictEqual(String(other.localAddress).split(":")[0], "127.0.0.3")
      // The port of one that listens.
      const inUse = yield* Effect.flip(
        connect(listener.address, { localAddress: { host: "127.0.0.1", port: (yield* rawServer()).port } })
      )
      strictEqual(inUse._tag === "ConnectionError" && inUse.reason._tag, "AddressInUse")
      const notMine = yield* Effect.flip(connect(listener.address, { localAddress: { host: "203.0.113.1" } }))
      strictEqual(notMine._tag === "ConnectionError" && notMine.reason._tag, "AddressNotAvailable")
      const family = yield* Effect.flip(connect(listener.address, { localAddress: { host: "::1" } }))
      strictEqual(family._tag === "ConnectionError" && family.reason._tag, "AddressNotAvailable")
      const name = yield* Effect.flip(connect(listener.address, { localAddress: { host: "localhost" } }))
      strictEqual(name._tag === "ConnectionError" && name.reason._tag, "InvalidAddress")
    })
  )

  live("sets the socket's options", () =>
    Effect.gen(function* () {
      const listener = yield* listen({ host: "127.0.0.1" }, { keepAlive: "30 seconds", noDelay: false })
      for (const keepAlive of [true, false, "500 millis", Duration.seconds(5)] as const) {
        yield* owned(connect(listener.address, { keepAlive, noDelay: false }))
        yield* accepted(listener)
      }
      for (const keepAlive of [0, Infinity]) {
        assertTrue(
          defectOf(yield* Effect.exit(connect(listener.address, { keepAlive }))) instanceof RangeError
        )
        assertTrue(defectOf(yield* Effect.exit(listen({}, { keepAlive }))) instanceof RangeError)
      }
    })
  )

  live("refused: the error names the address and the code", () =>
    Effect.gen(function* () {
      const port = yield* freePort
      const error = yield* Effect.flip(connect(`127.0.0.1:${port}`))
      strictEqual(error.message, `connect to 127.0.0.1:${port}: connection refused (ECONNREFUSED)`)
      deepStrictEqual(
        error._tag === "ConnectionError" && error.attempts?.map((_) => [_.address, _.reason._tag]),
        [[`127.0.0.1:${port}`, "ConnectionRefused"]]
      )
    })
  )

  it.live("tries a name's addresses in order, and lists them when all fail", () =>
    Effect.gen(function* () {
      const listener = yield* listen({ host: "127.0.0.3" })
      const port = portOf(listener.address)
      const client = yield* owned(connect(`many.test:${port}`))
      strictEqual(String(client.remoteAddress), `127.0.0.3:${port}`)
      yield* listener.close
      const error = yield* Effect.flip(connect(`many.test:${port}`))
      strictEqual(
        error.message,
        `connect to many.test:${port}: connection refused (ECONNREFUSED); tried ` +
          [1, 2, 3, 4].map((n) => `127.0.0.${n}:${port} (connection refused)`).join(", ")
      )
    }).pipe(
      Effect.scoped,
      leavingNothing,
      Effect.provide(withNames({ "many.test": ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"] }))
    )
  )

  it.live("fails with NameNotResolved for a name that has no address", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(connect("unknown.test:80"))
      strictEqual(error._tag === "ConnectionError" && error.reason._tag, "NameNotResolved")
      strictEqual(error.message, "connect to unknown.test:80: the host name does not resolve (ENOTFOUND)")
    }).pipe(Effect.provide(withNames({})))
  )

  live("asks the system for names, and keeps its code", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(connect("host.invalid:80"))
      strictEqual(error._tag === "ConnectionError" && error.reason._tag, "NameNotResolved")
      assertTrue(/^connect to host\.invalid:80: the host name does not resolve \(E\w+\)$/.test(error.message))
    })
  )

  live("fails with InvalidAddress for what cannot be an address", () =>
    Effect.gen(function* () {
      const targets: ReadonlyArray<Target> = [
        "localhost:0",
        "localhost:65536",
        "localhost:http",
        "localhost",
        ":80",
        "http://localhost:80/",
        { host: "127.0.0.1", port: 0 },
        { host: "127.0.0.1", port: 65_536 },
        { host: "127.0.0.1", port: NaN },
        { host: "127.0.0.1", port: 1.5 },
        { host: "127.0.0.1", port: -1 },
        { host: "", port: 80 },
        { path: "" },
        { path: `/tmp/${"x".repeat(200)}` },
        untyped({ host: "127.0.0.1", port: "80" }),
        untyped({ host: "127.0.0.1" }),
        untyped({})
      ]
      for (const target of targets) {
        const error = yield* Effect.flip(connect(target))
        deepStrictEqual(
          [error._tag, error._tag === "ConnectionError" && error.reason._tag],
          ["ConnectionError", "InvalidAddress"],
          JSON.stringify(target)
        )
        assertTrue(error.message.startsWith("connect to "), error.message)
      }
    })
  )

  live("to a path without a server", () =>
    Effect.gen(function* () {
      const directory = yield* tempDirectory
      const plain = path.join(directory, "plain")
      fs.writeFileSync(plain, "")
      const reasons: Array<string | false> = []
      for (const file of [path.join(directory, "missing"), plain, directory, path.join(plain, "below")]) {
        const error = yield* Effect.flip(connect({ path: file }))
        strictEqual(error.address, file)
        reasons.push(error._tag === "ConnectionError" && `${error.reason._tag} ${error.reason.code}`)
      }
      deepStrictEqual(reasons, [
        "NotFound ENOENT",
        "ConnectionRefused ECONNREFUSED",
        "ConnectionRefused ECONNREFUSED",
        "NotFound ENOTDIR"
      ])
    })
  )

  // Listens, takes nothing, and blocks: connections beyond the backlog hang.
  const busyServer = Effect.acquireRelease(
    Effect.promise(async () => {
      const flag = new Int32Array(new SharedArrayBuffer(4))
      const worker = new Worker(
        `const { parentPort, workerData } = require("node:worker_threads")
         const server = require("node:net").createServer()
         server.listen({ host: "127.0.0.1", port: 0, backlog: 1 }, () => {
           parentPort.postMessage(server.address().port)
           setImmediate(() => Atomics.wait(workerData, 0, 0))
         })`,
        { eval: true, workerData: flag }
      )
      const port = await new Promise<number>((resolve) => worker.once("message", resolve))
      return { flag, port, worker }
    }),
    ({ flag, worker }) =>
      Effect.promise(() => {
        Atomics.store(flag, 0, 1)
        Atomics.notify(flag, 0)
        return worker.terminate()
      })
  )

  it.effect("times out on Effect's clock", () =>
    Effect.gen(function* () {
      const { port } = yield* busyServer
      const open = openHandles().length
      const filling = [1, 2, 3, 4].map(() => net.connect({ host: "127.0.0.1", port }))
      yield* loops(20)
      for (const socket of filling) socket.on("error", () => {})
      for (const [timeout, millis] of [
        [undefined, 10_000],
        [Duration.seconds(3), 3000]
      ] as const) {
        const options = timeout === undefined ? undefined : { connectTimeout: timeout }
        const fiber = yield* Effect.forkChild(Effect.flip(connect({ host: "127.0.0.1", port }, options)), {
          startImmediately: true
        })
        yield* TestClock.adjust(millis - 1)
        strictEqual(fiber.pollUnsafe(), undefined)
        yield* TestClock.adjust(1)
        const error = yield* Fiber.join(fiber)
        strictEqual(
          error.message,
          `connect to 127.0.0.1:${port}: timed out after ${millis / 1000}s${remedies.raise("connectTimeout")}`
        )
      }
      // Interrupted while it hangs.
      const fiber = yield* Effect.forkChild(connect({ host: "127.0.0.1", port }), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      for (const socket of filling) socket.destroy()
      yield* loops(20)
      strictEqual(openHandles().length, open)
    }).pipe(Effect.scoped, Effect.provide(NodeNetwork.layer))
  )

  live("names the local address that is none of this machine's", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(connect("127.0.0.1:1", { localAddress: { host: "192.0.2.1" } }))
      strictEqual(
        error.message,
        "connect to 127.0.0.1:1: address not available: " +
          "connecting from the local address 192.0.2.1 (EADDRNOTAVAIL)"
      )
    })
  )

  it.effect("counts the time for the name", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(
        Effect.flip(connect("slow.test:80", { connectTimeout: "1 second" })),
        {
          startImmediately: true
        }
      )
      yield* TestClock.adjust("1 second")
      const error = yield* Fiber.join(fiber)
      deepStrictEqual([error._tag, error.address], ["TimeoutError", "slow.test:80"])
    }).pipe(
      Effect.provide(
        Layer.provide(
          NodeNetwork.layerWithResolver,
          Layer.succeed(AddressResolver.AddressResolver, { resolve: () => Effect.never })
        )
      )
    )
  )

  live("interrupted at any moment, leaves nothing behind", () =>
    Effect.gen(function* () {
      const server = yield* rawServer(undefined, { pauseOnConnect: false })
      const before = openHandles().length
      const outcomes = new Set<string>()
      // Few operations between yields, so that the fiber is suspended, and interrupted, at every step.
      for (const [host, operations] of [
        ["127.0.0.1", 2048],
        ["localhost", 2048],
        ["127.0.0.1", 4],
        ["127.0.0.1", 3]
      ] as const) {
        for (let turns = 0; turns < 40; turns++) {
          let connected: Transport | undefined
          const fiber = yield* handedTo(connect({ host, port: server.port }), (transport) => {
            connected = transport
          }).pipe(
            Effect.provideService(References.MaxOpsBeforeYield, operations),
            Effect.forkChild({ startImmediately: true })
          )
          yield* loops(turns)
          yield* Fiber.interrupt(fiber)
          outcomes.add(`${operations} ${connected === undefined ? "interrupted" : "connected"}`)
          connected?.abort()
          yield* loops(10)
          for (const socket of server.all) socket.destroy()
          yield* loops(10)
          strictEqual(openHandles().length, before, `${operations} operations, ${turns} turns`)
        }
      }
      // Some were in time and some were not, or the test has missed the moment.
      deepStrictEqual(
        [...outcomes].sort(),
        ["2048", "3", "4"].flatMap((n) => [`${n} connected`, `${n} interrupted`])
      )
    })
  )
})

describe("listen", () => {
  live("on a free port, with the address bound", () =>
    Effect.gen(function* () {
      const one = yield* listen({ host: "127.0.0.1" })
      const other = yield* listen({ host: "127.0.0.1", port: 0 })
      assertTrue(portOf(one.address) > 0 && portOf(one.address) !== portOf(other.address))
    })
  )

  live("on all interfaces without a host", () =>
    Effect.gen(function* () {
      for (const address of [{}, { host: "" }]) {
        const listener = yield* listen(address)
        const port = portOf(listener.address)
        const isDual = yield* hasIpv6
        strictEqual(String(listener.address), isDual ? `[::]:${port}` : `0.0.0.0:${port}`)
        for (const host of isDual ? ["127.0.0.1", "[::1]"] : ["127.0.0.1"]) {
          const client = yield* owned(connect(`${host}:${port}`))
          strictEqual(String((yield* accepted(listener)).remoteAddress), String(client.localAddress))
        }
      }
    })
  )

  it.live("on a name: the first of its addresses that is the machine's", () =>
    Effect.gen(function* () {
      const listener = yield* listen({ host: "here.test" })
      strictEqual(String(listener.address), `127.0.0.5:${portOf(listener.address)}`)
      const nowhere = yield* Effect.flip(listen({ host: "away.test", port: 80 }))
      strictEqual(
        nowhere.message,
        `listen on away.test:80: address not available (EADDRNOTAVAIL)${remedies.notOurs}`
      )
      const { port } = yield* rawServer({ host: "127.0.0.5", port: 0 })
      const inUse = yield* Effect.flip(listen({ host: "here.test", port }))
      strictEqual(inUse.reason._tag, "AddressInUse")
      const unknown = yield* Effect.flip(listen({ host: "unknown.test", port: 80 }))
      strictEqual(unknown.reason._tag, "NameNotResolved")
    }).pipe(
      Effect.scoped,
      leavingNothing,
      Effect.provide(
        withNames({
          "here.test": ["203.0.113.1", "127.0.0.5", "127.0.0.6"],
          "away.test": ["203.0.113.1", "203.0.113.2"]
        })
      )
    )
  )

  live("fails on an address in use, not available, or invalid", () =>
    Effect.gen(function* () {
      const { port } = yield* rawServer()
      const inUse = yield* Effect.flip(listen({ host: "127.0.0.1", port }))
      strictEqual(
        inUse.message,
        `listen on 127.0.0.1:${port}: address already in use (EADDRINUSE)${remedies.portInUse}`
      )
      const notMine = yield* Effect.flip(listen({ host: "203.0.113.1" }))
      strictEqual(
        notMine.message,
        `listen on 203.0.113.1:0: address not available (EADDRNOTAVAIL)${remedies.notOurs}`
      )
      for (const address of [
        { port: 65_536 },
        { port: -1 },
        { port: NaN },
        { port: 1.5 },
        { host: "not a host" },
        { path: "" },
        { path: `/tmp/${"x".repeat(200)}` }
      ]) {
        strictEqual(
          (yield* Effect.flip(listen(address))).reason._tag,
          "InvalidAddress",
          JSON.stringify(address)
        )
      }
      for (const backlog of [0, -1, 1.5, NaN]) {
        assertTrue(
          defectOf(yield* Effect.exit(listen({ host: "127.0.0.1" }, { backlog }))) instanceof RangeError
        )
      }
    })
  )

  live("shares a port when told to", () =>
    Effect.gen(function* () {
      const one = yield* listen({ host: "127.0.0.1" }, { reusePort: true })
      const other = yield* listen({ host: "127.0.0.1", port: portOf(one.address) }, { reusePort: true })
      strictEqual(String(other.address), String(one.address))
    })
  )

  live("hands out connections in order, waiting or not", () =>
    Effect.gen(function* () {
      const listener = yield* listen({ host: "127.0.0.1" })
      const early = [yield* owned(connect(listener.address)), yield* owned(connect(listener.address))]
      yield* loops(5)
      for (const client of early) {
        strictEqual(String((yield* accepted(listener)).remoteAddress), String(client.localAddress))
      }
      const accepting = yield* Effect.forEach([1, 2, 3], () =>
        Effect.forkChild(listener.accept, { startImmediately: true })
      )
      for (const fiber of accepting) {
        const client = yield* owned(connect(listener.address))
        const transport = yield* Fiber.join(fiber)
        strictEqual(String(transport.remoteAddress), String(client.localAddress))
        transport.abort()
      }
    })
  )

  live("loses no connection to an interrupted accept", () =>
    Effect.gen(function* () {
      const listener = yield* listen({ host: "127.0.0.1" })
      const outcomes = new Set<string>()
      for (const operations of [2048, 4, 3]) {
        for (const isWaiting of [true, false]) {
          for (let turns = 0; turns < 20; turns++) {
            let taken: Transport | undefined
            const client = isWaiting ? undefined : yield* owned(connect(listener.address))
            yield* loops(5)
            const first = yield* handedTo(listener.accept, (transport) => {
              taken = transport
            }).pipe(
              Effect.provideService(References.MaxOpsBeforeYield, operations),
              Effect.forkChild({ startImmediately: true })
            )
            const peer = client ?? (yield* owned(connect(listener.address)))
            yield* loops(turns)
            const second = yield* Effect.forkChild(listener.accept, { startImmediately: true })
            yield* Fiber.interrupt(first)
            outcomes.add(`${operations} ${taken === undefined ? "interrupted" : "accepted"}`)
            if (taken !== undefined) yield* Fiber.interrupt(second)
            const server = taken ?? (yield* Fiber.join(second))
            strictEqual(String(server.remoteAddress), String(peer.localAddress))
            server.abort()
            peer.abort()
          }
        }
      }
      deepStrictEqual(
        [...outcomes].sort(),
        ["2048", "3", "4"].flatMap((n) => [`${n} accepted`, `${n} interrupted`])
      )
    })
  )

  live("loses no connection that comes while a waiting accept is interrupted", () =>
    Effect.gen(function* () {
      const listener = yield* listen({ host: "127.0.0.1" })
      const options = { host: "127.0.0.1", port: portOf(listener.address) }
      for (const operations of [2048, 5, 4, 3]) {
        const waiting = yield* listener.accept.pipe(
          Effect.provideService(References.MaxOpsBeforeYield, operations),
          Effect.forkChild({ startImmediately: true })
        )
        yield* loops(20)
        const second = yield* Effect.forkChild(listener.accept, { startImmediately: true })
        const peer = net.connect(options)
        waiting.interruptUnsafe()
        strictEqual((yield* Fiber.await(waiting))._tag, "Failure")
        const transport = yield* Fiber.join(second)
        strictEqual(String(transport.remoteAddress), `127.0.0.1:${peer.localPort}`)
        transport.abort()
        peer.on("error", () => {})
        peer.destroy()
      }
    })
  )

  live("stops listening with the scope, resets what nobody took, and leaves the accepted alone", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const listener = yield* Scope.provide(listen({ host: "127.0.0.1" }), scope)
      const port = portOf(listener.address)
      const peer = yield* rawConnect({ host: "127.0.0.1", port })
      const transport = yield* accepted(listener)
      const unclaimed = yield* rawConnect({ host: "127.0.0.1", port })
      yield* loops(5)
      const waiting = yield* Effect.forkChild(listener.accept, { startImmediately: true })
      const taken = yield* Fiber.join(waiting)
      taken.abort()
      const dropped = yield* rawConnect({ host: "127.0.0.1", port })
      yield* loops(5)
      yield* Scope.close(scope, Exit.void)
      yield* listener.close
      strictEqual(codeOf(yield* Effect.flip(readToEnd(unclaimed))), "ECONNRESET")
      strictEqual(codeOf(yield* Effect.flip(readToEnd(dropped))), "ECONNRESET")
      const refused = yield* Effect.flip(connect(listener.address))
      strictEqual(refused._tag === "ConnectionError" && refused.reason._tag, "ConnectionRefused")
      strictEqual(portOf(listener.address), port)
      const recorder = record(transport)
      transport.resume()
      peer.end("still here")
      yield* until(recorder, () => recorder.events.includes("end"))
      strictEqual(recorder.text(), "still here")
      transport.close()
      yield* closed(recorder)
    })
  )

  live("closes early, once", () =>
    Effect.gen(function* () {
      const listener = yield* listen({ host: "127.0.0.1" })
      const waiting = yield* Effect.forkChild(listener.accept, { startImmediately: true })
      yield* listener.close
      yield* listener.close
      yield* listen({ host: "127.0.0.1", port: portOf(listener.address) })
      yield* loops(5)
      strictEqual(waiting.pollUnsafe(), undefined)
      yield* Fiber.interrupt(waiting)
    })
  )

  live("resets what comes beyond the backlog", () =>
    Effect.gen(function* () {
      const listener = yield* listen({ host: "127.0.0.1" }, { backlog: 2 })
      const options = { host: "127.0.0.1", port: portOf(listener.address) }
      const peers = [yield* rawConnect(options), yield* rawConnect(options)]
      // The reset may come before Node has seen the connection.
      strictEqual(codeOf(yield* Effect.flip(readToEnd(net.connect(options)))), "ECONNRESET")
      for (const peer of peers) {
        strictEqual(String((yield* accepted(listener)).remoteAddress), `127.0.0.1:${peer.localPort}`)
      }
      const again = yield* rawConnect(options)
      strictEqual(String((yield* accepted(listener)).remoteAddress), `127.0.0.1:${again.localPort}`)
    })
  )

  live("hands out a connection that its peer has reset meanwhile, and that ends with the reset", () =>
    Effect.gen(function* () {
      const listener = yield* listen({ host: "127.0.0.1" })
      const peer = yield* rawConnect({ host: "127.0.0.1", port: portOf(listener.address) })
      yield* loops(5)
      peer.resetAndDestroy()
      yield* loops(5)
      const transport = yield* accepted(listener)
      const recorder = record(transport)
      transport.resume()
      yield* closed(recorder)
      strictEqual(recorder.error()?.reason._tag, "ConnectionReset")
    })
  )

  it.live("out of descriptors, says so, and goes on accepting when there are some again", () =>
    Effect.gen(function* () {
      const program = fileURLToPath(new URL("../support/exhausted.ts", import.meta.url))
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
      const line = Effect.promise(async () => {
        const { value } = await lines.next()
        return String(value)
      })
      const port = Number((yield* line).split(":")[1])
      const peers: Array<net.Socket> = []
      let acceptedCount = 0
      for (let last = ""; !last.startsWith("failure");) {
        peers.push(yield* rawConnect({ host: "127.0.0.1", port }))
        last = yield* line
        if (last === "accepted") acceptedCount++
        else strictEqual(last, "failure ResourcesExhausted EMFILE")
        // The failure follows the connection that took the last descriptor.
        if (acceptedCount > 64) throw new Error("the descriptors do not run out")
      }
      assertTrue(acceptedCount > 10)
      // One goes, one comes: that is no news.
      peers[0]?.destroy()
      strictEqual(yield* line, "closed")
      peers[0] = yield* rawConnect({ host: "127.0.0.1", port })
      strictEqual(yield* line, "accepted")
      for (const peer of peers) peer.destroy()
      for (let left = acceptedCount; left > 0; left--) strictEqual(yield* line, "closed")
      const peer = yield* rawConnect({ host: "127.0.0.1", port })
      peer.end()
      strictEqual((yield* readToEnd(peer)).toString(), "hello")
    }).pipe(Effect.scoped, leavingNothing)
  )
})

describe("listen on a Unix path", () => {
  /** A socket file that nobody listens on. */
  const leaveStale = (file: string) =>
    Effect.gen(function* () {
      const { server } = yield* rawServer({ path: `${file}.live` })
      fs.linkSync(`${file}.live`, file)
      yield* Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
      })
      assertTrue(fs.lstatSync(file).isSocket())
    })

  live("replaces the file of a server that is gone, and removes its own", () =>
    Effect.gen(function* () {
      const file = path.join(yield* tempDirectory, "s")
      yield* leaveStale(file)
      const listener = yield* listen({ path: file })
      strictEqual(String(listener.address), file)
      yield* owned(connect({ path: file }))
      yield* accepted(listener)
      yield* listener.close
      strictEqual(fs.existsSync(file), false)
    })
  )

  live("leaves a live server's path, a plain file and a directory alone", () =>
    Effect.gen(function* () {
      const directory = yield* tempDirectory
      const file = path.join(directory, "s")
      const listener = yield* listen({ path: file })
      const plain = path.join(directory, "plain")
      fs.writeFileSync(plain, "mine")
      const link = path.join(directory, "link")
      fs.symlinkSync(plain, link)
      for (const taken of [file, plain, directory, link]) {
        const error = yield* Effect.flip(listen({ path: taken }))
        strictEqual(
          error.message,
          `listen on ${taken}: address already in use (EADDRINUSE)${remedies.pathInUse}`
        )
      }
      strictEqual(fs.readFileSync(plain, "utf8"), "mine")
      yield* owned(connect({ path: file }))
      // The probes of the second listen, then this client.
      yield* accepted(listener)
      yield* accepted(listener)
    })
  )

  live("takes no path that another server takes meanwhile", () =>
    Effect.gen(function* () {
      const directory = yield* tempDirectory
      const outcomes = new Set<string>()
      for (let turns = 0; turns < 30; turns++) {
        const file = path.join(directory, `s${turns}`)
        yield* leaveStale(file)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const fiber = yield* Effect.forkChild(Effect.exit(listen({ path: file })), {
              startImmediately: true
            })
            for (let i = 0; i < turns; i++) yield* turns < 20 ? nextTick : loops(1)
            if (fiber.pollUnsafe() === undefined) {
              fs.unlinkSync(file)
              const { next } = yield* rawServer({ path: file })
              strictEqual((yield* Fiber.join(fiber))._tag, "Failure")
              yield* owned(connect({ path: file }))
              yield* next
              outcomes.add("another's")
            } else {
              yield* owned(connect({ path: file }))
              outcomes.add("own")
            }
          })
        )
      }
      deepStrictEqual([...outcomes].sort(), ["another's", "own"])
    })
  )

  live("removes at its end only the file that is its own", () =>
    Effect.gen(function* () {
      const directory = yield* tempDirectory
      const file = path.join(directory, "s")
      const removed = yield* listen({ path: file })
      fs.unlinkSync(file)
      yield* removed.close

      const replaced = yield* listen({ path: file })
      fs.unlinkSync(file)
      const { next } = yield* rawServer({ path: file })
      yield* replaced.close
      yield* owned(connect({ path: file }))
      yield* next

      fs.unlinkSync(file)
      const overwritten = yield* listen({ path: file })
      fs.unlinkSync(file)
      fs.writeFileSync(file, "mine")
      yield* overwritten.close
      strictEqual(fs.readFileSync(file, "utf8"), "mine")
      deepStrictEqual(fs.readdirSync(directory), ["s"])
    })
  )

  it.live("takes an abstract name, which is no file", ({ skip }) =>
    Effect.gen(function* () {
      if (process.platform !== "linux") return skip("abstract names are Linux's")
      const name = `\0effect-wire-${process.pid}`
      const listener = yield* listen({ path: name })
      const client = yield* owned(connect({ path: name }))
      strictEqual(String(client.remoteAddress), name)
      yield* accepted(listener)
      const error = yield* Effect.flip(listen({ path: name }))
      strictEqual(error.reason._tag, "AddressInUse")
      yield* listener.close
      yield* listen({ path: name })
    }).pipe(Effect.scoped, leavingNothing, Effect.provide(NodeNetwork.layer))
  )

  live("says that the directory is missing", () =>
    Effect.gen(function* () {
      const file = path.join(yield* tempDirectory, "missing", "s")
      strictEqual(
        (yield* Effect.flip(listen({ path: file }))).message,
        `listen on ${file}: no such file (ENOENT)${remedies.noDirectory}`
      )
    })
  )
})
