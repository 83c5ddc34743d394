// A small server for HTTP/1.1, until Ctrl-C.
//   npm run example -- http-server 8080      then: curl -v -d hello http://127.0.0.1:8080/echo
// Without a port it takes a free one, and fetches from itself.
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Stream } from "effect"
import { NetAddress } from "effect/net"
import { NodeNetwork } from "effect-wire/node"
import * as Http from "./protocols/httpServer.ts"

const notFound: Http.Response = { status: 404, body: "not found\n" }

const routes: Http.Handler<never> = (request) => {
  switch (`${request.method} ${request.target}`) {
    case "GET /":
    case "HEAD /":
      return Effect.succeed({ status: 200, headers: { "content-type": "text/plain" }, body: "hello\n" })
    case "GET /count":
      return Effect.succeed({
        status: 200,
        body: Stream.range(1, 10_000).pipe(
          Stream.map((n) => `${n}\n`),
          Stream.encodeText
        )
      })
    case "POST /echo":
      return Effect.succeed({ status: 200, body: request.body })
    case "POST /length":
      return Effect.map(Http.readBody(request, 1024 * 1024), (body) => ({
        status: 200,
        body: `${body.length}\n`
      }))
    default:
      return Effect.succeed(notFound)
  }
}

const port = Number(process.argv[2] ?? 0)

const program = Effect.gen(function* () {
  const server = yield* Http.serve(routes, { listen: { host: "127.0.0.1", port }, maxConnections: 1000 })
  const address = NetAddress.formatSocketAddress(server.addresses[0])
  yield* Console.log(`listening on http://${address}`)
  if (port !== 0) return yield* Effect.never

  const fetchText = (path: string, init?: RequestInit) =>
    Effect.promise(async () => {
      const response = await fetch(`http://${address}${path}`, init)
      return `${response.status} ${(await response.text()).trim().split("\n").at(-1)}`
    })
  yield* Console.log("GET /:", yield* fetchText("/"))
  yield* Console.log("GET /count, the last line:", yield* fetchText("/count"))
  yield* Console.log("POST /echo:", yield* fetchText("/echo", { method: "POST", body: "over and out" }))
  yield* Console.log("GET /nothing:", yield* fetchText("/nothing"))
})

program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), NodeRuntime.runMain)
