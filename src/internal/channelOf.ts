import type * as Arr from "effect/Array"
import * as Channel from "effect/Channel"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import * as Stream from "effect/Stream"
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
