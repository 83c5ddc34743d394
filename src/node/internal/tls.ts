import * as Effect from "effect/Effect"
import { X509Certificate } from "node:crypto"
import { Duplex } from "node:stream"
import * as tls from "node:tls"
import { codeOf } from "../../internal/code.ts"
import { CLOSE_BUDGET } from "../../internal/limits.ts"
import {
  ConnectionAborted,
  ConnectionReset,
  type ConnectionErrorReason,
  reasonFromCause,
  TlsError,
  TlsTruncated
} from "../../StreamError.ts"
import {
  type Certificate,
  type Handshake,
  identityFor,
  offered,
  type ServerSettings,
  type TlsInfo
} from "../../Tls.ts"
import type { Handler, Transport } from "../../Transport.ts"
import * as Cert from "./certificate.ts"
import { type KnownSession, Sessions } from "./session.ts"
import { contextOf, invalid, trustOf } from "./tlsContext.ts"

class Info implements TlsInfo {
  readonly protocol: string
  readonly cipher: string
  readonly alpn: string | undefined
  readonly servername: string | undefined
  readonly authorized: boolean
  readonly resumed: boolean
  private certificate: X509Certificate | Certificate | undefined

  constructor(
    socket: tls.TLSSocket,
    servername: string | undefined,
    authorized: boolean,
    certificate: X509Certificate | undefined
  ) {
    const cipher = socket.getCipher()
    this.protocol = socket.getProtocol() ?? "unknown"
    this.cipher = cipher.standardName
    this.alpn = socket.alpnProtocol || undefined
    this.servername = servername
    this.authorized = authorized
    this.resumed = socket.isSessionReused()
    this.certificate = certificate
  }

  // Taken apart when somebody asks.
  get peerCertificate(): Certificate | undefined {
    if (this.certificate instanceof X509Certificate) {
      this.certificate = Cert.read(this.certificate)
    }
    return this.certificate
  }
}

interface Verifier {
  readonly verifyError: () => unknown
}

const isVerifier = (u: unknown): u is Verifier =>
  typeof u === "object" && u !== null && "verifyError" in u && typeof u.verifyError === "function"

/**
 * Why the peer's certificate is not accepted, if it is not: of a server's socket, Node does not tell. Where the handle
 * cannot be asked, nothing is accepted.
 */
const verifyError = (socket: tls.TLSSocket): unknown => {
  const handle: unknown = Reflect.get(socket, "_handle")
  return isVerifier(handle)
    ? (handle.verifyError() ?? undefined)
    : new Error("this version of Node does not tell whether the peer's certificate is trusted")
}

type Warn = (message: string, cause: unknown) => void

/**
 * Has OpenSSL keep the name that a client asks for in the session. In TLS 1.2 it tells the session's name of a
 * connection that resumes it, and keeps only one that was accepted, which Node does if it has a context for it at
 * once.
 */
const acceptName = (socket: tls.TLSSocket, { context }: tls.SecureContext): void => {
  const handle: unknown = Reflect.get(socket, "_handle")
  if (typeof handle === "object" && handle !== null) Reflect.set(handle, "sni_context", context)
}

/** Some releases of Node 22 take an IPv6 address for a name here, and find it nowhere. */
const checkAddress = (address: string, { raw }: tls.PeerCertificate): Error | undefined => {
  const certificate = new X509Certificate(raw)
  if (certificate.checkIP(address) !== undefined) return undefined
  const message = `IP: ${address} is not among the certificate's names: ${certificate.subjectAltName ?? "none"}`
  return Object.assign(new Error(message), { code: "ERR_TLS_CERT_ALTNAME_INVALID" })
}

/** A stream that can be written to after its end, which is not an end of the stream. */
class Ciphertext extends Duplex {
  onOutputEnd: (callback: () => void) => void = (callback) => callback()

  // Node's TLS calls it once all that it wrote has left, and gives a callback only.
  override end(callback?: unknown): this {
    this.onOutputEnd(() => {
      if (typeof callback === "function") process.nextTick(callback)
    })
    return this
  }
}

/**
 * The ciphertext of a TLS connection on its way between Node's TLS and the transport below.
 *
 * Node's TLS could take over the socket itself. It would report an end of the connection as the end of input then, whether
 * the peer has said so (close_notify) or not.
 */
export class TlsLayer implements Handler {
  readonly below: Transport
  /** Called once the transport below has let go. */
  onGone: (() => void) | undefined = undefined
  isGone = false
  private readonly ciphertext: Ciphertext
  private socket: tls.TLSSocket | undefined = undefined
  // Who is told of the end until the connection over TLS takes over.
  private before: Handler | undefined
  // The session that is offered to the server.
  private known: KnownSession | undefined = undefined
  // What the peer has shown. Node 22 tells a client only once.
  private certificate: X509Certificate | undefined = undefined
  // Ends the handshake, as long as it goes on.
  private giveUp: ((reason: ConnectionErrorReason) => void) | undefined = undefined
  private written: (() => void) | undefined = undefined
  private isEnding = false
  private hasInputEnded = false
  private hasPeerEnded = false
  // Who the peer is and what was wanted, for errors.
  private peer: string | undefined = undefined
  private request: Handshake | undefined = undefined
  private isSuspect = false
  // What came after the handshake had failed, once it has.
  private discarded: number | undefined = undefined

  constructor(below: Transport, before: Handler | undefined) {
    this.below = below
    this.before = before
    const sent = (callback: () => void): void => {
      this.written = callback
      this.onDrain()
    }
    this.ciphertext = new Ciphertext({
      allowHalfOpen: true,
      read: () => below.resume(),
      write: (chunk: Buffer, _, callback) => {
        // OpenSSL answers a KeyUpdate also after its end. Nobody needs the answer then.
        if (this.isEnding) return callback()
        below.write(chunk)
        sent(callback)
      },
      writev: (chunks: Array<{ readonly chunk: Buffer }>, callback) => {
        if (this.isEnding) return callback()
        below.writeAll(chunks.map((_) => _.chunk))
        sent(callback)
      },
      destroy: (error, callback) => {
        this.written = undefined
        if (!this.isGone) {
          if (this.giveUp !== undefined) this.linger()
          else if (this.isEnding) below.close()
          else below.abort()
        }
        callback(error)
      }
    })
    this.ciphertext.onOutputEnd = (callback) => {
      this.isEnding = true
      if (this.isGone) return callback()
      if (below.canEnd) below.end()
      sent(callback)
    }
    this.ciphertext.on("error", () => {})
    this.ciphertext.on("end", this.onCiphertextEnd)
  }

  readonly onData = (chunk: Uint8Array): void => {
    if (this.discarded !== undefined) {
      this.discarded += chunk.length
      if (this.discarded > CLOSE_BUDGET) this.below.abort()
    } else if (!this.ciphertext.destroyed && !this.ciphertext.push(chunk)) this.below.pause()
  }

  readonly onEnd = (): void => {
    this.hasInputEnded = true
    if (this.discarded !== undefined) this.below.close()
    else if (!this.ciphertext.destroyed) this.ciphertext.push(null)
  }

  readonly onDrain = (): void => {
    const { written } = this
    if (written === undefined || this.below.bufferedBytes > 0) return
    this.written = undefined
    written()
  }

  readonly onClosed = (error?: { readonly reason: ConnectionErrorReason }): void => {
    this.isGone = true
    // What came before an orderly end is here, and is read on from where reading is held up.
    const isOrderly = error === undefined && this.hasInputEnded && !this.ciphertext.destroyed
    if (!isOrderly) {
      this.decryptRest()
      // The end came first. It is known here by now, unless reading is held up.
      if (this.hasInputEnded && this.ciphertext.readableLength === 0) this.onCiphertextEnd()
      this.fail(error?.reason ?? new ConnectionAborted({}))
    }
    this.before?.onClosed()
    this.onGone?.()
  }

  /** Where reading is held up, what came before the connection was lost is here. Reading it hands it to Node's TLS. */
  private decryptRest(): void {
    while (this.ciphertext.readableLength > 0 && this.ciphertext.read() !== null);
  }

  /**
   * Ends a connection whose handshake has failed, and reads on until the peer's end, for as long as the connection
   * lets it: the alert that says why would be lost if the socket were let go while bytes of the peer's come.
   */
  private linger(): void {
    const { below } = this
    if (this.hasInputEnded || !(below.canLinger ?? below.canEnd)) return below.close()
    this.discarded = 0
    below.end()
    below.resume()
  }

  /** From here on, whoever is above tells of the end. */
  takeOver(): void {
    this.before = undefined
  }

  /** Every byte was handed to Node's TLS by now: either it has seen the peer's end among them, or there was none. */
  private readonly onCiphertextEnd = (): void => {
    if (this.giveUp !== undefined) this.giveUp(new ConnectionReset({}))
    else if (!this.hasPeerEnded) this.socket?.destroy(new TlsTruncated({ detail: this.suspicion }))
  }

  private get suspicion(): string | undefined {
    return this.isSuspect && this.socket?.bytesRead === 0
      ? "nothing came behind the handshake, and the server may not accept the certificate of this side"
      : undefined
  }

  private fail(reason: ConnectionErrorReason): void {
    if (this.giveUp !== undefined) this.giveUp(reason)
    else this.socket?.destroy(reason)
  }

  /** Gives what `wrap` makes of the connection, at the moment it is established. */
  handshake<A>(
    request: Handshake,
    leftover: Uint8Array,
    address: string | undefined,
    wrap: (socket: tls.TLSSocket, info: TlsInfo) => A
  ): Effect.Effect<A, ConnectionErrorReason> {
    return Effect.withFiber(({ context }) => {
      const warn = (message: string, cause: unknown): void => {
        Effect.runForkWith(context)(Effect.logWarning(message, cause))
      }
      return this.handshaking(request, leftover, address, wrap, warn)
    })
  }

  private handshaking<A>(
    request: Handshake,
    leftover: Uint8Array,
    address: string | undefined,
    wrap: (socket: tls.TLSSocket, info: TlsInfo) => A,
    warn: Warn
  ): Effect.Effect<A, ConnectionErrorReason> {
    return Effect.callback<A, ConnectionErrorReason>((resume) => {
      this.request = request
      this.peer = (request.role === "client" ? request.peer?.host : undefined) ?? address
      let socket: tls.TLSSocket
      try {
        socket = request.role === "client" ? this.client(request, warn) : this.server(request.settings)
      } catch (cause) {
        this.below.abort()
        return resume(Effect.fail(invalid(cause)))
      }
      this.socket = socket
      // The end of the ciphertext is looked at before Node's TLS hears of it.
      this.ciphertext.off("end", this.onCiphertextEnd).prependListener("end", this.onCiphertextEnd)
      const push = socket.push.bind(socket)
      socket.push = (chunk: unknown, encoding) => {
        if (chunk === null) this.hasPeerEnded = true
        return push(chunk, encoding)
      }
      socket.once("close", () => this.ciphertext.destroy())
      const onError = (cause: unknown): void =>
        // Of a client that does not accept the certificate, Node keeps this as well.
        this.giveUp?.(
          socket.authorizationError ? certificateFault(cause, this.certificate) : reasonFromCause(cause)
        )
      this.giveUp = (reason) => {
        socket.destroy()
        this.ciphertext.destroy()
        this.giveUp = undefined
        resume(Effect.fail(this.describe(reason)))
      }
      const establish = (): void => {
        if (this.giveUp === undefined) return
        const secured = wrap(socket, this.infoOf(socket, request))
        this.giveUp = undefined
        socket.off("error", onError)
        resume(Effect.succeed(secured))
      }
      // What a listener throws would end the process.
      const attempt = (listener: () => void) => (): void => {
        try {
          listener()
        } catch (cause) {
          this.giveUp?.(unexpected(cause))
        }
      }
      socket.on("error", onError)
      // Node destroys what it does not accept, without an error in places.
      socket.once("close", () => this.giveUp?.(new ConnectionReset({})))
      if (request.role === "client") {
        // Before Node looks at the certificate itself. It destroys the socket then, which tells nothing any more.
        socket.prependOnceListener(
          "secure",
          attempt(() => {
            if (verifyError(socket) !== undefined) this.certificate = socket.getPeerX509Certificate()
          })
        )
        socket.once(
          "secureConnect",
          attempt(() => {
            this.certificate ??=
              socket.getPeerX509Certificate() ??
              (socket.isSessionReused() ? this.known?.certificate : undefined)
            // In TLS 1.3 a client hears of it behind its handshake, and not from every server why.
            this.isSuspect = request.settings.identity !== undefined && socket.getProtocol() === "TLSv1.3"
            establish()
          })
        )
      } else {
        const { clientCertificate } = request.settings
        socket.once(
          "secure",
          attempt(() => {
            // Of a socket that no `tls.Server` made, Node tells later failures (a forged record, an alert) this way
            // only.
            socket.on("_tlsError", (cause: Error) => socket.destroy(cause))
            this.certificate = socket.getPeerX509Certificate()
            const failure = clientCertificate === "require" ? verifyError(socket) : undefined
            if (failure === undefined) establish()
            else this.giveUp?.(notAccepted(failure, this.certificate, address))
          })
        )
      }
      if (this.isGone) this.giveUp(new ConnectionReset({}))
      else if (leftover.length > 0) this.onData(leftover)
      return Effect.sync(() => {
        this.giveUp = undefined
        this.below.abort()
        socket.destroy()
      })
    })
  }

  private client({ peer, settings }: Handshake & { readonly role: "client" }, warn: Warn): tls.TLSSocket {
    const { verify } = settings
    const identity = settings.identity?.current()
    const sessions =
      settings.sessions && verify
        ? new Sessions(
            settings.sessions,
            `${this.addressOfPeer()} ${peer?.host ?? ""} ${trustOf(settings, identity)}`,
            warn
          )
        : undefined
    this.known = sessions?.load()
    const socket = tls.connect({
      socket: this.ciphertext,
      secureContext: contextOf(settings, identity),
      rejectUnauthorized: verify,
      // Without a host, Node would look for "localhost" in the certificate.
      ...(peer === undefined
        ? { checkServerIdentity: () => undefined }
        : {
            host: peer.host,
            ...(peer.isName ? { servername: peer.host } : { checkServerIdentity: checkAddress })
          }),
      ...(settings.alpn !== undefined && { ALPNProtocols: [...settings.alpn] }),
      ...(this.known !== undefined && { session: this.known.session })
    })
    if (sessions !== undefined) {
      socket.on("session", (session: Buffer) => {
        if (this.certificate !== undefined && socket.authorized) sessions.store(session, this.certificate)
      })
    }
    return socket
  }

  private server(settings: ServerSettings): tls.TLSSocket {
    const secureContext = contextOf(settings, settings.identity.current())
    const socket = new tls.TLSSocket(this.ciphertext, {
      isServer: true,
      secureContext,
      requestCert: settings.clientCertificate !== "none",
      rejectUnauthorized: settings.clientCertificate === "require",
      ...(settings.alpn !== undefined && { ALPNProtocols: [...settings.alpn] }),
      ...(settings.names.size > 0 && {
        SNICallback: (
          name: string,
          callback: (error: Error | null, context?: tls.SecureContext) => void
        ): void => {
          try {
            callback(null, contextOf(settings, identityFor(settings, name).current()))
          } catch (cause) {
            callback(invalid(cause))
          }
        }
      })
    })
    acceptName(socket, secureContext)
    return socket
  }

  private infoOf(socket: tls.TLSSocket, request: Handshake): TlsInfo {
    if (request.role === "client") {
      const servername = request.peer?.isName === true ? request.peer.host : undefined
      return new Info(socket, servername, socket.authorized, this.certificate)
    }
    const name: unknown = Reflect.get(socket, "servername")
    const isAuthorized = this.certificate !== undefined && verifyError(socket) === undefined
    return new Info(socket, typeof name === "string" ? name : undefined, isAuthorized, this.certificate)
  }

  /** A reason with the peer's name, where it is about TLS. */
  describe(reason: ConnectionErrorReason): ConnectionErrorReason {
    if (reason._tag !== "TlsError") return reason
    const { cause, code, kind } = reason
    const peer = reason.peer ?? this.peer
    if (kind === "WrongHost" && cause instanceof Error) {
      // Node quotes the names in the certificate, and hangs all of it on its error.
      const detail = Cert.shown(cause.message)
      return new TlsError({ kind, code, cause: new Error(detail), peer, detail })
    }
    const detail = reason.detail ?? (this.request && offered(this.request, kind))
    return new TlsError({ kind, code, cause, peer, detail })
  }

  private addressOfPeer(): string {
    return JSON.stringify(this.below.remoteAddress ?? null)
  }
}

/** Whatever went wrong where nothing should. */
const unexpected = (cause: unknown): ConnectionErrorReason => {
  const reason = reasonFromCause(cause)
  return reason._tag === "UnknownReason"
    ? new TlsError({
        kind: "Failed",
        code: reason.code,
        cause,
        detail: cause instanceof Error ? cause.message : undefined
      })
    : reason
}

/** What OpenSSL or Node holds against a certificate, also where the code is one that is not known here. */
const certificateFault = (cause: unknown, certificate: X509Certificate | undefined): TlsError => {
  const reason = reasonFromCause(cause)
  const kind = reason._tag === "TlsError" ? reason.kind : "BadCertificate"
  const said = kind === "BadCertificate" && cause instanceof Error ? cause.message : undefined
  const detail = said ?? (certificate && Cert.flawOf(kind, certificate))
  return new TlsError({ kind, code: codeOf(cause), cause, detail })
}

/** The same of a client's certificate, with the name in it. */
const notAccepted = (
  cause: unknown,
  certificate: X509Certificate | undefined,
  address: string | undefined
): ConnectionErrorReason => {
  const { code, detail, kind } = certificateFault(cause, certificate)
  const name = certificate && Cert.nameIn(certificate)
  const peer = name === undefined ? address : `${name} at ${address ?? "an unknown address"}`
  return new TlsError({ kind, code, cause, peer, detail })
}
