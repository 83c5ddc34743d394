// Sends a message, from standard input, by a mail server: the protocol is written in examples/protocols/smtpClient.ts.
//   npm run example -- smtp-send --from me@example.org --to you@example.org mail.example.org:587 < message.eml
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Config, Console, Effect, Option, Stdio, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { NodeNetwork } from "effect-wire/node"
import * as SmtpClient from "./protocols/smtpClient.ts"

const main = Command.make(
  "smtp-send",
  {
    server: Argument.String("server").pipe(Argument.withDescription("host:port")),
    from: Flag.String("from"),
    to: Flag.String("to"),
    user: Flag.String("user").pipe(
      Flag.withDescription("Log in, with the password in SMTP_PASSWORD"),
      Flag.optional
    ),
    ca: Flag.FileText("ca").pipe(Flag.withDescription("An authority to trust (PEM)"), Flag.optional)
  },
  ({ ca, from, server, to, user }) =>
    Effect.gen(function* () {
      const login = Option.isSome(user) && {
        login: { user: user.value, password: yield* Config.Redacted("SMTP_PASSWORD") }
      }
      const session = yield* SmtpClient.connect(server, {
        ...login,
        ...(Option.isSome(ca) && { tls: { ca: ca.value } })
      })
      const { stdin } = yield* Stdio.Stdio
      yield* Console.log(yield* session.send({ from, to: [to] }, Stream.decodeText(stdin)))
    }).pipe(Effect.scoped)
).pipe(Command.withDescription("Sends a message from standard input"))

Command.run(main, { version: "0.1.0" }).pipe(
  Effect.provide([NodeServices.layer, NodeNetwork.layer]),
  NodeRuntime.runMain
)
