/**
 * The typed failures of connections, readers, writers and servers.
 *
 * Every error is a `Schema.TaggedError`: it can be matched by tag, encoded to JSON and sent over RPC. A
 * `ConnectionError` and a `ListenError` carry a tagged `reason`, so a single cause can be handled with
 * `Effect.catchReason`.
 *
 * **Example** (Handling one reason)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { StreamError } from "effect-wire"
 *
 * const refused = new StreamError.ConnectionError({
 *   operation: "connect",
 *   address: "127.0.0.1:1",
 *   reason: new StreamError.ConnectionRefused({ code: "ECONNREFUSED" })
 * })
 *
 * const program = Effect.fail(refused).pipe(
 *   Effect.catchReason("ConnectionError", "ConnectionRefused", () => Effect.succeed("nobody listens")),
 *   Effect.tap((text) => Effect.log(text))
 * )
 *
 * await Effect.runPromise(program)
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { codeOf } from "./internal/code.ts"
import { messageOf, printable } from "./internal/printable.ts"
import { remedyFor } from "./internal/remedy.ts"

const bytes = (n: number): string => (n === 1 ? "1 byte" : `${n} bytes`)

const from = (address: string | undefined): string => (address === undefined ? "" : ` from ${address}`)

const to = (address: string | undefined): string => (address === undefined ? "" : ` to ${address}`)

const on = (address: string | undefined): string => (address === undefined ? "" : ` on ${address}`)

/**
 * The input ended before the operation had what it asked for.
 *
 * `partial` holds the bytes that came; they are consumed (except by `peek`). `expected` is how many bytes were
 * asked for, absent when a separator was, or a frame whose length was not known yet.
 *
 * @category errors
 * @since 0.1.0
 */
export class IncompleteReadError extends Schema.TaggedError<IncompleteReadError>(
  "effect-wire/IncompleteReadError"
)("IncompleteReadError", {
  partial: Schema.Uint8Array,
  expected: Schema.optional(Schema.Number),
  operation: Schema.optional(Schema.String),
  address: Schema.optional(Schema.String)
}) {
  override get message(): string {
    const wanted =
      this.expected !== undefined
        ? ` on a total of ${this.expected} expected bytes`
        : this.operation === "receive"
          ? " of a frame that is not complete"
          : ", and no separator among them"
    return printable(
      `${this.operation ?? "read"}: end of input${from(this.address)}, ${bytes(this.partial.length)} read${wanted}`
    )
  }
}

/**
 * A separator was not found within `limit` bytes, or the whole input is larger than `readAll` accepts.
 *
 * Nothing is removed from the buffer. `consumed` is how many bytes can be skipped without missing the
 * separator: `skip(consumed)` keeps them out of the way, `skipUntil(separator)` goes past the whole piece.
 *
 * @category errors
 * @since 0.1.0
 */
export class LimitOverrunError extends Schema.TaggedError<LimitOverrunError>("effect-wire/LimitOverrunError")(
  "LimitOverrunError",
  {
    limit: Schema.Number,
    consumed: Schema.Number,
    operation: Schema.optional(Schema.String),
    address: Schema.optional(Schema.String)
  }
) {
  override get message(): string {
    const operation = this.operation ?? "readUntil"
    const what = operation === "readAll" ? "more than" : "no separator within"
    const raise =
      operation === "readAll"
        ? "raise it with readAll({ maxBytes })"
        : "raise it with the option `limit` of the connection or server, or of this call; skipUntil goes past the separator"
    return printable(
      `${operation}: ${what} the limit of ${bytes(this.limit)}${from(this.address)} (${bytes(this.consumed)} can be skipped; nothing was consumed); ${raise}`
    )
  }
}

const reasonFields = {
  code: Schema.optional(Schema.String),
  cause: Schema.optional(Schema.Defect())
}

/**
 * Nobody listens at the address (`ECONNREFUSED`).
 *
 * @category reasons
 * @since 0.1.0
 */
export class ConnectionRefused extends Schema.TaggedError<ConnectionRefused>("effect-wire/ConnectionRefused")(
  "ConnectionRefused",
  reasonFields
) {
  override get message(): string {
    return "connection refused"
  }
}

/**
 * The peer reset the connection (`ECONNRESET`): bytes on their way, in either direction, may be lost.
 *
 * @category reasons
 * @since 0.1.0
 */
export class ConnectionReset extends Schema.TaggedError<ConnectionReset>("effect-wire/ConnectionReset")(
  "ConnectionReset",
  reasonFields
) {
  override get message(): string {
    return "connection reset by peer"
  }
}

/**
 * The connection was aborted on this side, by `abort` or by the operating system (`ECONNABORTED`).
 *
 * @category reasons
 * @since 0.1.0
 */
export class ConnectionAborted extends Schema.TaggedError<ConnectionAborted>("effect-wire/ConnectionAborted")(
  "ConnectionAborted",
  reasonFields
) {
  override get message(): string {
    return "connection aborted"
  }
}

/**
 * Written to a side that is closed for writing: after `end`, or when the peer stopped reading (`EPIPE`).
 *
 * @category reasons
 * @since 0.1.0
 */
export class BrokenPipe extends Schema.TaggedError<BrokenPipe>("effect-wire/BrokenPipe")(
  "BrokenPipe",
  reasonFields
) {
  override get message(): string {
    return "broken pipe: the connection is closed for writing"
  }
}

/**
 * The connection was used after it was closed on this side.
 *
 * @category reasons
 * @since 0.1.0
 */
export class ConnectionClosed extends Schema.TaggedError<ConnectionClosed>("effect-wire/ConnectionClosed")(
  "ConnectionClosed",
  reasonFields
) {
  override get message(): string {
    return "the connection is closed"
  }
}

/**
 * No route to the host or network (`EHOSTUNREACH`, `ENETUNREACH`), or the operating system gave up on it
 * (`ETIMEDOUT`).
 *
 * @category reasons
 * @since 0.1.0
 */
export class Unreachable extends Schema.TaggedError<Unreachable>("effect-wire/Unreachable")(
  "Unreachable",
  reasonFields
) {
  override get message(): string {
    return "host or network unreachable"
  }
}

/**
 * The host name does not resolve to an address.
 *
 * @category reasons
 * @since 0.1.0
 */
export class NameNotResolved extends Schema.TaggedError<NameNotResolved>("effect-wire/NameNotResolved")(
  "NameNotResolved",
  reasonFields
) {
  override get message(): string {
    return "the host name does not resolve"
  }
}

/**
 * There is no socket at the Unix path (`ENOENT`).
 *
 * @category reasons
 * @since 0.1.0
 */
export class NotFound extends Schema.TaggedError<NotFound>("effect-wire/NotFound")("NotFound", reasonFields) {
  override get message(): string {
    return "no such file"
  }
}

/**
 * The operating system denies access (`EACCES`, `EPERM`).
 *
 * @category reasons
 * @since 0.1.0
 */
export class PermissionDenied extends Schema.TaggedError<PermissionDenied>("effect-wire/PermissionDenied")(
  "PermissionDenied",
  reasonFields
) {
  override get message(): string {
    return "permission denied"
  }
}

/**
 * What went wrong with TLS:
 *
 * - about the peer's certificate: `CertificateExpired`, `CertificateNotYetValid`, `SelfSigned`, `UnknownCa` (nobody who
 *   is trusted vouches for it), `WrongHost` (it is for somebody else), `BadCertificate` (anything else);
 * - nothing in common: `NoSharedVersion`, `NoSharedCipher`, `NoSharedAlpn`;
 * - `ClientCertificateRequired`: the server wants a certificate from the client, who has shown none;
 * - `Refused`: the peer gave up, with an alert that is the `code`; a `handshake_failure` may mean no shared cipher, or, in
 *   TLS 1.2, a missing client certificate;
 * - `NotTls`: what the peer sent is something else;
 * - `InvalidIdentity`: the own certificate or key cannot be used;
 * - `InvalidOptions`: another option cannot be used; the message names it;
 * - `Failed`: anything else.
 *
 * @category reasons
 * @since 0.1.0
 */
export const TlsErrorKind = Schema.Literals([
  "CertificateExpired",
  "CertificateNotYetValid",
  "SelfSigned",
  "UnknownCa",
  "WrongHost",
  "BadCertificate",
  "NoSharedVersion",
  "NoSharedCipher",
  "NoSharedAlpn",
  "ClientCertificateRequired",
  "Refused",
  "NotTls",
  "InvalidIdentity",
  "InvalidOptions",
  "Failed"
])

/**
 * What went wrong with TLS.
 *
 * @category reasons
 * @since 0.1.0
 */
export type TlsErrorKind = typeof TlsErrorKind.Type

/**
 * TLS failed: the handshake, a certificate, or the record layer. `kind` is `"Failed"` unless given. `peer` is whom the peer
 * was expected to be, or who it says it is; `detail` adds what the kind leaves open.
 *
 * @category reasons
 * @since 0.1.0
 */
export class TlsError extends Schema.TaggedError<TlsError>("effect-wire/TlsError")("TlsError", {
  ...reasonFields,
  kind: TlsErrorKind.pipe(Schema.withConstructorDefault(Effect.succeed("Failed" as const))),
  peer: Schema.optional(Schema.String),
  detail: Schema.optional(Schema.String)
}) {
  override get message(): string {
    const { what, remedy } = describeTls(this.kind, this.peer ?? "the peer", this.code)
    const detail = this.detail === undefined ? "" : `: ${this.detail}`
    return printable(`${what}${detail}${remedy === undefined ? "" : `; ${remedy}`}`)
  }
}

interface TlsDescription {
  readonly what: string
  readonly remedy?: string | undefined
}

const describeTls = (kind: TlsErrorKind, peer: string, code: string | undefined): TlsDescription => {
  switch (kind) {
    case "CertificateExpired":
      return { what: `the certificate of ${peer} has expired` }
    case "CertificateNotYetValid":
      return { what: `the certificate of ${peer} is not yet valid` }
    case "SelfSigned":
      return {
        what: `the certificate of ${peer} is self-signed`,
        remedy: "the option `ca` can make it trusted"
      }
    case "UnknownCa":
      return {
        what: `the certificate of ${peer} is not from an authority that is trusted`,
        remedy: "the option `ca` names others, and the peer has to send intermediate certificates"
      }
    case "WrongHost":
      return { what: `the certificate is not for ${peer}` }
    case "BadCertificate":
      return { what: `the certificate of ${peer} is not accepted` }
    case "NoSharedVersion":
      return {
        what: `no TLS version in common with ${peer}`,
        remedy: "the options `minVersion` and `maxVersion` say which there are"
      }
    case "NoSharedCipher":
      return {
        what: `no cipher in common with ${peer}`,
        remedy: "the option `ciphers`, and the kind of key of the certificate, say which there are"
      }
    case "NoSharedAlpn":
      return {
        what: `no application protocol (ALPN) in common with ${peer}`,
        remedy: "the option `alpn` says which there are"
      }
    case "ClientCertificateRequired":
      return {
        what: `a client certificate is required, and none was shown, between here and ${peer}`,
        remedy: "a client shows one with the option `identity`"
      }
    case "Refused":
      return { what: `${peer} refused the TLS handshake`, remedy: refusals(code ?? "") }
    case "NotTls":
      return {
        what: `what ${peer} sent is not TLS`,
        remedy: "it may be another port, or one where TLS is asked for first (`upgradeTls`)"
      }
    case "InvalidIdentity":
      return { what: "the own certificate or key cannot be used" }
    case "InvalidOptions":
      return { what: "an option of TLS cannot be used" }
    case "Failed":
      return { what: `TLS with ${peer} failed` }
  }
}

/** What an alert means that says little. */
const refusals = (code: string): string | undefined => {
  if (code.endsWith("_ALERT_HANDSHAKE_FAILURE")) {
    return "it may have no cipher in common, or want a client certificate (`identity`)"
  }
  if (/_ALERT_(\w*CERTIFICATE\w*|UNKNOWN_CA|ACCESS_DENIED)$/.test(code)) {
    return "it does not accept the certificate of this side (`identity`)"
  }
  return code.endsWith("_ALERT_UNRECOGNIZED_NAME") ? "it does not serve that name (`servername`)" : undefined
}

/**
 * The peer ended the connection without TLS's own end (close_notify): somebody may have cut off bytes. `detail` says
 * what else it may mean.
 *
 * @category reasons
 * @since 0.1.0
 */
export class TlsTruncated extends Schema.TaggedError<TlsTruncated>("effect-wire/TlsTruncated")(
  "TlsTruncated",
  { ...reasonFields, detail: Schema.optional(Schema.String) }
) {
  override get message(): string {
    const detail = this.detail === undefined ? "" : `; ${this.detail}`
    return printable(`the connection ended without a TLS close_notify: the input may be cut off${detail}`)
  }
}

/**
 * A connection was to be upgraded to TLS while `bytes` plain bytes were received and not read. Nothing was changed: they can
 * be read, or the upgrade be tried with `leftover` set to `"discard"` or `"feed"`. If they came while the handshake began,
 * the connection has ended.
 *
 * @category reasons
 * @since 0.1.0
 */
export class PlaintextBuffered extends Schema.TaggedError<PlaintextBuffered>("effect-wire/PlaintextBuffered")(
  "PlaintextBuffered",
  { ...reasonFields, bytes: Schema.Number }
) {
  override get message(): string {
    return `${bytes(this.bytes)} of plain input not read before the upgrade to TLS; read them first, or set \`leftover\``
  }
}

/**
 * A pool has made a connection that it cannot lend: `bytes` bytes were received that its handshake, `onConnect`, has not
 * read. Whoever borrowed it would take them for the answer to a question of its own.
 *
 * @category reasons
 * @since 0.1.0
 */
export class UnreadInput extends Schema.TaggedError<UnreadInput>("effect-wire/UnreadInput")("UnreadInput", {
  ...reasonFields,
  bytes: Schema.Number
}) {
  override get message(): string {
    return `${bytes(this.bytes)} received that nobody has read; have \`onConnect\` read all that the peer sends before it is asked, such as a greeting or the rest of an answer`
  }
}

/**
 * The address is in use (`EADDRINUSE`).
 *
 * @category reasons
 * @since 0.1.0
 */
export class AddressInUse extends Schema.TaggedError<AddressInUse>("effect-wire/AddressInUse")(
  "AddressInUse",
  reasonFields
) {
  override get message(): string {
    return "address already in use"
  }
}

/**
 * The address is not one of this host (`EADDRNOTAVAIL`), or no port is free.
 *
 * @category reasons
 * @since 0.1.0
 */
export class AddressNotAvailable extends Schema.TaggedError<AddressNotAvailable>(
  "effect-wire/AddressNotAvailable"
)("AddressNotAvailable", { ...reasonFields, detail: Schema.optional(Schema.String) }) {
  override get message(): string {
    return this.detail === undefined ? "address not available" : `address not available: ${this.detail}`
  }
}

/**
 * The host, port or path cannot be an address: a port outside 0 to 65535, a Unix path that is too long.
 *
 * @category reasons
 * @since 0.1.0
 */
export class InvalidAddress extends Schema.TaggedError<InvalidAddress>("effect-wire/InvalidAddress")(
  "InvalidAddress",
  {
    ...reasonFields,
    detail: Schema.optional(Schema.String)
  }
) {
  override get message(): string {
    return this.detail === undefined ? "invalid address" : printable(`invalid address: ${this.detail}`)
  }
}

/**
 * The process or the system has no descriptor or memory left for another connection (`EMFILE`, `ENFILE`,
 * `ENOBUFS`, `ENOMEM`).
 *
 * @category reasons
 * @since 0.1.0
 */
export class ResourcesExhausted extends Schema.TaggedError<ResourcesExhausted>(
  "effect-wire/ResourcesExhausted"
)("ResourcesExhausted", reasonFields) {
  override get message(): string {
    return "out of file descriptors or memory"
  }
}

/**
 * The transport cannot do what was asked of it, such as a half-close over a WebSocket.
 *
 * @category reasons
 * @since 0.1.0
 */
export class Unsupported extends Schema.TaggedError<Unsupported>("effect-wire/Unsupported")("Unsupported", {
  ...reasonFields,
  detail: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return this.detail === undefined
      ? "not supported by this transport"
      : printable(`not supported: ${this.detail}`)
  }
}

/**
 * A proxy did not open the tunnel. `proxy` is its address; `kind` tells
 *
 * - `Refused`: it could not, or may not, reach the target; `code` is the reply (`SOCKS5_HOST_UNREACHABLE`, `HTTP_502`);
 * - `AuthenticationFailed`: it wants other credentials, or some at all;
 * - `MalformedReply`: what it answered is not of its protocol;
 * - `Closed`: the connection to it ended before its answer was complete; `cause` says how.
 *
 * @category reasons
 * @since 0.1.0
 */
export class ProxyError extends Schema.TaggedError<ProxyError>("effect-wire/ProxyError")("ProxyError", {
  ...reasonFields,
  proxy: Schema.String,
  kind: Schema.Literals(["Refused", "AuthenticationFailed", "MalformedReply", "Closed"]),
  detail: Schema.String
}) {
  override get message(): string {
    return printable(`the proxy ${this.proxy} ${this.detail}`)
  }
}

/**
 * Any other failure; `cause` and `code` are the platform's own.
 *
 * @category reasons
 * @since 0.1.0
 */
export class UnknownReason extends Schema.TaggedError<UnknownReason>("effect-wire/UnknownReason")(
  "UnknownReason",
  reasonFields
) {
  override get message(): string {
    return printable(this.cause instanceof Error ? this.cause.message : (this.code ?? "unknown failure"))
  }
}

/**
 * Schema of the reasons of a `ConnectionError`.
 *
 * @category reasons
 * @since 0.1.0
 */
export const ConnectionErrorReason = Schema.Union([
  ConnectionRefused,
  ConnectionReset,
  ConnectionAborted,
  BrokenPipe,
  ConnectionClosed,
  Unreachable,
  NameNotResolved,
  NotFound,
  PermissionDenied,
  TlsError,
  TlsTruncated,
  PlaintextBuffered,
  UnreadInput,
  AddressInUse,
  AddressNotAvailable,
  InvalidAddress,
  ResourcesExhausted,
  Unsupported,
  ProxyError,
  UnknownReason
])

/**
 * Why a connection failed.
 *
 * @category reasons
 * @since 0.1.0
 */
export type ConnectionErrorReason = typeof ConnectionErrorReason.Type

/**
 * One address that was tried, and why it did not connect.
 *
 * @category models
 * @since 0.1.0
 */
export const ConnectAttempt = Schema.Struct({ address: Schema.String, reason: ConnectionErrorReason })

/**
 * One address that was tried, and why it did not connect.
 *
 * @category models
 * @since 0.1.0
 */
export type ConnectAttempt = typeof ConnectAttempt.Type

/**
 * A deadline passed. `operation` is `connect`, `handshake`, `read`, `write`, `idle`, `acquire` (a pool's or a link's
 * connection), `request` (`Framed`) or `proxyProtocol` (a client's PROXY header); `duration` is the time that was allowed.
 * `option` is the option that raises it, if one set it. A graceful close that runs out of time is no error: the connection
 * is aborted.
 *
 * A `connect` has the addresses that were tried so far in `attempts`, in the order of trying; one without a `reason` had
 * not answered. There are none if the name was not resolved in time. Through proxies, `proxy` is the one it had come to,
 * and what it was doing there: connecting to it (`attempts` are its addresses), the handshake of TLS with it, or waiting
 * until it had opened the tunnel.
 *
 * `detail` says what was waited for, where the operation alone does not: an `acquire` that all connections were in use, or
 * on their way, or when a link tries again. `cause` is why the last attempt to connect failed, if it did; more time would
 * have been no use then.
 *
 * @category errors
 * @since 0.1.0
 */
export class TimeoutError extends Schema.TaggedError<TimeoutError>("effect-wire/TimeoutError")(
  "TimeoutError",
  {
    operation: Schema.String,
    duration: Schema.Duration,
    address: Schema.optional(Schema.String),
    attempts: Schema.optional(
      Schema.Array(
        Schema.Struct({ ...ConnectAttempt.fields, reason: Schema.optional(ConnectionErrorReason) })
      )
    ),
    proxy: Schema.optional(
      Schema.Struct({ address: Schema.String, stage: Schema.Literals(["connect", "tls", "tunnel"]) })
    ),
    option: Schema.optional(Schema.String),
    detail: Schema.optional(Schema.String),
    cause: Schema.optional(Schema.Defect())
  }
) {
  override get message(): string {
    const where = this.operation === "connect" ? to(this.address) : on(this.address)
    const unresolved = this.attempts?.length === 0 ? "; its name was not resolved by then" : ""
    const detail = this.detail === undefined ? "" : `; ${this.detail}`
    const why = this.cause === undefined ? "" : `; the last error: ${messageOf(this.cause)}`
    const raise =
      this.option === undefined || this.cause !== undefined ? "" : `; raise it with \`${this.option}\``
    const far = this.proxy === undefined ? "" : `, ${stages[this.proxy.stage](this.proxy.address)}`
    return printable(
      `${this.operation}${where}: timed out after ${Duration.format(this.duration)}${far}${unresolved}${tried(this)}${detail}${why}${raise}`
    )
  }
}

const stages: Record<"connect" | "tls" | "tunnel", (proxy: string) => string> = {
  connect: (proxy) => `connecting to the proxy ${proxy}`,
  tls: (proxy) => `in the TLS handshake with the proxy ${proxy}`,
  tunnel: (proxy) => `waiting for the proxy ${proxy} to open the tunnel`
}

/** Lists attempts, unless there was but one, at the address that is named anyway. */
const tried = ({ address: target, attempts }: Pick<TimeoutError, "address" | "attempts">): string =>
  attempts === undefined || attempts.every(({ address }) => address === target)
    ? ""
    : `; tried ${attempts.map(({ address, reason }) => `${address} (${reason?.message ?? "no answer"})`).join(", ")}`

/**
 * The transport failed. `operation` is what was being done (`connect`, `handshake`, `read`, `write`, `end`, …),
 * `address` the peer, `reason` why. A connect that tried several addresses lists them in `attempts`, in the order of trying.
 * Where a proxy cannot be reached, or TLS with it fails, `address` is the proxy's, and `proxyFor` the target that it was for.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectionError extends Schema.TaggedError<ConnectionError>("effect-wire/ConnectionError")(
  "ConnectionError",
  {
    operation: Schema.String,
    reason: ConnectionErrorReason,
    address: Schema.optional(Schema.String),
    attempts: Schema.optional(Schema.Array(ConnectAttempt)),
    proxyFor: Schema.optional(Schema.String)
  }
) {
  override get message(): string {
    const where = this.operation === "connect" ? to(this.address) : on(this.address)
    const proxy = this.proxyFor === undefined ? "" : `; it is the proxy for ${this.proxyFor}`
    return printable(
      `${this.operation}${where}: ${describeReason(this.reason)}${tried(this)}${proxy}${remedyFor(this.operation, this.reason, this.address)}`
    )
  }
}

/**
 * Schema of the reasons of a `ListenError`.
 *
 * @category reasons
 * @since 0.1.0
 */
export const ListenErrorReason = Schema.Union([
  AddressInUse,
  AddressNotAvailable,
  PermissionDenied,
  InvalidAddress,
  NameNotResolved,
  NotFound,
  ResourcesExhausted,
  TlsError,
  Unsupported,
  UnknownReason
])

/**
 * Why a server cannot listen, or not accept.
 *
 * @category reasons
 * @since 0.1.0
 */
export type ListenErrorReason = typeof ListenErrorReason.Type

/**
 * A server cannot listen on `address`, or cannot accept from it: `operation` tells which, `listen` unless given.
 *
 * @category errors
 * @since 0.1.0
 */
export class ListenError extends Schema.TaggedError<ListenError>("effect-wire/ListenError")("ListenError", {
  reason: ListenErrorReason,
  address: Schema.String,
  operation: Schema.optional(Schema.Literals(["listen", "accept"]))
}) {
  override get message(): string {
    const operation = this.operation ?? "listen"
    return printable(
      `${operation} on ${this.address}: ${describeReason(this.reason)}${remedyFor(operation, this.reason, this.address)}`
    )
  }
}

const describeReason = (reason: ConnectionErrorReason | ListenErrorReason): string =>
  reason.code === undefined ? reason.message : `${reason.message} (${reason.code})`

/**
 * What every read can fail with.
 *
 * @category errors
 * @since 0.1.0
 */
export type ReadError = ConnectionError | TimeoutError

/**
 * What every write can fail with.
 *
 * @category errors
 * @since 0.1.0
 */
export type WriteError = ConnectionError | TimeoutError

/**
 * Any error of this library.
 *
 * @category errors
 * @since 0.1.0
 */
export type StreamError =
  IncompleteReadError | LimitOverrunError | TimeoutError | ConnectionError | ListenError

/**
 * Tells whether a value is one of this library's errors.
 *
 * @category guards
 * @since 0.1.0
 */
export const isStreamError = (u: unknown): u is StreamError =>
  u instanceof IncompleteReadError ||
  u instanceof LimitOverrunError ||
  u instanceof TimeoutError ||
  u instanceof ConnectionError ||
  u instanceof ListenError

type ReasonClass = new (props: { readonly code: string; readonly cause?: unknown }) => ConnectionErrorReason

const reasonByCode: Record<string, ReasonClass | undefined> = {
  ECONNREFUSED: ConnectionRefused,
  ECONNRESET: ConnectionReset,
  ECONNABORTED: ConnectionAborted,
  EPIPE: BrokenPipe,
  ERR_STREAM_WRITE_AFTER_END: BrokenPipe,
  ERR_STREAM_DESTROYED: ConnectionClosed,
  ERR_STREAM_PREMATURE_CLOSE: ConnectionReset,
  EHOSTUNREACH: Unreachable,
  ENETUNREACH: Unreachable,
  EHOSTDOWN: Unreachable,
  ENETDOWN: Unreachable,
  ETIMEDOUT: Unreachable,
  ENOTFOUND: NameNotResolved,
  EAI_AGAIN: NameNotResolved,
  EAI_NONAME: NameNotResolved,
  EAI_FAMILY: NameNotResolved,
  ENODATA: NameNotResolved,
  ENOENT: NotFound,
  ENOTDIR: NotFound,
  EACCES: PermissionDenied,
  EPERM: PermissionDenied,
  EADDRINUSE: AddressInUse,
  EADDRNOTAVAIL: AddressNotAvailable,
  EAFNOSUPPORT: AddressNotAvailable,
  ENAMETOOLONG: InvalidAddress,
  ERR_SOCKET_BAD_PORT: InvalidAddress,
  EMFILE: ResourcesExhausted,
  ENFILE: ResourcesExhausted,
  ENOBUFS: ResourcesExhausted,
  ENOMEM: ResourcesExhausted
}

const tlsKindByCode: Record<string, TlsErrorKind | undefined> = {
  CERT_HAS_EXPIRED: "CertificateExpired",
  CERT_NOT_YET_VALID: "CertificateNotYetValid",
  DEPTH_ZERO_SELF_SIGNED_CERT: "SelfSigned",
  SELF_SIGNED_CERT_IN_CHAIN: "UnknownCa",
  UNABLE_TO_GET_ISSUER_CERT: "UnknownCa",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "UnknownCa",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "UnknownCa",
  CERT_UNTRUSTED: "UnknownCa",
  ERR_TLS_CERT_ALTNAME_INVALID: "WrongHost",
  HOSTNAME_MISMATCH: "WrongHost",
  CERT_REVOKED: "BadCertificate",
  CERT_REJECTED: "BadCertificate",
  CERT_CHAIN_TOO_LONG: "BadCertificate",
  CERT_SIGNATURE_FAILURE: "BadCertificate",
  ERROR_IN_CERT_NOT_BEFORE_FIELD: "BadCertificate",
  ERROR_IN_CERT_NOT_AFTER_FIELD: "BadCertificate",
  UNABLE_TO_DECRYPT_CERT_SIGNATURE: "BadCertificate",
  UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY: "BadCertificate",
  UNABLE_TO_GET_CRL: "BadCertificate",
  UNABLE_TO_DECRYPT_CRL_SIGNATURE: "BadCertificate",
  CRL_SIGNATURE_FAILURE: "BadCertificate",
  CRL_NOT_YET_VALID: "BadCertificate",
  CRL_HAS_EXPIRED: "BadCertificate",
  ERROR_IN_CRL_LAST_UPDATE_FIELD: "BadCertificate",
  ERROR_IN_CRL_NEXT_UPDATE_FIELD: "BadCertificate",
  INVALID_CA: "BadCertificate",
  INVALID_PURPOSE: "BadCertificate",
  PATH_LENGTH_EXCEEDED: "BadCertificate",
  UNSPECIFIED: "BadCertificate",
  EE_KEY_TOO_SMALL: "BadCertificate",
  CA_KEY_TOO_SMALL: "BadCertificate",
  CA_MD_TOO_WEAK: "BadCertificate",
  ERR_SSL_NO_SHARED_CIPHER: "NoSharedCipher",
  ERR_SSL_NO_CIPHERS_AVAILABLE: "NoSharedCipher",
  ERR_SSL_UNSUPPORTED_PROTOCOL: "NoSharedVersion",
  ERR_SSL_VERSION_TOO_LOW: "NoSharedVersion",
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: "NoSharedVersion",
  ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL: "NoSharedAlpn",
  ERR_SSL_NO_APPLICATION_PROTOCOL: "NoSharedAlpn",
  ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: "ClientCertificateRequired",
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: "ClientCertificateRequired",
  ERR_SSL_WRONG_VERSION_NUMBER: "NotTls",
  ERR_SSL_HTTP_REQUEST: "NotTls",
  ERR_SSL_HTTPS_PROXY_REQUEST: "NotTls",
  ERR_SSL_PACKET_LENGTH_TOO_LONG: "NotTls",
  ERR_SSL_RECORD_LAYER_FAILURE: "NotTls",
  EPROTO: "Failed"
}

/** What went wrong with TLS, if it is TLS that a code is about. */
const tlsKindOf = (code: string): TlsErrorKind | undefined => {
  const kind = tlsKindByCode[code]
  if (kind !== undefined) return kind
  if (code.startsWith("ERR_OSSL_")) return "InvalidIdentity"
  if (!code.startsWith("ERR_SSL_") && !code.startsWith("ERR_TLS_")) return undefined
  return code.includes("_ALERT_") ? "Refused" : "Failed"
}

const isConnectionErrorReason = Schema.is(ConnectionErrorReason)

/**
 * The reason that a platform's error stands for, by its `code` (an errno name such as `ECONNRESET`). A reason stands for
 * itself.
 *
 * **Example** (An errno and what it stands for)
 *
 * ```ts
 * import { StreamError } from "effect-wire"
 *
 * const cause = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" })
 *
 * console.log(StreamError.reasonFromCause(cause)._tag) // ConnectionReset
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const reasonFromCause = (cause: unknown): ConnectionErrorReason => {
  if (cause instanceof ConnectionError) return cause.reason
  if (isConnectionErrorReason(cause)) return cause
  const code = codeOf(cause)
  if (code === undefined) return new UnknownReason({ cause })
  const Reason = reasonByCode[code]
  if (Reason !== undefined) return new Reason({ code, cause })
  const kind = tlsKindOf(code)
  return kind === undefined ? new UnknownReason({ code, cause }) : new TlsError({ code, cause, kind })
}

/**
 * A `ConnectionError` from whatever the platform threw or emitted.
 *
 * **Example** (What a transport of your own fails with)
 *
 * ```ts
 * import { StreamError } from "effect-wire"
 *
 * const cause = Object.assign(new Error("write EPIPE"), { code: "EPIPE" })
 * const error = StreamError.connectionErrorFromCause({ operation: "write", cause, address: "127.0.0.1:80" })
 *
 * console.log(error.message) // write on 127.0.0.1:80: broken pipe: … (EPIPE)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const connectionErrorFromCause = (options: {
  readonly operation: string
  readonly cause: unknown
  readonly address?: string | undefined
}): ConnectionError =>
  new ConnectionError({
    operation: options.operation,
    address: options.address,
    reason: reasonFromCause(options.cause)
  })

const isListenErrorReason = Schema.is(ListenErrorReason)

/**
 * A `ListenError` from whatever the platform threw or emitted.
 *
 * **Example** (A port that is taken)
 *
 * ```ts
 * import { StreamError } from "effect-wire"
 *
 * const cause = Object.assign(new Error("listen EADDRINUSE"), { code: "EADDRINUSE" })
 * const error = StreamError.listenErrorFromCause({ cause, address: "127.0.0.1:80" })
 *
 * console.log(error.reason._tag) // AddressInUse
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const listenErrorFromCause = (options: {
  readonly cause: unknown
  readonly address: string
  readonly operation?: "listen" | "accept" | undefined
}): ListenError => {
  const reason = reasonFromCause(options.cause)
  return new ListenError({
    operation: options.operation,
    address: options.address,
    reason: isListenErrorReason(reason)
      ? reason
      : new UnknownReason({ code: codeOf(options.cause), cause: options.cause })
  })
}
