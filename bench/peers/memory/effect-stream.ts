// Effect's own way to lines, over a stream in memory.
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type Found, measure, name, pieces, unknownCase } from "./shared.ts"

const source = Stream.fromIterable(pieces, { chunkSize: 1 }).pipe(Stream.decodeText, Stream.splitLines)

const count = (found: Found, line: string): void => {
  found.messages++
  found.bytes += line.length + 1
}

const lines = (found: Found): Effect.Effect<void> =>
  Stream.runForEachArray(source, (lines) =>
    Effect.sync(() => {
      for (const line of lines) count(found, line)
    })
  )

const linesOneByOne = (found: Found): Effect.Effect<void> =>
  Stream.runForEach(source, (line) => Effect.sync(() => count(found, line)))

const cases: Record<string, ((found: Found) => Effect.Effect<void>) | undefined> = {
  lines,
  "lines-one-by-one": linesOneByOne
}

const consume = cases[name] ?? unknownCase()

await measure(() => {
  const found: Found = { messages: 0, bytes: 0 }
  return Effect.runPromise(Effect.as(consume(found), found))
})
