/** What every program in memory shares: the input, and how the work is measured. `PROGRAM CASE BYTES` */
import * as v8 from "node:v8"

const [, , caseArgument = "", bytesArgument = "0"] = process.argv

export const name = caseArgument
const totalBytes = Number(bytesArgument)

const BATCH = 1024 * 1024
// A prime, so that messages are cut anywhere.
const PIECE = 65_521

const message = (): Buffer => {
  switch (name) {
    case "framed":
    case "framed-messages":
    case "framed-own":
    case "frames": {
      const frame = Buffer.alloc(64, "f")
      frame.writeUInt32BE(60)
      return frame
    }
    case "readUntil": {
      const head = "GET / HTTP/1.1\r\nHost: example.org\r\nX-Padding: "
      return Buffer.from(`${head.padEnd(252, "p")}\r\n\r\n`)
    }
    default:
      return Buffer.from(`${"l".repeat(63)}\n`)
  }
}

const cut = (buffer: Buffer): ReadonlyArray<Buffer> =>
  Array.from({ length: Math.ceil(buffer.length / PIECE) }, (_, i) =>
    buffer.subarray(i * PIECE, (i + 1) * PIECE)
  )

const one = message()

/** One mebibyte of messages, as it might arrive. */
export const pieces = cut(Buffer.alloc(BATCH, one))

/** What the work found in the pieces. */
export interface Found {
  messages: number
  bytes: number
}

export const expected: Found = { messages: BATCH / one.length, bytes: BATCH }

// Node 22 does not count it.
const allocatedBytes = (): number | undefined => {
  const statistics: { readonly total_allocated_bytes?: number } = v8.getHeapStatistics()
  return statistics.total_allocated_bytes
}

const report = (report: Record<string, number | undefined>): void => console.log(JSON.stringify(report))

/** Works on batch after batch. Bytes that are not in messages (such as a line's end) do not count as wrong. */
export const measure = async (work: () => Promise<Found> | Found): Promise<void> => {
  const batches = Math.max(1, Math.round(totalBytes / BATCH))
  for (let i = 0; i < Math.max(4, batches / 4); i++) await work()
  globalThis.gc?.()
  let errors = 0
  let messages = 0
  const allocatedBefore = allocatedBytes()
  const cpuBefore = process.cpuUsage()
  const started = performance.now()
  for (let i = 0; i < batches; i++) {
    const found = await work()
    messages += found.messages
    if (found.messages !== expected.messages || found.bytes !== expected.bytes) errors++
  }
  const seconds = (performance.now() - started) / 1000
  const cpu = process.cpuUsage(cpuBefore)
  const allocatedAfter = allocatedBytes()
  report({
    messages,
    bytes: batches * BATCH,
    errors,
    seconds,
    user: cpu.user / 1e6,
    system: cpu.system / 1e6,
    ...(allocatedBefore !== undefined &&
      allocatedAfter !== undefined && { allocated: allocatedAfter - allocatedBefore })
  })
}

const LONG_PIECE = Buffer.alloc(1024, "x")
const LONG_END = Buffer.from("\n")

/** What takes one long line. */
export interface LongLine {
  readonly feed: (piece: Buffer) => void
  /** The line's length, once it has come. */
  readonly length: Promise<number>
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

const timeLine = async (start: (limit: number) => LongLine, bytes: number): Promise<number> => {
  globalThis.gc?.()
  const started = performance.now()
  const { feed, length } = start(bytes + 1)
  for (let fed = 0; fed < bytes; fed += LONG_PIECE.length) {
    feed(LONG_PIECE)
    // Every piece arrives in a turn of its own.
    await turn()
  }
  feed(LONG_END)
  if ((await length) !== bytes + 1) throw new Error("a line of another length")
  return (performance.now() - started) / 1000
}

/** A line of so many bytes, and one that is twice as long, each in pieces of 1 KiB. */
export const measureLongLine = async (start: (limit: number) => LongLine): Promise<void> => {
  await timeLine(start, 4 * BATCH)
  const once = await timeLine(start, totalBytes)
  const cpuBefore = process.cpuUsage()
  const twice = await timeLine(start, 2 * totalBytes)
  const cpu = process.cpuUsage(cpuBefore)
  report({
    messages: (2 * totalBytes) / LONG_PIECE.length,
    bytes: 2 * totalBytes,
    errors: 0,
    seconds: twice,
    user: cpu.user / 1e6,
    system: cpu.system / 1e6,
    growth: twice / once
  })
}

/** Says that this program has no such case. */
export const unknownCase = (): never => {
  console.error(`no case ${name}`)
  process.exit(2)
}
