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
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { Connection } from "./Connection.ts"
import { broken } from "./internal/connection.ts"
import * as Limits from "./internal/limits.ts"
import { nowUnsafe } from "./internal/now.ts"
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
 * had been written to `b` and to `a` before, counted as in `Report`.
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
   * After one side has ended, how long both connections may stay without a byte before they are aborted. It is counted from
   * the end itself, also while the other side does not take what came before it. Without it, a peer that never ends its
   * own direction, or reads no more, keeps both connections for ever. Default 1 minute; `Duration.infinity` for no limit.
   */
  readonly halfCloseIdle?: Duration.Input | undefined
  /**
   * How long both directions may stay without a byte before both connections are aborted. A proxy that faces strangers
   * needs it: see `bidirectional`. Default: no limit.
   */
  readonly idle?: Duration.Input | undefined
}

/**
 * What a relay did.
 *
 * - `aToB` and `bToA`: the bytes that were written to `b` and to `a`. With the ending `"ended"`, the operating system had
 *   got them all (with `"close-both"`, those of the side that ended). Otherwise those that the connection still held were
 *   dropped, and a write that waited is not counted.
 * - `closedFirst`: whose end came first, whether its bytes were through by then or not; absent if nobody ended.
 * - `ending`: `"ended"` by its sides, or reaped by one of the two limits.
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
 * Fails with `CopyError`, which tells the side, once the connection that failed is to be read or written next. Interrupting
 * it, or a failure, leaves both connections open; what was read and not yet written is lost.
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
 *   `halfCloseIdle` bounds the silence; every byte that comes or goes starts it anew, also one that only left a buffer of
 *   this process, or came into one.
 * - It ends well when both directions have ended (or one, with `"close-both"`), and when one of the time limits has passed;
 *   the report tells. After an end both connections are closed, at the same time. After a time limit both are aborted:
 *   their peers must not take it for an end of input.
 * - It fails with `RelayError`, which tells the side, when a connection fails, noticed at once even if the other side takes
 *   nothing. Both are aborted then, and what was on its way is dropped, so the other peer learns that the bytes are not
 *   complete.
 * - Interrupting it aborts both connections. There is no report then: whoever needs the bytes counts them with
 *   `Connection.tap`.
 *
 * **Gotchas**
 *
 * - A `readTimeout` of either connection is no limit for a relay: in a long download nothing is read from the side that
 *   receives it, and the relay fails with that side's `TimeoutError`. `idle`, or the `idleTimeout` of the connections, looks
 *   at both directions. A `writeTimeout` bounds how long a side may take no bytes.
 * - Once the buffers in between are full, a side is not read until the other one takes bytes again. If its end or its
 *   reset comes behind more than 2 × `limit` bytes, it is not seen before that, and both connections are kept for ever.
 *   Only `idle` ends that: set it wherever a peer is not trusted.
 * - Over TCP, Node shows the reset of a side that has ended before with the next write to it: until then, and for
 *   `halfCloseIdle` at most, the other side goes on.
 * - Both limits look at what leaves this process. A slow peer may need longer for what the operating system has taken for
 *   it, which is some megabytes, and an abort drops that.
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

    const now = (): number => nowUnsafe(clock)
    let activeAt = now()
    const touch = (): void => {
      activeAt = now()
    }
    const aToB = new Lane(a, b, touch)
    const bToA = new Lane(b, a, touch)
    let closedFirst: Side | undefined

    const failure = (side: Side, reason: ReadError | WriteError): RelayError =>
      new RelayError({ side, reason, aToB: aToB.bytes, bToA: bToA.bytes })

    const direction = Effect.fnUntraced(function* (lane: Lane, from: Side, to: Side) {
      yield* Effect.mapError(lane.copy, (reason) => failure(lane.side === "from" ? from : to, reason))
      touch()
      closedFirst ??= from
      if (!closeBoth) yield* Effect.mapError(lane.to.writer.end, (reason) => failure(to, reason))
    })
    const forward = direction(aToB, "a", "b")
    const back = direction(bToA, "b", "a")
    const copying = closeBoth
      ? Effect.raceFirst(forward, back)
      : Effect.all([forward, back], { concurrency: "unbounded", discard: true })

    // Its own end, and not that of copying from it, which the other side may hold up for ever.
    const ended = (connection: Connection, side: Side): Effect.Effect<void> =>
      Effect.map(broken(connection), () => {
        closedFirst ??= side
      })

    // A side is not read while the other one takes nothing, nor once it has ended: nothing else would notice its loss.
    const lost = (connection: Connection, side: Side): Effect.Effect<never, RelayError> =>
      Effect.matchEffect(connection.closed, {
        onFailure: (reason) => Effect.fail(failure(side, reason)),
        onSuccess: () => Effect.never
      })

    const endBoth = (how: "close" | "abort"): Effect.Effect<void> =>
      Effect.all([a[how], b[how]], { concurrency: "unbounded", discard: true })

    // What has come and what has left while a write still waits.
    const held = Effect.all([
      a.reader.bufferedBytes,
      a.writer.bufferedBytes,
      b.reader.bufferedBytes,
      b.writer.bufferedBytes
    ])

    const silence = Effect.fnUntraced(function* (limit: number) {
      if (limit === Infinity) return yield* Effect.never
      const since = now()
      for (let left = limit; ; left = Math.max(activeAt, since) + limit - now()) {
        const before = yield* held
        if (left > 0) yield* Effect.sleep(Math.ceil(left))
        else return
        const after = yield* held
        if (after.some((bytes, i) => bytes !== before[i])) touch()
      }
    })

    return Effect.raceAllFirst([
      Effect.as(copying, "ended" as const),
      Effect.as(silence(idle), "idle" as const),
      Effect.andThen(
        Effect.raceFirst(ended(a, "a"), ended(b, "b")),
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
