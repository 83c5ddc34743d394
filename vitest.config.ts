import { defineConfig } from "vitest/config"

// The package's own name resolves to its sources, without a build.
const conditions = ["source", "node", "import", "module", "default"]

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions, externalConditions: conditions } },
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    // Not one core less, as is the default: most tests wait for something.
    maxWorkers: "100%",
    // .ci/run counts from the JSON report.
    reporters: process.env["CI"]
      ? ["default", ["json", { outputFile: ".cache/test-results.json" }]]
      : ["default"],
    testTimeout: 30_000,
    hookTimeout: 30_000
  }
})
