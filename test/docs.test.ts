import { afterAll, assert, describe, it } from "@effect/vitest"
import { checkBlocks, findBlocks, removeBlocks, runBlock, writeBlocks } from "./support/codeBlocks.ts"

const blocks = await findBlocks()
await writeBlocks(blocks)
const complaints = await checkBlocks()

afterAll(removeBlocks)

describe("code blocks of the README, the docs and the modules", () => {
  it("there are some", () => {
    assert.isAbove(blocks.length, 10)
  })

  it("type-check", () => {
    assert.strictEqual(complaints, "")
  })

  describe.concurrent("run", { timeout: 30_000 }, () => {
    for (const block of blocks.filter((_) => _.runs)) {
      it(block.place, async () => {
        const { code, text } = await runBlock(block)
        assert.strictEqual(code, 0, text)
      })
    }
  })
})
