/** Runs workloads: everybody once to warm up, then round after round, each of them in every round. */
import { Effect } from "effect"
import type { ChildProcessSpawner } from "effect/process"
import * as process from "node:process"
import { contextSwitches, type Cores, cpuSince, type CpuTime, cpuTime, residentBytes } from "./Machine.ts"
import { type Argv, holdConnections, ProcessError, type Report, runReport, startServer } from "./Processes.ts"
import { load, type Peer } from "./Peers.ts"
import type { Progress } from "./Progress.ts"
import type { Contestant, Idle, InMemory, Loaded, Size, Workload } from "./Workloads.ts"

/** One run of one contestant. What does not apply is left out. */
export interface Sample {
  /** Messages per second. */
  readonly rate?: number
  /** Bytes per second. */
  readonly throughput?: number
  /** Microseconds of processor time per message, the server's only. */
  readonly cpu?: CpuTime
  /** Microseconds from a message to its reply, or from connecting to the end. */
  readonly p50?: number
  readonly p99?: number
  /** Bytes on the JavaScript or Go heap per message. */
  readonly allocated?: number
  /** How many times longer twice as much takes. */
  readonly growth?: number
  /** Bytes of resident memory per connection. */
  readonly memory?: number
  /** How often the server's threads ran in a second without traffic. */
  readonly wakeups?: number
}

export interface Row {
  readonly contestant: Contestant
  readonly samples: ReadonlyArray<Sample>
  /** Why there are no samples, or no more. */
  readonly failure: string | undefined
}

export interface Outcome {
  readonly workload: Workload
  readonly rows: ReadonlyArray<Row>
}

export interface Context {
  readonly cores: Cores
  readonly size: Size
  readonly progress: Progress
  /** Those that can run. */
  readonly peers: ReadonlyMap<string, Peer>
}

type Measure = Effect.Effect<Sample, ProcessError, ChildProcessSpawner.ChildProcessSpawner>

const program = (argv: Argv | undefined, args: ReadonlyArray<string>): Effect.Effect<Argv, ProcessError> =>
  argv === undefined
    ? Effect.fail(new ProcessError({ command: args.join(" "), detail: "the peer has no program for this" }))
    : Effect.succeed([...argv, ...args])

const perMessage = (cpu: CpuTime, messages: number): CpuTime => ({
  user: (cpu.user * 1e6) / messages,
  system: (cpu.system * 1e6) / messages
})

const toSample = (report: Report, cpu: CpuTime | undefined): Sample => ({
  rate: report.messages / report.seconds,
  throughput: report.bytes / report.seconds,
  ...(cpu !== undefined && { cpu: perMessage(cpu, report.messages) }),
  ...(report.p50 !== undefined && report.p50 > 0 && { p50: report.p50 }),
  ...(report.p99 !== undefined && report.p99 > 0 && { p99: report.p99 }),
  ...(report.allocated !== undefined && { allocated: report.allocated / report.messages }),
  ...(report.growth !== undefined && { growth: report.growth })
})

const checked = (report: Report, argv: Argv): Effect.Effect<Report, ProcessError> =>
  report.errors > 0 || report.messages === 0
    ? Effect.fail(
        new ProcessError({
          command: argv.join(" "),
          detail: `${report.messages} messages and ${report.errors} wrong answers`
        })
      )
    : Effect.succeed(report)

/** Asks the operating system about a process, which may have ended. */
const ask = <A>(what: string, question: () => A): Effect.Effect<A, ProcessError> =>
  Effect.try({
    try: question,
    catch: (cause) => new ProcessError({ command: what, detail: `the server is gone: ${String(cause)}` })
  })

/** The server stays up for all rounds, so that it is as warm as a server is. */
const makeLoaded = Effect.fnUntraced(function* (
  workload: Loaded,
  contestant: Contestant,
  peer: Peer,
  { cores, size }: Context
) {
  const argv = yield* program(peer.server, [contestant.mode, ...workload.serverArgs(size)])
  const server = yield* startServer(argv, cores)
  const generator: Argv = [load, ...workload.load(size), "--port", String(server.port)]
  const measure: Measure = Effect.gen(function* () {
    const cpu = ask(argv.join(" "), () => cpuTime(server.pid))
    const before = yield* cpu
    const report = yield* Effect.flatMap(runReport(generator, cores.generator), (_) => checked(_, generator))
    return toSample(report, cpuSince(before, yield* cpu))
  })
  return measure
})

const makeInMemory = (workload: InMemory, contestant: Contestant, peer: Peer, { cores, size }: Context) =>
  Effect.map(program(peer.memory, workload.args(size, contestant)), (argv) =>
    Effect.gen(function* () {
      const report = yield* Effect.flatMap(runReport(argv, cores.server), (_) => checked(_, argv))
      const { system, user } = report
      return toSample(report, user === undefined || system === undefined ? undefined : { user, system })
    })
  )

/** Lets a process collect its garbage. */
const settle = (argv: Argv, pid: number): Effect.Effect<void, ProcessError> =>
  Effect.andThen(
    ask(argv.join(" "), () => process.kill(pid, "SIGUSR2")),
    Effect.sleep("500 millis")
  )

/** A server that has served a hundred connections and collected its garbage, before and after there are many. */
const makeIdle = (workload: Idle, contestant: Contestant, peer: Peer, { cores, size }: Context) =>
  Effect.map(program(peer.server, [contestant.mode, "0", "64"]), (argv) =>
    Effect.gen(function* () {
      const { pid, port } = yield* startServer(argv, cores)
      const hold = (connections: number) =>
        holdConnections([load, "idle", "--connections", String(connections), "--port", String(port)], cores)
      yield* Effect.scoped(hold(100))
      const command = argv.join(" ")
      const resident = ask(command, () => residentBytes(pid))
      const switches = ask(command, () => contextSwitches(pid))
      yield* settle(argv, pid)
      const before = yield* resident
      const connections = yield* hold(workload.connections(size))
      yield* settle(argv, pid)
      const memory = ((yield* resident) - before) / connections
      const switchesBefore = yield* switches
      yield* Effect.sleep("1 second")
      const sample: Sample = { memory, wakeups: (yield* switches) - switchesBefore }
      return sample
    }).pipe(Effect.scoped)
  )

const make = (workload: Workload, contestant: Contestant, peer: Peer, context: Context) => {
  switch (workload.kind) {
    case "loaded":
      return makeLoaded(workload, contestant, peer, context)
    case "idle":
      return makeIdle(workload, contestant, peer, context)
    case "memory":
      return makeInMemory(workload, contestant, peer, context)
  }
}

/** How many runs a workload takes: the warm-up is one of them where there is one. */
export const runsOf = (workload: Workload, size: Size, peers: ReadonlyMap<string, Peer>): number =>
  workload.contestants.filter((_) => peers.has(_.peer)).length *
  (roundsOf(workload, size) + warmUps(workload))

// Programs in memory warm up by themselves; idle servers are fresh ones.
const warmUps = (workload: Workload): number => (workload.kind === "loaded" ? 1 : 0)

const roundsOf = (workload: Workload, { idleRounds, memoryRounds, rounds }: Size): number => {
  switch (workload.kind) {
    case "loaded":
      return rounds
    case "idle":
      return Math.min(rounds, idleRounds)
    case "memory":
      return Math.min(rounds, memoryRounds)
  }
}

export const runWorkload = (workload: Workload, context: Context) =>
  Effect.gen(function* () {
    const { peers, progress, size } = context
    const runners = yield* Effect.forEach(
      workload.contestants.flatMap((contestant) => {
        const peer = peers.get(contestant.peer)
        return peer === undefined ? [] : [{ contestant, peer }]
      }),
      ({ contestant, peer }) =>
        Effect.gen(function* () {
          const samples: Array<Sample> = []
          const measure = yield* Effect.result(make(workload, contestant, peer, context))
          return {
            contestant,
            samples,
            measure: measure._tag === "Success" ? measure.success : undefined,
            failure: measure._tag === "Failure" ? measure.failure.message : undefined
          }
        })
    )
    const rounds = roundsOf(workload, size)
    for (let round = 1 - warmUps(workload); round <= rounds; round++) {
      for (const runner of runners) {
        yield* progress.begin(
          `${workload.id} ${round === 0 ? "warm-up" : `round ${round} of ${rounds}`} ${runner.contestant.label}`
        )
        if (runner.measure !== undefined && runner.failure === undefined) {
          const result = yield* Effect.result(runner.measure)
          if (result._tag === "Failure") runner.failure = result.failure.message
          else if (round > 0) runner.samples.push(result.success)
        }
        yield* progress.step
      }
    }
    const outcome: Outcome = {
      workload,
      rows: runners.map(({ contestant, failure, samples }) => ({ contestant, failure, samples }))
    }
    return outcome
  }).pipe(Effect.scoped)
