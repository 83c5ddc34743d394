import { it } from "@effect/vitest"
import { assertInstanceOf, assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import {
  Cause,
  Context,
  DateTime,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  pipe,
  Scope,
  Stream
} from "effect"
import {
  Connection,
  type ConnectionPool,
  Framed,
  Framing,
  MemoryTransport,
  Network,
  type Reconnect,
  type StreamError,
  type StreamReader,
  type StreamWriter
} from "effect-wire"
import { Lockstep } from "effect-wire/testing"
import { NetAddress } from "effect/net"
import { Socket } from "effect/socket"
import { TestClock } from "effect/testing"
import { describe, expectTypeOf } from "vitest"
import { aborting, connect, outcome, outcomeOf, pair, start, turns, withSleepers } from "./support/effects.ts"
import { makeFake } from "./support/FakeTransport.ts"

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)

const readText = (reader: StreamReader.StreamReader, max?: number) => Effect.map(reader.read(max), text)

const small = { watermarks: { high: 10, low: 2 } }

// A connection in a scope of its own, and its peer, which is aborted at the end of the test.
const scoped = Effect.fnUntraced(function* (options?: Connection.Options) {
  const [left, right] = yield* MemoryTransport.makePair()
  const scope = yield* Scope.make()
  const connection = yield* Scope.provide(Connection.make(left, options), scope)
  const peer = yield* Connection.make(right)
  yield* Effect.addFinalizer(() => peer.abort)
  return { scope, connection, peer }
})

// A network whose every connection is one end of a pair; the other ends are kept.
const network = Effect.fnUntraced(function* () {
  const peers: Array<Connection.Connection> = []
  const scope = yield* Effect.scope
  const unused = Effect.die(new Error("not used"))
  const service = Network.Network.of({
    connect: () =>
      Effect.gen(function* () {
        const [left, right] = yield* MemoryTransport.makePair()
        peers.push(yield* Scope.provide(Connection.make(right), scope))
        return left
      }),
    listen: () => unused
  })
  yield* Effect.addFinalizer(() => Effect.forEach(peers, (peer) => peer.abort))
  return {
    layer: Layer.succeed(Network.Network, service),
    peer: (n = 0) => peers[n] ?? peers[peers.length - 1]!
  }
})

describe("C: the life of a connection", () => {
  it.effect("C-003: isClosing is false before a close and true after it; closed completes", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      strictEqual(yield* left.writer.isClosing, false)
      const closed = yield* start(left.closed)
      const close = yield* start(left.close)
      strictEqual(yield* left.writer.isClosing, true)
      strictEqual(outcome(closed), "waiting")
      yield* right.close
      yield* Fiber.join(close.fiber)
      strictEqual(outcome(closed), "success")
      strictEqual(yield* left.writer.isClosing, true)
    })
  )

  it.effect("C-004: a close with unread bytes completes", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      yield* right.writer.write("unread")
      yield* turns
      strictEqual(yield* left.reader.bufferedBytes, 6)
      const close = yield* start(left.close)
      yield* right.close
      yield* Fiber.join(close.fiber)
      yield* left.closed
      strictEqual(yield* readText(left.reader), "unread")
    })
  )

  it.effect("C-005: closing twice, at once and later, does nothing more", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      transport.takeCalls()
      const closes = yield* Effect.all([start(connection.close), start(connection.close)])
      transport.receiveEnd()
      transport.letGo()
      yield* connection.close
      yield* connection.abort
      deepStrictEqual(closes.map(outcome), ["success", "success"])
      deepStrictEqual(transport.calls, ["end", "resume", "close"])
    })
  )

  it.effect("C-006: closed may be awaited any number of times, before and after", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      const before = yield* Effect.all([start(connection.closed), start(connection.closed)])
      yield* start(connection.close)
      transport.finish()
      deepStrictEqual(before.map(outcome), ["success", "success"])
      yield* connection.closed
      yield* connection.closed
    })
  )

  it.effect("C-007: the peer's end alone does not complete closed, a reset or the own close does", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const closed = yield* start(left.closed)
      yield* right.writer.end
      yield* turns
      strictEqual(text(yield* left.reader.readAll()), "")
      strictEqual(outcome(closed), "waiting")
      yield* start(left.close)
      yield* turns
      strictEqual(outcome(closed), "success")
      const [other, peer] = yield* pair()
      const reset = yield* start(other.closed)
      yield* peer.abort
      yield* turns
      strictEqual(outcome(reset), "ConnectionReset")
    })
  )

  it.effect("C-008: after a reset by the peer, closed fails with it and close succeeds", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      const error = transport.reset()
      deepStrictEqual(yield* Effect.exit(connection.closed), Exit.fail(error))
      yield* connection.close
      yield* connection.abort
      deepStrictEqual(yield* Effect.exit(connection.closed), Exit.fail(error))
      strictEqual(yield* connection.writer.isClosing, true)
    })
  )

  it.effect("C-009: after the peer's end this side may write, and is not closing", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      yield* right.writer.end
      strictEqual(text(yield* left.reader.read()), "")
      strictEqual(yield* left.writer.isClosing, false)
      yield* left.writer.write("still here")
      strictEqual(yield* readText(right.reader), "still here")
    })
  )

  it.effect("C-010: a connection whose peer ended lives until its scope ends", () =>
    Effect.gen(function* () {
      const { connection, peer, scope } = yield* scoped()
      yield* peer.writer.end
      yield* turns
      const closed = yield* start(connection.closed)
      yield* TestClock.adjust("1 day")
      strictEqual(outcome(closed), "waiting")
      yield* Scope.close(scope, Exit.void)
      strictEqual(outcome(closed), "success")
    })
  )

  it.effect("C-011: close waits until all that was written has arrived", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair({ watermarks: { high: 1 << 20 }, limit: 1000 })
      yield* left.writer.write("x".repeat(200_000))
      const close = yield* start(left.close)
      yield* turns
      strictEqual(outcome(close), "waiting")
      const all = yield* start(right.reader.readAll())
      yield* turns
      strictEqual((yield* Fiber.join(all.fiber)).length, 200_000)
      yield* right.close
      yield* Fiber.join(close.fiber)
    })
  )

  it.effect("C-012: close with a peer that never reads becomes an abort after closeTimeout", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair({
        watermarks: { high: 1 << 20 },
        limit: 1000,
        closeTimeout: "3 seconds"
      })
      yield* left.writer.write("x".repeat(200_000))
      const close = yield* start(left.close)
      yield* TestClock.adjust("2999 millis")
      strictEqual(outcome(close), "waiting")
      yield* TestClock.adjust("1 millis")
      yield* turns
      strictEqual(outcome(close), "success")
      yield* left.closed
      strictEqual(yield* outcomeOf(right.reader.readAll()), "ConnectionReset")
    })
  )

  it.effect("C-013: abort drops what is buffered, and refuses who waits, at once", () =>
    Effect.gen(function* () {
      const { connection, reader, transport, writer } = yield* connect(small)
      const first = yield* start(writer.write("0123456789ab"))
      const waiting = yield* Effect.all([start(writer.write("c")), start(writer.end), start(reader.read())])
      transport.takeCalls()
      const abort = yield* start(connection.abort)
      deepStrictEqual(transport.calls, ["abort"])
      deepStrictEqual(
        [first, ...waiting].map(outcome),
        Array.from({ length: 4 }, () => "ConnectionAborted")
      )
      strictEqual(yield* writer.isClosing, true)
      transport.letGo()
      strictEqual(outcome(abort), "success")
      yield* connection.closed
    })
  )

  it.effect("C-018: a scope that ends well closes: what was written arrives, then the end", () =>
    Effect.gen(function* () {
      const { connection, peer, scope } = yield* scoped()
      yield* connection.writer.write("bye")
      const end = yield* start(Scope.close(scope, Exit.void))
      strictEqual(text(yield* peer.reader.readAll()), "bye")
      strictEqual(outcome(end), "waiting")
      yield* peer.writer.end
      yield* Fiber.join(end.fiber)
      yield* peer.closed
    })
  )

  it.effect("C-020: a scope that fails aborts: the peer sees a reset", () =>
    Effect.gen(function* () {
      const { connection, peer, scope } = yield* scoped()
      yield* connection.writer.write("bye")
      yield* Scope.close(scope, Exit.fail("failed"))
      yield* turns
      strictEqual(yield* outcomeOf(peer.reader.readAll()), "ConnectionReset")
      strictEqual(yield* outcomeOf(peer.closed), "ConnectionReset")
      yield* connection.closed
    })
  )

  it.effect("C-020: a scope that is interrupted aborts", () =>
    Effect.gen(function* () {
      const [left, right] = yield* MemoryTransport.makePair()
      const peer = yield* Connection.make(right)
      const use = yield* start(
        Effect.scoped(Effect.flatMap(Connection.make(left), ({ reader }) => reader.read()))
      )
      yield* use.interrupt
      yield* turns
      strictEqual(yield* outcomeOf(peer.closed), "ConnectionReset")
    })
  )

  it.effect("C-021: bytes that nobody reads are kept, up to a bound", () =>
    Effect.gen(function* () {
      const { reader, transport } = yield* connect({ limit: 5 })
      strictEqual(transport.paused, false)
      transport.receive("0123456789")
      strictEqual(transport.paused, false)
      transport.receive("a")
      strictEqual(transport.paused, true)
      strictEqual(yield* readText(reader), "0123456789a")
      strictEqual(transport.paused, false)
    })
  )
})

describe("C: closing", () => {
  it.effect("sends what is queued in the transport, ends, discards, and lets go after the peer's end", () =>
    Effect.gen(function* () {
      const { connection, reader, transport, writer } = yield* connect()
      yield* writer.write("last")
      transport.receive("unread")
      transport.takeCalls()
      const close = yield* start(connection.close)
      deepStrictEqual(transport.takeCalls(), ["end", "resume"])
      transport.receive("late")
      transport.accept()
      transport.receiveEnd()
      deepStrictEqual([transport.calls, outcome(close)], [["close"], "waiting"])
      transport.letGo()
      strictEqual(outcome(close), "success")
      strictEqual(yield* readText(reader), "unread")
      strictEqual(yield* outcomeOf(reader.read()), "ConnectionClosed")
    })
  )

  it.effect("refuses writers that wait for their turn", () =>
    Effect.gen(function* () {
      const { connection, transport, writer } = yield* connect(small)
      const first = yield* start(writer.write("0123456789ab"))
      const second = yield* start(writer.write("c"))
      yield* start(connection.close)
      deepStrictEqual([first, second].map(outcome), ["waiting", "ConnectionClosed"])
      transport.accept()
      strictEqual(outcome(first), "success")
      strictEqual(transport.text(), "0123456789ab")
    })
  )

  it.effect("also those that wait before an end", () =>
    Effect.gen(function* () {
      const { connection, transport, writer } = yield* connect(small)
      yield* start(writer.write("0123456789ab"))
      const second = yield* start(writer.write("c"))
      const end = yield* start(writer.end)
      transport.takeCalls()
      yield* start(connection.close)
      deepStrictEqual([second, end].map(outcome), ["ConnectionClosed", "success"])
      deepStrictEqual(transport.calls, ["end", "resume"])
    })
  )

  it.effect("of a connection whose peer has ended lets go at once", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      transport.receiveEnd()
      transport.takeCalls()
      yield* start(connection.close)
      deepStrictEqual(transport.calls, ["end", "close"])
    })
  )

  it.effect("of a connection that has ended its direction waits for the peer", () =>
    Effect.gen(function* () {
      const { connection, transport, writer } = yield* connect()
      yield* writer.end
      transport.takeCalls()
      yield* start(connection.close)
      deepStrictEqual(transport.takeCalls(), ["resume"])
      transport.receiveEnd()
      deepStrictEqual(transport.calls, ["close"])
    })
  )

  it.effect("over a transport without half-close lets go after what was written", () =>
    Effect.gen(function* () {
      const { connection, transport, writer } = yield* connect(undefined, { canEnd: false })
      yield* writer.write("last")
      transport.takeCalls()
      const close = yield* start(connection.close)
      deepStrictEqual(transport.calls, ["close"])
      transport.accept()
      transport.letGo()
      strictEqual(outcome(close), "success")
    })
  )

  it.effect("over a transport without half-close that can linger ends it, and waits for the peer's end", () =>
    Effect.gen(function* () {
      const { connection, transport, writer } = yield* connect(undefined, { canEnd: false, canLinger: true })
      yield* writer.write("last")
      strictEqual(yield* outcomeOf(writer.end), "Unsupported")
      transport.takeCalls()
      const close = yield* start(connection.close)
      deepStrictEqual(transport.takeCalls(), ["end", "resume"])
      transport.accept()
      transport.receive(new Uint8Array(1024 * 1024))
      deepStrictEqual(transport.takeCalls(), [])
      transport.receiveEnd()
      deepStrictEqual(transport.calls, ["close"])
      transport.letGo()
      strictEqual(outcome(close), "success")
    })
  )

  it.effect("over a transport that lets go from within close and abort", () =>
    Effect.gen(function* () {
      for (const how of ["close", "abort"] as const) {
        const { connection, reader, transport } = yield* connect(undefined, { canEnd: false, prompt: true })
        const read = yield* start(reader.read())
        yield* connection[how]
        deepStrictEqual(transport.calls, ["start", "resume", how])
        strictEqual(outcome(read), how === "close" ? "ConnectionClosed" : "ConnectionAborted")
        yield* connection.closed
      }
    })
  )

  it.effect("is cut off when the peer does not end within closeTimeout, 5 seconds by default", () =>
    withSleepers((sleepers) =>
      Effect.gen(function* () {
        for (const options of [{}, { closeTimeout: "200 millis" } as const]) {
          const { connection, transport, writer } = yield* connect(options)
          yield* writer.write("x")
          const close = yield* start(connection.close)
          const flush = yield* start(writer.flush)
          strictEqual(sleepers(), 1)
          yield* TestClock.adjust(Duration.millis((options.closeTimeout === undefined ? 5000 : 200) - 1))
          transport.receive("chatter")
          strictEqual(transport.calls.includes("abort"), false)
          yield* TestClock.adjust("1 millis")
          deepStrictEqual([transport.calls.at(-1), sleepers()], ["abort", 0])
          deepStrictEqual([outcome(close), outcome(flush)], ["waiting", "ConnectionAborted"])
          transport.letGo()
          strictEqual(outcome(close), "success")
          yield* connection.closed
        }
      })
    )
  )

  it.effect("waits for ever with an infinite closeTimeout", () =>
    withSleepers((sleepers) =>
      Effect.gen(function* () {
        const { connection, transport } = yield* connect({ closeTimeout: Duration.infinity })
        const close = yield* start(connection.close)
        yield* TestClock.adjust("365 days")
        deepStrictEqual(
          [outcome(close), sleepers(), transport.calls.includes("abort")],
          ["waiting", 0, false]
        )
      })
    )
  )

  it.effect("is cut off when the peer goes on to send more than 1 MiB", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      yield* start(connection.close)
      transport.receive(new Uint8Array(1024 * 1024))
      strictEqual(transport.calls.includes("abort"), false)
      transport.receive("x")
      strictEqual(transport.calls.at(-1), "abort")
      // What was on its way already.
      transport.receive("y")
      strictEqual(transport.calls.filter((call) => call === "abort").length, 1)
    })
  )

  it.effect("over memory: a peer that keeps sending is reset", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const close = yield* start(left.close)
      const flood = yield* start(Effect.forever(right.writer.write("x".repeat(50_000))))
      yield* Fiber.join(close.fiber)
      yield* turns
      strictEqual(outcome(flood), "ConnectionReset")
    })
  )

  it.effect("interrupting a close does not stop it", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      const close = yield* start(connection.close)
      yield* close.interrupt
      transport.receiveEnd()
      transport.letGo()
      yield* connection.closed
    })
  )

  it.effect("abort overtakes close, and its time limit", () =>
    withSleepers((sleepers) =>
      Effect.gen(function* () {
        const { connection, transport, writer } = yield* connect()
        yield* writer.write("x")
        const flush = yield* start(writer.flush)
        const close = yield* start(connection.close)
        const abort = yield* start(connection.abort)
        deepStrictEqual(
          [transport.calls.at(-1), outcome(flush), sleepers()],
          ["abort", "ConnectionAborted", 0]
        )
        transport.letGo()
        deepStrictEqual([close, abort].map(outcome), ["success", "success"])
        yield* connection.closed
      })
    )
  )

  it.effect("close during an abort waits for it and does nothing else", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      transport.takeCalls()
      yield* start(connection.abort)
      const closes = yield* Effect.all([start(connection.close), start(connection.abort)])
      deepStrictEqual(transport.calls, ["abort"])
      transport.letGo()
      deepStrictEqual(closes.map(outcome), ["success", "success"])
    })
  )

  it.effect("a failure during a close fails who waits for the bytes, and is no failure of closed", () =>
    Effect.gen(function* () {
      const { connection, transport, writer } = yield* connect()
      yield* writer.write("x")
      const close = yield* start(connection.close)
      const flush = yield* start(writer.flush)
      const error = transport.reset()
      strictEqual(outcome(close), "success")
      deepStrictEqual(flush.exit(), Exit.fail(error))
      yield* connection.closed
    })
  )

  it.effect("an abort by a fiber that the close wakes", () =>
    withSleepers((sleepers) =>
      Effect.gen(function* () {
        const { connection, reader, transport } = yield* connect()
        yield* start(
          Effect.ensuring(reader.read(), Effect.forkChild(connection.abort, { startImmediately: true }))
        )
        transport.takeCalls()
        const close = yield* start(connection.close)
        deepStrictEqual([transport.calls, sleepers()], [["end", "abort"], 0])
        transport.letGo()
        strictEqual(outcome(close), "success")
      })
    )
  )

  it.effect("of one that a fiber aborts which another close has woken at the same time", () =>
    withSleepers((sleepers) =>
      Effect.gen(function* () {
        const first = yield* connect(undefined, { prompt: true })
        const second = yield* connect(undefined, { prompt: true })
        yield* first.writer.write("waits")
        yield* start(Effect.andThen(first.connection.closed, second.connection.abort))
        yield* start(first.connection.close)
        yield* start(second.connection.close)
        strictEqual(sleepers(), 1)
        yield* TestClock.adjust("5 seconds")
        deepStrictEqual([first.transport.calls.at(-1), second.transport.calls.at(-1)], ["abort", "abort"])
        strictEqual(sleepers(), 0)
      })
    )
  )

  it.effect("is not held up by somebody who reads a frame, and is not done with it yet", () =>
    Effect.gen(function* () {
      const [left, right] = yield* Lockstep.makePair()
      const connection = yield* aborting(Connection.make(left))
      const peer = yield* aborting(Connection.make(right))
      const framing = Framing.make<Uint8Array>({
        decode: (reader) => Effect.tapError(reader.readExactly(2), () => Effect.sleep("1 second")),
        encode: (frame) => frame
      })
      const receiving = yield* start(Framed.make(connection, framing).receive)
      yield* peer.writer.write("a")
      const close = yield* start(connection.close)
      yield* TestClock.adjust("1 second")
      strictEqual(outcome(receiving), "ConnectionClosed")
      yield* peer.writer.write("still comes")
      yield* peer.writer.end
      yield* turns
      strictEqual(outcome(close), "success")
    })
  )

  it.effect("both sides at once", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      yield* left.writer.write("crossing")
      yield* right.writer.write("crossing")
      yield* Effect.all([left.close, right.close], { concurrency: "unbounded" })
      yield* Effect.all([left.closed, right.closed])
    })
  )

  it.effect(
    "a transport that has let go cleanly by itself completes closed, and fails what is used after",
    () =>
      Effect.gen(function* () {
        const { connection, reader, transport, writer } = yield* connect(undefined, { canEnd: false })
        const read = yield* start(reader.read())
        transport.letGo()
        strictEqual(outcome(read), "ConnectionClosed")
        yield* connection.closed
        strictEqual(yield* outcomeOf(writer.write("x")), "ConnectionClosed")
        strictEqual(yield* writer.isClosing, true)
      })
  )
})

describe("E: errors and the end of input", () => {
  it.effect("E-018: lost right after opening: reads fail with the error, and close is silent", () =>
    Effect.gen(function* () {
      const { connection, reader, transport } = yield* connect()
      const error = transport.reset()
      deepStrictEqual(yield* Effect.exit(reader.read()), Exit.fail(error))
      yield* connection.close
    })
  )

  it.effect("E-020: after an own close buffered bytes are readable, then ConnectionClosed", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      yield* right.writer.write("one\ntwo")
      yield* turns
      yield* start(left.close)
      strictEqual(text(yield* left.reader.readLine), "one\n")
      strictEqual(yield* outcomeOf(left.reader.readExactly(5)), "ConnectionClosed")
      strictEqual(yield* readText(left.reader), "two")
      strictEqual(yield* outcomeOf(left.reader.read()), "ConnectionClosed")
    })
  )

  it.effect("E-021: an own close is no end of input; one that came before remains", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      yield* Effect.all([left.close, right.close], { concurrency: "unbounded" })
      yield* left.closed
      strictEqual(yield* left.reader.atEof, false)
      strictEqual(yield* outcomeOf(left.reader.read()), "ConnectionClosed")
      const [other, peer] = yield* pair()
      yield* peer.writer.end
      yield* turns
      yield* other.close
      strictEqual(yield* other.reader.atEof, true)
      strictEqual(yield* readText(other.reader), "")
    })
  )

  it.effect("E-022: after an own abort reads fail with ConnectionAborted, and closed succeeds", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      yield* right.writer.write("kept")
      yield* turns
      yield* left.abort
      strictEqual(yield* readText(left.reader), "kept")
      strictEqual(yield* outcomeOf(left.reader.read()), "ConnectionAborted")
      strictEqual(yield* outcomeOf(left.writer.write("x")), "ConnectionAborted")
      yield* left.closed
      yield* turns
      strictEqual(yield* outcomeOf(right.closed), "ConnectionReset")
    })
  )

  it.effect("E-025: a clean loss after the end of both directions is harmless", () =>
    Effect.gen(function* () {
      const { connection, reader, transport, writer } = yield* connect()
      transport.receive("data")
      transport.receiveEnd()
      yield* writer.end
      transport.letGo()
      yield* connection.closed
      strictEqual(text(yield* reader.readAll()), "data")
      strictEqual(yield* readText(reader), "")
    })
  )

  it.effect("E-026: a failure that nobody reads is reported nowhere", () =>
    Effect.gen(function* () {
      const rejections: Array<unknown> = []
      const listen = (reason: unknown) => rejections.push(reason)
      process.on("unhandledRejection", listen)
      const { transport } = yield* connect()
      transport.reset()
      yield* turns
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      process.off("unhandledRejection", listen)
      deepStrictEqual(rejections, [])
    })
  )

  it.effect("bytes that arrived before a reset are read first", () =>
    Effect.gen(function* () {
      const { reader, transport } = yield* connect()
      transport.receive("data")
      transport.reset()
      strictEqual(yield* readText(reader), "data")
      strictEqual(yield* outcomeOf(reader.read()), "ConnectionReset")
    })
  )
})

describe("X: concurrency", () => {
  it.effect("X-017: of many waiters for closed, an interrupted one leaves the others alone", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      const waiters = yield* Effect.forEach(Array.from({ length: 10 }), () => start(connection.closed))
      yield* waiters[3]!.interrupt
      strictEqual(waiters.filter((waiter) => outcome(waiter) === "waiting").length, 9)
      const error = transport.reset()
      deepStrictEqual(
        waiters.map((waiter) => outcome(waiter)),
        Array.from({ length: 10 }, (_, n) => (n === 3 ? "interrupted" : "ConnectionReset"))
      )
      deepStrictEqual(yield* Effect.exit(connection.closed), Exit.fail(error))
    })
  )

  it.effect("X-023: one fiber reads, one writes, a third closes: all settle", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair(small)
      const read = yield* start(left.reader.read())
      const write = yield* start(Effect.forever(left.writer.write("0123456789ab")))
      const close = yield* start(left.close)
      yield* turns
      strictEqual(outcome(read), "ConnectionClosed")
      strictEqual(outcome(write), "ConnectionClosed")
      yield* right.close
      yield* Fiber.join(close.fiber)
    })
  )

  it.effect("X-024: a close while a read waits fails it with ConnectionClosed", () =>
    Effect.gen(function* () {
      const [left] = yield* pair()
      const read = yield* start(left.reader.readExactly(10))
      yield* start(left.close)
      strictEqual(outcome(read), "ConnectionClosed")
    })
  )

  it.effect("X-025: a loss while a read waits fails it with the error", () =>
    Effect.gen(function* () {
      const { reader, transport } = yield* connect()
      const read = yield* start(reader.read())
      const error = transport.reset()
      deepStrictEqual(read.exit(), Exit.fail(error))
    })
  )

  it.effect("X-026: a loss settles all that waits, with the same error", () =>
    Effect.gen(function* () {
      const { connection, reader, transport, writer } = yield* connect(small)
      const waiting = yield* Effect.all([
        start(writer.write("0123456789ab")),
        start(writer.write("c")),
        start(writer.drain),
        start(writer.flush),
        start(writer.end),
        start(reader.read()),
        start(reader.readLine),
        start(connection.closed)
      ])
      const error = transport.reset()
      for (const { exit } of waiting) deepStrictEqual(exit(), Exit.fail(error))
    })
  )

  it.effect("X-029: fibers of the connection's scope end with it, before it is closed", () =>
    Effect.gen(function* () {
      const { connection, peer, scope } = yield* scoped()
      const child = yield* Scope.provide(
        Effect.forkScoped(
          Effect.ensuring(Effect.never, Effect.ignore(connection.writer.write("child ended")))
        ),
        scope
      )
      yield* turns
      yield* start(Scope.close(scope, Exit.void))
      strictEqual(text(yield* peer.reader.readAll()), "child ended")
      strictEqual(outcome(child.pollUnsafe()), "interrupted")
    })
  )

  it.effect("a peer that vanishes while nobody reads is noticed", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair({ limit: 10 })
      const closed = yield* start(left.closed)
      // Far more than what is read ahead: reading is paused.
      yield* start(right.writer.write("x".repeat(1000)))
      yield* turns
      yield* right.abort
      yield* turns
      strictEqual(outcome(closed), "ConnectionReset")
    })
  )
})

describe("what a connection, its reader and its writer can do", () => {
  it.effect("can be taken off them", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair(small)
      const { abort, close, closed, id, info, reader, upgradeTls, writer } = left
      const { atEof, limit, lines, peek, read, readAll, readExactly, readLine } = reader
      const { readLineString, readUntil, skip, skipUntil, stream } = reader
      const { bufferedBytes, canEnd, drain, end, flush, isClosing, setWatermarks, sink } = writer
      const { watermarks, write, writeAll } = writer
      deepStrictEqual(
        [id, info.transport, limit, canEnd, watermarks],
        [left.id, "memory", 65_536, true, small.watermarks]
      )

      yield* right.writer.write("a|bc|def\nghi\njk\n|l\nmno\n")
      strictEqual(text(yield* peek(2)), "a|")
      strictEqual(text(yield* readExactly(1)), "a")
      yield* skip(1)
      strictEqual(text(yield* readUntil("|")), "bc|")
      strictEqual(text(yield* readLine), "def\n")
      deepStrictEqual(yield* readLineString, Option.some("ghi"))
      strictEqual(yield* skipUntil("|"), 4)
      deepStrictEqual(yield* Stream.runCollect(Stream.take(lines, 1)), ["l"])
      strictEqual(yield* reader.bufferedBytes, 0)
      yield* right.writer.write("now")
      strictEqual(text(yield* read()), "now")
      yield* right.writer.write("here")
      yield* right.writer.end
      deepStrictEqual((yield* Stream.runCollect(stream)).map(text), ["here"])
      strictEqual((yield* readAll()).length, 0)
      strictEqual(yield* atEof, true)

      yield* setWatermarks({ high: 100 })
      yield* write("1")
      yield* writeAll(["2", "3"])
      yield* Stream.run(Stream.make("4"), sink)
      yield* drain
      yield* flush
      strictEqual(yield* bufferedBytes, 0)
      strictEqual(yield* outcomeOf(upgradeTls({ servername: "example.org" })), "Unsupported")
      strictEqual(yield* isClosing, false)
      yield* end
      strictEqual(text(yield* right.reader.readAll()), "1234")
      yield* close
      yield* closed
      yield* abort
      strictEqual(yield* isClosing, true)
    })
  )
})

describe("info", () => {
  const localAddress = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:1000")
  const remoteAddress = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:2000")

  it.effect("tells what the transport is, also after the end", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(1234)
      const { connection, transport } = yield* connect(undefined, { localAddress, remoteAddress })
      const check = () => {
        const { info } = connection
        strictEqual(info.localAddress, localAddress)
        strictEqual(info.remoteAddress, remoteAddress)
        strictEqual(info.transport, "fake")
        strictEqual(info.tls, undefined)
        strictEqual(DateTime.toEpochMillis(info.openedAt), 1234)
      }
      check()
      yield* TestClock.adjust("1 second")
      const error = transport.reset()
      check()
      strictEqual(error.operation, "read")
    })
  )

  it.effect("ids are unique and name the transport; errors name the peer", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      assertTrue(left.id !== right.id && left.id.startsWith("memory-"))
      const { connection } = yield* connect(undefined, { remoteAddress })
      yield* start(connection.abort)
      const error = yield* Effect.flip(connection.writer.write("x"))
      strictEqual(error.message, "write on 127.0.0.1:2000: connection aborted")
    })
  )
})

describe("make", () => {
  it.effect("options out of range are RangeError defects, and leave the transport alone", () =>
    Effect.gen(function* () {
      const transport = makeFake()
      const bad: ReadonlyArray<Connection.Options> = [
        { limit: 0 },
        { limit: -1 },
        { limit: 1.5 },
        { limit: NaN },
        { limit: Infinity },
        { watermarks: { high: -1 } },
        { watermarks: { high: 1.5 } },
        { watermarks: { high: NaN } },
        { watermarks: { high: 10, low: 11 } },
        { watermarks: { high: 10, low: -1 } },
        { watermarks: { high: 10, low: NaN } },
        { readTimeout: 0 },
        { writeTimeout: 0 },
        { idleTimeout: 0 },
        { closeTimeout: 0 },
        { readTimeout: -5 },
        { writeTimeout: NaN }
      ]
      for (const options of bad) {
        const exits = yield* Effect.all([
          Effect.exit(Effect.scoped(Effect.asVoid(Connection.make(transport, options)))),
          Effect.exit(Effect.scoped(Effect.asVoid(Connection.pair(options))))
        ])
        for (const exit of exits) {
          assertInstanceOf(
            Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined,
            RangeError,
            JSON.stringify(options)
          )
        }
      }
      deepStrictEqual(transport.calls, [])
    })
  )

  it.effect("gives the options to reader and writer", () =>
    Effect.gen(function* () {
      const { reader, writer } = yield* connect({ limit: 1000, watermarks: { high: 100 } })
      strictEqual(reader.limit, 1000)
      deepStrictEqual(writer.watermarks, { high: 100, low: 25 })
    })
  )

  it.effect("a transport that does not read ahead is resumed while a read waits, and holds no bytes", () =>
    Effect.gen(function* () {
      const { reader, transport, writer } = yield* connect(undefined, { readAhead: false })
      deepStrictEqual(transport.takeCalls(), ["start"])
      const read = yield* start(reader.read())
      deepStrictEqual(transport.takeCalls(), ["resume"])
      transport.receive("x")
      deepStrictEqual([outcome(read), transport.takeCalls()], ["success", ["pause"]])
      const write = yield* start(writer.write("y"))
      strictEqual(outcome(write), "waiting")
      transport.accept()
      strictEqual(outcome(write), "success")
    })
  )
})

describe("pair", () => {
  it.effect("both ends of a pair end with their scope at once, and nothing is lost", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const [left, right] = yield* Scope.provide(Connection.pair(), scope)
      yield* left.writer.write("bye")
      yield* turns
      yield* Scope.close(scope, Exit.void)
      yield* Effect.all([left.closed, right.closed])
      strictEqual(yield* readText(right.reader), "bye")
    })
  )

  it.effect("a scope that fails aborts both", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const [left, right] = yield* Scope.provide(Connection.pair(), scope)
      yield* Scope.close(scope, Exit.fail("failed"))
      strictEqual(yield* outcomeOf(left.reader.read()), "ConnectionAborted")
      assertTrue((yield* outcomeOf(right.reader.read())) !== "success")
    })
  )
})

describe("use", () => {
  it.effect("connects, runs, and closes: the peer reads all and then the end", () =>
    Effect.gen(function* () {
      const { layer, peer } = yield* network()
      const used = yield* start(
        Connection.use("127.0.0.1:1", ({ writer }) => Effect.as(writer.write("hello"), 42)).pipe(
          Effect.provide(layer)
        )
      )
      yield* turns
      strictEqual(text(yield* peer().reader.readAll()), "hello")
      strictEqual(outcome(used), "waiting")
      yield* peer().close
      strictEqual(yield* Fiber.join(used.fiber), 42)
    })
  )

  it.effect("with options, and a failure: aborts, the peer sees a reset", () =>
    Effect.gen(function* () {
      const { layer, peer } = yield* network()
      const exit = yield* Connection.use("127.0.0.1:1", { limit: 7 }, ({ reader }) =>
        Effect.fail(reader.limit)
      ).pipe(Effect.provide(layer), Effect.exit)
      deepStrictEqual(exit, Exit.fail(7))
      yield* turns
      strictEqual(yield* outcomeOf(peer().closed), "ConnectionReset")
    })
  )

  it.effect("options may be undefined", () =>
    Effect.gen(function* () {
      const { layer } = yield* network()
      const exit = yield* Connection.use("127.0.0.1:1", undefined, ({ reader }) =>
        Effect.fail(reader.limit)
      ).pipe(Effect.provide(layer), Effect.exit)
      deepStrictEqual(exit, Exit.fail(65_536))
    })
  )

  it.effect("an interruption aborts", () =>
    Effect.gen(function* () {
      const { layer, peer } = yield* network()
      const used = yield* start(
        Effect.provide(
          Connection.use("127.0.0.1:1", ({ reader }) => reader.read()),
          layer
        )
      )
      yield* turns
      yield* used.interrupt
      yield* turns
      strictEqual(yield* outcomeOf(peer().closed), "ConnectionReset")
    })
  )

  it.effect("what it runs may use the scope, which ends before the connection", () =>
    Effect.gen(function* () {
      const { layer, peer } = yield* network()
      yield* start(
        Connection.use("127.0.0.1:1", ({ writer }) =>
          Effect.addFinalizer(() => Effect.ignore(writer.write("finalizer")))
        ).pipe(Effect.provide(layer))
      )
      yield* turns
      strictEqual(text(yield* peer().reader.readAll()), "finalizer")
    })
  )
})

describe("connect", () => {
  it.effect("an interruption reaches the network's connect", () =>
    Effect.gen(function* () {
      let interrupted = false
      const layer = Layer.succeed(
        Network.Network,
        Network.Network.of({
          connect: () =>
            Effect.onInterrupt(Effect.never, () =>
              Effect.sync(() => {
                interrupted = true
              })
            ),
          listen: () => Effect.die(new Error("not used"))
        })
      )
      const connecting = yield* start(Effect.provide(Effect.scoped(Connection.connect("127.0.0.1:1")), layer))
      yield* connecting.interrupt
      strictEqual(interrupted, true)
    })
  )

  it.effect("options out of range are RangeError defects before anything is connected", () =>
    Effect.gen(function* () {
      const layer = Layer.succeed(
        Network.Network,
        Network.Network.of({
          connect: () => Effect.die(new Error("connected")),
          listen: () => Effect.die(new Error("not used"))
        })
      )
      const exit = yield* Effect.exit(
        Effect.provide(Effect.scoped(Connection.connect("127.0.0.1:1", { limit: 0 })), layer)
      )
      assertInstanceOf(Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined, RangeError)
    })
  )
})

describe("layer", () => {
  it.effect("provides a connection, which ends with the layer", () =>
    Effect.gen(function* () {
      const { layer, peer } = yield* network()
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(
        Layer.provide(Connection.layer("127.0.0.1:1", { limit: 9 }), layer),
        scope
      )
      const connection = Context.get(context, Connection.Connection)
      strictEqual(connection.reader.limit, 9)
      yield* connection.writer.write("from a service")
      strictEqual(yield* readText(peer().reader), "from a service")
      const end = yield* start(Scope.close(scope, Exit.void))
      yield* peer().close
      yield* Fiber.join(end.fiber)
      yield* connection.closed
    })
  )
})

describe("withTimeouts", () => {
  it.effect("gives the same connection other limits; the original keeps its own", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect({
        ...small,
        readTimeout: "10 seconds",
        writeTimeout: "10 seconds"
      })
      const quick = Connection.withTimeouts(connection, { read: "1 second", write: "2 seconds" })
      const piped = pipe(connection, Connection.withTimeouts({ read: "3 seconds" }))
      strictEqual(quick.id, connection.id)
      const waiting = yield* Effect.all([
        start(quick.writer.write("0123456789ab")),
        start(quick.reader.read()),
        start(piped.reader.read()),
        start(connection.reader.read()),
        start(Connection.withTimeouts(connection, { read: Duration.infinity }).reader.read())
      ])
      const after = Effect.fnUntraced(function* (time: Duration.Input) {
        yield* TestClock.adjust(time)
        return waiting
          .map((one) => (outcome(one) === "waiting" ? "-" : outcome(one).replace("TimeoutError ", "")))
          .join(" ")
      })
      strictEqual(yield* after("999 millis"), "- - - - -")
      strictEqual(yield* after("1 millis"), "- read - - -")
      strictEqual(yield* after("1 second"), "write read - - -")
      strictEqual(yield* after("1 second"), "write read read - -")
      strictEqual(yield* after("7 seconds"), "write read read read -")
      transport.receive("x")
      strictEqual(yield* after("0 millis"), "write read read read success")
    })
  )

  it.effect("idle: a read or write that waits while nothing moves fails", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect(small)
      const { reader, writer } = Connection.withTimeouts(connection, { idle: "1 second" })
      const read = yield* start(reader.readExactly(3))
      const write = yield* start(writer.write("0123456789ab"))
      for (let n = 0; n < 4; n++) {
        yield* TestClock.adjust("999 millis")
        if (n % 2 === 0) transport.receive("x")
        else transport.accept(1)
      }
      deepStrictEqual([read, write].map(outcome), ["waiting", "waiting"])
      yield* TestClock.adjust("1 second")
      deepStrictEqual([read, write].map(outcome), ["TimeoutError idle", "TimeoutError idle"])
      strictEqual(yield* readText(connection.reader), "xx")
    })
  )

  it.effect("an error names what raises its limit", () =>
    Effect.gen(function* () {
      const { connection } = yield* connect({ ...small, readTimeout: "1 second", idleTimeout: "1 second" })
      const reading = Connection.withTimeouts(connection, { idle: Duration.infinity })
      const patient = { read: Duration.infinity, write: Duration.infinity } as const
      const optionOf = Effect.fnUntraced(function* (
        operation: Effect.Effect<unknown, StreamError.StreamError>
      ) {
        const fiber = yield* Effect.forkChild(Effect.flip(operation))
        yield* TestClock.adjust("2 seconds")
        const error = yield* Fiber.join(fiber)
        return error._tag === "TimeoutError" ? error.option : error.message
      })
      const options = yield* Effect.forEach(
        [
          reading.reader.read(),
          Connection.withTimeouts(reading, { write: "1 second" }).reader.read(),
          Connection.withTimeouts(reading, { read: "1 second" }).reader.read(),
          Connection.withTimeouts(connection, patient).reader.read(),
          Connection.withTimeouts(connection, { ...patient, idle: "1 second" }).reader.read(),
          Connection.withTimeouts(reading, { write: "1 second" }).writer.write("0123456789ab")
        ],
        optionOf
      )
      deepStrictEqual(options, [
        "readTimeout",
        "readTimeout",
        "withTimeouts({ read })",
        "idleTimeout",
        "withTimeouts({ idle })",
        "withTimeouts({ write })"
      ])
    })
  )

  it.effect("throws a RangeError for what is not positive, and a TypeError for what is no connection", () =>
    Effect.gen(function* () {
      const { connection } = yield* connect()
      const thrown = (run: () => unknown): unknown => {
        try {
          return run()
        } catch (error) {
          return error
        }
      }
      for (const name of ["read", "write", "idle"]) {
        for (const bad of [0, -1, NaN]) {
          assertInstanceOf(
            thrown(() => Connection.withTimeouts(connection, { [name]: bad })),
            RangeError
          )
        }
      }
      assertInstanceOf(
        thrown(() => Connection.withTimeouts({ ...connection }, {})),
        TypeError
      )
    })
  )

  it.effect("close, abort, closed and info are those of the connection", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      const quick = Connection.withTimeouts(connection, { read: "1 second" })
      yield* start(quick.close)
      transport.finish()
      yield* connection.closed
      strictEqual(yield* outcomeOf(connection.writer.write("x")), "ConnectionClosed")
      strictEqual(Connection.isConnection(quick), true)
      strictEqual(Connection.isConnection({}), false)
    })
  )
})

describe("toSocket", () => {
  it.effect("the end of the writer's scope does not wait for a peer that takes nothing", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair({ capacity: 0, limit: 100, watermarks: { high: 100 } })
      const scope = yield* Scope.make()
      const socketWriter = yield* Scope.provide(Connection.toSocket(left).writer, scope)
      const big = new Uint8Array(200_000)
      const first = yield* start(socketWriter.write(big))
      const second = yield* start(socketWriter.write(big))
      yield* turns
      deepStrictEqual([outcome(first), outcome(second)], ["waiting", "waiting"])
      const closing = yield* start(Scope.close(scope, Exit.void))
      yield* turns
      strictEqual(outcome(closing), "success")
      // What was written comes first, and then the end.
      strictEqual((yield* right.reader.readAll()).length, 2 * big.length)
    })
  )

  it.effect("pulls what the peer writes, and fails with close code 1000 at its end", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const { pull } = yield* Connection.toSocket(left).reader
      yield* right.writer.write("hello")
      deepStrictEqual(
        (yield* pull).map((chunk) => (typeof chunk === "string" ? chunk : text(chunk))),
        ["hello"]
      )
      yield* right.writer.end
      const error = yield* Effect.flip(pull)
      assertTrue(
        Socket.isSocketError(error) && error.reason._tag === "SocketCloseError" && error.reason.code === 1000
      )
    })
  )

  it.effect("writes chunks and batches, and closes by a CloseEvent", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const writer = yield* Connection.toSocket(left).writer
      yield* writer.write("a")
      yield* writer.writeAll(["b", new TextEncoder().encode("c")])
      const close = yield* start(writer.write(new Socket.CloseEvent()))
      strictEqual(text(yield* right.reader.readAll()), "abc")
      yield* right.close
      yield* Fiber.join(close.fiber)
      yield* left.closed
    })
  )

  it.effect("the end of the writer's scope half-closes", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const socket = Connection.toSocket(left)
      yield* Effect.scoped(Effect.flatMap(socket.writer, (writer) => writer.write("all of it")))
      strictEqual(text(yield* right.reader.readAll()), "all of it")
      yield* right.writer.write("answer")
      const { pull } = yield* socket.reader
      strictEqual((yield* pull).length, 1)
    })
  )

  it.effect("failures are SocketErrors with the cause", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      const socket = Connection.toSocket(connection)
      const { pull } = yield* socket.reader
      const writer = yield* socket.writer
      const error = transport.reset()
      const read = yield* Effect.flip(pull)
      assertTrue(read.reason._tag === "SocketReadError" && read.reason.cause === error)
      for (const write of [writer.write("x"), writer.writeAll(["x"])]) {
        const failed = yield* Effect.flip(write)
        assertTrue(failed.reason._tag === "SocketWriteError" && failed.reason.cause === error)
      }
    })
  )

  it.effect("upgrade is not supported", () =>
    Effect.gen(function* () {
      const { connection } = yield* connect()
      const { upgrade } = yield* Connection.toSocket(connection).reader
      strictEqual((yield* Effect.flip(upgrade())).reason._tag, "SocketUpgradeError")
    })
  )

  it.effect("a pull that waits fails when the reader's scope ends, and the connection lives on", () =>
    Effect.gen(function* () {
      const { connection, reader, transport } = yield* connect()
      const scope = yield* Scope.make()
      const { pull } = yield* Scope.provide(Connection.toSocket(connection).reader, scope)
      const waiting = yield* start(pull)
      yield* Scope.close(scope, Exit.void)
      yield* turns
      strictEqual(outcome(waiting), "SocketCloseError")
      transport.receive("kept")
      strictEqual(yield* readText(reader), "kept")
    })
  )

  it.effect("a round trip: a connection over a socket over a connection", () =>
    Effect.gen(function* () {
      const [left, right] = yield* pair()
      const over = yield* Connection.fromSocket(Connection.toSocket(left))
      yield* over.writer.write("ping\n")
      strictEqual(text(yield* right.reader.readLine), "ping\n")
      yield* right.writer.write("pong\n")
      strictEqual(text(yield* over.reader.readLine), "pong\n")
      yield* right.writer.end
      strictEqual(text(yield* over.reader.readAll()), "")
    })
  )
})

class TestService extends Context.Service<TestService, number>()("test/TestService") {}

describe("types", () => {
  it.effect("are what the contract says", () =>
    Effect.gen(function* () {
      const [connection, other] = yield* pair()
      expectTypeOf(other).toEqualTypeOf<Connection.Connection>()
      expectTypeOf(connection.id).toEqualTypeOf<string>()
      expectTypeOf(connection.reader).toEqualTypeOf<StreamReader.StreamReader>()
      expectTypeOf(connection.writer).toEqualTypeOf<StreamWriter.StreamWriter>()
      expectTypeOf(connection.info).toEqualTypeOf<Connection.ConnectionInfo>()
      expectTypeOf(connection.close).toEqualTypeOf<Effect.Effect<void>>()
      expectTypeOf(connection.abort).toEqualTypeOf<Effect.Effect<void>>()
      expectTypeOf(connection.closed).toEqualTypeOf<Effect.Effect<void, StreamError.ConnectionError>>()
      expectTypeOf(Connection.pair()).toEqualTypeOf<
        Effect.Effect<[Connection.Connection, Connection.Connection], never, Scope.Scope>
      >()
      expectTypeOf(Connection.connect).returns.toEqualTypeOf<
        Effect.Effect<
          Connection.Connection,
          StreamError.ConnectionError | StreamError.TimeoutError,
          Network.Network | Scope.Scope
        >
      >()
      expectTypeOf(Connection.make).returns.toEqualTypeOf<
        Effect.Effect<Connection.Connection, never, Scope.Scope>
      >()
      expectTypeOf(Connection.fromSocket).returns.toEqualTypeOf<
        Effect.Effect<Connection.Connection, StreamError.ConnectionError, Scope.Scope>
      >()
      expectTypeOf(Connection.toSocket).toEqualTypeOf<(self: Connection.Connection) => Socket.Socket>()
      expectTypeOf(Connection.layer).returns.toEqualTypeOf<
        Layer.Layer<
          Connection.Connection,
          StreamError.ConnectionError | StreamError.TimeoutError,
          Network.Network
        >
      >()
      const onConnect = () => Effect.as(Effect.andThen(Effect.scope, TestService), undefined)
      expectTypeOf(Connection.layerReconnecting("a:1", { onConnect })).toEqualTypeOf<
        Layer.Layer<Reconnect.Reconnect<StreamError.StreamError>, never, Network.Network | TestService>
      >()
      expectTypeOf(Connection.layerPool("a:1", { onConnect, min: 1 })).toEqualTypeOf<
        Layer.Layer<
          ConnectionPool.ConnectionPool<StreamError.StreamError>,
          never,
          Network.Network | TestService
        >
      >()
      const used = Connection.use("a:1", { limit: 1 }, () =>
        Effect.andThen(Effect.scope, Effect.fail("e" as const))
      )
      expectTypeOf(used).toEqualTypeOf<
        Effect.Effect<never, "e" | StreamError.ConnectionError | StreamError.TimeoutError, Network.Network>
      >()
      expectTypeOf(Connection.withTimeouts(connection, {})).toEqualTypeOf<Connection.Connection>()
      expectTypeOf(Connection.withTimeouts({})(connection)).toEqualTypeOf<Connection.Connection>()
      expectTypeOf(Connection.Connection).toExtend<
        Context.Service<Connection.Connection, Connection.Connection>
      >()
    })
  )
})
