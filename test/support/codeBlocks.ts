import { spawn } from "node:child_process"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { fileURLToPath } from "node:url"

export const root = fileURLToPath(new URL("../..", import.meta.url))

/** A ```ts block of a page or of a module's comments. */
export interface CodeBlock {
  /** Where it stands: `docs/reading.md:40`. */
  readonly place: string
  readonly code: string
  readonly runs: boolean
  readonly file: string
}

const filesBelow = async (folder: string, ending: string): Promise<Array<string>> => {
  const entries = await fs.readdir(path.join(root, folder), { recursive: true })
  return entries.filter((name) => name.endsWith(ending)).map((name) => path.join(folder, name))
}

const fence = /^(?<margin>[ \t]*(?:\* ?)?)```ts(?<flags>[^\n]*)\n(?<body>[\s\S]*?)^[ \t]*(?:\* ?)?```$/gm

const blocksOf = async (page: string): Promise<Array<CodeBlock>> => {
  const text = await fs.readFile(path.join(root, page), "utf8")
  return Array.from(text.matchAll(fence), (match) => {
    const { body = "", flags = "", margin = "" } = match.groups ?? {}
    const line = text.slice(0, match.index).split("\n").length
    const isComment = margin.includes("*")
    const code = isComment ? body.replace(/^[ \t]*\* ?/gm, "") : body
    const name = `${page.replaceAll(/[\\/]/g, "_").replaceAll(".", "-")}-${line}.ts`
    return {
      place: `${page}:${line}`,
      code,
      runs: !flags.includes("no-run"),
      file: path.join(folder, name)
    }
  })
}

// Each test run has its own folder, so that two of them in one checkout do not meet.
const folder = path.join(".cache", "blocks", String(process.pid))

export const findBlocks = async (): Promise<Array<CodeBlock>> => {
  const pages = ["README.md", ...(await filesBelow("docs", ".md")), ...(await filesBelow("src", ".ts"))]
  return (await Promise.all(pages.map(blocksOf))).flat()
}

export const removeBlocks = (): Promise<void> =>
  fs.rm(path.join(root, folder), { recursive: true, force: true })

export const writeBlocks = async (blocks: ReadonlyArray<CodeBlock>): Promise<void> => {
  await removeBlocks()
  await fs.mkdir(path.join(root, folder), { recursive: true })
  await Promise.all(
    blocks.map((block) => fs.writeFile(path.join(root, block.file), `${block.code}\nexport {}\n`))
  )
  await fs.writeFile(
    path.join(root, folder, "tsconfig.json"),
    JSON.stringify({
      extends: "../../../tsconfig.json",
      compilerOptions: { noUnusedLocals: false, noUnusedParameters: false },
      include: ["*.ts"]
    })
  )
}

interface Output {
  readonly code: number | null
  readonly text: string
}

const run = (args: ReadonlyArray<string>, timeout: number): Promise<Output> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, args, {
      cwd: root,
      timeout,
      // A program that drains at SIGTERM may hang there.
      killSignal: "SIGKILL",
      stdio: ["ignore", "pipe", "pipe"]
    })
    let text = ""
    child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => (text += chunk.toString()))
    child.on("close", (code, signal) =>
      resolve({ code, text: signal === null ? text : `${text}\nended by ${signal} (limit: ${timeout} ms)` })
    )
  })

/** The compiler's complaints about all blocks together. */
export const checkBlocks = async (): Promise<string> => {
  const tsc = path.join("node_modules", "typescript-native", "bin", "tsc")
  const { code, text } = await run([tsc, "-p", folder], 60_000)
  return code === 0 ? "" : text.trim() || `the compiler ended with code ${code}`
}

export const runBlock = (block: CodeBlock): Promise<Output> =>
  run(["--conditions=source", "--no-warnings", block.file], 20_000)
