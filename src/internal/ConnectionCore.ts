import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as NetAddress from "effect/net/NetAddress"
import type { Target } from "../Network.ts"
import type { Received } from "../ProxyProtocol.ts"
import {
  BrokenPipe,
  ConnectionAborted,
  ConnectionClosed,
  ConnectionError,
  type ConnectionErrorReason,
  ConnectionReset,
  PlaintextBuffered,
  type TimeoutError,
  Unsupported
} from "../StreamError.ts"
import type { Handshake, TlsInfo } from "../Tls.ts"
import type { Handler, Kind, Transport } from "../Transport.ts"
import { type Deadline, Deadlines, type Surroundings, type TimeLimits } from "./Deadlines.ts"
import { empty } from "./bytes.ts"
import { Input } from "./Input.ts"
import { CLOSE_BUDGET, noTimeouts, type Watermarks } from "./limits.ts"
import { Output } from "./Output.ts"
import { formatAddress, formatTarget } from "./target.ts"
import { within } from "./within.ts"

/** Makes the error that reads or writes fail with. */
type OnFailure = (operation: "read" | "write") => ConnectionError

/** The options of a connection, checked. Times are milliseconds, infinite where there is no limit. */
export interface Settings {
  readonly limit: number
  readonly watermarks: Watermarks
  readonly reading: TimeLimits
  readonly writing: TimeLimits
  readonly closing: TimeLimits
}

let connections = 0

// Functions are made by functions: one that is written where it is assigned to a property lives long, as V8 sees it, and
// only a full garbage collection frees it and what it holds.

const receivedBy =
  (core: ConnectionCore): Handler["onData"] =>
  (chunk) =>
    core.received(chunk)

const lentTo =
  (core: ConnectionCore): Handler["onLent"] =>
  (chunk) =>
    core.lent(chunk)

const drainedFor =
  (output: Output): Handler["onDrain"] =>
  () =>
    output.drained()

const canonical = (address: NetAddress.SocketAddress): NetAddress.SocketAddress =>
  NetAddress.isInetAddress(address) ? NetAddress.toCanonical(address) : address

/**
 * A connection's state machine: open, then closing (a local close that still sends and waits for the peer), then
 * finished (the transport has let go).
 */
export class ConnectionCore implements Handler, Surroundings {
  transport: Transport
  readonly openedAt: number
  readonly input: Input
  readonly output: Output
  /** Whom the bytes are for, where the transport's peer is a proxy. */
  target: string | undefined = undefined
  /** Whom it was connected to, by a proxy at last. */
  connectedTo: Target | undefined = undefined
  /** What the PROXY header says that the connection began with. */
  proxyProtocol: Received | undefined = undefined
  /** What it died of, if it did. */
  failure: ConnectionError | undefined = undefined
  readonly settings: Settings
  deadlines: Deadlines | undefined = undefined
  private readonly kind: Kind
  private readonly number = ++connections
  private readonly clock: Clock.Clock
  private readonly context: Context.Context<never>
  private whenReceived: Handler["onData"] | undefined = undefined
  private whenLent: Handler["onLent"] = undefined
  private whenDrained: Handler["onDrain"] | undefined = undefined
  // Who waits until the transport has let go, and for the end of the peer's direction: made for somebody.
  private observers: Array<() => void> | undefined = undefined
  private severed: Latch.Latch | undefined = undefined
  private state: "open" | "closing" | "aborting" | "finished" = "open"
  private peerEnded = false
  private discarded = 0
  private closeDeadline: Deadline | undefined = undefined
  // A handshake: not begun, going on (`gone` once the transport has let go meanwhile), or over.
  private upgrade: "none" | "started" | "gone" | "over" = "none"
  // What had been received when the handshake began.
  private plainBytes = 0
  // The last proxy's transport, over which the bytes of somebody else go.
  private tunnel: Transport | undefined = undefined

  constructor(transport: Transport, settings: Settings, clock: Clock.Clock, context: Context.Context<never>) {
    this.transport = transport
    this.kind = transport.kind
    this.openedAt = clock.currentTimeMillisUnsafe()
    this.settings = settings
    this.clock = clock
    this.context = context
    this.input = new Input(settings.limit, this)
    // A lockstep transport holds nothing: whoever writes waits until the peer has taken it.
    const watermarks = transport.readAhead ? settings.watermarks : { high: 0, low: 0 }
    this.output = new Output(transport, watermarks, this)
  }

  start(): void {
    this.transport.start(this)
    this.input.attach(this.transport)
  }

  get id(): string {
    return `${this.kind}-${this.number}`
  }

  get localAddress(): NetAddress.SocketAddress | undefined {
    const told = this.proxyProtocol?.addresses?.destination
    return told === undefined ? this.transport.localAddress : canonical(told)
  }

  get remoteAddress(): NetAddress.SocketAddress | undefined {
    const told = this.proxyProtocol?.addresses?.source
    return told === undefined ? this.transport.remoteAddress : canonical(told)
  }

  get address(): string | undefined {
    return formatAddress(this.remoteAddress)
  }

  /** Of TLS with whom the bytes are for, not with a proxy on the way. */
  get tls(): TlsInfo | undefined {
    return this.tunnel === this.transport ? undefined : this.transport.tls
  }

  /** The same: `"tls"` only if whoever the bytes are for speaks it. */
  get transportKind(): Kind {
    return this.tunnel === this.transport ? this.kind : this.transport.kind
  }

  get timed(): Deadlines {
    return (this.deadlines ??= new Deadlines(this.clock, this.context, () => this.address))
  }

  get isClosing(): boolean {
    return this.state !== "open"
  }

  /** Completes when the transport has let go; fails if the connection died of an error. */
  get closed(): Effect.Effect<void, ConnectionError> {
    return Effect.callback((resume) => {
      const observer = (): void => resume(this.failure === undefined ? Exit.void : Exit.fail(this.failure))
      this.whenFinished(observer)
      return Effect.sync(() => {
        this.observers = this.observers?.filter((_) => _ !== observer)
      })
    })
  }

  /** Calls back once the transport has let go. */
  whenFinished(observer: () => void): void {
    if (this.state === "finished") observer()
    else (this.observers ??= []).push(observer)
  }

  /** Whether both directions are still open, as far as is known. */
  get isWhole(): boolean {
    return !this.isBroken && this.output.isOpen
  }

  // The own end is not what breaks a connection.
  private get isBroken(): boolean {
    return this.state !== "open" || this.peerEnded || !(this.output.isOpen || this.output.hasEnded)
  }

  /** Whether it is as it was when it was new: nothing waits to be read, and nobody waits for it. */
  get isClean(): boolean {
    return this.isWhole && this.input.isIdle && this.output.isIdle
  }

  /**
   * Waits until the peer has ended its direction, or the connection is closed, aborted or lost. Gives the error that it
   * was lost with, if it was. Noticed without reading, unless more than 2 × `limit` bytes wait to be read.
   */
  get broken(): Effect.Effect<ConnectionError | undefined> {
    return Effect.suspend(() => {
      this.severed ??= Latch.makeUnsafe(this.isBroken)
      return Effect.map(this.severed.await, () => this.failure)
    })
  }

  private get finished(): Effect.Effect<void> {
    return Effect.ignore(this.closed)
  }

  get close(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.closeNow()
      return this.finished
    })
  }

  /** The same without waiting for the peer. */
  get release(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.closeNow()
      if (this.isClosingStill()) this.transport.close()
      return this.finished
    })
  }

  get abort(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.abortNow()
      return this.finished
    })
  }

  /**
   * Sends what was written and a FIN, and discards what the peer still sends until its FIN. A peer that takes longer than
   * the close timeout, or sends more than the budget, is cut off.
   */
  closeNow(): void {
    // What was written waits for the handshake: there is nobody yet whom it could be sent to.
    if (this.isUpgrading()) this.abortNow()
    if (this.state !== "open") return
    this.state = "closing"
    this.severed?.openUnsafe()
    // Writing first: a waiting reader that fails may write something at once.
    const error = this.closedLocally()
    this.output.close(error)
    this.input.fail(error)
    if (this.isClosingStill()) this.awaitPeer()
  }

  abortNow(): void {
    if (this.state === "aborting" || this.state === "finished") return
    this.state = "aborting"
    this.severed?.openUnsafe()
    const error: OnFailure = (operation) => this.error(operation, new ConnectionAborted({}))
    this.output.fail(error)
    this.input.fail(error)
    this.disarmClose()
    this.transport.abort()
  }

  /** Makes TLS of the connection. It is over if that fails, unless the handshake was not begun. */
  upgradeTls(
    request: Handshake,
    leftover: "fail" | "discard" | "feed"
  ): Effect.Effect<void, ConnectionError | TimeoutError> {
    let hasBegun = false
    const upgraded = Effect.flatMap(this.beginUpgrade(leftover), (received) => {
      hasBegun = true
      return Effect.mapError(
        this.transport.upgradeTls?.(request, received) ?? Effect.fail(new Unsupported({})),
        (reason) => this.error("handshake", reason)
      )
    })
    const timed = within(
      upgraded,
      "handshake",
      "handshakeTimeout",
      request.settings.handshakeTimeout,
      () => this.address
    )
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.exit(restore(timed)), (exit) => {
        if (Exit.isSuccess(exit)) return this.upgraded(exit.value, leftover)
        const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
        if (hasBegun || error?._tag !== "ConnectionError") this.notUpgraded(error)
        return Exit.asVoid(exit)
      })
    )
  }

  /** A proxy has connected to somebody else, with whom TLS can be made inside of TLS with the proxy. */
  tunnelled(target: Target): void {
    this.tunnel = this.transport
    this.upgrade = "none"
    this.connectedTo = target
    this.target = formatTarget(target)
  }

  // Everything written has to be sent first. Gives what was received and belongs to the handshake.
  private beginUpgrade(
    leftover: "fail" | "discard" | "feed"
  ): Effect.Effect<Uint8Array, ConnectionError | TimeoutError> {
    return Effect.suspend(() => {
      const obstacle = this.obstacle(leftover)
      if (obstacle !== undefined) return Effect.fail(this.error("handshake", obstacle))
      if (!this.output.hold()) {
        return Effect.flatMap(this.output.flush(noTimeouts), () => this.beginUpgrade(leftover))
      }
      this.upgrade = "started"
      const received = this.input.detach()
      this.plainBytes = this.input.bytesRead
      return Effect.succeed(leftover === "discard" ? empty : received)
    })
  }

  private obstacle(leftover: "fail" | "discard" | "feed"): ConnectionErrorReason | undefined {
    const { transport } = this
    if (this.state !== "open") return new ConnectionClosed({})
    if (this.upgrade !== "none" || (transport.kind === "tls" && this.tunnel === undefined)) {
      return new Unsupported({ detail: "the connection is upgraded to TLS already" })
    }
    if (transport.upgradeTls === undefined) {
      return new Unsupported({ detail: `a ${transport.kind} connection cannot be upgraded to TLS` })
    }
    const { size } = this.input.buffer
    if (leftover === "fail" && size > 0) return new PlaintextBuffered({ bytes: size })
    if (this.peerEnded) return new ConnectionReset({})
    return this.output.hasEnded ? new BrokenPipe({}) : undefined
  }

  private upgraded(
    transport: Transport,
    leftover: "fail" | "discard" | "feed"
  ): Exit.Exit<void, ConnectionError> {
    this.transport = transport
    transport.start(this)
    // A chunk may come after reading was paused. Nobody vouches for it, and it must not pass for what came over TLS.
    const bytes = this.input.bytesRead - this.plainBytes
    this.input.detach()
    if (bytes > 0 && leftover !== "discard" && this.state === "open") {
      const error = this.error("handshake", new PlaintextBuffered({ bytes }))
      this.notUpgraded(error)
      transport.abort()
      return Exit.fail(error)
    }
    this.upgrade = "over"
    if (this.state === "open") {
      this.output.release(transport)
      this.input.attach(transport)
    } else {
      transport.abort()
    }
    return Exit.void
  }

  private notUpgraded(error: ConnectionError | TimeoutError | undefined): void {
    const isGone = this.upgrade === "gone"
    this.upgrade = "over"
    if (error !== undefined && this.state === "open") {
      this.output.fail(() => error)
      this.input.fail(() => error)
      if (error._tag === "ConnectionError" && this.state === "open") {
        this.failure = error
        this.state = "closing"
        this.severed?.openUnsafe()
        this.armClose()
        if (isGone) this.gone()
        return
      }
    }
    this.abortNow()
    if (isGone) this.gone()
  }

  private isUpgrading(): boolean {
    return this.upgrade === "started" || this.upgrade === "gone"
  }

  // What a transport may take off its handler is made when it asks for it: an idle connection has none of these.

  get onData(): Handler["onData"] {
    return (this.whenReceived ??= receivedBy(this))
  }

  get onLent(): Handler["onLent"] {
    return (this.whenLent ??= lentTo(this))
  }

  get onEnd(): Handler["onEnd"] {
    return () => this.ended()
  }

  get onDrain(): Handler["onDrain"] {
    return (this.whenDrained ??= drainedFor(this.output))
  }

  get onClosed(): Handler["onClosed"] {
    return (error) => this.gone(error)
  }

  lent(chunk: Uint8Array): boolean {
    return this.state === "open" && this.input.lend(chunk)
  }

  received(chunk: Uint8Array): void {
    if (this.state === "open") return this.input.feed(chunk)
    this.discarded += chunk.length
    if (this.state === "closing" && this.discarded > CLOSE_BUDGET) this.abortNow()
  }

  private ended(): void {
    this.peerEnded = true
    this.input.feedEof()
    this.severed?.openUnsafe()
    if (this.state === "closing") this.transport.close()
  }

  onOutputFailed(error: ConnectionError): void {
    this.output.fail(() => error)
    this.severed?.openUnsafe()
  }

  private gone(error?: ConnectionError): void {
    if (this.state === "finished") return
    if (this.state === "open" && this.isUpgrading()) {
      // Whoever waits for the handshake says why.
      this.upgrade = "gone"
      return
    }
    const local = this.state !== "open"
    this.state = "finished"
    if (!local) this.failure = error
    this.disarmClose()
    const failure = error === undefined ? this.closedLocally() : () => error
    if (error === undefined && !local) this.output.finish(failure)
    else this.output.fail(failure)
    this.input.fail(failure)
    this.severed?.openUnsafe()
    const { observers } = this
    this.observers = undefined
    observers?.forEach((observer) => observer())
  }

  private armClose(): void {
    this.closeDeadline = Deadlines.ofClosing(this.clock).arm(this.settings.closing, () => this.abortNow())
  }

  private awaitPeer(): void {
    this.armClose()
    if (this.peerEnded || !this.output.canLinger) this.transport.close()
    else this.transport.resume()
  }

  private disarmClose(): void {
    if (this.closeDeadline === undefined) return
    const closing = Deadlines.ofClosing(this.clock)
    closing.disarm(this.closeDeadline)
    closing.settle()
  }

  // Failing the waiting fibers may have closed or aborted the connection already.
  private isClosingStill(): boolean {
    return this.state === "closing"
  }

  private closedLocally(): OnFailure {
    return (operation) => this.error(operation, new ConnectionClosed({}))
  }

  error(operation: string, reason: ConnectionErrorReason): ConnectionError {
    return new ConnectionError({ operation, reason, address: this.address })
  }
}
