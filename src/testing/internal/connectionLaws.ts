import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Connection from "../../Connection.ts"
import {
  both,
  type Capabilities,
  congest,
  connect,
  type Connections,
  decode,
  hold,
  interruptedAt,
  join,
  LARGE,
  type Law,
  law,
  lingers,
  outcome,
  outcomeOf,
  pattern,
  Pair,
  places,
  same,
  sameBytes,
  soFar,
  start,
  turns,
  writeLarge
} from "./harness.ts"

const MEGABYTE = 1024 * 1024

/** How a connection tells that its peer was aborted: through `closed`, and to a read. */
const checkAborted = Effect.fnUntraced(function* (
  connection: Connection.Connection,
  read: string,
  abort: Capabilities["abort"]
) {
  // Nobody can tell it from an end of input then, which ends no connection that can go on writing.
  if (abort === "end") return
  const closed = yield* outcome(connection.closed)
  hold(!["", "done"].includes(read), "a read took the peer's abort for an end of input")
  hold(closed !== "done", "the peer's abort was taken for an orderly end")
  if (abort === "reset") same("closed and the read", `${closed}, ${read}`, "ConnectionReset, ConnectionReset")
})

const read = (connection: Connection.Connection): Effect.Effect<string> =>
  outcome(Effect.map(connection.reader.read(), decode))

const answered = Effect.fnUntraced(function* (
  asking: Connection.Connection,
  answering: Connection.Connection
) {
  yield* start(Effect.andThen(asking.writer.write("request"), asking.writer.end))
  same("the request", decode(yield* answering.reader.readAll()), "request")
  yield* turns
  same("isClosing", yield* answering.writer.isClosing, false)
  yield* start(Effect.andThen(answering.writer.write("answer"), answering.writer.end))
  same("the answer", decode(yield* asking.reader.readAll()), "answer")
  const ends = yield* both(outcome(asking.closed), outcome(answering.closed))
  same("both ends", ends.join(), "done,done")
})

/** A connection in a scope of its own, and its peer, which is aborted when the check is over. */
const inScope = Effect.fnUntraced(function* () {
  const { capabilities, make } = yield* Pair
  const [left, right] = yield* make
  const far = yield* Connection.make(right)
  yield* Effect.addFinalizer(() => far.abort)
  const scope = yield* Scope.make()
  const near = yield* Scope.provide(Connection.make(left), scope)
  return { near, far, scope, capabilities }
})

/** How the scope of a connection ends it. */
export const scopeLaws: ReadonlyArray<Law<Pair>> = [
  law("is closed by a scope that ends well", () =>
    Effect.gen(function* () {
      const { far, near, scope } = yield* inScope()
      const writing = yield* start(near.writer.write("last words"))
      const reading = yield* start(far.reader.readAll())
      yield* Fiber.join(writing)
      const closing = yield* start(Scope.close(scope, Exit.void))
      same("received", decode(yield* Fiber.join(reading)), "last words")
      yield* both(Fiber.join(closing), far.close)
      same("closed", (yield* both(outcome(near.closed), outcome(far.closed))).join(), "done,done")
    })
  ),

  ...[
    ["fails", Exit.fail("no")] as const,
    ["dies", Exit.die("no")] as const,
    ["is interrupted", Exit.interrupt(1)] as const
  ].map(([name, exit]) =>
    law(`is aborted by a scope that ${name}`, () =>
      Effect.gen(function* () {
        const { capabilities, far, near, scope } = yield* inScope()
        const writing = yield* start(writeLarge(near.writer))
        yield* far.reader.peek(1)
        yield* Scope.close(scope, exit)
        same("closed", yield* outcome(near.closed), "done")
        same("the write", yield* outcomeOf(writing), capabilities.backpressure ? "ConnectionAborted" : "done")
        const all = yield* outcome(Effect.as(far.reader.readAll({ maxBytes: 2 * LARGE }), ""))
        yield* checkAborted(far, all, capabilities.abort)
      })
    )
  )
]

export const connectionLaws: ReadonlyArray<Law<Connections>> = [
  law("tells what it runs on, and each connection by a name of its own", () =>
    Effect.gen(function* () {
      const { capabilities, far, near } = yield* connect()
      hold(near.id !== far.id, `two connections are called ${near.id}`)
      hold(near.info.transport.length > 0, "the transport has no name")
      same("canEnd", near.writer.canEnd, capabilities.halfClose)
      const { localAddress, remoteAddress } = near.info
      if (remoteAddress !== undefined && far.info.localAddress !== undefined) {
        same("the peer's address", String(remoteAddress), String(far.info.localAddress))
      }
      yield* both(near.abort, far.abort)
      same("the own address, after the end", near.info.localAddress, localAddress)
      same("the peer's address, after the end", near.info.remoteAddress, remoteAddress)
    })
  ),

  law("answers a request after the requester's end, if it can", () =>
    Effect.gen(function* () {
      const { capabilities, far, near } = yield* connect()
      if (!capabilities.halfClose) {
        same("end", yield* outcome(near.writer.end), "Unsupported")
        yield* start(near.writer.write("still open"))
        same("received", decode(yield* far.reader.readExactly(10)), "still open")
        return
      }
      yield* answered(near, far)
      const others = yield* connect()
      yield* answered(others.far, others.near)
    })
  ),

  law("reads all that came before the peer's end, however slowly, though its own direction has ended", () =>
    Effect.gen(function* () {
      const { capabilities, far, near } = yield* connect({ limit: 1024 })
      if (!capabilities.halfClose) return
      const sent = pattern(MEGABYTE / 4)
      yield* start(near.writer.end)
      yield* start(Effect.andThen(far.writer.write(sent), far.writer.end))
      const chunks: Array<Uint8Array> = []
      while (true) {
        const chunk = yield* near.reader.read(1000)
        if (chunk.length === 0) break
        chunks.push(chunk)
        yield* Effect.yieldNow
      }
      sameBytes("received before the end", join(chunks), sent)
    })
  ),

  law("is not ended by the peer's end of input alone", () =>
    Effect.gen(function* () {
      const { capabilities, end, far, near } = yield* connect()
      if (!capabilities.halfClose) return
      const closed = yield* start(near.closed)
      yield* end
      same("the end of input", yield* read(near), "")
      yield* turns
      same("closed", soFar(closed), "waiting")
      same("isClosing", yield* near.writer.isClosing, false)
      yield* start(near.writer.write("still open"))
      same("received", decode(yield* far.reader.readExactly(10)), "still open")
    })
  ),

  law("closes after everything written was sent, to a peer that reads slowly", () =>
    Effect.gen(function* () {
      const { far, near } = yield* connect({ watermarks: { high: 2 * MEGABYTE } })
      const writing = yield* start(near.writer.write(pattern(MEGABYTE)))
      const begun = yield* far.reader.readExactly(1)
      const closing = yield* start(near.close)
      const chunks = [begun]
      while (true) {
        const chunk = yield* far.reader.read(10_000)
        if (chunk.length === 0) break
        chunks.push(chunk)
        yield* Effect.yieldNow
      }
      sameBytes("received before the end", join(chunks), pattern(MEGABYTE))
      yield* far.close
      yield* Fiber.join(closing)
      const written = yield* outcomeOf(writing)
      hold(["done", "ConnectionClosed"].includes(written), `the write came to ${written}`)
      same("closed", yield* outcome(near.closed), "done")
    })
  ),

  law("closes for any number of fibers, any number of times", () =>
    Effect.gen(function* () {
      const { far, near } = yield* connect()
      const closing = yield* Effect.forEach([1, 2, 3], () => start(near.close))
      const interrupted = yield* start(near.close)
      yield* Fiber.interrupt(interrupted)
      same("the end of input", yield* read(far), "")
      yield* far.close
      for (const fiber of closing) yield* Fiber.join(fiber)
      yield* near.close
      yield* near.abort
      same("closed", yield* outcome(near.closed), "done")
      same("isClosing", yield* near.writer.isClosing, true)
    })
  ),

  law("goes on closing when whoever closes it is interrupted, at every step", () =>
    Effect.gen(function* () {
      for (const place of places.filter(({ operations }) => operations % 4 === 0)) {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { far, near } = yield* connect()
            yield* start(near.writer.write("all of it"))
            same("received", decode(yield* far.reader.readExactly(9)), "all of it")
            const exit = yield* interruptedAt(place, near.close)
            // Interrupted before it began, it has done nothing.
            if (yield* near.writer.isClosing) {
              same("the end of input", yield* read(far), "")
              yield* far.close
              same("closed", yield* outcome(near.closed), "done")
            } else {
              same("the close", Exit.isFailure(exit), true)
              yield* start(near.writer.write("x"))
              same("received", decode(yield* far.reader.readExactly(1)), "x")
            }
          })
        )
      }
    })
  ),

  law("discards what the peer still sends while it closes, and tells nobody of it", () =>
    Effect.gen(function* () {
      const { capabilities, far, near } = yield* connect()
      const closing = yield* start(near.close)
      same("the end of input", yield* read(far), "")
      // Who does not wait for the peer cannot take anything either.
      const writing = yield* start(far.writer.write(pattern(200_000)))
      if (lingers(capabilities)) same("the write", yield* outcomeOf(writing), "done")
      yield* far.close
      yield* Fiber.join(closing)
      same("closed", yield* outcome(near.closed), "done")
      if (lingers(capabilities)) same("closed over there", yield* outcome(far.closed), "done")
    })
  ),

  law("sends all that was written before a close to a peer that goes on sending and reads later", () =>
    Effect.gen(function* () {
      const { capabilities, far, near } = yield* connect({ watermarks: { high: 2 * MEGABYTE } })
      if (!lingers(capabilities)) return
      const writing = yield* start(near.writer.write(pattern(500_000)))
      const begun = yield* far.reader.readExactly(1)
      const closing = yield* start(near.close)
      for (let sent = 0; sent < 600_000; sent += 20_000) {
        yield* far.writer.write(pattern(20_000))
        yield* turns
      }
      const rest = yield* far.reader.readAll()
      sameBytes("received before the end", join([begun, rest]), pattern(500_000))
      yield* far.close
      yield* Fiber.join(closing)
      const written = yield* outcomeOf(writing)
      hold(["done", "ConnectionClosed"].includes(written), `the write came to ${written}`)
      same("closed", (yield* both(outcome(near.closed), outcome(far.closed))).join(), "done,done")
    })
  ),

  law("closes within the close timeout, whatever the peer does", () =>
    Effect.gen(function* () {
      const { capabilities, far, near } = yield* connect({ closeTimeout: "3 seconds" })
      const closing = yield* start(near.close)
      yield* turns
      if (lingers(capabilities)) {
        same("the close", soFar(closing), "waiting")
        yield* TestClock.adjust("2999 millis")
        yield* turns
        same("the close", soFar(closing), "waiting")
        yield* TestClock.adjust("1 millis")
      } else yield* TestClock.adjust("3 seconds")
      yield* Fiber.join(closing)
      same("closed", yield* outcome(near.closed), "done")
      // The peer has seen the end that was sent, or the abort.
      const seen = yield* read(far)
      if (lingers(capabilities))
        hold(["", "ConnectionReset"].includes(seen) || capabilities.abort !== "reset", seen)
    })
  ),

  law("closes within the close timeout, though the peer takes nothing", () =>
    Effect.gen(function* () {
      const options = { closeTimeout: "3 seconds" } as const
      const { capabilities, far, near } = yield* connect(options, { limit: 1024 })
      const writing = yield* congest(near, far)
      if (capabilities.backpressure) same("the write", soFar(writing), "waiting")
      const closing = yield* start(near.close)
      yield* turns
      if (capabilities.backpressure) same("the close", soFar(closing), "waiting")
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.join(closing)
      same("closed", yield* outcome(near.closed), "done")
      const written = yield* outcomeOf(writing)
      hold(written !== "done" || !capabilities.backpressure, "a write succeeded whose bytes were dropped")
    })
  ),

  law("aborts at once, without an error of its own", () =>
    Effect.gen(function* () {
      const { capabilities, far, near } = yield* connect(undefined, { limit: 1024 })
      const writing = yield* start(writeLarge(near.writer))
      const reading = yield* start(near.reader.read())
      yield* far.reader.peek(1)
      yield* near.abort
      yield* near.abort
      same("closed", yield* outcome(near.closed), "done")
      const written = yield* outcomeOf(writing)
      same("the write", written, capabilities.backpressure ? "ConnectionAborted" : "done")
      same("the read", yield* outcomeOf(reading), "ConnectionAborted")
      same("a later write", yield* outcome(near.writer.write("x")), "ConnectionAborted")
      same("isClosing", yield* near.writer.isClosing, true)
    })
  ),

  law("notices the peer's abort, while it reads and while it does not", () =>
    Effect.gen(function* () {
      const { capabilities, far, near } = yield* connect()
      const reading = yield* start(Effect.map(near.reader.read(), decode))
      yield* far.abort
      yield* checkAborted(near, yield* outcomeOf(reading), capabilities.abort)

      const quiet = yield* connect()
      yield* quiet.far.abort
      if (capabilities.abort !== "end") yield* Effect.exit(quiet.near.closed)
      yield* checkAborted(quiet.near, yield* read(quiet.near), capabilities.abort)
    })
  ),

  law("tells every fiber that waits for its end, and interrupting one leaves the others alone", () =>
    Effect.gen(function* () {
      const { capabilities, far, near } = yield* connect()
      const waiting = yield* Effect.forEach([1, 2, 3, 4], () => start(near.closed))
      const [first, ...others] = waiting
      if (first !== undefined) yield* Fiber.interrupt(first)
      yield* turns
      same("the others", others.map(soFar).join(), "waiting,waiting,waiting")
      yield* capabilities.abort === "end" ? near.abort : far.abort
      const outcomes = yield* Effect.forEach(others, outcomeOf)
      same("how many outcomes there are", new Set(outcomes).size, 1)
      same("a later one", yield* outcome(near.closed), outcomes[0])
    })
  ),

  law("carries large transfers both ways at once", () =>
    Effect.gen(function* () {
      const { far, near } = yield* connect()
      const size = 4 * MEGABYTE
      const transfer = (from: Connection.Connection, to: Connection.Connection, seed: number) =>
        Effect.gen(function* () {
          const bytes = pattern(size, seed)
          const sending = yield* start(
            Effect.gen(function* () {
              for (let at = 0; at < size; at += 60_000) {
                yield* from.writer.write(bytes.subarray(at, at + 60_000))
              }
            })
          )
          const received = yield* to.reader.readExactly(size)
          yield* Fiber.join(sending)
          sameBytes("received", received, bytes)
        })
      yield* both(transfer(near, far, 1), transfer(far, near, 2))
    })
  ),

  law("carries a thousand messages and their answers", () =>
    Effect.gen(function* () {
      const { far, near } = yield* connect()
      const rounds = 1000
      yield* start(
        Effect.gen(function* () {
          for (let i = 0; i < rounds; i++) yield* far.writer.write(yield* far.reader.readLine)
        })
      )
      for (let i = 0; i < rounds; i++) {
        const [, line] = yield* both(near.writer.write(`${i}\n`), near.reader.readLine)
        same("the answer", decode(line), `${i}\n`)
      }
    })
  ),

  law("fails what waits when it is closed here, and takes a close for no end of input", () =>
    Effect.gen(function* () {
      const { far, near } = yield* connect()
      const reading = yield* start(near.reader.read())
      yield* turns
      const closing = yield* start(near.close)
      same("a read that waited", yield* outcomeOf(reading), "ConnectionClosed")
      same("a later read", yield* read(near), "ConnectionClosed")
      same("a later write", yield* outcome(near.writer.write("x")), "ConnectionClosed")
      same("atEof", yield* near.reader.atEof, false)
      yield* far.close
      yield* Fiber.join(closing)
      same("a read after the end", yield* read(near), "ConnectionClosed")
    })
  ),

  law("keeps what was received before it is closed here", () =>
    Effect.gen(function* () {
      const { far, feed, near } = yield* connect()
      yield* feed("received")
      yield* near.reader.peek(8)
      yield* both(near.close, far.close)
      same("a read", yield* read(near), "received")
      same("the next one", yield* read(near), "ConnectionClosed")
    })
  )
]
