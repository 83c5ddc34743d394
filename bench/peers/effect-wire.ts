// The library, used as its documentation says.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import * as NetAddress from "effect/net/NetAddress"
import * as Connection from "effect-wire/Connection"
import * as Network from "effect-wire/Network"
import * as Server from "effect-wire/Server"
import * as NodeNetwork from "effect-wire/node/NodeNetwork"
import { announce, bytes, line, mode, size, unknownMode } from "./shared.ts"

type Handler = Server.Handler<unknown, never>

const echo: Handler = Effect.fnUntraced(function* ({ reader, writer }) {
  while (true) {
    const chunk = yield* reader.read()
    if (chunk.length === 0) return
    yield* writer.write(chunk)
  }
})

const lines: Handler = Effect.fnUntraced(function* ({ reader, writer }) {
  while (true) {
    const line = yield* reader.readLine
    if (line.length === 0) return
    yield* writer.write(line)
  }
})

const send: Handler = Effect.fnUntraced(function* ({ writer }) {
  const chunk = new Uint8Array(size).fill(0x78)
  for (let sent = 0; sent < bytes; sent += size) yield* writer.write(chunk)
})

const receive: Handler = Effect.fnUntraced(function* ({ reader, writer }) {
  let received = 0
  while (received < bytes) {
    const chunk = yield* reader.read()
    if (chunk.length === 0) return
    received += chunk.length
  }
  yield* writer.write(`${received}\n`)
})

const receiveInto: Handler = Effect.fnUntraced(function* ({ reader, writer }) {
  const buffer = new Uint8Array(size)
  let received = 0
  while (received < bytes) {
    const count = yield* reader.readInto(buffer)
    if (count === 0) return
    received += count
  }
  yield* writer.write(`${received}\n`)
})

const request: Handler = ({ reader, writer }) => Effect.flatMap(reader.readLine, () => writer.write(line))

const listen = { host: "127.0.0.1", port: 0 }
const backlog = 1024
const timeouts = { readTimeout: "30 seconds", writeTimeout: "30 seconds", idleTimeout: "1 minute" } as const

const portOf = (address: NetAddress.SocketAddress): number =>
  NetAddress.isInetAddress(address) ? address.port : 0

// The generator resets its connections when its time is over.
const ignoreError = () => Effect.void

const serve = (handler: Handler, options?: Connection.Options) =>
  Effect.gen(function* () {
    const server = yield* Server.serve(handler, { ...options, listen, backlog, onError: ignoreError })
    announce(portOf(server.addresses[0]))
    return yield* Effect.never
  })

const tracer = Tracer.make({ span: (options) => new Tracer.NativeSpan(options) })

/** The same server with somebody for its events, its metrics and its spans. */
const serveWatched = (handler: Handler) =>
  Effect.gen(function* () {
    const server = yield* Server.serve(handler, { listen, backlog, onError: ignoreError })
    yield* Effect.forkScoped(Stream.runDrain(server.events), { startImmediately: true })
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep("1 second"), Metric.snapshot)))
    announce(portOf(server.addresses[0]))
    return yield* Effect.never
  }).pipe(Effect.withTracer(tracer))

/** The same server without its events, metrics and spans, and what else it reports: one fiber and one scope per client. */
const serveBare = (handler: Handler) =>
  Effect.gen(function* () {
    const network = yield* Network.Network
    const listener = yield* network.listen(listen, { backlog })
    const context = yield* Effect.context<never>()
    const clients = new Set<Connection.Connection>()
    announce(portOf(listener.address))
    while (true) {
      const transport = yield* listener.accept
      const serving = Connection.make(transport).pipe(
        Effect.flatMap((connection) => {
          clients.add(connection)
          return Effect.onExit(handler(connection), () => Effect.sync(() => clients.delete(connection)))
        }),
        Effect.scoped,
        Effect.exit
      )
      Effect.runForkWith(context)(serving)
    }
  })

const modes = {
  echo: () => serve(echo),
  "echo-timeouts": () => serve(echo, timeouts),
  "echo-bare": () => serveBare(echo),
  "echo-watched": () => serveWatched(echo),
  lines: () => serve(lines),
  send: () => serve(send),
  receive: () => serve(receive),
  "receive-into": () => serve(receiveInto),
  writes: () => serve(send),
  requests: () => serve(request),
  "requests-bare": () => serveBare(request),
  "requests-watched": () => serveWatched(request)
}

const isMode = (name: string): name is keyof typeof modes => Object.hasOwn(modes, name)

const main = isMode(mode) ? modes[mode]() : Effect.sync(unknownMode)

main.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), NodeRuntime.runMain)
