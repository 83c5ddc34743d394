/**
 * What a connection runs on: bytes in, bytes out, congestion, and an end.
 *
 * A transport is the small, callback-driven layer below `Connection`, the counterpart of asyncio's transport and
 * protocol pair. It knows nothing of fibers. Anything that carries bytes in order both ways can be one: a Node
 * `Duplex`, an `effect/socket` `Socket`, a pair of web streams, two queues in memory.
 *
 * **Who may call what, when**
 *
 * - The connection calls `start` once, before anything else. Until then the transport delivers nothing and loses
 *   nothing. From then on the transport calls the `Handler`, never before `start` returns.
 * - `Handler.onData` is not called while the transport is paused. A transport starts paused; the connection calls
 *   `resume` when it wants bytes and `pause` when it has enough. One chunk that was already on its way may still be
 *   delivered after `pause`. The chunk belongs to the handler from then on and must not be written to again.
 * - `Handler.onEnd` is called at most once, after the last `onData`, when the peer ended its direction (its FIN) and
 *   for no other reason: neither a local close nor a failure is an end of input. It may wait until reading is resumed.
 * - `Handler.onDrain` is called whenever `bufferedBytes` has fallen because bytes were handed on.
 * - `Handler.onClosed` is called exactly once, as the last call of all, when the transport has let go of its resources:
 *   without an error after `close`, `abort`, or an orderly end of both directions, with the error otherwise.
 * - `Handler.onOutputFailed` is called by a transport whose two directions are independent (a pair of pipes) when nothing can
 *   be written any more while bytes may still come; `onClosed` follows when both are over. Other transports never call it.
 * - `write` accepts every chunk at once and in order, and counts it in `bufferedBytes` until it has left the process. It
 *   never throws and never fails by itself: a failed write arrives as `onClosed`. It is not called after `end`,
 *   `close`, `abort` or `onClosed`. Chunks must not be changed by the caller afterwards.
 * - `end` closes the outgoing direction after everything written has been sent (half-close). It is called at most once,
 *   and only if `canEnd` is true, or, when the connection closes, `canLinger`.
 * - `close` lets go after everything written has been sent, without waiting for the peer; `abort` lets go at once and
 *   drops what was not sent, with a reset where the protocol knows one. Both may be called at any time after `start`,
 *   repeatedly; `abort` overtakes `close`. Both lead to `onClosed`.
 * - A handler's method may call back into the transport (write from `onData`, `abort` from `onDrain`).
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import type { ConnectionError, ConnectionErrorReason } from "./StreamError.ts"
import type { Handshake, TlsInfo } from "./Tls.ts"

/**
 * What a transport tells its connection. See the module's description for when each is called.
 *
 * @category models
 * @since 0.1.0
 */
export interface Handler {
  readonly onData: (chunk: Uint8Array) => void
  /**
   * Offers bytes in a place that the transport uses again. Whether all of them have been used; if not, none has, and they have
   * to be delivered by `onData`, in a place where they can stay. A transport may offer what it delivers, or not.
   */
  readonly onLent?: ((chunk: Uint8Array) => boolean) | undefined
  readonly onEnd: () => void
  readonly onDrain: () => void
  readonly onClosed: (error?: ConnectionError) => void
  /** The outgoing direction has failed by itself, at most once; what comes is still delivered. */
  readonly onOutputFailed?: ((error: ConnectionError) => void) | undefined
}

/**
 * What bytes travel on. `"tcp"`, `"unix"`, `"tls"` and `"memory"` are this library's own; another transport names itself.
 *
 * @category models
 * @since 0.1.0
 */
export type Kind = "tcp" | "unix" | "tls" | "memory" | (string & {})

/**
 * The interface between a connection and whatever carries its bytes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Transport {
  readonly kind: Kind
  /** The own address, known from creation to after the end. */
  readonly localAddress: NetAddress.SocketAddress | undefined
  /** The peer's address, known from creation to after the end. */
  readonly remoteAddress: NetAddress.SocketAddress | undefined
  readonly tls?: TlsInfo | undefined
  /** Whether the outgoing direction can be closed alone. */
  readonly canEnd: boolean
  /**
   * Whether a connection that closes may `end` it and read on until the peer's end, as it does where `canEnd` is true.
   * So it is over TLS 1.2, where nobody may go on after the end of one direction, and a peer that does is read all the
   * same: a socket that is let go while bytes come drops what it has not sent. Default: what `canEnd` is.
   */
  readonly canLinger?: boolean | undefined
  /**
   * Whether the connection may let the transport deliver bytes that nobody has asked for yet. `false` makes a
   * connection resume reading only while a read waits (a lockstep transport, without any buffer).
   */
  readonly readAhead: boolean
  /** Bytes accepted by `write` that have not left the process. */
  readonly bufferedBytes: number
  readonly start: (handler: Handler) => void
  readonly pause: () => void
  readonly resume: () => void
  readonly write: (chunk: Uint8Array | string) => void
  /** Several chunks in one go, with one system call where there is one for it. */
  readonly writeAll: (chunks: ReadonlyArray<Uint8Array | string>) => void
  readonly end: () => void
  readonly close: () => void
  readonly abort: () => void
  /**
   * Makes TLS of it, after `start`, while nothing is buffered and neither direction has ended. `leftover` is the beginning
   * of what the peer sends. From the call on, the handler is told nothing but `onClosed`, and that only until the new
   * transport, which is to be started, takes over. A failed handshake has closed the transport, an interrupted one
   * aborted it.
   */
  readonly upgradeTls?:
    | ((handshake: Handshake, leftover: Uint8Array) => Effect.Effect<Transport, ConnectionErrorReason>)
    | undefined
}
