// A server that speaks enough of Redis for redis-cli and redis-benchmark.
import { Effect, Stream } from "effect"
import { type Framed, Server } from "effect-wire"
import * as Resp from "./resp.ts"

type Reply = Resp.Value

const wrongArity = (name: string) =>
  new Resp.Failure(`ERR wrong number of arguments for '${name.toLowerCase()}' command`)

const notAnInteger = new Resp.Failure("ERR value is not an integer or out of range")

class Store {
  // By the bytes of the key, each as a character: text of whatever encoding is kept apart.
  private readonly values = new Map<string, Uint8Array>()

  private static keyOf(bytes: Uint8Array): string {
    return Buffer.from(bytes).toString("latin1")
  }

  get(key: Uint8Array): Uint8Array | null {
    return this.values.get(Store.keyOf(key)) ?? null
  }

  set(key: Uint8Array, value: Uint8Array): "OK" {
    // What was received is a view of a chunk with more in it, which need not be kept.
    this.values.set(Store.keyOf(key), value.slice())
    return "OK"
  }

  delete(keys: ReadonlyArray<Uint8Array>): number {
    return keys.filter((key) => this.values.delete(Store.keyOf(key))).length
  }

  increment(key: Uint8Array): number | Resp.Failure {
    const before = Resp.text(this.get(key) ?? Resp.bulk("0"))
    const after = Number(before) + 1
    if (!/^-?\d+$/.test(before) || !Number.isSafeInteger(after)) return notAnInteger
    this.set(key, Resp.bulk(after))
    return after
  }
}

const answer = (store: Store, [name = new Uint8Array(), ...args]: ReadonlyArray<Uint8Array>): Reply => {
  const command = Resp.text(name).toUpperCase()
  const [first, second] = args
  switch (command) {
    case "PING":
      return first ?? "PONG"
    case "ECHO":
      return first ?? wrongArity(command)
    case "GET":
      return first === undefined ? wrongArity(command) : store.get(first)
    case "SET":
      if (first === undefined || second === undefined) return wrongArity(command)
      return args.length > 2 ? new Resp.Failure("ERR syntax error") : store.set(first, second)
    case "DEL":
      return args.length === 0 ? wrongArity(command) : store.delete(args)
    case "INCR":
      return first === undefined ? wrongArity(command) : store.increment(first)
    // What redis-cli and redis-benchmark ask before they begin.
    case "COMMAND":
      return []
    case "CONFIG":
      return second === undefined ? wrongArity(command) : [second, Resp.bulk("")]
    default:
      return new Resp.Failure(`ERR unknown command '${Resp.text(name).replaceAll(/[^\x20-\x7e]/g, "?")}'`)
  }
}

const serveClient =
  (store: Store) =>
  ({ messages, send }: Framed.Framed<ReadonlyArray<Uint8Array>, Reply>) =>
    messages.pipe(
      // An empty line is no command. The replies of a pipeline leave together, without being put together here.
      Stream.runForEach((command) => (command.length === 0 ? Effect.void : send(answer(store, command)))),
      Effect.catchTag("FrameError", ({ reason }) => {
        const detail = reason._tag === "FrameTooLong" ? "too big" : reason.detail
        return send(new Resp.Failure(`ERR Protocol error: ${detail.replaceAll(/[\r\n]/g, " ")}`))
      })
    )

/** Serves one store to all clients. */
export const serve = (options: Server.Options) =>
  Effect.suspend(() =>
    Server.serveFramed(Resp.commands, Resp.server, serveClient(new Store()), {
      // Who goes away within a command, or without a word, is no news.
      onError: (cause) => Effect.logDebug("a client was lost", cause),
      ...options
    })
  )
