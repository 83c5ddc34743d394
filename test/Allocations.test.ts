import * as v8 from "node:v8"
import * as vm from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Stream } from "effect"
import {
  Codec,
  Connection,
  Framed,
  Framing,
  Network,
  Server,
  StreamReader,
  type Transport
} from "effect-wire"
import { NetAddress } from "effect/net"
import { bytes } from "./support/reader.ts"

// What V8 itself counts, since the process began. Absent before Node 26.
const allocatedBytes = (): number | undefined => {
  const statistics: { readonly total_allocated_bytes?: number } = v8.getHeapStatistics()
  return statistics.total_allocated_bytes
}

const OPERATIONS = 20_000

/** Bytes on the heap for each operation, the fewest of some runs: the compiler allocates as well, and makes less of it in time. */
const perOperation = (run: () => void): number => {
  let least = Infinity
  for (let i = 0; i < 8; i++) {
    const before = allocatedBytes() ?? 0
    run()
    least = Math.min(least, ((allocatedBytes() ?? 0) - before) / OPERATIONS)
  }
  return least
}

const expectAtMost = (limit: number, run: () => void): void => {
  const allocated = perOperation(run)
  assert.isAbove(allocated, 0)
  assert.isAtMost(allocated, limit, "bytes on the heap for each operation")
}

const line = `${"x".repeat(63)}\n`
const lines = bytes(line.repeat(OPERATIONS))

const frames = new Uint8Array(64 * OPERATIONS)
for (let i = 0; i < OPERATIONS; i++) frames[64 * i + 3] = 60

/** A reader with everything in its buffer, in chunks of 64 KiB. */
const filled = (): StreamReader.StreamReader => {
  const { feed, feedEof, reader } = StreamReader.feedable()
  for (let i = 0; i < lines.length; i += 65_536) feed(lines.subarray(i, i + 65_536))
  feedEof()
  return reader
}

const repeat = <A, E>(effect: Effect.Effect<A, E>): void =>
  void Effect.runSync(
    Effect.gen(function* () {
      for (let i = 0; i < OPERATIONS; i++) yield* effect
    })
  )

const repeatCalls = <A, E>(operation: () => Effect.Effect<A, E>): void =>
  void Effect.runSync(
    Effect.gen(function* () {
      for (let i = 0; i < OPERATIONS; i++) yield* operation()
    })
  )

/** A server whose clients come when they are called for, are sent a byte, and go. */
const makeServer = () => {
  let accepted: (exit: Exit.Exit<Transport.Transport>) => void = () => {}
  let left = 0
  let served: () => void = () => {}
  const next = (): void => {
    if (left-- > 0) accepted(Exit.succeed(makeSink().transport))
    else served()
  }
  const network = Network.Network.of({
    connect: () => Effect.never,
    listen: () =>
      Effect.succeed({
        address: NetAddress.inetAddressUnsafe(NetAddress.ipv4Loopback, 7000),
        accept: Effect.callback((resume) => {
          accepted = resume
          next()
        }),
        close: Effect.void
      })
  })
  return {
    server: Server.serve(({ reader, writer }) => Effect.andThen(reader.read(0), writer.write("x")), {
      listen: { port: 7000 }
    }).pipe(Effect.provideService(Network.Network, network)),
    serve: (count: number): Effect.Effect<void> =>
      Effect.callback((resume) => {
        served = () => resume(Effect.void)
        left = count
        next()
      })
  }
}

/** A transport that takes everything at once, and its handler. */
const makeSink = () => {
  let handler: Transport.Handler | undefined
  const transport: Transport.Transport = {
    kind: "sink",
    localAddress: undefined,
    remoteAddress: undefined,
    canEnd: true,
    readAhead: true,
    bufferedBytes: 0,
    start: (_) => (handler = _),
    pause: () => {},
    resume: () => {},
    write: () => {},
    writeAll: () => {},
    // The peer ends as well.
    end: () => handler?.onEnd(),
    close: () => handler?.onClosed(),
    abort: () => handler?.onClosed()
  }
  return { transport, deliver: (chunk: Uint8Array) => handler?.onData(chunk) }
}

describe.skipIf(allocatedBytes() === undefined)("allocations", () => {
  it("a buffered readLine: little more than the line", () => {
    expectAtMost(220, () => repeat(filled().readLine))
  })

  it("a buffered readLine in a combinator: and what Effect needs for its steps", () => {
    expectAtMost(400, () => repeat(Effect.map(filled().readLine, (_) => _.length)))
  })

  it("a buffered readExactly", () => {
    expectAtMost(320, () => {
      const { readExactly } = filled()
      repeatCalls(() => readExactly(64))
    })
  })

  it("a buffered readUntil", () => {
    expectAtMost(450, () => {
      const { readUntil } = filled()
      repeatCalls(() => readUntil("x\n"))
    })
  })

  // Bodies of 60 bytes, each with its length before it.
  const framed = (framing: Framing.Framing): Effect.Effect<Uint8Array, unknown> => {
    const { feed, reader } = StreamReader.feedable()
    for (let i = 0; i < frames.length; i += 65_536) feed(frames.subarray(i, i + 65_536))
    return Framed.receiver(reader, framing).receive
  }

  it("a buffered frame: little more than the frame", () => {
    expectAtMost(280, () => repeat(framed(Framing.lengthPrefixed({ width: 4 }))))
  })

  it("a buffered frame of a framing of one's own, as a generator", () => {
    const own = Framing.make<Uint8Array>({
      *decode(reader) {
        return yield* reader.readExactly(yield* reader.readUint32())
      },
      encode: (frame) => frame
    })
    expectAtMost(1050, () => repeat(framed(own)))
  })

  it("a line of `lines`: little more than its text", () => {
    expectAtMost(300, () => {
      const count = Effect.runSync(
        Stream.runFold(
          filled().lines,
          () => 0,
          (sum) => sum + 1
        )
      )
      assert.strictEqual(count, OPERATIONS)
    })
  })

  it.effect("a write that is not congested", () =>
    Effect.gen(function* () {
      const { writer } = yield* Connection.make(makeSink().transport)
      const chunk = bytes(line)
      expectAtMost(120, () => repeatCalls(() => writer.write(chunk)))
    })
  )

  it.effect("a framed connection, of which nothing is used yet", () =>
    Effect.gen(function* () {
      const connection = yield* Connection.make(makeSink().transport)
      const framing = Framing.lines()
      expectAtMost(1200, () => {
        for (let i = 0; i < OPERATIONS; i++) Framed.make(connection, framing, Codec.bytes)
      })
    })
  )

  it.effect("a message that is sent", () =>
    Effect.gen(function* () {
      const connection = yield* Connection.make(makeSink().transport)
      const { send } = Framed.make(connection, Framing.lengthPrefixed({ width: 4 }))
      const frame = bytes(line)
      expectAtMost(700, () => repeatCalls(() => send(frame)))
    })
  )

  it.effect("a read that waits, and the write of what it was given", () =>
    Effect.gen(function* () {
      const { deliver, transport } = makeSink()
      const { reader, writer } = yield* Connection.make(transport)
      const echo = Effect.forever(Effect.flatMap(reader.read(), writer.write), { disableYield: true })
      yield* Effect.forkScoped(echo, { startImmediately: true })
      const chunk = bytes(line)
      expectAtMost(1000, () => {
        for (let i = 0; i < OPERATIONS; i++) deliver(chunk)
      })
    })
  )

  // What is made for an event, a metric or a span would show here: a span takes 3,000 bytes.
  it.effect("a connection of a server that nobody watches", () =>
    Effect.gen(function* () {
      const { serve, server } = makeServer()
      yield* server
      let least = Infinity
      for (let i = 0; i < 3; i++) {
        const before = allocatedBytes() ?? 0
        yield* serve(OPERATIONS)
        least = Math.min(least, ((allocatedBytes() ?? 0) - before) / OPERATIONS)
      }
      assert.isAtMost(least, 4600, "bytes on the heap for each connection")
    })
  )

  // V8 frees what has not lived long in small collections, unless something that has lived long holds it.
  it.effect("a connection that is over is freed by the next small garbage collection", () =>
    Effect.gen(function* () {
      v8.setFlagsFromString("--expose-gc")
      const gc: (options: { readonly type: "minor" | "major" }) => void = vm.runInNewContext("gc")
      const { serve, server } = makeServer()
      yield* server
      yield* serve(OPERATIONS)
      gc({ type: "major" })
      const before = process.memoryUsage().heapUsed
      yield* serve(OPERATIONS)
      // What survives one is taken to the old objects by the second.
      gc({ type: "minor" })
      gc({ type: "minor" })
      const kept = (process.memoryUsage().heapUsed - before) / OPERATIONS
      assert.isAtMost(kept, 150, "bytes on the heap that are kept for each connection")
    })
  )
})
