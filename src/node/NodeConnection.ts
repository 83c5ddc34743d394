/**
 * Connections to and from Node's own streams, for libraries that are written against those.
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Duplex } from "node:stream"
import * as Connection from "../Connection.ts"
import type { WriteError } from "../StreamError.ts"
import * as NodeTransport from "./NodeTransport.ts"

/**
 * A connection over any connected `Duplex`, which belongs to it from now on. See `NodeTransport.fromDuplex`.
 *
 * **Example** (Two streams of Node)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { NodeConnection } from "effect-wire/node"
 * import { duplexPair } from "node:stream"
 *
 * const program = Effect.gen(function* () {
 *   const [here, there] = duplexPair()
 *   const { reader, writer } = yield* NodeConnection.fromDuplex(here)
 *   there.on("data", (chunk: Uint8Array) => there.end(`${chunk.length} bytes\n`))
 *   yield* writer.write("hello")
 *   return yield* reader.readLineString
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // some("5 bytes")
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromDuplex = (
  duplex: Duplex,
  options?: Connection.Options & NodeTransport.Options
): Effect.Effect<Connection.Connection, never, Scope.Scope> =>
  Effect.suspend(() => Connection.make(NodeTransport.fromDuplex(duplex, options), options))

/**
 * A connection as a `Duplex`, to be handed to a library that takes a stream. What only sockets have, such as
 * `setKeepAlive`, it has not.
 *
 * - It reads only what is asked for. A write's callback is called when the operating system has the chunk, so a slow peer
 *   holds up the writer. `end` half-closes (a connection that cannot be ended alone is closed).
 * - The connection's failure destroys the stream with the connection's own error; a local close of the connection
 *   destroys it without one.
 * - Destroying the stream closes the connection if everything was written and ended, and aborts it otherwise.
 *
 * The connection stays its scope's. Nothing else should read from it or write to it meanwhile. An `error` event that
 * nobody listens for is harmless: `Connection.closed` has it too.
 *
 * **Example** (A library that reads a Node stream)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Connection } from "effect-wire"
 * import { NodeConnection } from "effect-wire/node"
 * import { createInterface } from "node:readline"
 *
 * const program = Effect.gen(function* () {
 *   const [near, far] = yield* Connection.pair()
 *   yield* far.writer.write("one\ntwo\n")
 *   yield* far.writer.end
 *   const duplex = yield* NodeConnection.toDuplex(near)
 *   return yield* Stream.runCollect(Stream.fromAsyncIterable(createInterface(duplex), String))
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // [ "one", "two" ]
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const toDuplex = (self: Connection.Connection): Effect.Effect<Duplex> =>
  Effect.contextWith((context: Context.Context<never>) =>
    Effect.sync(() => new ConnectionDuplex(self, Effect.runForkWith(context)))
  )

type Callback = (error?: Error | null) => void

type Run = (effect: Effect.Effect<void>) => unknown

class ConnectionDuplex extends Duplex {
  private readonly connection: Connection.Connection
  private readonly run: Run

  constructor(connection: Connection.Connection, run: Run) {
    super({ allowHalfOpen: true })
    this.connection = connection
    this.run = run
    // One that nobody else listens for would end the process.
    this.on("error", () => {})
    run(
      Effect.match(connection.closed, {
        onFailure: (error) => this.onGone(error),
        onSuccess: () => this.onGone()
      })
    )
  }

  override _read(): void {
    this.run(
      Effect.match(this.connection.reader.read(), {
        onFailure: (error) => {
          const local = error._tag === "ConnectionError" && error.reason._tag === "ConnectionClosed"
          if (local) this.leave()
          else this.destroy(error)
        },
        onSuccess: (chunk) => {
          this.push(chunk.length === 0 ? null : chunk)
        }
      })
    )
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: Callback): void {
    this.send([chunk], callback)
  }

  override _writev(chunks: Array<{ readonly chunk: Uint8Array }>, callback: Callback): void {
    this.send(
      chunks.map(({ chunk }) => chunk),
      callback
    )
  }

  override _final(callback: Callback): void {
    const { close, writer } = this.connection
    this.settle(writer.canEnd ? writer.end : close, callback)
  }

  override _destroy(error: Error | null, callback: Callback): void {
    const { abort, close } = this.connection
    if (error !== null || !this.writableFinished)
      return void this.run(Effect.map(abort, () => callback(error)))
    // Closing takes as long as the peer takes, and nobody has to wait for it.
    this.run(close)
    callback(null)
  }

  // Whoever wrote may use the array again after the callback.
  private send(chunks: ReadonlyArray<Uint8Array>, callback: Callback): void {
    const { flush, writeAll } = this.connection.writer
    this.settle(Effect.andThen(writeAll(chunks), flush), callback)
  }

  private settle(effect: Effect.Effect<void, WriteError>, callback: Callback): void {
    this.run(Effect.match(effect, { onFailure: callback, onSuccess: () => callback() }))
  }

  // What came before is read first, and the end of the connection found behind it, unless the end of input is.
  private onGone(error?: Error): void {
    const leave = (): void => {
      if (error === undefined) this.leave()
      else this.destroy(error)
    }
    if (this.readableEnded) return leave()
    this.once("end", leave)
    this.read(0)
  }

  // After a local close, which may be what `end` has come to: then its end is told first.
  private leave(): void {
    if (this.writableEnded && !this.writableFinished) this.once("finish", () => this.destroy())
    else this.destroy()
  }
}
