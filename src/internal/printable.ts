import { format } from "effect/Formatter"

// What steers a terminal, begins another line of a log, or changes the order in which text is shown.
const unsafe = /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu

const escape = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`

/**
 * Text that may be a stranger's, for an error or a log: on one line, and as harmless as it looks. What is longer than `max`
 * characters is cut.
 */
export const printable = (text: string, max = Infinity): string => {
  const shown = text.length > max ? `${text.slice(0, max)}…` : text
  return shown.replace(unsafe, escape)
}

/** The same, in quotation marks. */
export const quoted = (text: string): string => printable(JSON.stringify(text))

/** The same of what a schema has to say, which takes a line or two for each problem. */
export const onOneLine = (text: string): string =>
  printable(text.replaceAll(/\n +at /g, " at ").replaceAll("\n", "; "))

/** What somebody's error says of itself, whatever that is. */
export const messageOf = (error: unknown): string => {
  if (error instanceof Error && error.message !== "") return printable(error.message)
  return printable(typeof error === "string" ? error : format(error))
}

/** An error of the platform's that may quote a stranger: it is printed by itself where it is somebody's cause. */
export const printableError = (cause: unknown): unknown => {
  if (!(cause instanceof Error)) return cause
  const { message, stack } = cause
  const shown = printable(message)
  if (shown !== message) {
    cause.message = shown
    if (stack !== undefined) cause.stack = stack.replace(message, () => shown)
  }
  return cause
}
