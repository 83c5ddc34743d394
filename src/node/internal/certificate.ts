import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import type { X509Certificate } from "node:crypto"
import { printable } from "../../internal/printable.ts"
import type { TlsErrorKind } from "../../StreamError.ts"
import type { Certificate, DistinguishedName } from "../../Tls.ts"

// Certificates come from strangers: whatever stands in one, reading it throws nothing.

const distinguishedName = (u: unknown): DistinguishedName => {
  const name: { [attribute: string]: string | ReadonlyArray<string> } = {}
  if (typeof u !== "object" || u === null) return name
  for (const [key, value] of Object.entries(u)) {
    if (typeof value === "string") name[key] = value
    else if (Array.isArray(value)) name[key] = value.map(String)
  }
  return name
}

const date = (text: string): DateTime.Utc | undefined => Option.getOrUndefined(DateTime.make(text))

export const read = (x509: X509Certificate): Certificate => {
  const { issuer, subject } = x509.toLegacyObject()
  return {
    subject: distinguishedName(subject),
    issuer: distinguishedName(issuer),
    validFrom: date(x509.validFrom),
    validTo: date(x509.validTo),
    fingerprint256: x509.fingerprint256,
    // A name with a comma in it is quoted.
    subjectAltName: x509.subjectAltName?.match(/(?:"(?:[^"\\]|\\.)*"|[^,"])+/g)?.map((_) => _.trim()) ?? [],
    raw: new Uint8Array(x509.raw)
  }
}

// A certificate that nobody vouches for can hold any text, of any length.
const SHOWN = 256

/** Text of a certificate's, for a message. */
export const shown = (text: string): string => printable(text, SHOWN)

const nameOf = (name: unknown): string | undefined => {
  const { CN, O } = distinguishedName(name)
  const text = CN ?? O
  return text === undefined ? undefined : shown(String(text))
}

/** The name in a certificate, for a message. */
export const nameIn = (x509: X509Certificate): string | undefined => nameOf(x509.toLegacyObject().subject)

// A chain that a stranger has made may have no end.
const MAX_CHAIN = 16

/** A certificate, and those that vouch for it, as far as they came with it. */
const chainOf = (x509: X509Certificate): ReadonlyArray<X509Certificate> => {
  const chain: Array<X509Certificate> = []
  let next: X509Certificate | undefined = x509
  while (next !== undefined && chain.length < MAX_CHAIN) {
    chain.push(next)
    next = next.issuerCertificate
  }
  return chain
}

/** What a certificate says itself of why it is not accepted. */
export const flawOf = (kind: TlsErrorKind, x509: X509Certificate): string | undefined => {
  switch (kind) {
    case "CertificateExpired":
      return outdated(x509, "validTo", (time, now) => time < now)
    case "CertificateNotYetValid":
      return outdated(x509, "validFrom", (time, now) => time > now)
    case "UnknownCa": {
      const top = chainOf(x509).at(-1) ?? x509
      return `issued by ${nameOf(top.toLegacyObject().issuer) ?? "somebody without a name"}`
    }
    default:
      return undefined
  }
}

const outdated = (
  x509: X509Certificate,
  which: "validFrom" | "validTo",
  isOut: (time: number, now: number) => boolean
): string | undefined => {
  const now = Date.now()
  const found = chainOf(x509).find((_) => isOut(Date.parse(_[which]), now))
  const time = found && date(found[which])
  if (found === undefined || time === undefined) return undefined
  const whose = found === x509 ? "" : `that of ${nameIn(found) ?? "its issuer"}, which vouches for it, is `
  return `${whose}valid ${which === "validTo" ? "until" : "from"} ${DateTime.formatIso(time)}`
}
