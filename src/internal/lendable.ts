import type * as Scope from "effect/Scope"
import type { Connection } from "./connection.ts"

/** A connection of a pool, and what the pool knows of it. Times are those of `now`. */
export interface Lendable {
  readonly connection: Connection
  /** How many the pool had made with this one. */
  readonly number: number
  readonly createdAt: number
  /** Whose end closes the connection. */
  readonly own: Scope.Closeable
  idleSince: number
  uses: number
  lent: boolean
  /** Whether it is to be given up as soon as it is not lent. */
  unfit: boolean
}
