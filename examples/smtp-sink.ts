// Takes mail for anybody, and shows it: the protocol is written in examples/protocols/smtpServer.ts.
//   npm run example -- smtp-sink --port 2525          then: swaks --server 127.0.0.1:2525 --to you@example.org
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { NetAddress } from "effect/net"
import { NodeNetwork } from "effect-wire/node"
import * as SmtpServer from "./protocols/smtpServer.ts"

const show = ({ content, from, secure, to }: SmtpServer.Message) =>
  Console.log(
    `--- from <${from}> to <${to.join(">, <")}>${secure ? ", over TLS" : ""}\n${new TextDecoder().decode(content)}`
  )

const main = Command.make(
  "smtp-sink",
  {
    host: Flag.String("host").pipe(Flag.withDefault("127.0.0.1")),
    port: Flag.Int("port").pipe(Flag.withDefault(2525)),
    certificate: Flag.FileText("certificate").pipe(Flag.withDescription("Offer TLS (PEM)"), Flag.optional),
    key: Flag.FileText("key").pipe(Flag.withDescription("Its key (PEM)"), Flag.optional)
  },
  ({ certificate, host, key, port }) =>
    Effect.gen(function* () {
      const identity = Option.all({ certificate, key })
      const { addresses } = yield* SmtpServer.serve({
        listen: { host, port },
        maxConnections: 100,
        onMessage: show,
        ...(Option.isSome(identity) && { tls: { identity: identity.value } })
      })
      yield* Console.log(`listening on ${NetAddress.formatSocketAddress(addresses[0])}; Ctrl-C ends it`)
      return yield* Effect.never
    }).pipe(Effect.scoped)
).pipe(Command.withDescription("A mail server that shows what it gets"))

Command.run(main, { version: "0.1.0" }).pipe(
  Effect.provide([NodeServices.layer, NodeNetwork.layer]),
  NodeRuntime.runMain
)
