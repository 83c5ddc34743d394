// A JSON-lines RPC: a schema checks both sides, 10,000 calls are in flight on one connection, the server also pushes.
//   npm run example -- json-lines-rpc
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Fiber, Latch, Schema, Stream } from "effect"
import { Codec, Connection, Framed, Framing, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

// --- What both sides know.

const Request = Schema.Union([
  Schema.Struct({ id: Schema.Number, method: Schema.Literal("add"), params: Schema.Array(Schema.Number) }),
  // Is answered with its own number, once somebody has released all that are held; that is answered with their number.
  Schema.Struct({ id: Schema.Number, method: Schema.Literal("hold"), params: Schema.Number }),
  Schema.Struct({ id: Schema.Number, method: Schema.Literal("release") }),
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

class Held {
  readonly gate = Latch.makeUnsafe()
  calls = 0
}

const answer = Effect.fnUntraced(function* ({ send }: Session, held: Held, request: Request) {
  const { id } = request
  switch (request.method) {
    case "add":
      return yield* send({ id, result: request.params.reduce((sum, n) => sum + n, 0) })
    case "hold":
      held.calls++
      yield* held.gate.await
      return yield* send({ id, result: request.params })
    case "release":
      yield* held.gate.open
      return yield* send({ id, result: held.calls })
    case "countdown": {
      if (request.params > 3) return yield* send({ id, error: "too far to count" })
      for (let n = request.params; n > 0; n--) yield* send({ notice: `${n} …` })
      return yield* send({ id, result: 0 })
    }
  }
})

/** Up to 20,000 calls of a client run at once, more are not read; they are answered as they end. */
const session = (framed: Session) => {
  const held = new Held()
  return framed.messages.pipe(
    Stream.mapEffect((request) => answer(framed, held, request), { concurrency: 20_000, unordered: true }),
    Stream.runDrain
  )
}

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
  const { inFlight, request, unsolicited } = yield* framed.correlate({
    idOf: (message) => ("id" in message ? message.id : undefined),
    timeout: "20 seconds"
  })
  let lastId = 0
  const call = Effect.fnUntraced(function* (make: (id: number) => Request) {
    const reply = yield* request(make(++lastId))
    if ("result" in reply) return reply.result
    return yield* new CallError({ message: "error" in reply ? reply.error : "no reply" })
  })
  const notices = Stream.map(unsolicited, (message) => ("notice" in message ? message.notice : ""))
  return { call, inFlight, notices }
})

const add =
  (...params: ReadonlyArray<number>) =>
  (id: number): Request => ({ id, method: "add", params })
const hold =
  (params: number) =>
  (id: number): Request => ({ id, method: "hold", params })
const release = (id: number): Request => ({ id, method: "release" })
const countdown =
  (params: number) =>
  (id: number): Request => ({ id, method: "countdown", params })

const program = Effect.gen(function* () {
  const server = yield* serve
  const connection = yield* Connection.connect(server.addresses[0])
  const { call, inFlight, notices } = yield* makeClient(connection)

  yield* Console.log(`1 + 2 + 3 = ${yield* call(add(1, 2, 3))}`)

  const numbers = Array.from({ length: 10_000 }, (_, n) => n)
  const holding = yield* Effect.forkChild(
    Effect.forEach(numbers, (n) => call(hold(n)), { concurrency: "unbounded" }),
    { startImmediately: true }
  )
  yield* Console.log(`in flight: ${yield* inFlight}; and meanwhile, 20 + 22 = ${yield* call(add(20, 22))}`)
  yield* Console.log(`held by the server, and released: ${yield* call(release)}`)
  const results = yield* Fiber.join(holding)
  yield* Console.log(`answered with their own numbers: ${results.filter((result, n) => result === n).length}`)

  yield* call(countdown(3))
  yield* Stream.runForEach(Stream.take(notices, 3), (notice) => Console.log(`the server says: ${notice}`))

  yield* call(countdown(1000)).pipe(
    Effect.catchTag("CallError", ({ message }) => Console.log(`refused: ${message}`))
  )
})

program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), NodeRuntime.runMain)
