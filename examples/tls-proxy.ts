// A proxy that speaks TLS with its clients, and plain TCP with a backend. A PROXY header tells that one who the client is, and
// which name and protocol it asked for. Both ways go at the speed of who takes the bytes.
//   npm run example -- tls-proxy 8443 127.0.0.1:8080 fullchain.pem key.pem
// Without arguments it makes a certificate with openssl, and plays a scene of its own.
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Option, Stream } from "effect"
import { NetAddress } from "effect/net"
import { Connection, type Network, ProxyProtocol, Relay, Server, TlsReloader } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { type Files, selfSigned, temporaryFiles } from "./support/selfSigned.ts"

const { TlvType } = ProxyProtocol

/** What the backend is to know of a client. */
const headerOf = ({ localAddress, remoteAddress, tls }: Connection.ConnectionInfo) => {
  const tlv = (type: number, text: string | undefined): ReadonlyArray<ProxyProtocol.Tlv> =>
    text === undefined ? [] : [{ type, value: new TextEncoder().encode(text) }]
  return {
    addresses: remoteAddress && localAddress && { source: remoteAddress, destination: localAddress },
    tlvs: [...tlv(TlvType.alpn, tls?.alpn), ...tlv(TlvType.authority, tls?.servername)]
  }
}

const relayTo = (backend: Network.Target) =>
  Effect.fnUntraced(function* (client: Connection.Connection) {
    // What the client sends waits meanwhile; if there is nobody, its connection is reset.
    const plain = yield* Connection.connect(backend, {
      connectTimeout: "5 seconds",
      proxyProtocol: headerOf(client.info)
    })
    yield* Relay.bidirectional(client, plain, { halfCloseIdle: "30 seconds", idle: "5 minutes" })
  })

const proxy = Effect.fnUntraced(function* (port: number, backend: Network.Target, files: Files) {
  const server = yield* Server.serve(relayTo(backend), {
    listen: { host: "127.0.0.1", port },
    maxConnections: 1000,
    tls: {
      identity: yield* TlsReloader.make(TlsReloader.files(files), { every: "1 minute" }),
      alpn: ["http/1.1"],
      handshakeTimeout: "5 seconds"
    },
    onError: (cause, info) => Effect.logWarning("a client was lost", info.remoteAddress, cause)
  })
  // Whoever does not speak TLS never gets as far as the backend.
  yield* server.events.pipe(
    Stream.runForEach((event) =>
      event._tag === "HandshakeFailed" ? Console.log(`proxy: ${event.error.message}`) : Effect.void
    ),
    Effect.forkScoped({ startImmediately: true })
  )
  return server
})

/** Tells its client what it knows of it, and how much it has sent. */
const backend = ({ info, reader, writer }: Connection.Connection) =>
  Effect.flatMap(reader.readAll(), ({ length }) => {
    const { proxyProtocol: header, remoteAddress } = info
    const text = (type: number) =>
      Option.match(header === undefined ? Option.none() : ProxyProtocol.findTlv(header, type), {
        onNone: () => "nothing",
        onSome: (value) => new TextDecoder().decode(value)
      })
    const who = `${String(remoteAddress)}, who wants ${text(TlvType.authority)} over ${text(TlvType.alpn)}`
    return writer.write(`${length} bytes from ${who}\n`)
  })

const scene = Effect.gen(function* () {
  const plain = yield* Server.serve(backend, {
    listen: { host: "127.0.0.1" },
    proxyProtocol: { trusted: ["127.0.0.1/32"] }
  })
  const files = yield* temporaryFiles
  const ca = yield* selfSigned("localhost", files)
  const server = yield* proxy(0, plain.addresses[0], files)
  const target = server.addresses[0]

  const tls = { ca, servername: "localhost", alpn: ["http/1.1"] }
  yield* Connection.use(target, { tls }, ({ info, reader, writer }) =>
    Effect.gen(function* () {
      yield* Console.log(`client: ${String(info.localAddress)} over ${info.tls?.protocol}`)
      yield* writer.write(new Uint8Array(1_000_000))
      // Over TLS 1.3, only this direction ends: the answer still comes.
      yield* writer.end
      yield* Console.log(`client: ${Option.getOrElse(yield* reader.readLineString, () => "(ended)")}`)
    })
  )

  yield* Connection.use(target, ({ reader, writer }) =>
    Effect.andThen(writer.write("GET / HTTP/1.1\r\n\r\n"), reader.readAll())
  ).pipe(Effect.ignore)
  yield* server.shutdown({ grace: "5 seconds" })
})

const [port, target, certificate, key] = process.argv.slice(2)

const program =
  port === undefined || target === undefined || certificate === undefined || key === undefined
    ? scene
    : Effect.gen(function* () {
        const server = yield* proxy(Number(port), target, { certificate, key })
        yield* Console.log(`${NetAddress.formatSocketAddress(server.addresses[0])} -> ${target}`)
        return yield* Effect.never
      })

program.pipe(Effect.scoped, Effect.provide([NodeServices.layer, NodeNetwork.layer]), NodeRuntime.runMain)
