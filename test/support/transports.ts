import { type Scheduler } from "effect"
import type { ConnectionError } from "effect-wire/StreamError"
import type { Transport } from "effect-wire/Transport"

/** Writes down what a transport tells its handler, and holds it to the rules that hold whatever happens. */
export interface Recorder {
  readonly transport: Transport
  /** `"data"`, `"end"`, `"drain"` and `"closed"`, in order. */
  readonly events: ReadonlyArray<string>
  readonly chunks: ReadonlyArray<Uint8Array>
  readonly text: () => string
  readonly error: () => ConnectionError | undefined
  /** Called at every event, after it was written down. */
  on: (event: string) => void
}

export const record = (transport: Transport): Recorder => {
  const events: Array<string> = []
  const chunks: Array<Uint8Array> = []
  let error: ConnectionError | undefined
  let started = false
  const note = (event: string) => {
    if (!started) throw new Error(`${event} before start returned`)
    if (events.includes("closed")) throw new Error(`${event} after closed`)
    if (event === "data" && events.includes("end")) throw new Error("data after end")
    if (event === "end" && events.includes("end")) throw new Error("a second end")
    events.push(event)
    recorder.on(event)
  }
  const recorder: Recorder = {
    transport,
    events,
    chunks,
    text: () => Buffer.concat(chunks).toString(),
    error: () => error,
    on() {}
  }
  transport.start({
    onData(chunk) {
      if (chunk.length === 0) throw new Error("an empty chunk")
      chunks.push(chunk)
      note("data")
    },
    onEnd: () => note("end"),
    onDrain: () => note("drain"),
    onClosed(cause) {
      error = cause
      note("closed")
    }
  })
  started = true
  return recorder
}

/** A scheduler whose tasks run when the test says so, and not otherwise. */
export const manualScheduler = () => {
  const tasks: Array<() => void> = []
  const scheduler: Scheduler.Scheduler = {
    executionMode: "sync",
    shouldYield: () => false,
    makeDispatcher: () => ({
      scheduleTask: (task) => {
        tasks.push(task)
      },
      flush() {}
    })
  }
  return {
    scheduler,
    pending: () => tasks.length,
    /** Runs the next task. */
    step: () => tasks.shift()?.(),
    /** Runs tasks until none is left. */
    settle() {
      for (let n = 0; tasks.length > 0; n++) {
        if (n > 100_000) throw new Error("the tasks do not come to an end")
        tasks.shift()?.()
      }
    }
  }
}
