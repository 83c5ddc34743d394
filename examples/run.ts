// Runs an example by its name: npm run example -- echo-client
import { readdir } from "node:fs/promises"

const folder = new URL(".", import.meta.url)
const files = await readdir(folder)
const names = files
  .filter((file) => file.endsWith(".ts"))
  .map((file) => file.slice(0, -".ts".length))
  .filter((name) => name !== "run" && name !== "main")
  .sort()

const [name] = process.argv.splice(2, 1)

if (name !== undefined && names.includes(name)) {
  await import(new URL(`${name}.ts`, folder).href)
} else {
  const problem = name === undefined ? "Which example?" : `There is no example "${name}".`
  console.error(`${problem} One of:\n${names.map((_) => `  ${_}`).join("\n")}`)
  process.exitCode = 1
}
