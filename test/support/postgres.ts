import { Context, Effect, Layer, Redacted } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { Authority } from "./certificates.ts"
import { says, spawnPeer, tempFolder } from "./programs.ts"
import { freePort } from "./sockets.ts"

// Debian keeps the programs of its versions out of the PATH.
const folders = fs.existsSync("/usr/lib/postgresql")
  ? fs.readdirSync("/usr/lib/postgresql").map((version) => `/usr/lib/postgresql/${version}/bin`)
  : []

const program = (name: string): string =>
  folders.map((folder) => path.join(folder, name)).find((file) => fs.existsSync(file)) ?? name

/** What a test needs: the program itself, for `describeWith`. */
export const postgres = program("postgres")

// The programs refuse to run as root, for whom the account of the package stands in.
const account = process.getuid?.() === 0 ? "postgres" : undefined

const asAccount = (command: string, args: ReadonlyArray<string>): [string, ...Array<string>] =>
  account === undefined
    ? [command, ...args]
    : ["setpriv", `--reuid=${account}`, `--regid=${account}`, "--clear-groups", command, ...args]

const run = (command: string, args: ReadonlyArray<string>): void => {
  const [file, ...rest] = asAccount(command, args)
  execFileSync(file, rest, { cwd: "/", stdio: ["ignore", "ignore", "pipe"] })
}

/** A server with TLS and a database of its own, in which `user` may do anything. */
export class Cluster extends Context.Service<
  Cluster,
  {
    readonly port: number
    readonly user: string
    readonly password: Redacted.Redacted<string>
    readonly ca: string
  }
>()("test/Cluster") {
  static readonly layer = Layer.effect(
    Cluster,
    Effect.gen(function* () {
      const folder = yield* tempFolder
      const port = yield* freePort
      const user = "wire"
      const password = "a pass,word=with ™"
      const authority = new Authority("PostgreSQL CA")
      const { certificate, key } = authority.issue()
      const files = { pw: password, "server.pem": certificate, "server.key": key }
      for (const [name, content] of Object.entries(files)) {
        fs.writeFileSync(path.join(folder, name), content, { mode: 0o600 })
      }
      if (account !== undefined) execFileSync("chown", ["-R", account, folder])

      const data = path.join(folder, "data")
      run(program("initdb"), [
        ...["-D", data, "-U", user, "--pwfile", path.join(folder, "pw"), "--auth=scram-sha-256"],
        ...["--no-sync", "--no-locale", "--encoding=UTF8"]
      ])
      const settings = {
        listen_addresses: "127.0.0.1",
        port: String(port),
        unix_socket_directories: "",
        fsync: "off",
        ssl: "on",
        ssl_cert_file: path.join(folder, "server.pem"),
        ssl_key_file: path.join(folder, "server.key")
      }
      const [command, ...args] = asAccount(postgres, [
        ...["-D", data],
        ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])
      ])
      const server = yield* spawnPeer(command, args)
      // Killed, it would leave shared memory behind.
      yield* Effect.addFinalizer(() =>
        Effect.andThen(
          Effect.sync(() => server.child.kill("SIGINT")),
          server.exit
        )
      )
      yield* says(server, /ready to accept connections/)
      return { port, user, password: Redacted.make(password), ca: authority.certificate }
    })
  )
}
