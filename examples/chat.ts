// A chat server: say your name, then talk to everybody. A slow client holds up nobody: each has a bounded queue, and who
// lets it fill up is dropped.
//   npm run example -- chat 8888      then: nc 127.0.0.1 8888, from several terminals
// Without a port it plays a scene of its own.
import { NodeRuntime } from "@effect/platform-node"
import { type Cause, Console, Effect, Exit, Option, Queue, Stream } from "effect"
import { type NetAddress } from "effect/net"
import { Connection, Server, type StreamError, StreamWriter } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

interface Member {
  readonly outbox: Queue.Enqueue<Uint8Array | string, StreamError.WriteError | Cause.Done>
  readonly drop: Effect.Effect<void>
}

class Room {
  private readonly members = new Map<string, Member>()

  join(name: string, member: Member): boolean {
    if (name === "" || this.members.has(name)) return false
    this.members.set(name, member)
    return true
  }

  leave(name: string): void {
    this.members.delete(name)
  }

  get names(): string {
    return Array.from(this.members.keys()).join(", ")
  }

  /** Never waits: a member whose queue is full has to go. */
  broadcast(line: string, except?: string): Effect.Effect<void> {
    return Effect.forEach(
      this.members,
      ([name, { drop, outbox }]) => {
        if (name === except || Queue.offerUnsafe(outbox, `${line}\n`)) return Effect.void
        this.leave(name)
        return Effect.andThen(Console.log(`server: ${name} is too slow`), Effect.forkDetach(drop))
      },
      { discard: true }
    )
  }
}

const chat = (room: Room) =>
  Effect.fnUntraced(function* ({ abort, reader, writer }: Connection.Connection) {
    yield* writer.write("your name?\n")
    const name = Option.getOrElse(yield* reader.readLineString, () => "")
    const outbox = yield* StreamWriter.toQueue(writer, { capacity: 64 })
    if (!room.join(name, { outbox, drop: abort })) return yield* writer.write("that name is taken\n")

    yield* room.broadcast(`* ${name} joined (${room.names})`)
    yield* reader.lines.pipe(
      Stream.runForEach((line) => room.broadcast(`${name}: ${line}`, name)),
      Effect.ensuring(
        Effect.suspend(() => {
          room.leave(name)
          return room.broadcast(`* ${name} left`)
        })
      )
    )
  })

const serve = (port: number) =>
  Effect.suspend(() =>
    Server.serve(chat(new Room()), {
      listen: { host: "127.0.0.1", port },
      limit: 4096,
      // Who is dropped, or vanishes, is no news.
      onError: (cause) => Effect.logDebug("a client was lost", cause)
    })
  )

/** A client of the scene: joins, and prints what it reads. */
const enter = Effect.fnUntraced(function* (target: NetAddress.SocketAddress, name: string) {
  const connection = yield* Connection.connect(target, { readTimeout: "5 seconds" })
  yield* connection.reader.readLine
  yield* connection.writer.write(`${name}\n`)
  return connection
})

const hear = Effect.fnUntraced(function* (name: string, { reader }: Connection.Connection, lines: number) {
  yield* reader.readLineString.pipe(
    Effect.flatMap((line) => Console.log(`${name} reads: ${Option.getOrElse(line, () => "(ended)")}`)),
    Effect.repeat({ times: lines - 1 })
  )
})

const scene = Effect.gen(function* () {
  const server = yield* serve(0)
  const [target] = server.addresses
  const anna = yield* enter(target, "anna")
  yield* hear("anna", anna, 1)
  const bert = yield* enter(target, "bert")
  yield* hear("bert", bert, 1)
  yield* hear("anna", anna, 1)

  yield* anna.writer.write("hello bert\n")
  yield* hear("bert", bert, 1)
  yield* bert.writer.write("hello anna\n")
  yield* hear("anna", anna, 1)

  // Carl joins and never reads again. Anna talks on; Bert hears every word, and Carl is dropped.
  const carl = yield* enter(target, "carl")
  yield* hear("anna", anna, 1)
  yield* hear("bert", bert, 1)
  const words = `${"x".repeat(4000)}\n`
  for (let i = 0; i < 200; i++) {
    yield* anna.writer.writeAll(Array.from({ length: 20 }, () => words))
    yield* Effect.repeat(bert.reader.readLine, { times: 19 })
  }
  yield* Console.log("bert has heard all 4000 lines")
  const carlsFate = yield* Effect.exit(carl.reader.readAll({ maxBytes: 100 * 1024 * 1024 }))
  yield* Console.log(`carl was ${Exit.isFailure(carlsFate) ? "dropped" : "told everything"}`)

  yield* bert.close
  yield* anna.reader.skipUntil("* bert left\n")
  yield* Console.log("anna reads: * bert left")
})

const port = Number(process.argv[2] ?? 0)

const program = port === 0 ? scene : Effect.andThen(serve(port), Effect.never)

program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), NodeRuntime.runMain)
