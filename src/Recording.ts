/**
 * Recordings: a connection's session as a text file. `Connection.record` writes one, `TestNetwork.replay` plays it.
 *
 * The format is JSON lines in UTF-8. The first line says what was recorded, each line after it what happened then:
 *
 * ```json
 * {"format":"effect-wire-recording","version":1,"transport":"tcp","remote":"127.0.0.1:6379","startedAt":"2026-01-31T12:00:00.000Z"}
 * {"at":0,"direction":"sent","text":"PING\r\n"}
 * {"at":1.25,"direction":"received","text":"+PONG\r\n"}
 * {"at":2,"direction":"received","base64":"AP8="}
 * {"at":3,"direction":"received","end":true}
 * {"at":3,"direction":"received","failure":"ConnectionReset"}
 * ```
 *
 * - `at`: milliseconds since the recording began.
 * - `direction`: `"sent"` by the side that recorded, or `"received"` by it.
 * - one of `text` (bytes that are UTF-8 without control characters other than tab, carriage return and newline),
 *   `base64` (any bytes, RFC 4648 section 4), `end` (the end of the direction) and `failure` (the connection failed; the tag
 *   of the reason).
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import * as Queue from "effect/Queue"
import * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type * as NetAddress from "effect/net/NetAddress"
import { encode as encodeUtf8 } from "./internal/bytes.ts"
import { onOneLine, printable } from "./internal/printable.ts"
import { formatAddress } from "./internal/target.ts"
import type { Direction, Event, Observer } from "./Tap.ts"

/**
 * What was recorded, and when.
 *
 * @category models
 * @since 0.1.0
 */
export interface Header {
  readonly transport: string
  readonly local?: string | undefined
  readonly remote?: string | undefined
  readonly startedAt: DateTime.Utc
}

/**
 * An event, and how many milliseconds after the begin of the recording it happened.
 *
 * @category models
 * @since 0.1.0
 */
export interface Timed {
  readonly at: number
  readonly event: Event
}

/**
 * A recorded session.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recording {
  readonly header: Header
  readonly events: ReadonlyArray<Timed>
}

/**
 * A text is no recording: `line` (from 1) is where it goes wrong.
 *
 * @category errors
 * @since 0.1.0
 */
export class RecordingError extends Schema.TaggedError<RecordingError>("effect-wire/RecordingError")(
  "RecordingError",
  { line: Schema.Number, detail: Schema.String }
) {
  override get message(): string {
    return printable(`recording, line ${this.line}: ${this.detail}`)
  }
}

const HeaderLine = Schema.fromJsonString(
  Schema.Struct({
    format: Schema.Literal("effect-wire-recording"),
    version: Schema.Literal(1),
    transport: Schema.String,
    local: Schema.optional(Schema.String),
    remote: Schema.optional(Schema.String),
    startedAt: Schema.DateTimeUtcFromString
  })
)

const common = { at: Schema.Finite, direction: Schema.Literals(["received", "sent"]) }

const EventLine = Schema.fromJsonString(
  Schema.Union([
    Schema.Struct({ ...common, text: Schema.String }),
    Schema.Struct({ ...common, base64: Schema.Uint8ArrayFromBase64 }),
    Schema.Struct({ ...common, end: Schema.Literal(true) }),
    Schema.Struct({ ...common, failure: Schema.String })
  ])
)

const encodeHeaderLine = Schema.encodeSync(HeaderLine)
const encodeEventLine = Schema.encodeSync(EventLine)
const decodeHeaderLine = Schema.decodeEffect(HeaderLine)
const decodeEventLine = Schema.decodeEffect(EventLine)

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

// Everything but tab, newline and carriage return.

const control = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/

const toText = (bytes: Uint8Array): string | undefined => {
  try {
    const text = strict.decode(bytes)
    return control.test(text) ? undefined : text
  } catch {
    return undefined
  }
}

/**
 * The first line of a recording, with its newline.
 *
 * **Example** (A first line)
 *
 * ```ts
 * import { DateTime } from "effect"
 * import { Recording } from "effect-wire"
 *
 * const startedAt = DateTime.makeUnsafe("2026-01-31T12:00:00Z")
 * console.log(Recording.encodeHeader({ transport: "tcp", remote: "127.0.0.1:6379", startedAt }).trimEnd())
 * // {"format":"effect-wire-recording","version":1,"transport":"tcp","remote":"127.0.0.1:6379","startedAt":"2026-01-31T12:00:00.000Z"}
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const encodeHeader = (header: Header): string =>
  `${encodeHeaderLine({ format: "effect-wire-recording", version: 1, ...header })}\n`

/**
 * The line of an event, with its newline.
 *
 * **Example** (Text, and bytes that are none)
 *
 * ```ts
 * import { Recording } from "effect-wire"
 *
 * const line = (at: number, bytes: Uint8Array) =>
 *   Recording.encodeEvent({ at, event: { _tag: "Data", direction: "sent", bytes } }).trimEnd()
 *
 * console.log(line(0, new TextEncoder().encode("PING\r\n"))) // {"at":0,"direction":"sent","text":"PING\r\n"}
 * console.log(line(2, Uint8Array.of(0, 255))) // {"at":2,"direction":"sent","base64":"AP8="}
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const encodeEvent = ({ at, event }: Timed): string => {
  const { direction } = event
  if (event._tag === "End") return `${encodeEventLine({ at, direction, end: true })}\n`
  if (event._tag === "Failure") return `${encodeEventLine({ at, direction, failure: event.reason })}\n`
  const text = toText(event.bytes)
  return text === undefined
    ? `${encodeEventLine({ at, direction, base64: event.bytes })}\n`
    : `${encodeEventLine({ at, direction, text })}\n`
}

/**
 * A recording as text.
 *
 * **Example** (Editing a recording)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Recording } from "effect-wire"
 *
 * const header = `{"format":"effect-wire-recording","version":1,"transport":"tcp","startedAt":"2026-01-31T12:00:00.000Z"}`
 *
 * const program = Effect.gen(function* () {
 *   const { events, ...rest } = yield* Recording.decode(`${header}\n{"at":40000,"direction":"sent","end":true}\n`)
 *   // Nobody has to wait for as long as it took.
 *   return Recording.encode({ ...rest, events: events.map(({ event }) => ({ at: 0, event })) })
 * })
 *
 * console.log((await Effect.runPromise(program)).split("\n")[1]) // {"at":0,"direction":"sent","end":true}
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const encode = ({ events, header }: Recording): string =>
  encodeHeader(header) + events.map(encodeEvent).join("")

/**
 * A recording from its text; blank lines are left out. Fails with `RecordingError`, also when the times go backwards.
 *
 * **Example** (A recording written by hand)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Recording } from "effect-wire"
 *
 * const text = `
 * {"format":"effect-wire-recording","version":1,"transport":"tcp","startedAt":"2026-01-31T12:00:00.000Z"}
 * {"at":0,"direction":"sent","text":"PING\\r\\n"}
 * {"at":5,"direction":"received","text":"+PONG\\r\\n"}
 * `
 *
 * const recording = await Effect.runPromise(Recording.decode(text))
 * console.log(recording.events.length) // 2
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const decode = Effect.fnUntraced(function* (
  text: string
): Effect.fn.Return<Recording, RecordingError> {
  const lines = text
    .split("\n")
    .map((content, i) => ({ content, line: i + 1 }))
    .filter(({ content }) => content.trim() !== "")
  const [first, ...rest] = lines
  if (first === undefined) return yield* new RecordingError({ line: 1, detail: "it is empty" })
  const at = (line: number) =>
    Effect.mapError(
      (error: Schema.SchemaError) => new RecordingError({ line, detail: onOneLine(error.message) })
    )
  const { local, remote, startedAt, transport } = yield* at(first.line)(decodeHeaderLine(first.content))
  const events: Array<Timed> = []
  for (const { content, line } of rest) {
    const entry = yield* at(line)(decodeEventLine(content))
    if (entry.at < (events.at(-1)?.at ?? 0)) {
      return yield* new RecordingError({ line, detail: `at ${entry.at} ms, before the line before it` })
    }
    events.push({ at: entry.at, event: toEvent(entry) })
  }
  return { header: { transport, local, remote, startedAt }, events }
})

const toEvent = (entry: (typeof EventLine)["Type"]): Event => {
  const direction: Direction = entry.direction
  if ("text" in entry) return { _tag: "Data", direction, bytes: encodeUtf8(entry.text) }
  if ("base64" in entry) return { _tag: "Data", direction, bytes: entry.base64 }
  if ("failure" in entry) return { _tag: "Failure", direction, reason: entry.failure }
  return { _tag: "End", direction }
}

/**
 * Reads a recording from a file.
 *
 * **Example** (What a server is asked)
 *
 * ```ts
 * import { NodeFileSystem } from "@effect/platform-node"
 * import { Effect, FileSystem } from "effect"
 * import { Recording } from "effect-wire"
 *
 * const text = `{"format":"effect-wire-recording","version":1,"transport":"tcp","startedAt":"2026-01-31T12:00:00.000Z"}
 * {"at":0,"direction":"sent","text":"PING\\r\\n"}
 * `
 *
 * const program = Effect.gen(function* () {
 *   const fs = yield* FileSystem.FileSystem
 *   const file = yield* fs.makeTempFileScoped()
 *   yield* fs.writeFileString(file, text)
 *   const { events, header } = yield* Recording.load(file)
 *   return [header.transport, events.length]
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer)))) // [ "tcp", 1 ]
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const load = (
  path: string
): Effect.Effect<Recording, RecordingError | PlatformError.PlatformError, FileSystem.FileSystem> =>
  FileSystem.FileSystem.use((fs) => fs.readFileString(path)).pipe(Effect.flatMap(decode))

/**
 * A file to record into, written anew: for `Connection.record`.
 *
 * **Example** (Recording into a file)
 *
 * ```ts
 * import { NodeFileSystem } from "@effect/platform-node"
 * import { Effect, FileSystem } from "effect"
 * import { Connection, Recording } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const file = yield* (yield* FileSystem.FileSystem).makeTempFileScoped()
 *   yield* Effect.scoped(
 *     Effect.gen(function* () {
 *       const [near, far] = yield* Connection.pair()
 *       const { writer } = yield* Connection.record(near, Recording.toFile(file))
 *       yield* writer.write("hello")
 *       yield* far.reader.readExactly(5)
 *     })
 *   )
 *   return (yield* Recording.load(file)).events[0]?.event._tag
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer)))) // Data
 * ```
 *
 * @category sinks
 * @since 0.1.0
 */
export const toFile = (
  path: string
): Sink.Sink<void, string, never, PlatformError.PlatformError, FileSystem.FileSystem> =>
  Sink.unwrap(FileSystem.FileSystem.use((fs) => Effect.succeed(Sink.mapInput(fs.sink(path), encodeUtf8))))

/** So many lines may wait to be written before the connection waits for them. */
const RECORDER_CAPACITY = 64

/**
 * Writes down what it observes, until the scope ends, which waits for the last line.
 *
 * @internal
 */
export const recorder = Effect.fnUntraced(function* <E, R>(
  info: {
    readonly transport: string
    readonly localAddress: NetAddress.SocketAddress | undefined
    readonly remoteAddress: NetAddress.SocketAddress | undefined
  },
  lines: Sink.Sink<unknown, string, unknown, E, R>
): Effect.fn.Return<Observer<E | Error>, never, R | Scope.Scope> {
  const queue = yield* Queue.bounded<string, Cause.Done>(RECORDER_CAPACITY)
  const writing = yield* Effect.acquireRelease(
    Stream.run(Stream.fromQueue(queue), lines).pipe(
      // Whoever waits to have something written down is told that it is not.
      Effect.ensuring(Queue.shutdown(queue)),
      Effect.forkDetach({ startImmediately: true })
    ),
    (fiber) =>
      Effect.flatMap(Effect.andThen(Queue.end(queue), Fiber.await(fiber)), (exit) =>
        Exit.isFailure(exit) ? Effect.logError("a recording is incomplete", exit.cause) : Effect.void
      )
  )
  const stopped = Effect.andThen(Fiber.join(writing), Effect.fail(new Error("the recorder was done early")))
  const note = (line: string): Effect.Effect<void, E | Error> =>
    Effect.flatMap(Queue.offer(queue, line), (taken) => (taken ? Effect.void : stopped))

  const startedAt = yield* DateTime.now
  const started = yield* Clock.monotonicTimeNanos
  yield* Queue.offer(
    queue,
    encodeHeader({
      transport: info.transport,
      local: formatAddress(info.localAddress),
      remote: formatAddress(info.remoteAddress),
      startedAt
    })
  )
  return (event) =>
    Effect.flatMap(Clock.monotonicTimeNanos, (now) =>
      note(encodeEvent({ at: Number((now - started) / 1000n) / 1000, event }))
    ).pipe(
      // The other direction's event would come in between, with a later time.
      Effect.provideService(Scheduler.PreventSchedulerYield, true)
    )
})
