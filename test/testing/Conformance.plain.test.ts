import { assert, describe, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import { root } from "../support/codeBlocks.ts"

interface Output {
  readonly code: number | null
  readonly text: string
}

/** Runs a program of plain Node, in an installation that has no test runner. */
const run = (program: string): Promise<Output> => {
  const hooks = `import { registerHooks } from "node:module"
    registerHooks({
      resolve(specifier, context, next) {
        if (/vitest/.test(specifier)) throw new Error("not installed: " + specifier)
        return next(specifier, context)
      }
    })`
  const args = [
    "--conditions=source",
    "--no-warnings",
    "--import",
    `data:text/javascript,${encodeURIComponent(hooks)}`,
    "--input-type=module",
    "--eval",
    program
  ]
  return new Promise((resolve) => {
    const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"] })
    let text = ""
    child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => (text += chunk.toString()))
    child.on("close", (code) => resolve({ code, text }))
  })
}

describe("effect-wire/testing without a test runner", () => {
  it("is imported, and its networks are used", async () => {
    const { code, text } = await run(`
      import { Effect } from "effect"
      import { Connection, Server } from "effect-wire"
      import { TestNetwork } from "effect-wire/testing"
      const program = Effect.gen(function* () {
        const server = yield* Server.serve(({ writer }) => writer.write("hello\\n"), { listen: { port: 7000 } })
        return yield* Connection.use(server.addresses[0], ({ reader }) => reader.readLineString)
      })
      const line = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))
      console.log(line.value)`)
    assert.deepStrictEqual({ code, text }, { code: 0, text: "hello\n" })
  })

  it("gives laws that any program can run", async () => {
    const { code, text } = await run(`
      import { Effect } from "effect"
      import { MemoryTransport } from "effect-wire"
      import { Conformance } from "effect-wire/testing"
      const layer = Conformance.layerPair(MemoryTransport.makePair())
      for (const { check } of Conformance.transportLaws) await Effect.runPromise(Effect.provide(check, layer))
      const broken = Conformance.layerPair(MemoryTransport.makePair(), { halfClose: false })
      const [first] = Conformance.transportLaws
      const exit = await Effect.runPromiseExit(Effect.provide(first.check, broken))
      console.log(first.name, exit._tag)`)
    assert.deepStrictEqual(
      { code, text },
      { code: 0, text: "can do what it is said to be able to Failure\n" }
    )
  })

  it("says what is missing when a suite is registered", async () => {
    const { code, text } = await run(`
      import { Conformance, TestNetwork } from "effect-wire/testing"
      Conformance.server(TestNetwork.layer)`)
    assert.strictEqual(code, 1)
    assert.include(text, "@effect/vitest")
  })
})
