// A subscriber that outlives its server: redis-server is killed and started again, and the subscriber subscribes again.
// Needs redis-server in the PATH.
//   npm run example -- reconnecting-subscriber
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Duration, Effect, FileSystem, Queue, Schedule, Stream } from "effect"
import { Connection, FrameError, Reconnect } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { startRedis } from "./support/servers.ts"

/** The line that a reply, or a part of it, begins with. */
const readHeader = ({ reader }: Connection.Connection) =>
  Effect.map(reader.readUntil("\r\n"), (line) => new TextDecoder().decode(line).slice(0, -2))

const lengthIn = (header: string) =>
  /^[$>*]\d{1,6}$/.test(header)
    ? Effect.succeed(Number(header.slice(1)))
    : Effect.fail(new FrameError.MalformedFrame({ detail: `no length: ${header}` }))

/** A word of what the server sends: a string with its length before it, or a number. */
const readWord = Effect.fnUntraced(function* (connection: Connection.Connection) {
  const header = yield* readHeader(connection)
  if (!header.startsWith("$")) return header.slice(1)
  const body = yield* connection.reader.readExactly(yield* lengthIn(header))
  yield* connection.reader.skip(2)
  return new TextDecoder().decode(body)
})

/** What the server sends to subscribers: what it is, the channel, and the message. */
const readPush = Effect.fnUntraced(function* (connection: Connection.Connection) {
  const length = yield* lengthIn(yield* readHeader(connection))
  return yield* Effect.replicateEffect(readWord(connection), length)
})

/** The handshake, repeated for each connection: subscribes, and waits for the answer. */
const subscribe = (connection: Connection.Connection) =>
  Effect.andThen(connection.writer.write("SUBSCRIBE news\r\n"), readPush(connection))

/** The messages of one connection, until it is lost. What is published until there is another is not heard. */
const messagesOf = (connection: Connection.Connection) =>
  Stream.fromEffectRepeat(readPush(connection)).pipe(
    Stream.map(([, , message = ""]) => message),
    Stream.catch(() => Stream.empty)
  )

const publish = (path: string, message: string) =>
  Connection.use({ path }, ({ reader, writer }) =>
    Effect.andThen(writer.write(`PUBLISH news ${message}\r\n`), reader.readLine)
  )

const describe = (state: Reconnect.State<{ readonly message: string }>): string => {
  switch (state._tag) {
    case "Connecting":
      return `attempt ${state.attempt}`
    case "Connected":
      return "subscribed"
    case "Waiting":
      return `${state.error.message}; next attempt in ${Duration.format(state.delay)}`
    case "Closed":
      return "closed"
  }
}

const program = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = `${yield* fs.makeTempDirectoryScoped()}/redis.sock`

  const link = yield* Reconnect.make(
    { path },
    { schedule: Schedule.spaced("100 millis"), onConnect: subscribe }
  )
  yield* Effect.forkScoped(Stream.runForEach(link.changes, (state) => Console.log("link:", describe(state))))

  const inbox = yield* Queue.unbounded<string>()
  yield* link.changes.pipe(
    Stream.flatMap((state) => (state._tag === "Connected" ? messagesOf(state.connection) : Stream.empty)),
    Stream.runForEach((message) => Queue.offer(inbox, message)),
    Effect.forkScoped
  )

  for (const messages of [["one", "two"], ["three"]]) {
    yield* Effect.scoped(
      Effect.gen(function* () {
        yield* startRedis(path)
        yield* Console.log("redis: up")
        yield* link.get
        for (const message of messages) {
          yield* publish(path, message)
          yield* Console.log("heard:", yield* Queue.take(inbox))
        }
      })
    )
    yield* Console.log("redis: killed")
  }
  yield* link.close
})

program.pipe(Effect.scoped, Effect.provide([NodeServices.layer, NodeNetwork.layer]), NodeRuntime.runMain)
