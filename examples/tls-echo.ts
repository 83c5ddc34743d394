// An echo server over TLS that follows its certificate files: who renews them has nothing to restart.
//   npm run example -- tls-echo 6514 fullchain.pem key.pem      then: openssl s_client -connect 127.0.0.1:6514
// Without arguments it makes certificates with openssl, and plays a scene of its own.
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, DateTime, type Duration, Effect, Option, Stream } from "effect"
import { NetAddress } from "effect/net"
import { Connection, Server, type StreamError, TlsReloader } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { type Files, selfSigned, temporaryFiles } from "./support/selfSigned.ts"

const nameOf = (name: string | ReadonlyArray<string> | undefined): string => String(name ?? "nobody")

const serve = Effect.fnUntraced(function* (port: number, files: Files, every: Duration.Input) {
  const identity = yield* TlsReloader.make(TlsReloader.files(files), { every })
  const server = yield* Server.serve(({ reader, writer }) => Stream.run(reader.stream, writer.sink), {
    listen: { host: "127.0.0.1", port },
    maxConnections: 1000,
    idleTimeout: "5 minutes",
    tls: { identity, handshakeTimeout: "5 seconds" }
  })
  // Handlers do not hear of it: there is no connection to handle.
  yield* server.events.pipe(
    Stream.runForEach((event) =>
      event._tag === "HandshakeFailed" ? Console.log(`server: ${event.error.message}`) : Effect.void
    ),
    Effect.forkScoped({ startImmediately: true })
  )
  const { subject, validTo } = yield* identity.certificate
  yield* Console.log(
    `${NetAddress.formatSocketAddress(server.addresses[0])} as ${nameOf(subject["CN"])}, until ${DateTime.formatIso(validTo)}`
  )
  return { server, identity }
})

/** Has a line echoed, and tells who has done it. */
const ask = ({ info, reader, writer }: Connection.Connection) =>
  Effect.gen(function* () {
    yield* writer.write("hello\n")
    const line = Option.getOrElse(yield* reader.readLineString, () => "(ended)")
    const who = nameOf(info.tls?.peerCertificate?.subject["CN"])
    yield* Console.log(`client: ${who} says ${line}, over ${info.tls?.protocol}`)
  })

const scene = Effect.gen(function* () {
  const files = yield* temporaryFiles
  const first = yield* selfSigned("the first certificate", files)
  const { identity, server } = yield* serve(0, files, "1 hour")
  const target = server.addresses[0]
  const early = yield* Connection.connect(target, { tls: { ca: first } })
  yield* ask(early)

  const second = yield* selfSigned("the second certificate", files)
  yield* Console.log(`reloaded: ${yield* identity.reload}`)
  yield* Connection.use(target, { tls: { ca: second } }, ask)
  yield* ask(early)

  const failed = (error: StreamError.ConnectionError) => Console.log(`client: ${error.message}`)
  yield* Connection.use(target, { tls: { ca: first } }, ask).pipe(Effect.catchTag("ConnectionError", failed))
})

const [port, certificate, key] = process.argv.slice(2)

const program =
  port === undefined || certificate === undefined || key === undefined
    ? scene
    : Effect.andThen(serve(Number(port), { certificate, key }, "1 minute"), Effect.never)

program.pipe(Effect.scoped, Effect.provide([NodeServices.layer, NodeNetwork.layer]), NodeRuntime.runMain)
