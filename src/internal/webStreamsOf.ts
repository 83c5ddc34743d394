import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { WebStreams } from "../WebStreamTransport.ts"
import type { Link } from "./Link.ts"

/** The connection's two directions as web streams, which have no buffer of their own. */
export const webStreamsOf = ({ abort, close, closed, reader, writer }: Link): Effect.Effect<WebStreams> =>
  Effect.contextWith((context: Context.Context<never>) =>
    Effect.sync(() => {
      const run = Effect.runPromiseWith(context)
      let ended = false
      const readable = new ReadableStream<Uint8Array>(
        {
          pull: async (controller) => {
            const chunk = await run(reader.read())
            if (chunk.length === 0) controller.close()
            else controller.enqueue(chunk)
          },
          cancel: () => run(ended ? close : abort)
        },
        { highWaterMark: 0 }
      )
      const writable = new WritableStream<Uint8Array>({
        start: (controller) => {
          // Also while nobody writes.
          const lost = Effect.catch(closed, (error) => Effect.sync(() => controller.error(error)))
          Effect.runForkWith(context)(lost)
          // `abort` below is not called before a write that is under way has come to its end.
          controller.signal.addEventListener("abort", () => void run(abort))
        },
        write: (chunk) => run(Effect.andThen(writer.write(chunk), writer.flush)),
        close: () => {
          ended = true
          return run(writer.canEnd ? writer.end : close)
        },
        abort: () => run(abort)
      })
      return { readable, writable }
    })
  )
