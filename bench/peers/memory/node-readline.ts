// node:readline over a stream in memory.
import * as readline from "node:readline"
import { PassThrough, Readable } from "node:stream"
import { type Found, measure, measureLongLine, name, pieces, unknownCase } from "./shared.ts"

const open = () => readline.createInterface({ input: Readable.from(pieces), crlfDelay: Infinity })

const lines = (): Promise<Found> =>
  new Promise((resolve) => {
    const found: Found = { messages: 0, bytes: 0 }
    open()
      .on("line", (line) => {
        found.messages++
        found.bytes += line.length + 1
      })
      .on("close", () => resolve(found))
  })

const linesForAwait = async (): Promise<Found> => {
  const found: Found = { messages: 0, bytes: 0 }
  for await (const line of open()) {
    found.messages++
    found.bytes += line.length + 1
  }
  return found
}

const cases: Record<string, (() => Promise<Found>) | undefined> = { lines, "lines-for-await": linesForAwait }

if (name === "long-line") {
  await measureLongLine(() => {
    const input = new PassThrough()
    const { promise, resolve } = Promise.withResolvers<number>()
    readline.createInterface({ input, crlfDelay: Infinity }).on("line", (line) => resolve(line.length + 1))
    return { feed: (piece) => input.write(piece), length: promise }
  })
} else {
  await measure(cases[name] ?? unknownCase())
}
