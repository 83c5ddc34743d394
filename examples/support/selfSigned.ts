// A certificate for trying things out, made by the program openssl: for this machine, trusted by who has it as `ca`.
import { Effect, FileSystem } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"

export interface Files {
  readonly certificate: string
  readonly key: string
}

/** Writes both files, over those that are there. */
export const selfSigned = Effect.fnUntraced(function* (name: string, { certificate, key }: Files) {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const code = yield* spawner.exitCode(
    ChildProcess.make(
      "openssl",
      [
        ...[
          "req",
          "-x509",
          "-newkey",
          "ec",
          "-pkeyopt",
          "ec_paramgen_curve:prime256v1",
          "-nodes",
          "-days",
          "7"
        ],
        ...["-subj", `/CN=${name}`, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        ...["-keyout", key, "-out", certificate]
      ],
      { stdout: "ignore", stderr: "ignore" }
    )
  )
  if (code !== 0) return yield* Effect.die(`openssl ended with ${code}`)
  return yield* FileSystem.FileSystem.use((fs) => fs.readFileString(certificate))
})

/** Files in a folder that is removed with the scope. */
export const temporaryFiles = FileSystem.FileSystem.use((fs) => fs.makeTempDirectoryScoped()).pipe(
  Effect.map((folder): Files => ({ certificate: `${folder}/certificate.pem`, key: `${folder}/key.pem` }))
)
