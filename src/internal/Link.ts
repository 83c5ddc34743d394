import type * as Effect from "effect/Effect"
import type { ConnectionError } from "../StreamError.ts"
import type { StreamReader } from "../StreamReader.ts"
import type { StreamWriter } from "../StreamWriter.ts"

/** What of a connection its conversions are written against. */
export interface Link {
  readonly reader: StreamReader
  readonly writer: StreamWriter
  readonly close: Effect.Effect<void>
  readonly abort: Effect.Effect<void>
  readonly closed: Effect.Effect<void, ConnectionError>
}
