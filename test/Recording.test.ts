import { NodeServices } from "@effect/platform-node"
import { describe, it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { DateTime, Effect, FileSystem, Latch, Logger, References, Sink, Stream } from "effect"
import { Connection, Recording, type Tap } from "effect-wire"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import { aborting, outcome, outcomeOf, pair, start, turns, withTicks } from "./support/effects.ts"

const header =
  '{"format":"effect-wire-recording","version":1,"transport":"tcp","startedAt":"2026-01-31T12:00:00.000Z"}'

const problem = (...lines: ReadonlyArray<string>) =>
  Effect.map(Effect.flip(Recording.decode([header, ...lines].join("\n"))), (error) => ({
    line: error.line,
    message: error.message
  }))

describe("Recording format", () => {
  it.effect("is a line for each event: text where it is text, base64 where it is not", () =>
    Effect.gen(function* () {
      const data = (bytes: ReadonlyArray<number>): Tap.Event => ({
        _tag: "Data",
        direction: "received",
        bytes: new Uint8Array(bytes)
      })
      const lines = [
        data([0x6f, 0x6b, 0x0d, 0x0a]),
        data([0x00]),
        data([0xe2, 0x82]),
        data([0xef, 0xbb, 0xbf, 0x61]),
        { _tag: "End", direction: "sent" } as const,
        { _tag: "Failure", direction: "received", reason: "ConnectionReset" } as const
      ].map((event, at) => Recording.encodeEvent({ at: at + 0.5, event }))
      deepStrictEqual(lines, [
        '{"at":0.5,"direction":"received","text":"ok\\r\\n"}\n',
        '{"at":1.5,"direction":"received","base64":"AA=="}\n',
        '{"at":2.5,"direction":"received","base64":"4oI="}\n',
        '{"at":3.5,"direction":"received","text":"\ufeffa"}\n',
        '{"at":4.5,"direction":"sent","end":true}\n',
        '{"at":5.5,"direction":"received","failure":"ConnectionReset"}\n'
      ])
    })
  )

  it.effect("says in which line a text is no recording", () =>
    Effect.gen(function* () {
      strictEqual((yield* Effect.flip(Recording.decode("\n\n"))).message, "recording, line 1: it is empty")
      strictEqual((yield* Effect.flip(Recording.decode("{}"))).line, 1)
      strictEqual((yield* problem("", '{"at":0,"direction":"sideways","end":true}')).line, 3)
      strictEqual((yield* problem('{"at":0,"direction":"sent"}')).line, 2)
      strictEqual((yield* problem('{"at":0,"direction":"sent","base64":"?"}')).line, 2)
      strictEqual((yield* problem("not JSON")).line, 2)
      deepStrictEqual(
        yield* problem(
          '{"at":2,"direction":"sent","end":true}',
          '{"at":1,"direction":"received","end":true}'
        ),
        { line: 3, message: "recording, line 3: at 1 ms, before the line before it" }
      )
    })
  )

  const event: fc.Arbitrary<Tap.Event> = fc
    .record({
      direction: fc.constantFrom<Tap.Direction>("received", "sent"),
      content: fc.oneof(
        fc.uint8Array({ maxLength: 40 }),
        fc.string({ unit: "binary", maxLength: 20 }).map((text) => new TextEncoder().encode(text)),
        fc.constant("end" as const),
        fc.string()
      )
    })
    .map(({ content, direction }): Tap.Event => {
      if (content === "end") return { _tag: "End", direction }
      return typeof content === "string"
        ? { _tag: "Failure", direction, reason: content }
        : { _tag: "Data", direction, bytes: content }
    })

  it("any session is the same once it was written and read", () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ event, gap: fc.double({ min: 0, max: 1e6, noNaN: true }) })),
        fc.option(fc.string(), { nil: undefined }),
        async (steps, remote) => {
          let at = 0
          const recording: Recording.Recording = {
            header: {
              transport: "tcp",
              local: undefined,
              remote,
              startedAt: DateTime.makeUnsafe(1_700_000_000_000)
            },
            events: steps.map(({ event, gap }) => ({ at: (at += gap), event }))
          }
          deepStrictEqual(await Effect.runPromise(Recording.decode(Recording.encode(recording))), recording)
        }
      ),
      { numRuns: 300 }
    ))
})

describe("Connection.record", () => {
  it.effect("writes down what happened and when", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      yield* TestClock.setTime(Date.UTC(2026, 0, 31, 12))
      const [near, far] = yield* pair()
      const connection = yield* aborting(
        Connection.record(
          near,
          Sink.forEach((line: string) => Effect.sync(() => lines.push(line.trimEnd())))
        )
      )
      yield* TestClock.adjust("5 millis")
      yield* connection.writer.write("PING\r\n")
      yield* far.reader.readExactly(6)
      yield* TestClock.adjust("1.25 millis")
      yield* far.writer.write(new Uint8Array([0, 255]))
      yield* connection.reader.readExactly(2)
      yield* far.writer.end
      yield* connection.reader.readAll()
      yield* turns
      deepStrictEqual(lines, [
        '{"format":"effect-wire-recording","version":1,"transport":"memory","startedAt":"2026-01-31T12:00:00.000Z"}',
        '{"at":5,"direction":"sent","text":"PING\\r\\n"}',
        '{"at":6.25,"direction":"received","base64":"AP8="}',
        '{"at":6.25,"direction":"received","end":true}'
      ])
    })
  )

  it.effect("the times never go backwards, wherever the fibers of the two directions yield", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const bytes = 60
      yield* Effect.gen(function* () {
        const [near, far] = yield* pair()
        const recorded = yield* aborting(
          Connection.record(
            near,
            Sink.forEach((line: string) => Effect.sync(() => lines.push(line)))
          )
        )
        const send = ({ writer }: Connection.Connection) =>
          Effect.forEach(
            Array.from({ length: bytes }),
            () => Effect.andThen(writer.write("x"), writer.flush),
            {
              discard: true
            }
          )
        yield* Effect.all(
          [send(recorded), send(far), recorded.reader.readExactly(bytes), far.reader.readExactly(bytes)],
          { concurrency: "unbounded" }
        )
      }).pipe(Effect.scoped, withTicks, Effect.provideService(References.MaxOpsBeforeYield, 11))
      const { events } = yield* Recording.decode(lines.join(""))
      const recordedBytes = events.map(({ event }) => (event._tag === "Data" ? event.bytes.length : 0))
      strictEqual(
        recordedBytes.reduce((sum, n) => sum + n, 0),
        2 * bytes
      )
    })
  )

  it.effect("a slow recorder slows the connection down, and loses nothing", () =>
    Effect.gen(function* () {
      const gate = Latch.makeUnsafe(false)
      const lines: Array<string> = []
      const [near, far] = yield* pair()
      const connection = yield* aborting(
        Connection.record(
          near,
          Sink.forEach((line: string) =>
            Effect.andThen(
              gate.await,
              Effect.sync(() => lines.push(line))
            )
          )
        )
      )
      let taken = 0
      const writing = yield* start(
        Effect.forEach(Array.from({ length: 300 }), () =>
          Effect.andThen(
            connection.writer.write("x"),
            Effect.tap(connection.writer.flush, () => Effect.sync(() => taken++))
          )
        )
      )
      yield* turns
      yield* turns
      // The queue's 64, with the header, and the batch that the sink holds.
      assertTrue(taken > 50 && taken < 140, `${taken} of 300 chunks went on`)
      yield* gate.open
      for (let i = 0; i < 20; i++) yield* turns
      strictEqual(outcome(writing), "success")
      strictEqual((yield* far.reader.readExactly(300)).length, 300)
      strictEqual(lines.length, 301)
    })
  )

  it.effect("a recorder that fails, or is done early, fails the connection", () =>
    Effect.gen(function* () {
      const recorders = [Sink.fail(new Error("the disk is full")), Sink.succeed(undefined)]
      const messages: Array<string> = []
      for (const recorder of recorders) {
        const [near, far] = yield* pair()
        const connection = yield* aborting(Connection.record(near, recorder))
        yield* turns
        yield* far.writer.write("x")
        messages.push((yield* Effect.flip(connection.reader.read())).message)
        strictEqual(yield* outcomeOf(far.closed), "ConnectionReset")
      }
      assertTrue(messages[0]?.includes("the disk is full") === true, messages[0])
      assertTrue(messages[1]?.includes("the recorder was done early") === true, messages[1])
    })
  )

  it.live("into a file, which the scope's end completes, and which is read back", () =>
    Effect.gen(function* () {
      const files = yield* FileSystem.FileSystem
      const path = `${yield* files.makeTempDirectoryScoped()}/session.jsonl`
      yield* files.writeFileString(path, "what was here before\n".repeat(1000))
      const [near, far] = yield* Connection.pair()
      yield* Effect.all(
        [
          Effect.scoped(
            Effect.gen(function* () {
              const { reader, writer } = yield* Connection.record(near, Recording.toFile(path))
              yield* Stream.run(
                Stream.fromIterable(Array.from({ length: 500 }, (_, i) => `line ${i}\n`)),
                writer.sink
              )
              yield* writer.end
              yield* reader.readAll()
            })
          ),
          Effect.andThen(far.reader.readAll(), Effect.andThen(far.writer.write("done"), far.close))
        ],
        { concurrency: "unbounded" }
      )
      const { events, header } = yield* Recording.load(path)
      strictEqual(header.transport, "memory")
      const textOf = (direction: Tap.Direction) =>
        Buffer.concat(
          events.flatMap(({ event }) =>
            event._tag === "Data" && event.direction === direction ? [event.bytes] : []
          )
        ).toString()
      strictEqual(textOf("sent"), Array.from({ length: 500 }, (_, i) => `line ${i}\n`).join(""))
      strictEqual(textOf("received"), "done")
      deepStrictEqual(
        events.filter(({ event }) => event._tag === "End").map(({ event }) => event.direction),
        ["sent", "received"]
      )
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )

  it.live("a file that cannot be written fails the connection", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const connection = yield* aborting(Connection.record(near, Recording.toFile("/nowhere/at/all")))
      // The file is opened meanwhile.
      const exchange = Effect.andThen(far.writer.write("x"), connection.reader.read())
      strictEqual(yield* outcomeOf(Effect.forever(exchange)), "NotFound")
    }).pipe(Effect.scoped, Effect.provide([NodeServices.layer, Logger.layer([])]))
  )
})
