// A client for memcached: items, several at once, numbers, and what memcached refuses.
//   npm run example -- memcached-client 127.0.0.1:11211
// Without a target it starts a memcached of its own, which has to be in the PATH.
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Option } from "effect"
import { Connection, type Network } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import * as Memcached from "./protocols/memcached.ts"
import { ownMemcached } from "./support/servers.ts"

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)

const program = Effect.gen(function* () {
  const argument = process.argv[2]
  const target: Network.Target = argument ?? (yield* ownMemcached)
  const cache = yield* Memcached.make(yield* Connection.connect(target, { connectTimeout: "2 seconds" }))

  yield* Effect.forEach(
    ["red", "green", "blue"],
    (colour, i) => cache.set(`colour-${i}`, colour, { expiresIn: "1 minute" }),
    { concurrency: "unbounded" }
  )
  const colours = yield* cache.gets(["colour-0", "colour-1", "colour-2", "colour-3"])
  yield* Console.log("several at once:", Array.from(colours.values(), ({ value }) => text(value)).join(", "))
  yield* Console.log("one that is there already:", yield* cache.add("colour-0", "pink"))

  yield* cache.set("visits", "41")
  yield* Console.log("counted:", Option.getOrNull(yield* cache.increment("visits")))

  const blue = colours.get("colour-2")
  if (blue !== undefined) {
    yield* Console.log("changed once:", yield* cache.compareAndSet(blue, "navy"))
    yield* Console.log("changed twice:", yield* cache.compareAndSet(blue, "teal"))
  }

  yield* cache
    .set("big", new Uint8Array(2 * 1024 * 1024))
    .pipe(Effect.catchTag("MemcachedError", ({ message }) => Console.log("refused by memcached:", message)))
  yield* cache
    .get("no key\r\nflush_all")
    .pipe(Effect.catchTag("FrameError", ({ message }) => Console.log("refused by the client:", message)))
})

program.pipe(Effect.scoped, Effect.provide([NodeServices.layer, NodeNetwork.layer]), NodeRuntime.runMain)
