import { empty, indexOf, indexOfByte, view } from "./bytes.ts"
import { equals, type Separator } from "./Separator.ts"

/** Where a separator was found: `end` is the offset just past it, `length` its own length. */
export interface Match {
  readonly end: number
  readonly length: number
}

const FIRST_BLOCK = 256

/** A list of more chunks than this is not kept when they are used up, and what is added to it is merged if it is small. */
const LONG = 32

/** Chunks below this size are merged, until together they have the other one. */
const SMALL = 512
const MERGED = 2048

/** Up to so many bytes that are not kept are copied to one place. */
const SCRATCH = 128 * 1024
let scratch: Uint8Array | undefined

/**
 * Received chunks in order, kept as they came.
 *
 * What lies in one chunk is handed out as a view; only what spans chunks is copied, once. A search remembers how far it
 * got, so that a separator sought over many small chunks costs time linear in the bytes.
 */
export class ReadBuffer {
  size = 0
  // From `head` to before `tail`; the other places are empty. It has a place from the beginning, since V8 makes room for 17
  // with the first one that is added. Its length is left alone: V8 gives the memory of a short array back when its last element
  // is removed, and takes it again for the next one.
  private chunks: Array<Uint8Array | undefined> = [undefined]
  private head = 0
  private tail = 0
  // Bytes of the head chunk that are consumed already.
  private offset = 0
  // What the last chunk lies in if it was merged, with room for more.
  private merged: Uint8Array | undefined = undefined

  // The unfinished search: no match of `sought` ends before `scanned`, which lies in (or at the start of) the chunk at
  // `scanIndex`, whose first byte has the offset `scanStart`. Offsets count from the first unconsumed byte.
  private sought: Separator | undefined = undefined
  private scanned = 0
  private scanIndex = 0
  private scanStart = 0

  push(chunk: Uint8Array): void {
    this.size += chunk.length
    if (this.tail - this.head > LONG && chunk.length < SMALL && this.merge(chunk)) return
    this.chunks[this.tail++] = chunk
  }

  // Adds to the last chunk, so that a peer which sends byte by byte costs little more memory than its bytes. What was handed
  // out of that chunk does not change: the place behind it was nobody's.
  private merge(chunk: Uint8Array): boolean {
    const index = this.tail - 1
    const last = this.chunks[index]
    if (last === undefined || last.length >= MERGED) return false
    const length = last.length + chunk.length
    let merged = this.merged
    let start = last.byteOffset
    if (merged?.buffer !== last.buffer || start + length > merged.length) {
      this.merged = merged = new Uint8Array(2 * length)
      merged.set(last)
      start = 0
    }
    merged.set(chunk, start + last.length)
    this.chunks[index] = view(merged, start, start + length)
    if (this.sought !== undefined && this.scanIndex > index) {
      this.scanIndex = index
      this.scanStart -= last.length
      // A match may have begun before what was added.
      this.scanned = Math.max(this.scanStart, this.scanned - this.sought.longest + 1)
    }
    return true
  }

  /** Removes and returns the first `n` bytes; `n` is at most `size`. */
  take(n: number): Uint8Array {
    // A whole chunk that came alone, which is what most reads find.
    if (n === this.size && this.offset === 0 && this.tail === 1) {
      const only = this.chunks[0]
      this.clear()
      return only ?? empty
    }
    const bytes = this.peek(n)
    this.discard(n)
    return bytes
  }

  /**
   * Removes and returns the bytes up to and including the first `byte`, if they lie in the first chunk and no more than
   * `limit` come before it: the common case of a line, without a search that could be gone on with.
   */
  takeThrough(byte: number, limit: number): Uint8Array | undefined {
    const chunk = this.sought === undefined ? this.chunks[this.head] : undefined
    if (chunk === undefined) return undefined
    const start = this.offset
    const end = indexOfByte(chunk, byte, start) + 1
    // The end of a chunk is left to `discard`, which drops it.
    if (end === 0 || end === chunk.length || end - start - 1 > limit) return undefined
    this.offset = end
    this.size -= end - start
    return view(chunk, start, end)
  }

  /**
   * Removes the first `n` bytes and returns what `use` makes of them. What spans chunks is copied to a place that is used
   * again: `use` must not keep the bytes.
   */
  use<A>(n: number, use: (bytes: Uint8Array) => A): A {
    const first = this.chunks[this.head]
    if (first !== undefined && first.length - this.offset >= n) return use(this.take(n))
    const out = n <= SCRATCH ? view((scratch ??= new Uint8Array(SCRATCH)), 0, n) : new Uint8Array(n)
    this.takeInto(out)
    return use(out)
  }

  /** Removes as many bytes as `out` holds, at most `size`, and copies them there. */
  takeInto(out: Uint8Array): void {
    this.copy(out)
    this.discard(out.length)
  }

  /** The first `n` bytes, left in place. */
  peek(n: number): Uint8Array {
    const first = this.chunks[this.head]
    if (n === 0 || first === undefined) return empty
    const start = this.offset
    if (first.length - start >= n) {
      return start === 0 && first.length === n ? first : view(first, start, start + n)
    }
    const out = new Uint8Array(n)
    this.copy(out)
    return out
  }

  /** The byte at an offset below `size`. */
  byteAt(at: number): number {
    let index = this.head
    let chunk = this.chunks[index]
    let rest = this.offset + at
    while (chunk !== undefined && rest >= chunk.length) {
      rest -= chunk.length
      chunk = this.chunks[++index]
    }
    return chunk?.[rest] ?? 0
  }

  /** An unsigned integer of `width` bytes; beyond 2^53 it is rounded. */
  uint(at: number, width: number, littleEndian: boolean): number {
    const first = this.chunks[this.head]
    const start = this.offset + at
    let value = 0
    if (first !== undefined && start + width <= first.length) {
      for (let i = 0; i < width; i++) {
        value = value * 256 + (first[littleEndian ? start + width - 1 - i : start + i] ?? 0)
      }
      return value
    }
    for (let i = 0; i < width; i++) {
      value = value * 256 + this.byteAt(littleEndian ? at + width - 1 - i : at + i)
    }
    return value
  }

  /** The bytes between two offsets, left in place; `to` is at most `size`. */
  slice(from: number, to: number): Uint8Array {
    let index = this.head
    let chunk = this.chunks[index]
    let start = this.offset + from
    while (chunk !== undefined && start >= chunk.length) {
      start -= chunk.length
      chunk = this.chunks[++index]
    }
    const length = to - from
    if (chunk === undefined || length === 0) return empty
    if (start + length <= chunk.length) return view(chunk, start, start + length)
    const out = new Uint8Array(length)
    this.copyFrom(index, start, out)
    return out
  }

  /** Removes the first `end` bytes and returns those between two offsets; neither is above `end`. */
  extract(from: number, to: number, end: number): Uint8Array {
    const chunk = this.chunks[this.head]
    const start = this.offset
    // The end of a chunk is left to `discard`, which drops it.
    if (chunk !== undefined && start + end < chunk.length) {
      this.sought = undefined
      this.offset = start + end
      this.size -= end
      return view(chunk, start + from, start + to)
    }
    const bytes = this.slice(from, to)
    this.discard(end)
    return bytes
  }

  /** Removes the first `n` bytes. A `RangeError` if there are not so many. */
  discard(n: number): void {
    if (n >= this.size) {
      if (n > this.size) throw new RangeError(`${n} bytes of ${this.size} cannot be discarded`)
      return this.clear()
    }
    this.sought = undefined
    this.size -= n
    let rest = n + this.offset
    let head = this.head
    for (
      let chunk = this.chunks[head];
      chunk !== undefined && rest >= chunk.length;
      chunk = this.chunks[head]
    ) {
      rest -= chunk.length
      // Not held any longer, though its place in the list is kept for a while.
      this.chunks[head++] = undefined
    }
    this.head = head
    this.offset = rest
    // Dropping used chunks when they are the larger part keeps the cost constant per chunk.
    if (head > LONG && head * 2 > this.tail) {
      this.chunks.splice(0, head)
      this.tail -= head
      this.head = 0
    }
  }

  private clear(): void {
    if (this.tail > LONG) this.chunks = []
    else for (let i = this.head; i < this.tail; i++) this.chunks[i] = undefined
    this.sought = undefined
    this.merged = undefined
    this.size = 0
    this.head = 0
    this.tail = 0
    this.offset = 0
  }

  /** Removes everything, as the chunks it came in. */
  takeChunks(): Array<Uint8Array> {
    const chunks = this.chunks.slice(this.head, this.tail).filter((chunk) => chunk !== undefined)
    const first = chunks[0]
    if (this.offset > 0 && first !== undefined) chunks[0] = first.subarray(this.offset)
    this.clear()
    return chunks
  }

  /** The offset just past the last `byte` of the first `within` bytes, or 0. */
  lastEndOf(byte: number, within: number): number {
    let index = this.head
    let start = -this.offset
    for (
      let chunk = this.chunks[index];
      chunk !== undefined && start < within;
      chunk = this.chunks[++index]
    ) {
      start += chunk.length
    }
    while (index > this.head) {
      const chunk = this.chunks[--index]
      if (chunk === undefined) break
      start -= chunk.length
      const at = chunk.lastIndexOf(byte, within - start - 1)
      if (at !== -1) return Math.max(0, start + at + 1)
    }
    return 0
  }

  /** The match that ends first; of two that end together, the shorter one. */
  find(separator: Separator): Match | undefined {
    if (this.sought === undefined || !equals(this.sought, separator)) {
      this.sought = separator
      this.scanned = 0
      this.scanIndex = this.head
      this.scanStart = -this.offset
    }
    for (
      let chunk = this.chunks[this.scanIndex];
      chunk !== undefined;
      chunk = this.chunks[++this.scanIndex]
    ) {
      const match = this.findIn(chunk, separator)
      if (match !== undefined) return match
      this.scanStart += chunk.length
      this.scanned = this.scanStart
    }
    return undefined
  }

  private findIn(chunk: Uint8Array, separator: Separator): Match | undefined {
    const start = this.scanStart
    const from = this.scanned - start
    if (separator.longest === 1 && separator.patterns.length === 1) {
      const byte = separator.patterns[0]?.[0]
      const at = byte === undefined ? -1 : indexOfByte(chunk, byte, from)
      return at === -1 ? undefined : { end: start + at + 1, length: 1 }
    }
    const across =
      from === 0 && start > 0 && separator.longest > 1 ? this.findAcross(chunk, separator) : undefined
    const within = findFirst(chunk, from, separator)
    if (within === undefined) return across
    const shifted = { end: start + within.end, length: within.length }
    return across === undefined ? shifted : earlier(across, shifted)
  }

  // Matches that begin in earlier chunks and end in this one: sought in a copy of the few bytes around the seam.
  private findAcross(chunk: Uint8Array, separator: Separator): Match | undefined {
    const before = Math.min(separator.longest - 1, this.scanStart)
    const after = Math.min(separator.longest - 1, chunk.length)
    const seam = new Uint8Array(before + after)
    let end = before
    for (let i = this.scanIndex - 1; end > 0; i--) {
      const previous = this.chunks[i]
      if (previous === undefined) break
      const length = Math.min(end, previous.length)
      seam.set(previous.subarray(previous.length - length), end - length)
      end -= length
    }
    seam.set(chunk.subarray(0, after), before)
    const origin = this.scanStart - before
    let best: Match | undefined
    for (const pattern of separator.patterns) {
      const at = indexOf(seam, pattern, 0)
      if (at === -1) continue
      const match = { end: origin + at + pattern.length, length: pattern.length }
      best = best === undefined ? match : earlier(best, match)
    }
    return best
  }

  private copy(out: Uint8Array): void {
    this.copyFrom(this.head, this.offset, out)
  }

  private copyFrom(index: number, from: number, out: Uint8Array): void {
    let filled = 0
    let start = from
    for (let i = index; filled < out.length; i++) {
      const chunk = this.chunks[i]
      if (chunk === undefined) break
      const length = Math.min(chunk.length - start, out.length - filled)
      out.set(start === 0 && length === chunk.length ? chunk : chunk.subarray(start, start + length), filled)
      filled += length
      start = 0
    }
  }
}

const earlier = (a: Match, b: Match): Match =>
  b.end < a.end || (b.end === a.end && b.length < a.length) ? b : a

const findFirst = (chunk: Uint8Array, from: number, { longest, patterns }: Separator): Match | undefined => {
  const single = patterns.length === 1 ? patterns[0] : undefined
  if (single !== undefined) {
    const at = indexOf(chunk, single, from)
    return at === -1 ? undefined : { end: at + single.length, length: single.length }
  }
  // Block by block, twice as large each time, so that a pattern which is absent from a long chunk is not sought to its end
  // for every piece that another pattern ends.
  for (let low = from, width = FIRST_BLOCK; low < chunk.length; low += width, width *= 2) {
    const block = chunk.subarray(Math.max(from, low - longest + 1), low + width)
    const origin = block.byteOffset - chunk.byteOffset
    let best: Match | undefined
    for (const pattern of patterns) {
      const at = indexOf(block, pattern, 0)
      if (at === -1) continue
      const match = { end: origin + at + pattern.length, length: pattern.length }
      best = best === undefined ? match : earlier(best, match)
    }
    if (best !== undefined) return best
  }
  return undefined
}
