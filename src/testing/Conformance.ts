/**
 * The laws of transports, connections, readers, writers and servers, as test cases that anyone can run.
 *
 * Whoever writes a transport proves it with `transport`; whoever writes a `Network` proves it with `server`. Each law
 * becomes a case of `@effect/vitest`, which this package asks for as an optional peer: it is looked for when the first
 * suite is registered, so that `effect-wire/testing` can be imported where no test runs. Another test runner takes the
 * laws themselves, which are plain effects.
 *
 * No check sleeps: time is a `TestClock`'s, one for each check, and everything else is waited for. So they run over real
 * sockets as they do in memory.
 *
 * **Example** (Proving a transport)
 *
 * ```ts no-run
 * import { describe } from "@effect/vitest"
 * import { MemoryTransport } from "effect-wire"
 * import { Conformance } from "effect-wire/testing"
 *
 * describe("MemoryTransport", () => {
 *   Conformance.transport(Conformance.layerPair(MemoryTransport.makePair()))
 * })
 * ```
 *
 * **Example** (Without a test runner)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { MemoryTransport } from "effect-wire"
 * import { Conformance } from "effect-wire/testing"
 *
 * const layer = Conformance.layerPair(MemoryTransport.makePair())
 *
 * const program = Effect.forEach(Conformance.transportLaws, ({ check, name }) =>
 *   Effect.provide(check, layer).pipe(Effect.orDie, Effect.as(name))
 * )
 *
 * console.log((await Effect.runPromise(program))[0]) // can do what it is said to be able to
 * ```
 *
 * @since 0.1.0
 */
import type * as Vitest from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Connection from "../Connection.ts"
import { type ListenAddress, Network } from "../Network.ts"
import type { ListenError } from "../StreamError.ts"
import type { Transport } from "../Transport.ts"
import { connectionLaws as lawsOfConnections, scopeLaws } from "./internal/connectionLaws.ts"
import * as Harness from "./internal/harness.ts"
import { readerLaws as lawsOfReaders } from "./internal/readerLaws.ts"
import { serverLaws as lawsOfServers } from "./internal/serverLaws.ts"
import { transportLaws as lawsOfTransports } from "./internal/transportLaws.ts"
import { writerLaws as lawsOfWriters } from "./internal/writerLaws.ts"

/**
 * What a transport can do. The laws hold it to exactly that: what it cannot do must fail as it should.
 *
 * @category models
 * @since 0.1.0
 */
export interface Capabilities {
  /** Whether one direction can be ended alone: `Transport.canEnd`. */
  readonly halfClose: boolean
  /** Whether a close waits for the peer's end: `Transport.canLinger`. Default: what `halfClose` is. */
  readonly linger?: boolean | undefined
  /**
   * How the peer sees an `abort`: as `ConnectionReset`, as some failure, or as an end of input. The last is what a
   * transport has that knows one end only, as a Unix socket does; nobody can tell then whether a message was cut short.
   */
  readonly abort: "reset" | "failure" | "end"
  /** Whether bytes are delivered before anybody asks for them: `Transport.readAhead`. */
  readonly readAhead: boolean
  /**
   * Whether a peer that does not read holds up the writer. Without it, every write has left at once, for a buffer that
   * grows without bound: no transport should be so, but whoever writes to a WebSocket is not told how it gets on.
   */
  readonly backpressure: boolean
}

/**
 * What TCP and memory can do: everything, and an `abort` is a reset.
 *
 * @category models
 * @since 0.1.0
 */
export const defaultCapabilities: Capabilities = {
  halfClose: true,
  abort: "reset",
  readAhead: true,
  backpressure: true
}

/**
 * Makes pairs of connected transports that were not started, each pair anew.
 *
 * @category services
 * @since 0.1.0
 */
export const Pair = Harness.Pair
/**
 * @category services
 * @since 0.1.0
 */
export type Pair = Harness.Pair

/**
 * Makes pairs of connections to each other, with the options of either. Checks abort them when they are over.
 *
 * @category services
 * @since 0.1.0
 */
export const Connections = Harness.Connections
/**
 * @category services
 * @since 0.1.0
 */
export type Connections = Harness.Connections

/**
 * A law: its name, and an effect that dies or fails where it does not hold.
 *
 * @category models
 * @since 0.1.0
 */
export interface Law<R> {
  readonly name: string
  readonly check: Effect.Effect<void, unknown, R>
}

/**
 * Pairs of transports, made by an effect.
 *
 * **Example** (A transport that cannot be ended alone)
 *
 * ```ts no-run
 * import { Effect } from "effect"
 * import { SocketTransport } from "effect-wire"
 * import { Conformance } from "effect-wire/testing"
 * import type { Socket } from "effect/socket"
 *
 * export const prove = (socket: Socket.Socket, peer: Socket.Socket) =>
 *   Conformance.transport(
 *     Conformance.layerPair(Effect.all([SocketTransport.make(socket), SocketTransport.make(peer)]), {
 *       halfClose: false,
 *       abort: "failure",
 *       backpressure: false
 *     })
 *   )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerPair = <E>(
  make: Effect.Effect<readonly [left: Transport, right: Transport], E, Scope.Scope>,
  capabilities?: Partial<Capabilities>
): Layer.Layer<Pair> =>
  Layer.succeed(Pair, Pair.of({ make, capabilities: { ...defaultCapabilities, ...capabilities } }))

/**
 * Pairs of transports that a network makes of a connect and an accept, at an address of it: its port 0 by default.
 *
 * **Example** (The transports of a network in memory)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Conformance, TestNetwork } from "effect-wire/testing"
 *
 * const layer = Layer.provide(Conformance.layerNetwork({ path: "/run/app.sock" }), TestNetwork.layer)
 *
 * const program = Effect.gen(function* () {
 *   const { make } = yield* Conformance.Pair
 *   const [near] = yield* make
 *   return near.kind
 * })
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(layer)))) // memory
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNetwork = (
  address: ListenAddress = { host: "127.0.0.1", port: 0 },
  capabilities?: Partial<Capabilities>
): Layer.Layer<Pair, ListenError, Network> =>
  Layer.effect(
    Pair,
    Effect.gen(function* () {
      const network = yield* Network
      const listener = yield* network.listen(address)
      return Pair.of({
        make: Effect.all([network.connect(listener.address), listener.accept], { concurrency: "unbounded" }),
        capabilities: { ...defaultCapabilities, ...capabilities }
      })
    })
  )

/**
 * Pairs of connections, made by a function of their options.
 *
 * **Example** (Connections over connections)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-wire"
 * import { Conformance } from "effect-wire/testing"
 *
 * const layer = Conformance.layerConnections(
 *   Effect.fnUntraced(function* (options, peerOptions) {
 *     const [near, far] = yield* Connection.pair()
 *     return [
 *       Connection.withTimeouts(near, { read: options?.readTimeout, write: options?.writeTimeout }),
 *       Connection.withTimeouts(far, { read: peerOptions?.readTimeout, write: peerOptions?.writeTimeout })
 *     ] as const
 *   })
 * )
 *
 * const [first] = Conformance.readerLaws
 * if (first !== undefined) await Effect.runPromise(Effect.provide(first.check, layer))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConnections = <E>(
  connect: (
    options?: Connection.Options,
    peerOptions?: Connection.Options
  ) => Effect.Effect<readonly [near: Connection.Connection, far: Connection.Connection], E, Scope.Scope>,
  capabilities?: Partial<Capabilities>
): Layer.Layer<Connections> =>
  Layer.succeed(
    Connections,
    Connections.of({ connect, capabilities: { ...defaultCapabilities, ...capabilities } })
  )

/**
 * Connections over pairs of transports.
 *
 * **Example** (The laws of writing, over a transport)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { MemoryTransport } from "effect-wire"
 * import { Conformance } from "effect-wire/testing"
 *
 * const transports = Conformance.layerPair(MemoryTransport.makePair())
 * const layer = Layer.provide(Conformance.layerConnectionsOfPair, transports)
 *
 * const [first] = Conformance.writerLaws
 * if (first !== undefined) await Effect.runPromise(Effect.provide(first.check, layer))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConnectionsOfPair: Layer.Layer<Connections, never, Pair> = Harness.layerConnections

/**
 * The laws of the `Transport` interface itself, and of the scopes that own a connection.
 *
 * @category laws
 * @since 0.1.0
 */
export const transportLaws: ReadonlyArray<Law<Pair>> = [...lawsOfTransports, ...scopeLaws]

/**
 * The laws of a connection's life: half-close, close, abort, and how the other side and whoever waits learn of it.
 *
 * @category laws
 * @since 0.1.0
 */
export const connectionLaws: ReadonlyArray<Law<Connections>> = lawsOfConnections

/**
 * The laws of reading: what each operation consumes on success, on timeout, on interruption at every step, on overrun and
 * at the end of input; the order of concurrent reads; failures; bounded memory.
 *
 * @category laws
 * @since 0.1.0
 */
export const readerLaws: ReadonlyArray<Law<Connections>> = lawsOfReaders

/**
 * The laws of writing: order, whole writes, backpressure, drain and flush, the end, and that every write settles, also
 * when it is interrupted at any step.
 *
 * @category laws
 * @since 0.1.0
 */
export const writerLaws: ReadonlyArray<Law<Connections>> = lawsOfWriters

/**
 * The laws of servers, and of the network below them. They listen on 127.0.0.1, 127.0.0.2 and ::1.
 *
 * @category laws
 * @since 0.1.0
 */
export const serverLaws: ReadonlyArray<Law<Network>> = lawsOfServers

/** The longest check, on a busy machine. */
const TIMEOUT = 30_000

type Runner = Pick<typeof Vitest, "describe" | "it">

/** The test runner. It is loaded when it is needed, and at once: suites are registered while a test file is loaded. */
const runner = (): Runner =>
  process.getBuiltinModule("node:module").createRequire(import.meta.url)("@effect/vitest") as Runner

const register = <R, E>(title: string, laws: ReadonlyArray<Law<R>>, layer: Layer.Layer<R, E>): void => {
  const { describe, it } = runner()
  describe(title, () => {
    for (const { check, name } of laws) {
      it.effect(name, () => Effect.provide(check, layer, { local: true }), TIMEOUT)
    }
  })
}

/** The pairs of transports that there are, or those of the network that there is. */
const pairsOf = <R>(context: Context.Context<R>): Layer.Layer<Pair, ListenError> =>
  Option.match(Context.getOption(context, Pair), {
    onNone: () => Layer.provide(layerNetwork(), Layer.succeed(Network, Context.getUnsafe(context, Network))),
    onSome: (pair) => Layer.succeed(Pair, pair)
  })

const connectionsOf = <R>(context: Context.Context<R>): Layer.Layer<Connections, ListenError> =>
  Option.match(Context.getOption(context, Connections), {
    onNone: () => Layer.provide(layerConnectionsOfPair, pairsOf(context)),
    onSome: (connections) => Layer.succeed(Connections, connections)
  })

const registerConnections = <E>(
  title: string,
  laws: ReadonlyArray<Law<Connections>>,
  layer: Layer.Layer<never, E>
): void => register(title, laws, Layer.flatMap(layer, connectionsOf))

/**
 * Registers everything that a transport has to hold: `transportLaws`, and the laws of connections, readers and writers
 * over it. To be called where tests are defined: in a test file, or in a `describe`.
 *
 * The layer is one of pairs, or a network's: its transports are then those of `layerNetwork()`.
 *
 * **Example** (A transport in memory)
 *
 * ```ts no-run
 * import { MemoryTransport } from "effect-wire"
 * import { Conformance } from "effect-wire/testing"
 *
 * Conformance.transport(Conformance.layerPair(MemoryTransport.makePair()))
 * ```
 *
 * @category suites
 * @since 0.1.0
 */
export const transport = <E>(layer: Layer.Layer<Pair, E> | Layer.Layer<Network, E>): void => {
  const given: Layer.Layer<never, E> = layer
  register("transport", transportLaws, Layer.flatMap(given, pairsOf))
  connection(layer)
  reader(layer)
  writer(layer)
}

/**
 * Registers `connectionLaws`, for connections, for those over pairs of transports, or for a network's.
 *
 * **Example** (Connections in memory)
 *
 * ```ts no-run
 * import { Connection } from "effect-wire"
 * import { Conformance } from "effect-wire/testing"
 *
 * Conformance.connection(Conformance.layerConnections((options) => Connection.pair(options)))
 * ```
 *
 * @category suites
 * @since 0.1.0
 */
export const connection = <E>(
  layer: Layer.Layer<Connections, E> | Layer.Layer<Pair, E> | Layer.Layer<Network, E>
): void => registerConnections("connection", connectionLaws, layer)

/**
 * Registers `readerLaws`, for connections, for those over pairs of transports, or for a network's.
 *
 * **Example** (Readers in memory)
 *
 * ```ts no-run
 * import { Connection } from "effect-wire"
 * import { Conformance } from "effect-wire/testing"
 *
 * Conformance.reader(Conformance.layerConnections((options) => Connection.pair(options)))
 * ```
 *
 * @category suites
 * @since 0.1.0
 */
export const reader = <E>(
  layer: Layer.Layer<Connections, E> | Layer.Layer<Pair, E> | Layer.Layer<Network, E>
): void => registerConnections("reader", readerLaws, layer)

/**
 * Registers `writerLaws`, for connections, for those over pairs of transports, or for a network's.
 *
 * **Example** (Writers in memory)
 *
 * ```ts no-run
 * import { Connection } from "effect-wire"
 * import { Conformance } from "effect-wire/testing"
 *
 * Conformance.writer(Conformance.layerConnections((options) => Connection.pair(options)))
 * ```
 *
 * @category suites
 * @since 0.1.0
 */
export const writer = <E>(
  layer: Layer.Layer<Connections, E> | Layer.Layer<Pair, E> | Layer.Layer<Network, E>
): void => registerConnections("writer", writerLaws, layer)

/**
 * Registers `serverLaws`.
 *
 * **Example** (Proving a network)
 *
 * ```ts no-run
 * import { Conformance, TestNetwork } from "effect-wire/testing"
 *
 * Conformance.server(TestNetwork.layer)
 * ```
 *
 * @category suites
 * @since 0.1.0
 */
export const server = <E>(layer: Layer.Layer<Network, E>): void => register("server", serverLaws, layer)
