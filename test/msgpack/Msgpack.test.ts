import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { Framed, Framing, StreamReader } from "effect-wire"
import { Msgpack } from "effect-wire/msgpack"
import fc from "fast-check"
import { hex, toHex } from "../support/framings.ts"

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

  it("a frame that announces more than it holds costs nothing", () => {
    const nested = Buffer.concat(Array.from({ length: 20_000 }, () => hex("dc ff ff")))
    for (const frame of [nested, hex("dd ff ff ff ff"), hex("df ff ff ff ff"), hex("91"), hex("")]) {
      const started = process.memoryUsage().heapUsed
      const result = Msgpack.value.decode(frame)
      assert.isTrue(Result.isFailure(result))
      assert.isBelow(process.memoryUsage().heapUsed - started, 16 * 1024 * 1024)
    }
  })

  it("damaged bytes are a value or invalid", () => {
    const valid = encode({ a: [1, 2.5, "text", null, { b: hex("00 ff") }], at: new Date(0), big: 2 ** 40 })
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 30 }),
        fc.nat(valid.length - 1),
        fc.nat(255),
        (noise, at, byte) => {
          const damaged = Uint8Array.from(valid)
          damaged[at] = byte
          for (const frame of [noise, damaged, damaged.subarray(0, at)]) {
            const result = Msgpack.value.decode(frame)
            if (Result.isFailure(result)) assert.strictEqual(result.failure._tag, "InvalidMessage")
          }
        }
      ),
      { numRuns: 5000 }
    )
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
