import { NodeServices } from "@effect/platform-node"
import { describe, it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Deferred, Duration, Effect, Exit, Fiber, Option, Scope, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { Subprocess } from "effect-wire"
import * as fs from "node:fs"
import { outcome, outcomeOf, start } from "../support/effects.ts"
import { loops } from "../support/sockets.ts"

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

/** A program of Node's, from its source. */
const node = (source: string) => ChildProcess.make(process.execPath, ["-e", source])

const live = (
  name: string,
  body: () => Effect.Effect<void, unknown, ChildProcessSpawner.ChildProcessSpawner | Scope.Scope>
) => it.live(name, () => Effect.suspend(body).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

/** How much a program has written so far, to wherever. */
const bytesWrittenBy = (pid: number): number =>
  Number(/wchar: (\d+)/.exec(fs.readFileSync(`/proc/${pid}/io`, "utf8"))?.[1])

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

const childrenOf = (pid: number): ReadonlyArray<string> =>
  fs
    .readdirSync(`/proc/${pid}/task`)
    .flatMap((task) => fs.readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").split(" "))
    .filter((child) => child !== "")

describe("Subprocess", () => {
  live("talks to cat, both ways, until its end", () =>
    Effect.gen(function* () {
      const { connection, exitCode } = yield* Subprocess.spawn(ChildProcess.make("cat", []))
      const { reader, writer } = connection
      strictEqual(connection.info.transport, "process")
      yield* writer.write("one\n")
      deepStrictEqual(yield* reader.readLineString, Option.some("one"))
      yield* writer.write("two")
      yield* writer.end
      strictEqual(text(yield* reader.readAll()), "two")
      strictEqual(yield* exitCode, 0)
      yield* connection.closed
    })
  )

  live("gives sort its input and its end", () =>
    Effect.gen(function* () {
      const { connection } = yield* Subprocess.spawn(ChildProcess.make("sort", ["-n"]))
      const numbers = Array.from({ length: 20_000 }, (_, i) => (i * 7919) % 20_000)
      yield* connection.writer.write(`${numbers.join("\n")}\n`)
      yield* connection.writer.end
      const lines = text(yield* connection.reader.readAll())
        .trimEnd()
        .split("\n")
        .map(Number)
      deepStrictEqual(
        lines,
        [...numbers].sort((a, b) => a - b)
      )
    })
  )

  live("a program that exits early breaks the pipe, and its output is still read", () =>
    Effect.gen(function* () {
      const { connection, exitCode } = yield* Subprocess.spawn(ChildProcess.make("head", ["-c", "5"]))
      const writing = yield* start(Effect.forever(connection.writer.write(new Uint8Array(65_536).fill(0x61))))
      yield* Fiber.await(writing.fiber)
      strictEqual(outcome(writing), "BrokenPipe")
      strictEqual(text(yield* connection.reader.readAll()), "aaaaa")
      strictEqual(yield* exitCode, 0)
      strictEqual(yield* outcomeOf(connection.closed), "BrokenPipe")
    })
  )

  live("keeps a large standard error apart", () =>
    Effect.gen(function* () {
      const { connection, exitCode, stderr } = yield* Subprocess.spawn(
        node(
          `process.stderr.write("e".repeat(5_000_000), () => { process.stdout.write("done"); process.exitCode = 3 })`
        )
      )
      const [errors, output] = yield* Effect.all([stderr.readAll(), connection.reader.readAll()], {
        concurrency: "unbounded"
      })
      deepStrictEqual([errors.length, text(output), yield* exitCode], [5_000_000, "done", 3])
    })
  )

  live("holds up a program that writes more than is read", () =>
    Effect.gen(function* () {
      const { connection, pid } = yield* Subprocess.spawn(ChildProcess.make("yes", []), { limit: 1000 })
      yield* connection.reader.readExactly(1000)
      yield* loops(300)
      const held = bytesWrittenBy(pid)
      // The limit, what one read brings, and what the system keeps of a pipe.
      assertTrue(held < 1_000_000, `${held} bytes were written, and 1000 read`)
      yield* connection.reader.skip(10_000_000)
      assertTrue(bytesWrittenBy(pid) >= 10_001_000)
      yield* connection.abort
    })
  )

  live("kills a program that does not end, with the scope", () =>
    Effect.gen(function* () {
      const failing = yield* Scope.make()
      const first = yield* Scope.provide(Subprocess.spawn(ChildProcess.make("sleep", ["1000"])), failing)
      assertTrue(isAlive(first.pid))
      yield* Scope.close(failing, Exit.fail("over"))
      assertTrue(!isAlive(first.pid))

      const ending = yield* Scope.make()
      const second = yield* Scope.provide(
        Subprocess.spawn(ChildProcess.make("sleep", ["1000"]), { closeTimeout: "50 millis" }),
        ending
      )
      yield* Scope.close(ending, Exit.void)
      assertTrue(!isAlive(second.pid))
    })
  )

  /** A program that ignores SIGTERM, and has begun to. */
  const stubborn = Effect.fnUntraced(function* (command: ChildProcess.Command) {
    const scope = yield* Scope.make()
    const spawning = Subprocess.spawn(command, { closeTimeout: "50 millis" })
    const { connection, pid } = yield* Scope.provide(spawning, scope)
    strictEqual(text(yield* connection.reader.readLine), "deaf\n")
    return { scope, pid }
  })
  const deaf = ChildProcess.make("sh", ["-c", "trap '' TERM; echo deaf; while :; do sleep 1000; done"])

  for (const [name, command] of [
    ["a program", deaf],
    ["a pipeline", ChildProcess.pipeTo(ChildProcess.make("echo", ["x"]), deaf)]
  ] as const) {
    for (const exit of [Exit.void, Exit.fail("over")]) {
      live(`kills ${name} that ignores SIGTERM, with a scope that ends by a ${exit._tag}`, () =>
        Effect.gen(function* () {
          const { pid, scope } = yield* stubborn(command)
          yield* Scope.close(scope, exit)
          assertTrue(!isAlive(pid))
        })
      )
    }
  }

  live("leaves a command its own forceKillAfter", () =>
    Effect.gen(function* () {
      const commands: Array<ChildProcess.Command> = []
      const spawner = ChildProcessSpawner.make((command) => {
        commands.push(command)
        return Effect.die("not started")
      })
      const spawn = (command: ChildProcess.Command, closeTimeout: Duration.Input) =>
        Subprocess.spawn(command, { closeTimeout }).pipe(
          Effect.provideService(ChildProcessSpawner.ChildProcessSpawner, spawner),
          Effect.exit
        )
      yield* spawn(ChildProcess.make("a", [], { forceKillAfter: "1 minute" }), "1 second")
      yield* spawn(ChildProcess.make("b", []), "1 second")
      yield* spawn(ChildProcess.make("c", []), Duration.infinity)
      deepStrictEqual(
        commands.map((_) => _._tag === "StandardCommand" && _.options.forceKillAfter),
        ["1 minute", 1000, undefined]
      )
    })
  )

  live("is ended by a signal, which is no exit code, and ends its output by it", () =>
    Effect.gen(function* () {
      const { connection, exitCode, kill, pid } = yield* Subprocess.spawn(ChildProcess.make("cat", []))
      yield* connection.writer.write("x")
      strictEqual(text(yield* connection.reader.readExactly(1)), "x")
      yield* kill({ killSignal: "SIGKILL" })
      assertTrue(!isAlive(pid))
      strictEqual(text(yield* connection.reader.readAll()), "")
      strictEqual((yield* Effect.flip(exitCode))._tag, "PlatformError")
    })
  )

  live("refuses options that are none before it starts anything", () =>
    Effect.gen(function* () {
      const spawning = Subprocess.spawn(ChildProcess.make("no-such-program-anywhere", []), { limit: 0 })
      assertTrue((yield* outcomeOf(spawning)).startsWith("defect RangeError"))
      const running = Subprocess.run(ChildProcess.make("no-such-program-anywhere", []), { maxBytes: -1 })
      assertTrue((yield* outcomeOf(running)).startsWith("defect RangeError: maxBytes"))
    })
  )

  live("fails if there is no such program", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Subprocess.spawn(ChildProcess.make("no-such-program-anywhere", [])))
      strictEqual(error._tag, "PlatformError")
    })
  )
})

const flood = "yes | head -c 5000000 >&2"

describe("a program that writes to standard error", () => {
  live("stands still while nobody reads it, and is killed with the scope", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const command = ChildProcess.make("sh", ["-c", `${flood}; echo done`])
      const { connection, isRunning, pid } = yield* Scope.provide(
        Subprocess.spawn(command, { closeTimeout: "50 millis" }),
        scope
      )
      yield* loops(300)
      strictEqual(yield* connection.reader.bufferedBytes, 0)
      strictEqual(yield* isRunning, true)
      yield* Scope.close(scope, Exit.void)
      strictEqual(yield* isRunning, false)
      assertTrue(!isAlive(pid))
    })
  )

  live("goes on if it is read on the side", () =>
    Effect.gen(function* () {
      const { connection, stderr } = yield* Subprocess.spawn(
        ChildProcess.make("sh", ["-c", `${flood}; echo done`])
      )
      yield* Effect.forkScoped(Stream.runDrain(stderr.stream))
      deepStrictEqual(yield* connection.reader.readLineString, Option.some("done"))
    })
  )

  live("goes on if its command sends it elsewhere, and the reader is empty", () =>
    Effect.gen(function* () {
      const { connection, exitCode, stderr } = yield* Subprocess.spawn(
        ChildProcess.make("sh", ["-c", `${flood}; echo done`], { stderr: "ignore" })
      )
      deepStrictEqual(yield* connection.reader.readLineString, Option.some("done"))
      strictEqual((yield* stderr.readAll()).length, 0)
      strictEqual(yield* exitCode, 0)
    })
  )
})

describe("Subprocess", () => {
  live("a program that closes its input and goes on breaks the pipe, and its output is read to the end", () =>
    Effect.gen(function* () {
      const { connection, exitCode } = yield* Subprocess.spawn(
        ChildProcess.make("sh", ["-c", "exec 0<&-; echo closed; sleep 0.1; echo done; exit 7"])
      )
      deepStrictEqual(yield* connection.reader.readLineString, Option.some("closed"))
      strictEqual(
        yield* outcomeOf(Effect.forever(connection.writer.write(new Uint8Array(65_536)))),
        "BrokenPipe"
      )
      strictEqual(text(yield* connection.reader.readAll()), "done\n")
      strictEqual(yield* exitCode, 7)
    })
  )

  live("tells whether it runs; one that has exited cannot be killed", () =>
    Effect.gen(function* () {
      const { connection, exitCode, isRunning, kill } = yield* Subprocess.spawn(ChildProcess.make("cat", []))
      strictEqual(yield* isRunning, true)
      yield* connection.writer.end
      strictEqual(yield* exitCode, 0)
      strictEqual(yield* isRunning, false)
      strictEqual((yield* Effect.flip(kill()))._tag, "PlatformError")
    })
  )

  live("kill gives up on a deaf program when it is told to", () =>
    Effect.gen(function* () {
      const { connection, exitCode, kill, pid } = yield* Subprocess.spawn(
        ChildProcess.make("sh", ["-c", "trap '' TERM; echo deaf; while :; do sleep 1000; done"])
      )
      yield* connection.reader.readLine
      yield* kill({ forceKillAfter: "20 millis" })
      assertTrue(!isAlive(pid))
      strictEqual((yield* Effect.flip(exitCode))._tag, "PlatformError")
    })
  )
})

describe("Subprocess.run", () => {
  const completed = ({ exitCode, stderr, stdout }: Subprocess.Completed) => [
    exitCode,
    text(stdout),
    text(stderr)
  ]

  live("gives the input, both outputs and the exit code", () =>
    Effect.gen(function* () {
      deepStrictEqual(
        completed(
          yield* Subprocess.run(ChildProcess.make("sh", ["-c", "cat; cat >&2; exit 4"]), { input: "hi" })
        ),
        [4, "hi", ""]
      )
      deepStrictEqual(completed(yield* Subprocess.run(ChildProcess.make("cat", []))), [0, "", ""])
    })
  )

  live("is not stuck however much goes each way", () =>
    Effect.gen(function* () {
      const input = new Uint8Array(5_000_000).fill(0x61)
      const command = ChildProcess.make("sh", ["-c", `(${flood}) & cat; wait`])
      const { exitCode, stderr, stdout } = yield* Subprocess.run(command, { input })
      deepStrictEqual([exitCode, stdout.length, stderr.length], [0, 5_000_000, 5_000_000])
    })
  )

  live("takes a program that does not read its input for what it is", () =>
    Effect.gen(function* () {
      const input = new Uint8Array(5_000_000).fill(0x61)
      const some = yield* Subprocess.run(ChildProcess.make("head", ["-c", "5"]), { input })
      deepStrictEqual(completed(some), [0, "aaaaa", ""])
      deepStrictEqual(completed(yield* Subprocess.run(ChildProcess.make("false", []), { input })), [
        1,
        "",
        ""
      ])
    })
  )

  live("fails if an output is too long, and kills the program", () =>
    Effect.gen(function* () {
      for (const command of ["exec yes", "exec yes >&2"]) {
        const running = Subprocess.run(ChildProcess.make("sh", ["-c", command]), { maxBytes: 1000 })
        strictEqual(yield* outcomeOf(running), "LimitOverrunError")
      }
      deepStrictEqual(childrenOf(process.pid), [])
    })
  )

  live("interrupted, it leaves no program behind", () =>
    Effect.gen(function* () {
      const spawned = yield* Deferred.make<void>()
      const { spawn } = yield* ChildProcessSpawner.ChildProcessSpawner
      const telling = ChildProcessSpawner.make((command) =>
        Effect.tap(spawn(command), () => Deferred.succeed(spawned, undefined))
      )
      const running = yield* start(
        Effect.provideService(
          Subprocess.run(ChildProcess.make("sleep", ["1000"])),
          ChildProcessSpawner.ChildProcessSpawner,
          telling
        )
      )
      yield* Deferred.await(spawned)
      strictEqual(childrenOf(process.pid).length, 1)
      yield* running.interrupt
      deepStrictEqual(childrenOf(process.pid), [])
    })
  )

  live("fails if the program was killed, and if there is none", () =>
    Effect.gen(function* () {
      for (const command of [
        ChildProcess.make("sh", ["-c", "kill -9 $$"]),
        ChildProcess.make("no-such-program", [])
      ]) {
        strictEqual((yield* Effect.flip(Subprocess.run(command)))._tag, "PlatformError")
      }
    })
  )
})

describe("Connection.stdio", () => {
  const program = (body: string) =>
    ChildProcess.make(process.execPath, [
      "--conditions=source",
      "--input-type=module",
      "-e",
      `import { NodeServices, NodeRuntime } from "@effect/platform-node"
       import { Effect, Stream } from "effect"
       import { Connection } from "effect-wire"
       Effect.gen(function* () {
         const connection = yield* Connection.stdio()
         const { reader, writer } = connection
         ${body}
       }).pipe(Effect.scoped, Effect.provide(NodeServices.layer), NodeRuntime.runMain({ teardown: (exit) => process.exit(exit._tag === "Success" ? 0 : 1) }))`
    ])

  live("reads standard input and writes standard output", () =>
    Effect.gen(function* () {
      const { connection, exitCode } = yield* Subprocess.spawn(
        program(`yield* Stream.runForEach(reader.lines, (line) => writer.write(line.toUpperCase() + "\\n"))`)
      )
      yield* connection.writer.write("one\n")
      deepStrictEqual(yield* connection.reader.readLineString, Option.some("ONE"))
      yield* connection.writer.write("two\n")
      yield* connection.writer.end
      strictEqual(text(yield* connection.reader.readAll()), "TWO\n")
      strictEqual(yield* exitCode, 0)
    })
  )

  live("hands over everything when the program ends, without waiting for the end of its input", () =>
    Effect.gen(function* () {
      const { connection, exitCode } = yield* Subprocess.spawn(
        program(`yield* writer.write("x".repeat(1_000_000))`)
      )
      const output = yield* connection.reader.readAll()
      deepStrictEqual([output.length, yield* exitCode], [1_000_000, 0])
    })
  )

  live("writing to who reads no more is a BrokenPipe, and input is still read", () =>
    Effect.gen(function* () {
      const { args, command } = program(
        `const error = yield* Effect.flip(Effect.forever(writer.write("x".repeat(100_000))))
         process.stderr.write(error._tag + " " + error.reason._tag + ", " + (yield* reader.readLine))`
      )
      const { connection, stderr } = yield* Subprocess.spawn(
        ChildProcess.make("sh", ["-c", '"$0" "$@" | head -c 1', command, ...args])
      )
      strictEqual(text(yield* connection.reader.readExactly(1)), "x")
      yield* connection.writer.write("\n")
      strictEqual(text(yield* stderr.readAll()), "ConnectionError BrokenPipe, 10")
    })
  )

  live("cannot be ended alone", () =>
    Effect.gen(function* () {
      const { connection } = yield* Subprocess.spawn(
        program(`yield* writer.write(String((yield* Effect.flip(writer.end)).reason._tag) + writer.canEnd)`)
      )
      strictEqual(text(yield* connection.reader.readAll()), "Unsupportedfalse")
    })
  )
})
