import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import type * as NetAddress from "effect/net/NetAddress"
import { decode, empty, encode } from "../../internal/bytes.ts"
import { join } from "../../internal/join.ts"
import { formatAddress } from "../../internal/target.ts"
import {
  ConnectionError,
  type ConnectionErrorReason,
  ConnectionReset,
  TlsError,
  TlsErrorKind,
  TlsTruncated
} from "../../StreamError.ts"
import { type Handshake, identityFor, offered, type TlsInfo } from "../../Tls.ts"
import type { Handler, Transport } from "../../Transport.ts"
import { certificateOf, describeCertificate, rejection } from "./certificates.ts"

// TLS without any cryptography, for tests: the records, what a handshake comes to and the end are TLS's, and what the
// records hold is readable.

const ALERT = 21
const HANDSHAKE = 22
const DATA = 23
const HEADER = 5
const MAX_RECORD = 16_384

const Version = Schema.Literals(["TLSv1.2", "TLSv1.3"])

/** The one message of either side: what a client would have, and what a server has chosen. */
const Hello = Schema.Struct({
  minVersion: Version,
  maxVersion: Version,
  alpn: Schema.optional(Schema.Array(Schema.String)),
  servername: Schema.optional(Schema.String),
  certificate: Schema.optional(Schema.String)
})

const decodeHello = Schema.decodeUnknownOption(Schema.fromJsonString(Hello))
const isKind = Schema.is(TlsErrorKind)

const servernameOf = (handshake: Handshake & { readonly role: "client" }): string | undefined =>
  handshake.peer?.isName === true ? handshake.peer.host : undefined

const infoOf = (
  { alpn, certificate, maxVersion, servername }: typeof Hello.Type,
  authorized: boolean
): TlsInfo => ({
  protocol: maxVersion,
  cipher: "TLS_NULL_WITH_NULL_NULL",
  alpn: alpn?.[0],
  servername,
  authorized,
  resumed: false,
  peerCertificate: certificate === undefined ? undefined : describeCertificate(certificate)
})

const recordsOf = (type: number, bytes: Uint8Array): Array<Uint8Array> => {
  const records: Array<Uint8Array> = []
  for (let start = 0; start === 0 || start < bytes.length; start += MAX_RECORD) {
    const payload = bytes.subarray(start, start + MAX_RECORD)
    records.push(Uint8Array.of(type, 3, 3, payload.length >> 8, payload.length & 0xff), payload)
  }
  return records
}

/** A transport that can be upgraded to TLS without cryptography, together with a peer that can. */
export const upgradable = (below: Transport, dispatcher: Scheduler.SchedulerDispatcher): Transport => {
  let handler: Handler | undefined = undefined
  let isGone = false
  const relay: Handler = {
    onData: (chunk) => handler?.onData(chunk),
    onEnd: () => handler?.onEnd(),
    onDrain: () => handler?.onDrain(),
    onClosed: (error) => {
      isGone = true
      handler?.onClosed(error)
    }
  }
  return {
    kind: below.kind,
    localAddress: below.localAddress,
    remoteAddress: below.remoteAddress,
    tls: below.tls,
    canEnd: below.canEnd,
    canLinger: below.canLinger,
    readAhead: below.readAhead,
    get bufferedBytes() {
      return below.bufferedBytes
    },
    start: (first) => {
      handler = first
      below.start(relay)
    },
    pause: () => below.pause(),
    resume: () => below.resume(),
    write: (chunk) => below.write(chunk),
    writeAll: (chunks) => below.writeAll(chunks),
    end: () => below.end(),
    close: () => below.close(),
    abort: () => below.abort(),
    upgradeTls: (handshake, leftover) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        Effect.callback((resume) => {
          if (isGone) return resume(Effect.fail(new ConnectionReset({})))
          const settle: Settle = (exit) =>
            resume(Effect.map(exit, (secured) => upgradable(secured, dispatcher)))
          const secured = new Secured(below, dispatcher, handshake, now, handler, settle)
          handler = secured
          secured.begin(leftover)
          return Effect.sync(() => below.abort())
        })
      )
  }
}

type Settle = (exit: Effect.Effect<Transport, ConnectionErrorReason>) => void

/** One end of simulated TLS, from the beginning of its handshake on. */
class Secured implements Transport, Handler {
  readonly kind = "tls"
  tls: TlsInfo | undefined = undefined
  private readonly below: Transport
  private readonly dispatcher: Scheduler.SchedulerDispatcher
  private readonly handshake: Handshake
  private readonly now: number
  private readonly settle: Settle
  // Who is told of the end until the connection over TLS takes over.
  private before: Handler | undefined
  private handler: Handler | undefined = undefined
  private state: "handshaking" | "open" | "failed" = "handshaking"
  // What came and was not made records of yet.
  private pending: Uint8Array = empty
  private paused = true
  private hasPeerEnded = false
  private hasInputEnded = false
  private isClosing = false
  private isGone = false
  private failure: ConnectionError | undefined = undefined

  constructor(
    below: Transport,
    dispatcher: Scheduler.SchedulerDispatcher,
    handshake: Handshake,
    now: number,
    before: Handler | undefined,
    settle: Settle
  ) {
    this.below = below
    this.dispatcher = dispatcher
    this.handshake = handshake
    this.now = now
    this.before = before
    this.settle = settle
  }

  get localAddress(): NetAddress.SocketAddress | undefined {
    return this.below.localAddress
  }

  get remoteAddress(): NetAddress.SocketAddress | undefined {
    return this.below.remoteAddress
  }

  // In TLS 1.2, the end of one direction ends the other one as well (RFC 5246, section 7.2.1).
  get canEnd(): boolean {
    return this.tls?.protocol === "TLSv1.3" && this.below.canEnd
  }

  get canLinger(): boolean {
    return this.below.canEnd
  }

  get readAhead(): boolean {
    return this.below.readAhead
  }

  get bufferedBytes(): number {
    return this.below.bufferedBytes
  }

  // The handshake: the client says what it would have, the server answers what they have in common, and the client agrees.

  begin(leftover: Uint8Array): void {
    const { handshake } = this
    if (handshake.role === "client") {
      const { alpn, identity, maxVersion, minVersion } = handshake.settings
      const certificate = identity && certificateOf(identity.current())
      this.say({ minVersion, maxVersion, alpn, servername: servernameOf(handshake), certificate })
    }
    if (leftover.length > 0) this.onData(leftover)
    if (this.state === "handshaking") this.below.resume()
  }

  private say(hello: typeof Hello.Type): void {
    this.send(HANDSHAKE, JSON.stringify(hello))
  }

  private shake(type: number, text: string): void {
    const { handshake } = this
    if (type === ALERT) return this.fail(isKind(text) ? text : "Refused")
    const hello = Option.getOrUndefined(decodeHello(text))
    if (type !== HANDSHAKE || hello === undefined) return this.refuse("NotTls")
    if (handshake.role === "client") this.onServerHello(hello, handshake)
    else if (this.tls === undefined) this.onClientHello(hello, handshake)
    else this.establish()
  }

  private onClientHello(hello: typeof Hello.Type, handshake: Handshake & { readonly role: "server" }): void {
    const { alpn, clientCertificate, maxVersion, minVersion } = handshake.settings
    const version = hello.maxVersion < maxVersion ? hello.maxVersion : maxVersion
    if (version < hello.minVersion || version < minVersion) return this.refuse("NoSharedVersion")
    const chosen = alpn?.filter((name) => hello.alpn?.includes(name)).slice(0, 1)
    if (hello.alpn !== undefined && chosen?.length === 0) return this.refuse("NoSharedAlpn")
    const certificate = clientCertificate === "none" ? undefined : hello.certificate
    const fault =
      certificate === undefined ? "ClientCertificateRequired" : rejection(certificate, handshake, this.now)
    if (clientCertificate === "require" && fault !== undefined) return this.refuse(fault)
    const { servername } = hello
    const agreed = { minVersion: version, maxVersion: version, alpn: chosen, servername }
    this.tls = infoOf({ ...agreed, certificate }, fault === undefined)
    this.say({
      ...agreed,
      certificate: certificateOf(identityFor(handshake.settings, servername).current())
    })
  }

  private onServerHello(hello: typeof Hello.Type, handshake: Handshake & { readonly role: "client" }): void {
    const fault = rejection(hello.certificate ?? "", handshake, this.now)
    if (handshake.settings.verify && fault !== undefined) return this.refuse(fault)
    this.tls = infoOf(hello, fault === undefined)
    this.say(hello)
    this.establish()
  }

  private establish(): void {
    this.state = "open"
    this.below.pause()
    this.settle(Effect.succeed(this))
  }

  /** A peer with whom nothing is shared is told what; one that is not trusted is told no more than that it is refused. */
  private refuse(kind: TlsErrorKind): void {
    const isTold = kind.startsWith("NoShared") || kind === "ClientCertificateRequired"
    this.send(ALERT, isTold ? kind : "Refused")
    this.fail(kind)
  }

  private fail(kind: TlsErrorKind): void {
    const { handshake } = this
    const host = handshake.role === "client" ? handshake.peer?.host : undefined
    this.giveUp(new TlsError({ kind, peer: host ?? this.address, detail: offered(handshake, kind) }))
  }

  private giveUp(reason: ConnectionErrorReason): void {
    if (this.state !== "handshaking") return
    this.state = "failed"
    if (!this.isGone) this.below.close()
    this.settle(Effect.fail(reason))
  }

  // What comes from below.

  onData(chunk: Uint8Array): void {
    this.pending = this.pending.length === 0 ? chunk : join([this.pending, chunk])
    while (this.state === "handshaking") {
      const record = this.take()
      if (record === undefined) return
      this.shake(record.type, decode(record.payload))
    }
    if (!this.paused) this.deliver()
  }

  onEnd(): void {
    this.hasInputEnded = true
    this.giveUp(new ConnectionReset({}))
    if (!this.paused) this.deliver()
  }

  onDrain(): void {
    this.handler?.onDrain()
  }

  onClosed(error?: ConnectionError): void {
    this.isGone = true
    this.failure ??= error
    this.giveUp(error?.reason ?? new ConnectionReset({}))
    this.before?.onClosed()
    this.finish()
  }

  /** The first record of what is pending, if all of it has come. */
  private take(): { readonly type: number; readonly payload: Uint8Array } | undefined {
    const [type = DATA, major = 3, , high = 0, low = 0] = this.pending
    if (type < ALERT || type > DATA || major !== 3) {
      this.pending = empty
      if (this.state === "handshaking") this.refuse("NotTls")
      else this.lose(new TlsError({ kind: "NotTls", peer: this.address }))
      return undefined
    }
    const end = HEADER + (high << 8) + low
    if (this.pending.length < HEADER || this.pending.length < end) return undefined
    const payload = this.pending.subarray(HEADER, end)
    this.pending = this.pending.subarray(end)
    return { type, payload }
  }

  /** All data that came, in one chunk: whoever pauses meanwhile gets no more. */
  private deliver(): void {
    const { handler } = this
    if (handler === undefined || this.hasPeerEnded || this.isClosing) return
    const chunks: Array<Uint8Array> = []
    let record = this.take()
    for (; record?.type === DATA; record = this.take()) chunks.push(record.payload)
    const data = join(chunks)
    if (data.length > 0) handler.onData(data)
    if (record !== undefined) {
      this.hasPeerEnded = true
      handler.onEnd()
    } else if (this.hasInputEnded) this.lose(new TlsTruncated({}))
  }

  private lose(reason: ConnectionErrorReason): void {
    this.failure ??= new ConnectionError({ operation: "read", reason, address: this.address })
    if (!this.isGone) this.below.abort()
  }

  private get address(): string | undefined {
    return formatAddress(this.remoteAddress)
  }

  // What comes from above.

  start(handler: Handler): void {
    this.handler = handler
    this.before = undefined
    if (this.isGone) this.dispatcher.scheduleTask(() => this.finish(), 0)
  }

  /** The last bytes are delivered, and then the end. */
  private finish(): void {
    this.deliver()
    this.handler?.onClosed(this.isClosing ? undefined : this.failure)
  }

  pause(): void {
    this.paused = true
    this.below.pause()
  }

  resume(): void {
    this.paused = false
    this.below.resume()
    if (this.pending.length === 0 && !this.hasInputEnded) return
    this.dispatcher.scheduleTask(() => {
      if (!this.paused && !this.isGone) this.deliver()
    }, 0)
  }

  private send(type: number, chunk: Uint8Array | string): void {
    this.below.writeAll(recordsOf(type, encode(chunk)))
  }

  write(chunk: Uint8Array | string): void {
    this.send(DATA, chunk)
  }

  writeAll(chunks: ReadonlyArray<Uint8Array | string>): void {
    this.send(DATA, join(chunks.map(encode)))
  }

  end(): void {
    this.send(ALERT, "close_notify")
    this.below.end()
  }

  close(): void {
    if (!this.isClosing) this.send(ALERT, "close_notify")
    this.isClosing = true
    this.below.close()
  }

  abort(): void {
    this.isClosing = true
    this.below.abort()
  }
}
