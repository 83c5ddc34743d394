import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  ConfigProvider,
  Duration,
  Effect,
  Exit,
  Fiber,
  Redacted,
  Result,
  Schema,
  type Scope
} from "effect"
import { TestClock } from "effect/testing"
import { Connection, type Network, Proxy, Relay, Server, StreamError } from "effect-wire"
import { TestNetwork } from "effect-wire/testing"
import * as fc from "fast-check"
import { inspect } from "node:util"
import { outcomeOf, turns } from "./support/effects.ts"
import { remedies } from "./support/remedies.ts"

const network = TestNetwork.layerWith({
  hosts: { "proxy.test": ["10.0.0.9"], "second.test": ["10.0.0.8"], "service.test": ["10.0.0.1"] }
})

const test = (name: string, body: () => Effect.Effect<void, unknown, Network.Network | Scope.Scope>) =>
  it.effect(name, () => Effect.scoped(Effect.suspend(body)).pipe(Effect.provide(network)))

const bytes = (...values: ReadonlyArray<number | string>): Uint8Array =>
  Buffer.concat(values.map((_) => (typeof _ === "number" ? Buffer.of(_) : Buffer.from(_))))

const hex = (chunk: Uint8Array): string => Buffer.from(chunk).toString("hex")

const text = (chunk: Uint8Array | undefined): string => Buffer.from(chunk ?? []).toString()

const secret = "open sesame"
const user = { username: "ali", password: Redacted.make(secret) }

/** What a scripted proxy is asked, and what it answers. A number stands for so many bytes, a string for a separator. */
type Step = readonly [read: number | string, answer: Uint8Array]

/** Answers as the script says, writes down what it is asked, and then leaves the client alone. */
const scripted =
  (script: ReadonlyArray<Step>, asked: Array<Uint8Array> = []) =>
  ({ closed, reader, writer }: Connection.Connection) =>
    Effect.gen(function* () {
      for (const [read, answer] of script) {
        asked.push(yield* typeof read === "number" ? reader.readExactly(read) : reader.readUntil(read))
        yield* writer.write(answer)
      }
      yield* closed
    })

const serve = <E>(
  handler: (connection: Connection.Connection) => Effect.Effect<void, E>,
  host = "10.0.0.9"
) => Server.serve(handler, { listen: { host, port: 1080 }, onError: () => Effect.void })

const socks = Proxy.socks5("proxy.test:1080")
const socksWithUser = Proxy.socks5("proxy.test:1080", user)
const http = Proxy.httpConnect("proxy.test:1080")
const httpWithUser = Proxy.httpConnect("proxy.test:1080", user)

const target = "example.org:443"

const nameRequest = bytes(5, 1, 0, 3, 11, "example.org", 1, 187)
const boundIpv4 = bytes(5, 0, 0, 1, 10, 0, 0, 9, 4, 56)

/** The same as `Connection.connect`, with what it fails with as data. */
const reasonOf = (proxy: Proxy.Proxy, options?: Connection.ConnectionOptions) =>
  Effect.flip(Connection.connect(target, { proxy, ...options })).pipe(
    Effect.map((error) =>
      error._tag === "ConnectionError"
        ? error.reason
        : assert.fail(`expected a ConnectionError, not ${error.message}`)
    )
  )

describe("SOCKS 5", () => {
  const tunnelled = Effect.fnUntraced(function* (
    script: ReadonlyArray<Step>,
    proxy: Proxy.Proxy,
    target: Network.Target
  ) {
    const asked: Array<Uint8Array> = []
    const server = yield* serve(scripted(script, asked))
    const connection = yield* Connection.connect(target, { proxy })
    assert.strictEqual(yield* outcomeOf(connection.reader.readExactly(2)), "success")
    yield* server.shutdown({ grace: 0 })
    return asked.map(hex)
  })

  test("asks for a name, which nothing looks up here", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* tunnelled(
          [
            [3, bytes(5, 0)],
            [18, bytes(...boundIpv4, "hi")]
          ],
          socks,
          target
        ),
        [hex(bytes(5, 1, 0)), hex(nameRequest)]
      )
    }))

  test("asks for IPv4 and IPv6 addresses", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* tunnelled(
          [
            [3, bytes(5, 0)],
            [10, bytes(...boundIpv4, "hi")]
          ],
          socks,
          "192.0.2.7:80"
        ),
        ["050100", "05010001c00002070050"]
      )
      assert.deepStrictEqual(
        yield* tunnelled(
          [
            [3, bytes(5, 0)],
            [22, bytes(5, 0, 0, 4, ...Array.from({ length: 18 }, () => 7), "hi")]
          ],
          socks,
          { host: "2001:db8::1", port: 65_535 }
        ),
        ["050100", "0501000420010db8000000000000000000000001ffff"]
      )
    }))

  test("gives the username and the password when it is asked for them, and not otherwise", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* tunnelled(
          [
            [4, bytes(5, 2)],
            [17, bytes(1, 0)],
            [18, bytes(5, 0, 0, 3, 4, "name", 0, 0, "hi")]
          ],
          socksWithUser,
          target
        ),
        [hex(bytes(5, 2, 0, 2)), hex(bytes(1, 3, "ali", 11, secret)), hex(nameRequest)]
      )
      assert.deepStrictEqual(
        yield* tunnelled(
          [
            [4, bytes(5, 0)],
            [18, bytes(...boundIpv4, "hi")]
          ],
          socksWithUser,
          target
        ),
        [hex(bytes(5, 2, 0, 2)), hex(nameRequest)]
      )
    }))

  const failures: ReadonlyArray<
    readonly [
      what: string,
      proxy: Proxy.Proxy,
      script: ReadonlyArray<Step>,
      kind: StreamError.ProxyError["kind"],
      message: string,
      code?: string
    ]
  > = [
    [
      "no method, without credentials",
      socks,
      [[3, bytes(5, 0xff)]],
      "AuthenticationFailed",
      "wants credentials"
    ],
    ["no method, with them", socksWithUser, [[4, bytes(5, 0xff)]], "AuthenticationFailed", "accepts neither"],
    ["another version", socks, [[3, bytes("HT")]], "MalformedReply", "answered 48 54, which is not SOCKS 5"],
    ["a method nobody offered", socks, [[3, bytes(5, 2)]], "MalformedReply", "not offered (2)"],
    ["a method nobody knows", socksWithUser, [[4, bytes(5, 9)]], "MalformedReply", "not offered (9)"],
    [
      "a wrong password",
      socksWithUser,
      [
        [4, bytes(5, 2)],
        [17, bytes(1, 1)]
      ],
      "AuthenticationFailed",
      "does not accept the username and the password"
    ],
    [
      "nonsense for a password",
      socksWithUser,
      [
        [4, bytes(5, 2)],
        [17, bytes(9, 0)]
      ],
      "MalformedReply",
      "answered 09 00 to the password"
    ],
    [
      "nonsense for a request",
      socks,
      [
        [3, bytes(5, 0)],
        [18, bytes(4, 90)]
      ],
      "MalformedReply",
      "answered 04 5a to the request"
    ],
    [
      "an unknown address type",
      socks,
      [
        [3, bytes(5, 0)],
        [18, bytes(5, 0, 0, 2, 0)]
      ],
      "MalformedReply",
      "address of unknown type 2"
    ],
    ...[
      ["GENERAL_FAILURE", "general failure"],
      ["NOT_ALLOWED", "not allowed by its rules"],
      ["NETWORK_UNREACHABLE", "network unreachable"],
      ["HOST_UNREACHABLE", "host unreachable"],
      ["CONNECTION_REFUSED", "connection refused"],
      ["TTL_EXPIRED", "time to live expired"],
      ["COMMAND_NOT_SUPPORTED", "command not supported"],
      ["ADDRESS_TYPE_NOT_SUPPORTED", "address type not supported"],
      ["REPLY_9", "reply 9"]
    ].map(
      ([code = "", meaning = ""], i) =>
        [
          meaning,
          socks,
          [
            [3, bytes(5, 0)],
            [18, bytes(5, i + 1)]
          ],
          "Refused",
          `could not connect: ${meaning}`,
          `SOCKS5_${code}`
        ] as const
    )
  ]

  for (const [what, proxy, script, kind, message, code] of failures) {
    test(`fails: ${what}`, () =>
      Effect.gen(function* () {
        yield* serve(scripted(script))
        const error = yield* Effect.flip(Connection.connect(target, { proxy }))
        assert(error._tag === "ConnectionError" && error.reason._tag === "ProxyError")
        assert.deepStrictEqual(
          [error.operation, error.address, error.reason.proxy, error.reason.kind, error.reason.code],
          ["connect", target, "proxy.test:1080", kind, code]
        )
        assert.include(error.message, `connect to ${target}: the proxy proxy.test:1080 `)
        assert.include(error.message, message)
        assert.notInclude(inspect(error, { depth: 10 }), secret)
      }))
  }

  it("takes no credentials that the protocol cannot say", () => {
    for (const credentials of [
      { username: "", password: "x" },
      { username: "u".repeat(256), password: "x" },
      { username: "u", password: "ü".repeat(128) }
    ]) {
      assert.throws(() => Proxy.socks5(target, credentials), RangeError, /bytes, received/)
    }
    assert.isTrue(Proxy.isProxy(Proxy.socks5(target, { username: "u", password: "" })))
    assert.isFalse(Proxy.isProxy({}))
  })
})

describe("HTTP CONNECT", () => {
  const head = "\r\n\r\n"

  test("asks for the target, and takes any 2xx for an answer", () =>
    Effect.gen(function* () {
      for (const answer of [
        "HTTP/1.1 200 Connection established\r\nServer: x\r\n\r\n",
        "HTTP/1.0 200\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 100\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 \r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nServer: x\n\n"
      ]) {
        const asked: Array<Uint8Array> = []
        const server = yield* serve(scripted([[head, bytes(answer, "\r\nhi")]], asked))
        const connection = yield* Connection.connect(target, { proxy: http })
        assert.strictEqual(text(yield* connection.reader.readExactly(4)), "\r\nhi", answer)
        assert.strictEqual(
          text(asked[0]),
          "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"
        )
        yield* server.shutdown({ grace: 0 })
      }
    }))

  test("writes IPv6 addresses in brackets, and credentials as Basic authorization", () =>
    Effect.gen(function* () {
      const asked: Array<Uint8Array> = []
      yield* serve(scripted([[head, bytes("HTTP/1.1 200 OK\r\n\r\n")]], asked))
      const connection = yield* Connection.connect({ host: "2001:db8::1", port: 80 }, { proxy: httpWithUser })
      yield* connection.abort
      assert.strictEqual(
        text(asked[0]),
        "CONNECT [2001:db8::1]:80 HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n" +
          `Proxy-Authorization: Basic ${Buffer.from(`ali:${secret}`).toString("base64")}\r\n\r\n`
      )
    }))

  for (const [what, answer, kind, detail, code] of [
    ["a refusal", "HTTP/1.1 502 Bad Gateway", "Refused", "answered 502 Bad Gateway", "HTTP_502"],
    ["a refusal without words", "HTTP/1.1 403", "Refused", "answered 403", "HTTP_403"],
    ["a redirection", "HTTP/1.1 302 Found", "Refused", "answered 302 Found", "HTTP_302"],
    [
      "missing credentials",
      "HTTP/1.1 407 Proxy Authentication Required",
      "AuthenticationFailed",
      "answered 407 Proxy Authentication Required",
      "HTTP_407"
    ],
    [
      "words with control characters",
      "HTTP/1.1 500 a\x1b[31mb",
      "Refused",
      "answered 500 a\\u001b[31mb",
      "HTTP_500"
    ],
    [
      "another protocol",
      "SSH-2.0-x",
      "MalformedReply",
      'answered "SSH-2.0-x", which is not HTTP/1.1',
      undefined
    ],
    [
      "HTTP/2",
      "HTTP/2 200 OK",
      "MalformedReply",
      'answered "HTTP/2 200 OK", which is not HTTP/1.1',
      undefined
    ],
    ["no code", "HTTP/1.1 OK", "MalformedReply", 'answered "HTTP/1.1 OK", which is not HTTP/1.1', undefined],
    ["an empty answer", "", "MalformedReply", 'answered "", which is not HTTP/1.1', undefined],
    [
      "interim responses without end",
      "HTTP/1.1 100 Continue\r\n\r\n".repeat(20),
      "MalformedReply",
      "answered with more than 8 interim responses",
      undefined
    ],
    [
      "a head without end",
      `HTTP/1.1 200 OK\r\nA: ${"a".repeat(70_000)}`,
      "MalformedReply",
      "answered with more than 65536 bytes before the tunnel was open",
      undefined
    ]
  ] as const) {
    test(`fails: ${what}`, () =>
      Effect.gen(function* () {
        yield* serve(scripted([[head, bytes(answer, head)]]))
        const reason = yield* reasonOf(http)
        assert(reason._tag === "ProxyError")
        assert.deepStrictEqual([reason.kind, reason.detail, reason.code], [kind, detail, code])
      }))
  }

  test("knows by its first line what is no HTTP, or a refusal, and does not wait for more", () =>
    Effect.gen(function* () {
      const answers = ["SSH-2.0-x\r\n", "HTTP/1.1 503 Service Unavailable\r\n"]
      yield* serve((connection) =>
        Effect.gen(function* () {
          yield* connection.reader.readUntil("\r\n\r\n")
          yield* connection.writer.write(answers.shift() ?? "")
          yield* connection.closed
        }).pipe(Effect.ignore)
      )
      for (const kind of ["MalformedReply", "Refused"]) {
        const reason = yield* reasonOf(http)
        assert(reason._tag === "ProxyError")
        assert.strictEqual(reason.kind, kind)
      }
    }))

  it("takes no credentials that Basic authorization cannot say", () => {
    for (const credentials of [
      { username: "a:b", password: "x" },
      { username: "a", password: "x\r\nX-Evil: 1" },
      { username: "a\0", password: "x" }
    ]) {
      assert.throws(() => Proxy.httpConnect(target, credentials), RangeError)
    }
  })
})

const dialogues: ReadonlyArray<readonly [string, Proxy.Proxy, ReadonlyArray<Step>]> = [
  [
    "SOCKS 5",
    socksWithUser,
    [
      [4, bytes(5, 2)],
      [17, bytes(1, 0)],
      [18, bytes(5, 0, 0, 3, 4, "name", 0, 0)]
    ]
  ],
  [
    "HTTP CONNECT",
    httpWithUser,
    [["\r\n\r\n", bytes("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n")]]
  ]
]

for (const [name, proxy, script] of dialogues) {
  describe(`${name}, cut anywhere`, () => {
    const answers = script.map(([, answer]) => answer)
    const total = answers.reduce((sum, { length }) => sum + length, 0)

    it.effect("answers in any pieces, with bytes of the target behind, give the same tunnel", () =>
      Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(
            fc.array(fc.nat(total + 20), { maxLength: 12 }),
            fc.constantFrom(1, 10, 65_536),
            (cuts, limit) =>
              Effect.gen(function* () {
                const [connection, peer] = yield* Connection.pair({ limit })
                // All of it at once, before it is asked: a proxy that knows what comes.
                const all = bytes(...answers.flatMap((_) => [..._]), "bytes of the target\n")
                const bounds = [0, ...cuts, all.length].sort((a, b) => a - b)
                yield* Effect.forkChild(
                  Effect.forEach(bounds, (from, i) =>
                    Effect.andThen(
                      peer.writer.write(all.subarray(from, bounds[i + 1] ?? from)),
                      Effect.yieldNow
                    )
                  )
                )
                yield* Proxy.tunnel(connection, proxy, target)
                assert.strictEqual(text(yield* connection.reader.readExactly(20)), "bytes of the target\n")
                yield* Effect.all([connection.abort, peer.abort], { concurrency: "unbounded" })
              }).pipe(Effect.scoped, Effect.runPromise)
          ),
          { numRuns: 200 }
        )
      )
    )

    /** The proxy's answer stops after `length` bytes. */
    const cut = (length: number): ReadonlyArray<Step> => {
      let left = length
      return script.map(([read, answer]) => {
        const part = answer.subarray(0, left)
        left -= part.length
        return [read, part]
      })
    }

    test("an end or a reset in the middle is a closed connection, at every byte", () =>
      Effect.gen(function* () {
        for (let length = 0; length < total; length++) {
          for (const how of ["end", "abort"] as const) {
            const server = yield* serve((connection) =>
              Effect.gen(function* () {
                for (const [i, [read, answer]] of cut(length).entries()) {
                  yield* typeof read === "number"
                    ? connection.reader.readExactly(read)
                    : connection.reader.readUntil(read)
                  yield* connection.writer.write(answer)
                  if (answer.length < (answers[i]?.length ?? 0)) break
                }
                yield* turns
                yield* how === "end" ? connection.writer.end : connection.abort
                yield* connection.closed
              }).pipe(Effect.ignore)
            )
            const reason = yield* reasonOf(proxy)
            assert(reason._tag === "ProxyError", reason._tag)
            assert.deepStrictEqual(
              [reason.kind, reason.code],
              ["Closed", how === "end" ? undefined : "ECONNRESET"],
              `${length} ${how}`
            )
            assert.include(reason.message, "in the middle of the handshake")
            if (how === "end") assert.include(reason.message, `after ${length} bytes from it`)
            yield* server.shutdown({ grace: 0 })
          }
        }
      }))

    test("silence is connectTimeout's, at every byte, and nobody is left", () =>
      Effect.gen(function* () {
        for (let length = 0; length < total; length++) {
          const server = yield* serve(scripted(cut(length)))
          const connecting = yield* Effect.forkChild(
            // The times of reading are not those of the handshake.
            Effect.flip(
              Connection.connect(target, {
                proxy,
                connectTimeout: "5 seconds",
                readTimeout: "1 second",
                idleTimeout: "1 second"
              })
            )
          )
          yield* TestClock.adjust("4999 millis")
          assert.isUndefined(connecting.pollUnsafe())
          assert.strictEqual(yield* server.activeConnections, 1)
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(
            (yield* Fiber.join(connecting)).message,
            `connect to ${target}: timed out after 5s, waiting for the proxy proxy.test:1080 to open the tunnel${remedies.raise("connectTimeout")}`
          )
          // The scope of the client is still open.
          yield* turns
          assert.strictEqual(yield* server.activeConnections, 0)
          yield* server.shutdown({ grace: 0 })
        }
      }))

    test("interrupted at every byte, it leaves nobody", () =>
      Effect.gen(function* () {
        for (let length = 0; length < total; length++) {
          const server = yield* serve(scripted(cut(length)))
          const connecting = yield* Effect.forkChild(Connection.connect(target, { proxy }))
          yield* turns
          assert.strictEqual(yield* server.activeConnections, 1)
          yield* Fiber.interrupt(connecting)
          yield* turns
          assert.strictEqual(yield* server.activeConnections, 0)
          yield* server.shutdown({ grace: 0 })
        }
      }))

    test("interrupted after any number of turns, it leaves nobody", () =>
      Effect.gen(function* () {
        const server = yield* serve(scripted(script))
        let connected = 0
        for (let n = 0; n < 100; n++) {
          const connecting = yield* Effect.forkChild(
            Effect.scoped(Effect.andThen(Connection.connect(target, { proxy }), Effect.never))
          )
          yield* Effect.repeat(Effect.yieldNow, { times: n })
          connected += yield* server.activeConnections
          yield* Fiber.interrupt(connecting)
          yield* turns
          assert.strictEqual(yield* server.activeConnections, 0, `${n} turns`)
        }
        assert.isAbove(connected, 0)
      }))
  })
}

/** A proxy that works: it connects to what it is asked for. */
const socksServer = (connection: Connection.Connection) =>
  Effect.gen(function* () {
    const { reader, writer } = connection
    yield* reader.skip(3)
    yield* writer.write(bytes(5, 0))
    const length = (yield* reader.readExactly(5))[4] ?? 0
    const host = text(yield* reader.readExactly(length))
    const port = Buffer.from(yield* reader.readExactly(2)).readUInt16BE()
    const onward = yield* Connection.connect({ host, port })
    yield* writer.write(boundIpv4)
    yield* Relay.bidirectional(connection, onward)
  }).pipe(Effect.scoped)

const httpServer = (connection: Connection.Connection) =>
  Effect.gen(function* () {
    const { reader, writer } = connection
    const head = text(yield* reader.readUntil("\r\n\r\n"))
    const onward = yield* Connection.connect(head.split(" ")[1] ?? "")
    yield* writer.write("HTTP/1.1 200 OK\r\n\r\n")
    yield* Relay.bidirectional(connection, onward)
  }).pipe(Effect.scoped)

describe("Connection.connect through proxies", () => {
  const echo = Server.serve(
    ({ reader, writer }) => Effect.flatMap(reader.readLine, (line) => writer.write(line)),
    { listen: { host: "10.0.0.1", port: 7 } }
  )
  const listen = (host: string) => ({ listen: { host, port: 1080 }, onError: () => Effect.void })

  test("speaks to the target, and says whom it speaks to and through whom", () =>
    Effect.gen(function* () {
      yield* echo
      yield* Server.serve(socksServer, listen("10.0.0.9"))
      for (const proxy of [socks, [socks]]) {
        const connection = yield* Connection.connect("service.test:7", { proxy })
        yield* connection.writer.write("hello\n")
        assert.strictEqual(text(yield* connection.reader.readAll()), "hello\n")
        assert.strictEqual(connection.info.target, "service.test:7")
        assert.strictEqual(String(connection.info.remoteAddress), "10.0.0.9:1080")
        assert.strictEqual(Connection.withTimeouts(connection, { read: 1 }).info.target, "service.test:7")
      }
      const direct = yield* Connection.connect("service.test:7", { proxy: [] })
      assert.isUndefined(direct.info.target)
    }))

  test("goes through a chain, in its order", () =>
    Effect.gen(function* () {
      yield* echo
      const through: Array<string> = []
      yield* Server.serve(
        (connection) =>
          Effect.andThen(
            Effect.sync(() => through.push("first")),
            socksServer(connection)
          ),
        listen("10.0.0.9")
      )
      yield* Server.serve(
        (connection) =>
          Effect.andThen(
            Effect.sync(() => through.push("second")),
            httpServer(connection)
          ),
        listen("10.0.0.8")
      )
      const connection = yield* Connection.connect("service.test:7", {
        proxy: [socks, Proxy.httpConnect("second.test:1080")]
      })
      yield* connection.writer.write("hello\n")
      assert.strictEqual(text(yield* connection.reader.readAll()), "hello\n")
      assert.deepStrictEqual(through, ["first", "second"])
    }))

  test("a failure names the proxy of the chain that it is of", () =>
    Effect.gen(function* () {
      yield* Server.serve(socksServer, listen("10.0.0.9"))
      yield* serve(scripted([["\r\n\r\n", bytes("HTTP/1.1 504 Gateway Timeout\r\n\r\n")]]), "10.0.0.8")
      const error = yield* Effect.flip(
        Connection.connect(target, { proxy: [socks, Proxy.httpConnect("second.test:1080")] })
      )
      assert.strictEqual(
        error.message,
        `connect to ${target}: the proxy second.test:1080 answered 504 Gateway Timeout (HTTP_504)`
      )
    }))

  test("a proxy that is not there is a failure to connect, with its address, and says whom it was for", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Connection.connect(target, { proxy: socks }))
      assert.strictEqual(
        error.message,
        "connect to proxy.test:1080: connection refused (ECONNREFUSED); tried 10.0.0.9:1080 (connection refused); " +
          `it is the proxy for ${target}`
      )
      assert(error._tag === "ConnectionError")
      assert.deepStrictEqual(
        [error.address, error.proxyFor, error.reason._tag],
        ["proxy.test:1080", target, "ConnectionRefused"]
      )
      const direct = yield* Effect.flip(Connection.connect("proxy.test:1080"))
      assert(direct._tag === "ConnectionError")
      assert.isUndefined(direct.proxyFor)
      const unknown = yield* Effect.flip(Connection.connect(target, { proxy: Proxy.socks5("nobody.test:1") }))
      assert.include(unknown.message, "connect to nobody.test:1: the host name does not resolve")
    }))

  test("a target that no proxy can be asked for fails before anybody is connected to", () =>
    Effect.gen(function* () {
      const asked: Array<Uint8Array> = []
      yield* serve(scripted([[1, bytes(5)]], asked))
      for (const [target, tag] of [
        [{ path: "/run/x.sock" }, "Unsupported"],
        ["[fe80::1%2]:80", "InvalidAddress"],
        ["[fe80::1%eth0]:80", "InvalidAddress"],
        ["example.org", "InvalidAddress"]
      ] as const) {
        const gone = Proxy.socks5("nobody.test:1")
        for (const proxy of [socks, http, gone, [gone, socks]]) {
          const error = yield* Effect.flip(Connection.connect(target, { proxy }))
          assert(error._tag === "ConnectionError")
          assert.strictEqual(error.reason._tag, tag)
        }
      }
      assert.deepStrictEqual(asked, [])
    }))

  test("the scope owns the connection as any other", () =>
    Effect.gen(function* () {
      const server = yield* serve(scripted([["\r\n\r\n", bytes("HTTP/1.1 200 OK\r\n\r\n")]]))
      const exit = yield* Effect.exit(
        Connection.use(target, { proxy: http }, () => Effect.andThen(turns, Effect.fail("no")))
      )
      assert.isTrue(Exit.isFailure(exit) && Cause.hasFails(exit.cause))
      yield* turns
      assert.strictEqual(yield* server.activeConnections, 0)
    }))

  test("connectTimeout is for the proxy as well, and names the target", () =>
    Effect.gen(function* () {
      const connecting = yield* Effect.forkChild(
        Effect.flip(Connection.connect(target, { proxy: socks, connectTimeout: "3 seconds" }))
      )
      yield* TestClock.adjust("3 seconds")
      const error = yield* Fiber.join(connecting)
      assert.strictEqual(
        error.message,
        `connect to ${target}: timed out after 3s, connecting to the proxy proxy.test:1080; ` +
          `tried 10.0.0.9:1080 (no answer), 10.0.0.10:1080 (host or network unreachable)${remedies.raise("connectTimeout")}`
      )
      assert(error._tag === "TimeoutError")
      assert.deepStrictEqual(error.proxy, { address: "proxy.test:1080", stage: "connect" })
      assert.deepStrictEqual(
        error.attempts?.map(({ address, reason }) => [address, reason?._tag]),
        [
          ["10.0.0.9:1080", undefined],
          ["10.0.0.10:1080", "Unreachable"]
        ]
      )
    }).pipe(
      Effect.provide(
        TestNetwork.layerWith({
          hosts: { "proxy.test": ["10.0.0.9", "10.0.0.10"] },
          routes: { "10.0.0.9": { latency: "Infinity" }, "10.0.0.10": { unreachable: true } }
        })
      )
    ))

  test("connectTimeout is for all of it: what connecting took is no longer there for the tunnel", () =>
    Effect.gen(function* () {
      yield* serve(scripted([]))
      const connecting = yield* Effect.forkChild(
        Effect.flip(Connection.connect(target, { proxy: socks, connectTimeout: "3 seconds" }))
      )
      yield* TestClock.adjust("2999 millis")
      assert.isUndefined(connecting.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(connecting)
      assert(error._tag === "TimeoutError")
      assert.deepStrictEqual(
        [error.operation, error.address, error.duration, error.attempts, error.proxy],
        ["connect", target, Duration.seconds(3), undefined, { address: "proxy.test:1080", stage: "tunnel" }]
      )
    }).pipe(
      Effect.provide(
        TestNetwork.layerWith({
          hosts: { "proxy.test": ["10.0.0.9"] },
          routes: { "10.0.0.9": { latency: "2 seconds" } }
        })
      )
    ))

  test("connectTimeout says which of several proxies was silent, and at what", () =>
    Effect.gen(function* () {
      yield* serve(scripted([["\r\n\r\n", bytes("HTTP/1.1 200 OK\r\n\r\n")]]))
      const timedOut = Effect.fnUntraced(function* (...proxy: ReadonlyArray<Proxy.Proxy>) {
        const connecting = yield* Effect.forkChild(
          Effect.flip(Connection.connect(target, { proxy, connectTimeout: "3 seconds" }))
        )
        yield* turns
        yield* TestClock.adjust("3 seconds")
        return (yield* Fiber.join(connecting)).message
      })
      assert.strictEqual(
        yield* timedOut(http, Proxy.httpConnect("second.test:1080")),
        `connect to ${target}: timed out after 3s, waiting for the proxy second.test:1080 to open the tunnel${remedies.raise("connectTimeout")}`
      )
      assert.strictEqual(
        yield* timedOut(http, Proxy.httpConnect("second.test:1080", { tls: { verify: false } })),
        `connect to ${target}: timed out after 3s, in the TLS handshake with the proxy second.test:1080${remedies.raise("connectTimeout")}`
      )
    }))

  test("an endless connectTimeout has no limit", () =>
    Effect.gen(function* () {
      yield* serve(scripted([]))
      const connecting = yield* Effect.forkChild(
        Connection.connect(target, { proxy: http, connectTimeout: "Infinity" })
      )
      yield* TestClock.adjust("1 day")
      assert.isUndefined(connecting.pollUnsafe())
      yield* Fiber.interrupt(connecting)
    }))
})

describe("passwords", () => {
  it("show nowhere", () => {
    for (const proxy of [socksWithUser, httpWithUser]) {
      assert.notInclude(inspect(proxy, { depth: 10 }), secret)
      assert.notInclude(JSON.stringify(proxy), secret)
    }
    const error = new StreamError.ConnectionError({
      operation: "connect",
      reason: new StreamError.ProxyError({
        proxy: "p:1",
        kind: "Refused",
        detail: "answered 500",
        code: "HTTP_500"
      })
    })
    const encoded = Schema.encodeSync(StreamError.ConnectionError)(error)
    assert.deepStrictEqual(Schema.decodeSync(StreamError.ConnectionError)(encoded).message, error.message)
  })
})

describe("a proxy's URL", () => {
  it("says all of it", () => {
    const said = (url: string | URL) =>
      Result.map(Proxy.fromUrl(url), ({ credentials, protocol, target, tls }) => [
        protocol,
        target,
        credentials?.username,
        credentials && Redacted.value(credentials.password),
        tls
      ])
    for (const [url, ...expected] of [
      ["socks5://127.0.0.1", "socks5", { host: "127.0.0.1", port: 1080 }, undefined, undefined, undefined],
      [
        "socks5h://proxy.test:9050",
        "socks5",
        { host: "proxy.test", port: 9050 },
        undefined,
        undefined,
        undefined
      ],
      ["http://[::1]:3128/", "http", { host: "::1", port: 3128 }, undefined, undefined, undefined],
      ["http://proxy.test", "http", { host: "proxy.test", port: 80 }, undefined, undefined, undefined],
      ["http://a%20b:c%3Ad@proxy.test:80", "http", { host: "proxy.test", port: 80 }, "a b", "c:d", undefined],
      ["socks5://u:@proxy.test", "socks5", { host: "proxy.test", port: 1080 }, "u", "", undefined],
      [new URL("socks5://u:p@proxy.test"), "socks5", { host: "proxy.test", port: 1080 }, "u", "p", undefined],
      ["https://proxy.test", "http", { host: "proxy.test", port: 443 }, undefined, undefined, true],
      ["https://u:p@proxy.test:8443", "http", { host: "proxy.test", port: 8443 }, "u", "p", true]
    ] as const) {
      assert.deepStrictEqual(Result.getOrThrow(said(url)), expected)
    }
  })

  it("is not any URL, and is not repeated", () => {
    for (const [url, detail] of [
      [`not a url ${secret}`, "cannot be parsed"],
      ["ftp://u:hunter2@proxy.test", "begins with socks5:, socks5h:, http: or https:, not with ftp:"],
      ["socks5://:hunter2@proxy.test", "username must have 1 to 255 bytes"],
      ["http://u:hunter2%@proxy.test", "not percent-encoded"],
      ["http://u:hunter2@proxy.test/path", "has no path"],
      ["http://u:hunter2@proxy.test/?x", "has no path"],
      ["socks5:///", "names no host"]
    ] as const) {
      const error = Result.getOrThrow(Result.flip(Proxy.fromUrl(url)))
      assert.include(error.message, detail)
      assert.notMatch(inspect(error), /hunter2|sesame/)
    }
  })
})

describe("the proxies of the environment", () => {
  const read = (env: Record<string, string>) =>
    Effect.provideService(
      Proxy.fromEnvironment,
      ConfigProvider.ConfigProvider,
      ConfigProvider.fromEnv({ env })
    )
  const hostFor = (env: Record<string, string>, target: Network.Target, scheme?: "http" | "https") => {
    const proxy = Effect.runSync(read(env))(target, scheme)
    return proxy === undefined ? "direct" : `${proxy.protocol} ${JSON.stringify(proxy.target)}`
  }
  const all = { ALL_PROXY: "socks5://all.test" }
  const socksAll = 'socks5 {"host":"all.test","port":1080}'

  it("are by scheme, and one for all; small letters first, empty is none", () => {
    const env = {
      ...all,
      HTTP_PROXY: "http://plain.test:81",
      https_proxy: "https://small.test",
      HTTPS_PROXY: "http://big.test"
    }
    assert.strictEqual(hostFor(env, target), socksAll)
    assert.strictEqual(hostFor(env, target, "http"), 'http {"host":"plain.test","port":81}')
    assert.strictEqual(hostFor(env, target, "https"), 'http {"host":"small.test","port":443}')
    assert.strictEqual(hostFor({ ...all, HTTP_PROXY: " " }, target, "http"), socksAll)
    assert.strictEqual(hostFor({}, target, "http"), "direct")
    assert.strictEqual(
      hostFor({ ALL_PROXY: "bare.test:3128" }, target),
      'http {"host":"bare.test","port":3128}'
    )
    assert.strictEqual(hostFor(all, { path: "/run/socket" }), "direct")
    assert.strictEqual(hostFor(all, "no address"), "direct")
  })

  const exemptions: ReadonlyArray<
    readonly [noProxy: string, exempt: ReadonlyArray<string>, others: ReadonlyArray<string>]
  > = [
    ["*", ["a.test:1", "10.0.0.1:1", "[::1]:1"], []],
    [
      "example.org",
      ["example.org:1", "EXAMPLE.org:2", "a.b.example.org:1", "example.org.:1"],
      ["myexample.org:1", "example.com:1"]
    ],
    [".Example.org", ["example.org:1", "a.example.org:1"], ["example.com:1"]],
    ["*.example.org.", ["example.org:1", "a.example.org:1"], ["example.com:1"]],
    ["a.test:80, b.test", ["a.test:80", "x.a.test:80", "b.test:81"], ["a.test:81"]],
    [
      "10.0.0.1\t192.168.0.0/16",
      ["10.0.0.1:1", "192.168.255.1:1"],
      ["10.0.0.2:1", "192.169.0.1:1", "10.0.0.1.test:1"]
    ],
    [
      "[::1]:80,fd00::/8,2001:db8::1",
      ["[::1]:80", "[fd12::1]:1", "[2001:db8:0::1]:1"],
      ["[::1]:81", "[fe80::1]:1", "[::2]:80"]
    ],
    ["::1", ["[::1]:80"], ["[::2]:80"]],
    [" , ,", [], ["a.test:1"]]
  ]
  for (const [noProxy, exempt, others] of exemptions) {
    it(`but for ${JSON.stringify(noProxy)}`, () => {
      for (const target of exempt)
        assert.strictEqual(hostFor({ ...all, NO_PROXY: noProxy }, target), "direct", target)
      for (const target of others)
        assert.strictEqual(hostFor({ ...all, no_proxy: noProxy }, target), socksAll, target)
    })
  }

  it("are looked at when they are read, and not repeated", () => {
    for (const [env, message] of [
      [{ HTTPS_PROXY: "ftp://u:hunter2@proxy.test" }, "HTTPS_PROXY: a proxy's URL begins with"],
      [{ all_proxy: "http://u:hunter2@" }, "ALL_PROXY: a proxy's URL cannot be parsed"]
    ] as const) {
      const error = Effect.runSync(Effect.flip(read(env)))
      assert.include(error.message, message)
      assert.notInclude(inspect(error, { depth: 10 }), "hunter2")
    }
  })
})

describe("headers of CONNECT", () => {
  test("are sent with the request, and show nowhere", () =>
    Effect.gen(function* () {
      const asked: Array<Uint8Array> = []
      const server = yield* serve(scripted([["\r\n\r\n", bytes("HTTP/1.1 200 OK\r\n\r\nhi")]], asked))
      const proxy = Proxy.httpConnect("proxy.test:1080", {
        headers: { "Proxy-Authorization": Redacted.make(`Bearer ${secret}`), "X-Tenant": "seven\tof nine" }
      })
      assert.notInclude(inspect(proxy, { depth: 10 }), secret)
      assert.notInclude(JSON.stringify(proxy), secret)
      const connection = yield* Connection.connect(target, { proxy })
      assert.strictEqual(text(yield* connection.reader.readExactly(2)), "hi")
      assert.strictEqual(
        text(asked[0]),
        `CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\nProxy-Authorization: Bearer ${secret}\r\n` +
          "X-Tenant: seven\tof nine\r\n\r\n"
      )
      yield* server.shutdown({ grace: 0 })
    }))

  it("are wrong where they cannot be sent, or are set already", () => {
    for (const [headers, message] of [
      [{ "bad name": "x" }, '"bad name" is no name of an HTTP header'],
      [{ "": "x" }, '"" is no name of an HTTP header'],
      [{ "X-Bad": "a\r\nHost: other" }, "the value of the header X-Bad must not contain control characters"],
      [{ HOST: "other" }, "the header HOST is set already"],
      [{ "proxy-authorization": "x" }, "the header proxy-authorization is set already"]
    ] as const) {
      assert.throws(() => Proxy.httpConnect("proxy.test:1080", { ...user, headers }), RangeError, message)
    }
  })
})
