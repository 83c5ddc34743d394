import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema, SchemaGetter } from "effect"
import { Codec, FrameError } from "effect-wire"
import fc from "fast-check"
import { concat, hex, toHex } from "./support/framings.ts"
import { bytes, text } from "./support/reader.ts"

const failureOf = <A>(result: Result.Result<A, FrameError.InvalidMessage>): FrameError.InvalidMessage => {
  if (Result.isSuccess(result)) throw new Error("expected a failure")
  return result.failure
}

const roundTrip = <A>(codec: Codec.Codec<A>, message: A): A =>
  Result.getOrThrow(codec.decode(Result.getOrThrow(codec.encode(message))))

describe("string", () => {
  it("known answers", () => {
    const wire = (encoding: Parameters<typeof Codec.string>[0], message: string) =>
      toHex(Result.getOrThrow(Codec.string(encoding).encode(message)))
    assert.strictEqual(wire("utf-8", "é€😀"), "c3a9e282acf09f9880")
    assert.strictEqual(wire("utf-16le", "é€😀"), "e900ac203dd800de")
    assert.strictEqual(wire("latin1", "é"), "e9")
    assert.strictEqual(wire("ascii", "e"), "65")
  })

  it("what the encoding does not have is invalid, both ways", () => {
    for (const [encoding, frame, message] of [
      ["utf-8", "c3", "\ud800"],
      ["utf-8", "ff", "a\udc00"],
      ["utf-16le", "e9", "\ud800"],
      ["utf-16le", "00d8", "\udc00"],
      ["latin1", undefined, "€"],
      ["ascii", "80", "é"]
    ] as const) {
      const codec = Codec.string(encoding)
      if (frame !== undefined) assert.match(failureOf(codec.decode(hex(frame))).message, new RegExp(encoding))
      assert.match(failureOf(codec.encode(message)).message, new RegExp(encoding))
    }
  })

  it("says what is wrong, and where", () => {
    for (const [encoding, frame, detail] of [
      ["utf-8", "61 ff 62", "byte 1 is 0xff"],
      ["utf-8", "c3 a9 e2 82", "byte 2 is 0xe2"],
      // A replacement character that was sent is none.
      ["utf-8", "ef bf bd 61 ef bf bd 80", "byte 7 is 0x80"],
      ["utf-8", "c3 a9 ed a0 80", "byte 2 is 0xed"],
      ["utf-16le", "61", "an odd number of bytes, 1"],
      ["utf-16le", "61 00 00 d8", "half of a surrogate pair, 0xd800, at byte 2"],
      ["utf-16le", "3d d8 00 de 00 dc", "half of a surrogate pair, 0xdc00, at byte 4"],
      ["ascii", "61 62 e9", "byte 2 is 0xe9"]
    ] as const) {
      const { detail: found } = failureOf(Codec.string(encoding).decode(hex(frame)))
      assert.strictEqual(found, `not ${encoding}: ${detail}`)
    }
    for (const [encoding, message, detail] of [
      ["utf-8", "a😀\ud800", "U+D800, which is character 3 of the text"],
      ["utf-16le", "\udc00", "U+DC00, which is character 0 of the text"],
      ["latin1", "é€", "U+20AC, which is character 1 of the text"],
      ["ascii", "a😀", "U+1F600, which is character 1 of the text"]
    ] as const) {
      const { detail: found } = failureOf(Codec.string(encoding).encode(message))
      assert.strictEqual(found, `${encoding} has no ${detail}`)
    }
    assert.strictEqual(failureOf(Codec.json.decode(hex("22 ff 22"))).detail, "not utf-8: byte 1 is 0xff")
  })

  it("round trips; a byte order mark is kept", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 50 }), (message) => {
        for (const encoding of ["utf-8", "utf-16le"] as const) {
          assert.strictEqual(roundTrip(Codec.string(encoding), `\ufeff${message}`), `\ufeff${message}`)
        }
      })
    )
    const all = String.fromCharCode(...Array.from({ length: 256 }, (_, i) => i)).repeat(40)
    assert.strictEqual(roundTrip(Codec.string("latin1"), all), all)
  })
})

describe("mapOrFail", () => {
  it("refuses in both directions, and passes on what the codec below refuses", () => {
    const even = (n: number) =>
      n % 2 === 0
        ? Result.succeed(n)
        : Result.fail(new FrameError.InvalidMessage({ detail: `${n} is not even` }))
    const codec = Codec.mapOrFail(Codec.string("ascii"), {
      decode: (message) => even(Number(message)),
      encode: (n) => Result.map(even(n), (_) => (_ === 0 ? "é" : String(_)))
    })
    assert.strictEqual(roundTrip(codec, 4), 4)
    assert.strictEqual(failureOf(codec.decode(bytes("3"))).detail, "3 is not even")
    assert.strictEqual(failureOf(codec.encode(3)).detail, "3 is not even")
    assert.match(failureOf(codec.decode(bytes("é"))).detail, /^not ascii/)
    assert.match(failureOf(codec.encode(0)).detail, /^ascii has no/)
    assert.strictEqual(
      failureOf(
        Codec.mapOrFail({ decode: even, encode: even })(
          Codec.map(codec, { decode: (_) => _ + 1, encode: (_: number) => _ })
        ).decode(bytes("4"))
      ).detail,
      "5 is not even"
    )
  })
})

describe("json", () => {
  it("is any JSON", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 3 }), (message) => {
        // JSON has no negative zero.
        const plain: unknown = JSON.parse(JSON.stringify(message))
        assert.deepStrictEqual(roundTrip(Codec.json, plain), plain)
      })
    )
  })

  it("the cause of a failure is what the parser threw", () => {
    assert.instanceOf(failureOf(Codec.json.decode(bytes("{"))).cause, SyntaxError)
    assert.match(failureOf(Codec.json.decode(hex("22 ff 22"))).message, /not utf-8/)
    assert.match(failureOf(Codec.json.encode(undefined)).message, /undefined has no form in JSON/)
    const circular: Record<string, unknown> = {}
    circular["self"] = circular
    assert.instanceOf(failureOf(Codec.json.encode(circular)).cause, TypeError)
    assert.instanceOf(failureOf(Codec.json.encode(1n)).cause, TypeError)
  })
})

const Event = Schema.Struct({
  name: Schema.String,
  at: Schema.Date,
  tags: Schema.Array(Schema.String),
  payload: Schema.Uint8Array,
  seen: Schema.ReadonlyMap(Schema.String, Schema.Number),
  note: Schema.optional(Schema.String)
})

const event: typeof Event.Type = {
  name: "started",
  at: new Date(0),
  tags: ["a", "b"],
  payload: hex("00 01"),
  seen: new Map([["x", 1]])
}

describe("schema", () => {
  it("carries what JSON has no form for", () => {
    assert.deepStrictEqual(roundTrip(Codec.schema(Event), event), event)
  })

  it("the cause of a failure is the SchemaError, both ways", () => {
    const codec = Codec.schema(Schema.Struct({ age: Schema.Int }))
    const decoding = failureOf(codec.decode(bytes('{"age":1.5}')))
    assert.isTrue(Schema.isSchemaError(decoding.cause))
    assert.match(decoding.message, /age/)
    assert.isTrue(Schema.isSchemaError(failureOf(codec.encode({ age: 1.5 })).cause))
    assert.instanceOf(failureOf(codec.decode(bytes("{"))).cause, SyntaxError)
  })

  it("an asynchronous one is a defect", () => {
    const slow = Schema.String.pipe(
      Schema.decode({
        decode: SchemaGetter.transformEffect((text: string) => Effect.promise(() => Promise.resolve(text))),
        encode: SchemaGetter.passthrough()
      })
    )
    assert.throws(() => Codec.schema(slow).decode(bytes('"x"')))
  })
})

describe("schemaBinary", () => {
  it("carries the same in fewer bytes", () => {
    const binary = Codec.schemaBinary(Event)
    assert.deepStrictEqual(roundTrip(binary, event), event)
    assert.deepStrictEqual(roundTrip(Codec.schemaBinary(Event, { fingerprint: true }), event), event)
    const size = (codec: Codec.Codec<typeof Event.Type>) => Result.getOrThrow(codec.encode(event)).length
    assert.isBelow(size(binary), size(Codec.schema(Event)))
  })

  it("frames that were encoded before are not changed by later ones", () => {
    const codec = Codec.schemaBinary(Schema.String)
    const frames = Array.from({ length: 1000 }, (_, i) => Result.getOrThrow(codec.encode(`message ${i}`)))
    assert.deepStrictEqual(
      frames.map((frame) => Result.getOrThrow(codec.decode(frame))),
      frames.map((_, i) => `message ${i}`)
    )
  })

  it("damaged frames are invalid, with the SchemaError", () => {
    const codec = Codec.schemaBinary(Event)
    const frame = Result.getOrThrow(codec.encode(event))
    const error = failureOf(codec.decode(frame.subarray(0, frame.length - 1)))
    assert.isTrue(Schema.isSchemaError(error.cause))
  })

  it("any bytes are a message or invalid", () => {
    const codec = Codec.schemaBinary(Event)
    const valid = Result.getOrThrow(codec.encode(event))
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 40 }),
        fc.nat(valid.length - 1),
        fc.nat(255),
        (noise, at, byte) => {
          const damaged = Uint8Array.from(valid)
          damaged[at] = byte
          for (const frame of [noise, damaged, concat(valid, noise)]) {
            const result = codec.decode(frame)
            if (Result.isFailure(result)) assert.instanceOf(result.failure, FrameError.InvalidMessage)
          }
        }
      ),
      { numRuns: 2000 }
    )
  })
})

describe("composition", () => {
  it("compose, map and duplex", () => {
    const list = Codec.map(Codec.string(), {
      decode: (line): ReadonlyArray<string> => line.split(","),
      encode: (items: ReadonlyArray<string>) => items.join(",")
    })
    assert.deepStrictEqual(roundTrip(list, ["a", "b"]), ["a", "b"])
    const hexes = Codec.make<string, string, string>({
      decode: (line) => Result.succeed(Buffer.from(line, "hex").toString()),
      encode: (message) => Result.succeed(Buffer.from(message).toString("hex"))
    })
    const both = Codec.compose(Codec.string("ascii"), hexes)
    assert.strictEqual(text(Result.getOrThrow(both.encode("hi"))), "6869")
    assert.strictEqual(roundTrip(both, "hi"), "hi")
    failureOf(both.decode(hex("ff")))
    const duplex = Codec.duplex({ receive: Codec.json, send: Codec.string() })
    assert.strictEqual(text(Result.getOrThrow(duplex.encode("x"))), "x")
    assert.deepStrictEqual(Result.getOrThrow(duplex.decode(bytes("[1]"))), [1])
  })
})

describe("errors", () => {
  it.effect("survive encoding to JSON", () =>
    Effect.gen(function* () {
      const error = new FrameError.FrameError({
        operation: "receive",
        reason: new FrameError.FrameTooLong({ length: 2 ** 64, limit: 10 }),
        offset: 3,
        excerpt: bytes('\x00"\\x'),
        address: "127.0.0.1:1"
      })
      const codec = Schema.fromJsonString(Schema.toCodecJson(FrameError.FrameError))
      const back = yield* Schema.decodeEffect(codec)(yield* Schema.encodeEffect(codec)(error))
      assert.deepStrictEqual(back, error)
      assert.strictEqual(
        back.message,
        `receive from 127.0.0.1:1 at byte 3: a frame of ${2 ** 64} bytes, the limit is 10 bytes; raise it with the framing's maxLength (near "\\x00"\\x5cx")`
      )
    })
  )
})
