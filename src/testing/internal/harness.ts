import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Scheduler from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Connection from "../../Connection.ts"
import type { WriteError } from "../../StreamError.ts"
import type { StreamWriter } from "../../StreamWriter.ts"
import type { Transport } from "../../Transport.ts"

/** What a transport can do. See `Conformance.Capabilities`. */
export interface Capabilities {
  readonly halfClose: boolean
  readonly linger?: boolean | undefined
  readonly abort: "reset" | "failure" | "end"
  readonly readAhead: boolean
  readonly backpressure: boolean
}

/** Whether a close waits for the peer's end. */
export const lingers = ({ halfClose, linger }: Capabilities): boolean => linger ?? halfClose

/** See `Conformance.Pair`. */
export class Pair extends Context.Service<
  Pair,
  {
    readonly make: Effect.Effect<readonly [left: Transport, right: Transport], unknown, Scope.Scope>
    readonly capabilities: Capabilities
  }
>()("effect-wire/testing/Conformance/Pair") {}

/** See `Conformance.Connections`. */
export class Connections extends Context.Service<
  Connections,
  {
    readonly connect: (
      options?: Connection.Options,
      peerOptions?: Connection.Options
    ) => Effect.Effect<
      readonly [near: Connection.Connection, far: Connection.Connection],
      unknown,
      Scope.Scope
    >
    readonly capabilities: Capabilities
  }
>()("effect-wire/testing/Conformance/Connections") {}

export type Chunk = Uint8Array | string

/** See `Conformance.Law`. */
export interface Law<R> {
  readonly name: string
  readonly check: Effect.Effect<void, unknown, R>
}

/** A law whose check has a scope and a `TestClock` of its own. */
export const law = <R>(
  name: string,
  check: () => Effect.Effect<unknown, unknown, R>
): Law<Exclude<R, Scope.Scope>> => ({
  name,
  check: Effect.suspend(check).pipe(
    Effect.scoped,
    Effect.asVoid,
    // Each check has a clock of its own, also when several run at once.
    Effect.provide(TestClock.layer(), { local: true })
  )
})

export const hold = (condition: boolean, otherwise: string): void => {
  if (!condition) throw new Error(otherwise)
}

const show = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 200 ? `${text.slice(0, 200)}… (${text.length} characters)` : text
}

export const same = <A>(what: string, actual: A, expected: A): void => {
  if (Equal.equals(actual, expected)) return
  throw new Error(`${what}: expected ${show(expected)}, but it was ${show(actual)}`)
}

/** Bytes that are different everywhere, so that no piece can be lost, doubled or moved without being noticed. */
export const pattern = (size: number, seed = 0): Uint8Array => {
  const bytes = new Uint8Array(size)
  for (let i = 0; i < size; i++) bytes[i] = (Math.imul(i + seed, 0x9e3779b1) >>> 13) & 0xff
  return bytes
}

/** How many bytes are more than whatever lies between two ends takes: the buffers of two sockets, for one. */
export const LARGE = 16 * 1024 * 1024

let large: Uint8Array | undefined

/** That many bytes, made once. Nobody changes them. */
export const makeLarge = (): Uint8Array => (large ??= pattern(LARGE))

export const sameBytes = (what: string, actual: Uint8Array, expected: Uint8Array): void => {
  same(`${what}, size`, actual.length, expected.length)
  for (let i = 0; i < expected.length; i++) {
    if (actual[i] !== expected[i]) throw new Error(`${what}: byte ${i} of ${expected.length} is another one`)
  }
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()

export const encode = (text: string): Uint8Array => encoder.encode(text)

export const decode = (bytes: Uint8Array): string => decoder.decode(bytes)

export const join = (chunks: ReadonlyArray<Uint8Array>): Uint8Array => {
  const bytes = new Uint8Array(chunks.reduce((size, chunk) => size + chunk.length, 0))
  let offset = 0
  for (const chunk of chunks) {
    bytes.set(chunk, offset)
    offset += chunk.length
  }
  return bytes
}

/**
 * Writes so many bytes that a peer which does not read holds up the writer. They are many writes, which wait all at
 * once: of what carries messages, a few may be on their way whatever their size.
 */
export const writeLarge = (
  writer: StreamWriter,
  bytes = makeLarge(),
  onPiece = (): void => {}
): Effect.Effect<void, WriteError> =>
  Effect.gen(function* () {
    const size = 64 * 1024
    const pieces = Array.from({ length: LARGE / size }, (_, index) =>
      bytes.subarray(index * size, (index + 1) * size)
    )
    const writes = yield* Effect.forEach(pieces, (piece) =>
      start(Effect.tap(writer.write(piece), () => Effect.sync(onPiece)))
    )
    for (const write of writes) yield* Fiber.join(write)
  })

/**
 * Lets the event loop go round, so that what can happen without anybody's doing has happened, as a rule: a law may only
 * fail more surely for it, never because it was too short.
 */
export const turns: Effect.Effect<void> = Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow, {
  discard: true
})

/**
 * Writes so many bytes that the peer, which does not read, holds up the writer; goes on once nothing moves any more. What
 * lies between two ends is not filled at once: TLS sends a piece in many turns.
 */
export const congest = Effect.fnUntraced(function* (
  near: Connection.Connection,
  far: Connection.Connection,
  bytes?: Uint8Array
) {
  let written = 0
  const writing = yield* start(writeLarge(near.writer, bytes, () => written++))
  yield* far.reader.peek(1)
  for (let before = -1; before !== written;) {
    before = written
    yield* turns
  }
  return writing
})

/** Runs an effect in a fiber of the check, which begins at once. */
export const start = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Fiber.Fiber<A, E>, never, R> =>
  Effect.forkChild(effect, { startImmediately: true })

const tagOf = (error: unknown): string => {
  if (!Predicate.hasProperty(error, "_tag")) return String(error)
  if (Predicate.hasProperty(error, "reason") && Predicate.hasProperty(error.reason, "_tag"))
    return String(error.reason._tag)
  if (error._tag === "TimeoutError" && Predicate.hasProperty(error, "operation"))
    return `TimeoutError of ${String(error.operation)}`
  if (Predicate.hasProperty(error, "partial") && error.partial instanceof Uint8Array)
    return `${String(error._tag)} with ${JSON.stringify(decode(error.partial))}`
  return String(error._tag)
}

/** What something came to: what it gave, or the tag of its failure, or of the failure's reason. */
export const told = (exit: Exit.Exit<unknown, unknown> | undefined): string => {
  if (exit === undefined) return "waiting"
  if (Exit.isSuccess(exit)) return typeof exit.value === "string" ? exit.value : "done"
  if (Cause.hasInterruptsOnly(exit.cause)) return "interrupted"
  return Option.match(Cause.findErrorOption(exit.cause), {
    onNone: () => `defect ${String(Cause.squash(exit.cause))}`,
    onSome: tagOf
  })
}

export const outcome = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<string, never, R> =>
  Effect.map(Effect.exit(effect), told)

export const outcomeOf = <A, E>(fiber: Fiber.Fiber<A, E>): Effect.Effect<string> =>
  Effect.map(Fiber.await(fiber), told)

/** What a fiber has come to so far. */
export const soFar = (fiber: Fiber.Fiber<unknown, unknown>): string => told(fiber.pollUnsafe())

/** Two connections, which are aborted when the check is over: a peer that a check left open must not hold up its end. */
export const connect = Effect.fnUntraced(function* (
  options?: Connection.Options,
  peerOptions?: Connection.Options
) {
  const connections = yield* Connections
  const [near, far] = yield* connections.connect(options, peerOptions)
  yield* Effect.addFinalizer(() => both(near.abort, far.abort))
  const { capabilities } = connections
  return {
    near,
    far,
    capabilities,
    /** Ends what `near` reads. */
    end: capabilities.halfClose ? Effect.asVoid(start(far.writer.end)) : Effect.asVoid(start(far.close)),
    /** Sends to `near`, without waiting: a transport without a buffer has it once it is read. */
    feed: (chunk: string | Uint8Array) => Effect.asVoid(start(far.writer.write(chunk)))
  }
})

export const both = <A, B, E, E2, R, R2>(
  one: Effect.Effect<A, E, R>,
  other: Effect.Effect<B, E2, R2>
): Effect.Effect<readonly [A, B], E | E2, R | R2> => Effect.all([one, other], { concurrency: "unbounded" })

export const layerConnections: Layer.Layer<Connections, never, Pair> = Layer.effect(
  Connections,
  Effect.map(Pair, ({ capabilities, make }) =>
    Connections.of({
      capabilities,
      connect: Effect.fnUntraced(function* (options, peerOptions) {
        const [left, right] = yield* make
        return [yield* Connection.make(left, options), yield* Connection.make(right, peerOptions)] as const
      })
    })
  )
)

// A fiber that is about to yield does so before it takes anything, if it has this many operations between two yields.
const OPERATIONS_BETWEEN_YIELDS = 32

/** A place in the life of a fiber: how many operations it has behind it, and how often it has yielded. */
export interface Place {
  readonly operations: number
  readonly yields: number
}

/** The places at which a check interrupts an operation: every operation of the first few stretches between yields. */
export const places: ReadonlyArray<Place> = Array.from(
  { length: 4 * OPERATIONS_BETWEEN_YIELDS },
  (_, index) => ({ operations: index >> 2, yields: index & 3 })
)

/**
 * Runs an effect up to a place, and interrupts it there; gives what it came to. It begins after `operations` operations,
 * yields every few ones, and goes on `yields` times; everything else goes on meanwhile.
 */
export const interruptedAt = <A, E, R>(
  { operations, yields }: Place,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<Exit.Exit<A, E>, never, R> =>
  Effect.contextWith((context: Context.Context<R>) => {
    const tasks: Array<() => void> = []
    const scheduler: Scheduler.Scheduler = {
      executionMode: "async",
      shouldYield: (fiber) => fiber.currentOpCount >= fiber.cache.maxOpsBeforeYield,
      makeDispatcher: () => ({
        scheduleTask: (task) => {
          tasks.push(task)
        },
        flush() {}
      })
    }
    let delayed = effect
    for (let i = 0; i < operations; i++) {
      const next = delayed
      delayed = Effect.suspend(() => next)
    }
    return Effect.gen(function* () {
      const fiber = Effect.runForkWith(context)(
        Effect.provideService(delayed, Scheduler.MaxOpsBeforeYield, OPERATIONS_BETWEEN_YIELDS),
        { scheduler }
      )
      for (let i = 0; i < yields; i++) {
        tasks.shift()?.()
        yield* Effect.yieldNow
      }
      fiber.interruptUnsafe()
      while (fiber.pollUnsafe() === undefined) {
        tasks.shift()?.()
        yield* Effect.yieldNow
      }
      return yield* Fiber.await(fiber)
    })
  })
