import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { constants, createHash, createPrivateKey, type KeyObject, X509Certificate } from "node:crypto"
import * as tls from "node:tls"
import { codeOf } from "../../internal/code.ts"
import { quoted } from "../../internal/printable.ts"
import { TlsError } from "../../StreamError.ts"
import type { Certificate, ClientSettings, Identity, Pem, ServerSettings } from "../../Tls.ts"
import * as Cert from "./certificate.ts"

const pem = (input: Pem): string | Buffer => {
  const value = Redacted.isRedacted(input) ? Redacted.value(input) : input
  return typeof value === "string" ? value : Buffer.from(value)
}

const optional = <K extends string, V>(key: K, value: V | undefined): { readonly [P in K]?: V } => {
  const fields: { [P in K]?: V } = {}
  if (value !== undefined) fields[key] = value
  return fields
}

/** OpenSSL itself passes over what it cannot read, and whatever follows: nobody would be trusted then. */
const authorities = (option: string, ca: Pem): string | Buffer => {
  const text = pem(ca)
  const certificates =
    text.toString().match(/-----BEGIN ((?:X509 |TRUSTED )?CERTIFICATE)-----[^]*?-----END \1-----/g) ?? []
  if (certificates.length === 0) throw invalidOption(`\`${option}\` has no certificate in PEM`)
  certificates.forEach((certificate, index) => {
    try {
      new X509Certificate(certificate)
    } catch (cause) {
      const which = certificates.length === 1 ? "" : `, number ${index + 1} of ${certificates.length}`
      throw invalidOption(`\`${option}\` has a certificate that cannot be read${which}`, cause)
    }
  })
  return text
}

const trusted = (settings: ClientSettings | ServerSettings): Array<string | Buffer> | undefined => {
  const ca = settings.ca?.map((_) => authorities("ca", _))
  const extraCa = "extraCa" in settings ? settings.extraCa?.map((_) => authorities("extraCa", _)) : undefined
  return extraCa === undefined ? ca : [...(ca ?? tls.getCACertificates()), ...extraCa]
}

const readCertificate = (text: string | Buffer): X509Certificate => {
  if (!/-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----/.test(text.toString())) {
    throw invalidIdentity("`certificate` has no certificate in PEM")
  }
  try {
    return new X509Certificate(text)
  } catch (cause) {
    throw invalidIdentity("`certificate` has one that cannot be read", cause)
  }
}

interface LockedKey {
  readonly key: string | Buffer
  readonly passphrase?: string
}

const readKey = (locked: LockedKey): KeyObject => {
  try {
    return createPrivateKey(locked)
  } catch (cause) {
    throw invalidIdentity(whyUnreadable(locked), cause)
  }
}

const whyUnreadable = ({ key, passphrase }: LockedKey): string => {
  const text = key.toString()
  if (!/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text)) return "`key` has no private key in PEM"
  if (!text.includes("ENCRYPTED")) return "`key` cannot be read"
  return passphrase === undefined
    ? "`key` is encrypted, and there is no `passphrase`"
    : "`key` does not open with this `passphrase`"
}

/** A certificate and its key. OpenSSL itself does not look at a key of another kind than the certificate's. */
const pairOf = ({ certificate, key, passphrase }: Identity): tls.SecureContextOptions => {
  const cert = pem(certificate)
  const locked: LockedKey = {
    key: pem(key),
    ...optional("passphrase", Redacted.isRedacted(passphrase) ? Redacted.value(passphrase) : passphrase)
  }
  if (!readCertificate(cert).checkPrivateKey(readKey(locked))) {
    throw invalidIdentity("the key is not the certificate's")
  }
  return { cert, ...locked }
}

const makeContext = (
  settings: ClientSettings | ServerSettings,
  identity: Identity | undefined
): tls.SecureContext => {
  return tls.createSecureContext({
    minVersion: settings.minVersion,
    maxVersion: settings.maxVersion,
    ...optional("ca", trusted(settings)),
    ...optional("ciphers", settings.ciphers),
    ...(identity && pairOf(identity)),
    // TLS 1.2 could begin anew on a connection in use, at the expense of whoever is asked to (CVE-2011-1473).
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
    // Sessions are resumed within one context only; with client certificates, OpenSSL wants a name for that.
    ...("names" in settings && { sessionIdContext: "effect-wire", honorCipherOrder: true })
  })
}

/** A context is kept as long as the options and the identity that it is made of: resumption depends on it. */
const contexts = new WeakMap<object, WeakMap<object, tls.SecureContext>>()

export const contextOf = (
  settings: ClientSettings | ServerSettings,
  identity: Identity | undefined
): tls.SecureContext => {
  let known = contexts.get(settings)
  if (known === undefined) contexts.set(settings, (known = new WeakMap()))
  const key = identity ?? settings
  let context = known.get(key)
  if (context === undefined) known.set(key, (context = makeContext(settings, identity)))
  return context
}

const invalidOption = (detail: string, cause?: unknown): TlsError =>
  new TlsError({ kind: "InvalidOptions", code: codeOf(cause), detail })

const invalidIdentity = (detail: string, cause?: unknown): TlsError =>
  new TlsError({ kind: "InvalidIdentity", code: codeOf(cause), detail })

/**
 * Why options or an identity cannot be used. The cause is left out: it says no more than the code, and a text of
 * OpenSSL's may quote its input.
 */
export const invalid = (cause: unknown): TlsError => {
  if (cause instanceof TlsError) return cause
  const code = codeOf(cause)
  if (code === "ERR_SSL_NO_CIPHER_MATCH") {
    return invalidOption("`ciphers` names one that this OpenSSL does not have", cause)
  }
  return invalidIdentity(cause instanceof Error ? cause.message : "its source failed", cause)
}

/** Whose identity it is that cannot be used, where a server has several. */
const forName = (name: string, error: TlsError): TlsError =>
  error.kind === "InvalidIdentity"
    ? new TlsError({ kind: error.kind, code: error.code, detail: `for ${quoted(name)}, ${error.detail}` })
    : error

/** The certificate that is served unless a client asks for another name, or why the options cannot be used. */
export const check = Effect.fnUntraced(function* (
  settings: ServerSettings
): Effect.fn.Return<Certificate, TlsError> {
  const certificate = yield* Effect.try({
    try: () => {
      const identity = settings.identity.current()
      contextOf(settings, identity)
      return Cert.read(new X509Certificate(pem(identity.certificate)))
    },
    catch: invalid
  })
  for (const [name, source] of settings.names) {
    yield* Effect.try({
      try: () => contextOf(settings, source.current()),
      catch: (cause) => forName(name, invalid(cause))
    })
  }
  return certificate
})

const trusts = new WeakMap<ClientSettings, string>()

/** What a session stands for besides its server: whom the client trusted, and who it was. */
export const trustOf = (settings: ClientSettings, identity: Identity | undefined): string => {
  const known = identity === undefined ? trusts.get(settings) : undefined
  if (known !== undefined) return known
  const hash = createHash("sha256")
  const { ca = ["platform"], extraCa = [] } = settings
  for (const part of [...ca, "extra", ...extraCa, "identity", identity?.certificate ?? "none"]) {
    hash.update(createHash("sha256").update(pem(part)).digest())
  }
  const trust = hash.digest("hex")
  if (identity === undefined) trusts.set(settings, trust)
  return trust
}
