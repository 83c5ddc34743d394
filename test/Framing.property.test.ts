import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Cause, Effect, Exit, Fiber, Option, Scheduler, Stream } from "effect"
import { Codec, type FrameError, Framed, type Framing, StreamReader } from "effect-wire"
import fc from "fast-check"
import { describe, it } from "vitest"
import { concat, encode, ended, now, subjects, type Subject, toHex } from "./support/framings.ts"
import { randoms } from "./support/fuzz.ts"

const errorOf = <A, E>(exit: Exit.Exit<A, E>): E | undefined =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined

/** Sizes around the limit, the smallest ones, and any in between, up to `max`. */
const sizesUpTo = ({ limit, min }: Subject, max: number): fc.Arbitrary<number> => {
  const edges = [min, min + 1, limit - 1, limit, limit + 1, 2 * limit].filter((size) => size <= max)
  return fc.oneof(fc.constantFrom(...edges), fc.integer({ min, max }))
}

// Zeros, line ends and the bytes that framings use are frequent.
const frequent = [0, 0x0a, 0x0d, 0x2c, 0x2d, 0x3a, 0x61, 0x62, 0xc0, 0xdb, 0xdc, 0xff]

/** Bytes that a seed decides. */
const bytesOf = (length: number, seed: number): Uint8Array => {
  const next = randoms(seed)
  return Uint8Array.from({ length }, () => (next(5) < 2 ? (frequent[next(frequent.length)] ?? 0) : next(256)))
}

const framesOf = (subject: Subject, max: number): fc.Arbitrary<ReadonlyArray<Uint8Array>> => {
  const size = subject.fixed ? fc.constant(subject.limit) : sizesUpTo(subject, max)
  return fc.array(
    fc.record({ size, seed: fc.nat() }).map(({ seed, size }) => subject.fit(bytesOf(size, seed))),
    { minLength: 1, maxLength: subject.many ? 5 : 1 }
  )
}

// Now and then byte by byte, now and then in one piece.
const cutsOf = fc.oneof(
  { weight: 1, arbitrary: fc.constantFrom([1], [10_000]) },
  { weight: 4, arbitrary: fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 10 }) }
)

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

const wireOf = (framing: Framing.Framing, frames: ReadonlyArray<Uint8Array>): ReadonlyArray<Uint8Array> =>
  frames.map((frame) => {
    const encoded = encode(framing, frame)
    if (encoded instanceof Error) throw encoded
    return encoded
  })

/** A framing that sends what is too long for the other one. */
const generous = ({ fixed, limit, make }: Subject): Framing.Framing => make(fixed ? limit : 4 * limit)

/** Receives from the first byte on, while the pieces come: what there was, as hex, and the error that it ended with. */
const receiveAll = (
  framing: Framing.Framing,
  pieces: ReadonlyArray<Uint8Array>,
  options?: Framed.Options
): {
  readonly found: ReadonlyArray<string>
  readonly error: FrameError.ReceiveError | undefined
  readonly skipped: number
} => {
  const { feed, feedEof, reader } = StreamReader.feedable()
  const { receive, skipped } = Framed.receiver(reader, framing, Codec.bytes, options)
  const found: Array<string> = []
  const next = Effect.map(receive, (frame) => found.push(toHex(frame)))
  const all = Effect.forever(next, { disableYield: true })
  // Nobody waits here for a fiber that lets others run.
  const fiber = Effect.runFork(Effect.provideService(all, Scheduler.PreventSchedulerYield, true))
  for (const piece of pieces) feed(piece)
  feedEof()
  const exit = fiber.pollUnsafe()
  if (exit === undefined) throw new Error("still waiting at the end of input")
  return { found, error: errorOf(exit), skipped: Effect.runSync(skipped) }
}

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

const isTooLong = (error: FrameError.ReceiveError | undefined): boolean =>
  error?._tag === "FrameError" && error.reason._tag === "FrameTooLong"

describe.each(subjects)("$name", (subject) => {
  const { limit, make } = subject
  const framing = make(limit)

  it("what was sent is received, however it is cut, whether it is waited for or there already", () => {
    fc.assert(
      fc.property(framesOf(subject, limit), cutsOf, (frames, cuts) => {
        const expected = frames.map(toHex)
        const pieces = cut(concat(...wireOf(framing, frames)), cuts)
        const all = now(Stream.runCollect(Framed.receiver(ended(pieces), framing).messages))
        deepStrictEqual(Exit.isSuccess(all) && Array.from(all.value, toHex), expected)

        const { receive } = Framed.receiver(ended(pieces), framing)
        for (const frame of expected) {
          const one = now(receive)
          strictEqual(Exit.isSuccess(one) && toHex(one.value), frame)
        }
        strictEqual(errorOf(now(receive))?._tag, "EndOfStream")

        const { error, found } = receiveAll(framing, pieces)
        deepStrictEqual([found, error?._tag], [expected, "EndOfStream"])
      }),
      { numRuns: 60 }
    )
  })

  it("what is too long fails, or is skipped, and nothing else", () => {
    fc.assert(
      fc.property(framesOf(subject, 2 * limit), cutsOf, (frames, cuts) => {
        const pieces = cut(concat(...wireOf(generous(subject), frames)), cuts)
        const fits = frames.map((frame) => frame.length <= limit)
        const first = fits.includes(false) ? fits.indexOf(false) : frames.length
        const before = frames.slice(0, first).map(toHex)

        const failing = receiveAll(framing, pieces)
        deepStrictEqual(failing.found, before)
        strictEqual(isTooLong(failing.error), first < frames.length)

        const skipping = receiveAll(framing, pieces, { onInvalid: "skip" })
        if (!subject.skips) {
          deepStrictEqual([skipping.found, skipping.skipped], [before, 0])
          return strictEqual(isTooLong(skipping.error), first < frames.length)
        }
        deepStrictEqual(skipping.found, frames.filter((_, i) => fits[i] === true).map(toHex))
        strictEqual(skipping.skipped, fits.filter((_) => !_).length)
        strictEqual(skipping.error?._tag, "EndOfStream")
      }),
      { numRuns: 60 }
    )
  })

  it("is not sent either", () => {
    if (framing.maxLength !== limit) return
    for (const [length, isSent] of [
      [limit, true],
      [limit + 1, false],
      [2 * limit, false]
    ] as const) {
      const encoded = encode(framing, subject.fit(bytesOf(length, length)))
      strictEqual(encoded instanceof Uint8Array, isSent)
    }
  })

  it("interrupting a receive loses no byte", async () => {
    await fc.assert(
      fc.asyncProperty(framesOf(subject, limit), cutsOf, async (frames, cuts) => {
        const pieces = cut(concat(...wireOf(framing, frames)), cuts)
        deepStrictEqual(await receiveWithInterruptions(framing, pieces), frames.map(toHex))
      }),
      { numRuns: 15 }
    )
  })

  it("an end within a frame is no end of the stream, and gives what came of it", () => {
    fc.assert(
      fc.property(framesOf(subject, limit), fc.nat(10_000), cutsOf, (frames, at, cuts) => {
        const wire = wireOf(framing, frames)
        const end = at % (concat(...wire).length + 1)
        // Those that are there as a whole, and the rest.
        let whole = 0
        let start = 0
        for (const { length } of subject.many ? wire : []) {
          if (start + length > end) break
          start += length
          whole++
        }
        const rest = subject.atEnd(concat(...wire).subarray(start, end))
        const { error, found } = receiveAll(framing, cut(concat(...wire).subarray(0, end), cuts))
        const before = frames.slice(0, whole).map(toHex)
        const tag = error?._tag
        if (rest === "end") deepStrictEqual([found, tag], [before, "EndOfStream"])
        else if (rest === "too long") deepStrictEqual([found, isTooLong(error)], [before, true])
        else if ("frame" in rest)
          deepStrictEqual([found, tag], [[...before, toHex(rest.frame)], "EndOfStream"])
        else {
          deepStrictEqual([found, tag], [before, "IncompleteReadError"])
          if (error?._tag === "IncompleteReadError") strictEqual(toHex(error.partial), toHex(rest.incomplete))
        }
      }),
      { numRuns: 60 }
    )
  })
})
