import { describe, it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Cause, type Duration, Effect, Exit, Fiber, Option, Scheduler } from "effect"
import { Connection, Relay } from "effect-wire"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import { connect, outcome, outcomeOf, pair, start, turns } from "./support/effects.ts"
import { makeFake } from "./support/FakeTransport.ts"

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

/** A client and a server, and the two connections between which a relay is to copy. */
const ends = Effect.fnUntraced(function* (options?: Parameters<typeof Connection.pair>[0]) {
  const [client, a] = yield* pair(options)
  const [server, b] = yield* pair(options)
  return { client, a, b, server }
})

const relayed = Effect.fnUntraced(function* (
  options?: Relay.Options,
  pairOptions?: Parameters<typeof Connection.pair>[0]
) {
  const { a, b, client, server } = yield* ends(pairOptions)
  const relay = yield* start(Relay.bidirectional(a, b, options))
  return { client, a, b, server, relay }
})

/** A relay whose client has written a thousand bytes, and ended, to a server that takes few of them. */
const stalled = Effect.fnUntraced(function* (options?: Relay.Options, ending = true) {
  const [client, a] = yield* pair()
  const [b, server] = yield* pair({ capacity: 10, limit: 10 })
  const relay = yield* start(Relay.bidirectional(a, b, options))
  for (let i = 0; i < 20; i++) {
    yield* client.writer.write("x".repeat(50))
    yield* turns
  }
  if (ending) yield* client.writer.end
  yield* turns
  return { client, a, b, server, relay }
})

const errorOf = <A, E>(exit: Exit.Exit<A, E> | undefined): E | undefined =>
  exit !== undefined && Exit.isFailure(exit)
    ? Option.getOrUndefined(Cause.findErrorOption(exit.cause))
    : undefined

const advance = (duration: Duration.Input) => Effect.andThen(TestClock.adjust(duration), turns)

describe("Relay.copy", () => {
  it.effect("copies until the end of input and leaves the other direction open", () =>
    Effect.gen(function* () {
      const { a, b, client, server } = yield* ends()
      const copying = yield* start(Relay.copy(a, b))
      yield* client.writer.write("one ")
      yield* turns
      strictEqual(text(yield* server.reader.readExactly(4)), "one ")
      yield* client.writer.write("two")
      yield* client.writer.end
      strictEqual(yield* Fiber.join(copying.fiber), 7)
      yield* b.writer.write("!")
      strictEqual(text(yield* server.reader.readExactly(4)), "two!")
    })
  )

  it.effect("says which side failed, and how far it came", () =>
    Effect.gen(function* () {
      const first = yield* ends()
      const reading = yield* start(Relay.copy(first.a, first.b))
      yield* first.client.writer.write("12345")
      yield* turns
      yield* first.client.abort
      const from = yield* Effect.flip(Fiber.join(reading.fiber))
      deepStrictEqual(
        [from._tag, from.side, from.reason._tag, from.bytes],
        ["CopyError", "from", "ConnectionError", 5]
      )
      strictEqual(
        from.message,
        "copy: the connection to copy from failed after 5 bytes: read: connection reset by peer (ECONNRESET)"
      )

      const second = yield* ends()
      const writing = yield* start(Relay.copy(second.a, second.b))
      yield* second.server.abort
      yield* second.client.writer.write("1")
      const to = yield* Effect.flip(Fiber.join(writing.fiber))
      deepStrictEqual([to.side, to.bytes], ["to", 0])
    })
  )

  it.effect("hands the chunks on as they are", () =>
    Effect.gen(function* () {
      const source = yield* connect()
      const destination = makeFake()
      const written: Array<Uint8Array | string> = []
      const to = yield* Connection.make({
        ...destination,
        writeAll: (chunks) => {
          written.push(...chunks)
        }
      })
      const chunks = ["one", "two", "three"].map((_) => new TextEncoder().encode(_))
      for (const chunk of chunks) source.transport.receive(chunk)
      const copying = yield* start(Relay.copy(source.connection, to))
      source.transport.receive("four")
      source.transport.receiveEnd()
      strictEqual(yield* Fiber.join(copying.fiber), 15)
      strictEqual(written.length, 4)
      chunks.forEach((chunk, i) => assertTrue(written[i] === chunk))
      destination.finish()
    })
  )

  it.effect("can be interrupted without harm to the connections", () =>
    Effect.gen(function* () {
      const { a, b, client, server } = yield* ends()
      const copying = yield* start(Relay.copy(a, b))
      yield* copying.interrupt
      yield* client.writer.write("still")
      strictEqual(text(yield* a.reader.readExactly(5)), "still")
      yield* b.writer.write("here")
      strictEqual(text(yield* server.reader.readExactly(4)), "here")
    })
  )
})

describe("Relay.bidirectional", () => {
  it.effect("passes an end of input on and lets the other direction finish", () =>
    Effect.gen(function* () {
      const { client, relay, server } = yield* relayed()
      yield* client.writer.write("request")
      yield* client.writer.end
      strictEqual(text(yield* server.reader.readAll()), "request")
      yield* turns
      strictEqual(outcome(relay), "waiting")
      yield* server.writer.write("a long answer")
      yield* server.writer.end
      strictEqual(text(yield* client.reader.readAll()), "a long answer")
      deepStrictEqual(yield* Fiber.join(relay.fiber), {
        aToB: 7,
        bToA: 13,
        closedFirst: "a",
        ending: "ended"
      })
      yield* client.closed
      yield* server.closed
    })
  )

  it.effect("closes both on the first end if it is to, with everything that came before it delivered", () =>
    Effect.gen(function* () {
      const { client, relay, server } = yield* relayed({ halfClose: "close-both" })
      yield* server.writer.write("greeting")
      yield* server.writer.end
      strictEqual(text(yield* client.reader.readAll()), "greeting")
      yield* client.writer.end
      deepStrictEqual(yield* Fiber.join(relay.fiber), { aToB: 0, bToA: 8, closedFirst: "b", ending: "ended" })
    })
  )

  it.effect("closes both if a side cannot be ended alone", () =>
    Effect.gen(function* () {
      const { client, b } = yield* Effect.map(pair(), ([client, b]) => ({ client, b }))
      const { connection, transport } = yield* connect({}, { canEnd: false, prompt: true })
      const relay = yield* start(Relay.bidirectional(connection, b))
      yield* client.writer.end
      yield* turns
      assertTrue(transport.calls.includes("close"))
      deepStrictEqual(yield* Fiber.join(relay.fiber), { aToB: 0, bToA: 0, closedFirst: "b", ending: "ended" })
      yield* client.closed
    })
  )

  it.effect("a slow side holds up the other one, and nothing piles up in between", () =>
    Effect.gen(function* () {
      const limits = { capacity: 1000, limit: 1000, watermarks: { high: 1000 } }
      const { client, relay, server } = yield* relayed(undefined, limits)
      let written = 0
      const chunk = new Uint8Array(500)
      const writing = yield* start(
        Effect.forever(
          Effect.tap(client.writer.write(chunk), () =>
            Effect.sync(() => {
              written += chunk.length
            })
          )
        )
      )
      yield* turns
      const stuck = written
      yield* turns
      strictEqual(written, stuck)
      // Both links and both readers full, and not more.
      assertTrue(stuck < 15_000, `${stuck} bytes were taken`)
      yield* server.reader.skip(10_000)
      yield* turns
      assertTrue(written > stuck)
      yield* writing.interrupt
      yield* relay.interrupt
    })
  )

  it.effect("reaps a half-closed relay after a silence, and every byte puts it off", () =>
    Effect.gen(function* () {
      const { client, relay, server } = yield* relayed({ halfCloseIdle: "30 seconds" })
      yield* advance("10 minutes")
      strictEqual(outcome(relay), "waiting")
      yield* client.writer.end
      yield* turns
      yield* advance("29 seconds")
      yield* server.writer.write("x")
      yield* turns
      yield* advance("29 seconds")
      strictEqual(outcome(relay), "waiting")
      yield* advance("1 seconds")
      deepStrictEqual(yield* Fiber.join(relay.fiber), {
        aToB: 0,
        bToA: 1,
        closedFirst: "a",
        ending: "halfCloseIdle"
      })
      // Not an end of input, which would pass for the whole answer.
      strictEqual(text(yield* client.reader.readExactly(1)), "x")
      strictEqual(yield* outcomeOf(client.reader.read()), "ConnectionReset")
      strictEqual(yield* outcomeOf(server.closed), "ConnectionReset")
    })
  )

  it.effect("reaps after a minute unless told otherwise, and never if told so", () =>
    Effect.gen(function* () {
      const first = yield* relayed()
      const second = yield* relayed({ halfCloseIdle: Infinity })
      yield* first.client.writer.end
      yield* second.client.writer.end
      yield* turns
      yield* advance("59 seconds")
      strictEqual(outcome(first.relay), "waiting")
      yield* advance("1 second")
      strictEqual(outcome(first.relay), "success")
      yield* advance("1 day")
      strictEqual(outcome(second.relay), "waiting")
    })
  )

  it.effect("takes bytes that leave a buffer slowly for bytes", () =>
    Effect.gen(function* () {
      const { a, client } = yield* ends()
      const { connection, transport } = yield* connect()
      const relay = yield* start(Relay.bidirectional(a, connection, { idle: "10 seconds" }))
      yield* client.writer.write(new Uint8Array(60_000))
      yield* turns
      for (let i = 0; i < 5; i++) {
        yield* advance("9 seconds")
        transport.accept(10_000)
        yield* advance("1 second")
        strictEqual(outcome(relay), "waiting")
      }
      yield* advance("10 seconds")
      transport.finish()
      strictEqual((yield* Fiber.join(relay.fiber)).ending, "idle")
    })
  )

  it.effect("ends when neither side has sent a byte for long", () =>
    Effect.gen(function* () {
      const { client, relay, server } = yield* relayed({ idle: "1 minute" })
      yield* advance("59 seconds")
      yield* client.writer.write("x")
      yield* turns
      yield* advance("59 seconds")
      strictEqual(outcome(relay), "waiting")
      yield* advance("1 second")
      deepStrictEqual(yield* Fiber.join(relay.fiber), {
        aToB: 1,
        bToA: 0,
        closedFirst: undefined,
        ending: "idle"
      })
      strictEqual(yield* outcomeOf(client.closed), "ConnectionReset")
      strictEqual(yield* outcomeOf(server.closed), "ConnectionReset")
    })
  )

  it.effect("fails with the side that failed, and resets the other", () =>
    Effect.gen(function* () {
      const { client, relay, server } = yield* relayed()
      yield* client.writer.write("abc")
      yield* turns
      yield* server.abort
      const error = errorOf(yield* Fiber.await(relay.fiber))
      deepStrictEqual(
        [error?._tag, error?.side, error?.aToB, error?.bToA, outcome(relay)],
        ["RelayError", "b", 3, 0, "ConnectionError"]
      )
      strictEqual(
        error?.message,
        "relay: side b failed after 3 bytes from a to b and 0 bytes from b to a: read: connection reset by peer (ECONNRESET)"
      )
      strictEqual(yield* outcomeOf(client.closed), "ConnectionReset")
    })
  )

  it.effect("notices that a side is lost which has ended before", () =>
    Effect.gen(function* () {
      const { client, relay } = yield* relayed({ halfCloseIdle: Infinity })
      yield* client.writer.end
      yield* turns
      yield* client.abort
      const error = errorOf(yield* Fiber.await(relay.fiber))
      deepStrictEqual([error?.side, error?.reason._tag], ["a", "ConnectionError"])
    })
  )

  it.effect("interrupted, it leaves neither side open", () =>
    Effect.gen(function* () {
      const { client, relay, server } = yield* relayed()
      yield* relay.interrupt
      strictEqual(yield* outcomeOf(client.closed), "ConnectionReset")
      strictEqual(yield* outcomeOf(server.closed), "ConnectionReset")
    })
  )

  for (const halfClose of ["propagate", "close-both"] as const) {
    it.effect(`reaps a side that has ended while the other one takes nothing (${halfClose})`, () =>
      Effect.gen(function* () {
        const { a, b, relay, server } = yield* stalled({ halfClose, halfCloseIdle: "30 seconds" })
        strictEqual(yield* a.reader.atEof, true)
        assertTrue((yield* b.writer.bufferedBytes) > 0)
        yield* advance("29 seconds")
        // The server takes a few: what waits gets shorter.
        yield* server.reader.readExactly(50)
        yield* turns
        yield* advance("29 seconds")
        strictEqual(outcome(relay), "waiting")
        yield* advance("30 seconds")
        const report = yield* Fiber.join(relay.fiber)
        deepStrictEqual([report.bToA, report.closedFirst, report.ending], [0, "a", "halfCloseIdle"])
        strictEqual(yield* outcomeOf(server.closed), "ConnectionReset")
      })
    )
  }

  it.effect("bytes that arrive while the other side takes nothing put the end off as well", () =>
    Effect.gen(function* () {
      const { client, relay, server } = yield* stalled({ halfCloseIdle: "30 seconds" }, false)
      yield* server.writer.end
      yield* turns
      yield* advance("29 seconds")
      yield* client.writer.write("x")
      yield* turns
      yield* advance("29 seconds")
      strictEqual(outcome(relay), "waiting")
      yield* advance("30 seconds")
      strictEqual((yield* Fiber.join(relay.fiber)).ending, "halfCloseIdle")
    })
  )

  it.effect("a direction that was ended before is not the end of a side", () =>
    Effect.gen(function* () {
      const { a, b, client, server } = yield* ends()
      yield* a.writer.end
      const relay = yield* start(Relay.bidirectional(a, b))
      yield* advance("2 minutes")
      strictEqual(outcome(relay), "waiting")
      yield* client.writer.write("late")
      yield* server.writer.end
      yield* client.writer.end
      strictEqual(text(yield* server.reader.readAll()), "late")
      const { ending, aToB } = yield* Fiber.join(relay.fiber)
      deepStrictEqual([ending, aToB], ["ended", 4])
    })
  )

  it.effect("who ended first is who did, not whose bytes were through first", () =>
    Effect.gen(function* () {
      const { client, relay, server } = yield* stalled()
      yield* server.writer.end
      yield* turns
      strictEqual(outcome(relay), "waiting")
      yield* server.reader.readAll()
      yield* turns
      deepStrictEqual(yield* Fiber.join(relay.fiber), {
        aToB: 1000,
        bToA: 0,
        closedFirst: "a",
        ending: "ended"
      })
      yield* client.closed
    })
  )

  it.effect("notices that a side is lost while the other one takes nothing", () =>
    Effect.gen(function* () {
      for (const ended of [false, true]) {
        const { client, relay, server } = yield* stalled({ halfCloseIdle: Infinity }, ended)
        yield* client.abort
        const error = errorOf(yield* Fiber.await(relay.fiber))
        deepStrictEqual([error?.side, error?.reason._tag], ["a", "ConnectionError"])
        strictEqual(yield* outcomeOf(server.closed), "ConnectionReset")
      }
    })
  )

  it.effect("is ended by a side's own time limit of reads, though the other direction is busy", () =>
    Effect.gen(function* () {
      const [client, a] = yield* pair({ readTimeout: "10 seconds" })
      const [b, server] = yield* pair()
      const relay = yield* start(Relay.bidirectional(a, b))
      yield* advance("9 seconds")
      yield* server.writer.write("x")
      yield* client.reader.readExactly(1)
      yield* advance("1 second")
      const error = errorOf(yield* Fiber.await(relay.fiber))
      deepStrictEqual([error?.side, error?.reason._tag, error?.bToA], ["a", "TimeoutError", 1])
    })
  )

  it.effect("refuses limits that are none", () =>
    Effect.gen(function* () {
      const { a, b } = yield* ends()
      for (const options of [{ idle: 0 }, { halfCloseIdle: "-1 seconds" as const }]) {
        assertTrue((yield* outcomeOf(Relay.bidirectional(a, b, options))).startsWith("defect RangeError"))
      }
    })
  )
})

// What a side does: it writes its chunks, and ends or aborts at some time.
const sideOf = fc.record({
  chunks: fc.array(fc.integer({ min: 1, max: 300 }), { maxLength: 12 }),
  // When it ends: after its own last chunk, or only after the other's end.
  end: fc.constantFrom("at once", "after the other" as const),
  /** Whether it aborts in place of the chunk with this number. */
  abortAt: fc.option(fc.nat(12), { freq: 4, nil: Infinity }),
  pause: fc.nat(3)
})

const scenario = fc.record({
  client: sideOf,
  server: sideOf,
  capacity: fc.integer({ min: 0, max: 400 }),
  limit: fc.integer({ min: 1, max: 400 }),
  high: fc.nat(400),
  operations: fc.oneof(fc.constant(2048), fc.integer({ min: 3, max: 12 })),
  interruptAfter: fc.option(fc.nat(40), { freq: 6, nil: Infinity })
})

type Side = typeof sideOf extends fc.Arbitrary<infer A> ? A : never

const fill = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (seed + i) % 251)

const whole = (side: Side, seed: number): Uint8Array =>
  Buffer.concat(side.chunks.map((length, i) => fill(length, seed + i * 7)))

const play = Effect.fnUntraced(function* (side: Side, seed: number, connection: Connection.Connection) {
  const received: Array<Uint8Array> = []
  const read = Effect.gen(function* () {
    for (;;) {
      const chunk = yield* connection.reader.read()
      if (chunk.length === 0) return
      received.push(chunk)
      for (let i = 0; i < side.pause; i++) yield* Effect.yieldNow
    }
  })
  const reading = yield* Effect.forkChild(Effect.exit(read))
  const write = Effect.gen(function* () {
    for (const [i, length] of side.chunks.entries()) {
      if (i >= side.abortAt) return yield* connection.abort
      yield* connection.writer.write(fill(length, seed + i * 7))
    }
    if (side.abortAt !== Infinity) return yield* connection.abort
    if (side.end === "after the other") yield* Fiber.join(reading)
    yield* connection.writer.end
  })
  const wrote = yield* Effect.exit(write)
  const read_ = yield* Fiber.join(reading)
  return { received: Buffer.concat(received), wrote, read: read_ }
})

const startsWith = (bytes: Uint8Array, prefix: Uint8Array): boolean =>
  Buffer.compare(bytes.subarray(0, prefix.length), prefix) === 0

describe("Relay laws", () => {
  it("whatever the chunks, ends and failures: nothing is changed, cut short in silence, or left open", () =>
    fc.assert(
      fc.asyncProperty(
        scenario,
        async ({ capacity, client, high, interruptAfter, limit, operations, server }) => {
          // Two sides that both wait for the other's end would wait for ever.
          const serverSide: Side = client.end === "after the other" ? { ...server, end: "at once" } : server
          const program = Effect.gen(function* () {
            const link = yield* ends({ capacity, limit, watermarks: { high } })
            const relay = yield* Effect.forkChild(Relay.bidirectional(link.a, link.b))
            const playing = yield* Effect.forkChild(
              Effect.all([play(client, 1, link.client), play(serverSide, 101, link.server)], {
                concurrency: "unbounded"
              })
            )
            if (interruptAfter !== Infinity) {
              for (let i = 0; i < interruptAfter; i++) yield* Effect.yieldNow
              yield* Effect.forkChild(Fiber.interrupt(relay))
            }
            const exit = yield* Fiber.await(relay)
            const [atClient, atServer] = yield* Fiber.join(playing)
            // Both are finished: this would wait otherwise.
            yield* Effect.exit(link.a.closed)
            yield* Effect.exit(link.b.closed)
            return { exit, atClient, atServer }
          })
          const { atClient, atServer, exit } = await Effect.runPromise(
            program.pipe(
              Effect.scoped,
              Effect.provide(TestClock.layer()),
              Effect.provideService(Scheduler.MaxOpsBeforeYield, operations),
              Effect.timeout("5 seconds")
            )
          )
          const up = whole(client, 1)
          const down = whole(serverSide, 101)
          assertTrue(startsWith(up, atServer.received), "the server received what the client did not send")
          assertTrue(startsWith(down, atClient.received), "the client received what the server did not send")
          // An end of input is told only when everything was delivered.
          if (Exit.isSuccess(atServer.read)) strictEqual(atServer.received.length, up.length)
          if (Exit.isSuccess(atClient.read)) strictEqual(atClient.received.length, down.length)
          const failing = client.abortAt !== Infinity || serverSide.abortAt !== Infinity
          if (!failing && interruptAfter === Infinity) {
            assertTrue(Exit.isSuccess(exit))
            if (Exit.isFailure(exit)) return
            deepStrictEqual(
              [exit.value.aToB, exit.value.bToA, exit.value.ending],
              [up.length, down.length, "ended"]
            )
            assertTrue(Exit.isSuccess(atServer.read) && Exit.isSuccess(atClient.read))
          } else if (Exit.isFailure(exit) && interruptAfter === Infinity) {
            const error = errorOf(exit)
            const side = error?.side === "a" ? client : serverSide
            assertTrue(error !== undefined && side.abortAt !== Infinity, `side ${error?.side} is blamed`)
          }
        }
      ),
      { numRuns: 300 }
    ))
})
