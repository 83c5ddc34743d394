import { Tracer } from "effect"

/** A tracer that remembers. */
export const makeTracer = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return {
    spans,
    tracer,
    /** The spans of some name, in the order of their beginnings. */
    named: (name: string) => spans.filter((_) => _.name === name)
  }
}
