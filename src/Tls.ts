/**
 * Options of TLS, for both sides.
 *
 * TLS is an upgrade of a connection: `Connection.connect` and `Server.serve` make it at once with their option `tls`, and
 * `connection.upgradeTls` makes it when the protocol says so (STARTTLS).
 *
 * **Example** (A server, and a client that trusts its certificate)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Server, Tls } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * // Over `NodeNetwork`, certificates and keys are PEM text.
 * const identity = TestNetwork.identity({ names: ["db.internal"], selfSigned: true })
 * const client: Tls.TlsOptions = { ca: identity.certificate, servername: "db.internal", alpn: ["db/1"] }
 * const server: Tls.ServerOptions = { identity, alpn: ["db/2", "db/1"] }
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve(({ writer }) => writer.write("hello\n"), { listen: { port: 5433 }, tls: server })
 *   const { info, reader } = yield* Connection.connect("localhost:5433", { tls: client })
 *   console.log(info.tls?.protocol, info.tls?.alpn, info.tls?.authorized) // TLSv1.3 db/1 true
 *   console.log(yield* reader.readLineString) // some("hello")
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))
 * ```
 *
 * @since 0.1.0
 */
import type * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Host from "effect/net/Host"
import { encode } from "./internal/bytes.ts"
import * as Limits from "./internal/limits.ts"
import { quoted } from "./internal/printable.ts"
import type { TlsErrorKind } from "./StreamError.ts"

/**
 * One or more certificates, or a key: PEM text, as a string or its bytes.
 *
 * @category models
 * @since 0.1.0
 */
export type Pem = string | Uint8Array | Redacted.Redacted<string | Uint8Array>

/**
 * Who one is: a certificate, followed by its intermediate ones, and its private key.
 *
 * @category models
 * @since 0.1.0
 */
export interface Identity {
  readonly certificate: Pem
  readonly key: Pem
  /** What the key is encrypted with, if it is. */
  readonly passphrase?: string | Redacted.Redacted<string> | undefined
}

/**
 * An identity that changes, such as a `TlsReloader`: each handshake takes the one of its time.
 *
 * @category models
 * @since 0.1.0
 */
export interface IdentitySource {
  readonly current: () => Identity
}

/**
 * The versions of TLS there are. Older ones are broken (RFC 8996) and not offered.
 *
 * @category models
 * @since 0.1.0
 */
export type Version = "TLSv1.2" | "TLSv1.3"

/**
 * What both sides have to say. An options object is looked at once: a change to it afterwards has no effect.
 *
 * @category models
 * @since 0.1.0
 */
export interface CommonOptions {
  /** Whom to trust instead of the authorities of the platform. */
  readonly ca?: Pem | ReadonlyArray<Pem> | undefined
  /**
   * The application protocols (RFC 7301), the preferred one first; of those that both have, the server's order
   * decides. If there is none, the handshake fails. A side that has no `alpn` takes no part: none is chosen, and the
   * handshake goes on.
   */
  readonly alpn?: ReadonlyArray<string> | undefined
  /** Default `"TLSv1.2"`. */
  readonly minVersion?: Version | undefined
  /** Default `"TLSv1.3"`. */
  readonly maxVersion?: Version | undefined
  /** The cipher suites, in OpenSSL's notation; the server's order decides. Default: the platform's. */
  readonly ciphers?: string | undefined
  /** How long a handshake may take. Default 10 seconds. */
  readonly handshakeTimeout?: Duration.Input | undefined
}

/**
 * Options of the client's side.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientOptions extends CommonOptions {
  /**
   * Whom to trust beside `ca`, or beside the authorities of the platform: for servers that an internal authority
   * vouches for.
   */
  readonly extraCa?: Pem | ReadonlyArray<Pem> | undefined
  /**
   * Whom the certificate has to be for; a name is sent to the server as well (SNI). Default: the host that was connected to.
   * `false` sends and checks no name; the certificate's authority is still checked. An international name may be
   * written as it is (`bücher.example`), and a link-local address with its zone, which is for this machine only.
   */
  readonly servername?: string | false | undefined
  /**
   * Whether the handshake fails unless the server's certificate is valid, trusted and for the name. Default `true`. With
   * `false` anybody can pose as the server; `info.tls.authorized` tells what the check said.
   */
  readonly verify?: boolean | undefined
  /** What to show to a server that asks for a certificate. */
  readonly identity?: Identity | IdentitySource | undefined
  /** Where sessions are kept to be resumed. Default: none is. */
  readonly sessions?: SessionCache | undefined
}

/**
 * The options of TLS as most mean them, the client's: what `Connection.connect` takes as `tls`, and `connection.upgradeTls`.
 *
 * @category models
 * @since 0.1.0
 */
export type TlsOptions = ClientOptions

/**
 * Options of the server's side.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServerOptions extends CommonOptions {
  readonly identity: Identity | IdentitySource
  /**
   * Other identities for the names that clients ask for (SNI): `"example.org"`, or `"*.example.org"` for all names one label
   * below. Names that are not there get `identity`.
   */
  readonly names?: { readonly [name: string]: Identity | IdentitySource } | undefined
  /**
   * Whether clients are asked for a certificate: not at all; asked, and served whatever they have (`info.tls.authorized`
   * tells); or served only with one that `ca` vouches for. Without `ca`, that is whomever the platform trusts, for whatever
   * purpose: name the authority of your clients. Default `"none"`.
   */
  readonly clientCertificate?: "none" | "request" | "require" | undefined
}

/**
 * Options of `connection.upgradeTls`: those of the side that one is (`role`, by default the client's), and what becomes of
 * plain bytes that were received and not read when the upgrade begins:
 *
 * - `"fail"` (the default): the upgrade fails with the reason `PlaintextBuffered`, and the connection is as it was. Right
 *   for a client: a peer that sends on in the clear after it agreed to TLS may not be the one who will speak over TLS.
 * - `"discard"`: they are dropped.
 * - `"feed"`: they are the beginning of the handshake. Right for a server whose client may send its first TLS message
 *   together with what comes before it, such as a PROXY header.
 *
 * @category models
 * @since 0.1.0
 */
export type UpgradeOptions = (
  ({ readonly role?: "client" | undefined } & TlsOptions) | ({ readonly role: "server" } & ServerOptions)
) & {
  readonly leftover?: "fail" | "discard" | "feed" | undefined
}

/**
 * Sessions of servers that one has been connected to, to be resumed with a shorter handshake.
 *
 * What a cache throws, and what it gives that it was not given for the same server, is as if there were no session:
 * there is a full handshake. A warning in the log says so once for each cache.
 *
 * @category models
 * @since 0.1.0
 */
export interface SessionCache {
  readonly get: (server: string) => Uint8Array | undefined
  readonly set: (server: string, session: Uint8Array) => void
}

/**
 * A cache of sessions in memory: the last one of each server, at most `capacity` (256 unless set) servers.
 *
 * Only sessions with a verified server are kept. A resumed session is not verified again: do not share a cache between
 * options that differ in whom they trust, or in who one is.
 *
 * **Example** (A second visit, with a shorter handshake)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Server, Tls } from "effect-wire"
 * import { NodeNetwork } from "effect-wire/node"
 * import { execSync } from "node:child_process"
 *
 * const pem = execSync(
 *   "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -keyout - -out - -days 7 " +
 *     "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1",
 *   { stdio: ["ignore", "pipe", "ignore"], encoding: "utf8" }
 * )
 * const [key = "", certificate = ""] = pem.split(/(?=-----BEGIN CERTIFICATE)/)
 *
 * const program = Effect.gen(function* () {
 *   const server = yield* Server.serve(({ writer }) => writer.write("hello\n"), {
 *     listen: { host: "127.0.0.1", port: 0 },
 *     tls: { identity: { certificate, key } }
 *   })
 *   const tls = { ca: certificate, sessions: Tls.sessionCache({ capacity: 16 }) }
 *   const visit = Connection.use(server.addresses[0], { tls }, ({ info, reader }) =>
 *     Effect.as(reader.readLine, info.tls?.resumed)
 *   )
 *   console.log(yield* visit, yield* visit) // false true
 * })
 *
 * await program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), Effect.runPromise)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const sessionCache = (options?: { readonly capacity?: number | undefined }): SessionCache => {
  const capacity = Limits.positive("capacity", options?.capacity ?? 256, "sessions")
  const sessions = new Map<string, Uint8Array>()
  return {
    get: (server) => sessions.get(server),
    set: (server, session) => {
      sessions.delete(server)
      sessions.set(server, session)
      const [oldest] = sessions.keys()
      if (sessions.size > capacity && oldest !== undefined) sessions.delete(oldest)
    }
  }
}

/**
 * The parts of a distinguished name by their short names (`CN`, `O`, `OU`); several of one kind are an array.
 *
 * @category models
 * @since 0.1.0
 */
export interface DistinguishedName {
  readonly [attribute: string]: string | ReadonlyArray<string> | undefined
}

/**
 * A certificate, as read.
 *
 * @category models
 * @since 0.1.0
 */
export interface Certificate {
  readonly subject: DistinguishedName
  readonly issuer: DistinguishedName
  /** Absent if what stands there is no date. */
  readonly validFrom: DateTime.Utc | undefined
  readonly validTo: DateTime.Utc | undefined
  /** SHA-256 of the whole certificate, as hexadecimal pairs with colons. */
  readonly fingerprint256: string
  /** Whom it is for, with the kind of name: `"DNS:example.org"`, `"IP Address:127.0.0.1"`. */
  readonly subjectAltName: ReadonlyArray<string>
  /** The certificate itself, DER. */
  readonly raw: Uint8Array
}

/**
 * The facts of a TLS connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface TlsInfo {
  /** `"TLSv1.3"` or `"TLSv1.2"`. */
  readonly protocol: string
  /** The cipher suite by its standard name, such as `"TLS_AES_128_GCM_SHA256"`. */
  readonly cipher: string
  readonly alpn: string | undefined
  /** The name that the client asked for. */
  readonly servername: string | undefined
  /** Whether the peer showed a certificate that is valid and trusted, and for the name if one was checked. */
  readonly authorized: boolean
  /** Whether an earlier session was resumed. */
  readonly resumed: boolean
  readonly peerCertificate: Certificate | undefined
}

// From here on: the options, checked.

interface CommonSettings {
  readonly ca: ReadonlyArray<Pem> | undefined
  readonly alpn: ReadonlyArray<string> | undefined
  readonly minVersion: Version
  readonly maxVersion: Version
  readonly ciphers: string | undefined
  readonly handshakeTimeout: Duration.Duration
}

/** @internal */
export interface ClientSettings extends CommonSettings {
  readonly extraCa: ReadonlyArray<Pem> | undefined
  readonly servername: string | false | undefined
  readonly verify: boolean
  readonly identity: IdentitySource | undefined
  readonly sessions: SessionCache | undefined
}

/** @internal */
export interface ServerSettings extends CommonSettings {
  readonly identity: IdentitySource
  readonly names: ReadonlyMap<string, IdentitySource>
  readonly clientCertificate: "none" | "request" | "require"
}

/** Whom a client expects: a name, which is sent as well, or an IP address. */
interface ExpectedPeer {
  readonly host: string
  readonly isName: boolean
}

/**
 * What a transport is asked for.
 *
 * @internal
 */
export type Handshake =
  | { readonly role: "client"; readonly settings: ClientSettings; readonly peer: ExpectedPeer | undefined }
  | { readonly role: "server"; readonly settings: ServerSettings }

const isPem = (u: unknown): u is Pem =>
  typeof u === "string" ? u.length > 0 : u instanceof Uint8Array || Redacted.isRedacted(u)

// PEM has more than one line, and ends with a dash.
const looksLikePath = (text: string): boolean =>
  !text.includes("\n") &&
  (/^(~|\.{0,2}[\\/]|[A-Za-z]:[\\/])/.test(text) || /\.(pem|crt|cer|der|key)$/i.test(text))

const checkPem = (what: string, pem: Pem): Pem => {
  if (!isPem(pem)) throw new RangeError(`tls: ${what} must be PEM text, as a string, bytes or Redacted`)
  const text = Redacted.isRedacted(pem) ? Redacted.value(pem) : pem
  if (typeof text === "string" && looksLikePath(text)) {
    const it = Redacted.isRedacted(pem) || what.startsWith("the key") ? "it" : quoted(text)
    throw new RangeError(
      `tls: ${what} must be PEM text: ${it} looks like the path of a file, which has to be read first`
    )
  }
  return pem
}

// Options come from configurations too, where no type is checked.
const isObject = (u: unknown): boolean => Predicate.isObject(u)

const isList = (ca: Pem | ReadonlyArray<Pem>): ca is ReadonlyArray<Pem> => Array.isArray(ca)

const authorities = (what: string, ca: CommonOptions["ca"]): ReadonlyArray<Pem> | undefined =>
  ca === undefined ? undefined : (isList(ca) ? ca : [ca]).map((pem) => checkPem(what, pem))

const identitySource = (what: string, identity: Identity | IdentitySource): IdentitySource => {
  if (!isObject(identity)) {
    throw new RangeError(`tls: ${what} must be a certificate and its key, or a TlsReloader`)
  }
  if ("current" in identity) return identity
  checkPem(`the certificate of ${what}`, identity.certificate)
  checkPem(`the key of ${what}`, identity.key)
  return { current: () => identity }
}

const versions: ReadonlyArray<Version> = ["TLSv1.2", "TLSv1.3"]

const version = (what: string, input: Version): Version => {
  if (!versions.includes(input)) {
    throw new RangeError(`tls: ${what} must be "TLSv1.2" or "TLSv1.3", received ${JSON.stringify(input)}`)
  }
  return input
}

const checkCommon = (options: CommonOptions): CommonSettings => {
  const { alpn, ciphers } = options
  if (alpn !== undefined && !Limits.isArray(alpn)) {
    throw new RangeError(`tls: alpn must be an array of names, received ${JSON.stringify(alpn)}`)
  }
  for (const name of alpn ?? []) {
    const { length } = encode(name)
    if (length < 1 || length > 255) {
      throw new RangeError(`tls: an alpn name must have 1 to 255 bytes, received ${length}`)
    }
  }
  if (ciphers === "") throw new RangeError("tls: ciphers must not be empty")
  const minVersion = version("minVersion", options.minVersion ?? "TLSv1.2")
  const maxVersion = version("maxVersion", options.maxVersion ?? "TLSv1.3")
  if (minVersion > maxVersion) throw new RangeError("tls: minVersion must not be above maxVersion")
  const handshakeTimeout = Duration.millis(
    Limits.timeout("tls: handshakeTimeout", options.handshakeTimeout ?? "10 seconds")
  )
  return {
    ca: authorities("ca", options.ca),
    alpn: alpn === undefined || alpn.length === 0 ? undefined : [...alpn],
    minVersion,
    maxVersion,
    ciphers,
    handshakeTimeout
  }
}

const toClientSettings = (options: ClientOptions): ClientSettings => {
  const { servername, sessions } = options
  if (sessions !== undefined && !(Predicate.isFunction(sessions.get) && Predicate.isFunction(sessions.set))) {
    throw new RangeError("tls: sessions must be a cache of sessions, such as Tls.sessionCache()")
  }
  if (servername === "") throw new RangeError("tls: servername must not be empty; false checks no name")
  if (servername !== undefined && servername !== false) expectedPeer(servername)
  return {
    ...checkCommon(options),
    extraCa: authorities("extraCa", options.extraCa),
    servername,
    verify: options.verify ?? true,
    identity: options.identity && identitySource("identity", options.identity),
    sessions
  }
}

const toServerSettings = (options: ServerOptions): ServerSettings => {
  const names = new Map<string, IdentitySource>()
  for (const [name, identity] of Object.entries(options.names ?? {})) {
    const wildcard = name.startsWith("*.") ? "*." : ""
    const host = hostName(name.slice(wildcard.length))
    if (host === undefined) {
      throw new RangeError(
        `tls: names must be host names, with "*." before them for all below, received ${quoted(name)}`
      )
    }
    names.set(wildcard + host, identitySource(quoted(name), identity))
  }
  if (!isObject(options.identity)) throw new RangeError("tls: a server needs an identity")
  return {
    ...checkCommon(options),
    identity: identitySource("identity", options.identity),
    names,
    clientCertificate: Limits.oneOf("clientCertificate", options.clientCertificate ?? "none", [
      "none",
      "request",
      "require"
    ])
  }
}

/**
 * A host name as it stands in a certificate: in ASCII and lower case, without a dot behind it. None if it is no host
 * name.
 *
 * @internal
 */
export const hostName = (name: string): string | undefined =>
  Result.getOrUndefined(Result.map(Host.domainNameFromString(name), Host.toRelative))

// Checked once for each object, so that a transport can keep what it makes of them.
const memoized = <Options extends object, Settings>(
  check: (options: Options) => Settings
): ((options: Options) => Settings) => {
  const checked = new WeakMap<Options, Settings>()
  return (options) => {
    const known = checked.get(options)
    if (known !== undefined) return known
    const settings = check(options)
    checked.set(options, settings)
    return settings
  }
}

const defaults: ClientOptions = {}

const memoizedClient = memoized(toClientSettings)

/**
 * Throws a `RangeError` unless the options are in range.
 *
 * @internal
 */
export const checkClient = (options: ClientOptions | true): ClientSettings => {
  if (options === true) return memoizedClient(defaults)
  if (isObject(options)) return memoizedClient(options)
  throw new RangeError(`tls must be true or options, received ${JSON.stringify(options)}`)
}

/**
 * Throws a `RangeError` unless the options are in range.
 *
 * @internal
 */
export const checkServer: (options: ServerOptions) => ServerSettings = memoized(toServerSettings)

/**
 * A client's handshake with the server at a host. Throws a `RangeError` if there is nobody to verify; `otherwise` is
 * what else may have been meant then.
 *
 * @internal
 */
export const clientHandshake = (
  settings: ClientSettings,
  host: string | undefined,
  otherwise = ""
): Handshake => {
  const name = settings.servername ?? host
  if (name === undefined && settings.verify) {
    throw new RangeError(
      "tls: servername is missing: there is no host to verify the certificate for; " +
        `give a name, or false to check none${otherwise}`
    )
  }
  return {
    role: "client",
    settings,
    peer: name === undefined || name === false ? undefined : expectedPeer(name)
  }
}

/**
 * What this side would have, where an error says that the two have nothing in common.
 *
 * @internal
 */
export const offered = ({ settings }: Handshake, kind: TlsErrorKind): string | undefined => {
  const { alpn, ciphers, maxVersion, minVersion } = settings
  switch (kind) {
    case "NoSharedVersion":
      return `this side has ${minVersion === maxVersion ? minVersion : `${minVersion} to ${maxVersion}`}`
    case "NoSharedCipher":
      return `this side has ${ciphers ?? "the platform's"}`
    case "NoSharedAlpn":
      return `this side has ${alpn?.map(quoted).join(", ") ?? "none"}`
    default:
      return undefined
  }
}

/** @internal */
export const serverHandshake = (settings: ServerSettings): Handshake => ({ role: "server", settings })

const expectedPeer = (name: string): ExpectedPeer => {
  const host = typeof name === "string" ? Result.getOrUndefined(Host.hostFromString(name)) : undefined
  if (host === undefined) {
    throw new RangeError(
      `tls: servername must be a host name or an IP address, received ${quoted(String(name))}`
    )
  }
  if (Host.isDomainName(host)) return { host: Host.toRelative(host), isName: true }
  // A zone means something to this machine only.
  const [address = ""] = Host.formatHost(host).split("%")
  return { host: address, isName: false }
}

/**
 * The identity for a name that a client asked for.
 *
 * @internal
 */
export const identityFor = (
  { identity, names }: ServerSettings,
  servername: string | undefined
): IdentitySource => {
  if (servername === undefined) return identity
  const name = servername.toLowerCase().replace(/\.$/, "")
  return names.get(name) ?? names.get(`*${name.slice(name.indexOf("."))}`) ?? identity
}
