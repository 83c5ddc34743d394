import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import ts from "typescript"
import { root } from "./support/codeBlocks.ts"

const source = path.join(root, "src")

const modules = fs
  .readdirSync(source, { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts"))
  .map((file) => file.replaceAll(path.sep, "/"))

/** What a module imports or re-exports, types included: relative ones as paths below `src`. */
const importsOf = (file: string): Array<string> => {
  const text = fs.readFileSync(path.join(source, file), "utf8")
  return ts
    .preProcessFile(text, true, true)
    .importedFiles.map(({ fileName }) =>
      fileName.startsWith(".") ? path.posix.join(path.posix.dirname(file), fileName) : fileName
    )
}

const imports = new Map(modules.map((file) => [file, importsOf(file)]))

const roomOf = (file: string): string => {
  const [room = "", ...rest] = file.split("/")
  return rest.length === 0 ? "core" : room
}

// Of a package that is made of many modules, only those that are needed are loaded: a smaller heap, and a quicker start.
const effect = "effect/(?!(net|socket|encoding|process|testing)$)"

// What each room may import besides itself, and which packages.
const rooms: Record<string, { readonly rooms: ReadonlyArray<string>; readonly packages: RegExp }> = {
  core: { rooms: ["internal"], packages: new RegExp(`^${effect}`) },
  internal: { rooms: ["core"], packages: new RegExp(`^${effect}`) },
  node: { rooms: ["core", "internal"], packages: new RegExp(`^(${effect}|node:|@effect/platform-node/)`) },
  testing: { rooms: ["core", "internal"], packages: new RegExp(`^(${effect}|@effect/vitest$)`) },
  // Nobody who does not import it needs its package.
  msgpack: { rooms: ["core"], packages: new RegExp(`^(${effect}|@msgpack/msgpack$)`) }
}

describe("architecture", () => {
  for (const file of modules) {
    it(`${file} imports downwards only`, () => {
      const room = roomOf(file)
      const allowed = rooms[room]
      assert.isDefined(allowed, `${file} is in no known room`)
      for (const imported of imports.get(file) ?? []) {
        if (imported.endsWith(".ts")) {
          const target = roomOf(imported)
          assert.isTrue(target === room || allowed.rooms.includes(target), `${file} imports ${imported}`)
        } else {
          assert.match(imported, allowed.packages, `${file} imports ${imported}`)
        }
      }
    })
  }

  it("no module imports itself, however indirectly", () => {
    const done = new Set<string>()
    const visit = (file: string, trail: ReadonlyArray<string>): void => {
      assert.notInclude(trail, file, [...trail, file].join(" -> "))
      if (done.has(file)) return
      for (const imported of imports.get(file) ?? []) {
        if (imported.endsWith(".ts")) visit(imported, [...trail, file])
      }
      done.add(file)
    }
    for (const file of modules) visit(file, [])
  })

  it("every public module is a namespace of its folder's index", () => {
    for (const folder of ["", "node/", "testing/", "msgpack/"]) {
      const index = `${folder}index.ts`
      const text = fs.readFileSync(path.join(source, index), "utf8")
      const siblings = modules.filter(
        (file) => path.posix.dirname(file) === path.posix.dirname(index) && file !== index
      )
      for (const file of siblings) {
        const name = path.posix.basename(file, ".ts")
        assert.include(text, `export * as ${name} from "./${name}.ts"`)
      }
    }
  })

  it("every public module is a subpath of the package", async () => {
    for (const file of modules.filter((_) => roomOf(_) === "core" && _ !== "index.ts")) {
      const name = path.posix.basename(file, ".ts")
      const module: unknown = await import(/* @vite-ignore */ `effect-wire/${name}`)
      assert.strictEqual(typeof module, "object")
    }
  })

  it("no tracked file names a folder of some machine", () => {
    const files = execFileSync("git", ["ls-files"], { cwd: root, encoding: "utf8" }).trim().split("\n")
    const machinePath = new RegExp(`(^|[\\s"'\`(<=:])/(${["home", "root", "work", "Users"].join("|")})/`)
    for (const file of files) {
      const absolute = path.join(root, file)
      if (!fs.existsSync(absolute)) continue
      assert.notMatch(fs.readFileSync(absolute, "utf8"), machinePath, file)
    }
  })
})
