import { it } from "@effect/vitest"
import { assertInstanceOf, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Cause, Duration, Effect, Exit, Fiber, Layer, Result, Scope } from "effect"
import { NetAddress } from "effect/net"
import { TestClock } from "effect/testing"
import { describe } from "vitest"
import { type ListenAddress, type ListenOptions, Network, type Target } from "effect-wire/Network"
import { ConnectionError, ListenError, type TimeoutError } from "effect-wire/StreamError"
import { TestNetwork } from "effect-wire/testing"
import { record } from "../support/transports.ts"

const listen = (address: ListenAddress, options?: ListenOptions) =>
  Effect.flatMap(Network, (network) => network.listen(address, options))

const connect = (...args: Parameters<Network["Service"]["connect"]>) =>
  Effect.flatMap(Network, (network) => network.connect(...args))

const onNetwork = <A, E>(
  effect: Effect.Effect<A, E, Network | Scope.Scope>,
  options: TestNetwork.Options = {}
): Effect.Effect<A, E> => Effect.scoped(Effect.provide(effect, TestNetwork.layerWith(options)))

/** The reason's tag and code, of a connect or listen that fails. */
const reasonOf = <A, R>(effect: Effect.Effect<A, ConnectionError | ListenError | TimeoutError, R>) =>
  Effect.map(Effect.flip(effect), (error) =>
    error._tag === "TimeoutError"
      ? `${error.operation} timed out after ${Duration.format(error.duration)}`
      : [error.reason._tag, error.reason.code].filter(Boolean).join(" ")
  )

const refused = "ConnectionRefused ECONNREFUSED"

/** Lets every task that is scheduled run, and what it schedules, a few times over. */
const settle = Effect.yieldNow.pipe(Effect.repeat({ times: 20 }))

describe("connect and accept", () => {
  it.effect("carry bytes both ways", () =>
    onNetwork(
      Effect.gen(function* () {
        const listener = yield* listen({ host: "127.0.0.1", port: 7000 })
        const near = yield* connect("127.0.0.1:7000")
        // As over TCP, a connection is usable before it was accepted.
        const a = record(near)
        near.write("hello")
        near.resume()
        const far = yield* listener.accept
        const b = record(far)
        far.resume()
        far.write("welcome")
        yield* settle
        strictEqual(b.text(), "hello")
        strictEqual(a.text(), "welcome")
        strictEqual(near.kind, "memory")
      })
    )
  )

  it.effect("show both addresses on both sides", () =>
    onNetwork(
      Effect.gen(function* () {
        const check = Effect.fnUntraced(function* (
          address: ListenAddress,
          target: Target,
          expected: ReadonlyArray<string>
        ) {
          const listener = yield* listen(address)
          const near = yield* connect(target)
          const far = yield* listener.accept
          deepStrictEqual(
            [
              listener.address,
              near.localAddress,
              near.remoteAddress,
              far.localAddress,
              far.remoteAddress
            ].map(String),
            expected
          )
        })
        yield* check({ host: "127.0.0.1", port: 1 }, "127.0.0.1:1", [
          "127.0.0.1:1",
          "127.0.0.1:49152",
          "127.0.0.1:1",
          "127.0.0.1:1",
          "127.0.0.1:49152"
        ])
        yield* check({ port: 2 }, { host: "::1", port: 2 }, [
          "[::]:2",
          "[::1]:49153",
          "[::1]:2",
          "[::1]:2",
          "[::1]:49153"
        ])
        yield* check({ path: "/run/a.sock" }, { path: "/run/a.sock" }, [
          "/run/a.sock",
          "",
          "/run/a.sock",
          "/run/a.sock",
          ""
        ])
      })
    )
  )

  it.effect("meet in the order of the connects, whoever comes first", () =>
    onNetwork(
      Effect.gen(function* () {
        const listener = yield* listen({ port: 7000 })
        const from = Effect.map(
          listener.accept,
          (far) => NetAddress.isInetAddress(far.remoteAddress) && far.remoteAddress.port
        )
        const first = yield* Effect.forkChild(from)
        const second = yield* Effect.forkChild(from)
        yield* settle
        for (let n = 0; n < 4; n++) yield* connect("localhost:7000")
        deepStrictEqual(
          [yield* Fiber.join(first), yield* Fiber.join(second), yield* from, yield* from],
          [49_152, 49_153, 49_154, 49_155]
        )
      })
    )
  )

  it.effect("an interrupted accept loses no connection", () =>
    onNetwork(
      Effect.gen(function* () {
        const listener = yield* listen({ port: 7000 })
        const fiber = yield* Effect.forkChild(listener.accept)
        yield* settle
        yield* Fiber.interrupt(fiber)
        const near = yield* connect("localhost:7000")
        const far = yield* listener.accept
        deepStrictEqual(far.remoteAddress, near.localAddress)
      })
    )
  )

  it.effect("use no time", () =>
    onNetwork(
      Effect.gen(function* () {
        yield* listen({ port: 7000 })
        // The clock stands still.
        yield* connect("localhost:7000", { connectTimeout: "1 nano" })
        yield* connect("localhost:7000", { connectTimeout: Duration.infinity })
      })
    )
  )
})

describe("addresses", () => {
  it.effect("that nobody listens on refuse", () =>
    onNetwork(
      Effect.gen(function* () {
        yield* listen({ host: "127.0.0.1", port: 7000 })
        const targets: ReadonlyArray<Target> = [
          "127.0.0.1:7001",
          "127.0.0.2:7000",
          "[::1]:7000",
          "localhost:1",
          NetAddress.inetAddressFromStringUnsafe("10.0.0.1:7000"),
          { path: "\0abstract" }
        ]
        for (const target of targets) strictEqual(yield* reasonOf(connect(target)), refused)
        strictEqual(yield* reasonOf(connect({ path: "/run/nobody.sock" })), "NotFound ENOENT")
        deepStrictEqual(
          yield* Effect.map(Effect.flip(connect("localhost:1")), ({ address, operation }) => [
            operation,
            address
          ]),
          ["connect", "localhost:1"]
        )
      })
    )
  )

  const wildcards: ReadonlyArray<readonly [{ readonly host?: string }, ReadonlyArray<string>]> = [
    [
      {},
      [
        "127.0.0.1",
        "127.0.0.2",
        "[::1]",
        "localhost",
        "app.localhost",
        "0.0.0.0",
        "[::]",
        "10.0.0.5",
        "[::ffff:127.0.0.1]"
      ]
    ],
    [{ host: "" }, ["127.0.0.1", "[::1]", "localhost"]],
    [{ host: "::" }, ["127.0.0.1", "[::1]", "localhost"]],
    [{ host: "0.0.0.0" }, ["127.0.0.1", "localhost", "0.0.0.0"]],
    [{ host: "::ffff:127.0.0.1" }, ["127.0.0.1", "[::ffff:127.0.0.1]"]],
    [{ host: "localhost" }, ["localhost", "127.0.0.1"]]
  ]
  for (const [address, hosts] of wildcards) {
    it.effect(`${JSON.stringify(address)} is reached through ${hosts.join(", ")}`, () =>
      onNetwork(
        Effect.gen(function* () {
          const listener = yield* listen({ ...address, port: 7000 })
          for (const host of hosts) {
            const near = yield* connect(`${host}:7000`)
            const far = yield* listener.accept
            deepStrictEqual(far.remoteAddress, near.localAddress)
            // The address that a wildcard stands for, not the wildcard.
            deepStrictEqual(near.remoteAddress, far.localAddress)
            strictEqual(["0.0.0.0:7000", "[::]:7000"].includes(String(near.remoteAddress)), false)
          }
        })
      )
    )
  }

  it.effect("0.0.0.0 is not reached through IPv6", () =>
    onNetwork(
      Effect.gen(function* () {
        yield* listen({ host: "0.0.0.0", port: 7000 })
        strictEqual(yield* reasonOf(connect("[::1]:7000")), refused)
      })
    )
  )

  it.effect("port 0 is a free port, from 49152 on", () =>
    onNetwork(
      Effect.gen(function* () {
        yield* listen({ host: "127.0.0.1", port: 49_153 })
        const ports: Array<number> = []
        for (const host of [undefined, "127.0.0.1", "::1", "0.0.0.0"]) {
          const { address } = yield* listen({ host, port: 0 })
          if (NetAddress.isInetAddress(address)) ports.push(address.port)
        }
        deepStrictEqual(ports, [49_152, 49_154, 49_155, 49_156])
        strictEqual(String((yield* listen({ host: "fe80::1%3" })).address), "[fe80::1%3]:49157")
      })
    )
  )

  it.effect("run out of ports", () =>
    onNetwork(
      Effect.gen(function* () {
        const scope = yield* Scope.fork(yield* Effect.scope)
        for (let n = 49_152; n <= 65_535; n++) {
          yield* Scope.provide(
            listen({ host: "127.0.0.1", port: n }),
            n === 60_000 ? scope : yield* Effect.scope
          )
        }
        strictEqual(yield* reasonOf(listen({ host: "127.0.0.1" })), "AddressNotAvailable EADDRNOTAVAIL")
        strictEqual(yield* reasonOf(connect("127.0.0.1:50000")), "AddressNotAvailable EADDRNOTAVAIL")
        yield* Scope.close(scope, Exit.void)
        strictEqual(String((yield* listen({ host: "127.0.0.1" })).address), "127.0.0.1:60000")
      })
    )
  )

  // As measured on Linux.
  const inUse = "AddressInUse EADDRINUSE"
  const pairs: ReadonlyArray<readonly [ListenAddress, ListenAddress, string]> = [
    [{ host: "127.0.0.1", port: 1 }, { host: "127.0.0.1", port: 1 }, inUse],
    [{ host: "127.0.0.1", port: 1 }, { host: "localhost", port: 1 }, inUse],
    [{ host: "127.0.0.1", port: 1 }, { host: "::", port: 1 }, inUse],
    [{ host: "127.0.0.1", port: 1 }, { port: 1 }, inUse],
    [{ host: "127.0.0.1", port: 1 }, { host: "0.0.0.0", port: 1 }, inUse],
    [{ host: "0.0.0.0", port: 1 }, { host: "127.0.0.1", port: 1 }, inUse],
    [{ host: "0.0.0.0", port: 1 }, { host: "::", port: 1 }, inUse],
    [{ host: "::1", port: 1 }, { host: "::", port: 1 }, inUse],
    [{ host: "::", port: 1 }, { host: "127.0.0.1", port: 1 }, inUse],
    [{ path: "/a" }, { path: "/a" }, inUse],
    [{ host: "::1", port: 1 }, { host: "0.0.0.0", port: 1 }, "free"],
    [{ host: "127.0.0.1", port: 1 }, { host: "127.0.0.2", port: 1 }, "free"],
    [{ host: "127.0.0.1", port: 1 }, { host: "::1", port: 1 }, "free"],
    [{ host: "127.0.0.1", port: 1 }, { host: "127.0.0.1", port: 2 }, "free"],
    [{ path: "/a" }, { path: "/b" }, "free"]
  ]
  for (const [first, second, expected] of pairs) {
    it.effect(`${JSON.stringify(first)} beside ${JSON.stringify(second)}: ${expected}`, () =>
      onNetwork(
        Effect.gen(function* () {
          const one = yield* listen(first)
          const two = yield* Effect.result(listen(second))
          strictEqual(
            Result.isSuccess(two) ? "free" : `${two.failure.reason._tag} ${two.failure.reason.code}`,
            expected
          )
          yield* one.close
          if (Result.isFailure(two)) yield* listen(second)
        })
      )
    )
  }

  it.effect("a failed listen names the address", () =>
    onNetwork(
      Effect.gen(function* () {
        yield* listen({ port: 7000 })
        const error = yield* Effect.flip(listen({ port: 7000 }))
        assertInstanceOf(error, ListenError)
        strictEqual(error.address, "*:7000")
      })
    )
  )

  it.effect("listeners that share a port take turns", () =>
    onNetwork(
      Effect.gen(function* () {
        const address = { host: "127.0.0.1", port: 7000 }
        const one = yield* listen(address, { reusePort: true })
        const two = yield* listen(address, { reusePort: true })
        strictEqual(yield* reasonOf(listen(address)), inUse)
        yield* listen({ host: "127.0.0.1", port: 7001 })
        strictEqual(yield* reasonOf(listen({ ...address, port: 7001 }, { reusePort: true })), inUse)
        for (let n = 0; n < 4; n++) yield* connect("127.0.0.1:7000")
        for (const listener of [one, one, two, two]) yield* listener.accept
        yield* one.close
        yield* connect("127.0.0.1:7000")
        yield* two.accept
        yield* listen({ path: "/a" }, { reusePort: true })
        strictEqual(yield* reasonOf(listen({ path: "/a" }, { reusePort: true })), inUse)
      })
    )
  )

  it.effect("that cannot be addresses are refused, with a word on why", () =>
    onNetwork(
      Effect.gen(function* () {
        const connected = yield* Effect.flip(connect("localhost:0"))
        assertInstanceOf(connected, ConnectionError)
        strictEqual(connected.address, "localhost:0")
        strictEqual(
          connected.reason.message,
          "invalid address: the port must be an integer from 1 to 65535, not 0"
        )
        for (const target of ["localhost", "localhost:http", { path: "" }, { host: "a", port: NaN }]) {
          strictEqual(yield* reasonOf(connect(target)), "InvalidAddress")
        }
        strictEqual(yield* reasonOf(connect("[fe80::1%eth7]:80")), "InvalidAddress")
        for (const address of [{ port: 65_536 }, { port: 1.5 }, { path: "" }, { path: "a".repeat(108) }]) {
          strictEqual(yield* reasonOf(listen(address)), "InvalidAddress")
        }
      })
    )
  )

  it.effect("of two networks are not the same", () =>
    Effect.gen(function* () {
      const one = yield* TestNetwork.make()
      const two = yield* TestNetwork.make()
      yield* one.listen({ port: 7000 })
      yield* two.listen({ port: 7000 })
      yield* one.listen({ port: 7001 })
      strictEqual(yield* reasonOf(two.connect("localhost:7001")), refused)
    })
  )
})

describe("names", () => {
  const hosts = { "db.internal": ["10.0.0.5"], "Both.internal": ["10.0.0.6", "fd00::6"] }

  it.effect("resolve if the table has them", () =>
    onNetwork(
      Effect.gen(function* () {
        const listener = yield* listen({ host: "db.internal", port: 5432 })
        strictEqual(String(listener.address), "10.0.0.5:5432")
        const near = yield* connect("DB.internal:5432")
        strictEqual(String(near.remoteAddress), "10.0.0.5:5432")
        strictEqual(yield* reasonOf(connect("db:5432")), "NameNotResolved ENOTFOUND")
        strictEqual(yield* reasonOf(listen({ host: "db", port: 5432 })), "NameNotResolved ENOTFOUND")
      }),
      { hosts }
    )
  )

  it.effect("have their addresses tried, IPv6 first", () =>
    onNetwork(
      Effect.gen(function* () {
        yield* listen({ host: "fd00::6", port: 80 })
        const near = yield* connect("both.internal:80")
        strictEqual(String(near.remoteAddress), "[fd00::6]:80")
        const error = yield* Effect.flip(connect("both.internal:81"))
        assertInstanceOf(error, ConnectionError)
        deepStrictEqual(
          error.attempts?.map(({ address, reason }) => [address, reason._tag]),
          [
            ["[fd00::6]:81", "ConnectionRefused"],
            ["10.0.0.6:81", "ConnectionRefused"]
          ]
        )
        strictEqual(error.reason._tag, "ConnectionRefused")
        const unix = yield* Effect.flip(connect({ path: "/run/nobody.sock" }))
        assertInstanceOf(unix, ConnectionError)
        deepStrictEqual(
          unix.attempts?.map(({ address }) => address),
          ["/run/nobody.sock"]
        )
      }),
      { hosts }
    )
  )

  it.effect("localhost is 127.0.0.1, unless the table says otherwise", () =>
    Effect.gen(function* () {
      const localhost = Effect.map(listen({ host: "localhost", port: 80 }), ({ address }) => String(address))
      strictEqual(yield* onNetwork(localhost), "127.0.0.1:80")
      strictEqual(yield* onNetwork(localhost, { hosts: { localhost: ["::1"] } }), "[::1]:80")
    })
  )

  it.effect("a table that is none is a defect", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(TestNetwork.make({ hosts: { "a b": ["10.0.0.1"] } }))
      assertInstanceOf(
        Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined,
        NetAddress.NetAddressError
      )
    })
  )
})

describe("localAddress", () => {
  it.effect("is what the server sees", () =>
    onNetwork(
      Effect.gen(function* () {
        const listener = yield* listen({ port: 7000 })
        const seen = Effect.fnUntraced(function* (target: Target, host: string, port?: number) {
          const near = yield* connect(target, { localAddress: { host, port } })
          const far = yield* listener.accept
          deepStrictEqual(far.remoteAddress, near.localAddress)
          return String(far.remoteAddress)
        })
        strictEqual(yield* seen("localhost:7000", "127.0.0.9", 5000), "127.0.0.9:5000")
        strictEqual(yield* seen("localhost:7000", "127.0.0.9"), "127.0.0.9:49152")
        strictEqual(yield* seen("localhost:7000", "0.0.0.0", 5001), "127.0.0.1:5001")
        strictEqual(yield* seen("[::1]:7000", "::", 5001), "[::1]:5001")
      })
    )
  )

  it.effect("has to be free, numeric, and of the target's family", () =>
    onNetwork(
      Effect.gen(function* () {
        yield* listen({ host: "127.0.0.1", port: 7000 })
        const from = (host: string, port?: number) =>
          reasonOf(connect("127.0.0.1:7000", { localAddress: { host, port } }))
        strictEqual(yield* from("127.0.0.1", 7000), "AddressInUse EADDRINUSE")
        strictEqual(yield* from("::1"), "AddressNotAvailable")
        strictEqual(yield* from("localhost"), "InvalidAddress")
        strictEqual(yield* from("127.0.0.1", 65_536), "InvalidAddress")
      })
    )
  )
})

describe("backlog", () => {
  it.effect("holds 511 connections unless set", () =>
    onNetwork(
      Effect.gen(function* () {
        yield* listen({ port: 7000 })
        for (let n = 0; n < 511; n++) yield* connect("localhost:7000")
        const fiber = yield* Effect.forkChild(reasonOf(connect("localhost:7000")))
        yield* TestClock.adjust("9999 millis")
        strictEqual(fiber.pollUnsafe(), undefined)
        yield* TestClock.adjust("1 millis")
        strictEqual(yield* Fiber.join(fiber), "connect timed out after 10s")
      })
    )
  )

  it.effect("further connects wait, in order, until there is room", () =>
    onNetwork(
      Effect.gen(function* () {
        const listener = yield* listen({ port: 7000 }, { backlog: 2 })
        const order: Array<number> = []
        const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
        for (let n = 0; n < 5; n++) {
          fibers.push(
            yield* Effect.forkChild(
              Effect.tap(
                connect("localhost:7000"),
                Effect.sync(() => order.push(n))
              )
            )
          )
        }
        yield* settle
        deepStrictEqual(order, [0, 1])
        yield* listener.accept
        yield* settle
        deepStrictEqual(order, [0, 1, 2])
        // A room that is free again belongs to those who wait, not to a connect that comes just then.
        yield* Effect.forkChild(listener.accept, { startImmediately: true })
        fibers.push(
          yield* Effect.forkChild(
            Effect.tap(
              connect("localhost:7000"),
              Effect.sync(() => order.push(5))
            ),
            { startImmediately: true }
          )
        )
        yield* settle
        deepStrictEqual(order, [0, 1, 2, 3])
        for (let n = 0; n < 4; n++) yield* listener.accept
        yield* Fiber.awaitAll(fibers)
        deepStrictEqual(order, [0, 1, 2, 3, 4, 5])
      })
    )
  )

  it.effect("a connect that gave up takes no room", () =>
    onNetwork(
      Effect.gen(function* () {
        const listener = yield* listen({ port: 7000 }, { backlog: 1 })
        const first = yield* connect("localhost:7000")
        const interrupted = yield* Effect.forkChild(connect("localhost:7000"))
        const timedOut = yield* Effect.forkChild(
          reasonOf(connect("localhost:7000", { connectTimeout: "1 second" }))
        )
        const patient = yield* Effect.forkChild(connect("localhost:7000"))
        yield* settle
        yield* Fiber.interrupt(interrupted)
        yield* TestClock.adjust("1 second")
        strictEqual(yield* Fiber.join(timedOut), "connect timed out after 1s")
        deepStrictEqual((yield* listener.accept).remoteAddress, first.localAddress)
        deepStrictEqual((yield* listener.accept).remoteAddress, (yield* Fiber.join(patient)).localAddress)
      })
    )
  )

  it.effect("has to be a positive number", () =>
    onNetwork(
      Effect.gen(function* () {
        for (const backlog of [0, -1, 1.5, NaN]) {
          const exit = yield* Effect.exit(listen({ port: 7000 }, { backlog }))
          assertInstanceOf(Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined, RangeError)
        }
      })
    )
  )
})

describe("an interrupted connect", () => {
  it.effect("that the server has accepted already is seen to be gone", () =>
    onNetwork(
      Effect.gen(function* () {
        const listener = yield* listen({ port: 7000 })
        let client: Fiber.Fiber<unknown, unknown> | undefined = undefined
        // The server runs first, inside the client's connect, and has it interrupted there.
        const server = yield* Effect.forkChild(
          Effect.map(listener.accept, (far) => {
            client?.interruptUnsafe()
            far.resume()
            return record(far)
          })
        )
        yield* settle
        let connected = false
        client = yield* Effect.forkChild(
          Effect.tap(
            connect("localhost:7000"),
            Effect.sync(() => (connected = true))
          )
        )
        yield* Fiber.await(client)
        const b = yield* Fiber.join(server)
        yield* settle
        strictEqual(connected, false)
        deepStrictEqual(b.events, ["closed"])
        strictEqual(b.error()?.reason._tag, "ConnectionReset")
      })
    )
  )

  it.effect("by the server that makes room for it does not take the server's connection along", () =>
    onNetwork(
      Effect.gen(function* () {
        const listener = yield* listen({ port: 7000 }, { backlog: 1 })
        const first = yield* connect("localhost:7000")
        let server: Fiber.Fiber<unknown, unknown> | undefined = undefined
        const accepted: Array<unknown> = []
        yield* Effect.forkChild(
          Effect.map(connect("localhost:7000"), () => {
            server?.interruptUnsafe()
          })
        )
        yield* settle
        server = yield* Effect.forkChild(
          Effect.andThen(
            Effect.tap(listener.accept, (far) => Effect.sync(() => accepted.push(far.remoteAddress))),
            Effect.never
          )
        )
        yield* settle
        strictEqual(server.pollUnsafe()?._tag, "Failure")
        deepStrictEqual(accepted, [first.localAddress])
      })
    )
  )
})

describe("interrupted as it yields", () => {
  // The fiber has so many operations left before it has to yield, and is interrupted so many turns later.
  const runs = Array.from({ length: 60 }, (_, operations) =>
    [0, 1, 2].map((turns) => ({ operations, turns }))
  ).flat()

  const interrupted = <A, E>(effect: Effect.Effect<A, E>, { operations, turns }: (typeof runs)[number]) =>
    Effect.gen(function* () {
      let value: A | undefined
      const fiber = yield* Effect.withFiber((fiber) => {
        Object.assign(fiber, { currentOpCount: fiber.cache.maxOpsBeforeYield - operations })
        return effect
      }).pipe(
        Effect.map((result) => {
          value = result
        }),
        Effect.forkChild({ startImmediately: true })
      )
      for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
      yield* Fiber.interrupt(fiber)
      return value
    })

  it.effect("accept loses no connection", () =>
    Effect.gen(function* () {
      let lost = 0
      for (const run of runs) {
        const network = yield* TestNetwork.make()
        const listener = yield* network.listen({ port: 7000 })
        yield* network.connect("localhost:7000")
        const accepted = yield* interrupted(listener.accept, run)
        const next = yield* Effect.forkChild(listener.accept)
        yield* settle
        if (accepted === undefined && next.pollUnsafe() === undefined) lost++
      }
      strictEqual(lost, 0)
    })
  )

  it.effect("connect leaves nobody at the server", () =>
    Effect.gen(function* () {
      let left = 0
      for (const run of runs) {
        const network = yield* TestNetwork.make()
        const listener = yield* network.listen({ port: 7000 })
        const connected = yield* interrupted(network.connect("localhost:7000"), run)
        const accepting = yield* Effect.forkChild(listener.accept)
        yield* settle
        const exit = accepting.pollUnsafe()
        if (connected === undefined && exit !== undefined && Exit.isSuccess(exit)) {
          const server = record(exit.value)
          yield* settle
          if (!server.events.includes("closed")) left++
        }
      }
      strictEqual(left, 0)
    })
  )
})

describe("closing a listener", () => {
  it.effect(
    "refuses further and waiting connects, resets what was not accepted, and leaves the rest alone",
    () =>
      onNetwork(
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          const listener = yield* Scope.provide(listen({ port: 7000 }, { backlog: 1 }), scope)
          const accepted = yield* connect("localhost:7000")
          const far = record(yield* listener.accept)
          const queued = yield* connect("localhost:7000")
          const waiting = yield* Effect.forkChild(reasonOf(connect("localhost:7000")))
          const [a, b] = [record(accepted), record(queued)]
          for (const { transport } of [a, b, far]) transport.resume()
          yield* settle
          yield* Scope.close(scope, Exit.void)
          strictEqual(yield* Fiber.join(waiting), refused)
          strictEqual(yield* reasonOf(connect("localhost:7000")), refused)
          accepted.write("still here")
          yield* settle
          strictEqual(far.text(), "still here")
          deepStrictEqual(a.events, [])
          deepStrictEqual(b.events, ["closed"])
          strictEqual(b.error()?.reason._tag, "ConnectionReset")
          yield* listener.close
          yield* listen({ port: 7000 })
        })
      )
  )

  it.effect("does not fail accept", () =>
    onNetwork(
      Effect.gen(function* () {
        const listener = yield* listen({ path: "/run/a.sock" })
        const before = yield* Effect.forkChild(listener.accept)
        yield* settle
        yield* listener.close
        yield* listener.close
        const after = yield* Effect.forkChild(listener.accept)
        yield* settle
        deepStrictEqual([before.pollUnsafe(), after.pollUnsafe()], [undefined, undefined])
        strictEqual(yield* reasonOf(connect({ path: "/run/a.sock" })), "NotFound ENOENT")
        yield* Fiber.interruptAll([before, after])
      })
    )
  )

  it.effect("leaves a new listener on the same address alone when it is closed again", () =>
    onNetwork(
      Effect.gen(function* () {
        const old = yield* listen({ port: 7000 })
        yield* old.close
        yield* listen({ port: 7000 })
        yield* old.close
        yield* connect("localhost:7000")
      })
    )
  )
})

describe("layer", () => {
  it.effect("is one network for all that it is provided to", () =>
    Effect.gen(function* () {
      const services = yield* Layer.build(TestNetwork.layer)
      yield* listen({ port: 7000 }).pipe(Effect.provide(services))
      yield* connect("localhost:7000").pipe(Effect.provide(services))
    })
  )
})
