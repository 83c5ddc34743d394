/**
 * Two transports in memory, each the other's peer.
 *
 * They behave as the two ends of a TCP connection do: the same half-close, the same end of input, the same resets, and
 * bytes that wait in a buffer of bounded size between the two until the reader takes them. No fiber and no timer runs:
 * bytes move in tasks of the Effect scheduler, one per burst, never inside `write`, so two sides that answer each other
 * at once do not recurse, and a test's clock sees all of it.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Scheduler from "effect/Scheduler"
import type * as NetAddress from "effect/net/NetAddress"
import { empty, encode } from "./internal/bytes.ts"
import { formatAddress } from "./internal/target.ts"
import { ConnectionError, ConnectionReset } from "./StreamError.ts"
import type { Handler, Transport } from "./Transport.ts"

/**
 * Options of `makePair`. Addresses are those of the first transport; the second has them the other way round.
 *
 * @category models
 * @since 0.1.0
 */
export interface PairOptions {
  readonly localAddress?: NetAddress.SocketAddress | undefined
  readonly remoteAddress?: NetAddress.SocketAddress | undefined
  /**
   * How many bytes each direction holds between writer and reader, as the operating system's socket buffers do. Bytes
   * within it count as sent. Default 65,536; 0 for none: then a byte is sent when the peer takes it.
   */
  readonly capacity?: number | undefined
  /**
   * Whether a connection may take bytes that nobody has asked for yet. Default `true`; see `Transport.readAhead`.
   */
  readonly readAhead?: boolean | undefined
}

/**
 * Makes two connected transports. Neither owns anything that has to be released: a pair that is dropped without `close`
 * or `abort` is garbage.
 *
 * - `write` copies its bytes, as a socket does: neither side can see the other change an array. They count as buffered
 *   while more than `capacity` bytes wait for the peer, and are delivered, at most 65,536 at a time, while the peer is
 *   started and not paused.
 * - `end` and `close`: the peer's `onEnd` follows the last byte. It does not wait for a paused peer that has no byte left
 *   to take.
 * - `close` lets go once no byte is buffered; the peer still gets what is within `capacity`. If bytes of the peer had not
 *   been taken by then, or if it writes later, it is reset: it gets what it can take at once, then
 *   `onClosed(ConnectionReset)`.
 * - `abort` drops what either side has not taken; the peer gets `onClosed(ConnectionReset)`.
 * - Both directions ended: `onClosed()` on both sides.
 *
 * A capacity that is no whole number of bytes is a defect (`RangeError`).
 *
 * **Example** (Sending bytes from one to the other)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { MemoryTransport } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [left, right] = yield* MemoryTransport.makePair()
 *   left.start({ onData() {}, onEnd() {}, onDrain() {}, onClosed() {} })
 *   left.write("hello")
 *   left.end()
 *   return yield* Effect.callback<string>((resume) => {
 *     const decoder = new TextDecoder()
 *     let text = ""
 *     right.start({
 *       onData(chunk) {
 *         text += decoder.decode(chunk, { stream: true })
 *       },
 *       onEnd() {
 *         right.close()
 *       },
 *       onDrain() {},
 *       onClosed() {
 *         resume(Effect.succeed(text))
 *       }
 *     })
 *     right.resume()
 *   })
 * })
 *
 * console.log(await Effect.runPromise(program)) // hello
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makePair = Effect.fnUntraced(function* (
  options?: PairOptions
): Effect.fn.Return<[left: Transport, right: Transport]> {
  const capacity = options?.capacity ?? defaultCapacity
  if (capacity !== Infinity && (!Number.isSafeInteger(capacity) || capacity < 0)) {
    return yield* Effect.die(new RangeError(`capacity must be a number of bytes from 0, not ${capacity}`))
  }
  const dispatcher = (yield* Scheduler.Scheduler).makeDispatcher()
  const readAhead = options?.readAhead ?? true
  const toRight = new Pipe(capacity)
  const toLeft = new Pipe(capacity)
  const left = new Side(dispatcher, toLeft, toRight, readAhead, options?.localAddress, options?.remoteAddress)
  const right = new Side(
    dispatcher,
    toRight,
    toLeft,
    readAhead,
    options?.remoteAddress,
    options?.localAddress
  )
  left.peer = right
  right.peer = left
  return [left, right]
})

const defaultCapacity = 65_536

// What a read from a socket returns at most: a large write is taken in pieces, so pausing stops it half-way.
const maxChunk = 65_536

/** One direction: bytes on their way, and the mark behind the last of them. */
class Pipe {
  readonly capacity: number
  bytes = 0
  ended = false
  private chunks: Array<Uint8Array> = []
  private head = 0

  constructor(capacity: number) {
    this.capacity = capacity
  }

  /** Bytes for which there is no room: they wait in the writer. */
  get excess(): number {
    return Math.max(0, this.bytes - this.capacity)
  }

  push(chunk: Uint8Array): void {
    this.chunks.push(chunk)
    this.bytes += chunk.length
  }

  /** The next bytes, at most `max`, of a pipe that is not empty. */
  take(max: number): Uint8Array {
    const chunk = this.chunks[this.head] ?? empty
    const size = Math.min(chunk.length, max)
    this.bytes -= size
    if (size < chunk.length) {
      this.chunks[this.head] = chunk.subarray(size)
      return chunk.subarray(0, size)
    }
    this.head++
    if (this.bytes === 0) this.clear()
    else if (this.head > 1024 && this.head * 2 > this.chunks.length) {
      this.chunks = this.chunks.slice(this.head)
      this.head = 0
    }
    return chunk
  }

  clear(): void {
    this.chunks = []
    this.head = 0
    this.bytes = 0
  }
}

/** One end. Handler methods are called from `run` only, which only the scheduler calls. */
class Side implements Transport {
  readonly kind = "memory"
  readonly canEnd = true
  readonly readAhead: boolean
  readonly localAddress: NetAddress.SocketAddress | undefined
  readonly remoteAddress: NetAddress.SocketAddress | undefined
  declare peer: Side

  private readonly dispatcher: Scheduler.SchedulerDispatcher
  private readonly incoming: Pipe
  private readonly outgoing: Pipe
  private handler: Handler | undefined = undefined
  private scheduled = false
  private paused = true
  private inputEnded = false
  private closing = false
  private aborted = false
  private failure: ConnectionError | undefined = undefined
  private closed = false

  constructor(
    dispatcher: Scheduler.SchedulerDispatcher,
    incoming: Pipe,
    outgoing: Pipe,
    readAhead: boolean,
    localAddress: NetAddress.SocketAddress | undefined,
    remoteAddress: NetAddress.SocketAddress | undefined
  ) {
    this.dispatcher = dispatcher
    this.incoming = incoming
    this.outgoing = outgoing
    this.readAhead = readAhead
    this.localAddress = localAddress
    this.remoteAddress = remoteAddress
  }

  get bufferedBytes(): number {
    return this.outgoing.excess
  }

  start(handler: Handler): void {
    this.handler = handler
    this.schedule()
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    this.paused = false
    if (this.incoming.bytes > 0) this.schedule()
  }

  write(chunk: Uint8Array | string): void {
    if (chunk.length === 0 || this.outgoing.ended || this.broken) return
    // The peer's kernel knows no such connection any more: it answers with a reset, and the bytes are lost.
    if (this.peer.closed) return this.reset("write")
    // A copy, never a view: a `Buffer`'s own `slice` would share its memory.
    this.outgoing.push(typeof chunk === "string" ? encode(chunk) : new Uint8Array(chunk))
    if (!this.peer.paused) this.peer.schedule()
  }

  writeAll(chunks: ReadonlyArray<Uint8Array | string>): void {
    for (const chunk of chunks) this.write(chunk)
  }

  end(): void {
    if (this.broken) return
    this.outgoing.ended = true
    this.peer.schedule()
    this.schedule()
  }

  close(): void {
    this.closing = true
    this.end()
  }

  abort(): void {
    if (this.closed) return
    this.aborted = true
    this.incoming.clear()
    this.outgoing.clear()
    // A reset overtakes an end that was not delivered: what was lost before it must not pass for the whole input.
    this.outgoing.ended = false
    this.peer.reset("read")
    this.schedule()
  }

  /** Whether the end has come, other than by `end` and `close`. */
  private get broken(): boolean {
    return this.closed || this.aborted || this.failure !== undefined
  }

  private reset(operation: string): void {
    this.failure = new ConnectionError({
      operation,
      reason: new ConnectionReset({ code: "ECONNRESET" }),
      address: formatAddress(this.remoteAddress)
    })
    this.schedule()
  }

  private schedule(): void {
    if (this.scheduled || this.handler === undefined) return
    this.scheduled = true
    this.dispatcher.scheduleTask(this.run, 0)
  }

  private readonly run = (): void => {
    this.scheduled = false
    const handler = this.handler
    if (handler === undefined || this.closed) return
    this.deliver(handler)
    if (this.aborted) return this.letGo(handler)
    if (this.failure !== undefined) return this.letGo(handler, this.failure)
    if (this.outgoing.ended && this.bufferedBytes === 0 && (this.closing || this.inputEnded))
      this.letGo(handler)
  }

  private deliver(handler: Handler): void {
    const { incoming, peer } = this
    // What a handler makes the peer write meanwhile waits for the next task: other fibers have their turn in between.
    let burst = incoming.bytes
    let sent = false
    while (burst > 0 && !this.paused && incoming.bytes > 0) {
      const before = incoming.excess
      const chunk = incoming.take(maxChunk)
      burst -= chunk.length
      sent ||= incoming.excess < before
      handler.onData(chunk)
    }
    if (sent) peer.drained()
    if (incoming.ended && incoming.bytes === 0 && !this.inputEnded && !this.aborted) {
      this.inputEnded = true
      handler.onEnd()
    }
  }

  private drained(): void {
    if (this.aborted) return
    this.handler?.onDrain()
    if (this.outgoing.ended) this.schedule()
  }

  private letGo(handler: Handler, error?: ConnectionError): void {
    this.closed = true
    const lost = this.incoming.bytes > 0
    this.incoming.clear()
    if (lost) this.peer.reset("read")
    handler.onClosed(error)
  }
}
