// npm start: an echo server and a client over TCP, a line protocol, a timeout, and a graceful shutdown.
// npm start -- --serve --port 8888: keeps the echo server up, for `nc 127.0.0.1 8888`; Ctrl-C drains and ends it.
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Cause, Console, Effect, Exit, Fiber, Option, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import { NetAddress } from "effect/net"
import { Connection, Server, type StreamError } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

const format = (address: NetAddress.SocketAddress | undefined): string =>
  address === undefined ? "unknown" : NetAddress.formatSocketAddress(address)

const peerOf = ({ info }: Connection.Connection): string => format(info.remoteAddress)

/** Sends back what comes, and tells what it was. */
const echo = Effect.fnUntraced(function* (connection: Connection.Connection) {
  yield* Console.log(`server: ${peerOf(connection)} connected`)
  yield* connection.reader.stream.pipe(
    Stream.tap((chunk) => Console.log(`server: ${chunk.length} bytes from ${peerOf(connection)}`)),
    Stream.run(connection.writer.sink)
  )
  yield* Console.log(`server: ${peerOf(connection)} has ended`)
})

const echoOnce = Effect.fnUntraced(function* ({ info, reader, writer }: Connection.Connection) {
  yield* Console.log(`client: ${format(info.localAddress)} -> ${format(info.remoteAddress)}`)
  for (const text of ["hello", "is anybody there?"]) {
    yield* Console.log(`client: > ${text}`)
    yield* writer.write(text)
    const reply = yield* reader.readExactly(text.length)
    yield* Console.log(`client: < ${new TextDecoder().decode(reply)}`)
  }
})

/** A line protocol: `SET key value`, `GET key`, `QUIT`. */
const keyValue = Effect.fnUntraced(function* ({ reader, writer }: Connection.Connection) {
  const store = new Map<string, string>()
  yield* reader.lines.pipe(
    Stream.map((line): readonly [string, ...Array<string>] => {
      const [command = "", key = "", ...value] = line.split(" ")
      switch (command) {
        case "SET":
          store.set(key, value.join(" "))
          return ["OK"]
        case "GET":
          return [store.has(key) ? `VALUE ${store.get(key)}` : "NONE"]
        default:
          return command === "QUIT" ? ["BYE"] : [`ERROR unknown command ${command}`]
      }
    }),
    Stream.takeUntil(([reply]) => reply === "BYE"),
    Stream.runForEach(([reply]) => writer.write(`${reply}\r\n`))
  )
})

const askKeyValue = Effect.fnUntraced(function* ({ reader, writer }: Connection.Connection) {
  for (const line of ["SET colour deep blue", "GET colour", "GET size", "HELP", "QUIT"]) {
    yield* writer.write(`${line}\r\n`)
    const reply = yield* reader.readLineString
    yield* Console.log(`client: ${line.padEnd(20)} -> ${Option.getOrElse(reply, () => "(ended)")}`)
  }
})

const onLoopback = { listen: { host: "127.0.0.1", port: 0 } } as const

const demo = Effect.gen(function* () {
  yield* Console.log("--- echo")
  const echoServer = yield* Server.serve(echo, onLoopback)
  yield* Console.log(`server: listening on ${format(echoServer.addresses[0])}`)
  yield* Connection.use(echoServer.addresses[0], echoOnce)

  yield* Console.log("--- a line protocol")
  const keyValueServer = yield* Server.serve(keyValue, onLoopback)
  yield* Connection.use(keyValueServer.addresses[0], askKeyValue)

  yield* Console.log("--- a timeout")
  const silentServer = yield* Server.serve(
    ({ reader }: Connection.Connection) => reader.readAll(),
    onLoopback
  )
  yield* Connection.use(silentServer.addresses[0], { readTimeout: "300 millis" }, ({ reader }) =>
    reader.readLine.pipe(
      Effect.catchTag("TimeoutError", (error) =>
        Console.log(`client: caught ${error._tag}: ${error.message}`)
      )
    )
  )

  yield* Console.log("--- a graceful shutdown")
  const client = yield* Connection.connect(echoServer.addresses[0])
  yield* client.writer.write("still here")
  yield* client.reader.readExactly(10)
  const stopping = yield* Effect.forkChild(echoServer.shutdown({ grace: "2 seconds" }))
  yield* client.close
  yield* Console.log(`server: ${showReport(yield* Fiber.join(stopping))}`)
}).pipe(Effect.scoped)

const showReport = ({ aborted, finished, interrupted }: Server.ShutdownReport): string =>
  `shut down: ${finished} finished, ${interrupted} interrupted, ${aborted} aborted`

const nextSignal: Effect.Effect<void> = Effect.callback((resume) => {
  const onSignal = () => resume(Effect.void)
  process.once("SIGINT", onSignal)
  return Effect.sync(() => process.off("SIGINT", onSignal))
})

// The first Ctrl-C interrupts the program, whose finalizer then drains; a second one hurries.
const drain = Effect.fnUntraced(function* (server: Server.Server) {
  yield* Console.log("server: draining; press Ctrl-C again to stop at once")
  const report = yield* Effect.raceFirst(
    server.shutdown({ grace: "10 seconds" }),
    Effect.andThen(nextSignal, server.shutdown({ grace: 0 }))
  )
  yield* Console.log(`server: ${showReport(report)}`)
})

const serve = (host: string, port: number) =>
  Effect.gen(function* () {
    const server = yield* Server.serve(echo, { listen: { host, port } })
    yield* Console.log(`server: listening on ${format(server.addresses[0])}; Ctrl-C ends it`)
    yield* Effect.addFinalizer(() => drain(server))
    return yield* Effect.never
  }).pipe(Effect.scoped)

const failOnBusyPort = (error: StreamError.ListenError) =>
  Effect.andThen(
    Console.error(error.message),
    Effect.sync(() => {
      process.exitCode = 1
    })
  )

const main = Command.make(
  "effect-wire",
  {
    serve: Flag.Boolean("serve").pipe(
      Flag.withDescription("Keep an echo server up until Ctrl-C"),
      Flag.withDefault(false)
    ),
    host: Flag.String("host").pipe(Flag.withDescription("Where to listen"), Flag.withDefault("127.0.0.1")),
    port: Flag.Int("port").pipe(Flag.withDescription("Where to listen"), Flag.withDefault(8888))
  },
  (flags) => (flags.serve ? serve(flags.host, flags.port) : demo)
).pipe(Command.withDescription("An echo server and its clients over TCP"))

Command.run(main, { version: "0.1.0" }).pipe(
  Effect.catchTag("ListenError", failOnBusyPort),
  Effect.provide([NodeServices.layer, NodeNetwork.layer]),
  NodeRuntime.runMain({
    // Ctrl-C is how the server is meant to end.
    teardown: (exit, onExit) =>
      onExit(Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause) ? Number(process.exitCode ?? 0) : 1)
  })
)
