import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ConnectionError } from "../../StreamError.ts"
import type { Handler, Transport } from "../../Transport.ts"
import { decode, hold, join, law, type Law, Pair, same } from "./harness.ts"

/** A transport, what it has told its handler, and whether it kept to the rules that hold whatever happens. */
export class Wire implements Handler {
  readonly transport: Transport
  readonly events: Array<"data" | "end" | "drain" | "closed"> = []
  readonly chunks: Array<Uint8Array> = []
  size = 0
  error: ConnectionError | undefined = undefined
  /** Called at every event, after it was written down. */
  on: (event: "data" | "end" | "drain" | "closed") => void = () => {}
  private readonly faults: Array<string> = []
  private readonly waiting = new Set<() => void>()
  private state: "new" | "starting" | "started" = "new"
  private paused = true
  private surplus = 0

  constructor(transport: Transport) {
    this.transport = transport
  }

  start(): void {
    if (this.state !== "new") return
    this.state = "starting"
    this.transport.start(this)
    this.state = "started"
  }

  pause(): void {
    this.paused = true
    this.surplus = 0
    this.transport.pause()
  }

  resume(): void {
    this.paused = false
    this.transport.resume()
  }

  readonly onData = (chunk: Uint8Array): void => {
    this.chunks.push(chunk)
    this.size += chunk.length
    if (this.has("end")) this.faults.push("data after the end")
    if (this.paused && ++this.surplus > 1) this.faults.push(`${this.surplus} chunks after pause`)
    this.note("data")
  }

  readonly onEnd = (): void => {
    if (this.has("end")) this.faults.push("a second end")
    this.note("end")
  }

  readonly onDrain = (): void => this.note("drain")

  readonly onClosed = (error?: ConnectionError): void => {
    this.error = error
    this.note("closed")
  }

  has(event: "data" | "end" | "drain" | "closed"): boolean {
    return this.events.includes(event)
  }

  get text(): string {
    return decode(join(this.chunks))
  }

  get reason(): string {
    return this.error === undefined ? "none" : this.error.reason._tag
  }

  /** Waits until what has been told makes a condition true. */
  until(condition: () => boolean): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const look = (): void => {
        if (!condition()) return
        this.waiting.delete(look)
        resume(Effect.void)
      }
      this.waiting.add(look)
      look()
      return Effect.sync(() => this.waiting.delete(look))
    })
  }

  get closed(): Effect.Effect<void> {
    return this.until(() => this.has("closed"))
  }

  check(name: string): void {
    hold(this.faults.length === 0, `${name}: ${this.faults.join(", ")}`)
  }

  private note(event: "data" | "end" | "drain" | "closed"): void {
    if (this.state !== "started") this.faults.push(`${event} before start returned`)
    if (this.has("closed")) this.faults.push(`${event} after closed`)
    this.events.push(event)
    try {
      this.on(event)
    } catch (fault) {
      this.faults.push(String(fault))
    }
    for (const look of [...this.waiting]) look()
  }
}

/** Two ends of a pair, not started yet. */
export interface Wires {
  readonly left: Wire
  readonly right: Wire
  readonly capabilities: Pair["Service"]["capabilities"]
}

/** A law about transports themselves: the check drives both ends by hand, started unless it wants to do so. */
export const wireLaw = <R>(
  name: string,
  check: (wires: Wires) => Effect.Effect<unknown, unknown, R>,
  options?: { readonly unstarted: true }
): Law<Exclude<Pair | R | Scope.Scope, Scope.Scope>> =>
  law(
    name,
    Effect.fnUntraced(function* () {
      const { capabilities, make } = yield* Pair
      const transports = yield* make
      const [left, right] = [new Wire(transports[0]), new Wire(transports[1])]
      const wires = [left, right]
      yield* Effect.addFinalizer(() =>
        Effect.forEach(
          wires,
          (wire) => {
            wire.start()
            wire.transport.abort()
            return wire.closed
          },
          { concurrency: "unbounded" }
        )
      )
      if (options === undefined) for (const wire of wires) wire.start()
      yield* check({ left, right, capabilities })
      // Whatever was on its way must not have become a call after the last one.
      for (const wire of wires) wire.start()
      left.transport.abort()
      right.transport.abort()
      yield* Effect.all([left.closed, right.closed])
      yield* Effect.forEach(Array.from({ length: 20 }), () => Effect.yieldNow)
      left.check("the left transport")
      right.check("the right transport")
    })
  )

/** How the peer of an aborted transport learns of it. */
export const checkAborted = (wire: Wire, abort: "reset" | "failure" | "end"): Effect.Effect<void> =>
  Effect.gen(function* () {
    if (abort === "end") {
      yield* wire.until(() => wire.has("end") || wire.has("closed"))
      return
    }
    yield* wire.closed
    hold(!wire.has("end"), "an abort was told as an end of input")
    hold(wire.error !== undefined, "an abort was told as an orderly end")
    if (abort === "reset") same("the reason of the failure", wire.reason, "ConnectionReset")
  })
