import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { decode, encode } from "../../internal/bytes.ts"
import type { TlsErrorKind } from "../../StreamError.ts"
import type { Certificate, Handshake, Identity, Pem } from "../../Tls.ts"

/** What a simulated certificate says. Times are milliseconds since 1970. */
const Contents = Schema.Struct({
  names: Schema.Array(Schema.String),
  validFrom: Schema.Number,
  validTo: Schema.Number,
  selfSigned: Schema.Boolean
})

const SIMULATED = "simulated certificate "
const AUTHORITY = "Simulated CA"

const parse = Schema.decodeUnknownOption(Schema.fromJsonString(Contents))

const textOf = (pem: Pem): string => {
  const value = Redacted.isRedacted(pem) ? Redacted.value(pem) : pem
  return typeof value === "string" ? value : decode(value)
}

/** The text of a certificate, which is all of it that travels. */
export const certificateOf = (identity: Identity): string => textOf(identity.certificate)

export const makeIdentity = (contents: typeof Contents.Type): Identity => ({
  certificate: SIMULATED + JSON.stringify(contents),
  key: "simulated key"
})

/** Any other text is a certificate of which nothing is known, and that is valid always and for everybody. */
const contentsOf = (certificate: string): typeof Contents.Type | undefined =>
  certificate.startsWith(SIMULATED)
    ? Option.getOrUndefined(parse(certificate.slice(SIMULATED.length)))
    : undefined

export const FIRST_DAY = 0
export const LAST_DAY = Date.UTC(9999, 11, 31)

export const describeCertificate = (certificate: string): Certificate => {
  const { names = [], selfSigned, validFrom = FIRST_DAY, validTo = LAST_DAY } = contentsOf(certificate) ?? {}
  const raw = encode(certificate)
  return {
    subject: { CN: names[0] },
    issuer: { CN: selfSigned === true ? names[0] : AUTHORITY },
    validFrom: DateTime.makeUnsafe(validFrom),
    validTo: DateTime.makeUnsafe(validTo),
    // As unique as a digest, and as hard to mistake for another one.
    fingerprint256: Array.from(raw, (byte) => byte.toString(16).padStart(2, "0").toUpperCase()).join(":"),
    subjectAltName: names.map((name) => `DNS:${name}`),
    raw
  }
}

const covers = (name: string, host: string): boolean =>
  name === host ||
  (name.startsWith("*.") && host.indexOf(".") > 0 && host.slice(host.indexOf(".")) === name.slice(1))

/** Why a certificate is not accepted, if it is not. */
export const rejection = (
  certificate: string,
  handshake: Handshake,
  now: number
): TlsErrorKind | undefined => {
  const contents = contentsOf(certificate)
  if (contents === undefined) return undefined
  const { names, selfSigned, validFrom, validTo } = contents
  const isOne = (ca: Pem): boolean => textOf(ca) === certificate
  const { ca } = handshake.settings
  const extraCa = handshake.role === "client" ? handshake.settings.extraCa : undefined
  const isKnown = (ca?.some(isOne) ?? !selfSigned) || extraCa?.some(isOne) === true
  if (!isKnown) return selfSigned ? "SelfSigned" : "UnknownCa"
  if (now < validFrom) return "CertificateNotYetValid"
  if (now > validTo) return "CertificateExpired"
  const peer = handshake.role === "client" ? handshake.peer : undefined
  return peer === undefined || names.some((name) => covers(name, peer.host)) ? undefined : "WrongHost"
}
