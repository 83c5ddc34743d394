import { describe } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Connection, Network, type Tls } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { Conformance } from "effect-wire/testing"
import { Authority } from "../support/certificates.ts"

const authority = new Authority()
const ca = authority.certificate
const identity = authority.issue()

/** Connections over loopback that were upgraded; `near` has the role. */
const layerUpgraded = (role: "client" | "server", maxVersion: Tls.Version) =>
  Layer.effect(
    Conformance.Connections,
    Effect.gen(function* () {
      const network = yield* Network.Network
      const listener = yield* network.listen({ host: "127.0.0.1", port: 0 })
      const connected = Effect.all([network.connect(listener.address), listener.accept], {
        concurrency: "unbounded"
      })
      const client: Tls.UpgradeOptions = { role: "client", servername: "localhost", ca, maxVersion }
      const server: Tls.UpgradeOptions = { role: "server", identity, maxVersion }
      const roles = role === "client" ? ([client, server] as const) : ([server, client] as const)
      return Conformance.Connections.of({
        connect: Effect.fnUntraced(function* (options, peerOptions) {
          const [left, right] = yield* connected
          const near = yield* Connection.make(left, options)
          const far = yield* Connection.make(right, peerOptions)
          yield* Effect.all([near.upgradeTls(roles[0]), far.upgradeTls(roles[1])], {
            concurrency: "unbounded"
          })
          return [near, far] as const
        }),
        // TLS 1.2 has no half-close: a close_notify ends both directions.
        capabilities: {
          ...Conformance.defaultCapabilities,
          halfClose: maxVersion === "TLSv1.3",
          linger: true
        }
      })
    })
  ).pipe(Layer.provide(NodeNetwork.layer))

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  for (const role of ["client", "server"] as const) {
    describe(`${version}, the ${role}`, () => {
      const layer = layerUpgraded(role, version)
      Conformance.connection(layer)
      Conformance.reader(layer)
      Conformance.writer(layer)
    })
  }
}
