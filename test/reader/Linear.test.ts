import * as v8 from "node:v8"
import * as vm from "node:vm"
import { assertTrue, strictEqual } from "@effect/vitest/utils"
import { Effect, type Fiber, Stream } from "effect"
import { Framed, Framing, StreamReader } from "effect-wire"
import { describe, it } from "vitest"
import { bytes } from "../support/reader.ts"

// Counted, not timed: bytes that are searched or copied by the methods of typed arrays, and one for every call.
const countWork = (f: () => void): number => {
  let work = 0
  const prototype: Uint8Array = Object.getPrototypeOf(Uint8Array.prototype)
  const { indexOf, lastIndexOf, set, subarray } = prototype
  const bufferIndexOf = Buffer.prototype.indexOf
  const searched = (length: number, from: number, at: number) => 1 + (at === -1 ? length : at + 1) - from
  prototype.indexOf = function (this: Uint8Array, byte, from = 0) {
    const at = indexOf.call(this, byte, from)
    work += searched(this.length, from, at)
    return at
  }
  prototype.lastIndexOf = function (this: Uint8Array, byte, from = this.length - 1) {
    const at = lastIndexOf.call(this, byte, from)
    work += 1 + Math.min(from, this.length - 1) - at
    return at
  }
  prototype.set = function (this: Uint8Array, source, offset) {
    work += 1 + source.length
    return set.call(this, source, offset)
  }
  prototype.subarray = function (this: Uint8Array, start, end) {
    work++
    return subarray.call(this, start, end)
  }
  Buffer.prototype.indexOf = function (this: Buffer, value: Uint8Array | number, from: number) {
    const at: number = bufferIndexOf.call(this, value, from)
    const length = typeof value === "number" ? 1 : value.length
    work += searched(this.length, from, at === -1 ? -1 : at + length - 1)
    return at
  } as typeof bufferIndexOf
  try {
    f()
  } finally {
    Object.assign(prototype, { indexOf, lastIndexOf, set, subarray })
    Buffer.prototype.indexOf = bufferIndexOf
  }
  return work
}

const isDone = (fiber: Fiber.Fiber<unknown, unknown>) => fiber.pollUnsafe()?._tag === "Success"

type Operation = (reader: StreamReader.StreamReader, size: number) => Effect.Effect<unknown, unknown>

/** One long piece, fed bit by bit while the operation waits. */
const whileWaiting = (operation: Operation, size: number, piece: number): number => {
  const { feed, feedEof, reader } = StreamReader.feedable({ limit: size * 2 })
  const fiber = Effect.runFork(operation(reader, size))
  const work = countWork(() => {
    for (let fed = 0; fed < size; fed += piece) feed(new Uint8Array(piece))
    feed(bytes("\r\n"))
    feedEof()
  })
  assertTrue(isDone(fiber))
  return work
}

/** The same, where the operation is interrupted and called again after every bit. */
const withRetries = (operation: Operation, size: number, piece: number): number => {
  const { feed, feedEof, reader } = StreamReader.feedable({ limit: size * 2 })
  const work = countWork(() => {
    for (let fed = 0; fed < size; fed += piece) {
      feed(new Uint8Array(piece))
      const fiber = Effect.runFork(operation(reader, size))
      fiber.interruptUnsafe()
    }
    feed(bytes("\r\n"))
    feedEof()
    assertTrue(isDone(Effect.runFork(operation(reader, size))))
  })
  return work
}

/** Many short pieces in one chunk. */
const pieces = (operation: Operation, size: number): number => {
  const { feed, feedEof, reader } = StreamReader.feedable()
  feed(bytes("ab\r\n".repeat(size / 4)))
  feedEof()
  return countWork(() => {
    for (let i = 0; i < size / 4; i++) assertTrue(isDone(Effect.runFork(operation(reader, 4))))
  })
}

const expectLinear = (work: (size: number) => number, size: number, perByte: number) => {
  const once = work(size)
  const twice = work(2 * size)
  assertTrue(once > 0)
  assertTrue(once <= perByte * size + 64, `${once} for ${size} bytes`)
  assertTrue(twice <= 2.01 * once + 64, `${once} for ${size} bytes, ${twice} for twice as many`)
}

const seeking: Record<string, Operation> = {
  readLine: (_) => _.readLine,
  readLineString: (_) => _.readLineString,
  "readUntil text": (_) => _.readUntil("\r\n"),
  "readUntil bytes": (_) => _.readUntil(bytes("\r\n")),
  "readUntil any": (_) => _.readUntil(["\r\n", bytes("\n"), "\r\n.\r\n"]),
  skipUntil: (_) => _.skipUntil("\r\n"),
  lines: (_) => Stream.runHead(_.lines)
}

/** Frames that are read out of a buffer which keeps them until they are complete. */
const stepwise = Framing.make({
  decode: (reader) => Effect.andThen(reader.skip(1), reader.readUntil("\r\n")),
  encode: (frame: Uint8Array) => frame
})

const collecting: Record<string, Operation> = {
  "a framing of one's own": (_) => Framed.receiver(_, stepwise).receive,
  readExactly: (_, size) => _.readExactly(size),
  readAll: (_) => _.readAll(),
  peek: (_, size) => _.peek(size)
}

/** The work for a byte of large pieces: searched once, copied once, and a few bytes at every seam, for each separator. */
const perByte = (name: string): number =>
  name === "readUntil any" ? 5 : name === "a framing of one's own" ? 2.5 : 2.1

describe("work is linear in the bytes", () => {
  for (const [name, operation] of Object.entries({ ...seeking, ...collecting })) {
    it(`${name}: 1 MiB in pieces of 1 KiB`, () => {
      expectLinear((size) => whileWaiting(operation, size, 1024), 512 * 1024, perByte(name))
    })

    it(`${name}: 16 KiB in single bytes`, () => {
      expectLinear((size) => whileWaiting(operation, size, 1), 8 * 1024, 50)
    })
  }

  for (const [name, operation] of Object.entries(seeking)) {
    it(`${name}: what was searched in vain is not searched again by the next call`, () => {
      expectLinear((size) => withRetries(operation, size, 1024), 256 * 1024, perByte(name))
      expectLinear((size) => withRetries(operation, size, 1), 1024, 50)
    })

    if (name === "lines") continue
    it(`${name}: many short pieces of one large chunk`, () => {
      expectLinear((size) => pieces(operation, size), 128 * 1024, 200)
    })
  }

  it("several separators of which one is absent: many short pieces of one large chunk", () => {
    expectLinear((size) => pieces((_) => _.readUntil(["absent", "\r\n"]), size), 64 * 1024, 200)
  })
})

describe("what a reader remembers", () => {
  it("of a search: it goes on only for the same separators", () => {
    const { feed, reader } = StreamReader.feedable()
    feed(bytes("a;b,c"))
    Effect.runFork(reader.readUntil(bytes("\n"))).interruptUnsafe()
    assertTrue(isDone(Effect.runFork(reader.readUntil(bytes(",")))))
    feed(bytes("d;e"))
    Effect.runFork(reader.readUntil(["\n", "\r\n"])).interruptUnsafe()
    assertTrue(isDone(Effect.runFork(reader.readUntil(["\n", ";"]))))
  })

  it("of chunks: those with bytes that were not read", async () => {
    v8.setFlagsFromString("--expose-gc")
    const collect: () => void = vm.runInNewContext("gc")
    const { feed, reader } = StreamReader.feedable()
    const chunks = Array.from({ length: 20 }, () => {
      const chunk = new Uint8Array(1000)
      feed(chunk)
      return new WeakRef(chunk)
    })
    Effect.runSync(reader.skip(10_001))
    // A weak reference holds its target until the end of the turn.
    await new Promise((resolve) => setImmediate(resolve))
    collect()
    strictEqual(chunks.filter((_) => _.deref() !== undefined).length, 10)
    strictEqual(Effect.runSync(reader.bufferedBytes), 9_999)
  })
})
