import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Result, type Scope, Stream } from "effect"
import { NetAddress } from "effect/net"
import * as fc from "fast-check"
import {
  Connection,
  ConnectionPool,
  FrameError,
  Framed,
  type Network,
  StreamError,
  StreamReader
} from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { TestNetwork } from "effect-wire/testing"
import { randomBytes } from "node:crypto"
import * as path from "node:path"
import * as RedisClient from "../../examples/protocols/redisClient.ts"
import * as RedisServer from "../../examples/protocols/redisServer.ts"
import * as Resp from "../../examples/protocols/resp.ts"
import { encode } from "../support/framings.ts"
import { describeWith, says, spawnPeer, tempFolder } from "../support/programs.ts"

const bulk = (word: string): Uint8Array => new Uint8Array(Resp.bulk(word))

/** What the specification shows for each type. */
const known: ReadonlyArray<readonly [wire: string, value: Resp.Value]> = [
  ["+OK\r\n", "OK"],
  ["-Error message\r\n", new Resp.Failure("Error message")],
  [":0\r\n", 0],
  [":-1000\r\n", -1000],
  [":+1000\r\n", 1000],
  [":9223372036854775807\r\n", 9223372036854775807n],
  ["$5\r\nhello\r\n", bulk("hello")],
  ["$0\r\n\r\n", bulk("")],
  ["$4\r\na\r\nb\r\n", bulk("a\r\nb")],
  ["$-1\r\n", null],
  ["*0\r\n", []],
  ["*2\r\n$5\r\nhello\r\n$5\r\nworld\r\n", [bulk("hello"), bulk("world")]],
  ["*5\r\n:1\r\n:2\r\n:3\r\n:4\r\n$5\r\nhello\r\n", [1, 2, 3, 4, bulk("hello")]],
  ["*-1\r\n", null],
  [
    "*2\r\n*3\r\n:1\r\n:2\r\n:3\r\n*2\r\n+Hello\r\n-World\r\n",
    [
      [1, 2, 3],
      ["Hello", new Resp.Failure("World")]
    ]
  ],
  ["*3\r\n$5\r\nhello\r\n$-1\r\n$5\r\nworld\r\n", [bulk("hello"), null, bulk("world")]],
  ["_\r\n", null],
  ["#t\r\n", true],
  ["#f\r\n", false],
  [",1.23\r\n", 1.23],
  [",10\r\n", 10],
  [",1.5E-3\r\n", 0.0015],
  [",inf\r\n", Infinity],
  [",-inf\r\n", -Infinity],
  [",nan\r\n", NaN],
  ["(3492890328409238509324850943850943825024385\r\n", 3492890328409238509324850943850943825024385n],
  ["!21\r\nSYNTAX invalid syntax\r\n", new Resp.Failure("SYNTAX invalid syntax")],
  ["=15\r\ntxt:Some string\r\n", "Some string"],
  [
    "%2\r\n+first\r\n:1\r\n+second\r\n:2\r\n",
    new Map([
      ["first", 1],
      ["second", 2]
    ])
  ],
  ["~2\r\n+one\r\n#t\r\n", new Set(["one", true])],
  [">2\r\n+message\r\n:1\r\n", new Resp.Push(["message", 1])],
  ["|1\r\n+ttl\r\n:3600\r\n*1\r\n:2\r\n", [2]]
]

const receiverOf = (framing: typeof Resp.values, ...chunks: ReadonlyArray<Uint8Array>) => {
  const { feed, feedEof, reader } = StreamReader.feedable()
  chunks.forEach(feed)
  feedEof()
  return Framed.receiver(reader, framing)
}

describe("RESP", () => {
  for (const [wire, value] of known) {
    it.effect(`${JSON.stringify(wire)}, whole and byte by byte`, () =>
      Effect.gen(function* () {
        const bytes = Resp.bulk(wire)
        const cut = Array.from(bytes, (byte) => Uint8Array.of(byte))
        for (const chunks of [[bytes], cut]) {
          const { messages } = receiverOf(Resp.values, ...chunks)
          const [received, ...others] = yield* Stream.runCollect(messages)
          assert.deepStrictEqual(others, [])
          assert.deepStrictEqual(received instanceof Uint8Array ? new Uint8Array(received) : received, value)
        }
      })
    )
  }

  it.effect("what RESP2 has is sent as the specification shows it", () =>
    Effect.gen(function* () {
      const [left, right] = yield* Connection.pair()
      const { sendAll } = Framed.make(left, Resp.values)
      const wires = known.slice(0, 16).map(([wire]) => wire)
      // These have two forms, of which the other one is sent.
      const sent = wires.filter((wire) => !wire.startsWith(":+") && wire !== "*-1\r\n")
      yield* sendAll(known.flatMap(([wire, value]) => (sent.includes(wire) ? [value] : [])))
      yield* left.writer.end
      assert.strictEqual(Resp.text(yield* right.reader.readAll()), sent.join(""))
    })
  )

  it("a list may be longer than a call may have arguments", () => {
    const words = Array.from({ length: 200_000 }, () => bulk("x"))
    const encoded = encode(Resp.values, [words, words])
    assert(encoded instanceof Uint8Array)
    assert.strictEqual(
      encoded.length,
      "*2\r\n".length + 2 * ("*200000\r\n".length + 200_000 * "$1\r\nx\r\n".length)
    )
  })

  const damaged: Record<string, RegExp> = {
    "?\r\n": /"\?" begins no value/,
    "\r\n": /"" begins no value/,
    ":1.5\r\n": /"1.5" is no integer/,
    ":\r\n": /"" is no integer/,
    "$-2\r\n": /"-2" is no length/,
    "$+1\r\n": /"\+1" is no length/,
    "$99999999999999999999\r\n": /"99999999999999999999" is no length/,
    "*99999999999999999999\r\n": /"99999999999999999999" is no length/,
    "%1e3\r\n": /"1e3" is no length/,
    [`(${"9".repeat(10_001)}\r\n`]: /"9{30}" is no integer/,
    ",0x10\r\n": /"0x10" is no double/,
    ",constructor\r\n": /"constructor" is no double/,
    "$3\r\nhello\r\n": /longer than it says/,
    "#y\r\n": /no boolean/,
    ",\r\n": /no double/,
    "$16777217\r\n": /16777228 bytes or more, the limit is 16777216 bytes/,
    [`${"*1\r\n".repeat(33)}:1\r\n`]: /deeper than 32/,
    [`${"|0\r\n".repeat(33)}:1\r\n`]: /deeper than 32/
  }
  for (const [wire, message] of Object.entries(damaged)) {
    it.effect(`${JSON.stringify(wire.slice(0, 20))} is a FrameError`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(receiverOf(Resp.values, Resp.bulk(wire)).receive)
        assert.instanceOf(error, FrameError.FrameError)
        assert.match(error.message, message)
      })
    )
  }

  it("damaged bytes are values, a FrameError or an IncompleteReadError", async () => {
    const alphabet = ["\r\n", "+", "-", ":", "$", "*", "_", "#", "%", "~", ">", "|", "0", "1", "2", "t", "x"]
    await fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom(...alphabet), { maxLength: 40 }), async (parts) => {
        const { messages } = receiverOf(Resp.commands, Resp.bulk(parts.join("")))
        const error = await Effect.runPromise(
          Effect.match(Stream.runDrain(messages), { onFailure: (_) => _, onSuccess: () => undefined })
        )
        assert.isTrue(
          error === undefined ||
            error instanceof FrameError.FrameError ||
            error instanceof StreamError.IncompleteReadError
        )
      }),
      { numRuns: 500 }
    )
  })
})

const live = (title: string, body: Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>): void =>
  it.live(title, () => body.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer)))

const startRedis = Effect.gen(function* () {
  const socket = path.join(yield* tempFolder, "redis.sock")
  const options = ["--port", "0", "--unixsocket", socket, "--save", "", "--enable-debug-command", "yes"]
  const server = yield* spawnPeer("redis-server", options)
  yield* says(server, /ready to accept connections/)
  return { path: socket }
})

const connect = (target: Network.Target, options?: { readonly protocol?: 2 | 3 }) =>
  Effect.flatMap(Connection.connect(target), (connection) => RedisClient.make(connection, options))

const numbers = Array.from({ length: 1000 }, (_, i) => i)

describeWith("redis-server", "the Redis client, against redis-server", () => {
  // Redis has a command that answers with a value of each type.
  const types: Record<string, readonly [resp3: Resp.Value, resp2: Resp.Value]> = {
    string: [bulk("Hello World"), bulk("Hello World")],
    integer: [12345, 12345],
    double: [3.141, bulk("3.141")],
    null: [null, null],
    array: [
      [0, 1, 2],
      [0, 1, 2]
    ],
    set: [new Set([0, 1, 2]), [0, 1, 2]],
    map: [
      new Map([
        [0, false],
        [1, true],
        [2, false]
      ]),
      [0, 0, 1, 1, 2, 0]
    ],
    bignum: [1234567999999999999999999999999999999n, bulk("1234567999999999999999999999999999999")],
    true: [true, 1],
    false: [false, 0],
    verbatim: ["This is a verbatim\nstring", bulk("This is a verbatim\nstring")],
    attrib: [bulk("Some real reply following the attribute"), bulk("Some real reply following the attribute")]
  }
  for (const protocol of [2, 3] as const) {
    live(
      `RESP${protocol}: every type`,
      Effect.gen(function* () {
        const { command } = yield* connect(yield* startRedis, { protocol })
        for (const [type, [resp3, resp2]] of Object.entries(types)) {
          const reply = yield* command("DEBUG", "PROTOCOL", type)
          const expected = protocol === 3 ? resp3 : resp2
          assert.deepStrictEqual(reply instanceof Uint8Array ? new Uint8Array(reply) : reply, expected, type)
        }
      })
    )

    live(
      `RESP${protocol}: 1,000 commands of 1,000 fibers are a pipeline, and each gets its reply`,
      Effect.gen(function* () {
        const { command } = yield* connect(yield* startRedis, { protocol })
        const ask = (n: number) =>
          (n % 10 === 0 ? command("INCR") : command("ECHO", n)).pipe(
            Effect.map(Resp.readable),
            Effect.catchTag("RedisError", ({ message }) => Effect.succeed(message))
          )
        const replies = yield* Effect.forEach(numbers, ask, { concurrency: "unbounded" })
        const refusal = "ERR wrong number of arguments for 'incr' command"
        assert.deepStrictEqual(
          replies,
          numbers.map((n) => (n % 10 === 0 ? refusal : String(n)))
        )
      })
    )

    live(
      `RESP${protocol}: a subscriber hears what another connection says, in order`,
      Effect.gen(function* () {
        const target = yield* startRedis
        const publisher = yield* connect(target)
        const subscriber = yield* connect(target, { protocol })
        yield* subscriber.subscribe("news")
        for (const n of numbers.slice(0, 200)) yield* publisher.command("PUBLISH", "news", n)
        const heard = yield* Stream.runCollect(Stream.take(subscriber.messages, 200))
        assert.deepStrictEqual(
          heard.map(({ channel, message }) => `${channel} ${Resp.text(message)}`),
          numbers.slice(0, 200).map((n) => `news ${n}`)
        )
      })
    )
  }

  live(
    "RESP3: replies and messages share a connection, in which a push answers nothing",
    Effect.gen(function* () {
      const { command, messages, subscribe } = yield* connect(yield* startRedis)
      yield* subscribe("news")
      const receivers = yield* Effect.forEach(
        numbers.slice(0, 100),
        (n) => Effect.zip(command("PUBLISH", "news", n), command("ECHO", n)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        receivers.map(([count, echo]) => [count, echo instanceof Uint8Array ? Number(Resp.text(echo)) : NaN]),
        numbers.slice(0, 100).map((n) => [1, n])
      )
      assert.strictEqual((yield* Stream.runCollect(Stream.take(messages, 100))).length, 100)
    })
  )

  live(
    "RESP3: a subscription that is refused is a refusal, and the next reply is the next command's",
    Effect.gen(function* () {
      const { command, subscribe } = yield* connect(yield* startRedis)
      yield* command("ACL", "SETUSER", "guest", "on", "nopass", "+@all", "resetchannels")
      yield* command("AUTH", "guest", "any")
      const [refused, echo] = yield* Effect.all([Effect.flip(subscribe("news")), command("ECHO", "mine")], {
        concurrency: "unbounded"
      })
      assert.match(refused.message, /^NOPERM/)
      assert.strictEqual(Resp.readable(echo), "mine")
    })
  )

  for (const protocol of [2, 3] as const) {
    live(
      `RESP${protocol}: every way to subscribe and unsubscribe, of any number of channels, is one command`,
      Effect.gen(function* () {
        const target = yield* startRedis
        const publisher = yield* connect(target)
        const { command, messages, subscribe, unsubscribe } = yield* connect(target, { protocol })
        // Over RESP2, PING is all else that who listens to a channel can say, and the answer is a list.
        const ping = (n: number) =>
          Effect.map(command("PING", n), (reply) => {
            const word = Resp.isList(reply) ? reply[1] : reply
            return word instanceof Uint8Array ? Number(Resp.text(word)) : reply
          })
        const commands: ReadonlyArray<Resp.Command> = [
          ["UNSUBSCRIBE"],
          ["SUBSCRIBE", "a"],
          ["subscribe", "b", "c", "b"],
          ["PSUBSCRIBE", "x*", "y*"],
          ["SSUBSCRIBE", "s"],
          ["UNSUBSCRIBE", "a", "none"],
          ["PUNSUBSCRIBE", "y*"],
          ["UNSUBSCRIBE"],
          ["PUNSUBSCRIBE"],
          ["SUNSUBSCRIBE"],
          ["SUNSUBSCRIBE"],
          ["SUBSCRIBE"],
          ["SUBSCRIBE", "one", "two", "three"]
        ]
        const outcomes = yield* Effect.forEach(
          commands.flatMap((words, n) => [Effect.as(command(...words), words[0]), ping(n)]),
          (_) => Effect.catchTag(_, "RedisError", ({ message }) => Effect.succeed(message)),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(
          outcomes,
          commands.flatMap(([name, ...channels], n) => [
            name === "SUBSCRIBE" && channels.length === 0
              ? "ERR wrong number of arguments for 'subscribe' command"
              : name,
            n
          ])
        )
        yield* unsubscribe()
        yield* subscribe("news", "weather")
        yield* command("PSUBSCRIBE", "w*")
        yield* publisher.command("PUBLISH", "weather", "rain")
        const heard = yield* Stream.runCollect(Stream.take(messages, 2))
        assert.deepStrictEqual(
          heard.map(({ channel, message }) => `${channel} ${Resp.text(message)}`),
          ["weather rain", "weather rain"]
        )
        yield* unsubscribe("weather")
        yield* publisher.command("PUBLISH", "weather", "sun")
        assert.strictEqual((yield* Stream.runCollect(Stream.take(messages, 1))).length, 1)
      })
    )
  }

  live(
    "binary values and keys come back as they were",
    Effect.gen(function* () {
      const { command } = yield* connect(yield* startRedis)
      const key = Uint8Array.of(0, 13, 10, 255)
      const value = Uint8Array.from(randomBytes(300_000))
      assert.strictEqual(yield* command("SET", key, value), "OK")
      assert.strictEqual(yield* command("STRLEN", key), 300_000)
      const back = yield* command("GET", key)
      assert(back instanceof Uint8Array)
      assert.isTrue(Buffer.from(back).equals(value))
    })
  )

  live(
    "a command that was given up leaves its reply to nobody else",
    Effect.gen(function* () {
      const target = yield* startRedis
      const { command } = yield* connect(target)
      const waiting = yield* Effect.forkChild(command("BLPOP", "list", 0), { startImmediately: true })
      yield* Fiber.interrupt(waiting)
      const other = yield* connect(target)
      const next = yield* Effect.forkChild(command("ECHO", "mine"), { startImmediately: true })
      yield* other.command("RPUSH", "list", "not mine")
      assert.deepStrictEqual(yield* Fiber.join(next), Buffer.from("mine"))
    })
  )

  live(
    "a value of 64 MiB is streamed, in pieces of bounded size",
    Effect.gen(function* () {
      const target = yield* startRedis
      const { command } = yield* connect(target)
      const size = 64 * 1024 * 1024
      yield* command("SETRANGE", "big", size - 1, "!")
      // As a reply it would be longer than a frame may be.
      const tooLong = yield* Effect.flip(Effect.flatMap(connect(target), (_) => _.command("GET", "big")))
      assert.match(String(tooLong), /the limit is 16777216 bytes/)

      const pool = yield* ConnectionPool.make(target)
      const { bytes, largest, last } = yield* RedisClient.streamValue(pool, "big").pipe(
        Stream.runFold(
          () => ({ bytes: 0, largest: 0, last: 0 }),
          ({ bytes, largest }, chunk) => ({
            bytes: bytes + chunk.length,
            largest: Math.max(largest, chunk.length),
            last: chunk.at(-1) ?? 0
          })
        )
      )
      assert.strictEqual(bytes, size)
      assert.strictEqual(last, "!".charCodeAt(0))
      // Reading from the peer pauses at twice the reader's limit, in which one chunk more may be on its way.
      assert.isAtMost(largest, 4 * 65_536)
    })
  )

  live(
    "a streamed value gives its connection back; one that is left midway does not",
    Effect.gen(function* () {
      const target = yield* startRedis
      const { command } = yield* connect(target)
      const value = Uint8Array.from(randomBytes(1 << 20))
      yield* command("SET", "value", value)
      yield* command("LPUSH", "list", "item")
      const pool = yield* ConnectionPool.make(target, { max: 1 })
      const whole = Stream.runCollect(RedisClient.streamValue(pool, "value"))
      for (let i = 0; i < 3; i++) assert.isTrue(Buffer.concat(yield* whole).equals(value))
      assert.deepStrictEqual(yield* Stream.runCollect(RedisClient.streamValue(pool, "none")), [])
      assert.strictEqual((yield* pool.stats).created, 1)

      yield* Stream.runDrain(Stream.take(RedisClient.streamValue(pool, "value"), 1))
      const refused = yield* Effect.flip(Stream.runDrain(RedisClient.streamValue(pool, "list")))
      assert.match(refused.message, /^WRONGTYPE/)
      assert.isTrue(Buffer.concat(yield* whole).equals(value))
      assert.deepStrictEqual(yield* pool.stats, { inUse: 0, idle: 1, waiting: 0, created: 3, evicted: 2 })
    })
  )

  live(
    "a server that goes away fails what waits, and what comes later",
    Effect.gen(function* () {
      const target = yield* startRedis
      const { command } = yield* connect(target)
      const waiting = yield* Effect.forkChild(Effect.flip(command("BLPOP", "list", 0)), {
        startImmediately: true
      })
      const other = yield* connect(target)
      yield* Effect.exit(other.command("SHUTDOWN", "NOSAVE", "NOW"))
      const lost = ["EndOfStream", "ConnectionError"]
      assert.include(lost, (yield* Fiber.join(waiting))._tag)
      assert.include(lost, (yield* Effect.flip(command("PING")))._tag)
    })
  )
})

/** What a Redis says, as far as channels are concerned. */
const makeModel = (protocol: 2 | 3) => {
  const kinds = { "": new Set<string>(), p: new Set<string>(), s: new Set<string>() }
  const isKind = (_: string): _ is keyof typeof kinds => _ in kinds
  const pushed = (...items: ReadonlyArray<null | number | string>): string =>
    `${protocol === 3 ? ">" : "*"}${items.length}\r\n${items.map(wire).join("")}`
  const wire = (value: null | number | string): string =>
    value === null
      ? protocol === 3
        ? "_\r\n"
        : "$-1\r\n"
      : typeof value === "number"
        ? `:${value}\r\n`
        : `$${Buffer.byteLength(value)}\r\n${value}\r\n`
  const total = () => Object.values(kinds).reduce((sum, { size }) => sum + size, 0)
  const answer = ([name = "", ...args]: ReadonlyArray<string>): ReadonlyArray<string> => {
    const [, kind, un] = /^([ps]?)(un)?subscribe$/.exec(name.toLowerCase()) ?? []
    if (kind !== undefined && isKind(kind)) {
      const known = kinds[kind]
      if (un === undefined && args.length === 0) return ["-ERR wrong number of arguments\r\n"]
      if (args.includes("forbidden")) return ["-NOPERM no\r\n"]
      const channels = args.length > 0 ? args : known.size > 0 ? [...known] : [null]
      return channels.map((channel) => {
        if (channel !== null) known[un === undefined ? "add" : "delete"](channel)
        return pushed(name.toLowerCase(), channel, total())
      })
    }
    if (protocol === 2 && total() > 0) {
      return [name === "PING" ? pushed("pong", args[0] ?? "") : "-ERR only (P|S)SUBSCRIBE\r\n"]
    }
    if (name === "LIST") return [`*3\r\n${["message", "subscribe", args[0] ?? ""].map(wire).join("")}`]
    return [name === "HELLO" ? "%0\r\n" : wire(args[0] ?? "")]
  }
  /** Something that nobody has asked for, if it can be said now. */
  const chatter = (kind: number): string => {
    const [[channel], [pattern], [shard]] = [[...kinds[""]], [...kinds.p], [...kinds.s]]
    if (kind === 0 && channel !== undefined) return pushed("message", channel, "subscribe")
    if (kind === 1 && pattern !== undefined) return pushed("pmessage", pattern, "x", "pmessage")
    if (kind === 2 && shard !== undefined) return pushed("smessage", shard, "y")
    if (kind === 3 && protocol === 3) return pushed("invalidate", "key")
    return ""
  }
  return { answer, chatter }
}

describe("the Redis client, among pushes at any time", () => {
  const channel = fc.constantFrom("a", "b", "c", "forbidden")
  const step = fc.record({
    words: fc.oneof(
      fc.tuple(
        fc.constantFrom(
          "SUBSCRIBE",
          "PSUBSCRIBE",
          "SSUBSCRIBE",
          "UNSUBSCRIBE",
          "PUNSUBSCRIBE",
          "SUNSUBSCRIBE",
          "subscribe"
        ),
        fc.array(channel, { maxLength: 4 })
      ),
      fc.tuple(fc.constantFrom("PING", "ECHO", "LIST"), fc.constant([]))
    ),
    chatter: fc.array(fc.nat(3), { maxLength: 3 }),
    interrupted: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
    pause: fc.nat(3)
  })

  it("each command gets its own reply, and each message is one", () =>
    fc.assert(
      fc.asyncProperty(
        fc.constantFrom(2 as const, 3 as const),
        fc.array(step, { maxLength: 25 }),
        fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1 }),
        async (protocol, steps, cuts) => {
          const model = makeModel(protocol)
          let messages = 0
          const program = Effect.gen(function* () {
            const [left, right] = yield* Connection.pair()
            const { receive } = Framed.make(right, Resp.commands, Resp.server)
            const answering = Effect.gen(function* () {
              for (let i = protocol === 3 ? -1 : 0; ; i++) {
                const words = (yield* receive).map(Resp.text)
                const chatter = [...(steps[i]?.chatter ?? [])]
                let out = ""
                for (const part of [...model.answer(words), ""]) {
                  const next = chatter.pop()
                  const pushed = next === undefined ? "" : model.chatter(next)
                  if (/message/.test(pushed)) messages++
                  out += pushed + part
                }
                for (let at = 0, n = 0; at < out.length; n++) {
                  const size = cuts[n % cuts.length] ?? 1
                  yield* right.writer.write(out.slice(at, at + size))
                  at += size
                  yield* Effect.yieldNow
                }
              }
            })
            yield* Effect.forkChild(answering)
            const client = yield* RedisClient.make(left, { protocol })
            const fibers: Array<Fiber.Fiber<string>> = []
            for (const [n, { interrupted, pause, words: said }] of steps.entries()) {
              const [name, args] = said
              const isOther = /PING|ECHO|LIST/.test(name)
              const words: Resp.Command = isOther ? [name, `n${n}`] : [name, ...args]
              const fiber = yield* Effect.forkChild(
                Effect.match(client.command(...words), {
                  onFailure: (error) => error.message,
                  onSuccess: (reply) => {
                    const items =
                      reply instanceof Resp.Push ? reply.items : Resp.isList(reply) ? reply : [reply]
                    const word = items[isOther ? items.length - 1 : 0]
                    return word instanceof Uint8Array ? Resp.text(word) : "no word"
                  }
                }),
                { startImmediately: true }
              )
              fibers.push(fiber)
              if (interrupted) yield* Effect.forkChild(Fiber.interrupt(fiber))
              for (let i = 0; i < pause; i++) yield* Effect.yieldNow
            }
            for (const [n, fiber] of fibers.entries()) {
              const [name, args]: readonly [string, ReadonlyArray<string>] = steps[n]?.words ?? ["", []]
              const exit = yield* Fiber.await(fiber)
              if (Exit.isFailure(exit)) {
                assert.isTrue(steps[n]?.interrupted)
                continue
              }
              const refusals = {
                "NOPERM no": args.includes("forbidden"),
                "ERR wrong number of arguments": true,
                "ERR only (P|S)SUBSCRIBE": protocol === 2
              }
              const expected = /PING|ECHO|LIST/.test(name) ? `n${n}` : name.toLowerCase()
              if (exit.value !== expected)
                assert.isTrue(Reflect.get(refusals, exit.value), `${expected}: ${exit.value}`)
            }
            // Nothing is left over that a later command could take for its reply.
            const last = yield* Effect.result(client.command("PING", "last"))
            if (Result.isSuccess(last)) {
              const word = Resp.isList(last.success) ? last.success[1] : last.success
              assert.strictEqual(word instanceof Uint8Array && Resp.text(word), "last")
            }
            const heard = yield* Stream.runCollect(Stream.take(client.messages, messages))
            assert.strictEqual(heard.length, messages)
            yield* left.abort
          })
          await Effect.runPromise(Effect.scoped(program).pipe(Effect.timeout("5 seconds")))
        }
      ),
      { numRuns: 500 }
    ))
})

const portOf = (address: NetAddress.SocketAddress): string =>
  NetAddress.isInetAddress(address) ? String(address.port) : assert.fail("not an internet address")

const serve = RedisServer.serve({ listen: { host: "127.0.0.1", port: 0 } })

describeWith("redis-benchmark", "the Redis server, against Redis's own programs", () => {
  live(
    "redis-benchmark: PING, SET, GET and INCR, 16 at a time from 50 clients",
    Effect.gen(function* () {
      const port = portOf((yield* serve).addresses[0])
      const { exit } = yield* spawnPeer("redis-benchmark", [
        ...["-p", port, "-t", "ping,set,get,incr", "-n", "10000", "-P", "16", "-q"]
      ])
      const { code, output } = yield* exit
      assert.strictEqual(code, 0, output)
      assert.notMatch(output, /error|warning/i)
      for (const name of ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR"]) {
        assert.match(output, new RegExp(`${name}: [1-9][\\d.]* requests per second`))
      }
      // All of them were counted: it increments one key.
      const { command } = yield* connect(`127.0.0.1:${port}`, { protocol: 2 })
      assert.strictEqual(yield* command("INCR", "counter:__rand_int__"), 10_001)
    })
  )

  live(
    "redis-cli: what it asks, and what it prints",
    Effect.gen(function* () {
      const port = portOf((yield* serve).addresses[0])
      const { child, exit } = yield* spawnPeer("redis-cli", ["-p", port])
      child.stdin?.end(
        [
          "PING",
          "SET colour 'deep blue'",
          "GET colour",
          "GET size",
          "INCR n",
          "INCR colour",
          "DEL colour n x",
          "NO"
        ]
          .map((line) => `${line}\n`)
          .join("")
      )
      const { code, output } = yield* exit
      assert.strictEqual(code, 0, output)
      assert.deepStrictEqual(
        output.split("\n").filter((line) => line !== ""),
        [
          "PONG",
          "OK",
          "deep blue",
          "1",
          "ERR value is not an integer or out of range",
          "2",
          "ERR unknown command 'NO'"
        ]
      )
    })
  )
})

describe("the Redis server", () => {
  const conversations: Record<string, readonly [sent: string, received: string]> = {
    "a pipeline": ["*1\r\n$4\r\nPING\r\n".repeat(3), "+PONG\r\n".repeat(3)],
    "lines typed by hand, empty ones too": ["PING\r\n\r\n  ECHO   hi \r\n", "+PONG\r\n$2\r\nhi\r\n"],
    "names in any case": ["*2\r\n$4\r\nping\r\n$2\r\nhi\r\n", "$2\r\nhi\r\n"],
    "a value that is not there": ["GET x\r\n", "$-1\r\n"],
    "too few arguments": [
      "GET\r\nSET x\r\n",
      "-ERR wrong number of arguments for 'get' command\r\n-ERR wrong number of arguments for 'set' command\r\n"
    ],
    "numbers up to 2^53": [
      "SET n 9007199254740990\r\nINCR n\r\nINCR n\r\nGET n\r\n",
      "+OK\r\n:9007199254740991\r\n-ERR value is not an integer or out of range\r\n$16\r\n9007199254740991\r\n"
    ],
    "no number": ["SET n 1e3\r\nINCR n\r\n", "+OK\r\n-ERR value is not an integer or out of range\r\n"],
    "a name that would break the reply": ["*1\r\n$4\r\na\r\nb\r\n", "-ERR unknown command 'a??b'\r\n"],
    "damage: an error, and the end": [
      "PING\r\n*1\r\n:1\r\nPING\r\n",
      "+PONG\r\n-ERR Protocol error: a command is an array of bulk strings\r\n"
    ],
    "no length: an error, and the end": [
      "*1\r\n$99999999999999999999\r\n",
      '-ERR Protocol error: "99999999999999999999" is no length\r\n'
    ],
    "a line of more words than anybody types": [
      `${"x ".repeat(33_000)}\r\n`,
      "-ERR Protocol error: a line that is too long for a command\r\n"
    ],
    "too much: an error, and the end": ["*1\r\n$999999999\r\n", "-ERR Protocol error: too big\r\n"]
  }
  for (const [title, [sent, received]] of Object.entries(conversations)) {
    it.effect(title, () =>
      Effect.gen(function* () {
        yield* RedisServer.serve({ listen: { port: 6379 } })
        const { reader, writer } = yield* Connection.connect("localhost:6379")
        yield* writer.write(sent)
        yield* writer.end
        assert.strictEqual(Resp.text(yield* reader.readAll()), received)
      }).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))
    )
  }
})
