import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ReadError } from "../StreamError.ts"
import * as StreamTransport from "../StreamTransport.ts"
import type { Transport } from "../Transport.ts"
import type { Link } from "./Link.ts"

/**
 * What `through` does to the bytes of a connection. What a stream fails with is the connection's failure.
 *
 * @category models
 * @since 0.1.0
 */
export interface Transforms<out E = unknown, out R = never, out E2 = unknown, out R2 = never> {
  /** From what the peer sent to what is read. */
  readonly received?:
    ((stream: Stream.Stream<Uint8Array, ReadError>) => Stream.Stream<Uint8Array, E, R>) | undefined
  /** From what is written to what the peer gets. */
  readonly sent?: ((stream: Stream.Stream<Uint8Array>) => Stream.Stream<Uint8Array, E2, R2>) | undefined
}

/** A transport over a connection, which it ends, with something done to the bytes on their way. */
export const transportThrough = <E, R, E2, R2>(
  { abort, closed, reader, writer }: Link,
  release: Effect.Effect<void>,
  {
    kind,
    localAddress,
    remoteAddress,
    tls
  }: Pick<Transport, "kind" | "localAddress" | "remoteAddress" | "tls">,
  transforms: Transforms<E, R, E2, R2>
): Effect.Effect<Transport, never, R | R2 | Scope.Scope> => {
  const { received, sent } = transforms
  const incoming: Stream.Stream<Uint8Array, ReadError | E, R> =
    received === undefined ? reader.stream : received(reader.stream)
  const send = (source: Stream.Stream<Uint8Array, E2, R2>) =>
    Stream.runForEachArray(source, (chunks) => Effect.andThen(writer.writeAll(chunks), writer.flush))
  const end = writer.canEnd ? writer.end : Effect.void
  return StreamTransport.fromPumps(
    {
      incoming,
      outgoing: (source) => Effect.andThen(send(sent === undefined ? source : sent(source)), end),
      // Whoever is above has waited for the peer.
      close: release,
      abort,
      lost: closed
    },
    { kind, localAddress, remoteAddress, tls, canEnd: writer.canEnd }
  )
}
