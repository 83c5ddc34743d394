import { describe, it } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Deferred, Effect, Exit, Fiber, type Scope } from "effect"
import { Connection, type Network, StreamError } from "effect-wire"
import { NodeConnection, NodeNetwork } from "effect-wire/node"
import { TestClock } from "effect/testing"
import type { Duplex } from "node:stream"
import { connect, outcome, outcomeOf, pair, start, turns } from "../support/effects.ts"
import { event, leavingNothing, loops, rawServer } from "../support/sockets.ts"

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

const reset = new StreamError.ConnectionError({
  operation: "read",
  reason: new StreamError.ConnectionReset({ code: "ECONNRESET" })
})

/** Everything that a stream of Node tells, and the error that it ends with. */
const listen = (duplex: Duplex) => {
  const heard: Array<string> = []
  let failure: unknown
  duplex.on("data", (chunk: Uint8Array) => heard.push(text(chunk)))
  for (const name of ["end", "close"]) duplex.on(name, () => heard.push(name))
  duplex.on("error", (error) => {
    failure = error
    heard.push("error")
  })
  return { heard, failure: () => failure }
}

describe("NodeConnection.toDuplex", () => {
  it.effect("fails with the connection's own error, after what came before it", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      const { failure, heard } = listen(yield* NodeConnection.toDuplex(connection))
      transport.receive("before")
      yield* turns
      transport.letGo(reset)
      yield* turns
      deepStrictEqual(heard, ["before", "error", "close"])
      strictEqual(failure(), reset)
    })
  )

  it.effect("fails so if nobody reads, too, or has read to the end of input", () =>
    Effect.gen(function* () {
      for (const ended of [false, true]) {
        const { connection, transport } = yield* connect()
        const duplex = yield* NodeConnection.toDuplex(connection)
        const { failure, heard } = listen(duplex.pause())
        if (ended) {
          duplex.resume()
          transport.receiveEnd()
        }
        yield* turns
        transport.letGo(reset)
        yield* turns
        deepStrictEqual(heard, [...(ended ? ["end"] : []), "error", "close"])
        strictEqual(failure(), reset)
      }
    })
  )

  it.effect("a limit of the connection that passes is its TimeoutError", () =>
    Effect.gen(function* () {
      const [near] = yield* pair({ readTimeout: "1 second" })
      const { failure, heard } = listen(yield* NodeConnection.toDuplex(near))
      yield* turns
      yield* TestClock.adjust("1 second")
      yield* turns
      deepStrictEqual(heard, ["error", "close"])
      strictEqual(outcome(Exit.fail(failure())), "TimeoutError read")
    })
  )

  it.effect("a write that waits is failed with the connection's error", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect({}, { room: 0 })
      const duplex = yield* NodeConnection.toDuplex(connection)
      const written = yield* Deferred.make<unknown>()
      duplex.write("x", (error) => Deferred.doneUnsafe(written, Exit.succeed(error)))
      yield* turns
      transport.letGo(reset)
      strictEqual(outcome(Exit.fail(yield* Deferred.await(written))), "ConnectionReset")
    })
  )

  it.effect("a local close destroys it without an error", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const { heard } = listen(yield* NodeConnection.toDuplex(near))
      yield* Effect.all([near.close, far.close], { concurrency: "unbounded" })
      yield* turns
      deepStrictEqual(heard, ["close"])
    })
  )

  it.effect("does so behind the end of input, too, be it read by then or not", () =>
    Effect.gen(function* () {
      for (const isRead of [true, false]) {
        for (const error of [reset, undefined]) {
          const { connection, transport } = yield* connect()
          const duplex = yield* NodeConnection.toDuplex(connection)
          const { failure, heard } = listen(duplex)
          if (!isRead) {
            duplex.pause()
            duplex.read(0)
          }
          transport.receive("before")
          transport.receiveEnd()
          yield* turns
          const before = [...heard]
          if (error === undefined) yield* start(connection.close)
          transport.letGo(error)
          yield* turns
          duplex.resume()
          yield* turns
          deepStrictEqual(before, isRead ? ["before", "end"] : [])
          deepStrictEqual(heard, ["before", "end", ...(error === undefined ? [] : ["error"]), "close"])
          strictEqual(failure(), error)
        }
      }
    })
  )

  it.effect("its end closes a connection that cannot be ended alone, and does not abort it", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect({}, { canEnd: false, room: Infinity })
      const duplex = yield* NodeConnection.toDuplex(connection)
      const { heard } = listen(duplex)
      duplex.on("finish", () => heard.push("finish"))
      duplex.end("the last")
      yield* turns
      strictEqual(transport.calls.at(-1), "close")
      deepStrictEqual(heard, [])
      transport.letGo()
      yield* turns
      deepStrictEqual(heard, ["finish", "close"])
    })
  )

  it.effect("destroyed midway it aborts the connection; once both directions have ended it closes it", () =>
    Effect.gen(function* () {
      for (const [ends, expected] of [
        [false, "ConnectionReset"],
        [true, "success"]
      ] as const) {
        const [near, far] = yield* pair()
        const duplex = yield* NodeConnection.toDuplex(near)
        duplex.resume()
        if (ends) duplex.end()
        else duplex.destroy()
        if (ends) yield* far.writer.end
        const read = yield* outcomeOf(far.reader.readAll())
        yield* Effect.exit(near.closed)
        strictEqual(read, expected)
      }
    })
  )
})

const live = (name: string, body: () => Effect.Effect<void, unknown, Network.Network | Scope.Scope>) =>
  it.live(name, () =>
    leavingNothing(Effect.scoped(Effect.suspend(body))).pipe(Effect.provide(NodeNetwork.layer))
  )

describe("conversions over TCP", () => {
  live("a reset is the same typed failure, whatever the connection was turned into", () =>
    Effect.gen(function* () {
      const { next, port } = yield* rawServer()
      const open = Effect.gen(function* () {
        const connection = yield* Connection.connect({ host: "127.0.0.1", port })
        return { connection, socket: yield* next }
      })

      const first = yield* open
      const duplex = yield* NodeConnection.toDuplex(first.connection)
      duplex.resume()
      first.socket.resetAndDestroy()
      const failed = yield* Effect.callback<unknown>((resume) => {
        duplex.once("error", (error) => resume(Effect.succeed(error)))
      })
      strictEqual(outcome(Exit.fail(failed)), "ConnectionReset")

      const second = yield* open
      const { readable, writable } = yield* Connection.toWebStreams(second.connection)
      const reading = Effect.tryPromise({ try: () => readable.getReader().read(), catch: (error) => error })
      const writing = Effect.tryPromise({ try: () => writable.getWriter().closed, catch: (error) => error })
      const both = yield* Effect.forkChild(Effect.all([outcomeOf(reading), outcomeOf(writing)]), {
        startImmediately: true
      })
      second.socket.resetAndDestroy()
      deepStrictEqual(yield* Fiber.join(both), ["ConnectionReset", "ConnectionReset"])
    })
  )

  live("interrupting who holds the connection resets the peer, whatever it was turned into", () =>
    Effect.gen(function* () {
      const uses: Record<string, (connection: Connection.Connection) => Effect.Effect<unknown>> = {
        "a Node stream": (connection) =>
          Effect.map(NodeConnection.toDuplex(connection), (duplex) => duplex.resume()),
        "web streams": (connection) =>
          Effect.map(Connection.toWebStreams(connection), ({ readable }) => {
            readable.pipeTo(new WritableStream()).catch(() => {})
          })
      }
      const { next, port } = yield* rawServer()
      for (const [name, use] of Object.entries(uses)) {
        const holding = yield* start(
          Connection.connect({ host: "127.0.0.1", port }).pipe(
            Effect.tap(use),
            Effect.andThen(Effect.never),
            Effect.scoped
          )
        )
        const socket = yield* next
        const failed = yield* start(event(socket.resume(), "error"))
        yield* loops(5)
        yield* holding.interrupt
        yield* Fiber.join(failed.fiber)
        strictEqual(outcome(holding), "interrupted", name)
      }
    })
  )
})
