import { Effect, Schedule, type Scope } from "effect"
import { Connection, type Network } from "effect-wire"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { describe } from "vitest"

export const isInstalled = (program: string): boolean => spawnSync("which", [program]).status === 0

// On a developer's machine a missing program is skipped, visibly; CI has to have them all.
export const describeWith = (program: string, title: string, body: () => void): void =>
  describeUnless(isInstalled(program) ? undefined : `${program} is not installed`, title, body)

/** The same for whatever else a developer's machine may lack. */
export const describeUnless = (lack: string | undefined, title: string, body: () => void): void => {
  const skipped = lack !== undefined && process.env["CI"] === undefined
  describe.skipIf(skipped)(skipped ? `${title} (skipped: ${lack})` : title, body)
}

export interface Peer {
  readonly child: ChildProcess
  /** The next line that it prints. */
  readonly line: Effect.Effect<string>
  readonly exit: Effect.Effect<{ readonly code: number | null; readonly output: string }>
}

/** A program, killed with the scope. */
export const spawnPeer = (
  command: string,
  args: ReadonlyArray<string>
): Effect.Effect<Peer, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"] })
      let output = ""
      let seen = 0
      let waiting: (() => void) | undefined
      const add = (chunk: Buffer) => {
        output += chunk.toString()
        waiting?.()
      }
      child.stdout.on("data", add)
      child.stderr.on("data", add)
      const exit = new Promise<{ code: number | null; output: string }>((resolve) =>
        child.on("close", (code) => resolve({ code, output }))
      )
      const line = Effect.callback<string>((resume) => {
        waiting = () => {
          const end = output.indexOf("\n", seen)
          if (end === -1) return
          const text = output.slice(seen, end)
          seen = end + 1
          waiting = undefined
          resume(Effect.succeed(text))
        }
        waiting()
      })
      return { child, line, exit: Effect.promise(() => exit) }
    }),
    ({ child, exit }) =>
      Effect.andThen(
        Effect.sync(() => child.kill("SIGKILL")),
        exit
      )
  )

/** Waits until a program prints a line like that; the lines before it tell of its start. */
export const says = ({ line }: Peer, pattern: RegExp): Effect.Effect<void> =>
  Effect.asVoid(Effect.repeat(line, { until: (text) => pattern.test(text) }))

/** Waits until somebody listens: some programs do not say when they do. */
export const ready = (target: Network.Target) =>
  Effect.retry(Effect.scoped(Connection.connect(target)), {
    schedule: Schedule.spaced("20 millis"),
    times: 250
  })

/** An empty folder, removed with the scope. */
export const tempFolder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "wire-"))),
  (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true, force: true }))
)
