import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { TimeoutError } from "../StreamError.ts"
import type { Connection } from "./connection.ts"
import * as Limits from "./limits.ts"
import { formatAddress } from "./target.ts"
import { within } from "./within.ts"

export const addressOf = ({ info }: Connection): string | undefined => formatAddress(info.remoteAddress)

/** What a connection has to go through before anybody gets it, within its time. */
export const make = <E, R>(options: {
  readonly onConnect?: ((connection: Connection) => Effect.Effect<unknown, E, R | Scope.Scope>) | undefined
  readonly handshakeTimeout?: Duration.Input | undefined
}): ((connection: Connection) => Effect.Effect<unknown, E | TimeoutError, R | Scope.Scope>) => {
  const { onConnect } = options
  const timeout = Limits.timeout("handshakeTimeout", options.handshakeTimeout ?? "10 seconds")
  if (onConnect === undefined) return () => Effect.void
  const duration = Duration.millis(timeout)
  return (connection) =>
    within(
      Effect.suspend(() => onConnect(connection)),
      "handshake",
      "handshakeTimeout",
      duration,
      () => addressOf(connection)
    )
}
