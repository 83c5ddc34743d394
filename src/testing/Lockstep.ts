/**
 * A pair of transports without any buffer: a write is done when the peer has read it.
 *
 * Over a socket, or `TestNetwork`, two sides that both write before they read get along until the messages outgrow the
 * buffers between them, in production as a rule. Over a lockstep pair they stop at the first byte.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
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
 * import { Connection } from "effect-wire"
 * import { Lockstep } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   const [left, right] = yield* Lockstep.makePair()
 *   const connections = [yield* Connection.make(left), yield* Connection.make(right)]
 *   // Both sides write first: nobody reads.
 *   return yield* Effect.forEach(
 *     connections,
 *     ({ reader, writer }) => Effect.andThen(writer.write("hello\n"), reader.readLineString),
 *     { concurrency: "unbounded" }
 *   )
 * }).pipe(Effect.scoped, Effect.timeoutOption("1 second"))
 *
 * console.log((await Effect.runPromise(program))._tag) // None
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makePair = (options?: PairOptions): Effect.Effect<[left: Transport, right: Transport]> =>
  MemoryTransport.makePair({ ...options, capacity: 0, readAhead: false })
