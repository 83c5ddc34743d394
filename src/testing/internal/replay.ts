import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Schema from "effect/Schema"
import { empty } from "../../internal/bytes.ts"
import { quoted } from "../../internal/printable.ts"
import type { Connection } from "../../Connection.ts"
import type { Recording } from "../../Recording.ts"
import type { ReadError, WriteError } from "../../StreamError.ts"
import type { StreamReader } from "../../StreamReader.ts"
import type * as Tap from "../../Tap.ts"

/** So much of what was received is put into an error. */
const SHOWN = 64

const shown = (bytes: Uint8Array): string =>
  bytes.length === 0
    ? "the end of input"
    : quoted(new TextDecoder().decode(bytes.subarray(0, SHOWN))) + (bytes.length > SHOWN ? "…" : "")

/**
 * Something else was received than in the recording. `event` is the event's place in `Recording.events`, from 0; `expected`
 * and `received` begin at the first byte that differs (with `matches`, at the event's first), and are empty where an end of
 * input was expected, or came.
 *
 * @category errors
 * @since 0.1.0
 */
export class ReplayError extends Schema.TaggedError<ReplayError>("effect-wire/ReplayError")("ReplayError", {
  event: Schema.Number,
  expected: Schema.Uint8Array,
  received: Schema.Uint8Array
}) {
  override get message(): string {
    return `replay: event ${this.event} of the recording expects ${shown(this.expected)}, and ${shown(this.received)} came`
  }
}

/**
 * @category models
 * @since 0.1.0
 */
export interface ReplayOptions {
  /**
   * Whether each chunk comes as long after the event before it as when it was recorded, on the `Clock`. Default `false`:
   * as soon as everything before it has happened.
   */
  readonly timed?: boolean | undefined
  /**
   * Whether what came is as good as what was recorded: for what is another one each time, such as dates and nonces. It is
   * asked for each event with as many bytes as the event has; `() => true` counts them and no more. Default: the same bytes.
   */
  readonly matches?: ((received: Uint8Array, expected: Uint8Array) => boolean) | undefined
}

/**
 * Plays the peer of a recorded session: a handler for `Server.serve`, or something to run with any connection. What was
 * received when it was recorded is written now; what was sent is awaited, and has to be the same bytes, however cut, unless
 * `matches` says otherwise.
 *
 * - A chunk is written when everything that was sent before it has come, so a client finds its peer as patient as the
 *   recorded one was. With `timed`, it waits as long, too.
 * - An end of input is played as the end of the direction, a recorded failure as an abort, with which the replay is over.
 *
 * Fails with `ReplayError` at the first byte that differs (with `matches`, at the first event), and with the connection's
 * own errors.
 *
 * **Example** (A client against a recorded server)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Recording, Server } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const session = `
 * {"format":"effect-wire-recording","version":1,"transport":"tcp","startedAt":"2026-01-31T12:00:00.000Z"}
 * {"at":0,"direction":"sent","text":"PING\\r\\n"}
 * {"at":5,"direction":"received","text":"+PONG\\r\\n"}
 * `
 *
 * const program = Effect.gen(function* () {
 *   const recording = yield* Recording.decode(session)
 *   yield* Server.serve(TestNetwork.replay(recording), { listen: { port: 6379 } })
 *   return yield* Connection.use("localhost:6379", ({ reader, writer }) =>
 *     Effect.andThen(writer.write("PING\r\n"), reader.readLineString)
 *   )
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))) // some("+PONG")
 * ```
 *
 * @category testing
 * @since 0.1.0
 */
export const replay = (
  recording: Recording,
  options?: ReplayOptions
): ((connection: Connection) => Effect.Effect<void, ReplayError | ReadError | WriteError>) => {
  const failure = recording.events.findIndex(({ event }) => event._tag === "Failure")
  const events = failure === -1 ? recording.events : recording.events.slice(0, failure + 1)
  const timed = options?.timed === true
  const matches = options?.matches
  const expectBytes = matches === undefined ? expectSame : expectMatch(matches)

  return Effect.fnUntraced(function* ({ abort, reader, writer }) {
    const steps = events.map(({ at, event }) => ({ at, event, heard: Latch.makeUnsafe() }))

    // Writing does not hold this up: whoever sends and receives at once is not stuck in the middle.
    const listen = Effect.gen(function* () {
      for (const [place, { event, heard }] of steps.entries()) {
        if (!isAwaited(event)) continue
        if (event._tag === "Data") yield* expectBytes(reader, place, event.bytes)
        else yield* expectEnd(reader, place)
        yield* heard.open
      }
    })

    const speak = Effect.gen(function* () {
      let before = 0
      for (const { at, event, heard } of steps) {
        const delay = at - before
        before = at
        if (isAwaited(event)) yield* heard.await
        else {
          if (timed && delay > 0) yield* Effect.sleep(delay)
          if (event._tag === "Data") yield* writer.write(event.bytes)
          else if (event._tag === "Failure") {
            // What came before it was received.
            yield* Effect.andThen(writer.flush, Effect.yieldNow)
            yield* abort
          } else if (writer.canEnd) yield* writer.end
        }
      }
    })

    yield* Effect.all([listen, speak], { concurrency: "unbounded", discard: true })
  })
}

/** Whether it is the other side's part. */
const isAwaited = (event: Tap.Event): boolean => event._tag !== "Failure" && event.direction === "sent"

const expectSame = Effect.fnUntraced(function* (
  reader: StreamReader,
  place: number,
  bytes: Uint8Array
): Effect.fn.Return<void, ReplayError | ReadError> {
  for (let left = bytes; left.length > 0;) {
    const received = yield* reader.read(left.length)
    const differs = received.length === 0 ? 0 : received.findIndex((byte, i) => byte !== left[i])
    if (differs !== -1) {
      return yield* new ReplayError({
        event: place,
        expected: left.slice(differs),
        received: received.slice(differs)
      })
    }
    left = left.subarray(received.length)
  }
})

const expectMatch = (matches: (received: Uint8Array, expected: Uint8Array) => boolean) =>
  Effect.fnUntraced(function* (
    reader: StreamReader,
    place: number,
    bytes: Uint8Array
  ): Effect.fn.Return<void, ReplayError | ReadError> {
    const received = yield* Effect.catchTag(reader.readExactly(bytes.length), "IncompleteReadError", (_) =>
      Effect.fail(new ReplayError({ event: place, expected: bytes.slice(_.partial.length), received: empty }))
    )
    if (!matches(received, bytes)) {
      yield* new ReplayError({ event: place, expected: bytes, received })
    }
  })

const expectEnd = Effect.fnUntraced(function* (
  reader: StreamReader,
  place: number
): Effect.fn.Return<void, ReplayError | ReadError> {
  const received = yield* reader.read()
  if (received.length > 0) yield* new ReplayError({ event: place, expected: empty, received })
})
