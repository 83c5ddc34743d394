import { Effect, Exit, type Fiber, Scheduler } from "effect"
import { Codec, type FrameError, Framed, type Framing, StreamReader } from "effect-wire"
import * as v8 from "node:v8"
import * as vm from "node:vm"
import { describe, expect, it } from "vitest"
import { encode, hex, subjects, type Subject, toHex } from "./support/framings.ts"
import { ending, type Random, randoms } from "./support/fuzz.ts"

const RUNS = 100_000

// So small that most inputs reach it.
const LIMIT = 8

// A reader with a frame that is not complete holds no more than the frame and what is around it: in COBS and SLIP its
// encoding.
const MOST_BUFFERED = 2 * LIMIT + 16

const interesting = hex("00 01 08 09 0a 0d 2c 2d 30 31 38 39 3a 3b 61 62 80 c0 db dc dd ff")

const onTheWire = (framing: Framing.Framing, frame: Uint8Array): Uint8Array => {
  const encoded = encode(framing, frame)
  if (encoded instanceof Error) throw encoded
  return encoded
}

/** Random bytes, frames of all sizes up to twice the limit, and such frames damaged. */
const inputs = ({ fit, fixed, make, min }: Subject, random: Random): (() => Uint8Array) => {
  const generous = make(fixed ? LIMIT : 4 * LIMIT)
  const valid = Array.from({ length: 64 }, (_, i) => {
    const length = fixed ? LIMIT : min + (i % (2 * LIMIT))
    return onTheWire(generous, fit(Uint8Array.from({ length }, () => random(256))))
  })
  const noise = Array.from({ length: 64 }, (_, i) =>
    Uint8Array.from({ length: random(3 * LIMIT) }, () =>
      i % 2 === 0 ? random(256) : (interesting[random(interesting.length)] ?? 0)
    )
  )
  return () => {
    const kind = random(4)
    const frame = valid[random(valid.length)] ?? new Uint8Array()
    if (kind === 0) return noise[random(noise.length)] ?? frame
    if (kind === 1) return frame
    const bytes = frame.slice(0, kind === 2 ? frame.length : random(frame.length + 1))
    for (let n = 1 + random(2); n > 0 && bytes.length > 0; n--) {
      bytes[random(bytes.length)] =
        random(2) === 0 ? random(256) : (interesting[random(interesting.length)] ?? 0)
    }
    return bytes
  }
}

/** Somebody who receives until there is an end, or a failure that stays. */
class Victim {
  readonly feedable = StreamReader.feedable({ limit: LIMIT })
  readonly fiber: Fiber.Fiber<void, Error>
  /** What it has come to, and how much of the bytes it was given. */
  results = 0
  private failedAt: number | undefined = undefined

  constructor(framing: Framing.Framing, skips: boolean) {
    const { receive } = Framed.receiver(this.feedable.reader, framing, Codec.bytes, {
      onInvalid: skips ? "skip" : "fail"
    })
    const next = Effect.matchEffect(receive, {
      onSuccess: (frame) => this.got(frame),
      onFailure: (error) => this.failed(error)
    })
    const all = Effect.ignore(Effect.forever(next, { disableYield: true }))
    // Nobody waits here for a fiber that lets others run.
    this.fiber = Effect.runFork(Effect.provideService(all, Scheduler.PreventSchedulerYield, true))
  }

  private got(frame: Uint8Array): Effect.Effect<void> {
    this.results++
    if (frame.length > LIMIT) throw new Error(`a frame of ${frame.length} bytes`)
    return Exit.void
  }

  // Only one that is not consumed fails twice in the same place.
  private failed(error: FrameError.ReceiveError): Effect.Effect<void, "over"> {
    this.results++
    if (error._tag === "EndOfStream") return over
    if (error._tag === "IncompleteReadError") return Exit.void
    if (error._tag !== "FrameError") throw error
    if (error.offset === this.failedAt) return over
    this.failedAt = error.offset
    return Exit.void
  }

  get isOver(): boolean {
    return this.fiber.pollUnsafe() !== undefined
  }
}

const over = Exit.fail("over" as const)

/** Gives inputs to one victim until it is over, or has had enough; tells how many. What it was fed are the pieces. */
const attack = (
  framing: Framing.Framing,
  pieces: Array<Uint8Array>,
  next: () => Uint8Array,
  random: Random
): number => {
  const victim = new Victim(framing, random(2) === 0)
  const { feed, feedEof, reader } = victim.feedable
  const { buffer } = StreamReader.backingOf(reader).input
  const check = (problem: string | false): void => {
    if (problem !== false) throw new Error(problem)
  }
  pieces.length = 0
  let count = 0
  let bytes = 0
  for (const most = 4 + random(28); count < most && !victim.isOver; count++) {
    const input = next()
    bytes += input.length
    let at = 0
    for (let left = 1 + random(10); left > 0; left--) {
      const to = left === 1 ? input.length : at + random(input.length - at + 1)
      const piece = input.subarray(at, to)
      at = to
      pieces.push(piece)
      feed(piece)
      check(!victim.isOver && buffer.size > MOST_BUFFERED && `${buffer.size} bytes buffered`)
    }
  }
  feedEof()
  const exit = victim.fiber.pollUnsafe()
  check(exit === undefined && "still waiting at the end of input")
  check(exit !== undefined && Exit.isFailure(exit) && String(exit.cause))
  check(victim.results > bytes + 3 && `${victim.results} results of ${bytes} bytes`)
  return count
}

v8.setFlagsFromString("--expose-gc")
const collect: () => void = vm.runInNewContext("gc")

const memoryUsed = (): number => {
  collect()
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
}

// Some hundred bytes kept of every other input would be more.
const MOST_KEPT = 3 * 1024 * 1024

describe(`${RUNS} hostile inputs, each in one to ten pieces, give frames or a typed error, in bounded memory`, () => {
  for (const subject of subjects) {
    it(subject.name, () => {
      const random = randoms(subject.name.length * 7919)
      const next = inputs(subject, random)
      // Most of the time would go into stacks.
      const { stackTraceLimit } = Error
      Error.stackTraceLimit = 0
      const before = memoryUsed()
      const pieces: Array<Uint8Array> = []
      try {
        ending(() => {
          for (let run = 0; run < RUNS;) run += attack(subject.make(LIMIT), pieces, next, random)
        })
      } catch (cause) {
        throw new Error(`${String(cause)}: ${pieces.map(toHex).join(" ")}`, { cause })
      } finally {
        Error.stackTraceLimit = stackTraceLimit
      }
      expect(memoryUsed() - before).toBeLessThan(MOST_KEPT)
    })
  }
})
