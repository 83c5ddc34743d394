export type Chunk = Uint8Array | string

const byteLength = (chunk: Chunk): number =>
  typeof chunk === "string" ? Buffer.byteLength(chunk) : chunk.byteLength

/** Chunks from this size on are sent where they are; smaller ones are copied together, which is cheaper. */
const COPY_BYTES = 4096

const SLAB_BYTES = 65_536

/** One slab for all connections: as a rule, one of them writes at a time, and sends before another one writes. */
interface Stage {
  slab: Buffer
  used: number
  /** Whose bytes the slab ends with, and where they begin. */
  owner: Outbox | undefined
  start: number
  /** Who took those bytes to send them: if they are sent at once, their place is used again. */
  taker: Outbox | undefined
}

const stage: Stage = {
  slab: Buffer.allocUnsafeSlow(SLAB_BYTES),
  used: 0,
  owner: undefined,
  start: 0,
  taker: undefined
}

/** What a connection has written and not yet sent: small chunks copied together, large ones as they are. */
export class Outbox {
  bytes = 0
  private chunks: Array<Chunk> = []

  add(chunk: Chunk): void {
    if (chunk.length === 0) return
    if (typeof chunk === "string") this.addText(chunk)
    else if (chunk.byteLength < COPY_BYTES) {
      this.reserve(chunk.byteLength)
      stage.slab.set(chunk, stage.used)
      this.append(chunk.byteLength)
    } else this.addWhole(chunk, chunk.byteLength)
  }

  private addText(text: string): void {
    // A UTF-16 unit takes at most three bytes.
    const most = text.length * 3
    if (most < COPY_BYTES) {
      this.reserve(most)
      this.append(stage.slab.write(text, stage.used))
    } else this.addWhole(text, byteLength(text))
  }

  private addWhole(chunk: Chunk, bytes: number): void {
    this.seal()
    this.chunks.push(chunk)
    this.bytes += bytes
  }

  private append(bytes: number): void {
    stage.used += bytes
    this.bytes += bytes
  }

  /** Makes the bytes that follow in the slab this connection's. */
  private reserve(bytes: number): void {
    if (stage.owner === this && stage.used + bytes <= SLAB_BYTES) return
    stage.owner?.seal()
    stage.taker = undefined
    if (stage.used + bytes > SLAB_BYTES) {
      stage.slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
      stage.used = 0
    }
    stage.owner = this
    stage.start = stage.used
  }

  private seal(): void {
    if (stage.owner !== this) return
    stage.owner = undefined
    this.chunks.push(stage.slab.subarray(stage.start, stage.used))
  }

  /** Removes and returns everything, or, if that is more than `most` bytes, about that much. */
  take(most: number): ReadonlyArray<Chunk> {
    const isAll = this.bytes <= most
    stage.taker = isAll && stage.owner === this ? this : undefined
    if (isAll && this.chunks.length === 0) {
      stage.owner = undefined
      this.bytes = 0
      return [stage.slab.subarray(stage.start, stage.used)]
    }
    this.seal()
    const { chunks } = this
    if (isAll) {
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
    if (stage.taker !== this) return
    stage.taker = undefined
    stage.used = stage.start
  }

  /** Drops everything. */
  clear(): void {
    if (stage.owner === this) stage.owner = undefined
    this.chunks = []
    this.bytes = 0
  }
}
