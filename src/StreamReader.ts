/**
 * Buffered reading with typed failures.
 *
 * A reader hands out what a connection received: what is there, an exact number of bytes, up to a separator, line by
 * line, or everything. Every operation follows the same laws:
 *
 * - Operations are served in the order in which they were called, each with a whole result.
 * - Interrupting an operation, or its timeout, takes no byte: the next operation finds them all. (`skipUntil` has
 *   discarded what it searched, and goes on from there when it is called again.)
 * - Bytes that were received before a failure are still readable; the failure is raised once an operation needs more
 *   than those.
 * - End of input is the peer's FIN and nothing else. A local close, an abort and a torn connection are failures.
 * - An operation that is served from the buffer does not suspend.
 *
 * Returned bytes are views of what was received wherever one chunk holds the answer. They stay valid and are never
 * written to again by the reader. They are plain `Uint8Array`s, whatever the bytes were fed as: a view keeps its chunk in
 * memory, and `slice` makes a copy that does not.
 *
 * **Example** (Reading a header and a body)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { StreamReader } from "effect-wire"
 *
 * const { feed, feedEof, reader } = StreamReader.feedable()
 * feed(new TextEncoder().encode("5\nhello"))
 * feedEof()
 *
 * const program = Effect.gen(function* () {
 *   const header = yield* reader.readLine
 *   const body = yield* reader.readExactly(Number(new TextDecoder().decode(header)))
 *   return new TextDecoder().decode(body)
 * })
 *
 * console.log(await Effect.runPromise(program)) // hello
 * ```
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { decode, empty, toLine } from "./internal/bytes.ts"
import type { TimeLimits } from "./internal/Deadlines.ts"
import { Ready } from "./internal/Immediate.ts"
import { type Attempt, Input } from "./internal/Input.ts"
import * as Limits from "./internal/limits.ts"
import * as Separators from "./internal/Separator.ts"
import {
  ConnectionClosed,
  ConnectionError,
  IncompleteReadError,
  isStreamError,
  type LimitOverrunError,
  type ReadError,
  UnknownReason
} from "./StreamError.ts"

/**
 * Runtime type identifier of readers.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-wire/StreamReader"

/**
 * What ends a piece: bytes, text (UTF-8), or several of them, of which any does. With several, the shortest piece that
 * ends in any of them is the result, however the bytes were cut.
 *
 * @category models
 * @since 0.1.0
 */
export type Separator = Uint8Array | string | ReadonlyArray<Uint8Array | string>

/**
 * The reading side of a connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamReader {
  readonly [TypeId]: typeof TypeId

  /**
   * The most bytes that `readUntil` and `readLine` search for a separator; 65,536 unless set. Reading from the peer
   * stops while more than twice as many wait unread, and resumes at `limit`.
   */
  readonly limit: number

  /**
   * What is there, at most `max` bytes; waits only if nothing is. Empty at the end of input.
   *
   * - On success: consumes what it returns.
   * - On timeout: consumes nothing.
   * - On interruption: consumes nothing.
   * - At the end of input: returns no bytes, every time.
   *
   * `max` of 0 returns no bytes at once. A negative or fractional `max` is a `RangeError` defect.
   */
  readonly read: (max?: number) => Effect.Effect<Uint8Array, ReadError>

  /**
   * What is there, copied to the beginning of `target`, at most as much as it holds; waits only if nothing is there. Gives the
   * number of bytes; 0 at the end of input. For much data that is used at once: a `target` that is used again makes no
   * garbage.
   *
   * - On success: consumes what it copied.
   * - On timeout: consumes nothing, and leaves `target` alone.
   * - On interruption: consumes nothing, and leaves `target` alone.
   * - At the end of input: gives 0, every time.
   *
   * An empty `target` gives 0 at once. One whose buffer is transferred to somebody else
   * while it waits has no room any more, and gives 0 as well.
   */
  readonly readInto: (target: Uint8Array) => Effect.Effect<number, ReadError>

  /**
   * Everything up to the end of input, at most `maxBytes` (16 MiB unless set).
   *
   * - On success: consumes everything.
   * - On timeout: consumes nothing.
   * - On interruption: consumes nothing; what came so far stays buffered.
   * - On overrun: consumes nothing, and fails with `LimitOverrunError` as soon as more than `maxBytes` came.
   */
  readonly readAll: (options?: {
    readonly maxBytes?: number | undefined
  }) => Effect.Effect<Uint8Array, LimitOverrunError | ReadError>

  /**
   * Exactly `n` bytes, whatever the limit.
   *
   * - On success: consumes `n` bytes.
   * - On timeout: consumes nothing.
   * - On interruption: consumes nothing.
   * - At the end of input: fails with `IncompleteReadError`, whose `partial` holds the rest; the rest is consumed.
   *
   * A negative or fractional `n` is a `RangeError` defect.
   */
  readonly readExactly: (n: number) => Effect.Effect<Uint8Array, IncompleteReadError | ReadError>

  /**
   * Up to and including a separator. At most `limit` bytes may come before it (the reader's own limit unless given).
   *
   * - On success: consumes what it returns.
   * - On timeout: consumes nothing.
   * - On interruption: consumes nothing, and what was searched is not searched again.
   * - On overrun: consumes nothing; at the end of input: fails with `IncompleteReadError`, whose `partial` holds the
   *   rest; the rest is consumed.
   *
   * An empty separator is a `RangeError` defect.
   */
  readonly readUntil: (
    separator: Separator,
    options?: { readonly limit?: number | undefined }
  ) => Effect.Effect<Uint8Array, IncompleteReadError | LimitOverrunError | ReadError>

  /**
   * A line with its `"\n"`; at the end of input the unterminated rest, then no bytes.
   *
   * - On success: consumes the line.
   * - On timeout: consumes nothing.
   * - On interruption: consumes nothing.
   * - On overrun: consumes nothing; `skipUntil("\n")` goes past the line.
   */
  readonly readLine: Effect.Effect<Uint8Array, LimitOverrunError | ReadError>

  /**
   * A line as text (UTF-8), without its `"\n"` or `"\r\n"`; none at the end of input.
   *
   * - On success: consumes the line and its end.
   * - On timeout: consumes nothing.
   * - On interruption: consumes nothing.
   * - On overrun: consumes nothing; `skipUntil("\n")` goes past the line.
   */
  readonly readLineString: Effect.Effect<Option.Option<string>, LimitOverrunError | ReadError>

  /**
   * The next `n` bytes, left where they are.
   *
   * - On success: consumes nothing.
   * - On timeout: consumes nothing.
   * - On interruption: consumes nothing.
   * - At the end of input: fails with `IncompleteReadError`, and consumes nothing.
   */
  readonly peek: (n: number) => Effect.Effect<Uint8Array, IncompleteReadError | ReadError>

  /**
   * Drops the next `n` bytes.
   *
   * - On success: consumes `n` bytes.
   * - On timeout: consumes nothing.
   * - On interruption: consumes nothing.
   * - At the end of input: fails with `IncompleteReadError`, whose `partial` holds the rest; the rest is consumed.
   */
  readonly skip: (n: number) => Effect.Effect<void, IncompleteReadError | ReadError>

  /**
   * Drops everything up to and including a separator, however far away, and returns how many bytes that were. Memory
   * stays bounded: what was searched is dropped at once. This is how a reader recovers from `LimitOverrunError`.
   *
   * - On success: consumes up to and including the separator.
   * - On timeout: what was searched is gone; call it again to go on.
   * - On interruption: what was searched is gone; call it again to go on.
   * - At the end of input: fails with `IncompleteReadError`; everything is consumed, `partial` holds what was not
   *   dropped before.
   */
  readonly skipUntil: (separator: Separator) => Effect.Effect<number, IncompleteReadError | ReadError>

  /** Whether the end of input was seen and the buffer is empty. */
  readonly atEof: Effect.Effect<boolean>

  /** Bytes received and not consumed. */
  readonly bufferedBytes: Effect.Effect<number>

  /** The bytes as they come, until the end of input; each pull takes all that is buffered. */
  readonly stream: Stream.Stream<Uint8Array, ReadError>

  /**
   * The lines as text (UTF-8), without their `"\n"` or `"\r\n"`, until the end of input: many lines per pull, the fast
   * way. A line longer than the limit fails the stream and stays in the buffer.
   *
   * A pull takes whole batches: when the stream is left in the middle, the lines that were pulled and not used are gone.
   * To read some lines and then something else, use `readLine` or `readLineString`.
   */
  readonly lines: Stream.Stream<string, LimitOverrunError | ReadError>
}

/**
 * Tells whether a value is a reader.
 *
 * @category guards
 * @since 0.1.0
 */
export const isStreamReader = (u: unknown): u is StreamReader => Predicate.hasProperty(u, TypeId)

/**
 * Options of readers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** See `StreamReader.limit`; a positive integer, 65,536 unless set. */
  readonly limit?: number | undefined
}

/**
 * A reader driven by hand: what asyncio calls `feed_data`, `feed_eof` and `set_exception`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Feedable {
  readonly reader: StreamReader
  /** Adds bytes. Ignored after `feedEof` and `fail`. The chunk must not be changed afterwards. */
  readonly feed: (chunk: Uint8Array) => void
  /** Marks the end of input. */
  readonly feedEof: () => void
  /** Fails the reads that need more than what was fed. */
  readonly fail: (error: ReadError) => void
}

/**
 * What a hand-driven reader tells whoever feeds it, so that its buffer stays bounded.
 *
 * @category models
 * @since 0.1.0
 */
export interface FeedableOptions extends Options {
  /** Called when more than 2 × `limit` bytes wait unread. */
  readonly onPause?: (() => void) | undefined
  /** Called when at most `limit` bytes wait unread, or when a read needs more than what is there. */
  readonly onResume?: (() => void) | undefined
}

/**
 * A reader that is fed by hand. Throws a `RangeError` for a limit that is not a positive integer.
 *
 * **Example** (Feeding a reader)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { StreamReader } from "effect-wire"
 *
 * const { feed, reader } = StreamReader.feedable({ limit: 1024 })
 * feed(new TextEncoder().encode("one\ntwo\n"))
 *
 * console.log(await Effect.runPromise(reader.readLineString)) // some("one")
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const feedable = (options?: FeedableOptions): Feedable => {
  const input = new Input(Limits.readLimit(options?.limit), Limits.nowhere)
  if (options?.onPause !== undefined || options?.onResume !== undefined) {
    let started = false
    input.attach({
      readAhead: true,
      pause: () => options.onPause?.(),
      // The first one only says that the reader is ready, which it is from the start.
      resume: () => {
        if (started) options.onResume?.()
        started = true
      }
    })
  }
  return {
    reader: fromInput(input, Limits.noTimeouts),
    feed: (chunk) => input.feed(chunk),
    feedEof: () => input.feedEof(),
    fail: (error) => input.fail(() => error)
  }
}

/**
 * Reads any stream of bytes. The stream is pulled in the background, with backpressure, until the scope closes. Its
 * failure becomes the reader's: as it is if it is a `ReadError`, as the cause of a `ConnectionError` otherwise. A
 * `RangeError` defect for a limit that is not a positive integer.
 *
 * **Example** (Lines of a stream)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { StreamReader } from "effect-wire"
 *
 * const chunks = Stream.make("one\nt", "wo\n").pipe(Stream.encodeText)
 *
 * const program = Effect.gen(function* () {
 *   const reader = yield* StreamReader.fromStream(chunks)
 *   return yield* Stream.runCollect(reader.lines)
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // [ "one", "two" ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromStream = <E, R>(
  stream: Stream.Stream<Uint8Array, E, R>,
  options?: Options
): Effect.Effect<StreamReader, never, R | Scope.Scope> =>
  Effect.gen(function* () {
    const input = new Input(Limits.readLimit(options?.limit), Limits.nowhere)
    const gate = yield* Effect.sync(() => new Gate())
    input.attach(gate)
    yield* stream.pipe(
      Stream.runForEachArray((chunks) => {
        for (const chunk of chunks) input.feed(chunk)
        return gate.whenOpen
      }),
      Effect.onExit((exit) =>
        Effect.sync(() => {
          if (Exit.isSuccess(exit)) input.feedEof()
          else {
            const error = toReadError(exit.cause)
            input.fail(() => error)
          }
        })
      ),
      Effect.exit,
      Effect.forkScoped
    )
    return fromInput(input, Limits.noTimeouts)
  })

/**
 * The next `n` bytes as they come: the body whose header has said how long it is, too long to be kept in memory. What follows
 * stays in the reader.
 *
 * - On success: consumes `n` bytes.
 * - On timeout: what was handed out is consumed.
 * - On interruption, and when the stream is left before its end: what was handed out is consumed.
 * - At the end of input: fails with `IncompleteReadError`; `partial` is empty, and `expected` is how many bytes were missing.
 *
 * A negative or fractional `n` is a `RangeError` defect.
 *
 * **Example** (A body that nobody has to hold)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { StreamReader } from "effect-wire"
 *
 * const { feed, reader } = StreamReader.feedable()
 * feed(new TextEncoder().encode("5\nhellothe rest"))
 *
 * const program = Effect.gen(function* () {
 *   const header = yield* reader.readLine
 *   const body = StreamReader.streamExactly(reader, Number(new TextDecoder().decode(header)))
 *   return yield* Stream.mkString(Stream.decodeText(body))
 * })
 *
 * console.log(await Effect.runPromise(program)) // hello
 * ```
 *
 * @category destructors
 * @since 0.1.0
 */
export const streamExactly = (
  reader: StreamReader,
  n: number
): Stream.Stream<Uint8Array, IncompleteReadError | ReadError> =>
  Limits.isCount(n)
    ? Stream.unfold(n, (missing) =>
        missing === 0
          ? Effect.undefined
          : Effect.flatMap(reader.read(missing), (chunk) =>
              chunk.length === 0
                ? Effect.fail(
                    new IncompleteReadError({
                      operation: "streamExactly",
                      partial: chunk,
                      expected: missing,
                      address: reader instanceof Reader ? reader.input.address : undefined
                    })
                  )
                : Effect.succeed([chunk, missing - chunk.length] as const)
            )
      )
    : Stream.fromEffect(notACount("streamExactly: n", n))

const toReadError = (cause: Cause.Cause<unknown>): ReadError => {
  // The scope was closed: an end on this side.
  if (Cause.hasInterruptsOnly(cause))
    return new ConnectionError({ operation: "read", reason: new ConnectionClosed({}) })
  const error = Cause.squash(cause)
  if (isStreamError(error) && (error._tag === "ConnectionError" || error._tag === "TimeoutError"))
    return error
  return new ConnectionError({ operation: "read", reason: new UnknownReason({ cause: error }) })
}

/** Stops a pulling fiber while the reader has enough. */
class Gate {
  readonly readAhead = true
  private open = false
  private onOpen: (() => void) | undefined = undefined

  readonly whenOpen: Effect.Effect<void> = Effect.suspend(() =>
    this.open
      ? Effect.void
      : Effect.callback<void>((resume) => {
          this.onOpen = () => resume(Effect.void)
        })
  )

  pause = (): void => {
    this.open = false
  }

  resume = (): void => {
    this.open = true
    const onOpen = this.onOpen
    this.onOpen = undefined
    onOpen?.()
  }
}

const notACount = (name: string, n: number): Effect.Effect<never> =>
  Effect.die(new RangeError(`${name} must be a non-negative integer, received ${n}`))

const DEFAULT_MAX_BYTES = 16 * 1024 * 1024

const toLines = (bytes: Uint8Array): Arr.NonEmptyReadonlyArray<string> => {
  const text = decode(bytes)
  // Splitting by a string is several times faster than by a pattern.
  const lines = text.split(text.includes("\r\n") ? /\r?\n/ : "\n")
  if (text.endsWith("\n")) lines.pop()
  return Arr.isReadonlyArrayNonEmpty(lines) ? lines : [text]
}

/** @internal */
export const fromInput = (input: Input, timeouts: TimeLimits): StreamReader => new Reader(input, timeouts)

/** @internal */
export const backingOf = (reader: StreamReader): { readonly input: Input; readonly timeouts: TimeLimits } => {
  if (!(reader instanceof Reader)) throw new TypeError("not a reader made by this library")
  return reader
}

// What the operations attempt, with what they are given beside the input.
const tryRead = (input: Input, max: number) => input.tryRead(max)
const tryReadInto = (input: Input, target: Uint8Array) => input.tryReadInto(target)
const tryReadAll = (input: Input, maxBytes: number) => input.tryReadAll(maxBytes)
const tryReadExactly = (input: Input, n: number) => input.tryReadExactly(n)
const tryReadLine = (input: Input) => input.tryReadLine()
const tryPeek = (input: Input, n: number) => input.tryPeek(n)
const trySkip = (input: Input, n: number) => input.trySkip(n)
const tryChunks = (input: Input) => input.tryChunks()
const tryLines = (input: Input) => input.tryLines(toLines)

const tryReadLineString = (input: Input) => {
  const line = input.tryReadLine()
  if (!(line instanceof Ready)) return line
  const bytes = line.value
  return new Ready(bytes.length === 0 ? Option.none<string>() : Option.some(toLine(bytes)))
}

interface Sought {
  readonly separator: Separators.Separator
  readonly limit: number
}

const tryReadUntil = (input: Input, { limit, separator }: Sought) => input.tryReadUntil(separator, limit)

/** `bytes` counts across attempts. */
interface Skipped {
  readonly separator: Separators.Separator
  bytes: number
}

const trySkipUntil = (input: Input, skipped: Skipped) => input.trySkipUntil(skipped.separator, skipped)

// Functions are made by functions: one that is written where it is assigned to a property lives long, as V8 sees it, and
// only a full garbage collection frees it and what it holds.

const readOf =
  (reader: Reader): StreamReader["read"] =>
  (max) =>
    max === undefined ? reader.readAvailable() : reader.readAtMost(max)

const readExactlyOf =
  (reader: Reader): StreamReader["readExactly"] =>
  (n) =>
    Limits.isCount(n) ? reader.run(tryReadExactly, n) : notACount("readExactly: n", n)

const readUntilOf =
  (reader: Reader): StreamReader["readUntil"] =>
  (separator, options) => {
    try {
      return reader.run(tryReadUntil, {
        separator: Separators.make(separator),
        limit: options?.limit === undefined ? reader.limit : Limits.readLimit(options.limit)
      })
    } catch (error) {
      return Effect.die(error)
    }
  }

// Of these operations most connections use one or two: each is made when it is used, the busy ones once.
class Reader implements StreamReader {
  readonly [TypeId] = TypeId
  readonly input: Input
  readonly timeouts: TimeLimits
  private some: StreamReader["read"] | undefined = undefined
  private exactly: StreamReader["readExactly"] | undefined = undefined
  private until: StreamReader["readUntil"] | undefined = undefined
  private available: Effect.Effect<Uint8Array, ReadError> | undefined = undefined
  private line: StreamReader["readLine"] | undefined = undefined
  private lineString: StreamReader["readLineString"] | undefined = undefined

  constructor(input: Input, timeouts: TimeLimits) {
    this.input = input
    this.timeouts = timeouts
  }

  get limit(): number {
    return this.input.limit
  }

  get read(): StreamReader["read"] {
    return (this.some ??= readOf(this))
  }

  get readInto(): StreamReader["readInto"] {
    return (target) => (target.length === 0 ? Effect.succeed(0) : this.run(tryReadInto, target, target))
  }

  get readAll(): StreamReader["readAll"] {
    return (options) => {
      const maxBytes = options?.maxBytes ?? DEFAULT_MAX_BYTES
      return Limits.isCount(maxBytes)
        ? this.run(tryReadAll, maxBytes)
        : notACount("readAll: maxBytes", maxBytes)
    }
  }

  get readExactly(): StreamReader["readExactly"] {
    return (this.exactly ??= readExactlyOf(this))
  }

  get readUntil(): StreamReader["readUntil"] {
    return (this.until ??= readUntilOf(this))
  }

  get readLine(): StreamReader["readLine"] {
    return (this.line ??= this.run(tryReadLine, undefined))
  }

  get readLineString(): StreamReader["readLineString"] {
    return (this.lineString ??= this.run(tryReadLineString, undefined))
  }

  get peek(): StreamReader["peek"] {
    return (n) => (Limits.isCount(n) ? this.run(tryPeek, n) : notACount("peek: n", n))
  }

  get skip(): StreamReader["skip"] {
    return (n) => (Limits.isCount(n) ? this.run(trySkip, n) : notACount("skip: n", n))
  }

  get skipUntil(): StreamReader["skipUntil"] {
    return (separator) =>
      Effect.suspend(() => this.run(trySkipUntil, { separator: Separators.make(separator), bytes: 0 }))
  }

  get atEof(): Effect.Effect<boolean> {
    return Effect.sync(() => this.input.eof && this.input.buffer.size === 0)
  }

  get bufferedBytes(): Effect.Effect<number> {
    return Effect.sync(() => this.input.buffer.size)
  }

  get stream(): StreamReader["stream"] {
    return Stream.fromPull(Effect.succeed(this.pull(tryChunks)))
  }

  get lines(): StreamReader["lines"] {
    return Stream.fromPull(Effect.succeed(this.pull(tryLines)))
  }

  readAvailable(): Effect.Effect<Uint8Array, ReadError> {
    return (this.available ??= this.run(tryRead, Infinity))
  }

  readAtMost(max: number): Effect.Effect<Uint8Array, ReadError> {
    if (!Limits.isCount(max)) return notACount("read: max", max)
    return max === 0 ? Effect.succeed(empty) : this.run(tryRead, max)
  }

  run<A, E, P>(
    attempt: Attempt<A, E, P>,
    parameter: P,
    target?: Uint8Array
  ): Effect.Effect<A, E | ReadError> {
    return this.input.run(this.timeouts, attempt, parameter, target)
  }

  private pull<A, E>(attempt: Attempt<A | undefined, E, undefined>): Pull.Pull<A, E | ReadError> {
    return Effect.flatMap(this.run(attempt, undefined), (a) =>
      a === undefined ? Cause.done() : Effect.succeed(a)
    )
  }
}
