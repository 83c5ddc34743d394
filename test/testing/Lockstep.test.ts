import { it } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Effect, Fiber, Option, type Scope } from "effect"
import { NetAddress } from "effect/net"
import { TestClock } from "effect/testing"
import { describe } from "vitest"
import * as Connection from "effect-wire/Connection"
import * as MemoryTransport from "effect-wire/MemoryTransport"
import { Lockstep } from "effect-wire/testing"
import type { Transport } from "effect-wire/Transport"
import { record } from "../support/transports.ts"

/** Lets every task that is scheduled run, and what it schedules, a few times over. */
const settle = Effect.yieldNow.pipe(Effect.repeat({ times: 20 }))

// Ended together, and at once: closed one after the other, each would wait for the other's end.
const connections = (
  transports: Effect.Effect<[left: Transport, right: Transport]>
): Effect.Effect<[Connection.Connection, Connection.Connection], never, Scope.Scope> =>
  Effect.flatMap(transports, ([left, right]) =>
    Effect.all([Connection.make(left), Connection.make(right)])
  ).pipe(Effect.tap(([left, right]) => Effect.addFinalizer(() => Effect.andThen(left.abort, right.abort))))

describe("a lockstep pair", () => {
  it.effect("holds nothing between its ends", () =>
    Effect.gen(function* () {
      const localAddress = NetAddress.unixPathAddress("/a")
      const [left, right] = yield* Lockstep.makePair({ localAddress })
      deepStrictEqual([left.readAhead, right.readAhead], [false, false])
      strictEqual(right.remoteAddress, localAddress)
      const a = record(left)
      const b = record(right)
      left.write("hello")
      strictEqual(left.bufferedBytes, 5)
      yield* settle
      deepStrictEqual(b.events, [])
      right.resume()
      yield* settle
      strictEqual(b.text(), "hello")
      strictEqual(left.bufferedBytes, 0)
      deepStrictEqual(a.events, ["drain"])
    })
  )

  it.effect("makes a write wait for the peer's read", () =>
    Effect.gen(function* () {
      const [left, right] = yield* connections(Lockstep.makePair())
      const write = yield* Effect.forkChild(left.writer.write("hello\n"))
      yield* settle
      strictEqual(write.pollUnsafe(), undefined)
      deepStrictEqual(yield* right.reader.readLineString, Option.some("hello"))
      yield* Fiber.join(write)
    })
  )

  it.effect("shows a deadlock that a buffer hides", () =>
    Effect.gen(function* () {
      const bothWriteFirst = Effect.fnUntraced(function* (
        transports: Effect.Effect<[left: Transport, right: Transport]>
      ) {
        const pair = yield* connections(transports)
        return yield* Effect.forEach(
          pair,
          ({ reader, writer }) => Effect.andThen(writer.write("hello\n"), reader.readLineString),
          { concurrency: "unbounded" }
        )
      }, Effect.scoped)
      deepStrictEqual(yield* bothWriteFirst(MemoryTransport.makePair()), [
        Option.some("hello"),
        Option.some("hello")
      ])
      const stuck = yield* Effect.forkChild(
        Effect.timeoutOption(bothWriteFirst(Lockstep.makePair()), "1 hour")
      )
      yield* TestClock.adjust("1 hour")
      deepStrictEqual(yield* Fiber.join(stuck), Option.none())
    })
  )
})
