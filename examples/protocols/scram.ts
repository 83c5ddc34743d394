// SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's side, without channel binding: both sides prove that they know the
// password, and none of them sends it.
import { Effect, Redacted, Schema } from "effect"
import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from "node:crypto"

export class ScramError extends Schema.TaggedError<ScramError>("ScramError")("ScramError", {
  message: Schema.String
}) {}

/** What the first message begins with: no channel binding, no other identity to act as. */
const header = "n,,"

// Each one costs the client time, and the server says how many there are.
const MOST_ITERATIONS = 1_000_000

/**
 * The first message of an exchange, and how it goes on: `reply` answers the server's first message, and `verify` holds the
 * server's last one to what only somebody can know who knows the password.
 */
export const start = (
  user: string,
  password: Redacted.Redacted<string>,
  nonce = randomBytes(18).toString("base64")
) => {
  const first = `n=${user.replaceAll("=", "=3D").replaceAll(",", "=2C")},r=${nonce}`

  const reply = Effect.fnUntraced(function* (serverFirst: string) {
    const [, serverNonce = "", salt = "", count] = /^r=([^,]+),s=([^,]+),i=(\d+)/.exec(serverFirst) ?? []
    const iterations = Number(count)
    if (!(iterations > 0 && iterations <= MOST_ITERATIONS)) {
      return yield* new ScramError({ message: `the server's challenge cannot be met: ${serverFirst}` })
    }
    if (!serverNonce.startsWith(nonce) || serverNonce === nonce) {
      return yield* new ScramError({ message: "the server's nonce does not continue the client's" })
    }

    const key = yield* saltedPassword(Redacted.value(password), Buffer.from(salt, "base64"), iterations)
    const unproven = `c=${Buffer.from(header).toString("base64")},r=${serverNonce}`
    const conversation = `${first},${serverFirst},${unproven}`
    const clientKey = hmac(key, "Client Key")
    const proof = xor(clientKey, hmac(sha256(clientKey), conversation))
    const signature = hmac(hmac(key, "Server Key"), conversation)

    const verify = (serverFinal: string): Effect.Effect<void, ScramError> => {
      const [, shown] = /^v=([^,]+)/.exec(serverFinal) ?? []
      if (shown === undefined) {
        return Effect.fail(new ScramError({ message: `the server refuses: ${serverFinal}` }))
      }
      const bytes = Buffer.from(shown, "base64")
      return bytes.length === signature.length && timingSafeEqual(bytes, signature)
        ? Effect.void
        : Effect.fail(new ScramError({ message: "the server does not know the password" }))
    }

    return { message: `${unproven},p=${proof.toString("base64")}`, verify }
  })

  return { message: header + first, reply }
}

// SASLprep (RFC 4013) in short: it also forbids characters that nobody has in a password.
const saltedPassword = (password: string, salt: Uint8Array, iterations: number): Effect.Effect<Buffer> =>
  Effect.callback((resume) => {
    pbkdf2(password.normalize("NFKC"), salt, iterations, 32, "sha256", (error, key) =>
      resume(error === null ? Effect.succeed(key) : Effect.die(error))
    )
  })

const hmac = (key: Uint8Array, text: string): Buffer => createHmac("sha256", key).update(text).digest()

const sha256 = (bytes: Uint8Array): Buffer => createHash("sha256").update(bytes).digest()

const xor = (a: Buffer, b: Buffer): Buffer => Buffer.from(a.map((byte, i) => byte ^ (b[i] ?? 0)))
