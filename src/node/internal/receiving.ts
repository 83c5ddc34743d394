import * as net from "node:net"
import { view } from "../../internal/bytes.ts"

// Bytes are read into one buffer for all sockets, and copied out of it at once. Where reads are posted ahead of their
// completion (Windows), sockets cannot share one.
const canShare = process.platform !== "win32"

const BUFFER_BYTES = 65_536

/** From this size on, what was read is handed out where it is instead of being copied. */
const LARGE_BYTES = 32_768

/** Less than this is not offered to be used where it is: to copy it costs no more. */
const LENT_BYTES = 4096

/** Large reads go to one of these, side by side: what is not filled is left for the next one. */
const LARGE_SLAB_BYTES = 4 * BUFFER_BYTES

/** So many small reads in a row give a socket's own slab back. */
const SMALL_READS = 16

/** Small pieces are cut from slabs; a piece that somebody keeps holds no more than this. */
const SLAB_BYTES = 16_384

const allocate = (bytes: number): Uint8Array => new Uint8Array(Buffer.allocUnsafeSlow(bytes).buffer)

const shared = allocate(BUFFER_BYTES)

let slab = allocate(SLAB_BYTES)
let used = 0

// Most messages of a protocol's are as long as the one before.
let head = shared.subarray(0, 0)

const copyOut = (buffer: Uint8Array, bytes: number): Uint8Array => {
  if (bytes > SLAB_BYTES / 4) return buffer.slice(0, bytes)
  if (used + bytes > SLAB_BYTES) {
    slab = allocate(SLAB_BYTES)
    used = 0
  }
  if (head.buffer !== buffer.buffer || head.byteOffset !== buffer.byteOffset || head.length !== bytes) {
    head = view(buffer, 0, bytes)
  }
  const copy = view(slab, used, used + bytes)
  copy.set(head)
  used += bytes
  return copy
}

/** Where a socket reads to: the shared buffer, or places of its own while much arrives at a time. */
class Receiver {
  private readonly receiving: Receiving
  private current: Uint8Array | undefined = undefined
  private next = shared
  private slab: Uint8Array | undefined = undefined
  private used = 0
  private smallReads = 0

  constructor(receiving: Receiving) {
    this.receiving = receiving
  }

  /** The buffer for the next read, if it is another one. */
  readonly buffer = (): Uint8Array | undefined => {
    if (this.current === this.next) return undefined
    this.current = this.next
    return this.next
  }

  readonly received = (bytes: number, buffer: Uint8Array): boolean => {
    const { receiving } = this
    if (bytes < LENT_BYTES || !receiving.lend(view(buffer, 0, bytes)))
      receiving.deliver(this.keep(bytes, buffer))
    return true
  }

  /** What was read, in a place where it can stay. */
  private keep(bytes: number, buffer: Uint8Array): Uint8Array {
    if (bytes < LARGE_BYTES) {
      if (this.slab !== undefined && ++this.smallReads >= SMALL_READS) {
        this.slab = undefined
        this.next = shared
      }
      return copyOut(buffer, bytes)
    }
    this.smallReads = 0
    if (this.slab === undefined) {
      this.extend(0)
      return buffer.slice(0, bytes)
    }
    this.extend(bytes)
    return view(buffer, 0, bytes)
  }

  private extend(bytes: number): void {
    this.used += bytes
    if (this.slab === undefined || this.used + BUFFER_BYTES > LARGE_SLAB_BYTES) {
      this.slab = allocate(LARGE_SLAB_BYTES)
      this.used = 0
    }
    this.next = view(this.slab, this.used, this.used + BUFFER_BYTES)
  }
}

/** What becomes of the bytes. */
export interface Receiving {
  /** Offers bytes that are overwritten afterwards; whether they have been used. */
  readonly lend: (bytes: Uint8Array) => boolean
  readonly deliver: (bytes: Uint8Array) => void
}

interface Handle {
  readonly reading: true
  readonly useUserBuffer: (buffer: Uint8Array) => void
}

const isHandle = (u: unknown): u is Handle =>
  typeof u === "object" &&
  u !== null &&
  "reading" in u &&
  u.reading === true &&
  "useUserBuffer" in u &&
  typeof u.useUserBuffer === "function"

/**
 * Moves a connection to a socket that reads into a buffer of ours instead of one that is allocated for each read. Node
 * offers that (`onread`) to sockets only that are made with it, which those that a server accepted are not.
 *
 * `socket`, which has to be idle and flowing, is destroyed and left without the connection. Returns `undefined`, and does
 * nothing, where this cannot be done.
 */
export const readIntoBuffer = (socket: net.Socket, receiving: Receiving): net.Socket | undefined => {
  const handle: unknown = Reflect.get(socket, "_handle")
  if (!canShare || !isHandle(handle)) return undefined
  const { buffer, received } = new Receiver(receiving)
  const options = { handle, allowHalfOpen: true, onread: { buffer, callback: received } }
  // The constructor takes a handle, as Node itself does for sockets that a server accepts; its types do not say so.
  const make: new (options: object) => net.Socket = net.Socket
  Reflect.set(socket, "_handle", null)
  const moved = new make(options)
  socket.destroy()
  return moved
}
