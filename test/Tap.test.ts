import { describe, it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Effect, Latch, Option } from "effect"
import { Connection, Tap } from "effect-wire"
import { aborting, outcome, outcomeOf, pair, start, turns } from "./support/effects.ts"

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

/** A pair whose first connection is tapped, and what the observer made of it. */
const tapped = Effect.fnUntraced(function* (
  make: (print: (line: string) => Effect.Effect<void>) => Tap.Observer
) {
  const lines: Array<string> = []
  const [near, far] = yield* pair()
  // All arguments, as a console prints them.
  const observer = make((...args) => Effect.sync(() => void lines.push(args.join(" "))))
  return { near, far, lines, connection: yield* aborting(Connection.tap(near, observer)) }
})

describe("Tap.hexDump", () => {
  it.effect("prints 16 bytes a line, with offsets that go on in each direction", () =>
    Effect.gen(function* () {
      const { connection, far, lines } = yield* tapped(Tap.hexDump)
      yield* connection.writer.write(Uint8Array.from({ length: 18 }, (_, i) => i + 0x5b))
      yield* connection.writer.flush
      yield* connection.writer.write("PING\r\n")
      yield* connection.writer.end
      yield* far.reader.readAll()
      yield* far.writer.write(new Uint8Array([0x7f, 0xff]))
      yield* connection.reader.readExactly(2)
      yield* far.writer.write("!")
      yield* far.writer.end
      yield* connection.reader.readAll()
      deepStrictEqual(lines, [
        "> 00000000  5b 5c 5d 5e 5f 60 61 62  63 64 65 66 67 68 69 6a  |[\\]^_`abcdefghij|",
        "> 00000010  6b 6c                                             |kl|",
        "> 00000012  50 49 4e 47 0d 0a                                 |PING..|",
        "> end",
        "< 00000000  7f ff                                             |..|",
        "< 00000002  21                                                |!|",
        "< end"
      ])
    })
  )
})

describe("Tap.text", () => {
  it.effect("prints quoted text, also of characters that are cut", () =>
    Effect.gen(function* () {
      const { connection, far, lines } = yield* tapped(Tap.text)
      const euro = new TextEncoder().encode("1 €\n")
      yield* far.writer.write(euro.subarray(0, 3))
      yield* connection.reader.readExactly(3)
      yield* far.writer.write(euro.subarray(3))
      deepStrictEqual(yield* connection.reader.readExactly(3), euro.subarray(3))
      deepStrictEqual(lines, ['< "1 "', '< "€\\n"'])
    })
  )

  it.effect("drops no bytes: neither a byte order mark nor a character that is never complete", () =>
    Effect.gen(function* () {
      const { connection, far, lines } = yield* tapped(Tap.text)
      yield* far.writer.write(Uint8Array.of(0xef, 0xbb, 0xbf, 0x61, 0xe2, 0x82))
      yield* far.writer.end
      yield* connection.reader.readAll()
      deepStrictEqual(lines, ['< "\ufeffa"', '< "\ufffd"', "< end"])
    })
  )

  it.effect("prints nothing that steers a terminal", () =>
    Effect.gen(function* () {
      const { connection, far, lines } = yield* tapped(Tap.text)
      const bytes = new TextEncoder().encode("\u001b[2J\u009b\u007f\u202eé")
      yield* far.writer.write(bytes)
      yield* connection.reader.readExactly(bytes.length)
      deepStrictEqual(lines, ['< "\\u001b[2J\\u009b\\u007f\\u202eé"'])
    })
  )

  it.effect("prints the failure of the connection", () =>
    Effect.gen(function* () {
      const { connection, far, lines } = yield* tapped(Tap.text)
      yield* far.abort
      strictEqual(yield* outcomeOf(connection.reader.read()), "ConnectionReset")
      deepStrictEqual(lines, ["< failed: ConnectionReset"])
    })
  )
})

describe("Connection.tap", () => {
  it.effect("asks the observer of an event when it happens, and not before", () =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      const [near, far] = yield* pair()
      const connection = yield* aborting(
        Connection.tap(near, (event) => {
          asked.push(`${event.direction} ${event._tag}`)
          return Effect.void
        })
      )
      yield* far.writer.write("x")
      yield* connection.reader.readExactly(1)
      deepStrictEqual(asked, ["received Data"])
      yield* far.writer.end
      yield* connection.reader.readAll()
      deepStrictEqual(asked, ["received Data", "received End"])
    })
  )

  it.effect("changes nothing: the bytes, the facts and the options are those of the first", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair({ limit: 1234, watermarks: { high: 999 } })
      const connection = yield* aborting(Connection.tap(near, () => Effect.void))
      deepStrictEqual(
        [connection.info.transport, connection.reader.limit, connection.writer.watermarks.high],
        ["memory", 1234, 999]
      )
      yield* far.writer.write("before\n")
      deepStrictEqual(yield* connection.reader.readLineString, Option.some("before"))
      const closing = yield* start(connection.close)
      yield* far.reader.readAll()
      yield* far.close
      yield* near.closed
      yield* turns
      strictEqual(outcome(closing), "success")
    })
  )

  it.effect("sees what was received and not read yet", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      yield* far.writer.write("early")
      yield* turns
      strictEqual(yield* near.reader.bufferedBytes, 5)
      const seen: Array<string> = []
      const connection = yield* aborting(
        Connection.tap(near, (event) =>
          Effect.sync(() => seen.push(event._tag === "Data" ? text(event.bytes) : event._tag))
        )
      )
      strictEqual(text(yield* connection.reader.readExactly(5)), "early")
      deepStrictEqual(seen, ["early"])
    })
  )

  it.effect("bytes wait for the observer, both ways", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const gate = Latch.makeUnsafe(false)
      const connection = yield* aborting(Connection.tap(near, () => gate.await))
      yield* connection.writer.write("out")
      yield* far.writer.write("in")
      const flushing = yield* start(connection.writer.flush)
      yield* turns
      strictEqual(outcome(flushing), "waiting")
      strictEqual(yield* far.reader.bufferedBytes, 0)
      strictEqual(yield* connection.reader.bufferedBytes, 0)
      yield* gate.open
      strictEqual(text(yield* far.reader.readExactly(3)), "out")
      strictEqual(text(yield* connection.reader.readExactly(2)), "in")
      yield* turns
      strictEqual(outcome(flushing), "success")
    })
  )

  it.effect("an observer that fails fails the connection, and resets the peer", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const connection = yield* Connection.tap(near, () => Effect.fail(new Error("no more paper")))
      yield* far.writer.write("x")
      const error = yield* Effect.flip(connection.reader.read())
      assertTrue(error._tag === "ConnectionError" && error.reason._tag === "UnknownReason")
      assertTrue(error.message.includes("no more paper"), error.message)
      strictEqual(yield* outcomeOf(far.closed), "ConnectionReset")
    })
  )

  it.effect("an interrupted scope aborts, one that ends closes", () =>
    Effect.gen(function* () {
      const [near, far] = yield* pair()
      const use = yield* start(
        Effect.scoped(
          Effect.andThen(
            Connection.tap(near, () => Effect.void),
            Effect.never
          )
        )
      )
      yield* turns
      yield* use.interrupt
      strictEqual(yield* outcomeOf(far.closed), "ConnectionReset")

      const [second, peer] = yield* pair()
      const ending = yield* start(
        Effect.scoped(
          Effect.flatMap(
            Connection.tap(second, () => Effect.void),
            ({ writer }) => writer.write("bye")
          )
        )
      )
      strictEqual(text(yield* peer.reader.readAll()), "bye")
      yield* peer.close
      yield* turns
      strictEqual(outcome(ending), "success")
    })
  )
})
