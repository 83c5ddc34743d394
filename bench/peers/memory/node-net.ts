// What is written by hand over the chunks of node:net, without streams.
import { StringDecoder } from "node:string_decoder"
import { type Found, measure, measureLongLine, name, pieces, unknownCase } from "./shared.ts"

const LF = 0x0a

/** Calls `onPart` with everything up to and including each separator. */
const eachPart = (separator: Buffer | number, length: number, onPart: (part: Buffer) => void): void => {
  let rest: Buffer | undefined
  for (const piece of pieces) {
    // What is left over is shorter than a message.
    const chunk = rest === undefined ? piece : Buffer.concat([rest, piece])
    let start = 0
    for (;;) {
      const at = chunk.indexOf(separator, start)
      if (at < 0) break
      onPart(chunk.subarray(start, at + length))
      start = at + length
    }
    rest = start < chunk.length ? chunk.subarray(start) : undefined
  }
}

const count = (found: Found) => (part: { readonly length: number }) => {
  found.messages++
  found.bytes += part.length
}

const readLine = (found: Found): void => eachPart(LF, 1, count(found))

const lines = (found: Found): void => {
  const decoder = new StringDecoder("utf8")
  let rest = ""
  for (const piece of pieces) {
    const parts = (rest + decoder.write(piece)).split("\n")
    rest = parts.pop() ?? ""
    for (const line of parts) {
      found.messages++
      found.bytes += line.length + 1
    }
  }
}

const frames = (found: Found): void => {
  let rest: Buffer | undefined
  for (const piece of pieces) {
    const chunk = rest === undefined ? piece : Buffer.concat([rest, piece])
    let start = 0
    while (chunk.length - start >= 4) {
      const end = start + 4 + chunk.readUInt32BE(start)
      if (end > chunk.length) break
      const body = chunk.subarray(start + 4, end)
      found.messages++
      found.bytes += 4 + body.length
      start = end
    }
    rest = start < chunk.length ? chunk.subarray(start) : undefined
  }
}

const readUntil = (found: Found): void => {
  const separator = Buffer.from("\r\n\r\n")
  eachPart(separator, separator.length, count(found))
}

const cases: Record<string, ((found: Found) => void) | undefined> = { readLine, lines, frames, readUntil }

if (name === "long-line") {
  await measureLongLine(() => {
    const parts: Array<Buffer> = []
    const { promise, resolve } = Promise.withResolvers<number>()
    return {
      feed: (piece) => {
        parts.push(piece)
        if (piece.includes(LF)) resolve(Buffer.concat(parts).length)
      },
      length: promise
    }
  })
} else {
  const consume = cases[name] ?? unknownCase()
  await measure(() => {
    const found: Found = { messages: 0, bytes: 0 }
    consume(found)
    return found
  })
}
