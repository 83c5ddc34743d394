import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import type { ConnectionErrorReason, TimeoutError } from "../StreamError.ts"
import { encode } from "./bytes.ts"
import type { Handshake, TunnelTarget } from "./tunnel.ts"

/** Credentials in bytes, each of 1 to 255 (RFC 1929); the password may be empty, which servers take. */
export interface Credentials {
  readonly username: Uint8Array
  readonly password: Uint8Array
}

const VERSION = 5
const NO_AUTHENTICATION = 0
const USERNAME_PASSWORD = 2
const NONE_ACCEPTABLE = 0xff
const SUBNEGOTIATION_VERSION = 1
const CONNECT = 1
const IPV4 = 1
const NAME = 3
const IPV6 = 4

/** RFC 1928, section 6. */
const replies: ReadonlyArray<readonly [code: string, meaning: string]> = [
  ["SUCCEEDED", "succeeded"],
  ["GENERAL_FAILURE", "general failure"],
  ["NOT_ALLOWED", "not allowed by its rules"],
  ["NETWORK_UNREACHABLE", "network unreachable"],
  ["HOST_UNREACHABLE", "host unreachable"],
  ["CONNECTION_REFUSED", "connection refused"],
  ["TTL_EXPIRED", "time to live expired"],
  ["COMMAND_NOT_SUPPORTED", "command not supported"],
  ["ADDRESS_TYPE_NOT_SUPPORTED", "address type not supported"]
]

const addressOf = (target: TunnelTarget): ReadonlyArray<number> => {
  if (target._tag === "Host") {
    const name = encode(target.host)
    return [NAME, name.length, ...name]
  }
  const { address } = target.address
  return NetAddress.isIpv4Address(address)
    ? [IPV4, ...NetAddress.ipv4ToOctets(address)]
    : [IPV6, ...NetAddress.ipv6ToOctets(address)]
}

const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ")

const authenticate = Effect.fnUntraced(function* (
  { failure, readExactly, write }: Handshake,
  { password, username }: Credentials
): Effect.fn.Return<void, ConnectionErrorReason | TimeoutError> {
  yield* write(
    Uint8Array.from([SUBNEGOTIATION_VERSION, username.length, ...username, password.length, ...password])
  )
  const answer = yield* readExactly(2)
  if (answer[0] !== SUBNEGOTIATION_VERSION) {
    return yield* failure("MalformedReply", `answered ${hex(answer)} to the password`)
  }
  if (answer[1] !== 0) {
    return yield* failure("AuthenticationFailed", "does not accept the username and the password")
  }
})

/** Opens a tunnel (RFC 1928, with RFC 1929). Names are the proxy's to resolve. */
export const connect = Effect.fnUntraced(function* (
  handshake: Handshake,
  target: TunnelTarget,
  credentials: Credentials | undefined
): Effect.fn.Return<void, ConnectionErrorReason | TimeoutError> {
  const { failure, readExactly, write } = handshake
  const methods = credentials === undefined ? [NO_AUTHENTICATION] : [NO_AUTHENTICATION, USERNAME_PASSWORD]
  yield* write(Uint8Array.from([VERSION, methods.length, ...methods]))

  const choice = yield* readExactly(2)
  const [version, method] = choice
  if (version !== VERSION)
    return yield* failure("MalformedReply", `answered ${hex(choice)}, which is not SOCKS 5`)
  if (method === NONE_ACCEPTABLE) {
    return yield* failure(
      "AuthenticationFailed",
      credentials === undefined
        ? "wants credentials, or a method that is not supported; none were given"
        : "accepts neither a username with a password nor a connection without"
    )
  }
  if (method === USERNAME_PASSWORD && credentials !== undefined) yield* authenticate(handshake, credentials)
  else if (method !== NO_AUTHENTICATION) {
    return yield* failure("MalformedReply", `chose a method that was not offered (${method})`)
  }

  const port = target._tag === "Host" ? target.port : target.address.port
  yield* write(Uint8Array.from([VERSION, CONNECT, 0, ...addressOf(target), port >> 8, port & 0xff]))

  // A refusal may be all that comes.
  const head = yield* readExactly(2)
  const [replyVersion, reply = 0] = head
  if (replyVersion !== VERSION) {
    return yield* failure("MalformedReply", `answered ${hex(head)} to the request`)
  }
  if (reply !== 0) {
    const [code, meaning] = replies[reply] ?? [`REPLY_${reply}`, `reply ${reply}`]
    return yield* failure("Refused", `could not connect: ${meaning}`, `SOCKS5_${code}`)
  }
  // The address that the proxy connects from, which tells nothing to anyone here.
  const bound = yield* readExactly(3)
  const [, type, first = 0] = bound
  if (type === IPV4) yield* readExactly(3 + 2)
  else if (type === IPV6) yield* readExactly(15 + 2)
  else if (type === NAME) yield* readExactly(first + 2)
  else return yield* failure("MalformedReply", `answered with an address of unknown type ${type}`)
})
