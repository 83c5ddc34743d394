import { assert, describe, it, vi } from "@effect/vitest"
import { ExtData } from "@msgpack/msgpack"
import { Effect, Result, Schema } from "effect"
import { Framed, Framing, StreamReader } from "effect-wire"
import { Msgpack } from "effect-wire/msgpack"
import fc from "fast-check"
import { hex, toHex } from "../support/framings.ts"
import { hostile, randoms } from "../support/fuzz.ts"

const encode = (message: unknown) => Result.getOrThrow(Msgpack.value.encode(message))

const withoutNegativeZero = (message: unknown): unknown => JSON.parse(JSON.stringify(message))

describe("Msgpack", () => {
  it("known answers of the specification", () => {
    // github.com/msgpack/msgpack/blob/master/spec.md
    for (const [message, wire] of [
      [{ compact: true, schema: 0 }, "82a7636f6d70616374c3a6736368656d6100"],
      [null, "c0"],
      [127, "7f"],
      [128, "cc80"],
      [-32, "e0"],
      [-33, "d0df"],
      [65_536, "ce00010000"],
      [1.5, "cb3ff8000000000000"],
      ["a", "a161"],
      [hex("01 02"), "c4020102"],
      [[1, [2]], "92019102"],
      [new Date(1000), "d6ff00000001"]
    ] as const) {
      assert.strictEqual(toHex(encode(message)), wire)
      assert.deepStrictEqual(Result.getOrThrow(Msgpack.value.decode(hex(wire))), message)
    }
  })

  it("round trips", () => {
    fc.assert(
      // The integers of MessagePack, as those of JSON, have no negative zero.
      fc.property(fc.jsonValue({ maxDepth: 4 }).map(withoutNegativeZero), (message) => {
        const hasProto = JSON.stringify(message).includes("__proto__")
        const back = Msgpack.value.decode(encode(message))
        if (!hasProto) assert.deepStrictEqual(Result.getOrThrow(back), message)
      })
    )
    for (const length of [0, 31, 32, 255, 256, 65_535, 65_536]) {
      assert.strictEqual(
        Result.getOrThrow(Msgpack.value.decode(encode("x".repeat(length)))),
        "x".repeat(length)
      )
      const list = Array.from({ length }, (_, i) => i)
      assert.deepStrictEqual(Result.getOrThrow(Msgpack.value.decode(encode(list))), list)
      const bytes = new Uint8Array(length)
      assert.deepStrictEqual(Result.getOrThrow(Msgpack.value.decode(encode(bytes))), bytes)
      const record = Object.fromEntries(list.map((i) => [`key ${i}`, i]))
      assert.deepStrictEqual(Result.getOrThrow(Msgpack.value.decode(encode(record))), record)
    }
  })

  it("bytes and text of every size of length are followed by more", () => {
    const length = fc.oneof(
      fc.constantFrom(0, 31, 32, 255, 256, 65_535, 65_536, 70_000),
      fc.integer({ min: 0, max: 300 }),
      fc.integer({ min: 0, max: 70_000 })
    )
    // Bytes that would announce much if they were taken for a header, and characters of several bytes.
    const filled = fc.oneof(
      fc
        .tuple(length, fc.constantFrom(0, 0x7f, 0xc1, 0xdd, 0xdf, 0xff))
        .map(([n, byte]) => new Uint8Array(n).fill(byte)),
      fc
        .tuple(length, fc.constantFrom("x", "é", "\u{1f600}"))
        .map(([n, text]) => text.repeat(Math.floor(n / Buffer.byteLength(text)))),
      fc
        .tuple(fc.integer({ min: -128, max: -2 }), length)
        .map(([type, n]) => new ExtData(type, new Uint8Array(n))),
      fc.date({ noInvalidDate: true })
    )
    // The package encodes -0 as the integer 0.
    const number = fc.double({ noNaN: true }).map((value) => value + 0)
    const message = fc.oneof(
      fc.array(fc.oneof(filled, fc.integer(), number), { maxLength: 20 }),
      fc.dictionary(
        fc.string({ maxLength: 40 }).filter((key) => key !== "__proto__"),
        filled,
        { maxKeys: 20 }
      ),
      fc.array(fc.array(filled, { maxLength: 3 }), { maxLength: 17 })
    )
    fc.assert(
      fc.property(message, (message) => {
        assert.deepStrictEqual(Result.getOrThrow(Msgpack.value.decode(encode(message))), message)
      }),
      { numRuns: 300 }
    )
  })

  it("a frame that announces more than it holds costs nothing", () => {
    const nested = Buffer.concat(Array.from({ length: 200 }, () => hex("dc ff ff")))
    // The same in a list, behind bytes, extensions and text of no length.
    const empty = [
      "c400",
      "c50000",
      "c600000000",
      "c70000",
      "c8000000",
      "c90000000000",
      "d900",
      "da0000",
      "db00000000"
    ]
    const hidden = empty.map((wire) => hex(`dc0065${wire.repeat(100)}${toHex(nested)}`))
    for (const frame of [
      nested,
      ...hidden,
      hex("dd ff ff ff ff"),
      hex("df ff ff ff ff"),
      hex("91"),
      hex("")
    ]) {
      const started = process.memoryUsage().heapUsed
      const result = Msgpack.value.decode(frame)
      assert.isTrue(Result.isFailure(result))
      assert.isBelow(process.memoryUsage().heapUsed - started, 16 * 1024 * 1024)
    }
  })

  it("damaged bytes are a value or invalid, and make no room for more than they are", () => {
    const valid = [
      { a: [1, 2.5, "text", null, { b: hex("00 ff") }], at: new Date(0), big: 2 ** 40 },
      [new Uint8Array(300), "x".repeat(300), [new ExtData(1, new Uint8Array(3))], { é: -1 }],
      Array.from({ length: 20 }, () => [[], {}, ""]),
      [new Uint8Array(70_000), 1]
    ].map(encode)
    const tokens =
      "00 01 7f 81 8f 91 9f a1 bf c0 c1 c400 c4ff c5ffff c6ffffffff c7ff c900000001 cb d4 d8 d900 dbffffffff"
        .concat(" dc0003 dcffff dd00000002 ddffffffff de0001 deffff dfffffffff ff")
        .split(" ")
        .map(hex)
    const next = hostile(randoms(20_231), valid, tokens)
    let room = 0
    vi.stubGlobal(
      "Array",
      new Proxy(Array, {
        construct: (target, [length]: [number]) => {
          room += length
          return new target<unknown>(length)
        }
      })
    )
    try {
      for (let run = 0; run < 20_000; run++) {
        const frame = next()
        room = 0
        const result = Msgpack.value.decode(frame)
        if (Result.isFailure(result)) assert.strictEqual(result.failure._tag, "InvalidMessage")
        assert.isAtMost(room, frame.length)
      }
    } finally {
      vi.unstubAllGlobals()
    }
  })

  it("what has no form, and more than one value, are invalid", () => {
    for (const message of [() => 1, Symbol("x"), 1n])
      assert.isTrue(Result.isFailure(Msgpack.value.encode(message)))
    for (const frame of ["c1", "0102", "81a15f"])
      assert.isTrue(Result.isFailure(Msgpack.value.decode(hex(frame))))
    assert.strictEqual(toHex(encode({ a: undefined })), "80")
  })

  it.effect("a schema checks it; what it refuses is a FrameError with the SchemaError", () =>
    Effect.gen(function* () {
      const codec = Msgpack.schema(
        Schema.Struct({
          name: Schema.String,
          payload: Schema.Uint8Array,
          note: Schema.optional(Schema.String)
        })
      )
      const framing = Framing.lengthPrefixed({ width: 2 })
      const message = { name: "a", payload: hex("00 01") }
      const frame = Result.getOrThrow(codec.encode(message))
      const { feed, reader } = StreamReader.feedable()
      feed(Uint8Array.of(0, frame.length, ...frame, 0, 1, 0xc0))
      const { receive } = Framed.receiver(reader, framing, codec)
      assert.deepStrictEqual(yield* receive, message)
      const error = yield* Effect.flip(receive)
      assert.isTrue(
        error._tag === "FrameError" &&
          error.reason._tag === "InvalidMessage" &&
          Schema.isSchemaError(error.reason.cause)
      )
    })
  )
})
