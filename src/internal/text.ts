import { encode as encodeUtf8 } from "./bytes.ts"

/**
 * Text and bytes in both directions, strictly: text that has no form in the encoding, and bytes that are none, are told
 * apart.
 */
export interface Coder {
  readonly decode: (bytes: Uint8Array) => string | undefined
  readonly encode: (text: string) => Uint8Array | undefined
  /** What is wrong with bytes that are no text, and where. */
  readonly faultOf: (bytes: Uint8Array) => string
  /** The first character that it does not have, as an index of the text. */
  readonly strangerIn: (text: string) => number
}

const hex = (n: number, digits: number): string => n.toString(16).padStart(digits, "0")

const atByte = (bytes: Uint8Array, at: number): string => `byte ${at} is 0x${hex(bytes[at] ?? 0, 2)}`

const decoderOf = (encoding: "utf-8" | "utf-16le"): Coder["decode"] => {
  const decoder = new TextDecoder(encoding, { fatal: true, ignoreBOM: true })
  return (bytes) => {
    try {
      return decoder.decode(bytes)
    } catch {
      return undefined
    }
  }
}

const REPLACEMENT = "\ufffd"
const replacementBytes = encodeUtf8(REPLACEMENT)

const lenient = new TextDecoder("utf-8", { ignoreBOM: true })

// A replacement character stands for what is wrong, unless it was sent as such.
const faultOfUtf8 = (bytes: Uint8Array): string => {
  const text = lenient.decode(bytes)
  let offset = 0
  for (let from = 0, at = text.indexOf(REPLACEMENT); at !== -1; at = text.indexOf(REPLACEMENT, from)) {
    offset += encodeUtf8(text.slice(from, at)).length
    if (!replacementBytes.every((byte, i) => bytes[offset + i] === byte)) break
    offset += replacementBytes.length
    from = at + 1
  }
  return atByte(bytes, offset)
}

// Where a surrogate has no other half, or -1.
const loneSurrogate = (length: number, unitAt: (i: number) => number): number => {
  for (let i = 0; i < length; i++) {
    const kind = unitAt(i) & 0xfc00
    if (kind !== 0xd800 && kind !== 0xdc00) continue
    if (kind === 0xdc00 || i + 1 === length || (unitAt(i + 1) & 0xfc00) !== 0xdc00) return i
    i++
  }
  return -1
}

const faultOfUtf16 = (bytes: Uint8Array): string => {
  if (bytes.length % 2 === 1) return `an odd number of bytes, ${bytes.length}`
  const unitAt = (i: number): number => (bytes[2 * i] ?? 0) | ((bytes[2 * i + 1] ?? 0) << 8)
  const at = loneSurrogate(bytes.length / 2, unitAt)
  return `half of a surrogate pair, 0x${hex(unitAt(at), 4)}, at byte ${2 * at}`
}

const encodeUtf16 = (text: string): Uint8Array => {
  const out = new Uint8Array(2 * text.length)
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    out[2 * i] = unit & 0xff
    out[2 * i + 1] = unit >> 8
  }
  return out
}

// As many arguments as any engine takes.
const PIECE = 4096

/** One byte a character. */
const singleByte = (highest: number): Coder => ({
  decode: (bytes) => {
    let text = ""
    for (let i = 0; i < bytes.length; i += PIECE) {
      const piece = bytes.subarray(i, i + PIECE)
      if (highest < 0xff && piece.some((byte) => byte > highest)) return undefined
      text += String.fromCharCode(...piece)
    }
    return text
  },
  encode: (text) => {
    const out = new Uint8Array(text.length)
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i)
      if (unit > highest) return undefined
      out[i] = unit
    }
    return out
  },
  faultOf: (bytes) =>
    atByte(
      bytes,
      bytes.findIndex((byte) => byte > highest)
    ),
  strangerIn: (text) =>
    Array.from({ length: text.length }, (_, i) => text.charCodeAt(i)).findIndex((_) => _ > highest)
})

const unicode = (
  encoding: "utf-8" | "utf-16le",
  encode: (text: string) => Uint8Array,
  faultOf: Coder["faultOf"]
): Coder => ({
  decode: decoderOf(encoding),
  // Lone surrogates have no form in either.
  encode: (text) => (text.isWellFormed() ? encode(text) : undefined),
  faultOf,
  strangerIn: (text) => loneSurrogate(text.length, (i) => text.charCodeAt(i))
})

export const coders: Record<"utf-8" | "utf-16le" | "latin1" | "ascii", Coder> = {
  "utf-8": unicode("utf-8", encodeUtf8, faultOfUtf8),
  "utf-16le": unicode("utf-16le", encodeUtf16, faultOfUtf16),
  latin1: singleByte(0xff),
  ascii: singleByte(0x7f)
}

/** The character at an index of a text, as its code point. */
export const codePoint = (text: string, at: number): string =>
  `U+${hex(text.codePointAt(at) ?? 0, 4).toUpperCase()}`
