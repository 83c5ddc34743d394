import { it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Effect, type Scope } from "effect"
import { ConnectionPool, type Network } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { leavingNothing, loops, openHandles, rawServer } from "../support/sockets.ts"

const sockets = () => openHandles().filter((name) => name.startsWith("TCPSocket")).length

const live = <E>(name: string, body: Effect.Effect<void, E, Scope.Scope | Network.Network>) =>
  it.live(name, () => leavingNothing(Effect.scoped(body)).pipe(Effect.provide(NodeNetwork.layer)))

live(
  "a peer that never closes costs twice max descriptors, however often a connection is lent once",
  Effect.gen(function* () {
    const before = sockets()
    const raw = yield* rawServer()
    /** Those of this side: of the other side, each is known. */
    const own = () => sockets() - before - raw.all.size
    const max = 5
    const pool = yield* ConnectionPool.make(
      { host: "127.0.0.1", port: raw.port },
      { max, maxUses: 1, closeTimeout: "1 minute" }
    )
    let most = 0
    const use = pool.use(() =>
      Effect.sync(() => {
        most = Math.max(most, own())
      })
    )
    yield* Effect.forEach(Array.from({ length: 300 }), () => use, { concurrency: 10, discard: true })
    yield* loops(5)
    strictEqual(own(), max)
    // One that was aborted lets go of its descriptor in the next turn.
    assertTrue(most >= max && most <= 3 * max, String(most))
    const { created, evicted } = yield* pool.stats
    deepStrictEqual([created, evicted], [300, 300])
    // The peer's end, so that the pool's does not take a minute.
    raw.server.close()
    for (const socket of raw.all) socket.resetAndDestroy()
  })
)
