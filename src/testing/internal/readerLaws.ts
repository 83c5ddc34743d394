import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import type { IncompleteReadError, LimitOverrunError, ReadError } from "../../StreamError.ts"
import type { StreamReader } from "../../StreamReader.ts"
import {
  both,
  connect,
  type Connections,
  decode,
  hold,
  interruptedAt,
  type Law,
  law,
  outcome,
  outcomeOf,
  pattern,
  places,
  same,
  sameBytes,
  soFar,
  start,
  told,
  turns
} from "./harness.ts"

type Failure = IncompleteReadError | LimitOverrunError | ReadError

/** An operation of readers, and what its documentation says it consumes. */
interface Operation {
  readonly name: string
  readonly run: (reader: StreamReader) => Effect.Effect<string, Failure>
  /** Not enough for it. */
  readonly given: string
  /** What makes it enough, and what comes behind. */
  readonly more: string
  /** Whether it needs the end of input. */
  readonly toEnd?: true
  /** Whether it consumes while it waits. */
  readonly eager?: true
  readonly result: string
  /** What it leaves of `given` and `more`. */
  readonly left: string
  /** What it comes to when the input ends behind `given`, and what it leaves of that. */
  readonly atEnd: readonly [outcome: string, left: string]
}

const text = <E>(effect: Effect.Effect<Uint8Array, E>): Effect.Effect<string, E> => Effect.map(effect, decode)

const orNone = <E>(effect: Effect.Effect<Option.Option<string>, E>): Effect.Effect<string, E> =>
  Effect.map(
    effect,
    Option.getOrElse(() => "none")
  )

const operations: ReadonlyArray<Operation> = [
  {
    name: "read",
    run: (reader) => text(reader.read()),
    given: "",
    more: "a",
    result: "a",
    left: "",
    atEnd: ["", ""]
  },
  {
    name: "read(max)",
    run: (reader) => text(reader.read(5)),
    given: "",
    more: "a",
    result: "a",
    left: "",
    atEnd: ["", ""]
  },
  {
    name: "readInto",
    run: (reader) => {
      const target = new Uint8Array(5)
      return text(Effect.map(reader.readInto(target), (count) => target.subarray(0, count)))
    },
    given: "",
    more: "a",
    result: "a",
    left: "",
    atEnd: ["", ""]
  },
  {
    name: "readAll",
    run: (reader) => text(reader.readAll()),
    given: "ab",
    more: "cd",
    toEnd: true,
    result: "abcd",
    left: "",
    atEnd: ["ab", ""]
  },
  {
    name: "readExactly",
    run: (reader) => text(reader.readExactly(5)),
    given: "ab",
    more: "cdef",
    result: "abcde",
    left: "f",
    atEnd: ['IncompleteReadError with "ab"', ""]
  },
  {
    name: "readUntil",
    run: (reader) => text(reader.readUntil("\r\n")),
    given: "ab\r",
    more: "\ncd",
    result: "ab\r\n",
    left: "cd",
    atEnd: ['IncompleteReadError with "ab\\r"', ""]
  },
  {
    name: "readUntil several",
    run: (reader) => text(reader.readUntil(["--", ";"])),
    given: "ab-",
    more: "c;d",
    result: "ab-c;",
    left: "d",
    atEnd: ['IncompleteReadError with "ab-"', ""]
  },
  {
    name: "readLine",
    run: (reader) => text(reader.readLine),
    given: "ab",
    more: "c\nd",
    result: "abc\n",
    left: "d",
    atEnd: ["ab", ""]
  },
  {
    name: "readLineString",
    run: (reader) => orNone(reader.readLineString),
    given: "ab\r",
    more: "\nd",
    result: "ab",
    left: "d",
    atEnd: ["ab\r", ""]
  },
  {
    name: "peek",
    run: (reader) => text(reader.peek(5)),
    given: "ab",
    more: "cdef",
    result: "abcde",
    left: "abcdef",
    atEnd: ['IncompleteReadError with "ab"', "ab"]
  },
  {
    name: "skip",
    run: (reader) => Effect.as(reader.skip(5), "skipped"),
    given: "ab",
    more: "cdef",
    result: "skipped",
    left: "f",
    atEnd: ['IncompleteReadError with "ab"', ""]
  },
  {
    name: "skipUntil",
    run: (reader) => Effect.as(reader.skipUntil("\n"), "skipped"),
    given: "ab",
    more: "c\nd",
    eager: true,
    result: "skipped",
    left: "d",
    atEnd: ['IncompleteReadError with ""', ""]
  },
  {
    name: "stream",
    run: (reader) => orNone(Stream.runHead(Stream.map(reader.stream, decode))),
    given: "",
    more: "a",
    result: "a",
    left: "",
    atEnd: ["none", ""]
  },
  {
    name: "lines",
    run: (reader) => orNone(Stream.runHead(reader.lines)),
    given: "ab",
    more: "c\n",
    result: "abc",
    left: "",
    atEnd: ["ab", ""]
  }
]

type Connected = Effect.Success<ReturnType<typeof connect>>

/** Has a part received: not on its way any more. */
const receive = ({ feed, near }: Connected, part: string): Effect.Effect<void, Failure> =>
  Effect.andThen(feed(part), near.reader.peek(part.length))

const complete = ({ end, feed }: Connected, operation: Operation): Effect.Effect<void> =>
  Effect.andThen(feed(operation.more), operation.toEnd === true ? end : Effect.void)

const checkLeft = ({ end, near }: Connected, left: string): Effect.Effect<void, Failure> =>
  Effect.gen(function* () {
    yield* end
    same("what is left", decode(yield* near.reader.readAll()), left)
  })

/** The four lines of an operation's documentation, and interruption at every step. */
const lawsOf = (operation: Operation): ReadonlyArray<Law<Connections>> => [
  law(`${operation.name}: on success, takes what it returns`, () =>
    Effect.gen(function* () {
      const connected = yield* connect()
      const { near } = connected
      yield* receive(connected, operation.given)
      const reading = yield* start(operation.run(near.reader))
      yield* turns
      same("before there is enough", soFar(reading), "waiting")
      yield* complete(connected, operation)
      same("the result", yield* Fiber.join(reading), operation.result)
      yield* checkLeft(connected, operation.left)
    })
  ),

  law(`${operation.name}: on timeout, takes nothing`, () =>
    Effect.gen(function* () {
      const connected = yield* connect({ readTimeout: "1 second" })
      const { near } = connected
      yield* receive(connected, operation.given)
      const reading = yield* start(operation.run(near.reader))
      yield* TestClock.adjust("999 millis")
      same("before the time", soFar(reading), "waiting")
      yield* TestClock.adjust("1 millis")
      same("at the time", yield* outcomeOf(reading), "TimeoutError of read")
      if (operation.eager === undefined) {
        same("buffered", yield* near.reader.bufferedBytes, operation.given.length)
      }
      yield* complete(connected, operation)
      same("the result", yield* operation.run(near.reader), operation.result)
      yield* checkLeft(connected, operation.left)
    })
  ),

  law(`${operation.name}: on interruption, takes nothing`, () =>
    Effect.gen(function* () {
      const connected = yield* connect()
      const { near } = connected
      yield* receive(connected, operation.given)
      for (let round = 0; round < 3; round++) {
        const reading = yield* start(operation.run(near.reader))
        yield* turns
        yield* Fiber.interrupt(reading)
        same("interrupted", yield* outcomeOf(reading), "interrupted")
      }
      if (operation.eager === undefined) {
        same("buffered", yield* near.reader.bufferedBytes, operation.given.length)
      }
      yield* complete(connected, operation)
      same("the result", yield* operation.run(near.reader), operation.result)
      yield* checkLeft(connected, operation.left)
    })
  ),

  law(`${operation.name}: interrupted at any step, has its bytes or left them`, () =>
    Effect.gen(function* () {
      // What ends the input can be done once for a connection.
      const lasting = operation.toEnd === true ? undefined : yield* connect()
      for (const place of operation.toEnd === true ? places.filter((_, i) => i % 5 === 0) : places) {
        const connected = lasting ?? (yield* connect())
        const { near } = connected
        const given = operation.given + operation.more
        if (place.operations % 2 === 0) yield* receive(connected, given)
        else yield* connected.feed(given)
        if (operation.toEnd === true) yield* connected.end
        const first = yield* interruptedAt(place, operation.run(near.reader))
        const exit = Exit.isSuccess(first) ? first : yield* Effect.exit(operation.run(near.reader))
        same(`the result at ${place.operations}/${place.yields}`, told(exit), operation.result)
        const left = decode(yield* near.reader.readExactly(operation.left.length))
        same(`what is left at ${place.operations}/${place.yields}`, left, operation.left)
        same("buffered", yield* near.reader.bufferedBytes, 0)
      }
    })
  ),

  law(`${operation.name}: at the end of input`, () =>
    Effect.gen(function* () {
      const connected = yield* connect()
      const { end, near } = connected
      const [expected, left] = operation.atEnd
      yield* receive(connected, operation.given)
      const reading = yield* start(operation.run(near.reader))
      yield* end
      same("the outcome", yield* outcomeOf(reading), expected)
      same("what is left", decode(yield* near.reader.readAll()), left)
    })
  )
]

const servedFromBuffer = (operation: Operation): Law<Connections> =>
  law(`${operation.name}: served from the buffer, does not wait`, () =>
    Effect.gen(function* () {
      const connected = yield* connect()
      yield* receive(connected, operation.given + operation.more)
      const reading = yield* start(operation.run(connected.near.reader))
      same("at once", soFar(reading), operation.result)
      yield* checkLeft(connected, operation.left)
    })
  )

const LIMIT = 8

const overrun: ReadonlyArray<readonly [string, (reader: StreamReader) => Effect.Effect<unknown, Failure>]> = [
  ["readLine", (reader) => reader.readLine],
  ["readLineString", (reader) => reader.readLineString],
  ["readUntil", (reader) => reader.readUntil("\n")],
  ["lines", (reader) => Stream.runHead(reader.lines)],
  ["readAll", (reader) => reader.readAll({ maxBytes: LIMIT })]
]

export const readerLaws: ReadonlyArray<Law<Connections>> = [
  ...operations.flatMap(lawsOf),

  ...operations.filter(({ toEnd }) => toEnd === undefined).map(servedFromBuffer),

  ...overrun.map(([name, run]) =>
    law(`${name}: past the limit, takes nothing, and skipUntil recovers`, () =>
      Effect.gen(function* () {
        const { feed, near } = yield* connect({ limit: LIMIT })
        const waiting = yield* start(run(near.reader))
        yield* feed("0123456789abcdef\nnext\n")
        same("while it waits", yield* outcomeOf(waiting), "LimitOverrunError")
        same("what is left", decode(yield* near.reader.peek(22)), "0123456789abcdef\nnext\n")
        same("from the buffer", yield* outcome(run(near.reader)), "LimitOverrunError")
        same("skipped", yield* near.reader.skipUntil("\n"), 17)
        same("the next line", decode(yield* near.reader.readLine), "next\n")
      })
    )
  ),

  law("readUntil: a limit of its own goes before the reader's", () =>
    Effect.gen(function* () {
      const { feed, near } = yield* connect({ limit: LIMIT })
      yield* feed("0123456789abcdef;rest")
      same("shorter", yield* outcome(near.reader.readUntil(";", { limit: 4 })), "LimitOverrunError")
      same("longer", decode(yield* near.reader.readUntil(";", { limit: 16 })), "0123456789abcdef;")
    })
  ),

  law("read(max) takes at most that many, and read(0) none", () =>
    Effect.gen(function* () {
      const connected = yield* connect()
      const { reader } = connected.near
      same("of nothing", (yield* reader.read(0)).length, 0)
      yield* receive(connected, "abcdef")
      same("two", decode(yield* reader.read(2)), "ab")
      same("none", decode(yield* reader.read(0)), "")
      same("the rest", decode(yield* reader.read(100)), "cdef")
    })
  ),

  law("serves concurrent reads in the order in which they were called, each with a whole result", () =>
    Effect.gen(function* () {
      const { end, feed, near } = yield* connect()
      const { reader } = near
      const order: Array<number> = []
      const reads = [
        text(reader.readExactly(3)),
        text(reader.readLine),
        Effect.as(reader.skip(2), "skipped"),
        text(reader.readUntil(";")),
        text(reader.readAll())
      ].map((read, index) => Effect.tap(read, () => Effect.sync(() => order.push(index))))
      const fibers = yield* Effect.forEach(reads, start)
      for (const byte of "abcline\n..piece;the rest") {
        yield* feed(byte)
        yield* Effect.yieldNow
      }
      yield* end
      const results = yield* Effect.forEach(fibers, (fiber) => Fiber.join(fiber))
      same("the results", results.join("|"), "abc|line\n|skipped|piece;|the rest")
      same("the order", order.join(), "0,1,2,3,4")
    })
  ),

  law("an interrupted read leaves its turn to the next one", () =>
    Effect.gen(function* () {
      const connected = yield* connect()
      const { reader } = connected.near
      yield* receive(connected, "ab")
      const first = yield* start(reader.readExactly(100))
      const second = yield* start(text(reader.readExactly(2)))
      const third = yield* start(text(reader.readLine))
      yield* turns
      same("the second, in its turn", soFar(second), "waiting")
      yield* Fiber.interrupt(first)
      same("the second", yield* Fiber.join(second), "ab")
      yield* connected.feed("c\n")
      same("the third", yield* Fiber.join(third), "c\n")
    })
  ),

  law("finds a separator however the bytes were cut", () =>
    Effect.gen(function* () {
      const { feed, near } = yield* connect()
      const reading = yield* start(text(near.reader.readUntil("\r\n\r\n")))
      for (const byte of "a: b\r\n\r\r\n\r\nrest") {
        yield* feed(byte)
        yield* Effect.yieldNow
      }
      same("the piece", yield* Fiber.join(reading), "a: b\r\n\r\r\n\r\n")
      same("the rest", decode(yield* near.reader.readExactly(4)), "rest")
    })
  ),

  law("stays at the end of input", () =>
    Effect.gen(function* () {
      const connected = yield* connect()
      const { end, near } = connected
      const { reader } = near
      yield* receive(connected, "ab")
      same("atEof before", yield* reader.atEof, false)
      yield* end
      same("the rest", yield* outcome(text(reader.readLine)), "ab")
      same("atEof", yield* reader.atEof, true)
      for (let round = 0; round < 2; round++) {
        same("read", decode(yield* reader.read()), "")
        same("readAll", decode(yield* reader.readAll()), "")
        same("readLine", decode(yield* reader.readLine), "")
        same("readLineString", yield* orNone(reader.readLineString), "none")
        same("readExactly", yield* outcome(reader.readExactly(1)), 'IncompleteReadError with ""')
        same("readExactly(0)", decode(yield* reader.readExactly(0)), "")
        same("lines", (yield* Stream.runCollect(reader.lines)).length, 0)
        same("stream", (yield* Stream.runCollect(reader.stream)).length, 0)
      }
    })
  ),

  law("bytes received before a failure stay readable, and the failure comes when they run out", () =>
    Effect.gen(function* () {
      const connected = yield* connect()
      const { capabilities, far, near } = connected
      yield* receive(connected, "ab\ncd")
      yield* far.abort
      if (capabilities.abort === "end") yield* near.abort
      yield* Effect.exit(near.closed)
      same("a line", decode(yield* near.reader.readLine), "ab\n")
      if (capabilities.abort === "end") return
      const failure = yield* outcome(near.reader.readExactly(3))
      hold(!failure.startsWith("IncompleteReadError"), "a failure was told as an end of input")
      same("buffered", yield* near.reader.bufferedBytes, 2)
      same("the rest", decode(yield* near.reader.read()), "cd")
      const reads: ReadonlyArray<Effect.Effect<Uint8Array, Failure>> = [
        near.reader.read(),
        near.reader.readLine,
        near.reader.readAll(),
        near.reader.peek(1)
      ]
      for (const read of reads) same("a later read", yield* outcome(text(read)), failure)
      same("atEof", yield* near.reader.atEof, false)
      if (capabilities.abort === "reset") same("the failure", failure, "ConnectionReset")
    })
  ),

  law("gives lines and bytes as streams, until the end of input", () =>
    Effect.gen(function* () {
      const lines = yield* connect()
      yield* lines.feed("one\r\ntwo\n\nthr")
      yield* lines.feed("ee")
      yield* lines.end
      same("lines", (yield* Stream.runCollect(lines.near.reader.lines)).join("|"), "one|two||three")

      const bytes = yield* connect()
      const sent = pattern(300_000)
      yield* bytes.feed(sent)
      yield* bytes.end
      const chunks = yield* Stream.runCollect(bytes.near.reader.stream)
      same(
        "stream, size",
        chunks.reduce((size, chunk) => size + chunk.length, 0),
        sent.length
      )
    })
  ),

  law("holds a bounded number of bytes, whatever the peer sends", () =>
    Effect.gen(function* () {
      const { end, far, near } = yield* connect({ limit: 1024 })
      const piece = 64 * 1024
      const sent = pattern(8 * 1024 * 1024)
      yield* start(
        Effect.gen(function* () {
          for (let at = 0; at < sent.length; at += piece) {
            yield* far.writer.write(sent.subarray(at, at + piece))
            yield* Effect.yieldNow
          }
          yield* end
        })
      )
      yield* near.reader.peek(1)
      yield* Effect.forEach([1, 2, 3, 4, 5], () => turns)
      const held = yield* near.reader.bufferedBytes
      hold(held <= 512 * 1024, `${held} bytes are held unread, with a limit of 1024`)
      sameBytes("received", yield* near.reader.readExactly(sent.length), sent)
      same("the end", decode(yield* near.reader.read()), "")
    })
  ),

  law("reads more than its limit at once where it is told how much", () =>
    Effect.gen(function* () {
      const { feed, near } = yield* connect({ limit: 16 })
      const sent = pattern(500_000)
      yield* feed(sent)
      sameBytes("peeked", yield* near.reader.peek(sent.length), sent)
      sameBytes("read", yield* near.reader.readExactly(sent.length), sent)
    })
  ),

  law("skips to a separator however far away, in bounded memory", () =>
    Effect.gen(function* () {
      const { far, near } = yield* connect({ limit: 1024 })
      const size = 4 * 1024 * 1024
      const [, skipped] = yield* both(
        Effect.andThen(far.writer.write("x".repeat(size)), far.writer.write("\nrest")),
        near.reader.skipUntil("\n").pipe(Effect.tap(() => near.reader.peek(4)))
      )
      same("skipped", skipped, size + 1)
      same("the rest", decode(yield* near.reader.readExactly(4)), "rest")
    })
  ),

  law("an idle limit passes only while no byte comes", () =>
    Effect.gen(function* () {
      const connected = yield* connect({ idleTimeout: "1 second" })
      const { reader } = connected.near
      const reading = yield* start(text(reader.readExactly(3)))
      for (const byte of "ab") {
        yield* TestClock.adjust("900 millis")
        yield* connected.feed(byte)
        while ((yield* reader.bufferedBytes) < "ab".indexOf(byte) + 1) yield* Effect.yieldNow
      }
      yield* TestClock.adjust("999 millis")
      same("while bytes come", soFar(reading), "waiting")
      yield* TestClock.adjust("1 millis")
      same("when none came", yield* outcomeOf(reading), "TimeoutError of idle")
      yield* connected.feed("c")
      same("afterwards", decode(yield* reader.readExactly(3)), "abc")
    })
  ),

  law("takes arguments that are plainly wrong for defects", () =>
    Effect.gen(function* () {
      const { near } = yield* connect()
      const { reader } = near
      const wrong: ReadonlyArray<Effect.Effect<unknown, Failure>> = [
        reader.read(-1),
        reader.readExactly(1.5),
        reader.peek(-1),
        reader.skip(Number.NaN),
        reader.readAll({ maxBytes: -1 }),
        reader.readUntil(""),
        reader.readUntil([]),
        reader.skipUntil(new Uint8Array(0)),
        reader.readUntil("\n", { limit: 0 })
      ]
      for (const [index, effect] of wrong.entries()) {
        const seen = yield* outcome(effect)
        hold(seen.startsWith("defect RangeError"), `the argument of number ${index} came to ${seen}`)
      }
    })
  )
]
