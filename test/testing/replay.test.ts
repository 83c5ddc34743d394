import { describe, it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { DateTime, Effect, Exit, Fiber, Option, Ref, Sink } from "effect"
import { Connection, Recording, Server, type Tap } from "effect-wire"
import { TestNetwork } from "effect-wire/testing"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import { outcome, outcomeOf, pair, start, turns } from "../support/effects.ts"

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

const sent = (text: string): Tap.Event => ({ _tag: "Data", direction: "sent", bytes: bytes(text) })
const received = (text: string): Tap.Event => ({ _tag: "Data", direction: "received", bytes: bytes(text) })
const end = (direction: Tap.Direction): Tap.Event => ({ _tag: "End", direction })

const recordingOf = (
  ...events: ReadonlyArray<Tap.Event | readonly [number, Tap.Event]>
): Recording.Recording => ({
  header: { transport: "memory", startedAt: DateTime.makeUnsafe(0) },
  events: events.map((entry) =>
    "_tag" in entry ? { at: 0, event: entry } : { at: entry[0], event: entry[1] }
  )
})

/** A client whose peer is a recording. */
const against = Effect.fnUntraced(function* (
  recording: Recording.Recording,
  options?: TestNetwork.ReplayOptions
) {
  const [client, peer] = yield* pair()
  const replay = yield* start(TestNetwork.replay(recording, options)(peer))
  return { client, replay }
})

const failureOf = Effect.fnUntraced(function* (
  recording: Recording.Recording,
  act: (client: Connection.Connection) => Effect.Effect<unknown, unknown>
) {
  const { client, replay } = yield* against(recording)
  yield* act(client)
  const error = yield* Effect.flip(Fiber.join(replay.fiber))
  return error
})

describe("TestNetwork.replay", () => {
  it.effect("answers as the recorded peer did, once what it answered to has come", () =>
    Effect.gen(function* () {
      const { client, replay } = yield* against(
        recordingOf(
          received("hello\n"),
          sent("PING\r\n"),
          // How long it took is nobody's concern.
          [1000, received("+PONG\r\n")],
          [1000, end("sent")],
          [2000, end("received")]
        )
      )
      deepStrictEqual(yield* client.reader.readLineString, Option.some("hello"))
      yield* client.writer.write("PI")
      yield* client.writer.write("NG\r")
      yield* turns
      strictEqual(yield* client.reader.bufferedBytes, 0)
      yield* client.writer.write("\n")
      deepStrictEqual(yield* client.reader.readLineString, Option.some("+PONG"))
      strictEqual(outcome(replay), "waiting")
      yield* client.writer.end
      strictEqual(text(yield* client.reader.readAll()), "")
      strictEqual(outcome(replay), "success")
    })
  )

  it.effect("fails at the first byte that differs, without waiting for the rest", () =>
    Effect.gen(function* () {
      const error = yield* failureOf(recordingOf(sent("one\n"), sent("two and more\n")), ({ writer }) =>
        writer.write("one\ntwx")
      )
      strictEqual(error._tag, "ReplayError")
      if (error._tag !== "ReplayError") return
      deepStrictEqual([error.event, text(error.expected), text(error.received)], [1, "o and more\n", "x"])
      strictEqual(error.message, 'replay: event 1 of the recording expects "o and more\\n", and "x" came')
    })
  )

  it.effect("fails when the input ends early, and when it does not end", () =>
    Effect.gen(function* () {
      const early = yield* failureOf(recordingOf(sent("hello")), ({ writer }) =>
        Effect.andThen(writer.write("hel"), writer.end)
      )
      strictEqual(early.message, 'replay: event 0 of the recording expects "lo", and the end of input came')
      const late = yield* failureOf(recordingOf(end("sent")), ({ writer }) => writer.write("more"))
      strictEqual(late.message, 'replay: event 0 of the recording expects the end of input, and "more" came')
    })
  )

  it.effect("plays a recorded failure as a reset, and is over then", () =>
    Effect.gen(function* () {
      const { client, replay } = yield* against(
        recordingOf(
          sent("x"),
          { _tag: "Failure", direction: "received", reason: "ConnectionReset" },
          sent("never asked for")
        )
      )
      yield* client.writer.write("x")
      strictEqual(yield* outcomeOf(client.reader.read()), "ConnectionReset")
      yield* Fiber.join(replay.fiber)
    })
  )

  it.effect("what came before a recorded failure comes before it", () =>
    Effect.gen(function* () {
      const { client, replay } = yield* against(
        recordingOf(received("hello"), { _tag: "Failure", direction: "received", reason: "ConnectionReset" })
      )
      yield* Fiber.join(replay.fiber)
      strictEqual(text(yield* client.reader.readExactly(5)), "hello")
      strictEqual(yield* outcomeOf(client.reader.read()), "ConnectionReset")
    })
  )

  it.effect("takes its time if it is to, counted from the event before", () =>
    Effect.gen(function* () {
      const { client, replay } = yield* against(
        recordingOf([0, sent("a")], [100, received("1")], [150, received("2")]),
        { timed: true }
      )
      yield* TestClock.adjust("1 hour")
      yield* client.writer.write("a")
      yield* turns
      yield* TestClock.adjust("99 millis")
      strictEqual(yield* client.reader.bufferedBytes, 0)
      yield* TestClock.adjust("1 millis")
      strictEqual(text(yield* client.reader.read()), "1")
      yield* TestClock.adjust("49 millis")
      strictEqual(yield* client.reader.bufferedBytes, 0)
      yield* TestClock.adjust("1 millis")
      strictEqual(text(yield* client.reader.read()), "2")
      strictEqual(outcome(replay), "success")
    })
  )

  it.effect("is not stuck between two sides that both send more than is on the way", () =>
    Effect.gen(function* () {
      const much = "x".repeat(1_000_000)
      const { client, replay } = yield* against(recordingOf(received(much), sent(much)))
      yield* client.writer.write(much)
      strictEqual((yield* client.reader.readExactly(much.length)).length, much.length)
      yield* Fiber.join(replay.fiber)
    })
  )

  it.effect("takes what differs for the same if it is told to", () =>
    Effect.gen(function* () {
      const masked = (_: Uint8Array) => text(_).replace(/nonce=\w+/, "nonce=?")
      const recording = recordingOf(sent("HELLO nonce=abcd\n"), received("ok\n"), sent("BYE\n"))
      const asked: Array<readonly [string, string]> = []
      const matches = (received: Uint8Array, expected: Uint8Array) => {
        asked.push([text(received), text(expected)])
        return masked(received) === masked(expected)
      }
      const { client, replay } = yield* against(recording, { matches })
      yield* client.writer.write("HELLO non")
      yield* turns
      deepStrictEqual(asked, [])
      yield* client.writer.write("ce=wxyz\n")
      deepStrictEqual(yield* client.reader.readLineString, Option.some("ok"))
      yield* client.writer.write("BUY\n")
      const error = yield* Effect.flip(Fiber.join(replay.fiber))
      strictEqual(error.message, 'replay: event 2 of the recording expects "BYE\\n", and "BUY\\n" came')
      deepStrictEqual(asked, [
        ["HELLO nonce=wxyz\n", "HELLO nonce=abcd\n"],
        ["BUY\n", "BYE\n"]
      ])
    })
  )

  it.effect("counts the bytes and no more if anything is the same", () =>
    Effect.gen(function* () {
      const recording = recordingOf(sent("hello"), received("1"), sent("x".repeat(200_000)), received("2"))
      const { client, replay } = yield* against(recording, { matches: () => true })
      yield* client.writer.write("12345")
      strictEqual(text(yield* client.reader.readExactly(1)), "1")
      yield* client.writer.write(new Uint8Array(200_000))
      strictEqual(text(yield* client.reader.readExactly(1)), "2")
      yield* Fiber.join(replay.fiber)

      const early = yield* against(recording, { matches: () => true })
      yield* early.client.writer.write("123")
      yield* early.client.writer.end
      const error = yield* Effect.flip(Fiber.join(early.replay.fiber))
      strictEqual(error.message, 'replay: event 0 of the recording expects "lo", and the end of input came')
    })
  )

  it.effect("is a server's handler, whose failure the server tells", () =>
    Effect.gen(function* () {
      const failures = yield* Ref.make<ReadonlyArray<string>>([])
      yield* Server.serve(TestNetwork.replay(recordingOf(sent("GET a\n"), received("1\n"))), {
        listen: { port: 7000 },
        onError: (cause) => Ref.update(failures, (_) => [..._, outcome(Exit.failCause(cause))])
      })
      const ask = (question: string) =>
        Connection.use("localhost:7000", ({ reader, writer }) =>
          Effect.andThen(writer.write(question), reader.readLineString)
        )
      deepStrictEqual(yield* ask("GET a\n"), Option.some("1"))
      deepStrictEqual(yield* Ref.get(failures), [])
      strictEqual(yield* outcomeOf(ask("GET b\n")), "ConnectionReset")
      yield* turns
      deepStrictEqual(yield* Ref.get(failures), ["ReplayError"])
    }).pipe(Effect.provide(TestNetwork.layer))
  )
})

// A session: what each side sends, turn by turn.
const session = fc.array(
  fc.record({
    by: fc.constantFrom<Tap.Direction>("sent", "received"),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 300 })
  }),
  { maxLength: 12 }
)

type Session = typeof session extends fc.Arbitrary<infer A> ? A : never

/** Plays a session's client: sends what it is to send, and gives what it received. */
const playClient = Effect.fnUntraced(function* (turns: Session, { reader, writer }: Connection.Connection) {
  const heard: Array<Uint8Array> = []
  for (const { by, bytes } of turns) {
    if (by === "sent") yield* writer.write(bytes)
    else heard.push(yield* reader.readExactly(bytes.length))
  }
  yield* writer.end
  heard.push(yield* reader.readAll())
  return Buffer.concat(heard)
})

const playServer = Effect.fnUntraced(function* (turns: Session, { reader, writer }: Connection.Connection) {
  for (const { by, bytes } of turns) {
    if (by === "received") yield* writer.write(bytes)
    else yield* reader.readExactly(bytes.length)
  }
  yield* reader.readAll()
  yield* writer.end
})

describe("Recording and replay", () => {
  it("what was recorded, and read back from its text, is played again to the byte", () =>
    fc.assert(
      fc.asyncProperty(session, async (turns) => {
        const program = Effect.gen(function* () {
          const lines: Array<string> = []
          const [near, far] = yield* Connection.pair()
          const live = yield* Effect.scoped(
            Effect.gen(function* () {
              const recorded = yield* Connection.record(
                near,
                Sink.forEach((line: string) => Effect.sync(() => lines.push(line)))
              )
              const [heard] = yield* Effect.all([playClient(turns, recorded), playServer(turns, far)], {
                concurrency: "unbounded"
              })
              return heard
            })
          )
          const recording = yield* Recording.decode(lines.join(""))
          const [client, peer] = yield* Connection.pair()
          const [again] = yield* Effect.all(
            [playClient(turns, client), TestNetwork.replay(recording)(peer).pipe(Effect.andThen(peer.close))],
            {
              concurrency: "unbounded"
            }
          )
          return { live, again, recording }
        })
        const { again, live, recording } = await Effect.runPromise(
          program.pipe(Effect.scoped, Effect.timeout("5 seconds"))
        )
        const expected = Buffer.concat(turns.filter(({ by }) => by === "received").map(({ bytes }) => bytes))
        deepStrictEqual([live, again], [expected, expected])
        const ends = recording.events.filter(({ event }) => event._tag === "End")
        strictEqual(ends.length, 2)
        assertTrue(recording.events.every(({ at }, i) => at >= (recording.events[i - 1]?.at ?? 0)))
      }),
      { numRuns: 150 }
    ))
})
