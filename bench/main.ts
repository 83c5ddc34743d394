// npm run bench: every workload against every peer that can run here.
//   npm run bench -- --only W1,W2 --rounds 9
//   npm run bench -- --quick           under a minute: the library and plain node:net only
//   npm run bench -- --plot            draws docs/bench/*.svg from the results of this run
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Option, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import * as path from "node:path"
import { cores as findCores, machine } from "./harness/Machine.ts"
import * as Peers from "./harness/Peers.ts"
import * as Progress from "./harness/Progress.ts"
import * as Results from "./harness/Results.ts"
import { runsOf, runWorkload } from "./harness/Run.ts"
import * as Table from "./harness/Table.ts"
import * as Workloads from "./harness/Workloads.ts"

const resultsFolder = path.join(Peers.root, "bench", "results")

/** Nothing is measured under such a name. */
class UnknownWorkload extends Schema.TaggedError<UnknownWorkload>("UnknownWorkload")("UnknownWorkload", {
  name: Schema.String
}) {
  override get message(): string {
    return `There is no workload ${this.name}. There are: ${Workloads.all.map((_) => _.id).join(", ")}`
  }
}

/** `W3` names `W3-send` and `W3-receive`. */
const selectWorkloads = (only: string) => {
  const names = only.split(",").map((_) => _.trim().toLowerCase())
  const isNamed = (id: string, name: string): boolean =>
    id.toLowerCase() === name || id.toLowerCase().startsWith(`${name}-`)
  const unknown = names.find((name) => !Workloads.all.some(({ id }) => isNamed(id, name)))
  return unknown === undefined
    ? Effect.succeed(Workloads.all.filter(({ id }) => names.some((name) => isNamed(id, name))))
    : Effect.fail(new UnknownWorkload({ name: unknown }))
}

/** The peers that can run, and why the others cannot. */
const preparePeers = Effect.fnUntraced(function* (names: ReadonlySet<string>) {
  const ready = new Map<string, Peers.Peer>()
  const versions: Record<string, string> = {}
  const missing: Record<string, string> = {}
  for (const peer of Peers.all.filter(({ name }) => names.has(name))) {
    const result = yield* Effect.result(peer.prepare)
    if (result._tag === "Success") {
      ready.set(peer.name, peer)
      versions[peer.name] = result.success
    } else {
      missing[peer.name] = result.failure.reason
    }
  }
  return { ready, versions, missing }
})

const bench = Effect.fnUntraced(function* (options: {
  readonly only: string | undefined
  readonly rounds: number | undefined
  readonly isQuick: boolean
}) {
  const base = options.isQuick ? Workloads.quick : Workloads.full
  const size: Workloads.Size = { ...base, rounds: options.rounds ?? base.rounds }
  const selected = options.only === undefined ? Workloads.all : yield* selectWorkloads(options.only)
  const workloads = options.isQuick ? selected.map(Workloads.toQuick) : selected
  yield* Peers.buildLoad
  const { missing, ready, versions } = yield* preparePeers(
    new Set(workloads.flatMap(({ contestants }) => contestants.map(({ peer }) => peer)))
  )
  const cores = yield* findCores
  const head = {
    date: new Date().toISOString(),
    quick: options.isQuick,
    rounds: size.rounds,
    machine: machine(),
    pinned: cores.server !== undefined,
    versions,
    missing
  }
  yield* Console.log(`${Table.header(head)}\n`)

  const total = workloads.reduce((sum, workload) => sum + runsOf(workload, size, ready), 0)
  const progress = Progress.make(total)
  const done: Array<Results.WorkloadResult> = []
  for (const workload of workloads) {
    const outcome = yield* Effect.ensuring(
      runWorkload(workload, { cores, size, progress, peers: ready }),
      progress.clear
    )
    const result = Results.toResult(outcome)
    done.push(result)
    yield* Console.log(`${Table.workload(result)}\n`)
  }
  const results: Results.Results = { ...head, workloads: done }
  const file = path.join(resultsFolder, `${head.date.replaceAll(/[:.]/g, "-")}.json`)
  Results.write(file, results)
  yield* Console.log(`${Table.goals(done)}; written to ${path.relative(Peers.root, file)}`)
  return results
})

const main = Command.make(
  "bench",
  {
    only: Flag.String("only").pipe(
      Flag.withDescription("Workloads to run, with commas between them: W1,W3-send"),
      Flag.optional
    ),
    rounds: Flag.Int("rounds").pipe(
      Flag.withDescription("Rounds that count, after the warm-up"),
      Flag.optional
    ),
    quick: Flag.Boolean("quick").pipe(
      Flag.withDescription("Under a minute: ratios to plain node:net, with generous margins"),
      Flag.withDefault(false)
    ),
    plot: Flag.Boolean("plot").pipe(
      Flag.withDescription("Draw docs/bench/*.svg from the results"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({ only, quick, rounds }) {
    yield* bench({
      only: Option.getOrUndefined(only),
      rounds: Option.getOrUndefined(rounds),
      isQuick: quick
    })
  })
).pipe(Command.withDescription("Measure the library and its peers, side by side"))

Command.run(main, { version: "0.1.0" }).pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
