// The library's reader in memory, fed by hand.
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Codec from "effect-wire/Codec"
import * as Framed from "effect-wire/Framed"
import * as Framing from "effect-wire/Framing"
import * as StreamReader from "effect-wire/StreamReader"
import { expected, type Found, measure, measureLongLine, name, pieces, unknownCase } from "./shared.ts"

type Consume = (reader: StreamReader.StreamReader, found: Found) => Effect.Effect<void, unknown>

const readLine: Consume = Effect.fnUntraced(function* (reader, found) {
  while (true) {
    const line = yield* reader.readLine
    if (line.length === 0) return
    found.messages++
    found.bytes += line.length
  }
})

const count = (found: Found, line: string): void => {
  found.messages++
  found.bytes += line.length + 1
}

const lines: Consume = (reader, found) =>
  Stream.runForEachArray(reader.lines, (lines) =>
    Effect.sync(() => {
      for (const line of lines) count(found, line)
    })
  )

const linesOneByOne: Consume = (reader, found) =>
  Stream.runForEach(reader.lines, (line) => Effect.sync(() => count(found, line)))

const frames: Consume = Effect.fnUntraced(function* (reader, found) {
  for (let i = 0; i < expected.messages; i++) {
    const head = yield* reader.readExactly(4)
    const length = new DataView(head.buffer, head.byteOffset, 4).getUint32(0)
    const body = yield* reader.readExactly(length)
    found.messages++
    found.bytes += head.length + body.length
  }
})

const framing = Framing.lengthPrefixed({ width: 4 })

const countFrame = (found: Found, frame: Uint8Array): void => {
  found.messages++
  found.bytes += 4 + frame.length
}

const framed: Consume = Effect.fnUntraced(function* (reader, found) {
  const { receive } = Framed.receiver(reader, framing, Codec.bytes)
  for (let i = 0; i < expected.messages; i++) countFrame(found, yield* receive)
})

// The same framing, written with the reader's operations.
const own = Framing.make<Uint8Array>({
  *decode(reader) {
    return yield* reader.readExactly(yield* reader.readUint32())
  },
  encode: (frame) => frame
})

const framedOwn: Consume = Effect.fnUntraced(function* (reader, found) {
  const { receive } = Framed.receiver(reader, own)
  for (let i = 0; i < expected.messages; i++) countFrame(found, yield* receive)
})

const framedMessages: Consume = (reader, found) =>
  Stream.runForEachArray(Framed.receiver(reader, framing, Codec.bytes).messages, (frames) =>
    Effect.sync(() => {
      for (const frame of frames) countFrame(found, frame)
    })
  )

const readUntil: Consume = Effect.fnUntraced(function* (reader, found) {
  for (let i = 0; i < expected.messages; i++) {
    const head = yield* reader.readUntil("\r\n\r\n")
    found.messages++
    found.bytes += head.length
  }
})

const cases: Record<string, Consume | undefined> = {
  readLine,
  lines,
  "lines-one-by-one": linesOneByOne,
  frames,
  framed,
  "framed-messages": framedMessages,
  "framed-own": framedOwn,
  readUntil
}

if (name === "long-line") {
  await measureLongLine((limit) => {
    const { feed, reader } = StreamReader.feedable({ limit })
    return { feed, length: Effect.runPromise(Effect.map(reader.readLine, (line) => line.length)) }
  })
} else {
  const consume = cases[name] ?? unknownCase()
  await measure(() => {
    const { feed, feedEof, reader } = StreamReader.feedable()
    for (const piece of pieces) feed(piece)
    feedEof()
    const found: Found = { messages: 0, bytes: 0 }
    return Effect.runPromise(Effect.as(consume(reader, found), found))
  })
}
