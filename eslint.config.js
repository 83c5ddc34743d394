import tseslint from "typescript-eslint"

// What each part may import; the tests hold the rest (test/architecture.test.ts).
const core = {
  files: ["src/*.ts", "src/internal/**/*.ts"],
  rules: {
    "no-restricted-imports": [
      "error",
      {
        patterns: [
          { regex: "^(?!effect(/|$)|\\.)", message: "Core modules run everywhere: they import effect only." },
          { group: ["**/node/**", "**/testing/**"], message: "Imports point downwards only." }
        ]
      }
    ]
  }
}

export default tseslint.config(
  { ignores: ["dist", "coverage", ".cache", "node_modules"] },
  ...tseslint.configs.recommendedTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: { allowDefaultProject: ["*.js"] } } },
    rules: {
      "@typescript-eslint/consistent-type-imports": ["error", { fixStyle: "inline-type-imports" }],
      "@typescript-eslint/no-explicit-any": "error",
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      // Effect generators are written with `function*` whether or not they yield, and effects are values to compare.
      "require-yield": "off",
      "@typescript-eslint/unbound-method": "off",
      // Errors of the error channel are values of any class.
      "@typescript-eslint/only-throw-error": "off",
      "@typescript-eslint/prefer-promise-reject-errors": "off",
      eqeqeq: "error",
      "no-console": "off"
    }
  },
  core,
  { files: ["src/**/*.ts"], rules: { "@typescript-eslint/no-non-null-assertion": "warn" } },
  {
    // Tests look behind prototypes and into encoded values, whose types are `any` in the platform's own declarations.
    files: ["test/**/*.ts"],
    rules: {
      "@typescript-eslint/no-unsafe-argument": "off",
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/no-unsafe-call": "off",
      "@typescript-eslint/no-unsafe-member-access": "off"
    }
  },
  { files: ["*.js"], ...tseslint.configs.disableTypeChecked }
)
