import { Context, Effect, Layer } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { Authority } from "./certificates.ts"
import { isInstalled, ready, spawnPeer, tempFolder } from "./programs.ts"
import { freePort } from "./sockets.ts"

const program = "exim4"

/** What a developer's machine may lack. */
export const eximLacks =
  process.getuid?.() !== 0
    ? `${program} has to be started by root`
    : isInstalled(program)
      ? undefined
      : `${program} is not installed`

const config = (folder: string, port: number): string => `
primary_hostname = mail.example
spool_directory = ${folder}/spool
log_file_path = ${folder}/log/%slog
pid_file_path = ${folder}/pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = ${port}
tls_advertise_hosts = *
tls_certificate = ${folder}/server.pem
tls_privatekey = ${folder}/server.key
message_size_limit = 1M
# What was accepted stays where it is.
queue_only = true
host_lookup =
keep_environment =
acl_smtp_rcpt = recipient
acl_smtp_data = accept

begin acl
recipient:
  deny local_parts = nobody
       message = no such user:\\n nobody is not here
  defer local_parts = later
        message = not now
  accept authenticated = *
  accept domains = example.org
  deny message = relay not permitted

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_advertise_condition = \${if def:tls_in_cipher}
  server_prompts = :
  server_condition = \${if and {{eq{$auth2}{wire}}{eq{$auth3}{secret}}}}
  server_set_id = $auth2
`

/** A mail server with TLS that keeps mail to example.org, and all of it from the user `wire` with the password `secret`. */
export class Exim extends Context.Service<
  Exim,
  {
    readonly port: number
    readonly ca: string
    /** A message that it has accepted, by its name. */
    readonly message: (id: string) => string
  }
>()("test/Exim") {
  static readonly layer = Layer.effect(
    Exim,
    Effect.gen(function* () {
      const folder = yield* tempFolder
      const port = yield* freePort
      const authority = new Authority("Mail CA")
      const { certificate, key } = authority.issue()
      fs.writeFileSync(path.join(folder, "server.pem"), certificate)
      fs.writeFileSync(path.join(folder, "server.key"), key, { mode: 0o600 })
      fs.mkdirSync(path.join(folder, "spool"))
      execFileSync("chown", ["-R", "Debian-exim", folder])
      // It wants its configuration to be root's.
      const file = path.join(folder, "exim.conf")
      fs.writeFileSync(file, config(folder, port), { mode: 0o644 })

      yield* spawnPeer(program, ["-C", file, "-bdf"])
      yield* ready({ host: "127.0.0.1", port })
      return {
        port,
        ca: authority.certificate,
        message: (id) => execFileSync(program, ["-C", file, "-Mvc", id], { encoding: "utf8" })
      }
    })
  )
}
