import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import type { ReadError, WriteError } from "../StreamError.ts"
import {
  type ConnectionErrorReason,
  type IncompleteReadError,
  InvalidAddress,
  type LimitOverrunError,
  ProxyError,
  type TimeoutError,
  Unsupported
} from "../StreamError.ts"
import type { StreamReader } from "../StreamReader.ts"
import type { StreamWriter } from "../StreamWriter.ts"
import type { HostDestination, InetDestination, TargetDestination } from "./target.ts"

/** The two directions of a connection. */
export interface Duplex {
  readonly reader: StreamReader
  readonly writer: StreamWriter
}

/** What a proxy can be asked for. */
export type TunnelTarget = InetDestination | HostDestination

/** What a proxy's handshake is written against. Every failure but a time limit becomes a reason. */
export interface Handshake {
  readonly readExactly: (n: number) => Effect.Effect<Uint8Array, ConnectionErrorReason | TimeoutError>
  readonly readUntil: (
    separator: ReadonlyArray<string>,
    limit: number
  ) => Effect.Effect<Uint8Array, ConnectionErrorReason | TimeoutError>
  readonly write: (chunk: Uint8Array | string) => Effect.Effect<void, ConnectionErrorReason | TimeoutError>
  readonly failure: (
    kind: ProxyError["kind"],
    detail: string,
    code?: string
  ) => Effect.Effect<never, ProxyError>
}

/** What is wrong with an answer of more than so many bytes. */
export const tooLong = (limit: number): string =>
  `answered with more than ${limit} bytes before the tunnel was open`

export const handshakeWith = ({ reader, writer }: Duplex, proxy: string): Handshake => {
  let received = 0
  const counted = (
    bytes: Effect.Effect<Uint8Array, ReadError | IncompleteReadError | LimitOverrunError>
  ): Effect.Effect<Uint8Array, ProxyError | TimeoutError> =>
    Effect.mapBoth(bytes, {
      onSuccess: (chunk) => {
        received += chunk.length
        return chunk
      },
      onFailure: because
    })
  const because = (
    cause: ReadError | WriteError | IncompleteReadError | LimitOverrunError
  ): ProxyError | TimeoutError => {
    switch (cause._tag) {
      case "TimeoutError":
        return cause
      case "LimitOverrunError":
        return new ProxyError({
          proxy,
          kind: "MalformedReply",
          detail: tooLong(cause.limit),
          cause
        })
      case "IncompleteReadError":
        return new ProxyError({
          proxy,
          kind: "Closed",
          detail: `ended the connection in the middle of the handshake, after ${received + cause.partial.length} bytes from it`,
          cause
        })
      case "ConnectionError":
        return new ProxyError({
          proxy,
          kind: "Closed",
          detail: `was lost in the middle of the handshake: ${cause.reason.message}`,
          code: cause.reason.code,
          cause
        })
    }
  }
  return {
    readExactly: (n) => counted(reader.readExactly(n)),
    readUntil: (separator, limit) => counted(reader.readUntil(separator, { limit })),
    write: (chunk) => Effect.mapError(writer.write(chunk), because),
    failure: (kind, detail, code) => Effect.fail(new ProxyError({ proxy, kind, detail, code }))
  }
}

/** What a proxy can be asked for: names and IP addresses that mean the same to it as here. */
export const tunnelTarget = (
  destination: TargetDestination
): Effect.Effect<TunnelTarget, Unsupported | InvalidAddress> => {
  if (destination._tag === "Unix") {
    return Effect.fail(new Unsupported({ detail: "a Unix socket cannot be reached through a proxy" }))
  }
  const isScoped =
    destination._tag === "Host"
      ? destination.host.includes("%")
      : NetAddress.isInetAddressV6(destination.address) && destination.address.scopeId !== 0
  return isScoped
    ? Effect.fail(new InvalidAddress({ detail: "an IPv6 zone means nothing to a proxy" }))
    : Effect.succeed(destination)
}
