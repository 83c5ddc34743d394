import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Redacted, type Scope, Stream } from "effect"
import { type Connection, Framed, Framing, type Network, Server, type StreamError } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { TestNetwork } from "effect-wire/testing"
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Postgres from "../../examples/protocols/postgres.ts"
import { root } from "../support/codeBlocks.ts"
import { Cluster, postgres } from "../support/postgres.ts"
import { describeWith, tempFolder } from "../support/programs.ts"
import { portOf } from "../support/sockets.ts"

const connect = Effect.fnUntraced(function* (options?: Partial<Postgres.Options>) {
  const { password, port, user } = yield* Cluster
  return yield* Postgres.connect(
    { host: "127.0.0.1", port },
    { user, password, database: "postgres", ...options }
  )
})

const postgresError = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => {
    assert(error instanceof Postgres.PostgresError, String(error))
    return error
  })

const one = (session: Postgres.Session, sql: string) =>
  Effect.map(session.query(sql), (results) => results[0]?.rows[0]?.[0])

describeWith(postgres, "PostgreSQL's protocol, with PostgreSQL", () => {
  layer(Layer.merge(Cluster.layer, NodeNetwork.layer), { excludeTestServices: true, timeout: "60 seconds" })(
    (it) => {
      it.effect("logs in with SCRAM-SHA-256, and hears what server it is", () =>
        Effect.gen(function* () {
          const { parameters } = yield* connect()
          assert.match(parameters.get("server_version") ?? "", /^\d+/)
          assert.strictEqual(parameters.get("client_encoding"), "UTF8")
        })
      )

      it.effect("refuses a wrong password", () =>
        Effect.gen(function* () {
          const error = yield* postgresError(connect({ password: Redacted.make("guess") }))
          assert.deepStrictEqual([error.severity, error.code], ["FATAL", "28P01"])
        })
      )

      it.effect("says what is missing: a password, a database", () =>
        Effect.gen(function* () {
          const { port, user } = yield* Cluster
          const login = yield* Effect.flip(Postgres.connect({ host: "127.0.0.1", port }, { user }))
          assert.deepStrictEqual([login._tag, login.message], ["LoginError", "the server wants a password"])
          assert.strictEqual((yield* postgresError(connect({ database: "nowhere" }))).code, "3D000")
        })
      )

      it.effect("gives rows, and NULL for NULL", () =>
        Effect.gen(function* () {
          const { query } = yield* connect()
          assert.deepStrictEqual(
            yield* query(
              "select n, case n when 2 then null else repeat('ä', n) end as text from generate_series(0, 2) n"
            ),
            [
              {
                columns: [
                  { name: "n", type: 23 },
                  { name: "text", type: 25 }
                ],
                rows: [
                  ["0", ""],
                  ["1", "ä"],
                  ["2", null]
                ],
                command: "SELECT 3"
              }
            ]
          )
        })
      )

      it.effect("gives the results of several statements, and none for nothing", () =>
        Effect.gen(function* () {
          const { query } = yield* connect()
          const results = yield* query(
            "create temp table t (n int); insert into t values (1), (2); select n from t; select 'x' as y"
          )
          assert.deepStrictEqual(
            results.map(({ command, rows }) => [command, rows]),
            [
              ["CREATE TABLE", []],
              ["INSERT 0 2", []],
              ["SELECT 2", [["1"], ["2"]]],
              ["SELECT 1", [["x"]]]
            ]
          )
          assert.deepStrictEqual(yield* query(""), [])
        })
      )

      it.effect("fails with the server's error, and goes on", () =>
        Effect.gen(function* () {
          const session = yield* connect()
          const division = yield* postgresError(session.query("select 1; select 1/0"))
          assert.deepStrictEqual(
            [division.severity, division.code, division.message],
            ["ERROR", "22012", "division by zero"]
          )
          const syntax = yield* postgresError(session.query("select 'ä' frm nowhere nowhere"))
          assert.deepStrictEqual([syntax.code, syntax.position], ["42601", 16])
          yield* session.query("create temp table u (n int constraint once unique); insert into u values (7)")
          const twice = yield* postgresError(session.query("insert into u values (7)"))
          assert.deepStrictEqual(
            [twice.code, twice.constraint, twice.detail],
            ["23505", "once", "Key (n)=(7) already exists."]
          )
          assert.strictEqual(yield* one(session, "select count(*) from u"), "1")
        })
      )

      it.effect("sends no text that the server would take for the end of another", () =>
        Effect.gen(function* () {
          const session = yield* connect()
          const error = yield* Effect.flip(session.query("select 1 \0; drop table t"))
          assert(error._tag === "FrameError" && error.reason._tag === "InvalidMessage")
          assert.strictEqual(yield* one(session, "select 1"), "1")
        })
      )

      it.effect("goes on after a COPY that it has no input for", () =>
        Effect.gen(function* () {
          const session = yield* connect()
          yield* session.query("create temp table c (n int)")
          assert.strictEqual((yield* postgresError(session.query("copy c from stdin"))).code, "57014")
          const [copied] = yield* session.query("copy (select 1) to stdout")
          assert.strictEqual(copied?.command, "COPY 1")
        })
      )

      it.effect("gives a query that follows an interrupted one its own answer", () =>
        Effect.gen(function* () {
          const [session, holder] = [yield* connect(), yield* connect()]
          yield* holder.query("select pg_advisory_lock(1)")
          const waiting = yield* Effect.forkChild(session.query("select 'late', pg_advisory_lock(1)"), {
            startImmediately: true
          })
          yield* Fiber.interrupt(waiting)
          const next = yield* Effect.forkChild(one(session, "select 'mine'"), { startImmediately: true })
          yield* holder.query("select pg_advisory_unlock(1)")
          assert.strictEqual(yield* Fiber.join(next), "mine")
        })
      )

      it.effect("serves concurrent queries in turn", () =>
        Effect.gen(function* () {
          const session = yield* connect()
          const numbers = Array.from({ length: 50 }, (_, n) => String(n))
          const answers = yield* Effect.forEach(numbers, (n) => one(session, `select ${n}`), {
            concurrency: "unbounded"
          })
          assert.deepStrictEqual(answers, numbers)
        })
      )

      it.effect("takes a large answer, up to its limit", () =>
        Effect.gen(function* () {
          const session = yield* connect({ maxAnswer: 2_000_000 })
          const [result] = yield* session.query("select n, repeat('x', 1000) from generate_series(1, 1900) n")
          assert.strictEqual(result?.rows.length, 1900)
          assert.strictEqual(result?.rows.at(-1)?.[1]?.length, 1000)
          const error = yield* Effect.flip(session.query("select repeat('x', 2000000)"))
          assert(error._tag === "FrameError" && error.reason._tag === "FrameTooLong", String(error))
        })
      )

      it.effect("tells that an administrator ended the session, also to a query that comes later", () =>
        Effect.gen(function* () {
          const [admin, running, idle] = [yield* connect(), yield* connect(), yield* connect()]
          const pids = [
            yield* one(running, "select pg_backend_pid()"),
            yield* one(idle, "select pg_backend_pid()")
          ]
          const query = yield* Effect.forkChild(Effect.exit(running.query("select pg_sleep(60)")))
          for (const pid of pids) yield* admin.query(`select pg_terminate_backend(${pid}, 10000)`)
          for (const exit of [yield* Fiber.join(query), yield* Effect.exit(idle.query("select 1"))]) {
            assert(Exit.isFailure(exit))
            const error = yield* postgresError(exit)
            assert.deepStrictEqual([error.severity, error.code], ["FATAL", "57P01"])
          }
        })
      )

      it.effect("upgrades to TLS, with a server that it verifies", () =>
        Effect.gen(function* () {
          const { ca } = yield* Cluster
          const usesTls = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
          assert.strictEqual(yield* one(yield* connect(), usesTls), "f")
          assert.strictEqual(yield* one(yield* connect({ tls: { ca } }), usesTls), "t")
          const error = yield* Effect.flip(connect({ tls: {} }))
          assert(error._tag === "ConnectionError" && error.reason._tag === "TlsError", String(error))
          assert.strictEqual(error.reason.kind, "UnknownCa")
        })
      )

      it.effect("is a program", () =>
        Effect.gen(function* () {
          const { ca, password, port, user } = yield* Cluster
          const file = path.join(yield* tempFolder, "ca.pem")
          fs.writeFileSync(file, ca)
          const run = (sql: string) =>
            Effect.callback<{ code: number; stdout: string; stderr: string }>((resume) => {
              const options = [
                "--user",
                user,
                "--database",
                "postgres",
                "--ca",
                file,
                `127.0.0.1:${port}`,
                sql
              ]
              execFile(
                process.execPath,
                ["--conditions=source", "examples/run.ts", "postgres", ...options],
                { cwd: root, env: { ...process.env, PGPASSWORD: Redacted.value(password) } },
                (error, stdout, stderr) =>
                  resume(Effect.succeed({ code: error === null ? 0 : Number(error.code), stdout, stderr }))
              )
            })
          const [{ code, stderr, stdout }, failed] = yield* Effect.all(
            [run("select 1 as a, null as b; create temp table t (n int)"), run("select 1/0")],
            { concurrency: 2 }
          )
          assert.strictEqual(code, 0, stderr)
          assert.match(stdout, /^PostgreSQL \d.*\na \| b\n1 \| NULL\nSELECT 1\nCREATE TABLE\n$/)
          assert.deepStrictEqual([failed.code, failed.stderr], [1, "ERROR 22012: division by zero\n"])
        })
      )
    }
  )
})

// --- Servers that are not what they should be.

const scram = "SCRAM-SHA-256\0\0"

const packet = (type: string, ...parts: ReadonlyArray<string | Uint8Array>) => {
  const body = Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part)))
  const head = Buffer.from(`${type}....`)
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

const login = (method: number, data = "") => packet("R", Uint8Array.of(0, 0, 0, method), data)

const ready = packet("Z", "I")

/** A session with a server that gives these answers, one for each message of the client's. */
const against = (...answers: ReadonlyArray<Uint8Array>) =>
  Effect.gen(function* () {
    const answering = (connection: Connection.Connection) =>
      Effect.gen(function* () {
        const startup = Framed.make(connection, Framing.lengthPrefixed({ width: 4, includesLength: true }))
        const commands = Framed.make(
          connection,
          Framing.lengthPrefixed({ width: 4, offset: 1, includesLength: true })
        )
        for (const [i, answer] of answers.entries()) {
          yield* i === 0 ? startup.receive : commands.receive
          yield* connection.writer.write(answer)
        }
        yield* connection.writer.end
        yield* connection.reader.readAll()
      })
    yield* Server.serve(answering, { listen: { port: 5432 }, onError: () => Effect.void })
    return yield* Postgres.connect("localhost:5432", { user: "me", password: Redacted.make("secret") })
  })

describe("PostgreSQL's protocol, with a server that breaks it", () => {
  const test = (
    what: string,
    effect: Effect.Effect<
      unknown,
      Effect.Error<ReturnType<typeof Postgres.connect>> | StreamError.ListenError,
      Network.Network | Scope.Scope
    >,
    tag: string,
    message: RegExp
  ) =>
    it.effect(what, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(effect)
        assert.strictEqual("reason" in error ? error.reason._tag : error._tag, tag)
        assert.match(error.message, message)
      }).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))
    )

  const letIn = Buffer.concat([login(0), ready])
  const trusting = (...answer: ReadonlyArray<Uint8Array>) =>
    Effect.flatMap(against(letIn, Buffer.concat(answer)), ({ query }) => query("select 1"))

  test("no proof that it knows the password", against(login(10, scram), letIn), "ScramError", /challenge/)
  test("other mechanisms", against(login(10, "SCRAM-SHA-256-PLUS\0\0")), "LoginError", /has no SCRAM-SHA-256/)
  test("a password in the clear", against(login(3)), "LoginError", /wants a login \(3\)/)
  test(
    "a login that is cut short",
    against(packet("R", "\0")),
    "InvalidMessage",
    /a field of 4 bytes, 1 left/
  )
  test("the end in place of an answer", against(), "EndOfStream", /end of stream/)
  test("the end within an answer", trusting(packet("D", "\0\0")), "IncompleteReadError", /end of input/)
  test("a length that is none", trusting(Uint8Array.of(0x54, 0, 0, 0, 3)), "MalformedFrame", /a length of 3/)
  test("a length beyond the limit", trusting(Uint8Array.of(0x54, 0x7f, 0, 0, 0)), "FrameTooLong", /16777216/)
  test(
    "a row that promises more",
    trusting(packet("D", "\0\x01\0\0\0\x05abc"), ready),
    "InvalidMessage",
    /5 bytes, 3 left/
  )
  test(
    "a row with a negative length",
    trusting(packet("D", "\0\x01", Uint8Array.of(255, 255, 255, 254)), ready),
    "InvalidMessage",
    /-2 bytes/
  )
  test("text without an end", trusting(packet("C", "SELECT 1"), ready), "InvalidMessage", /-1 bytes/)

  /** A server that can meet the client's nonce, and says this in the end. */
  const challenging = Effect.fnUntraced(function* (...final: ReadonlyArray<Uint8Array>) {
    const answering = ({ reader, writer }: Connection.Connection) =>
      Effect.gen(function* () {
        yield* writer.write(login(10, scram))
        yield* reader.readUntil("n,,n=,r=")
        const nonce = new TextDecoder().decode(yield* reader.read())
        yield* writer.write(login(11, `r=${nonce}x,s=c2FsdA==,i=4096`))
        yield* reader.readUntil(",p=")
        yield* writer.writeAll(final)
        yield* reader.readAll()
      })
    yield* Server.serve(answering, { listen: { port: 5432 }, onError: () => Effect.void })
    return yield* Postgres.connect("localhost:5432", { user: "me", password: Redacted.make("secret") })
  })

  const forged = login(12, `v=${"A".repeat(43)}=`)
  test("a proof that is forged", challenging(forged, letIn), "ScramError", /does not know the password/)
  test("no proof in the end", challenging(letIn), "ScramError", /refuses/)
})

describe("PostgreSQL's TLS", () => {
  /** A server that answers the wish for TLS. */
  const answering = Effect.fnUntraced(function* (answer: string) {
    const server = yield* Server.serve(
      ({ reader, writer }) =>
        Effect.gen(function* () {
          assert.deepStrictEqual([...(yield* reader.readExactly(8))], [0, 0, 0, 8, 4, 210, 22, 47])
          yield* writer.write(answer)
          yield* Stream.runDrain(reader.stream)
        }),
      { listen: { host: "127.0.0.1" }, onError: () => Effect.void }
    )
    const port = portOf(server.addresses[0])
    return yield* Effect.flip(Postgres.connect({ host: "127.0.0.1", port }, { user: "me", tls: {} }))
  })

  it.live("goes no further without", () =>
    Effect.gen(function* () {
      const error = yield* answering("N")
      assert.deepStrictEqual([error._tag, error.message], ["LoginError", "the server has no TLS"])
    }).pipe(Effect.scoped, Effect.provide(NodeNetwork.layer))
  )

  it.live("takes no plain bytes behind the server's consent", () =>
    Effect.gen(function* () {
      const error = yield* answering("SE\0\0\0\x08forged")
      assert(error._tag === "ConnectionError" && error.reason._tag === "PlaintextBuffered", String(error))
    }).pipe(Effect.scoped, Effect.provide(NodeNetwork.layer))
  )
})
