/**
 * Transports over web streams: a `ReadableStream` for what comes, a `WritableStream` for what goes.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Scheduler from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import type * as NetAddress from "effect/net/NetAddress"
import { encode } from "./internal/bytes.ts"
import { join } from "./internal/join.ts"
import { Steps } from "./internal/Steps.ts"
import { formatAddress } from "./internal/target.ts"
import { type ConnectionError, connectionErrorFromCause, ConnectionReset } from "./StreamError.ts"
import type { Handler, Kind, Transport } from "./Transport.ts"

/**
 * A duplex pair of web streams, such as `Deno.Conn`, a `WebTransportBidirectionalStream`, or two sides of `TransformStream`s.
 *
 * @category models
 * @since 0.1.0
 */
export interface WebStreams {
  readonly readable: ReadableStream<Uint8Array>
  readonly writable: WritableStream<Uint8Array>
}

/**
 * What the streams do not tell.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Default `"web"`. */
  readonly kind?: Kind | undefined
  readonly localAddress?: NetAddress.SocketAddress | undefined
  readonly remoteAddress?: NetAddress.SocketAddress | undefined
}

/**
 * A transport over a pair of web streams, which are locked from now on.
 *
 * - Reading: the stream is read only while the connection wants bytes; its end is the end of input, its error the
 *   connection's.
 * - Writing: one batch at a time, each handed over when the stream is ready for it. `end` closes the writable stream.
 * - `abort` cancels one stream and aborts the other, with a `ConnectionReset` as the reason: this is what a peer on the
 *   other side of two `TransformStream`s sees.
 *
 * The scope's end aborts the transport if nobody ended it before. A stream that is locked already is a `TypeError` defect.
 *
 * **Example** (Two ends in one process)
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import { Connection, WebStreamTransport } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const there = new TransformStream<Uint8Array, Uint8Array>()
 *   const back = new TransformStream<Uint8Array, Uint8Array>()
 *   const left = yield* WebStreamTransport.make({ readable: back.readable, writable: there.writable })
 *   const right = yield* WebStreamTransport.make({ readable: there.readable, writable: back.writable })
 *   const client = yield* Connection.make(left)
 *   const server = yield* Connection.make(right)
 *   yield* client.writer.write("over web streams\n")
 *   yield* Console.log(yield* server.reader.readLineString) // some("over web streams")
 *   yield* Effect.all([client.close, server.close], { concurrency: "unbounded" })
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (streams: WebStreams, options?: Options): Effect.Effect<Transport, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(Scheduler.Scheduler, (scheduler) => {
      // Before the readable one is locked here, which fails by itself if it is locked already.
      if (streams.writable.locked) throw new TypeError("the writable stream is locked already")
      return new WebStreamTransport(streams, options, scheduler)
    }),
    (transport) => Effect.sync(() => transport.abort())
  )

type ReadResult = Awaited<ReturnType<ReadableStreamDefaultReader<Uint8Array>["read"]>>

// The streams' errors come from elsewhere as well: whoever failed first has reported it.
const ignore = (): void => {}

const now = (step: () => void): void => step()

class WebStreamTransport implements Transport {
  readonly kind: Kind
  readonly localAddress: NetAddress.SocketAddress | undefined
  readonly remoteAddress: NetAddress.SocketAddress | undefined
  readonly canEnd = true
  readonly readAhead = true
  bufferedBytes = 0
  private readonly reader: ReadableStreamDefaultReader<Uint8Array>
  private readonly writer: WritableStreamDefaultWriter<Uint8Array>
  private handler: Handler | undefined = undefined
  private paused = true
  private reading = false
  private inputEnded = false
  private pending: Array<Uint8Array> = []
  private sending = false
  private output: "open" | "ending" | "ended" | "closed" = "open"
  private closing = false
  private gone = false
  private readonly steps: Steps

  constructor(
    { readable, writable }: WebStreams,
    options: Options | undefined,
    scheduler: Scheduler.Scheduler
  ) {
    this.steps = new Steps(scheduler)
    this.reader = readable.getReader()
    this.writer = writable.getWriter()
    this.reader.closed.catch(ignore)
    this.writer.closed.catch(ignore)
    this.writer.ready.catch(ignore)
    this.kind = options?.kind ?? "web"
    this.localAddress = options?.localAddress
    this.remoteAddress = options?.remoteAddress
  }

  start(handler: Handler): void {
    this.handler = handler
    // Not before there is somebody to tell.
    this.reader.closed.catch(this.onReadError)
    this.writer.closed.catch(this.onWriteError)
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

  write(chunk: Uint8Array | string): void {
    const bytes = encode(chunk)
    if (bytes.length === 0) return
    this.pending.push(bytes)
    this.bufferedBytes += bytes.length
    if (!this.sending) this.send()
  }

  writeAll(chunks: ReadonlyArray<Uint8Array | string>): void {
    for (const chunk of chunks) this.write(chunk)
  }

  end(): void {
    if (this.output !== "open") return
    this.output = "ending"
    if (!this.sending) this.send()
  }

  close(): void {
    this.closing = true
    this.end()
    if (this.output === "closed") this.letGo()
  }

  abort(): void {
    this.closing = true
    this.letGo()
  }

  private readonly read = (): void => {
    if (this.paused || this.gone || this.reading || this.inputEnded) return
    this.reading = true
    this.reader.read().then(this.onRead, this.onReadError)
  }

  private readonly onRead = ({ done, value }: ReadResult): void => {
    this.reading = false
    if (this.gone) return
    if (done) {
      this.inputEnded = true
      this.handler?.onEnd()
      return this.finish()
    }
    // Also after `pause`, for it was on its way: held back, it would be lost if the stream failed.
    if (value.length > 0) this.handler?.onData(value)
    this.steps.next(this.read, now)
  }

  private readonly onReadError = (cause: unknown): void => this.letGo(this.failure("read", cause))

  private readonly onWriteError = (cause: unknown): void => this.letGo(this.failure("write", cause))

  // Starts a write in a microtask, so that the writes of one turn leave in one batch.
  private readonly send = (): void => {
    this.sending = true
    this.writer.ready.then(this.onReady, ignore)
  }

  private readonly onReady = (): void => {
    if (this.gone) return
    const { pending } = this
    if (pending.length > 0) {
      const chunk = join(pending)
      // Counted now: a sink that transfers the chunk leaves it empty.
      const bytes = chunk.length
      this.pending = []
      this.writer.write(chunk).then(() => this.onWritten(bytes), this.onWriteError)
    } else {
      this.sending = false
      if (this.output !== "ending") return
      this.output = "ended"
      this.writer.close().then(this.onOutputClosed, this.onWriteError)
    }
  }

  private onWritten(bytes: number): void {
    if (this.gone) return
    this.bufferedBytes -= bytes
    this.handler?.onDrain()
    this.steps.next(this.send, now)
  }

  private readonly onOutputClosed = (): void => {
    this.output = "closed"
    this.finish()
  }

  private finish(): void {
    if (this.output === "closed" && (this.inputEnded || this.closing)) this.letGo()
  }

  private letGo(error?: ConnectionError): void {
    if (this.gone) return
    this.gone = true
    this.pending = []
    // For the peer, if these streams lead to one.
    const reason = new ConnectionReset({ code: "ECONNRESET", cause: error })
    if (!this.inputEnded) this.reader.cancel(reason).catch(ignore)
    if (this.output !== "closed") this.writer.abort(reason).catch(ignore)
    this.reader.releaseLock()
    this.writer.releaseLock()
    queueMicrotask(() => this.handler?.onClosed(this.closing ? undefined : error))
  }

  private failure(operation: string, cause: unknown): ConnectionError {
    const { remoteAddress } = this
    return connectionErrorFromCause({
      operation,
      cause,
      address: formatAddress(remoteAddress)
    })
  }
}
