/**
 * Transports over Effect's own streams: a `Stream` for what comes, a `Sink` for what goes.
 *
 * This is how a program's standard input and output, the pipes of a child process, or whatever else is read as a
 * `Stream` and written as a `Sink` become a connection.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as PlatformError from "effect/PlatformError"
import type * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import type * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type * as NetAddress from "effect/net/NetAddress"
import { encode } from "./internal/bytes.ts"
import { formatAddress } from "./internal/target.ts"
import {
  BrokenPipe,
  ConnectionAborted,
  ConnectionError,
  type ConnectionErrorReason,
  reasonFromCause
} from "./StreamError.ts"
import type { TlsInfo } from "./Tls.ts"
import type { Handler, Kind, Transport } from "./Transport.ts"

/**
 * A stream of what comes and a sink for what goes, in bytes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Streams<in out E = unknown, in out R = never, in out E2 = unknown, in out R2 = never> {
  readonly stream: Stream.Stream<Uint8Array, E, R>
  readonly sink: Sink.Sink<unknown, Uint8Array, unknown, E2, R2>
}

/**
 * What the streams do not tell.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Default `"stream"`. */
  readonly kind?: Kind | undefined
  readonly localAddress?: NetAddress.SocketAddress | undefined
  readonly remoteAddress?: NetAddress.SocketAddress | undefined
  /** Whether the peer sees the end of what the sink was given, and can still be read then. Default `true`. */
  readonly canEnd?: boolean | undefined
}

/**
 * A transport over a stream and a sink. Both run in fibers of their own, from the start of the transport to its end.
 *
 * - Reading: the stream is pulled only while the connection wants bytes. Its end is the end of input, its failure the
 *   connection's.
 * - Writing: the sink gets what was written, in batches; a batch counts as buffered until the sink asks for the next. `end`
 *   ends the sink's input after the last.
 * - The directions are independent: a sink that fails, or is done early (`BrokenPipe`), fails the writes, while what comes
 *   is still read to its end.
 * - `abort`, and the scope's end before that of the transport, interrupts both.
 *
 * A failure that is a `ConnectionError` stays the same; of any other the reason is the platform's code, or it is the cause
 * of an `UnknownReason`.
 *
 * **Example** (A connection to a peer that is a function)
 *
 * ```ts
 * import { Console, Effect, Queue, Sink, Stream } from "effect"
 * import { Connection, StreamTransport } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const echoes = yield* Queue.bounded<Uint8Array>(16)
 *   const transport = yield* StreamTransport.make({
 *     stream: Stream.fromQueue(echoes),
 *     sink: Sink.forEach((chunk: Uint8Array) => Queue.offer(echoes, chunk))
 *   })
 *   const { reader, writer } = yield* Connection.make(transport, { closeTimeout: "100 millis" })
 *   yield* writer.write("hello\n")
 *   yield* Console.log(yield* reader.readLineString) // some("hello")
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <E, R, E2, R2>(
  streams: Streams<E, R, E2, R2>,
  options?: Options
): Effect.Effect<Transport, never, R | R2 | Scope.Scope> =>
  fromPumps(
    {
      incoming: streams.stream,
      outgoing: (source) => Stream.run(source, streams.sink),
      close: Effect.void,
      abort: Effect.void,
      lost: Effect.never
    },
    { ...options, kind: options?.kind ?? "stream", canEnd: options?.canEnd ?? true }
  )

/**
 * @internal
 *
 * `outgoing` takes what is written to where it goes. `close` and `abort` end what both run on, after they have ended;
 * `lost` fails when that is gone.
 */
export interface Pumps<E, R, E2, R2> {
  readonly incoming: Stream.Stream<Uint8Array, E, R>
  readonly outgoing: (source: Stream.Stream<Uint8Array>) => Effect.Effect<unknown, E2, R2>
  readonly close: Effect.Effect<void>
  readonly abort: Effect.Effect<void>
  readonly lost: Effect.Effect<void, ConnectionError>
}

/** @internal */
export interface Facts {
  readonly kind: Kind
  readonly canEnd: boolean
  readonly localAddress?: NetAddress.SocketAddress | undefined
  readonly remoteAddress?: NetAddress.SocketAddress | undefined
  readonly tls?: TlsInfo | undefined
}

/** @internal */
export const fromPumps = <E, R, E2, R2>(
  pumps: Pumps<E, R, E2, R2>,
  facts: Facts
): Effect.Effect<Transport, never, R | R2 | Scope.Scope> =>
  Effect.acquireRelease(
    Effect.contextWith((context: Context.Context<R | R2>) =>
      Effect.sync(
        () =>
          new StreamTransport(
            {
              ...pumps,
              incoming: Stream.provideContext(pumps.incoming, context),
              outgoing: (source) => Effect.provideContext(pumps.outgoing(source), context)
            },
            facts,
            Effect.runForkWith(context)
          )
      )
    ),
    (transport) =>
      Effect.suspend(() => {
        transport.abort()
        return Deferred.await(transport.released)
      })
  )

// Whether Node hears of a broken pipe from a write, or from the program's exit before that, is a matter of chance.
const GONE: ReadonlySet<string> = new Set(["ERR_STREAM_DESTROYED", "ERR_STREAM_PREMATURE_CLOSE"])

type Run = (effect: Effect.Effect<void>) => Fiber.Fiber<void>

class StreamTransport implements Transport {
  readonly kind: Kind
  readonly localAddress: NetAddress.SocketAddress | undefined
  readonly remoteAddress: NetAddress.SocketAddress | undefined
  readonly tls: TlsInfo | undefined
  readonly canEnd: boolean
  readonly readAhead = true
  readonly released = Deferred.makeUnsafe<void>()
  private readonly pumps: Pumps<unknown, never, unknown, never>
  private readonly run: Run
  private readonly fibers: Array<Fiber.Fiber<void>> = []
  private handler: Handler | undefined = undefined
  private paused = true
  private onResume: (() => void) | undefined = undefined
  // What a pull brought and the connection did not want any more.
  private unread: Array<Uint8Array> = []
  private inputEnded = false
  private pending: Array<Uint8Array> = []
  private pendingBytes = 0
  private inFlight = 0
  private onPending: (() => void) | undefined = undefined
  private output: "open" | "ending" | "closed" | "failed" = "open"
  private failure: ConnectionError | undefined = undefined
  // Whether what both directions run on is gone.
  private lost = false
  private closing: "no" | "close" | "abort" = "no"
  private gone = false

  constructor(pumps: Pumps<unknown, never, unknown, never>, facts: Facts, run: Run) {
    this.pumps = pumps
    this.run = run
    this.kind = facts.kind
    this.localAddress = facts.localAddress
    this.remoteAddress = facts.remoteAddress
    this.tls = facts.tls
    this.canEnd = facts.canEnd
  }

  get bufferedBytes(): number {
    return this.pendingBytes + this.inFlight
  }

  start(handler: Handler): void {
    this.handler = handler
    // Not before `start` has returned.
    const later = (effect: Effect.Effect<void>) =>
      this.fibers.push(this.run(Effect.andThen(Effect.yieldNow, effect)))
    later(this.reading)
    later(this.writing)
    later(this.watching)
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    this.paused = false
    const onResume = this.onResume
    this.onResume = undefined
    onResume?.()
  }

  write(chunk: Uint8Array | string): void {
    const bytes = encode(chunk)
    if (bytes.length === 0 || this.output !== "open") return
    this.pending.push(bytes)
    this.pendingBytes += bytes.length
    this.wakeWriter()
  }

  writeAll(chunks: ReadonlyArray<Uint8Array | string>): void {
    for (const chunk of chunks) this.write(chunk)
  }

  end(): void {
    if (this.output !== "open") return
    this.output = "ending"
    this.wakeWriter()
  }

  close(): void {
    if (this.closing !== "no") return
    this.closing = "close"
    this.end()
    // A peer that reads only after it has written could not finish otherwise.
    this.resume()
    if (this.output === "closed" || this.output === "failed") this.letGo()
  }

  abort(): void {
    if (this.closing === "abort") return
    this.closing = "abort"
    // Also while it lets go in order, which may take its time.
    if (this.gone) this.run(this.pumps.abort)
    else this.letGo()
  }

  private get reading(): Effect.Effect<void> {
    return this.whenResumed.pipe(
      Effect.andThen(Stream.runForEachArray(this.pumps.incoming, this.deliver)),
      Effect.exit,
      Effect.map((exit) => {
        if (this.gone) return
        if (Exit.isFailure(exit)) return this.letGo(this.toError("read", exit.cause))
        this.inputEnded = true
        this.handler?.onEnd()
        if (this.failure === undefined) this.finish()
        else this.letGo(this.failure)
      })
    )
  }

  private get writing(): Effect.Effect<void> {
    return this.pumps.outgoing(Stream.fromPull(Effect.succeed(this.pull))).pipe(
      Effect.exit,
      Effect.map((exit) => {
        if (this.gone) return
        if (Exit.isSuccess(exit) && this.output === "ending" && this.pending.length === 0) {
          this.settle()
          this.output = "closed"
        } else {
          this.output = "failed"
          const error = Exit.isFailure(exit)
            ? this.toError("write", exit.cause)
            : this.error("write", new BrokenPipe({}))
          this.failure ??= error
          this.pending = []
          this.handler?.onOutputFailed?.(error)
        }
        this.finish()
      })
    )
  }

  private get watching(): Effect.Effect<void> {
    return Effect.matchEffect(this.pumps.lost, {
      onSuccess: () => Effect.void,
      onFailure: (error) =>
        Effect.sync(() => {
          this.failure ??= error
          this.lost = true
          // What came before is in a buffer of bounded size, and read from it to the end.
          if (this.inputEnded) this.letGo(error)
          else this.resume()
        })
    })
  }

  // A fiber that is resumed goes on at once, while the connection may be in the middle of something.
  private readonly whenResumed: Effect.Effect<void> = Effect.suspend(() =>
    this.isHeld()
      ? Effect.andThen(
          Effect.callback<void>((resume) => {
            this.onResume = () => resume(Effect.void)
          }),
          Effect.andThen(
            Effect.yieldNow,
            Effect.suspend(() => this.whenResumed)
          )
        )
      : Effect.void
  )

  // After a loss, and while closing, nothing is held back.
  private isHeld(): boolean {
    return this.paused && !this.lost && this.closing === "no"
  }

  private readonly deliver = (chunks: ReadonlyArray<Uint8Array>): Effect.Effect<void> => {
    for (const chunk of chunks) if (chunk.length > 0) this.unread.push(chunk)
    return this.deliverUnread
  }

  private readonly deliverUnread: Effect.Effect<void> = Effect.suspend(() => {
    if (this.gone) return Effect.never
    while (!this.isHeld()) {
      const chunk = this.unread.shift()
      if (chunk === undefined) return Effect.void
      if (this.closing === "no") this.handler?.onData(chunk)
    }
    return Effect.andThen(this.whenResumed, this.deliverUnread)
  })

  private wakeWriter(): void {
    const onPending = this.onPending
    this.onPending = undefined
    onPending?.()
  }

  private readonly pull: Pull.Pull<Arr.NonEmptyReadonlyArray<Uint8Array>, never, void> = Effect.suspend(
    () => {
      this.settle()
      return this.next
    }
  )

  // What the sink was given has left.
  private settle(): void {
    if (this.inFlight === 0) return
    this.inFlight = 0
    this.handler?.onDrain()
  }

  // Everything that was written in one turn leaves in one batch.
  private readonly next: Pull.Pull<Arr.NonEmptyReadonlyArray<Uint8Array>, never, void> = Effect.suspend(
    () => {
      const [first, ...rest] = this.pending
      if (first !== undefined) {
        this.inFlight = this.pendingBytes
        this.pending = []
        this.pendingBytes = 0
        return Effect.succeed<Arr.NonEmptyReadonlyArray<Uint8Array>>([first, ...rest])
      }
      if (this.output === "ending") return Cause.done()
      return Effect.andThen(
        Effect.callback<void>((resume) => {
          this.onPending = () => resume(Effect.void)
        }),
        Effect.andThen(Effect.yieldNow, this.next)
      )
    }
  )

  private finish(): void {
    if (this.output !== "closed" && this.output !== "failed") return
    if (this.inputEnded || this.closing !== "no") this.letGo(this.failure)
  }

  private letGo(error?: ConnectionError): void {
    if (this.gone) return
    this.gone = true
    const orderly = error === undefined && this.closing !== "abort"
    this.run(
      // One of these fibers may be what calls this.
      Effect.yieldNow.pipe(
        Effect.andThen(Fiber.interruptAll(this.fibers)),
        Effect.andThen(orderly ? this.pumps.close : this.pumps.abort),
        Effect.map(() => {
          this.handler?.onClosed(this.closing === "no" ? error : undefined)
          Deferred.doneUnsafe(this.released, Exit.void)
        })
      )
    )
  }

  private toError(operation: string, cause: Cause.Cause<unknown>): ConnectionError {
    if (Cause.hasInterruptsOnly(cause)) return this.error(operation, new ConnectionAborted({}))
    const error = Cause.squash(cause)
    if (error instanceof ConnectionError) return error
    const origin = error instanceof PlatformError.PlatformError ? (error.cause ?? error) : error
    const reason = reasonFromCause(origin)
    const isGone = operation === "write" && reason.code !== undefined && GONE.has(reason.code)
    return this.error(operation, isGone ? new BrokenPipe({ code: reason.code, cause: origin }) : reason)
  }

  private error(operation: string, reason: ConnectionErrorReason): ConnectionError {
    return new ConnectionError({ operation, reason, address: formatAddress(this.remoteAddress) })
  }
}
