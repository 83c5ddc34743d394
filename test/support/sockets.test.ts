import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { outcomeOf } from "./effects.ts"
import { leavingNothing, rawServer } from "./sockets.ts"

/** A fiber that sleeps until the scope ends. */
const sleeping = Effect.acquireRelease(
  Effect.forkDetach(Effect.sleep("1 minute"), { startImmediately: true }),
  Fiber.interrupt
)

it.live("leavingNothing notices a timer and a server that are left, and nothing that is over", () =>
  Effect.gen(function* () {
    assert.match(yield* outcomeOf(leavingNothing(sleeping)), /left behind: Error: a timer of 60000 ms/)
    assert.match(yield* outcomeOf(leavingNothing(rawServer())), /left behind: .*TCPServerWrap/)
    const over = Effect.all([Effect.sleep(1), sleeping, rawServer()])
    assert.strictEqual(yield* outcomeOf(leavingNothing(Effect.scoped(over))), "success")
  }).pipe(Effect.scoped)
)
