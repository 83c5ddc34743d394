import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import type { X509Certificate } from "node:crypto"
import { printable } from "../../internal/printable.ts"
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

/** The name in a certificate, for a message. */
export const nameIn = (x509: X509Certificate): string | undefined => {
  const name = distinguishedName(x509.toLegacyObject().subject)["CN"]
  return name === undefined ? undefined : shown(String(name))
}
