import * as Effect from "effect/Effect"
import {
  both,
  type Chunk,
  encode,
  hold,
  join,
  LARGE,
  type Law,
  makeLarge,
  type Pair,
  pattern,
  same,
  sameBytes,
  start,
  turns
} from "./harness.ts"
import { checkAborted, type Wire, wireLaw } from "./wire.ts"

const write = (wire: Wire, ...chunks: ReadonlyArray<Chunk>): void => {
  for (const chunk of chunks) wire.transport.write(chunk)
}

/** Writes in pieces, a turn of the event loop apart, so that they are no single chunk for anybody. */
const writeInPieces = (wire: Wire, bytes: Uint8Array): Effect.Effect<void> =>
  Effect.gen(function* () {
    const size = 256 * 1024
    for (let at = 0; at < bytes.length && !wire.has("closed"); at += size) {
      write(wire, bytes.slice(at, at + size))
      yield* Effect.yieldNow
    }
  })

const received = (wire: Wire, size: number): Effect.Effect<void> => wire.until(() => wire.size >= size)

/** Closes both ends, each of which reads what the other still sends. */
const finish = (left: Wire, right: Wire): Effect.Effect<void> =>
  Effect.suspend(() => {
    for (const wire of [left, right]) {
      wire.resume()
      wire.transport.close()
    }
    return Effect.asVoid(both(left.closed, right.closed))
  })

export const transportLaws: ReadonlyArray<Law<Pair>> = [
  wireLaw("can do what it is said to be able to", ({ capabilities, left, right }) =>
    Effect.sync(() => {
      for (const { transport } of [left, right]) {
        same("canEnd", transport.canEnd, capabilities.halfClose)
        const canLinger = transport.canLinger ?? transport.canEnd
        if (capabilities.linger !== undefined) same("canLinger", canLinger, capabilities.linger)
        same("readAhead", transport.readAhead, capabilities.readAhead)
        same("bufferedBytes of a new transport", transport.bufferedBytes, 0)
        hold(transport.kind.length > 0, "a transport names what bytes travel on")
      }
    })
  ),

  wireLaw(
    "delivers nothing before it is started and resumed, and loses nothing",
    ({ left, right }) =>
      Effect.gen(function* () {
        left.start()
        write(left, "early ")
        yield* turns
        same("calls before start", right.events.length, 0)
        right.start()
        yield* turns
        hold(!right.has("data"), "a transport starts paused")
        right.resume()
        yield* received(right, 6)
        write(left, "late")
        yield* received(right, 10)
        same("received", right.text, "early late")
      }),
    { unstarted: true }
  ),

  wireLaw("carries bytes and text, in order and unchanged, both ways", ({ left, right }) =>
    Effect.gen(function* () {
      const bytes = pattern(70_000)
      for (const [from, to] of [
        [left, right],
        [right, left]
      ] as const) {
        to.resume()
        write(from, "größer ", bytes.slice(0, 1), bytes.slice(1, 1000))
        from.transport.writeAll([bytes.slice(1000, 1001), " naïve ", bytes.slice(1001)])
        const expected = join([encode("größer "), bytes.slice(0, 1001), encode(" naïve "), bytes.slice(1001)])
        yield* received(to, expected.length)
        sameBytes("received", join(to.chunks), expected)
      }
    })
  ),

  wireLaw("carries ten thousand small writes in order", ({ left, right }) =>
    Effect.gen(function* () {
      const expected = pattern(10_000)
      right.resume()
      for (let i = 0; i < expected.length; i++) write(left, expected.slice(i, i + 1))
      yield* received(right, expected.length)
      sameBytes("received", join(right.chunks), expected)
    })
  ),

  wireLaw("leaves a delivered chunk alone", ({ left, right }) =>
    Effect.gen(function* () {
      right.resume()
      write(left, "first")
      yield* received(right, 5)
      const copies = right.chunks.map((chunk) => chunk.slice())
      write(left, pattern(200_000))
      yield* received(right, 200_005)
      for (const [index, copy] of copies.entries()) {
        sameBytes("the first chunk", right.chunks[index] ?? new Uint8Array(0), copy)
      }
    })
  ),

  wireLaw("counts what has not left, and tells whenever it has fallen", ({ left, right }) =>
    Effect.gen(function* () {
      let last = 0
      left.on = (event) => {
        if (event !== "drain") return
        const { bufferedBytes } = left.transport
        hold(bufferedBytes < last, `onDrain at ${bufferedBytes} bytes, after ${last}`)
        last = bufferedBytes
      }
      write(left, makeLarge())
      last = left.transport.bufferedBytes
      hold(last > 0 && last <= LARGE, `${last} of ${LARGE} bytes are buffered`)
      right.resume()
      yield* left.until(() => left.transport.bufferedBytes === 0)
      hold(left.has("drain"), "nothing was told of it")
      yield* received(right, LARGE)
      sameBytes("received", join(right.chunks), makeLarge())
    })
  ),

  wireLaw("counts text in bytes", ({ left, right }) =>
    Effect.gen(function* () {
      write(left, makeLarge(), "äöü".repeat(100_000))
      const total = LARGE + 600_000
      const { bufferedBytes } = left.transport
      hold(bufferedBytes <= total, `${bufferedBytes} bytes are buffered of ${total}`)
      right.resume()
      yield* received(right, total)
      yield* left.until(() => left.transport.bufferedBytes === 0)
      same("received", right.size, total)
    })
  ),

  wireLaw("stops when it is paused, and goes on when it is resumed", ({ left, right }) =>
    Effect.gen(function* () {
      let pauses = 0
      right.on = (event) => {
        if (event === "data" && pauses < 3) {
          pauses++
          right.pause()
        }
      }
      right.resume()
      yield* start(writeInPieces(left, makeLarge()))
      for (let round = 1; round <= 3; round++) {
        yield* right.until(() => pauses === round)
        const before = right.chunks.length
        yield* turns
        const more = right.chunks.length - before
        hold(more <= 1, `${more} chunks came though the transport was paused`)
        if (round === 1) hold(right.size < LARGE, "everything came though the transport was paused")
        right.resume()
      }
      yield* received(right, LARGE)
      sameBytes("received", join(right.chunks), makeLarge())
    })
  ),

  wireLaw("does nothing for a second pause or a second resume", ({ left, right }) =>
    Effect.gen(function* () {
      right.resume()
      right.resume()
      write(left, "one ")
      yield* received(right, 4)
      right.pause()
      right.pause()
      right.resume()
      write(left, "two")
      yield* received(right, 7)
      same("received", right.text, "one two")
    })
  ),

  wireLaw("lets a handler write while it is told of bytes", ({ left, right }) =>
    Effect.gen(function* () {
      const size = 300_000
      let answered = 0
      right.on = (event) => {
        const chunk = right.chunks.at(-1)
        if (event !== "data" || chunk === undefined) return
        answered += chunk.length
        write(right, chunk)
      }
      left.resume()
      right.resume()
      write(left, pattern(size))
      yield* received(left, size)
      same("answered", answered, size)
      sameBytes("the answer", join(left.chunks), pattern(size))
    })
  ),

  wireLaw("lets a handler abort while it is told of bytes", ({ left, right }) =>
    Effect.gen(function* () {
      right.on = (event) => {
        if (event === "data") right.transport.abort()
      }
      right.resume()
      left.resume()
      yield* writeInPieces(left, makeLarge())
      yield* both(
        right.closed,
        left.until(() => left.has("closed") || left.has("end"))
      )
      same("the error of an abort", right.reason, "none")
      hold(right.size < LARGE, "everything came though the transport was aborted")
    })
  ),

  wireLaw("lets a handler abort while it is told of drained bytes", ({ left, right }) =>
    Effect.gen(function* () {
      left.on = (event) => {
        if (event === "drain") left.transport.abort()
      }
      right.resume()
      write(left, makeLarge())
      yield* left.closed
      same("the error of an abort", left.reason, "none")
    })
  ),

  wireLaw("ends one direction after everything written, once, if it can", ({ capabilities, left, right }) =>
    Effect.gen(function* () {
      if (!capabilities.halfClose) return same("canEnd", left.transport.canEnd, false)
      left.resume()
      right.resume()
      write(left, pattern(200_000))
      left.transport.end()
      yield* right.until(() => right.has("end"))
      sameBytes("received before the end", join(right.chunks), pattern(200_000))
      yield* turns
      hold(!left.has("closed") && !right.has("closed"), "an end of one direction has closed the transport")
      write(right, "still open")
      yield* received(left, 10)
      same("received after the own end", left.text, "still open")
      right.transport.end()
      yield* both(left.closed, right.closed)
      same("the error of an orderly end", `${left.reason} and ${right.reason}`, "none and none")
    })
  ),

  wireLaw("tells an end of input to a transport that was paused, once it is resumed", (wires) =>
    Effect.gen(function* () {
      const { capabilities, left, right } = wires
      write(left, "last words")
      if (capabilities.halfClose) left.transport.end()
      else left.transport.close()
      yield* turns
      hold(!right.has("end"), "an end of input came before the last byte")
      right.resume()
      yield* right.until(() => right.has("end"))
      same("received", right.text, "last words")
    })
  ),

  wireLaw("closes after everything written, without waiting for the peer's end", ({ left, right }) =>
    Effect.gen(function* () {
      right.resume()
      write(left, makeLarge())
      left.transport.close()
      yield* both(
        left.closed,
        right.until(() => right.has("end"))
      )
      same("the error of a close", left.reason, "none")
      sameBytes("received before the end", join(right.chunks), makeLarge())
      yield* finish(left, right)
    })
  ),

  wireLaw("closes when the peer has ended already", ({ capabilities, left, right }) =>
    Effect.gen(function* () {
      left.resume()
      right.resume()
      if (capabilities.halfClose) right.transport.end()
      else right.transport.close()
      yield* left.until(() => left.has("end"))
      if (!left.has("closed")) {
        if (capabilities.halfClose) write(left, "goodbye")
        left.transport.close()
      }
      yield* both(left.closed, right.closed)
      same("the errors", `${left.reason} and ${right.reason}`, "none and none")
      if (capabilities.halfClose) same("received", right.text, "goodbye")
    })
  ),

  wireLaw("may be closed and aborted again and again, and closes once", ({ left, right }) =>
    Effect.gen(function* () {
      right.resume()
      write(left, "x")
      for (const stop of ["close", "close", "abort", "close", "abort"] as const) left.transport[stop]()
      yield* left.closed
      for (const stop of ["abort", "close"] as const) left.transport[stop]()
      yield* turns
      same("how often it told so", left.events.filter((event) => event === "closed").length, 1)
    })
  ),

  wireLaw("aborts at once, also when it is closing, and drops what was not sent", (wires) =>
    Effect.gen(function* () {
      const { capabilities, left, right } = wires
      write(left, makeLarge())
      left.transport.close()
      if (!capabilities.backpressure) {
        // Everything has left already.
        yield* left.closed
        right.resume()
        yield* right.until(() => right.has("end"))
        return same("received", right.size, LARGE)
      }
      yield* turns
      hold(!left.has("closed"), "closed though the peer could not take everything")
      left.transport.abort()
      yield* left.closed
      same("the error of an abort", left.reason, "none")
      right.resume()
      yield* checkAborted(right, capabilities.abort)
      hold(right.size < LARGE, "everything came though it was dropped")
    })
  ),

  wireLaw("tells the peer of an abort", ({ capabilities, left, right }) =>
    Effect.gen(function* () {
      right.resume()
      write(left, "x")
      yield* received(right, 1)
      left.transport.abort()
      yield* both(left.closed, checkAborted(right, capabilities.abort))
      same("the error of an abort", left.reason, "none")
    })
  ),

  wireLaw("dies of an error, once, when the peer is gone while it writes", ({ capabilities, left, right }) =>
    Effect.gen(function* () {
      left.resume()
      right.resume()
      right.transport.close()
      yield* both(
        right.closed,
        left.until(() => left.has("end"))
      )
      let writes = 0
      while (!left.has("closed") && writes++ < 100_000) {
        write(left, pattern(1024))
        yield* Effect.yieldNow
      }
      yield* left.closed
      if (capabilities.halfClose) hold(left.error !== undefined, "an orderly end, though bytes were lost")
    })
  ),

  wireLaw("knows its addresses from beginning to end", ({ left, right }) =>
    Effect.gen(function* () {
      const known = () =>
        [left, right]
          .flatMap(({ transport }) => [transport.localAddress, transport.remoteAddress])
          .map(String)
          .join(" ")
      const before = known()
      left.resume()
      right.resume()
      write(left, "x")
      yield* received(right, 1)
      yield* finish(left, right)
      same("the addresses after the end", known(), before)
    })
  )
]
