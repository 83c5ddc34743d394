/**
 * What targets and listen addresses mean, checked once for every network, so that the same mistake gets the same words
 * whether it is made over a simulated network or a real one.
 */
import * as Result from "effect/Result"
import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import type { ConnectOptions, ListenAddress, Target } from "../Network.ts"
import { InvalidAddress } from "../StreamError.ts"
import { encode } from "./bytes.ts"
import { quoted } from "./printable.ts"

/** A numeric address with its port: nothing is left to resolve. */
export interface InetDestination {
  readonly _tag: "Inet"
  readonly address: NetAddress.InetAddress
}

/**
 * A host that has to be resolved: a name, or a link-local IPv6 address whose zone is an interface's name. An
 * `AddressResolver` takes this object as it is.
 */
export interface HostDestination {
  readonly _tag: "Host"
  readonly host: Host.DomainName | NetAddress.ScopedIpv6Literal
  readonly port: number
}

/** A Unix socket's path. */
export interface UnixDestination {
  readonly _tag: "Unix"
  readonly path: string
  readonly address: NetAddress.UnixPathAddress
}

/** All interfaces, both IP families. */
export interface AnyDestination {
  readonly _tag: "Any"
  readonly port: number
}

export type TargetDestination = InetDestination | HostDestination | UnixDestination
export type ListenDestination = TargetDestination | AnyDestination

/** The longest path that fits into a `sockaddr_un` with its terminating zero, in bytes of UTF-8. */
export const maxUnixPathBytes = 107

/** An address as text, where one is known. */
export const formatAddress = (address: NetAddress.SocketAddress | undefined): string | undefined =>
  address && NetAddress.formatSocketAddress(address)

const invalid = (detail: string, cause?: unknown): Result.Result<never, InvalidAddress> =>
  Result.fail(new InvalidAddress({ detail, cause }))

const parsePort = (port: unknown, min: 0 | 1): Result.Result<number, InvalidAddress> => {
  if (typeof port === "number") {
    return Number.isInteger(port) && port >= min && port <= 65_535
      ? Result.succeed(port)
      : invalid(`the port must be an integer from ${min} to 65535, not ${port}`)
  }
  if (port === undefined) return invalid(`the port is missing, expected an integer from ${min} to 65535`)
  const given = typeof port === "string" ? quoted(port) : `a value of type ${typeof port}`
  return invalid(`the port must be an integer from ${min} to 65535, not ${given}`)
}

const parseHost = (
  host: unknown,
  port: number
): Result.Result<InetDestination | HostDestination, InvalidAddress> => {
  if (typeof host !== "string" || host === "") return invalid("the host is empty")
  const parsed = Host.hostFromString(host)
  if (Result.isFailure(parsed)) {
    return invalid(
      `${quoted(host)} is neither an IP address nor a host name: ${parsed.failure.message}`,
      parsed.failure
    )
  }
  if (NetAddress.isIpAddress(parsed.success)) {
    return Result.succeed({ _tag: "Inet", address: NetAddress.inetAddressUnsafe(parsed.success, port) })
  }
  // A zone that is a number needs no look-up either.
  const scoped = host.includes("%") ? NetAddress.inetAddressFromHostString(parsed.success, port) : undefined
  return Result.succeed(
    scoped !== undefined && Result.isSuccess(scoped)
      ? { _tag: "Inet", address: scoped.success }
      : { _tag: "Host", host: parsed.success, port }
  )
}

const parseUnix = (path: unknown): Result.Result<UnixDestination, InvalidAddress> => {
  if (typeof path !== "string") return invalid("the Unix socket's path is not a string")
  if (path === "") return invalid("the Unix socket's path is empty")
  // A zero in front names an abstract socket (Linux); anywhere else it would cut the path short.
  if (path.indexOf("\0", 1) !== -1 || path === "\0")
    return invalid("the Unix socket's path contains a zero byte")
  const length = encode(path).length
  return length > maxUnixPathBytes
    ? invalid(`the Unix socket's path has ${length} bytes, ${maxUnixPathBytes} are allowed`)
    : Result.succeed({ _tag: "Unix", path, address: NetAddress.unixPathAddress(path) })
}

const splitHostPort = (
  input: string
): Result.Result<{ readonly host: string; readonly port: unknown }, InvalidAddress> => {
  if (input.startsWith("/") || input.startsWith(".")) {
    return invalid('expected "host:port"; a Unix socket is written { path }')
  }
  if (input.includes("/")) return invalid('expected "host:port", without a scheme or a path')
  const bracket = input.startsWith("[") ? input.indexOf("]") : -1
  const colon = bracket === -1 ? input.indexOf(":") : bracket + 1
  if (input.startsWith("[") && bracket === -1)
    return invalid('expected "[IPv6]:port", the bracket is not closed')
  if (colon === -1 || colon >= input.length) return invalid('the port is missing, expected "host:port"')
  if (input[colon] !== ":") return invalid('expected "[IPv6]:port"')
  if (bracket === -1 && input.indexOf(":", colon + 1) !== -1) {
    return invalid('an IPv6 address is written in brackets, "[::1]:80"')
  }
  const host = bracket === -1 ? input.slice(0, colon) : input.slice(1, bracket)
  if (bracket !== -1 && !host.includes(":")) return invalid("only IPv6 addresses are written in brackets")
  const port = input.slice(colon + 1)
  if (port === "") return invalid('the port is missing, expected "host:port"')
  return Result.succeed({ host, port: /^(0|[1-9]\d*)$/.test(port) ? Number(port) : port })
}

const parseHostPort = (input: {
  readonly host?: unknown
  readonly port?: unknown
}): Result.Result<InetDestination | HostDestination, InvalidAddress> =>
  Result.flatMap(parsePort(input.port, 1), (port) => parseHost(input.host, port))

/** Where `target` says to connect to. Checks at runtime what the type says too: targets come from configurations. */
export const parseTarget = (target: Target): Result.Result<TargetDestination, InvalidAddress> => {
  if (typeof target === "string") return Result.flatMap(splitHostPort(target), parseHostPort)
  if (typeof target !== "object" || target === null) {
    return invalid('expected "host:port", { host, port }, { path } or a socket address')
  }
  if (NetAddress.isInetAddress(target)) {
    return Result.map(parsePort(target.port, 1), () => ({ _tag: "Inet", address: target }))
  }
  return "path" in target ? parseUnix(target.path) : parseHostPort(target)
}

/** The name or the IP address of a target that has one. */
export const hostOf = (target: Target): string | undefined => {
  const parsed = Result.getOrUndefined(parseTarget(target))
  if (parsed === undefined || parsed._tag === "Unix") return undefined
  return parsed._tag === "Host" ? parsed.host : NetAddress.formatHost(parsed.address)
}

/** Where `address` says to listen. Port 0, and no port, stand for a free one. */
export const parseListen = (address: ListenAddress): Result.Result<ListenDestination, InvalidAddress> => {
  if (address.path !== undefined) return parseUnix(address.path)
  return Result.flatMap(
    parsePort(address.port ?? 0, 0),
    (port): Result.Result<ListenDestination, InvalidAddress> =>
      address.host === undefined || address.host === ""
        ? Result.succeed({ _tag: "Any", port })
        : parseHost(address.host, port)
  )
}

/** The own address of a connection to be made. It is numeric: nothing is looked up. */
export const parseLocalAddress = (
  local: NonNullable<ConnectOptions["localAddress"]>
): Result.Result<NetAddress.InetAddress, InvalidAddress> =>
  Result.flatMap(
    Result.flatMap(parsePort(local.port ?? 0, 0), (port) => parseHost(local.host, port)),
    (parsed) =>
      parsed._tag === "Inet"
        ? Result.succeed(parsed.address)
        : invalid(`the local address must be numeric, not "${local.host}"`)
  )

/** Whether a name is `localhost` or below it: names of this very machine (RFC 6761, section 6.3). */
export const isLocalhost = (host: Host.DomainName): boolean => /(^|\.)localhost\.?$/.test(host)

const hostAndPort = (host: string, port: number | undefined): string => {
  const text = NetAddress.formatUrlHostString(host)
  return port === undefined ? text : `${text}:${port}`
}

/** A target as error messages show it, also one that cannot be parsed. */
export const formatTarget = (target: Target): string => {
  if (typeof target !== "object" || target === null) return String(target)
  if (NetAddress.isInetAddress(target)) return NetAddress.formatInet(target)
  return "path" in target ? String(target.path) : hostAndPort(String(target.host), target.port)
}

/** The same text for targets that mean the same, in whatever form they are given. */
export const keyOf = (target: Target): string =>
  Result.match(parseTarget(target), {
    onFailure: () => `invalid ${formatTarget(target)}`,
    onSuccess: (parsed) => {
      switch (parsed._tag) {
        case "Inet":
          return `inet ${NetAddress.formatInet(parsed.address)}`
        case "Host":
          return `host ${parsed.host}:${parsed.port}`
        case "Unix":
          return `unix ${parsed.path}`
      }
    }
  })

/** A listen address as error messages show it, also one that cannot be parsed; `*` stands for all interfaces. */
export const formatListen = (address: ListenAddress): string =>
  address.path === undefined ? hostAndPort(address.host || "*", address.port ?? 0) : String(address.path)

/** What such a name stands for. */
export const loopbacks: ReadonlyArray<NetAddress.IpAddress> = [
  NetAddress.ipv4Loopback,
  NetAddress.ipv6Loopback
]
