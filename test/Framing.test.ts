import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { Connection, Framed, Framing, StreamReader } from "effect-wire"
import { concat, custom, encode, ended, hex, toHex } from "./support/framings.ts"

const latin1 = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "latin1"))

/** What a framing puts on the wire. */
const wire = <F>(framing: Framing.Framing<F>, frame: F) =>
  Effect.scoped(
    Effect.gen(function* () {
      const [left, right] = yield* Connection.pair()
      yield* Framed.sender(left.writer, framing).send(frame)
      yield* left.writer.end
      return yield* right.reader.readAll()
    })
  )

const frames = <F>(framing: Framing.Framing<F>, ...chunks: ReadonlyArray<Uint8Array>) =>
  Effect.map(Stream.runCollect(Framed.receiver(ended(chunks), framing).messages), (all) => Array.from(all))

describe("known answers", () => {
  it.effect("netstring: cr.yp.to/proto/netstrings.txt", () =>
    Effect.gen(function* () {
      const hello = hex("31 32 3a 68 65 6c 6c 6f 20 77 6f 72 6c 64 21 2c")
      assert.deepStrictEqual(yield* wire(Framing.netstring(), latin1("hello world!")), hello)
      assert.deepStrictEqual(yield* wire(Framing.netstring(), latin1("")), latin1("0:,"))
      assert.deepStrictEqual(
        (yield* frames(Framing.netstring(), hello, latin1("0:,"))).map(toHex),
        [latin1("hello world!"), latin1("")].map(toHex)
      )
    })
  )

  it.effect("protobuf varint: 150 is 96 01", () =>
    Effect.gen(function* () {
      const framing = Framing.lengthPrefixed({ width: "varint" })
      const frame = new Uint8Array(150).fill(7)
      const sent = yield* wire(framing, frame)
      assert.deepStrictEqual(toHex(sent.subarray(0, 2)), "9601")
      assert.deepStrictEqual((yield* frames(framing, sent)).map(toHex), [toHex(frame)])
    })
  )

  const range = (from: number, to: number) => Uint8Array.from({ length: to - from + 1 }, (_, i) => from + i)

  const cobs: ReadonlyArray<readonly [string, Uint8Array, Uint8Array]> = [
    ["nothing", hex(""), hex("01 00")],
    ["a zero", hex("00"), hex("01 01 00")],
    ["two zeros", hex("00 00"), hex("01 01 01 00")],
    ["a zero in the middle", hex("00 11 00"), hex("01 02 11 01 00")],
    ["a zero in between", hex("11 22 00 33"), hex("03 11 22 02 33 00")],
    ["no zero", hex("11 22 33 44"), hex("05 11 22 33 44 00")],
    ["zeros at the end", hex("11 00 00 00"), hex("02 11 01 01 01 00")],
    ["254 without a zero", range(1, 254), concat(hex("ff"), range(1, 254), hex("00"))],
    ["a zero and 254", range(0, 254), concat(hex("01 ff"), range(1, 254), hex("00"))],
    ["255 without a zero", range(1, 255), concat(hex("ff"), range(1, 254), hex("02 ff 00"))],
    ["254 and a zero", concat(range(2, 255), hex("00")), concat(hex("ff"), range(2, 255), hex("01 01 00"))],
    [
      "253, a zero and one",
      concat(range(3, 255), hex("00 01")),
      concat(hex("fe"), range(3, 255), hex("02 01 00"))
    ],
    [
      "the beginning of a packet, from the paper",
      hex("45 00 00 2c 4c 79 00 00 40 06 4f 37"),
      hex("02 45 01 04 2c 4c 79 01 05 40 06 4f 37 00")
    ]
  ]

  for (const [name, decoded, encoded] of cobs) {
    it.effect(`COBS: ${name}`, () =>
      Effect.gen(function* () {
        assert.strictEqual(toHex(yield* wire(Framing.cobs(), decoded)), toHex(encoded))
        assert.deepStrictEqual((yield* frames(Framing.cobs(), encoded)).map(toHex), [toHex(decoded)])
      })
    )
  }

  it.effect("SLIP: RFC 1055", () =>
    Effect.gen(function* () {
      const sent = yield* wire(Framing.slip(), hex("01 c0 02 db 03 dc dd"))
      assert.strictEqual(toHex(sent), toHex(hex("c0 01 db dc 02 db dd 03 dc dd c0")))
      assert.deepStrictEqual((yield* frames(Framing.slip(), sent)).map(toHex), ["01c002db03dcdd"])
    })
  )
})

const reasonOf = <F>(framing: Framing.Framing<F>, ...chunks: ReadonlyArray<Uint8Array>) =>
  Effect.map(Effect.flip(Framed.receiver(ended(chunks), framing).receive), (error) =>
    error._tag === "FrameError" ? error.reason._tag : error._tag
  )

const texts = (framing: Framing.Framing, text: string) =>
  Effect.map(frames(framing, latin1(text)), (all) =>
    all.map((frame) => Buffer.from(frame).toString("latin1"))
  )

const refusal = <F>(framing: Framing.Framing<F>, frame: F): string => {
  const encoded = encode(framing, frame)
  return encoded instanceof Error ? encoded._tag : toHex(encoded)
}

describe("lines", () => {
  it.effect("what ends a line, and what belongs to it", () =>
    Effect.gen(function* () {
      const input = "a\r\nb\nc\rd\r\n\re"
      assert.deepStrictEqual(yield* texts(Framing.lines(), input), ["a", "b", "c\rd", "\re"])
      assert.deepStrictEqual(yield* texts(Framing.lines({ ending: "\n" }), input), [
        "a\r",
        "b",
        "c\rd\r",
        "\re"
      ])
      assert.deepStrictEqual(yield* texts(Framing.lines({ ending: "\r\n" }), input), ["a", "b\nc\rd", "\re"])
    })
  )

  it.effect("strict: a stray end of line, and an unterminated line, are errors", () =>
    Effect.gen(function* () {
      const strict = (ending: "\n" | "\r\n" | "either") => Framing.lines({ ending, strict: true })
      for (const [ending, text, expected] of [
        ["\r\n", "a\n", "MalformedFrame"],
        ["\r\n", "a\rb\r\n", "MalformedFrame"],
        ["\r\n", "\n", "MalformedFrame"],
        ["\r\n", "a\r", "IncompleteReadError"],
        ["\r\n", "a", "IncompleteReadError"],
        ["\n", "a\r\n", "MalformedFrame"],
        ["\n", "a", "IncompleteReadError"],
        ["either", "a\rb\n", "MalformedFrame"],
        ["either", "a\r\r\n", "MalformedFrame"]
      ] as const) {
        assert.strictEqual(
          yield* reasonOf(strict(ending), latin1(text)),
          expected,
          JSON.stringify([ending, text])
        )
      }
      assert.deepStrictEqual(yield* texts(strict("\r\n"), "a\r\n\r\n"), ["a", ""])
      assert.deepStrictEqual(yield* texts(strict("either"), "a\r\nb\n"), ["a", "b"])
    })
  )

  it.effect("the limit counts the line without its end, whatever is there of it", () =>
    Effect.gen(function* () {
      for (const ending of ["\n", "\r\n", "either"] as const) {
        const framing = Framing.lines({ ending, maxLength: 3 })
        const end = ending === "either" ? "\r\n" : ending
        assert.deepStrictEqual(yield* texts(framing, `abc${end}def${end}ghi`), ["abc", "def", "ghi"])
        assert.strictEqual(yield* reasonOf(framing, latin1(`abcd${end}`)), "FrameTooLong")
        assert.strictEqual(yield* reasonOf(framing, latin1("abcd")), "FrameTooLong")
        assert.strictEqual(yield* reasonOf(framing, latin1("abcdef")), "FrameTooLong")
      }
      assert.strictEqual(yield* reasonOf(Framing.lines(), latin1("x".repeat(65_537))), "FrameTooLong")
      for (const ending of ["\r\n", "either"] as const) {
        const strict = Framing.lines({ ending, strict: true, maxLength: 3 })
        assert.strictEqual(yield* reasonOf(strict, latin1("abc\r")), "IncompleteReadError")
        assert.strictEqual(yield* reasonOf(strict, latin1("abcd")), "FrameTooLong")
        assert.strictEqual(yield* reasonOf(strict, latin1("abcd\r")), "FrameTooLong")
      }
    })
  )

  it("a line with an end in it is not sent", () => {
    const send = (line: string, options: Framing.LinesOptions) =>
      refusal(Framing.lines(options), latin1(line))
    for (const ending of ["\n", "\r\n", "either"] as const) {
      for (const strict of [true, false])
        assert.strictEqual(send("a\r\nb", { ending, strict }), "MalformedFrame")
    }
    assert.strictEqual(send("a\r", {}), "MalformedFrame")
    assert.strictEqual(send("a\rb", {}), toHex(latin1("a\rb\n")))
    assert.strictEqual(send("a\r", { ending: "\n" }), toHex(latin1("a\r\n")))
    assert.strictEqual(send("a\nb", { ending: "\r\n" }), toHex(latin1("a\nb\r\n")))
    assert.strictEqual(send("a\r", { ending: "\n", strict: true }), "MalformedFrame")
    assert.strictEqual(send("a\n", { ending: "\r\n", strict: true }), "MalformedFrame")
    assert.strictEqual(send("abcd", { maxLength: 3 }), "FrameTooLong")
  })
})

describe("delimited", () => {
  it("a frame that would be cut too early is not sent", () => {
    assert.strictEqual(refusal(Framing.delimited("aa"), latin1("xa")), "MalformedFrame")
    assert.strictEqual(refusal(Framing.delimited("aa"), latin1("xaax")), "MalformedFrame")
    assert.strictEqual(refusal(Framing.delimited("aa"), latin1("ax")), toHex(latin1("axaa")))
    assert.strictEqual(refusal(Framing.delimited(["ab", "xa"]), latin1("x")), "MalformedFrame")
  })

  it.effect(
    "of separators that end together the longest ends the frame, in whatever order they are given",
    () =>
      Effect.gen(function* () {
        for (const separators of [
          ["\r\n", "\n"],
          ["\n", "\r\n"]
        ]) {
          const framing = Framing.delimited(separators, { maxLength: 3 })
          assert.deepStrictEqual(yield* texts(framing, "abc\r\nb\n\r\n\n"), ["abc", "b", "", ""])
          assert.strictEqual(yield* reasonOf(framing, latin1("abcd\r\n")), "FrameTooLong")
          // However it is cut.
          const whole = latin1("abc\r\nb\n")
          const pieces = Array.from(whole, (byte) => Uint8Array.of(byte))
          assert.deepStrictEqual((yield* frames(framing, ...pieces)).map(toHex), ["616263", "62"])
        }
      })
  )

  it.effect("what is sent arrives, whatever the separators", () =>
    Effect.gen(function* () {
      assert.strictEqual(refusal(Framing.delimited(["\r\n", "\n"]), latin1("x")), toHex(latin1("x\r\n")))
      assert.strictEqual(refusal(Framing.delimited(["\n", "\r\n"]), latin1("x")), toHex(latin1("x\n")))
      // It would be taken for a part of the separator.
      assert.strictEqual(refusal(Framing.delimited(["\n", "\r\n"]), latin1("x\r")), "MalformedFrame")
      const separators = ["a", "b", "ab", "ba", "aab", "bb", "abab"]
      const all = ["", "a", "b", "c", "ac", "ca", "cb", "bc", "cab", "aca", "cc", "caa"]
      for (const first of separators) {
        for (const second of separators) {
          let framing: Framing.Framing
          try {
            framing = Framing.delimited([first, second])
          } catch {
            continue
          }
          for (const text of all) {
            const sent = encode(framing, latin1(text))
            if (sent instanceof Error) continue
            assert.deepStrictEqual(yield* frames(framing, sent, sent), [latin1(text), latin1(text)])
          }
        }
      }
    })
  )

  it("a first separator that would be cut itself is refused", () => {
    assert.throws(() => Framing.delimited(["\n\r", "\n"]), RangeError)
    assert.throws(() => Framing.delimited(["xaab", "aa", "b"]), RangeError)
    Framing.delimited(["\n", "\n\r", "\n"])
  })

  it.effect("has no unterminated frame", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* reasonOf(Framing.delimited(";"), latin1("abc")), "IncompleteReadError")
    })
  )
})

describe("lengthPrefixed", () => {
  // What the documentation of Netty's LengthFieldBasedFrameDecoder shows, with its numbers.
  const hello = latin1("HELLO, WORLD")
  const cases: ReadonlyArray<readonly [string, Framing.LengthPrefixedOptions, string, string]> = [
    ["a length, stripped", { width: 2 }, "000c", ""],
    ["a length that is kept", { width: 2, skip: 0 }, "000c", "000c"],
    ["a length of the whole message", { width: 2, adjustment: -2, skip: 0 }, "000e", "000e"],
    ["the same, in other words", { width: 2, includesLength: true, skip: 0 }, "000e", "000e"],
    ["a header before the length", { width: 3, offset: 2, skip: 0 }, "cafe00000c", "cafe00000c"],
    ["a header after the length", { width: 3, adjustment: 2, skip: 0 }, "00000ccafe", "00000ccafe"],
    ["a header around the length", { width: 2, offset: 1, adjustment: 1, skip: 3 }, "ca000cfe", "fe"],
    [
      "a header around the length of the whole message",
      { width: 2, offset: 1, adjustment: -3, skip: 3 },
      "ca0010fe",
      "fe"
    ],
    ["little-endian", { width: 4, endian: "little" }, "0c000000", ""],
    ["eight bytes", { width: 8, endian: "little" }, "0c00000000000000", ""],
    ["a varint that is kept", { width: "varint", offset: 1, skip: 0 }, "ca0c", "ca0c"],
    ["a varint with a header behind", { width: "varint", adjustment: 1 }, "0cfe", "fe"]
  ]
  for (const [name, options, header, kept] of cases) {
    it.effect(name, () =>
      Effect.gen(function* () {
        const framing = Framing.lengthPrefixed(options)
        const wire = concat(hex(header), hello)
        const frame = concat(hex(kept), hello)
        assert.deepStrictEqual((yield* frames(framing, wire, wire)).map(toHex), [toHex(frame), toHex(frame)])
        // What is skipped on receipt is not known when sending, and zero.
        const sent = encode(framing, frame)
        if (sent instanceof Error) throw sent
        assert.deepStrictEqual((yield* frames(framing, sent)).map(toHex), [toHex(frame)])
        assert.strictEqual(sent.length, wire.length)
      })
    )
  }

  it("the length in a frame's own header is filled in, a varint there is checked", () => {
    const framing = Framing.lengthPrefixed({ width: 2, offset: 1, adjustment: 1, skip: 0 })
    assert.strictEqual(refusal(framing, hex("07 ff ff 2a 68 69")), "0700022a6869")
    assert.strictEqual(refusal(framing, hex("07 ff")), "MalformedFrame")
    const varint = Framing.lengthPrefixed({ width: "varint", skip: 0 })
    assert.strictEqual(refusal(varint, hex("02 68 69")), "026869")
    assert.strictEqual(refusal(varint, hex("03 68 69")), "MalformedFrame")
    assert.strictEqual(refusal(varint, hex("")), "MalformedFrame")
    assert.strictEqual(
      refusal(Framing.lengthPrefixed({ width: "varint", adjustment: 2 }), hex("01")),
      "MalformedFrame"
    )
  })

  it("a frame that does not fit its prefix is not sent", () => {
    assert.strictEqual(refusal(Framing.lengthPrefixed({ width: 1 }), new Uint8Array(256)), "FrameTooLong")
    assert.strictEqual(refusal(Framing.lengthPrefixed({ width: 2 }), new Uint8Array(65_536)), "FrameTooLong")
    assert.strictEqual(
      refusal(Framing.lengthPrefixed({ width: 1, includesLength: true }), new Uint8Array(255)),
      "FrameTooLong"
    )
  })

  it.effect("what a header must not say", () =>
    Effect.gen(function* () {
      const includes = Framing.lengthPrefixed({ width: 2, includesLength: true })
      assert.strictEqual(yield* reasonOf(includes, hex("00 01 00")), "MalformedFrame")
      const skips = Framing.lengthPrefixed({ width: 1, skip: 4 })
      assert.strictEqual(yield* reasonOf(skips, hex("02 00 00")), "MalformedFrame")
      const varint = Framing.lengthPrefixed({ width: "varint" })
      assert.strictEqual(yield* reasonOf(varint, hex("80 80 80 80 80 80 80 80 80 80")), "MalformedFrame")
      assert.strictEqual(yield* reasonOf(varint, hex("80 80 80 80 80 80 80 80 80 02")), "MalformedFrame")
      // Longer than need be, but 1.
      assert.deepStrictEqual((yield* frames(varint, hex("81 80 00 2a"))).map(toHex), ["2a"])
    })
  )

  it("options that make no sense", () => {
    const wrong: ReadonlyArray<Framing.LengthPrefixedOptions> = [
      { width: 2, offset: -1 },
      { width: 2, skip: 0.5 },
      { width: 2, adjustment: NaN },
      { width: 2, maxLength: 0 },
      { width: "varint", includesLength: true },
      { width: "varint", skip: 1 }
    ]
    for (const options of wrong) assert.throws(() => Framing.lengthPrefixed(options), RangeError)
    // @ts-expect-error: five is not a width
    assert.throws(() => Framing.lengthPrefixed({ width: 5 }), RangeError)
    assert.throws(() => Framing.fixedLength(0), RangeError)
    assert.throws(() => Framing.delimited(""), RangeError)
    assert.throws(() => Framing.lines({ maxLength: 1.5 }), RangeError)
  })
})

describe("netstring", () => {
  it.effect("what is none", () =>
    Effect.gen(function* () {
      for (const text of ["x", ":", "-1:,", "01:a,", "00:,", "3:abc;", "3:abcd,", " 3:abc,", "3 :abc,"]) {
        assert.strictEqual(yield* reasonOf(Framing.netstring(), latin1(text)), "MalformedFrame", text)
      }
      for (const text of ["999999999", "8388609:", "99999999999999999999999999"]) {
        assert.strictEqual(yield* reasonOf(Framing.netstring(), latin1(text)), "FrameTooLong", text)
      }
      for (const text of ["3", "3:", "3:abc"]) {
        assert.strictEqual(yield* reasonOf(Framing.netstring(), latin1(text)), "IncompleteReadError", text)
      }
    })
  )
})

describe("cobs and slip", () => {
  it.effect("noise and empty frames in between are dropped; damage is one failure", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual((yield* frames(Framing.cobs(), hex("00 00 02 11 00 00 01 00"))).map(toHex), [
        "11",
        ""
      ])
      assert.deepStrictEqual((yield* frames(Framing.slip(), hex("c0 c0 11 c0 c0"))).map(toHex), ["11"])
      for (const [framing, damaged, rest] of [
        [Framing.cobs(), hex("05 11 22 00"), hex("02 33 00")],
        [Framing.slip(), hex("11 db 22 c0"), hex("33 c0")],
        [Framing.slip(), hex("11 db c0"), hex("33 c0")]
      ] as const) {
        const { receive } = Framed.receiver(ended([damaged, rest]), framing)
        const error = yield* Effect.flip(receive)
        assert.isTrue(error._tag === "FrameError" && error.reason._tag === "MalformedFrame")
        assert.strictEqual(toHex(yield* receive), "33")
      }
      assert.strictEqual(refusal(Framing.slip(), hex("")), "MalformedFrame")
    })
  )

  it.effect("another encoder's COBS, with an empty block at the end, is understood", () =>
    Effect.gen(function* () {
      const block = Uint8Array.from({ length: 254 }, (_, i) => i + 1)
      const wire = concat(hex("ff"), block, hex("01 00"))
      assert.deepStrictEqual((yield* frames(Framing.cobs({ maxLength: 254 }), wire)).map(toHex), [
        toHex(block)
      ])
    })
  )
})

describe("whole", () => {
  it.effect("is everything, or nothing", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* texts(Framing.whole(), "a\nb"), ["a\nb"])
      assert.deepStrictEqual(yield* texts(Framing.whole(), ""), [])
      assert.strictEqual(yield* reasonOf(Framing.whole({ maxLength: 2 }), latin1("abc")), "FrameTooLong")
    })
  )
})

describe("the limit, to the byte", () => {
  const limited: Record<string, (maxLength: number) => Framing.Framing> = {
    lines: (maxLength) => Framing.lines({ maxLength }),
    "lines \\r\\n": (maxLength) => Framing.lines({ maxLength, ending: "\r\n" }),
    delimited: (maxLength) => Framing.delimited("::", { maxLength }),
    lengthPrefixed: (maxLength) => Framing.lengthPrefixed({ width: 2, maxLength }),
    "lengthPrefixed varint": (maxLength) => Framing.lengthPrefixed({ width: "varint", maxLength }),
    "lengthPrefixed with its header": (maxLength) => Framing.lengthPrefixed({ width: 2, skip: 0, maxLength }),
    netstring: (maxLength) => Framing.netstring({ maxLength }),
    cobs: (maxLength) => Framing.cobs({ maxLength }),
    slip: (maxLength) => Framing.slip({ maxLength }),
    whole: (maxLength) => Framing.whole({ maxLength })
  }
  for (const [name, make] of Object.entries(limited)) {
    it.effect(name, () =>
      Effect.gen(function* () {
        const frame = new Uint8Array(300).fill(0x61)
        frame.set([1, 42])
        const wire = encode(make(300), frame)
        if (wire instanceof Error) throw wire
        assert.strictEqual((yield* frames(make(300), wire))[0]?.length, 300)
        assert.strictEqual(yield* reasonOf(make(299), wire), "FrameTooLong")
        assert.strictEqual(refusal(make(299), frame), "FrameTooLong")
      })
    )
  }
})

// A frame in many pieces costs no more than its bytes.
describe("a frame in pieces of one byte", () => {
  const length = 60_000
  const framings = {
    lines: Framing.lines(),
    cobs: Framing.cobs(),
    slip: Framing.slip(),
    netstring: Framing.netstring(),
    lengthPrefixed: Framing.lengthPrefixed({ width: 4 }),
    custom: custom(length)
  }
  for (const [name, framing] of Object.entries(framings)) {
    it.effect(name, () =>
      Effect.gen(function* () {
        const { feed, reader } = StreamReader.feedable()
        const receiving = yield* Effect.forkChild(Framed.receiver(reader, framing).receive, {
          startImmediately: true
        })
        const frame = new Uint8Array(length).fill(0x61)
        const wire = encode(framing, frame)
        if (wire instanceof Error) throw wire
        for (let at = 0; at < wire.length; at++) feed(wire.subarray(at, at + 1))
        assert.strictEqual((yield* Fiber.join(receiving)).length, length)
      })
    )
  }
})

// What, where, and what was expected.
describe("messages of errors", () => {
  const received = (framing: Framing.Framing, ...chunks: ReadonlyArray<Uint8Array>) =>
    Effect.map(Effect.flip(Framed.receiver(ended(chunks), framing).receive), ({ message }) => message)

  const cases: ReadonlyArray<readonly [Framing.Framing, string, string]> = [
    [
      Framing.lines({ ending: "\r\n", strict: true }),
      "ab\n",
      'receive at byte 2: malformed frame: a line that ends in a bare "\\n", and not in "\\r\\n" (near "ab\\x0a")'
    ],
    [
      Framing.lines({ strict: true }),
      "a\rb\n",
      'receive at byte 1: malformed frame: a bare "\\r" within a line (near "a\\x0db\\x0a")'
    ],
    [
      Framing.lines({ maxLength: 3 }),
      "abcd\n",
      `receive at byte 0: a frame of 4 bytes, the limit is 3 bytes; raise it with the framing's maxLength (near "abcd\\x0a")`
    ],
    [
      Framing.delimited(";", { maxLength: 3 }),
      "abcde",
      `receive at byte 0: a frame of 5 bytes or more, the limit is 3 bytes; raise it with the framing's maxLength (near "abcde")`
    ],
    [
      Framing.lengthPrefixed({ width: 1, includesLength: true }),
      "\0",
      'receive at byte 0: malformed frame: a length of 0, which is at least 1 where it counts the header (near "\\x00")'
    ],
    [
      Framing.lengthPrefixed({ width: "varint", adjustment: -2 }),
      "\x01",
      'receive at byte 0: malformed frame: a length of 1, which is at least 2 where it counts the header (near "\\x01")'
    ],
    [
      Framing.netstring(),
      "3:abc;",
      'receive at byte 5: malformed frame: a netstring of 3 bytes with ";" behind it, not a comma (near "3:abc;")'
    ],
    [
      Framing.netstring(),
      "3\n",
      `receive at byte 1: malformed frame: a netstring's length must be decimal digits and a colon, found 0x0a (near "3\\x0a")`
    ],
    [
      Framing.netstring(),
      "03:abc,",
      `receive at byte 1: malformed frame: a netstring's length has a leading zero, before "3" (near "03:abc,")`
    ],
    [
      Framing.cobs(),
      "\x05ab\0",
      'receive at byte 0: malformed frame: a COBS block of 5 bytes, of which 3 came before the zero (near "\\x05ab\\x00")'
    ],
    [
      Framing.slip(),
      "a\xdbb\xc0",
      'receive at byte 1: malformed frame: 0xdb before 0x62, and not before 0xdc or 0xdd (near "a\\xdbb\\xc0")'
    ],
    [
      Framing.slip(),
      "a\xdb\xc0",
      'receive at byte 1: malformed frame: 0xdb before the end of the frame, and not before 0xdc or 0xdd (near "a\\xdb\\xc0")'
    ]
  ]
  for (const [framing, input, message] of cases) {
    it.effect(`received: ${framing.name} ${JSON.stringify(input)}`, () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* received(framing, latin1(input)), message)
      })
    )
  }

  const sent: ReadonlyArray<readonly [Framing.Framing, Uint8Array, string]> = [
    [
      Framing.lines(),
      latin1("a\nb"),
      "at byte 1 of the frame: malformed frame: a line must not contain an end of line"
    ],
    [
      Framing.lengthPrefixed({ width: 1, includesLength: true }),
      new Uint8Array(255),
      "a frame of 255 bytes, with a prefix of 1 byte it can have 254; choose a wider one"
    ],
    [
      Framing.lengthPrefixed({ width: 2, skip: 0, offset: 1 }),
      new Uint8Array(2),
      "malformed frame: a frame of 2 bytes, of which the header takes 3"
    ],
    [
      Framing.lengthPrefixed({ width: "varint", skip: 0 }),
      hex("03 68 69"),
      "at byte 0 of the frame: malformed frame: a frame of 3 bytes whose own varint makes it 4"
    ],
    [Framing.fixedLength(2), new Uint8Array(3), "malformed frame: a frame of 3 bytes, all have 2"],
    [
      Framing.netstring({ maxLength: 2 }),
      new Uint8Array(3),
      "a frame of 3 bytes, the limit is 2 bytes; raise it with the framing's maxLength"
    ]
  ]
  for (const [framing, frame, message] of sent) {
    it.effect(`sent: ${message}`, () =>
      Effect.gen(function* () {
        const [left] = yield* Connection.pair()
        const error = yield* Effect.flip(Framed.sender(left.writer, framing).send(frame))
        assert.strictEqual(error.message, `send${message.startsWith("at") ? " " : ": "}${message}`)
        yield* left.abort
      })
    )
  }

  it.effect("an end of input within a frame says how much was expected, where that is known", () =>
    Effect.gen(function* () {
      const expected = (framing: Framing.Framing, input: Uint8Array) =>
        Effect.map(Effect.flip(Framed.receiver(ended([input]), framing).receive), (error) =>
          error._tag === "IncompleteReadError" ? error.expected : error
        )
      const varint = Framing.lengthPrefixed({ width: "varint", offset: 1, adjustment: 2 })
      assert.strictEqual(yield* expected(varint, hex("00 96 01 07")), 155)
      assert.strictEqual(yield* expected(varint, hex("00 96")), undefined)
      assert.strictEqual(yield* expected(Framing.netstring(), latin1("12:hello")), 16)
      assert.strictEqual(yield* expected(Framing.netstring(), latin1("12")), undefined)
      assert.strictEqual(yield* expected(Framing.lengthPrefixed({ width: 2 }), hex("00")), 2)
      assert.strictEqual(yield* expected(Framing.fixedLength(5), hex("00")), 5)
    })
  )
})
