import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Cause, Effect, Exit, Fiber, Option, Stream } from "effect"
import { Codec, Framed, type Framing, StreamReader } from "effect-wire"
import fc from "fast-check"
import { describe, it } from "vitest"
import { concat, encode, ended, hex, LIMIT, now, subjects, type Subject, toHex } from "./support/framings.ts"
import { exhaust, type Random, randoms } from "./support/fuzz.ts"

const errorOf = <A, E>(exit: Exit.Exit<A, E>): E | undefined =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined

/** Sizes around the limit, the smallest ones, and any in between. */
const sizes = ({ max, min }: Subject): fc.Arbitrary<number> =>
  min === max
    ? fc.constant(max)
    : fc.oneof(fc.constantFrom(min, min + 1, max - 1, max), fc.integer({ min, max }))

// Zeros, line ends and the bytes that framings use are frequent.
const byte = fc.oneof(
  { weight: 2, arbitrary: fc.constantFrom(0, 0x0a, 0x0d, 0x2c, 0x3a, 0x61, 0x62, 0xc0, 0xdb, 0xdc, 0xff) },
  { weight: 3, arbitrary: fc.integer({ min: 0, max: 255 }) }
)

const framesOf = (subject: Subject): fc.Arbitrary<ReadonlyArray<Uint8Array>> =>
  fc.array(
    sizes(subject).chain((length) =>
      fc
        .array(byte, { minLength: length, maxLength: length })
        .map((bytes) => subject.fit(Uint8Array.from(bytes)))
    ),
    { minLength: 1, maxLength: subject.many ? 5 : 1 }
  )

const cutsOf = fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 30 })

/** Pieces whose sizes go round through `cuts`. */
const cut = (bytes: Uint8Array, cuts: ReadonlyArray<number>): Array<Uint8Array> => {
  const pieces: Array<Uint8Array> = []
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = cuts[i % cuts.length] ?? 1
    pieces.push(bytes.subarray(at, at + size))
    at += size
  }
  return pieces
}

const onTheWire = (framing: Framing.Framing, frames: ReadonlyArray<Uint8Array>): Uint8Array =>
  concat(
    ...frames.map((frame) => {
      const encoded = encode(framing, frame)
      if (encoded instanceof Error) throw encoded
      return encoded
    })
  )

/** Receives in the background while pieces come in; every receive that waits is interrupted and begun anew. */
const receiveWithInterruptions = (
  framing: Framing.Framing,
  pieces: ReadonlyArray<Uint8Array>
): Promise<Array<string>> => {
  const { feed, feedEof, reader } = StreamReader.feedable()
  const { receive } = Framed.receiver(reader, framing)
  const found: Array<string> = []
  const program = Effect.gen(function* () {
    const drain = Effect.gen(function* () {
      while (true) {
        const fiber = yield* Effect.forkChild(receive, { startImmediately: true })
        const exit = fiber.pollUnsafe()
        if (exit === undefined) return yield* Fiber.interrupt(fiber)
        if (Exit.isFailure(exit)) return strictEqual(errorOf(exit)?._tag, "EndOfStream")
        found.push(toHex(exit.value))
      }
    })
    for (const piece of pieces) {
      yield* drain
      // A receive that waits when the piece comes, too.
      const waiting = yield* Effect.forkChild(receive, { startImmediately: true })
      feed(piece)
      const exit = waiting.pollUnsafe()
      if (exit === undefined) yield* Fiber.interrupt(waiting)
      else if (Exit.isSuccess(exit)) found.push(toHex(exit.value))
      else throw new Error(String(exit.cause))
    }
    feedEof()
    yield* drain
    return found
  })
  return Effect.runPromise(program)
}

describe.each(subjects)("$name", (subject) => {
  const { framing } = subject

  it("what was sent is received, however it is cut", () => {
    fc.assert(
      fc.property(framesOf(subject), cutsOf, (frames, cuts) => {
        const expected = frames.map(toHex)
        const pieces = cut(onTheWire(framing, frames), cuts)
        const all = now(Stream.runCollect(Framed.receiver(ended(pieces), framing).messages))
        deepStrictEqual(Exit.isSuccess(all) && Array.from(all.value, toHex), expected)

        const { receive } = Framed.receiver(ended(pieces), framing)
        for (const frame of expected) {
          const one = now(receive)
          strictEqual(Exit.isSuccess(one) && toHex(one.value), frame)
        }
        strictEqual(errorOf(now(receive))?._tag, "EndOfStream")
      }),
      { numRuns: 60 }
    )
  })

  it("interrupting a receive loses no byte", async () => {
    await fc.assert(
      fc.asyncProperty(framesOf(subject), cutsOf, async (frames, cuts) => {
        const pieces = cut(onTheWire(framing, frames), cuts)
        deepStrictEqual(await receiveWithInterruptions(framing, pieces), frames.map(toHex))
      }),
      { numRuns: 15 }
    )
  })

  it("one byte more than the limit is sent by nobody, and received by nobody", () => {
    if (framing.maxLength !== LIMIT) return
    const frame = subject.fit(new Uint8Array(LIMIT + 1).fill(0x61))
    strictEqual(encode(framing, frame) instanceof Error, true)
  })

  it("an end within a frame is no end of the stream", () => {
    fc.assert(
      fc.property(framesOf(subject), fc.integer({ min: 1, max: 10_000 }), cutsOf, (frames, end, cuts) => {
        const wire = onTheWire(framing, frames)
        const part = wire.subarray(0, end % wire.length)
        const { receive } = Framed.receiver(ended(cut(part, cuts)), framing)
        const found: Array<string> = []
        let exit = now(receive)
        for (; Exit.isSuccess(exit); exit = now(receive)) found.push(toHex(exit.value))
        const error = errorOf(exit)
        // Lenient lines and `whole` end with the input; all others have got whole frames only.
        if (error?._tag === "EndOfStream") return
        strictEqual(error?._tag, "IncompleteReadError")
        deepStrictEqual(found, frames.slice(0, found.length).map(toHex))
        strictEqual(errorOf(now(receive))?._tag, "EndOfStream")
      }),
      { numRuns: 40 }
    )
  })
})

// --- Input that means no good.

const RUNS = 100_000

/** Random bytes, or frames on the wire that were damaged. */
const hostile = (subject: Subject, random: Random) => {
  const valid = Array.from({ length: 16 }, () => {
    const frames = Array.from({ length: subject.many ? 2 : 1 }, () => {
      const length = subject.min === subject.max ? subject.max : subject.min + random(12)
      return subject.fit(Uint8Array.from({ length }, () => random(256)))
    })
    return onTheWire(subject.framing, frames)
  })
  const interesting = hex("00 0a 0d 2c 30 31 39 3a 3b 62 80 c0 db dc dd fe ff")
  return (): Uint8Array => {
    const kind = random(4)
    if (kind === 0) return Uint8Array.from({ length: random(40) }, () => random(256))
    if (kind === 1) {
      return Uint8Array.from({ length: random(40) }, () => interesting[random(interesting.length)] ?? 0)
    }
    const bytes = Uint8Array.from(valid[random(valid.length)] ?? [])
    for (let n = 1 + random(3); n > 0 && bytes.length > 0; n--) {
      bytes[random(bytes.length)] =
        random(2) === 0 ? random(256) : (interesting[random(interesting.length)] ?? 0)
    }
    return kind === 2 ? bytes : bytes.subarray(random(bytes.length + 1))
  }
}

/** The variants of each framing share the runs. */
const kinds = Map.groupBy(subjects, ({ framing }) => framing.name)

describe.each([...kinds.keys()])(`${RUNS} hostile inputs: %s`, (kind) => {
  it("give frames or a typed error, and come to an end", () => {
    const variants = kinds.get(kind) ?? []
    const random = randoms(kind.length * 7919)
    const sources = variants.map((subject) => ({ subject, next: hostile(subject, random) }))
    // Most of the time would go into stacks.
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    try {
      for (let run = 0; run < RUNS; run++) {
        const source = sources[run % sources.length]
        if (source === undefined) throw new Error("no variant")
        const bytes = source.next()
        const at = random(bytes.length + 1)
        const pieces = random(2) === 0 ? [bytes] : [bytes.subarray(0, at), bytes.subarray(at)]
        try {
          const onInvalid = random(2) === 0 ? "skip" : "fail"
          const { receive } = Framed.receiver(ended(pieces), source.subject.framing, Codec.bytes, {
            onInvalid
          })
          const received = exhaust(receive, bytes.length).reduce((sum, { length }) => sum + length, 0)
          if (received > bytes.length) throw new Error(`${received} bytes of ${bytes.length}`)
        } catch (cause) {
          throw new Error(`${source.subject.name}, ${pieces.map(toHex).join(" ")}`, { cause })
        }
      }
    } finally {
      Error.stackTraceLimit = stackTraceLimit
    }
  })
})
