/** A bar on a terminal, and a line per workload elsewhere. */
import { Duration, Effect } from "effect"

const WIDTH = 28

export interface Progress {
  /** Says what begins now. */
  readonly begin: (what: string) => Effect.Effect<void>
  /** Counts one run. */
  readonly step: Effect.Effect<void>
  /** Takes the bar away, so that something else can be printed. */
  readonly clear: Effect.Effect<void>
}

/** Counts up to `total` runs, on standard error. */
export const make = (total: number): Progress => {
  const isTerminal = process.stderr.isTTY
  const started = performance.now()
  let done = 0
  let what = ""
  let workload = ""

  const draw = (): void => {
    const fraction = total === 0 ? 1 : done / total
    const full = Math.round(fraction * WIDTH)
    const bar = "█".repeat(full) + "░".repeat(WIDTH - full)
    const left =
      done === 0
        ? ""
        : `, ${Duration.format(Duration.seconds(Math.round(((performance.now() - started) / 1000 / done) * (total - done))))} left`
    process.stderr.write(`\r\x1b[2K${bar} ${done}/${total}${left}  ${what}`)
  }

  return {
    begin: (next) =>
      Effect.sync(() => {
        what = next
        if (isTerminal) return draw()
        const [id = ""] = next.split(" ")
        if (id !== workload) process.stderr.write(`${id} (${done} of ${total} runs done)\n`)
        workload = id
      }),
    step: Effect.sync(() => {
      done++
      if (isTerminal) draw()
    }),
    clear: Effect.sync(() => {
      if (isTerminal) process.stderr.write("\r\x1b[2K")
    })
  }
}
