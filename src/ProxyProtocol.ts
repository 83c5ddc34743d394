/**
 * The PROXY protocol, versions 1 and 2: what a proxy says of the client before the client's own bytes.
 *
 * A proxy or load balancer that passes a TCP connection on hides the client's address. With the PROXY protocol it sends a
 * header first, which names the client and the address that the client had connected to. `Server.serve` reads it with the
 * option `proxyProtocol`, `Connection.connect` sends it with the option of the same name; this module is the codec, for
 * those and for whatever else speaks it. The specification is proxy-protocol.txt of HAProxy.
 *
 * **Example** (A header and what it says)
 *
 * ```ts
 * import { Result } from "effect"
 * import { ProxyProtocol } from "effect-wire"
 *
 * const bytes = new TextEncoder().encode("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n")
 * const { header, size } = Result.getOrThrow(ProxyProtocol.decode(bytes))
 *
 * console.log(header.version, String(header.addresses?.source)) // 1 192.0.2.7:56324
 * console.log(size) // 45
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"
import { decode as decodeUtf8, encode as encodeUtf8 } from "./internal/bytes.ts"
import { crc32c } from "./internal/crc32c.ts"
import * as Limits from "./internal/limits.ts"
import { printable, quoted } from "./internal/printable.ts"
import { formatAddress } from "./internal/target.ts"
import { within } from "./internal/within.ts"
import { type IncompleteReadError, type LimitOverrunError, type ReadError } from "./StreamError.ts"
import type { StreamReader } from "./StreamReader.ts"
import type { Transport } from "./Transport.ts"

const bytes = (n: number): string => (n === 1 ? "1 byte" : `${n} bytes`)

/**
 * There is no header, or none that can be accepted. `offset` is the byte of the header where that shows, `address` the
 * sender's. `kind` tells
 *
 * - `NotAHeader`: the connection begins with something else;
 * - `Truncated`: the input ended before the header did;
 * - `TooLong`: the header is longer than it may be, or than the limit;
 * - `WrongVersion`: a version that is not known, or not the one that is wanted;
 * - `Malformed`: a header that is not as the specification says;
 * - `WrongChecksum`: the header carries a checksum, and it is another one;
 * - `Untrusted`: the sender is not one of those who may say where a connection comes from. Nothing was read.
 *
 * @category errors
 * @since 0.1.0
 */
export class ProxyProtocolError extends Schema.TaggedError<ProxyProtocolError>(
  "effect-wire/ProxyProtocolError"
)("ProxyProtocolError", {
  kind: Schema.Literals([
    "NotAHeader",
    "Truncated",
    "TooLong",
    "WrongVersion",
    "Malformed",
    "WrongChecksum",
    "Untrusted"
  ]),
  detail: Schema.String,
  offset: Schema.Number,
  address: Schema.optional(Schema.String)
}) {
  override get message(): string {
    const from = this.address ? ` from ${this.address}` : ""
    return printable(`PROXY header${from}: ${this.detail} (at byte ${this.offset})`)
  }
}

/**
 * @category models
 * @since 0.1.0
 */
export type Version = 1 | 2

/**
 * `PROXY`: the connection is passed on for somebody else. `LOCAL`: it is the proxy's own, such as a health check.
 *
 * @category models
 * @since 0.1.0
 */
export type Command = "PROXY" | "LOCAL"

/**
 * The ends of the original connection: the client, and what the client had connected to. An IPv6 zone means nothing to
 * anybody else and is not sent; the path of a Unix socket that has none is empty.
 *
 * @category models
 * @since 0.1.0
 */
export interface Addresses {
  readonly source: NetAddress.SocketAddress
  readonly destination: NetAddress.SocketAddress
}

/**
 * Something more that a header of version 2 says: a type of `TlvType`, or from 0xe0 to 0xef by arrangement, and up to 65,535
 * bytes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tlv {
  readonly type: number
  readonly value: Uint8Array
}

/**
 * The types that the specification names.
 *
 * @category models
 * @since 0.1.0
 */
export const TlvType = {
  /** The protocol that TLS negotiated, such as `h2`. */
  alpn: 0x01,
  /** The host name that the client asked for (SNI), in UTF-8. */
  authority: 0x02,
  crc32c: 0x03,
  noop: 0x04,
  /** Up to 128 bytes that name the connection. */
  uniqueId: 0x05,
  /** Facts of the client's TLS: see `decodeSsl`. */
  ssl: 0x20,
  /** The name of a network namespace. */
  netns: 0x30
} as const

/**
 * A header, decoded.
 *
 * @category models
 * @since 0.1.0
 */
export interface Header {
  readonly version: Version
  readonly command: Command
  /** Whether the original connection was one, or datagrams. */
  readonly protocol: "stream" | "datagram"
  /** Absent if the command is `LOCAL`, and if the proxy does not know them (`UNKNOWN`, `AF_UNSPEC`). */
  readonly addresses: Addresses | undefined
  /** In their order, without padding and the checksum. Empty for version 1 and the command `LOCAL`. */
  readonly tlvs: ReadonlyArray<Tlv>
}

/**
 * What a header is to say.
 *
 * @category models
 * @since 0.1.0
 */
export interface EncodeOptions {
  /** Default 2. */
  readonly version?: Version | undefined
  /** Default `PROXY`. Version 1 says `UNKNOWN` for `LOCAL`. */
  readonly command?: Command | undefined
  /** Of one family; an IPv4 address beside an IPv6 one is sent as mapped. Default: not known. */
  readonly addresses?: Addresses | undefined
  /** Default `stream`. Version 1 knows no other. */
  readonly protocol?: "stream" | "datagram" | undefined
  /** Version 2 only. */
  readonly tlvs?: ReadonlyArray<Tlv> | undefined
  /** Whether to add a CRC-32C of the header. Version 2 only. Default `false`. */
  readonly checksum?: boolean | undefined
}

/**
 * What headers are accepted.
 *
 * @category models
 * @since 0.1.0
 */
export interface DecodeOptions {
  /** The only version to accept. Default: both. */
  readonly version?: Version | undefined
  /** The most bytes that a header of version 2 may have after its first 16; up to 65,535. Default 4,096. */
  readonly maxLength?: number | undefined
}

/**
 * From whom a server reads headers, and which. Values out of range are `RangeError` defects of `serve`.
 *
 * The specification forbids to guess whether there is a header: whoever is trusted must send one, and whoever is not is not
 * asked for one.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServerOptions extends DecodeOptions {
  /**
   * The proxies, whose headers are believed: IP networks such as `"10.0.0.0/8"` or `"::1/128"`, and `"unix"` for whoever
   * connects to a Unix socket. An IPv4 network also stands for the same addresses mapped into IPv6.
   */
  readonly trusted: ReadonlyArray<IpNetwork.IpNetworkInput>
  /**
   * What becomes of a connection from anywhere else: it is cut off (`refuse`), or served as it is (`serve`), so that a
   * header it may have sent is for the handler to choke on. Default `refuse`.
   */
  readonly untrusted?: "refuse" | "serve" | undefined
  /** How long the whole header may take from the moment the connection is served. Default 5 seconds. */
  readonly timeout?: Duration.Input | undefined
}

/**
 * The header that a server's connection came with.
 *
 * @category models
 * @since 0.1.0
 */
export interface Received extends Header {
  /** The proxy's own address: where the connection really comes from. */
  readonly proxy: NetAddress.SocketAddress | undefined
}

const SIGNATURE = Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a)
const NAME = encodeUtf8("PROXY ")
const CR = 0x0d
const LF = 0x0a

/** With its CR and LF. */
const MAX_LINE = 107
/** What of a header of version 2 is always there. */
const FIXED = 16
const MAX_LENGTH = 65_535
const DEFAULT_MAX_LENGTH = 4096
const UNIX_PATH = 108
/** Version and command. */
const LOCAL = 0x20
const PROXY = 0x21
/** How many bytes the addresses and ports of the families have: unspecified, IPv4, IPv6, Unix. */
const addressSizes: ReadonlyArray<number> = [0, 12, 36, 2 * UNIX_PATH]

type Decoded<A> = Result.Result<A, ProxyProtocolError>

const problem = (kind: ProxyProtocolError["kind"], offset: number, detail: string): ProxyProtocolError =>
  new ProxyProtocolError({ kind, detail, offset })

const malformed = (offset: number, detail: string): Result.Result<never, ProxyProtocolError> =>
  Result.fail(problem("Malformed", offset, detail))

const latin1 = (chunk: Uint8Array): string => String.fromCharCode(...chunk)

/** How far some bytes are what they should be. */
const commonLength = (a: Uint8Array, b: Uint8Array): number => {
  const end = Math.min(a.length, b.length)
  for (let i = 0; i < end; i++) if (a[i] !== b[i]) return i
  return end
}

const notAHeader = (start: Uint8Array, offset: number): ProxyProtocolError =>
  problem(
    "NotAHeader",
    offset,
    `the connection begins with ${quoted(latin1(start.subarray(0, FIXED)))} instead`
  )

const truncated = (size: number, wanted: string): ProxyProtocolError =>
  problem("Truncated", size, `${wanted}, and there ${size === 1 ? "is" : "are"} only ${bytes(size)}`)

interface DecodeSettings {
  readonly version: Version | undefined
  readonly maxLength: number
}

const checkDecodeOptions = (options: DecodeOptions | undefined): DecodeSettings => {
  const { maxLength = DEFAULT_MAX_LENGTH, version } = options ?? {}
  if (!Number.isInteger(maxLength) || maxLength < 0 || maxLength > MAX_LENGTH) {
    throw new RangeError(
      `maxLength must be an integer from 0 to ${MAX_LENGTH} (bytes), received ${maxLength}`
    )
  }
  if (version !== undefined) checkVersion(version)
  return { version, maxLength }
}

const checkVersion = (version: Version): Version => {
  if (version !== 1 && version !== 2) {
    throw new RangeError(`version must be 1 or 2, received ${String(version)}`)
  }
  return version
}

const accepts = (settings: DecodeSettings, version: Version): Decoded<void> =>
  settings.version === undefined || settings.version === version
    ? Result.void
    : Result.fail(
        problem("WrongVersion", 0, `version ${version}, where only version ${settings.version} is accepted`)
      )

/**
 * Decodes the header that some bytes begin with. `size` is how many bytes it has; what follows is not looked at.
 *
 * @category decoding
 * @since 0.1.0
 */
export const decode = (
  chunk: Uint8Array,
  options?: DecodeOptions
): Result.Result<{ readonly header: Header; readonly size: number }, ProxyProtocolError> => {
  const settings = checkDecodeOptions(options)
  if (chunk.length === 0) return Result.fail(truncated(0, EXPECTED))
  const version = chunk[0] === NAME[0] ? 1 : 2
  const start = version === 1 ? NAME : SIGNATURE
  const common = commonLength(chunk, start)
  if (common < start.length && common < chunk.length) return Result.fail(notAHeader(chunk, common))
  return accepts(settings, version).pipe(
    Result.flatMap(() => (version === 1 ? lineSize(chunk) : binarySize(chunk, settings))),
    Result.flatMap((size) => {
      const whole = chunk.subarray(0, size)
      return Result.map(version === 1 ? decodeLine(whole) : decodeBinary(whole), (header) => ({
        header,
        size
      }))
    })
  )
}

const EXPECTED = "a header is expected"
const EXPECTED_LINE = "a line has to end in CR and LF"
const EXPECTED_FIXED = `version 2 begins with ${FIXED} bytes`
const expectedSize = (size: number): string => `the header has ${bytes(size)}`

const lineSize = (chunk: Uint8Array): Decoded<number> => {
  const line = chunk.subarray(0, MAX_LINE)
  const size = line.indexOf(LF) + 1
  if (size > 0) return Result.succeed(size)
  return Result.fail(line.length < MAX_LINE ? truncated(line.length, EXPECTED_LINE) : lineTooLong())
}

const binarySize = (chunk: Uint8Array, settings: DecodeSettings): Decoded<number> =>
  chunk.length < FIXED
    ? Result.fail(truncated(chunk.length, EXPECTED_FIXED))
    : Result.flatMap(decodeSize(chunk, settings), (size) =>
        chunk.length < size ? Result.fail(truncated(chunk.length, expectedSize(size))) : Result.succeed(size)
      )

const lineTooLong = (): ProxyProtocolError =>
  problem("TooLong", MAX_LINE, `no end of the line within ${MAX_LINE} bytes`)

const portPattern = /^(?:0|[1-9]\d{0,4})$/

interface Field {
  readonly text: string
  readonly offset: number
}

/** What a line says behind its name, at each space. */
const fieldsOf = (line: Uint8Array): Array<Field> => {
  let offset = NAME.length
  return latin1(line.subarray(NAME.length, -2))
    .split(" ")
    .map((text) => {
      const field = { text, offset }
      offset += text.length + 1
      return field
    })
}

/** A whole line of version 1, up to its first LF. Only a CR and LF end one: a LF alone is not waited behind. */
const decodeLine = (line: Uint8Array): Decoded<Header> => {
  if (line.at(-2) !== CR) return malformed(line.length - 1, `${EXPECTED_LINE}, not in LF alone`)
  const header = (addresses: Addresses | undefined): Header => ({
    version: 1,
    command: "PROXY",
    protocol: "stream",
    addresses,
    tlvs: []
  })
  const [family, ...fields] = fieldsOf(line)
  // Whatever follows is to be ignored.
  if (family?.text === "UNKNOWN") return Result.succeed(header(undefined))
  if (family?.text !== "TCP4" && family?.text !== "TCP6") {
    return malformed(NAME.length, `TCP4, TCP6 or UNKNOWN is expected, not ${quoted(family?.text ?? "")}`)
  }
  const [source, destination, sourcePort, destinationPort, more] = fields
  if (!source || !destination || !sourcePort || !destinationPort || more) {
    return malformed(
      NAME.length + family.text.length,
      `two addresses and two ports, each after one space, are expected, not ${fields.length} fields`
    )
  }
  const version = family.text === "TCP4" ? 4 : 6
  return Result.flatMap(decodeEnd(version, source, sourcePort), (source) =>
    Result.map(decodeEnd(version, destination, destinationPort), (destination) =>
      header({ source, destination })
    )
  )
}

const decodeEnd = (version: 4 | 6, address: Field, port: Field): Decoded<NetAddress.InetAddress> => {
  const parsed: Result.Result<NetAddress.IpAddress, unknown> =
    version === 4 ? NetAddress.ipv4FromString(address.text) : NetAddress.ipv6FromString(address.text)
  if (Result.isFailure(parsed)) {
    return malformed(address.offset, `${quoted(address.text)} is no IPv${version} address`)
  }
  if (!portPattern.test(port.text) || Number(port.text) > 65_535) {
    return malformed(port.offset, `${quoted(port.text)} is no port`)
  }
  return Result.succeed(NetAddress.inetAddressUnsafe(parsed.success, Number(port.text)))
}

const viewOf = (chunk: Uint8Array): DataView => new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength)

const hex = (n: number, digits = 2): string => `0x${n.toString(16).padStart(digits, "0")}`

/** How long a header of version 2 is, by its first 16 bytes, whose signature was checked. */
const decodeSize = (chunk: Uint8Array, { maxLength }: DecodeSettings): Decoded<number> => {
  const view = viewOf(chunk)
  const command = view.getUint8(12)
  if (command >> 4 !== 2) return Result.fail(problem("WrongVersion", 12, `version ${command >> 4}`))
  if ((command & 0xf) > 1) return malformed(12, `command ${hex(command & 0xf)} is neither LOCAL nor PROXY`)
  const length = view.getUint16(14)
  return length > maxLength
    ? Result.fail(
        problem(
          "TooLong",
          14,
          `${bytes(length)} after the first ${FIXED}, the limit is ${bytes(maxLength)}; raise it with maxLength`
        )
      )
    : Result.succeed(FIXED + length)
}

/** A whole header of version 2, whose signature and length were checked. */
const decodeBinary = (chunk: Uint8Array): Decoded<Header> => {
  const view = viewOf(chunk)
  // The rest, the family included, is to be ignored.
  if (view.getUint8(12) === LOCAL) {
    return Result.succeed({
      version: 2,
      command: "LOCAL",
      protocol: "stream",
      addresses: undefined,
      tlvs: []
    })
  }
  const family = view.getUint8(13) >> 4
  const protocol = view.getUint8(13) & 0xf
  const size = addressSizes[family]
  if (size === undefined) return malformed(13, `address family ${hex(family)} is not known`)
  if (protocol > 2) return malformed(13, `transport protocol ${hex(protocol)} is not known`)
  const start = FIXED + size
  if (chunk.length < start) {
    return malformed(14, `${bytes(chunk.length - FIXED)} are too few for the addresses, which have ${size}`)
  }
  return Result.map(decodeTlvs(chunk, start), (tlvs) => ({
    version: 2,
    command: "PROXY",
    protocol: protocol === 2 ? "datagram" : "stream",
    addresses: family === 0 || protocol === 0 ? undefined : decodeAddresses(chunk, family),
    tlvs
  }))
}

const decodeAddresses = (chunk: Uint8Array, family: number): Addresses => {
  if (family === 3) {
    return {
      source: decodePath(chunk.subarray(FIXED, FIXED + UNIX_PATH)),
      destination: decodePath(chunk.subarray(FIXED + UNIX_PATH, FIXED + 2 * UNIX_PATH))
    }
  }
  const view = viewOf(chunk)
  const size = family === 1 ? 4 : 16
  const address = (index: 0 | 1): NetAddress.InetAddress => {
    const ip = chunk.subarray(FIXED + index * size, FIXED + (index + 1) * size)
    return NetAddress.inetAddressUnsafe(
      family === 1 ? NetAddress.ipv4FromBytesUnsafe(ip) : NetAddress.ipv6FromBytesUnsafe(ip),
      view.getUint16(FIXED + 2 * size + 2 * index)
    )
  }
  return { source: address(0), destination: address(1) }
}

const decodePath = (field: Uint8Array): NetAddress.UnixPathAddress => {
  // A name that begins with a zero is an abstract one (Linux), and ends where nothing but zeros follows.
  const end = field[0] === 0 ? field.findLastIndex((byte) => byte !== 0) + 1 : field.indexOf(0)
  return NetAddress.unixPathAddress(decodeUtf8(end === -1 ? field : field.subarray(0, end)))
}

interface PlacedTlv extends Tlv {
  readonly offset: number
}

const decodeList = (chunk: Uint8Array, start: number): Decoded<ReadonlyArray<PlacedTlv>> => {
  const view = viewOf(chunk)
  const tlvs: Array<PlacedTlv> = []
  let offset = start
  while (offset < chunk.length) {
    const left = chunk.length - offset - 3
    if (left < 0) return malformed(offset, `${bytes(chunk.length - offset)} are too few for a TLV`)
    const type = view.getUint8(offset)
    const length = view.getUint16(offset + 1)
    if (length > left) {
      return malformed(offset, `the TLV of type ${hex(type)} has ${bytes(length)}, and only ${left} follow`)
    }
    const end = offset + 3 + length
    // A copy: a view would keep all of what was received with it.
    tlvs.push({ type, value: new Uint8Array(chunk.subarray(offset + 3, end)), offset })
    offset = end
  }
  return Result.succeed(tlvs)
}

const decodeTlvs = (chunk: Uint8Array, start: number): Decoded<ReadonlyArray<Tlv>> =>
  Result.flatMap(decodeList(chunk, start), (tlvs) => {
    const [checksum, another] = tlvs.filter((tlv) => tlv.type === TlvType.crc32c)
    if (another !== undefined) return malformed(another.offset, "there is a checksum already")
    return Result.map(checksum === undefined ? Result.void : verify(chunk, checksum), () =>
      tlvs
        .filter(({ type }) => type !== TlvType.crc32c && type !== TlvType.noop)
        .map(({ type, value }) => ({ type, value }))
    )
  })

/** Checks the checksum of a whole header of version 2, for which its own field counts as zero. */
const verify = (chunk: Uint8Array, { offset, value }: PlacedTlv): Decoded<void> => {
  if (value.length !== 4) return malformed(offset, `a checksum has 4 bytes, not ${value.length}`)
  const zeroed = new Uint8Array(chunk)
  zeroed.fill(0, offset + 3, offset + 7)
  const calculated = crc32c(zeroed)
  const received = viewOf(value).getUint32(0)
  return received === calculated
    ? Result.void
    : Result.fail(
        problem(
          "WrongChecksum",
          offset + 3,
          `the checksum is ${hex(calculated, 8)}, the header says ${hex(received, 8)}`
        )
      )
}

/**
 * Encodes a header. What a version cannot say, and what no header can, throws a `RangeError`: TLVs or Unix addresses in
 * version 1, Unix addresses beside others, a path of more than 108 bytes, more than 65,535 bytes in all.
 *
 * **Example** (Version 2, with the name that the client asked for)
 *
 * ```ts
 * import { ProxyProtocol } from "effect-wire"
 * import { NetAddress } from "effect/net"
 *
 * const header = ProxyProtocol.encode({
 *   addresses: {
 *     source: NetAddress.inetAddressFromStringUnsafe("192.0.2.7:56324"),
 *     destination: NetAddress.inetAddressFromStringUnsafe("198.51.100.1:443")
 *   },
 *   tlvs: [{ type: ProxyProtocol.TlvType.authority, value: new TextEncoder().encode("example.org") }]
 * })
 *
 * console.log(header.length) // 42
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const encode = (options: EncodeOptions): Uint8Array => {
  const { addresses, command = "PROXY", protocol = "stream" } = options
  if (command !== "PROXY" && command !== "LOCAL") {
    throw new RangeError(`command must be PROXY or LOCAL, received ${String(command)}`)
  }
  const known = command === "LOCAL" || addresses === undefined ? undefined : sameFamily(addresses)
  return checkVersion(options.version ?? 2) === 1
    ? encodeLine(known, options)
    : encodeBinary(known, command, protocol, options)
}

const isUnix = NetAddress.isUnixPathAddress

type Family =
  | readonly ["IPv4", NetAddress.InetAddressV4, NetAddress.InetAddressV4]
  | readonly ["IPv6", NetAddress.InetAddressV6, NetAddress.InetAddressV6]
  | readonly ["Unix", NetAddress.UnixPathAddress, NetAddress.UnixPathAddress]

const mapped = (address: NetAddress.InetAddress): NetAddress.InetAddressV6 =>
  NetAddress.isInetAddressV6(address)
    ? address
    : Result.getOrThrow(NetAddress.inetAddressV6(NetAddress.toIpv4Mapped(address.address), address.port))

const sameFamily = ({ destination, source }: Addresses): Family => {
  if (isUnix(source) && isUnix(destination)) return ["Unix", source, destination]
  if (isUnix(source) || isUnix(destination)) {
    throw new RangeError("a PROXY header cannot name a Unix socket and an internet address")
  }
  return NetAddress.isInetAddressV4(source) && NetAddress.isInetAddressV4(destination)
    ? ["IPv4", source, destination]
    : ["IPv6", mapped(source), mapped(destination)]
}

const encodeLine = (family: Family | undefined, options: EncodeOptions): Uint8Array => {
  if (options.tlvs !== undefined && options.tlvs.length > 0) {
    throw new RangeError("a PROXY header of version 1 has no TLVs")
  }
  if (options.checksum === true) throw new RangeError("a PROXY header of version 1 has no checksum")
  if (options.protocol === "datagram") throw new RangeError("a PROXY header of version 1 knows no datagrams")
  if (family === undefined) return encodeUtf8("PROXY UNKNOWN\r\n")
  const [name, source, destination] = family
  if (name === "Unix") throw new RangeError("a PROXY header of version 1 cannot name a Unix socket")
  const ips = `${formatLineIp(source.address)} ${formatLineIp(destination.address)}`
  return encodeUtf8(
    `PROXY ${name === "IPv4" ? "TCP4" : "TCP6"} ${ips} ${source.port} ${destination.port}\r\n`
  )
}

// A mapped address is usually written with dots at its end. The specification only has groups of hexadecimal digits.
const formatLineIp = (address: NetAddress.IpAddress): string =>
  NetAddress.isIpv6Address(address) && NetAddress.isIpv4Mapped(address)
    ? `::ffff:${NetAddress.ipv6ToSegments(address)
        .slice(6)
        .map((segment) => segment.toString(16))
        .join(":")}`
    : NetAddress.formatIp(address)

const families = { IPv4: 0x10, IPv6: 0x20, Unix: 0x30 }

const encodeBinary = (
  family: Family | undefined,
  command: Command,
  protocol: "stream" | "datagram",
  { checksum = false, tlvs = [] }: EncodeOptions
): Uint8Array => {
  if (command === "LOCAL" && tlvs.length > 0) {
    throw new RangeError("a PROXY header with the command LOCAL has no TLVs")
  }
  const addresses = family === undefined ? [] : encodeAddresses(family)
  const parts = [
    ...tlvs.map(encodeTlv),
    ...(checksum ? [Uint8Array.of(TlvType.crc32c, 0, 4, 0, 0, 0, 0)] : [])
  ]
  const length = addresses.length + parts.reduce((sum, part) => sum + part.length, 0)
  if (length > MAX_LENGTH) {
    throw new RangeError(
      `a PROXY header has at most ${bytes(MAX_LENGTH)} after its first ${FIXED}, not ${length}`
    )
  }
  const header = new Uint8Array(FIXED + length)
  const view = viewOf(header)
  header.set(SIGNATURE)
  view.setUint8(12, command === "PROXY" ? PROXY : LOCAL)
  view.setUint8(13, family === undefined ? 0 : families[family[0]] | (protocol === "stream" ? 1 : 2))
  view.setUint16(14, length)
  header.set(addresses, FIXED)
  let at = FIXED + addresses.length
  for (const part of parts) {
    header.set(part, at)
    at += part.length
  }
  if (checksum) view.setUint32(header.length - 4, crc32c(header))
  return header
}

const encodeAddresses = (family: Family): ReadonlyArray<number> => {
  const [name, source, destination] = family
  if (name === "Unix") return [...encodePath(source), ...encodePath(destination)]
  const octets = (address: NetAddress.InetAddress): ReadonlyArray<number> =>
    NetAddress.isInetAddressV4(address)
      ? NetAddress.ipv4ToOctets(address.address)
      : NetAddress.ipv6ToOctets(address.address)
  return [
    ...octets(source),
    ...octets(destination),
    source.port >> 8,
    source.port & 0xff,
    destination.port >> 8,
    destination.port & 0xff
  ]
}

const encodePath = ({ path }: NetAddress.UnixPathAddress): Uint8Array => {
  const encoded = encodeUtf8(path)
  if (encoded.length > UNIX_PATH) {
    throw new RangeError(
      `a Unix path in a PROXY header has at most ${UNIX_PATH} bytes, not ${encoded.length}`
    )
  }
  const field = new Uint8Array(UNIX_PATH)
  field.set(encoded)
  return field
}

const encodeTlv = ({ type, value }: Tlv): Uint8Array => {
  if (!Number.isInteger(type) || type < 0 || type > 0xff) {
    throw new RangeError(`a TLV's type must be an integer from 0 to 255, received ${type}`)
  }
  if (type === TlvType.crc32c) throw new RangeError("the checksum of a PROXY header is the option `checksum`")
  if (value.length > MAX_LENGTH) {
    throw new RangeError(`a TLV has at most ${bytes(MAX_LENGTH)}, not ${value.length}`)
  }
  const tlv = new Uint8Array(3 + value.length)
  tlv.set([type, value.length >> 8, value.length & 0xff])
  tlv.set(value, 3)
  return tlv
}

/**
 * Reads the header that a connection begins with, and not a byte more. When it fails, the connection is of no use any more.
 *
 * What is not the beginning of a header fails at once. There is no time limit but the reader's own.
 *
 * **Example** (A header and the bytes behind it)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, ProxyProtocol } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const [server, proxy] = yield* Connection.pair()
 *   yield* proxy.writer.write("PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\nHELO example.org\r\n")
 *   const { addresses } = yield* ProxyProtocol.read(server.reader)
 *   console.log(String(addresses?.source)) // 192.0.2.7:56324
 *   console.log(yield* server.reader.readLineString) // some("HELO example.org")
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const read = (
  reader: StreamReader,
  options?: DecodeOptions
): Effect.Effect<Header, ProxyProtocolError | ReadError> =>
  Effect.suspend(() => readWith(reader, checkDecodeOptions(options)))

const readWith = Effect.fnUntraced(function* (reader: StreamReader, settings: DecodeSettings) {
  const first = yield* Effect.mapError(reader.peek(1), because(EXPECTED))
  const version = first[0] === NAME[0] ? 1 : 2
  yield* readStart(reader, version === 1 ? NAME : SIGNATURE)
  yield* Effect.fromResult(accepts(settings, version))
  if (version === 1) {
    const line = reader.readUntil("\n", { limit: MAX_LINE - 1 })
    return yield* Effect.fromResult(decodeLine(yield* Effect.mapError(line, because(EXPECTED_LINE))))
  }
  const fixed = yield* Effect.mapError(reader.peek(FIXED), because(EXPECTED_FIXED))
  const size = yield* Effect.fromResult(decodeSize(fixed, settings))
  const whole = reader.readExactly(size)
  return yield* Effect.fromResult(decodeBinary(yield* Effect.mapError(whole, because(expectedSize(size)))))
})

// Looks at what there is, so that what is no header is noticed before there are as many bytes as one has.
const readStart = Effect.fnUntraced(function* (reader: StreamReader, start: Uint8Array) {
  for (let seen = 0; seen < start.length;) {
    const buffered = Math.min(yield* reader.bufferedBytes, FIXED)
    const chunk = yield* Effect.mapError(reader.peek(Math.max(buffered, seen + 1)), because(EXPECTED))
    const common = commonLength(chunk, start)
    if (common < start.length && common < chunk.length) return yield* notAHeader(chunk, common)
    seen = chunk.length
  }
})

const because =
  (wanted: string) =>
  (cause: IncompleteReadError | LimitOverrunError | ReadError): ProxyProtocolError | ReadError => {
    switch (cause._tag) {
      case "IncompleteReadError":
        return truncated(cause.partial.length, wanted)
      case "LimitOverrunError":
        return lineTooLong()
      default:
        return cause
    }
  }

/**
 * The value of the first TLV of a type.
 *
 * **Example** (The name that the client asked for)
 *
 * ```ts
 * import { Option } from "effect"
 * import { ProxyProtocol } from "effect-wire"
 *
 * const authority = (header: ProxyProtocol.Header): Option.Option<string> =>
 *   Option.map(ProxyProtocol.findTlv(header, ProxyProtocol.TlvType.authority), (value) =>
 *     new TextDecoder().decode(value)
 *   )
 *
 * const header = ProxyProtocol.encode({ tlvs: [{ type: 2, value: new TextEncoder().encode("example.org") }] })
 *
 * console.log(Option.map(Option.getSuccess(ProxyProtocol.decode(header)), (_) => authority(_.header)))
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const findTlv = (
  header: { readonly tlvs: ReadonlyArray<Tlv> },
  type: number
): Option.Option<Uint8Array> =>
  Option.map(Option.fromUndefinedOr(header.tlvs.find((tlv) => tlv.type === type)), (tlv) => tlv.value)

/**
 * Facts of the client's TLS, as the proxy tells them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ssl {
  /** Whether the client connected over TLS. */
  readonly tls: boolean
  /** Whether the client showed a certificate on this connection, or on one of the same session. */
  readonly certificate: "connection" | "session" | undefined
  /** Whether it showed one that was verified. */
  readonly verified: boolean
  /** Such as `TLSv1.3`. */
  readonly version: string | undefined
  /** The common name in the client's certificate. */
  readonly commonName: string | undefined
  readonly cipher: string | undefined
  /** What the proxy's own certificate is signed with. */
  readonly signatureAlgorithm: string | undefined
  /** What the key of the proxy's own certificate is. */
  readonly keyAlgorithm: string | undefined
}

const SSL_FIXED = 5

/**
 * Decodes the value of a TLV of the type `ssl`. The `offset` of its errors is that in the value.
 *
 * @category decoding
 * @since 0.1.0
 */
export const decodeSsl = (value: Uint8Array): Result.Result<Ssl, ProxyProtocolError> => {
  if (value.length < SSL_FIXED) {
    return malformed(
      0,
      `${bytes(value.length)} are too few for facts of TLS, which have at least ${SSL_FIXED}`
    )
  }
  const view = viewOf(value)
  const client = view.getUint8(0)
  const text = (tlvs: ReadonlyArray<Tlv>, type: number): string | undefined =>
    Option.getOrUndefined(Option.map(findTlv({ tlvs }, type), (part) => decodeUtf8(part)))
  return Result.map(decodeList(value, SSL_FIXED), (tlvs) => ({
    tls: (client & 1) !== 0,
    certificate: (client & 2) !== 0 ? "connection" : (client & 4) !== 0 ? "session" : undefined,
    verified: (client & 6) !== 0 && view.getUint32(1) === 0,
    version: text(tlvs, 0x21),
    commonName: text(tlvs, 0x22),
    cipher: text(tlvs, 0x23),
    signatureAlgorithm: text(tlvs, 0x24),
    keyAlgorithm: text(tlvs, 0x25)
  }))
}

const DEFAULT_TIMEOUT = Duration.seconds(5)

/**
 * Reads the header of an accepted connection, if there is to be one.
 *
 * @internal
 */
export type Receiver = (
  reader: StreamReader,
  transport: Pick<Transport, "localAddress" | "remoteAddress">
) => Effect.Effect<Received | undefined, ProxyProtocolError | ReadError>

/**
 * Checks the options at once, and throws.
 *
 * @internal
 */
export const receiver = (options: ServerOptions): Receiver => {
  const settings = checkDecodeOptions(options)
  const trusts = trusting(options.trusted)
  const untrusted = Limits.oneOf("untrusted", options.untrusted ?? "refuse", ["refuse", "serve"])
  const duration = Duration.millis(Limits.timeout("timeout", options.timeout ?? DEFAULT_TIMEOUT))
  return (reader, { localAddress, remoteAddress }) => {
    const address = formatAddress(remoteAddress)
    if (!trusts(remoteAddress, localAddress)) {
      if (untrusted === "serve") return Effect.undefined
      const detail =
        address === undefined
          ? "its sender's address is not known, as if the connection were gone already"
          : "its sender is not trusted"
      return Effect.fail(new ProxyProtocolError({ kind: "Untrusted", detail, offset: 0, address }))
    }
    return within(
      readWith(reader, settings),
      "proxyProtocol",
      "proxyProtocol.timeout",
      duration,
      () => address
    ).pipe(
      Effect.mapBoth({
        onSuccess: (header): Received => ({ ...header, proxy: remoteAddress }),
        onFailure: (error) =>
          error._tag === "ProxyProtocolError"
            ? new ProxyProtocolError({
                kind: error.kind,
                detail: error.detail,
                offset: error.offset,
                address
              })
            : error
      })
    )
  }
}

const trusting = (
  trusted: ServerOptions["trusted"]
): ((
  remote: NetAddress.SocketAddress | undefined,
  local: NetAddress.SocketAddress | undefined
) => boolean) => {
  if (!Limits.isArray(trusted)) {
    throw new RangeError('trusted must be an array of IP networks and "unix": it says who may send a header')
  }
  const networks = trusted.flatMap((input) => {
    if (input === "unix") return []
    const network = IpNetwork.fromInput(input)
    if (Result.isSuccess(network)) return network.success
    throw new RangeError(
      `trusted must name IP networks or "unix", received ${printable(JSON.stringify(input))}: ${network.failure.message}`
    )
  })
  const unix = trusted.includes("unix")
  const contains = (address: NetAddress.IpAddress): boolean =>
    networks.some((network) => IpNetwork.contains(network, address))
  return (remote, local) =>
    remote !== undefined && NetAddress.isInetAddress(remote)
      ? contains(NetAddress.toCanonical(remote.address))
      : unix && local !== undefined && isUnix(local)
}

/**
 * What to send on a connection with these ends.
 *
 * @internal
 */
export type Sender = (
  source: NetAddress.SocketAddress | undefined,
  destination: NetAddress.SocketAddress | undefined
) => Uint8Array

/**
 * Checks the options at once, and throws.
 *
 * @internal
 */
export const sender = (options: EncodeOptions): Sender => {
  const fixed = encode(options)
  if (options.addresses !== undefined || options.command === "LOCAL") return () => fixed
  return (source, destination) =>
    source === undefined || destination === undefined || (options.version === 1 && isUnix(source))
      ? fixed
      : encode({ ...options, addresses: { source, destination } })
}
