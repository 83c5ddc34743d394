import { Cause, Effect, Exit, Fiber, Option } from "effect"
import { StreamError, StreamReader, type Transport } from "effect-wire"

const encoder = new TextEncoder()

export const bytes = (text: string): Uint8Array => encoder.encode(text)

export const text = (chunk: Uint8Array): string => Buffer.from(chunk).toString()

export const DATA = "line1\nline2\nline3\n"

export const reset = (): StreamError.ReadError =>
  new StreamError.ConnectionError({ operation: "read", reason: new StreamError.ConnectionReset({}) })

export interface Given extends Omit<StreamReader.Feedable, "feed"> {
  readonly feed: (...chunks: ReadonlyArray<string>) => void
  /** What is buffered, left there. */
  readonly buffered: Effect.Effect<string>
}

/** A reader that is fed text. */
export const given = (
  options?: StreamReader.FeedableOptions & { readonly chunks?: ReadonlyArray<string> }
): Given => {
  const { feed, feedEof, fail, reader } = StreamReader.feedable(options)
  const feedText = (...chunks: ReadonlyArray<string>) => {
    for (const chunk of chunks) feed(bytes(chunk))
  }
  feedText(...(options?.chunks ?? []))
  return {
    reader,
    feed: feedText,
    feedEof,
    fail,
    buffered: reader.bufferedBytes.pipe(Effect.flatMap(reader.peek), Effect.map(text), Effect.orDie)
  }
}

/** A fiber that began at once. */
export interface Started<A, E> {
  readonly fiber: Fiber.Fiber<A, E>
  readonly isWaiting: () => boolean
  /** The value, if there is one by now. */
  readonly value: () => A
  /** The failure, if it failed by now. */
  readonly error: () => E
  readonly interrupt: Effect.Effect<void>
}

export const start = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Started<A, E>, never, R> =>
  Effect.map(Effect.forkChild(effect, { startImmediately: true }), (fiber) => ({
    fiber,
    isWaiting: () => fiber.pollUnsafe() === undefined,
    value() {
      const exit = fiber.pollUnsafe()
      if (exit === undefined) throw new Error("expected a value, still waiting")
      if (Exit.isFailure(exit)) throw new Error(`expected a value, received ${Cause.pretty(exit.cause)}`)
      return exit.value
    },
    error() {
      const exit = fiber.pollUnsafe()
      if (exit === undefined) throw new Error("expected a failure, still waiting")
      const error = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : Option.none()
      if (Option.isNone(error)) throw new Error(`expected a failure, received ${String(exit)}`)
      return error.value
    },
    interrupt: Fiber.interrupt(fiber)
  }))

/** A read of bytes, as text. */
export const startText = <E, R>(
  effect: Effect.Effect<Uint8Array, E, R>
): Effect.Effect<Started<string, E>, never, R> => start(Effect.map(effect, text))

/** The `RangeError` that an effect dies of. */
export const rangeError = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<RangeError, never, R> =>
  Effect.map(Effect.exit(effect), (exit) => {
    const defect = Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? Cause.squash(exit.cause) : undefined
    if (!(defect instanceof RangeError))
      throw new Error(`expected a RangeError defect, received ${String(exit)}`)
    return defect
  })

/** Lets fibers and transports in memory do what they can. */
export const turns: Effect.Effect<void> = Effect.yieldNow.pipe(Effect.repeat({ times: 50 }), Effect.asVoid)

/** A transport whose peer is the test. */
export interface HandDriven extends Transport.Transport {
  readonly handler: () => Transport.Handler
  readonly calls: ReadonlyArray<string>
}

export const handDriven = (options?: { readonly readAhead?: boolean }): HandDriven => {
  const calls: Array<string> = []
  let handler: Transport.Handler | undefined
  const note = (call: string) => () => {
    calls.push(call)
  }
  return {
    kind: "test",
    localAddress: undefined,
    remoteAddress: undefined,
    canEnd: true,
    readAhead: options?.readAhead ?? true,
    bufferedBytes: 0,
    calls,
    handler() {
      if (handler === undefined) throw new Error("not started")
      return handler
    },
    start(given) {
      handler = given
    },
    pause: note("pause"),
    resume: note("resume"),
    write: note("write"),
    writeAll: note("writeAll"),
    end: note("end"),
    close() {
      calls.push("close")
      handler?.onClosed()
    },
    abort() {
      calls.push("abort")
      handler?.onClosed()
    }
  }
}

/** The reason of a `ConnectionError`. */
export const reasonOf = (error: unknown): StreamError.ConnectionErrorReason["_tag"] => {
  if (!(error instanceof StreamError.ConnectionError))
    throw new Error(`expected a ConnectionError, received ${String(error)}`)
  return error.reason._tag
}
