// An application whose services are injected: questions go over a pool, news come over a link that is kept up. The server
// is restarted in the middle, and neither service notices.
//   npm run example -- links-and-pools
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Exit, Layer, Option, Queue, Schedule, Scope, Stream } from "effect"
import { NetAddress } from "effect/net"
import { Connection, ConnectionPool, Reconnect, Server, type StreamError } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

/** Answers each line, and tells the news to whoever subscribes. */
const handler =
  (name: string) =>
  ({ reader, writer }: Connection.Connection) =>
    Stream.runForEach(reader.lines, (line) =>
      line === "SUBSCRIBE"
        ? writer.write(`${name} is up\n`)
        : writer.write(`${line.toUpperCase()}, says ${name}\n`)
    )

class Questions extends Context.Service<
  Questions,
  { readonly ask: (question: string) => Effect.Effect<string, StreamError.StreamError> }
>()("examples/Questions") {
  static readonly layer = Layer.effect(
    Questions,
    Effect.gen(function* () {
      const pool = yield* ConnectionPool.ConnectionPool
      const ask = (question: string) =>
        pool.use(({ reader, writer }) =>
          writer
            .write(`${question}\n`)
            .pipe(Effect.andThen(reader.readLineString), Effect.map(Option.getOrElse(() => "(nobody there)")))
        )
      return Questions.of({ ask })
    })
  )
}

class News extends Context.Service<News, { readonly next: Effect.Effect<string> }>()("examples/News") {
  static readonly layer = Layer.effect(
    News,
    Effect.gen(function* () {
      const link = yield* Reconnect.Reconnect
      const heard = yield* Queue.unbounded<string>()
      yield* link.changes.pipe(
        Stream.flatMap((state) =>
          state._tag === "Connected"
            ? Stream.catch(state.connection.reader.lines, () => Stream.empty)
            : Stream.empty
        ),
        Stream.runForEach((line) => Queue.offer(heard, line)),
        Effect.forkScoped
      )
      return News.of({ next: Queue.take(heard) })
    })
  )
}

/** Both services, for a server that may be up or not: their layers are built before there is a connection. */
const servicesAt = (port: number) => {
  const target = { host: "127.0.0.1", port }
  const pool = Connection.layerPool(target, { min: 1, max: 4, readTimeout: "1 second" })
  const link = Connection.layerReconnecting(target, {
    schedule: Schedule.spaced("20 millis"),
    // Said again to each new connection, before anybody reads from it.
    onConnect: ({ writer }) => writer.write("SUBSCRIBE\n")
  })
  return Layer.merge(Layer.provide(Questions.layer, pool), Layer.provide(News.layer, link))
}

const serve = Effect.fnUntraced(function* (name: string, port: number) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const server = yield* Scope.provide(
    Server.serve(handler(name), { listen: { host: "127.0.0.1", port }, grace: 0 }),
    scope
  )
  const [address] = server.addresses
  return {
    port: NetAddress.isInetAddress(address) ? address.port : port,
    stop: Scope.close(scope, Exit.void)
  }
})

const questions = Effect.gen(function* () {
  const [{ ask }, news] = [yield* Questions, yield* News]
  yield* Console.log(`news: ${yield* news.next}`)
  const answers = yield* Effect.forEach(["one", "two", "three"], ask, { concurrency: "unbounded" })
  yield* Console.log(answers.join("\n"))
})

const program = Effect.gen(function* () {
  const first = yield* serve("the first server", 0)
  const scene = Effect.gen(function* () {
    yield* questions
    yield* first.stop
    yield* Console.log("--- another server takes its place")
    yield* serve("the second server", first.port)
    yield* questions
  })
  yield* Effect.provide(scene, servicesAt(first.port))
})

NodeRuntime.runMain(program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer)))
