import { it } from "@effect/vitest"
import { strictEqual } from "@effect/vitest/utils"
import { Cause, Effect, Exit } from "effect"
import { Codec, Connection, Framed, Framing, Relay, Server, StreamReader } from "effect-wire"
import { TestNetwork } from "effect-wire/testing"
import { describe } from "vitest"

// Options come from configurations: one that was misspelt must not pass for another one.
const untyped = (input: unknown) => input as never

const defect = <A, E, R>(make: () => Effect.Effect<A, E, R>): Effect.Effect<string, never, R> =>
  Effect.map(Effect.exit(Effect.suspend(make)), (exit) =>
    Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? String(Cause.squash(exit.cause)) : String(exit)
  )

const listen = { host: "127.0.0.1", port: 7000 }
const identity = TestNetwork.identity()

const cases: Record<string, readonly [() => Effect.Effect<unknown, unknown, never>, string]> = {
  "clientCertificate of a server": [
    () =>
      Effect.scoped(
        Server.serve(() => Effect.void, {
          listen,
          tls: { identity, clientCertificate: untyped("required") }
        })
      ).pipe(Effect.provide(TestNetwork.layer)),
    'clientCertificate must be one of "none", "request", "require", received "required"'
  ],
  "leftover of an upgrade": [
    () =>
      Effect.scoped(
        Effect.flatMap(Connection.pair(), ([left]) =>
          left.upgradeTls({ role: "server", identity, leftover: untyped("reject") })
        )
      ),
    'leftover must be one of "fail", "discard", "feed", received "reject"'
  ],
  "role of an upgrade": [
    () =>
      Effect.scoped(
        Effect.flatMap(Connection.pair(), ([left]) => left.upgradeTls({ role: untyped("Client"), identity }))
      ),
    'role must be one of "client", "server", received "Client"'
  ],
  "onInvalid of messages": [
    () =>
      Effect.sync(() =>
        Framed.receiver(StreamReader.feedable().reader, Framing.lines(), Codec.bytes, {
          onInvalid: untyped("ignore")
        })
      ),
    'onInvalid must be one of "fail", "skip", received "ignore"'
  ],
  "halfClose of a relay": [
    () =>
      Effect.scoped(
        Effect.flatMap(Connection.pair(), ([left, right]) =>
          Relay.bidirectional(left, right, { halfClose: untyped("close") })
        )
      ),
    'halfClose must be one of "propagate", "close-both", received "close"'
  ],
  "ending of lines": [
    () => Effect.sync(() => Framing.lines({ ending: untyped("\r") })),
    String.raw`ending must be one of "\n", "\r\n", "either", received "\r"`
  ],
  "untrusted of PROXY headers": [
    () =>
      Effect.scoped(
        Server.serve(() => Effect.void, {
          listen,
          proxyProtocol: { trusted: [], untrusted: untyped("allow") }
        })
      ).pipe(Effect.provide(TestNetwork.layer)),
    'untrusted must be one of "refuse", "serve", received "allow"'
  ],
  "connectTimeout that is no time": [
    () =>
      Effect.scoped(Connection.connect(listen, { connectTimeout: 0 })).pipe(
        Effect.provide(TestNetwork.layer)
      ),
    "connectTimeout must be a positive duration, received 0 ms"
  ]
}

describe("an option that is none", () => {
  for (const [name, [make, message]] of Object.entries(cases)) {
    it.effect(name, () => Effect.map(defect(make), (text) => strictEqual(text, `RangeError: ${message}`)))
  }
})
