import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Fiber, Result, Scheduler, Schema } from "effect"
import { AddressResolver, Dns, NetAddress } from "effect/net"
import { TestClock } from "effect/testing"
import {
  Connection,
  Dialer,
  MemoryTransport,
  Network,
  Server,
  StreamError,
  type Transport
} from "effect-wire"
import { TestNetwork } from "effect-wire/testing"
import * as fc from "fast-check"
import { outcome, withFibers, withSleepers } from "./support/effects.ts"
import { remedies } from "./support/remedies.ts"

const ips: Record<string, string> = {
  "6a": "2001:db8::a",
  "6b": "2001:db8::b",
  "6c": "2001:db8::c",
  "4a": "192.0.2.1",
  "4b": "192.0.2.2",
  "4c": "192.0.2.3"
}

const ipOf = (name: string): string => ips[name] ?? assert.fail(name)

const nameOf = (address: NetAddress.SocketAddress): string => {
  const ip = NetAddress.isInetAddress(address) ? NetAddress.formatHost(address) : address.path
  return Object.keys(ips).find((name) => ips[name] === ip) ?? ip
}

const addressOf = (name: string): NetAddress.InetAddress =>
  NetAddress.inetAddressFromInputUnsafe({ address: ipOf(name), port: 80 })

const split = (names: string): ReadonlyArray<string> => names.split(" ").filter(Boolean)

const staticResolver = (names: string): AddressResolver.AddressResolver["Service"] =>
  AddressResolver.make(Result.getOrThrow(Dns.makeStatic({ hosts: { "name.test": split(names).map(ipOf) } })))

/** A resolver whose answers for the two families take their time, in milliseconds, or fail. */
const slowResolver = (
  answers: Record<NetAddress.IpFamily, readonly [after: number, names: string]>
): AddressResolver.AddressResolver["Service"] =>
  AddressResolver.make(
    Dns.make({
      lookup: (hostname, asked) => {
        const [after, names] = answers[asked ?? assert.fail("asked for both")]
        const addresses = split(names).map((name) => addressOf(name).address)
        return Effect.delay(
          addresses.length > 0
            ? Effect.succeed(addresses)
            : Effect.fail(new Dns.DnsError({ reason: "Temporary", method: "lookup", hostname })),
          after
        )
      },
      resolve: () => Effect.die("unused"),
      reverse: () => Effect.die("unused")
    })
  )

describe("withLocalhost", () => {
  const asked: Array<string> = []
  const dns = Dialer.withLocalhost(
    Dns.make({
      lookup: (host, family) => {
        asked.push(`${host} ${family}`)
        return Effect.never
      },
      resolve: (name, type) => {
        asked.push(`${name} ${type}`)
        return Effect.never
      },
      reverse: (address) => {
        asked.push(NetAddress.formatIp(address))
        return Effect.never
      }
    })
  )

  it.effect("answers for localhost and the names below it without asking", () =>
    Effect.gen(function* () {
      asked.length = 0
      for (const name of ["localhost", "localhost.", "LOCALHOST", "app.localhost", "a.b.localhost."]) {
        const all = yield* dns.lookup(name)
        const ipv6 = yield* dns.lookup(name, { family: "IPv6" })
        const ipv4 = yield* dns.lookup(name, { family: "IPv4" })
        assert.deepStrictEqual(
          [all, ipv6, ipv4].map((addresses) => addresses.map(NetAddress.formatIp)),
          [["127.0.0.1", "::1"], ["::1"], ["127.0.0.1"]]
        )
      }
      assert.deepStrictEqual(asked, [])
    })
  )

  it.effect("asks for everything else", () =>
    Effect.gen(function* () {
      asked.length = 0
      for (const name of ["localhost.test", "notlocalhost", "localhost.localdomain"]) {
        yield* Effect.forkChild(dns.lookup(name, { family: "IPv6" }), { startImmediately: true })
      }
      yield* Effect.forkChild(dns.resolve("name.test", "TXT"), { startImmediately: true })
      yield* Effect.forkChild(dns.reverse("::1"), { startImmediately: true })
      assert.deepStrictEqual(asked, [
        "localhost.test IPv6",
        "notlocalhost IPv6",
        "localhost.localdomain IPv6",
        "name.test TXT",
        "::1"
      ])
    })
  )
})

/** What an attempt comes to, after so many milliseconds. */
type Plan = readonly [
  after: number,
  outcome: "connects" | StreamError.ConnectionErrorReason | Cause.Cause<never>
]

interface Simulated {
  readonly plans?: Record<string, Plan> | undefined
  readonly resolver: AddressResolver.AddressResolver["Service"]
  readonly options?: Network.ConnectOptions | undefined
}

/** Dials, and writes down when what happened. Addresses without a plan never answer. */
const dialing = Effect.fnUntraced(function* ({ options, plans = {}, resolver }: Simulated) {
  const log: Array<string> = []
  const open = new Set<string>()
  const clock = yield* Clock.Clock
  const begin = clock.currentTimeMillisUnsafe()
  const note = (what: string) => log.push(`${clock.currentTimeMillisUnsafe() - begin} ${what}`)

  const connectOne: Dialer.ConnectOne = Effect.fnUntraced(function* (address, connected) {
    const name = nameOf(address)
    note(`${name} starts`)
    const [after, outcome] = plans[name] ?? [Infinity, "connects"]
    const [near] = yield* MemoryTransport.makePair({ remoteAddress: address })
    const transport: Transport.Transport = {
      ...near,
      kind: name,
      remoteAddress: near.remoteAddress,
      abort: () => {
        open.delete(name)
        note(`${name} aborted`)
      }
    }
    yield* Effect.callback<void, StreamError.ConnectionErrorReason>((resume) => {
      const fiber = Effect.runFork(
        Effect.provideService(
          Effect.andThen(
            after === Infinity ? Effect.never : Effect.sleep(after),
            Effect.sync(() => {
              if (outcome === "connects") {
                open.add(name)
                connected(transport)
                resume(Effect.void)
              } else if (Cause.isCause(outcome)) {
                resume(Effect.failCause(outcome))
              } else {
                note(`${name} fails`)
                resume(Effect.fail(outcome))
              }
            })
          ),
          Clock.Clock,
          clock
        )
      )
      return Effect.sync(() => {
        fiber.interruptUnsafe()
        if (!open.has(name)) note(`${name} given up`)
      })
    })
  })

  const connect = Dialer.make({ resolver, connectOne: () => connectOne })
  const fiber = yield* Effect.forkChild(
    // What is handed out is taken, also by a fiber that is interrupted from now on.
    Effect.uninterruptibleMask((restore) =>
      Effect.tap(restore(connect("name.test:80", options)), (transport) =>
        Effect.sync(() => note(`${transport.kind} wins`))
      )
    ),
    { startImmediately: true }
  )
  return { fiber, log, open }
})

/** Dials to the end, for at most a minute. */
const dialed = Effect.fnUntraced(function* (simulated: Simulated) {
  const { fiber, log, open } = yield* dialing(simulated)
  yield* TestClock.adjust("1 minute")
  const exit = fiber.pollUnsafe() ?? assert.fail("still dialing")
  return { exit, log, open: [...open] }
})

const failureOf = (
  exit: Exit.Exit<unknown, StreamError.ConnectionError | StreamError.TimeoutError>
): StreamError.ConnectionError | StreamError.TimeoutError =>
  Exit.isFailure(exit)
    ? Result.getOrThrowWith(Cause.findError(exit.cause), () => new Error(Cause.pretty(exit.cause)))
    : assert.fail("connected")

const attemptsOf = (error: StreamError.ConnectionError | StreamError.TimeoutError) =>
  error._tag === "TimeoutError"
    ? error.message
    : error.attempts?.map(({ address, reason }) => [
        nameOf(NetAddress.inetAddressFromStringUnsafe(address)),
        reason._tag
      ])

const refused = new StreamError.ConnectionRefused({ code: "ECONNREFUSED" })
const unreachable = new StreamError.Unreachable({ code: "EHOSTUNREACH" })

describe("the order of the addresses", () => {
  const interleave = (names: string, count?: number) =>
    Dialer.interleave(split(names).map(addressOf), count).map(nameOf).join(" ")

  it("H-019 takes the families in turns", () => {
    assert.strictEqual(interleave("6a 6b 6c 4a 4b 4c"), "6a 4a 6b 4b 6c 4c")
    assert.strictEqual(interleave("6a 6b 6c 4a 4b 4c", 1), "6a 4a 6b 4b 6c 4c")
  })

  it("H-020 has several of the first family first", () => {
    assert.strictEqual(interleave("6a 6b 6c 4a 4b 4c", 2), "6a 6b 4a 6c 4b 4c")
    assert.strictEqual(interleave("6a 6b 6c 4a 4b 4c", 3), "6a 6b 6c 4a 4b 4c")
    assert.strictEqual(interleave("6a 4a 6b 4b", Infinity), "6a 6b 4a 4b")
  })

  it("H-021 begins with the family of the first, and ends with what is left over", () => {
    assert.strictEqual(interleave("6a 6b 6c 4a"), "6a 4a 6b 6c")
    assert.strictEqual(interleave("4a 4b 6a"), "4a 6a 4b")
    assert.strictEqual(interleave("4a 4b 6a 6b", 5), "4a 4b 6a 6b")
  })

  it("H-023 is not changed by 0", () => {
    assert.strictEqual(interleave("6a 6b 4a 4b 6c", 0), "6a 6b 4a 4b 6c")
    assert.strictEqual(interleave("", 0), "")
  })

  it("takes no count that is none", () => {
    for (const count of [-1, 1.5, NaN]) assert.throws(() => interleave("6a", count), RangeError)
  })

  it("loses none, and keeps the order of each family", () => {
    const names = fc.array(fc.constantFrom(...Object.keys(ips)), { maxLength: 12 })
    fc.assert(
      fc.property(names, fc.nat(4), (names, count) => {
        const result = split(interleave(names.join(" "), count))
        for (const family of ["4", "6"]) {
          assert.deepStrictEqual(
            result.filter((_) => _.startsWith(family)),
            names.filter((_) => _.startsWith(family))
          )
        }
        // After the first ones, a family follows itself only when the other one has no more.
        for (let i = Math.max(count, 1); count > 0 && i < result.length; i++) {
          if (result[i]?.[0] !== result[i - 1]?.[0]) continue
          assert.isTrue(result.slice(i).every((_) => _[0] === result[i]?.[0]))
        }
      })
    )
  })
})

describe("the race", () => {
  it.effect(
    "H-024 a black hole first: the next starts after the delay, wins, and the first is given up",
    () =>
      Effect.gen(function* () {
        const { log, open } = yield* dialed({
          resolver: staticResolver("6a 4a"),
          plans: { "4a": [50, "connects"] },
          options: { happyEyeballs: { delay: 100 } }
        })
        assert.deepStrictEqual(log, ["0 6a starts", "100 4a starts", "150 6a given up", "150 4a wins"])
        assert.deepStrictEqual(open, ["4a"])
      })
  )

  it.effect("the delay is 250 ms, and IPv6 comes first, unless told otherwise", () =>
    Effect.gen(function* () {
      const { log } = yield* dialed({
        resolver: staticResolver("4a 4b 6a 6b"),
        plans: { "4b": [1, "connects"] }
      })
      assert.deepStrictEqual(
        log.filter((_) => !_.endsWith("given up")),
        ["0 6a starts", "250 4a starts", "500 6b starts", "750 4b starts", "751 4b wins"]
      )
    })
  )

  it.effect("H-025 an attempt that fails early starts the next at once", () =>
    Effect.gen(function* () {
      const { log } = yield* dialed({
        resolver: staticResolver("6a 6b 4a"),
        plans: { "6a": [10, refused], "4a": [0, unreachable], "6b": [600, "connects"] }
      })
      assert.deepStrictEqual(log, [
        "0 6a starts",
        "10 6a fails",
        "10 4a starts",
        "10 4a fails",
        "10 6b starts",
        "610 6b wins"
      ])
    })
  )

  it.effect("the failure of an attempt before the last one changes nothing", () =>
    Effect.gen(function* () {
      const { log } = yield* dialed({
        resolver: staticResolver("6a 4a 6b"),
        plans: { "6a": [300, refused], "6b": [0, "connects"] }
      })
      assert.deepStrictEqual(log, [
        "0 6a starts",
        "250 4a starts",
        "300 6a fails",
        "500 6b starts",
        "500 4a given up",
        "500 6b wins"
      ])
    })
  )

  it.effect("H-026 a slow first one may still win", () =>
    Effect.gen(function* () {
      const { log } = yield* dialed({
        resolver: staticResolver("6a 4a"),
        plans: { "6a": [150, "connects"] },
        options: { happyEyeballs: { delay: "100 millis" } }
      })
      assert.deepStrictEqual(log, ["0 6a starts", "100 4a starts", "150 4a given up", "150 6a wins"])
    })
  )

  it.effect("H-027 false: strictly one after another, in the resolver's order", () =>
    Effect.gen(function* () {
      const { log } = yield* dialed({
        resolver: staticResolver("4a 6a 4b 6b"),
        plans: { "4a": [50, refused], "6a": [5000, refused], "4b": [50, "connects"] },
        options: { happyEyeballs: false }
      })
      assert.deepStrictEqual(log, [
        "0 4a starts",
        "50 4a fails",
        "50 6a starts",
        "5050 6a fails",
        "5050 4b starts",
        "5100 4b wins"
      ])
    })
  )

  it.effect("an infinite delay: one after another, the families in turns", () =>
    Effect.gen(function* () {
      const { log } = yield* dialed({
        resolver: staticResolver("4a 4b 6a"),
        plans: { "6a": [500, refused], "4a": [500, "connects"] },
        options: { happyEyeballs: { delay: "Infinity" } }
      })
      assert.deepStrictEqual(log, ["0 6a starts", "500 6a fails", "500 4a starts", "1000 4a wins"])
    })
  )

  it.effect("H-028 a delay of 0 starts all at once", () =>
    Effect.gen(function* () {
      const { log, open } = yield* dialed({
        resolver: staticResolver("6a 6b 4a"),
        plans: { "6b": [20, "connects"], "4a": [30, "connects"] },
        options: { happyEyeballs: { delay: 0 } }
      })
      assert.deepStrictEqual(log.slice(0, 3), ["0 6a starts", "0 4a starts", "0 6b starts"])
      assert.deepStrictEqual(log.slice(3).sort(), ["20 4a given up", "20 6a given up", "20 6b wins"])
      assert.deepStrictEqual(open, ["6b"])
    })
  )

  it.effect("H-029 one that connects at once is the only one", () =>
    Effect.gen(function* () {
      const { log } = yield* dialed({ resolver: staticResolver("6a 4a"), plans: { "6a": [0, "connects"] } })
      assert.deepStrictEqual(log, ["0 6a starts", "0 6a wins"])
      const { exit } = yield* dialed({ resolver: staticResolver("") })
      const error = failureOf(exit)
      assert(error._tag === "ConnectionError")
      assert.strictEqual(error.reason._tag, "NameNotResolved")
      assert.isUndefined(error.attempts)
    })
  )

  it.effect("H-030 all fail: every address with its reason, in the order of starting", () =>
    Effect.gen(function* () {
      const { exit, open } = yield* dialed({
        resolver: staticResolver("6a 6b 4a"),
        plans: { "6a": [2000, unreachable], "6b": [10, refused], "4a": [1000, refused] }
      })
      const error = failureOf(exit)
      assert.deepStrictEqual(attemptsOf(error), [
        ["6a", "Unreachable"],
        ["4a", "ConnectionRefused"],
        ["6b", "ConnectionRefused"]
      ])
      assert.strictEqual(
        error.message,
        "connect to name.test:80: connection refused (ECONNREFUSED); tried [2001:db8::a]:80 (host or network " +
          "unreachable), 192.0.2.1:80 (connection refused), [2001:db8::b]:80 (connection refused)"
      )
      assert.deepStrictEqual(open, [])
    })
  )

  it.effect("H-031 one that connects in the same moment as the winner is closed", () =>
    Effect.gen(function* () {
      for (const first of ["6a", "4a"]) {
        const { log, open } = yield* dialed({
          resolver: staticResolver("6a 4a"),
          plans: {
            "6a": [first === "6a" ? 300 : 350, "connects"],
            "4a": [first === "6a" ? 50 : 100, "connects"]
          }
        })
        assert.strictEqual(open.length, 1)
        const wins = log.filter((_) => _.endsWith("wins"))
        assert.strictEqual(wins.length, 1)
        assert.isTrue(wins[0]?.endsWith(`${open[0] ?? ""} wins`))
      }
    })
  )

  it.effect("H-032 attempts that end in an odd way are failures too", () =>
    Effect.gen(function* () {
      const { exit } = yield* dialed({
        resolver: staticResolver("6a 6b 4a"),
        plans: {
          "6a": [1, Cause.die(new Error("a bug"))],
          "4a": [1, Cause.interrupt(1)],
          "6b": [1, Cause.die("odd")]
        }
      })
      const error = failureOf(exit)
      assert.deepStrictEqual(attemptsOf(error), [
        ["6a", "UnknownReason"],
        ["4a", "UnknownReason"],
        ["6b", "UnknownReason"]
      ])
      assert.include(error.message, "a bug")
    })
  )

  it.effect("out of time, says of each address that was tried what it had answered", () =>
    Effect.gen(function* () {
      const { exit } = yield* dialed({
        resolver: staticResolver("6a 6b 4a 4b"),
        plans: { "6a": [100, refused], "6b": [1, unreachable] },
        options: { connectTimeout: "1 second", happyEyeballs: { delay: "400 millis" } }
      })
      const error = failureOf(exit)
      assert(error._tag === "TimeoutError")
      const attempts = error.attempts?.map(({ address, reason }) => [
        nameOf(NetAddress.inetAddressFromStringUnsafe(address)),
        reason
      ])
      assert.deepStrictEqual(attempts, [
        ["6a", refused],
        ["4a", undefined],
        ["6b", unreachable],
        ["4b", undefined]
      ])
      const codec = Schema.toCodecJson(StreamError.TimeoutError)
      const again = Schema.decodeUnknownSync(codec)(Schema.encodeUnknownSync(codec)(error))
      assert.strictEqual(again.message, error.message)
      assert.strictEqual(again.attempts?.[2]?.reason?.code, "EHOSTUNREACH")
    })
  )

  it.effect("out of time while the name is being resolved, says so", () =>
    Effect.gen(function* () {
      const { exit } = yield* dialed({
        resolver: slowResolver({ IPv6: [5000, "6a"], IPv4: [5000, "4a"] }),
        options: { connectTimeout: "1 second" }
      })
      const error = failureOf(exit)
      assert.deepStrictEqual(error.attempts, [])
      assert.strictEqual(
        error.message,
        `connect to name.test:80: timed out after 1s; its name was not resolved by then${remedies.raise("connectTimeout")}`
      )
    })
  )

  it.effect("ends with connectTimeout, whatever is under way", () =>
    Effect.gen(function* () {
      const { exit, log, open } = yield* dialed({
        resolver: staticResolver("6a 4a"),
        options: { connectTimeout: "1 second" }
      })
      assert.strictEqual(
        failureOf(exit).message,
        `connect to name.test:80: timed out after 1s; tried [${ipOf("6a")}]:80 (no answer), ${ipOf("4a")}:80 (no answer)${remedies.raise("connectTimeout")}`
      )
      assert.deepStrictEqual(log.slice(2).sort(), ["1000 4a given up", "1000 6a given up"])
      assert.deepStrictEqual(open, [])
    })
  )

  it.effect("leaves nothing behind, wherever it is interrupted", () =>
    Effect.gen(function* () {
      for (const ops of [4, 5, 6, 7, 9, 13, 24, 2048]) {
        for (let at = 0; at <= 700; at += 10) {
          const { fiber, log, open } = yield* dialing({
            resolver: slowResolver({ IPv6: [20, "6a 6b"], IPv4: [30, "4a"] }),
            plans: { "6a": [300, refused], "4a": [390, "connects"], "6b": [150, "connects"] }
          }).pipe(Effect.provideService(Scheduler.MaxOpsBeforeYield, ops))
          yield* TestClock.adjust(at)
          yield* Fiber.interrupt(fiber)
          const ended = log.length
          yield* TestClock.adjust("1 minute")
          assert.strictEqual(log.length, ended, `${at} ms: goes on`)
          // What was handed out is the caller's.
          const won = log.some((_) => _.endsWith("wins"))
          assert.strictEqual(open.size, won ? 1 : 0, `${at} ms: ${log.join(", ")}`)
        }
      }
    })
  )
})

describe("handing out", () => {
  it.effect("loses nothing, however many turns pass before the interruption", () =>
    Effect.gen(function* () {
      const seen = new Set<string>()
      for (const ops of [4, 5, 6, 7, 9, 13, 24, 2048]) {
        for (let turns = 0; turns < 60; turns++) {
          const { fiber, log, open } = yield* dialing({
            resolver: staticResolver("6a 4a"),
            plans: { "6a": [0, "connects"], "4a": [0, "connects"] },
            options: { happyEyeballs: { delay: 0 } }
          }).pipe(Effect.provideService(Scheduler.MaxOpsBeforeYield, ops))
          yield* Effect.repeat(Effect.yieldNow, { times: turns })
          yield* Fiber.interrupt(fiber)
          const won = log.some((_) => _.endsWith("wins"))
          assert.strictEqual(open.size, won ? 1 : 0, `${ops} operations, ${turns} turns: ${log.join(", ")}`)
          seen.add(won ? "won" : "interrupted")
        }
      }
      assert.strictEqual(seen.size, 2)
    })
  )
})

describe("the answers of the resolver", () => {
  const race = (
    IPv6: readonly [number, string],
    IPv4: readonly [number, string],
    happyEyeballs?: Network.HappyEyeballs
  ) =>
    Effect.map(
      dialed({
        resolver: slowResolver({ IPv6, IPv4 }),
        options: { happyEyeballs, connectTimeout: "2 seconds" }
      }),
      ({ exit, log }) => ({
        exit,
        starts: log.filter((_) => _.endsWith("starts")).map((_) => _.slice(0, -7))
      })
    )

  it.effect("H-034 IPv6 addresses are tried at once, IPv4 ones join them", () =>
    Effect.gen(function* () {
      const { starts } = yield* race([10, "6a 6b 6c"], [300, "4a"])
      assert.deepStrictEqual(starts, ["10 6a", "260 6b", "510 4a", "760 6c"])
    })
  )

  it.effect("IPv4 waits 50 ms for IPv6 to come first", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual((yield* race([59, "6a"], [10, "4a"])).starts, ["59 6a", "309 4a"])
      assert.deepStrictEqual((yield* race([61, "6a"], [10, "4a 4b"])).starts, ["60 4a", "310 6a", "560 4b"])
      assert.deepStrictEqual((yield* race([61, "6a"], [10, "4a"], { resolutionDelay: "1 second" })).starts, [
        "61 6a",
        "311 4a"
      ])
      assert.deepStrictEqual((yield* race([61, "6a"], [10, "4a"], { resolutionDelay: 0 })).starts, [
        "10 4a",
        "260 6a"
      ])
    })
  )

  it.effect("an answer without IPv6 addresses is not waited out", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual((yield* race([20, ""], [10, "4a"])).starts, ["20 4a"])
      assert.deepStrictEqual((yield* race([10, ""], [400, "4a"])).starts, ["400 4a"])
      assert.deepStrictEqual((yield* race([400, "6a"], [10, ""])).starts, ["400 6a"])
    })
  )

  it.effect("a late answer is waited for when there is nothing else to try", () =>
    Effect.gen(function* () {
      const { exit, log } = yield* dialed({
        resolver: slowResolver({ IPv6: [1000, "6a"], IPv4: [0, "4a"] }),
        plans: { "4a": [0, refused], "6a": [5, "connects"] }
      })
      assert.isTrue(Exit.isSuccess(exit))
      assert.deepStrictEqual(log, ["50 4a starts", "50 4a fails", "1000 6a starts", "1005 6a wins"])
    })
  )

  it.effect("an answer that never comes holds up nobody who connects, and times out otherwise", () =>
    Effect.gen(function* () {
      const connects = yield* dialed({
        resolver: slowResolver({ IPv6: [1_000_000, "6a"], IPv4: [0, "4a"] }),
        plans: { "4a": [0, "connects"] }
      })
      assert.deepStrictEqual(connects.log, ["50 4a starts", "50 4a wins"])
      const { exit } = yield* race([1_000_000, "6a"], [1_000_000, "4a"])
      assert.strictEqual(failureOf(exit)._tag, "TimeoutError")
    })
  )

  it.effect("no answer at all: the name does not resolve", () =>
    Effect.gen(function* () {
      const { exit } = yield* race([10, ""], [20, ""])
      const error = failureOf(exit)
      assert(error._tag === "ConnectionError" && error.reason._tag === "NameNotResolved")
      assert.isUndefined(error.attempts)
    })
  )

  it.effect("a failure says more than a family without addresses", () =>
    Effect.gen(function* () {
      const failing = (family: NetAddress.IpFamily) =>
        Dialer.make({
          resolver: AddressResolver.make(
            Dns.make({
              lookup: (hostname, asked) =>
                Effect.fail(
                  new Dns.DnsError({
                    reason: asked === family ? "Temporary" : "NotFound",
                    method: "lookup",
                    hostname,
                    cause: { code: asked === family ? "EAI_AGAIN" : "ENOTFOUND" }
                  })
                ),
              resolve: () => Effect.die("unused"),
              reverse: () => Effect.die("unused")
            })
          ),
          connectOne: () => () => Effect.never
        })("name.test:80")
      for (const family of ["IPv4", "IPv6"] as const) {
        const error = yield* Effect.flip(failing(family))
        assert(error._tag === "ConnectionError")
        assert.strictEqual(error.reason.code, "EAI_AGAIN")
      }
    })
  )

  it.effect("a resolver that dies is not silenced", () =>
    Effect.gen(function* () {
      const { exit } = yield* dialed({ resolver: { resolve: () => Effect.die(new Error("a bug")) } })
      assert(Exit.isFailure(exit))
      assert.include(String(Cause.squash(exit.cause)), "a bug")
    })
  )
})

describe("options", () => {
  it.effect("out of range are defects", () =>
    Effect.gen(function* () {
      for (const happyEyeballs of [
        { delay: -1 },
        { delay: "-Infinity" },
        { resolutionDelay: -1 },
        { firstFamilyCount: -1 },
        { firstFamilyCount: 0.5 }
      ] as const) {
        const { exit, log } = yield* dialed({ resolver: staticResolver("6a"), options: { happyEyeballs } })
        assert(Exit.isFailure(exit))
        assert.instanceOf(Cause.squash(exit.cause), RangeError)
        assert.deepStrictEqual(log, [])
      }
    })
  )

  it.effect("localAddress chooses the family", () =>
    Effect.gen(function* () {
      const { log } = yield* dialed({
        resolver: staticResolver("6a 4a 4b"),
        plans: { "4b": [0, "connects"] },
        options: { localAddress: { host: "192.0.2.9" } }
      })
      assert.deepStrictEqual(log, ["0 4a starts", "250 4b starts", "250 4a given up", "250 4b wins"])

      const none = yield* dialed({
        resolver: staticResolver("6a 6b"),
        options: { localAddress: { host: "192.0.2.9" } }
      })
      assert.deepStrictEqual(none.log, [])
      assert.deepStrictEqual(attemptsOf(failureOf(none.exit)), [
        ["6a", "AddressNotAvailable"],
        ["6b", "AddressNotAvailable"]
      ])
      assert.include(
        failureOf(none.exit).message,
        "address not available: the local address 192.0.2.9 is of another family"
      )

      const unknown = yield* dialed({
        resolver: staticResolver(""),
        options: { localAddress: { host: "192.0.2.9" } }
      })
      const error = failureOf(unknown.exit)
      assert(error._tag === "ConnectionError")
      assert.strictEqual(error.reason._tag, "NameNotResolved")
    })
  )
})

describe("over the simulated network", () => {
  const network = TestNetwork.layerWith({
    hosts: { "db.internal": ["10.0.0.1", "fd00::1", "10.0.0.2"] },
    routes: {
      "fd00::1": { latency: Duration.infinity },
      "10.0.0.1": { latency: "20 millis", unreachable: true },
      "10.0.0.2": { latency: "30 millis" }
    }
  })

  it.effect("the listener sees the winner only", () =>
    Effect.gen(function* () {
      const { accept } = yield* (yield* Network.Network).listen({ port: 5432 })
      const connecting = yield* Effect.forkChild(Connection.connect("db.internal:5432"))
      yield* TestClock.adjust("299 millis")
      assert.isUndefined(connecting.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const connection = yield* Fiber.join(connecting)
      assert.strictEqual(String(connection.info.remoteAddress), "10.0.0.2:5432")
      const accepted = yield* Connection.make(yield* accept)
      const another = yield* Effect.forkChild(accept, { startImmediately: true })
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(another.pollUnsafe())
      yield* connection.abort
      yield* accepted.abort
    }).pipe(Effect.scoped, Effect.provide(network))
  )

  it.effect("nobody there: the black hole is what is waited for", () =>
    Effect.gen(function* () {
      const connecting = yield* Effect.forkChild(
        Effect.flip(Connection.connect("db.internal:5432", { connectTimeout: "3 seconds" }))
      )
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(
        (yield* Fiber.join(connecting)).message,
        "connect to db.internal:5432: timed out after 3s; " +
          `tried [fd00::1]:5432 (no answer), 10.0.0.1:5432 (host or network unreachable), 10.0.0.2:5432 (connection refused)${remedies.raise("connectTimeout")}`
      )
      const inOrder = yield* Effect.forkChild(
        Effect.flip(Connection.connect("db.internal:5432", { happyEyeballs: false }))
      )
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* Fiber.join(inOrder))._tag, "TimeoutError")
    }).pipe(Effect.scoped, Effect.provide(network))
  )

  it.effect("a route that is none is a defect", () =>
    Effect.gen(function* () {
      for (const routes of [{ "not an ip": {} }, { "10.0.0.1": { latency: -1 } }]) {
        const exit = yield* Effect.exit(TestNetwork.make({ routes }))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      }
    })
  )
})

describe("half of the addresses are black holes", () => {
  const good = Array.from({ length: 4 }, (_, n) => `192.0.2.${n + 1}`)
  const holes = Array.from({ length: 4 }, (_, n) => `198.51.100.${n + 1}`)
  const late = "203.0.113.1"
  const network = TestNetwork.layerWith({
    hosts: {
      "mixed.test": good.flatMap((ip, n) => [holes[n] ?? ip, ip]),
      "holes-first.test": [...holes, ...good],
      "late-first.test": [late, ...good],
      "holes.test": holes
    },
    routes: {
      ...Object.fromEntries(holes.map((ip) => [ip, { latency: Infinity }])),
      [late]: { latency: "400 millis" }
    }
  })
  const tls = { servername: "localhost" }

  /** 100 connects at once: what they came to, and after how many milliseconds each. */
  const connects = (host: string) =>
    Effect.gen(function* () {
      const running = yield* Effect.forkChild(
        Effect.forEach(
          Array.from({ length: 100 }),
          () =>
            Effect.gen(function* () {
              const begin = yield* Clock.currentTimeMillis
              const exit = yield* Effect.exit(
                Connection.use(
                  { host, port: 443 },
                  { tls, connectTimeout: "10 seconds" },
                  ({ info, reader }) => Effect.as(reader.readAll(), String(info.remoteAddress))
                )
              )
              return [outcome(exit), (yield* Clock.currentTimeMillis) - begin]
            }),
          { concurrency: "unbounded" }
        ),
        { startImmediately: true }
      )
      yield* TestClock.adjust("10 seconds")
      return [...new Set((yield* Fiber.join(running)).map((_) => _.join(" ")))]
    })

  for (const [host, expected, attempts] of [
    ["mixed.test", "success 250", 100],
    ["holes-first.test", "success 1000", 100],
    // It would have been answered, and was given up before that.
    ["late-first.test", "success 250", 100],
    ["holes.test", "TimeoutError connect 10000", 0]
  ] as const) {
    it.effect(`${host}: ${expected}, over TLS, and nothing is left of the other attempts`, () =>
      withSleepers((sleepers) =>
        withFibers((fibers) =>
          Effect.gen(function* () {
            const before = fibers()
            yield* Effect.scoped(
              Effect.gen(function* () {
                let served = 0
                const server = yield* Server.serve(
                  ({ writer }) =>
                    Effect.andThen(
                      Effect.sync(() => served++),
                      writer.write("hello")
                    ),
                  {
                    listen: { port: 443 },
                    tls: { identity: TestNetwork.identity() }
                  }
                )
                const idle = fibers()
                assert.deepStrictEqual(yield* connects(host), [expected])
                assert.strictEqual(served, attempts)
                assert.strictEqual(yield* server.activeConnections, 0)
                assert.deepStrictEqual(
                  { sleepers: sleepers(), fibers: fibers() },
                  { sleepers: 0, fibers: idle }
                )
              })
            )
            assert.deepStrictEqual(
              { sleepers: sleepers(), fibers: fibers() },
              { sleepers: 0, fibers: before }
            )
          })
        )
      ).pipe(Effect.provide(network))
    )
  }
})
