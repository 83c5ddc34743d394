import { MalformedFrame } from "../FrameError.ts"

/** A block of 254 bytes without a zero, after which none is implied. */
const FULL = 0xff

/** The most bytes that so many are encoded in, without the zero that ends them; other encoders may need one more. */
export const encodedLength = (length: number): number => length + Math.floor(length / (FULL - 1)) + 2

/** Without zeros but for the last byte. */
export const encode = (frame: Uint8Array): Uint8Array => {
  const out = new Uint8Array(frame.length + Math.floor(frame.length / (FULL - 1)) + 2)
  let code = 0
  let end = 1
  for (let i = 0; i < frame.length; i++) {
    const byte = frame[i] ?? 0
    if (byte !== 0) out[end++] = byte
    const isFull = end - code === FULL
    // A full block at the very end needs no empty one after it.
    if ((byte === 0 || isFull) && (byte === 0 || i + 1 < frame.length)) {
      out[code] = end - code
      code = end++
    }
  }
  out[code] = end - code
  return out.subarray(0, end + 1)
}

/** The bytes of what came before the zero, unless it is no COBS. */
export const decode = (encoded: Uint8Array): Uint8Array | MalformedFrame => {
  const out = new Uint8Array(encoded.length)
  let length = 0
  for (let at = 0; at < encoded.length;) {
    const code = encoded[at] ?? 0
    const end = at + code
    if (end > encoded.length) {
      const detail = `a COBS block of ${code} bytes, of which ${encoded.length - at} came before the zero`
      return new MalformedFrame({ detail, at })
    }
    for (let i = at + 1; i < end; i++) out[length++] = encoded[i] ?? 0
    if (code < FULL && end < encoded.length) length++
    at = end
  }
  return out.subarray(0, length)
}
