import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer } from "effect"
import { Connection, MemoryTransport, Network, type StreamReader, type StreamWriter } from "effect-wire"
import { ConnectionError, Unreachable } from "effect-wire/StreamError"
import { Conformance, TestNetwork } from "effect-wire/testing"
import type { Handler, Transport } from "effect-wire/Transport"

// A law that cannot fail proves nothing: each of these is broken in one way, and a law says so.

/** Whether a law holds. It does not if its check is stuck, which is left alone: what is broken may never end. */
const holds = Effect.fnUntraced(function* <R, E>(
  laws: ReadonlyArray<Conformance.Law<R>>,
  name: string,
  layer: Layer.Layer<R, E>
) {
  const law = laws.find((law) => law.name === name)
  assert.isDefined(law, `there is no law "${name}"`)
  const fiber = yield* Effect.forkDetach(Effect.provide(law.check, layer, { local: true }))
  for (let turn = 0; turn < 3000 && fiber.pollUnsafe() === undefined; turn++) yield* Effect.yieldNow
  const exit = fiber.pollUnsafe()
  return exit !== undefined && Exit.isSuccess(exit)
})

/** The same, but for some members. */
const override = <A extends object>(self: A, overrides: Partial<A>): A =>
  new Proxy(self, {
    get: (target, key) => {
      const source = Reflect.has(overrides, key) ? overrides : target
      const value: unknown = Reflect.get(source, key)
      return typeof value === "function" ? (value.bind(source) as unknown) : value
    }
  })

type TransportFault = (transport: Transport) => Partial<Transport>

const transports = (fault: TransportFault) =>
  Conformance.layerPair(
    Effect.map(
      MemoryTransport.makePair(),
      ([left, right]) => [override(left, fault(left)), override(right, fault(right))] as const
    )
  )

/** A transport that tells its handler something else. */
const telling =
  (tell: (handler: Handler) => Partial<Handler>): TransportFault =>
  (transport) => ({ start: (handler) => transport.start(override(handler, tell(handler))) })

const ordinary = "carries bytes and text, in order and unchanged, both ways"
const ending = "ends one direction after everything written, once, if it can"
const closing = "closes after everything written, without waiting for the peer's end"
const counting = "counts what has not left, and tells whenever it has fallen"

const transportFaults: ReadonlyArray<readonly [fault: string, law: string, TransportFault]> = [
  [
    "loses a byte now and then",
    ordinary,
    telling((handler) => ({ onData: (_) => handler.onData(_.length > 50_000 ? _.subarray(1) : _) }))
  ],
  [
    "delivers a chunk twice",
    ordinary,
    telling((handler) => ({
      onData: (_) => {
        handler.onData(_)
        handler.onData(_)
      }
    }))
  ],
  [
    "sends text in another encoding",
    ordinary,
    (transport) => ({
      write: (_) => transport.write(typeof _ === "string" ? Buffer.from(_, "latin1") : _)
    })
  ],
  [
    "writes into what it has delivered",
    "leaves a delivered chunk alone",
    (transport) => {
      let last = new Uint8Array(0)
      return telling((handler) => ({
        onData: (_) => {
          last.fill(0)
          last = new Uint8Array(_)
          handler.onData(last)
        }
      }))(transport)
    }
  ],
  [
    "delivers before it is resumed",
    "delivers nothing before it is started and resumed, and loses nothing",
    (transport) => ({
      start: (handler) => {
        transport.start(handler)
        transport.resume()
      }
    })
  ],
  ["does not pause", "stops when it is paused, and goes on when it is resumed", () => ({ pause() {} })],
  ["says that nothing is buffered", counting, () => ({ bufferedBytes: 0 })],
  ["does not tell of drained bytes", counting, telling(() => ({ onDrain() {} }))],
  ["drops what was not sent when it is closed", closing, (transport) => ({ close: () => transport.abort() })],
  ["waits for the peer when it is closed", closing, (transport) => ({ close: () => transport.end() })],
  [
    "sends the rest when it is aborted",
    "aborts at once, also when it is closing, and drops what was not sent",
    (transport) => ({ abort: () => transport.close() })
  ],
  ["does nothing when it is ended", ending, () => ({ end() {} })],
  ["closes when it is ended", ending, (transport) => ({ end: () => transport.close() })],
  ["can do less than it is said to", "can do what it is said to be able to", () => ({ canEnd: false })],
  [
    "takes a reset for an end of input",
    "tells the peer of an abort",
    telling((handler) => ({
      onClosed: (error) => {
        if (error !== undefined) handler.onEnd()
        handler.onClosed()
      }
    }))
  ],
  [
    "tells twice that it is closed",
    "may be closed and aborted again and again, and closes once",
    telling((handler) => ({
      onClosed: (error) => {
        handler.onClosed(error)
        handler.onClosed(error)
      }
    }))
  ],
  [
    "tells of bytes after it was closed",
    closing,
    telling((handler) => ({
      onClosed: (error) => {
        handler.onClosed(error)
        handler.onDrain()
      }
    }))
  ],
  [
    "tells twice of the end of input",
    ending,
    telling((handler) => ({
      onEnd: () => {
        handler.onEnd()
        handler.onEnd()
      }
    }))
  ],
  [
    "takes its own close for an end of input",
    "may be closed and aborted again and again, and closes once",
    telling((handler) => ({
      onClosed: (error) => {
        handler.onClosed(error)
        handler.onEnd()
      }
    }))
  ]
]

describe("a transport that", () => {
  for (const [fault, law, f] of transportFaults) {
    it.effect(`${fault} breaks a law`, () =>
      Effect.gen(function* () {
        assert.isTrue(
          yield* holds(
            Conformance.transportLaws,
            law,
            transports(() => ({}))
          )
        )
        assert.isFalse(yield* holds(Conformance.transportLaws, law, transports(f)))
      })
    )
  }
})

type ReaderFault = (reader: StreamReader.StreamReader) => Partial<StreamReader.StreamReader>
type WriterFault = (writer: StreamWriter.StreamWriter) => Partial<StreamWriter.StreamWriter>

/** Connections whose near end reads and writes in some other way. */
const connections = (reader: ReaderFault, writer: WriterFault) =>
  Conformance.layerConnections((options, peerOptions) =>
    Effect.gen(function* () {
      const [left, right] = yield* MemoryTransport.makePair()
      const near = yield* Connection.make(left, options)
      const far = yield* Connection.make(right, peerOptions)
      return [
        override(near, {
          reader: override(near.reader, reader(near.reader)),
          writer: override(near.writer, writer(near.writer))
        }),
        far
      ] as const
    })
  )

const join = (chunks: ReadonlyArray<Uint8Array>) => new Uint8Array(Buffer.concat(chunks))

/** Reads piece by piece, as one would write it: what came before an interruption is gone. */
const collect = (reader: StreamReader.StreamReader, n: number) =>
  Effect.gen(function* () {
    const chunks: Array<Uint8Array> = []
    for (let left = n; left > 0;) {
      const chunk = yield* reader.read(left)
      if (chunk.length === 0) return yield* reader.readExactly(left)
      chunks.push(chunk)
      left -= chunk.length
    }
    return join(chunks)
  })

const asEnd = <E>(read: Effect.Effect<Uint8Array, E>) =>
  Effect.catchIf(
    read,
    (error) => error instanceof ConnectionError,
    () => Effect.succeed(new Uint8Array(0))
  )

const readerFaults: ReadonlyArray<readonly [fault: string, law: string, ReaderFault]> = [
  [
    "loses bytes when it is interrupted",
    "readExactly: on interruption, takes nothing",
    (reader) => ({ readExactly: (n) => collect(reader, n) })
  ],
  [
    "loses bytes when it times out",
    "readExactly: on timeout, takes nothing",
    (reader) => ({ readExactly: (n) => collect(reader, n) })
  ],
  [
    "loses a result that was on its way",
    "readLine: interrupted at any step, has its bytes or left them",
    (reader) => ({ readLine: Effect.tap(reader.readLine, () => Effect.yieldNow) })
  ],
  [
    "drops a line that is too long",
    "readLine: past the limit, takes nothing, and skipUntil recovers",
    (reader) => ({ readLine: Effect.tapError(reader.readLine, () => Effect.exit(reader.read(4))) })
  ],
  [
    "takes what it peeks at",
    "peek: on success, takes what it returns",
    (reader) => ({ peek: (n) => reader.readExactly(n) })
  ],
  [
    "takes a failure for an end of input",
    "bytes received before a failure stay readable, and the failure comes when they run out",
    (reader) => ({ read: (max) => asEnd(reader.read(max)) })
  ],
  [
    "serves the last read first",
    "serves concurrent reads in the order in which they were called, each with a whole result",
    (reader) => ({ readExactly: (n) => Effect.andThen(Effect.yieldNow, reader.readExactly(n)) })
  ],
  [
    "takes a wrong argument for nothing",
    "takes arguments that are plainly wrong for defects",
    (reader) => ({ read: (max) => reader.read(Math.max(0, max ?? Infinity)) })
  ]
]

describe("a reader that", () => {
  for (const [fault, law, f] of readerFaults) {
    it.effect(`${fault} breaks a law`, () =>
      Effect.gen(function* () {
        const unbroken = () => ({})
        assert.isTrue(yield* holds(Conformance.readerLaws, law, connections(unbroken, unbroken)))
        assert.isFalse(yield* holds(Conformance.readerLaws, law, connections(f, unbroken)))
      })
    )
  }
})

const writerFaults: ReadonlyArray<readonly [fault: string, law: string, WriterFault]> = [
  [
    "does not wait",
    "holds no more than a write above the high watermark",
    (writer) => ({ write: (_) => Effect.asVoid(Effect.forkDetach(Effect.exit(writer.write(_)))) })
  ],
  [
    "writes in pieces",
    "sends writes of many fibers in their order, each whole",
    (writer) => ({
      writeAll: (chunks) => Effect.forEach(chunks, writer.write, { discard: true })
    })
  ],
  [
    "sends half of what is interrupted",
    "a write interrupted at any step sends all of its bytes or none",
    (writer) => ({
      writeAll: (chunks) =>
        Effect.forEach(chunks, (_) => Effect.andThen(writer.write(_), Effect.yieldNow), { discard: true })
    })
  ],
  [
    "flushes at once",
    "flush waits until nothing is buffered, drain until it is not congested",
    () => ({ flush: Effect.void })
  ],
  [
    "ends before the writers that wait",
    "ends after everything written, also by writers that wait; then writing is a broken pipe",
    (writer) => ({ end: Effect.andThen(Effect.yieldNow, writer.end) })
  ]
]

describe("a writer that", () => {
  for (const [fault, law, f] of writerFaults) {
    it.effect(`${fault} breaks a law`, () =>
      Effect.gen(function* () {
        const unbroken = () => ({})
        assert.isTrue(yield* holds(Conformance.writerLaws, law, connections(unbroken, unbroken)))
        assert.isFalse(yield* holds(Conformance.writerLaws, law, connections(unbroken, f)))
      })
    )
  }
})

type NetworkFault = (network: Network.Network["Service"]) => Partial<Network.Network["Service"]>

const networks = (fault: NetworkFault): Layer.Layer<Network.Network> =>
  Layer.effect(
    Network.Network,
    Effect.map(TestNetwork.make(), (network) => override(network, fault(network)))
  )

const networkFaults: ReadonlyArray<readonly [fault: string, law: string, NetworkFault]> = [
  [
    "names another reason when nobody listens",
    "refuses new clients after a shutdown, and gives its address back",
    (network) => ({
      connect: (...args) =>
        Effect.mapError(
          network.connect(...args),
          () => new ConnectionError({ operation: "connect", reason: new Unreachable({}) })
        )
    })
  ],
  [
    "lets two listen on one address",
    "fails if an address is in use, and leaves no other one open",
    (network) => ({ listen: (address, options) => network.listen(address, { ...options, reusePort: true }) })
  ],
  [
    "chooses another port for each listener",
    "several listeners share one port 0 port, and one server",
    (network) => ({
      listen: (address, options) =>
        network.listen(address.path === undefined ? { host: address.host } : address, options)
    })
  ],
  [
    "loses a connection when accepting is slow",
    "listens when serve returns, and serves every client",
    (network) => ({
      listen: (...args) =>
        Effect.map(network.listen(...args), (listener) =>
          override(listener, { accept: Effect.andThen(listener.accept, listener.accept) })
        )
    })
  ]
]

describe("a network that", () => {
  for (const [fault, law, f] of networkFaults) {
    it.effect(`${fault} breaks a law`, () =>
      Effect.gen(function* () {
        assert.isTrue(
          yield* holds(
            Conformance.serverLaws,
            law,
            networks(() => ({}))
          )
        )
        assert.isFalse(yield* holds(Conformance.serverLaws, law, networks(f)))
      })
    )
  }
})
