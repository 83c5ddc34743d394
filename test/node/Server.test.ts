import { it } from "@effect/vitest"
import { assertInstanceOf, assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Deferred, Effect, Exit, Fiber, Layer, Option, Result, Scope } from "effect"
import { Connection, type Network, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { AddressResolver, Dns, NetAddress } from "effect/net"
import { TestClock } from "effect/testing"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { describe } from "vitest"
import { outcome, outcomeOf, start } from "../support/effects.ts"
import {
  freePort,
  leavingNothing,
  loops,
  portOf,
  rawConnect,
  rawServer,
  readToEnd,
  tempDirectory
} from "../support/sockets.ts"
import { remedies } from "../support/remedies.ts"

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)

/** A test on the real network that leaves no socket behind. */
const live = (
  name: string,
  body: () => Effect.Effect<void, unknown, Network.Network | Scope.Scope>,
  layer: Layer.Layer<Network.Network> = NodeNetwork.layer
) => it.live(name, () => leavingNothing(Effect.scoped(Effect.suspend(body))).pipe(Effect.provide(layer)))

/** A network on which the names are these, and no others. */
const withNames = (hosts: Record<string, ReadonlyArray<string>>): Layer.Layer<Network.Network> =>
  NodeNetwork.layerWithResolver.pipe(
    Layer.provide(
      Layer.succeed(
        AddressResolver.AddressResolver,
        AddressResolver.make(Result.getOrThrow(Dns.makeStatic({ hosts })))
      )
    )
  )

const resolving = (resolve: AddressResolver.AddressResolver["Service"]["resolve"]) =>
  Layer.provide(NodeNetwork.layerWithResolver, Layer.succeed(AddressResolver.AddressResolver, { resolve }))

const local = { listen: { host: "127.0.0.1", port: 0 } }

const echo = ({ reader, writer }: Connection.Connection) =>
  Effect.flatMap(reader.readLine, (line) => writer.write(line))

const serve = (listen: Server.Options["listen"], options?: Partial<Server.Options>) =>
  Server.serve(echo, { listen, ...options })

/** Asks for an echo and gives what came until the end. */
const ask = (target: Network.Target, options?: Connection.ConnectionOptions) =>
  Connection.use(target, options, ({ reader, writer }) =>
    Effect.andThen(writer.write("hello\n"), Effect.map(reader.readAll(), text))
  )

const failureOf = <A, R>(
  effect: Effect.Effect<A, Effect.Error<ReturnType<typeof Connection.connect>>, R>
): Effect.Effect<string, A, R> =>
  Effect.map(Effect.flip(effect), (error) =>
    error._tag === "ConnectionError" ? error.reason._tag : error._tag
  )

const hasIpv6 = Object.values(os.networkInterfaces()).some((all) => all?.some((_) => _.address === "::1"))

describe("C: connections to a server", () => {
  live("C-001: a request, a line, and the end", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(
        ({ reader, writer }) =>
          Effect.gen(function* () {
            yield* reader.readUntil("\r\n\r\n")
            yield* writer.write("HTTP/1.0 200 OK\r\n\r\nTest message")
          }),
        local
      )
      yield* Connection.use(server.addresses[0], ({ reader, writer }) =>
        Effect.gen(function* () {
          yield* writer.write("GET / HTTP/1.0\r\n\r\n")
          deepStrictEqual(yield* reader.readLineString, Option.some("HTTP/1.0 200 OK"))
          strictEqual(text(yield* reader.readAll()), "\r\nTest message")
        })
      )
    })
  )

  live("C-002, S-003, C-016: the same over a Unix socket, and its addresses", () =>
    Effect.gen(function* () {
      const file = path.join(yield* tempDirectory, "s")
      const infos: Array<Connection.ConnectionInfo> = []
      const server = yield* Server.serve(
        (connection) =>
          Effect.andThen(
            Effect.sync(() => infos.push(connection.info)),
            echo(connection)
          ),
        { listen: { path: file } }
      )
      strictEqual(String(server.addresses[0]), file)
      const client = yield* Connection.connect({ path: file })
      yield* client.writer.write("hello\n")
      strictEqual(text(yield* client.reader.readAll()), "hello\n")
      infos.push(client.info)
      deepStrictEqual(
        infos.map((_) => [_.transport, String(_.localAddress), String(_.remoteAddress)]),
        [
          ["unix", file, ""],
          ["unix", "", file]
        ]
      )
    })
  )

  live("C-014, C-015: the addresses of both sides, also after the close", () =>
    Effect.gen(function* () {
      const infos: Array<Connection.ConnectionInfo> = []
      const server = yield* Server.serve(({ info }) => Effect.sync(() => infos.push(info)), local)
      const client = yield* Connection.connect(server.addresses[0])
      yield* client.reader.readAll()
      yield* client.close
      strictEqual(yield* client.writer.isClosing, true)
      const [accepted] = infos
      strictEqual(client.info.transport, "tcp")
      strictEqual(client.info.tls, undefined)
      strictEqual(String(client.info.remoteAddress), String(server.addresses[0]))
      deepStrictEqual(
        [String(accepted?.localAddress), String(accepted?.remoteAddress)],
        [String(client.info.remoteAddress), String(client.info.localAddress)]
      )
      assertTrue(client.info.localAddress !== undefined && NetAddress.isInetAddress(client.info.localAddress))
    })
  )

  it.live.skipIf(!hasIpv6)("C-017: an IPv6 peer has an IPv6 address", () =>
    Effect.gen(function* () {
      const server = yield* serve({ host: "::1" })
      const client = yield* Connection.connect(server.addresses[0])
      const { localAddress, remoteAddress } = client.info
      assertTrue(localAddress !== undefined && NetAddress.isInetAddressV6(localAddress))
      assertTrue(remoteAddress !== undefined && NetAddress.isInetAddressV6(remoteAddress))
      deepStrictEqual([String(localAddress.address), localAddress.scopeId], ["::1", 0])
      strictEqual(remoteAddress.port, portOf(server.addresses[0]))
      yield* client.writer.write("\n")
    }).pipe(Effect.scoped, leavingNothing, Effect.provide(NodeNetwork.layer))
  )

  live("W-039: small writes are sent at once on both sides, unless noDelay is false", () =>
    Effect.gen(function* () {
      for (const [noDelay, calls] of [
        [undefined, 2],
        [true, 2],
        [false, 0]
      ] as const) {
        const count = yield* countingNoDelay(
          Effect.scoped(
            Effect.flatMap(serve(local.listen, { noDelay }), (_) => ask(_.addresses[0], { noDelay }))
          )
        )
        strictEqual(count, calls, String(noDelay))
      }
    })
  )
})

/** How many sockets are given `TCP_NODELAY` while an effect runs. */
const countingNoDelay = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const { port } = yield* rawServer()
    const socket: object = yield* rawConnect({ host: "127.0.0.1", port })
    // Node has no getter: what is observed is the call into its TCP handles.
    const handle: unknown = Reflect.get(socket, "_handle")
    assertInstanceOf(handle, Object)
    const prototype: unknown = Object.getPrototypeOf(handle)
    assertInstanceOf(prototype, Object)
    const original: unknown = Reflect.get(prototype, "setNoDelay")
    assertInstanceOf(original, Function)
    let count = 0
    Reflect.set(prototype, "setNoDelay", function (this: unknown, enable: boolean) {
      if (enable) count++
      const result: unknown = Reflect.apply(original, this, [enable])
      return result
    })
    yield* Effect.ensuring(
      effect,
      Effect.sync(() => Reflect.set(prototype, "setNoDelay", original))
    )
    return count
  })

describe("H: connecting", () => {
  it.live("H-001: of a name's addresses the first refuses, the second takes the connection", () =>
    Effect.gen(function* () {
      const server = yield* serve({ host: "127.0.0.2" })
      const client = yield* Connection.connect({ host: "two.test", port: portOf(server.addresses[0]) })
      strictEqual(String(client.info.remoteAddress), String(server.addresses[0]))
      yield* client.writer.write("\n")
    }).pipe(
      Effect.scoped,
      leavingNothing,
      Effect.provide(withNames({ "two.test": ["127.0.0.1", "127.0.0.2"] }))
    )
  )

  live("H-002, H-005: one address that refuses: its error, and the one attempt", () =>
    Effect.gen(function* () {
      const port = yield* freePort
      const error = yield* Effect.flip(Connection.connect(`127.0.0.1:${port}`))
      strictEqual(error.message, `connect to 127.0.0.1:${port}: connection refused (ECONNREFUSED)`)
      assertTrue(error._tag === "ConnectionError")
      deepStrictEqual(
        error.attempts?.map((_) => `${_.address} ${_.reason._tag}`),
        [`127.0.0.1:${port} ConnectionRefused`]
      )
    })
  )

  live(
    "H-003, H-005: several addresses that fail: each with its own reason, in order",
    () =>
      Effect.gen(function* () {
        const port = yield* freePort
        const error = yield* Effect.flip(Connection.connect({ host: "mixed.test", port }))
        assertTrue(error._tag === "ConnectionError")
        deepStrictEqual(
          error.attempts?.map((_) => `${_.address} ${_.reason._tag}`),
          [`127.0.0.1:${port} ConnectionRefused`, `255.255.255.255:${port} Unreachable`]
        )
        strictEqual(error.reason._tag, "Unreachable")
        strictEqual(
          error.message,
          `connect to mixed.test:${port}: host or network unreachable (ENETUNREACH); ` +
            `tried 127.0.0.1:${port} (connection refused), ` +
            `255.255.255.255:${port} (host or network unreachable)`
        )
      }),
    withNames({ "mixed.test": ["127.0.0.1", "255.255.255.255"] })
  )

  live("H-007: an unknown host", () =>
    Effect.gen(function* () {
      strictEqual(yield* failureOf(Connection.connect("host.invalid:80")), "NameNotResolved")
    })
  )

  live(
    "H-009: no resolver is asked for an IP address",
    () =>
      Effect.gen(function* () {
        const server = yield* serve(local.listen)
        const port = portOf(server.addresses[0])
        strictEqual(yield* ask(`127.0.0.1:${port}`), "hello\n")
        strictEqual(yield* ask({ host: "127.0.0.1", port }), "hello\n")
      }),
    resolving(() => Effect.die(new Error("the resolver was asked")))
  )

  live("H-013: a connect that is interrupted closes its socket", () =>
    Effect.gen(function* () {
      const { all, port, server } = yield* rawServer(undefined, { pauseOnConnect: false })
      let peers = 0
      server.on("connection", (socket) => {
        peers++
        socket.resume()
      })
      for (let turns = 0; turns < 6; turns++) {
        const connecting = yield* start(
          Effect.scoped(Effect.andThen(Connection.connect(`127.0.0.1:${port}`), Effect.never))
        )
        yield* loops(turns)
        yield* connecting.interrupt
        strictEqual(outcome(connecting), "interrupted")
      }
      yield* loops(20)
      strictEqual(all.size, 0)
      assertTrue(peers > 0)
    })
  )

  live("H-014: from a local address", () =>
    Effect.gen(function* () {
      const server = yield* serve(local.listen)
      const client = yield* Connection.connect(server.addresses[0], {
        localAddress: { host: "127.0.0.2", port: 0 }
      })
      assertTrue(String(client.info.localAddress).startsWith("127.0.0.2:"))
      yield* client.writer.write("\n")
    })
  )

  live("H-016: a local address of the other family", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Connection.connect("127.0.0.1:80", { localAddress: { host: "::1" } }))
      assertTrue(error._tag === "ConnectionError" && error.reason._tag === "AddressNotAvailable")
      assertInstanceOf(error.reason.cause, Error)
      strictEqual(error.reason.cause.message, "the local address ::1 is of another family")
    })
  )

  live("H-017: a local address in use, which the cause names", () =>
    Effect.gen(function* () {
      const { port } = yield* rawServer()
      const server = yield* serve(local.listen)
      const error = yield* Effect.flip(
        Connection.connect(server.addresses[0], { localAddress: { host: "127.0.0.1", port } })
      )
      assertTrue(error._tag === "ConnectionError" && error.reason._tag === "AddressInUse")
      assertInstanceOf(error.reason.cause, Error)
      assertTrue(error.reason.cause.message.includes(`127.0.0.1:${port}`), error.reason.cause.message)
    })
  )

  live("H-033: a Unix path that is not there", () =>
    Effect.gen(function* () {
      const file = path.join(yield* tempDirectory, "missing")
      const error = yield* Effect.flip(Connection.connect({ path: file }))
      strictEqual(error.message, `connect to ${file}: no such file (ENOENT)${remedies.noSocket}`)
    })
  )
})

describe("S: servers on sockets", () => {
  live("S-001, S-002: an echo, and nothing left behind", () =>
    Effect.gen(function* () {
      const server = yield* serve(local.listen)
      strictEqual(yield* ask(server.addresses[0]), "hello\n")
      const report = yield* server.shutdown()
      strictEqual(report.interrupted + report.aborted, 0)
      strictEqual(yield* failureOf(Connection.connect(server.addresses[0])), "ConnectionRefused")
    })
  )

  live("S-004: a handler that fails resets its client", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(({ reader }) => Effect.andThen(reader.read(), Effect.fail("oops")), {
        ...local,
        onError: () => Effect.void
      })
      const peer = yield* rawConnect({ host: "127.0.0.1", port: portOf(server.addresses[0]) })
      peer.write("x")
      strictEqual(codeOf(yield* Effect.flip(readToEnd(peer))), "ECONNRESET")
    })
  )

  live("S-025: without a host, both families on one port", () =>
    Effect.gen(function* () {
      for (const listen of [{}, { port: 0 }, { host: "" }]) {
        const server = yield* serve(listen)
        const port = portOf(server.addresses[0])
        strictEqual(server.addresses.length, 1)
        strictEqual(yield* ask(`127.0.0.1:${port}`), "hello\n")
        if (hasIpv6) strictEqual(yield* ask(`[::1]:${port}`), "hello\n")
      }
    })
  )

  live("S-026: the same host twice is one socket", () =>
    Effect.gen(function* () {
      const server = yield* serve([{ host: "127.0.0.1" }, { host: "127.0.0.1" }])
      strictEqual(server.addresses.length, 1)
    })
  )

  live("S-027: two hosts with port 0 share one port", () =>
    Effect.gen(function* () {
      const server = yield* serve([{ host: "127.0.0.1" }, { host: "127.0.0.2" }])
      const [one, two] = server.addresses
      strictEqual(portOf(one), portOf(two))
      strictEqual(yield* ask(one), "hello\n")
      strictEqual(yield* ask(two ?? one), "hello\n")
    })
  )

  it.live.skipIf(!hasIpv6)("S-028: the same port on IPv4 and IPv6", () =>
    Effect.gen(function* () {
      const port = yield* freePort
      const server = yield* serve([
        { host: "127.0.0.1", port },
        { host: "::1", port }
      ])
      for (const address of server.addresses) strictEqual(yield* ask(address), "hello\n")
    }).pipe(Effect.scoped, leavingNothing, Effect.provide(NodeNetwork.layer))
  )

  live("S-029: a port in use, and no socket left open", () =>
    Effect.gen(function* () {
      const { port } = yield* rawServer()
      const free = yield* freePort
      const error = yield* Effect.flip(
        serve([
          { host: "127.0.0.1", port: free },
          { host: "127.0.0.1", port }
        ])
      )
      strictEqual(
        error.message,
        `listen on 127.0.0.1:${port}: address already in use (EADDRINUSE)${remedies.portInUse}`
      )
      yield* serve({ host: "127.0.0.1", port: free })
    })
  )

  live(
    "S-030: of a name's addresses, those that are not this machine's are skipped; none left is an error",
    () =>
      Effect.gen(function* () {
        const server = yield* serve({ host: "some.test" })
        strictEqual(yield* ask(server.addresses[0]), "hello\n")
        const error = yield* Effect.flip(serve({ host: "none.test", port: 80 }))
        strictEqual(
          error.message,
          `listen on none.test:80: address not available (EADDRNOTAVAIL)${remedies.notOurs}`
        )
      }),
    withNames({ "some.test": ["203.0.113.1", "127.0.0.1"], "none.test": ["203.0.113.1", "203.0.113.2"] })
  )

  live("S-034: two servers share a port with reusePort", () =>
    Effect.gen(function* () {
      const one = yield* serve(local.listen, { reusePort: true })
      const two = yield* serve({ host: "127.0.0.1", port: portOf(one.addresses[0]) }, { reusePort: true })
      deepStrictEqual(one.addresses.map(String), two.addresses.map(String))
      strictEqual(yield* ask(one.addresses[0]), "hello\n")
    })
  )

  live("S-035: a port can be bound again at once, though connections of it linger", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const server = yield* Scope.provide(
        Server.serve(({ writer }) => writer.end, local),
        scope
      )
      // The server ends first, so the lingering state is on its side.
      yield* Connection.use(server.addresses[0], ({ reader }) => reader.readAll())
      yield* Scope.close(scope, Exit.void)
      yield* serve({ host: "127.0.0.1", port: portOf(server.addresses[0]) })
    })
  )

  it.live.skipIf(process.platform !== "linux")(
    "S-036: keepAlive is set on accepted and connected sockets",
    () =>
      Effect.gen(function* () {
        const server = yield* Server.serve(({ reader }) => reader.read(), { ...local, keepAlive: "1 minute" })
        const port = portOf(server.addresses[0])
        const plain = yield* Connection.connect(server.addresses[0])
        const kept = yield* Connection.connect(server.addresses[0], { keepAlive: true })
        yield* loops(5)
        strictEqual(timerOf(port, plain), "keepalive")
        strictEqual(timerOf(portOf(plain.info.localAddress), undefined), "none")
        strictEqual(timerOf(portOf(kept.info.localAddress), undefined), "keepalive")
        yield* plain.writer.write("x")
        yield* kept.writer.write("x")
      }).pipe(Effect.scoped, leavingNothing, Effect.provide(NodeNetwork.layer))
  )

  live("S-037: 100 connections at once are all accepted", () =>
    Effect.gen(function* () {
      const server = yield* serve(local.listen, { backlog: 100 })
      const replies = yield* Effect.forEach(Array.from({ length: 100 }), () => ask(server.addresses[0]), {
        concurrency: "unbounded"
      })
      deepStrictEqual(new Set(replies), new Set(["hello\n"]))
    })
  )

  live("S-039: a client that resets before it is served harms nobody", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const server = yield* Server.serve(echo, {
        ...local,
        onError: (cause) => Effect.sync(() => seen.push(outcome(Exit.failCause(cause))))
      })
      const options = { host: "127.0.0.1", port: portOf(server.addresses[0]) }
      const peer = yield* rawConnect(options)
      peer.resetAndDestroy()
      strictEqual(yield* ask(server.addresses[0]), "hello\n")
      yield* loops(20)
      strictEqual(yield* server.activeConnections, 0)
      assertTrue(seen.every((_) => _ === "ConnectionReset"))
    })
  )

  live("S-040, S-016: the bound addresses, known also when nobody listens any more", () =>
    Effect.gen(function* () {
      const server = yield* serve(local.listen)
      const address = String(server.addresses[0])
      assertTrue(/^127\.0\.0\.1:[1-9]\d+$/.test(address))
      yield* server.shutdown()
      strictEqual(String(server.addresses[0]), address)
      strictEqual(yield* outcomeOf(Effect.scoped(Connection.connect(address))), "ConnectionRefused")
    })
  )

  live("S-041: a socket file that was left behind is replaced", () =>
    Effect.gen(function* () {
      const file = path.join(yield* tempDirectory, "s")
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* rawServer({ path: `${file}.live` })
          fs.linkSync(`${file}.live`, file)
        })
      )
      yield* loops(5)
      assertTrue(fs.lstatSync(file).isSocket())
      const server = yield* serve({ path: file })
      strictEqual(yield* ask(server.addresses[0]), "hello\n")
    })
  )

  live("S-042: a plain file at the path stays, and is in use", () =>
    Effect.gen(function* () {
      const file = path.join(yield* tempDirectory, "s")
      fs.writeFileSync(file, "mine")
      const error = yield* Effect.flip(serve({ path: file }))
      strictEqual(
        error.message,
        `listen on ${file}: address already in use (EADDRINUSE)${remedies.pathInUse}`
      )
      strictEqual(fs.readFileSync(file, "utf8"), "mine")
    })
  )

  live("S-043: the file is removed with the server", () =>
    Effect.gen(function* () {
      const file = path.join(yield* tempDirectory, "s")
      const server = yield* serve({ path: file })
      assertTrue(fs.existsSync(file))
      yield* server.shutdown()
      strictEqual(fs.existsSync(file), false)
    })
  )

  live("S-044: a file that is gone or another's is left alone", () =>
    Effect.gen(function* () {
      const file = path.join(yield* tempDirectory, "s")
      const gone = yield* serve({ path: file })
      fs.unlinkSync(file)
      yield* gone.shutdown()
      const replaced = yield* serve({ path: file })
      fs.unlinkSync(file)
      yield* serve({ path: file })
      yield* replaced.shutdown()
      strictEqual(yield* ask({ path: file }), "hello\n")
    })
  )

  live("S-046: a path that a live server holds is in use, and the server stays", () =>
    Effect.gen(function* () {
      const file = path.join(yield* tempDirectory, "s")
      yield* serve({ path: file }, { onError: () => Effect.void })
      const error = yield* Effect.flip(serve({ path: file }))
      strictEqual(
        error.message,
        `listen on ${file}: address already in use (EADDRINUSE)${remedies.pathInUse}`
      )
      strictEqual(yield* ask({ path: file }), "hello\n")
    })
  )

  live("S-047: an empty path", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(serve({ path: "" }))
      strictEqual(error.reason._tag, "InvalidAddress")
    })
  )

  it.effect(
    "a handler finishes its request within the grace of the scope's end, then the rest is reset",
    () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const server = yield* Scope.provide(
          Server.serve(
            ({ reader, writer }) =>
              Effect.flatMap(reader.readLineString, (line) =>
                Option.getOrNull(line) === "slow"
                  ? Effect.never
                  : Effect.delay(writer.write("done"), "4 seconds")
              ),
            local
          ),
          scope
        )
        const options = { host: "127.0.0.1", port: portOf(server.addresses[0]) }
        const quick = yield* rawConnect(options)
        const slow = yield* rawConnect(options)
        quick.write("quick\n")
        slow.write("slow\n")
        // Both handlers have had their line.
        for (let n = 0; (yield* server.activeConnections) < 2 && n < 100; n++) yield* loops(1)
        yield* loops(10)
        const closing = yield* start(Scope.close(scope, Exit.void))
        const reply = yield* start(readToEnd(quick))
        yield* TestClock.adjust("4 seconds")
        strictEqual((yield* Fiber.join(reply.fiber)).toString(), "done")
        quick.end()
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(closing.fiber)
        strictEqual(codeOf(yield* Effect.flip(readToEnd(slow))), "ECONNRESET")
      }).pipe(Effect.scoped, leavingNothing, Effect.provide(NodeNetwork.layer))
  )

  live("interruptOnDisconnect notices a reset without reading", () =>
    Effect.gen(function* () {
      const opened = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<string>()
      const server = yield* Server.serve(
        ({ info }) =>
          Effect.andThen(Deferred.succeed(opened, undefined), Effect.never).pipe(
            Effect.onInterrupt(() => Deferred.succeed(interrupted, info.transport))
          ),
        { ...local, interruptOnDisconnect: true }
      )
      const peer = yield* rawConnect({ host: "127.0.0.1", port: portOf(server.addresses[0]) })
      yield* Deferred.await(opened)
      peer.resetAndDestroy()
      strictEqual(yield* Deferred.await(interrupted), "tcp")
    })
  )

  live("interruptOnDisconnect notices a reset after the client's end by a write", () =>
    Effect.gen(function* () {
      const ended = yield* Deferred.make<void>()
      const reset = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<string>()
      const server = yield* Server.serve(
        ({ info, reader, writer }) =>
          Effect.gen(function* () {
            yield* reader.readAll()
            yield* Deferred.succeed(ended, undefined)
            yield* Deferred.await(reset)
            yield* Effect.ignore(writer.write("are you there?"))
            yield* Effect.never
          }).pipe(Effect.onInterrupt(() => Deferred.succeed(interrupted, info.transport))),
        { ...local, interruptOnDisconnect: true }
      )
      const peer = yield* rawConnect({ host: "127.0.0.1", port: portOf(server.addresses[0]) })
      peer.end()
      yield* Deferred.await(ended)
      peer.resetAndDestroy()
      yield* loops(10)
      yield* Deferred.succeed(reset, undefined)
      strictEqual(yield* Deferred.await(interrupted), "tcp")
    })
  )
})

const codeOf = (error: unknown): unknown =>
  typeof error === "object" && error !== null && "code" in error ? error.code : undefined

/** The kernel's timer of an established IPv4 connection: by its local port, and its peer. */
const timerOf = (port: number, peer: Connection.Connection | undefined): string => {
  const hex = (n: number) => n.toString(16).toUpperCase().padStart(4, "0")
  for (const line of fs.readFileSync("/proc/net/tcp", "utf8").split("\n").slice(1)) {
    const [, localAddress, remoteAddress, state, , timer] = line.trim().split(/\s+/)
    const isPeer = peer === undefined || remoteAddress?.endsWith(`:${hex(portOf(peer.info.localAddress))}`)
    if (state === "01" && isPeer && localAddress?.endsWith(`:${hex(port)}`)) {
      return timer?.startsWith("02:") ? "keepalive" : "none"
    }
  }
  return "no such connection"
}
