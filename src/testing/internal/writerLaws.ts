import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Connection from "../../Connection.ts"
import type { WriteError } from "../../StreamError.ts"
import { type StreamWriter, toQueue } from "../../StreamWriter.ts"
import {
  both,
  type Chunk,
  congest,
  connect,
  type Connections,
  decode,
  encode,
  hold,
  interruptedAt,
  LARGE,
  type Law,
  law,
  makeLarge,
  outcome,
  outcomeOf,
  pattern,
  places,
  same,
  sameBytes,
  soFar,
  start,
  turns
} from "./harness.ts"

const WATERMARKS = { high: 4096, low: 1024 }

/** Two connections, of which the near one is congested: it has written more than the peer takes unread. */
const makeCongested = Effect.fnUntraced(function* () {
  const connected = yield* connect({ watermarks: WATERMARKS }, { limit: 1024 })
  const writing = yield* congest(connected.near, connected.far)
  return {
    ...connected,
    writing,
    /** Takes what congests. */
    relieve: Effect.map(connected.far.reader.readExactly(LARGE), (bytes) =>
      sameBytes("what congested", bytes, makeLarge())
    )
  }
})

type Congested = Effect.Success<ReturnType<typeof makeCongested>>

/** A law about a congested writer. Where the peer cannot hold up a writer, it is held to that. */
const congestedLaw = <R>(
  name: string,
  check: (congested: Congested) => Effect.Effect<unknown, unknown, R>
): Law<Exclude<Connections | R | Scope.Scope, Scope.Scope>> =>
  law(
    name,
    Effect.fnUntraced(function* () {
      const congested = yield* makeCongested()
      if (congested.capabilities.backpressure) {
        same("a writer whose peer does not read", soFar(congested.writing), "waiting")
        yield* check(congested)
      } else {
        same("a writer that nobody can hold up", yield* outcomeOf(congested.writing), "done")
        yield* congested.relieve
      }
    })
  )

/** Everything the peer receives until this direction ends. */
const restOf = ({ capabilities, far, near }: Effect.Success<ReturnType<typeof connect>>) =>
  Effect.gen(function* () {
    const ending = yield* start(capabilities.halfClose ? near.writer.end : near.close)
    const rest = yield* far.reader.readAll()
    if (capabilities.halfClose) yield* Fiber.join(ending)
    return decode(rest)
  })

/** The operations that wait while a connection is congested. */
const waiting: ReadonlyArray<readonly [string, (writer: StreamWriter) => Effect.Effect<void, WriteError>]> = [
  ["write", (writer) => writer.write("late")],
  ["writeAll", (writer) => writer.writeAll(["la", "te"])],
  ["drain", (writer) => writer.drain],
  ["flush", (writer) => writer.flush]
]

const waitsOnly = (name: string): boolean => name === "drain" || name === "flush"

/** Begins something three times; gives what it comes to, every time. */
const thrice = Effect.fnUntraced(function* <A, E>(effect: Effect.Effect<A, E>) {
  const fibers = yield* Effect.forEach([1, 2, 3], () => start(effect))
  yield* turns
  same("while it is congested", fibers.map(soFar).join(), "waiting,waiting,waiting")
  return Effect.map(Effect.forEach(fibers, outcomeOf), (outcomes) => [...new Set(outcomes)].join())
})

export const writerLaws: ReadonlyArray<Law<Connections>> = [
  law("sends bytes and text, alone and together", () =>
    Effect.gen(function* () {
      const connected = yield* connect()
      const { near } = connected
      yield* start(
        Effect.gen(function* () {
          yield* near.writer.write("größer,")
          yield* near.writer.write(encode("bytes,"))
          yield* near.writer.writeAll(["a", encode("b"), "ç,"])
          yield* near.writer.writeAll(new Set(["d", "e"]))
        })
      )
      yield* connected.far.reader.peek(22)
      same("received", yield* restOf(connected), "größer,bytes,abç,de")
    })
  ),

  congestedLaw("sends nothing for empty writes, and does not wait for them", (connected) =>
    Effect.gen(function* () {
      const { writer } = connected.near
      const empties = [
        writer.write(""),
        writer.write(new Uint8Array(0)),
        writer.writeAll([]),
        writer.writeAll(["", new Uint8Array(0)])
      ]
      for (const empty of empties) same("an empty write", soFar(yield* start(empty)), "done")
      yield* connected.relieve
      same("the rest", yield* restOf(connected), "")
    })
  ),

  congestedLaw("sends writes of many fibers in their order, each whole", (connected) =>
    Effect.gen(function* () {
      const { far, near } = connected
      const names = Array.from({ length: 200 }, (_, index) => String(index))
      const writes = yield* Effect.forEach(names, (name) =>
        start(near.writer.writeAll(["<", name, "-".repeat(100), name, ">"]))
      )
      yield* connected.relieve
      const expected = names.map((name) => `<${name}${"-".repeat(100)}${name}>`).join("")
      same("received", decode(yield* far.reader.readExactly(expected.length)), expected)
      for (const write of writes) yield* Fiber.join(write)
      same("the rest", yield* restOf(connected), "")
    })
  ),

  law("sends ten thousand small writes in order", () =>
    Effect.gen(function* () {
      const { far, near } = yield* connect()
      const sent = pattern(10_000)
      yield* start(
        Effect.gen(function* () {
          for (let i = 0; i < sent.length; i++) yield* near.writer.write(sent.subarray(i, i + 1))
        })
      )
      sameBytes("received", yield* far.reader.readExactly(sent.length), sent)
    })
  ),

  congestedLaw("holds no more than a write above the high watermark", (connected) =>
    Effect.gen(function* () {
      const { far, near } = connected
      const piece = 64 * 1024
      const held = yield* near.writer.bufferedBytes
      hold(held <= WATERMARKS.high + piece, `${held} bytes are buffered while it is congested`)
      yield* connected.relieve
      yield* Fiber.join(connected.writing)
      let most = 0
      const sent = pattern(64 * piece)
      yield* start(
        Effect.gen(function* () {
          for (let at = 0; at < sent.length; at += piece) {
            yield* near.writer.write(sent.subarray(at, at + piece))
            most = Math.max(most, yield* near.writer.bufferedBytes)
          }
        })
      )
      sameBytes("received", yield* far.reader.readExactly(sent.length), sent)
      hold(most <= WATERMARKS.high + piece, `${most} bytes were buffered after a write`)
    })
  ),

  congestedLaw("flush waits until nothing is buffered, drain until it is not congested", (connected) =>
    Effect.gen(function* () {
      const { near } = connected
      const drain = yield* start(Effect.andThen(near.writer.drain, near.writer.bufferedBytes))
      const flush = yield* start(Effect.andThen(near.writer.flush, near.writer.bufferedBytes))
      yield* turns
      same("drain and flush", `${soFar(drain)}, ${soFar(flush)}`, "waiting, waiting")
      yield* connected.relieve
      hold((yield* Fiber.join(drain)) <= WATERMARKS.low, "drained above the low watermark")
      same("buffered after flush", yield* Fiber.join(flush), 0)
      yield* Fiber.join(connected.writing)
    })
  ),

  congestedLaw("takes watermarks that are set later", (connected) =>
    Effect.gen(function* () {
      const { writer } = connected.near
      yield* writer.setWatermarks({ high: 2 * LARGE, low: LARGE })
      same("the watermarks", writer.watermarks, { high: 2 * LARGE, low: LARGE })
      same("the write", yield* outcomeOf(connected.writing), "done")
      for (const wrong of [{ high: -1 }, { high: 1, low: 2 }, { high: 1.5 }]) {
        const seen = yield* outcome(writer.setWatermarks(wrong))
        hold(seen.startsWith("defect RangeError"), `wrong watermarks came to ${seen}`)
      }
      yield* connected.relieve
    })
  ),

  congestedLaw(
    "ends after everything written, also by writers that wait; then writing is a broken pipe",
    (connected) =>
      Effect.gen(function* () {
        const { capabilities, far, near } = connected
        same("canEnd", near.writer.canEnd, capabilities.halfClose)
        if (!capabilities.halfClose) {
          same("end", yield* outcome(near.writer.end), "Unsupported")
          const writing = yield* start(near.writer.write("still open"))
          yield* connected.relieve
          same("received", decode(yield* far.reader.readExactly(10)), "still open")
          same("a write after it", yield* outcomeOf(writing), "done")
          return
        }
        const late = yield* start(near.writer.write("late"))
        const ending = yield* start(near.writer.end)
        same("a write after the end", yield* outcome(near.writer.write("x")), "BrokenPipe")
        same("isClosing", yield* near.writer.isClosing, false)
        yield* connected.relieve
        same("the rest", decode(yield* far.reader.readAll()), "late")
        same(
          "the late write and the end",
          `${yield* outcomeOf(late)}, ${yield* outcomeOf(ending)}`,
          "done, done"
        )
        same("a second end", yield* outcome(near.writer.end), "done")
        same("an empty write", yield* outcome(near.writer.write("")), "BrokenPipe")
        yield* start(far.writer.write("answer"))
        same("an answer", decode(yield* near.reader.readExactly(6)), "answer")
      })
  ),

  law("an end that is interrupted is an end all the same, or none", () =>
    Effect.gen(function* () {
      for (const place of places.filter(({ operations }) => operations % 4 === 0)) {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { capabilities, far, near } = yield* connect()
            if (!capabilities.halfClose) return
            yield* interruptedAt(place, near.writer.end)
            const after = yield* start(Effect.andThen(near.writer.write("x"), near.writer.end))
            const rest = decode(yield* far.reader.readAll())
            const seen = `${yield* outcomeOf(after)} "${rest}"`
            hold(['BrokenPipe ""', 'done "x"'].includes(seen), seen)
          })
        )
      }
    })
  ),

  ...waiting.flatMap(([name, run]) => [
    congestedLaw(`${name}: on timeout, sends all or nothing, and the connection stays usable`, (connected) =>
      Effect.gen(function* () {
        const { far, near } = connected
        // Only the late one is limited: what congests waits as well.
        const late = yield* start(run(Connection.withTimeouts(near, { write: "1 second" }).writer))
        yield* TestClock.adjust("999 millis")
        same("before the time", soFar(late), "waiting")
        yield* TestClock.adjust("1 millis")
        same("at the time", yield* outcomeOf(late), "TimeoutError of write")
        yield* connected.relieve
        yield* start(near.writer.write(" end"))
        same("the rest", decode(yield* far.reader.readExactly(4)), " end")
      })
    ),

    congestedLaw(`${name}: on interruption, sends all or nothing, and leaves the others alone`, (connected) =>
      Effect.gen(function* () {
        const { near } = connected
        const before = yield* start(near.writer.write("before "))
        const late = yield* start(run(near.writer))
        const after = yield* start(near.writer.write("after"))
        yield* turns
        same("while it is congested", soFar(late), "waiting")
        yield* Fiber.interrupt(late)
        yield* connected.relieve
        same("the rest", decode(yield* connected.far.reader.readExactly(12)), "before after")
        same("the others", `${yield* outcomeOf(before)}, ${yield* outcomeOf(after)}`, "done, done")
        same("what comes behind", yield* restOf(connected), "")
      })
    ),

    congestedLaw(`${name}: fails when the connection is aborted`, ({ near }) =>
      Effect.gen(function* () {
        const late = yield* thrice(run(near.writer))
        yield* near.abort
        same("the outcomes", yield* late, "ConnectionAborted")
        same("a later one", yield* outcome(run(near.writer)), "ConnectionAborted")
      })
    ),

    // What only waits for bytes that are sent goes on waiting while the connection closes.
    congestedLaw(
      `${name}: ${waitsOnly(name) ? "waits on" : "fails"} when the connection is closed`,
      (connected) =>
        Effect.gen(function* () {
          const { far, near } = connected
          const late = yield* thrice(run(near.writer))
          const closing = yield* start(near.close)
          if (!waitsOnly(name)) same("the outcomes", yield* late, "ConnectionClosed")
          yield* start(far.reader.readAll({ maxBytes: 2 * LARGE }))
          if (waitsOnly(name)) same("the outcomes", yield* late, "done")
          yield* far.close
          yield* Fiber.join(closing)
        })
    ),

    congestedLaw(`${name}: fails when the connection is lost`, ({ capabilities, far, near }) =>
      Effect.gen(function* () {
        const late = yield* thrice(run(near.writer))
        yield* far.abort
        const seen = yield* late
        hold(seen !== "done", "it succeeded though nothing was sent")
        if (capabilities.abort === "reset") same("the outcomes", seen, "ConnectionReset")
      })
    )
  ]),

  law("a write interrupted at any step sends all of its bytes or none", () =>
    Effect.gen(function* () {
      const { capabilities, far, near } = yield* connect({ watermarks: WATERMARKS }, { limit: 1024 })
      const sent: Array<string> = []
      const frame = (stage: string, index: number) => `[${stage}${index}${".".repeat(200)}]`
      const attempt = Effect.fnUntraced(function* (stage: string) {
        for (const [index, place] of places.entries()) {
          const text = frame(stage, index)
          const exit = yield* interruptedAt(place, near.writer.writeAll([text.slice(0, 5), text.slice(5)]))
          if (Exit.isSuccess(exit)) sent.push(text)
        }
      })
      // While nobody is in the way.
      const open = yield* start(attempt("open"))
      const parts: Array<Uint8Array> = []
      const reading = yield* start(
        Effect.gen(function* () {
          while (true) {
            const part = yield* far.reader.read()
            if (part.length === 0) return
            parts.push(part)
          }
        })
      )
      yield* Fiber.join(open)
      yield* Fiber.interrupt(reading)
      // While the transport is full.
      const writing = yield* congest(near, far, new Uint8Array(LARGE))
      if (capabilities.backpressure) same("the write that congests", soFar(writing), "waiting")
      yield* attempt("full")
      // While it drains.
      const draining = yield* start(attempt("draining"))
      const going = yield* start(
        Effect.gen(function* () {
          yield* Fiber.join(writing)
          yield* Fiber.join(draining)
          yield* capabilities.halfClose ? near.writer.end : near.close
        })
      )
      while (true) {
        const part = yield* far.reader.read()
        if (part.length === 0) break
        parts.push(part)
      }
      if (!capabilities.halfClose) yield* far.abort
      yield* Fiber.join(going)
      const received = parts.map(decode).join("").replaceAll("\0", "")
      const frames: ReadonlyArray<string> = received.match(/\[(open|full|draining)\d+\.{200}\]/g) ?? []
      same("what is not a whole frame", frames.join("").length, received.length)
      const missing = sent.filter((text) => !frames.includes(text))
      same("frames whose write succeeded and that did not come", missing.length, 0)
      const order = frames.map((text) =>
        ["open", "full", "draining"].findIndex((_) => text.startsWith(`[${_}`))
      )
      same("in order", order.join(), [...order].sort().join())
      same("doubled frames", frames.length, new Set(frames).size)
    })
  ),

  law("goes on writing after the peer's end of input", () =>
    Effect.gen(function* () {
      const { capabilities, end, far, near } = yield* connect()
      if (!capabilities.halfClose) return
      yield* end
      same("the end of input", decode(yield* near.reader.read()), "")
      same("isClosing", yield* near.writer.isClosing, false)
      const sending = yield* start(near.writer.write(pattern(500_000)))
      sameBytes("received", yield* far.reader.readExactly(500_000), pattern(500_000))
      yield* Fiber.join(sending)
    })
  ),

  law("writes a whole stream through its sink", () =>
    Effect.gen(function* () {
      const connected = yield* connect()
      const chunks: Array<Chunk> = Array.from({ length: 1000 }, (_, index) => `${index},`)
      const running = yield* start(Stream.run(Stream.fromIterable(chunks), connected.near.writer.sink))
      const expected = chunks.join("")
      same("received", decode(yield* connected.far.reader.readExactly(expected.length)), expected)
      yield* Fiber.join(running)
      same("the rest", yield* restOf(connected), "")
    })
  ),

  law("writes what many producers offer to its queue, in order, and settles it", () =>
    Effect.gen(function* () {
      const connected = yield* connect()
      const scope = yield* Scope.make()
      const queue = yield* Scope.provide(toQueue(connected.near.writer, { capacity: 4 }), scope)
      const offering = yield* start(
        Effect.forEach(
          Array.from({ length: 100 }, (_, index) => `${index},`),
          (text) => Queue.offer(queue, text),
          { discard: true }
        )
      )
      const expected = Array.from({ length: 100 }, (_, index) => `${index},`).join("")
      same("received", decode(yield* connected.far.reader.readExactly(expected.length)), expected)
      yield* Fiber.join(offering)
      yield* Scope.close(scope, Exit.void)
      yield* both(connected.near.abort, connected.far.abort)
    })
  )
]
