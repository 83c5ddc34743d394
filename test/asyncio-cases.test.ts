import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import * as path from "node:path"
import { root } from "./support/codeBlocks.ts"

/** How many cases of each kind there are, numbered from 001. */
const kinds = { R: 40, U: 50, E: 26, W: 39, C: 23, S: 50, T: 40, H: 34, X: 29 }

const idOf = (kind: string, n: number): string => `${kind}-${String(n).padStart(3, "0")}`

const all = Object.entries(kinds).flatMap(([kind, count]) =>
  Array.from({ length: count }, (_, i) => idOf(kind, i + 1))
)

// A title begins with the IDs of the cases that it proves.
const title = /(?:["'`])((?:[RUEWCSTHX]-\d{3}[ ,:]+)*[RUEWCSTHX]-\d{3})\b/g

const testFiles = fs
  .readdirSync(path.join(root, "test"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".test.ts") && file !== "asyncio-cases.test.ts")

const proved = new Set(
  testFiles.flatMap((file) =>
    Array.from(fs.readFileSync(path.join(root, "test", file), "utf8").matchAll(title), ([, ids = ""]) =>
      Array.from(ids.matchAll(/[A-Z]-\d{3}/g), ([id]) => id)
    ).flat()
  )
)

/** The IDs of the page's list, ranges such as "T-001 to T-040" included. */
const excused = (): Set<string> => {
  const page = fs.readFileSync(path.join(root, "docs", "asyncio-cases.md"), "utf8")
  const ids = new Set<string>()
  for (const [, entry = ""] of page.matchAll(/^- ((?:[A-Z]-\d{3}(?: to |, )?)+):/gm)) {
    for (const [, kind = "", first = "", last = first] of entry.matchAll(
      /([A-Z])-(\d{3})(?: to [A-Z]-(\d{3}))?/g
    )) {
      for (let n = Number(first); n <= Number(last); n++) ids.add(idOf(kind, n))
    }
  }
  return ids
}

describe("the cases of asyncio", () => {
  const notApplicable = excused()

  it("each is a test's title or on the page of those that do not apply", () => {
    assert.deepStrictEqual(
      all.filter((id) => !proved.has(id) && !notApplicable.has(id)),
      []
    )
  })

  it("none is both", () => {
    assert.deepStrictEqual(
      all.filter((id) => proved.has(id) && notApplicable.has(id)),
      []
    )
  })
})
