/** Results as bar charts. */
import * as fs from "node:fs"
import * as path from "node:path"
import type { Results, WorkloadResult } from "./Results.ts"
import { mainFigure } from "./Table.ts"

const WIDTH = 760
const LABELS = 200
const VALUES = 170
const ROW = 26
const BAR = 16
const TOP = 58
const BOTTOM = 30

// Readable on a light page and on a dark one.
const STYLE = `
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 14px }
  .note { font-size: 11px; fill: #6e7781 }
  .bar { fill: #afb8c1 } .own { fill: #2f6feb } .range { stroke: #57606a; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #8b949e } .bar { fill: #484f58 } .own { fill: #4184f4 } .range { stroke: #c9d1d9 }
  }`

const escape = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;")

/** One bar for each that was measured, the longest as wide as there is room; the line on it is the middle half. */
export const chart = (workload: WorkloadResult, results: Results): string => {
  const bars = workload.rows.flatMap((row) => {
    const main = mainFigure(workload, row)
    return main === undefined ? [] : [{ row, main }]
  })
  const longest = Math.max(...bars.map(({ main }) => main.figure.median))
  const room = WIDTH - LABELS - VALUES
  const rows = bars.map(({ main, row }, i) => {
    const { median, spread } = main.figure
    const y = TOP + i * ROW
    const middle = y + BAR / 2
    const x = (value: number): string =>
      (LABELS + (room * Math.min(value, longest * 1.05)) / longest).toFixed(1)
    const half = (median * spread) / 2
    return [
      `<text x="${LABELS - 8}" y="${middle + 4}" text-anchor="end">${escape(row.label)}</text>`,
      `<rect class="${row.peer === "effect-wire" ? "own" : "bar"}" x="${LABELS}" y="${y}" width="${((room * median) / longest).toFixed(1)}" height="${BAR}" rx="2"/>`,
      `<line class="range" x1="${x(median - half)}" x2="${x(median + half)}" y1="${middle}" y2="${middle}"/>`,
      `<text x="${WIDTH - VALUES + 14}" y="${middle + 4}">${escape(main.text)}</text>`
    ].join("\n  ")
  })
  const direction = bars.some(({ main }) => main.lessIsBetter) ? "less is better" : "more is better"
  const height = TOP + bars.length * ROW + BOTTOM
  const note = `median of ${results.rounds} rounds, ${direction}; ${results.machine.cpu}, ${results.date.slice(0, 10)}`
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escape(workload.title)}">
  <style>${STYLE}
  </style>
  <text class="title" x="12" y="24">${escape(workload.id)}</text>
  <text x="12" y="42">${escape(workload.title)}</text>
  ${rows.join("\n  ")}
  <text class="note" x="12" y="${height - 10}">${escape(note)}</text>
</svg>
`
}

/** Draws a file for each workload that was measured; returns their names. */
export const draw = (results: Results, folder: string): ReadonlyArray<string> => {
  fs.mkdirSync(folder, { recursive: true })
  return results.workloads
    .filter((workload) => workload.rows.some((row) => mainFigure(workload, row) !== undefined))
    .map((workload) => {
      const file = path.join(folder, `${workload.id.toLowerCase()}.svg`)
      fs.writeFileSync(file, chart(workload, results))
      return file
    })
}
