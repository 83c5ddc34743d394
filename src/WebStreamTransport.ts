/**
 * Transports over web streams: a `ReadableStream` for what comes, a `WritableStream` for what goes.
 *
 * @since 0.1.0
 */
import { Effect, type Scope } from "effect"
import type { NetAddress } from "effect/net"
import { encode } from "./internal/bytes.ts"
import { ConnectionAborted, type ConnectionError, connectionErrorFromCause } from "./StreamError.ts"
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
 * - `abort` cancels one stream and aborts the other.
 *
 * The scope's end aborts the transport if nobody ended it before. A stream that is locked already is a `TypeError` defect.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (streams: WebStreams, options?: Options): Effect.Effect<Transport, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new WebStreamTransport(streams, options)),
    (transport) => Effect.sync(() => transport.abort())
  )

const join = (chunks: ReadonlyArray<Uint8Array>, bytes: number): Uint8Array => {
  const [first] = chunks
  if (chunks.length === 1 && first !== undefined) return first
  const out = new Uint8Array(bytes)
  let offset = 0
  for (const chunk of chunks) {
    out.set(chunk, offset)
    offset += chunk.length
  }
  return out
}

type ReadResult = Awaited<ReturnType<ReadableStreamDefaultReader<Uint8Array>["read"]>>

// The streams' errors come from elsewhere as well: whoever failed first has reported it.
const ignore = (): void => {}

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
  // A chunk that was asked for and came when nobody wanted it any more.
  private unread: Uint8Array | undefined = undefined
  private inputEnded = false
  private pending: Array<Uint8Array> = []
  private sending = false
  private output: "open" | "ending" | "ended" | "closed" = "open"
  private closing = false
  private gone = false

  constructor({ readable, writable }: WebStreams, options: Options | undefined) {
    this.reader = readable.getReader()
    this.writer = writable.getWriter()
    this.writer.closed.catch(this.onWriteError)
    this.writer.ready.catch(ignore)
    this.reader.closed.catch(this.onReadError)
    this.kind = options?.kind ?? "web"
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

  write(chunk: Uint8Array | string): void {
    const bytes = encode(chunk)
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
    if (this.paused || this.gone) return
    const { unread } = this
    if (unread !== undefined) {
      this.unread = undefined
      this.handler?.onData(unread)
      return this.read()
    }
    if (this.reading || this.inputEnded) return
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
    this.unread = value
    this.read()
  }

  private readonly onReadError = (cause: unknown): void => this.letGo(this.failure("read", cause))

  private readonly onWriteError = (cause: unknown): void => this.letGo(this.failure("write", cause))

  // Starts a write in a microtask, so that the writes of one turn leave in one batch.
  private send(): void {
    this.sending = true
    this.writer.ready.then(this.onReady, ignore)
  }

  private readonly onReady = (): void => {
    if (this.gone) return
    const { pending } = this
    if (pending.length > 0) {
      const bytes = pending.reduce((sum, chunk) => sum + chunk.length, 0)
      this.pending = []
      this.writer.write(join(pending, bytes)).then(() => this.onWritten(bytes), ignore)
    } else {
      this.sending = false
      if (this.output !== "ending") return
      this.output = "ended"
      this.writer.close().then(this.onOutputClosed, ignore)
    }
  }

  private onWritten(bytes: number): void {
    if (this.gone) return
    this.bufferedBytes -= bytes
    this.handler?.onDrain()
    this.send()
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
    const reason = error ?? new ConnectionAborted({})
    if (!this.inputEnded) this.reader.cancel(reason).catch(ignore)
    if (this.output !== "closed") this.writer.abort(reason).catch(ignore)
    this.reader.releaseLock()
    this.writer.releaseLock()
    queueMicrotask(() => this.handler?.onClosed(this.closing ? undefined : error))
  }

  private failure(operation: string, cause: unknown): ConnectionError {
    return connectionErrorFromCause({ operation, cause })
  }
}
