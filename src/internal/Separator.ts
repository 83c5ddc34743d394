import { encode } from "./bytes.ts"

export type Input = Uint8Array | string | ReadonlyArray<Uint8Array | string>

/** A separator as bytes: one pattern, or several of which any ends a piece. */
export interface Separator {
  readonly patterns: ReadonlyArray<Uint8Array>
  readonly longest: number
}

const compile = (patterns: ReadonlyArray<Uint8Array>): Separator => {
  let longest = 0
  for (const pattern of patterns) {
    if (pattern.length === 0) throw new RangeError("a separator must have at least one byte")
    longest = Math.max(longest, pattern.length)
  }
  if (longest === 0) throw new RangeError("a list of separators must not be empty")
  return { patterns, longest }
}

// Programs use a handful of literal separators over and over; the bound is for those that build them.
const literals = new Map<string, Separator>()

const fromString = (text: string): Separator => {
  let separator = literals.get(text)
  if (separator === undefined) {
    separator = compile([encode(text)])
    if (literals.size < 64) literals.set(text, separator)
  }
  return separator
}

/** Throws a `RangeError` for an empty separator, an empty list, or a list with an empty member. */
export const make = (input: Input): Separator => {
  if (typeof input === "string") return fromString(input)
  if (input instanceof Uint8Array) return compile([input])
  return compile(input.map(encode))
}

export const newline: Separator = fromString("\n")
