import * as Exit from "effect/Exit"

/**
 * What the reads or the writes of a connection fail with: an error that is made when somebody is to fail with it, since most
 * connections end without, and that is the same for all.
 */
export class Failure<Operation extends "read" | "write", E> {
  private readonly operation: Operation
  private readonly error: (operation: Operation) => E
  private made: Exit.Exit<never, E> | undefined = undefined

  constructor(operation: Operation, error: (operation: Operation) => E) {
    this.operation = operation
    this.error = error
  }

  get exit(): Exit.Exit<never, E> {
    return (this.made ??= Exit.fail(this.error(this.operation)))
  }
}
