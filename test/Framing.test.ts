import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { Connection, Framed, Framing, StreamReader } from "effect-wire"

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"))
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
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

const frames = <F>(framing: Framing.Framing<F>, ...chunks: ReadonlyArray<Uint8Array>) => {
  const { feed, feedEof, reader } = StreamReader.feedable()
  for (const chunk of chunks) feed(chunk)
  feedEof()
  return Effect.map(Stream.runCollect(Framed.receiver(reader, framing).messages), (all) => Array.from(all))
}

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
  const concat = (...parts: ReadonlyArray<Uint8Array>) => Uint8Array.from(Buffer.concat(parts))

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

describe("lengthPrefixed", () => {
  it.effect("4 GiB announced fail at once", () =>
    Effect.gen(function* () {
      const { feed, reader } = StreamReader.feedable()
      feed(hex("ff ff ff ff"))
      const { receive } = Framed.receiver(reader, Framing.lengthPrefixed({ width: 4 }))
      const error = yield* Effect.flip(receive)
      assert.deepStrictEqual(
        [error._tag, error._tag === "FrameError" && error.reason._tag],
        ["FrameError", "FrameTooLong"]
      )
    })
  )
})
