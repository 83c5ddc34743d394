import { it } from "@effect/vitest"
import { assertInstanceOf, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Cause, Deferred, Effect, Exit, type Layer, type Scope } from "effect"
import { Connection, type Network, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { TestNetwork } from "effect-wire/testing"
import { TestClock } from "effect/testing"
import * as fs from "node:fs"
import * as path from "node:path"
import { describe } from "vitest"
import { outcome, outcomeOf, start, turns } from "./support/effects.ts"
import { freePort, leavingNothing, loops, portOf, tempDirectory } from "./support/sockets.ts"
import { remedies } from "./support/remedies.ts"

// Targets and options come from configurations: what the types forbid is tested as well.
const untyped = (input: unknown) => input as Network.Target & Network.ListenAddress

/** What a failure or a defect says. */
const messageOf = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<string, never, R> =>
  Effect.map(Effect.exit(effect), (exit) => {
    if (Exit.isSuccess(exit)) return "success"
    const error = Cause.squash(exit.cause)
    assertInstanceOf(error, Error)
    return Cause.hasDies(exit.cause) ? `defect ${error.name}: ${error.message}` : error.message
  })

const connectMessage = (target: Network.Target, options?: Connection.ConnectionOptions) =>
  messageOf(Effect.scoped(Connection.connect(target, options)))

const serveMessage = (listen: Server.Options["listen"], options?: Partial<Server.Options>) =>
  messageOf(Effect.scoped(Server.serve(() => Effect.void, { listen, ...options })))

type Body = () => Effect.Effect<void, unknown, Network.Network | Scope.Scope>

for (const [network, layer] of [
  ["NodeNetwork", NodeNetwork.layer],
  ["TestNetwork", TestNetwork.layer]
] as const satisfies ReadonlyArray<readonly [string, Layer.Layer<Network.Network>]>) {
  const isReal = network === "NodeNetwork"

  /** A test on this network that leaves no socket behind. */
  const test = (name: string, body: Body) =>
    it.effect(name, () => leavingNothing(Effect.scoped(Effect.suspend(body))).pipe(Effect.provide(layer)))

  /** Lets whatever can happen without time passing happen. */
  const settle = isReal ? loops(20) : turns

  /** A connection to a server whose handler is given; its input is ended by the test or with it. */
  const connected = Effect.fnUntraced(function* (
    handler: Server.Handler<unknown, never> = ({ reader }) => reader.readAll(),
    options?: Partial<Server.Options>
  ) {
    const server = yield* Server.serve(handler, {
      listen: { host: "127.0.0.1" },
      onError: () => Effect.void,
      grace: 0,
      ...options
    })
    const connection = yield* Connection.connect(server.addresses[0])
    yield* Effect.addFinalizer(() => connection.abort)
    return { server, connection, reader: connection.reader, writer: connection.writer }
  })

  describe(`bad input on ${network}: addresses`, () => {
    test("a host that does not resolve", () =>
      Effect.gen(function* () {
        const message = yield* connectMessage("host.invalid:80")
        strictEqual(
          message.replace(/\(E[A-Z_]+\)$/, "(code)"),
          "connect to host.invalid:80: the host name does not resolve (code)"
        )
        strictEqual(
          (yield* serveMessage({ host: "host.invalid", port: 80 })).replace(/\(E[A-Z_]+\)$/, "(code)"),
          "listen on host.invalid:80: the host name does not resolve (code)"
        )
      }))

    test("a port that refuses", () =>
      Effect.gen(function* () {
        const port = yield* freePort
        strictEqual(
          yield* connectMessage({ host: "127.0.0.1", port }),
          `connect to 127.0.0.1:${port}: connection refused (ECONNREFUSED)`
        )
      }))

    test("a port that is none, to connect to", () =>
      Effect.gen(function* () {
        const range = "the port must be an integer from 1 to 65535, not"
        for (const [target, shown, detail] of [
          [{ host: "127.0.0.1", port: 0 }, "127.0.0.1:0", `${range} 0`],
          [{ host: "127.0.0.1", port: 65_536 }, "127.0.0.1:65536", `${range} 65536`],
          [{ host: "127.0.0.1", port: -1 }, "127.0.0.1:-1", `${range} -1`],
          [{ host: "127.0.0.1", port: 1.5 }, "127.0.0.1:1.5", `${range} 1.5`],
          [{ host: "127.0.0.1", port: NaN }, "127.0.0.1:NaN", `${range} NaN`],
          [untyped({ host: "127.0.0.1", port: "http" }), "127.0.0.1:http", `${range} "http"`],
          ["127.0.0.1:http", "127.0.0.1:http", `${range} "http"`],
          ["127.0.0.1:0", "127.0.0.1:0", `${range} 0`],
          ["127.0.0.1", "127.0.0.1", 'the port is missing, expected "host:port"']
        ] as const) {
          strictEqual(yield* connectMessage(target), `connect to ${shown}: invalid address: ${detail}`)
        }
      }))

    test("a port that is none, to listen on", () =>
      Effect.gen(function* () {
        const range = "the port must be an integer from 0 to 65535, not"
        for (const [port, shown] of [
          [65_536, "65536"],
          [-1, "-1"],
          [NaN, "NaN"],
          ["http", '"http"']
        ] as const) {
          strictEqual(
            yield* serveMessage(untyped({ host: "127.0.0.1", port })),
            `listen on 127.0.0.1:${port}: invalid address: ${range} ${shown}`
          )
        }
        strictEqual(yield* serveMessage({ host: "127.0.0.1", port: 0 }), "success")
      }))

    test("a Unix path that is missing, empty, too long or contains a zero", () =>
      Effect.gen(function* () {
        const missing = path.join(yield* tempDirectory, "missing")
        strictEqual(
          yield* connectMessage({ path: missing }),
          `connect to ${missing}: no such file (ENOENT)${remedies.noSocket}`
        )
        for (const [file, detail] of [
          ["", "the Unix socket's path is empty"],
          ["/tmp/" + "x".repeat(200), "the Unix socket's path has 205 bytes, 107 are allowed"],
          ["/tmp/" + "é".repeat(60), "the Unix socket's path has 125 bytes, 107 are allowed"],
          ["/tmp/a\0b", "the Unix socket's path contains a zero byte"]
        ] as const) {
          strictEqual(
            yield* connectMessage({ path: file }),
            `connect to ${file.replace("\0", "\\u0000")}: invalid address: ${detail}`
          )
          strictEqual(
            yield* serveMessage({ path: file }),
            `listen on ${file.replace("\0", "\\u0000")}: invalid address: ${detail}`
          )
        }
      }))

    test("an address in use", () =>
      Effect.gen(function* () {
        const { server } = yield* connected()
        const port = portOf(server.addresses[0])
        strictEqual(
          yield* serveMessage({ host: "127.0.0.1", port }),
          `listen on 127.0.0.1:${port}: address already in use (EADDRINUSE)${remedies.portInUse}`
        )
        const file = path.join(yield* tempDirectory, "s")
        yield* Server.serve(() => Effect.void, { listen: { path: file } })
        strictEqual(
          yield* serveMessage({ path: file }),
          `listen on ${file}: address already in use (EADDRINUSE)${remedies.pathInUse}`
        )
        strictEqual(
          yield* connectMessage(server.addresses[0], { localAddress: { host: "127.0.0.1", port } }),
          `connect to 127.0.0.1:${port}: address already in use (EADDRINUSE)${remedies.localPortInUse}`
        )
      }))

    // There are no files on the simulated network.
    if (isReal) {
      test("a path that is a directory, a plain file, or in a directory that is not there", () =>
        Effect.gen(function* () {
          const directory = yield* tempDirectory
          const plain = path.join(directory, "plain")
          fs.writeFileSync(plain, "")
          const below = path.join(directory, "missing", "s")
          for (const taken of [directory, plain]) {
            strictEqual(
              yield* connectMessage({ path: taken }),
              `connect to ${taken}: connection refused (ECONNREFUSED)`
            )
            strictEqual(
              yield* serveMessage({ path: taken }),
              `listen on ${taken}: address already in use (EADDRINUSE)${remedies.pathInUse}`
            )
          }
          strictEqual(
            yield* connectMessage({ path: below }),
            `connect to ${below}: no such file (ENOENT)${remedies.noSocket}`
          )
          strictEqual(
            yield* serveMessage({ path: below }),
            `listen on ${below}: no such file (ENOENT)${remedies.noDirectory}`
          )
        }))
    }
  })

  describe(`bad input on ${network}: arguments and options`, () => {
    test("counts, separators and limits of reads", () =>
      Effect.gen(function* () {
        const { connection, reader } = yield* connected(({ reader, writer }) =>
          Effect.andThen(writer.write("data\n"), reader.readAll())
        )
        for (const n of [-1, 1.5, NaN, Infinity]) {
          const message = (operation: string) =>
            `defect RangeError: ${operation}: n must be a non-negative integer, received ${n}`
          strictEqual(yield* messageOf(reader.readExactly(n)), message("readExactly"))
          strictEqual(yield* messageOf(reader.peek(n)), message("peek"))
          strictEqual(yield* messageOf(reader.skip(n)), message("skip"))
        }
        for (const [separator, message] of [
          ["", "a separator must have at least one byte"],
          [new Uint8Array(0), "a separator must have at least one byte"],
          [["\n", ""], "a separator must have at least one byte"],
          [[], "a list of separators must not be empty"]
        ] as const) {
          strictEqual(yield* messageOf(reader.readUntil(separator)), `defect RangeError: ${message}`)
          strictEqual(yield* messageOf(reader.skipUntil(separator)), `defect RangeError: ${message}`)
        }
        strictEqual(
          yield* messageOf(reader.readUntil("\n", { limit: 0 })),
          "defect RangeError: limit must be a positive integer (bytes), received 0"
        )
        // Nothing was taken, nothing is broken.
        strictEqual(new TextDecoder().decode(yield* reader.readLine), "data\n")
        yield* connection.writer.end
      }))

    test("a limit of 0, and a low watermark above the high one", () =>
      Effect.gen(function* () {
        const { connection, server, writer } = yield* connected()
        const zero = "defect RangeError: limit must be a positive integer (bytes), received 0"
        const above = "defect RangeError: the low watermark (2) must not be above the high one (1)"
        const watermarks = { high: 1, low: 2 }
        deepStrictEqual(
          [
            yield* connectMessage(server.addresses[0], { limit: 0 }),
            yield* serveMessage({ host: "127.0.0.1" }, { limit: 0 }),
            yield* connectMessage(server.addresses[0], { watermarks }),
            yield* serveMessage({ host: "127.0.0.1" }, { watermarks }),
            yield* messageOf(writer.setWatermarks(watermarks))
          ],
          [zero, zero, above, above, above]
        )
        yield* connection.writer.end
        // The refused options have opened no connection.
        yield* settle
        strictEqual((yield* server.connections).length <= 1, true)
      }))

    test("timeouts that are not positive", () =>
      Effect.gen(function* () {
        const { connection, server } = yield* connected()
        for (const name of ["readTimeout", "writeTimeout", "idleTimeout", "closeTimeout"]) {
          strictEqual(
            yield* connectMessage(server.addresses[0], { [name]: 0 }),
            `defect RangeError: ${name} must be a positive duration, received 0 ms`
          )
        }
        yield* connection.writer.end
      }))

    test("a backlog that is none", () =>
      Effect.gen(function* () {
        for (const backlog of [0, -1, 1.5]) {
          strictEqual(
            yield* serveMessage({ host: "127.0.0.1" }, { backlog }),
            `defect RangeError: backlog must be a positive integer (connections), received ${backlog}`
          )
        }
      }))
  })

  describe(`bad input on ${network}: the order of things`, () => {
    test("a write after the end", () =>
      Effect.gen(function* () {
        const { connection, server, writer } = yield* connected()
        yield* writer.end
        strictEqual(
          yield* messageOf(writer.write("x")),
          `write on ${String(server.addresses[0])}: broken pipe: the connection is closed for writing`
        )
        strictEqual(yield* messageOf(writer.end), "success")
        yield* connection.close
      }))

    test("a read and a write after the close, and a second close", () =>
      Effect.gen(function* () {
        const { connection, reader, server, writer } = yield* connected()
        yield* connection.close
        yield* connection.close
        yield* connection.abort
        const address = String(server.addresses[0])
        strictEqual(yield* messageOf(reader.read()), `read on ${address}: the connection is closed`)
        strictEqual(yield* messageOf(reader.readExactly(1)), `read on ${address}: the connection is closed`)
        strictEqual(yield* messageOf(writer.write("x")), `write on ${address}: the connection is closed`)
        strictEqual(yield* messageOf(connection.closed), "success")
      }))

    test("a read and a write after an abort", () =>
      Effect.gen(function* () {
        const { connection, reader, server, writer } = yield* connected()
        yield* connection.abort
        yield* connection.close
        const address = String(server.addresses[0])
        strictEqual(yield* messageOf(reader.read()), `read on ${address}: connection aborted`)
        strictEqual(yield* messageOf(writer.write("x")), `write on ${address}: connection aborted`)
      }))

    test("a handler that throws", () =>
      Effect.gen(function* () {
        const seen: Array<string> = []
        const { reader, server } = yield* connected(
          ({ reader }) =>
            Effect.map(reader.read(), () => {
              throw new Error("thrown")
            }),
          { onError: (cause) => Effect.sync(() => seen.push(outcome(Exit.failCause(cause)))) }
        )
        const { writer } = yield* Connection.connect(server.addresses[0])
        const client = yield* Connection.connect(server.addresses[0])
        yield* client.writer.write("x")
        strictEqual(yield* outcomeOf(client.reader.read()), "ConnectionReset")
        deepStrictEqual(seen, ["defect Error: thrown"])
        // The others are as they were.
        yield* writer.write("x")
        strictEqual(yield* outcomeOf(client.closed), "ConnectionReset")
        yield* settle
        strictEqual(yield* reader.atEof, false)
      }))

    test("a handler that never ends, at shutdown", () =>
      Effect.gen(function* () {
        const running = yield* Deferred.make<void>()
        const { connection, server } = yield* connected(() =>
          Effect.andThen(Deferred.succeed(running, undefined), Effect.never)
        )
        yield* Deferred.await(running)
        const shutdown = yield* start(server.shutdown({ grace: "1 minute" }))
        yield* settle
        yield* TestClock.adjust("59 seconds")
        strictEqual(outcome(shutdown), "waiting")
        yield* TestClock.adjust("1 second")
        strictEqual(yield* outcomeOf(connection.closed), "ConnectionReset")
        yield* server.closed
        yield* settle
        deepStrictEqual(shutdown.exit(), Exit.succeed({ finished: 0, interrupted: 1, aborted: 0 }))
      }))
  })
}
