import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as NetAddress from "effect/net/NetAddress"
import * as TestClock from "effect/testing/TestClock"
import * as Connection from "../../Connection.ts"
import type { ListenAddress, Network } from "../../Network.ts"
import * as Server from "../../Server.ts"
import { hold, type Law, law, outcome, outcomeOf, same, soFar, start, told, turns } from "./harness.ts"

const LISTEN: ListenAddress = { host: "127.0.0.1", port: 0 }

const echo = ({ reader, writer }: Connection.Connection) => Stream.run(reader.stream, writer.sink)

/** A client that is aborted when the check is over. */
const client = (server: Server.Server, address: NetAddress.SocketAddress = server.addresses[0]) =>
  Effect.gen(function* () {
    const connection = yield* Connection.connect(address)
    yield* Effect.addFinalizer(() => connection.abort)
    return connection
  })

const line = ({ reader }: Connection.Connection) =>
  Effect.map(
    reader.readLineString,
    Option.getOrElse(() => "the end")
  )

const ask = (connection: Connection.Connection, question: string) =>
  Effect.andThen(connection.writer.write(`${question}\n`), line(connection))

/** Handlers that say who is there, and then wait until they are told. */
const greeter = Effect.gen(function* () {
  const gate = yield* Deferred.make<void>()
  const handler = ({ writer }: Connection.Connection) =>
    Effect.andThen(writer.write("hello\n"), Deferred.await(gate))
  return { handler, open: Deferred.succeed(gate, undefined) }
})

const greeted = (connection: Connection.Connection) =>
  Effect.map(line(connection), (text) => same("the greeting", text, "hello"))

const portOf = (address: NetAddress.SocketAddress): number =>
  NetAddress.isInetAddress(address) ? address.port : 0

export const serverLaws: ReadonlyArray<Law<Network>> = [
  law("listens when serve returns, and serves every client", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, { listen: LISTEN })
      hold(portOf(server.addresses[0]) > 0, "port 0 became no port")
      const clients = yield* Effect.forEach([1, 2, 3, 4, 5], () => client(server), {
        concurrency: "unbounded"
      })
      for (const [index, connection] of clients.entries()) {
        same("the echo", yield* ask(connection, `line ${index}`), `line ${index}`)
      }
      same("active", yield* server.activeConnections, 5)
    })
  ),

  law("knows its connections, from accepting them to their end", () =>
    Effect.gen(function* () {
      const ended = yield* Queue.unbounded<void>()
      const { handler, open } = yield* greeter
      const server = yield* Server.serve(handler, { listen: LISTEN })
      yield* start(
        Stream.runForEach(server.events, (event) =>
          event._tag === "Closed" ? Queue.offer(ended, undefined) : Effect.void
        )
      )
      same("active at first", yield* server.activeConnections, 0)
      const one = yield* client(server)
      const two = yield* client(server)
      yield* greeted(one)
      yield* greeted(two)
      const infos = yield* server.connections
      same("active", yield* server.activeConnections, 2)
      const peers = infos.map(({ remoteAddress }) => String(remoteAddress)).sort()
      const own = [one, two].map(({ info }) => String(info.localAddress)).sort()
      same("the peers", peers.join(), own.join())
      yield* one.abort
      yield* open
      yield* two.close
      yield* Queue.take(ended)
      yield* Queue.take(ended)
      same("active at last", yield* server.activeConnections, 0)
    })
  ),

  law("a connection is closed when its handler ends", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(({ writer }) => writer.write("all of it\n"), { listen: LISTEN })
      const connection = yield* client(server)
      same("received", yield* line(connection), "all of it")
      same("then", yield* line(connection), "the end")
      yield* connection.close
      same("closed", yield* outcome(connection.closed), "done")
    })
  ),

  ...[
    ["fails", Effect.fail("the failure"), "the failure"] as const,
    ["dies", Effect.die("the defect"), "defect the defect"] as const,
    ["is interrupted", Effect.interrupt, undefined] as const
  ].map(([name, end, expected]) =>
    law(`a handler that ${name} ends its own connection and nothing else`, () =>
      Effect.gen(function* () {
        const errors = yield* Queue.unbounded<string>()
        const server = yield* Server.serve(
          (connection) =>
            Effect.gen(function* () {
              while (true) {
                const text = yield* line(connection)
                if (text === "the end") return
                if (text === "end") yield* end
                yield* connection.writer.write(`${text}\n`)
              }
            }),
          {
            listen: LISTEN,
            onError: (cause, info) =>
              Queue.offer(errors, `${told(Exit.failCause(cause))} ${String(info.remoteAddress)}`)
          }
        )
        const [bad, good] = [yield* client(server), yield* client(server)]
        same("before", yield* ask(good, "before"), "before")
        yield* bad.writer.write("end\n")
        // Aborted: an end of input, where a transport knows no other end.
        yield* outcome(bad.reader.readExactly(1))
        if (expected !== undefined) {
          same("the error", yield* Queue.take(errors), `${expected} ${String(bad.info.localAddress)}`)
        }
        same("after", yield* ask(good, "after"), "after")
        same("a new client", yield* ask(yield* client(server), "new"), "new")
        same("more errors", yield* Queue.size(errors), 0)
      })
    )
  ),

  law("goes on accepting while handlers are stuck", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(
        (connection) => Effect.andThen(connection.writer.write("hello\n"), Effect.never),
        { listen: LISTEN, grace: 0 }
      )
      for (let i = 0; i < 20; i++) yield* greeted(yield* client(server))
      same("active", yield* server.activeConnections, 20)
    })
  ),

  law("serves at most maxConnections at once; the next one waits until one ends", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(
        (connection) => Effect.andThen(connection.writer.write("hello\n"), line(connection)),
        { listen: LISTEN, maxConnections: 2, grace: 0 }
      )
      const [one, two] = [yield* client(server), yield* client(server)]
      yield* greeted(one)
      yield* greeted(two)
      const three = yield* client(server)
      const waiting = yield* start(line(three))
      yield* turns
      same("the third", soFar(waiting), "waiting")
      same("active", yield* server.activeConnections, 2)
      yield* one.writer.write("done\n")
      same("the first", yield* line(one), "the end")
      yield* one.close
      same("the third, then", yield* outcomeOf(waiting), "hello")
      // A client that gives up gives its place back as well.
      yield* two.abort
      yield* greeted(yield* client(server))
    })
  ),

  law("a shutdown lets handlers finish, then interrupts them, and aborts what is still closing", () =>
    Effect.gen(function* () {
      const interrupted = yield* Deferred.make<void>()
      const server = yield* Server.serve(
        (connection) =>
          Effect.gen(function* () {
            const text = yield* line(connection)
            yield* connection.writer.write("hello\n")
            // Its client does not end: the connection goes on closing.
            if (text === "closing") return
            if (text === "stuck") {
              return yield* Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined))
            }
            yield* line(connection)
          }),
        { listen: LISTEN, closeTimeout: "1 hour", grace: "10 seconds" }
      )
      const [finishing, stuck, closing] = [
        yield* client(server),
        yield* client(server),
        yield* client(server)
      ]
      same("one", yield* ask(finishing, "finishing"), "hello")
      same("two", yield* ask(stuck, "stuck"), "hello")
      same("three", yield* ask(closing, "closing"), "hello")
      same("the end of three", yield* line(closing), "the end")
      const down = yield* start(server.shutdown())
      const closed = yield* start(server.closed)
      yield* turns
      same("the shutdown", soFar(down), "waiting")
      yield* finishing.writer.write("done\n")
      same("the end of one", yield* line(finishing), "the end")
      yield* finishing.close
      yield* TestClock.adjust("9 seconds")
      yield* turns
      same("the shutdown, within the grace", soFar(down), "waiting")
      yield* TestClock.adjust("1 second")
      const report = yield* Fiber.join(down)
      same("the report", report, { finished: 1, interrupted: 1, aborted: 1 })
      yield* Deferred.await(interrupted)
      yield* Fiber.join(closed)
      same("active", yield* server.activeConnections, 0)
    })
  ),

  law("a shutdown with a grace of 0 interrupts at once", () =>
    Effect.gen(function* () {
      const { handler } = yield* greeter
      const server = yield* Server.serve(handler, { listen: LISTEN })
      yield* greeted(yield* client(server))
      same("the report", yield* server.shutdown({ grace: 0 }), { finished: 0, interrupted: 1, aborted: 0 })
    })
  ),

  law("a second shutdown hurries the first, and gives the same report", () =>
    Effect.gen(function* () {
      const { handler } = yield* greeter
      const server = yield* Server.serve(handler, { listen: LISTEN, grace: "1 hour" })
      yield* greeted(yield* client(server))
      const first = yield* start(server.shutdown())
      yield* turns
      same("the first", soFar(first), "waiting")
      const report = yield* server.shutdown({ grace: 0 })
      same("the second", report, { finished: 0, interrupted: 1, aborted: 0 })
      // The first one waits for what it was going to do.
      yield* TestClock.adjust("1 hour")
      same("the first, then", yield* Fiber.join(first), report)
      same("a third", yield* server.shutdown(), report)
    })
  ),

  law("refuses new clients after a shutdown, and gives its address back", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, { listen: LISTEN })
      yield* server.shutdown()
      same(
        "a client",
        yield* outcome(Effect.scoped(Connection.connect(server.addresses[0]))),
        "ConnectionRefused"
      )
      const again = yield* Server.serve(echo, {
        listen: { host: "127.0.0.1", port: portOf(server.addresses[0]) }
      })
      same("the echo", yield* ask(yield* client(again), "again"), "again")
    })
  ),

  law("is shut down by the end of its scope, within the grace", () =>
    Effect.gen(function* () {
      const { handler } = yield* greeter
      const scope = yield* Scope.make()
      const server = yield* Scope.provide(
        Server.serve(handler, { listen: LISTEN, grace: "3 seconds" }),
        scope
      )
      yield* greeted(yield* client(server))
      const closing = yield* start(Scope.close(scope, Exit.void))
      yield* turns
      same("the end of the scope", soFar(closing), "waiting")
      same(
        "a new client",
        yield* outcome(Effect.scoped(Connection.connect(server.addresses[0]))),
        "ConnectionRefused"
      )
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.join(closing)
      yield* server.closed
      same("active", yield* server.activeConnections, 0)
    })
  ),

  law("serves until it is interrupted, with run", () =>
    Effect.gen(function* () {
      const bound = yield* Server.serve(echo, { listen: LISTEN })
      yield* bound.shutdown()
      const [address] = bound.addresses
      const listen = { host: "127.0.0.1", port: portOf(address) }
      const events = yield* Queue.unbounded<string>()
      const running = yield* start(
        Server.run(
          ({ writer }) =>
            Effect.onInterrupt(Effect.andThen(writer.write("hello\n"), Effect.never), () =>
              Queue.offer(events, "interrupted")
            ),
          { listen, grace: 0 }
        )
      )
      // It listens once its fiber has come so far.
      yield* greeted(yield* Effect.eventually(client(bound, address)))
      yield* Fiber.interrupt(running)
      same("the handler", yield* Queue.take(events), "interrupted")
      same("a client, then", yield* outcome(Effect.scoped(Connection.connect(address))), "ConnectionRefused")
    })
  ),

  law("interrupts a handler whose connection is lost, if it is to", () =>
    Effect.gen(function* () {
      const interrupted = yield* Deferred.make<void>()
      const server = yield* Server.serve(
        ({ writer }) =>
          Effect.andThen(writer.write("hello\n"), Effect.never).pipe(
            Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
          ),
        { listen: LISTEN, interruptOnDisconnect: true }
      )
      const connection = yield* client(server)
      yield* greeted(connection)
      yield* connection.abort
      yield* Deferred.await(interrupted)
    })
  ),

  law("leaves a handler whose connection is lost alone, unless it is to interrupt it", () =>
    Effect.gen(function* () {
      const [lost, go] = [yield* Deferred.make<string>(), yield* Deferred.make<void>()]
      const finished = yield* Deferred.make<void>()
      const server = yield* Server.serve(
        (connection) =>
          Effect.gen(function* () {
            yield* connection.writer.write("hello\n")
            yield* Deferred.succeed(lost, yield* outcome(connection.closed))
            yield* Deferred.await(go)
            yield* Deferred.succeed(finished, undefined)
          }),
        { listen: LISTEN }
      )
      const connection = yield* client(server)
      yield* greeted(connection)
      yield* connection.abort
      same("closed", yield* Deferred.await(lost), "ConnectionReset")
      yield* turns
      yield* Deferred.succeed(go, undefined)
      yield* Deferred.await(finished)
    })
  ),

  law("several listeners share one port 0 port, and one server", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, {
        listen: [LISTEN, { host: "::1", port: 0 }, { host: "127.0.0.2" }]
      })
      same("addresses", server.addresses.length, 3)
      same("ports", new Set(server.addresses.map(portOf)).size, 1)
      for (const address of server.addresses) {
        same(`the echo of ${String(address)}`, yield* ask(yield* client(server, address), "x"), "x")
      }
      same("active", yield* server.activeConnections, 3)
      yield* server.shutdown({ grace: 0 })
      for (const address of server.addresses) {
        same("a client", yield* outcome(Effect.scoped(Connection.connect(address))), "ConnectionRefused")
      }
    })
  ),

  law("fails if an address is in use, and leaves no other one open", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, { listen: LISTEN })
      const port = portOf(server.addresses[0])
      const free = yield* Server.serve(echo, { listen: LISTEN })
      yield* free.shutdown()
      const other = { host: "127.0.0.1", port: portOf(free.addresses[0]) }
      const failed = yield* outcome(Server.serve(echo, { listen: [other, { host: "127.0.0.1", port }] }))
      same("serve", failed, "AddressInUse")
      same(
        "the other address",
        yield* outcome(Effect.scoped(Connection.connect(free.addresses[0]))),
        "ConnectionRefused"
      )
      same("the first server", yield* ask(yield* client(server), "x"), "x")
    })
  ),

  law("gives its options to every connection", () =>
    Effect.gen(function* () {
      const arrived = yield* Queue.unbounded<void>()
      const server = yield* Server.serve(
        (connection) =>
          Effect.gen(function* () {
            yield* Queue.offer(arrived, undefined)
            const failure = yield* outcome(connection.reader.readLine)
            const { high, low } = connection.writer.watermarks
            yield* connection.writer.write(`${connection.reader.limit} ${high} ${low} ${failure}\n`)
          }),
        { listen: LISTEN, limit: 7, watermarks: { high: 400 }, readTimeout: "1 second" }
      )
      const long = yield* client(server)
      same("a long line", yield* ask(long, "0123456789"), "7 400 100 LimitOverrunError")
      const silent = yield* client(server)
      const answer = yield* start(line(silent))
      yield* Queue.take(arrived)
      yield* Queue.take(arrived)
      yield* TestClock.adjust("1 second")
      same("a silent client", yield* outcomeOf(answer), "7 400 100 TimeoutError of read")
    })
  ),

  law("takes bad options for defects of serve", () =>
    Effect.gen(function* () {
      const bad: ReadonlyArray<Partial<Server.Options>> = [
        { limit: 0 },
        { limit: 1.5 },
        { maxConnections: 0 },
        { maxConnections: 1.5 },
        { watermarks: { high: -1 } },
        { readTimeout: 0 },
        { listen: [] }
      ]
      for (const options of bad) {
        const seen = yield* outcome(Server.serve(echo, { listen: LISTEN, ...options }))
        hold(seen.startsWith("defect RangeError"), `${JSON.stringify(options)} came to ${seen}`)
      }
    })
  ),

  law("tells what happens, as it happens, and ends with the server", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, { listen: LISTEN })
      const events = yield* Queue.unbounded<Server.ServerEvent>()
      const telling = yield* start(Stream.runForEach(server.events, (event) => Queue.offer(events, event)))
      yield* turns
      const connection = yield* client(server)
      same("the echo", yield* ask(connection, "x"), "x")
      const opened = yield* Queue.take(events)
      yield* connection.close
      const closed = yield* Queue.take(events)
      yield* server.shutdown()
      const last = yield* Queue.take(events)
      yield* Fiber.join(telling)
      same("the events", [opened, closed, last].map(({ _tag }) => _tag).join(), "Opened,Closed,ShuttingDown")
      if (opened._tag !== "Opened" || closed._tag !== "Closed") return
      same("the connection", closed.id, opened.id)
      same("the peer", String(opened.info.remoteAddress), String(connection.info.localAddress))
      same("the handler", closed.exit._tag, "Success")
      same("more events", yield* Queue.size(events), 0)
    })
  ),

  law("a client of a name or an address that nobody serves is refused", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, { listen: LISTEN })
      const port = portOf(server.addresses[0])
      const named = yield* Connection.connect({ host: "localhost", port })
      yield* Effect.addFinalizer(() => named.abort)
      same("by name", yield* ask(named, "x"), "x")
      same(
        "elsewhere",
        yield* outcome(Effect.scoped(Connection.connect({ host: "127.0.0.3", port }))),
        "ConnectionRefused"
      )
    })
  ),

  law("a connect that is interrupted at any step leaves nothing behind", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, { listen: LISTEN })
      for (let steps = 0; steps < 40; steps++) {
        const connecting = yield* start(
          Effect.scoped(Effect.andThen(Connection.connect(server.addresses[0]), Effect.never))
        )
        for (let step = 0; step < steps; step++) yield* Effect.yieldNow
        yield* Fiber.interrupt(connecting)
      }
      const last = yield* client(server)
      same("the echo", yield* ask(last, "x"), "x")
      yield* last.abort
      // The grace does not pass: the server has seen the end of every connection that came to be.
      const { aborted, interrupted } = yield* server.shutdown()
      same("cut off", aborted + interrupted, 0)
    })
  )
]
