import { describe, it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Duration, Effect, Exit, Fiber, Latch, Logger, References, Schedule, Scope, Stream } from "effect"
import { Connection, type Network, Proxy, Reconnect, Server, StreamError } from "effect-wire"
import { TestNetwork } from "effect-wire/testing"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import {
  outcome,
  outcomeOf,
  start,
  type Started,
  turns,
  withSleepers,
  withTimeOfDay
} from "./support/effects.ts"
import { remedies } from "./support/remedies.ts"

const target = "localhost:7000"
const everySecond = Schedule.spaced("1 second")

const echo = ({ reader, writer }: Connection.Connection) => Stream.run(reader.stream, writer.sink)

/** A server that is there until it is killed, and what it still knows then. */
const serve = Effect.fnUntraced(function* (handler: Server.Handler<unknown, never> = echo) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const server = yield* Scope.provide(
    Server.serve(handler, { listen: { port: 7000 }, grace: 0, onError: () => Effect.void }),
    scope
  )
  return { server, kill: Effect.andThen(Scope.close(scope, Exit.void), turns) }
})

const advance = (duration: Duration.Input) => Effect.andThen(TestClock.adjust(duration), turns)

const describeState = (state: Reconnect.State<unknown>): string => {
  switch (state._tag) {
    case "Connecting":
      return `connecting ${state.attempt}`
    case "Connected":
      return "connected"
    case "Waiting":
      return `waiting ${Duration.toMillis(state.delay)} for ${state.attempt}: ${outcome(Exit.fail(state.error))}`
    case "Closed":
      return state.error === undefined ? "closed" : `closed: ${outcome(Exit.fail(state.error))}`
  }
}

/** A link, and every state that it was in. */
const watch = Effect.fnUntraced(function* <E>(link: Reconnect.Reconnect<E>) {
  const states: Array<string> = []
  yield* start(
    Stream.runForEach(link.changes, (state) => Effect.sync(() => states.push(describeState(state))))
  )
  yield* turns
  return states
})

const up = (options?: Connection.ConnectionOptions & Reconnect.Options) =>
  Effect.gen(function* () {
    const link = yield* Reconnect.make(target, { schedule: everySecond, ...options })
    const states = yield* watch(link)
    return { link, states }
  })

const test = <A, E>(title: string, body: () => Effect.Effect<A, E, Network.Network | Scope.Scope>): void => {
  it.effect(title, () => Effect.provide(body(), TestNetwork.layer))
}

const withoutLogs = Effect.provide(Logger.layer([]))

describe("the life of a link", () => {
  test("connects, and hands the connection to whoever asks", () =>
    Effect.gen(function* () {
      const { server } = yield* serve()
      const { link, states } = yield* up()
      deepStrictEqual(states, ["connecting 1", "connected"])
      const connection = yield* link.get
      strictEqual(yield* link.get, connection)
      yield* link.send("hello\n")
      deepStrictEqual(
        yield* link.use(({ reader }) => reader.readExactly(6)),
        new TextEncoder().encode("hello\n")
      )
      strictEqual(yield* server.activeConnections, 1)
    }))

  test("waits as the schedule says, to the millisecond, and counts its attempts", () =>
    Effect.gen(function* () {
      const schedule = Schedule.exponential("100 millis")
      const { states } = yield* up({ schedule })
      deepStrictEqual(states, ["connecting 1", "waiting 100 for 2: ConnectionRefused"])
      yield* advance("99 millis")
      strictEqual(states.length, 2)
      yield* advance("1 millis")
      deepStrictEqual(states.slice(2), ["connecting 2", "waiting 200 for 3: ConnectionRefused"])
      yield* advance("199 millis")
      strictEqual(states.length, 4)
      yield* serve()
      yield* advance("1 millis")
      deepStrictEqual(states.slice(4), ["connecting 3", "connected"])
    }))

  test("comes back, without anybody reading, when the server was killed", () =>
    Effect.gen(function* () {
      const first = yield* serve()
      const { link, states } = yield* up()
      const before = yield* link.get
      yield* first.kill
      deepStrictEqual(states.slice(2), ["waiting 1000 for 2: ConnectionReset"])
      const second = yield* serve()
      yield* advance("1 second")
      deepStrictEqual(states.slice(3), ["connecting 2", "connected"])
      assertTrue((yield* link.get) !== before)
      strictEqual(yield* second.server.activeConnections, 1)
    }))

  test("takes the peer's end of input for a loss, and leaves what was received readable", () =>
    Effect.gen(function* () {
      yield* serve(({ writer }) => writer.write("bye\n"))
      const connections: Array<Connection.Connection> = []
      const { states } = yield* up({ onConnect: (_) => Effect.sync(() => connections.push(_)) })
      deepStrictEqual(states.slice(1), ["connected", "waiting 1000 for 2: ConnectionClosed"])
      const lines = connections.map((_) => Stream.runCollect(_.reader.lines))
      deepStrictEqual(yield* Effect.all(lines), [["bye"]])
      yield* advance("1 second")
      strictEqual(connections.length, 2)
    }))

  for (const how of ["close", "abort"] as const) {
    test(`makes a new connection when the old one is told to ${how}`, () =>
      Effect.gen(function* () {
        yield* serve()
        const { link, states } = yield* up()
        const connection = yield* link.get
        yield* connection[how]
        yield* turns
        deepStrictEqual(states.slice(2), ["waiting 1000 for 2: ConnectionClosed"])
        yield* advance("1 second")
        assertTrue((yield* link.get) !== connection)
      }))
  }

  /** A server that ends its direction and reads nothing, and a link that has more to send than anybody takes. */
  const deaf = Effect.fnUntraced(function* () {
    const { server } = yield* serve(({ writer }) =>
      Effect.andThen(Effect.delay(writer.end, "1 second"), Effect.never)
    )
    const scope = yield* Scope.make()
    const link = yield* Scope.provide(
      Reconnect.make(target, { schedule: everySecond, closeTimeout: "7 seconds" }),
      scope
    )
    const states = yield* watch(link)
    const connection = yield* link.get
    yield* start(connection.writer.write(new Uint8Array(16_000_000)))
    yield* advance("1 second")
    return { connection, link, scope, server, states }
  })

  test("does not wait for the closing of a connection that the peer has ended", () =>
    Effect.gen(function* () {
      const { connection, scope, server, states } = yield* deaf()
      const closed = yield* start(connection.closed)
      deepStrictEqual(states.slice(1), ["connected", "waiting 1000 for 2: ConnectionClosed"])
      yield* advance("1 second")
      deepStrictEqual(states.slice(3), ["connecting 2", "connected"])
      deepStrictEqual([outcome(closed), yield* server.activeConnections], ["waiting", 2])
      // The scope's end does wait, for the connection that was lost and for the one that there is.
      const ending = yield* start(Scope.close(scope, Exit.void))
      yield* advance("5999 millis")
      deepStrictEqual([outcome(closed), outcome(ending)], ["waiting", "waiting"])
      yield* advance("1 millis")
      strictEqual(outcome(closed), "success")
      yield* advance("1 second")
      strictEqual(outcome(ending), "success")
    }))

  test("closes a few lost connections at a time, and aborts the oldest for one more", () =>
    Effect.gen(function* () {
      yield* serve(({ writer }) => Effect.andThen(writer.end, Effect.never))
      const connections: Array<Connection.Connection> = []
      const { link } = yield* up({
        closeTimeout: "1 hour",
        watermarks: { high: 1_000_000 },
        // More than there is room for on the way, so that the close has something to wait for.
        onConnect: (connection) => {
          connections.push(connection)
          return Effect.orDie(connection.writer.write(new Uint8Array(500_000)))
        }
      })
      const closing: Array<Started<void, unknown>> = []
      for (let n = 1; n <= 20; n++) {
        closing.push(...(yield* Effect.forEach(connections.splice(0), ({ closed }) => start(closed))))
        yield* turns
        deepStrictEqual(
          closing.map((_) => outcome(_)),
          Array.from({ length: n }, (_, index) => (index < n - 4 ? "success" : "waiting"))
        )
        yield* advance("1 second")
      }
      yield* start(link.close)
      yield* advance("1 hour")
      deepStrictEqual(new Set(closing.map((_) => outcome(_))), new Set(["success"]))
    }))

  test("aborts also what is still being closed when its scope fails", () =>
    Effect.gen(function* () {
      const { connection, scope } = yield* deaf()
      const closed = yield* start(connection.closed)
      yield* advance("1 second")
      strictEqual(outcome(closed), "waiting")
      const ending = yield* start(Scope.close(scope, Exit.fail("over")))
      yield* turns
      deepStrictEqual([outcome(closed), outcome(ending)], ["success", "success"])
    }))

  test("ends the handshake's scope before it connects again", () =>
    Effect.gen(function* () {
      const events: Array<string> = []
      const mayEnd = Latch.makeUnsafe()
      const { kill } = yield* serve()
      const { states } = yield* up({
        onConnect: () =>
          Effect.acquireRelease(
            Effect.sync(() => events.push("begun")),
            () =>
              Effect.andThen(
                mayEnd.await,
                Effect.sync(() => events.push("ended"))
              )
          )
      })
      yield* kill
      yield* serve()
      yield* advance("1 minute")
      deepStrictEqual([events, states.at(-1)], [["begun"], "connected"])
      yield* mayEnd.open
      yield* turns
      strictEqual(states.at(-1), "waiting 1000 for 2: ConnectionReset")
      yield* advance("1 second")
      deepStrictEqual(events, ["begun", "ended", "begun"])
    }))

  test("gives a lost connection to nobody, also before the link has dealt with the loss", () =>
    Effect.gen(function* () {
      const mayEnd = Latch.makeUnsafe()
      yield* serve()
      const { link, states } = yield* up({ onConnect: () => Effect.addFinalizer(() => mayEnd.await) })
      const connection = yield* link.get
      yield* connection.abort
      yield* turns
      strictEqual(states.at(-1), "connected")
      const asking = yield* start(link.get)
      strictEqual(outcome(asking), "waiting")
      yield* mayEnd.open
      yield* advance("1 second")
      assertTrue((yield* Fiber.join(asking.fiber)) !== connection)
    }))

  test("begins its schedule anew after a connection that was stable, and only then", () =>
    Effect.gen(function* () {
      const schedule = Schedule.exponential("1 second")
      let server = yield* serve()
      const { states } = yield* up({ schedule, stableAfter: "10 seconds" })
      const dropAfter = Effect.fnUntraced(function* (upFor: Duration.Input) {
        yield* advance(upFor)
        yield* server.kill
        server = yield* serve()
        return states.at(-1)
      })
      strictEqual(yield* dropAfter("9999 millis"), "waiting 1000 for 2: ConnectionReset")
      yield* advance("1 second")
      strictEqual(yield* dropAfter("9999 millis"), "waiting 2000 for 3: ConnectionReset")
      yield* advance("2 seconds")
      strictEqual(yield* dropAfter("10 seconds"), "waiting 1000 for 1: ConnectionReset")
      yield* advance("1 second")
      deepStrictEqual(states.slice(-2), ["connecting 1", "connected"])
    }))

  test("is not stable because the time of day was set", () =>
    withTimeOfDay((set) =>
      Effect.gen(function* () {
        const { kill } = yield* serve()
        const { states } = yield* up({ stableAfter: "10 seconds" })
        set(3_600_000)
        yield* advance("9999 millis")
        yield* kill
        strictEqual(states.at(-1), "waiting 1000 for 2: ConnectionReset")
      })
    ))

  test("gives up with the schedule, with the last error", () =>
    Effect.gen(function* () {
      const { link, states } = yield* up({ schedule: Schedule.upTo(everySecond, { times: 2 }) })
      const waiting = yield* start(link.get)
      yield* advance("1 second")
      strictEqual(outcome(waiting), "waiting")
      yield* advance("1 second")
      deepStrictEqual(states.slice(-2), ["connecting 3", "closed: ConnectionRefused"])
      for (const effect of [Fiber.join(waiting.fiber), link.get, link.send("x"), link.closed]) {
        strictEqual(yield* outcomeOf(effect), "ConnectionRefused")
      }
      strictEqual(yield* outcomeOf(link.close), "success")
      deepStrictEqual(yield* Stream.runCollect(Stream.map(link.changes, describeState)), [
        "closed: ConnectionRefused"
      ])
    }))

  test("gives up at once when trying again is no use", () =>
    Effect.gen(function* () {
      const wrong = yield* Reconnect.make("nowhere", { schedule: everySecond })
      strictEqual(yield* outcomeOf(wrong.closed), "InvalidAddress")
      const isPermanent = (error: Reconnect.LinkError) => outcome(Exit.fail(error)) === "ConnectionRefused"
      const { link, states } = yield* up({ isPermanent })
      deepStrictEqual(states, ["connecting 1", "closed: ConnectionRefused"])
      strictEqual(yield* outcomeOf(link.get), "ConnectionRefused")
    }))

  const identity = TestNetwork.identity({ names: ["service.test"] })
  const secured = Effect.fnUntraced(function* () {
    yield* Server.serve(echo, { listen: { port: 7443 }, tls: { identity }, onError: () => Effect.void })
    return yield* Server.serve(
      ({ reader, writer }) =>
        Effect.andThen(
          reader.readUntil("\r\n\r\n"),
          writer.write("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        ),
      { listen: { port: 3128 }, onError: () => Effect.void }
    )
  })

  test("gives up unless told otherwise when only other settings would help: whom to trust, a proxy's password", () =>
    Effect.gen(function* () {
      yield* secured()
      const proxy = Proxy.httpConnect("localhost:3128", { username: "me", password: "wrong" })
      for (const [options, end] of [
        [{ tls: true }, "TlsError"],
        [{ proxy }, "ProxyError"]
      ] as const) {
        const link = yield* Reconnect.make("localhost:7443", { schedule: everySecond, ...options })
        strictEqual(yield* outcomeOf(link.get), end)
        deepStrictEqual((yield* watch(link)).at(-1), `closed: ${end}`)
        const stubborn = yield* Reconnect.make("localhost:7443", {
          schedule: everySecond,
          isPermanent: () => false,
          ...options
        })
        yield* turns
        strictEqual((yield* watch(stubborn)).at(-1), `waiting 1000 for 2: ${end}`)
      }
    }))

  test("does not give up what has worked before because of an error that settings mend", () =>
    Effect.gen(function* () {
      const start = (names: ReadonlyArray<string>) =>
        Effect.gen(function* () {
          const scope = yield* Scope.fork(yield* Effect.scope)
          const tls = { identity: TestNetwork.identity({ names }) }
          const server = Server.serve(echo, {
            listen: { port: 7443 },
            tls,
            grace: 0,
            onError: () => Effect.void
          })
          yield* Scope.provide(server, scope)
          return Effect.andThen(Scope.close(scope, Exit.void), turns)
        })
      const kill = yield* start(["localhost"])
      const ca = TestNetwork.identity({ names: ["localhost"] }).certificate
      const link = yield* Reconnect.make("localhost:7443", { schedule: everySecond, tls: { ca } })
      const states = yield* watch(link)
      strictEqual(states.at(-1), "connected")
      yield* kill
      const kill2 = yield* start(["other.test"])
      yield* advance("1 second")
      strictEqual(states.at(-1), "waiting 1000 for 3: TlsError")
      yield* kill2
      yield* start(["localhost"])
      yield* advance("1 second")
      strictEqual(states.at(-1), "connected")
    }))

  test("any way to connect will do", () =>
    Effect.gen(function* () {
      yield* serve()
      let attempts = 0
      const connect = Effect.gen(function* () {
        if (attempts++ === 0) return yield* Effect.fail("not today" as const)
        return yield* Connection.connect(target)
      })
      const link = yield* Reconnect.fromEffect(connect, { schedule: everySecond })
      const state = yield* link.state
      deepStrictEqual(state._tag === "Waiting" && state.error, "not today")
      yield* advance("1 second")
      strictEqual((yield* link.state)._tag, "Connected")
    }))

  test("a layer provides one", () =>
    Effect.gen(function* () {
      yield* serve()
      const ask = Effect.gen(function* () {
        const link = yield* Reconnect.Reconnect
        assertTrue(Reconnect.isReconnect(link))
        yield* link.send("hi\n")
        return yield* link.use(({ reader }) => reader.readLineString)
      })
      const layer = Connection.layerReconnecting(target, {
        onConnect: ({ writer }) => writer.write("hello\n")
      })
      strictEqual(String(yield* Effect.provide(ask, layer)), 'some("hello")')
    }))

  it.effect("wrong options are defects where they are given", () =>
    Effect.gen(function* () {
      const wrong: ReadonlyArray<Connection.ConnectionOptions & Reconnect.Options> = [
        { limit: 0 },
        { acquireTimeout: 0 },
        { handshakeTimeout: "-1 second" },
        { stableAfter: "-1 second" }
      ]
      for (const options of wrong) {
        const text = yield* outcomeOf(Reconnect.make(target, options))
        assertTrue(text.startsWith("defect RangeError"), text)
      }
    }).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))
  )
})

describe("the default schedule", () => {
  it.effect("doubles from 200 ms up to 25 s, each time between 80 % and 120 % of it", () =>
    Effect.gen(function* () {
      const seen = new Set<number>()
      for (let round = 0; round < 50; round++) {
        const step = yield* Schedule.toStep(Reconnect.defaultSchedule)
        for (let attempt = 0; attempt < 20; attempt++) {
          const [, delay] = yield* step(0, undefined)
          const factor = Duration.toMillis(delay) / Math.min(200 * 2 ** attempt, 25_000)
          assertTrue(factor >= 0.8 && factor <= 1.2, `${attempt}: ${factor}`)
          seen.add(factor)
        }
      }
      assertTrue(Math.max(...seen) > 1.15 && Math.min(...seen) < 0.85)
    })
  )
})

describe("isPermanent", () => {
  const failed = (reason: StreamError.ConnectionErrorReason) =>
    new StreamError.ConnectionError({ operation: "connect", reason })

  it("is what only other settings mend, and nothing that time mends", () => {
    const tls = StreamError.TlsErrorKind.literals.filter((kind) =>
      Reconnect.isPermanent(failed(new StreamError.TlsError({ kind })))
    )
    deepStrictEqual(tls, [
      "SelfSigned",
      "UnknownCa",
      "WrongHost",
      "BadCertificate",
      "NoSharedVersion",
      "NoSharedCipher",
      "NoSharedAlpn",
      "ClientCertificateRequired",
      "InvalidIdentity"
    ])
    const kinds = (["Refused", "AuthenticationFailed", "MalformedReply", "Closed"] as const).filter((kind) =>
      Reconnect.isPermanent(failed(new StreamError.ProxyError({ kind, proxy: "p:1", detail: "said no" })))
    )
    deepStrictEqual(kinds, ["AuthenticationFailed"])
    const others = [
      new StreamError.InvalidAddress({}),
      new StreamError.Unsupported({}),
      new StreamError.ConnectionRefused({}),
      new StreamError.NameNotResolved({}),
      new StreamError.NotFound({}),
      new StreamError.PermissionDenied({}),
      new StreamError.ResourcesExhausted({}),
      new StreamError.UnknownReason({})
    ].filter((reason) => Reconnect.isPermanent(failed(reason)))
    deepStrictEqual(
      others.map(({ _tag }) => _tag),
      ["InvalidAddress", "Unsupported"]
    )
    for (const error of [undefined, "wrong password", new Error("no"), { _tag: "ConnectionError" }]) {
      strictEqual(Reconnect.isPermanent(error), false)
    }
  })
})

class Refused extends Error {
  readonly _tag = "Refused"
}

describe("the handshake", () => {
  test("is replayed for each connection, before anybody gets it", () =>
    Effect.gen(function* () {
      const heard: Array<string> = []
      const listen = ({ reader, writer }: Connection.Connection) =>
        Stream.runForEach(reader.lines, (line) =>
          Effect.andThen(
            Effect.sync(() => heard.push(line)),
            line === "LOGIN" ? writer.write("OK\n") : Effect.void
          )
        )
      const first = yield* serve(listen)
      const { link } = yield* up({
        onConnect: ({ reader, writer }) =>
          Effect.orDie(Effect.andThen(writer.write("LOGIN\n"), reader.readLine))
      })
      yield* link.send("one\n")
      yield* turns
      yield* first.kill
      yield* serve(listen)
      const sending = yield* start(link.send("two\n"))
      yield* advance("1 second")
      strictEqual(outcome(sending), "success")
      yield* turns
      deepStrictEqual(heard, ["LOGIN", "one", "LOGIN", "two"])
    }))

  test("that fails is a failed attempt, whose connection is aborted", () =>
    Effect.gen(function* () {
      let attempts = 0
      let resets = 0
      yield* serve((_) => Effect.tapError(echo(_), () => Effect.sync(() => resets++)))
      const link = yield* Reconnect.make(target, {
        schedule: everySecond,
        onConnect: () => (++attempts < 3 ? Effect.fail(new Refused()) : Effect.void)
      })
      const states = yield* watch(link)
      yield* advance("1 second")
      yield* advance("1 second")
      deepStrictEqual(states, [
        "connecting 1",
        "waiting 1000 for 2: Refused",
        "connecting 2",
        "waiting 1000 for 3: Refused",
        "connecting 3",
        "connected"
      ])
      deepStrictEqual([attempts, resets], [3, 2])
    }))

  test("with an error that is permanent ends the link", () =>
    Effect.gen(function* () {
      yield* serve()
      const link = yield* Reconnect.make(target, {
        onConnect: () => Effect.fail(new Refused()),
        isPermanent: (error) => error._tag === "Refused"
      })
      strictEqual(yield* outcomeOf(link.get), "Refused")
    }))

  test("may take so long and no longer", () =>
    Effect.gen(function* () {
      const { server } = yield* serve()
      const { states } = yield* up({
        handshakeTimeout: "3 seconds",
        onConnect: ({ reader }) => Effect.orDie(reader.readLine)
      })
      yield* advance("2999 millis")
      deepStrictEqual(states, ["connecting 1"])
      strictEqual(yield* server.activeConnections, 1)
      yield* advance("1 millis")
      deepStrictEqual(states.slice(1), ["waiting 1000 for 2: TimeoutError handshake"])
      strictEqual(yield* server.activeConnections, 0)
    }))

  test("shares its scope with the connection", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const heartbeat = Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("stopped")))
      const { kill } = yield* serve()
      yield* up({ onConnect: () => Effect.forkScoped(heartbeat, { startImmediately: true }) })
      deepStrictEqual(log, [])
      yield* kill
      deepStrictEqual(log, ["stopped"])
    }))

  test("that dies ends the link with its defect", () =>
    Effect.gen(function* () {
      const { server } = yield* serve()
      const { link, states } = yield* up({ onConnect: () => Effect.die("a bug") })
      strictEqual(states.at(-1), "closed")
      strictEqual(yield* outcomeOf(link.closed), "defect a bug")
      strictEqual(yield* outcomeOf(link.get), "defect a bug")
      strictEqual(yield* server.activeConnections, 0)
    }).pipe(withoutLogs))
})

describe("whoever waits for a connection", () => {
  test("gets it when it is there", () =>
    Effect.gen(function* () {
      const { link } = yield* up()
      const waiting = yield* Effect.forEach([1, 2, 3], () => start(link.get))
      const [first] = waiting
      yield* first?.interrupt ?? Effect.void
      yield* serve()
      deepStrictEqual(waiting.map(outcome), ["interrupted", "waiting", "waiting"])
      yield* advance("1 second")
      deepStrictEqual(waiting.map(outcome), ["interrupted", "success", "success"])
    }))

  test("waits through one failure after another, so long and no longer, and learns of the last one", () =>
    Effect.gen(function* () {
      const { link } = yield* up({ acquireTimeout: "3500 millis" })
      const waiting = yield* start(link.send("x"))
      yield* advance("3499 millis")
      strictEqual(outcome(waiting), "waiting")
      yield* advance("1 millis")
      const error = yield* Effect.flip(Fiber.join(waiting.fiber))
      strictEqual(
        error.message,
        "acquire on localhost:7000: timed out after 3s 500ms; attempt 5 follows after 1s; the last error: " +
          `connect to localhost:7000: connection refused (ECONNREFUSED)${triedBoth}`
      )
      assertTrue(error.cause instanceof StreamError.ConnectionError)
    }))

  test("is told a pause in milliseconds, of which a schedule may have fractions", () =>
    Effect.gen(function* () {
      const { link } = yield* up({
        schedule: Schedule.spaced(Duration.nanos(1_500_400_123n)),
        acquireTimeout: "1 second"
      })
      const waiting = yield* start(link.get)
      yield* advance("1 second")
      const { message } = yield* Effect.flip(Fiber.join(waiting.fiber))
      assertTrue(message.includes("; attempt 2 follows after 1s 500ms; the last error: "), message)
    }))

  const triedBoth = "; tried [::1]:7000 (connection refused), 127.0.0.1:7000 (connection refused)"

  it.effect("is told of an attempt that is under way, and what came of the one before", () =>
    Effect.gen(function* () {
      const link = yield* Reconnect.make("10.0.0.1:7000", {
        schedule: everySecond,
        connectTimeout: "4 seconds",
        acquireTimeout: "3 seconds"
      })
      const messages: Array<string> = []
      for (let n = 0; n < 2; n++) {
        const waiting = yield* start(link.get)
        yield* advance("3 seconds")
        messages.push((yield* Effect.flip(Fiber.join(waiting.fiber))).message)
      }
      deepStrictEqual(messages, [
        `acquire on 10.0.0.1:7000: timed out after 3s; attempt 1 is under way${remedies.raise("acquireTimeout")}`,
        "acquire on 10.0.0.1:7000: timed out after 3s; attempt 2 is under way; the last error: connect to " +
          `10.0.0.1:7000: timed out after 4s${remedies.raise("connectTimeout")}`
      ])
    }).pipe(Effect.scoped, withBlackHole)
  )

  test("is told that a lost connection's handshake is still being released, and no error of long ago", () =>
    Effect.gen(function* () {
      const mayEnd = Latch.makeUnsafe()
      const { link } = yield* up({
        acquireTimeout: "3 seconds",
        onConnect: () => Effect.addFinalizer(() => mayEnd.await)
      })
      const { kill } = yield* serve()
      yield* advance("1 second")
      yield* link.get
      yield* kill
      const waiting = yield* start(link.get)
      yield* advance("3 seconds")
      strictEqual(
        (yield* Effect.flip(Fiber.join(waiting.fiber))).message,
        "acquire on localhost:7000: timed out after 3s; the connection is lost, and what `onConnect` has acquired is " +
          `not released yet${remedies.raise("acquireTimeout")}`
      )
      yield* mayEnd.open
    }))

  test("is told the handshake's own error, whatever that is", () =>
    Effect.gen(function* () {
      yield* serve()
      const messages: Array<string> = []
      for (const error of ["no", new Refused("not\ntoday"), { _tag: "No" }]) {
        const link = yield* Reconnect.make(target, {
          schedule: everySecond,
          acquireTimeout: 1,
          onConnect: () => Effect.fail(error)
        })
        const waiting = yield* start(link.get)
        yield* advance(1)
        const late: unknown = yield* Effect.flip(Fiber.join(waiting.fiber))
        assertTrue(late instanceof StreamError.TimeoutError && late.cause === error)
        messages.push(late.message)
      }
      deepStrictEqual(
        messages.map((_) => _.replace(/^.*the last error: /, "")),
        ["no", "not\\u000atoday", '{"_tag":"No"}']
      )
    }))

  test("learns of what was not sent", () =>
    Effect.gen(function* () {
      const { kill } = yield* serve(() => Effect.never)
      const { link } = yield* up({ watermarks: { high: 10 } })
      // More than fits on the way to a server that does not read.
      const big = yield* start(link.send(new Uint8Array(1_000_000)))
      const small = yield* start(link.send("behind it"))
      yield* turns
      deepStrictEqual([outcome(big), outcome(small)], ["waiting", "waiting"])
      yield* kill
      deepStrictEqual([outcome(big), outcome(small)], ["ConnectionReset", "ConnectionReset"])
    }))
})

describe("use", () => {
  const much = new Uint8Array(1_000_000)
  /** Everything is taken at once, and more than fits on the way to a server that does not read. */
  const watermarks = { high: 10_000_000 }

  test("succeeds when all that was written has left, and fails when it was lost before", () =>
    Effect.gen(function* () {
      const { kill } = yield* serve(({ reader }) =>
        Effect.andThen(Effect.sleep("1 second"), reader.readAll())
      )
      const { link } = yield* up({ watermarks })
      const writing = yield* start(link.use(({ writer }) => Effect.as(writer.write(much), "written")))
      yield* turns
      strictEqual(outcome(writing), "waiting")
      yield* advance("1 second")
      strictEqual(yield* Fiber.join(writing.fiber), "written")
      yield* kill

      const deaf = yield* serve(() => Effect.never)
      yield* advance("1 second")
      const losing = yield* start(link.use(({ writer }) => writer.write(much)))
      yield* turns
      strictEqual(outcome(losing), "waiting")
      yield* deaf.kill
      strictEqual(outcome(losing), "ConnectionReset")
    }))

  for (const how of ["close", "abort"] as const) {
    test(`tells of what was lost when somebody else has to ${how} the connection`, () =>
      Effect.gen(function* () {
        const { kill } = yield* serve(() => Effect.never)
        const { link } = yield* up({ watermarks, closeTimeout: "1 second" })
        const connection = yield* link.get
        const losing = yield* start(
          link.use(({ writer }) => Effect.andThen(writer.write(much), Effect.sleep(1)))
        )
        yield* start(connection[how])
        yield* advance(1)
        strictEqual(outcome(losing), how === "close" ? "waiting" : "ConnectionAborted")
        yield* advance("1 second")
        strictEqual(outcome(losing), "ConnectionAborted")
        yield* kill
      }))
  }

  test("keeps the effect's own failure, and does not wait after one", () =>
    Effect.gen(function* () {
      const { kill } = yield* serve(() => Effect.never)
      const { link } = yield* up({ watermarks })
      const failing = link.use(({ writer }) => Effect.andThen(writer.write(much), Effect.fail("mine")))
      strictEqual(yield* outcomeOf(failing), "mine")
      yield* kill
    }))

  test("waits for that so long as a write may take; interrupted, it leaves the link alone", () =>
    Effect.gen(function* () {
      const { kill } = yield* serve(() => Effect.never)
      const { link, states } = yield* up({ watermarks, writeTimeout: "3 seconds" })
      const [slow, given] = yield* Effect.all([
        start(link.use(({ writer }) => writer.write(much))),
        start(link.use(({ writer }) => writer.write("x")))
      ])
      yield* turns
      yield* given.interrupt
      strictEqual(outcome(given), "interrupted")
      yield* advance("2999 millis")
      strictEqual(outcome(slow), "waiting")
      yield* advance(1)
      strictEqual(outcome(slow), "TimeoutError write")
      strictEqual(states.at(-1), "connected")
      yield* kill
    }))

  // What has ended after everything was sent has lost nothing.
  for (const [name, ending] of [
    ["ends", ({ reader, writer }) => Effect.andThen(reader.readLine, writer.write("reply\n"))],
    [
      "resets",
      ({ abort, reader, writer }) =>
        reader.readLine.pipe(
          Effect.andThen(writer.write("reply\n")),
          Effect.andThen(turns),
          Effect.andThen(abort)
        )
    ]
  ] satisfies ReadonlyArray<readonly [string, Server.Handler<unknown, never>]>) {
    test(`is not concerned with a peer that ${name} after its reply`, () =>
      Effect.gen(function* () {
        yield* serve(ending)
        const { link, states } = yield* up()
        const asking = link.use(({ reader, writer }) =>
          writer
            .write("question\n")
            .pipe(Effect.andThen(reader.readLineString), Effect.tap(turns), Effect.tap(turns))
        )
        strictEqual(String(yield* asking), 'some("reply")')
        assertTrue(states.at(-1)?.startsWith("waiting") === true, states.at(-1))
      }))
  }

  for (const how of ["close", "abort"] as const) {
    test(`is not concerned with an effect that has to ${how} the connection itself`, () =>
      Effect.gen(function* () {
        yield* serve()
        const { link } = yield* up()
        const asking = link.use(({ [how]: end, reader, writer }) =>
          writer.write("question\n").pipe(Effect.andThen(reader.readLineString), Effect.tap(end))
        )
        strictEqual(String(yield* asking), 'some("question")')
      }))
  }
})

/** Every state that a link can be found in, and how to bring one there. */
const situations: Record<
  string,
  (options: {
    readonly hang: Effect.Effect<void>
  }) => Effect.Effect<Reconnect.Reconnect<unknown>, unknown, Network.Network | Scope.Scope>
> = {
  connecting: () => Reconnect.make("10.0.0.1:7000", { connectTimeout: Duration.infinity }),
  "shaking hands": ({ hang }) => Reconnect.make(target, { onConnect: () => hang }),
  connected: () => Reconnect.make(target, { schedule: everySecond }),
  waiting: () => Reconnect.make("localhost:1", { schedule: everySecond }),
  closed: () => Effect.tap(Reconnect.make(target), (link) => link.close)
}

const withBlackHole = Effect.provide(
  TestNetwork.layerWith({ routes: { "10.0.0.1": { latency: Duration.infinity } } })
)

describe("the end of a link", () => {
  for (const [name, situation] of Object.entries(situations)) {
    for (const how of ["close", "the scope's end", "the scope's failure"] as const) {
      it.effect(`${how} while it is ${name}`, () =>
        withSleepers((sleepers) =>
          Effect.gen(function* () {
            const { server } = yield* serve()
            const scope = yield* Scope.make()
            const link = yield* Scope.provide(situation({ hang: Effect.never }), scope)
            yield* turns
            const states = yield* watch(link)
            const waiting = name === "connected" ? undefined : yield* start(link.get)
            strictEqual(states.at(-1)?.split(" ")[0], name === "shaking hands" ? "connecting" : name)
            if (how === "close") {
              yield* Effect.all([link.close, link.close], { concurrency: "unbounded" })
              yield* link.close
            } else {
              yield* Scope.close(scope, how === "the scope's end" ? Exit.void : Exit.fail("failed"))
            }
            yield* turns
            strictEqual(states.at(-1), "closed")
            strictEqual(yield* outcomeOf(link.closed), "success")
            strictEqual(yield* outcomeOf(link.get), "ConnectionClosed")
            if (waiting !== undefined) strictEqual(outcome(waiting), "ConnectionClosed")
            strictEqual(yield* server.activeConnections, 0)
            yield* Scope.close(scope, Exit.void)
            strictEqual(sleepers(), 0)
          })
        ).pipe(Effect.scoped, withBlackHole)
      )
    }
  }

  test("close sends what was written; the scope's failure does not wait for it", () =>
    Effect.gen(function* () {
      const ends: Array<string> = []
      yield* serve(({ reader }) =>
        Effect.andThen(
          Effect.sleep("1 second"),
          Effect.map(outcomeOf(reader.readAll()), (end) => ends.push(end))
        )
      )
      const open = Effect.fnUntraced(function* () {
        const scope = yield* Scope.make()
        const link = yield* Scope.provide(Reconnect.make(target), scope)
        yield* turns
        yield* link.use(({ writer }) => writer.write("last words"))
        return { link, scope }
      })
      const gentle = yield* open()
      const closing = yield* start(gentle.link.close)
      yield* advance("999 millis")
      strictEqual(outcome(closing), "waiting")
      yield* advance("1 millis")
      deepStrictEqual([outcome(closing), ends.pop()], ["success", "success"])

      const failed = yield* open()
      yield* Scope.close(failed.scope, Exit.fail("failed"))
      yield* advance("1 second")
      deepStrictEqual(ends, ["ConnectionReset"])
    }))

  test("close while a slow schedule is asked for its delay makes no other connection", () =>
    Effect.gen(function* () {
      const first = yield* serve()
      const schedule = Schedule.tap(everySecond, () => Effect.sleep("1 second"))
      const { link } = yield* up({ schedule })
      yield* first.kill
      const second = yield* serve()
      const closing = yield* start(link.close)
      yield* advance("1 second")
      strictEqual(outcome(closing), "success")
      yield* advance("1 minute")
      strictEqual(yield* second.server.activeConnections, 0)
    }))

  test("an interrupted close goes on", () =>
    Effect.gen(function* () {
      yield* serve(({ reader }) => Effect.andThen(Effect.sleep("1 second"), reader.readAll()))
      const { link } = yield* up()
      const closing = yield* start(link.close)
      yield* closing.interrupt
      const closed = yield* start(link.closed)
      strictEqual(outcome(closed), "waiting")
      yield* advance("1 second")
      strictEqual(outcome(closed), "success")
    }))

  test("a close that is interrupted at any step can be had again", () =>
    Effect.gen(function* () {
      yield* serve()
      // A fiber that has done much gives way to others at any step.
      for (const ops of [2, 3, 4, 5]) {
        for (let steps = 0; steps < 20; steps++) {
          const scope = yield* Scope.make()
          const link = yield* Scope.provide(Reconnect.make(target), scope)
          yield* link.get
          const first = yield* Effect.forkChild(
            Effect.provideService(link.close, References.MaxOpsBeforeYield, ops)
          )
          yield* Effect.replicateEffect(Effect.yieldNow, steps)
          yield* Fiber.interrupt(first)
          const second = yield* start(link.close)
          yield* turns
          strictEqual(outcome(second), "success", `after ${steps} steps of ${ops}`)
          yield* Scope.close(scope, Exit.void)
        }
      }
    }))

  it.effect("interrupted at any step it leaves nothing behind", () =>
    Effect.gen(function* () {
      for (let steps = 0; steps < 60; steps++) {
        yield* withSleepers((sleepers) =>
          Effect.gen(function* () {
            const { kill, server } = yield* serve()
            const client = yield* Effect.forkChild(
              Effect.scoped(
                Effect.gen(function* () {
                  const link = yield* Reconnect.make(target, {
                    schedule: everySecond,
                    onConnect: ({ reader, writer }) =>
                      Effect.orDie(Effect.andThen(writer.write("hello\n"), reader.readLine))
                  })
                  yield* link.send("more\n")
                  yield* link.use(({ reader }) => reader.readLine)
                  yield* kill
                  yield* link.get
                })
              )
            )
            for (let step = 0; step < steps; step++) yield* Effect.yieldNow
            yield* Fiber.interrupt(client)
            yield* turns
            strictEqual(yield* server.activeConnections, 0, `after ${steps} steps`)
            strictEqual(sleepers(), 0, `after ${steps} steps`)
          })
        ).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))
      }
    })
  )
})

describe("any history of a server", () => {
  const event = fc.oneof(
    fc.constantFrom("start", "kill", "get", "send", "abort"),
    fc.integer({ min: 1, max: 3000 })
  )

  it("leaves a link with one connection to the server that is up, and none without", () =>
    fc.assert(
      fc.asyncProperty(fc.array(event, { maxLength: 30 }), (events) =>
        Effect.gen(function* () {
          const heard: Array<string> = []
          const told: Array<string> = []
          let server: Effect.Success<ReturnType<typeof serve>> | undefined
          const { link, states } = yield* up({ acquireTimeout: "500 millis" })
          for (const [i, event] of events.entries()) {
            if (typeof event === "number") yield* advance(event)
            else if (event === "start") {
              server ??= yield* serve(({ reader }) =>
                Stream.runForEach(reader.lines, (line) => Effect.sync(() => heard.push(line)))
              )
            } else if (event === "kill") {
              yield* server?.kill ?? Effect.void
              server = undefined
            } else if (event === "abort") {
              const state = yield* link.state
              if (state._tag === "Connected") yield* state.connection.abort
            } else if (event === "send") {
              const sending = yield* start(link.send(`${i}\n`))
              yield* advance("500 millis")
              if (outcome(sending) === "success") told.push(String(i))
              else assertTrue(outcome(sending) !== "waiting")
            } else {
              const getting = yield* start(link.get)
              yield* advance("500 millis")
              strictEqual(
                outcome(getting),
                server !== undefined && states.at(-1) === "connected" ? "success" : "TimeoutError acquire"
              )
            }
            yield* turns
            // What is known to be up is up.
            if (server !== undefined) assertTrue((yield* server.server.activeConnections) <= 1)
            if (server === undefined) assertTrue(states.at(-1) !== "connected")
          }
          yield* advance("2 seconds")
          strictEqual(states.at(-1)?.split(" ")[0], server === undefined ? "waiting" : "connected")
          // In memory, what was flushed has arrived; and nothing twice.
          deepStrictEqual(heard, told)
          yield* link.close
          if (server !== undefined) strictEqual(yield* server.server.activeConnections, 0)
        }).pipe(Effect.scoped, Effect.provide([TestClock.layer(), TestNetwork.layer]), Effect.runPromise)
      ),
      { numRuns: 150 }
    ))
})
