export type Chunk = Uint8Array | string

const byteLength = (chunk: Chunk): number =>
  typeof chunk === "string" ? Buffer.byteLength(chunk) : chunk.byteLength

/** Chunks from this size on are sent where they are; smaller ones are copied together, which is cheaper. */
export const COPY_BYTES = 4096

const SLAB_BYTES = 65_536

// One slab for all connections: as a rule, one of them writes at a time, and sends before another one writes.
let slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
let used = 0

// Whose bytes the slab ends with, and where they begin.
let owner: Outbox | undefined
let start = 0

// Who took the last bytes of the slab to send them: if they are sent at once, their place is used again.
let taker: Outbox | undefined

/** What a connection has written and not yet sent: small chunks copied together, large ones as they are. */
export class Outbox {
  bytes = 0
  private chunks: Array<Chunk> = []

  /** Adds a chunk, which is not empty. */
  add(chunk: Chunk): void {
    if (typeof chunk === "string") this.addText(chunk)
    else if (chunk.byteLength < COPY_BYTES) {
      this.reserve(chunk.byteLength)
      slab.set(chunk, used)
      this.append(chunk.byteLength)
    } else this.addWhole(chunk, chunk.byteLength)
  }

  private addText(text: string): void {
    // A UTF-16 unit takes at most three bytes.
    const most = text.length * 3
    if (most < COPY_BYTES) {
      this.reserve(most)
      this.append(slab.write(text, used))
    } else this.addWhole(text, byteLength(text))
  }

  private addWhole(chunk: Chunk, bytes: number): void {
    this.seal()
    this.chunks.push(chunk)
    this.bytes += bytes
  }

  private append(bytes: number): void {
    used += bytes
    this.bytes += bytes
  }

  /** Makes the bytes that follow in the slab this connection's. */
  private reserve(bytes: number): void {
    if (owner === this && used + bytes <= SLAB_BYTES) return
    owner?.seal()
    taker = undefined
    if (used + bytes > SLAB_BYTES) {
      slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
      used = 0
    }
    owner = this
    start = used
  }

  private seal(): void {
    if (owner !== this) return
    owner = undefined
    this.chunks.push(slab.subarray(start, used))
  }

  /** Removes and returns everything, or, if that is more than `most` bytes, about that much. */
  take(most: number): ReadonlyArray<Chunk> {
    taker = owner === this ? this : undefined
    this.seal()
    const { chunks } = this
    if (this.bytes <= most) {
      this.chunks = []
      this.bytes = 0
      return chunks
    }
    let bytes = 0
    let count = 0
    for (const chunk of chunks) {
      const length = byteLength(chunk)
      if (bytes + length > most) break
      bytes += length
      count++
    }
    if (count === 0) return [this.split(most)]
    this.bytes -= bytes
    return chunks.splice(0, count)
  }

  private split(bytes: number): Uint8Array {
    const [first = ""] = this.chunks
    const large = typeof first === "string" ? Buffer.from(first) : first
    this.chunks[0] = large.subarray(bytes)
    this.bytes -= bytes
    return large.subarray(0, bytes)
  }

  /** What was taken last is sent, and nobody holds it any more. */
  sent(): void {
    if (taker !== this) return
    taker = undefined
    used = start
  }

  /** Drops everything. */
  clear(): void {
    if (owner === this) owner = undefined
    this.chunks = []
    this.bytes = 0
  }
}
