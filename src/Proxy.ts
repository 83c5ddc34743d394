/**
 * Proxies that a connection goes through: SOCKS 5 (RFC 1928) and HTTP `CONNECT` (RFC 9110, section 9.3.6).
 *
 * A proxy is a value: give it, or several that form a chain, to `Connection.connect` as the option `proxy`. The name of
 * the target is the last proxy's to resolve; nothing is looked up here.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Base64 from "effect/encoding/Base64"
import { encode } from "./internal/bytes.ts"
import * as HttpConnect from "./internal/httpConnect.ts"
import * as Socks5 from "./internal/socks5.ts"
import { formatTarget, hostOf, parseTarget } from "./internal/target.ts"
import { handshakeWith, tunnelTarget } from "./internal/tunnel.ts"
import type { Target } from "./Network.ts"
import { ConnectionError, InvalidAddress, type TimeoutError } from "./StreamError.ts"
import type { StreamReader } from "./StreamReader.ts"
import type { StreamWriter } from "./StreamWriter.ts"
import * as Tls from "./Tls.ts"

/**
 * Runtime type identifier of proxies.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-wire/Proxy"

/**
 * Who one is to the proxy. The password is kept as `Redacted`, and shows in no message.
 *
 * @category models
 * @since 0.1.0
 */
export interface Credentials {
  readonly username: string
  readonly password: string | Redacted.Redacted<string>
}

/**
 * A proxy: where it is, what it speaks, and who one is to it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Proxy {
  readonly [TypeId]: typeof TypeId
  readonly protocol: "socks5" | "http"
  readonly target: Target
  readonly credentials?:
    { readonly username: string; readonly password: Redacted.Redacted<string> } | undefined
  /** How TLS is spoken with the proxy itself. Default: not at all. */
  readonly tls?: true | Tls.ClientOptions | undefined
}

/**
 * Tells whether a value is a proxy.
 *
 * @category guards
 * @since 0.1.0
 */
export const isProxy = (u: unknown): u is Proxy => Predicate.hasProperty(u, TypeId)

const redacted = (password: Credentials["password"]): Redacted.Redacted<string> =>
  Redacted.isRedacted(password) ? password : Redacted.make(password)

const make = (
  protocol: Proxy["protocol"],
  target: Target,
  credentials: Credentials | undefined,
  tls?: Proxy["tls"]
): Proxy => ({
  [TypeId]: TypeId,
  protocol,
  target,
  credentials: credentials && {
    username: credentials.username,
    password: redacted(credentials.password)
  },
  tls
})

/**
 * A SOCKS 5 proxy at `target`. With credentials, it may ask for them (RFC 1929) or not.
 *
 * A username or a password of more than 255 bytes, and an empty username, throw a `RangeError`.
 *
 * **Example** (Through Tor)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Proxy } from "effect-wire"
 *
 * const tor = Proxy.socks5("127.0.0.1:9050")
 *
 * export const banner = Connection.use("example.org:22", { proxy: tor }, ({ reader }) => reader.readLineString)
 *
 * console.log(Effect.isEffect(banner)) // true
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const socks5 = (target: Target, credentials?: Credentials): Proxy => {
  const proxy = make("socks5", target, credentials)
  socksCredentials(proxy)
  return proxy
}

const bytesOf = (what: string, text: string, min: number): Uint8Array => {
  const bytes = encode(text)
  if (bytes.length < min || bytes.length > 255) {
    throw new RangeError(`a SOCKS ${what} must have ${min} to 255 bytes, received ${bytes.length}`)
  }
  return bytes
}

const socksCredentials = ({ credentials }: Proxy): Socks5.Credentials | undefined =>
  credentials && {
    username: bytesOf("username", credentials.username, 1),
    password: bytesOf("password", Redacted.value(credentials.password), 0)
  }

/**
 * Options of an HTTP proxy: credentials or none, and `tls` for one that is spoken to over TLS.
 *
 * @category models
 * @since 0.1.0
 */
export type HttpOptions = (Credentials | { readonly username?: undefined; readonly password?: undefined }) & {
  /**
   * Speak TLS with the proxy: with what the platform trusts, and the proxy's host as the name, or as the options say. The
   * target, or the next proxy, is reached inside of it, over TLS of its own if that is wanted. Default: not.
   */
  readonly tls?: true | Tls.ClientOptions | undefined
}

/**
 * An HTTP proxy at `target` that opens tunnels with `CONNECT`. Credentials are sent with the request, as Basic
 * authorization (RFC 7617): in the clear, unless the proxy is spoken to over TLS.
 *
 * A username with a colon throws a `RangeError`, as does a control character in either: Basic authorization has no way to
 * say it. So do options of TLS that are out of range.
 *
 * **Example** (With a password)
 *
 * ```ts
 * import { Redacted } from "effect"
 * import { Proxy } from "effect-wire"
 *
 * const proxy = Proxy.httpConnect("proxy.example:3128", {
 *   username: "me",
 *   password: Redacted.make("secret")
 * })
 *
 * console.log(proxy.credentials?.password) // <redacted>
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const httpConnect = (target: Target, options?: HttpOptions): Proxy => {
  const credentials = options?.username === undefined ? undefined : options
  const proxy = make("http", target, credentials, options?.tls)
  basicAuthorization(proxy)
  tlsHandshake(proxy)
  return proxy
}

/**
 * Throws a `TypeError` for what is no proxy, such as the URL of one.
 *
 * @internal
 */
export const check = (proxy: Proxy): Proxy => {
  if (isProxy(proxy)) return proxy
  throw new TypeError(
    "proxy must be what Proxy.socks5 or Proxy.httpConnect made; Proxy.fromUrl makes one of a URL"
  )
}

/**
 * The handshake with the proxy itself, if it is spoken to over TLS. Throws a `RangeError` for options out of range.
 *
 * @internal
 */
export const tlsHandshake = ({ target, tls }: Proxy): Tls.Handshake | undefined =>
  tls === undefined ? undefined : Tls.clientHandshake(Tls.checkClient(tls), hostOf(target))

const basicAuthorization = ({ credentials }: Proxy): string | undefined => {
  if (credentials === undefined) return undefined
  const { username } = credentials
  const password = Redacted.value(credentials.password)
  if (username.includes(":")) throw new RangeError("a username for HTTP must not contain a colon")

  if (/[\x00-\x1f\x7f]/.test(username + password)) {
    throw new RangeError("a username or password for HTTP must not contain control characters")
  }
  return `Basic ${Base64.encode(`${username}:${password}`)}`
}

const defaultPorts: Record<string, number | undefined> = {
  "socks5:": 1080,
  "socks5h:": 1080,
  "http:": 80,
  "https:": 443
}

/**
 * The proxy that a URL names, as in `ALL_PROXY` and other environment variables: `socks5://host:port`, `socks5h://…`
 * (the same: names are always the proxy's to resolve), `http://…` and `https://…` (TLS with the proxy), with
 * `user:password@` in percent-encoding. Without a port, 1080 for SOCKS, 80 for HTTP and 443 for HTTPS. Fails for any other
 * URL, in words that do not repeat it.
 *
 * **Example** (From a URL)
 *
 * ```ts
 * import { Result } from "effect"
 * import { Proxy } from "effect-wire"
 *
 * const proxy = Result.getOrThrow(Proxy.fromUrl("socks5://me:secret@proxy.example"))
 *
 * console.log(proxy.protocol, proxy.target) // socks5 { host: "proxy.example", port: 1080 }
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromUrl = (url: string | URL): Result.Result<Proxy, InvalidAddress> => {
  const invalid = (detail: string) => Result.fail(new InvalidAddress({ detail }))
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (parsed === undefined) return invalid("a proxy's URL cannot be parsed")
  const { hash, hostname, pathname, port, protocol, search } = parsed
  const defaultPort = defaultPorts[protocol]
  if (defaultPort === undefined) {
    return invalid(`a proxy's URL begins with socks5:, socks5h:, http: or https:, not with ${protocol}`)
  }
  if (hostname === "") return invalid("a proxy's URL names no host")
  if (pathname.length > 1 || search !== "" || hash !== "") return invalid("a proxy's URL has no path")
  const target = {
    host: hostname.replace(/^\[(.*)\]$/, "$1"),
    port: port === "" ? defaultPort : Number(port)
  }
  try {
    const credentials =
      parsed.username === "" && parsed.password === ""
        ? undefined
        : { username: decodeURIComponent(parsed.username), password: decodeURIComponent(parsed.password) }
    if (protocol.startsWith("socks5")) return Result.succeed(socks5(target, credentials))
    return Result.succeed(
      httpConnect(target, { ...credentials, tls: protocol === "https:" ? true : undefined })
    )
  } catch (cause) {
    return invalid(
      cause instanceof RangeError ? cause.message : "the credentials in a proxy's URL are not percent-encoded"
    )
  }
}

/**
 * Has the proxy at the other end of a connection connect to `target`, which is whom the connection speaks to from then
 * on. `Connection.connect` with the option `proxy` does this, and the connecting and the TLS with the proxy before it.
 *
 * Bytes of the target that come with the proxy's answer stay in the reader. When it fails or is interrupted, the connection
 * is of no use any more. Fails with `ConnectionError` (operation `connect`): the reason is `ProxyError`, or
 * `InvalidAddress` or `Unsupported` for a target that no proxy can be asked for. The connection's own time limits apply.
 *
 * **Example** (Over a connection that is there already)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Proxy } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [connection, proxy] = yield* Connection.pair()
 *   yield* proxy.writer.write("HTTP/1.1 200 OK\r\n\r\nwelcome\n")
 *   yield* Proxy.tunnel(connection, Proxy.httpConnect("proxy.example:3128"), "example.org:25")
 *   return yield* connection.reader.readLineString
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // some("welcome")
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const tunnel = (
  connection: { readonly reader: StreamReader; readonly writer: StreamWriter },
  proxy: Proxy,
  target: Target
): Effect.Effect<void, ConnectionError | TimeoutError> =>
  Effect.suspend(() => {
    const handshake = handshakeWith(connection, formatTarget(proxy.target))
    return Effect.fromResult(parseTarget(target)).pipe(
      Effect.flatMap(tunnelTarget),
      Effect.flatMap((destination) =>
        proxy.protocol === "socks5"
          ? Socks5.connect(handshake, destination, socksCredentials(proxy))
          : HttpConnect.connect(handshake, destination, basicAuthorization(proxy))
      ),
      Effect.mapError((reason) =>
        reason._tag === "TimeoutError"
          ? reason
          : new ConnectionError({ operation: "connect", address: formatTarget(target), reason })
      )
    )
  })
