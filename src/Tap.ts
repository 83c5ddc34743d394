/**
 * What somebody sees who listens in on a connection, and ways to print it. `Connection.tap` listens.
 *
 * **Example** (A hex dump on the console)
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import { Connection, Tap } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [near, far] = yield* Connection.pair()
 *   const tapped = yield* Connection.tap(near, Tap.hexDump(Console.log))
 *   yield* tapped.writer.write("PING\r\n")
 *   yield* far.reader.readLine
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * // > 00000000  50 49 4e 47 0d 0a                                 |PING..|
 * // > end
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { quoted } from "./internal/printable.ts"
import type { ReadError } from "./StreamError.ts"

/**
 * `"received"` is what the peer sent, `"sent"` what went to it.
 *
 * @category models
 * @since 0.1.0
 */
export type Direction = "received" | "sent"

/**
 * Something that happened on a connection: bytes, the end of a direction, or the failure of the connection (with the tag
 * of its reason, such as `"ConnectionReset"`).
 *
 * @category models
 * @since 0.1.0
 */
export type Event =
  | { readonly _tag: "Data"; readonly direction: Direction; readonly bytes: Uint8Array }
  | { readonly _tag: "End"; readonly direction: Direction }
  | { readonly _tag: "Failure"; readonly direction: Direction; readonly reason: string }

/**
 * Somebody who listens in. The bytes go on when the effect has succeeded; its failure is the connection's.
 *
 * @category models
 * @since 0.1.0
 */
export type Observer<E = never, R = never> = (event: Event) => Effect.Effect<unknown, E, R>

const ARROWS: Record<Direction, string> = { received: "<", sent: ">" }

const describe = (event: Exclude<Event, { readonly _tag: "Data" }>): string =>
  `${ARROWS[event.direction]} ${event._tag === "End" ? "end" : `failed: ${event.reason}`}`

const WIDTH = 16

const hex = (byte: number | undefined): string =>
  byte === undefined ? "  " : byte.toString(16).padStart(2, "0")

const printable = (byte: number): string => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".")

const hexLine = (bytes: Uint8Array, offset: number): string => {
  const columns = Array.from({ length: WIDTH }, (_, i) => hex(bytes[i]))
  const halves = [columns.slice(0, WIDTH / 2), columns.slice(WIDTH / 2)].map((half) => half.join(" "))
  const text = Array.from(bytes, printable).join("")
  return `${offset.toString(16).padStart(8, "0")}  ${halves.join("  ")}  |${text}|`
}

/**
 * Prints 16 bytes a line, in hexadecimal and as ASCII, with their offset in the direction: `>` for what was sent, `<`
 * for what was received. `print` is `Effect.log` unless given.
 *
 * **Gotchas**
 *
 * It keeps the offsets: make one for each connection, or they are mixed.
 *
 * **Example** (Who said it, in a server with many clients)
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import { Connection, Server, Tap } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve(
 *     Effect.fnUntraced(function* (connection) {
 *       const print = (line: string) => Console.log(connection.id, line)
 *       const { reader, writer } = yield* Connection.tap(connection, Tap.hexDump(print))
 *       yield* writer.write(yield* reader.readLine)
 *     }),
 *     { listen: { port: 7000 } }
 *   )
 *   const ask = Connection.use("localhost:7000", ({ reader, writer }) =>
 *     Effect.andThen(writer.write("hello\n"), reader.readLine)
 *   )
 *   yield* Effect.all([ask, ask], { concurrency: "unbounded" })
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))
 * // memory-1 < 00000000  68 65 6c 6c 6f 0a                                 |hello.|
 * // memory-5 < 00000000  68 65 6c 6c 6f 0a                                 |hello.|
 * // …
 * ```
 *
 * @category observers
 * @since 0.1.0
 */
export const hexDump = <E = never, R = never>(
  print: (line: string) => Effect.Effect<unknown, E, R> = Effect.log
): Observer<E, R> => {
  const offsets: Record<Direction, number> = { received: 0, sent: 0 }
  return (event) => {
    if (event._tag !== "Data") return print(describe(event))
    const { bytes, direction } = event
    const lines: Array<string> = []
    for (let start = 0; start < bytes.length; start += WIDTH) {
      const row = bytes.subarray(start, start + WIDTH)
      lines.push(`${ARROWS[direction]} ${hexLine(row, offsets[direction] + start)}`)
    }
    offsets[direction] += bytes.length
    return Effect.forEach(lines, (line) => print(line), { discard: true })
  }
}

const utf8 = (): TextDecoder => new TextDecoder("utf-8", { ignoreBOM: true })

/**
 * Prints what comes and goes as quoted UTF-8 text, a line for each chunk: `> "PING\r\n"`. `print` is `Effect.log` unless
 * given.
 *
 * **Gotchas**
 *
 * It keeps the beginning of a character that is not complete: make one for each connection, or they are mixed.
 *
 * **Example** (What a client and a server say)
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import { Connection, Tap } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [near, far] = yield* Connection.pair()
 *   const { reader, writer } = yield* Connection.tap(near, Tap.text(Console.log))
 *   yield* writer.write("PING\r\n") // > "PING\r\n"
 *   yield* far.reader.readLine
 *   yield* far.writer.write("+PONG\r\n")
 *   yield* reader.readLine // < "+PONG\r\n"
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * ```
 *
 * @category observers
 * @since 0.1.0
 */
export const text = <E = never, R = never>(
  print: (line: string) => Effect.Effect<unknown, E, R> = Effect.log
): Observer<E, R> => {
  // A character may be cut by the end of a chunk.
  const decoders: Record<Direction, TextDecoder> = { received: utf8(), sent: utf8() }
  const printText = (direction: Direction, text: string) => print(`${ARROWS[direction]} ${quoted(text)}`)
  return (event) => {
    const { direction } = event
    if (event._tag === "Data") {
      return printText(direction, decoders[direction].decode(event.bytes, { stream: true }))
    }
    const cut = decoders[direction].decode()
    const end = print(describe(event))
    return cut === "" ? end : Effect.andThen(printText(direction, cut), end)
  }
}

/**
 * Tells an observer what happens in one direction.
 *
 * @internal
 */
export const observe = <E2, R2>(direction: Direction, observer: Observer<E2, R2>) => {
  const data = (bytes: Uint8Array) => observer({ _tag: "Data", direction, bytes })
  return <E extends ReadError, R>(
    stream: Stream.Stream<Uint8Array, E, R>
  ): Stream.Stream<Uint8Array, E | E2, R | R2> =>
    stream.pipe(
      Stream.tapError((error) =>
        observer({
          _tag: "Failure",
          direction,
          reason: error._tag === "ConnectionError" ? error.reason._tag : error._tag
        })
      ),
      Stream.mapArrayEffect((chunks) => Effect.as(Effect.forEach(chunks, data, { discard: true }), chunks)),
      Stream.onEnd(Effect.suspend(() => observer({ _tag: "End", direction })))
    )
}
