// A client behind a proxy, as the environment names it, and a host with two addresses of which one leads nowhere.
//   npm run example -- through-proxy                                       has a proxy of its own
//   ALL_PROXY=socks5://127.0.0.1:1080 npm run example -- through-proxy     uses that one
import { NodeRuntime } from "@effect/platform-node"
import { Config, ConfigProvider, Console, Duration, Effect, Option, Stream } from "effect"
import { NetAddress } from "effect/net"
import { Connection, Proxy, Relay, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { TestNetwork } from "effect-wire/testing"

const echo = ({ reader, writer }: Connection.Connection) => Stream.run(reader.stream, writer.sink)

/** A proxy that takes CONNECT, and does without an answer to what it does not understand. */
const connectProxy = (client: Connection.Connection) =>
  Effect.gen(function* () {
    const request = new TextDecoder().decode(yield* client.reader.readUntil("\r\n\r\n"))
    yield* Console.log(`proxy: ${request.split("\r\n").slice(0, -2).join("; ")}`)
    const [, target] = /^CONNECT (\S+) /.exec(request) ?? []
    if (target === undefined) return
    const server = yield* Connection.connect(target)
    yield* client.writer.write("HTTP/1.1 200 OK\r\n\r\n")
    yield* Relay.bidirectional(client, server, { idle: "1 minute" })
  })

const textOf = (address: NetAddress.SocketAddress) => NetAddress.formatSocketAddress(address)

const proxied = Effect.gen(function* () {
  const server = yield* Server.serve(echo, { listen: { host: "127.0.0.1", port: 0 } })
  const proxy = yield* Server.serve(connectProxy, { listen: { host: "127.0.0.1", port: 0 } })
  const given = yield* Config.option(Config.String("ALL_PROXY"))
  const environment = ConfigProvider.fromEnv({
    env: {
      ALL_PROXY: Option.getOrElse(given, () => `http://${textOf(proxy.addresses[0])}`),
      NO_PROXY: "localhost"
    }
  })
  const proxyFor = yield* Proxy.fromEnvironment.parse(environment)
  const port = textOf(server.addresses[0]).split(":").at(-1)
  for (const target of [`127.0.0.1:${port}`, `localhost:${port}`]) {
    const connection = yield* Connection.connect(target, {
      proxy: proxyFor(target),
      connectTimeout: "5 seconds"
    })
    yield* connection.writer.write("hello\n")
    const answer = Option.getOrElse(yield* connection.reader.readLineString, () => "(ended)")
    const way =
      connection.info.target === undefined ? "directly" : `to ${connection.info.target} through a proxy`
    yield* Console.log(`client: ${answer}, ${way}`)
  }
  // A proxy that wants a token.
  const secured = Proxy.httpConnect(proxy.addresses[0], {
    headers: { "Proxy-Authorization": "Bearer t0k3n" }
  })
  yield* Connection.connect(server.addresses[0], { proxy: secured })
})

/** Two addresses are raced (Happy Eyeballs): the black hole costs the delay, and not the time of a connect. */
const raced = Effect.gen(function* () {
  yield* Server.serve(echo, { listen: { host: "10.0.0.1", port: 7000 } })
  const [passed, connection] = yield* Effect.timed(
    Connection.connect("two.example:7000", { happyEyeballs: { delay: "100 millis" } })
  )
  const delay = Duration.toMillis(passed) >= 100 ? "after the delay" : "at once"
  yield* Console.log(`client: ${String(connection.info.remoteAddress)} ${delay}`)
}).pipe(
  Effect.scoped,
  Effect.provide(
    TestNetwork.layerWith({
      hosts: { "two.example": ["fd00::1", "10.0.0.1"] },
      routes: { "fd00::1": { latency: Duration.infinity } }
    })
  )
)

NodeRuntime.runMain(Effect.andThen(proxied, raced).pipe(Effect.scoped, Effect.provide(NodeNetwork.layer)))
