import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, Fiber, Option, type Scope } from "effect"
import * as fc from "fast-check"
import { Connection, type Network } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { randomBytes } from "node:crypto"
import * as path from "node:path"
import * as Memcached from "../../examples/protocols/memcached.ts"
import { describeWith, says, spawnPeer, tempFolder } from "../support/programs.ts"

type Client = Effect.Success<ReturnType<typeof Memcached.make>>

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

const asText = Option.map(text)

/** What a client makes of a reply, which comes byte by byte once the client has sent what it should. */
const converse = <A, E>(call: (client: Client) => Effect.Effect<A, E>, sent: string, reply: string) =>
  Effect.gen(function* () {
    const [near, far] = yield* Connection.pair()
    const calling = yield* Effect.forkChild(call(yield* Memcached.make(near)))
    assert.strictEqual(text(yield* far.reader.readExactly(Buffer.byteLength(sent))), sent)
    for (const byte of Buffer.from(reply)) yield* far.writer.write(Uint8Array.of(byte))
    const result = yield* Fiber.join(calling)
    assert.strictEqual(yield* far.reader.bufferedBytes, 0)
    return result
  }).pipe(Effect.scoped)

const item: Memcached.Item = { key: "k", value: new Uint8Array(), flags: 5, cas: 18446744073709551615n }

describe("memcached's protocol", () => {
  const known: Record<
    string,
    readonly [
      call: (client: Client) => Effect.Effect<unknown, unknown>,
      sent: string,
      reply: string,
      result: unknown
    ]
  > = {
    "get, found": [
      ({ get }) => Effect.map(get("k"), asText),
      "get k\r\n",
      "VALUE k 0 4\r\n\r\n\r\n\r\nEND\r\n",
      Option.some("\r\n\r\n")
    ],
    "get, not found": [({ get }) => get("k"), "get k\r\n", "END\r\n", Option.none()],
    gets: [
      ({ gets }) =>
        Effect.map(gets(["a", "b", "c"]), (items) =>
          [...items.values()].map((_) => ({ ..._, value: text(_.value) }))
        ),
      "gets a b c\r\n",
      "VALUE a 0 1 7\r\nx\r\nVALUE c 4294967295 0 18446744073709551615\r\n\r\nEND\r\n",
      [
        { key: "a", value: "x", flags: 0, cas: 7n },
        { key: "c", value: "", flags: 4294967295, cas: 18446744073709551615n }
      ]
    ],
    "set, in bytes": [
      ({ set }) => set("ключ", "é", { flags: 3 }),
      "set ключ 3 0 2\r\né\r\n",
      "STORED\r\n",
      true
    ],
    "add, there already": [({ add }) => add("k", ""), "add k 0 0 0\r\n\r\n", "NOT_STORED\r\n", false],
    "replace, not there": [
      ({ replace }) => replace("k", "v"),
      "replace k 0 0 1\r\nv\r\n",
      "NOT_STORED\r\n",
      false
    ],
    append: [({ append }) => append("k", "v"), "append k 0 0 1\r\nv\r\n", "STORED\r\n", true],
    prepend: [({ prepend }) => prepend("k", "v"), "prepend k 0 0 1\r\nv\r\n", "STORED\r\n", true],
    "cas, stored": [
      ({ compareAndSet }) => compareAndSet(item, "v"),
      "cas k 5 0 1 18446744073709551615\r\nv\r\n",
      "STORED\r\n",
      "stored"
    ],
    "cas, changed": [
      ({ compareAndSet }) => compareAndSet(item, "v", { flags: 0 }),
      "cas k 0 0 1 18446744073709551615\r\nv\r\n",
      "EXISTS\r\n",
      "changed"
    ],
    "cas, gone": [
      ({ compareAndSet }) => compareAndSet(item, "v"),
      "cas k 5 0 1 18446744073709551615\r\nv\r\n",
      "NOT_FOUND\r\n",
      "gone"
    ],
    delete: [(client) => client.delete("k"), "delete k\r\n", "DELETED\r\n", true],
    "delete, not there": [(client) => client.delete("k"), "delete k\r\n", "NOT_FOUND\r\n", false],
    incr: [
      ({ increment }) => increment("k"),
      "incr k 1\r\n",
      "18446744073709551615\r\n",
      Option.some(18446744073709551615n)
    ],
    "decr, not there": [({ decrement }) => decrement("k", 5n), "decr k 5\r\n", "NOT_FOUND\r\n", Option.none()]
  }
  for (const [title, [call, sent, reply, result]] of Object.entries(known)) {
    it.effect(title, () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* converse(call, sent, reply), result)
      })
    )
  }

  const expiries: ReadonlyArray<readonly [Duration.Input, number]> = [
    ["1 minute", 60],
    ["1500 millis", 2],
    ["0 seconds", 1],
    ["30 days", 2_592_000],
    // More would be a date: it is one, and by the test's clock the world began just now.
    ["31 days", 2_678_400],
    ["Infinity", 0]
  ]
  for (const [expiresIn, seconds] of expiries) {
    it.effect(`expires in ${JSON.stringify(expiresIn)}: ${seconds}`, () =>
      converse(({ set }) => set("k", "v", { expiresIn }), `set k 0 ${seconds} 1\r\nv\r\n`, "STORED\r\n")
    )
  }

  const refusals: Record<string, string> = {
    "ERROR\r\n": "ERROR",
    "CLIENT_ERROR bad data chunk\r\n": "CLIENT_ERROR bad data chunk",
    "SERVER_ERROR out of memory storing object\r\n": "SERVER_ERROR out of memory storing object",
    "VALUE k 0 1\r\nx\r\nSERVER_ERROR out of memory writing get response\r\n":
      "SERVER_ERROR out of memory writing get response",
    "STORED\r\n": "get: unexpected STORED"
  }
  for (const [reply, message] of Object.entries(refusals)) {
    it.effect(`${JSON.stringify(reply)} is a MemcachedError`, () =>
      Effect.gen(function* () {
        const result = yield* converse(({ get }) => Effect.flip(get("k")), "get k\r\n", reply)
        assert.instanceOf(result, Memcached.MemcachedError)
        assert.strictEqual(result.message, message)
      })
    )
  }

  it.effect("data that is longer than it says is a FrameError", () =>
    Effect.gen(function* () {
      const result = yield* converse(
        ({ get }) => Effect.flip(get("k")),
        "get k\r\n",
        "VALUE k 0 1\r\nxy\r\nEND\r\n"
      )
      assert.match(String(result), /more than 1 bytes of data/)
    })
  )

  it.effect("a header whose numbers are none is a FrameError", () =>
    Effect.gen(function* () {
      for (const numbers of [
        "0 99999999999999999999",
        "0 -1",
        "0 1e3",
        "0 x",
        "99999999999 1",
        "0",
        "0 1 x"
      ]) {
        const reply = `VALUE k ${numbers}\r\nx\r\nEND\r\n`
        const [near, far] = yield* Connection.pair()
        const calling = yield* Effect.forkChild(Effect.flip((yield* Memcached.make(near)).get("k")))
        yield* far.writer.write(reply)
        assert.match(String(yield* Fiber.join(calling)), /a header that is none/)
        yield* near.abort
      }
    }).pipe(Effect.scoped)
  )

  it.effect("a key that is none is refused, and nothing is sent", () =>
    Effect.gen(function* () {
      const [near, far] = yield* Connection.pair()
      const { get, gets } = yield* Memcached.make(near)
      for (const key of ["", "a b", "a\r\nflush_all", "a\u007f", "a\0", "ж".repeat(126)]) {
        assert.strictEqual((yield* Effect.flip(gets(["a", key])))._tag, "FrameError", key)
      }
      yield* Effect.forkChild(get("ж".repeat(125)))
      assert.strictEqual(text(yield* far.reader.readLine), `get ${"ж".repeat(125)}\r\n`)
    }).pipe(Effect.scoped)
  )

  it("damaged replies fail with typed errors", async () => {
    const alphabet = ["\r\n", "VALUE ", "k ", "0 ", "1", "2", "END\r\n", "STORED\r\n", "x", "ERROR"]
    await fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom(...alphabet), { maxLength: 20 }), async (parts) => {
        const result = await Effect.runPromise(
          Effect.gen(function* () {
            const [near, far] = yield* Connection.pair()
            const { get } = yield* Memcached.make(near)
            const calling = yield* Effect.forkChild(Effect.result(get("k")), { startImmediately: true })
            yield* far.writer.write(parts.join(""))
            yield* far.writer.end
            return yield* Fiber.join(calling)
          }).pipe(Effect.scoped)
        )
        const tags = ["EndOfStream", "FrameError", "IncompleteReadError", "MemcachedError"]
        assert.isTrue(result._tag === "Success" || tags.includes(result.failure._tag))
      }),
      { numRuns: 300 }
    )
  })
})

describeWith("memcached", "the memcached client, against memcached", () => {
  const live = (
    title: string,
    body: (client: Client) => Effect.Effect<unknown, unknown, Network.Network | Scope.Scope>
  ): void =>
    it.live(title, () =>
      Effect.gen(function* () {
        const socket = path.join(yield* tempFolder, "memcached.sock")
        yield* says(yield* spawnPeer("memcached", ["-vv", "-u", "root", "-s", socket]), /server listening/)
        yield* body(yield* Memcached.make(yield* Connection.connect({ path: socket })))
      }).pipe(Effect.scoped, Effect.provide(NodeNetwork.layer))
    )

  live(
    "items: stored, found, replaced, deleted",
    ({ add, append, delete: remove, get, prepend, replace, set }) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* get("k"), Option.none())
        assert.isFalse(yield* replace("k", "v"))
        assert.isFalse(yield* append("k", "v"))
        assert.isTrue(yield* add("k", "b"))
        assert.isFalse(yield* add("k", "x"))
        assert.isTrue(yield* append("k", "c"))
        assert.isTrue(yield* prepend("k", "a"))
        assert.deepStrictEqual(asText(yield* get("k")), Option.some("abc"))
        assert.isTrue(yield* replace("k", "v"))
        assert.isTrue(yield* set("k", ""))
        assert.deepStrictEqual(asText(yield* get("k")), Option.some(""))
        assert.isTrue(yield* remove("k"))
        assert.isFalse(yield* remove("k"))
        assert.deepStrictEqual(yield* get("k"), Option.none())
      })
  )

  live(
    "several at once, with flags and what compare-and-set wants",
    ({ compareAndSet, delete: remove, gets, set }) =>
      Effect.gen(function* () {
        yield* set("a", "1", { flags: 4_294_967_295 })
        yield* set("c", "3")
        const items = yield* gets(["a", "b", "c"])
        assert.deepStrictEqual(
          Array.from(items.values(), ({ flags, key, value }) => [key, text(value), flags]),
          [
            ["a", "1", 4_294_967_295],
            ["c", "3", 0]
          ]
        )
        assert.deepStrictEqual(yield* gets([]), new Map())
        const a = items.get("a")
        assert(a !== undefined)
        assert.strictEqual(yield* compareAndSet(a, "2"), "stored")
        assert.strictEqual(yield* compareAndSet(a, "3"), "changed")
        yield* remove("a")
        assert.strictEqual(yield* compareAndSet(a, "4"), "gone")
      })
  )

  live("numbers of 64 bits", ({ decrement, get, increment, set }) =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* increment("n"), Option.none())
      yield* set("n", "18446744073709551614")
      assert.deepStrictEqual(yield* increment("n"), Option.some(18446744073709551615n))
      assert.deepStrictEqual(yield* increment("n", 6), Option.some(5n))
      assert.deepStrictEqual(yield* decrement("n", 10n), Option.some(0n))
      yield* set("n", "no number")
      const refused = yield* Effect.flip(increment("n"))
      assert.strictEqual(refused.message, "CLIENT_ERROR cannot increment or decrement non-numeric value")
      assert.deepStrictEqual(asText(yield* get("n")), Option.some("no number"))
    })
  )

  live("binary data up to memcached's limit; beyond it an error, after which all goes on", ({ get, set }) =>
    Effect.gen(function* () {
      const value = Uint8Array.from(randomBytes(1_000_000))
      yield* set("big", value)
      const back = Option.getOrThrow(yield* get("big"))
      assert.isTrue(Buffer.from(back).equals(value))

      const [refused, stored] = yield* Effect.all(
        [Effect.flip(set("bigger", new Uint8Array(2 * 1024 * 1024))), set("small", "v")],
        { concurrency: "unbounded" }
      )
      assert.strictEqual(refused.message, "SERVER_ERROR object too large for cache")
      assert.isTrue(stored)
      assert.deepStrictEqual(asText(yield* get("small")), Option.some("v"))
    })
  )

  live("an item for more than 30 days is there: memcached takes the number for a date", ({ get, set }) =>
    Effect.gen(function* () {
      yield* set("long", "v", { expiresIn: "31 days" })
      assert.isTrue(Option.isSome(yield* get("long")))
    })
  )

  live("1,000 calls of 1,000 fibers are a pipeline, and each gets its reply", ({ get, set }) =>
    Effect.gen(function* () {
      const numbers = Array.from({ length: 1000 }, (_, i) => i)
      yield* Effect.forEach(numbers, (n) => set(`k${n}`, `v${n}`), { concurrency: "unbounded" })
      const values = yield* Effect.forEach(numbers, (n) => get(`k${n}`), { concurrency: "unbounded" })
      assert.deepStrictEqual(
        values.map(asText),
        numbers.map((n) => Option.some(`v${n}`))
      )
    })
  )
})
