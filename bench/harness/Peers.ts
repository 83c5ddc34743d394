/** Who is measured: how each peer's programs are started, and what it takes for them to run. */
import { Effect, Schema } from "effect"
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { hasProgram, versionOf } from "./Machine.ts"
import type { Argv } from "./Processes.ts"

export const root = path.join(import.meta.dirname, "..", "..")
const peers = path.join(root, "bench", "peers")
const built = path.join(root, ".cache", "bench")

/** Why a peer, or the generator, cannot run here. */
export class Missing extends Schema.TaggedError<Missing>("Missing")("Missing", { reason: Schema.String }) {
  override get message(): string {
    return this.reason
  }
}

export interface Peer {
  readonly name: string
  readonly description: string
  /** Builds what has to be built, and tells the version of what runs it. */
  readonly prepare: Effect.Effect<string, Missing>
  /** The server program, which takes a mode and its arguments. */
  readonly server: Argv | undefined
  /** The program that works in memory, which takes a case and a number of bytes. */
  readonly memory: Argv | undefined
}

const isNewer = (file: string, than: string): boolean =>
  fs.existsSync(file) && fs.statSync(file).mtimeMs > fs.statSync(than).mtimeMs

/** Builds a program unless it is newer than its source. */
const build = (options: {
  readonly source: string
  readonly target: string
  readonly command: Argv
  readonly cwd?: string
}): Effect.Effect<void, Missing> =>
  Effect.callback((resume) => {
    if (isNewer(options.target, options.source)) return resume(Effect.void)
    fs.mkdirSync(built, { recursive: true })
    const [program, ...args] = options.command
    const child = execFile(program, args, { cwd: options.cwd ?? root }, (error, _stdout, stderr) =>
      resume(
        error === null
          ? Effect.void
          : Effect.fail(new Missing({ reason: `${program} failed: ${stderr.trim() || error.message}` }))
      )
    )
    return Effect.sync(() => child.kill())
  })

const needs = (program: string, hint: string): Effect.Effect<void, Missing> =>
  Effect.suspend(() =>
    hasProgram(program) ? Effect.void : Effect.fail(new Missing({ reason: `no ${program}; ${hint}` }))
  )

const buildC = (source: string, name: string): Effect.Effect<void, Missing> =>
  Effect.andThen(
    needs("cc", "install a C compiler"),
    build({
      source,
      target: path.join(built, name),
      command: ["cc", "-O2", "-o", path.join(built, name), source]
    })
  )

/** Builds the load generator. */
export const buildLoad: Effect.Effect<void, Missing> = buildC(
  path.join(root, "bench", "load", "load.c"),
  "load"
)

export const load = path.join(built, "load")

const node = (file: string): Argv => [
  process.execPath,
  "--conditions=source",
  "--expose-gc",
  path.join(peers, file)
]

const nodeVersion = Effect.sync(() => `Node ${process.version}`)

const effectVersion = Effect.sync(() => {
  const file = path.join(root, "node_modules", "effect", "package.json")
  const { version } = Schema.decodeUnknownSync(
    Schema.fromJsonString(Schema.Struct({ version: Schema.String }))
  )(fs.readFileSync(file, "utf8"))
  return `Effect ${version}, Node ${process.version}`
})

const python = (program: string, hint: string): Effect.Effect<string, Missing> =>
  Effect.suspend(() => {
    // The timeouts are `asyncio.timeout`, which came with 3.11.
    const version = versionOf(
      program,
      "-c",
      "import sys; print(sys.version.split()[0]); sys.exit(sys.version_info < (3, 11))"
    )
    return version === undefined
      ? Effect.fail(new Missing({ reason: `no Python 3.11 or later as ${program}; ${hint}` }))
      : Effect.succeed(`Python ${version}`)
  })

// Where Debian's python3-uvloop is; another Python first on the PATH does not see it.
const DEBIAN_PYTHON = "/usr/bin/python3"

const goFolder = path.join(peers, "go")

export const all: ReadonlyArray<Peer> = [
  {
    name: "effect-wire",
    description: "this library",
    prepare: effectVersion,
    server: node("effect-wire.ts"),
    memory: node("memory/effect-wire.ts")
  },
  {
    name: "node-net",
    description: "node:net by hand",
    prepare: nodeVersion,
    server: node("node-net.ts"),
    memory: node("memory/node-net.ts")
  },
  {
    name: "node-readline",
    description: "node:readline over a socket",
    prepare: nodeVersion,
    server: node("node-readline.ts"),
    memory: node("memory/node-readline.ts")
  },
  {
    name: "effect-socket",
    description: "Effect's NodeSocketServer and Socket",
    prepare: effectVersion,
    server: node("effect-socket.ts"),
    memory: node("memory/effect-stream.ts")
  },
  {
    name: "asyncio",
    description: "Python asyncio streams",
    prepare: python("python3", "install python3"),
    server: ["python3", path.join(peers, "asyncio_streams.py")],
    memory: ["python3", path.join(peers, "memory", "asyncio_streams.py")]
  },
  {
    name: "uvloop",
    description: "Python asyncio streams on uvloop",
    prepare: Effect.gen(function* () {
      const version = yield* python(DEBIAN_PYTHON, "install python3-uvloop")
      const uvloop = versionOf(DEBIAN_PYTHON, "-c", "import uvloop; print(uvloop.__version__)")
      if (uvloop === undefined) {
        return yield* new Missing({ reason: `no uvloop for ${DEBIAN_PYTHON}; install python3-uvloop` })
      }
      return `uvloop ${uvloop}, ${version}`
    }),
    server: [DEBIAN_PYTHON, path.join(peers, "asyncio_streams.py"), "--uvloop"],
    memory: undefined
  },
  {
    name: "go",
    description: "Go net and bufio",
    prepare: Effect.gen(function* () {
      yield* needs("go", "install golang")
      yield* build({
        source: path.join(goFolder, "main.go"),
        target: path.join(built, "go-peer"),
        command: ["go", "build", "-o", path.join(built, "go-peer"), "."],
        cwd: goFolder
      })
      return (versionOf("go", "version") ?? "go").replace("go version go", "Go ")
    }),
    server: [path.join(built, "go-peer")],
    memory: [path.join(built, "go-peer"), "memory"]
  },
  {
    name: "epoll",
    description: "an epoll loop in C: the machine's limit",
    prepare: Effect.andThen(
      buildC(path.join(peers, "epoll.c"), "epoll"),
      Effect.sync(() => versionOf("cc", "--version")?.split("\n")[0] ?? "cc")
    ),
    server: [path.join(built, "epoll")],
    memory: undefined
  }
]
