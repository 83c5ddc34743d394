import { it } from "@effect/vitest"
import { assertInstanceOf, assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import {
  Cause,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  References,
  Scope,
  Stream
} from "effect"
import { Connection, MemoryTransport, Network, Server, StreamError } from "effect-wire"
import { TestNetwork } from "effect-wire/testing"
import type { Transport } from "effect-wire/Transport"
import { NetAddress } from "effect/net"
import { TestClock } from "effect/testing"
import { describe } from "vitest"
import { outcome, outcomeOf, start, turns, withSleepers } from "./support/effects.ts"
import { remedies } from "./support/remedies.ts"

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)

/** A test on the simulated network. */
const test = (name: string, body: () => Effect.Effect<void, unknown, Network.Network | Scope.Scope>) =>
  it.effect(name, () => Effect.scoped(Effect.suspend(body)).pipe(Effect.provide(TestNetwork.layer)))

// For fibers that yield at every few operations.
const manyTurns = Effect.repeat(turns, { times: 10 })

const local = { listen: { host: "127.0.0.1", port: 0 } }

/** A client that is aborted at the end of the test. */
const dial = (server: Server.Server, listener = 0) =>
  Effect.tap(Connection.connect(server.addresses[listener] ?? server.addresses[0]), (connection) =>
    Effect.addFinalizer(() => connection.abort)
  )

/** A server in a scope of its own. */
const detached = Effect.fnUntraced(function* <E, R>(
  handler: Server.Handler<E, R>,
  options?: Partial<Server.Options<E>>
) {
  const scope = yield* Scope.make()
  const server = yield* Scope.provide(Server.serve(handler, { ...local, ...options }), scope)
  return { scope, server }
})

const echoLine = ({ reader, writer }: Connection.Connection) =>
  Effect.flatMap(reader.readLine, (line) => writer.write(line))

/** Echoes every line, until the end of the input. */
const echo = ({ reader, writer }: Connection.Connection) =>
  Stream.runForEach(reader.lines, (line) => writer.write(`${line}\n`))

const request = ({ reader, writer }: Connection.Connection, line: string) =>
  Effect.andThen(writer.write(`${line}\n`), reader.readLineString)

/** What `onError` was told, in words, with the peer's address. */
const errors = () => {
  const seen: Array<string> = []
  const onError = (cause: Cause.Cause<unknown>, info: Connection.ConnectionInfo) =>
    Effect.sync(() => {
      seen.push(`${String(info.remoteAddress)}: ${outcome(Exit.failCause(cause))}`)
    })
  return { seen, onError }
}

/** Writes down a server's events from now on. */
const follow = Effect.fnUntraced(function* (server: Server.Server) {
  const events: Array<Server.ServerEvent> = []
  const run = yield* start(
    Stream.runForEach(server.events, (event) =>
      Effect.sync(() => {
        events.push(event)
      })
    )
  )
  return { events, run, tags: () => events.map((_) => _._tag).join(" ") }
})

const refused = (server: Server.Server) => outcomeOf(Effect.scoped(Connection.connect(server.addresses[0])))

/** A network whose one listener does what the test says. */
const scripted = (accept: Effect.Effect<Transport, StreamError.ListenError>) =>
  Layer.succeed(
    Network.Network,
    Network.Network.of({
      connect: () => Effect.die(new Error("not used")),
      listen: () =>
        Effect.succeed({
          address: NetAddress.inetAddressUnsafe(NetAddress.ipv4Loopback, 7000),
          accept,
          close: Effect.void
        })
    })
  )

describe("S: handlers", () => {
  test("S-001: a handler echoes a line and is closed at its end; nothing is reported", () =>
    Effect.gen(function* () {
      const { onError, seen } = errors()
      const { scope, server } = yield* detached(echoLine, { onError })
      const client = yield* dial(server)
      yield* client.writer.write("hello world!\n")
      strictEqual(text(yield* client.reader.readAll()), "hello world!\n")
      yield* client.close
      yield* Scope.close(scope, Exit.void)
      yield* server.closed
      deepStrictEqual(seen, [])
    }))

  test("S-002: a handler that does its work in a fiber of its own", () =>
    Effect.gen(function* () {
      const { onError, seen } = errors()
      const server = yield* Server.serve(
        (connection) => Effect.flatMap(Effect.forkChild(echoLine(connection)), Fiber.join),
        { ...local, onError }
      )
      const client = yield* dial(server)
      strictEqual(yield* Effect.map(request(client, "hello world!"), Option.getOrNull), "hello world!")
      strictEqual(text(yield* client.reader.readAll()), "")
      deepStrictEqual(seen, [])
    }))

  test("S-003: both over Unix sockets", () =>
    Effect.gen(function* () {
      const inFiber = (connection: Connection.Connection) =>
        Effect.flatMap(Effect.forkChild(echoLine(connection)), Fiber.join)
      for (const handler of [echoLine, inFiber]) {
        const { scope, server } = yield* detached(handler, { listen: { path: "/run/echo" } })
        strictEqual(String(server.addresses[0]), "/run/echo")
        const client = yield* dial(server)
        strictEqual(yield* Effect.map(request(client, "hello"), Option.getOrNull), "hello")
        yield* client.close
        yield* Scope.close(scope, Exit.void)
      }
    }))

  test("S-004: a handler that fails or dies is reported, and its connection is reset", () =>
    Effect.gen(function* () {
      const { onError, seen } = errors()
      const results: ReadonlyArray<Effect.Effect<void, string>> = [
        Effect.fail("oops"),
        Effect.die(new Error("bug")),
        Effect.sync(() => {
          throw new Error("thrown")
        })
      ]
      const next = results[Symbol.iterator]()
      const server = yield* Server.serve(() => next.next().value ?? Effect.void, { ...local, onError })
      const peers: Array<string> = []
      for (const _ of results) {
        const client = yield* dial(server)
        peers.push(String(client.info.localAddress))
        strictEqual(yield* outcomeOf(client.reader.read()), "ConnectionReset")
      }
      deepStrictEqual(
        seen,
        ["oops", "defect Error: bug", "defect Error: thrown"].map((what, n) => `${peers[n]}: ${what}`)
      )
      yield* turns
      strictEqual(yield* server.activeConnections, 0)
      strictEqual(yield* outcomeOf(Effect.flatMap(dial(server), (_) => _.reader.read())), "success")
    }))

  test("S-004: without onError, a failure is an error in the log, with the peer's address", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.make<unknown, void>(({ cause, fiber, logLevel, message }) => {
        const { peer } = fiber.getRef(References.CurrentLogAnnotations)
        lines.push(`${logLevel} ${String(message)} ${String(peer)} ${String(Cause.squash(cause))}`)
      })
      const server = yield* Effect.provide(
        Server.serve(() => Effect.fail("oops"), local),
        Logger.layer([logger])
      )
      const client = yield* dial(server)
      yield* outcomeOf(client.reader.read())
      yield* turns
      deepStrictEqual(lines, [`Error connection handler failed ${String(client.info.localAddress)} oops`])
    }))

  test("S-005: a handler that interrupts itself resets its connection, and nothing is reported", () =>
    Effect.gen(function* () {
      const { onError, seen } = errors()
      const server = yield* Server.serve(() => Effect.interrupt, { ...local, onError })
      const client = yield* dial(server)
      strictEqual(yield* outcomeOf(client.reader.read()), "ConnectionReset")
      strictEqual(yield* server.activeConnections, 0)
      deepStrictEqual(seen, [])
    }))

  test("S-006: what a handler wrote before it returned arrives, then the end", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(({ writer }) => writer.write("bye"), local)
      const client = yield* dial(server)
      strictEqual(text(yield* client.reader.readAll()), "bye")
    }))

  test("S-007: a handler function that throws is reported, and its connection is reset", () =>
    Effect.gen(function* () {
      const { onError, seen } = errors()
      const server = yield* Server.serve(
        (): Effect.Effect<void> => {
          throw new Error("not even an effect")
        },
        { ...local, onError }
      )
      const client = yield* dial(server)
      strictEqual(yield* outcomeOf(client.reader.read()), "ConnectionReset")
      deepStrictEqual(seen, [`${String(client.info.localAddress)}: defect Error: not even an effect`])
      const report = yield* server.shutdown({ grace: 0 })
      deepStrictEqual(report, { finished: 0, interrupted: 0, aborted: 0 })
    }))

  test("an onError that dies or throws harms nobody, and is logged", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.make<unknown, void>(({ cause, message }) => {
        lines.push(`${String(message)}: ${String(Cause.squash(cause))}`)
      })
      let n = 0
      const onError = (): Effect.Effect<void> => {
        if (n++ === 0) return Effect.die(new Error("onError died"))
        throw new Error("onError threw")
      }
      const server = yield* Effect.provide(
        Server.serve(() => Effect.fail("oops"), { ...local, onError }),
        Logger.layer([logger])
      )
      const { events } = yield* follow(server)
      for (let i = 0; i < 2; i++) {
        strictEqual(yield* outcomeOf(Effect.flatMap(dial(server), (_) => _.reader.read())), "ConnectionReset")
      }
      yield* turns
      deepStrictEqual(lines, [
        "onError of a connection failed: Error: onError died",
        "onError of a connection failed: Error: onError threw"
      ])
      strictEqual(events.filter((_) => _._tag === "Closed").length, 2)
      strictEqual(yield* server.activeConnections, 0)
    }))

  test("a handler and onError use the services that are there where the server is made", () =>
    Effect.gen(function* () {
      const Greeting = Context.Service<string>("test/Greeting")
      const seen: Array<string> = []
      const server = yield* Server.serve(
        ({ reader, writer }) =>
          Effect.gen(function* () {
            yield* writer.write(yield* Greeting)
            yield* reader.readLine
            return yield* Effect.fail("oops")
          }),
        { ...local, onError: () => Effect.map(Greeting, (greeting) => void seen.push(greeting)) }
      ).pipe(Effect.provideService(Greeting, "hello"))
      const client = yield* dial(server)
      strictEqual(text(yield* client.reader.read()), "hello")
      yield* client.writer.write("\n")
      yield* turns
      deepStrictEqual(seen, ["hello"])
    }))

  test("X-029: fibers and finalizers of the handler's scope end with the handler, before the close", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const server = yield* Server.serve(
        (connection) =>
          Effect.gen(function* () {
            yield* Effect.addFinalizer(() =>
              Effect.map(connection.writer.isClosing, (isClosing) => void seen.push(`closing ${isClosing}`))
            )
            yield* Effect.forkScoped(
              Effect.onInterrupt(Effect.never, () => Effect.sync(() => void seen.push("interrupted"))),
              { startImmediately: true }
            )
          }),
        local
      )
      const client = yield* dial(server)
      strictEqual(text(yield* client.reader.readAll()), "")
      deepStrictEqual(seen, ["interrupted", "closing false"])
    }))

  test("X-029: a child fiber of the handler ends with it", () =>
    Effect.gen(function* () {
      let interrupted = false
      const server = yield* Server.serve(
        () =>
          Effect.forkChild(
            Effect.onInterrupt(Effect.never, () => Effect.sync(() => (interrupted = true))),
            { startImmediately: true }
          ),
        local
      )
      const client = yield* dial(server)
      yield* client.reader.readAll()
      yield* client.close
      yield* turns
      assertTrue(interrupted)
    }))

  test("X-020: a handler that is interrupted in a read resets its connection", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(({ reader }) => reader.read(), local)
      const client = yield* dial(server)
      yield* turns
      const report = yield* server.shutdown({ grace: 0 })
      deepStrictEqual(report, { finished: 0, interrupted: 1, aborted: 0 })
      strictEqual(yield* outcomeOf(client.reader.read()), "ConnectionReset")
    }))

  test("S-049: every accepted reader has the server's limit, and the other options", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(
        ({ reader, writer }) =>
          Effect.gen(function* () {
            yield* writer.write(`${reader.limit} ${writer.watermarks.high} ${writer.watermarks.low}\n`)
            yield* writer.write(`${yield* outcomeOf(reader.readLine)}\n`)
          }),
        { ...local, limit: 4096, watermarks: { high: 100 }, readTimeout: "1 second" }
      )
      for (let i = 0; i < 2; i++) {
        const client = yield* dial(server)
        strictEqual(yield* Effect.map(client.reader.readLineString, Option.getOrNull), "4096 100 25")
        const rest = yield* start(client.reader.readAll())
        yield* turns
        yield* TestClock.adjust("1 second")
        strictEqual(text(yield* Fiber.join(rest.fiber)), "TimeoutError read\n")
      }
    }))

  test("S-050: a slow handler does not stop the others", () =>
    Effect.gen(function* () {
      let first = true
      const server = yield* Server.serve(
        (connection) => {
          if (!first) return echoLine(connection)
          first = false
          return Effect.never
        },
        { ...local, grace: 0 }
      )
      yield* dial(server)
      const client = yield* dial(server)
      strictEqual(yield* Effect.map(request(client, "hello"), Option.getOrNull), "hello")
    }))

  test("S-023: a connection that is accepted as the server ends is served or reset, never left over", () =>
    Effect.gen(function* () {
      const outcomes = new Set<string>()
      for (const operations of [2048, 10, 11, 12, 13, 14]) {
        for (let delay = 0; delay < 15; delay++) {
          const { scope, server } = yield* Effect.provideService(
            detached(({ writer }) => writer.write("hi"), { grace: 0 }),
            References.MaxOpsBeforeYield,
            operations
          )
          const client = yield* dial(server)
          for (let i = 0; i < delay; i++) yield* Effect.yieldNow
          const closing = yield* start(Scope.close(scope, Exit.void))
          yield* manyTurns
          yield* TestClock.adjust(0)
          const end = yield* start(client.reader.readAll())
          yield* manyTurns
          outcomes.add(outcome(end))
          strictEqual(outcome(closing), "success", `${operations} operations, delay ${delay}`)
          yield* client.abort
        }
      }
      deepStrictEqual([...outcomes].sort(), ["ConnectionReset", "success"])
    }))

  it.effect("S-023: what was accepted when the server ends is never lost, wherever the fiber yields", () =>
    Effect.gen(function* () {
      const ends = new Set<string>()
      for (let operations = 4; operations < 50; operations++) {
        for (let delay = 0; delay < 6; delay++) {
          const [left, right] = yield* MemoryTransport.makePair()
          let accepts = 0
          let handedOut = false
          const accept = Effect.suspend(() =>
            accepts++ > 0
              ? Effect.never
              : Effect.andThen(
                  Effect.yieldNow,
                  Effect.sync(() => {
                    handedOut = true
                    return right
                  })
                )
          )
          const { scope } = yield* detached(() => Effect.void, { grace: 0 }).pipe(
            Effect.provide(scripted(accept), { local: true }),
            Effect.provideService(References.MaxOpsBeforeYield, operations)
          )
          const peer = yield* Connection.make(left)
          yield* Effect.addFinalizer(() => peer.abort)
          for (let i = 0; i < delay; i++) yield* Effect.yieldNow
          yield* start(Scope.close(scope, Exit.void))
          yield* manyTurns
          yield* TestClock.adjust(0)
          const end = yield* start(peer.reader.read())
          yield* manyTurns
          const what = `${handedOut ? "accepted" : "not accepted"}, ${outcome(end)}`
          ends.add(what)
          if (what === "accepted, waiting")
            throw new Error(`lost with ${operations} operations, delay ${delay}`)
          yield* end.interrupt
        }
      }
      assertTrue(ends.has("accepted, success"))
    })
  )
})

describe("S: limits", () => {
  test("S-050: more than maxConnections wait until one ends, on all listeners together", () =>
    Effect.gen(function* () {
      const served: Array<string> = []
      const server = yield* Server.serve(
        (connection) =>
          Effect.andThen(
            Effect.sync(() => served.push(String(connection.info.localAddress))),
            echo(connection)
          ),
        {
          listen: [
            { host: "127.0.0.1", port: 7000 },
            { host: "127.0.0.2", port: 7000 }
          ],
          maxConnections: 1
        }
      )
      const first = yield* dial(server, 0)
      strictEqual(yield* Effect.map(request(first, "one"), Option.getOrNull), "one")
      const second = yield* dial(server, 1)
      const third = yield* dial(server, 0)
      const answers = yield* Effect.all([start(request(second, "two")), start(request(third, "three"))])
      yield* turns
      deepStrictEqual(answers.map(outcome), ["waiting", "waiting"])
      strictEqual(yield* server.activeConnections, 1)
      yield* first.close
      yield* turns
      deepStrictEqual(answers.map(outcome), ["success", "waiting"])
      yield* second.close
      yield* turns
      deepStrictEqual(answers.map(outcome), ["success", "success"])
      deepStrictEqual(served, ["127.0.0.1:7000", "127.0.0.2:7000", "127.0.0.1:7000"])
      yield* third.close
    }))

  test("a slot is given back whichever way a connection ends", () =>
    Effect.gen(function* () {
      const ways: ReadonlyArray<(connection: Connection.Connection) => Effect.Effect<unknown, unknown>> = [
        () => Effect.void,
        () => Effect.fail("oops"),
        () => Effect.die("bug"),
        () => Effect.interrupt,
        () => {
          throw new Error("thrown")
        },
        (_) => _.abort,
        (_) => _.close,
        (_) => _.reader.read()
      ]
      const next = ways[Symbol.iterator]()
      const server = yield* Server.serve(
        (connection) => {
          const { value } = next.next()
          return Effect.andThen(
            connection.writer.write("."),
            value === undefined ? Effect.void : value(connection)
          )
        },
        { ...local, maxConnections: 1, onError: () => Effect.void }
      )
      for (let n = 0; n < ways.length; n++) {
        const client = yield* dial(server)
        const opened = yield* start(Effect.exit(client.reader.read()))
        yield* turns
        strictEqual(outcome(opened), "success", String(ways[n]))
        yield* client.abort
        yield* turns
        strictEqual(yield* server.activeConnections, 0, String(ways[n]))
      }
      const last = yield* dial(server)
      strictEqual(text(yield* last.reader.readAll()), ".")
    }))

  test("a connection that waits for a slot when the server shuts down is reset, and not counted", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(() => Effect.never, { ...local, maxConnections: 1 })
      yield* dial(server)
      const waiting = yield* dial(server)
      yield* turns
      deepStrictEqual(yield* server.shutdown({ grace: 0 }), { finished: 0, interrupted: 1, aborted: 0 })
      strictEqual(yield* outcomeOf(waiting.reader.read()), "ConnectionReset")
    }))

  test("options out of range are RangeErrors of serve, and nothing listens", () =>
    Effect.gen(function* () {
      const listen = { host: "127.0.0.1", port: 7000 }
      const bad: ReadonlyArray<readonly [Partial<Server.Options>, string]> = [
        [{ maxConnections: 0 }, "maxConnections must be a positive integer, received 0"],
        [{ maxConnections: 1.5 }, "maxConnections must be a positive integer, received 1.5"],
        [{ maxConnections: NaN }, "maxConnections must be a positive integer, received NaN"],
        [{ limit: 0 }, "limit must be a positive integer (bytes), received 0"],
        [{ watermarks: { high: 1, low: 2 } }, "the low watermark (2) must not be above the high one (1)"],
        [{ readTimeout: 0 }, "readTimeout must be a positive duration, received 0 ms"],
        [{ grace: -1 }, "grace must not be negative, received -1 ms"],
        [{ listen: [] }, "listen must name at least one address"]
      ]
      for (const [options, message] of bad) {
        const exit = yield* Effect.exit(Server.serve(() => Effect.void, { listen, ...options }))
        const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        assertInstanceOf(defect, RangeError)
        strictEqual(defect.message, message)
      }
      yield* Server.serve(() => Effect.void, { listen })
    }))
})

describe("S: shutting down", () => {
  test("S-011: Server.run serves until it is interrupted, and stops listening then", () =>
    Effect.gen(function* () {
      const run = yield* start(Server.run(echoLine, { listen: { port: 7000 } }))
      strictEqual(
        yield* Effect.map(
          Connection.use("127.0.0.1:7000", (_) => request(_, "hello")),
          Option.getOrNull
        ),
        "hello"
      )
      yield* turns
      strictEqual(outcome(run), "waiting")
      yield* run.interrupt
      strictEqual(outcome(run), "interrupted")
      strictEqual(yield* outcomeOf(Effect.scoped(Connection.connect("127.0.0.1:7000"))), "ConnectionRefused")
    }))

  test("S-012: Server.run that is interrupted because of a client ends, and the interruption goes on", () =>
    Effect.gen(function* () {
      const stop = yield* Deferred.make<void>()
      const run = yield* start(
        Effect.raceFirst(
          Effect.as(Deferred.await(stop), "stopped"),
          Server.run(() => Deferred.succeed(stop, undefined), { listen: { port: 7000 } })
        )
      )
      yield* Effect.scoped(Effect.flatMap(Connection.connect("127.0.0.1:7000"), (_) => _.reader.readAll()))
      strictEqual(yield* Fiber.join(run.fiber), "stopped")
      strictEqual(yield* outcomeOf(Effect.scoped(Connection.connect("127.0.0.1:7000"))), "ConnectionRefused")
    }))

  test("S-013, S-015, S-024: shutting down twice, and ending the scope after it, does nothing more", () =>
    Effect.gen(function* () {
      const { scope, server } = yield* detached(() => Effect.void)
      const none = { finished: 0, interrupted: 0, aborted: 0 }
      deepStrictEqual(yield* server.shutdown(), none)
      deepStrictEqual(yield* server.shutdown(), none)
      yield* Scope.close(scope, Exit.void)
      deepStrictEqual(yield* server.shutdown({ grace: "1 hour" }), none)
      yield* server.closed
    }))

  test("S-016, S-040: after a shutdown connects are refused; the addresses are still known", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(() => Effect.void, local)
      const before = server.addresses.map(String)
      yield* server.shutdown()
      strictEqual(yield* refused(server), "ConnectionRefused")
      deepStrictEqual(server.addresses.map(String), before)
      strictEqual(yield* server.activeConnections, 0)
    }))

  test("S-017: within the grace, an established connection still echoes; a new one is refused", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, local)
      const client = yield* dial(server)
      yield* turns
      const shutdown = yield* start(server.shutdown({ grace: "1 minute" }))
      yield* TestClock.adjust("59 seconds")
      strictEqual(yield* refused(server), "ConnectionRefused")
      strictEqual(yield* Effect.map(request(client, "hello"), Option.getOrNull), "hello")
      strictEqual(outcome(shutdown), "waiting")
      yield* client.close
      deepStrictEqual(yield* Fiber.join(shutdown.fiber), { finished: 1, interrupted: 0, aborted: 0 })
    }))

  test("draining: handlers finish what they are at and say goodbye; idle ones at once", () =>
    Effect.gen(function* () {
      const handler = Effect.fnUntraced(function* ({ reader, writer }: Connection.Connection) {
        const next = Effect.raceFirst(
          reader.readLineString,
          Effect.as(Server.draining, Option.none<string>())
        )
        for (let line = yield* next; Option.isSome(line); line = yield* next) {
          yield* Effect.sleep("2 seconds")
          yield* writer.write(`${line.value} ${yield* Server.isDraining}\n`)
        }
        yield* writer.write("goodbye\n")
      })
      const { server } = yield* detached(handler)
      const [idle, busy] = [yield* dial(server), yield* dial(server)]
      const answers = yield* start(Stream.runCollect(busy.reader.lines))
      yield* busy.writer.write("one\ntwo\n")
      yield* TestClock.adjust("3 seconds")

      const shutdown = yield* start(server.shutdown({ grace: "1 hour" }))
      deepStrictEqual(yield* Stream.runCollect(idle.reader.lines), ["goodbye"])
      yield* idle.close
      strictEqual(outcome(answers), "waiting")
      yield* TestClock.adjust("1 second")
      deepStrictEqual(yield* Fiber.join(answers.fiber), ["one false", "two true", "goodbye"])
      yield* busy.close
      deepStrictEqual(yield* Fiber.join(shutdown.fiber), { finished: 2, interrupted: 0, aborted: 0 })
    }))

  test("draining: whoever asks again, asks late, asks from a fiber of the handler, or has asked before", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const note = (what: string) => Effect.sync(() => seen.push(what))
      const { scope, server } = yield* detached(() =>
        Effect.gen(function* () {
          // Whoever gives up waiting is not told.
          yield* Effect.raceFirst(Effect.yieldNow, Effect.andThen(Server.draining, note("given up")))
          yield* Effect.forkScoped(Effect.andThen(Server.draining, note("fiber")), { startImmediately: true })
          yield* Effect.all([Server.draining, Server.draining], { concurrency: 2 })
          yield* note("both")
          yield* Server.draining
          yield* note(`late ${yield* Server.isDraining}`)
        })
      )
      const client = yield* dial(server)
      yield* turns
      deepStrictEqual(seen, [])
      // The end of the scope is a shutdown as well.
      const ending = yield* start(Scope.close(scope, Exit.void))
      yield* turns
      yield* client.close
      yield* Fiber.join(ending.fiber)
      deepStrictEqual(seen.sort(), ["both", "fiber", "late true"])
    }))

  test("draining: is the server's that the handler runs in, and of no server it never comes", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const inner = yield* Deferred.make<Server.Server>()
      const watching = (name: string) =>
        Effect.andThen(
          Server.draining,
          Effect.sync(() => seen.push(name))
        )
      const outer = yield* detached(() =>
        Effect.gen(function* () {
          const server = yield* Server.serve(() => watching("inner"), local)
          yield* Deferred.succeed(inner, server)
          yield* watching("outer")
        })
      )
      const outside = yield* start(watching("outside"))
      const first = yield* dial(outer.server)
      const innerServer = yield* Deferred.await(inner)
      const second = yield* dial(innerServer)
      yield* turns
      yield* start(innerServer.shutdown())
      yield* turns
      deepStrictEqual(seen, ["inner"])
      yield* start(outer.server.shutdown())
      yield* turns
      deepStrictEqual(seen, ["inner", "outer"])
      deepStrictEqual([outcome(outside), yield* Server.isDraining], ["waiting", false])
      yield* second.close
      yield* first.close
      yield* outer.server.closed
    }))

  test("S-018: closed waits for a shutdown, also without a client", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(() => Effect.void, local)
      const closed = yield* start(server.closed)
      yield* TestClock.adjust("1 hour")
      strictEqual(outcome(closed), "waiting")
      yield* server.shutdown()
      yield* turns
      strictEqual(outcome(closed), "success")
    }))

  test("S-019: closed waits for the clients, whoever waits, and returns at once afterwards", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, local)
      const client = yield* dial(server)
      const waiting = yield* Effect.all([start(server.closed), start(server.closed)])
      yield* turns
      deepStrictEqual(waiting.map(outcome), ["waiting", "waiting"])
      const shutdown = yield* start(server.shutdown())
      yield* turns
      deepStrictEqual(waiting.map(outcome), ["waiting", "waiting"])
      yield* client.close
      yield* turns
      deepStrictEqual(waiting.map(outcome), ["success", "success"])
      strictEqual(outcome(shutdown), "success")
      yield* server.closed
    }))

  test("S-020: a shutdown and the last client's end in one turn, in either order", () =>
    Effect.gen(function* () {
      for (const clientFirst of [true, false]) {
        const server = yield* Server.serve(echo, local)
        const client = yield* dial(server)
        yield* turns
        if (clientFirst) yield* start(client.close)
        const shutdown = yield* start(server.shutdown())
        if (!clientFirst) yield* start(client.close)
        yield* turns
        strictEqual(outcome(shutdown), "success")
        deepStrictEqual(yield* Fiber.join(shutdown.fiber), { finished: 1, interrupted: 0, aborted: 0 })
      }
    }))

  test("S-021: when the grace is over, handlers are interrupted and clients see the end", () =>
    Effect.gen(function* () {
      const handlers: Array<string> = []
      const server = yield* Server.serve(
        ({ reader }) =>
          Effect.onExit(reader.read(), (exit) => Effect.sync(() => handlers.push(outcome(exit)))),
        local
      )
      const clients = yield* Effect.all([dial(server), dial(server)])
      yield* turns
      const shutdown = yield* start(server.shutdown({ grace: "1 second" }))
      yield* TestClock.adjust("999 millis")
      deepStrictEqual(handlers, [])
      yield* TestClock.adjust("1 millis")
      deepStrictEqual(yield* Fiber.join(shutdown.fiber), { finished: 0, interrupted: 2, aborted: 0 })
      deepStrictEqual(handlers, ["interrupted", "interrupted"])
      for (const client of clients) strictEqual(yield* outcomeOf(client.reader.read()), "ConnectionReset")
    }))

  test("S-022: a client that does not read holds its connection until the grace is over", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(({ writer }) => writer.write(new Uint8Array(1_000_000)), {
        ...local,
        watermarks: { high: 2_000_000 },
        closeTimeout: "1 minute"
      })
      yield* dial(server)
      yield* turns
      // Its handler has ended, and what it wrote is still on its way.
      strictEqual(yield* server.activeConnections, 1)
      const shutdown = yield* start(server.shutdown({ grace: "2 seconds" }))
      yield* TestClock.adjust("2 seconds")
      deepStrictEqual(yield* Fiber.join(shutdown.fiber), { finished: 0, interrupted: 0, aborted: 1 })
    }))

  test("the report counts each connection once, by what became of it", () =>
    Effect.gen(function* () {
      let n = 0
      const finish = yield* Deferred.make<void>()
      const server = yield* Server.serve(
        ({ reader, writer }): Effect.Effect<unknown, unknown> => {
          const which = n++
          if (which === 0) return Deferred.await(finish)
          if (which === 1) return Effect.andThen(Deferred.await(finish), Effect.fail("oops"))
          if (which === 2) return writer.write(new Uint8Array(1_000_000))
          if (which < 6) return reader.read()
          return Effect.void
        },
        { ...local, watermarks: { high: 2_000_000 }, closeTimeout: "1 hour", onError: () => Effect.void }
      )
      for (let i = 0; i < 6; i++) yield* dial(server)
      const gone = yield* dial(server)
      yield* gone.close
      yield* turns
      strictEqual(yield* server.activeConnections, 6)
      const shutdown = yield* start(server.shutdown())
      yield* TestClock.adjust("1 second")
      yield* Deferred.succeed(finish, undefined)
      yield* turns
      // The first one closes gracefully, and its client does not answer: it is cut off with the rest.
      strictEqual(yield* server.activeConnections, 5)
      yield* TestClock.adjust("4 seconds")
      deepStrictEqual(yield* Fiber.join(shutdown.fiber), { finished: 1, interrupted: 3, aborted: 2 })
    }))

  test("by default a handler has 5 seconds to finish when the scope ends", () =>
    Effect.gen(function* () {
      for (const [work, result] of [
        [4999, "done"],
        [5001, "ConnectionReset"]
      ] as const) {
        const { scope, server } = yield* detached(({ reader, writer }) =>
          Effect.andThen(reader.readLine, Effect.delay(writer.write("done"), work))
        )
        const client = yield* dial(server)
        yield* client.writer.write("request\n")
        yield* turns
        const closing = yield* start(Scope.close(scope, Exit.void))
        const reply = yield* start(
          Effect.matchEager(client.reader.readAll(), {
            onSuccess: text,
            onFailure: (_) => outcome(Exit.fail(_))
          })
        )
        yield* TestClock.adjust(work)
        strictEqual(yield* Fiber.join(reply.fiber), result)
        yield* client.close
        yield* Fiber.join(closing.fiber)
      }
    }))

  test("and when Server.run is interrupted", () =>
    Effect.gen(function* () {
      const run = yield* start(
        Server.run(
          ({ reader, writer }) =>
            Effect.andThen(reader.readLine, Effect.delay(writer.write("done"), "4 seconds")),
          { listen: { port: 7000 } }
        )
      )
      const client = yield* Connection.connect("localhost:7000")
      yield* client.writer.write("request\n")
      yield* turns
      const ending = yield* start(Fiber.interrupt(run.fiber))
      yield* TestClock.adjust("4 seconds")
      strictEqual(text(yield* client.reader.readAll()), "done")
      yield* client.close
      yield* Fiber.join(ending.fiber)
    }))

  test("X-019: Server.run that is interrupted with a client that stays ends after the grace", () =>
    Effect.gen(function* () {
      const run = yield* start(Server.run(() => Effect.never, { listen: { port: 7000 }, grace: "3 seconds" }))
      const client = yield* Connection.connect("localhost:7000")
      yield* turns
      const ending = yield* start(Fiber.interrupt(run.fiber))
      yield* turns
      strictEqual(yield* outcomeOf(Effect.scoped(Connection.connect("127.0.0.1:7000"))), "ConnectionRefused")
      yield* TestClock.adjust("2999 millis")
      strictEqual(outcome(ending), "waiting")
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(ending.fiber)
      strictEqual(yield* outcomeOf(client.closed), "ConnectionReset")
    }))

  test("with no grace, what can end at once does, the rest is interrupted", () =>
    Effect.gen(function* () {
      const { scope, server } = yield* detached(() => Effect.never, { grace: 0 })
      const client = yield* dial(server)
      yield* turns
      yield* Scope.close(scope, Exit.void)
      strictEqual(yield* outcomeOf(client.closed), "ConnectionReset")
      strictEqual(yield* server.activeConnections, 0)
    }))

  test("an endless grace waits for ever", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, local)
      const client = yield* dial(server)
      yield* turns
      const shutdown = yield* start(server.shutdown({ grace: Infinity }))
      yield* TestClock.adjust("1000 days")
      strictEqual(outcome(shutdown), "waiting")
      yield* client.close
      yield* turns
      strictEqual(outcome(shutdown), "success")
    }))

  test("a second shutdown with a shorter grace hurries the first", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(() => Effect.never, local)
      yield* dial(server)
      yield* turns
      const slow = yield* start(server.shutdown({ grace: "1 hour" }))
      yield* TestClock.adjust("1 minute")
      strictEqual(outcome(slow), "waiting")
      const report = { finished: 0, interrupted: 1, aborted: 0 }
      deepStrictEqual(yield* server.shutdown({ grace: 0 }), report)
      deepStrictEqual(yield* Fiber.join(slow.fiber), report)
    }))

  test("X-018: of two that wait for closed, one is interrupted, the other goes on", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(() => Effect.void, local)
      const one = yield* start(server.closed)
      const other = yield* start(server.closed)
      yield* one.interrupt
      yield* turns
      strictEqual(outcome(other), "waiting")
      yield* server.shutdown()
      yield* Fiber.join(other.fiber)
    }))

  test("a shutdown that is interrupted goes on without the one who asked", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, local)
      const client = yield* dial(server)
      yield* turns
      const { run, tags } = yield* follow(server)
      const shutdown = yield* start(server.shutdown({ grace: "1 hour" }))
      yield* shutdown.interrupt
      strictEqual(yield* refused(server), "ConnectionRefused")
      yield* client.close
      yield* turns
      yield* server.closed
      strictEqual(outcome(run), "success")
      strictEqual(tags(), "ShuttingDown Closed")
    }))

  test("a handler may shut its own server down", () =>
    Effect.gen(function* () {
      for (const grace of [0, 1000]) {
        const made = yield* Deferred.make<Server.Server>()
        const { server } = yield* detached(() =>
          Effect.flatMap(Deferred.await(made), (_) => _.shutdown({ grace }))
        )
        const others = [yield* dial(server)]
        yield* Deferred.succeed(made, server)
        others.push(yield* Effect.orElseSucceed(dial(server), () => others[0]!))
        yield* turns
        yield* TestClock.adjust(grace)
        yield* server.closed
        strictEqual(yield* server.activeConnections, 0)
        for (const client of others) strictEqual(yield* outcomeOf(client.closed), "ConnectionReset")
      }
    }))

  test("an uninterruptible handler in a read ends with the connection that is cut off", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const server = yield* Server.serve(
        ({ reader, writer }) =>
          Effect.uninterruptible(
            Effect.gen(function* () {
              seen.push(yield* outcomeOf(reader.read()), yield* outcomeOf(writer.write("x")))
            })
          ),
        local
      )
      yield* dial(server)
      yield* turns
      deepStrictEqual(yield* server.shutdown({ grace: 0 }), { finished: 0, interrupted: 1, aborted: 0 })
      deepStrictEqual(seen, ["ConnectionAborted", "ConnectionAborted"])
    }))

  test("a shutdown that is interrupted at any step of its beginning can be had again", () =>
    Effect.gen(function* () {
      // A fiber that has done much gives way to others at any step.
      for (const ops of [2, 3, 4, 5]) {
        for (let steps = 0; steps < 20; steps++) {
          const { server } = yield* detached(() => Effect.never)
          const first = yield* Effect.forkChild(
            Effect.provideService(server.shutdown(), References.MaxOpsBeforeYield, ops)
          )
          yield* Effect.replicateEffect(Effect.yieldNow, steps)
          yield* Fiber.interrupt(first)
          const second = yield* start(server.shutdown({ grace: 0 }))
          yield* turns
          strictEqual(outcome(second), "success", `after ${steps} steps of ${ops}`)
        }
      }
    }))

  test("a shutdown leaves no timer behind", () =>
    withSleepers((sleepers) =>
      Effect.gen(function* () {
        const server = yield* Server.serve(echo, {
          ...local,
          readTimeout: "1 minute",
          idleTimeout: "1 minute"
        })
        const client = yield* dial(server)
        yield* request(client, "hello")
        const shutdown = yield* start(server.shutdown({ grace: "1 hour" }))
        yield* turns
        assertTrue(sleepers() > 0)
        yield* client.close
        yield* Fiber.join(shutdown.fiber)
        yield* turns
        strictEqual(sleepers(), 0)
      })
    ))
})

describe("S: a client that is lost", () => {
  test("interruptOnDisconnect interrupts a handler that is doing something else", () =>
    Effect.gen(function* () {
      const { onError, seen } = errors()
      const handlers: Array<string> = []
      const server = yield* Server.serve(
        () => Effect.onExit(Effect.never, (exit) => Effect.sync(() => handlers.push(outcome(exit)))),
        { ...local, interruptOnDisconnect: true, onError }
      )
      const { events } = yield* follow(server)
      const client = yield* dial(server)
      yield* turns
      yield* client.abort
      yield* turns
      deepStrictEqual(handlers, ["interrupted"])
      deepStrictEqual(seen, [])
      strictEqual(yield* server.activeConnections, 0)
      deepStrictEqual(
        events.map((_) => (_._tag === "Closed" ? outcome(_.exit) : _._tag)),
        ["Opened", "interrupted"]
      )
    }))

  test("but not at the peer's end of input, nor at the own close", () =>
    Effect.gen(function* () {
      let done = 0
      const server = yield* Server.serve(
        (connection) =>
          Effect.gen(function* () {
            yield* connection.reader.readAll()
            yield* Effect.sleep("1 second")
            yield* connection.writer.write("late")
            yield* connection.close
            yield* Effect.sleep("1 second")
            done++
          }),
        { ...local, interruptOnDisconnect: true }
      )
      const client = yield* dial(server)
      yield* client.writer.end
      yield* turns
      yield* TestClock.adjust("1 second")
      strictEqual(text(yield* client.reader.readAll()), "late")
      yield* turns
      yield* TestClock.adjust("1 second")
      strictEqual(done, 1)
    }))

  test("without it, a handler that does not use the connection goes on", () =>
    Effect.gen(function* () {
      let done = false
      const server = yield* Server.serve(
        () =>
          Effect.delay(
            Effect.sync(() => (done = true)),
            "1 second"
          ),
        local
      )
      const client = yield* dial(server)
      yield* turns
      yield* client.abort
      yield* turns
      strictEqual(yield* server.activeConnections, 1)
      yield* TestClock.adjust("1 second")
      assertTrue(done)
      strictEqual(yield* server.activeConnections, 0)
    }))

  test("S-039: a client that is gone before it was served is a handler's failure, not the server's", () =>
    Effect.gen(function* () {
      const { onError, seen } = errors()
      const server = yield* Server.serve(({ reader }) => reader.read(), { ...local, onError })
      const client = yield* dial(server)
      yield* client.abort
      yield* turns
      deepStrictEqual(seen, [`${String(client.info.localAddress)}: ConnectionReset`])
      strictEqual(yield* server.activeConnections, 0)
    }))
})

describe("S: what a server tells", () => {
  test("connections and activeConnections", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, local)
      const one = yield* dial(server)
      const two = yield* dial(server)
      yield* turns
      deepStrictEqual(
        (yield* server.connections).map((_) => String(_.remoteAddress)),
        [one, two].map((_) => String(_.info.localAddress))
      )
      yield* one.close
      yield* turns
      strictEqual(yield* server.activeConnections, 1)
      yield* two.close
      yield* turns
      deepStrictEqual(yield* server.connections, [])
    }))

  test("events: opened, closed, shutting down, then the end", () =>
    Effect.gen(function* () {
      let n = 0
      const server = yield* Server.serve(
        () => (n++ === 0 ? Effect.succeed(7) : Effect.fail("oops")) as Effect.Effect<number, string>,
        {
          ...local,
          onError: () => Effect.void
        }
      )
      const { events, run } = yield* follow(server)
      const one = yield* dial(server)
      yield* one.reader.readAll()
      yield* one.close
      yield* turns
      const two = yield* dial(server)
      yield* outcomeOf(two.reader.readAll())
      yield* turns
      yield* server.shutdown()
      yield* turns
      strictEqual(outcome(run), "success")
      const [opened, closed, , failed, down] = events
      deepStrictEqual(
        events.map((_) => _._tag),
        ["Opened", "Closed", "Opened", "Closed", "ShuttingDown"]
      )
      assertTrue(opened?._tag === "Opened" && closed?._tag === "Closed" && opened.id === closed.id)
      strictEqual(String(opened.info.remoteAddress), String(one.info.localAddress))
      deepStrictEqual(closed.exit, Exit.succeed(7))
      strictEqual(failed?._tag === "Closed" && outcome(failed.exit), "oops")
      deepStrictEqual(down, Server.ServerEvent.ShuttingDown({ activeConnections: 0 }))
    }))

  test("events: the last ones come also to a subscriber that is slow; who comes late gets the end", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, local)
      const seen: Array<string> = []
      const slow = yield* start(
        Stream.runForEach(server.events, (event) =>
          Effect.andThen(
            Effect.sync(() => seen.push(event._tag)),
            Effect.sleep("1 second")
          )
        )
      )
      const client = yield* dial(server)
      yield* turns
      const shutdown = yield* start(server.shutdown())
      yield* client.close
      yield* Fiber.join(shutdown.fiber)
      deepStrictEqual(yield* Stream.runCollect(server.events), [])
      yield* TestClock.adjust("10 seconds")
      deepStrictEqual(seen, ["Opened", "ShuttingDown", "Closed"])
      strictEqual(outcome(slow), "success")
    }))

  test("events: a subscriber that does not read misses the oldest of more than 256", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(() => Effect.void, local)
      const first = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const ids: Array<string> = []
      const slow = yield* start(
        Stream.runForEach(server.events, (event) =>
          Effect.gen(function* () {
            ids.push(
              event._tag === "Opened" || event._tag === "Closed" ? `${event._tag} ${event.id}` : event._tag
            )
            yield* Deferred.succeed(first, undefined)
            yield* Deferred.await(go)
          })
        )
      )
      const all = yield* follow(server)
      for (let n = 0; n < 200; n++) {
        const client = yield* dial(server)
        yield* client.reader.readAll()
        yield* client.close
        yield* turns
      }
      yield* Deferred.await(first)
      yield* server.shutdown()
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(slow.fiber)
      yield* turns
      const expected = all.events.map((_) =>
        _._tag === "Opened" || _._tag === "Closed" ? `${_._tag} ${_.id}` : _._tag
      )
      strictEqual(expected.length, 401)
      strictEqual(ids.length, 257)
      deepStrictEqual(ids.slice(1), expected.slice(-256))
    }))

  test("Server.layer provides a server, which shuts down with the layer's scope", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(
        Server.layer(echoLine, { listen: { host: "127.0.0.1", port: 7000 } }),
        scope
      )
      const server = Context.get(context, Server.Server)
      strictEqual(String(server.addresses[0]), "127.0.0.1:7000")
      strictEqual(server[Server.TypeId], Server.TypeId)
      const client = yield* dial(server)
      strictEqual(yield* Effect.map(request(client, "hello"), Option.getOrNull), "hello")
      yield* client.close
      yield* Scope.close(scope, Exit.void)
      yield* server.closed
      strictEqual(yield* refused(server), "ConnectionRefused")
    }))
})

describe("S: listening", () => {
  test("S-026: the same address twice is one listener", () =>
    Effect.gen(function* () {
      for (const port of [0, 7000, undefined]) {
        const address = { host: "127.0.0.1", port }
        const { scope, server } = yield* detached(() => Effect.void, {
          listen: [address, { path: "/run/a" }, address, { path: "/run/a" }]
        })
        strictEqual(server.addresses.length, 2)
        yield* Scope.close(scope, Exit.void)
      }
    }))

  test("S-027: two hosts with port 0 share one port", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echoLine, {
        listen: [{ host: "127.0.0.1", port: 0 }, { host: "127.0.0.2" }, { host: "::1", port: 0 }]
      })
      deepStrictEqual(server.addresses.map(String), ["127.0.0.1:49152", "127.0.0.2:49152", "[::1]:49152"])
      for (const n of [0, 1, 2]) {
        const client = yield* dial(server, n)
        strictEqual(yield* Effect.map(request(client, "hello"), Option.getOrNull), "hello")
        yield* client.close
      }
    }))

  test("S-027: a port that is taken on another host is exchanged for another one", () =>
    Effect.gen(function* () {
      const network = yield* Network.Network
      yield* network.listen({ host: "127.0.0.2", port: 49_152 })
      yield* network.listen({ host: "127.0.0.2", port: 49_153 })
      const server = yield* Server.serve(() => Effect.void, {
        listen: [{ host: "127.0.0.1" }, { host: "127.0.0.2" }]
      })
      deepStrictEqual(server.addresses.map(String), ["127.0.0.1:49154", "127.0.0.2:49154"])
      // What was bound in vain is free again.
      yield* network.listen({ host: "127.0.0.1", port: 49_152 })
    }))

  test("S-029: an address in use fails with its name, and leaves none open", () =>
    Effect.gen(function* () {
      const network = yield* Network.Network
      yield* network.listen({ host: "127.0.0.1", port: 7001 })
      const error = yield* Effect.flip(
        Server.serve(() => Effect.void, {
          listen: [
            { host: "127.0.0.1", port: 7000 },
            { host: "127.0.0.1", port: 7001 }
          ]
        })
      )
      strictEqual(
        error.message,
        `listen on 127.0.0.1:7001: address already in use (EADDRINUSE)${remedies.portInUse}`
      )
      yield* network.listen({ host: "127.0.0.1", port: 7000 })
    }))

  it.effect("S-033: a host without an address", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Effect.scoped(Server.serve(() => Effect.void, { listen: { host: "nowhere.test", port: 80 } }))
      )
      strictEqual(error.message, "listen on nowhere.test:80: the host name does not resolve (ENOTFOUND)")
    }).pipe(Effect.provide(TestNetwork.layer))
  )

  it.effect("S-038: out of descriptors, accepting is tried again after 100 ms, doubling to 1 s", () => {
    let attempts = 0
    let broken = true
    const transports: Array<Transport> = []
    const exhausted = new StreamError.ListenError({
      address: "127.0.0.1:7000",
      reason: new StreamError.ResourcesExhausted({ code: "EMFILE" })
    })
    const accept = Effect.suspend((): Effect.Effect<Transport, StreamError.ListenError> => {
      attempts++
      if (broken) return Effect.fail(exhausted)
      const transport = transports.shift()
      return transport === undefined ? Effect.never : Effect.succeed(transport)
    })
    return Effect.gen(function* () {
      const served: Array<string> = []
      const server = yield* Server.serve(({ id }) => Effect.sync(() => served.push(id)), local)
      const { events, tags } = yield* follow(server)
      strictEqual(attempts, 1)
      for (const pause of [100, 200, 400, 800, 1000, 1000, 1000]) {
        const before = attempts
        yield* TestClock.adjust(pause - 1)
        strictEqual(attempts, before, `${pause} ms`)
        yield* TestClock.adjust(1)
        strictEqual(attempts, before + 1, `${pause} ms`)
      }
      strictEqual(events.filter((_) => _._tag === "AcceptFailed").length, 7)
      const [first] = events
      deepStrictEqual(first, Server.ServerEvent.AcceptFailed({ error: exhausted }))
      // It recovers, and the next pause is short again.
      const [left, right] = yield* MemoryTransport.makePair()
      const client = yield* Connection.make(left)
      transports.push(right)
      broken = false
      yield* TestClock.adjust("1 second")
      strictEqual(served.length, 1)
      yield* client.close
      assertTrue(tags().endsWith("AcceptFailed Opened Closed"))
      yield* server.shutdown()
    }).pipe(Effect.scoped, Effect.provide(scripted(accept)))
  })

  it.effect("S-038: a server can be shut down during such a pause, and the pauses start anew", () => {
    let attempts = 0
    const exhausted = new StreamError.ListenError({
      address: "127.0.0.1:7000",
      reason: new StreamError.ResourcesExhausted({ code: "EMFILE" })
    })
    const accept = Effect.suspend(() => {
      attempts++
      return attempts === 3
        ? Effect.map(MemoryTransport.makePair(), ([left]) => left)
        : Effect.fail(exhausted)
    })
    return withSleepers((sleepers) =>
      Effect.gen(function* () {
        const server = yield* Server.serve((_) => _.abort, local)
        yield* TestClock.adjust(100)
        strictEqual(attempts, 2)
        yield* TestClock.adjust(200)
        // The third was a success; the fourth failed again.
        strictEqual(attempts, 4)
        yield* TestClock.adjust(100)
        strictEqual(attempts, 5)
        strictEqual(sleepers(), 1)
        yield* server.shutdown()
        strictEqual(sleepers(), 0)
        yield* TestClock.adjust("1 minute")
        strictEqual(attempts, 5)
      })
    ).pipe(Effect.scoped, Effect.provide(scripted(accept)))
  })

  test("S-047: no path is no address", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Server.serve(() => Effect.void, { listen: { path: "" } }))
      strictEqual(error.message, "listen on : invalid address: the Unix socket's path is empty")
    }))

  test("C-014: info has the addresses of both sides, the transport's kind and the time", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust("1 day")
      const infos: Array<Connection.ConnectionInfo> = []
      const server = yield* Server.serve(({ info }) => Effect.sync(() => infos.push(info)), local)
      const client = yield* dial(server)
      yield* client.reader.readAll()
      const [info] = infos
      strictEqual(String(info?.localAddress), String(client.info.remoteAddress))
      strictEqual(String(info?.remoteAddress), String(client.info.localAddress))
      strictEqual(info?.transport, "memory")
      strictEqual(info?.tls, undefined)
      strictEqual(info?.openedAt.epochMilliseconds, 86_400_000)
    }))

  test("H-009: a link-local IPv6 address keeps its scope", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(({ writer }) => writer.write("hi"), {
        listen: { host: "fe80::1%7", port: 7000 }
      })
      const client = yield* Connection.connect("[fe80::1%7]:7000")
      const { remoteAddress } = client.info
      assertTrue(remoteAddress !== undefined && NetAddress.isInetAddressV6(remoteAddress))
      strictEqual(remoteAddress.scopeId, 7)
      strictEqual(String(server.addresses[0]), "[fe80::1%7]:7000")
      strictEqual(
        (yield* Effect.flip(Connection.connect("[fe80::1%8]:7000"))).message,
        "connect to [fe80::1%8]:7000: connection refused (ECONNREFUSED)"
      )
    }))
})
