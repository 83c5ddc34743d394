/**
 * Proxies that a connection goes through: SOCKS 5 (RFC 1928) and HTTP `CONNECT` (RFC 9110, section 9.3.6).
 *
 * A proxy is a value: give it, or several that form a chain, to `Connection.connect` as the option `proxy`. The name of
 * the target is the last proxy's to resolve; nothing is looked up here.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import { SourceError } from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Record from "effect/Record"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Base64 from "effect/encoding/Base64"
import { encode } from "./internal/bytes.ts"
import * as HttpConnect from "./internal/httpConnect.ts"
import { noProxy } from "./internal/noProxy.ts"
import { quoted } from "./internal/printable.ts"
import * as Socks5 from "./internal/socks5.ts"
import { formatTarget, hostOf, parseTarget } from "./internal/target.ts"
import { handshakeWith, type TunnelTarget, tunnelTarget } from "./internal/tunnel.ts"
import { canBeTunnelled, tunnelled } from "./internal/tunnelled.ts"
import type { Target } from "./Network.ts"
import {
  ConnectionError,
  type ConnectionErrorReason,
  InvalidAddress,
  type TimeoutError,
  type Unsupported
} from "./StreamError.ts"
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
  /** What an HTTP proxy is told beside that. */
  readonly headers?: Readonly<Record<string, Redacted.Redacted<string>>> | undefined
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

const redacted = (secret: string | Redacted.Redacted<string>): Redacted.Redacted<string> =>
  Redacted.isRedacted(secret) ? secret : Redacted.make(secret)

const make = (
  protocol: Proxy["protocol"],
  target: Target,
  credentials: Credentials | undefined,
  options?: Pick<HttpOptions, "headers" | "tls">
): Proxy => ({
  [TypeId]: TypeId,
  protocol,
  target,
  credentials: credentials && {
    username: credentials.username,
    password: redacted(credentials.password)
  },
  headers: options?.headers && Record.map(options.headers, redacted),
  tls: options?.tls
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
 * Options of an HTTP proxy: credentials or none, `tls` for one that is spoken to over TLS, and more `headers`.
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
  /**
   * Header fields of the `CONNECT` request, such as `{ "Proxy-Authorization": "Bearer …" }`. The values are kept as
   * `Redacted`.
   */
  readonly headers?: Readonly<Record<string, string | Redacted.Redacted<string>>> | undefined
}

/**
 * An HTTP proxy at `target` that opens tunnels with `CONNECT`. Credentials are sent with the request, as Basic
 * authorization (RFC 7617): in the clear, unless the proxy is spoken to over TLS.
 *
 * A username with a colon throws a `RangeError`, as does a control character in either: Basic authorization has no way to
 * say it. So do options of TLS that are out of range, and `headers` that are none, that have line breaks, or that are set
 * here already: `Host`, and `Proxy-Authorization` beside credentials.
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
  const proxy = make("http", target, credentials, options)
  requestFields(proxy)
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

const requestFields = (proxy: Proxy): ReadonlyArray<HttpConnect.Field> => {
  const authorization = basicAuthorization(proxy)
  const fields = Object.entries(proxy.headers ?? {}).map(
    ([name, value]) => [name, Redacted.value(value)] as const
  )
  for (const [name, value] of fields) {
    const lower = name.toLowerCase()
    if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(lower))
      throw new RangeError(`${quoted(name)} is no name of an HTTP header`)
    if (/[\x00-\x08\x0a-\x1f\x7f]/.test(value)) {
      throw new RangeError(`the value of the header ${name} must not contain control characters`)
    }
    if (lower === "host" || (lower === "proxy-authorization" && authorization !== undefined)) {
      throw new RangeError(`the header ${name} is set already`)
    }
  }
  return authorization === undefined ? fields : [["Proxy-Authorization", authorization], ...fields]
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

const variables = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] as const

/** What a variable says, in small letters or in capitals; an empty one says nothing. */
const variable = (name: string): Config.Config<string | undefined> =>
  Config.all([Config.option(Config.String(name)), Config.option(Config.String(name.toUpperCase()))]).pipe(
    Config.map(([small, capital]) =>
      Option.getOrUndefined(
        Option.filter(
          Option.orElse(small, () => capital),
          (text) => text.trim() !== ""
        )
      )
    )
  )

const proxyOf = (
  name: string,
  text: string | undefined
): Effect.Effect<Proxy | undefined, Config.ConfigError> => {
  if (text === undefined) return Effect.undefined
  const url = text.trim()
  return Effect.mapError(
    Effect.fromResult(fromUrl(url.includes("://") ? url : `http://${url}`)),
    ({ detail }) => new Config.ConfigError(new SourceError({ message: `${name}: ${detail}` }))
  )
}

/**
 * The proxies that the environment names, as curl and others read it: a function that tells the proxy for a target, if
 * there is one.
 *
 * - `HTTP_PROXY` is for targets that are spoken to in HTTP (the second argument is `"http"`), `HTTPS_PROXY` for TLS
 *   (`"https"`), and `ALL_PROXY` for all others, and where those say nothing. Each is a URL as `fromUrl` takes it, or
 *   `host:port` of an HTTP proxy.
 * - `NO_PROXY` exempts targets, separated by commas: names with all that is below them (`example.org`), IP addresses,
 *   networks (`10.0.0.0/8`), each also with a port; `*` exempts all. Names are not looked up for that.
 *
 * Names in small letters come first. It is a `Config`: it reads whatever `ConfigProvider` there is, by default the process's
 * environment, and fails with `ConfigError` for a URL of no proxy, in words that do not repeat it. Unix sockets have none.
 *
 * **Example** (Through the proxy of the environment)
 *
 * ```ts
 * import { ConfigProvider, Effect } from "effect"
 * import { Proxy } from "effect-wire"
 *
 * const environment = ConfigProvider.fromEnv({
 *   env: { ALL_PROXY: "socks5://proxy.example", NO_PROXY: "internal.example, 10.0.0.0/8" }
 * })
 *
 * const program = Effect.gen(function* () {
 *   const proxyFor = yield* Proxy.fromEnvironment
 *   return ["example.org:22", "git.internal.example:22", "10.1.2.3:22"].map((target) => proxyFor(target)?.target)
 * })
 *
 * const targets = program.pipe(Effect.provideService(ConfigProvider.ConfigProvider, environment), Effect.runSync)
 * console.log(targets) // [{ host: "proxy.example", port: 1080 }, undefined, undefined]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromEnvironment: Config.Config<
  (target: Target, scheme?: "http" | "https") => Proxy | undefined
> = Config.mapEffect(Config.all(variables.map(variable)), ([http, https, all, none]) =>
  Effect.gen(function* () {
    const proxies = {
      http: yield* proxyOf("HTTP_PROXY", http),
      https: yield* proxyOf("HTTPS_PROXY", https),
      all: yield* proxyOf("ALL_PROXY", all)
    }
    const isExempt = noProxy(none ?? "")
    return (target, scheme) => {
      const parsed = Result.getOrUndefined(parseTarget(target))
      if (parsed === undefined || parsed._tag === "Unix" || isExempt(parsed)) return undefined
      return (scheme && proxies[scheme]) ?? proxies.all
    }
  })
)

const asked = (target: Target): Effect.Effect<TunnelTarget, InvalidAddress | Unsupported> =>
  Effect.flatMap(Effect.fromResult(parseTarget(target)), tunnelTarget)

const failedFor =
  (target: Target) =>
  (reason: ConnectionErrorReason): ConnectionError =>
    new ConnectionError({ operation: "connect", address: formatTarget(target), reason })

/**
 * Fails for a target that no proxy can be asked for.
 *
 * @internal
 */
export const checkTarget = (target: Target): Effect.Effect<void, ConnectionError> =>
  Effect.mapError(Effect.asVoid(asked(target)), failedFor(target))

/**
 * Has the proxy at the other end of a connection connect to `target`, which is whom the connection speaks to from then
 * on. `Connection.connect` with the option `proxy` does this, and the connecting and the TLS with the proxy before it.
 *
 * A `Connection` then says so: `info.target` is the target, `info.tls` and `info.transport` do not tell of TLS with
 * the proxy, and `upgradeTls` speaks TLS with the target, inside of the tunnel.
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
    const failed = failedFor(target)
    return asked(target).pipe(
      Effect.flatMap((destination) =>
        proxy.protocol === "socks5"
          ? Socks5.connect(handshake, destination, socksCredentials(proxy))
          : HttpConnect.connect(handshake, destination, requestFields(proxy))
      ),
      Effect.mapBoth({
        onSuccess: () => {
          if (canBeTunnelled(connection)) connection[tunnelled](target)
        },
        onFailure: (reason) => (reason._tag === "TimeoutError" ? reason : failed(reason))
      })
    )
  })
