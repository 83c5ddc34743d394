// A client for Redis: any number of commands on their way at once, messages of channels, and values of any size.
import { Effect, Schema, Stream } from "effect"
import { type Connection, type ConnectionPool, FrameError, Framed, StreamReader } from "effect-wire"
import * as Resp from "./resp.ts"

/** Redis does not want what it was asked for. */
export class RedisError extends Schema.TaggedError<RedisError>("RedisError")("RedisError", {
  message: Schema.String
}) {}

export interface Message {
  readonly channel: string
  readonly message: Uint8Array
}

/** What a push, or a list, is: its first word. */
const kindOf = ([kind]: ReadonlyArray<Resp.Value>): string =>
  kind instanceof Uint8Array ? Resp.text(kind) : ""

/** Speaks RESP3, or RESP2, in which a connection that has subscribed to a channel can do nothing else any more. */
export const make = Effect.fnUntraced(function* (
  connection: Connection.Connection,
  options?: { readonly protocol?: 2 | 3 }
) {
  const isResp2 = options?.protocol === 2
  let subscribed = false

  // RESP2 sends as a list what RESP3 sends as a push; and both tell in that way that a subscription has worked.
  const isReply = (value: Resp.Value): boolean => {
    if (value instanceof Resp.Push) return kindOf(value.items) === "subscribe"
    return !(isResp2 && subscribed && Resp.isList(value) && kindOf(value) === "message")
  }

  const framed = Framed.make(connection, Resp.values, Resp.client)
  const { request, unsolicited } = yield* framed.pipeline({ isReply, timeout: "10 seconds" })

  const command = Effect.fnUntraced(function* (...words: Resp.Command) {
    const reply = yield* request(words)
    return reply instanceof Resp.Failure ? yield* new RedisError({ message: reply.message }) : reply
  })

  if (!isResp2) yield* command("HELLO", 3)

  return {
    /** Sends a command and waits for its reply. Called by many fibers at once, it is a pipeline. */
    command,
    /** Subscribes to a channel. */
    subscribe: Effect.fnUntraced(function* (channel: string) {
      subscribed = true
      yield* command("SUBSCRIBE", channel)
    }),
    /** What is said on the channels, as it comes: of what nobody takes, the last 256 are kept. */
    messages: Stream.flatMap(unsolicited, (value): Stream.Stream<Message> => {
      const items = value instanceof Resp.Push ? value.items : Resp.isList(value) ? value : []
      const [, channel, message] = items
      return kindOf(items) === "message" && channel instanceof Uint8Array && message instanceof Uint8Array
        ? Stream.succeed({ channel: Resp.text(channel), message })
        : Stream.empty
    })
  }
})

/**
 * A value that nobody has to hold in memory. It has a connection of its own, which goes back to the pool when all of it was
 * read, and is given up when the stream is left before that.
 */
export const streamValue = (pool: ConnectionPool.ConnectionPool, key: string) =>
  Stream.unwrap(
    Effect.gen(function* () {
      const connection = yield* pool.get
      const { reader, writer } = connection
      let whole = false
      yield* Effect.addFinalizer(() => (whole ? Effect.void : connection.abort))

      yield* Framed.sender(writer, Resp.values, Resp.client).send(["GET", key])
      const line = Resp.text(yield* reader.readUntil("\r\n")).trimEnd()
      if (line.startsWith("-")) return yield* new RedisError({ message: line.slice(1) })
      if (!/^\$(-1|\d+)$/.test(line)) {
        return yield* new FrameError.InvalidMessage({ detail: `"${line}" is no string` })
      }
      const length = Number(line.slice(1))
      const end = Effect.andThen(
        length < 0 ? Effect.void : reader.skip(2),
        Effect.sync(() => (whole = true))
      )
      return Stream.concat(
        StreamReader.streamExactly(reader, Math.max(length, 0)),
        Stream.drain(Stream.fromEffect(end))
      )
    })
  )
