import { encode as encodeUtf8 } from "./bytes.ts"

interface Coder {
  readonly decode: (bytes: Uint8Array) => string | undefined
  readonly encode: (text: string) => Uint8Array | undefined
}

/** Decodes strictly. */
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
  }
})

// Lone surrogates have no form in either.
const wellFormed =
  (encode: (text: string) => Uint8Array): Coder["encode"] =>
  (text) =>
    text.isWellFormed() ? encode(text) : undefined

export const coders: Record<"utf-8" | "utf-16le" | "latin1" | "ascii", Coder> = {
  "utf-8": { decode: decoderOf("utf-8"), encode: wellFormed(encodeUtf8) },
  "utf-16le": { decode: decoderOf("utf-16le"), encode: wellFormed(encodeUtf16) },
  latin1: singleByte(0xff),
  ascii: singleByte(0x7f)
}
