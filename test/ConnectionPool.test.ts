import { describe, it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import {
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Latch,
  Logger,
  Metric,
  Option,
  References,
  Scope,
  Stream
} from "effect"
import { Connection, ConnectionPool, type Network, Server } from "effect-wire"
import { TestNetwork } from "effect-wire/testing"
import { NetAddress } from "effect/net"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import {
  outcome,
  outcomeOf,
  start,
  type Started,
  turns,
  withFibers,
  withSleepers,
  withTimeOfDay
} from "./support/effects.ts"
import { remedies } from "./support/remedies.ts"

const target = "localhost:7000"

const echo = ({ reader, writer }: Connection.Connection) => Stream.run(reader.stream, writer.sink)

const serve = Effect.fnUntraced(function* (handler: Server.Handler<unknown, never> = echo, port = 7000) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const server = yield* Scope.provide(
    Server.serve(handler, { listen: { port }, grace: 0, onError: () => Effect.void }),
    scope
  )
  return { server, kill: Effect.andThen(Scope.close(scope, Exit.void), turns) }
})

const advance = (duration: Duration.Input) => Effect.andThen(TestClock.adjust(duration), turns)

type Pool = ConnectionPool.ConnectionPool<unknown>

/** A borrowed connection, and how to give it back. */
const borrow = Effect.fnUntraced(function* (pool: Pool) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const connection = yield* Scope.provide(pool.get, scope)
  const end = (exit: Exit.Exit<void, string>) => Effect.andThen(Scope.close(scope, exit), turns)
  return { connection, giveBack: end(Exit.void), fail: end(Exit.fail("failed")) }
})

type Loan = Effect.Success<ReturnType<typeof borrow>>

type Borrowers = Array<Started<Loan, unknown>>

/** Ends the n-th borrower: one that waits is interrupted, one that has a connection gives it back. */
const endBorrower = Effect.fnUntraced(function* (borrowers: Borrowers, n: number, well: boolean) {
  const [borrower] = borrowers.splice(n % Math.max(borrowers.length, 1), 1)
  if (borrower?.exit() === undefined) yield* borrower?.interrupt ?? Effect.void
  const loan = borrower?.exit()
  if (loan === undefined || Exit.isFailure(loan)) return
  yield* well ? loan.value.giveBack : loan.value.fail
})

const ask = (pool: Pool, text: string) =>
  pool.use(({ reader, writer }) => Effect.andThen(writer.write(`${text}\n`), reader.readLineString))

const test = <A, E>(title: string, body: () => Effect.Effect<A, E, Network.Network | Scope.Scope>): void => {
  it.effect(title, () => Effect.provide(body(), TestNetwork.layer))
}

/** In use, idle, waiting, created, evicted. */
const numbers = (pool: { readonly stats: Effect.Effect<ConnectionPool.Stats> }) =>
  Effect.map(pool.stats, ({ created, evicted, idle, inUse, waiting }) => [
    inUse,
    idle,
    waiting,
    created,
    evicted
  ])

describe("ConnectionPool", () => {
  test("lends the connection that came back last", () =>
    Effect.gen(function* () {
      const { server } = yield* serve()
      const pool = yield* ConnectionPool.make(target)
      const one = yield* borrow(pool)
      const two = yield* borrow(pool)
      assertTrue(one.connection !== two.connection)
      deepStrictEqual(yield* numbers(pool), [2, 0, 0, 2, 0])
      yield* one.giveBack
      yield* two.giveBack
      deepStrictEqual(yield* numbers(pool), [0, 2, 0, 2, 0])
      strictEqual((yield* borrow(pool)).connection, two.connection)
      strictEqual((yield* borrow(pool)).connection, one.connection)
      strictEqual(yield* server.activeConnections, 2)
    }))

  test("has a minimum from the beginning, and a maximum that borrowers wait at, in their order", () =>
    Effect.gen(function* () {
      const { server } = yield* serve()
      const pool = yield* ConnectionPool.make(target, { min: 1, max: 2 })
      yield* turns
      deepStrictEqual(yield* numbers(pool), [0, 1, 0, 1, 0])
      const lent = [yield* borrow(pool), yield* borrow(pool)]
      const waiting = yield* Effect.forEach([1, 2, 3], () => start(borrow(pool)))
      yield* turns
      deepStrictEqual(yield* numbers(pool), [2, 0, 3, 2, 0])
      strictEqual(yield* server.activeConnections, 2)
      yield* waiting[0]?.interrupt ?? Effect.void
      yield* lent[1]?.giveBack ?? Effect.void
      deepStrictEqual(waiting.map(outcome), ["interrupted", "success", "waiting"])
      yield* lent[0]?.giveBack ?? Effect.void
      deepStrictEqual(waiting.map(outcome), ["interrupted", "success", "success"])
      deepStrictEqual(yield* numbers(pool), [2, 0, 0, 2, 0])
    }))

  test("lets a borrower wait so long and no longer, and says what for", () =>
    Effect.gen(function* () {
      yield* serve()
      const pool = yield* ConnectionPool.make(target, { max: 2, acquireTimeout: "2 seconds" })
      const lent = [yield* borrow(pool), yield* borrow(pool)]
      const waiting = yield* start(ask(pool, "x"))
      yield* advance("1 second")
      const others = [yield* start(ask(pool, "y")), yield* start(ask(pool, "z"))]
      yield* advance("999 millis")
      strictEqual(outcome(waiting), "waiting")
      yield* advance("1 millis")
      const error = yield* Effect.flip(Fiber.join(waiting.fiber))
      strictEqual(
        String(error),
        "effect-wire/TimeoutError: acquire on localhost:7000: timed out after 2s; all 2 connections (`max`) are in " +
          `use, 2 other borrowers wait${remedies.raise("acquireTimeout")}`
      )
      for (const { giveBack } of lent) yield* giveBack
      deepStrictEqual(others.map(outcome), ["success", "success"])
      deepStrictEqual(yield* numbers(pool), [0, 2, 0, 2, 0])
    }))

  const blackHole = TestNetwork.layerWith({ routes: { "10.0.0.1": { latency: Duration.infinity } } })

  it.effect("says that a connection was on its way in vain, and how the last one failed", () =>
    Effect.gen(function* () {
      const pool = yield* ConnectionPool.make("10.0.0.1:7000", {
        max: 3,
        acquireTimeout: "6 seconds",
        connectTimeout: "8 seconds"
      })
      const messageOf = (started: Started<unknown, { readonly message: string }>) =>
        Effect.map(Effect.flip(Fiber.join(started.fiber)), (error) => error.message)
      const first = yield* start(Effect.scoped(pool.get))
      yield* advance("6 seconds")
      strictEqual(
        yield* messageOf(first),
        "acquire on 10.0.0.1:7000: timed out after 6s; 0 of 3 connections (`max`) are in use, 1 on the way" +
          remedies.raise("acquireTimeout")
      )
      yield* advance("2 seconds")
      const second = yield* start(Effect.scoped(pool.get))
      yield* advance("6 seconds")
      strictEqual(
        yield* messageOf(second),
        "acquire on 10.0.0.1:7000: timed out after 6s; 0 of 3 connections (`max`) are in use, 1 on the way; " +
          "the last error: connect to 10.0.0.1:7000: timed out after 8s" +
          remedies.raise("connectTimeout")
      )
    }).pipe(Effect.scoped, Effect.provide(blackHole))
  )

  test("says that a health check took too long", () =>
    Effect.gen(function* () {
      yield* serve()
      const pool = yield* ConnectionPool.make(target, {
        max: 1,
        acquireTimeout: "2 seconds",
        healthCheck: () => Effect.never
      })
      yield* borrowed(pool)
      const waiting = yield* start(Effect.scoped(pool.get))
      yield* advance("2 seconds")
      strictEqual(
        (yield* Effect.flip(Fiber.join(waiting.fiber))).message,
        `acquire on localhost:7000: timed out after 2s; a connection was being checked (\`healthCheck\`)` +
          remedies.raise("acquireTimeout")
      )
    }))

  test("fails with what connecting failed with, and connects again the next time", () =>
    Effect.gen(function* () {
      const pool = yield* ConnectionPool.make(target, { min: 1 })
      yield* turns
      strictEqual(yield* outcomeOf(ask(pool, "x")), "ConnectionRefused")
      const { kill } = yield* serve()
      strictEqual(yield* outcomeOf(ask(pool, "x")), "success")
      yield* kill
      strictEqual(yield* outcomeOf(ask(pool, "x")), "ConnectionRefused")
      yield* serve()
      strictEqual(yield* outcomeOf(ask(pool, "x")), "success")
    }))

  test("fails all who wait for a connection that cannot be made, and none of them late", () =>
    Effect.gen(function* () {
      const identity = TestNetwork.identity({ names: ["service.test"] })
      yield* Server.serve(echo, { listen: { port: 7443 }, tls: { identity }, onError: () => Effect.void })
      for (const [where, tls, end] of [
        ["localhost:7443", true, "TlsError"],
        ["localhost:1", undefined, "ConnectionRefused"]
      ] as const) {
        for (const min of [0, 2]) {
          const pool = yield* ConnectionPool.make(where, { tls, min, max: 2 })
          const waiting = yield* Effect.forEach(Array.from({ length: 10 }), () =>
            start(Effect.scoped(pool.get))
          )
          yield* turns
          yield* turns
          deepStrictEqual(new Set(waiting.map(outcome)), new Set([end]))
        }
      }
    }))

  test("a layer provides one", () =>
    Effect.gen(function* () {
      yield* serve()
      const asking = Effect.gen(function* () {
        const pool = yield* ConnectionPool.ConnectionPool
        assertTrue(ConnectionPool.isConnectionPool(pool))
        return yield* ask(pool, "hello")
      })
      strictEqual(String(yield* Effect.provide(asking, Connection.layerPool(target))), 'some("hello")')
    }))

  test("wrong options are defects where they are given", () =>
    Effect.gen(function* () {
      const wrong: ReadonlyArray<Connection.ConnectionOptions & ConnectionPool.Options> = [
        { limit: 0 },
        { min: -1 },
        { max: 0 },
        { max: 1.5 },
        { min: 3, max: 2 },
        { min: Infinity, max: Infinity },
        { maxUses: 0 },
        { maxIdle: 0 },
        { maxAge: "-1 second" },
        { acquireTimeout: 0 },
        { healthCheckTimeout: 0 },
        { handshakeTimeout: 0 }
      ]
      for (const options of wrong) {
        const made = [
          outcomeOf(ConnectionPool.make(target, options)),
          outcomeOf(ConnectionPool.makeKeyed(options))
        ]
        for (const text of yield* Effect.all(made)) {
          assertTrue(text.startsWith("defect RangeError"), `${JSON.stringify(options)}: ${text}`)
        }
      }
      for (const options of [{ maxTotal: 0 }, { maxTargets: 0.5 }, { targetIdle: "-1 second" }] as const) {
        const text = yield* outcomeOf(ConnectionPool.makeKeyed(options))
        assertTrue(text.startsWith("defect RangeError"), `${JSON.stringify(options)}: ${text}`)
      }
    }))
})

describe("the minimum", () => {
  const idle = (pool: Pool) => Effect.map(pool.stats, (stats) => stats.idle)

  test("is made up for after an outage, at the beginning and later, though nobody borrows", () =>
    Effect.gen(function* () {
      const pool = yield* ConnectionPool.make(target, { min: 3 })
      yield* advance("1 minute")
      deepStrictEqual(yield* numbers(pool), [0, 0, 0, 0, 0])
      const { kill } = yield* serve()
      yield* advance("30 seconds")
      strictEqual(yield* idle(pool), 3)
      yield* kill
      yield* advance("1 minute")
      deepStrictEqual(yield* numbers(pool), [0, 0, 0, 3, 3])
      const { server } = yield* serve()
      yield* advance("30 seconds")
      deepStrictEqual(yield* numbers(pool), [0, 3, 0, 6, 3])
      strictEqual(yield* server.activeConnections, 3)
    }))

  // Each delay is between 80 % and 120 % of 200 milliseconds, doubled each time up to 25 seconds.
  for (const [what, handler, onConnect] of [
    ["while it cannot be made", echo, Effect.fail("not today")],
    ["while the peer drops it at once", () => Effect.void, Effect.void],
    ["while the peer drops it within a second", () => Effect.sleep("999 millis"), Effect.void],
    ["while the peer greets", ({ writer }: Connection.Connection) => writer.write("hello"), Effect.void]
  ] as const) {
    test(`is tried again ever more slowly ${what}`, () =>
      Effect.gen(function* () {
        let attempts = 0
        yield* serve(handler)
        yield* ConnectionPool.make(target, {
          min: 2,
          onConnect: () =>
            Effect.andThen(
              Effect.sync(() => attempts++),
              onConnect
            )
        })
        yield* turns
        const counts = [attempts]
        for (const millis of [10_000, 20_000, 30_000, 60_000, 60_000]) {
          const before = attempts
          yield* advance(millis)
          counts.push(attempts - before)
        }
        const [first = 0, second = 0, ...later] = counts
        deepStrictEqual(
          [first, second >= 8 && second <= 14, later.every((_) => _ >= 2 && _ <= 8)],
          [2, true, true]
        )
      }))
  }

  test("is made up for at once when it was there for some time", () =>
    Effect.gen(function* () {
      const peers: Array<Connection.Connection> = []
      yield* serve((connection) => {
        peers.push(connection)
        return echo(connection)
      })
      const pool = yield* ConnectionPool.make(target, { min: 1 })
      yield* turns
      for (let n = 1; n < 10; n++) {
        yield* advance("1 second")
        yield* peers.at(-1)?.abort ?? Effect.void
        yield* turns
        deepStrictEqual(yield* numbers(pool), [0, 1, 0, n + 1, n])
      }
    }))

  test("is made up for at once, in the middle of a pause, when a borrower has found the server well", () =>
    Effect.gen(function* () {
      const pool = yield* ConnectionPool.make(target, { min: 3 })
      yield* advance("5 minutes")
      yield* serve()
      strictEqual(String(yield* ask(pool, "hello")), 'some("hello")')
      yield* turns
      deepStrictEqual(yield* numbers(pool), [0, 3, 0, 3, 0])
    }))

  test("is not tried more often because there are borrowers whom the server refuses", () =>
    Effect.gen(function* () {
      let attempts = 0
      yield* serve()
      const pool = yield* ConnectionPool.make(target, {
        min: 3,
        onConnect: () =>
          Effect.andThen(
            Effect.sync(() => attempts++),
            Effect.fail("not today" as const)
          )
      })
      yield* turns
      strictEqual(attempts, 3)
      for (let n = 1; n <= 20; n++) {
        strictEqual(yield* outcomeOf(ask(pool, "x")), "not today")
        strictEqual(attempts, 3 + n)
      }
    }))

  test("is renewed when it was idle for too long, so that what is lent is never stale", () =>
    Effect.gen(function* () {
      const { server } = yield* serve()
      const seen = new Set<string>()
      const pool = yield* ConnectionPool.make(target, { min: 2, max: 2, maxIdle: "10 seconds" })
      for (let n = 1; n <= 5; n++) {
        yield* turns
        deepStrictEqual(yield* numbers(pool), [0, 2, 0, 2 * n, 2 * (n - 1)])
        strictEqual(yield* server.activeConnections, 2)
        // What the borrower gets is there already.
        const lent = yield* borrowed(pool)
        assertTrue(!seen.has(lent.connection.id))
        seen.add(lent.connection.id)
        strictEqual((yield* pool.stats).created, 2 * n)
        yield* advance("10 seconds")
      }
    }))

  test("on its way is a borrower's, whatever comes of it", () =>
    Effect.gen(function* () {
      const results: Array<Deferred.Deferred<void, "no">> = []
      const { server } = yield* serve()
      const pool = yield* ConnectionPool.make(target, {
        min: 2,
        max: 2,
        onConnect: () => {
          const result = Deferred.makeUnsafe<void, "no">()
          results.push(result)
          return Deferred.await(result)
        }
      })
      yield* turns
      const borrowers = yield* Effect.forEach([1, 2, 3], () => start(borrow(pool)))
      yield* turns
      deepStrictEqual([results.length, yield* server.activeConnections], [2, 2])
      const [first, second] = results
      if (first !== undefined) yield* Deferred.fail(first, "no")
      yield* turns
      deepStrictEqual(borrowers.map(outcome), ["no", "waiting", "waiting"])
      if (second !== undefined) yield* Deferred.succeed(second, undefined)
      yield* turns
      deepStrictEqual(borrowers.map(outcome), ["no", "success", "waiting"])
      // The third borrower has the place of the one that failed.
      deepStrictEqual([results.length, yield* server.activeConnections], [3, 2])
      yield* Effect.forEach(results, (result) => Deferred.succeed(result, undefined))
      yield* turns
      deepStrictEqual(borrowers.map(outcome), ["no", "success", "success"])
      deepStrictEqual(yield* numbers(pool), [2, 0, 0, 2, 0])
    }))

  test("with a handshake that dies is no storm, and the borrower's defect", () =>
    Effect.gen(function* () {
      const logs: Array<unknown> = []
      const logger = Logger.make(({ message }) => logs.push(message))
      yield* serve()
      yield* Effect.gen(function* () {
        const pool = yield* ConnectionPool.make(target, { min: 1, onConnect: () => Effect.die("a bug") })
        yield* turns
        strictEqual(logs.length, 1)
        strictEqual(yield* outcomeOf(ask(pool, "x")), "defect a bug")
        yield* advance("240 millis")
        strictEqual(logs.length, 2)
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([logger])))
    }))

  for (const steps of [0, 1, 3, 10]) {
    it.effect(
      `leaves no timer and no connection behind when its pool ends, ${steps} steps into a pause`,
      () =>
        withSleepers((sleepers) =>
          Effect.gen(function* () {
            yield* Effect.scoped(
              Effect.gen(function* () {
                yield* ConnectionPool.make(target, { min: 2, maxIdle: Duration.infinity })
                yield* turns
                strictEqual(sleepers(), 1)
                yield* TestClock.adjust("160 millis")
                for (let step = 0; step < steps; step++) yield* Effect.yieldNow
              })
            )
            strictEqual(sleepers(), 0)
            const { server } = yield* serve()
            yield* advance("1 minute")
            strictEqual(yield* server.activeConnections, 0)
          })
        ).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))
    )
  }
})

describe("a connection is not lent again", () => {
  const cases: Record<
    string,
    (lent: Effect.Success<ReturnType<typeof borrow>>) => Effect.Effect<unknown, unknown>
  > = {
    "whose borrower failed": (lent) => lent.fail,
    "that was closed": ({ connection, giveBack }) => Effect.andThen(connection.close, giveBack),
    "that was aborted": ({ connection, giveBack }) => Effect.andThen(connection.abort, giveBack),
    "that was ended for writing": ({ connection, giveBack }) =>
      Effect.andThen(connection.writer.end, giveBack),
    "with an answer that was not read": ({ connection, giveBack }) =>
      Effect.andThen(connection.writer.write("an answer"), Effect.andThen(turns, giveBack)),
    "with an answer that comes later": ({ connection, giveBack }) =>
      Effect.andThen(connection.writer.write("an answer"), giveBack),
    "from which a fiber of its borrower still reads": ({ connection, giveBack }) =>
      Effect.andThen(start(connection.reader.readLine), giveBack),
    "to which a fiber of its borrower still writes": ({ connection, giveBack }) =>
      Effect.andThen(start(connection.writer.write(new Uint8Array(1_000_000))), giveBack),
    "whose next answer a fiber of its last borrower waits for": ({ connection, giveBack }) =>
      Effect.andThen(giveBack, start(connection.reader.readLine)),
    "that was lent as often as it may be": ({ giveBack }) => giveBack
  }
  for (const [name, spoil] of Object.entries(cases)) {
    test(name, () =>
      Effect.gen(function* () {
        const { server } = yield* serve()
        const pool = yield* ConnectionPool.make(target, {
          max: 1,
          maxUses: name.includes("as often") ? 1 : Infinity
        })
        const lent = yield* borrow(pool)
        yield* spoil(lent)
        yield* turns
        if (!/comes later|last borrower/.test(name)) deepStrictEqual(yield* numbers(pool), [0, 0, 0, 1, 1])
        const next = yield* borrow(pool)
        assertTrue(next.connection !== lent.connection)
        yield* turns
        deepStrictEqual(yield* numbers(pool), [1, 0, 0, 2, 1])
        strictEqual(yield* server.activeConnections, 1)
      })
    )
  }

  test("whose borrower was interrupted", () =>
    Effect.gen(function* () {
      const { kill, server } = yield* serve(() => Effect.never)
      const pool = yield* ConnectionPool.make(target)
      const asking = yield* start(ask(pool, "x"))
      yield* turns
      yield* asking.interrupt
      yield* turns
      deepStrictEqual(yield* numbers(pool), [0, 0, 0, 1, 1])
      strictEqual(yield* server.activeConnections, 1)
      yield* borrow(pool)
      deepStrictEqual(yield* numbers(pool), [1, 0, 0, 2, 1])
      yield* kill
    }))

  test("that was lost while it lay there, and the minimum is made up at once", () =>
    Effect.gen(function* () {
      const connections: Array<Connection.Connection> = []
      const { server } = yield* serve((connection) => {
        connections.push(connection)
        return echo(connection)
      })
      const pool = yield* ConnectionPool.make(target, { min: 2 })
      yield* turns
      yield* advance("1 second")
      yield* connections[0]?.abort ?? Effect.void
      yield* turns
      deepStrictEqual(yield* numbers(pool), [0, 2, 0, 3, 1])
      yield* advance("1 second")
      yield* connections[1]?.close ?? Effect.void
      yield* turns
      deepStrictEqual(yield* numbers(pool), [0, 2, 0, 4, 2])
      strictEqual(yield* server.activeConnections, 2)
    }))

  test("not even in the turn in which it was lost", () =>
    Effect.gen(function* () {
      yield* serve()
      const pool = yield* ConnectionPool.make(target)
      const lent = yield* borrow(pool)
      yield* lent.giveBack
      yield* Effect.forkChild(lent.connection.abort, { startImmediately: true })
      assertTrue((yield* borrow(pool)).connection !== lent.connection)
    }))

  test("that lay there for too long: it is closed then, to the millisecond", () =>
    Effect.gen(function* () {
      const { server } = yield* serve()
      const pool = yield* ConnectionPool.make(target, { maxIdle: "10 seconds" })
      const lent = [yield* borrow(pool), yield* borrow(pool)]
      yield* advance("5 seconds")
      yield* lent[0]?.giveBack ?? Effect.void
      yield* advance("3 seconds")
      yield* lent[1]?.giveBack ?? Effect.void
      for (const [millis, open] of [
        [6999, 2],
        [1, 1],
        [2999, 1],
        [1, 0]
      ] as const) {
        yield* advance(millis)
        strictEqual(yield* server.activeConnections, open)
      }
      const next = yield* borrow(pool)
      assertTrue(lent.every((_) => _.connection !== next.connection))
      deepStrictEqual(yield* numbers(pool), [1, 0, 0, 3, 2])
    }))

  for (const [what, by] of [
    ["forth", 3_600_000],
    ["back", -3_600_000]
  ] as const) {
    test(`of an age that the time of day does not change, which is set ${what}`, () =>
      withTimeOfDay((set) =>
        Effect.gen(function* () {
          yield* serve()
          const pool = yield* ConnectionPool.make(target, { maxAge: "20 seconds", maxIdle: "10 seconds" })
          const first = yield* borrow(pool)
          yield* first.giveBack
          set(by)
          yield* advance("9 seconds")
          const again = yield* borrow(pool)
          strictEqual(again.connection, first.connection)
          yield* again.giveBack
          set(by)
          // Its age counts from the beginning, its idleness from now.
          yield* advance("10 seconds")
          const second = yield* borrow(pool)
          assertTrue(second.connection !== first.connection)
        })
      ))
  }

  test("that is too old, and it is closed as soon as it is not lent", () =>
    Effect.gen(function* () {
      const { server } = yield* serve()
      const pool = yield* ConnectionPool.make(target, {
        max: 2,
        maxAge: "10 seconds",
        maxIdle: Duration.infinity
      })
      const idle = yield* borrow(pool)
      const busy = yield* borrow(pool)
      yield* idle.giveBack
      yield* advance("9999 millis")
      deepStrictEqual(yield* numbers(pool), [1, 1, 0, 2, 0])
      yield* advance("1 millis")
      deepStrictEqual(yield* numbers(pool), [1, 0, 0, 2, 1])
      strictEqual(yield* server.activeConnections, 1)
      yield* busy.connection.writer.write("still in use")
      yield* busy.connection.reader.readExactly(12)
      yield* busy.giveBack
      deepStrictEqual(yield* numbers(pool), [0, 0, 0, 2, 2])
      strictEqual(yield* server.activeConnections, 0)
    }))
})

describe("the handshake and the health check", () => {
  test("the handshake runs once for a connection; its failure is the borrower's", () =>
    Effect.gen(function* () {
      const { server } = yield* serve()
      let logins = 0
      const pool = yield* ConnectionPool.make(target, {
        onConnect: () => (++logins === 1 ? Effect.fail("wrong password" as const) : Effect.void)
      })
      strictEqual(yield* Effect.flip(ask(pool, "x")), "wrong password")
      yield* turns
      strictEqual(yield* server.activeConnections, 0)
      yield* ask(pool, "x")
      yield* ask(pool, "y")
      deepStrictEqual([logins, ...(yield* numbers(pool))], [2, 0, 1, 0, 1, 0])
    }))

  test("a handshake that leaves bytes unread is its borrower's failure, at once, and says how many", () =>
    Effect.gen(function* () {
      const { server } = yield* serve(({ reader, writer }) =>
        Effect.andThen(writer.write("220 hello\r\n250 more\r\n"), Effect.ignore(reader.readAll()))
      )
      for (const min of [0, 1]) {
        const pool = yield* ConnectionPool.make(target, {
          min,
          onConnect: ({ reader }) => reader.readLine
        })
        const error = yield* Effect.flip(Effect.scoped(pool.get))
        strictEqual(
          error.message,
          "handshake on [::1]:7000: 10 bytes received that nobody has read; have `onConnect` read all that the " +
            "peer sends before it is asked, such as a greeting or the rest of an answer"
        )
        yield* turns
        deepStrictEqual(yield* numbers(pool), [0, 0, 0, 0, 0])
        strictEqual(yield* server.activeConnections, 0)
      }
    }))

  test("bytes that come between the handshake and the loan are no reason to try for ever", () =>
    Effect.gen(function* () {
      let accepted = 0
      yield* serve(({ reader, writer }) =>
        Effect.suspend(() => {
          accepted++
          return Effect.andThen(writer.write("hello\n"), Effect.ignore(reader.readAll()))
        })
      )
      // One that has waited with its greeting is given up in silence; that the next one greets as well is the failure.
      const pool = yield* ConnectionPool.make(target, { min: 1 })
      yield* turns
      for (let n = 0; n < 20; n++) {
        const before = accepted
        strictEqual(yield* outcomeOf(Effect.scoped(pool.get)), "UnreadInput")
        yield* turns
        // The one that was made instead, and those for `min`.
        assertTrue(accepted - before <= 3, String(accepted - before))
      }
    }))

  test("a handshake that leaves a reader behind, or a connection that has ended, is its borrower's failure", () =>
    Effect.gen(function* () {
      const { server } = yield* serve()
      const reading = yield* ConnectionPool.make(target, {
        onConnect: ({ reader }) => Effect.andThen(Effect.forkScoped(reader.readLine), turns)
      })
      strictEqual(
        (yield* Effect.flip(Effect.scoped(reading.get))).message,
        "handshake on [::1]:7000: not supported: `onConnect` has left a fiber behind that reads or writes, so the " +
          "connection cannot be lent"
      )
      const closing = yield* ConnectionPool.make(target, { onConnect: ({ close }) => close })
      strictEqual(
        (yield* Effect.flip(Effect.scoped(closing.get))).message,
        "handshake on [::1]:7000: the connection is closed"
      )
      const broken = yield* ConnectionPool.make(target, {
        onConnect: () => Effect.andThen(server.shutdown({ grace: 0 }), turns)
      })
      strictEqual(
        (yield* Effect.flip(Effect.scoped(broken.get))).message,
        "read on [::1]:7000: connection reset by peer (ECONNRESET)"
      )
    }))

  test("a check that fails, dies, takes too long, or leaves bytes costs the connection, not the borrower", () =>
    Effect.gen(function* () {
      const { server } = yield* serve()
      const checked: Array<Connection.Connection> = []
      let check: (connection: Connection.Connection) => Effect.Effect<unknown, unknown> = () => Effect.void
      const pool = yield* ConnectionPool.make(target, {
        max: 1,
        healthCheckTimeout: "1 second",
        healthCheck: (connection) => {
          checked.push(connection)
          return check(connection)
        }
      })
      const connectionOf = Effect.map(borrowed(pool), ({ connection }) => connection)
      let last = yield* connectionOf
      strictEqual(checked.length, 0)
      strictEqual(yield* connectionOf, last)
      deepStrictEqual(checked, [last])
      const bad: ReadonlyArray<typeof check> = [
        () => Effect.fail("unwell"),
        () => Effect.die("very unwell"),
        () => Effect.never,
        ({ writer }) => Effect.andThen(writer.write("PING"), turns)
      ]
      for (check of bad) {
        const getting = yield* start(connectionOf)
        yield* turns
        if (outcome(getting) === "waiting") yield* advance("1 second")
        const next = yield* Fiber.join(getting.fiber)
        assertTrue(next !== last)
        strictEqual(checked.at(-1), last)
        strictEqual(yield* server.activeConnections, 1)
        last = next
      }
      deepStrictEqual(yield* numbers(pool), [0, 1, 0, 5, 4])
    }))

  test("a check that is interrupted costs the connection", () =>
    Effect.gen(function* () {
      yield* serve()
      const pool = yield* ConnectionPool.make(target, { healthCheck: () => Effect.never })
      yield* borrowed(pool)
      const getting = yield* start(pool.use(() => Effect.void))
      yield* turns
      strictEqual(outcome(getting), "waiting")
      yield* getting.interrupt
      yield* turns
      deepStrictEqual(yield* numbers(pool), [0, 0, 0, 1, 1])
    }))
})

/** Borrows and gives back. */
const borrowed = (pool: Pool) => Effect.tap(borrow(pool), ({ giveBack }) => giveBack)

describe("the end of a pool", () => {
  test("well: it waits for what is lent, and turns away who asks", () =>
    Effect.gen(function* () {
      const { server } = yield* serve()
      const scope = yield* Scope.make()
      const pool = yield* Scope.provide(ConnectionPool.make(target, { max: 1 }), scope)
      const lent = yield* borrow(pool)
      const waiting = yield* start(pool.use(() => Effect.void))
      const ending = yield* start(Scope.close(scope, Exit.void))
      yield* turns
      strictEqual(outcome(ending), "waiting")
      deepStrictEqual(
        [outcome(waiting), yield* outcomeOf(ask(pool, "x"))],
        ["ConnectionClosed", "ConnectionClosed"]
      )
      yield* lent.connection.writer.write("goodbye")
      yield* lent.connection.reader.readExactly(7)
      yield* lent.giveBack
      strictEqual(outcome(ending), "success")
      strictEqual(yield* server.activeConnections, 0)
      strictEqual((yield* pool.stats).evicted, 0)
    }))

  test("well: it closes what was never lent, also while it waits", () =>
    Effect.gen(function* () {
      const { server } = yield* serve()
      const scope = yield* Scope.make()
      const pool = yield* Scope.provide(ConnectionPool.make(target, { min: 3 }), scope)
      const lent = yield* borrow(pool)
      yield* turns
      strictEqual(yield* server.activeConnections, 3)
      const ending = yield* start(Scope.close(scope, Exit.void))
      yield* turns
      deepStrictEqual([outcome(ending), yield* server.activeConnections], ["waiting", 1])
      yield* lent.giveBack
      deepStrictEqual([outcome(ending), yield* server.activeConnections], ["success", 0])
    }))

  test("badly: all connections are aborted at once", () =>
    Effect.gen(function* () {
      const ends: Array<string> = []
      let attempts = 0
      yield* serve((_) => Effect.map(outcomeOf(_.reader.readAll()), (end) => ends.push(end)))
      const scope = yield* Scope.make()
      const pool = yield* Scope.provide(
        ConnectionPool.make(target, { min: 2, onConnect: () => Effect.sync(() => attempts++) }),
        scope
      )
      const lent = yield* borrow(pool)
      yield* advance("1 minute")
      attempts = 0
      const open = ends.length
      const ending = yield* start(Scope.close(scope, Exit.fail("failed")))
      yield* turns
      deepStrictEqual(ends.slice(open), ["ConnectionReset", "ConnectionReset"])
      // Nobody makes up for them.
      strictEqual(attempts, 0)
      yield* lent.giveBack
      strictEqual(outcome(ending), "success")
    }))

  test("a peer that does not close holds up the pool's end, and no borrower", () =>
    Effect.gen(function* () {
      const { server } = yield* serve(() => Effect.never)
      const scope = yield* Scope.make()
      const pool = yield* Scope.provide(
        ConnectionPool.make(target, { maxUses: 1, closeTimeout: "3 seconds" }),
        scope
      )
      strictEqual(outcome(yield* start(pool.use(() => Effect.void))), "waiting")
      yield* turns
      deepStrictEqual(yield* numbers(pool), [0, 0, 0, 1, 1])
      const ending = yield* start(Scope.close(scope, Exit.void))
      yield* advance("2999 millis")
      strictEqual(outcome(ending), "waiting")
      yield* advance("1 millis")
      strictEqual(outcome(ending), "success")
      yield* server.shutdown()
    }))

  test("badly: what is still being closed is aborted, too", () =>
    Effect.gen(function* () {
      const { server } = yield* serve(() => Effect.never)
      const scope = yield* Scope.make()
      const pool = yield* Scope.provide(ConnectionPool.make(target, { maxUses: 1 }), scope)
      yield* borrowed(pool)
      const ending = yield* start(Scope.close(scope, Exit.fail("failed")))
      yield* turns
      strictEqual(outcome(ending), "success")
      yield* server.shutdown({ grace: 0 })
    }))

  it.effect("interrupted at any step it leaves nothing behind", () =>
    Effect.gen(function* () {
      for (let steps = 0; steps < 60; steps++) {
        yield* withSleepers((sleepers) =>
          Effect.gen(function* () {
            const { server } = yield* serve()
            const client = yield* Effect.forkChild(
              Effect.scoped(
                Effect.gen(function* () {
                  const pool = yield* ConnectionPool.make(target, {
                    max: 2,
                    maxUses: 2,
                    maxAge: "1 minute",
                    healthCheck: ({ reader, writer }) =>
                      Effect.andThen(writer.write("PING\n"), reader.readLine)
                  })
                  yield* Effect.forEach(["a", "b", "c", "d", "e", "f"], (_) => ask(pool, _), {
                    concurrency: 3
                  })
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

describe("connections that are given up", () => {
  /** What a server does that never ends its direction: the client's close takes until it is aborted. */
  const deaf = ({ closed }: Connection.Connection) => Effect.ignore(closed)

  test("are closed in order while they are no more than max, and the oldest is aborted for one more", () =>
    Effect.gen(function* () {
      const { server } = yield* serve(deaf)
      const pool = yield* ConnectionPool.make(target, { max: 3, maxUses: 1, closeTimeout: "1 hour" })
      const connections: Array<Connection.Connection> = []
      for (let n = 1; n <= 20; n++) {
        connections.push((yield* borrowed(pool)).connection)
        deepStrictEqual(yield* numbers(pool), [0, 0, 0, n, n])
        strictEqual(yield* server.activeConnections, Math.min(n, 3))
      }
      const closing = yield* Effect.forEach(connections, ({ closed }) => start(closed))
      deepStrictEqual(
        closing.map((_) => outcome(_)),
        Array.from({ length: 20 }, (_, index) => (index < 17 ? "success" : "waiting"))
      )
      yield* advance("1 hour")
      deepStrictEqual(new Set(closing.map((_) => outcome(_))), new Set(["success"]))
    }))

  it.effect(
    "are as many as max beside as many that are open, however many there were: 10,000",
    () =>
      Effect.gen(function* () {
        let [open, most] = [0, 0]
        const count = (by: number) =>
          Effect.sync(() => {
            open += by
            most = Math.max(most, open)
          })
        yield* serve(deaf)
        const pool = yield* ConnectionPool.make(target, {
          max: 5,
          maxUses: 1,
          onConnect: ({ closed }) =>
            Effect.andThen(count(1), Effect.forkDetach(Effect.ensuring(Effect.ignore(closed), count(-1))))
        })
        yield* Effect.forEach(Array.from({ length: 10_000 }), () => pool.use(() => Effect.void), {
          concurrency: 20,
          discard: true
        })
        deepStrictEqual(yield* numbers(pool), [0, 0, 0, 10_000, 10_000])
        yield* turns
        deepStrictEqual([most, open], [10, 5])
        yield* advance("5 seconds")
        strictEqual(open, 0)
      }).pipe(Effect.scoped, Effect.provide(TestNetwork.layer)),
    120_000
  )

  test("all at once, because they were idle, are all closed in order", () =>
    Effect.gen(function* () {
      const ends: Array<string> = []
      yield* serve(({ reader }) => Effect.map(outcomeOf(reader.readAll()), (end) => ends.push(end)))
      const pool = yield* ConnectionPool.make(target, { max: 8, maxIdle: "1 second" })
      yield* Effect.scoped(Effect.replicateEffect(pool.get, 8))
      yield* advance("1 second")
      deepStrictEqual(
        ends,
        Array.from({ length: 8 }, () => "success")
      )
    }))
})

describe("a borrower that waits and is interrupted", () => {
  const ways: Record<string, ConnectionPool.Options<string>> = {
    "for the one that is lent": {},
    "for the one that is lent, which is checked": {
      healthCheck: ({ reader, writer }) => Effect.andThen(writer.write("PING\n"), reader.readLine)
    },
    "for the one that is lent, which is lent only once": { maxUses: 1 },
    "for the one that is lent, beside a minimum": { min: 1 }
  }
  for (const [name, options] of Object.entries(ways)) {
    test(`${name}, loses it for nobody, at any step`, () =>
      Effect.gen(function* () {
        const { server } = yield* serve()
        const pool = yield* ConnectionPool.make(target, { ...options, max: 1 })
        const ends = new Set<string>()
        for (let steps = 0; steps < 60; steps++) {
          const scope = yield* Scope.make()
          yield* Scope.provide(pool.get, scope)
          const [waiting, next] = [yield* start(ask(pool, "a")), yield* start(ask(pool, "b"))]
          yield* turns
          yield* start(Scope.close(scope, Exit.void))
          for (let step = 0; step < steps; step++) yield* Effect.yieldNow
          yield* waiting.interrupt
          ends.add(outcome(waiting))
          yield* turns
          deepStrictEqual([outcome(next), (yield* pool.stats).waiting], ["success", 0], `${steps} steps`)
          assertTrue((yield* server.activeConnections) <= 1)
        }
        deepStrictEqual(ends, new Set(["interrupted", "success"]))
      }))
  }

  for (const result of ["success", "not today"] as const) {
    test(`for a connection on its way that comes to ${result}, loses nothing, at any step`, () =>
      Effect.gen(function* () {
        const { server } = yield* serve()
        for (const min of [0, 1]) {
          for (let steps = 0; steps < 30; steps++) {
            let attempts = 0
            const mayEnd = Latch.makeUnsafe()
            yield* Effect.gen(function* () {
              const pool = yield* ConnectionPool.make(target, {
                min,
                max: 1,
                onConnect: () => {
                  const end = result === "success" || attempts > 0 ? Effect.void : Effect.fail(result)
                  attempts++
                  return Effect.andThen(mayEnd.await, end)
                }
              })
              const [waiting, next] = [yield* start(ask(pool, "a")), yield* start(ask(pool, "b"))]
              yield* turns
              yield* start(mayEnd.open)
              for (let step = 0; step < steps; step++) yield* Effect.yieldNow
              yield* waiting.interrupt
              yield* turns
              assertTrue(["interrupted", "success", result].includes(outcome(waiting)))
              // The failure is one borrower's: whoever is left of the two.
              assertTrue(outcome(next) === "success" || outcome(next) === result, outcome(next))
              deepStrictEqual(yield* ask(pool, "c"), Option.some("c"))
              strictEqual((yield* pool.stats).waiting, 0)
            }).pipe(Effect.scoped)
            yield* turns
            strictEqual(yield* server.activeConnections, 0)
          }
        }
      }))
  }
})

describe("metrics", () => {
  test("tell a pool's numbers by its name, as long as there is the pool", () =>
    Effect.gen(function* () {
      yield* serve()
      const collected = Effect.map(Metric.snapshot, (all) =>
        all
          .filter(({ id }) => id.startsWith("effect_wire_pool_"))
          .map(({ attributes, id, state }) => `${id} ${attributes?.["pool"]} ${JSON.stringify(state)}`)
          .sort()
      )
      yield* Effect.scoped(
        Effect.gen(function* () {
          const pool = yield* ConnectionPool.make(target, { max: 1, name: "greetings" })
          const lent = yield* borrow(pool)
          yield* lent.fail
          yield* borrow(pool)
          yield* start(pool.get)
          yield* turns
          deepStrictEqual(yield* collected, [
            'effect_wire_pool_created greetings {"count":2,"incremental":true}',
            'effect_wire_pool_evicted greetings {"count":1,"incremental":true}',
            'effect_wire_pool_idle greetings {"value":0}',
            'effect_wire_pool_in_use greetings {"value":1}',
            'effect_wire_pool_waiting greetings {"value":1}'
          ])
        })
      )
      deepStrictEqual(yield* collected, [])
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))
})

/** What a test's `borrow` takes, of pools for many targets. */
const poolOf = (pools: ConnectionPool.Keyed<unknown>): Pool => ({
  [ConnectionPool.TypeId]: ConnectionPool.TypeId,
  get: pools.get(target),
  use: (f) => pools.use(target, f),
  stats: Effect.die("not needed")
})

describe("makeKeyed", () => {
  test("keeps a pool for each target, until it was not asked for some time", () =>
    Effect.gen(function* () {
      const one = yield* serve(echo, 7001)
      const two = yield* serve(echo, 7002)
      const pools = yield* ConnectionPool.makeKeyed({ targetIdle: "30 seconds" })
      const askAt = (port: number) =>
        pools.use({ host: "localhost", port }, ({ reader, writer }) =>
          Effect.andThen(writer.write("x\n"), reader.readLine)
        )
      for (const port of [7001, 7002, 7001]) yield* askAt(port)
      const created = Effect.map(pools.stats, (all) => all.map(([target, stats]) => [target, stats.created]))
      deepStrictEqual(yield* created, [
        [{ host: "localhost", port: 7001 }, 1],
        [{ host: "localhost", port: 7002 }, 1]
      ])
      yield* advance("20 seconds")
      yield* askAt(7002)
      yield* advance("10 seconds")
      deepStrictEqual(yield* created, [[{ host: "localhost", port: 7002 }, 1]])
      strictEqual(yield* one.server.activeConnections, 0)
      strictEqual(yield* two.server.activeConnections, 1)
      strictEqual(yield* outcomeOf(pools.use("localhost:7003", () => Effect.void)), "ConnectionRefused")
    }))

  test("takes what means the same for one target", () =>
    Effect.gen(function* () {
      yield* serve()
      const pools = yield* ConnectionPool.makeKeyed()
      const targets: ReadonlyArray<Network.Target> = [
        "localhost:7000",
        { host: "localhost", port: 7000 },
        { host: "LocalHost", port: 7000 },
        "127.0.0.1:7000",
        { host: "127.0.0.1", port: 7000 },
        NetAddress.inetAddressUnsafe(NetAddress.ipv4Loopback, 7000),
        "[::1]:7000",
        "[0:0::1]:7000"
      ]
      for (const target of targets) yield* pools.use(target, () => Effect.void)
      deepStrictEqual(
        (yield* pools.stats).map(([target, { created }]) => [target, created]),
        [
          ["localhost:7000", 1],
          ["127.0.0.1:7000", 1],
          ["[::1]:7000", 1]
        ]
      )
      // A path is no host, and what is no address is a failure, each time.
      for (let n = 0; n < 2; n++) {
        strictEqual(yield* outcomeOf(pools.use({ path: "localhost:7000" }, () => Effect.void)), "NotFound")
        strictEqual(yield* outcomeOf(pools.use("localhost", () => Effect.void)), "InvalidAddress")
      }
    }))

  /** A server that every address leads to, and that never ends its direction. */
  const everywhere = Effect.map(
    serve(({ closed }) => Effect.ignore(closed)),
    ({ server }) => server
  )
  const address = (n: number, port = 7000) => `10.0.${n >> 8}.${n & 255}:${port}`

  test("keeps no more than maxTargets that nobody uses: those that were used last", () =>
    Effect.gen(function* () {
      yield* serve()
      const pools = yield* ConnectionPool.makeKeyed({ maxTargets: 3 })
      const targets = Effect.map(pools.stats, (all) => all.map(([target]) => target))
      const scope = yield* Scope.fork(yield* Effect.scope)
      yield* Scope.provide(pools.get(address(0)), scope)
      for (const n of [1, 2, 3, 1, 4]) yield* pools.use(address(n), () => Effect.void)
      deepStrictEqual(yield* targets, [address(0), address(1), address(4)])
      // More than that only while they are in use.
      const others = yield* Effect.forEach([5, 6, 7], (n) =>
        Effect.map(Effect.flatMap(Effect.scope, Scope.fork), (scope) => ({ n, scope }))
      )
      for (const { n, scope } of others) yield* Scope.provide(pools.get(address(n)), scope)
      deepStrictEqual(
        yield* targets,
        [0, 5, 6, 7].map((n) => address(n))
      )
      yield* Scope.close(scope, Exit.void)
      deepStrictEqual(
        yield* targets,
        [5, 6, 7].map((n) => address(n))
      )
      for (const { scope } of others) yield* Scope.close(scope, Exit.void)
      deepStrictEqual(
        yield* targets,
        [5, 6, 7].map((n) => address(n))
      )
    }))

  const port = (n: number) => `localhost:${7000 + n}`

  const serveAll = (count: number) =>
    Effect.forEach(Array.from({ length: count }), (_, n) =>
      Effect.map(serve(echo, 7000 + n), ({ server }) => server)
    )

  test("has no more than maxTotal connections: the one that was idle for longest makes room", () =>
    Effect.gen(function* () {
      const servers = yield* serveAll(4)
      const pools = yield* ConnectionPool.makeKeyed({ maxTotal: 3 })
      const active = Effect.forEach(servers, (server) => server.activeConnections)
      for (const n of [0, 1, 2, 0]) {
        yield* pools.use(port(n), () => Effect.void)
        yield* advance(1)
      }
      deepStrictEqual(yield* active, [1, 1, 1, 0])
      yield* pools.use(port(3), () => Effect.void)
      yield* turns
      deepStrictEqual(yield* active, [1, 0, 1, 1])
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* Effect.replicateEffect(pools.get(port(1)), 3)
          yield* turns
          deepStrictEqual(yield* active, [0, 3, 0, 0])
        })
      )
    }))

  test("has borrowers wait in their order when maxTotal connections are in use, whatever their targets", () =>
    Effect.gen(function* () {
      const servers = yield* serveAll(3)
      const pools = yield* ConnectionPool.makeKeyed({ maxTotal: 2, acquireTimeout: "5 seconds" })
      const borrowAt = (n: number) => borrow({ ...poolOf(pools), get: pools.get(port(n)) })
      const lent = [yield* borrowAt(0), yield* borrowAt(0)]
      const waiting = yield* Effect.forEach([1, 0, 2], (n) => start(borrowAt(n)))
      yield* advance("3 seconds")
      const late = yield* start(borrowAt(2))
      yield* lent[0]?.giveBack ?? Effect.void
      deepStrictEqual(waiting.map(outcome), ["success", "waiting", "waiting"])
      yield* lent[1]?.giveBack ?? Effect.void
      deepStrictEqual(waiting.map(outcome), ["success", "success", "waiting"])
      deepStrictEqual(yield* Effect.forEach(servers, (_) => _.activeConnections), [1, 1, 0])
      yield* advance("2 seconds")
      const [, , third] = waiting
      strictEqual(
        String(third === undefined ? "" : yield* Effect.flip(Fiber.join(third.fiber))),
        "effect-wire/TimeoutError: acquire on localhost:7002: timed out after 5s; all 2 connections of all targets (`maxTotal`) are in use" +
          remedies.raise("acquireTimeout")
      )
      for (const { fiber } of waiting.slice(0, 2)) yield* (yield* Fiber.join(fiber)).giveBack
      strictEqual(outcome(late), "success")
    }))

  test("makes no room for a minimum, and makes it when there is some", () =>
    Effect.gen(function* () {
      const servers = yield* serveAll(2)
      const active = Effect.forEach(servers, (server) => server.activeConnections)
      const pools = yield* ConnectionPool.makeKeyed({ min: 2, maxTotal: 3, targetIdle: "10 seconds" })
      const scope = yield* Scope.fork(yield* Effect.scope)
      yield* Scope.provide(pools.get(port(0)), scope)
      yield* pools.get(port(1))
      yield* advance("1 minute")
      deepStrictEqual(yield* active, [2, 1])
      yield* Scope.close(scope, Exit.void)
      yield* advance("40 seconds")
      deepStrictEqual(yield* active, [0, 2])
    }))

  test("gets nobody stuck where many targets share one connection", () =>
    Effect.gen(function* () {
      const servers = yield* serveAll(5)
      const pools = yield* ConnectionPool.makeKeyed({ maxTotal: 1 })
      let [open, most] = [0, 0]
      const use = (n: number) =>
        pools.use(port(n % 5), ({ reader, writer }) =>
          Effect.gen(function* () {
            most = Math.max(most, ++open)
            yield* writer.write("x\n")
            yield* reader.readLine
            open--
          })
        )
      yield* Effect.forEach(
        Array.from({ length: 200 }, (_, n) => n),
        use,
        { concurrency: 20, discard: true }
      )
      strictEqual(most, 1)
      yield* turns
      const active = yield* Effect.forEach(servers, (server) => server.activeConnections)
      strictEqual(
        active.reduce((sum, n) => sum + n),
        1
      )
    }))

  test("closes no more than maxTotal connections at a time, whatever their targets", () =>
    Effect.gen(function* () {
      const server = yield* everywhere
      const pools = yield* ConnectionPool.makeKeyed({ maxTotal: 4, closeTimeout: "1 hour" })
      for (let n = 0; n < 50; n++) {
        yield* pools.use(address(n), () => Effect.void)
        yield* turns
        strictEqual(yield* server.activeConnections, Math.min(n + 1, 8))
      }
      yield* server.shutdown({ grace: 0 })
    }))

  test("has no borrower wait for the end of a pool, and ends them at the same time", () =>
    Effect.gen(function* () {
      yield* everywhere
      const scope = yield* Scope.make()
      const pools = yield* Scope.provide(
        ConnectionPool.makeKeyed({ targetIdle: 0, closeTimeout: "3 seconds" }),
        scope
      )
      const using = yield* start(pools.use(address(1), () => Effect.void))
      yield* turns
      deepStrictEqual([outcome(using), yield* pools.stats], ["success", []])
      for (let n = 2; n < 20; n++) yield* pools.use(address(n), () => Effect.void)
      const ending = yield* start(Scope.close(scope, Exit.void))
      yield* advance("2999 millis")
      strictEqual(outcome(ending), "waiting")
      yield* advance("1 millis")
      strictEqual(outcome(ending), "success")
      strictEqual(yield* outcomeOf(pools.use(address(1), () => Effect.void)), "ConnectionClosed")
    }))

  test("aborts also the pools that are ending already when its scope fails", () =>
    Effect.gen(function* () {
      const server = yield* everywhere
      const scope = yield* Scope.make()
      const pools = yield* Scope.provide(ConnectionPool.makeKeyed({ targetIdle: 0 }), scope)
      yield* pools.use(address(1), () => Effect.void)
      yield* turns
      strictEqual(yield* server.activeConnections, 1)
      const ending = yield* start(Scope.close(scope, Exit.fail("failed")))
      yield* turns
      deepStrictEqual([outcome(ending), yield* server.activeConnections], ["success", 0])
    }))

  it.effect("leaves nothing of 500 targets: no fiber, no timer, no metric", () =>
    withFibers((fibers) =>
      withSleepers((sleepers) =>
        Effect.gen(function* () {
          yield* serve(({ reader }) => Effect.ignore(reader.read()))
          const pools = yield* ConnectionPool.makeKeyed({ min: 1, maxTargets: 100 })
          yield* advance(1)
          const before = [fibers(), sleepers()]
          // One of ten has a server.
          const use = (n: number) =>
            outcomeOf(pools.use(address(n, n % 10 === 0 ? 7000 : 7001), () => Effect.void))
          const ends = yield* Effect.forEach(
            Array.from({ length: 500 }, (_, n) => n),
            use,
            { concurrency: 10 }
          )
          strictEqual(ends.filter((_) => _ === "success").length, 50)
          strictEqual((yield* pools.stats).length, 100)
          yield* advance("1 minute")
          deepStrictEqual(yield* pools.stats, [])
          deepStrictEqual([fibers(), sleepers()], before)
          deepStrictEqual(
            (yield* Metric.snapshot).filter(({ id }) => id.startsWith("effect_wire_pool_")),
            []
          )
        })
      )
    ).pipe(
      Effect.scoped,
      Effect.provide(TestNetwork.layer),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  )

  it("any history of borrowers of many targets loses no place of maxTotal, and leaves nothing behind", () =>
    fc.assert(
      fc.asyncProperty(
        fc.record({
          max: fc.integer({ min: 1, max: 2 }),
          maxTotal: fc.integer({ min: 1, max: 4 }),
          min: fc.nat(1),
          maxTargets: fc.integer({ min: 1, max: 3 }),
          targetIdle: fc.constantFrom<Duration.Input>(0, "2 seconds"),
          maxUses: fc.constantFrom(1, 2, Infinity)
        }),
        fc.array(
          fc.oneof(
            fc.record({ borrow: fc.nat(3) }),
            fc.record({ end: fc.nat(5), well: fc.boolean() }),
            fc.record({ steps: fc.nat(10) }),
            fc.record({ wait: fc.integer({ min: 1, max: 3000 }) })
          ),
          { maxLength: 40 }
        ),
        (options, events) =>
          withSleepers((sleepers) =>
            Effect.gen(function* () {
              const servers = yield* serveAll(3)
              const active = Effect.map(
                Effect.forEach(servers, (server) => server.activeConnections),
                (all) => all.reduce((sum, n) => sum + n)
              )
              const scope = yield* Scope.make()
              const pools = yield* Scope.provide(
                ConnectionPool.makeKeyed({ ...options, acquireTimeout: "1 second" }),
                scope
              )
              // The fourth target has no server.
              const borrowAt = (n: number) => borrow({ ...poolOf(pools), get: pools.get(port(n)) })
              const borrowers: Borrowers = []
              for (const event of events) {
                if ("borrow" in event) borrowers.push(yield* start(borrowAt(event.borrow)))
                else if ("end" in event) yield* endBorrower(borrowers, event.end, event.well)
                else if ("wait" in event) yield* advance(event.wait)
                else yield* Effect.replicateEffect(Effect.yieldNow, event.steps)
                const stats = (yield* pools.stats).map(([, { idle, inUse }]) => idle + inUse)
                assertTrue(stats.reduce((sum, n) => sum + n, 0) <= options.maxTotal)
              }
              while (borrowers.length > 0) yield* endBorrower(borrowers, 0, true)
              yield* turns
              // Every place is there.
              yield* Effect.scoped(
                Effect.gen(function* () {
                  const want = Math.min(options.maxTotal, 3 * options.max)
                  const getting = yield* Effect.forEach(Array.from({ length: want }), (_, n) =>
                    start(pools.get(port(n % 3)))
                  )
                  yield* turns
                  deepStrictEqual(new Set(getting.map(outcome)), new Set(["success"]))
                  strictEqual(yield* active, want)
                })
              )
              yield* Scope.close(scope, Exit.void)
              yield* turns
              deepStrictEqual([yield* active, sleepers()], [0, 0])
            })
          ).pipe(Effect.scoped, Effect.provide([TestClock.layer(), TestNetwork.layer]), Effect.runPromise)
      ),
      { numRuns: 100 }
    ))

  it.effect("interrupted at any step leaves nothing behind", () =>
    Effect.gen(function* () {
      for (let steps = 0; steps < 60; steps++) {
        yield* withSleepers((sleepers) =>
          Effect.gen(function* () {
            const server = yield* everywhere
            const client = yield* Effect.forkChild(
              Effect.scoped(
                Effect.gen(function* () {
                  const pools = yield* ConnectionPool.makeKeyed({
                    min: 1,
                    max: 2,
                    maxTargets: 2,
                    targetIdle: 0
                  })
                  yield* Effect.forEach(
                    [1, 2, 3, 1, 2, 3],
                    (n) => pools.use(address(n), () => Effect.yieldNow),
                    {
                      concurrency: 3
                    }
                  )
                  yield* Effect.never
                })
              )
            )
            for (let step = 0; step < steps; step++) yield* Effect.yieldNow
            yield* Fiber.interrupt(client)
            yield* turns
            deepStrictEqual([yield* server.activeConnections, sleepers()], [0, 0], `after ${steps} steps`)
          })
        ).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))
      }
    })
  )

  test("a layer provides one", () =>
    Effect.gen(function* () {
      yield* serve()
      const asking = Effect.gen(function* () {
        const pools = yield* ConnectionPool.Keyed
        return yield* pools.use(target, ({ reader, writer }) =>
          Effect.andThen(writer.write("hello\n"), reader.readLineString)
        )
      })
      strictEqual(
        String(yield* Effect.provide(asking, Connection.layerKeyedPool({ max: 2 }))),
        'some("hello")'
      )
    }))

  test("aborts everything when its scope fails", () =>
    Effect.gen(function* () {
      const ends: Array<string> = []
      yield* serve((_) => Effect.map(outcomeOf(_.reader.readAll()), (end) => ends.push(end)))
      const scope = yield* Scope.make()
      const pools = yield* Scope.provide(ConnectionPool.makeKeyed(), scope)
      yield* pools.use(target, () => Effect.void)
      yield* Scope.close(scope, Exit.fail("failed"))
      yield* turns
      deepStrictEqual(ends, ["ConnectionReset"])
      strictEqual((yield* pools.stats).length, 0)
    }))
})

describe("the end of a pool", () => {
  it.effect("at any step of giving up what was idle for too long leaves no connection behind", () =>
    Effect.gen(function* () {
      // A fiber that has done much gives way to others at any step.
      for (const ops of [4, 5, 7]) {
        for (let steps = 0; steps < 20; steps++) {
          yield* Effect.gen(function* () {
            const { server } = yield* serve()
            const scope = yield* Scope.make()
            yield* ConnectionPool.make(target, { min: 1, maxIdle: "1 second" }).pipe(
              Scope.provide(scope),
              Effect.provideService(References.MaxOpsBeforeYield, ops)
            )
            yield* turns
            yield* turns
            strictEqual(yield* server.activeConnections, 1)
            yield* start(TestClock.adjust("1 second"))
            yield* Effect.replicateEffect(Effect.yieldNow, steps)
            yield* start(Scope.close(scope, Exit.void))
            yield* Effect.repeat(turns, { times: 5 })
            strictEqual(yield* server.activeConnections, 0, `after ${steps} steps of ${ops}`)
          }).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))
        }
      }
    })
  )
})

describe("any history of a pool", () => {
  const event = fc.oneof(
    fc.constantFrom(
      "borrow",
      "borrow",
      "borrow",
      "give back",
      "fail",
      "break",
      "server aborts",
      "server stops",
      "server starts"
    ),
    fc.integer({ min: 1, max: 4000 })
  )
  const options = fc.record({
    min: fc.nat(2),
    max: fc.integer({ min: 2, max: 3 }),
    maxUses: fc.constantFrom(1, 3, Infinity),
    maxAge: fc.constantFrom<Duration.Input>("5 seconds", Duration.infinity),
    maxIdle: fc.constantFrom<Duration.Input>("3 seconds", Duration.infinity),
    checked: fc.boolean()
  })

  it("connects that take their time or fail are never more than max, and get nobody stuck", () =>
    fc.assert(
      fc.asyncProperty(
        fc.record({
          min: fc.nat(2),
          max: fc.integer({ min: 2, max: 3 }),
          maxUses: fc.constantFrom(1, Infinity)
        }),
        fc.array(fc.record({ takes: fc.nat(3000), fails: fc.boolean() }), { maxLength: 20 }),
        fc.array(
          fc.oneof(
            fc.constant("borrow" as const),
            fc.record({ end: fc.nat(5), well: fc.boolean() }),
            fc.integer({ min: 1, max: 4000 })
          ),
          { maxLength: 30 }
        ),
        (options, connects, events) =>
          withSleepers((sleepers) =>
            Effect.gen(function* () {
              const { server } = yield* serve()
              const scope = yield* Scope.make()
              const pool = yield* Scope.provide(
                ConnectionPool.make(target, {
                  ...options,
                  acquireTimeout: "2 seconds",
                  onConnect: () => {
                    const { fails, takes } = connects.shift() ?? { takes: 0, fails: false }
                    return Effect.andThen(Effect.sleep(takes), fails ? Effect.fail("not today") : Effect.void)
                  }
                }),
                scope
              )
              const borrowers: Borrowers = []
              for (const event of events) {
                if (event === "borrow") borrowers.push(yield* start(borrow(pool)))
                else if (typeof event === "number") yield* advance(event)
                else yield* endBorrower(borrowers, event.end, event.well)
                yield* turns
                assertTrue((yield* server.activeConnections) <= options.max)
              }
              while (borrowers.length > 0) yield* endBorrower(borrowers, 0, true)
              connects.length = 0
              yield* advance("31 seconds")
              assertTrue((yield* pool.stats).idle >= options.min)
              const all = yield* Effect.forEach(Array.from({ length: options.max }), () =>
                start(borrow(pool))
              )
              yield* turns
              deepStrictEqual(new Set(all.map(outcome)), new Set(["success"]))
              for (const { fiber } of all) yield* (yield* Fiber.join(fiber)).giveBack
              yield* Scope.close(scope, Exit.void)
              yield* turns
              deepStrictEqual([yield* server.activeConnections, sleepers()], [0, 0])
            })
          ).pipe(Effect.scoped, Effect.provide([TestClock.layer(), TestNetwork.layer]), Effect.runPromise)
      ),
      { numRuns: 150 }
    ))

  it("no connection has two borrowers, or is lent broken; never more than max, in the end the minimum; nothing is left", () =>
    fc.assert(
      fc.asyncProperty(options, fc.array(event, { maxLength: 40 }), ({ checked, ...options }, events) =>
        withSleepers((sleepers) =>
          Effect.gen(function* () {
            const peers = new Set<Connection.Connection>()
            const handler = (connection: Connection.Connection) => {
              peers.add(connection)
              return Effect.ensuring(
                echo(connection),
                Effect.sync(() => peers.delete(connection))
              )
            }
            let server: Effect.Success<ReturnType<typeof serve>> | undefined = yield* serve(handler)
            const scope = yield* Scope.make()
            const pool = yield* Scope.provide(
              ConnectionPool.make(target, {
                ...options,
                acquireTimeout: "1 second",
                healthCheck: ({ reader, writer }) =>
                  checked ? Effect.andThen(writer.write("PING\n"), reader.readLine) : Effect.void
              }),
              scope
            )
            const lent: Array<Loan> = []
            const given = new Set<Connection.Connection>()

            const borrowOne = Effect.gen(function* () {
              const borrowing = yield* start(borrow(pool))
              yield* turns
              if (lent.length === options.max) {
                strictEqual(outcome(borrowing), "waiting")
                yield* advance("1 second")
                strictEqual(outcome(borrowing), "TimeoutError acquire")
              } else if (server === undefined) {
                strictEqual(outcome(borrowing), "ConnectionRefused")
              } else {
                const loan = yield* Fiber.join(borrowing.fiber)
                assertTrue(!given.has(loan.connection))
                given.add(loan.connection)
                lent.push(loan)
                yield* loan.connection.writer.write("question\n")
                strictEqual(String(yield* loan.connection.reader.readLineString), 'some("question")')
              }
            })
            const returnOne = Effect.fnUntraced(function* (event: "give back" | "fail" | "break") {
              const loan = lent.shift()
              if (loan === undefined) return
              given.delete(loan.connection)
              if (event === "break") yield* Effect.ignore(loan.connection.writer.write("unread"))
              yield* event === "fail" ? loan.fail : loan.giveBack
            })

            for (const event of events) {
              yield* turns
              if (typeof event === "number") yield* advance(event)
              else if (event === "borrow") yield* borrowOne
              else if (event === "server aborts") {
                for (const peer of [...peers].slice(0, 1)) yield* peer.abort
              } else if (event === "server stops") {
                yield* server?.kill ?? Effect.void
                server = undefined
              } else if (event === "server starts") server ??= yield* serve(handler)
              else yield* returnOne(event)
              yield* turns
              const stats = yield* pool.stats
              strictEqual(stats.inUse, lent.length)
              assertTrue(stats.inUse + stats.idle <= options.max)
              strictEqual(stats.created - stats.evicted, stats.inUse + stats.idle)
              // What is idle is whole; what is lent may have broken.
              assertTrue(peers.size >= stats.idle && peers.size <= options.max, String(peers.size))
            }
            // Whatever has happened: half a minute after the server is well, the minimum is there.
            server ??= yield* serve(handler)
            yield* advance("31 seconds")
            const { idle, inUse } = yield* pool.stats
            assertTrue(inUse + idle >= options.min, `${inUse} + ${idle}`)
            for (const { giveBack } of lent) yield* giveBack
            yield* Scope.close(scope, Exit.void)
            yield* turns
            deepStrictEqual([yield* server.server.activeConnections, sleepers()], [0, 0])
          })
        ).pipe(Effect.scoped, Effect.provide([TestClock.layer(), TestNetwork.layer]), Effect.runPromise)
      ),
      { numRuns: 150 }
    ))
})
