import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  References,
  Result,
  type Scope,
  Stream
} from "effect"
import { NetAddress } from "effect/net"
import { TestClock } from "effect/testing"
import {
  Connection,
  type Network,
  Proxy,
  ProxyProtocol,
  Server,
  StreamError,
  StreamReader
} from "effect-wire"
import { TestNetwork } from "effect-wire/testing"
import * as fc from "fast-check"
import { outcome, turns } from "./support/effects.ts"

const test = (name: string, body: () => Effect.Effect<void, unknown, Network.Network | Scope.Scope>) =>
  it.effect(name, () => Effect.scoped(Effect.suspend(body)).pipe(Effect.provide(TestNetwork.layer)))

const ascii = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "latin1"))
const fromHex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text.replaceAll(" ", ""), "hex"))
const hex = (chunk: Uint8Array): string => Buffer.from(chunk).toString("hex")

const inet = NetAddress.inetAddressFromStringUnsafe
const unix = NetAddress.unixPathAddress

const SIGNATURE = "0d0a0d0a000d0a515549540a"

const path = (text: string): string => hex(ascii(text)).padEnd(216, "0")

const TCP4 = `${SIGNATURE} 21 11 000c c0a80001 c0a8000b dc04 01bb`
const TCP6 = `${SIGNATURE} 21 21 0024 20010db8000000000000000000000001 20010db8000000000000000000000002 dc04 01bb`

const addresses4 = { source: inet("192.168.0.1:56324"), destination: inet("192.168.0.11:443") }
const addresses6 = { source: inet("[2001:db8::1]:56324"), destination: inet("[2001:db8::2]:443") }

const decoded = (chunk: Uint8Array, options?: ProxyProtocol.DecodeOptions) =>
  Result.getOrThrow(ProxyProtocol.decode(chunk, options))

const header = (chunk: Uint8Array, options?: ProxyProtocol.DecodeOptions) => decoded(chunk, options).header

const text = (addresses: ProxyProtocol.Addresses | undefined) =>
  addresses && [String(addresses.source), String(addresses.destination)]

/** What the reader makes of it, one chunk after another, and what it leaves. */
const readAll = (
  chunks: ReadonlyArray<Uint8Array>,
  options?: ProxyProtocol.DecodeOptions
): readonly [Result.Result<ProxyProtocol.Header, unknown>, Uint8Array] => {
  const { feed, feedEof, reader } = StreamReader.feedable()
  return Effect.runSync(
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(ProxyProtocol.read(reader, options), { startImmediately: true })
      for (const chunk of chunks) feed(chunk)
      feedEof()
      const exit = fiber.pollUnsafe() ?? assert.fail("it waits after the end of the input")
      const result: Result.Result<ProxyProtocol.Header, unknown> = Exit.isSuccess(exit)
        ? Result.succeed(exit.value)
        : Result.fail(
            Option.getOrElse(Cause.findErrorOption(exit.cause), () => assert.fail(String(exit.cause)))
          )
      return [result, yield* reader.readAll()] as const
    })
  )
}

const failure = (
  chunk: Uint8Array,
  options?: ProxyProtocol.DecodeOptions
): ProxyProtocol.ProxyProtocolError =>
  Result.match(ProxyProtocol.decode(chunk, options), {
    onSuccess: ({ header }) => assert.fail(`decoded ${JSON.stringify(header)}`),
    onFailure: (error) => error
  })

describe("known answers", () => {
  const cases: ReadonlyArray<
    readonly [
      name: string,
      bytes: Uint8Array,
      header: Partial<Omit<ProxyProtocol.Header, "addresses">>,
      addresses: readonly [string, string] | undefined,
      options: ProxyProtocol.EncodeOptions | undefined
    ]
  > = [
    [
      "version 1, IPv4",
      ascii("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"),
      { version: 1, command: "PROXY", protocol: "stream", tlvs: [] },
      ["192.168.0.1:56324", "192.168.0.11:443"],
      { version: 1, addresses: addresses4 }
    ],
    [
      "version 1, IPv6",
      ascii("PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n"),
      { version: 1 },
      ["[2001:db8::1]:56324", "[2001:db8::2]:443"],
      { version: 1, addresses: addresses6 }
    ],
    [
      "version 1, IPv6 in full, 104 bytes",
      ascii(
        "PROXY TCP6 FFFF:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
      ),
      { version: 1 },
      ["[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"],
      undefined
    ],
    [
      "version 1, unknown",
      ascii("PROXY UNKNOWN\r\n"),
      { version: 1, command: "PROXY" },
      undefined,
      { version: 1 }
    ],
    [
      "version 1, unknown, the longest of all, 107 bytes",
      ascii(
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
      ),
      { version: 1 },
      undefined,
      undefined
    ],
    [
      "version 2, IPv4",
      fromHex(TCP4),
      { version: 2, command: "PROXY", protocol: "stream", tlvs: [] },
      ["192.168.0.1:56324", "192.168.0.11:443"],
      { addresses: addresses4 }
    ],
    [
      "version 2, IPv6",
      fromHex(TCP6),
      { version: 2, protocol: "stream" },
      ["[2001:db8::1]:56324", "[2001:db8::2]:443"],
      { addresses: addresses6 }
    ],
    [
      "version 2, UDP",
      fromHex(TCP4.replace("21 11", "21 12")),
      { version: 2, protocol: "datagram" },
      ["192.168.0.1:56324", "192.168.0.11:443"],
      { addresses: addresses4, protocol: "datagram" }
    ],
    [
      "version 2, Unix paths, one of them empty",
      fromHex(`${SIGNATURE} 21 31 00d8 ${path("")} ${path("/run/app.sock")}`),
      { version: 2, protocol: "stream" },
      ["", "/run/app.sock"],
      { addresses: { source: unix(""), destination: unix("/run/app.sock") } }
    ],
    [
      "version 2, Unix datagrams, an abstract name and one of 108 bytes",
      fromHex(`${SIGNATURE} 21 32 00d8 ${path("\0abstract")} ${path("x".repeat(108))}`),
      { version: 2, protocol: "datagram" },
      ["\0abstract", "x".repeat(108)],
      { protocol: "datagram", addresses: { source: unix("\0abstract"), destination: unix("x".repeat(108)) } }
    ],
    [
      "version 2, unspecified",
      fromHex(`${SIGNATURE} 21 00 0000`),
      { version: 2, command: "PROXY" },
      undefined,
      {}
    ],
    [
      "version 2, local",
      fromHex(`${SIGNATURE} 20 00 0000`),
      { version: 2, command: "LOCAL" },
      undefined,
      { command: "LOCAL", addresses: addresses4 }
    ],
    [
      "version 2, local, with a family and a block that are to be ignored",
      fromHex(`${SIGNATURE} 20 ff 0005 0102030405`),
      { version: 2, command: "LOCAL", protocol: "stream", tlvs: [] },
      undefined,
      undefined
    ],
    [
      "version 2, IPv4 of an unspecified protocol, with a TLV",
      fromHex(`${SIGNATURE} 21 10 0010 c0a80001 c0a8000b dc04 01bb e0 0001 2a`),
      { version: 2, tlvs: [{ type: 0xe0, value: Uint8Array.of(42) }] },
      undefined,
      undefined
    ],
    [
      "version 2, TLVs and padding",
      fromHex(
        `${SIGNATURE} 21 11 0020 c0a80001 c0a8000b dc04 01bb 02 0002 6869 04 0002 0000 e0 0000 01 0004 03026832`
      ),
      {
        version: 2,
        tlvs: [
          { type: 0x02, value: ascii("hi") },
          { type: 0xe0, value: ascii("") },
          { type: 0x01, value: fromHex("03026832") }
        ]
      },
      ["192.168.0.1:56324", "192.168.0.11:443"],
      {
        addresses: addresses4,
        tlvs: [
          { type: 0x02, value: ascii("hi") },
          { type: 0x04, value: Uint8Array.of(0, 0) },
          { type: 0xe0, value: ascii("") },
          { type: 0x01, value: fromHex("03026832") }
        ]
      }
    ]
  ]

  for (const [name, bytes, expected, addresses, options] of cases) {
    it(name, () => {
      const { header, size } = decoded(Buffer.concat([bytes, ascii("rest")]))
      assert.strictEqual(size, bytes.length)
      for (const [key, value] of Object.entries(expected)) {
        const found: unknown = Object.entries(header).find(([name]) => name === key)?.[1]
        assert.deepEqual(JSON.stringify(found), JSON.stringify(value), key)
      }
      assert.deepStrictEqual(text(header.addresses), addresses && [...addresses])
      if (options !== undefined) assert.strictEqual(hex(ProxyProtocol.encode(options)), hex(bytes))
      const [read, rest] = readAll([bytes, ascii("rest")])
      assert.deepStrictEqual(JSON.stringify(read), JSON.stringify(Result.succeed(header)))
      assert.strictEqual(hex(rest), hex(ascii("rest")))
    })
  }

  it("an IPv4 address beside an IPv6 one is mapped", () => {
    const mixed = { source: addresses4.source, destination: addresses6.destination }
    const expected = ["[::ffff:192.168.0.1]:56324", "[2001:db8::2]:443"]
    for (const version of [1, 2] as const) {
      const { addresses } = header(ProxyProtocol.encode({ version, addresses: mixed }))
      assert(addresses !== undefined && NetAddress.isInetAddressV6(addresses.source))
      assert.isTrue(NetAddress.isIpv6Address(addresses.source.address))
      assert.deepStrictEqual(
        [NetAddress.formatInet(NetAddress.toCanonical(addresses.source)), String(addresses.destination)],
        ["192.168.0.1:56324", expected[1]]
      )
    }
  })

  it("version 1 writes a mapped address without dots, which its grammar does not have", () => {
    const mixed = { source: addresses4.source, destination: addresses6.destination }
    assert.strictEqual(
      Buffer.from(ProxyProtocol.encode({ version: 1, addresses: mixed })).toString(),
      "PROXY TCP6 ::ffff:c0a8:1 2001:db8::2 56324 443\r\n"
    )
  })

  it("an IPv6 zone is not sent", () => {
    const scoped = Result.getOrThrow(
      NetAddress.inetAddressV6(
        NetAddress.ipv6FromBytesUnsafe(fromHex("fe80 0000 0000 0000 0000 0000 0000 0001")),
        7,
        {
          scopeId: 3
        }
      )
    )
    const sent = ProxyProtocol.encode({ version: 1, addresses: { source: scoped, destination: scoped } })
    assert.strictEqual(Buffer.from(sent).toString(), "PROXY TCP6 fe80::1 fe80::1 7 7\r\n")
  })

  it("a checksum", () => {
    // CRC-32C of TCP4's header with the checksum's field zero, calculated bit by bit.
    const slowly = (bytes: Uint8Array): number => {
      let crc = 0xffffffff
      for (const byte of bytes) {
        for (let bit = 0; bit < 8; bit++) {
          const carry = (crc ^ (byte >> bit)) & 1
          crc = (crc >>> 1) ^ (carry === 1 ? 0x82f63b78 : 0)
        }
      }
      return ~crc >>> 0
    }
    assert.strictEqual(slowly(ascii("123456789")), 0xe3069283)
    const zeroed = fromHex(TCP4.replace("000c", "0013") + "03 0004 00000000")
    const sent = ProxyProtocol.encode({ addresses: addresses4, checksum: true })
    assert.strictEqual(hex(sent.subarray(0, -4)), hex(zeroed.subarray(0, -4)))
    assert.strictEqual(hex(sent.subarray(-4)), slowly(zeroed).toString(16).padStart(8, "0"))
    assert.deepStrictEqual(header(sent).tlvs, [])
  })

  it("facts of TLS", () => {
    const tls = Buffer.concat([
      fromHex("03 00000000"),
      ...[
        [0x21, "TLSv1.3"],
        [0x22, "client"],
        [0x23, "TLS_AES_128_GCM_SHA256"],
        [0x24, "RSA-SHA256"],
        [0x25, "RSA2048"]
      ].map(([type, text]) =>
        Buffer.concat([Uint8Array.of(Number(type), 0, String(text).length), ascii(String(text))])
      )
    ])
    assert.deepStrictEqual(Result.getOrThrow(ProxyProtocol.decodeSsl(tls)), {
      tls: true,
      certificate: "connection",
      verified: true,
      version: "TLSv1.3",
      commonName: "client",
      cipher: "TLS_AES_128_GCM_SHA256",
      signatureAlgorithm: "RSA-SHA256",
      keyAlgorithm: "RSA2048"
    })
    const none = {
      version: undefined,
      commonName: undefined,
      cipher: undefined,
      signatureAlgorithm: undefined,
      keyAlgorithm: undefined
    }
    const facts = (text: string) => Result.getOrThrow(ProxyProtocol.decodeSsl(fromHex(text)))
    assert.deepStrictEqual(facts("00 00000000"), {
      tls: false,
      certificate: undefined,
      verified: false,
      ...none
    })
    assert.deepStrictEqual(facts("05 00000001"), {
      tls: true,
      certificate: "session",
      verified: false,
      ...none
    })
    for (const wrong of ["", "01000000", "0100000000 21", "0100000000 21 0002 41"]) {
      const error = Result.getOrThrow(Result.flip(ProxyProtocol.decodeSsl(fromHex(wrong))))
      assert.strictEqual(error.kind, "Malformed")
    }
  })

  it("finds the first TLV of a type", () => {
    const found = (type: number) =>
      Option.map(
        ProxyProtocol.findTlv(
          {
            tlvs: [
              { type: 1, value: ascii("a") },
              { type: 1, value: ascii("b") }
            ]
          },
          type
        ),
        hex
      )
    assert.deepStrictEqual(found(1), Option.some("61"))
    assert.deepStrictEqual(found(2), Option.none())
  })
})

describe("what is no header", () => {
  const line = (text: string) => ascii(`${text}\r\n`)
  const tlvs = (text: string) => {
    const block = `c0a80001 c0a8000b dc04 01bb ${text}`.replaceAll(" ", "")
    return fromHex(`${SIGNATURE} 21 11 ${(block.length / 2).toString(16).padStart(4, "0")} ${block}`)
  }

  const cases: ReadonlyArray<
    readonly [
      name: string,
      bytes: Uint8Array,
      kind: ProxyProtocol.ProxyProtocolError["kind"],
      offset: number,
      options?: ProxyProtocol.DecodeOptions
    ]
  > = [
    ["nothing", ascii(""), "Truncated", 0],
    ["HTTP", ascii("GET / HTTP/1.1\r\n\r\n"), "NotAHeader", 0],
    ["HTTP that begins like one", ascii("PROPFIND / HTTP/1.1\r\n"), "NotAHeader", 3],
    ["TLS", fromHex("160301010001"), "NotAHeader", 0],
    ["a name without its space", line("PROXYTCP4 1.2.3.4 1.2.3.4 1 2"), "NotAHeader", 5],
    ["a name in small letters", line("proxy TCP4 1.2.3.4 1.2.3.4 1 2"), "NotAHeader", 0],
    ["a signature with one wrong byte", fromHex(`${SIGNATURE.slice(0, 22)}0b 21 11 000c`), "NotAHeader", 11],
    ["blank lines", ascii("\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"), "NotAHeader", 4],
    ["half a name", ascii("PRO"), "Truncated", 3],
    ["a line without an end", ascii("PROXY TCP4 1.2.3.4 1.2.3.4 1 2"), "Truncated", 30],
    ["a line that ends in LF", ascii("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"), "Malformed", 30],
    ["a line that ends in CR", ascii("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r"), "Truncated", 31],
    ["half a signature", fromHex(SIGNATURE.slice(0, 12)), "Truncated", 6],
    ["half a beginning of version 2", fromHex(`${SIGNATURE} 21`), "Truncated", 13],
    ["half the addresses", fromHex(TCP4).subarray(0, 20), "Truncated", 20],
    ["a line of 108 bytes", line(`PROXY UNKNOWN ${"x".repeat(92)}`), "TooLong", 107],
    ["a line without an end at all", ascii(`PROXY UNKNOWN ${"x".repeat(500)}`), "TooLong", 107],
    ["more than the limit", fromHex(`${SIGNATURE} 21 11 1001`), "TooLong", 14],
    ["more than another limit", fromHex(TCP4), "TooLong", 14, { maxLength: 11 }],
    ["version 1 where 2 is wanted", line("PROXY UNKNOWN"), "WrongVersion", 0, { version: 2 }],
    ["version 2 where 1 is wanted", fromHex(TCP4), "WrongVersion", 0, { version: 1 }],
    ["version 1 in the words of 2", fromHex(TCP4.replace("21 11", "11 11")), "WrongVersion", 12],
    ["version 3", fromHex(TCP4.replace("21 11", "31 11")), "WrongVersion", 12],
    ["another command", fromHex(TCP4.replace("21 11", "22 11")), "Malformed", 12],
    ["another family", fromHex(TCP4.replace("21 11", "21 41")), "Malformed", 13],
    ["another protocol", fromHex(TCP4.replace("21 11", "21 13")), "Malformed", 13],
    ["too few bytes for IPv4", fromHex(`${SIGNATURE} 21 11 000b c0a80001 c0a8000b dc0401`), "Malformed", 14],
    ["too few bytes for IPv6", fromHex(TCP4.replace("21 11", "21 21")), "Malformed", 14],
    ["too few bytes for Unix", fromHex(TCP4.replace("21 11", "21 31")), "Malformed", 14],
    ["half a TLV's head", tlvs("01 00"), "Malformed", 28],
    ["a TLV that is cut", tlvs("01 0002 41"), "Malformed", 28],
    ["a TLV that is cut, behind another", tlvs("01 0000 01 ffff"), "Malformed", 31],
    ["a TLV that is cut where nothing is specified", fromHex(`${SIGNATURE} 21 00 0001 01`), "Malformed", 16],
    ["a wrong checksum", tlvs("03 0004 00000000"), "WrongChecksum", 31],
    ["a short checksum", tlvs("03 0003 000000"), "Malformed", 28],
    ["two checksums", tlvs("03 0004 00000000 03 0004 00000000"), "Malformed", 35],
    ["no family", line("PROXY "), "Malformed", 6],
    ["UDP in version 1", line("PROXY UDP4 1.2.3.4 1.2.3.4 1 2"), "Malformed", 6],
    ["a family in small letters", line("PROXY tcp4 1.2.3.4 1.2.3.4 1 2"), "Malformed", 6],
    ["unknown and more", line("PROXY UNKNOWNS"), "Malformed", 6],
    ["a TAB", line("PROXY\tTCP4"), "NotAHeader", 5],
    ["two spaces", line("PROXY TCP4  1.2.3.4 1.2.3.4 1 2"), "Malformed", 10],
    ["a space at the end", line("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 "), "Malformed", 10],
    ["one port", line("PROXY TCP4 1.2.3.4 1.2.3.4 1"), "Malformed", 10],
    ["IPv6 as IPv4", line("PROXY TCP4 ::1 ::1 1 2"), "Malformed", 11],
    ["IPv4 as IPv6", line("PROXY TCP6 1.2.3.4 1.2.3.4 1 2"), "Malformed", 11],
    ["a zone", line("PROXY TCP6 fe80::1%eth0 ::1 1 2"), "Malformed", 11],
    ["an octet of 256", line("PROXY TCP4 1.2.3.4 1.2.3.256 1 2"), "Malformed", 19],
    ["an octet with a zero in front", line("PROXY TCP4 01.2.3.4 1.2.3.4 1 2"), "Malformed", 11],
    ["a name for an address", line("PROXY TCP4 localhost 1.2.3.4 1 2"), "Malformed", 11],
    ["a port of 65536", line("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2"), "Malformed", 27],
    ["a port with a zero in front", line("PROXY TCP4 1.2.3.4 1.2.3.4 1 02"), "Malformed", 29],
    ["a port with a sign", line("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2"), "Malformed", 27],
    ["no port", line("PROXY TCP4 1.2.3.4 1.2.3.4  2"), "Malformed", 27],
    ["a CR within", ascii("PROXY TCP4 1.2.3.4\r1.2.3.4 1 2\r\n"), "Malformed", 10],
    ["a LF within", ascii("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\r\n"), "Malformed", 30],
    ["a LF within what is ignored", ascii("PROXY UNKNOWN x\nHELO x\r\n"), "Malformed", 15]
  ]

  for (const [name, bytes, kind, offset, options] of cases) {
    it(name, () => {
      const error = failure(bytes, options)
      assert.deepStrictEqual([error.kind, error.offset], [kind, offset], error.message)
      assert.include(error.message, `(at byte ${offset})`)
      for (const chunks of [[bytes], Array.from(bytes, (byte) => Uint8Array.of(byte))]) {
        const [read] = readAll(chunks, options)
        assert(Result.isFailure(read) && read.failure instanceof ProxyProtocol.ProxyProtocolError)
        assert.strictEqual(read.failure.kind, kind, read.failure.message)
      }
    })
  }

  it("says how the connection begins instead", () => {
    assert.strictEqual(
      failure(ascii("GET / HTTP/1.1\r\nHost: x\r\n")).message,
      'PROXY header: the connection begins with "GET / HTTP/1.1\\r\\n" instead (at byte 0)'
    )
  })

  it.effect("is noticed before the whole header could have come", () =>
    Effect.gen(function* () {
      for (const start of ["G", "PROPFI", "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n"]) {
        const { feed, reader } = StreamReader.feedable()
        feed(ascii(start))
        const error = yield* Effect.flip(ProxyProtocol.read(reader))
        assert(error._tag === "ProxyProtocolError" && error.kind === "NotAHeader")
      }
      const ended = StreamReader.feedable()
      ended.feed(ascii("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"))
      const badEnd = yield* Effect.flip(ProxyProtocol.read(ended.reader))
      assert(badEnd._tag === "ProxyProtocolError" && badEnd.kind === "Malformed")
      assert.include(badEnd.message, "CR and LF")
      const { feed, reader } = StreamReader.feedable()
      feed(fromHex(`${SIGNATURE} 21 11 ffff`))
      const error = yield* Effect.flip(ProxyProtocol.read(reader))
      assert(error._tag === "ProxyProtocolError" && error.kind === "TooLong")
      assert.include(error.message, "raise it with maxLength")
    })
  )

  it.effect("a failure of the connection is the connection's", () =>
    Effect.gen(function* () {
      for (const start of ["", "P", "PROXY ", "\r", `PROXY TCP4 `]) {
        const { fail, feed, reader } = StreamReader.feedable()
        feed(ascii(start))
        const lost = new StreamError.ConnectionError({
          operation: "read",
          reason: new StreamError.ConnectionReset({})
        })
        fail(lost)
        assert.strictEqual(yield* Effect.flip(ProxyProtocol.read(reader)), lost)
      }
    })
  )
})

describe("what cannot be said", () => {
  const cases: ReadonlyArray<readonly [string, ProxyProtocol.EncodeOptions, string]> = [
    ["TLVs in version 1", { version: 1, tlvs: [{ type: 1, value: ascii("") }] }, "TLVs"],
    ["a checksum in version 1", { version: 1, checksum: true }, "checksum"],
    ["datagrams in version 1", { version: 1, protocol: "datagram" }, "datagrams"],
    ["Unix in version 1", { version: 1, addresses: { source: unix("/a"), destination: unix("/b") } }, "Unix"],
    ["Unix and IP", { addresses: { source: unix("/a"), destination: inet("1.2.3.4:5") } }, "Unix"],
    ["IP and Unix", { addresses: { source: inet("1.2.3.4:5"), destination: unix("/a") } }, "Unix"],
    ["a long path", { addresses: { source: unix(""), destination: unix("é".repeat(55)) } }, "not 110"],
    ["TLVs of LOCAL", { command: "LOCAL", tlvs: [{ type: 1, value: ascii("") }] }, "LOCAL"],
    ["a checksum by hand", { tlvs: [{ type: 3, value: ascii("1234") }] }, "checksum"],
    ["a type of 256", { tlvs: [{ type: 256, value: ascii("") }] }, "256"],
    ["a type of -1", { tlvs: [{ type: -1, value: ascii("") }] }, "-1"],
    ["a TLV of 64 KiB", { tlvs: [{ type: 1, value: new Uint8Array(65_536) }] }, "65536"],
    ["64 KiB in all", { tlvs: [{ type: 1, value: new Uint8Array(65_533) }] }, "65536"]
  ]
  for (const [name, options, message] of cases) {
    it(name, () => {
      try {
        ProxyProtocol.encode(options)
      } catch (error) {
        assert(error instanceof RangeError)
        assert.include(error.message, message)
        return
      }
      assert.fail("encoded")
    })
  }

  it("the largest header of all", () => {
    const sent = ProxyProtocol.encode({ tlvs: [{ type: 1, value: new Uint8Array(65_532) }] })
    assert.strictEqual(sent.length, 16 + 65_535)
    assert.strictEqual(header(sent, { maxLength: 65_535 }).tlvs[0]?.value.length, 65_532)
    assert.strictEqual(failure(sent).kind, "TooLong")
  })

  it("options for decoding", () => {
    for (const maxLength of [-1, 1.5, 65_536, NaN]) {
      assert.throws(() => ProxyProtocol.decode(ascii(""), { maxLength }), RangeError)
    }
  })
})

describe("properties", () => {
  const port = fc.integer({ min: 0, max: 65_535 })
  const ipv4 = fc
    .tuple(fc.uint8Array({ minLength: 4, maxLength: 4 }), port)
    .map(([ip, port]) => NetAddress.inetAddressUnsafe(NetAddress.ipv4FromBytesUnsafe(ip), port))
  const ipv6 = fc
    .tuple(fc.uint8Array({ minLength: 16, maxLength: 16 }), port)
    .map(([ip, port]) => NetAddress.inetAddressUnsafe(NetAddress.ipv6FromBytesUnsafe(ip), port))
  const unixPath = fc
    .string({ unit: "binary", maxLength: 40 })
    .map((path) => path.replaceAll("\0", ""))
    .filter((path) => Buffer.byteLength(path) <= 108)
    .map(unix)
  const pair = <A extends NetAddress.SocketAddress>(end: fc.Arbitrary<A>) =>
    fc.record({ source: end, destination: end })
  const tlv = fc.record({
    type: fc.integer({ min: 0, max: 255 }).filter((type) => type !== 3 && type !== 4),
    value: fc.uint8Array({ maxLength: 64 })
  })
  const options: fc.Arbitrary<ProxyProtocol.EncodeOptions> = fc.oneof(
    fc.record({
      version: fc.constant(1 as const),
      addresses: fc.option(fc.oneof(pair(ipv4), pair(ipv6)), { nil: undefined })
    }),
    fc.record({
      version: fc.constant(2 as const),
      addresses: fc.option(fc.oneof(pair(ipv4), pair(ipv6), pair(unixPath)), { nil: undefined }),
      protocol: fc.constantFrom("stream" as const, "datagram" as const),
      tlvs: fc.array(tlv, { maxLength: 8 }),
      checksum: fc.boolean()
    }),
    fc.record({
      version: fc.constant(2 as const),
      command: fc.constant("LOCAL" as const),
      checksum: fc.boolean()
    })
  )

  const chunked = (bytes: Uint8Array, cuts: ReadonlyArray<number>): Array<Uint8Array> => {
    const at = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
    return at.slice(1).map((end, i) => bytes.slice(at[i], end))
  }

  it("what is encoded is decoded, however it is cut, and nothing behind it is taken", () => {
    fc.assert(
      fc.property(
        options,
        fc.array(fc.nat(), { maxLength: 20 }),
        fc.uint8Array({ maxLength: 40 }),
        (options, cuts, rest) => {
          const sent = ProxyProtocol.encode(options)
          const { header, size } = decoded(Buffer.concat([sent, rest]))
          assert.strictEqual(size, sent.length)
          assert.strictEqual(header.version, options.version)
          assert.strictEqual(header.command, options.command ?? "PROXY")
          assert.deepStrictEqual(text(header.addresses), text(options.addresses))
          if (options.addresses !== undefined)
            assert.strictEqual(header.protocol, options.protocol ?? "stream")
          assert.deepStrictEqual(
            header.tlvs.map(({ type, value }) => [type, hex(value)]),
            (options.tlvs ?? []).map(({ type, value }) => [type, hex(value)])
          )
          const [read, left] = readAll(chunked(Buffer.concat([sent, rest]), cuts))
          assert.strictEqual(JSON.stringify(read), JSON.stringify(Result.succeed(header)))
          assert.strictEqual(hex(left), hex(rest))
          // Every beginning of it is one of a header.
          for (const cut of cuts) {
            const error = cut % sent.length < sent.length && failure(sent.subarray(0, cut % sent.length))
            assert(error !== false && error.kind === "Truncated", String(error))
          }
        }
      ),
      { numRuns: 500 }
    )
  })

  it("a checksum sees every single flipped bit", () => {
    const sent = ProxyProtocol.encode({
      addresses: addresses4,
      tlvs: [{ type: 5, value: ascii("unique") }],
      checksum: true
    })
    for (let bit = 0; bit < sent.length * 8; bit++) {
      const flipped = sent.slice()
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      const result = ProxyProtocol.decode(flipped)
      // One bit makes it LOCAL, whose block is to be ignored, one cuts the TLVs off, and some make another of the checksum.
      if (Result.isSuccess(result)) {
        assert.isTrue([12, 15, sent.length - 7].includes(bit >> 3), `byte ${bit >> 3}`)
      }
    }
  })

  it("100,000 headers with mutations are decoded or refused, in time", { timeout: 60_000 }, () => {
    // Numbers that are the same in every run.
    let seed = 0x2545f491
    const random = (n: number): number => {
      seed ^= seed << 13
      seed ^= seed >>> 17
      seed ^= seed << 5
      return (seed >>> 0) % n
    }
    const originals = [
      ascii("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"),
      ascii("PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n"),
      ascii("PROXY UNKNOWN\r\n"),
      fromHex(TCP4),
      fromHex(TCP6),
      ProxyProtocol.encode({ addresses: { source: unix("/a"), destination: unix("/b") } }),
      ProxyProtocol.encode({
        addresses: addresses4,
        checksum: true,
        tlvs: [
          { type: 1, value: ascii("h2") },
          { type: 0x20, value: fromHex("0100000000") }
        ]
      })
    ]
    const kinds = new Map<string, number>()
    for (let run = 0; run < 100_000; run++) {
      const original = originals[random(originals.length)] ?? ascii("")
      let mutated = new Uint8Array(original)
      for (let left = 1 + random(3); left > 0; left--) {
        const at = random(mutated.length + 1)
        switch (random(4)) {
          case 0:
            mutated[at] = random(256)
            break
          case 1:
            mutated[at] = (mutated[at] ?? 0) ^ (1 << random(8))
            break
          case 2:
            mutated = mutated.slice(0, at)
            break
          default:
            mutated = new Uint8Array([...mutated.subarray(0, at), random(256), ...mutated.subarray(at)])
        }
      }
      const result = ProxyProtocol.decode(mutated)
      const kind = Result.match(result, { onFailure: (_) => _.kind, onSuccess: () => "decoded" })
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
      if (Result.isSuccess(result)) assert.isAtMost(result.success.size, mutated.length)
      else {
        assert.instanceOf(result.failure, ProxyProtocol.ProxyProtocolError)
        assert.isAtMost(result.failure.offset, mutated.length)
      }
      // The reader agrees with it.
      if (run % 20 === 0) {
        const [read] = readAll(chunked(mutated, [random(1000), random(1000)]))
        if (Result.isSuccess(result)) {
          assert.strictEqual(JSON.stringify(read), JSON.stringify(Result.succeed(result.success.header)))
        } else {
          assert(Result.isFailure(read) && read.failure instanceof ProxyProtocol.ProxyProtocolError)
          assert.strictEqual(read.failure.kind, result.failure.kind)
        }
      }
    }
    for (const kind of [
      "decoded",
      "NotAHeader",
      "Truncated",
      "TooLong",
      "WrongVersion",
      "Malformed",
      "WrongChecksum"
    ]) {
      assert.isAbove(kinds.get(kind) ?? 0, 10, kind)
    }
  })
})

/** A server that tells of each connection's info, and echoes. */
const echo = Effect.fnUntraced(function* (
  proxyProtocol: ProxyProtocol.ServerOptions | undefined,
  options?: Partial<Server.Options>
) {
  const infos: Array<Connection.ConnectionInfo> = []
  const events: Array<Server.ServerEvent> = []
  const server = yield* Server.serve(
    ({ info, reader, writer }) => {
      infos.push(info)
      return Stream.run(reader.stream, writer.sink)
    },
    { listen: { host: "10.0.0.1", port: 7000 }, proxyProtocol, ...options }
  )
  yield* Effect.forkScoped(
    Stream.runForEach(server.events, (event) => Effect.sync(() => void events.push(event))),
    { startImmediately: true }
  )
  return { server, infos, events, tags: () => events.map((_) => _._tag).join(" ") }
})

/** A client of 10.1.2.3, or of elsewhere, that is aborted at the end of the test. */
const dial = (options?: Connection.ConnectionOptions) =>
  Effect.tap(
    Connection.connect("10.0.0.1:7000", { localAddress: { host: "10.1.2.3" }, ...options }),
    (connection) => Effect.addFinalizer(() => connection.abort)
  )

const trusted = ["10.0.0.0/8"]

const errorsOf = (events: ReadonlyArray<Server.ServerEvent>) =>
  events.flatMap((event) => {
    if (event._tag !== "ProxyHeaderRejected") return []
    const { error, info } = event
    return [
      `${String(info.remoteAddress)}: ${error._tag === "ProxyProtocolError" ? error.kind : outcome(Exit.fail(error))}`
    ]
  })

const withoutPort = (address: NetAddress.SocketAddress | undefined) => String(address).replace(/:\d+$/, "")

describe("servers", () => {
  for (const version of [1, 2] as const) {
    test(`take the client's address from version ${version}, and leave what follows`, () =>
      Effect.gen(function* () {
        const { events, infos, server } = yield* echo({ trusted })
        const { reader, writer } = yield* dial()
        const header = ProxyProtocol.encode({ version, addresses: addresses4 })
        yield* writer.write(Buffer.concat([header, ascii("first")]))
        assert.strictEqual(Buffer.from(yield* reader.readExactly(5)).toString(), "first")
        const [info] = infos
        assert.strictEqual(String(info?.remoteAddress), "192.168.0.1:56324")
        assert.strictEqual(String(info?.localAddress), "192.168.0.11:443")
        assert.deepInclude(info?.proxyProtocol, { version, command: "PROXY", protocol: "stream" })
        assert.strictEqual(withoutPort(info?.proxyProtocol?.proxy), "10.1.2.3")
        const [known] = yield* server.connections
        assert.strictEqual(String(known?.remoteAddress), "192.168.0.1:56324")
        assert(events[0]?._tag === "Opened")
        assert.strictEqual(String(events[0].info.remoteAddress), "192.168.0.1:56324")
      }))
  }

  test("take a header byte by byte", () =>
    Effect.gen(function* () {
      const { infos, tags } = yield* echo({ trusted })
      const { reader, writer } = yield* dial()
      for (const byte of ProxyProtocol.encode({ addresses: addresses6, checksum: true })) {
        assert.strictEqual(tags(), "")
        yield* writer.write(Uint8Array.of(byte))
        yield* turns
      }
      yield* writer.write("x")
      yield* reader.readExactly(1)
      assert.strictEqual(String(infos[0]?.remoteAddress), "[2001:db8::1]:56324")
    }))

  test("the client's address is in the failures of its reads and writes", () =>
    Effect.gen(function* () {
      const failed = yield* Deferred.make<StreamError.TimeoutError>()
      yield* Server.serve(
        ({ reader }) =>
          Effect.tapError(reader.readExactly(1), (error) =>
            error._tag === "TimeoutError" ? Deferred.succeed(failed, error) : Effect.void
          ),
        {
          listen: { host: "10.0.0.1", port: 7000 },
          readTimeout: "1 second",
          onError: () => Effect.void,
          proxyProtocol: { trusted, timeout: "1 minute" }
        }
      )
      const { writer } = yield* dial()
      // The header has a limit of its own.
      yield* TestClock.adjust("30 seconds")
      yield* writer.write(ProxyProtocol.encode({ addresses: addresses4 }))
      yield* turns
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Deferred.await(failed)).address, "192.168.0.1:56324")
    }))

  test("a mapped address is the IPv4 one that it stands for", () =>
    Effect.gen(function* () {
      const { infos } = yield* echo({ trusted })
      const { reader, writer } = yield* dial()
      const addresses = { source: addresses4.source, destination: addresses6.destination }
      yield* writer.write(Buffer.concat([ProxyProtocol.encode({ addresses }), ascii("x")]))
      yield* reader.readExactly(1)
      assert.strictEqual(String(infos[0]?.remoteAddress), "192.168.0.1:56324")
      assert.strictEqual(String(infos[0]?.localAddress), "[2001:db8::2]:443")
    }))

  test("UNKNOWN, AF_UNSPEC and LOCAL keep the socket's own addresses; TLVs are there", () =>
    Effect.gen(function* () {
      const { infos } = yield* echo({ trusted })
      const tlvs = [{ type: 0xe0, value: ascii("blue") }]
      for (const options of [{ version: 1 }, { tlvs }, { command: "LOCAL" }] as const) {
        const { info, reader, writer } = yield* dial()
        yield* writer.write(Buffer.concat([ProxyProtocol.encode(options), ascii("x")]))
        yield* reader.readExactly(1)
        const last = infos.at(-1)
        assert.strictEqual(String(last?.remoteAddress), String(info.localAddress))
        assert.strictEqual(String(last?.localAddress), "10.0.0.1:7000")
      }
      assert.deepStrictEqual(
        infos.map(({ proxyProtocol }) => [proxyProtocol?.version, proxyProtocol?.command]),
        [
          [1, "PROXY"],
          [2, "PROXY"],
          [2, "LOCAL"]
        ]
      )
      assert.deepStrictEqual(
        infos[1]?.proxyProtocol?.tlvs.map(({ value }) => hex(value)),
        [hex(ascii("blue"))]
      )
    }))

  test("cut off who is not trusted, without reading a byte", () =>
    Effect.gen(function* () {
      const { events, infos, server, tags } = yield* echo(
        { trusted: ["10.0.0.0/16", "2001:db8::/32"] },
        { listen: { host: "::", port: 7000 } }
      )
      for (const [host, target] of [
        ["10.1.2.3", "10.0.0.1:7000"],
        ["2001:db9::1", "[2001:db8::9]:7000"]
      ] as const) {
        const { reader, writer } = yield* Connection.connect(target, { localAddress: { host } })
        yield* Effect.ignore(writer.write(ProxyProtocol.encode({ addresses: addresses4 })))
        assert.strictEqual(outcome(yield* Effect.exit(reader.read())), "ConnectionReset")
      }
      assert.deepStrictEqual(
        errorsOf(events).map((_) => _.replace(/:\d+: /, ": ")),
        ["10.1.2.3: Untrusted", "[2001:db9::1]: Untrusted"]
      )
      assert.strictEqual(tags(), "ProxyHeaderRejected ProxyHeaderRejected")
      assert.strictEqual(infos.length, 0)
      assert.strictEqual(yield* server.activeConnections, 0)
    }))

  test("or serve them as they are, and whatever they send is the handler's", () =>
    Effect.gen(function* () {
      const { infos, tags } = yield* echo({ trusted: ["10.0.0.0/16"], untrusted: "serve" })
      const { info, reader, writer } = yield* dial()
      const sent = ProxyProtocol.encode({ version: 1, addresses: addresses4 })
      yield* writer.write(sent)
      assert.strictEqual(hex(yield* reader.readExactly(sent.length)), hex(sent))
      assert.strictEqual(String(infos[0]?.remoteAddress), String(info.localAddress))
      assert.isUndefined(infos[0]?.proxyProtocol)
      assert.strictEqual(tags(), "Opened")
      // Whoever is trusted is held to a header all the same.
      const proxy = yield* dial({ localAddress: { host: "10.0.9.9" } })
      yield* proxy.writer.write("hello, this is no header")
      assert.strictEqual(outcome(yield* Effect.exit(proxy.reader.read())), "ConnectionReset")
      assert.strictEqual(tags(), "Opened ProxyHeaderRejected")
    }))

  it.effect("an IPv4 network stands for its addresses mapped into IPv6, and for no others", () =>
    Effect.gen(function* () {
      const receive = ProxyProtocol.receiver({ trusted: ["10.1.0.0/16"] })
      const outcomeFrom = (address: string) => {
        const { feed, reader } = StreamReader.feedable()
        feed(ascii("PROXY UNKNOWN\r\n"))
        return Effect.map(
          Effect.exit(receive(reader, { remoteAddress: inet(address), localAddress: inet("10.0.0.1:1") })),
          (exit) => outcome(exit)
        )
      }
      const unknown = StreamReader.feedable().reader
      const error = yield* Effect.flip(
        receive(unknown, { remoteAddress: undefined, localAddress: inet("10.0.0.1:1") })
      )
      assert.match(error.message, /^PROXY header: its sender's address is not known/)
      assert.strictEqual(yield* outcomeFrom("10.1.2.3:4"), "success")
      assert.strictEqual(yield* outcomeFrom("[::ffff:10.1.2.3]:4"), "success")
      assert.strictEqual(yield* outcomeFrom("[::ffff:10.2.2.3]:4"), "ProxyProtocolError")
      assert.strictEqual(yield* outcomeFrom("[::10.1.2.3]:4"), "ProxyProtocolError")
    })
  )

  test("trust a Unix socket if they are told so", () =>
    Effect.gen(function* () {
      for (const [path, trusted] of [
        ["/run/a.sock", ["unix"]],
        ["/run/b.sock", ["0.0.0.0/0", "::/0"]]
      ] as const) {
        const { infos, tags } = yield* echo({ trusted }, { listen: { path } })
        const addresses = { source: unix(""), destination: unix("/run/front.sock") }
        const { writer } = yield* Connection.connect({ path }, { proxyProtocol: { addresses } })
        yield* Effect.ignore(writer.write("x"))
        yield* turns
        assert.strictEqual(tags(), path === "/run/a.sock" ? "Opened" : "ProxyHeaderRejected")
        if (path === "/run/a.sock") {
          assert.deepStrictEqual(
            [String(infos[0]?.remoteAddress), String(infos[0]?.localAddress)],
            ["", "/run/front.sock"]
          )
        }
      }
    }))

  test("cut off a missing, malformed or cut header, and no handler runs", () =>
    Effect.gen(function* () {
      const { events, infos, server } = yield* echo({ trusted, maxLength: 20 })
      for (const sent of [
        "GET / HTTP/1.1\r\n\r\n",
        "PROXY TCP4 1.2.3.4\r\n",
        ProxyProtocol.encode({ addresses: addresses6 })
      ]) {
        const { reader, writer } = yield* dial()
        yield* writer.write(sent)
        assert.strictEqual(outcome(yield* Effect.exit(reader.read())), "ConnectionReset")
      }
      for (const sent of ["", "PROXY TCP4"]) {
        const { closed, writer } = yield* dial()
        yield* writer.write(sent)
        yield* writer.end
        yield* Effect.exit(closed)
      }
      const gone = yield* dial()
      yield* gone.abort
      yield* turns
      assert.deepStrictEqual(
        errorsOf(events).map((_) => _.slice(_.lastIndexOf(" ") + 1)),
        ["NotAHeader", "Malformed", "TooLong", "Truncated", "Truncated", "ConnectionReset"]
      )
      const [first] = events
      assert(first?._tag === "ProxyHeaderRejected" && first.error._tag === "ProxyProtocolError")
      assert.match(first.error.message, /^PROXY header from 10\.1\.2\.3:\d+: /)
      assert.strictEqual(infos.length, 0)
      assert.strictEqual(yield* server.activeConnections, 0)
    }))

  test("only the version that is wanted", () =>
    Effect.gen(function* () {
      const { events } = yield* echo({ trusted, version: 2 })
      const { reader, writer } = yield* dial()
      yield* writer.write("PROXY UNKNOWN\r\n")
      assert.strictEqual(outcome(yield* Effect.exit(reader.read())), "ConnectionReset")
      assert.match(errorsOf(events).join(), /WrongVersion$/)
    }))

  for (const sent of ["", "PROXY TCP4 192.168.0.1"]) {
    test(`cut off who sends ${sent === "" ? "nothing" : "half a header"} for 5 seconds, and give the slot to the next`, () =>
      Effect.gen(function* () {
        const { events, infos, server, tags } = yield* echo({ trusted }, { maxConnections: 1 })
        const silent = yield* dial()
        yield* silent.writer.write(sent)
        const next = yield* dial({ proxyProtocol: {} })
        yield* next.writer.write("x")
        yield* TestClock.adjust("4999 millis")
        assert.strictEqual(tags(), "")
        assert.strictEqual(yield* server.activeConnections, 1)
        yield* TestClock.adjust("1 millis")
        yield* next.reader.readExactly(1)
        assert.strictEqual(tags(), "ProxyHeaderRejected Opened")
        assert.match(errorsOf(events).join(), /TimeoutError proxyProtocol$/)
        assert.strictEqual(outcome(yield* Effect.exit(silent.reader.read())), "ConnectionReset")
        assert.strictEqual(String(infos[0]?.remoteAddress), String(next.info.localAddress))
      }))
  }

  test("the time limit is for the whole header, and only for that", () =>
    Effect.gen(function* () {
      const { events, tags } = yield* echo({ trusted, timeout: "1 second" })
      const slow = yield* dial()
      for (const byte of "PROXY UNKNOW") {
        yield* Effect.ignore(slow.writer.write(byte))
        yield* TestClock.adjust("100 millis")
      }
      assert.match(errorsOf(events).join(), /TimeoutError proxyProtocol$/)
      const quick = yield* dial({ proxyProtocol: {} })
      yield* turns
      yield* TestClock.adjust("1 hour")
      yield* quick.writer.write("x")
      yield* quick.reader.readExactly(1)
      assert.strictEqual(tags(), "ProxyHeaderRejected Opened")
    }))

  test("a shutdown waits for a header as it does for a handler, and cuts off who sends none", () =>
    Effect.gen(function* () {
      const { server, tags } = yield* echo({ trusted, timeout: "1 hour" })
      const silent = yield* dial()
      const late = yield* dial()
      yield* turns
      const stopping = yield* Effect.forkChild(server.shutdown({ grace: "1 minute" }), {
        startImmediately: true
      })
      yield* TestClock.adjust("30 seconds")
      yield* late.writer.write("PROXY UNKNOWN\r\nx")
      yield* late.reader.readExactly(1)
      yield* late.writer.end
      yield* late.close
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(yield* Fiber.join(stopping), { finished: 1, interrupted: 1, aborted: 0 })
      assert.strictEqual(outcome(yield* Effect.exit(silent.reader.read())), "ConnectionReset")
      assert.strictEqual(tags(), "ShuttingDown Opened Closed")
    }))

  test("say so in the log, but not of who leaves without a byte", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      lines.push(`${logLevel}: ${String(message)}`)
    })
    return Effect.gen(function* () {
      yield* echo({ trusted })
      const probe = yield* dial()
      yield* probe.writer.end
      yield* turns
      const stranger = yield* dial()
      yield* stranger.writer.write("GET / HTTP/1.1\r\n")
      yield* turns
      assert.match(
        lines[0] ?? "",
        /^Debug: connection rejected: PROXY header from 10\.1\.2\.3:\d+: a header is expected/
      )
      assert.match(
        lines[1] ?? "",
        /^Warn: connection rejected: PROXY header from 10\.1\.2\.3:\d+: the connection begins/
      )
      assert.strictEqual(lines.length, 2)
    }).pipe(
      Effect.provide(Layer.mergeAll(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel, "All")))
    )
  })

  test("options out of range are defects, and nothing listens", () =>
    Effect.gen(function* () {
      const wrong: ReadonlyArray<ProxyProtocol.ServerOptions> = [
        { trusted: ["10.0.0.0/33"] },
        { trusted: ["proxy.example"] },
        { trusted, timeout: 0 },
        { trusted, maxLength: 65_536 }
      ]
      for (const options of wrong) {
        const exit = yield* Effect.exit(echo(options))
        assert(Exit.isFailure(exit))
        assert.instanceOf(Cause.squash(exit.cause), RangeError)
      }
      assert.strictEqual(outcome(yield* Effect.exit(dial())), "ConnectionRefused")
    }))
})

describe("clients", () => {
  test("send the connection's own addresses, before anything else", () =>
    Effect.gen(function* () {
      for (const version of [1, 2] as const) {
        const { infos, server } = yield* echo({ trusted, version })
        const { info, reader, writer } = yield* dial({ proxyProtocol: { version } })
        yield* writer.write("x")
        yield* reader.readExactly(1)
        const addresses = infos[0]?.proxyProtocol?.addresses
        assert.deepStrictEqual(text(addresses), [String(info.localAddress), "10.0.0.1:7000"])
        yield* server.shutdown({ grace: 0 })
      }
    }))

  test("send what they are told", () =>
    Effect.gen(function* () {
      const { infos } = yield* echo({ trusted })
      const { reader, writer } = yield* dial({
        proxyProtocol: { addresses: addresses6, checksum: true, tlvs: [{ type: 5, value: ascii("id") }] }
      })
      yield* writer.write("x")
      yield* reader.readExactly(1)
      assert.strictEqual(String(infos[0]?.remoteAddress), "[2001:db8::1]:56324")
      assert.strictEqual(infos[0]?.proxyProtocol?.tlvs.length, 1)
    }))

  test("through a proxy, their own addresses would be wrong", () =>
    Effect.gen(function* () {
      const sent: Array<string> = []
      yield* Server.serve(
        Effect.fnUntraced(function* ({ reader, writer }) {
          yield* reader.readUntil("\r\n\r\n")
          yield* writer.write("HTTP/1.1 200 OK\r\n\r\n")
          sent.push(hex(yield* reader.readAll()))
        }),
        { listen: { host: "10.0.0.1", port: 3128 } }
      )
      const proxy = Proxy.httpConnect("10.0.0.1:3128")
      for (const proxyProtocol of [{}, { addresses: addresses4 }]) {
        const connection = yield* Connection.connect("service.test:80", { proxy, proxyProtocol })
        yield* connection.writer.end
        yield* connection.close
      }
      yield* turns
      assert.deepStrictEqual(sent, [`${SIGNATURE}21000000`, TCP4.replaceAll(" ", "")])
    }))

  test("over a Unix socket, version 1 says UNKNOWN", () =>
    Effect.gen(function* () {
      const { infos } = yield* echo({ trusted: ["unix"] }, { listen: { path: "/run/a.sock" } })
      for (const version of [1, 2] as const) {
        const { reader, writer } = yield* Connection.connect(
          { path: "/run/a.sock" },
          { proxyProtocol: { version } }
        )
        yield* writer.write("x")
        yield* reader.readExactly(1)
      }
      assert.deepStrictEqual(
        infos.map(({ proxyProtocol }) => text(proxyProtocol?.addresses)),
        [undefined, ["", "/run/a.sock"]]
      )
    }))

  test("what cannot be said is a defect, before anybody connects", () =>
    Effect.gen(function* () {
      const { server, tags } = yield* echo(undefined)
      const exit = yield* Effect.exit(dial({ proxyProtocol: { version: 1, checksum: true } }))
      assert(Exit.isFailure(exit))
      assert.instanceOf(Cause.squash(exit.cause), RangeError)
      assert.strictEqual(yield* server.activeConnections, 0)
      assert.strictEqual(tags(), "")
    }))
})
