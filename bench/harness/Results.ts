/** What a results file holds, and how it is made from samples. */
import { Schema } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import type { Outcome, Row as MeasuredRow, Sample } from "./Run.ts"
import { median, spread } from "./Statistics.ts"
import type { Metric, Target } from "./Workloads.ts"

/** The median of several runs, and the middle half of them as a fraction of it. */
export const Figure = Schema.Struct({ median: Schema.Number, spread: Schema.Number })
export type Figure = typeof Figure.Type

export const Row = Schema.Struct({
  label: Schema.String,
  peer: Schema.String,
  runs: Schema.Number,
  failure: Schema.optionalKey(Schema.String),
  /** Messages per second. */
  rate: Schema.optionalKey(Figure),
  /** Bytes per second. */
  throughput: Schema.optionalKey(Figure),
  /** Microseconds of processor time per message. */
  cpu: Schema.optionalKey(Figure),
  cpuUser: Schema.optionalKey(Figure),
  cpuSystem: Schema.optionalKey(Figure),
  /** Microseconds. */
  p50: Schema.optionalKey(Figure),
  p99: Schema.optionalKey(Figure),
  /** Bytes per message. */
  allocated: Schema.optionalKey(Figure),
  /** Factor. */
  growth: Schema.optionalKey(Figure),
  /** Bytes per connection. */
  memory: Schema.optionalKey(Figure),
  /** Per second. */
  wakeups: Schema.optionalKey(Figure)
})
export type Row = typeof Row.Type

export const Goal = Schema.Struct({
  text: Schema.String,
  figure: Schema.NullOr(Schema.Number),
  reached: Schema.NullOr(Schema.Boolean)
})
export type Goal = typeof Goal.Type

export const WorkloadResult = Schema.Struct({
  id: Schema.String,
  title: Schema.String,
  unit: Schema.String,
  inBytes: Schema.Boolean,
  rows: Schema.Array(Row),
  goals: Schema.Array(Goal)
})
export type WorkloadResult = typeof WorkloadResult.Type

export const Results = Schema.Struct({
  date: Schema.String,
  quick: Schema.Boolean,
  rounds: Schema.Number,
  machine: Schema.Struct({
    cpu: Schema.String,
    cores: Schema.Number,
    memoryGiB: Schema.Number,
    kernel: Schema.String,
    loadAverage: Schema.Number
  }),
  pinned: Schema.Boolean,
  versions: Schema.Record(Schema.String, Schema.String),
  missing: Schema.Record(Schema.String, Schema.String),
  workloads: Schema.Array(WorkloadResult)
})
export type Results = typeof Results.Type

const figure = (
  samples: ReadonlyArray<Sample>,
  of: (sample: Sample) => number | undefined
): Figure | undefined => {
  const values = samples.map(of).filter((_) => _ !== undefined)
  if (values.length === 0) return undefined
  const middle = median(values)
  return { median: middle, spread: middle === 0 ? 0 : spread(values) }
}

const figures: ReadonlyArray<
  readonly [keyof Omit<Row, "label" | "peer" | "runs" | "failure">, (sample: Sample) => number | undefined]
> = [
  ["rate", (_) => _.rate],
  ["throughput", (_) => _.throughput],
  ["cpu", (_) => _.cpu && _.cpu.user + _.cpu.system],
  ["cpuUser", (_) => _.cpu?.user],
  ["cpuSystem", (_) => _.cpu?.system],
  ["p50", (_) => _.p50],
  ["p99", (_) => _.p99],
  ["allocated", (_) => _.allocated],
  ["growth", (_) => _.growth],
  ["memory", (_) => _.memory],
  ["wakeups", (_) => _.wakeups]
]

const toRow = ({ contestant, failure, samples }: MeasuredRow): Row => {
  const measured: Partial<Record<(typeof figures)[number][0], Figure>> = {}
  for (const [name, of] of figures) {
    const value = figure(samples, of)
    if (value !== undefined) measured[name] = value
  }
  return {
    label: contestant.label,
    peer: contestant.peer,
    runs: samples.length,
    ...(failure !== undefined && { failure }),
    ...measured
  }
}

const metricNames: Record<Metric, string> = {
  rate: "rate",
  cpu: "CPU per message",
  memory: "memory per connection",
  wakeups: "wake-ups per second",
  growth: "time for twice as much"
}

const toGoal = (target: Target, rows: ReadonlyArray<Row>): Goal => {
  const find = (label: string | undefined): number | undefined =>
    rows.find((_) => _.label === label)?.[target.metric]?.median
  const own = find(target.of)
  const other = target.versus === undefined ? 1 : find(target.versus)
  const bound = target.atLeast === undefined ? `≤ ${target.atMost}` : `≥ ${target.atLeast}`
  const value = own === undefined || other === undefined ? undefined : own / other
  return {
    text: `${target.of}: ${metricNames[target.metric]} ${bound}${target.versus === undefined ? "" : ` × ${target.versus}`}`,
    figure: value ?? null,
    reached:
      value === undefined
        ? null
        : value >= (target.atLeast ?? -Infinity) && value <= (target.atMost ?? Infinity)
  }
}

export const toResult = ({ rows, workload }: Outcome): WorkloadResult => {
  const summarised = rows.map(toRow)
  return {
    id: workload.id,
    title: workload.title,
    unit: workload.unit,
    inBytes: workload.kind !== "idle" && workload.inBytes,
    rows: summarised,
    goals: workload.targets.map((target) => toGoal(target, summarised))
  }
}

const encode = Schema.encodeSync(Results)
const decode = Schema.decodeUnknownSync(Schema.fromJsonString(Results))

/** Writes a results file, and the folders it is in. */
export const write = (file: string, results: Results): void => {
  fs.mkdirSync(path.dirname(file), { recursive: true })
  fs.writeFileSync(file, `${JSON.stringify(encode(results), null, 2)}\n`)
}

export const read = (file: string): Results => decode(fs.readFileSync(file, "utf8"))
