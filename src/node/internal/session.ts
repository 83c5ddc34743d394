import { createHash, X509Certificate } from "node:crypto"
import type { SessionCache } from "../../Tls.ts"

/**
 * A session of a server's that may be resumed, with its certificate: Node does not tell that of one that was resumed.
 */
export interface KnownSession {
  readonly session: Buffer
  readonly certificate: X509Certificate
}

const DIGEST = 32

const digest = (bytes: Uint8Array): Buffer => createHash("sha256").update(bytes).digest()

/** A digest, the certificate's length, the certificate and the session. */
const pack = (session: Uint8Array, certificate: Uint8Array): Uint8Array => {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(certificate.length)
  const content = Buffer.concat([length, certificate, session])
  return Uint8Array.from(Buffer.concat([digest(content), content]))
}

/** Throws for what `pack` has not made, such as what a file was damaged to: OpenSSL would try to go on with it. */
const unpack = (packed: Uint8Array): KnownSession => {
  const bytes = Buffer.from(packed)
  const content = bytes.subarray(DIGEST)
  if (!digest(content).equals(bytes.subarray(0, DIGEST))) {
    throw new RangeError("what it gave is not a session that it was given")
  }
  const start = 4 + content.readUInt32BE(0)
  return { session: content.subarray(start), certificate: new X509Certificate(content.subarray(4, start)) }
}

// Who has a cache that does not work is told once.
const complainedOf = new WeakSet<SessionCache>()

/**
 * The sessions of one server in a cache. Whatever the cache does is no reason to fail: without a session there is a
 * full handshake.
 */
export class Sessions {
  private readonly cache: SessionCache
  private readonly server: string
  private readonly warn: (message: string, cause: unknown) => void

  constructor(cache: SessionCache, server: string, warn: (message: string, cause: unknown) => void) {
    this.cache = cache
    this.server = server
    this.warn = warn
  }

  load(): KnownSession | undefined {
    return this.attempt(() => {
      const packed = this.cache.get(this.server)
      return packed && unpack(packed)
    })
  }

  store(session: Uint8Array, certificate: X509Certificate): void {
    this.attempt(() => this.cache.set(this.server, pack(session, certificate.raw)))
  }

  private attempt<A>(f: () => A): A | undefined {
    try {
      return f()
    } catch (cause) {
      if (!complainedOf.has(this.cache)) {
        complainedOf.add(this.cache)
        this.warn("a cache of TLS sessions does not work, and full handshakes are made", cause)
      }
      return undefined
    }
  }
}
