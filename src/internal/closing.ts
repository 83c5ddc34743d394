import * as Connection from "./connection.ts"

/**
 * Connections that nobody has any more and that are being closed, which takes as long as their peers like: for one more than
 * `max`, the oldest is aborted.
 */
export class Closing {
  readonly items = new Set<Connection.Connection>()
  private readonly max: number

  constructor(max: number) {
    this.max = max
  }

  add(connection: Connection.Connection): void {
    this.items.add(connection)
    const [oldest] = this.items
    if (oldest === undefined || this.items.size <= this.max) return
    this.items.delete(oldest)
    Connection.abortNow(oldest)
  }

  delete(connection: Connection.Connection): void {
    this.items.delete(connection)
  }
}
