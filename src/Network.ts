/**
 * The network that connections and servers live on.
 *
 * `Network` is the service that `Connection.connect` and `Server.serve` ask for transports. `NodeNetwork.layer` (from
 * `effect-wire/node`) is the operating system's; `TestNetwork.layer` (from `effect-wire/testing`) is a simulated one in
 * memory. Applications choose one at the edge and stay the same.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as NetAddress from "effect/net/NetAddress"
import type { ConnectionError, ListenError, TimeoutError, TlsError } from "./StreamError.ts"
import type { Certificate, ServerSettings } from "./Tls.ts"
import type { Transport } from "./Transport.ts"

/**
 * A Unix socket's path.
 *
 * @category models
 * @since 0.1.0
 */
export interface UnixTarget {
  readonly path: string
}

/**
 * A host (a name or an IP address) and a port.
 *
 * @category models
 * @since 0.1.0
 */
export interface HostTarget {
  readonly host: string
  readonly port: number
}

/**
 * Where to connect to: `"host:port"` (IPv6 as `"[::1]:80"`), a host and port, a Unix path, or a socket address.
 *
 * @category models
 * @since 0.1.0
 */
export type Target = string | HostTarget | UnixTarget | NetAddress.SocketAddress

/**
 * Options of the sockets themselves, for both sides.
 *
 * @category models
 * @since 0.1.0
 */
export interface SocketOptions {
  /** Send small writes at once (`TCP_NODELAY`). Default `true`. */
  readonly noDelay?: boolean | undefined
  /** TCP keep-alive: `true`, or the idle time before the first probe. Default off. */
  readonly keepAlive?: boolean | Duration.Input | undefined
}

/**
 * How the addresses of a name are raced (Happy Eyeballs version 2, RFC 8305).
 *
 * @category models
 * @since 0.1.0
 */
export interface HappyEyeballs {
  /**
   * The time from the start of one attempt to the start of the next, unless the attempt fails before. Default
   * 250 milliseconds. RFC 8305 wants at least 100 milliseconds, and never less than 10, on the open internet; 0 starts
   * all attempts at once, an infinite one starts an attempt only when the one before has failed.
   */
  readonly delay?: Duration.Input | undefined
  /**
   * How many addresses of the preferred family come before the families take turns. Default 1. 0 keeps the resolver's
   * order, whatever the families are.
   */
  readonly firstFamilyCount?: number | undefined
  /**
   * How long the answer with the IPv6 addresses is waited for once the IPv4 addresses are known. Default
   * 50 milliseconds.
   */
  readonly resolutionDelay?: Duration.Input | undefined
}

/**
 * @category models
 * @since 0.1.0
 */
export interface ConnectOptions extends SocketOptions {
  /** Time for name resolution and connecting together. Default 10 seconds. */
  readonly connectTimeout?: Duration.Input | undefined
  /**
   * How the addresses of a name are raced. `false`: one after another in the resolver's order, each to its own end.
   */
  readonly happyEyeballs?: HappyEyeballs | false | undefined
  /** The own address to connect from; port 0 or absent lets the system choose. */
  readonly localAddress?: { readonly host: string; readonly port?: number | undefined } | undefined
}

/**
 * Where to listen: a host and port (no host: all interfaces; port 0 or absent: a free one), or a Unix path.
 *
 * @category models
 * @since 0.1.0
 */
export type ListenAddress =
  | { readonly host?: string | undefined; readonly port?: number | undefined; readonly path?: undefined }
  | UnixTarget

/**
 * @category models
 * @since 0.1.0
 */
export interface ListenOptions extends SocketOptions {
  /** Connections that the system completes and queues before they are accepted; a positive integer, 511 unless set. */
  readonly backlog?: number | undefined
  /** Let several processes listen on the same port (`SO_REUSEPORT`). Default `false`. */
  readonly reusePort?: boolean | undefined
}

/**
 * A bound socket that accepts connections.
 *
 * Closing the scope it was made in stops listening, drops the connections that were not accepted yet, and makes
 * `accept` fail to nobody: it is interrupted with the fibers that use it. Transports already accepted are not touched.
 *
 * @category models
 * @since 0.1.0
 */
export interface Listener {
  /** The bound address, with the port that was chosen for port 0. */
  readonly address: NetAddress.SocketAddress
  /**
   * Waits for the next connection. Interrupting it loses none. It fails when the system could not accept (out of
   * descriptors); it can be called again, after a pause.
   */
  readonly accept: Effect.Effect<Transport, ListenError>
  /**
   * Hands every connection to `serve` as it comes, until it is interrupted, or fails as `accept` does. For servers that take
   * whoever comes: it costs less than an `accept` for each. A listener need not have it.
   */
  readonly acceptAll?:
    ((serve: (transport: Transport) => void) => Effect.Effect<never, ListenError>) | undefined
  /** Stops listening now, without touching what was accepted. Idempotent; closing the scope does the same. */
  readonly close: Effect.Effect<void>
}

/**
 * The network service.
 *
 * `connect` gives a transport that is connected and not started; whoever asked owns it and has to `start` it and to
 * `close` or `abort` it (`Connection.make` does). Interrupting `connect`, at any time, leaves nothing behind.
 *
 * @category services
 * @since 0.1.0
 */
export class Network extends Context.Service<
  Network,
  {
    readonly connect: (
      target: Target,
      options?: ConnectOptions
    ) => Effect.Effect<Transport, ConnectionError | TimeoutError>
    readonly listen: (
      address: ListenAddress,
      options?: ListenOptions
    ) => Effect.Effect<Listener, ListenError, Scope.Scope>
    /** Looks whether TLS can be served with these options; gives the default certificate. Absent on a network without TLS. */
    readonly checkTls?: ((settings: ServerSettings) => Effect.Effect<Certificate, TlsError>) | undefined
  }
>()("effect-wire/Network") {}
