import { assert, describe, it } from "@effect/vitest"
import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import {
  Cause,
  Effect,
  Exit,
  Layer,
  Metric,
  Option,
  References,
  Schedule,
  Scope,
  Stream,
  Tracer
} from "effect"
import { Connection, ConnectionPool, Network, Reconnect, Server, StreamError, Telemetry } from "effect-wire"
import { TestNetwork } from "effect-wire/testing"
import { HttpClient, HttpClientResponse } from "effect/http"
import { NetAddress } from "effect/net"
import { Otlp, OtlpSerialization, PrometheusMetrics } from "effect/observability"
import { TestClock } from "effect/testing"
import { vi } from "vitest"
import { aborting, outcome, outcomeOf, start, turns } from "./support/effects.ts"
import { makeTracer } from "./support/tracer.ts"

/** A test on the simulated network, with metrics of its own. */
const test = (name: string, body: () => Effect.Effect<void, unknown, Network.Network | Scope.Scope>) =>
  it.effect(name, () =>
    Effect.scoped(Effect.suspend(body)).pipe(
      Effect.provide(TestNetwork.layerWith({ hosts: { "db.internal": ["10.0.0.1"] } })),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  )

const listen = { host: "10.0.0.1", port: 7000 }
const address = "10.0.0.1:7000"
const localAddress = { host: "10.1.2.3" }
const silent = { onError: () => Effect.void }
const dial = (options?: Connection.ConnectionOptions) => aborting(Connection.connect(address, options))

const echoLine = ({ reader, writer }: Connection.Connection) => Effect.flatMap(reader.readLine, writer.write)

const request = (line: string, options?: Connection.ConnectionOptions) =>
  Effect.gen(function* () {
    const client = yield* Connection.connect(address, options)
    yield* client.writer.write(`${line}\n`)
    return yield* client.reader.readLine
  }).pipe(Effect.scoped, Effect.andThen(turns))

/** Handlers that end as they are told. */
const obedient = ({ reader }: Connection.Connection) =>
  Effect.flatMap(reader.readLineString, (line) => {
    const word = Option.getOrElse(line, () => "")
    if (word === "fail") return Effect.fail("no")
    if (word === "die") return Effect.die("broken")
    return word === "interrupt" ? Effect.interrupt : Effect.void
  })

/** What has been collected of some kind, in order. */
const collected = (prefix = "effect_wire_server_") =>
  Effect.map(Metric.snapshot, (all) =>
    all
      .filter(({ id }) => id.startsWith(prefix))
      .map(({ attributes, id, state }) => {
        const value = "count" in state ? state.count : "value" in state ? state.value : undefined
        return `${id.slice(prefix.length)} ${JSON.stringify(attributes)} ${value}`
      })
      .sort()
  )

/** A server's numbers, by name. */
const numbers = (server: string) =>
  Effect.gen(function* () {
    const value = <A>(metric: Metric.Metric<number, A>) =>
      Metric.value(Metric.withAttributes(metric, { server }))
    return {
      active: (yield* value(Telemetry.serverConnectionsActive)).value,
      accepted: (yield* value(Telemetry.serverConnectionsAccepted)).count,
      rejected: (yield* value(Telemetry.serverConnectionsRejected)).count,
      failures: (yield* value(Telemetry.serverHandlerFailures)).count,
      acceptFailures: (yield* value(Telemetry.serverAcceptFailures)).count
    }
  })

const none = { active: 0, accepted: 0, rejected: 0, failures: 0, acceptFailures: 0 }

describe("a server's metrics", () => {
  test("follow what is accepted, and what ends in which way", () =>
    Effect.gen(function* () {
      const server = yield* Server.serve(obedient, { listen, name: "obedient", ...silent })
      deepStrictEqual(yield* numbers("obedient"), none)
      const [first, second, third, fourth] = yield* Effect.all([dial(), dial(), dial(), dial()])
      yield* turns
      deepStrictEqual(yield* numbers("obedient"), { ...none, active: 4, accepted: 4 })

      yield* first.writer.write("end\n")
      yield* first.close
      yield* turns
      deepStrictEqual(yield* numbers("obedient"), { ...none, active: 3, accepted: 4 })
      for (const [client, word] of [
        [second, "fail"],
        [third, "die"],
        [fourth, "interrupt"]
      ] as const) {
        yield* client.writer.write(`${word}\n`)
        yield* turns
      }
      deepStrictEqual(yield* numbers("obedient"), { ...none, accepted: 4, failures: 2 })

      yield* dial()
      yield* turns
      const stopping = yield* start(server.shutdown({ grace: "1 second" }))
      yield* turns
      deepStrictEqual(yield* numbers("obedient"), { ...none, active: 1, accepted: 5, failures: 2 })
      yield* TestClock.adjust("1 second")
      strictEqual(outcome(stopping), "success")
      deepStrictEqual(yield* numbers("obedient"), { ...none, accepted: 5, failures: 2 })
    }))

  test("count whom a PROXY header or a TLS handshake kept out", () =>
    Effect.gen(function* () {
      yield* Server.serve(echoLine, {
        listen: { host: "10.0.0.1", port: 7000 },
        proxyProtocol: { trusted: ["10.0.0.0/8"] },
        name: "proxied"
      })
      yield* Server.serve(echoLine, {
        listen: { host: "10.0.0.1", port: 7001 },
        tls: { identity: TestNetwork.identity() },
        name: "secure"
      })
      yield* request("hello", { localAddress, proxyProtocol: {} })
      yield* Effect.exit(request("this is no PROXY header", { localAddress }))
      deepStrictEqual(yield* numbers("proxied"), { ...none, accepted: 2, rejected: 1 })

      const client = yield* aborting(Connection.connect("10.0.0.1:7001"))
      yield* client.writer.write("this is no TLS\n")
      yield* Effect.exit(client.reader.readAll())
      yield* client.close
      yield* turns
      deepStrictEqual(yield* numbers("secure"), { ...none, accepted: 1, rejected: 1 })
    }))

  it.effect("count how often the system could not accept", () => {
    let broken = true
    const exhausted = new StreamError.ListenError({
      address,
      reason: new StreamError.ResourcesExhausted({ code: "EMFILE" })
    })
    const network = Layer.succeed(
      Network.Network,
      Network.Network.of({
        connect: () => Effect.die("not used"),
        listen: () =>
          Effect.succeed({
            address: NetAddress.inetAddressUnsafe(NetAddress.ipv4Loopback, 7000),
            accept: Effect.suspend(() => (broken ? Effect.fail(exhausted) : Effect.never)),
            close: Effect.void
          })
      })
    )
    return Effect.gen(function* () {
      yield* Server.serve(echoLine, { listen, name: "poor" })
      yield* TestClock.adjust("99 millis")
      strictEqual((yield* numbers("poor")).acceptFailures, 1)
      yield* TestClock.adjust("1 millis")
      strictEqual((yield* numbers("poor")).acceptFailures, 2)
      broken = false
      yield* TestClock.adjust("1 minute")
      strictEqual((yield* numbers("poor")).acceptFailures, 2)
    }).pipe(
      Effect.scoped,
      Effect.provide(network),
      Effect.provideService(Metric.MetricRegistry, new Map()),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
  })

  test("are called after the server's addresses, and gone with the server; no connection adds any", () =>
    Effect.gen(function* () {
      const registry = yield* Metric.MetricRegistry
      const scope = yield* Scope.make()
      const both = { listen: [listen, { host: "::1", port: 7000 }] }
      yield* Scope.provide(Server.serve(echoLine, both), scope)
      const names = '{"server":"10.0.0.1:7000, [::1]:7000"}'
      const expected = (accepted: number) => [
        `accept_failures ${names} 0`,
        `connections_accepted ${names} ${accepted}`,
        `connections_active ${names} 0`,
        `connections_rejected ${names} 0`,
        `handler_failures ${names} 0`
      ]
      deepStrictEqual(yield* collected(), expected(0))
      for (let i = 0; i < 3; i++) yield* request("hello")
      deepStrictEqual(yield* collected(), expected(3))
      strictEqual(registry.size, 5)
      yield* Scope.close(scope, Exit.void)
      strictEqual(registry.size, 0)
    }))

  test("of servers with the same name are their sum, in which a counter never goes back", () =>
    Effect.gen(function* () {
      const scopes = [yield* Scope.make(), yield* Scope.make()] as const
      for (const [i, scope] of scopes.entries()) {
        const own = { listen: { host: "10.0.0.1", port: 7000 + i }, name: "one", grace: 0 }
        yield* Scope.provide(Server.serve(echoLine, own), scope)
      }
      yield* request("hello")
      yield* aborting(Connection.connect("10.0.0.1:7000"))
      yield* aborting(Connection.connect("10.0.0.1:7001"))
      yield* turns
      deepStrictEqual(yield* numbers("one"), { ...none, active: 2, accepted: 3 })
      yield* Scope.close(scopes[0], Exit.void)
      deepStrictEqual(yield* numbers("one"), { ...none, active: 1, accepted: 3 })
      yield* Scope.close(scopes[1], Exit.void)
      deepStrictEqual(yield* collected(), [])
      yield* Server.serve(echoLine, { listen, name: "one" })
      strictEqual((yield* collected()).length, 5)
      yield* request("hello")
      deepStrictEqual(yield* numbers("one"), { ...none, accepted: 1 })
    }))

  test("keep to their registry, and to the attributes that are there", () =>
    Effect.gen(function* () {
      const serve = (port: number) =>
        Server.serve(echoLine, { listen: { host: "10.0.0.1", port }, name: "same" })
      const zone = (name: string) => Effect.provideService(Metric.CurrentMetricAttributes, { zone: name })
      yield* serve(7000).pipe(zone("east"))
      yield* serve(7001).pipe(zone("west"))
      yield* serve(7002).pipe(zone("east"), Effect.provideService(Metric.MetricRegistry, new Map()))
      for (const port of [7000, 7001, 7002]) yield* aborting(Connection.connect({ host: "10.0.0.1", port }))
      yield* turns
      deepStrictEqual(
        (yield* collected()).filter((_) => _.startsWith("connections_active")),
        [
          'connections_active {"zone":"east","server":"same"} 1',
          'connections_active {"zone":"west","server":"same"} 1'
        ]
      )
    }))
})

describe("a pool's metrics", () => {
  test("of pools with the same name are their sum", () =>
    Effect.gen(function* () {
      yield* Server.serve(echoLine, { listen })
      const pool = () => ConnectionPool.make(address, { max: 1 })
      yield* (yield* pool()).get
      yield* Effect.scoped(Effect.flatMap(pool(), (_) => _.get))
      yield* (yield* pool()).get
      deepStrictEqual(yield* collected("effect_wire_pool_"), [
        `created {"pool":"${address}"} 3`,
        `evicted {"pool":"${address}"} 0`,
        `idle {"pool":"${address}"} 0`,
        `in_use {"pool":"${address}"} 2`,
        `waiting {"pool":"${address}"} 0`
      ])
    }))
})

describe("a link's metrics", () => {
  test("follow its attempts, and its connections", () =>
    Effect.gen(function* () {
      const expect = (attempts: number, connected: number, losses: number) =>
        Effect.map(collected("effect_wire_link_"), (all) =>
          deepStrictEqual(all, [
            `attempts {"link":"${address}"} ${attempts}`,
            `connected {"link":"${address}"} ${connected}`,
            `losses {"link":"${address}"} ${losses}`
          ])
        )
      const scope = yield* Scope.make()
      const serve = Server.serve(({ reader }) => reader.readAll(), { listen, grace: 0 })
      const link = yield* Scope.provide(
        Reconnect.make(address, { schedule: Schedule.spaced("1 second") }),
        scope
      )
      yield* turns
      yield* expect(1, 0, 0)
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* serve
          yield* TestClock.adjust("1 second")
          yield* expect(2, 1, 0)
        })
      )
      yield* turns
      yield* expect(2, 0, 1)
      yield* serve
      yield* TestClock.adjust("1 second")
      yield* expect(3, 1, 1)
      // Not lost, but given up.
      yield* link.close
      yield* expect(3, 0, 1)
      yield* Scope.close(scope, Exit.void)
      deepStrictEqual(yield* collected("effect_wire_link_"), [])
    }))

  test("of links that are made in other ways go by their names", () =>
    Effect.gen(function* () {
      yield* Server.serve(({ reader }) => reader.readAll(), { listen })
      for (const name of ["one", "two", "two", undefined]) {
        yield* (yield* Reconnect.fromEffect(Connection.connect(address), { name })).get
      }
      deepStrictEqual(
        (yield* collected("effect_wire_link_connected")).map((_) => _.trim()),
        ['{"link":"one"} 1', '{"link":"two"} 2', '{"link":"unnamed"} 1']
      )
    }))
})

const ending = ({ status }: Tracer.Span) => (status._tag === "Started" ? "running" : outcome(status.exit))

const secondsOf = ({ status }: Tracer.Span) =>
  status._tag === "Ended" ? Number(status.endTime - status.startTime) / 1e9 : undefined

/** All but the connection's id, which depends on what other tests do. */
const attributesOf = ({ attributes }: Tracer.Span) => {
  const { "effect_wire.connection.id": _, ...others } = Object.fromEntries(attributes)
  return others
}

const parentOf = ({ parent }: Tracer.Span) => Option.getOrUndefined(parent)?.spanId

/** A test that is traced. */
const traced = (
  name: string,
  body: (spans: ReturnType<typeof makeTracer>) => Effect.Effect<void, unknown, Network.Network | Scope.Scope>
) =>
  test(name, () => {
    const spans = makeTracer()
    return Effect.withTracer(body(spans), spans.tracer)
  })

describe("a server's spans", () => {
  traced("one for each connection, which ends as its handler and the handler's scope do", ({ named }) =>
    Effect.gen(function* () {
      const spans = () => named("Server.connection")
      let cleaned = ""
      yield* Server.serve(
        (connection) =>
          Effect.andThen(
            Effect.addFinalizer(() => Effect.sync(() => (cleaned = spans().map(ending).join()))),
            obedient(connection)
          ),
        { listen, ...silent }
      )
      deepStrictEqual(spans(), [])
      const words = ["end", "fail", "die", "interrupt"]
      const clients = yield* Effect.forEach(words, () => dial())
      yield* turns
      deepStrictEqual(spans().map(ending), ["running", "running", "running", "running"])
      for (const [i, client] of clients.entries()) {
        yield* TestClock.adjust("1 second")
        yield* client.writer.write(`${words[i]}\n`)
        yield* turns
        if (i === 0) strictEqual(cleaned, "running,running,running,running")
      }
      deepStrictEqual(spans().map(ending), ["success", "no", "defect broken", "interrupted"])
      deepStrictEqual(
        spans().map((_) => [_.kind, secondsOf(_)]),
        [
          ["server", 1],
          ["server", 2],
          ["server", 3],
          ["server", 4]
        ]
      )
    })
  )

  traced("are told apart from those of a shutdown, which interrupts", ({ named }) =>
    Effect.gen(function* () {
      const server = yield* Server.serve(obedient, { listen })
      yield* dial()
      yield* turns
      yield* server.shutdown({ grace: 0 })
      deepStrictEqual(named("Server.connection").map(ending), ["interrupted"])
    })
  )

  traced(
    "are children of the span that the server was started in, and parents of the handler's",
    ({ named }) =>
      Effect.gen(function* () {
        const handler = (connection: Connection.Connection) =>
          Effect.withSpan(Effect.scoped(echoLine(connection)), "handling")
        yield* Effect.withSpan(Server.serve(handler, { listen }), "starting")
        for (let i = 0; i < 2; i++) yield* request("hello")
        const [starting] = named("starting")
        const connections = named("Server.connection")
        strictEqual(connections.length, 2)
        assert.isDefined(starting)
        deepStrictEqual(connections.map(parentOf), [starting?.spanId, starting?.spanId])
        deepStrictEqual(
          named("handling").map(parentOf),
          connections.map((_) => _.spanId)
        )
      })
  )

  traced(
    "begin traces of their own where there is no span; what reports a failure is in the same one",
    ({ named }) =>
      Effect.gen(function* () {
        const reported: Array<string | undefined> = []
        yield* Server.serve(obedient, {
          listen,
          onError: () =>
            Effect.map(Effect.option(Effect.currentParentSpan), (span) =>
              reported.push(Option.getOrUndefined(span)?.spanId)
            )
        })
        for (let i = 0; i < 2; i++) yield* Effect.exit(request("fail"))
        const [first, second] = named("Server.connection")
        deepStrictEqual([first && parentOf(first), second && parentOf(second)], [undefined, undefined])
        assert.notStrictEqual(first?.traceId, second?.traceId)
        deepStrictEqual(reported, [first?.spanId, second?.spanId])
      })
  )

  traced("say who speaks with whom over what", ({ named }) =>
    Effect.gen(function* () {
      yield* Server.serve(echoLine, { listen })
      yield* Server.serve(echoLine, { listen: { host: "::1", port: 7001 } })
      yield* Server.serve(echoLine, { listen: { path: "/run/test.sock" } })
      yield* dial({ localAddress: { host: "10.1.2.3", port: 4000 } })
      yield* aborting(Connection.connect("[::1]:7001", { localAddress: { host: "::1", port: 4001 } }))
      yield* aborting(Connection.connect({ path: "/run/test.sock" }))
      yield* turns
      deepStrictEqual(named("Server.connection").map(attributesOf), [
        {
          "network.transport": "memory",
          "network.type": "ipv4",
          "network.local.address": "10.0.0.1",
          "network.local.port": 7000,
          "network.peer.address": "10.1.2.3",
          "network.peer.port": 4000,
          "client.address": "10.1.2.3",
          "client.port": 4000
        },
        {
          "network.transport": "memory",
          "network.type": "ipv6",
          "network.local.address": "::1",
          "network.local.port": 7001,
          "network.peer.address": "::1",
          "network.peer.port": 4001,
          "client.address": "::1",
          "client.port": 4001
        },
        {
          "network.transport": "memory",
          "network.local.address": "/run/test.sock"
        }
      ])
    })
  )

  traced("have the connection's id, as the server's events do", ({ named }) =>
    Effect.gen(function* () {
      const ids: Array<string> = []
      const server = yield* Server.serve(echoLine, { listen })
      yield* start(
        Stream.runForEach(server.events, (event) =>
          Effect.sync(() => {
            if (event._tag === "Closed") ids.push(event.id)
          })
        )
      )
      for (let i = 0; i < 2; i++) yield* request("hello")
      strictEqual(ids.length, 2)
      deepStrictEqual(
        named("Server.connection").map(({ attributes }) => attributes.get("effect_wire.connection.id")),
        ids
      )
    })
  )

  traced("say what TLS and a PROXY header told", ({ named }) =>
    Effect.gen(function* () {
      yield* Server.serve(echoLine, {
        listen,
        tls: { identity: TestNetwork.identity({ names: ["db.internal"] }), alpn: ["db/1"] },
        proxyProtocol: { trusted: ["10.0.0.0/8"] }
      })
      const client = Connection.connect("db.internal:7000", {
        localAddress: { host: "10.1.2.3", port: 4000 },
        proxyProtocol: {
          addresses: {
            source: NetAddress.inetAddressUnsafe(NetAddress.ipFromStringUnsafe("192.0.2.7"), 5000),
            destination: NetAddress.inetAddressUnsafe(NetAddress.ipFromStringUnsafe("192.0.2.1"), 443)
          }
        },
        tls: { alpn: ["db/1"] }
      })
      yield* aborting(client)
      yield* turns
      const [span] = named("Server.connection")
      const tls = {
        "tls.protocol.name": "tls",
        "tls.protocol.version": "1.3",
        "tls.cipher": "TLS_NULL_WITH_NULL_NULL",
        "tls.next_protocol": "db/1"
      }
      deepStrictEqual(span && attributesOf(span), {
        "network.transport": "memory",
        "network.type": "ipv4",
        "network.local.address": "10.0.0.1",
        "network.local.port": 7000,
        "network.peer.address": "10.1.2.3",
        "network.peer.port": 4000,
        "client.address": "192.0.2.7",
        "client.port": 5000,
        ...tls
      })
      const [connecting] = named("Connection.connect")
      assert.deepInclude(Object.fromEntries(connecting?.attributes ?? []), {
        "server.address": "db.internal",
        "server.port": 7000,
        ...tls
      })
    })
  )

  traced("end with what kept the handler from running", ({ named }) =>
    Effect.gen(function* () {
      yield* Server.serve(echoLine, { listen, proxyProtocol: { trusted: ["10.0.0.0/8"] } })
      yield* Server.serve(echoLine, {
        listen: { host: "10.0.0.1", port: 7001 },
        tls: { identity: TestNetwork.identity(), handshakeTimeout: "3 seconds" }
      })
      yield* Effect.exit(request("this is no PROXY header", { localAddress }))
      yield* aborting(Connection.connect("10.0.0.1:7001"))
      yield* TestClock.adjust("3 seconds")
      yield* turns
      const spans = named("Server.connection")
      deepStrictEqual(spans.map(ending), ["ProxyProtocolError", "TimeoutError handshake"])
      deepStrictEqual(spans.map(secondsOf), [0, 3])
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  )
})

describe("a client's spans", () => {
  traced("one for each attempt to connect, as long as it takes", ({ named }) =>
    Effect.gen(function* () {
      yield* Server.serve(echoLine, { listen })
      const program = Effect.gen(function* () {
        yield* aborting(Connection.connect("db.internal:7000"))
        yield* outcomeOf(Connection.connect("10.0.0.1:7001"))
        yield* outcomeOf(Connection.connect({ path: "/nobody" }))
        yield* outcomeOf(Connection.connect("nowhere"))
      })
      yield* Effect.withSpan(program, "asking")
      const spans = named("Connection.connect")
      deepStrictEqual(spans.map(ending), ["success", "ConnectionRefused", "NotFound", "InvalidAddress"])
      deepStrictEqual(
        spans.map((_) => [_.kind, parentOf(_)]),
        spans.map(() => ["client", named("asking")[0]?.spanId])
      )
      const [connected, ...failed] = spans.map(({ attributes }) => Object.fromEntries(attributes))
      assert.deepInclude(connected, {
        "server.address": "db.internal",
        "server.port": 7000,
        "network.transport": "memory",
        "network.type": "ipv4",
        "network.peer.address": "10.0.0.1",
        "network.peer.port": 7000
      })
      deepStrictEqual(failed, [
        { "server.address": "10.0.0.1", "server.port": 7001 },
        { "server.address": "/nobody" },
        { "server.address": "nowhere" }
      ])
    })
  )

  traced("also for the connections of pools and links", ({ named }) =>
    Effect.gen(function* () {
      yield* Server.serve(({ reader }) => reader.readAll(), { listen })
      const pool = yield* ConnectionPool.make(address)
      for (let i = 0; i < 3; i++) yield* pool.use(() => Effect.void)
      yield* (yield* Reconnect.make(address)).get
      deepStrictEqual(named("Connection.connect").map(ending), ["success", "success"])
    })
  )

  traced("end interrupted with who connects, and are parents of what it takes", ({ named }) =>
    Effect.gen(function* () {
      const network = Network.Network.of({
        connect: () => Effect.withSpan(Effect.never, "looking up"),
        listen: () => Effect.never
      })
      const connecting = yield* start(
        Effect.scoped(Connection.connect(address)).pipe(Effect.provideService(Network.Network, network))
      )
      deepStrictEqual(named("Connection.connect").map(ending), ["running"])
      yield* connecting.interrupt
      const [span] = named("Connection.connect")
      deepStrictEqual(
        [span && ending(span), span?.spanId],
        ["interrupted", ...named("looking up").map(parentOf)]
      )
    })
  )
})

describe("where nobody looks", () => {
  const conversation = Effect.gen(function* () {
    const parents: Array<unknown> = []
    const handler = (connection: Connection.Connection) =>
      Effect.andThen(
        Effect.map(Effect.option(Effect.currentParentSpan), (_) =>
          parents.push(Option.getOrUndefined(_)?.spanId)
        ),
        obedient(connection)
      )
    yield* Server.serve(handler, { listen, ...silent })
    for (const word of ["end", "fail", "die"]) yield* Effect.exit(request(word))
    return parents
  })

  test("Effect's own tracer is asked for no span", () =>
    Effect.gen(function* () {
      const asked = vi.spyOn(Tracer.nativeTracer, "span")
      yield* Effect.addFinalizer(() => Effect.sync(() => asked.mockRestore()))
      deepStrictEqual(yield* conversation, [undefined, undefined, undefined])
      strictEqual(asked.mock.calls.length, 0)
    }))

  test("nor is one where tracing is switched off", () => {
    const { spans, tracer } = makeTracer()
    return Effect.gen(function* () {
      deepStrictEqual(yield* conversation, [undefined, undefined, undefined])
      deepStrictEqual(
        spans.map((_) => _.name),
        []
      )
    }).pipe(Effect.withTracer(tracer), Effect.withTracerEnabled(false))
  })

  test("the handler keeps the parent that it has", () =>
    Effect.gen(function* () {
      const parents = yield* Effect.withParentSpan(
        conversation,
        Tracer.externalSpan({ spanId: "outer", traceId: "trace" })
      )
      deepStrictEqual(parents, ["outer", "outer", "outer"])
    }))
})

test("a tracer that throws costs its connection, and nothing else", () => {
  let calls = 0
  const tracer = Tracer.make({
    span: (options) => {
      if (options.name === "Server.connection" && ++calls === 1) throw new Error("no span")
      return new Tracer.NativeSpan(options)
    }
  })
  const causes: Array<string> = []
  return Effect.gen(function* () {
    yield* Server.serve(echoLine, {
      listen,
      onError: (cause) => Effect.sync(() => causes.push(String(Cause.squash(cause))))
    })
    yield* outcomeOf(request("hello"))
    strictEqual(yield* outcomeOf(request("hello")), "success")
    deepStrictEqual(causes, ["Error: no span"])
  }).pipe(Effect.withTracer(tracer))
})

describe("Effect's exporters", () => {
  test("show a server's numbers to Prometheus", () =>
    Effect.gen(function* () {
      yield* Server.serve(echoLine, { listen, name: 'of "all"' })
      yield* dial()
      yield* turns
      const text = yield* PrometheusMetrics.format()
      assert.include(text, "# TYPE effect_wire_server_connections_active gauge")
      assert.include(text, '\neffect_wire_server_connections_active{server="of \\"all\\""} 1\n')
      assert.include(text, "# TYPE effect_wire_server_connections_accepted counter")
      assert.include(text, '\neffect_wire_server_connections_accepted{server="of \\"all\\""} 1\n')
    }))

  test("send metrics and spans to a collector", () => {
    const sent = { traces: "", metrics: "" }
    const collector = HttpClient.make((request, { pathname }) =>
      Effect.sync(() => {
        const text = request.body._tag === "Uint8Array" ? new TextDecoder().decode(request.body.body) : ""
        if (pathname === "/v1/traces") sent.traces += text
        if (pathname === "/v1/metrics") sent.metrics += text
        return HttpClientResponse.fromWeb(request, new Response("{}"))
      })
    )
    const exporters = Otlp.layer({
      baseUrl: "http://127.0.0.1:4318",
      metricsExportInterval: "10 seconds",
      tracerExportInterval: "5 seconds",
      resource: { serviceName: "test" }
    }).pipe(
      Layer.provide(OtlpSerialization.layerJson),
      Layer.provide(Layer.succeed(HttpClient.HttpClient, collector))
    )
    return Effect.gen(function* () {
      yield* Server.serve(obedient, { listen, ...silent })
      yield* Effect.exit(request("fail"))
      yield* TestClock.adjust("10 seconds")
      assert.match(sent.traces, /"name":"Connection.connect","kind":3,.*"status":\{"code":1\}/)
      assert.match(sent.traces, /"name":"Server.connection","kind":2,.*"status":\{"code":2,"message":"no"\}/)
      assert.match(
        sent.metrics,
        /"name":"effect_wire_server_handler_failures",.*"stringValue":"10.0.0.1:7000"/
      )
    }).pipe(Effect.provide(exporters))
  })
})
