/**
 * Transports over `effect/socket`: WebSockets, and the sockets of whatever runtime Effect runs on.
 *
 * A `Socket` knows no half-close: its close ends both directions. So `canEnd` is `false`, and the peer's close is an end
 * of input after which nothing can be written any more.
 *
 * @since 0.1.0
 */
import { Cause, type Context, Effect, Exit, type Fiber, Predicate, Scope } from "effect"
import type { NetAddress } from "effect/net"
import type { Socket } from "effect/socket"
import { encode } from "./internal/bytes.ts"
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
 * Opens a socket as a transport. The scope's end closes it, if nobody did before.
 *
 * - Reading: the socket is pulled only while the connection wants bytes. Text messages become UTF-8.
 * - Writing: what is written while a write is under way goes out in one batch after it. Text stays text, which a
 *   WebSocket sends as a text message.
 * - End of input is the close code 1000 (normal), 1001 (going away) or 1005 (none given), RFC 6455 section 7.4.1. Code
 *   1006 (no close at all) is `ConnectionReset`, any other code `UnknownReason` with that code.
 *
 * Fails with `ConnectionError` (operation `connect`) if the socket cannot be opened.
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
      const scope = yield* Scope.make()
      const open = Effect.all([socket.reader, socket.writer])
      const [reader, writer] = yield* Effect.interruptible(Scope.provide(open, scope)).pipe(
        Effect.mapError((error) => new ConnectionError({ operation: "connect", reason: reasonOf(error) })),
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
      )
      return new SocketTransport(reader, writer, scope, yield* Effect.context(), options)
    }),
    (transport) => Effect.sync(() => transport.abort())
  )

const CLEAN_CLOSE: ReadonlySet<number> = new Set([1000, 1001, 1005])
const NO_CLOSE = 1006

const isCleanClose = (error: unknown): boolean =>
  isSocketError(error) && error.reason._tag === "SocketCloseError" && CLEAN_CLOSE.has(error.reason.code)

const isSocketError = (error: unknown): error is Socket.SocketError =>
  Predicate.isTagged(error, "SocketError")

const reasonOf = (error: unknown): ConnectionErrorReason => {
  if (!isSocketError(error)) return new UnknownReason({ cause: error })
  const { reason } = error
  if (reason._tag !== "SocketCloseError") return reasonFromCause(reason.cause ?? error)
  const code = String(reason.code)
  return reason.code === NO_CLOSE
    ? new ConnectionReset({ code, cause: error })
    : new UnknownReason({ code, cause: error })
}

type Chunk = Uint8Array | string

class SocketTransport implements Transport {
  readonly kind: Kind
  readonly localAddress: NetAddress.SocketAddress | undefined
  readonly remoteAddress: NetAddress.SocketAddress | undefined
  readonly canEnd = false
  readonly readAhead = true
  bufferedBytes = 0
  private readonly reader: Socket.Reader
  private readonly writer: Socket.Writer
  private readonly scope: Scope.Closeable
  private readonly context: Context.Context<never>
  private handler: Handler | undefined = undefined
  private paused = true
  // What a pull brought and the connection did not want any more.
  private unread: Array<Chunk> = []
  private pulling: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private pending: Array<Chunk> = []
  private sending: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private ticking = false
  private closing = false
  private gone = false

  constructor(
    reader: Socket.Reader,
    writer: Socket.Writer,
    scope: Scope.Closeable,
    context: Context.Context<never>,
    options: Options | undefined
  ) {
    this.reader = reader
    this.writer = writer
    this.scope = scope
    this.context = context
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
    this.pending.push(chunk)
    this.bufferedBytes += encode(chunk).length
    // One batch a turn, and one write at a time.
    if (this.ticking || this.sending !== undefined) return
    this.ticking = true
    queueMicrotask(() => {
      this.ticking = false
      this.send()
    })
  }

  writeAll(chunks: ReadonlyArray<Chunk>): void {
    for (const chunk of chunks) this.write(chunk)
  }

  end(): void {
    throw new Error("a Socket has no half-close")
  }

  close(): void {
    this.closing = true
    if (this.pending.length === 0 && this.sending === undefined) this.letGo()
  }

  abort(): void {
    this.letGo()
  }

  private readonly read = (): void => {
    while (!this.paused && !this.gone) {
      const chunk = this.unread.shift()
      if (chunk === undefined) break
      this.handler?.onData(encode(chunk))
    }
    if (this.paused || this.gone || this.pulling !== undefined) return
    const fiber = Effect.runForkWith(this.context)(this.reader.pull)
    this.pulling = fiber
    fiber.addObserver((exit) => {
      this.pulling = undefined
      if (this.gone) return
      if (Exit.isFailure(exit)) return this.ended(Cause.squash(exit.cause))
      this.unread.push(...exit.value)
      // A pull that was served at once must not recurse.
      queueMicrotask(this.read)
    })
  }

  private ended(error: unknown): void {
    if (!isCleanClose(error)) return this.letGo(this.failure("read", reasonOf(error)))
    this.handler?.onEnd()
    const lost = this.pending.length > 0
    this.letGo(lost ? this.failure("write", new BrokenPipe({ cause: error })) : undefined)
  }

  private send(): void {
    const [first, ...rest] = this.pending
    if (first === undefined || this.gone) return
    const bytes = this.bufferedBytes
    this.pending = []
    const fiber = Effect.runForkWith(this.context)(this.writer.writeAll([first, ...rest]))
    this.sending = fiber
    fiber.addObserver((exit) => {
      this.sending = undefined
      if (this.gone) return
      if (Exit.isFailure(exit)) return this.letGo(this.failure("write", reasonOf(Cause.squash(exit.cause))))
      this.bufferedBytes -= bytes
      this.handler?.onDrain()
      if (this.pending.length > 0) this.send()
      else if (this.closing) this.letGo()
    })
  }

  private letGo(error?: ConnectionError): void {
    if (this.gone) return
    this.gone = true
    this.pending = []
    this.unread = []
    this.pulling?.interruptUnsafe()
    this.sending?.interruptUnsafe()
    const report = Effect.sync(() => this.handler?.onClosed(this.closing ? undefined : error))
    // Whatever goes wrong while the socket lets go, it is gone.
    Effect.runForkWith(this.context)(
      Scope.close(this.scope, Exit.void).pipe(
        Effect.exit,
        Effect.andThen(Effect.yieldNow),
        Effect.andThen(report)
      )
    )
  }

  private failure(operation: string, reason: ConnectionErrorReason): ConnectionError {
    return new ConnectionError({ operation, reason })
  }
}
