import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { Codec, FrameError, ProxyProtocol, Recording, StreamError } from "effect-wire"
import { Duration, Effect, Result, Schema } from "effect"
import { onOneLine, printable, printableError, quoted } from "../../src/internal/printable.ts"

const unsafe = /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/u

describe("printable", () => {
  it("escapes what steers a terminal, ends a line or turns text around, and nothing else", () => {
    assert.strictEqual(
      printable("a\u001b[2J\r\n\t\0\u007f\u0085\u009b\u061c\u200e\u202e\u2066\u2028\u2029é€😀\\"),
      "a\\u001b[2J\\u000d\\u000a\\u0009\\u0000\\u007f\\u0085\\u009b\\u061c\\u200e\\u202e\\u2066\\u2028\\u2029é€😀\\"
    )
  })

  it("leaves nothing of the kind, and what it gives as it is", () => {
    const text = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.string({ unit: fc.constantFrom("\u001b", "\n", "\u202e", "\u009b", "a", "\\", '"') })
    )
    fc.assert(
      fc.property(text, (input) => {
        for (const shown of [printable(input), quoted(input), onOneLine(input)]) {
          assert.notMatch(shown, unsafe)
          assert.strictEqual(printable(shown), shown)
        }
        if (!unsafe.test(input)) assert.strictEqual(printable(input), input)
      })
    )
  })

  it("cuts what is longer than wanted, before it is escaped", () => {
    assert.strictEqual(printable("\u001babc", 3), "\\u001bab…")
    assert.strictEqual(printable("abc", 3), "abc")
  })

  it("of an error: its message and its stack", () => {
    const error = new Error("a $& \u001b[2J\nat nowhere")
    const frames = error.stack?.split("\n").slice(2)
    assert.strictEqual(printableError(error), error)
    assert.strictEqual(error.message, "a $& \\u001b[2J\\u000aat nowhere")
    assert.deepStrictEqual(error.stack?.split("\n"), [`Error: ${error.message}`, ...(frames ?? [])])
    assert.strictEqual(printableError("text"), "text")
  })
})

const hostile = 'x\u001b[2J\n\u202e\u009b"'
const cause = new Error(hostile)

const errors: ReadonlyArray<Error> = [
  new StreamError.IncompleteReadError({ partial: new Uint8Array(), operation: hostile, address: hostile }),
  new StreamError.LimitOverrunError({ limit: 1, consumed: 1, operation: hostile, address: hostile }),
  new StreamError.TlsError({ kind: "WrongHost", peer: hostile, detail: hostile }),
  new StreamError.InvalidAddress({ detail: hostile }),
  new StreamError.Unsupported({ detail: hostile }),
  new StreamError.ProxyError({ proxy: hostile, kind: "Refused", detail: hostile }),
  new StreamError.UnknownReason({ cause }),
  new StreamError.UnknownReason({ code: hostile }),
  new StreamError.TimeoutError({
    operation: hostile,
    duration: Duration.seconds(1),
    address: hostile,
    attempts: [{ address: hostile }, { address: hostile, reason: new StreamError.UnknownReason({ cause }) }],
    proxy: { address: hostile, stage: "tls" }
  }),
  new StreamError.ConnectionError({
    operation: hostile,
    address: hostile,
    reason: new StreamError.UnknownReason({ code: hostile, cause })
  }),
  new StreamError.ListenError({ address: hostile, reason: new StreamError.AddressInUse({ code: hostile }) }),
  new FrameError.MalformedFrame({ detail: hostile }),
  new FrameError.InvalidMessage({ detail: hostile }),
  new FrameError.FrameError({
    operation: "receive",
    address: hostile,
    excerpt: new TextEncoder().encode(hostile),
    reason: new FrameError.InvalidMessage({ detail: hostile })
  }),
  new FrameError.EndOfStream({ address: hostile }),
  new ProxyProtocol.ProxyProtocolError({ kind: "Malformed", detail: hostile, offset: 0, address: hostile }),
  new Recording.RecordingError({ line: 1, detail: hostile })
]

describe("the message of an error", () => {
  for (const error of errors) {
    it(`${error.name} is on one line, and harmless`, () => {
      assert.include(error.message, "\\u")
      assert.notMatch(error.message, unsafe)
    })
  }

  const frame = (text: string) => Codec.json.decode(new TextEncoder().encode(text))

  it("of what is not JSON, and of its cause", () => {
    const result = frame(hostile)
    assert(Result.isFailure(result))
    assert.include(result.failure.message, "\\u001b")
    const { cause } = result.failure
    assert(cause instanceof SyntaxError)
    assert.notMatch(cause.message, unsafe)
    assert.notMatch(String(cause.stack), /\u001b|\u202e|\u009b/)
  })

  it("of what a schema refuses", () => {
    const Message = Schema.Struct({ a: Schema.Record(Schema.String, Schema.Boolean) })
    const result = Codec.schema(Message).decode(
      new TextEncoder().encode(JSON.stringify({ a: { [hostile]: 1 } }))
    )
    assert(Result.isFailure(result))
    assert.match(result.failure.message, /^invalid message: Expected boolean at \["a"\]\["x\\u001b\[2J/)
  })

  it.effect("of a PROXY header that is none", () =>
    Effect.sync(() => {
      const result = ProxyProtocol.decode(
        new TextEncoder().encode(`PROXY TCP4 ${hostile.replace("\n", "")} 1 1 1\r\n`)
      )
      assert(Result.isFailure(result))
      assert.include(result.failure.message, "\\u009b")
      assert.include(result.failure.detail, "\\u009b")
    })
  )
})
