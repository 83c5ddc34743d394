/**
 * Copying bytes from connection to connection: what a proxy is made of.
 *
 * A relay takes what one connection received and writes it to the other as it came, chunk by chunk and without copying a
 * byte. A side that takes bytes slowly holds up the side that sends them: nothing piles up in between.
 *
 * **Example** (A TCP proxy)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Relay, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve(({ reader, writer }) => Effect.flatMap(reader.readAll(), writer.write), {
 *     listen: { port: 7000 }
 *   })
 *   yield* Server.serve(
 *     Effect.fnUntraced(function* (client) {
 *       const backend = yield* Connection.connect("localhost:7000")
 *       yield* Relay.bidirectional(client, backend)
 *     }),
 *     { listen: { port: 8000 } }
 *   )
 *   const { reader, writer } = yield* Connection.connect("localhost:8000")
 *   yield* writer.write("through and back")
 *   yield* writer.end
 *   return new TextDecoder().decode(yield* reader.readAll())
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))) // through and back
 * ```
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { Connection } from "./Connection.ts"
import * as Limits from "./internal/limits.ts"
import { ConnectionError, type ReadError, TimeoutError, type WriteError } from "./StreamError.ts"

const bytes = (n: number): string => (n === 1 ? "1 byte" : `${n} bytes`)

/**
 * A copy failed. `side` is the connection that failed: `"from"` was read, `"to"` was written. `reason` is that
 * connection's own error, `bytes` how many bytes had been written before.
 *
 * @category errors
 * @since 0.1.0
 */
export class CopyError extends Schema.TaggedError<CopyError>("effect-wire/CopyError")("CopyError", {
  side: Schema.Literals(["from", "to"]),
  reason: Schema.Union([ConnectionError, TimeoutError]),
  bytes: Schema.Number
}) {
  override get message(): string {
    return `copy: the connection to copy ${this.side} failed after ${bytes(this.bytes)}: ${this.reason.message}`
  }
}

/**
 * A relay failed. `side` is the connection that failed, `reason` its own error; `aToB` and `bToA` are the bytes that
 * had been written to `b` and to `a` before.
 *
 * @category errors
 * @since 0.1.0
 */
export class RelayError extends Schema.TaggedError<RelayError>("effect-wire/RelayError")("RelayError", {
  side: Schema.Literals(["a", "b"]),
  reason: Schema.Union([ConnectionError, TimeoutError]),
  aToB: Schema.Number,
  bToA: Schema.Number
}) {
  override get message(): string {
    return `relay: side ${this.side} failed after ${bytes(this.aToB)} from a to b and ${bytes(this.bToA)} from b to a: ${this.reason.message}`
  }
}

/**
 * Options of `bidirectional`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * What happens when one side ends its direction.
   *
   * - `"propagate"` (default): the other side's direction is ended once it has everything, and the opposite direction goes
   *   on until it ends as well. Nothing is cut short. A connection that cannot be ended one way alone (`canEnd` is false:
   *   a WebSocket) makes it `"close-both"`.
   * - `"close-both"`: the other side gets everything that came before the end; then both connections are closed, and what
   *   the opposite direction had not delivered is dropped. For protocols without half-close.
   */
  readonly halfClose?: "propagate" | "close-both" | undefined
  /**
   * After one side has ended, how long the other direction may stay without a byte before both connections are aborted.
   * Without it, a peer that never ends its own direction keeps both connections for ever. Default 1 minute;
   * `Duration.infinity` for no limit.
   */
  readonly halfCloseIdle?: Duration.Input | undefined
  /**
   * How long both directions may stay without a byte before both connections are aborted. A proxy that faces strangers
   * needs it: see `bidirectional`. Default: no limit.
   */
  readonly idle?: Duration.Input | undefined
}

/**
 * What a relay did: the bytes each way, who ended first (absent if nobody did), and how it came to an end: `"ended"` by
 * its sides, or reaped by one of the two limits.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly aToB: number
  readonly bToA: number
  readonly closedFirst: "a" | "b" | undefined
  readonly ending: "ended" | "halfCloseIdle" | "idle"
}

/**
 * Copies everything that comes from one connection to another, until the end of input; gives the number of bytes. All of
 * them have been handed to the operating system then. The direction is not ended: `to.writer.end` does that.
 *
 * Fails with `CopyError`, which tells the side. Interrupting it, or a failure, leaves both connections open; what was
 * read and not yet written is lost.
 *
 * **Example** (Copying one way)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Relay } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [source, from] = yield* Connection.pair()
 *   const [to, destination] = yield* Connection.pair()
 *   yield* source.writer.write("hello")
 *   yield* source.writer.end
 *   const copied = yield* Relay.copy(from, to)
 *   console.log(copied, new TextDecoder().decode(yield* destination.reader.read())) // 5 hello
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const copy = (from: Connection, to: Connection): Effect.Effect<number, CopyError> =>
  Effect.suspend(() => {
    const lane = new Lane(from, to)
    return lane.copy.pipe(
      Effect.mapError((reason) => new CopyError({ side: lane.side, reason, bytes: lane.bytes })),
      Effect.map(() => lane.bytes)
    )
  })

/** One direction: how much has gone through it, and what it is at. */
class Lane {
  readonly from: Connection
  readonly to: Connection
  bytes = 0
  /** The connection that is being waited for: the one to blame for a failure. */
  side: "from" | "to" = "from"
  private readonly onBytes: () => void

  constructor(from: Connection, to: Connection, onBytes: () => void = () => {}) {
    this.from = from
    this.to = to
    this.onBytes = onBytes
  }

  /** Copies until the end of input, and until everything has left the process. */
  get copy(): Effect.Effect<void, ReadError | WriteError> {
    return Effect.flatMap(Stream.runForEachArray(this.from.reader.stream, this.write), () => {
      this.side = "to"
      return this.to.writer.flush
    })
  }

  private readonly write = (chunks: ReadonlyArray<Uint8Array>): Effect.Effect<void, WriteError> => {
    this.side = "to"
    this.onBytes()
    let size = 0
    for (const chunk of chunks) size += chunk.length
    return Effect.map(this.to.writer.writeAll(chunks), () => {
      this.side = "from"
      this.bytes += size
      this.onBytes()
    })
  }
}

const DEFAULT_HALF_CLOSE_IDLE = "1 minute"

/**
 * Copies both ways until both sides have ended, and leaves both connections closed.
 *
 * **Details**
 *
 * - An end of input is passed on (`halfClose`), so neither direction is cut short by the end of the other. From then on
 *   `halfCloseIdle` bounds the silence of the direction that is left; every byte starts it anew, also one that only
 *   left a buffer of this process.
 * - It ends well when both directions have ended (or one, with `"close-both"`), and when one of the time limits has passed;
 *   the report tells. After a time limit both connections are aborted: their peers must not take it for an end of input.
 * - It fails with `RelayError`, which tells the side, when a connection fails; both are aborted then, so the other peer
 *   learns that the bytes are not complete. A failure of a side that has already ended its direction is noticed at
 *   once, without waiting for the next write to it.
 * - Interrupting it aborts both connections.
 *
 * **Gotchas**
 *
 * Without `idle`, a side that sends more than the other one takes and then resets its connection can keep both for ever:
 * once the buffers in between are full, nothing is read from it, and Node shows a reset only to who reads or writes. Set
 * `idle` wherever a peer is not trusted.
 *
 * Time limits that are not positive are a `RangeError` defect.
 *
 * **Example** (Copying both ways)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Relay } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [client, left] = yield* Connection.pair()
 *   const [right, server] = yield* Connection.pair()
 *   yield* client.writer.write("hello")
 *   yield* client.writer.end
 *   yield* server.writer.write("good day")
 *   yield* server.writer.end
 *   console.log(yield* Relay.bidirectional(left, right)) // { aToB: 5, bToA: 8, closedFirst: 'a', ending: 'ended' }
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const bidirectional = (
  a: Connection,
  b: Connection,
  options?: Options
): Effect.Effect<Report, RelayError> =>
  Effect.clockWith((clock) => {
    const idle = Limits.timeout("idle", options?.idle)
    const halfCloseIdle = Limits.timeout("halfCloseIdle", options?.halfCloseIdle ?? DEFAULT_HALF_CLOSE_IDLE)
    const halfClose = Limits.oneOf("halfClose", options?.halfClose ?? "propagate", [
      "propagate",
      "close-both"
    ])
    const closeBoth = halfClose === "close-both" || !a.writer.canEnd || !b.writer.canEnd

    const now = (): number => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
    let activeAt = now()
    const touch = (): void => {
      activeAt = now()
    }
    const aToB = new Lane(a, b, touch)
    const bToA = new Lane(b, a, touch)
    const ends = { a: Latch.makeUnsafe(), b: Latch.makeUnsafe() }
    let closedFirst: Side | undefined

    const failure = (side: Side, reason: ReadError | WriteError): RelayError =>
      new RelayError({ side, reason, aToB: aToB.bytes, bToA: bToA.bytes })

    const direction = Effect.fnUntraced(function* (lane: Lane, from: Side, to: Side) {
      yield* Effect.mapError(lane.copy, (reason) => failure(lane.side === "from" ? from : to, reason))
      touch()
      closedFirst ??= from
      yield* ends[from].open
      if (!closeBoth) yield* Effect.mapError(lane.to.writer.end, (reason) => failure(to, reason))
    })
    const forward = direction(aToB, "a", "b")
    const back = direction(bToA, "b", "a")
    const copying = closeBoth
      ? Effect.raceFirst(forward, back)
      : Effect.all([forward, back], { concurrency: "unbounded", discard: true })

    // A side that has ended is not read any more: nothing else would notice that it is gone.
    const lost = (connection: Connection, side: Side): Effect.Effect<never, RelayError> =>
      Effect.matchEffect(connection.closed, {
        onFailure: (reason) => Effect.andThen(ends[side].await, Effect.fail(failure(side, reason))),
        onSuccess: () => Effect.never
      })

    const endBoth = (how: "close" | "abort"): Effect.Effect<void> =>
      Effect.all([a[how], b[how]], { concurrency: "unbounded", discard: true })

    const buffered = Effect.zipWith(a.writer.bufferedBytes, b.writer.bufferedBytes, (x, y) => x + y)

    const silence = Effect.fnUntraced(function* (limit: number) {
      if (limit === Infinity) return yield* Effect.never
      const since = now()
      for (let left = limit; ; left = Math.max(activeAt, since) + limit - now()) {
        const before = yield* buffered
        if (left > 0) yield* Effect.sleep(Math.ceil(left))
        else return
        // Bytes of a write that still waits count as well.
        if ((yield* buffered) !== before) touch()
      }
    })

    return Effect.raceAllFirst([
      Effect.as(copying, "ended" as const),
      Effect.as(silence(idle), "idle" as const),
      Effect.andThen(
        Effect.raceFirst(ends.a.await, ends.b.await),
        Effect.as(silence(halfCloseIdle), "halfCloseIdle" as const)
      ),
      lost(a, "a"),
      lost(b, "b")
    ]).pipe(
      Effect.tap((ending) => endBoth(ending === "ended" ? "close" : "abort")),
      Effect.onError(() => endBoth("abort")),
      Effect.map((ending): Report => ({ aToB: aToB.bytes, bToA: bToA.bytes, closedFirst, ending }))
    )
  })

type Side = "a" | "b"
