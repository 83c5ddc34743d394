import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import * as path from "node:path"
import { root } from "./support/codeBlocks.ts"

const source = path.join(root, "src")

// What one calls to get something: whoever looks it up wants to see it used.
const CATEGORIES = /@category (constructors|combinators|layers|destructors)\b/

const documented = /\/\*\*(?<comment>(?:(?!\*\/)[\s\S])*)\*\/\s*export (?:const|function|class) (?<name>\w+)/g

/** The exported values of a module's categories that have no example of their own. */
const withoutExample = (file: string): Array<string> =>
  Array.from(
    fs.readFileSync(path.join(source, file), "utf8").matchAll(documented),
    ({ groups }) => groups ?? {}
  )
    .filter(({ comment = "" }) => CATEGORIES.test(comment) && !/\*\*Example\*\*[\s\S]*```ts/.test(comment))
    .map(({ name = "" }) => name)

const modules = fs
  .readdirSync(source, { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts") && !file.includes("internal"))
  .map((file) => file.replaceAll(path.sep, "/"))

describe("every constructor, combinator, layer and destructor has an example of its own", () => {
  for (const file of modules) {
    it(file, () => {
      assert.deepStrictEqual(withoutExample(file), [])
    })
  }
})
