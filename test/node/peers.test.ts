import { assert, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, type Scope, Stream } from "effect"
import { NetAddress } from "effect/net"
import { TestClock } from "effect/testing"
import { Connection, type Network, Server, type StreamReader } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { createHash, randomBytes } from "node:crypto"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { describeWith, says, spawnPeer, tempFolder } from "../support/programs.ts"

const peers = fileURLToPath(new URL("./peers", import.meta.url))

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

const hash = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

const echo = ({ reader, writer }: Connection.Connection) => Stream.run(reader.stream, writer.sink)

const portOf = (address: NetAddress.SocketAddress): number =>
  NetAddress.isInetAddress(address) ? address.port : assert.fail("not an internet address")

const live = (
  title: string,
  effect: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>,
  timeout?: number
): void => it.live(title, () => effect.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer)), timeout)

describeWith("python3", "Python's asyncio as client", () => {
  for (const scenario of ["echo", "half_close", "lines"]) {
    live(
      `${scenario} over TCP`,
      Effect.gen(function* () {
        const server = yield* Server.serve(echo, { listen: { host: "127.0.0.1" } })
        const client = yield* spawnPeer("python3", [
          `${peers}/client.py`,
          scenario,
          "127.0.0.1",
          String(portOf(server.addresses[0]))
        ])
        const { code, output } = yield* client.exit
        assert.strictEqual(output, "done\n")
        assert.strictEqual(code, 0)
        const { aborted, interrupted } = yield* server.shutdown()
        assert.deepStrictEqual({ aborted, interrupted }, { aborted: 0, interrupted: 0 })
      })
    )
  }

  live(
    "half_close over a Unix socket",
    Effect.gen(function* () {
      const socket = path.join(yield* tempFolder, "echo.sock")
      yield* Server.serve(echo, { listen: { path: socket } })
      const client = yield* spawnPeer("python3", [`${peers}/client.py`, "half_close", socket, "unix"])
      assert.strictEqual((yield* client.exit).output, "done\n")
    })
  )

  live(
    "a reset is ConnectionReset, after the bytes before it",
    Effect.gen(function* () {
      const fates = new Array<Exit.Exit<void, unknown>>()
      const received = new Array<string>()
      const server = yield* Server.serve(
        Effect.fnUntraced(function* ({ closed, reader, writer }: Connection.Connection) {
          const bytes = yield* reader.readExactly(11)
          received.push(text(bytes))
          yield* writer.write(bytes)
          fates.push(yield* Effect.exit(closed))
        }),
        { listen: { host: "127.0.0.1" } }
      )
      const port = String(portOf(server.addresses[0]))
      const client = yield* spawnPeer("python3", [`${peers}/client.py`, "reset", "127.0.0.1", port])
      assert.strictEqual((yield* client.exit).output, "done\n")
      yield* server.shutdown()
      assert.deepStrictEqual(received, ["about to go"])
      const [fate] = fates
      assert(fate !== undefined && Exit.isFailure(fate))
      assert.include(JSON.stringify(fate), "ConnectionReset")
    })
  )
})

describeWith("python3", "Python's asyncio as server", () => {
  const connectTo = (scenario: string) =>
    Effect.gen(function* () {
      const peer = yield* spawnPeer("python3", [`${peers}/server.py`, scenario])
      const port = Number(yield* peer.line)
      return { peer, connection: yield* Connection.connect({ host: "127.0.0.1", port }) }
    })

  live(
    "a megabyte each way, with a half-close",
    Effect.gen(function* () {
      const { connection, peer } = yield* connectTo("echo")
      const sent = randomBytes(1 << 20)
      const sending = yield* Effect.forkChild(
        Effect.andThen(connection.writer.write(sent), connection.writer.end)
      )
      const back = yield* connection.reader.readAll()
      yield* Fiber.join(sending)
      assert.strictEqual(hash(back), hash(sent))
      assert.strictEqual(yield* peer.line, "done")
      yield* connection.closed
    })
  )

  live(
    "lines, and a last one without an end",
    Effect.gen(function* () {
      const { connection, peer } = yield* connectTo("lines")
      yield* connection.writer.writeAll(["one\n", "two\n"])
      yield* connection.writer.end
      const lines = yield* Stream.runCollect(connection.reader.lines)
      assert.deepStrictEqual(lines, ["ONE", "TWO", "that was all, without an end"])
      assert.strictEqual(yield* peer.line, "done")
    })
  )

  live(
    "a reset does not lose the bytes before it",
    Effect.gen(function* () {
      const { connection } = yield* connectTo("reset")
      yield* connection.reader.peek(10)
      yield* connection.writer.write("!")
      const died = yield* Effect.flip(connection.closed)
      assert.strictEqual(died.reason._tag, "ConnectionReset")
      assert.strictEqual(text(yield* connection.reader.readExactly(10)), "last words")
      const error = yield* Effect.flip(connection.reader.read())
      assert(error._tag === "ConnectionError")
      assert.strictEqual(error.reason._tag, "ConnectionReset")
    })
  )
})

describeWith("nc", "nc", () => {
  live(
    "as client: what it types comes back",
    Effect.gen(function* () {
      const server = yield* Server.serve(echo, { listen: { host: "127.0.0.1" } })
      const client = yield* spawnPeer("nc", ["-N", "127.0.0.1", String(portOf(server.addresses[0]))])
      client.child.stdin?.end("hello\n")
      assert.deepStrictEqual(yield* client.exit, { code: 0, output: "hello\n" })
    })
  )

  live(
    "as server: it reads what we send, and the end",
    Effect.gen(function* () {
      const socket = path.join(yield* tempFolder, "nc.sock")
      const server = yield* spawnPeer("nc", ["-v", "-l", "-U", socket])
      yield* says(server, /^Listening on/)
      yield* Connection.use({ path: socket }, ({ writer }) => writer.write("from the library\n"))
      assert.include((yield* server.exit).output, "from the library\n")
    })
  )
})

describeWith("socat", "socat", () => {
  live(
    "relays a megabyte to our server over TCP and Unix sockets",
    Effect.gen(function* () {
      const folder = yield* tempFolder
      const server = yield* Server.serve(echo, { listen: { host: "127.0.0.1" } })
      const socket = path.join(folder, "relay.sock")
      const relay = yield* spawnPeer("socat", [
        "-d",
        "-d",
        `UNIX-LISTEN:${socket}`,
        `TCP:127.0.0.1:${portOf(server.addresses[0])}`
      ])
      assert.include(yield* relay.line, "listening on")
      const sent = randomBytes(1 << 20)
      const connection = yield* Connection.connect({ path: socket })
      const sending = yield* Effect.forkChild(
        Effect.andThen(connection.writer.write(sent), connection.writer.end)
      )
      assert.strictEqual(hash(yield* connection.reader.readAll()), hash(sent))
      yield* Fiber.join(sending)
    })
  )
})

describeWith("redis-server", "redis-server, spoken to with readLine and readExactly", () => {
  const start = Effect.gen(function* () {
    const socket = path.join(yield* tempFolder, "redis.sock")
    const server = yield* spawnPeer("redis-server", ["--port", "0", "--unixsocket", socket, "--save", ""])
    yield* says(server, /ready to accept connections/)
    return { server, socket }
  })

  /** A reply: a simple string, an error, an integer, a bulk string or an array of those. */
  type Reply = string | number | Uint8Array | null | ReadonlyArray<Reply>

  const readReply = (reader: StreamReader.StreamReader): Effect.Effect<Reply, unknown> =>
    Effect.gen(function* () {
      const line = Option.getOrElse(yield* reader.readLineString, () => "-ended")
      const rest = line.slice(1)
      switch (line[0]) {
        case "+":
          return rest
        case ":":
          return Number(rest)
        case "$": {
          if (rest === "-1") return null
          const bytes = yield* reader.readExactly(Number(rest))
          assert.strictEqual(text(yield* reader.readExactly(2)), "\r\n")
          return bytes
        }
        case "*": {
          if (rest === "-1") return null
          return yield* Effect.forEach(Array.from({ length: Number(rest) }), () => readReply(reader))
        }
        default:
          return yield* Effect.fail(line)
      }
    })

  const encode = (...words: ReadonlyArray<string | Uint8Array>): Array<string | Uint8Array> => [
    `*${words.length}\r\n`,
    ...words.flatMap((word) => [`$${Buffer.byteLength(word)}\r\n`, word, "\r\n"])
  ]

  const ask = ({ reader, writer }: Connection.Connection, ...words: ReadonlyArray<string | Uint8Array>) =>
    Effect.andThen(writer.writeAll(encode(...words)), readReply(reader))

  live(
    "PING, a binary value, and 1,000 commands in one go",
    Effect.gen(function* () {
      const { socket } = yield* start
      const redis = yield* Connection.connect({ path: socket })
      assert.strictEqual(yield* ask(redis, "PING"), "PONG")

      const value = Uint8Array.from(randomBytes(300_000))
      assert.strictEqual(yield* ask(redis, "SET", "value", value), "OK")
      assert.deepStrictEqual(yield* ask(redis, "GET", "value"), value)
      assert.strictEqual(yield* ask(redis, "GET", "nothing"), null)

      yield* redis.writer.writeAll(Array.from({ length: 1000 }, () => encode("INCR", "counter")).flat())
      const counts = yield* Effect.forEach(Array.from({ length: 1000 }), () => readReply(redis.reader))
      assert.deepStrictEqual(
        counts,
        Array.from({ length: 1000 }, (_, i) => i + 1)
      )
    })
  )

  it.effect("a read that times out loses nothing: the reply is read later", () =>
    Effect.gen(function* () {
      const { socket } = yield* start
      const redis = yield* Connection.connect({ path: socket })
      const other = yield* Connection.connect({ path: socket })
      yield* redis.writer.writeAll(encode("BLPOP", "list", "0"))
      const hurried = Connection.withTimeouts(redis, { read: "1 minute" })
      const reading = yield* Effect.forkChild(Effect.flip(hurried.reader.readLine), {
        startImmediately: true
      })
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(reading))._tag, "TimeoutError")
      assert.strictEqual(yield* ask(other, "RPUSH", "list", "late"), 1)
      const reply = yield* readReply(redis.reader)
      assert.deepStrictEqual(reply, [new TextEncoder().encode("list"), new TextEncoder().encode("late")])
    }).pipe(Effect.scoped, Effect.provide(NodeNetwork.layer))
  )

  live(
    "a subscriber hears what another connection publishes",
    Effect.gen(function* () {
      const { socket } = yield* start
      const subscriber = yield* Connection.connect({ path: socket })
      const publisher = yield* Connection.connect({ path: socket })
      yield* ask(subscriber, "SUBSCRIBE", "news")
      for (const word of ["one", "two"]) assert.strictEqual(yield* ask(publisher, "PUBLISH", "news", word), 1)
      for (const word of ["one", "two"]) {
        const message = yield* readReply(subscriber.reader)
        assert(Array.isArray(message))
        assert.deepStrictEqual(message[2], new TextEncoder().encode(word))
      }
    })
  )

  live(
    "a server that is killed ends the waiting read with a typed error or the end",
    Effect.gen(function* () {
      const { server, socket } = yield* start
      const redis = yield* Connection.connect({ path: socket })
      yield* redis.writer.writeAll(encode("BLPOP", "list", "0"))
      const waiting = yield* Effect.forkChild(Effect.exit(redis.reader.readExactly(4)))
      yield* redis.writer.flush
      server.child.kill("SIGKILL")
      const exit = yield* Fiber.join(waiting)
      assert(Exit.isFailure(exit))
      assert.match(JSON.stringify(exit), /IncompleteReadError|ConnectionReset/)
      yield* server.exit
      const refused = yield* Effect.flip(Connection.connect({ path: socket }))
      assert(refused._tag === "ConnectionError")
      assert.strictEqual(refused.reason._tag, "ConnectionRefused")
    })
  )
})
