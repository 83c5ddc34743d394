import { strictEqual } from "@effect/vitest/utils"
import { Cause, Effect, Exit, Option, Result, Scheduler } from "effect"
import { Codec, Connection, FrameError, Framed, Framing } from "effect-wire"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import { describe, it } from "vitest"
import { start, type Started, turns, withSleepers } from "./support/effects.ts"
import { makeFake } from "./support/FakeTransport.ts"
import { text } from "./support/reader.ts"

// A request is a line: its number, how it is to be answered, and some filling. A reply begins in the same way, so that
// every result says whose it is.
type Kind = "ok" | "bad" | "dies"

interface Message {
  readonly id: number
  readonly kind: Kind
}

const codec = Codec.make<Message>({
  decode: (frame) => {
    const [id, kind] = text(frame).trim().split(" ")
    if (kind === "dies") throw new Error(id)
    return kind === "ok"
      ? Result.succeed({ id: Number(id), kind })
      : Result.fail(new FrameError.InvalidMessage({ detail: String(id) }))
  },
  encode: ({ id, kind }) => Result.succeed(Buffer.from(`${id} ${kind} ${"x".repeat((id * 7) % 40)}`))
})

const framings: Record<string, Framing.Framing> = {
  lines: Framing.lines(),
  effect: Framing.make<Uint8Array>({
    decode: (reader) => reader.readUntil("\n"),
    encode: (line) => [line, "\n"]
  }),
  generator: Framing.make<Uint8Array>({
    *decode(reader) {
      return yield* reader.readUntil("\n")
    },
    encode: (line) => [line, "\n"]
  })
}

type Request = (message: Message) => Effect.Effect<Message, FrameError.ReceiveError | FrameError.SendError>

const kinds = ["request", "pipeline", "correlate"] as const

const requestOf = (kind: (typeof kinds)[number], framed: Framed.Framed<Message>) => {
  if (kind === "request") {
    return Effect.succeed<{ readonly request: Request; readonly inFlight: Effect.Effect<number> }>({
      request: framed.request,
      inFlight: Effect.succeed(0)
    })
  }
  const session =
    kind === "pipeline" ? framed.pipeline() : framed.correlate({ idOf: ({ id }: Message) => id })
  return session
}

type Step =
  | { readonly _tag: "request"; readonly kind: Kind }
  | { readonly _tag: "interrupt"; readonly which: number }
  | { readonly _tag: "accept"; readonly bytes: number }
  | { readonly _tag: "answer"; readonly count: number; readonly which: number; readonly cut: number }
  | { readonly _tag: "clock"; readonly millis: number }
  | { readonly _tag: "yield" }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      _tag: fc.constant("request" as const),
      kind: fc.constantFrom<Kind>("ok", "ok", "ok", "bad", "dies")
    })
  },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("interrupt" as const), which: fc.nat(10) }) },
  {
    weight: 4,
    arbitrary: fc.record({ _tag: fc.constant("accept" as const), bytes: fc.integer({ min: 1, max: 80 }) })
  },
  {
    weight: 5,
    arbitrary: fc.record({
      _tag: fc.constant("answer" as const),
      count: fc.integer({ min: 1, max: 4 }),
      which: fc.nat(10),
      cut: fc.integer({ min: 1, max: 20 })
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({ _tag: fc.constant("clock" as const), millis: fc.integer({ min: 1, max: 60 }) })
  },
  { weight: 2, arbitrary: fc.constant({ _tag: "yield" } as const) }
)

const limit = fc.oneof(fc.constant(undefined), fc.integer({ min: 1, max: 100 }))

const scenario = fc.record({
  kind: fc.constantFrom(...kinds),
  framing: fc.constantFrom("lines", "effect", "generator"),
  operations: fc.oneof(fc.constant(2048), fc.integer({ min: 20, max: 30 })),
  high: fc.nat(60),
  limits: fc.record({ readTimeout: limit, writeTimeout: limit, idleTimeout: limit }),
  steps: fc.array(step, { maxLength: 50 })
})

interface Made {
  readonly message: Message
  readonly fiber: Started<Message, unknown>
}

/** What a request came to: with whose reply, if it has one. */
const outcomeOf = (exit: Exit.Exit<Message, unknown>): { readonly what: string; readonly of?: string } => {
  if (Exit.isSuccess(exit)) return { what: "ok", of: String(exit.value.id) }
  if (Cause.hasInterrupts(exit.cause)) return { what: "interrupted" }
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  if (error instanceof FrameError.FrameError && error.reason._tag === "InvalidMessage") {
    return { what: "bad", of: error.reason.detail }
  }
  const defect = Cause.squash(exit.cause)
  if (error === undefined && defect instanceof Error) return { what: "dies", of: defect.message }
  return { what: error instanceof Error ? error.name : String(exit) }
}

const run = ({
  framing,
  high,
  kind,
  limits,
  operations,
  steps
}: typeof scenario extends fc.Arbitrary<infer A> ? A : never) =>
  withSleepers((sleepers) =>
    Effect.gen(function* () {
      const transport = makeFake({ prompt: true })
      const connection = yield* Connection.make(transport, {
        watermarks: { high, low: Math.floor(high / 2) },
        closeTimeout: "1 hour",
        ...limits
      })
      const framed = Framed.make(connection, framings[framing] ?? Framing.lines(), codec, {
        // Of a reply that does not decode nobody can tell whom it answers.
        onInvalid: kind === "correlate" ? "skip" : "fail"
      })
      const { inFlight, request } = yield* requestOf(kind, framed)
      const made: Array<Made> = []
      let answered = 0
      const unanswered: Array<string> = []

      const make = Effect.fnUntraced(function* (kind: Kind) {
        const message = { id: made.length + 1, kind }
        const fiber = yield* start(
          Effect.provideService(request(message), Scheduler.MaxOpsBeforeYield, operations)
        )
        made.push({ message, fiber })
        return fiber
      })
      const answer = (count: number, which: number, cut: number): void => {
        const bytes = transport.written().subarray(0, transport.written().length - transport.bufferedBytes)
        const lines = text(bytes).split("\n").slice(0, -1)
        unanswered.push(...lines.slice(answered))
        answered = lines.length
        for (let n = 0; n < count && unanswered.length > 0; n++) {
          const at = kind === "correlate" ? which % unanswered.length : 0
          const reply = `${unanswered.splice(at, 1)[0] ?? ""}\n`
          transport.receive(reply.slice(0, cut))
          if (reply.length > cut) transport.receive(reply.slice(cut))
        }
      }
      const perform = Effect.fnUntraced(function* (step: Step) {
        switch (step._tag) {
          case "request":
            // With a codec that throws, or that refuses, there is nobody whom the end could be told.
            yield* make(kind === "correlate" && step.kind === "dies" ? "bad" : step.kind)
            return
          case "interrupt": {
            const waiting = made.filter(({ fiber }) => fiber.exit() === undefined)
            const one = waiting[step.which % waiting.length]
            if (one !== undefined) yield* start(one.fiber.interrupt)
            return
          }
          case "accept":
            return transport.accept(step.bytes)
          case "answer":
            return answer(step.count, step.which, step.cut)
          case "clock":
            return yield* TestClock.adjust(step.millis)
          case "yield":
            return yield* Effect.yieldNow
        }
      })

      for (const step of steps) yield* perform(step)
      // The peer takes and answers all that comes.
      const settle = Effect.fnUntraced(function* (fibers: ReadonlyArray<Started<Message, unknown>>) {
        for (let n = 0; n < 50 && fibers.some((_) => _.exit() === undefined); n++) {
          yield* turns
          transport.accept()
          answer(Infinity, n, 1 + n)
          yield* turns
        }
      })
      // Whom one answers that was skipped, nobody can tell.
      if (kind === "correlate") {
        yield* settle(made.filter(({ message }) => message.kind === "ok").map(({ fiber }) => fiber))
        for (const { fiber, message } of made) if (message.kind === "bad") yield* fiber.interrupt
      }
      yield* settle(made.map(({ fiber }) => fiber))

      const allowed = new Set([
        "ok",
        "bad",
        "dies",
        "interrupted",
        "effect-wire/TimeoutError",
        "TimeoutError"
      ])
      for (const { fiber, message } of made) {
        const exit = fiber.exit()
        if (exit === undefined) throw new Error(`request ${message.id} was never answered`)
        const { of, what } = outcomeOf(exit)
        strictEqual(allowed.has(what), true, what)
        if (of !== undefined) strictEqual(`${of} ${what}`, `${message.id} ${message.kind}`)
      }

      const last = yield* make("ok")
      yield* settle([last])
      strictEqual(String(last.exit()), String(Exit.succeed({ id: made.length, kind: "ok" })))
      strictEqual(yield* inFlight, 0)
      strictEqual(sleepers(), 0)
      transport.finish()
    }).pipe(Effect.scoped)
  )

describe("requests", () => {
  it("get their own replies, whatever is interrupted, too late, or does not decode", async () => {
    await fc.assert(
      fc.asyncProperty(scenario, (given) => Effect.runPromise(Effect.provide(run(given), TestClock.layer()))),
      { numRuns: 400 }
    )
  })
})
