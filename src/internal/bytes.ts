const encoder = new TextEncoder()
const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

export const empty = new Uint8Array(0)

export const encode = (chunk: Uint8Array | string): Uint8Array =>
  typeof chunk === "string" ? encoder.encode(chunk) : chunk

export const decode = (bytes: Uint8Array): string => decoder.decode(bytes)

const indexOfScalar = (haystack: Uint8Array, needle: Uint8Array, from: number): number => {
  const first = needle[0]
  if (first === undefined) return from
  const last = haystack.length - needle.length
  let at = haystack.indexOf(first, from)
  search: while (at !== -1 && at <= last) {
    for (let i = 1; i < needle.length; i++) {
      if (haystack[at + i] !== needle[i]) {
        at = haystack.indexOf(first, at + 1)
        continue search
      }
    }
    return at
  }
  return -1
}

// Node's native search compares many bytes at a time; elsewhere the search is by the first byte.
const native: { readonly indexOf: (needle: Uint8Array | number, from: number) => number } | undefined =
  "Buffer" in globalThis ? Buffer.alloc(0) : undefined

const indexOfMany = (haystack: Uint8Array, needle: Uint8Array, from: number): number =>
  native === undefined ? indexOfScalar(haystack, needle, from) : native.indexOf.call(haystack, needle, from)

/** The first place of `byte` at or after `from`, or -1. */
export const indexOfByte = (haystack: Uint8Array, byte: number, from: number): number =>
  native === undefined ? haystack.indexOf(byte, from) : native.indexOf.call(haystack, byte, from)

/** The first place of `needle` at or after `from`, or -1. */
export const indexOf = (haystack: Uint8Array, needle: Uint8Array, from: number): number => {
  const single = needle.length === 1 ? needle[0] : undefined
  return single === undefined ? indexOfMany(haystack, needle, from) : indexOfByte(haystack, single, from)
}

/** A view of some bytes: what `subarray` gives, in half the time. */
export const view = (bytes: Uint8Array, start: number, end: number): Uint8Array =>
  new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start)

/** The same bytes, and not as a class of their own: the `slice` of Node's `Buffer` does not copy. */
export const plain = (bytes: Uint8Array): Uint8Array =>
  bytes.constructor === Uint8Array ? bytes : view(bytes, 0, bytes.length)

/** A line as text, without its "\n" or "\r\n". */
export const toLine = (bytes: Uint8Array): string => {
  let end = bytes.length
  if (bytes[end - 1] === 0x0a) {
    end--
    if (bytes[end - 1] === 0x0d) end--
  }
  return decode(end === bytes.length ? bytes : bytes.subarray(0, end))
}
