/** The server programs and the load generator, as processes on cores of their own. */
import { Effect, Option, Schema, Stream } from "effect"
import { ChildProcess, type ChildProcessSpawner } from "effect/process"
import type { Cores } from "./Machine.ts"

/** A program and its arguments. */
export type Argv = readonly [string, ...Array<string>]

/** A program that did not do what it was started for. */
export class ProcessError extends Schema.TaggedError<ProcessError>("ProcessError")("ProcessError", {
  command: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.command}: ${this.detail}`
  }
}

// 10,000 connections need as many descriptors.
const RAISE_LIMIT = 'ulimit -n "$(ulimit -Hn)"; exec "$@"'

const spawn = (argv: Argv, core: number | undefined) => {
  const pinned = core === undefined ? argv : ["taskset", "-c", String(core), ...argv]
  return ChildProcess.make("sh", ["-c", RAISE_LIMIT, "sh", ...pinned], {
    stderr: "inherit",
    killSignal: "SIGTERM",
    forceKillAfter: "1 second"
  }).pipe(Effect.mapError((cause) => new ProcessError({ command: argv.join(" "), detail: cause.message })))
}

const lines = (handle: ChildProcessSpawner.ChildProcessHandle) =>
  handle.stdout.pipe(Stream.decodeText, Stream.splitLines)

const firstLine = Effect.fnUntraced(function* (handle: ChildProcessSpawner.ChildProcessHandle, argv: Argv) {
  const line = yield* Stream.runHead(lines(handle)).pipe(
    Effect.timeoutOption("20 seconds"),
    Effect.map(Option.flatten),
    Effect.mapError((cause) => new ProcessError({ command: argv.join(" "), detail: cause.message }))
  )
  return yield* Option.match(line, {
    onNone: () =>
      Effect.fail(new ProcessError({ command: argv.join(" "), detail: "it ended without a word" })),
    onSome: Effect.succeed
  })
})

export interface ServerProcess {
  readonly pid: number
  readonly port: number
}

/** Starts a server, which ends with the scope. */
export const startServer = Effect.fnUntraced(function* (argv: Argv, cores: Cores) {
  const handle = yield* spawn(argv, cores.server)
  const line = yield* firstLine(handle, argv)
  const port = Number(/^PORT (\d+)$/.exec(line)?.[1])
  if (!(port > 0)) {
    return yield* new ProcessError({ command: argv.join(" "), detail: `expected "PORT n", got "${line}"` })
  }
  const server: ServerProcess = { pid: handle.pid, port }
  return server
})

/** What the load generator and the programs in memory report, as far as all have it. */
export const Report = Schema.Struct({
  messages: Schema.Number,
  bytes: Schema.Number,
  seconds: Schema.Number,
  errors: Schema.Number,
  p50: Schema.optionalKey(Schema.Number),
  p99: Schema.optionalKey(Schema.Number),
  user: Schema.optionalKey(Schema.Number),
  system: Schema.optionalKey(Schema.Number),
  allocated: Schema.optionalKey(Schema.Number),
  growth: Schema.optionalKey(Schema.Number)
})
export type Report = typeof Report.Type

const decodeReport = Schema.decodeUnknownEffect(Schema.fromJsonString(Report))

/** Runs a program to its end and decodes the report that it prints. */
export const runReport = (argv: Argv, core: number | undefined) =>
  Effect.gen(function* () {
    const handle = yield* spawn(argv, core)
    const output = yield* handle.stdout.pipe(Stream.decodeText, Stream.mkString)
    const exitCode = yield* handle.exitCode
    if (exitCode !== 0) {
      return yield* new ProcessError({ command: argv.join(" "), detail: `it ended with code ${exitCode}` })
    }
    return yield* decodeReport(output)
  }).pipe(
    Effect.scoped,
    Effect.timeout("2 minutes"),
    Effect.mapError((cause) =>
      cause._tag === "ProcessError"
        ? cause
        : new ProcessError({ command: argv.join(" "), detail: cause.message })
    )
  )

/** Starts the generator that opens connections and holds them until the scope ends; returns how many there are. */
export const holdConnections = Effect.fnUntraced(function* (argv: Argv, cores: Cores) {
  const handle = yield* spawn(argv, cores.generator)
  const line = yield* firstLine(handle, argv)
  const ready = Number(/"ready":(\d+)/.exec(line)?.[1])
  if (!(ready > 0)) {
    return yield* new ProcessError({
      command: argv.join(" "),
      detail: `expected {"ready": n}, got "${line}"`
    })
  }
  return ready
})
