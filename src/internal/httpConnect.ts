import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import type { ConnectionErrorReason, TimeoutError } from "../StreamError.ts"
import { printable } from "./printable.ts"
import type { Handshake, TunnelTarget } from "./tunnel.ts"

/** A response's head may be so long, in bytes. */
const HEAD_LIMIT = 65_536

/** Interim responses (1xx) before the answer. */
const MAX_INTERIM = 8

/** The empty line, also of a server that ends its lines with LF alone (RFC 9112, section 2.2). */
const emptyLine = ["\n\r\n", "\n\n"]

const decoder = new TextDecoder("latin1")

/** Of a proxy's own words, so many characters are shown. */
const SHOWN = 100

const authorityOf = (target: TunnelTarget): string =>
  target._tag === "Host" ? `${target.host}:${target.port}` : NetAddress.formatInet(target.address)

/** Opens a tunnel (RFC 9110, section 9.3.6). `authorization` is the value of `Proxy-Authorization`. */
export const connect = Effect.fnUntraced(function* (
  { failure, readUntil, write }: Handshake,
  target: TunnelTarget,
  authorization: string | undefined
): Effect.fn.Return<void, ConnectionErrorReason | TimeoutError> {
  const authority = authorityOf(target)
  const headers = [`CONNECT ${authority} HTTP/1.1`, `Host: ${authority}`]
  if (authorization !== undefined) headers.push(`Proxy-Authorization: ${authorization}`)
  yield* write(`${headers.join("\r\n")}\r\n\r\n`)

  for (let interim = 0; interim <= MAX_INTERIM; interim++) {
    const head = decoder.decode(yield* readUntil(emptyLine, HEAD_LIMIT))
    const [statusLine = ""] = head.split(/\r?\n/, 1)
    const [, code, phrase = ""] = /^HTTP\/1\.\d ([1-9]\d\d)(?: (.*))?$/.exec(statusLine) ?? []
    if (code === undefined) {
      return yield* failure(
        "MalformedReply",
        `answered "${printable(statusLine, SHOWN)}", which is not HTTP/1.1`
      )
    }
    // Any 2xx opens the tunnel, and nothing but the tunnel follows its head.
    if (code.startsWith("2")) return
    if (code.startsWith("1")) continue
    return yield* failure(
      code === "407" ? "AuthenticationFailed" : "Refused",
      `answered ${code} ${printable(phrase, SHOWN)}`.trim(),
      `HTTP_${code}`
    )
  }
  return yield* failure("MalformedReply", `answered with more than ${MAX_INTERIM} interim responses`)
})
