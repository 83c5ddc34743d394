// Servers for the examples that are not told of another one; the programs have to be in the PATH.
import { Effect, FileSystem, Stream } from "effect"
import { ChildProcess } from "effect/process"

/** Reads what a program prints until it says so. */
const until = <E, R>(output: Stream.Stream<Uint8Array, E, R>, sign: string) =>
  output.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.takeUntil((line) => line.includes(sign)),
    Stream.runDrain
  )

/** Redis on a Unix socket: it takes connections, and is killed with the scope. */
export const startRedis = Effect.fnUntraced(function* (path: string) {
  const options = ["--port", "0", "--unixsocket", path, "--save", ""]
  const redis = yield* ChildProcess.make("redis-server", options, { killSignal: "SIGKILL" })
  yield* until(redis.stdout, "ready to accept connections")
})

/** The same for memcached. */
const startMemcached = Effect.fnUntraced(function* (path: string) {
  const options = ["-vv", "-u", "root", "-s", path]
  const memcached = yield* ChildProcess.make("memcached", options, { killSignal: "SIGKILL" })
  yield* until(memcached.stderr, "server listening")
})

/** The target of a server that was started on a socket in a folder of its own. */
const own = <E, R>(start: (path: string) => Effect.Effect<void, E, R>) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = `${yield* fs.makeTempDirectoryScoped()}/server.sock`
    yield* start(path)
    return { path }
  })

export const ownRedis = own(startRedis)

export const ownMemcached = own(startMemcached)
