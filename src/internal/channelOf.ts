import { type Array as Arr, Channel, Deferred, Effect, Pull, Stream } from "effect"
import type { ReadError, WriteError } from "../StreamError.ts"
import type { Link } from "./Link.ts"

/** Sends what comes from upstream, in a fiber of its own, and gives what is received. */
export const channelOf = <IE>({
  reader,
  writer
}: Link): Channel.Channel<
  Arr.NonEmptyReadonlyArray<Uint8Array>,
  ReadError | WriteError | IE,
  void,
  Arr.NonEmptyReadonlyArray<Uint8Array | string>,
  IE
> =>
  Channel.fromTransform(
    Effect.fnUntraced(function* (upstream, scope) {
      const pull = yield* Channel.toPullScoped(Stream.toChannel(reader.stream), scope)
      const failed = Deferred.makeUnsafe<never, WriteError | IE>()
      yield* upstream.pipe(
        Effect.flatMap(writer.writeAll),
        Effect.forever({ disableYield: true }),
        Pull.catchDone(() => (writer.canEnd ? writer.end : Effect.void)),
        Effect.catchCause((cause) => Deferred.failCause(failed, cause)),
        Effect.forkIn(scope)
      )
      return Effect.raceFirst(pull, Deferred.await(failed))
    })
  )
