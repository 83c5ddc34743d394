// A server that runs out of descriptors: it is started with a low limit, and tells on its output what happens.
import { Effect } from "effect"
import { Network } from "effect-wire/Network"
import { NodeNetwork } from "effect-wire/node"

const say = (line: string): Effect.Effect<void> =>
  Effect.sync(() => {
    process.stdout.write(`${line}\n`)
  })

const program = Effect.gen(function* () {
  const network = yield* Network
  const listener = yield* network.listen({ host: "127.0.0.1" })
  yield* say(`listening ${String(listener.address)}`)
  while (true) {
    const accepted = yield* Effect.result(listener.accept)
    if (accepted._tag === "Failure") {
      yield* say(`failure ${accepted.failure.reason._tag} ${accepted.failure.reason.code}`)
      continue
    }
    const transport = accepted.success
    transport.start({
      onData() {},
      onEnd: () => transport.close(),
      onDrain() {},
      onClosed: () => process.stdout.write("closed\n")
    })
    transport.resume()
    transport.write("hello")
    yield* say("accepted")
  }
})

Effect.runFork(Effect.scoped(Effect.provide(program, NodeNetwork.layer)))
