import * as net from "node:net"

// Bytes are read into one buffer for all sockets, and copied out of it at once. Where reads are posted ahead of their
// completion (Windows), sockets cannot share one.
const canShare = process.platform !== "win32"

const BUFFER_BYTES = 65_536

/** From this size on, what was read is handed out where it is instead of being copied. */
const LARGE_BYTES = 32_768

/** So many small reads in a row give a socket's own buffer back. */
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
  if (head.buffer !== buffer.buffer || head.length !== bytes) head = new Uint8Array(buffer.buffer, 0, bytes)
  const copy = new Uint8Array(slab.buffer, used, bytes)
  copy.set(head)
  used += bytes
  return copy
}

/** Where a socket reads to: the shared buffer, or one of its own while much arrives at a time. */
class Receiver {
  private own: Uint8Array | undefined = undefined
  private smallReads = 0

  readonly buffer = (): Uint8Array => this.own ?? shared

  take(bytes: number, buffer: Uint8Array): Uint8Array {
    if (bytes >= LARGE_BYTES) {
      const isOwn = buffer === this.own
      this.own = allocate(BUFFER_BYTES)
      this.smallReads = 0
      return isOwn ? buffer.subarray(0, bytes) : buffer.slice(0, bytes)
    }
    if (this.own !== undefined && ++this.smallReads >= SMALL_READS) this.own = undefined
    return copyOut(buffer, bytes)
  }
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
export const readIntoBuffer = (
  socket: net.Socket,
  onData: (bytes: Uint8Array) => void
): net.Socket | undefined => {
  const handle: unknown = Reflect.get(socket, "_handle")
  if (!canShare || !isHandle(handle)) return undefined
  const receiver = new Receiver()
  const options = {
    handle,
    allowHalfOpen: true,
    onread: {
      buffer: receiver.buffer,
      callback: (bytes: number, buffer: Uint8Array): boolean => {
        onData(receiver.take(bytes, buffer))
        return true
      }
    }
  }
  // The constructor takes a handle, as Node itself does for sockets that a server accepts; its types do not say so.
  const make: new (options: object) => net.Socket = net.Socket
  Reflect.set(socket, "_handle", null)
  const moved = new make(options)
  socket.destroy()
  return moved
}
