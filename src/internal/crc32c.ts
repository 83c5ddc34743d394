// The Castagnoli polynomial, its bits in reverse.
const POLYNOMIAL = 0x82f63b78

let table: Uint32Array | undefined

const makeTable = (): Uint32Array =>
  Uint32Array.from({ length: 256 }, (_, byte) => {
    let remainder = byte
    for (let bit = 0; bit < 8; bit++) {
      remainder = (remainder & 1) === 0 ? remainder >>> 1 : (remainder >>> 1) ^ POLYNOMIAL
    }
    return remainder
  })

/** The CRC-32C of some bytes (RFC 9260, appendix A). */
export const crc32c = (bytes: Uint8Array): number => {
  table ??= makeTable()
  let crc = 0xffffffff
  for (const byte of bytes) crc = (crc >>> 8) ^ (table[(crc ^ byte) & 0xff] ?? 0)
  return ~crc >>> 0
}
