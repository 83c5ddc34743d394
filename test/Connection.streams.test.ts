import { describe, it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Effect, Exit, Fiber, Queue, Ref, Stream } from "effect"
import { Connection, StreamError, type WebStreamTransport } from "effect-wire"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import { aborting, connect, outcome, outcomeOf, pair, start, turns } from "./support/effects.ts"

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

const textOf = <E, R>(stream: Stream.Stream<Uint8Array, E, R>) => Stream.mkString(Stream.decodeText(stream))

/** Pieces of 50 bytes without an end, counted as they are made. */
const endless = (made: Ref.Ref<number>) =>
  Stream.fromEffectRepeat(
    Effect.as(
      Ref.update(made, (n) => n + 50),
      new Uint8Array(50)
    )
  )

const narrow = { capacity: 100, limit: 100, watermarks: { high: 100 } }

describe("Connection.stream", () => {
  it.effect("gives the bytes until the end of input", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      yield* far.writer.write("one ")
      yield* far.writer.write("two")
      yield* far.writer.end
      strictEqual(yield* textOf(Connection.stream(near)), "one two")
    })
  )

  it.effect("fails with the connection's own error, after what came before it", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      transport.receive("before")
      const chunks: Array<string> = []
      const reading = yield* start(
        Stream.runForEach(Connection.stream(connection), (chunk) =>
          Effect.sync(() => chunks.push(text(chunk)))
        )
      )
      yield* turns
      transport.letGo(
        new StreamError.ConnectionError({
          operation: "read",
          reason: new StreamError.ConnectionReset({ code: "ECONNRESET" })
        })
      )
      yield* Fiber.await(reading.fiber)
      deepStrictEqual([chunks, outcome(reading)], [["before"], "ConnectionReset"])
    })
  )

  it.effect("interrupted, it loses no byte and leaves the connection to its scope", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const reading = yield* start(Stream.runDrain(Connection.stream(near)))
      yield* turns
      yield* reading.interrupt
      yield* far.writer.write("still")
      strictEqual(text(yield* near.reader.readExactly(5)), "still")
    })
  )

  it.effect("as the owner of its connection, it closes it at its end and aborts it when interrupted", () =>
    Effect.gen(function* () {
      const owner = (near: Connection.Connection) =>
        Stream.unwrap(
          Effect.map(
            Effect.acquireRelease(Effect.succeed(near), (connection, exit) =>
              Exit.isSuccess(exit) ? connection.close : connection.abort
            ),
            Connection.stream
          )
        )
      const [near, far] = yield* pair()
      const reading = yield* start(Stream.runDrain(owner(near)))
      yield* turns
      yield* reading.interrupt
      strictEqual(yield* outcomeOf(far.closed), "ConnectionReset")

      const [second, peer] = yield* pair()
      yield* peer.writer.write("all of it")
      yield* peer.writer.end
      strictEqual(yield* textOf(owner(second)), "all of it")
      strictEqual(yield* outcomeOf(peer.closed), "success")
    })
  )
})

describe("Connection.sink", () => {
  it.effect("sends, and leaves the direction open or ends it", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      yield* Stream.run(Stream.make("a", new Uint8Array([0x62])), Connection.sink(near))
      yield* near.writer.write("c")
      strictEqual(text(yield* far.reader.readExactly(3)), "abc")
      yield* Stream.run(Stream.make("d"), Connection.sink(near, { endOnDone: true }))
      strictEqual(text(yield* far.reader.readAll()), "d")
    })
  )

  it.effect("a peer that does not read holds up the stream", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair(narrow)
      const made = yield* Ref.make(0)
      const sending = yield* start(Stream.run(endless(made), Connection.sink(near)))
      yield* turns
      const stuck = yield* Ref.get(made)
      yield* turns
      strictEqual(yield* Ref.get(made), stuck)
      assertTrue(stuck < 1000, `${stuck} bytes were made`)
      yield* far.reader.skip(5000)
      assertTrue((yield* Ref.get(made)) >= 5000)
      yield* sending.interrupt
    })
  )

  it.effect("fails with the stream's error or the connection's, each of its type", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const failing = Stream.concat(Stream.make("x"), Stream.fail("no more" as const))
      const mine: "no more" | StreamError.WriteError = yield* Effect.flip(
        Stream.run(failing, Connection.sink(near, { endOnDone: true }))
      )
      strictEqual(mine, "no more")
      // A stream that has failed is not one that has ended.
      strictEqual(text(yield* far.reader.read()), "x")
      const ending = yield* start(far.reader.read())
      yield* turns
      strictEqual(outcome(ending), "waiting")
      yield* ending.interrupt

      yield* far.abort
      strictEqual(
        yield* outcomeOf(Stream.run(Stream.forever(Stream.make("x")), Connection.sink(near))),
        "ConnectionReset"
      )
    })
  )
})

describe("Connection.channel", () => {
  /** What comes out of a channel that is given the stream. */
  const through = <E>(stream: Stream.Stream<Uint8Array | string, E>, connection: Connection.Connection) =>
    Stream.pipeThroughChannel(stream, Connection.channel(connection))

  it.effect("sends what it is given and gives what is received, both at once", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair(narrow)
      const echo = yield* start(Stream.run(Connection.stream(far), Connection.sink(far, { endOnDone: true })))
      const much = "0123456789".repeat(1000)
      strictEqual(yield* textOf(through(Stream.make(much, "end"), near)), `${much}end`)
      yield* Fiber.join(echo.fiber)
    })
  )

  it.effect("ends with the end of input, and asks for nothing more then", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const released = yield* Ref.make(false)
      const waiting = Effect.onInterrupt(Effect.never, () => Ref.set(released, true))
      const endless = Stream.concat(Stream.make("question"), Stream.fromEffect(waiting))
      const asking = yield* start(textOf(through(endless, near)))
      strictEqual(text(yield* far.reader.readExactly(8)), "question")
      yield* far.writer.write("answer")
      yield* far.writer.end
      strictEqual(yield* Fiber.join(asking.fiber), "answer")
      assertTrue(yield* Ref.get(released))
    })
  )

  it.effect("fails as what it is given fails, while it waits for the peer", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const error: "mine" | StreamError.ReadError | StreamError.WriteError = yield* Effect.flip(
        Stream.runDrain(through(Stream.concat(Stream.make("x"), Stream.fail("mine" as const)), near))
      )
      strictEqual(error, "mine")
      yield* near.writer.write("y")
      strictEqual(text(yield* far.reader.readExactly(2)), "xy")
    })
  )

  it.effect("fails as the connection fails, on either way", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const asking = yield* start(Stream.runDrain(through(Stream.never, near)))
      yield* turns
      yield* far.abort
      yield* Fiber.await(asking.fiber)
      strictEqual(outcome(asking), "ConnectionReset")

      const [second] = yield* pair()
      yield* second.writer.end
      strictEqual(yield* outcomeOf(Stream.runDrain(through(Stream.make("x"), second))), "BrokenPipe")
    })
  )

  it.effect("does not end a direction that cannot be ended alone", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect({}, { canEnd: false })
      transport.receive("out")
      const running = yield* start(textOf(through(Stream.make("in"), connection)))
      yield* turns
      transport.receiveEnd()
      strictEqual(yield* Fiber.join(running.fiber), "out")
      assertTrue(!transport.calls.includes("end"))
    })
  )

  it.effect("who takes nothing is not sent more than fits in between", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair(narrow)
      const made = yield* Ref.make(0)
      const echo = yield* start(Stream.run(Connection.stream(far), Connection.sink(far)))
      const taken = yield* Queue.bounded<number>(0)
      const taking = yield* start(
        Stream.runForEach(through(endless(made), near), (chunk) => Queue.offer(taken, chunk.length))
      )
      yield* turns
      yield* turns
      const stuck = yield* Ref.get(made)
      yield* turns
      strictEqual(yield* Ref.get(made), stuck)
      assertTrue(stuck < 2000, `${stuck} bytes were made, and none taken`)
      for (let n = 0; n < 5000;) n += yield* Queue.take(taken)
      assertTrue((yield* Ref.get(made)) > 5000)
      yield* taking.interrupt
      yield* echo.interrupt
    })
  )
})

describe("Connection.toWebStreams", () => {
  const reset = new StreamError.ConnectionError({
    operation: "read",
    reason: new StreamError.ConnectionReset({ code: "ECONNRESET" })
  })
  const promised = <A>(promise: Promise<A>) =>
    Effect.tryPromise({ try: () => promise, catch: (error) => error })

  it.effect("both fail with the connection's own error, after what came before it", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      const { readable, writable } = yield* Connection.toWebStreams(connection)
      const reader = readable.getReader()
      const first = reader.read()
      const second = yield* start(promised(reader.closed))
      const writing = yield* start(promised(writable.getWriter().closed))
      transport.receive("before")
      strictEqual(text((yield* promised(first)).value ?? new Uint8Array()), "before")
      transport.letGo(reset)
      strictEqual(yield* Effect.flip(promised(reader.read())), reset)
      strictEqual(yield* Effect.flip(Fiber.join(second.fiber)), reset)
      strictEqual(yield* Effect.flip(Fiber.join(writing.fiber)), reset)
    })
  )

  it.effect("aborting is not held up by a write that the peer does not take", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair(narrow)
      const { writable } = yield* Connection.toWebStreams(near)
      const writer = writable.getWriter()
      const writing = yield* start(promised(writer.write(new Uint8Array(200_000))))
      yield* turns
      strictEqual(outcome(writing), "waiting")
      const aborting = yield* start(promised(writer.abort()))
      strictEqual(yield* outcomeOf(far.reader.readAll()), "ConnectionReset")
      yield* Fiber.await(writing.fiber)
      strictEqual(outcome(writing), "ConnectionAborted")
      yield* Fiber.join(aborting.fiber)
    })
  )

  it.effect("cancelled or aborted they abort the connection, closed they end its direction", () =>
    Effect.gen(function* () {
      const ways: ReadonlyArray<
        readonly [string, (streams: WebStreamTransport.WebStreams) => Promise<unknown>, string]
      > = [
        ["cancel", ({ readable }) => readable.cancel(), "ConnectionReset"],
        ["abort", ({ writable }) => writable.abort(), "ConnectionReset"],
        ["close", ({ writable }) => writable.close(), "success"]
      ]
      for (const [name, end, expected] of ways) {
        const [near, far] = yield* pair()
        const streams = yield* Connection.toWebStreams(near)
        const read = yield* start(far.reader.readAll())
        yield* promised(end(streams))
        yield* Fiber.await(read.fiber)
        strictEqual(outcome(read), expected, name)
      }
    })
  )
})

describe("Connection.throttle", () => {
  it.effect("lets a tenth of a second's bytes through at once, and no more in any second", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const { writer } = yield* aborting(Connection.throttle(near, { write: 1000 }))
      const arrived: Array<number> = []
      const note = Effect.flatMap(far.reader.bufferedBytes, (n) => Effect.sync(() => arrived.push(n)))
      yield* writer.write(new Uint8Array(350))
      yield* turns
      yield* note
      for (const millis of [99, 1, 100, 100, 1000]) {
        yield* TestClock.adjust(millis)
        yield* turns
        yield* note
      }
      deepStrictEqual(arrived, [100, 100, 200, 300, 350, 350])
    })
  )

  it.effect("silence saves up one piece, and not more", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const { writer } = yield* aborting(Connection.throttle(near, { write: 1000 }))
      yield* writer.write(new Uint8Array(10))
      yield* TestClock.adjust("1 hour")
      yield* far.reader.skip(10)
      yield* writer.write(new Uint8Array(500))
      yield* turns
      strictEqual(yield* far.reader.bufferedBytes, 100)
    })
  )

  it.effect("holds up a peer that sends faster, and leaves the other direction alone", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair(narrow)
      const { reader, writer } = yield* aborting(Connection.throttle(near, { read: 1000 }))
      let sent = 0
      const sending = yield* start(
        Effect.forever(
          Effect.tap(far.writer.write(new Uint8Array(50)), () => Effect.sync(() => (sent += 50)))
        )
      )
      const received = yield* Ref.make(0)
      yield* start(
        Effect.forever(
          Effect.flatMap(reader.read(), (chunk) => Ref.update(received, (n) => n + chunk.length))
        )
      )
      yield* turns
      const before = sent
      yield* turns
      strictEqual(sent, before)
      yield* TestClock.adjust("2 seconds")
      yield* turns
      const bytes = yield* Ref.get(received)
      assertTrue(bytes >= 1900 && bytes <= 2100, `${bytes} bytes in two seconds`)
      yield* writer.write(new Uint8Array(90))
      yield* turns
      strictEqual(yield* far.reader.bufferedBytes, 90)
      yield* sending.interrupt
    })
  )

  it.effect("refuses a rate that is none", () =>
    Effect.gen(function* () {
      const [near] = yield* pair()
      for (const rates of [{ read: 0 }, { write: -1 }, { read: NaN }]) {
        assertTrue((yield* outcomeOf(Connection.throttle(near, rates))).startsWith("defect RangeError"))
      }
    })
  )

  it("whatever is written when: all of it arrives, in order, never faster than the rate, and no slower", () =>
    fc.assert(
      fc.asyncProperty(
        fc.record({
          rate: fc.integer({ min: 5, max: 5000 }),
          steps: fc.array(fc.record({ bytes: fc.integer({ min: 0, max: 800 }), millis: fc.nat(500) }), {
            minLength: 1,
            maxLength: 10
          })
        }),
        async ({ rate, steps }) => {
          const burst = Math.max(1, Math.floor(rate / 10))
          const program = Effect.gen(function* () {
            const [near, far] = yield* pair({ limit: 100_000, watermarks: { high: 100_000 } })
            const { writer } = yield* aborting(Connection.throttle(near, { write: rate }))
            let written = 0
            let now = 0
            const complaints: Array<string> = []
            const arrived: Array<Uint8Array> = []
            const look = Effect.gen(function* () {
              yield* turns
              const waiting = yield* far.reader.bufferedBytes
              if (waiting > 0) arrived.push(yield* far.reader.readExactly(waiting))
              const bytes = arrived.reduce((sum, chunk) => sum + chunk.length, 0)
              // One piece ahead of its time at most; a clock of whole milliseconds rounds.
              if (bytes > (rate * (now + 1)) / 1000 + burst) complaints.push(`${bytes} bytes at ${now}`)
            })
            for (const { bytes, millis } of steps) {
              const start = written
              yield* writer.write(Uint8Array.from({ length: bytes }, (_, i) => (start + i) % 251))
              written += bytes
              yield* look
              yield* TestClock.adjust(millis)
              now += millis
              yield* look
            }
            // Nothing is held back longer than all of it takes.
            const rest = Math.ceil((written / rate) * 1000) + steps.length
            yield* TestClock.adjust(rest)
            now += rest
            yield* look
            return { complaints, written, arrived: Buffer.concat(arrived) }
          })
          const { arrived, complaints, written } = await Effect.runPromise(
            program.pipe(Effect.scoped, Effect.provide(TestClock.layer()))
          )
          deepStrictEqual(complaints, [])
          deepStrictEqual(arrived, Buffer.from(Uint8Array.from({ length: written }, (_, i) => i % 251)))
        }
      ),
      { numRuns: 60 }
    ))
})

describe("Connection.through", () => {
  const rotate = Stream.map((chunk: Uint8Array) => chunk.map((byte) => byte ^ 0x20))

  it.effect("does something to the bytes, each way", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const { reader, writer } = yield* aborting(
        Connection.through(near, { received: rotate, sent: Stream.map((chunk) => chunk.slice().reverse()) })
      )
      yield* writer.write("abc")
      yield* far.writer.write("HELLO\n")
      strictEqual(text(yield* far.reader.readExactly(3)), "cba")
      strictEqual(text(yield* reader.readExactly(5)), "hello")
    })
  )

  it.effect("ends a direction when its stream ends, and aborts when one fails", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const first = yield* aborting(
        Connection.through(near, {
          received: (stream) => Stream.concat(Stream.take(stream, 1), Stream.make(new Uint8Array([0x21])))
        })
      )
      yield* far.writer.write("hi")
      strictEqual(text(yield* first.reader.readAll()), "hi!")

      const [second, peer] = yield* pair()
      const failing = yield* aborting(
        Connection.through(second, { received: () => Stream.fail(new Error("it is not English")) })
      )
      const error = yield* Effect.flip(failing.reader.read())
      assertTrue(error.message.includes("it is not English"), error.message)
      strictEqual(yield* outcomeOf(peer.closed), "ConnectionReset")
    })
  )

  it.effect("a flush waits until the connection below has sent everything", () =>
    Effect.gen(function* () {
      const { connection, transport } = yield* connect()
      const { writer } = yield* aborting(Connection.through(connection, {}))
      yield* writer.write("hello")
      const flushing = yield* start(writer.flush)
      yield* turns
      deepStrictEqual([outcome(flushing), yield* writer.bufferedBytes], ["waiting", 5])
      transport.accept()
      yield* turns
      deepStrictEqual([outcome(flushing), yield* writer.bufferedBytes], ["success", 0])
      transport.finish()
    })
  )

  it.effect("cannot be upgraded to TLS", () =>
    Effect.gen(function* () {
      const [near] = yield* pair()
      const connection = yield* aborting(Connection.through(near, {}))
      strictEqual(
        yield* outcomeOf(connection.upgradeTls({ role: "client", servername: "localhost" })),
        "Unsupported"
      )
    })
  )
})
