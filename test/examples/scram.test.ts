import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import * as Scram from "../../examples/protocols/scram.ts"

// RFC 7677, section 3.
const nonce = "rOprNGfwEbeRWgbNEkqO"
const serverFirst = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
const serverFinal = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

const begin = (user = "user") => Scram.start(user, Redacted.make("pencil"), nonce)

describe("SCRAM-SHA-256", () => {
  it.effect("is that of RFC 7677", () =>
    Effect.gen(function* () {
      const { message, reply } = begin()
      assert.strictEqual(message, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
      const last = yield* reply(serverFirst)
      assert.strictEqual(
        last.message,
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
      )
      yield* last.verify(serverFinal)
    })
  )

  it("escapes the name", () => {
    assert.strictEqual(begin("a=b,c").message, "n,,n=a=3Db=2Cc,r=rOprNGfwEbeRWgbNEkqO")
  })

  it("takes a new nonce each time", () => {
    const password = Redacted.make("pencil")
    assert.notStrictEqual(Scram.start("", password).message, Scram.start("", password).message)
  })

  for (const [what, final] of [
    ["a signature that is another's", serverFinal.replace("6rri", "6rrj")],
    ["a signature that is cut short", "v=6rri"],
    ["an empty signature", "v="],
    ["no signature", ""],
    ["a refusal", "e=invalid-proof"]
  ] as const) {
    it.effect(`refuses ${what}`, () =>
      Effect.gen(function* () {
        const { verify } = yield* begin().reply(serverFirst)
        assert.strictEqual((yield* Effect.flip(verify(final)))._tag, "ScramError")
      })
    )
  }

  for (const [what, first] of [
    ["a nonce that is not the client's", serverFirst.replace("rOpr", "rOps")],
    ["a nonce that the server added nothing to", serverFirst.replace("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "")],
    ["no iterations", serverFirst.replace("4096", "0")],
    ["more iterations than the client has time for", serverFirst.replace("4096", "1000001")],
    ["an extension that it must know", `m=x,${serverFirst}`],
    ["nothing", ""]
  ] as const) {
    it.effect(`answers not to ${what}`, () =>
      Effect.gen(function* () {
        assert.strictEqual((yield* Effect.flip(begin().reply(first)))._tag, "ScramError")
      })
    )
  }
})
