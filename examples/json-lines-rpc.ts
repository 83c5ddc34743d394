// A JSON-lines RPC: a schema checks both sides, many calls are in flight on one connection, the server also pushes.
//   npm run example -- json-lines-rpc
import { NodeRuntime } from "@effect/platform-node"
import { Console, Duration, Effect, Fiber, Schema, Stream } from "effect"
import { Codec, Connection, Framed, Framing, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

// --- What both sides know.

const Request = Schema.Union([
  Schema.Struct({ id: Schema.Number, method: Schema.Literal("add"), params: Schema.Array(Schema.Number) }),
  Schema.Struct({ id: Schema.Number, method: Schema.Literal("wait"), params: Schema.Duration }),
  Schema.Struct({ id: Schema.Number, method: Schema.Literal("countdown"), params: Schema.Number })
])
type Request = typeof Request.Type

const Reply = Schema.Union([
  Schema.Struct({ id: Schema.Number, result: Schema.Number }),
  Schema.Struct({ id: Schema.Number, error: Schema.String }),
  // A message that answers none.
  Schema.Struct({ notice: Schema.String })
])
type Reply = typeof Reply.Type

const framing = Framing.lines()
const requests = Codec.schema(Request)
const replies = Codec.schema(Reply)

// --- The server.

type Session = Framed.Framed<Request, Reply>

const answer = Effect.fnUntraced(function* ({ send }: Session, request: Request) {
  switch (request.method) {
    case "add":
      return yield* send({ id: request.id, result: request.params.reduce((sum, n) => sum + n, 0) })
    case "wait":
      yield* Effect.sleep(request.params)
      return yield* send({ id: request.id, result: 0 })
    case "countdown": {
      if (request.params > 3) return yield* send({ id: request.id, error: "too far to count" })
      for (let n = request.params; n > 0; n--) yield* send({ notice: `${n} …` })
      return yield* send({ id: request.id, result: 0 })
    }
  }
})

/** Up to 100 calls of a client run at once; they are answered as they end. */
const session = (framed: Session) =>
  framed.messages.pipe(
    Stream.mapEffect((request) => answer(framed, request), { concurrency: 100, unordered: true }),
    Stream.runDrain
  )

const serve = Server.serveFramed(
  framing,
  Codec.duplex({ receive: requests, send: replies }),
  session,
  // What is no request is skipped; the client gets no answer to it.
  { listen: { host: "127.0.0.1", port: 0 }, onInvalid: "skip" }
)

// --- The client.

class CallError extends Schema.TaggedError<CallError>("CallError")("CallError", { message: Schema.String }) {}

const makeClient = Effect.fnUntraced(function* (connection: Connection.Connection) {
  const framed = Framed.make(connection, framing, Codec.duplex({ receive: replies, send: requests }))
  const { request, unsolicited } = yield* framed.correlate({
    idOf: (message) => ("id" in message ? message.id : undefined),
    timeout: "5 seconds"
  })
  let lastId = 0
  const call = Effect.fnUntraced(function* (make: (id: number) => Request) {
    const reply = yield* request(make(++lastId))
    if ("result" in reply) return reply.result
    return yield* new CallError({ message: "error" in reply ? reply.error : "no reply" })
  })
  const notices = Stream.map(unsolicited, (message) => ("notice" in message ? message.notice : ""))
  return { call, notices }
})

const add =
  (...params: ReadonlyArray<number>) =>
  (id: number): Request => ({ id, method: "add", params })
const wait =
  (params: Duration.Duration) =>
  (id: number): Request => ({ id, method: "wait", params })
const countdown =
  (params: number) =>
  (id: number): Request => ({ id, method: "countdown", params })

const program = Effect.gen(function* () {
  const server = yield* serve
  const connection = yield* Connection.connect(server.addresses[0])
  const { call, notices } = yield* makeClient(connection)

  yield* Console.log(`1 + 2 + 3 = ${yield* call(add(1, 2, 3))}`)

  const slow = yield* Effect.forkChild(
    Effect.andThen(call(wait(Duration.millis(500))), Console.log("the slow call is back"))
  )
  const sums = yield* Effect.forEach(
    Array.from({ length: 1000 }, (_, n) => n),
    (n) => call(add(n, n)),
    { concurrency: "unbounded" }
  )
  yield* Console.log(`1000 calls meanwhile, the last one: ${sums.at(-1)}`)
  yield* Fiber.join(slow)

  yield* call(countdown(3))
  yield* Stream.runForEach(Stream.take(notices, 3), (notice) => Console.log(`the server says: ${notice}`))

  yield* call(countdown(1000)).pipe(
    Effect.catchTag("CallError", ({ message }) => Console.log(`refused: ${message}`))
  )
})

program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), NodeRuntime.runMain)
