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

type Items = ReadonlyArray<Resp.Value>

/** What a push, or a list, is: its first word. */
const kindOf = ([kind]: Items): string => (kind instanceof Uint8Array ? Resp.text(kind) : "")

/** Of channels, of patterns of channels, and of channels of a cluster's shard. */
const isSubscription = (kind: string): boolean => /^[ps]?(un)?subscribe$/.test(kind)

const isMessage = (kind: string): boolean => /^[ps]?message$/.test(kind)

/**
 * Tells the confirmations of subscriptions. The command has no reply but those: one for each channel, in the order of the
 * commands. To leave all channels, without saying which, is confirmed for each that there is, and once if there is none.
 */
const makeSubscriptions = () => {
  // The channels by the command that leaves them.
  const channels = new Map<string, Set<string>>()
  let confirmed = 0

  const channelsOf = (kind: string): Set<string> => {
    const leave = kind.includes("unsubscribe") ? kind : kind.replace("subscribe", "unsubscribe")
    const known = channels.get(leave) ?? new Set()
    channels.set(leave, known)
    return known
  }

  return {
    any: (): boolean => [...channels.values()].some(({ size }) => size > 0),

    /** Whether a message is the last confirmation of the command whose turn it is. */
    isLast: (kind: string, [, channel]: Items, request: Resp.Command | undefined): boolean => {
      const known = channelsOf(kind)
      // Any bytes may be a name.
      const name = channel instanceof Uint8Array ? channel.join() : undefined
      if (name !== undefined && kind.includes("unsubscribe")) known.delete(name)
      else if (name !== undefined) known.add(name)
      // A cluster may take a channel away without having been asked.
      if (request?.[0].toLowerCase() !== kind) return false
      confirmed++
      const isLast = request.length > 1 ? confirmed === request.length - 1 : known.size === 0
      if (isLast) confirmed = 0
      return isLast
    }
  }
}

/** Speaks RESP3, or RESP2, in which a connection that has subscribed to a channel can do nothing else any more. */
export const make = Effect.fnUntraced(function* (
  connection: Connection.Connection,
  options?: { readonly protocol?: 2 | 3 }
) {
  const isResp2 = options?.protocol === 2
  const subscriptions = makeSubscriptions()

  // RESP2 sends as a list what RESP3 sends as a push.
  const isReply = (value: Resp.Value, request: Resp.Command | undefined): boolean => {
    const isPush = value instanceof Resp.Push
    const items = isPush ? value.items : isResp2 && Resp.isList(value) ? value : []
    const kind = kindOf(items)
    const isPushed =
      isPush || (isResp2 && (subscriptions.any() || isSubscription(request?.[0].toLowerCase() ?? "")))
    if (isPushed && isSubscription(kind)) return subscriptions.isLast(kind, items, request)
    return !isPush && !(isPushed && isMessage(kind))
  }

  const framed = Framed.make(connection, Resp.values, Resp.client)
  const { request, unsolicited } = yield* framed.pipeline({ isReply, timeout: "10 seconds" })

  const command = Effect.fnUntraced(function* (...words: Resp.Command) {
    const reply = yield* request(words)
    return reply instanceof Resp.Failure ? yield* new RedisError({ message: reply.message }) : reply
  })

  if (!isResp2) yield* command("HELLO", 3)

  return {
    /**
     * Sends a command and waits for its reply. Called by many fibers at once, it is a pipeline. The reply to a subscription
     * is the last of its confirmations.
     */
    command,
    /** Subscribes to channels. */
    subscribe: (...channels: readonly [string, ...ReadonlyArray<string>]) =>
      Effect.asVoid(command("SUBSCRIBE", ...channels)),
    /** Leaves channels, or all of them. */
    unsubscribe: (...channels: ReadonlyArray<string>) => Effect.asVoid(command("UNSUBSCRIBE", ...channels)),
    /** What is said on the channels, as it comes: of what nobody takes, the last 256 are kept. */
    messages: Stream.flatMap(unsolicited, (value): Stream.Stream<Message> => {
      const items = value instanceof Resp.Push ? value.items : Resp.isList(value) ? value : []
      // Before them is the pattern, if it is one that they were heard by.
      const [channel, message] = items.slice(-2)
      return isMessage(kindOf(items)) && channel instanceof Uint8Array && message instanceof Uint8Array
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
      if (!/^\$(-1|\d{1,15})$/.test(line)) {
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
