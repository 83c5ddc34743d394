import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"

/** A number of somebody's that is shown as a metric. */
interface Shown {
  readonly id: string
  readonly isCounter: boolean
  readonly value: () => number
  readonly register: (
    attributes: Metric.Metric.AttributeSet,
    context: Context.Context<never>,
    sum: () => number
  ) => Metric.Registration
}

// What is only read from elsewhere takes no values.
const inert = { update: () => {}, modify: () => {} }

export const gauge = (metric: Metric.Gauge<number>, value: () => number): Shown => ({
  id: metric.id,
  isCounter: false,
  value,
  register: (attributes, context, sum) =>
    Metric.registerUnsafe(Metric.withAttributes(metric, attributes), context, {
      ...inert,
      get: () => ({ value: sum() })
    })
})

export const counter = (metric: Metric.Counter<number>, value: () => number): Shown => ({
  id: metric.id,
  isCounter: true,
  value,
  register: (attributes, context, sum) =>
    Metric.registerUnsafe(Metric.withAttributes(metric, attributes), context, {
      ...inert,
      get: () => ({ count: sum(), incremental: true })
    })
})

/** A series of a registry, and who shows numbers in it. */
interface Series {
  readonly values: Set<() => number>
  readonly registration: Metric.Registration
  /** What the counters of those have come to who are gone: a counter does not go back. */
  past: number
}

// A registry keeps one series of a name and the same attributes: a second one would take the first one's place.
const registries = new WeakMap<Metric.MetricRegistry, Map<string, Series>>()

const join = (
  { id, isCounter, register, value }: Shown,
  attributes: Metric.Metric.AttributeSet,
  context: Context.Context<never>
): (() => void) => {
  const registry = Context.get(context, Metric.MetricRegistry)
  const all = registries.get(registry) ?? new Map<string, Series>()
  registries.set(registry, all)
  const key = JSON.stringify([id, Context.get(context, Metric.CurrentMetricAttributes), attributes])

  const begin = (): Series => {
    const values = new Set<() => number>()
    const sum = (): number => {
      let total = series.past
      for (const value of values) total += value()
      return total
    }
    const series = { values, registration: register(attributes, context, sum), past: 0 }
    all.set(key, series)
    return series
  }
  const series = all.get(key) ?? begin()
  series.values.add(value)
  return () => {
    series.values.delete(value)
    if (isCounter) series.past += value()
    if (series.values.size > 0) return
    series.registration.remove()
    all.delete(key)
  }
}

/**
 * Shows numbers until the scope ends. They are read when metrics are collected, and cost nothing in between. Who has the same
 * attributes shares a series, which is the sum.
 */
export const show = (
  attributes: Metric.Metric.AttributeSet,
  numbers: ReadonlyArray<Shown>
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(
    Effect.acquireRelease(
      Effect.withFiberSucceed(({ context }) => numbers.map((number) => join(number, attributes, context))),
      (leave) => Effect.sync(() => leave.forEach((_) => _()))
    )
  )
