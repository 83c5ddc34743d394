/**
 * What servers, pools and links tell of themselves: metrics and spans.
 *
 * **Metrics.** Their values are read from the servers, pools and links when metrics are collected, and cost nothing in between.
 * Each series is there as long as its server, pool or link is; where several have the same name, it is their sum.
 * `Metric.snapshot` and Effect's exporters find them in the `MetricRegistry` of the context that the server, pool or link was
 * made in.
 *
 * **Spans.** They are made if a tracer other than Effect's default one is there, which keeps spans for nobody.
 *
 * - `Server.connection`, of the kind `server`, for each connection that a server accepts, from its beginning until its handler
 *   and the handler's scope are over. The handler runs in it: its own spans are children of it. It ends with the handler's exit,
 *   or with the error that kept the handler from running (a TLS handshake, a PROXY header). Its parent is the span that the
 *   server was started in; a server that was started in none begins a trace with each connection.
 * - `Connection.connect`, of the kind `client`, for each `Connection.connect`, and so for each connection of a pool or a link. It
 *   ends once there is the connection or the error.
 *
 * Their attributes are those of OpenTelemetry's semantic conventions: `network.transport` (`tcp`, `unix`, …), `network.type`
 * (`ipv4`, `ipv6`), `network.local.address`, `network.local.port`, `network.peer.address` and `network.peer.port` are of the
 * transport; `client.address` and `client.port` are the client's, as a PROXY header told it; `server.address` and
 * `server.port` are what `connect` was given; `tls.protocol.name`, `tls.protocol.version`, `tls.cipher` and
 * `tls.next_protocol` are there with TLS. `effect_wire.connection.id` is the `id` of the server's connection, which its events
 * have too.
 *
 * **Example** (A server's numbers)
 *
 * ```ts
 * import { Effect, Metric } from "effect"
 * import { Connection, Server, Telemetry } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const accepted = Metric.withAttributes(Telemetry.serverConnectionsAccepted, { server: "greeter" })
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve(({ writer }) => writer.write("hello\n"), { listen: { port: 7000 }, name: "greeter" })
 *   yield* Connection.use("localhost:7000", ({ reader }) => reader.readLine)
 *   yield* Connection.use("localhost:7000", ({ reader }) => reader.readLine)
 *   return yield* Metric.value(accepted)
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer))))
 * // { count: 2, incremental: true }
 * ```
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

const counter = (name: string, description: string): Metric.Counter<number> =>
  Metric.counter(name, { description, incremental: true })

/**
 * `effect_wire_server_connections_active`: connections that a server has now, those included that are in their handshake or
 * still closing. The attribute `server` is the server's `name`.
 *
 * **Example** (How many are there)
 *
 * ```ts
 * import { Effect, Metric } from "effect"
 * import { Connection, Server, Telemetry } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve(({ reader }) => reader.readAll(), { listen: { port: 7000 }, name: "sink" })
 *   const { writer } = yield* Connection.connect("localhost:7000")
 *   yield* writer.write("hello")
 *   yield* writer.flush
 *   return yield* Metric.value(Metric.withAttributes(Telemetry.serverConnectionsActive, { server: "sink" }))
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))) // { value: 1 }
 * ```
 *
 * @category server
 * @since 0.1.0
 */
export const serverConnectionsActive: Metric.Gauge<number> = Metric.gauge(
  "effect_wire_server_connections_active",
  { description: "Connections that are open" }
)

/**
 * `effect_wire_server_connections_accepted`: connections that a server has begun to serve since it was started. The attribute
 * `server` is the server's `name`.
 *
 * @category server
 * @since 0.1.0
 */
export const serverConnectionsAccepted: Metric.Counter<number> = counter(
  "effect_wire_server_connections_accepted",
  "Connections accepted"
)

/**
 * `effect_wire_server_connections_rejected`: those of the accepted connections that did not come to their handler, because
 * their PROXY header or TLS handshake failed. The attribute `server` is the server's `name`.
 *
 * @category server
 * @since 0.1.0
 */
export const serverConnectionsRejected: Metric.Counter<number> = counter(
  "effect_wire_server_connections_rejected",
  "Connections whose PROXY header or TLS handshake failed"
)

/**
 * `effect_wire_server_handler_failures`: handlers that failed or died; those that were interrupted are not counted. The
 * attribute `server` is the server's `name`.
 *
 * @category server
 * @since 0.1.0
 */
export const serverHandlerFailures: Metric.Counter<number> = counter(
  "effect_wire_server_handler_failures",
  "Handlers that failed or died"
)

/**
 * `effect_wire_server_accept_failures`: how often the system could not accept, for it was out of descriptors. The attribute
 * `server` is the server's `name`.
 *
 * @category server
 * @since 0.1.0
 */
export const serverAcceptFailures: Metric.Counter<number> = counter(
  "effect_wire_server_accept_failures",
  "Times that the system could not accept"
)

/**
 * `effect_wire_pool_in_use`: connections of a pool that are lent. The attribute `pool` is the pool's `name`.
 *
 * **Example** (How many are lent)
 *
 * ```ts
 * import { Effect, Metric } from "effect"
 * import { ConnectionPool, Server, Telemetry } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve(({ reader }) => reader.readAll(), { listen: { port: 7000 } })
 *   const pool = yield* ConnectionPool.make("localhost:7000", { name: "db" })
 *   yield* pool.get
 *   return yield* Metric.value(Metric.withAttributes(Telemetry.poolInUse, { pool: "db" }))
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))) // { value: 1 }
 * ```
 *
 * @category pool
 * @since 0.1.0
 */
export const poolInUse: Metric.Gauge<number> = Metric.gauge("effect_wire_pool_in_use", {
  description: "Connections that are lent"
})

/**
 * `effect_wire_pool_idle`: connections of a pool that are not lent. The attribute `pool` is the pool's `name`.
 *
 * @category pool
 * @since 0.1.0
 */
export const poolIdle: Metric.Gauge<number> = Metric.gauge("effect_wire_pool_idle", {
  description: "Connections that are not lent"
})

/**
 * `effect_wire_pool_waiting`: borrowers that wait for a connection of a pool. The attribute `pool` is the pool's `name`.
 *
 * @category pool
 * @since 0.1.0
 */
export const poolWaiting: Metric.Gauge<number> = Metric.gauge("effect_wire_pool_waiting", {
  description: "Borrowers that wait for a connection"
})

/**
 * `effect_wire_pool_created`: connections that a pool has made, their handshakes included. The attribute `pool` is the pool's
 * `name`.
 *
 * @category pool
 * @since 0.1.0
 */
export const poolCreated: Metric.Counter<number> = counter("effect_wire_pool_created", "Connections made")

/**
 * `effect_wire_pool_evicted`: connections that a pool has given up, for whatever reason but its own end. The attribute `pool`
 * is the pool's `name`.
 *
 * @category pool
 * @since 0.1.0
 */
export const poolEvicted: Metric.Counter<number> = counter(
  "effect_wire_pool_evicted",
  "Connections given up before the pool's end"
)

/**
 * `effect_wire_link_connected`: links that have a connection now, whose handshake is done. The attribute `link` is the link's
 * `name`.
 *
 * **Example** (Whether it is up)
 *
 * ```ts
 * import { Effect, Metric } from "effect"
 * import { Reconnect, Server, Telemetry } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   yield* Server.serve(({ reader }) => reader.readAll(), { listen: { port: 7000 } })
 *   const link = yield* Reconnect.make("localhost:7000", { name: "queue" })
 *   yield* link.get
 *   return yield* Metric.value(Metric.withAttributes(Telemetry.linkConnected, { link: "queue" }))
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))) // { value: 1 }
 * ```
 *
 * @category link
 * @since 0.1.0
 */
export const linkConnected: Metric.Gauge<number> = Metric.gauge("effect_wire_link_connected", {
  description: "Links that are connected"
})

/**
 * `effect_wire_link_attempts`: attempts of a link to connect, those that succeeded included. The attribute `link` is the link's
 * `name`.
 *
 * @category link
 * @since 0.1.0
 */
export const linkAttempts: Metric.Counter<number> = counter(
  "effect_wire_link_attempts",
  "Attempts to connect"
)

/**
 * `effect_wire_link_losses`: connections that a link has lost, whose handshake was done. The attribute `link` is the link's
 * `name`.
 *
 * @category link
 * @since 0.1.0
 */
export const linkLosses: Metric.Counter<number> = counter("effect_wire_link_losses", "Connections lost")
