import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import * as path from "node:path"
import { root } from "./support/codeBlocks.ts"

const read = (file: string): string => fs.readFileSync(path.join(root, file), "utf8")

const pages = [
  "README.md",
  "bench/README.md",
  ...fs.globSync("docs/*.md", { cwd: root }).map((file) => file.replaceAll(path.sep, "/"))
]

const withoutCode = (page: string): string => read(page).replace(/^```.*?^```/gms, "")

/** What a heading is called in links, as GitHub does it. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\- ]/gu, "")
    .replaceAll(" ", "-")

const anchorsIn = (page: string): Array<string> =>
  Array.from(withoutCode(page).matchAll(/^#+ (?<heading>.*)$/gm), ({ groups }) =>
    anchorOf(groups?.["heading"] ?? "")
  )

const linksIn = (page: string): Array<string> =>
  Array.from(withoutCode(page).matchAll(/\]\((?<link>[^)\s]+)\)/g), ({ groups }) => groups?.["link"] ?? "")

const leadsSomewhere = (page: string, link: string): boolean => {
  if (/^https?:/.test(link)) return true
  const [file = "", anchor] = link.split("#")
  const target = file === "" ? page : path.posix.join(path.posix.dirname(page), file)
  if (!fs.existsSync(path.join(root, target))) return false
  return anchor === undefined || anchorsIn(target).includes(anchor)
}

describe("links of the README and the docs lead somewhere", () => {
  for (const page of pages) {
    it(page, () => {
      assert.deepStrictEqual(
        linksIn(page).filter((link) => !leadsSomewhere(page, link)),
        []
      )
    })
  }
})

describe("every module has a page", () => {
  for (const index of fs.globSync("src/{,*/}index.ts", { cwd: root })) {
    const namespaces = Array.from(
      read(index).matchAll(/^export \* as (?<name>\w+)/gm),
      ({ groups }) => groups?.["name"] ?? ""
    )
    it(index, () => {
      assert.isNotEmpty(namespaces)
      const table = read("docs/getting-started.md")
      assert.deepStrictEqual(
        namespaces.filter((name) => !table.includes(`\`${name}\``)),
        []
      )
    })
  }
})
