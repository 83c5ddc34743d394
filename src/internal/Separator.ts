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

// A copy: the caller's array may change while a search goes on.
const toPattern = (input: Uint8Array | string): Uint8Array =>
  typeof input === "string" ? encode(input) : Uint8Array.from(input)

/** Throws a `RangeError` for an empty separator, an empty list, or a list with an empty member. */
export const make = (input: Input): Separator => {
  if (typeof input === "string") return fromString(input)
  return compile(input instanceof Uint8Array ? [toPattern(input)] : input.map(toPattern))
}

/** Whether a search for one can go on as a search for the other. */
export const equals = (a: Separator, b: Separator): boolean =>
  a === b ||
  (a.patterns.length === b.patterns.length &&
    a.patterns.every((pattern, i) => isSame(pattern, b.patterns[i])))

const isSame = (a: Uint8Array, b: Uint8Array | undefined): boolean =>
  a.length === b?.length && a.every((byte, i) => byte === b[i])

export const newline: Separator = fromString("\n")
