import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import type { ConnectionErrorReason, TimeoutError } from "../StreamError.ts"
import { printable } from "./printable.ts"
import { type Handshake, tooLong, type TunnelTarget } from "./tunnel.ts"

/** A response's head may be so long, in bytes. */
const HEAD_LIMIT = 65_536

/** Interim responses (1xx) before the answer. */
const MAX_INTERIM = 8

/** Also that of a server that ends its lines with LF alone (RFC 9112, section 2.2). */
const emptyLines = ["\r\n", "\n"]

const decoder = new TextDecoder("latin1")

/** Of a proxy's own words, so many characters are shown. */
const SHOWN = 100

const authorityOf = (target: TunnelTarget): string =>
  target._tag === "Host" ? `${target.host}:${target.port}` : NetAddress.formatInet(target.address)

/** A header field, checked. */
export type Field = readonly [name: string, value: string]

const readLine = ({ readUntil }: Handshake): Effect.Effect<string, ConnectionErrorReason | TimeoutError> =>
  Effect.map(readUntil(["\n"], HEAD_LIMIT), (line) => decoder.decode(line))

const skipFields = Effect.fnUntraced(function* (
  handshake: Handshake,
  limit: number
): Effect.fn.Return<void, ConnectionErrorReason | TimeoutError> {
  for (let left = limit; left >= 0;) {
    const line = yield* readLine(handshake)
    if (emptyLines.includes(line)) return
    left -= line.length
  }
  return yield* handshake.failure("MalformedReply", tooLong(HEAD_LIMIT))
})

/** Opens a tunnel (RFC 9110, section 9.3.6), with more header fields in its request. */
export const connect = Effect.fnUntraced(function* (
  handshake: Handshake,
  target: TunnelTarget,
  fields: ReadonlyArray<Field>
): Effect.fn.Return<void, ConnectionErrorReason | TimeoutError> {
  const { failure, write } = handshake
  const authority = authorityOf(target)
  const lines = fields.map(([name, value]) => `${name}: ${value}`)
  yield* write([`CONNECT ${authority} HTTP/1.1`, `Host: ${authority}`, ...lines, "", ""].join("\r\n"))

  for (let interim = 0; interim <= MAX_INTERIM; interim++) {
    const line = yield* readLine(handshake)
    const statusLine = line.replace(/\r?\n$/, "")
    const [, code, phrase = ""] = /^HTTP\/1\.\d ([1-9]\d\d)(?: (.*))?$/.exec(statusLine) ?? []
    if (code === undefined) {
      return yield* failure(
        "MalformedReply",
        `answered "${printable(statusLine, SHOWN)}", which is not HTTP/1.1`
      )
    }
    // Any 2xx opens the tunnel, and nothing but the tunnel follows its head.
    const opens = code.startsWith("2")
    if (opens || code.startsWith("1")) {
      yield* skipFields(handshake, HEAD_LIMIT - line.length)
      if (opens) return
      continue
    }
    // 401 is an origin server's, and yet what tinyproxy says to a wrong password.
    return yield* failure(
      code === "407" || code === "401" ? "AuthenticationFailed" : "Refused",
      `answered ${code} ${printable(phrase, SHOWN)}`.trim(),
      `HTTP_${code}`
    )
  }
  return yield* failure("MalformedReply", `answered with more than ${MAX_INTERIM} interim responses`)
})
