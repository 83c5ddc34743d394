// Runs SQL in a PostgreSQL server, with the protocol written in examples/protocols/postgres.ts.
//   PGPASSWORD=… npm run example -- postgres --user me --database shop 127.0.0.1:5432 "select 1; select 2"
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Config, Console, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { NodeNetwork } from "effect-wire/node"
import * as Postgres from "./protocols/postgres.ts"

const show = ({ columns, command, rows }: Postgres.ResultSet) =>
  Console.log(
    [
      ...(columns.length === 0 ? [] : [columns.map(({ name }) => name).join(" | ")]),
      ...rows.map((row) => row.map((value) => value ?? "NULL").join(" | ")),
      command
    ].join("\n")
  )

const main = Command.make(
  "postgres",
  {
    server: Argument.String("server").pipe(Argument.withDescription("host:port")),
    sql: Argument.String("sql"),
    user: Flag.String("user"),
    database: Flag.String("database").pipe(Flag.withDescription("Default: the user's name"), Flag.optional),
    ca: Flag.FileText("ca").pipe(
      Flag.withDescription("Speak TLS, and trust this authority (PEM)"),
      Flag.optional
    )
  },
  ({ ca, database, server, sql, user }) =>
    Effect.gen(function* () {
      const password = yield* Config.Redacted("PGPASSWORD").pipe(Config.option)
      const session = yield* Postgres.connect(server, {
        user,
        ...(Option.isSome(password) && { password: password.value }),
        ...(Option.isSome(database) && { database: database.value }),
        ...(Option.isSome(ca) && { tls: { ca: ca.value } })
      })
      yield* Console.log(`PostgreSQL ${session.parameters.get("server_version")}`)
      yield* Effect.flatMap(session.query(sql), Effect.forEach(show))
    }).pipe(
      Effect.scoped,
      Effect.catchTag("PostgresError", ({ code, message, severity }) =>
        Effect.andThen(
          Console.error(`${severity} ${code}: ${message}`),
          Effect.sync(() => {
            process.exitCode = 1
          })
        )
      )
    )
).pipe(Command.withDescription("Runs SQL in a PostgreSQL server"))

Command.run(main, { version: "0.1.0" }).pipe(
  Effect.provide([NodeServices.layer, NodeNetwork.layer]),
  NodeRuntime.runMain
)
