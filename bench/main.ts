// npm run bench: every workload against every peer that can run here.
//   npm run bench -- --only W1,W2 --rounds 9
//   npm run bench -- --peers effect-wire,go
//   npm run bench -- --quick           under a minute: the library and plain node:net only
//   npm run bench -- --plot            draws docs/bench/*.svg from the results of this run
//   npm run bench -- --plot --from bench/results/latest.json     draws them without measuring
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Option, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import * as fs from "node:fs"
import * as path from "node:path"
import { cores as findCores, machine } from "./harness/Machine.ts"
import * as Peers from "./harness/Peers.ts"
import { draw } from "./harness/Plot.ts"
import * as Progress from "./harness/Progress.ts"
import * as Results from "./harness/Results.ts"
import { runsOf, runWorkload } from "./harness/Run.ts"
import * as Table from "./harness/Table.ts"
import * as Workloads from "./harness/Workloads.ts"

const resultsFolder = path.join(Peers.root, "bench", "results")

const plotFolder = path.join(Peers.root, "docs", "bench")

/** Nothing is measured under such a name. */
class UnknownName extends Schema.TaggedError<UnknownName>("UnknownName")("UnknownName", {
  kind: Schema.String,
  name: Schema.String,
  known: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `There is no ${this.kind} "${this.name}". There are: ${this.known.join(", ")}`
  }
}

const namesIn = (list: string): ReadonlyArray<string> => list.split(",").map((_) => _.trim().toLowerCase())

/** `W3` names `W3-send` and `W3-receive`. */
const selectWorkloads = (only: string) => {
  const names = namesIn(only)
  const isNamed = (id: string, name: string): boolean =>
    id.toLowerCase() === name || id.toLowerCase().startsWith(`${name}-`)
  const unknown = names.find((name) => !Workloads.all.some(({ id }) => isNamed(id, name)))
  return unknown === undefined
    ? Effect.succeed(Workloads.all.filter(({ id }) => names.some((name) => isNamed(id, name))))
    : Effect.fail(
        new UnknownName({ kind: "workload", name: unknown, known: Workloads.all.map(({ id }) => id) })
      )
}

const selectPeers = (list: string) => {
  const names = namesIn(list)
  const known = Peers.all.map(({ name }) => name)
  const unknown = names.find((name) => !known.includes(name))
  return unknown === undefined
    ? Effect.succeed(names)
    : Effect.fail(new UnknownName({ kind: "peer", name: unknown, known }))
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
  readonly peers: string | undefined
  readonly rounds: number | undefined
  readonly isQuick: boolean
}) {
  const base = options.isQuick ? Workloads.quick : Workloads.full
  const size: Workloads.Size = { ...base, rounds: options.rounds ?? base.rounds }
  const selected = options.only === undefined ? Workloads.all : yield* selectWorkloads(options.only)
  const peers =
    options.peers !== undefined
      ? yield* selectPeers(options.peers)
      : options.isQuick
        ? Workloads.quickPeers
        : Peers.all.map(({ name }) => name)
  const taking = selected
    .map((_) => Workloads.withPeers(_, peers))
    .filter(({ contestants }) => contestants.length > 0)
  const workloads = options.isQuick ? taking.map(Workloads.toQuick) : taking
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
  // The one that is kept holds everything, measured in full.
  const isWhole = !options.isQuick && options.only === undefined && options.peers === undefined
  if (isWhole) Results.write(path.join(resultsFolder, "latest.json"), results)
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
    peers: Flag.String("peers").pipe(
      Flag.withDescription("Who takes part, with commas between them: effect-wire,node-net"),
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
      Flag.withDescription("Write docs/bench/results.md and its charts from the results"),
      Flag.withDefault(false)
    ),
    from: Flag.String("from").pipe(
      Flag.withDescription("With --plot: draw this results file, and measure nothing"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ from, only, peers, plot, quick, rounds }) {
    const file = Option.getOrUndefined(from)
    const results =
      file === undefined
        ? yield* bench({
            only: Option.getOrUndefined(only),
            peers: Option.getOrUndefined(peers),
            rounds: Option.getOrUndefined(rounds),
            isQuick: quick
          })
        : Results.read(file)
    if (plot) {
      const drawn = draw(results, plotFolder)
      fs.writeFileSync(path.join(plotFolder, "results.md"), Table.page(results))
      yield* Console.log(`drawn: ${drawn.map((_) => path.relative(Peers.root, _)).join(", ")}`)
    }
  })
).pipe(Command.withDescription("Measure the library and its peers, side by side"))

const fail = (error: { readonly message: string }) =>
  Effect.andThen(
    Console.error(error.message),
    Effect.sync(() => {
      process.exitCode = 1
    })
  )

Command.run(main, { version: "0.1.0" }).pipe(
  Effect.catchTags({ UnknownName: fail, Missing: fail }),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
