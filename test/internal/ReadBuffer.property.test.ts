import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { ReadBuffer } from "../../src/internal/ReadBuffer.ts"
import * as Separator from "../../src/internal/Separator.ts"

const separators = [["\n"], ["\r\n"], ["\r\n\r\n"], ["\r\n.\r\n", "\n\n"]]

type Operation =
  | { readonly _tag: "push"; readonly text: string; readonly times: number }
  | { readonly _tag: "find"; readonly separator: number }
  | { readonly _tag: "seek"; readonly separator: number; readonly pieces: ReadonlyArray<string> }
  | { readonly _tag: "take" | "discard" | "peek"; readonly part: number }
  | { readonly _tag: "slice"; readonly from: number; readonly to: number }

// Separators are rare, and come in pieces.
const text = fc.oneof(
  { weight: 8, arbitrary: fc.string({ unit: fc.constantFrom("a", ".", "\r"), minLength: 1, maxLength: 5 }) },
  { weight: 1, arbitrary: fc.constantFrom("\n", "\n\r", "\r\n", "\r\n.") }
)

const operation: fc.Arbitrary<Operation> = fc.oneof(
  // Enough small pieces in a row to be merged, now and then a large one that is not.
  {
    weight: 6,
    arbitrary: fc.record({ _tag: fc.constant("push"), text, times: fc.oneof(fc.constant(0), fc.nat(1000)) })
  },
  {
    weight: 1,
    arbitrary: fc.record({
      _tag: fc.constant("push"),
      text: fc.nat(700).map((n) => "a".repeat(n + 1)),
      times: fc.constant(1)
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      _tag: fc.constant("seek"),
      separator: fc.nat(separators.length - 1),
      pieces: fc.array(text, { maxLength: 20 })
    })
  },
  {
    weight: 5,
    arbitrary: fc.record({ _tag: fc.constant("find"), separator: fc.nat(separators.length - 1) })
  },
  {
    weight: 1,
    arbitrary: fc.record({
      _tag: fc.constantFrom("take", "discard", "peek"),
      part: fc.double({ min: 0, max: 1, noNaN: true })
    })
  },
  {
    weight: 1,
    arbitrary: fc.record({
      _tag: fc.constant("slice"),
      from: fc.double({ min: 0, max: 1, noNaN: true }),
      to: fc.double({ min: 0, max: 1, noNaN: true })
    })
  }
)

const toText = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1")

/** The end of the match that ends first, as a string tells. */
const endIn = (content: string, patterns: ReadonlyArray<string>): number | undefined => {
  const ends = patterns.flatMap((pattern) => {
    const at = content.indexOf(pattern)
    return at === -1 ? [] : [at + pattern.length]
  })
  return ends.length === 0 ? undefined : Math.min(...ends)
}

describe("a read buffer", () => {
  it("gives what a string gives, however small the pieces, and changes nothing that it has given", () => {
    fc.assert(
      fc.property(fc.array(operation, { minLength: 1, maxLength: 60 }), (operations) => {
        const buffer = new ReadBuffer()
        const given: Array<{ readonly bytes: Uint8Array; readonly text: string }> = []
        let content = ""
        const give = (bytes: Uint8Array, text: string): void => {
          assert.strictEqual(toText(bytes), text)
          given.push({ bytes, text })
        }
        const push = (text: string): void => {
          buffer.push(Buffer.from(text))
          content += text
        }
        const find = (separator: number): void => {
          const patterns = separators[separator] ?? []
          assert.strictEqual(buffer.find(Separator.make(patterns))?.end, endIn(content, patterns))
        }
        for (const operation of operations) {
          switch (operation._tag) {
            case "push": {
              for (let i = 0; i <= operation.times; i++) push(operation.text)
              break
            }
            case "find": {
              find(operation.separator)
              break
            }
            // As a reader does that waits: after each piece, for the same.
            case "seek": {
              for (const piece of operation.pieces) {
                find(operation.separator)
                push(piece)
              }
              find(operation.separator)
              break
            }
            case "slice": {
              const [from = 0, to = 0] = [operation.from, operation.to]
                .map((part) => Math.floor(part * content.length))
                .sort((a, b) => a - b)
              give(buffer.slice(from, to), content.slice(from, to))
              break
            }
            default: {
              const n = Math.floor(operation.part * content.length)
              if (operation._tag === "discard") buffer.discard(n)
              else if (operation._tag === "take") give(buffer.take(n), content.slice(0, n))
              else give(buffer.peek(n), content.slice(0, n))
              if (operation._tag !== "peek") content = content.slice(n)
            }
          }
          assert.strictEqual(buffer.size, content.length)
        }
        for (const { bytes, text } of given) assert.strictEqual(toText(bytes), text)
      }),
      { numRuns: 1500 }
    )
  })

  it("discards no more than there is", () => {
    const buffer = new ReadBuffer()
    buffer.push(new Uint8Array(3))
    assert.throws(() => buffer.discard(4), RangeError)
    assert.strictEqual(buffer.size, 3)
  })

  it("of single bytes takes little more memory than the bytes", () => {
    const buffer = new ReadBuffer()
    const bytes = 256 * 1024
    const list: unknown = Reflect.get(buffer, "chunks")
    for (let i = 0; i < bytes; i++) buffer.push(new Uint8Array(1))
    assert.isTrue(
      Array.isArray(list) && list.length < 32 + bytes / 1024,
      String(Array.isArray(list) && list.length)
    )
  })
})
