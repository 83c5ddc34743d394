/**
 * Child processes as connections: what is written goes to the program's standard input, what is read is its standard output.
 *
 * Programs are described by `ChildProcess` of `effect/process` and started by whatever `ChildProcessSpawner` is provided;
 * `NodeServices.layer` of `@effect/platform-node` has Node's.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as PlatformError from "effect/PlatformError"
import type * as Scope from "effect/Scope"
import * as ChildProcess from "effect/process/ChildProcess"
import * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Connection from "./Connection.ts"
import { checkOptions } from "./internal/connection.ts"
import { natural } from "./internal/limits.ts"
import type { LimitOverrunError, ReadError, WriteError } from "./StreamError.ts"
import * as StreamReader from "./StreamReader.ts"

/**
 * A running program.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subprocess {
  readonly pid: number
  /** Standard input and output. `writer.end` is the end of the program's input, its exit or its own end that of ours. */
  readonly connection: Connection.Connection
  /**
   * Standard error, apart from the rest. It is held up when 2 × `limit` bytes wait unread, so a program that writes more has
   * to be read, or given another `stderr` in its command (`"inherit"`, `"ignore"`, a `Sink`); then there is nothing here.
   */
  readonly stderr: StreamReader.StreamReader
  /** Waits for the exit code. Fails if the program was ended by a signal. */
  readonly exitCode: Effect.Effect<number, PlatformError.PlatformError>
  readonly isRunning: Effect.Effect<boolean, PlatformError.PlatformError>
  /**
   * Ends the program: with the signal, or SIGTERM, and by SIGKILL after `forceKillAfter` if that is given; and waits until it
   * has exited. With a signal that the program goes on after, that is later; to send one and not wait, use Node's
   * `process.kill(pid, signal)`. Fails if the program has exited already.
   */
  readonly kill: (options?: ChildProcess.KillOptions) => Effect.Effect<void, PlatformError.PlatformError>
}

/**
 * Starts a program, which belongs to the scope.
 *
 * - When the scope ends well, what was written is handed over, the input is ended, and the end of the output awaited for
 *   `closeTimeout`, 5 seconds unless set. Then, or at once if the scope fails, the program is killed if it still runs:
 *   with the command's `killSignal`, or SIGTERM, and by SIGKILL if that has not ended it after the command's
 *   `forceKillAfter`, or `closeTimeout`.
 * - Writing to a program that does not read any more is a `BrokenPipe`; its output can still be read to the end.
 *
 * Fails with `PlatformError` if the program cannot be started.
 *
 * **Example** (Sorting)
 *
 * ```ts
 * import { NodeServices } from "@effect/platform-node"
 * import { Effect } from "effect"
 * import { ChildProcess } from "effect/process"
 * import { Subprocess } from "effect-wire"
 *
 * const program = Effect.gen(function* () {
 *   const { connection, exitCode } = yield* Subprocess.spawn(ChildProcess.make("sort", []))
 *   yield* connection.writer.write("pear\napple\n")
 *   yield* connection.writer.end
 *   const sorted = new TextDecoder().decode(yield* connection.reader.readAll())
 *   return { sorted, exitCode: yield* exitCode }
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(NodeServices.layer))))
 * // { sorted: "apple\npear\n", exitCode: 0 }
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const spawn = (
  command: ChildProcess.Command,
  options?: Connection.Options
): Effect.Effect<
  Subprocess,
  PlatformError.PlatformError,
  ChildProcessSpawner.ChildProcessSpawner | Scope.Scope
> =>
  Effect.gen(function* () {
    // Before anything is started.
    const { timeout } = checkOptions(options).closing
    const mortal = timeout === Infinity ? command : forceKillAfter(command, timeout)
    const handle = yield* ChildProcessSpawner.ChildProcessSpawner.use((spawner) => spawner.spawn(mortal))
    const stderr = yield* StreamReader.fromStream(handle.stderr, options)
    const connection = yield* Connection.fromStreams(
      { stream: handle.stdout, sink: handle.stdin },
      { ...options, kind: "process" }
    )
    const { exitCode, isRunning, kill, pid } = handle
    return { pid, connection, stderr, exitCode, isRunning, kill }
  })

/**
 * Options of `run`.
 *
 * @category models
 * @since 0.1.0
 */
export interface RunOptions extends Connection.Options {
  /** What the program reads, before the end of its input. Default: nothing. */
  readonly input?: Uint8Array | string | undefined
  /** The most bytes of each of the two outputs. Default 16 MiB. */
  readonly maxBytes?: number | undefined
}

/**
 * What came of a program.
 *
 * @category models
 * @since 0.1.0
 */
export interface Completed {
  readonly exitCode: number
  readonly stdout: Uint8Array
  readonly stderr: Uint8Array
}

/**
 * Runs a program to its end: gives it the input, and takes both outputs meanwhile, so neither side waits for the other. An
 * exit code other than 0 is no failure, nor is a program that does not read all of its input.
 *
 * Fails with `PlatformError` if the program cannot be started or was ended by a signal, with `LimitOverrunError` if an output
 * is longer than `maxBytes`, and with the errors of reading and writing. A failure, or interrupting it, kills the program.
 * Options out of range are a `RangeError` defect, before anything is started.
 *
 * **Example** (A program that fails)
 *
 * ```ts
 * import { NodeServices } from "@effect/platform-node"
 * import { Effect } from "effect"
 * import { ChildProcess } from "effect/process"
 * import { Subprocess } from "effect-wire"
 *
 * const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)
 *
 * const program = Effect.gen(function* () {
 *   const command = ChildProcess.make("sh", ["-c", "wc -c; echo sorry >&2; exit 3"])
 *   const { exitCode, stderr, stdout } = yield* Subprocess.run(command, { input: "hello" })
 *   return [exitCode, text(stdout).trim(), text(stderr)]
 * })
 *
 * console.log(await Effect.runPromise(Effect.provide(program, NodeServices.layer))) // [ 3, "5", "sorry\n" ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = (
  command: ChildProcess.Command,
  options?: RunOptions
): Effect.Effect<
  Completed,
  PlatformError.PlatformError | LimitOverrunError | ReadError | WriteError,
  ChildProcessSpawner.ChildProcessSpawner
> =>
  Effect.gen(function* () {
    const limit = options?.maxBytes === undefined ? {} : { maxBytes: natural("maxBytes", options.maxBytes) }
    const { connection, exitCode, stderr } = yield* spawn(command, options)
    const { reader, writer } = connection
    const fed = Effect.andThen(writer.write(options?.input ?? ""), writer.end).pipe(
      // Whoever has read enough does not have to read on.
      Effect.catchReason("ConnectionError", "BrokenPipe", () => Effect.void)
    )
    const [code, output, errors] = yield* Effect.all(
      [exitCode, reader.readAll(limit), stderr.readAll(limit), fed],
      { concurrency: "unbounded" }
    )
    return { exitCode: code, stdout: output, stderr: errors }
  }).pipe(Effect.scoped)

// A program that ignores the signal would hold up the scope's end for ever.
const forceKillAfter = (command: ChildProcess.Command, millis: number): ChildProcess.Command =>
  command._tag === "StandardCommand"
    ? ChildProcess.make(command.command, command.args, {
        ...command.options,
        forceKillAfter: command.options.forceKillAfter ?? millis
      })
    : ChildProcess.pipeTo(
        forceKillAfter(command.left, millis),
        forceKillAfter(command.right, millis),
        command.options
      )
