/** Results as text. */
import type { Figure, Results, Row, WorkloadResult } from "./Results.ts"

const MIB = 1024 * 1024

export const count = (value: number): string =>
  value >= 1e6
    ? `${(value / 1e6).toFixed(2)} M`
    : value >= 1e4
      ? `${(value / 1e3).toFixed(0)} k`
      : value.toFixed(0)

const times = (value: number): string => `${value >= 10 ? value.toFixed(1) : value.toFixed(2)} ×`

const percent = (value: number): string => `± ${(value * 50).toFixed(1)} %`

/** The figure that a workload is about, and how it is shown. */
export const mainFigure = (
  { inBytes, unit }: WorkloadResult,
  row: Row
): { readonly figure: Figure; readonly text: string; readonly lessIsBetter: boolean } | undefined => {
  if (row.memory !== undefined) {
    const text = `${(row.memory.median / 1024).toFixed(2)} KiB/connection`
    return { figure: row.memory, text, lessIsBetter: true }
  }
  if (inBytes && row.throughput !== undefined) {
    const text = `${(row.throughput.median / MIB).toFixed(0)} MiB/s`
    return { figure: row.throughput, text, lessIsBetter: false }
  }
  return row.rate === undefined
    ? undefined
    : { figure: row.rate, text: `${count(row.rate.median)} ${unit}s/s`, lessIsBetter: false }
}

/** How much better than another one: above 1 is better, whatever is measured. */
const advantage = (workload: WorkloadResult, row: Row, other: Row | undefined): string => {
  const own = mainFigure(workload, row)
  const theirs = other && mainFigure(workload, other)
  if (own === undefined || theirs === undefined) return ""
  const ratio = own.figure.median / theirs.figure.median
  return times(own.lessIsBetter ? 1 / ratio : ratio)
}

const LIBRARY = "effect-wire"
const PLAIN = "node-net"

/** The best of the others; the machine's limit is none of them. */
const bestPeer = (workload: WorkloadResult): Row | undefined => {
  const [best] = workload.rows
    .filter((row) => row.peer !== LIBRARY && row.peer !== "epoll")
    .flatMap((row) => {
      const main = mainFigure(workload, row)
      return main === undefined
        ? []
        : [{ row, value: main.lessIsBetter ? -main.figure.median : main.figure.median }]
    })
    .sort((a, b) => b.value - a.value)
  return best?.row
}

const micros = (figure: Figure | undefined): string => (figure === undefined ? "" : figure.median.toFixed(2))

type Column = readonly [heading: string, of: (row: Row) => string]

const columns = (workload: WorkloadResult): ReadonlyArray<Column> => {
  const best = bestPeer(workload)
  const plain = workload.rows.find((_) => _.label === PLAIN)
  const all: ReadonlyArray<Column> = [
    ["median", (row) => mainFigure(workload, row)?.text ?? (row.failure === undefined ? "" : "failed")],
    [
      "spread",
      (row) => {
        const main = mainFigure(workload, row)
        return main === undefined ? "" : percent(main.figure.spread)
      }
    ],
    [`vs ${best?.label ?? "best peer"}`, (row) => (row === best ? "" : advantage(workload, row, best))],
    [`vs ${PLAIN}`, (row) => (row === plain || plain === best ? "" : advantage(workload, row, plain))],
    ["CPU µs", (row) => micros(row.cpu)],
    ["user", (row) => micros(row.cpuUser)],
    ["system", (row) => micros(row.cpuSystem)],
    ["CPU vs plain", (row) => (row.cpu && plain?.cpu ? times(row.cpu.median / plain.cpu.median) : "")],
    ["p50 µs", (row) => (row.p50 === undefined ? "" : row.p50.median.toFixed(0))],
    ["p99 µs", (row) => (row.p99 === undefined ? "" : row.p99.median.toFixed(0))],
    ["bytes allocated", (row) => (row.allocated === undefined ? "" : row.allocated.median.toFixed(1))],
    ["twice as much takes", (row) => (row.growth === undefined ? "" : times(row.growth.median))],
    ["wake-ups/s idle", (row) => (row.wakeups === undefined ? "" : row.wakeups.median.toFixed(0))]
  ]
  return all.filter(([, of]) => workload.rows.some((row) => of(row) !== ""))
}

const goalLine = ({ figure, reached, text }: WorkloadResult["goals"][number]): string =>
  figure === null || reached === null
    ? `  ?  ${text}: not measured`
    : `  ${reached ? "✓" : "✗"}  ${text}: ${figure.toFixed(2)}`

export const workload = (result: WorkloadResult): string => {
  const shown = columns(result)
  const head = ["", ...shown.map(([heading]) => heading)]
  const body = result.rows.map((row) => [row.label, ...shown.map(([, of]) => of(row))])
  const widths = head.map((_, i) => Math.max(...[head, ...body].map((cells) => cells[i]?.length ?? 0)))
  const line = (cells: ReadonlyArray<string>): string =>
    cells
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join("  ")
      .trimEnd()
  const failures = result.rows.flatMap((row) =>
    row.failure === undefined ? [] : [`  !  ${row.label}: ${row.failure}`]
  )
  return [
    `${result.id}  ${result.title}`,
    ...[head, ...body].map((cells) => `  ${line(cells)}`),
    ...result.goals.map(goalLine),
    ...failures
  ].join("\n")
}

const cells = (of: ReadonlyArray<string>): string => `| ${of.join(" | ")} |`

/** The same as Markdown, with its chart. */
const section = (result: WorkloadResult): string => {
  const shown = columns(result)
  const lines = result.rows.map((row) => cells([row.label, ...shown.map(([, of]) => of(row))]))
  const goals = result.goals.map(({ figure, reached, text }) =>
    figure === null || reached === null
      ? `- not measured: ${text}`
      : `- ${reached ? "reached" : "**missed**"}: ${text}: ${figure.toFixed(2)}`
  )
  return [
    `## ${result.id}: ${result.title}`,
    `![${result.id}](${result.id.toLowerCase()}.svg)`,
    [
      cells(["", ...shown.map(([heading]) => heading)]),
      cells(["---", ...shown.map(() => "--:")]),
      ...lines
    ].join("\n"),
    ...(goals.length > 0 ? [goals.join("\n")] : [])
  ].join("\n\n")
}

/** A page with everything that a results file holds. */
export const page = (results: Results): string => {
  const { cpu, cores, kernel, loadAverage, memoryGiB } = results.machine
  const versions = Object.entries(results.versions).map(([peer, version]) => cells([peer, version]))
  const missing = Object.entries(results.missing).map(([peer, reason]) => cells([peer, `missing: ${reason}`]))
  return `${[
    "# Measurements",
    "Written by `npm run bench -- --plot`; what it means is said in [Performance](../performance.md).",
    `${results.date.slice(0, 10)}, ${cpu}, ${cores} cores, ${memoryGiB} GiB, ${kernel}, load average ${loadAverage} at the beginning; ${
      results.pinned ? "server and generator on cores of their own" : "server and generator on any core"
    }. Medians of up to ${results.rounds} rounds; the spread is the middle half of them. ${goals(results.workloads)}.`,
    [cells(["peer", "version"]), cells(["---", "---"]), ...versions, ...missing].join("\n"),
    ...results.workloads.map(section)
  ].join("\n\n")}\n`
}

export const header = (results: Omit<Results, "workloads">): string => {
  const { cpu, cores, kernel, loadAverage, memoryGiB } = results.machine
  return [
    `${cpu}, ${cores} cores, ${memoryGiB} GiB, ${kernel}; load average ${loadAverage} at the beginning`,
    results.pinned ? "server and generator on cores of their own" : "server and generator on any core",
    ...Object.entries(results.versions).map(([peer, version]) => `  ${peer.padEnd(14)} ${version}`),
    ...Object.entries(results.missing).map(([peer, reason]) => `  ${peer.padEnd(14)} MISSING: ${reason}`)
  ].join("\n")
}

export const goals = (workloads: ReadonlyArray<WorkloadResult>): string => {
  const all = workloads.flatMap((_) => _.goals)
  const reached = all.filter((_) => _.reached === true).length
  return `${reached} of ${all.length} targets reached`
}
