/**
 * A pair of transports without any buffer: a write is done when the peer has read it.
 *
 * Over a socket, or `TestNetwork`, two sides that both write before they read get along until the messages outgrow the
 * buffers between them, in production as a rule. Over a lockstep pair they stop at the first byte.
 *
 * @since 0.1.0
 */
import type { Effect } from "effect"
import * as MemoryTransport from "../MemoryTransport.ts"
import type { Transport } from "../Transport.ts"

/**
 * The addresses of the first transport; the second has them the other way round.
 *
 * @category models
 * @since 0.1.0
 */
export type PairOptions = Pick<MemoryTransport.PairOptions, "localAddress" | "remoteAddress">

/**
 * Makes two connected transports that hold nothing between them: a connection on one takes bytes only while a read waits
 * for them, and a write on the other waits until they were taken. Everything else is as in `MemoryTransport.makePair`.
 *
 * **Example** (Finding a deadlock)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, StreamError } from "effect-wire"
 * import { Lockstep } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   const [left, right] = yield* Lockstep.makePair()
 *   const a = yield* Connection.make(left)
 *   const b = yield* Connection.make(right)
 *   // Both sides write first: nobody reads.
 *   const hello = (connection: Connection.Connection) =>
 *     Effect.andThen(connection.writer.write("hello\n"), connection.reader.readLine)
 *   return yield* Effect.all([hello(a), hello(b)], { concurrency: "unbounded" })
 * }).pipe(
 *   Effect.scoped,
 *   Effect.timeoutOrElse({
 *     duration: "1 second",
 *     orElse: () => Effect.fail(new StreamError.TimeoutError({ operation: "hello", duration: "1 second" }))
 *   })
 * )
 *
 * console.log((await Effect.runPromiseExit(program))._tag) // Failure
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makePair = (options?: PairOptions): Effect.Effect<[left: Transport, right: Transport]> =>
  MemoryTransport.makePair({ ...options, capacity: 0, readAhead: false })
