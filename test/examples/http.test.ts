import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Fiber, Latch, type Scope, Stream } from "effect"
import { NetAddress } from "effect/net"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { Connection } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { TestNetwork } from "effect-wire/testing"
import { createHash, randomBytes } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Http from "../../examples/protocols/httpServer.ts"
import { describeWith, spawnPeer, tempFolder } from "../support/programs.ts"

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1")

const handler: Http.Handler<never> = (request) => {
  switch (request.target) {
    case "/":
      return Effect.succeed({ status: 200, body: `${request.method}\n` })
    case "/headers":
      return Effect.succeed({ status: 200, body: JSON.stringify([...request.headers]) })
    case "/numbers":
      return Effect.succeed({
        status: 200,
        body: Stream.make("one\n", "", "two\n").pipe(Stream.rechunk(1), Stream.encodeText)
      })
    case "/echo":
      return Effect.succeed({ status: 200, body: request.body })
    case "/length":
      return Effect.map(Http.readBody(request, 1_000_000), ({ length }) => ({
        status: 200,
        body: `${length}\n`
      }))
    case "/first":
      return Effect.map(Stream.runCollect(Stream.take(request.body, 1)), ([first]) => ({
        status: 200,
        body: first ?? ""
      }))
    case "/none":
      return Effect.succeed({ status: 204 })
    case "/defect":
      return Effect.die(new Error("broken"))
    case "/split":
      return Effect.succeed({ status: 200, headers: { location: "a\r\nset-cookie: b" } })
    default:
      return Effect.succeed({ status: 404, body: "not found\n" })
  }
}

const DATE = "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"

const ok = (body: string, more = ""): string =>
  `HTTP/1.1 200 OK\r\n${DATE}content-length: ${body.length}\r\n${more}\r\n${body}`

const chunked = (...chunks: ReadonlyArray<string>): string =>
  `HTTP/1.1 200 OK\r\n${DATE}transfer-encoding: chunked\r\n\r\n` +
  [...chunks, ""].map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`).join("")

const refused = (status: string, body: string): string =>
  `HTTP/1.1 ${status}\r\n${DATE}content-length: ${body.length + 1}\r\nconnection: close\r\n\r\n${body}\n`

/** All that a server answers to what is sent in these pieces, after which the client's direction ends. */
const answersTo = (
  pieces: ReadonlyArray<string>,
  options?: { readonly onError?: (cause: Cause.Cause<unknown>) => Effect.Effect<void> }
) =>
  Effect.gen(function* () {
    yield* Http.serve(handler, { listen: { port: 80 }, ...options })
    const { reader, writer } = yield* Connection.connect("localhost:80")
    const sending = Effect.andThen(
      Effect.forEach(pieces, (piece) =>
        Effect.andThen(writer.write(Buffer.from(piece, "latin1")), Effect.yieldNow)
      ),
      writer.end
    )
    yield* Effect.forkChild(Effect.exit(sending))
    return text(yield* reader.readAll())
  }).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))

const get = (target: string, ...fields: ReadonlyArray<string>): string =>
  [`GET ${target} HTTP/1.1`, "Host: a", ...fields, "\r\n"].join("\r\n")

const post = (target: string, body: string, ...fields: ReadonlyArray<string>): string =>
  [`POST ${target} HTTP/1.1`, "Host: a", ...fields, "", body].join("\r\n")

const CHUNKED = "Transfer-Encoding: chunked"

describe("the HTTP server", () => {
  const conversations: Record<string, readonly [sent: string, received: string]> = {
    "a request": [get("/"), ok("GET\n")],
    "several on one connection": [
      get("/") + get("/none") + get("/"),
      `${ok("GET\n")}HTTP/1.1 204 No Content\r\n${DATE}\r\n${ok("GET\n")}`
    ],
    "HEAD: the length, no body": [
      "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + get("/"),
      ok("HEAD\n").slice(0, -5) + ok("GET\n")
    ],
    "HEAD of a stream": ["HEAD /numbers HTTP/1.1\r\nHost: a\r\n\r\n", chunked().slice(0, -5)],
    "a stream in chunks": [get("/numbers"), chunked("one\n", "two\n")],
    "a stream, to a client that knows no chunks": [
      "GET /numbers HTTP/1.0\r\n\r\n" + get("/"),
      `HTTP/1.1 200 OK\r\n${DATE}connection: close\r\n\r\none\ntwo\n`
    ],
    "HTTP/1.0 ends after a response": [
      "GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
      ok("GET\n", "connection: close\r\n")
    ],
    "HTTP/1.0 that is to be kept": [
      "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n".repeat(2),
      ok("GET\n", "connection: keep-alive\r\n").repeat(2)
    ],
    "a client that closes": [
      get("/", "Connection: foo, Close") + get("/"),
      ok("GET\n", "connection: close\r\n")
    ],
    "empty lines before a request": ["\r\n" + get("/") + "\r\n\r\n\r\n" + get("/"), ok("GET\n").repeat(2)],
    fields: [
      get("/headers", "A:  1 2\t ", "a:3", "B:", "C: \xe9"),
      ok(
        JSON.stringify([
          ["host", "a"],
          ["a", "1 2, 3"],
          ["b", ""],
          ["c", "Ã©"]
        ]).replace("Ã©", Buffer.from("é").toString("latin1"))
      )
    ],
    "a body of a length": [
      post("/echo", "hello", "Content-Length: 5") + get("/"),
      chunked("hello") + ok("GET\n")
    ],
    "a body in chunks": [
      post("/length", '5\r\nhello\r\nA;x="y"\r\n0123456789\r\n000\r\nTrailer: x\r\n\r\n', CHUNKED) + get("/"),
      ok("15\n") + ok("GET\n")
    ],
    "no body at all": [
      post("/length", "", "Content-Length: 0") + post("/length", "0\r\n\r\n", CHUNKED),
      ok("0\n").repeat(2)
    ],
    "what the handler does not read is skipped": [
      post("/", "hello", "Content-Length: 5") + post("/", "5\r\nhello\r\n0\r\n\r\n", CHUNKED) + get("/"),
      ok("POST\n").repeat(2) + ok("GET\n")
    ],
    "also what it has begun to read": [
      post("/first", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", CHUNKED) + get("/"),
      ok("he") + ok("GET\n")
    ],
    "too much to be skipped: the end": [
      post("/", "x".repeat(200_000), "Content-Length: 200000") + get("/"),
      ok("POST\n")
    ],
    "100 Continue, if the body is wanted": [
      post("/length", "hello", "Content-Length: 5", "Expect: 100-Continue") + get("/"),
      `HTTP/1.1 100 Continue\r\n\r\n${ok("5\n")}${ok("GET\n")}`
    ],
    "100 Continue, if it is not: the end": [
      post("/", "hello", "Content-Length: 5", "Expect: 100-continue") + get("/"),
      ok("POST\n", "connection: close\r\n")
    ],
    "a body that is too long for its handler": [
      post("/length", "x".repeat(1_000_001), "Content-Length: 1000001"),
      refused("413 Content Too Large", "too much")
    ],
    "nothing there": [
      get("/nothing"),
      `HTTP/1.1 404 \r\n`.replace("404 ", "404 Not Found") + `${DATE}content-length: 10\r\n\r\nnot found\n`
    ],
    "nothing, and the end": ["", ""],
    "half a request, and the end": ["GET / HT", ""],
    "as many fields as are allowed": [get("/", ...Array.from({ length: 99 }, () => "a: b")), ok("GET\n")],
    more: [
      get("/", ...Array.from({ length: 100 }, () => "a: b")),
      refused("431 Request Header Fields Too Large", "too many header fields")
    ],
    "as long a head as is allowed": [
      get("/", `a: ${"b".repeat(16_384 - get("/", "a: ").length + 4)}`),
      ok("GET\n")
    ],
    longer: [
      get("/", `a: ${"b".repeat(16_384 - get("/", "a: ").length + 5)}`),
      refused("431 Request Header Fields Too Large", "a head has at most 16384 bytes")
    ],
    "a head without an end": [
      "a".repeat(20_000),
      refused("431 Request Header Fields Too Large", "a head has at most 16384 bytes")
    ],
    "HTTP/2": [
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      refused("505 HTTP Version Not Supported", "only HTTP/1 is spoken here")
    ],
    "a tunnel": ["CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", refused("501 Not Implemented", "no tunnels")],
    "an unknown coding": [
      post("/", "", "Transfer-Encoding: gzip, chunked"),
      refused("501 Not Implemented", "an unknown coding")
    ],
    "an error in the body": [
      post("/length", "x\r\n", CHUNKED) + get("/"),
      refused("400 Bad Request", "no chunk size")
    ],
    "an error in a body that is skipped": [post("/", "x\r\n", CHUNKED) + get("/"), ok("POST\n")],
    "HEAD that is refused: no body": [
      "HEAD /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
      refused("400 Bad Request", "no chunk size").slice(0, -"no chunk size\n".length)
    ],
    "a chunk that is longer than it says": [
      post("/length", "2\r\nhello\r\n0\r\n\r\n", CHUNKED),
      refused("400 Bad Request", "a chunk that is longer than it says")
    ]
  }
  for (const [title, [sent, received]] of Object.entries(conversations)) {
    it.effect(title, () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* answersTo([sent]), received)
      })
    )
  }

  // Each could mean another request to somebody else on the way.
  const bad: Record<string, string> = {
    "no version": "GET /\r\n\r\n",
    "two spaces": "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a bare end of line": "GET / HTTP/1.1\nHost: a\r\n\r\n",
    "a bare return in a field": get("/", "a: b\rc: d"),
    "a zero byte": get("/", "a: b\0c"),
    "a field that goes on": get("/", "a: b", " c: d"),
    "a space before the colon": get("/", "Content-Length : 5"),
    "no colon": get("/", "hello"),
    "no host": "GET / HTTP/1.1\r\n\r\n",
    "two hosts": get("/", "host: b"),
    "two lengths": post("/", "hello", "Content-Length: 5", "Content-Length: 6"),
    "a length with a sign": post("/", "hello", "Content-Length: +5"),
    "a length in hexadecimal": post("/", "hello", "Content-Length: 0x5"),
    "a length that is no safe integer": post("/", "hello", "Content-Length: 99999999999999999"),
    "a length and chunks": post("/", "0\r\n\r\n", "Content-Length: 5", CHUNKED),
    "chunks in HTTP/1.0": "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
  }
  for (const [title, sent] of Object.entries(bad)) {
    it.effect(`${title}: 400, and the end`, () =>
      Effect.gen(function* () {
        assert.match(yield* answersTo([sent + get("/")]), /^HTTP\/1\.1 400 Bad Request\r\n(?![^]*HTTP\/1\.1)/)
      })
    )
  }

  it.effect("a handler that dies: 500, and the end", () =>
    Effect.gen(function* () {
      const answers = yield* answersTo([get("/defect") + get("/")])
      assert.strictEqual(answers, refused("500 Internal Server Error", "sorry"))
    })
  )

  it.effect("a response header that would be two is not sent", () =>
    Effect.gen(function* () {
      const causes: Array<Cause.Cause<unknown>> = []
      const onError = (cause: Cause.Cause<unknown>) => Effect.sync(() => void causes.push(cause))
      const cut = yield* Effect.flip(answersTo([get("/split")], { onError }))
      assert.strictEqual(cut._tag, "ConnectionError")
      assert.match(causes.map(Cause.pretty).join(), /a header field must be one line/)
    })
  )

  it.effect("a client that says nothing is let go", () =>
    Effect.gen(function* () {
      yield* Http.serve(handler, { listen: { port: 80 } })
      const { reader, writer } = yield* Connection.connect("localhost:80")
      yield* writer.write(get("/"))
      const all = yield* Effect.forkChild(reader.readAll())
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(text(yield* Fiber.join(all)), ok("GET\n"))
    }).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))
  )

  it.effect("a shutdown waits for the requests that are there, and not for those that could come", () =>
    Effect.gen(function* () {
      const gate = yield* Latch.make()
      const held: Http.Handler<never> = (request) =>
        Effect.andThen(
          request.target === "/held" ? gate.await : Effect.void,
          handler({ ...request, target: "/" })
        )
      const server = yield* Http.serve(held, { listen: { port: 80 } })
      const idle = yield* Connection.connect("localhost:80")
      const busy = yield* Connection.connect("localhost:80")
      yield* idle.writer.write(get("/"))
      yield* idle.reader.readExactly(ok("GET\n").length)
      yield* busy.writer.write(get("/") + get("/held"))
      yield* busy.reader.readExactly(ok("GET\n").length)

      const down = yield* Effect.forkChild(server.shutdown())
      assert.strictEqual(text(yield* idle.reader.readAll()), "")
      yield* gate.open
      assert.strictEqual(text(yield* busy.reader.readAll()), ok("GET\n", "connection: close\r\n"))
      yield* Effect.all([idle.close, busy.close])
      // Without the test's clock having moved.
      assert.deepStrictEqual(yield* Fiber.join(down), { finished: 2, interrupted: 0, aborted: 0 })
    }).pipe(Effect.scoped, Effect.provide(TestNetwork.layer))
  )

  it("however a conversation is cut, the answers are the same", async () => {
    const sent = [
      get("/"),
      post("/echo", "hello", "Content-Length: 5"),
      post("/length", "5\r\nhello\r\n3\r\nyou\r\n0\r\nx: y\r\n\r\n", CHUNKED),
      post("/", "hello", "Content-Length: 5"),
      get("/numbers")
    ].join("")
    const unchunked = (answers: string) => answers.replaceAll(/\r\n[1-5]\r\n([^\r\n]*)/g, "$1")
    const whole = unchunked(await Effect.runPromise(Effect.provide(answersTo([sent]), TestClock.layer())))
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(sent.length), { maxLength: 12 }), async (cuts) => {
        const places = [0, ...cuts.sort((a, b) => a - b), sent.length]
        const pieces = places.slice(1).map((end, i) => sent.slice(places[i], end))
        const answers = await Effect.runPromise(Effect.provide(answersTo(pieces), TestClock.layer()))
        assert.strictEqual(unchunked(answers), whole)
      }),
      { numRuns: 100 }
    )
  })

  it("damage ends in a refusal or a closed connection, never in a defect", async () => {
    const words = [
      get("/"),
      post("/echo", "", CHUNKED),
      "5\r\nhello\r\n",
      "0\r\n",
      "\r\n",
      "x",
      "GET / HTTP/1.1\r\n",
      "Host: a",
      ":",
      "\0",
      "Content-Length: 3\r\n"
    ]
    await fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom(...words), { maxLength: 12 }), async (pieces) => {
        const causes: Array<Cause.Cause<unknown>> = []
        const onError = (cause: Cause.Cause<unknown>) => Effect.sync(() => void causes.push(cause))
        await Effect.runPromise(
          Effect.exit(Effect.provide(answersTo(pieces, { onError }), TestClock.layer()))
        )
        assert.isFalse(causes.some(Cause.hasDies), causes.map(Cause.pretty).join("\n"))
      }),
      { numRuns: 200 }
    )
  })
})

const hash = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

const live = (title: string, body: (url: string) => Effect.Effect<unknown, unknown, Scope.Scope>): void =>
  it.live(title, () =>
    Effect.gen(function* () {
      const { addresses } = yield* Http.serve(handler, { listen: { host: "127.0.0.1", port: 0 } })
      yield* body(`http://${NetAddress.formatSocketAddress(addresses[0])}`)
    }).pipe(Effect.scoped, Effect.provide(NodeNetwork.layer))
  )

const runProgram = (command: string, ...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const { child, exit } = yield* spawnPeer(command, args)
    child.stdin?.end()
    const { code, output } = yield* exit
    assert.strictEqual(code, 0, output)
    return output
  })

describeWith("curl", "the HTTP server, against curl", () => {
  const curl = (...args: ReadonlyArray<string>) => runProgram("curl", "-sS", "--max-time", "10", ...args)

  live("several requests on one connection, and what they print", (url) =>
    Effect.gen(function* () {
      const output = yield* curl("-v", `${url}/`, `${url}/numbers`, `${url}/nothing`)
      for (const part of ["GET\n", "one\ntwo\n", "not found\n"]) assert.include(output, part)
      assert.strictEqual(output.match(/Re-using existing connection/g)?.length, 2)
    })
  )

  live("HEAD", (url) =>
    Effect.gen(function* () {
      const output = yield* curl("-I", `${url}/`)
      assert.match(output, /^HTTP\/1\.1 200 OK\r\ndate: .* GMT\r\ncontent-length: 5\r\n\r\n$/)
    })
  )

  live("HTTP/1.0", (url) =>
    Effect.gen(function* () {
      assert.match(yield* curl("-i", "--http1.0", `${url}/numbers`), /connection: close\r\n\r\none\ntwo\n$/)
    })
  )

  for (const [title, ...how] of [
    ["with a length", "-H", "Expect:"],
    ["in chunks", "-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
    ["in chunks, with leave", "-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue"]
  ] as const) {
    live(`8 MiB up ${title}, and down in chunks`, (url) =>
      Effect.gen(function* () {
        const folder = yield* tempFolder
        const [up, down] = [path.join(folder, "up"), path.join(folder, "down")]
        const sent = randomBytes(8 * 1024 * 1024)
        fs.writeFileSync(up, sent)
        const output = yield* curl("-v", ...how, "-X", "POST", "-T", up, "-o", down, `${url}/echo`)
        assert.strictEqual(hash(fs.readFileSync(down)), hash(sent))
        assert.strictEqual(output.includes("HTTP/1.1 100 Continue"), title.endsWith("leave"))
      })
    )
  }

  live("more than the server takes is refused, and curl hears why", (url) =>
    Effect.gen(function* () {
      const up = path.join(yield* tempFolder, "up")
      fs.writeFileSync(up, Buffer.alloc(4 * 1024 * 1024))
      const output = yield* curl("-i", "-X", "POST", "-T", up, `${url}/length`)
      assert.match(output, /HTTP\/1\.1 413 Content Too Large\r\n/)
      const large = yield* curl("-i", "-H", `a: ${"b".repeat(20_000)}`, `${url}/`)
      assert.match(large, /^HTTP\/1\.1 431 Request Header Fields Too Large\r\n/)
    })
  )
})

describeWith("wrk", "the HTTP server, against wrk", () => {
  for (const target of ["/", "/numbers"]) {
    live(`a second of requests for ${target} over 16 connections, all answered`, (url) =>
      Effect.gen(function* () {
        const output = yield* runProgram("wrk", "-t1", "-c16", "-d1s", `${url}${target}`)
        assert.match(output, /[1-9]\d* requests in/)
        assert.notMatch(output, /Socket errors|Non-2xx/)
      })
    )
  }
})
