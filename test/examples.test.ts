import { assert, describe, it } from "@effect/vitest"
import { type ChildProcessByStdio, spawn } from "node:child_process"
import * as net from "node:net"
import { type Readable } from "node:stream"
import { root } from "./support/codeBlocks.ts"
import { describeWith } from "./support/programs.ts"
import { remedies } from "./support/remedies.ts"

interface Program {
  readonly ended: Promise<{ readonly code: number | null; readonly output: string }>
  /** The first line that matches, once it was printed. */
  readonly line: (pattern: RegExp) => Promise<RegExpMatchArray>
  readonly signal: (name: NodeJS.Signals) => void
}

const start = (args: ReadonlyArray<string>): Program =>
  watch(
    spawn(process.execPath, ["--conditions=source", ...args], {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"]
    })
  )

const watch = (child: ChildProcessByStdio<null, Readable, Readable>): Program => {
  let output = ""
  const listeners = new Set<() => void>()
  const add = (chunk: Buffer) => {
    output += chunk.toString()
    for (const listener of listeners) listener()
  }
  child.stdout.on("data", add)
  child.stderr.on("data", add)
  const ended = new Promise<{ code: number | null; output: string }>((resolve) => {
    child.on("close", (code) => resolve({ code, output }))
  })
  const line = (pattern: RegExp) =>
    new Promise<RegExpMatchArray>((resolve, reject) => {
      const look = () => {
        const match = output.match(pattern)
        if (match === null) return
        listeners.delete(look)
        resolve(match)
      }
      listeners.add(look)
      void ended.then(() => reject(new Error(`no line matches ${pattern}:\n${output}`)))
      look()
    })
  return { ended, line, signal: (name) => child.kill(name) }
}

const run = async (args: ReadonlyArray<string>): Promise<string> => {
  const { code, output } = await start(args).ended
  assert.strictEqual(code, 0, output)
  return output
}

const assertLines = (output: string, patterns: ReadonlyArray<RegExp>): void => {
  for (const pattern of patterns) assert.match(output, pattern)
}

const examples: Record<string, ReadonlyArray<RegExp>> = {
  "echo-client": [/^> hello\n< .*'hello'/m, /^> world\n< .*'world'/m],
  "echo-server": [/^listening on 127\.0\.0\.1:\d+$/m, /connected/, /'hello'/],
  "read-lines": [
    /^line: "first line\\n"$/m,
    /^too long \(limit 64\): skipped 1001 bytes$/m,
    /^line: "third line\\n"$/m,
    /^the peer closed within a line: "no end"$/m
  ],
  resource: [/^server: 9 bytes, then the end$/m, /^server: read .*reset/m, /^client: failed$/m],
  "request-retry": [
    /^client: are you there\?$/m,
    /^server: down$[\s\S]*connection refused[\s\S]*^server: back$[\s\S]*^client: and now\?$/m
  ],
  chat: [
    /^bert reads: anna: hello bert$/m,
    /^server: carl is too slow$/m,
    /^bert has heard all 4000 lines$/m,
    /^carl was dropped$/m,
    /^anna reads: \* bert left$/m
  ],
  "json-lines-rpc": [
    /^1 \+ 2 \+ 3 = 6\nin flight: 10000; and meanwhile, 20 \+ 22 = 42$/m,
    /^held by the server, and released: 10000\nanswered with their own numbers: 10000$/m,
    /^the server says: 3 …\nthe server says: 2 …\nthe server says: 1 …$/m,
    /^refused: too far to count$/m
  ],
  "redis-server": [
    /^listening on 127\.0\.0\.1:\d+$/m,
    /^SET colour deep blue -> OK\nGET colour -> deep blue\nINCR visits -> 1\nINCR visits -> 2$/m,
    /^INCR colour -> ERR value is not an integer or out of range$/m
  ],
  "tcp-proxy": [
    /^< 00000010 {2}65 20 70 72 6f 78 79 0a {27}\|e proxy\.\|\n< end\n> 00000000 /m,
    /^127\.0\.0\.1:\d+: 24 bytes there, 18 bytes back, the client ended first \(ended\)$/m,
    /^client: 104857600 bytes received$/m,
    /a client was lost.*connection refused/,
    /^client: read on 127\.0\.0\.1:\d+: connection reset by peer \(ECONNRESET\)$/m
  ],
  "http-server": [
    /^GET \/: 200 hello$/m,
    /^GET \/count, the last line: 200 10000$/m,
    /^POST \/echo: 200 over and out$/m,
    /^GET \/nothing: 404 not found$/m
  ],
  "links-and-pools": [
    /^news: the first server is up\nONE, says the first server\nTWO, says the first server\nTHREE,.*$/m,
    /^--- another.*\nnews: the second server is up\nONE, says the second server\nTWO,.*\nTHREE, says the second server$/m
  ],
  "through-proxy": [
    /^proxy: CONNECT (127\.0\.0\.1:\d+) HTTP\/1\.1; Host: \1\nclient: hello, to \1 through a proxy$/m,
    /^client: hello, directly\nproxy: CONNECT .*; Proxy-Authorization: Bearer t0k3n$/m,
    /^client: 10\.0\.0\.1:7000 after the delay$/m
  ],
  layers: [/^--- over TCP\n1 \+ 2 = 3\n20 \+ 22 = 42$/m, /^--- in memory.*\n1 \+ 2 = 3\n20 \+ 22 = 42$/m]
}

describe("examples", { timeout: 60_000 }, () => {
  for (const [name, patterns] of Object.entries(examples)) {
    it(name, async () => {
      assertLines(await run(["examples/run.ts", name]), patterns)
    })
  }

  describeWith("openssl", "with openssl", () => {
    it("tls-echo", async () => {
      assertLines(await run(["examples/run.ts", "tls-echo"]), [
        /^127\.0\.0\.1:\d+ as the first certificate, until \d{4}-/m,
        /^client: the first certificate says hello, over TLSv1\.3\nreloaded: true$/m,
        /^client: the second certificate says hello.*\nclient: the first certificate says hello/m,
        /^client: handshake on 127\.0\.0\.1:\d+: the certificate of 127\.0\.0\.1 is self-signed/m
      ])
    })

    it("tls-sessions", async () => {
      assert.strictEqual(
        await run(["examples/run.ts", "tls-sessions"]),
        "connection 1: a full handshake\nconnection 2: resumed\nconnection 3: resumed\n"
      )
    })

    it("tls-proxy", async () => {
      assertLines(await run(["examples/run.ts", "tls-proxy"]), [
        /^client: (127\.0\.0\.1:\d+) over TLSv1\.3\nclient: 1000000 bytes from \1, who wants localhost over http\/1\.1$/m,
        /^proxy: handshake on .* is not TLS/m
      ])
    })
  })

  describeWith("memcached", "with memcached", () => {
    it("memcached-client", async () => {
      assertLines(await run(["examples/run.ts", "memcached-client"]), [
        /^several at once: red, green, blue\none that is there already: false\ncounted: 42n$/m,
        /^changed once: stored\nchanged twice: changed$/m,
        /^refused by memcached: SERVER_ERROR object too large for cache\nrefused by the client: send to \S+: invalid/m
      ])
    })
  })

  describeWith("redis-server", "with redis-server", () => {
    it("reconnecting-subscriber", async () => {
      assertLines(await run(["examples/run.ts", "reconnecting-subscriber"]), [
        /^link: connect to .*redis\.sock: .*; next attempt in 100ms$/m,
        /^link: subscribed$[\s\S]*^heard: one\nheard: two$[\s\S]*^redis: killed$/m,
        /^link: link on .*closed; next attempt in 100ms$[\s\S]*^link: subscribed$[\s\S]*^heard: three$/m,
        /^link: closed$/m
      ])
    })

    it("redis-client", async () => {
      assertLines(await run(["examples/run.ts", "redis-client"]), [
        /^1000 commands at once, the last reply: 1000$/m,
        /^refused: ERR wrong number of arguments for 'incr' command$/m,
        /^on news: one\non news: two$/m,
        /^streamed 64 MiB$/m
      ])
    })
  })

  it("bulk-send keeps at most the high watermark and one chunk", async () => {
    const output = await run(["examples/run.ts", "bulk-send"])
    assert.match(output, /'104857600'/)
    const peak = Number(output.match(/^peak of buffered bytes: (\d+)/m)?.[1])
    assert.isAbove(peak, 0)
    assert.isAtMost(peak, 65_536 + 1024)
  })

  it("an unknown name gets the list, and exit code 1", async () => {
    const { code, output } = await start(["examples/run.ts", "nonsense"]).ended
    assert.strictEqual(code, 1)
    assertLines(output, [/no example "nonsense"/, /echo-client/, /chat/])
  })
})

describe("npm start", { timeout: 60_000 }, () => {
  it("runs an echo, a line protocol, a timeout and a graceful shutdown", async () => {
    const output = await run(["examples/main.ts"])
    assertLines(output, [
      /^server: listening on 127\.0\.0\.1:\d+$/m,
      /^client: 127\.0\.0\.1:\d+ -> 127\.0\.0\.1:\d+$/m,
      /^client: > hello$/m,
      /^client: < hello$/m,
      /^client: GET colour +-> VALUE deep blue$/m,
      /^client: caught TimeoutError: read on 127\.0\.0\.1:\d+: timed out after 300ms; raise it with `readTimeout`$/m,
      /^server: shut down: 1 finished, 0 interrupted, 0 aborted$/m
    ])
  })

  it("--serve echoes to any client, and drains at Ctrl-C with exit code 0", async () => {
    const server = start(["examples/main.ts", "--serve", "--port", "0"])
    const [, port] = await server.line(/listening on 127\.0\.0\.1:(\d+)/)
    const client = net.connect(Number(port), "127.0.0.1")
    const echoed = new Promise<string>((resolve) => {
      let text = ""
      client.on("data", (chunk: Buffer) => (text += chunk.toString()))
      client.on("end", () => resolve(text))
    })
    client.write("from another program\n")
    await server.line(/21 bytes from 127/)
    server.signal("SIGINT")
    await server.line(/draining/)
    client.end()
    assert.strictEqual(await echoed, "from another program\n")
    const { code, output } = await server.ended
    assert.strictEqual(code, 0, output)
    assert.match(output, /shut down: 1 finished, 0 interrupted, 0 aborted/)
  })

  it("Ctrl-C in a terminal, which reaches npm as well, ends with exit code 0", async () => {
    const child = spawn("npm", ["start", "--silent", "--", "--serve", "--port", "0"], {
      cwd: root,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"]
    })
    const server = watch(child)
    await server.line(/listening on/)
    process.kill(-(child.pid ?? 0), "SIGINT")
    const { code, output } = await server.ended
    assert.strictEqual(code, 0, output)
    assert.match(output, /shut down: 0 finished, 0 interrupted, 0 aborted/)
  })

  it("a second Ctrl-C does not wait for the clients", async () => {
    const server = start(["examples/main.ts", "--serve", "--port", "0"])
    const [, port] = await server.line(/listening on 127\.0\.0\.1:(\d+)/)
    const client = net.connect(Number(port), "127.0.0.1")
    const reset = new Promise((resolve) => client.on("error", resolve))
    client.write("x")
    await server.line(/1 bytes from 127/)
    server.signal("SIGINT")
    await server.line(/draining/)
    server.signal("SIGINT")
    const { code, output } = await server.ended
    assert.strictEqual(code, 0, output)
    assert.match(output, /shut down: 0 finished, 1 interrupted, 0 aborted/)
    await reset
  })

  it("a busy port is one line that names the address, and exit code 1", async () => {
    const holder = net.createServer()
    await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve))
    const address = holder.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    const { code, output } = await start(["examples/main.ts", "--serve", "--port", String(port)]).ended
    holder.close()
    assert.strictEqual(code, 1)
    assert.strictEqual(
      output,
      `listen on 127.0.0.1:${port}: address already in use (EADDRINUSE)${remedies.portInUse}\n`
    )
  })
})
