import type * as Arr from "effect/Array"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Socket from "effect/socket/Socket"
import type { ReadError, WriteError } from "../StreamError.ts"
import type { Link } from "./Link.ts"

const toReadError = (cause: ReadError): Socket.SocketError =>
  new Socket.SocketError({ reason: new Socket.SocketReadError({ cause }) })

const toWriteError = (cause: WriteError): Socket.SocketError =>
  new Socket.SocketError({ reason: new Socket.SocketWriteError({ cause }) })

const closed = (code: number): Socket.SocketError =>
  new Socket.SocketError({ reason: new Socket.SocketCloseError({ code }) })

/** The connection as a `Socket`, of which neither end owns it. */
export const socketOf = ({ close, reader, writer }: Link): Socket.Socket => {
  const read = reader.read().pipe(
    Effect.mapError(toReadError),
    Effect.flatMap((bytes): Effect.Effect<Arr.NonEmptyReadonlyArray<Uint8Array>, Socket.SocketError> =>
      bytes.length === 0 ? Effect.fail(closed(1000)) : Effect.succeed([bytes])
    )
  )
  return Socket.make({
    reader: Effect.gen(function* () {
      // The scope's end fails the pulls that wait, as a `Socket` promises.
      const scopeEnd = Deferred.makeUnsafe<never, Socket.SocketError>()
      yield* Effect.addFinalizer(() => Deferred.fail(scopeEnd, closed(1006)))
      return {
        pull: Effect.raceFirst(read, Deferred.await(scopeEnd)),
        upgrade: Socket.SocketUpgradeError.unsupported
      }
    }),
    writer: Effect.acquireRelease(
      Effect.succeed<Socket.Writer>({
        write: (chunk) =>
          Socket.isCloseEvent(chunk) ? close : Effect.mapError(writer.write(chunk), toWriteError),
        writeAll: (chunks) => Effect.mapError(writer.writeAll(chunks), toWriteError)
      }),
      // In its turn: a write that the peer does not take must not hold up the scope.
      () => Effect.forkDetach(Effect.ignore(writer.end), { startImmediately: true })
    )
  })
}
