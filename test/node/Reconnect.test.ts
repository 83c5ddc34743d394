import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Queue, Schedule, Stream } from "effect"
import { Connection, Reconnect } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { TestClock } from "effect/testing"
import * as path from "node:path"
import { describeWith, type Peer, says, spawnPeer, tempFolder } from "../support/programs.ts"
import { leavingNothing } from "../support/sockets.ts"

const startRedis = Effect.fnUntraced(function* (socket: string) {
  const server = yield* spawnPeer("redis-server", ["--port", "0", "--unixsocket", socket, "--save", ""])
  yield* says(server, /ready to accept connections/)
  return server
})

const kill = ({ child, exit }: Peer) =>
  Effect.andThen(
    Effect.sync(() => child.kill("SIGKILL")),
    exit
  )

/** Words of a command and of its reply, each on a line: enough for what the tests say. */
const ask = ({ reader, writer }: Connection.Connection, command: string, lines: number) =>
  Effect.andThen(writer.write(`${command}\r\n`), Effect.replicateEffect(reader.readLineString, lines))

describeWith("redis-server", "a link to redis-server", () => {
  // The kernel tells when something has happened; the test's clock, how long the link waits.
  it.effect("that is killed and comes back subscribes again, and hears what is published", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const socket = path.join(yield* tempFolder, "redis.sock")
          const target = { path: socket }
          const link = yield* Reconnect.make(target, {
            schedule: Schedule.spaced("1 minute"),
            onConnect: (connection) => ask(connection, "SUBSCRIBE news", 6)
          })
          const states = yield* Queue.unbounded<Reconnect.State<unknown>>()
          yield* Effect.forkScoped(Stream.runForEach(link.changes, (state) => Queue.offer(states, state)))
          const until = (tag: Reconnect.State["_tag"]): Effect.Effect<unknown> =>
            Effect.repeat(Queue.take(states), { until: (state) => state._tag === tag })
          const heard = link.use(({ reader }) =>
            Effect.map(Effect.replicateEffect(reader.readLineString, 7), (lines) => String(lines.at(-1)))
          )
          const publish = (message: string) =>
            Connection.use(target, (_) => ask(_, `PUBLISH news ${message}`, 1))

          yield* until("Waiting")
          for (const message of ["before", "after"]) {
            const server = yield* startRedis(socket)
            yield* TestClock.adjust("1 minute")
            yield* until("Connected")
            assert.strictEqual(String(yield* publish(message)), 'some(":1")')
            assert.strictEqual(yield* heard, `some("${message}")`)
            yield* kill(server)
            yield* until("Waiting")
          }
          yield* link.close
          yield* until("Closed")
        })
      )
    ).pipe(Effect.provide(NodeNetwork.layer))
  )

  it.effect(
    "fails what is sent while it is gone with a TimeoutError, and what it cut off with its own error",
    () =>
      leavingNothing(
        Effect.scoped(
          Effect.gen(function* () {
            const socket = path.join(yield* tempFolder, "redis.sock")
            const server = yield* startRedis(socket)
            const link = yield* Reconnect.make({ path: socket }, { acquireTimeout: "10 seconds" })
            // A server that does not read: it is stopped, so what does not fit on the way stays here.
            yield* link.get
            server.child.kill("SIGSTOP")
            const sending = yield* Effect.forkChild(
              Effect.flip(link.send(new Uint8Array(16 * 1024 * 1024))),
              {
                startImmediately: true
              }
            )
            yield* kill(server)
            const cut = yield* Fiber.join(sending)
            assert(cut._tag === "ConnectionError")
            assert.include(["ConnectionReset", "BrokenPipe"], cut.reason._tag)

            const late = yield* Effect.forkChild(Effect.flip(link.send("PING\r\n")), {
              startImmediately: true
            })
            yield* TestClock.adjust("10 seconds")
            const error = yield* Fiber.join(late)
            assert(error._tag === "TimeoutError" && error.operation === "acquire", error.message)
            assert.match(error.message, /timed out after 10s; .*the last error: connect to/)
          })
        )
      ).pipe(Effect.provide(NodeNetwork.layer))
  )
})
