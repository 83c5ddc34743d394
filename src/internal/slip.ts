import { MalformedFrame } from "../FrameError.ts"

export const END = 0xc0
const ESC = 0xdb
const ESC_END = 0xdc
const ESC_ESC = 0xdd

export const encode = (frame: Uint8Array): Uint8Array => {
  let escapes = 0
  for (const byte of frame) if (byte === END || byte === ESC) escapes++
  const out = new Uint8Array(frame.length + escapes + 2)
  let end = 0
  out[end++] = END
  for (const byte of frame) {
    if (byte === END || byte === ESC) {
      out[end++] = ESC
      out[end++] = byte === END ? ESC_END : ESC_ESC
    } else {
      out[end++] = byte
    }
  }
  out[end] = END
  return out
}

/** The bytes of what came before the `END`, unless an escape is none. */
export const decode = (encoded: Uint8Array): Uint8Array | MalformedFrame => {
  let at = encoded.indexOf(ESC)
  if (at === -1) return encoded
  const out = new Uint8Array(encoded.length)
  out.set(encoded.subarray(0, at))
  let length = at
  for (; at < encoded.length; at++) {
    let byte = encoded[at]
    if (byte === ESC) {
      const escaped = encoded[++at]
      if (escaped !== ESC_END && escaped !== ESC_ESC) {
        const found =
          escaped === undefined ? "the end of the frame" : `0x${escaped.toString(16).padStart(2, "0")}`
        return new MalformedFrame({ detail: `0xdb before ${found}, and not before 0xdc or 0xdd`, at: at - 1 })
      }
      byte = escaped === ESC_END ? END : ESC
    }
    out[length++] = byte ?? 0
  }
  return out.subarray(0, length)
}
