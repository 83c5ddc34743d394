import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import * as path from "node:path"
import { chart } from "../bench/harness/Plot.ts"
import * as Results from "../bench/harness/Results.ts"
import * as Table from "../bench/harness/Table.ts"
import { root } from "./support/codeBlocks.ts"

const results = Results.read(path.join(root, "bench", "results", "latest.json"))

const published = (file: string): string =>
  fs.readFileSync(path.join(root, "docs", "bench", file), "utf8").replaceAll("\r\n", "\n")

describe("figures in the docs come from results that the benchmark wrote", () => {
  it("results.md", () => {
    assert.strictEqual(published("results.md"), Table.page(results))
  })

  for (const workload of results.workloads) {
    const file = `${workload.id.toLowerCase()}.svg`
    it(file, () => {
      assert.strictEqual(published(file), chart(workload, results))
    })
  }

  it("of everything that is measured", () => {
    assert.deepStrictEqual(
      fs.readdirSync(path.join(root, "docs", "bench")).sort(),
      ["results.md", ...results.workloads.map(({ id }) => `${id.toLowerCase()}.svg`)].sort()
    )
  })
})
