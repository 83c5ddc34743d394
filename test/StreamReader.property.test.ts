import { deepStrictEqual } from "@effect/vitest/utils"
import { Cause, Effect, Exit, type Fiber, Option, Pull, Result, Stream } from "effect"
import { StreamError, StreamReader } from "effect-wire"
import fc from "fast-check"
import { describe, it } from "vitest"

// Small alphabets, so that separators, false starts and overlaps are everywhere. One byte a character.
const decode = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1")
const encode = (text: string) => Uint8Array.from(Buffer.from(text, "latin1"))

interface Separated {
  readonly separators: ReadonlyArray<string>
  readonly asBytes: boolean
}

type Operation =
  | { readonly _: "read"; readonly max: number | undefined }
  | { readonly _: "readAll"; readonly maxBytes: number | undefined }
  | { readonly _: "readExactly" | "peek" | "skip" | "readInto"; readonly n: number }
  | ({ readonly _: "readUntil"; readonly limit: number | undefined } & Separated)
  | ({ readonly _: "skipUntil" } & Separated)
  | { readonly _: "readLine" | "readLineString" | "pullLines" | "pullChunks" }

type Command =
  | { readonly _: "feed"; readonly chunk: string }
  | { readonly _: "end" | "fail" }
  | { readonly _: "start"; readonly operation: Operation }
  | { readonly _: "interrupt"; readonly waiter: number }

// --- What is expected, over a plain string.

interface Waiting {
  readonly id: number
  readonly operation: Operation
  skipped: number
}

class Model {
  text = ""
  end: "none" | "eof" | "failure" = "none"
  paused = false
  readonly signals: Array<string> = []
  readonly waiting: Array<Waiting> = []
  readonly results: Array<string> = []
  readonly limit: number

  constructor(limit: number) {
    this.limit = limit
  }

  run(command: Command): void {
    if (command._ === "feed" && this.end === "none") this.text += command.chunk
    if ((command._ === "end" || command._ === "fail") && this.end === "none") {
      this.end = command._ === "end" ? "eof" : "failure"
    }
    if (command._ === "start") {
      const waiting = { id: this.results.length, operation: command.operation, skipped: 0 }
      const { operation } = command
      const jumpsTheQueue =
        (operation._ === "read" && operation.max === 0) || (operation._ === "readInto" && operation.n === 0)
      this.results.push(
        (jumpsTheQueue ? "" : this.waiting.length === 0 ? this.attempt(waiting) : undefined) ?? "waiting"
      )
      if (this.results[waiting.id] === "waiting") {
        this.waiting.push(waiting)
        this.resume()
      }
    }
    const [interrupted] =
      command._ === "interrupt" ? this.waiting.splice(command.waiter % this.waiting.length, 1) : []
    if (interrupted !== undefined) this.results[interrupted.id] = "interrupted"
    for (let first = this.waiting[0]; first !== undefined; first = this.waiting[0]) {
      const result = this.attempt(first)
      if (result === undefined) break
      this.results[first.id] = result
      this.waiting.shift()
    }
    const mayBeEnough = (command._ === "feed" && this.end === "none") || interrupted !== undefined
    if (mayBeEnough && this.waiting.length === 0 && this.text.length > 2 * this.limit && !this.paused) {
      this.paused = true
      this.signals.push("pause")
    }
  }

  private resume(): void {
    if (!this.paused || this.end !== "none") return
    this.paused = false
    this.signals.push("resume")
  }

  private take(n: number): string {
    const taken = this.text.slice(0, n)
    this.text = this.text.slice(n)
    if (this.text.length <= this.limit) this.resume()
    return taken
  }

  // The piece that ends first in a separator, and how many bytes are before the shortest one it ends in.
  private find(
    separators: ReadonlyArray<string>
  ): { readonly end: number; readonly before: number } | undefined {
    for (let end = 1; end <= this.text.length; end++) {
      const ending = separators.filter((_) => this.text.slice(0, end).endsWith(_))
      if (ending.length > 0) return { end, before: end - Math.min(...ending.map((_) => _.length)) }
    }
    return undefined
  }

  // Where the piece ends, the overrun, or nothing yet.
  private seek(separators: ReadonlyArray<string>, limit: number): number | string | undefined {
    const found = this.find(separators)
    const longest = Math.max(...separators.map((_) => _.length))
    const before = found?.before ?? this.text.length + 1 - longest
    return before > limit ? `overrun ${limit} ${before}` : found?.end
  }

  private ended(expected: number | undefined, consume = true): string | undefined {
    if (this.end === "none") return undefined
    if (this.end === "failure") return "failure"
    return `incomplete ${consume ? this.take(this.text.length) : this.text} ${expected}`
  }

  private attempt(waiting: Waiting): string | undefined {
    const { operation } = waiting
    const { length } = this.text
    switch (operation._) {
      case "read": {
        if (length > 0) return this.take(operation.max ?? length)
        return this.end === "eof" ? "" : this.ended(undefined)
      }
      case "readInto": {
        if (length > 0) return this.take(operation.n)
        return this.end === "eof" ? "" : this.ended(undefined)
      }
      case "readAll": {
        const maxBytes = operation.maxBytes ?? 16 * 1024 * 1024
        if (length > maxBytes) return `overrun ${maxBytes} ${length}`
        return this.end === "eof" ? this.take(length) : this.ended(undefined)
      }
      case "readExactly":
        return length >= operation.n ? this.take(operation.n) : this.ended(operation.n)
      case "skip":
        return length >= operation.n ? (this.take(operation.n), "undefined") : this.ended(operation.n)
      case "peek":
        return length >= operation.n ? this.text.slice(0, operation.n) : this.ended(operation.n, false)
      case "readUntil": {
        const end = this.seek(operation.separators, operation.limit ?? this.limit)
        return typeof end === "number" ? this.take(end) : (end ?? this.ended(undefined))
      }
      case "readLine":
      case "readLineString": {
        const end = this.seek(["\n"], this.limit)
        const line =
          typeof end === "number"
            ? this.take(end)
            : (end ?? (this.end === "eof" ? this.take(length) : this.ended(undefined)))
        if (operation._ === "readLine" || line === undefined || line === end || line === "failure")
          return line
        return line === "" ? "none" : `some ${line.replace(/\r?\n$/, "")}`
      }
      case "skipUntil": {
        const found = this.find(operation.separators)
        if (found !== undefined) return (this.take(found.end), String(waiting.skipped + found.end))
        if (this.end !== "none") return this.ended(undefined)
        const longest = Math.max(...operation.separators.map((_) => _.length))
        const surplus = Math.max(0, length + 1 - longest)
        this.text = this.text.slice(surplus)
        waiting.skipped += surplus
        return undefined
      }
      case "pullLines": {
        const end = this.seek(["\n"], this.limit)
        if (typeof end === "string") return end
        if (end !== undefined)
          return lines(this.take(this.text.slice(0, this.limit + 1).lastIndexOf("\n") + 1))
        if (this.end !== "eof") return this.ended(undefined)
        return length === 0 ? "done" : lines(this.take(length))
      }
      case "pullChunks": {
        if (length > 0) return this.take(length)
        return this.end === "eof" ? "done" : this.ended(undefined)
      }
    }
  }
}

const lines = (text: string): string => JSON.stringify(text.replace(/\r?\n$/, "").split(/\r?\n/))

// --- What happens.

const failure = new StreamError.ConnectionError({
  operation: "read",
  reason: new StreamError.ConnectionReset({})
})

const render = (value: unknown): string =>
  value instanceof Uint8Array
    ? decode(value)
    : Option.isOption(value)
      ? Option.match(value, { onNone: () => "none", onSome: (_) => `some ${String(_)}` })
      : String(value)

const renderError = (error: unknown): string => {
  if (error === failure) return "failure"
  if (error instanceof StreamError.LimitOverrunError) return `overrun ${error.limit} ${error.consumed}`
  if (error instanceof StreamError.IncompleteReadError)
    return `incomplete ${decode(error.partial)} ${error.expected}`
  return String(error)
}

const renderExit = (exit: Exit.Exit<unknown, unknown> | undefined): string => {
  if (exit === undefined) return "waiting"
  if (Exit.isSuccess(exit)) return render(exit.value)
  if (Cause.hasInterrupts(exit.cause)) return "interrupted"
  return Result.match(Cause.findError(exit.cause), { onFailure: Cause.pretty, onSuccess: renderError })
}

const separatorOf = ({ asBytes, separators }: Separated): StreamReader.Separator => {
  const members = separators.map((_) => (asBytes ? encode(_) : _))
  const [first] = members
  return members.length === 1 && first !== undefined ? first : members
}

// One pull of a stream, as text.
const pull = <A, E>(stream: Stream.Stream<A, E>, show: (batch: ReadonlyArray<A>) => string) =>
  Effect.scoped(
    Effect.flatMap(Stream.toPull(stream), (pull) =>
      Pull.catchDone(Effect.map(pull, show), () => Effect.succeed("done"))
    )
  )

const perform = (
  reader: StreamReader.StreamReader,
  operation: Operation
): Effect.Effect<unknown, unknown> => {
  switch (operation._) {
    case "read":
      return reader.read(operation.max)
    case "readInto": {
      const target = new Uint8Array(operation.n)
      return Effect.map(reader.readInto(target), (count) => target.subarray(0, count))
    }
    case "readAll":
      return reader.readAll(operation.maxBytes === undefined ? undefined : { maxBytes: operation.maxBytes })
    case "readExactly":
    case "peek":
    case "skip":
      return reader[operation._](operation.n)
    case "readUntil":
      return reader.readUntil(separatorOf(operation), { limit: operation.limit })
    case "skipUntil":
      return reader.skipUntil(separatorOf(operation))
    case "readLine":
    case "readLineString":
      return reader[operation._]
    case "pullLines":
      return pull(reader.lines, (batch) => JSON.stringify(batch))
    case "pullChunks":
      return pull(reader.stream, (batch) => batch.map(decode).join(""))
  }
}

const check = (limit: number, commands: ReadonlyArray<Command>) => {
  const model = new Model(limit)
  const signals: Array<string> = []
  const { fail, feed, feedEof, reader } = StreamReader.feedable({
    limit,
    onPause: () => signals.push("pause"),
    onResume: () => signals.push("resume")
  })
  const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
  for (const command of commands) {
    switch (command._) {
      case "feed":
        feed(encode(command.chunk))
        break
      case "end":
        feedEof()
        break
      case "fail":
        fail(failure)
        break
      case "start":
        fibers.push(Effect.runFork(perform(reader, command.operation)))
        break
      case "interrupt": {
        const waiting = fibers.filter((_) => _.pollUnsafe() === undefined)
        waiting[command.waiter % waiting.length]?.interruptUnsafe()
      }
    }
    model.run(command)
    deepStrictEqual(
      {
        results: fibers.map((_) => renderExit(_.pollUnsafe())),
        buffered: Effect.runSync(reader.bufferedBytes),
        atEof: Effect.runSync(reader.atEof),
        signals
      },
      {
        results: model.results,
        buffered: model.text.length,
        atEof: model.end === "eof" && model.text === "",
        signals: model.signals
      }
    )
  }
  for (const fiber of fibers) fiber.interruptUnsafe()
}

// --- What is tried.

const textOf = (alphabet: ReadonlyArray<string>, maxLength: number, minLength = 0) =>
  fc.string({ unit: fc.constantFrom(...alphabet), minLength, maxLength })

const commandsOf = (alphabet: ReadonlyArray<string>, size: number): fc.Arbitrary<ReadonlyArray<Command>> => {
  const count = fc.nat(size)
  const separated = {
    separators: fc.array(textOf(alphabet, 4, 1), { minLength: 1, maxLength: 3 }),
    asBytes: fc.boolean()
  }
  const operation: fc.Arbitrary<Operation> = fc.oneof(
    fc.record({ _: fc.constant("read" as const), max: fc.option(count, { nil: undefined }) }),
    fc.record({ _: fc.constant("readAll" as const), maxBytes: fc.option(count, { nil: undefined }) }),
    fc.record({
      _: fc.constantFrom("readExactly" as const, "peek" as const, "skip" as const, "readInto" as const),
      n: count
    }),
    fc.record({
      _: fc.constant("readUntil" as const),
      limit: fc.option(fc.integer({ min: 1, max: size }), { nil: undefined }),
      ...separated
    }),
    fc.record({ _: fc.constant("skipUntil" as const), ...separated }),
    fc.record({
      _: fc.constantFrom(
        "readLine" as const,
        "readLineString" as const,
        "pullLines" as const,
        "pullChunks" as const
      )
    })
  )
  const command: fc.Arbitrary<Command> = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        _: fc.constant("feed" as const),
        chunk: fc.oneof(textOf(alphabet, 1), textOf(alphabet, size))
      })
    },
    { weight: 8, arbitrary: fc.record({ _: fc.constant("start" as const), operation }) },
    { weight: 2, arbitrary: fc.record({ _: fc.constant("interrupt" as const), waiter: fc.nat(3) }) }
  )
  const end: fc.Arbitrary<Command> = fc.record({ _: fc.constantFrom("end" as const, "fail" as const) })
  // The end comes somewhere, if it comes at all; a few commands follow.
  return fc
    .tuple(fc.array(command, { maxLength: 25 }), fc.option(end), fc.array(command, { maxLength: 8 }))
    .map(([before, at, after]) => (at === null ? before : [...before, at, ...after]))
}

describe("a reader", () => {
  for (const [title, alphabet, size, numRuns] of [
    ["of two letters", ["a", "b"], 6, 8000],
    ["of line ends", ["a", "\r", "\n"], 8, 8000],
    ["of long chunks and few separators", ["a", "a", "a", "a", "a", "a", "a", "b", "\n"], 60, 3000]
  ] as const) {
    it(`${title}: every operation gives what a string gives`, () => {
      fc.assert(fc.property(fc.integer({ min: 1, max: size }), commandsOf(alphabet, size), check), {
        numRuns
      })
    })
  }

  it("separators in chunks longer than a search block", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ run: fc.nat(1200), tail: textOf(["a", "b", "c"], 5) }), {
          minLength: 1,
          maxLength: 4
        }),
        fc.array(textOf(["a", "b", "c"], 4, 1), { minLength: 1, maxLength: 3 }),
        fc.array(fc.nat(5000), { maxLength: 3 }),
        (parts, separators, cuts) => {
          const text = parts.map(({ run, tail }) => "a".repeat(run) + tail).join("")
          const places = [0, ...cuts.filter((_) => _ < text.length).sort((a, b) => a - b), text.length]
          const read: Operation = { _: "readUntil", limit: undefined, separators, asBytes: false }
          check(10_000, [
            ...places
              .slice(1)
              .map((place, i): Command => ({ _: "feed", chunk: text.slice(places[i], place) })),
            { _: "end" },
            ...Array.from({ length: 8 }, (): Command => ({ _: "start", operation: read }))
          ])
        }
      ),
      { numRuns: 500 }
    )
  })

  it("lines gives what readLineString gives, in any pieces, up to the same failure", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 12 }).map(toLineBytes), { maxLength: 8 }),
        fc.integer({ min: 1, max: 12 }),
        (chunks, limit) => {
          const make = () => {
            const { feed, feedEof, reader } = StreamReader.feedable({ limit })
            for (const chunk of chunks) feed(chunk)
            feedEof()
            return reader
          }
          const batches: Array<string> = []
          const lines = Stream.runForEach(make().lines, (line) => Effect.sync(() => batches.push(line)))
          const singly: Array<string> = []
          const one = make()
          const each = Effect.gen(function* () {
            for (;;) {
              const line = yield* one.readLineString
              if (Option.isNone(line)) return
              singly.push(line.value)
            }
          })
          const exits = [renderExit(Effect.runSyncExit(lines)), renderExit(Effect.runSyncExit(each))]
          deepStrictEqual([batches, exits[0]], [singly, exits[1]])
        }
      ),
      { numRuns: 3000 }
    )
  })
})

// Any byte, and line ends and pieces of UTF-8 more often than not.
const toLineBytes = (bytes: Uint8Array): Uint8Array =>
  bytes.map((byte) => (byte < 128 ? ([10, 13, 10, 0xe2, 0x82, 0xac, 0xf0, 0x9f][byte % 8] ?? byte) : byte))
