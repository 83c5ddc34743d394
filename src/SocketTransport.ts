/**
 * Transports over `effect/socket`: WebSockets, and the sockets of whatever runtime Effect runs on.
 *
 * A `Socket` knows no half-close: its close ends both directions. So `canEnd` is `false`, and the peer's close is an end
 * of input after which nothing can be written any more.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Predicate from "effect/Predicate"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import type * as NetAddress from "effect/net/NetAddress"
import * as Socket from "effect/socket/Socket"
import { encode } from "./internal/bytes.ts"
import { join } from "./internal/join.ts"
import { Steps } from "./internal/Steps.ts"
import { formatAddress } from "./internal/target.ts"
import {
  BrokenPipe,
  ConnectionError,
  type ConnectionErrorReason,
  ConnectionReset,
  reasonFromCause,
  UnknownReason
} from "./StreamError.ts"
import type { Handler, Kind, Transport } from "./Transport.ts"

/**
 * What a `Socket` does not tell.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Default `"socket"`. */
  readonly kind?: Kind | undefined
  readonly localAddress?: NetAddress.SocketAddress | undefined
  readonly remoteAddress?: NetAddress.SocketAddress | undefined
}

/**
 * Opens a socket as a transport. The scope's end aborts it, if it has not let go before, and waits until it has.
 *
 * - Reading: the socket is pulled only while the connection wants bytes. Text messages become UTF-8.
 * - Writing: what is written while a write is under way goes out in one batch after it. Text stays text, which a
 *   WebSocket sends as a text message.
 *   Effect's WebSockets do not tell how a write gets on: there, a peer that does not read is not noticed, and `flush` means
 *   only that the bytes were handed over.
 * - End of input is the close code 1000 (normal), 1001 (going away) or 1005 (none given), RFC 6455 section 7.4.1. Code
 *   1006 (no close at all) is `ConnectionReset`, any other code `UnknownReason` with that code. A write that is under way
 *   then is finished; what waits behind it cannot be sent, and is a `BrokenPipe`.
 * - `close` releases the socket in order once everything is written, which a WebSocket's peer sees as a normal close.
 *   `abort`, and a failure, write the close code 4000 first: it makes a `NodeSocket` drop what it has not sent, and a
 *   WebSocket's peer does not take it for an end of input. A `Socket` knows no reset.
 *
 * Fails with `ConnectionError` (operation `connect`) if the socket cannot be opened.
 *
 * **Example** (A line over a WebSocket)
 *
 * ```ts
 * import { Effect, Option } from "effect"
 * import { Socket } from "effect/socket"
 * import { Connection, SocketTransport } from "effect-wire"
 *
 * export const greet = Effect.fnUntraced(function* (url: string) {
 *   const socket = yield* Socket.makeWebSocket(url)
 *   const transport = yield* SocketTransport.make(socket, { kind: "websocket" })
 *   const { reader, writer } = yield* Connection.make(transport)
 *   yield* writer.write("hello\n")
 *   return Option.getOrElse(yield* reader.readLineString, () => "no answer")
 * }, Effect.scoped)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  socket: Socket.Socket,
  options?: Options
): Effect.Effect<Transport, ConnectionError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.gen(function* () {
      const scopes: Scopes = { read: yield* Scope.make(), write: yield* Scope.make() }
      const open = Effect.all([
        Scope.provide(socket.reader, scopes.read),
        Scope.provide(socket.writer, scopes.write)
      ])
      const [reader, writer] = yield* Effect.interruptible(open).pipe(
        Effect.catchDefect((defect) => Effect.fail(defect)),
        Effect.mapError((error) => failure("connect", reasonOf(error), options?.remoteAddress)),
        Effect.onError(() => closeAll(scopes.read, scopes.write))
      )
      return new SocketTransport(reader, writer, scopes, yield* Effect.context(), options)
    }),
    (transport) =>
      Effect.suspend(() => {
        transport.abort()
        return Deferred.await(transport.released)
      })
  )

// Whatever goes wrong while the socket lets go, it is gone.
const closeAll = (...scopes: ReadonlyArray<Scope.Closeable>): Effect.Effect<void> =>
  Effect.forEach(scopes, (scope) => Effect.exit(Scope.close(scope, Exit.void)), { discard: true })

const CLEAN_CLOSE: ReadonlySet<number> = new Set([1000, 1001, 1005])
const NO_CLOSE = 1006
// Of the codes that a program may send (1000, and 3000 to 4999), one that nobody takes for a normal close.
const ABORTED = 4000

const isCleanClose = (error: unknown): boolean =>
  Socket.isSocketError(error) &&
  error.reason._tag === "SocketCloseError" &&
  CLEAN_CLOSE.has(error.reason.code)

// A WebSocket fails with an event that holds the error.
const errorOf = (cause: unknown): unknown =>
  Predicate.hasProperty(cause, "error") && cause.error !== undefined ? cause.error : cause

const reasonOf = (error: unknown): ConnectionErrorReason => {
  if (!Socket.isSocketError(error)) return new UnknownReason({ cause: error })
  const { reason } = error
  if (reason._tag !== "SocketCloseError") return reasonFromCause(errorOf(reason.cause) ?? error)
  const code = String(reason.code)
  return reason.code === NO_CLOSE
    ? new ConnectionReset({ code, cause: error })
    : new UnknownReason({ code, cause: error })
}

const failure = (
  operation: string,
  reason: ConnectionErrorReason,
  remoteAddress: NetAddress.SocketAddress | undefined
): ConnectionError =>
  new ConnectionError({
    operation,
    reason,
    address: formatAddress(remoteAddress)
  })

type Chunk = Uint8Array | string

/** The reader's scope and the writer's: which one ends first decides whether the socket sends what it holds. */
interface Scopes {
  readonly read: Scope.Closeable
  readonly write: Scope.Closeable
}

class SocketTransport implements Transport {
  readonly kind: Kind
  readonly localAddress: NetAddress.SocketAddress | undefined
  readonly remoteAddress: NetAddress.SocketAddress | undefined
  readonly canEnd = false
  readonly readAhead = true
  bufferedBytes = 0
  readonly released = Deferred.makeUnsafe<void>()
  private readonly reader: Socket.Reader
  private readonly writer: Socket.Writer
  private readonly scopes: Scopes
  private readonly context: Context.Context<never>
  private readonly steps: Steps
  private handler: Handler | undefined = undefined
  private paused = true
  // What a pull brought and the connection did not want any more.
  private unread: Array<Chunk> = []
  private pulling: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private inputEnded: { readonly cause: unknown } | undefined = undefined
  private pending: Array<Chunk> = []
  private sending: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private ticking = false
  // Whether this side wanted the end.
  private closing = false
  // Nothing is delivered any more, except for `onClosed`.
  private gone = false
  private cutting = false
  private reported = false

  constructor(
    reader: Socket.Reader,
    writer: Socket.Writer,
    scopes: Scopes,
    context: Context.Context<never>,
    options: Options | undefined
  ) {
    this.reader = reader
    this.writer = writer
    this.scopes = scopes
    this.context = context
    this.steps = new Steps(Context.get(context, Scheduler.Scheduler))
    this.kind = options?.kind ?? "socket"
    this.localAddress = options?.localAddress
    this.remoteAddress = options?.remoteAddress
  }

  start(handler: Handler): void {
    this.handler = handler
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    if (!this.paused) return
    this.paused = false
    // Never from within `resume`: the connection may be in the middle of something.
    queueMicrotask(this.read)
  }

  write(chunk: Chunk): void {
    if (chunk.length === 0) return
    this.pending.push(chunk)
    this.bufferedBytes += encode(chunk).length
    this.scheduleSend()
  }

  writeAll(chunks: ReadonlyArray<Chunk>): void {
    for (const chunk of chunks) this.write(chunk)
  }

  end(): void {
    throw new Error("a Socket has no half-close")
  }

  close(): void {
    this.closing = true
    this.settle()
  }

  abort(): void {
    this.closing = true
    this.cut()
  }

  private readonly read = (): void => {
    while (!this.paused && !this.gone) {
      const chunk = this.unread.shift()
      if (chunk === undefined) break
      // An empty message is no bytes, and not the end of input that an empty read is.
      if (chunk.length > 0) this.handler?.onData(encode(chunk))
    }
    if (this.paused || this.gone || this.inputEnded !== undefined || this.pulling !== undefined) return
    const fiber = Effect.runForkWith(this.context)(this.reader.pull)
    this.pulling = fiber
    fiber.addObserver((exit) => {
      this.pulling = undefined
      if (this.gone) return
      if (Exit.isFailure(exit)) return this.ended(Cause.squash(exit.cause))
      this.unread = [...exit.value]
      // A pull that was served at once must not recurse.
      this.steps.next(this.read, queueMicrotask)
    })
  }

  private ended(error: unknown): void {
    if (!isCleanClose(error)) return this.cut(this.failure("read", reasonOf(error)))
    this.inputEnded = { cause: error }
    this.handler?.onEnd()
    this.settle()
  }

  // One batch a turn, and one write at a time.
  private scheduleSend(): void {
    if (this.ticking || this.sending !== undefined) return
    this.ticking = true
    this.steps.next(this.tick, queueMicrotask)
  }

  private readonly tick = (): void => {
    this.ticking = false
    this.send()
  }

  private send(): void {
    const { pending } = this
    if (this.gone || !Arr.isArrayNonEmpty(pending)) return
    const bytes = this.bufferedBytes
    this.pending = []
    const fiber = Effect.runForkWith(this.context)(Effect.suspend(() => this.writer.writeAll(pending)))
    this.sending = fiber
    fiber.addObserver((exit) => {
      this.sending = undefined
      if (this.gone) return
      if (Exit.isFailure(exit)) return this.cut(this.failure("write", reasonOf(Cause.squash(exit.cause))))
      this.bufferedBytes -= bytes
      this.handler?.onDrain()
      this.settle()
    })
  }

  // Goes on after a write, a close, or the end of input.
  private settle(): void {
    if (this.gone || this.sending !== undefined) return
    const isFlushed = this.pending.length === 0
    if (this.inputEnded !== undefined && !isFlushed) {
      // A closed socket takes bytes and drops them in silence.
      this.cut(this.failure("write", new BrokenPipe({ cause: this.inputEnded.cause })))
    } else if (!isFlushed) {
      this.scheduleSend()
    } else if (this.closing || this.inputEnded !== undefined) {
      this.letGo()
    }
  }

  // In order: the writer first, so that the socket sends what it holds.
  private letGo(): void {
    this.gone = true
    this.pulling?.interruptUnsafe()
    this.release(closeAll(this.scopes.write, this.scopes.read))
  }

  // At once, also if letting go in order is under way.
  private cut(error?: ConnectionError): void {
    if (this.cutting || this.reported) return
    this.cutting = true
    this.pending = []
    this.pulling?.interruptUnsafe()
    this.sending?.interruptUnsafe()
    const unread = this.unread.map(encode)
    this.unread = []
    const isWanted = !this.gone && !this.closing
    this.gone = true
    // What came before a failure is still to be read.
    if (isWanted && unread.some((chunk) => chunk.length > 0)) this.handler?.onData(join(unread))
    const shut = Effect.suspend(() => this.writer.write(new Socket.CloseEvent(ABORTED)))
    this.release(
      Effect.gen({ self: this }, function* () {
        yield* Effect.forkChild(Effect.exit(shut), { startImmediately: true })
        // An error event that this leads to comes while the reader still listens.
        yield* Effect.yieldNow
        yield* closeAll(this.scopes.read, this.scopes.write)
      }),
      error
    )
  }

  private release(release: Effect.Effect<void>, error?: ConnectionError): void {
    const report = Effect.sync(() => {
      if (this.reported) return
      this.reported = true
      this.handler?.onClosed(this.closing ? undefined : error)
      Deferred.doneUnsafe(this.released, Exit.void)
    })
    Effect.runForkWith(this.context)(
      release.pipe(Effect.andThen(Effect.yieldNow), Effect.andThen(report), Effect.uninterruptible)
    )
  }

  private failure(operation: string, reason: ConnectionErrorReason): ConnectionError {
    return failure(operation, reason, this.remoteAddress)
  }
}
