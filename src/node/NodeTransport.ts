/**
 * Transports over Node streams: TCP and Unix sockets, TLS sockets, and any other `Duplex`.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import * as net from "node:net"
import type { Duplex } from "node:stream"
import { encode } from "../internal/bytes.ts"
import { codeOf } from "../internal/code.ts"
import { formatAddress } from "../internal/target.ts"
import {
  ConnectionAborted,
  ConnectionError,
  type ConnectionErrorReason,
  reasonFromCause
} from "../StreamError.ts"
import { interfaceScopeIds } from "./internal/interfaces.ts"
import { type Chunk, Outbox } from "./internal/outbox.ts"
import { readIntoBuffer } from "./internal/receiving.ts"
import { TlsLayer } from "./internal/tls.ts"
import type { Handshake, TlsInfo } from "../Tls.ts"
import type { Handler, Kind, Transport } from "../Transport.ts"

/**
 * What the stream itself does not tell.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Default: `"tcp"`, `"unix"` or `"tls"` for a socket, `"duplex"` for another stream. */
  readonly kind?: Kind | undefined
  /** Default: the socket's own address. A Unix socket of Node does not know its path. */
  readonly localAddress?: NetAddress.SocketAddress | undefined
  /** Default: the socket's peer address. */
  readonly remoteAddress?: NetAddress.SocketAddress | undefined
}

/**
 * A transport over a connected `Duplex`, which belongs to the transport from now on.
 *
 * The transport listens for the stream's `error` at once, so one that fails before it is started does no harm: the
 * failure arrives after `start`. It switches `allowHalfOpen` on.
 *
 * **Details**
 *
 * - Writes made in one turn of the event loop leave together, in one system call up to 256 KiB; 64 KiB are not kept
 *   waiting for the turn's end. Small chunks are copied together, large ones are gathered.
 * - While paused, the stream still reads up to its own high watermark (64 KiB, and at most one chunk more). A reset is
 *   noticed as long as that has room. Once it is full, nothing is read, and the loss of the peer shows with the next
 *   write, or when reading goes on.
 * - Bytes that the stream had read before it failed are delivered before `onClosed`, also while paused.
 * - Bytes that arrive after the own `close` are discarded.
 * - On a Node with libuv before 1.52 (Node 22, for one), a reset that follows bytes closely looks like an end of input.
 *   It is told apart here, over TCP, as long as the own direction is open.
 * - A stream that is destroyed by others, without an error, before both directions have ended, is reported as
 *   `ConnectionAborted`.
 *
 * **Example** (A connection over a socket that was made elsewhere)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-wire"
 * import { NodeTransport } from "effect-wire/node"
 * import * as net from "node:net"
 *
 * export const greet = (socket: net.Socket) =>
 *   Effect.scoped(
 *     Effect.gen(function* () {
 *       const connection = yield* Connection.make(NodeTransport.fromDuplex(socket))
 *       yield* connection.writer.write("hello\n")
 *     })
 *   )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromDuplex = (duplex: Duplex, options?: Options): Transport =>
  new DuplexTransport(duplex, options, false)

/**
 * The same for a socket that nobody else holds: once it is busy, the connection is moved to a socket that reads faster.
 *
 * @internal
 */
export const fromOwnSocket = (socket: net.Socket, options: Options): Transport =>
  new DuplexTransport(socket, options, true)

/** A connection is moved after so many reads: one that is opened for a request or two does not pay for it. */
const READS_TO_MOVE = 16

/** So many pending bytes are sent without waiting for the turn's end. */
const FLUSH_BYTES = 65_536

/**
 * So many ticks may ask for the next one before the event loop turns. A fiber that writes and waits until it is sent, again and
 * again, goes on in such ticks for as long as the system takes all at once, and nobody else would run.
 */
const TICKS_IN_A_ROW = 1024

let inTick = false
let ticksInARow = 0

/** At most so many bytes are handed to the stream at a time: while it is congested, `bufferedBytes` falls in such steps. */
const BATCH_BYTES = 262_144

/**
 * Whether a reset can pass for an end of input: before 1.52, libuv does so if bytes came just before the reset.
 *
 * @see https://github.com/libuv/libuv/pull/4997
 */
const hidesResets = ((): boolean => {
  const [major = 0, minor = 0] = process.versions.uv.split(".").map(Number)
  return major === 1 && minor < 52
})()

const nothing = new Uint8Array(0)

interface NativeAddress {
  readonly host: string
  readonly port: number
}

const nativeAddress = (host: string | undefined, port: number | undefined): NativeAddress | undefined =>
  host === undefined || port === undefined ? undefined : { host, port }

const parseAddress = ({ host, port }: NativeAddress): NetAddress.InetAddress => {
  const scopeIds = host.includes("%") ? interfaceScopeIds() : undefined
  // A dual-stack listener sees its IPv4 peers as mapped IPv6 addresses.
  return NetAddress.toCanonical(NetAddress.inetAddressFromNativeUnsafe(host, port, scopeIds))
}

const toBytes = (chunk: Uint8Array | string): Uint8Array =>
  typeof chunk === "string" ? encode(chunk) : new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength)

const isEncrypted = (socket: net.Socket): boolean => "encrypted" in socket && socket.encrypted === true

const operationOf = (cause: unknown): "read" | "write" =>
  typeof cause === "object" &&
  cause !== null &&
  "syscall" in cause &&
  (cause.syscall === "write" || cause.syscall === "shutdown")
    ? "write"
    : "read"

// What is called later takes the transport as its argument: a function of its own for each would cost memory.
const tick = (transport: DuplexTransport): void => {
  inTick = true
  transport.onTick()
  inTick = false
}
const move = (transport: DuplexTransport): void => transport.move()
const reportEnd = (transport: DuplexTransport): void => transport.reportEnd()

// A function that is written where it is assigned to a property lives long, as V8 sees it: only a full garbage collection
// frees it, and what it holds.
const writtenBy = (transport: DuplexTransport) => (error?: Error | null) => {
  if (!error) transport.written()
}

const transportOf = Symbol("transport")

/** A stream that knows its transport. */
type Carrier = Duplex & { [transportOf]?: DuplexTransport | undefined }

// For the same reason, the listeners are shared: the stream tells whom it carries.
function onData(this: Carrier, chunk: Uint8Array | string): void {
  this[transportOf]?.onData(chunk)
}
function onEnd(this: Carrier): void {
  this[transportOf]?.onEnd()
}
function onError(this: Carrier, cause: unknown): void {
  this[transportOf]?.onError(cause)
}
function onClose(this: Carrier): void {
  this[transportOf]?.onClose()
}

interface Secured {
  readonly layer: TlsLayer
  readonly info: TlsInfo
}

class DuplexTransport implements Transport {
  readonly kind: Kind
  readonly tls: TlsInfo | undefined
  readonly canEnd: boolean
  readonly readAhead = true
  private duplex: Carrier
  // Node's TLS never does, and an empty write of its own that is on its way when it wants to send an alert is fatal.
  private readonly writesAtOnce: boolean
  // A TCP socket, which can be closed with a reset.
  private tcp: net.Socket | undefined = undefined
  // Reads until the connection is moved to a socket with a buffer; 0 for never.
  private readsToMove: number
  // The addresses are gone with the socket: they are kept from the beginning, and parsed when somebody asks.
  private local: NetAddress.SocketAddress | NativeAddress | undefined
  private remote: NetAddress.SocketAddress | NativeAddress | undefined
  private handler: Handler | undefined = undefined
  // What was written and not yet handed to the stream.
  private readonly outbox = new Outbox()
  // Bytes of the one write that the stream has not finished.
  private inFlight = 0
  // Writes that were finished at once, and for which the stream still calls back.
  private finishedAtOnce = 0
  private ticking = false
  // While bytes are delivered, what is written in reply is collected; it leaves when the handler returns.
  private delivering = false
  // `bufferedBytes` has fallen and the handler was not told.
  private drained = false
  // The outgoing direction: `ending` once it is to be closed, `ended` once the stream was told.
  private output: "open" | "ending" | "ended" = "open"
  private inputEnded = false
  private endReported = false
  private closing: "no" | "close" | "abort" = "no"
  private failure: { readonly cause: unknown } | undefined = undefined
  private gone: boolean
  private finished = false
  private whenWritten: ((error?: Error | null) => void) | undefined = undefined
  // What carries the ciphertext, where the stream is TLS that was made here.
  private readonly layer: TlsLayer | undefined

  constructor(duplex: Duplex, options: Options | undefined, isOwn: boolean, secured?: Secured) {
    this.duplex = duplex
    this.layer = secured?.layer
    this.tls = secured?.info
    // In TLS 1.2, the end of one direction ends the other one as well (RFC 5246, section 7.2.1).
    this.canEnd = secured === undefined || secured.info.protocol === "TLSv1.3"
    this.readsToMove = isOwn ? READS_TO_MOVE : 0
    this.writesAtOnce = duplex instanceof net.Socket && !isEncrypted(duplex)
    this.gone = duplex.destroyed
    if (duplex.errored !== null) this.failure = { cause: duplex.errored }
    this.duplex[transportOf] = this
    duplex.on("error", onError)
    duplex.on("close", onClose)
    duplex.allowHalfOpen = true
    this.local = options?.localAddress
    this.remote = options?.remoteAddress
    if (duplex instanceof net.Socket) {
      const isTcp = options?.kind === "tcp" || duplex.localAddress !== undefined
      this.local ??= nativeAddress(duplex.localAddress, duplex.localPort)
      this.remote ??= nativeAddress(duplex.remoteAddress, duplex.remotePort)
      const encrypted = isEncrypted(duplex)
      if (isTcp && !encrypted) this.tcp = duplex
      this.kind = options?.kind ?? (encrypted ? "tls" : isTcp ? "tcp" : "unix")
    } else {
      this.kind = options?.kind ?? "duplex"
    }
  }

  get localAddress(): NetAddress.SocketAddress | undefined {
    if (this.local !== undefined && "host" in this.local) this.local = parseAddress(this.local)
    return this.local
  }

  get remoteAddress(): NetAddress.SocketAddress | undefined {
    if (this.remote !== undefined && "host" in this.remote) this.remote = parseAddress(this.remote)
    return this.remote
  }

  get bufferedBytes(): number {
    return this.outbox.bytes + this.inFlight
  }

  get canLinger(): boolean {
    return true
  }

  start(handler: Handler): void {
    this.handler = handler
    this.layer?.takeOver()
    // Without this, a listener for data would make the stream flow.
    this.duplex.pause()
    this.duplex.on("data", onData)
    this.duplex.on("end", onEnd)
    if (this.gone) process.nextTick(() => this.onClose())
    else if (this.duplex.readableEnded) process.nextTick(() => this.onEnd())
  }

  pause(): void {
    this.duplex.pause()
  }

  resume(): void {
    this.duplex.resume()
  }

  write(chunk: Chunk): void {
    this.outbox.add(chunk)
    this.scheduleSend()
  }

  writeAll(chunks: ReadonlyArray<Chunk>): void {
    for (const chunk of chunks) this.outbox.add(chunk)
    this.scheduleSend()
  }

  end(): void {
    if (this.output !== "open") return
    this.output = "ending"
    this.send()
    this.scheduleDrained()
  }

  close(): void {
    if (this.closing !== "no") return
    this.closing = "close"
    if (this.duplex.destroyed) return
    if (this.duplex.writableFinished) {
      this.duplex.destroy()
      return
    }
    // A peer that reads only after it has written could not finish otherwise.
    this.duplex.resume()
    this.end()
  }

  abort(): void {
    if (this.closing === "abort") return
    this.closing = "abort"
    this.outbox.clear()
    this.inFlight = 0
    // A reset is impossible while the end is being sent: it follows then.
    if (this.tcp === undefined || this.output !== "ended" || this.duplex.writableFinished) this.reset()
  }

  upgradeTls(request: Handshake, leftover: Uint8Array): Effect.Effect<Transport, ConnectionErrorReason> {
    return Effect.suspend(() => {
      const layer = new TlsLayer(this, this.handler)
      this.handler = layer
      const { localAddress, remoteAddress } = this
      return layer.handshake(
        request,
        leftover,
        formatAddress(remoteAddress),
        (socket, info) =>
          new DuplexTransport(socket, { kind: "tls", localAddress, remoteAddress }, false, { layer, info })
      )
    })
  }

  private reset(): void {
    this.layer?.below.abort()
    if (this.duplex.destroyed) return
    if (this.tcp === undefined) this.duplex.destroy()
    else this.tcp.resetAndDestroy()
  }

  // One write at a time is on its way; what is written meanwhile is collected, and sent when that one is done.
  private scheduleSend(): void {
    const { bytes } = this.outbox
    if (this.inFlight > 0 || bytes === 0) return
    if (bytes < FLUSH_BYTES) {
      this.scheduleTick()
      return
    }
    this.send()
    // Nobody has seen the bytes that were added and sent in this call.
    if (!this.ticking && !this.delivering) this.drained = false
  }

  private scheduleTick(): void {
    if (this.ticking || this.delivering) return
    this.ticking = true
    if (inTick && ++ticksInARow === TICKS_IN_A_ROW) {
      ticksInARow = 0
      setImmediate(tick, this)
    } else process.nextTick(tick, this)
  }

  private scheduleDrained(): void {
    if (this.drained) this.scheduleTick()
  }

  onTick(): void {
    this.ticking = false
    this.flush()
  }

  private flush(): void {
    this.send()
    this.reportDrained()
  }

  private reportDrained(): void {
    if (!this.drained) return
    this.drained = false
    if (!this.finished) this.handler?.onDrain()
  }

  private send(): void {
    if (this.closing === "abort") return
    while (this.inFlight === 0 && this.outbox.bytes > 0) {
      if (!this.isWritable()) return
      const { bytes } = this.outbox
      const batch = this.outbox.take(BATCH_BYTES)
      this.inFlight = bytes - this.outbox.bytes
      // A callback costs a tick, which is much for a small write. Such a one goes to a plain socket without, and only if
      // it is not done at once, an empty write behind it tells when it is.
      const callsBack = !this.writesAtOnce || this.inFlight >= FLUSH_BYTES
      this.writeBatch(batch, callsBack ? this.onWritten : undefined)
      if (this.duplex.writableLength > 0 || !this.isWritable()) {
        if (!callsBack) this.duplex.write(nothing, this.onWritten)
      } else {
        if (this.writesAtOnce) this.outbox.sent()
        if (callsBack) this.finishedAtOnce++
        this.inFlight = 0
        this.drained = true
      }
    }
    if (this.output === "ending" && this.inFlight === 0 && this.isWritable()) {
      this.output = "ended"
      this.duplex.end(() => this.outputEnded())
    }
  }

  // A stream that failed has dropped what it was given: those bytes never count as sent.
  private isWritable(): boolean {
    return !this.duplex.destroyed && this.duplex.errored === null
  }

  private writeBatch(chunks: ReadonlyArray<Chunk>, onWritten: (() => void) | undefined): void {
    const { duplex } = this
    const last = chunks.length - 1
    if (last > 0) {
      duplex.cork()
      for (let i = 0; i < last; i++) duplex.write(chunks[i])
    }
    duplex.write(chunks[last], onWritten)
    if (last > 0) duplex.uncork()
  }

  // Made for the first write that is not done at once.
  private get onWritten(): (error?: Error | null) => void {
    return (this.whenWritten ??= writtenBy(this))
  }

  written(): void {
    if (this.finishedAtOnce > 0) {
      this.finishedAtOnce--
      return
    }
    if (this.inFlight === 0) return
    this.inFlight = 0
    this.drained = true
    this.send()
    this.reportDrained()
  }

  private outputEnded(): void {
    if (this.closing === "abort") this.reset()
    else if (this.closing === "close") this.duplex.destroy()
    else this.letGo()
  }

  onData(chunk: Uint8Array | string): void {
    if (this.readsToMove > 0 && --this.readsToMove === 0) process.nextTick(move, this)
    this.deliver(toBytes(chunk))
  }

  /** Bytes that stay where they are. */
  deliver(chunk: Uint8Array): void {
    if (this.closing !== "no" || this.finished) return
    this.delivering = true
    this.handler?.onData(chunk)
    this.delivering = false
    if (!this.ticking) this.flush()
  }

  /** Whether the handler could use bytes that it cannot keep, or needs none any more. */
  lend(bytes: Uint8Array): boolean {
    if (this.closing !== "no" || this.finished) return true
    this.delivering = true
    const isUsed = this.handler?.onLent?.(bytes) ?? false
    this.delivering = false
    if (isUsed && !this.ticking) this.flush()
    return isUsed
  }

  // Only while nothing is on its way: the socket that is left takes nothing along.
  move(): void {
    const { duplex } = this
    if (!(duplex instanceof net.Socket) || this.gone || this.closing !== "no" || this.output !== "open")
      return
    if (
      this.inputEnded ||
      this.inFlight > 0 ||
      duplex.readableFlowing !== true ||
      duplex.readableLength > 0
    ) {
      this.readsToMove = READS_TO_MOVE
      return
    }
    const moved = readIntoBuffer(duplex, this)
    if (moved === undefined) return
    duplex.off("data", onData).off("end", onEnd).off("error", onError).off("close", onClose)
    moved.on("end", onEnd).on("error", onError).on("close", onClose)
    this.duplex = moved
    this.duplex[transportOf] = this
    if (this.tcp !== undefined) this.tcp = moved
  }

  onEnd(): void {
    if (this.inputEnded) return
    this.inputEnded = true
    if (!hidesResets || this.tcp === undefined || this.tcp.writableEnded || this.tcp.destroyed) {
      this.reportEnd()
    } else if (this.inFlight > 0) {
      // After a reset, the write on its way fails in this turn of the event loop.
      setImmediate(reportEnd, this)
    } else {
      // An empty write sends nothing, and fails if the connection was reset.
      this.tcp.write(nothing)
      this.reportEnd()
    }
  }

  reportEnd(): void {
    if (this.endReported || this.finished || this.isReset()) return
    this.endReported = true
    if (this.closing === "no") this.handler?.onEnd()
    this.letGo()
  }

  // A write that meets a reset which came behind the peer's end is a broken pipe: the end was one all the same.
  private isReset(): boolean {
    const { errored } = this.duplex
    return errored !== null && codeOf(errored) !== "EPIPE"
  }

  // A stream with `autoDestroy` does this by itself.
  private letGo(): void {
    if (this.inputEnded && this.duplex.writableFinished) this.duplex.destroy()
  }

  onError(cause: unknown): void {
    this.failure ??= { cause }
    this.duplex.destroy()
  }

  onClose(): void {
    this.gone = true
    if (this.handler === undefined) return
    if (this.layer !== undefined && !this.layer.isGone) this.layer.onGone = () => this.finish()
    else this.finish()
  }

  finish(): void {
    if (this.finished) return
    if (this.closing === "no") {
      this.duplex.off("data", onData)
      this.deliverUnread()
    }
    if (this.inputEnded) this.reportEnd()
    this.finished = true
    // Node's streams have such functions, and so stay longer than they are used. The connection shall not.
    this.duplex[transportOf] = undefined
    this.handler?.onClosed(this.error())
  }

  // Newer releases of Node give one chunk at a time.
  private deliverUnread(): void {
    while (this.closing === "no") {
      const unread: unknown = this.duplex.read()
      if (!(unread instanceof Uint8Array) && typeof unread !== "string") return
      this.handler?.onData(toBytes(unread))
    }
  }

  private error(): ConnectionError | undefined {
    if (this.closing !== "no") return undefined
    const address = formatAddress(this.remoteAddress)
    if (this.failure !== undefined) {
      const { cause } = this.failure
      const reason = reasonFromCause(cause)
      return new ConnectionError({
        operation: operationOf(cause),
        reason: this.layer?.describe(reason) ?? reason,
        address
      })
    }
    return this.inputEnded && this.duplex.writableFinished
      ? undefined
      : new ConnectionError({
          operation: "read",
          reason: new ConnectionAborted({}),
          address
        })
  }
}
