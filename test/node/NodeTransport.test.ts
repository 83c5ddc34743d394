import { it } from "@effect/vitest"
import { assertTrue, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Effect } from "effect"
import fc from "fast-check"
import { createHash, randomBytes } from "node:crypto"
import type * as net from "node:net"
import * as path from "node:path"
import { Duplex } from "node:stream"
import { describe, vi } from "vitest"
import { NodeTransport } from "effect-wire/node"
import {
  closed,
  event,
  leavingNothing,
  loops,
  rawConnect,
  rawServer,
  readToEnd,
  tempDirectory,
  until
} from "../support/sockets.ts"
import { record } from "../support/transports.ts"

const KIB = 1024
const MIB = 1024 * KIB

/** A transport over the server's side of a TCP connection, and the client's plain socket. */
const tcp = Effect.gen(function* () {
  const server = yield* rawServer()
  const peer = yield* rawConnect({ host: "127.0.0.1", port: server.port })
  const socket = yield* server.next
  return { peer, socket, transport: NodeTransport.fromDuplex(socket) }
})

const unix = Effect.gen(function* () {
  const file = path.join(yield* tempDirectory, "s")
  const server = yield* rawServer({ path: file })
  const peer = yield* rawConnect({ path: file })
  const socket = yield* server.next
  return { peer, socket, transport: NodeTransport.fromDuplex(socket) }
})

interface SinkOptions {
  /** Whether a write is done at once; otherwise it waits for `finish`. */
  readonly isImmediate?: () => boolean
  readonly error?: Error
}

/** A stream that shows what is written to it, write by write. */
const makeSink = ({ error, isImmediate = () => false }: SinkOptions = {}) => {
  const writes: Array<Buffer> = []
  let gathered = 0
  let waiting: (() => void) | undefined
  const take = (chunk: Buffer, callback: (error?: Error | null) => void): void => {
    writes.push(chunk)
    if (error !== undefined) return callback(error)
    if (isImmediate()) return callback()
    waiting = callback
  }
  const duplex = new Duplex({
    read() {},
    write: (chunk: Buffer, _encoding, callback) => take(chunk, callback),
    writev: (chunks, callback) => {
      gathered++
      take(Buffer.concat(chunks.map(({ chunk }) => Buffer.from(chunk))), callback)
    }
  })
  return {
    duplex,
    writes,
    /** Writes of several chunks at once. */
    gathered: () => gathered,
    text: () => Buffer.concat(writes).toString(),
    isWaiting: () => waiting !== undefined,
    finish() {
      const callback = waiting
      waiting = undefined
      callback?.()
    }
  }
}

const reset = (socket: net.Socket) => Effect.sync(() => socket.resetAndDestroy())

describe("a TCP socket", () => {
  it.live("carries bytes both ways, as plain Uint8Arrays", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* tcp
          const recorder = record(transport)
          transport.resume()
          peer.write("ping")
          yield* until(recorder, () => recorder.text() === "ping")
          strictEqual(Object.getPrototypeOf(recorder.chunks[0]), Uint8Array.prototype)
          transport.write("pöng ")
          transport.writeAll([Uint8Array.of(112), "ong"])
          transport.end()
          strictEqual((yield* readToEnd(peer)).toString(), "pöng pong")
          peer.end()
          yield* closed(recorder)
          deepStrictEqual([recorder.events.at(-2), recorder.error()], ["end", undefined])
        })
      )
    )
  )

  it.live("describes itself, before and after the end", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { peer, transport } = yield* tcp
        const recorder = record(transport)
        const describe = () => [
          transport.kind,
          String(transport.localAddress),
          String(transport.remoteAddress)
        ]
        const expected = ["tcp", `127.0.0.1:${peer.remotePort}`, `127.0.0.1:${peer.localPort}`]
        transport.abort()
        yield* closed(recorder)
        deepStrictEqual(describe(), expected)
        deepStrictEqual(describe(), expected)
        deepStrictEqual([transport.canEnd, transport.readAhead, transport.tls], [true, true, undefined])
      })
    )
  )

  it.live("knows its peer behind a dual-stack listener by the IPv4 address", ({ skip }) =>
    Effect.scoped(
      Effect.gen(function* () {
        const server = yield* Effect.option(
          Effect.catchDefect(rawServer({ host: "::", port: 0 }), Effect.fail)
        )
        if (server._tag === "None") return skip("no IPv6 on this machine")
        const peer = yield* rawConnect({
          host: "127.0.0.1",
          port: server.value.port
        })
        const transport = NodeTransport.fromDuplex(yield* server.value.next)
        strictEqual(String(transport.remoteAddress), `127.0.0.1:${peer.localPort}`)
      })
    )
  )

  it.live("sends a turn's small writes in order with one system call", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { peer, socket, transport } = yield* tcp
        record(transport)
        const write = vi.spyOn(socket, "write")
        let expected = ""
        for (let i = 0; i < 1000; i++) {
          const message = `${String(i).padStart(63, ".")}\n`
          expected += message
          transport.write(i % 2 === 0 ? message : Buffer.from(message))
        }
        strictEqual(transport.bufferedBytes, 64_000)
        strictEqual(write.mock.calls.length, 0)
        transport.end()
        strictEqual((yield* readToEnd(peer)).toString(), expected)
        strictEqual(write.mock.calls.length, 1)
      })
    )
  )

  it.live("ends its direction and goes on reading", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* tcp
          const recorder = record(transport)
          transport.resume()
          transport.write("last")
          transport.end()
          strictEqual((yield* readToEnd(peer)).toString(), "last")
          peer.end("answer")
          yield* closed(recorder)
          strictEqual(recorder.text(), "answer")
          deepStrictEqual(recorder.events.slice(-2), ["end", "closed"])
          strictEqual(recorder.error(), undefined)
        })
      )
    )
  )

  it.live("goes on writing after the peer's end", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* tcp
          const recorder = record(transport)
          transport.resume()
          peer.end("request")
          yield* until(recorder, () => recorder.events.includes("end"))
          yield* loops(10)
          strictEqual(recorder.events.includes("closed"), false)
          transport.write("answer")
          transport.end()
          strictEqual((yield* readToEnd(peer)).toString(), "answer")
          yield* closed(recorder)
          strictEqual(recorder.error(), undefined)
        })
      )
    )
  )

  it.live("reports a reset by the peer, after the bytes that came before it", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* tcp
          const recorder = record(transport)
          transport.resume()
          const address = String(transport.remoteAddress)
          peer.write("data", () => peer.resetAndDestroy())
          yield* closed(recorder)
          strictEqual(recorder.text(), "data")
          strictEqual(recorder.events.includes("end"), false)
          assertTrue(
            [
              `read on ${address}: connection reset by peer (ECONNRESET)`,
              // What older versions of libuv hide from the reader shows with a write.
              `write on ${address}: connection reset by peer (ECONNRESET)`
            ].includes(recorder.error()?.message ?? "")
          )
        })
      )
    )
  )

  it.live("tells of the peer's end that a reset follows", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* tcp
          const recorder = record(transport)
          transport.resume()
          peer.end("data", () => peer.resetAndDestroy())
          yield* until(recorder, () => recorder.events.includes("end") || recorder.events.includes("closed"))
          strictEqual(recorder.text(), "data")
          strictEqual(recorder.events.includes("end"), true)
          transport.abort()
          yield* closed(recorder)
        })
      )
    )
  )

  it.live("reports a reset that meets a write on its way", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* tcp
          const recorder = record(transport)
          transport.resume()
          transport.write(new Uint8Array(16 * MIB))
          yield* loops(5)
          peer.write("data", () => peer.resetAndDestroy())
          yield* closed(recorder)
          strictEqual(recorder.text(), "data")
          strictEqual(recorder.events.includes("end"), false)
          strictEqual(recorder.error()?.reason._tag, "ConnectionReset")
        })
      )
    )
  )

  it.live("tells of the peer's end while a write is on its way", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* tcp
          const recorder = record(transport)
          transport.resume()
          transport.write(new Uint8Array(16 * MIB))
          transport.end()
          peer.end("data")
          yield* until(recorder, () => recorder.events.includes("end"))
          assertTrue(transport.bufferedBytes > 0)
          strictEqual((yield* readToEnd(peer)).length, 16 * MIB)
          yield* closed(recorder)
          deepStrictEqual([recorder.text(), recorder.error()], ["data", undefined])
        })
      )
    )
  )

  it.live("notices a reset while paused, and delivers what had come", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { peer, socket, transport } = yield* tcp
        const recorder = record(transport)
        transport.resume()
        peer.write("first")
        yield* until(recorder, () => recorder.text() === "first")
        transport.pause()
        for (const [chunk, length] of [
          ["second", 6],
          ["third", 11]
        ] as const) {
          peer.write(chunk)
          while (socket.readableLength < length) yield* loops(1)
        }
        yield* reset(peer)
        yield* closed(recorder)
        strictEqual(recorder.text(), "firstsecondthird")
        strictEqual(recorder.error()?.reason._tag, "ConnectionReset")
      })
    )
  )

  it.live("reports a failed write, and does not count its bytes as sent", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { peer, transport } = yield* tcp
        const recorder = record(transport)
        // Paused and not reading at all: only the write can meet the reset.
        yield* reset(peer)
        yield* event(peer, "close")
        yield* loops(10)
        deepStrictEqual(recorder.events, [])
        transport.write("too late")
        yield* closed(recorder)
        strictEqual(recorder.error()?.operation, "write")
        assertTrue(["ConnectionReset", "BrokenPipe"].includes(recorder.error()?.reason._tag ?? ""))
        deepStrictEqual(recorder.events, ["closed"])
        strictEqual(transport.bufferedBytes, 8)
      })
    )
  )

  it.live("aborts with a reset and drops what was not sent", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* tcp
          const recorder = record(transport)
          transport.write(new Uint8Array(16 * MIB))
          transport.abort()
          transport.abort()
          strictEqual(transport.bufferedBytes, 0)
          const remote = NodeTransport.fromDuplex(peer)
          const other = record(remote)
          remote.resume()
          yield* closed(other)
          strictEqual(other.error()?.reason._tag, "ConnectionReset")
          yield* closed(recorder)
          strictEqual(recorder.error(), undefined)
          deepStrictEqual(recorder.events, ["closed"])
        })
      )
    )
  )

  it.live("aborts while its end is on the way", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          for (const isClosing of [false, true]) {
            const { peer, transport } = yield* tcp
            const recorder = record(transport)
            transport.write("x")
            if (isClosing) transport.close()
            else transport.end()
            transport.abort()
            yield* closed(recorder)
            strictEqual(recorder.error(), undefined)
            yield* Effect.exit(readToEnd(peer))
            yield* event(peer.destroy(), "close").pipe(Effect.when(Effect.sync(() => !peer.closed)))
          }
        })
      )
    )
  )

  it.live("closes after everything was sent, to a slow reader too", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* tcp
          const recorder = record(transport)
          const data = randomBytes(10 * MIB)
          for (let i = 0; i < data.length; i += 100 * KIB) transport.write(data.subarray(i, i + 100 * KIB))
          transport.close()
          transport.close()
          const received = createHash("sha256")
          let length = 0
          peer.on("data", (chunk: Buffer) => {
            received.update(chunk)
            length += chunk.length
            peer.pause()
            setImmediate(() => peer.resume())
          })
          peer.resume()
          yield* event(peer, "end")
          strictEqual(length, data.length)
          strictEqual(received.digest("hex"), createHash("sha256").update(data).digest("hex"))
          yield* closed(recorder)
          strictEqual(recorder.error(), undefined)
          strictEqual(transport.bufferedBytes, 0)
        })
      )
    )
  )

  it.live("closes towards a peer that reads only once it has written", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* tcp
          const recorder = record(transport)
          const sent = Effect.callback<void>((resume) => {
            peer.write(new Uint8Array(32 * MIB), () => resume(Effect.void))
          })
          transport.write(new Uint8Array(16 * MIB))
          transport.close()
          yield* sent
          strictEqual((yield* readToEnd(peer)).length, 16 * MIB)
          yield* closed(recorder)
          deepStrictEqual([recorder.text(), recorder.error()], ["", undefined])
        })
      )
    )
  )

  it.live("says nothing of errors that come after the own close", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* tcp
          const recorder = record(transport)
          transport.write(new Uint8Array(16 * MIB))
          transport.close()
          yield* loops(5)
          strictEqual(recorder.events.includes("closed"), false)
          yield* reset(peer)
          yield* closed(recorder)
          strictEqual(recorder.error(), undefined)
        })
      )
    )
  )

  it.live("stops reading while paused, with bounded read-ahead", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { peer, socket, transport } = yield* tcp
        const recorder = record(transport)
        transport.resume()
        peer.write(new Uint8Array(32 * MIB))
        yield* until(recorder, () => recorder.chunks.length > 0)
        transport.pause()
        const seen = recorder.chunks.length
        yield* loops(500)
        strictEqual(recorder.chunks.length, seen)
        const delivered = recorder.chunks.reduce((sum, chunk) => sum + chunk.length, 0)
        assertTrue(
          socket.bytesRead - delivered <= 128 * KIB,
          `${socket.bytesRead - delivered} bytes read ahead`
        )
        transport.resume()
        yield* until(
          recorder,
          () => recorder.chunks.reduce((sum, { length }) => sum + length, 0) === 32 * MIB
        )
      })
    )
  )

  it.live("delivers nothing before it is resumed", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { peer, transport } = yield* tcp
        peer.end("early")
        yield* loops(20)
        const recorder = record(transport)
        yield* loops(20)
        deepStrictEqual(recorder.events, [])
        transport.resume()
        yield* until(recorder, () => recorder.events.includes("end"))
        strictEqual(recorder.text(), "early")
      })
    )
  )

  it.live("survives a reset before it is started, and reports it then", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const server = yield* rawServer(undefined, { pauseOnConnect: false })
          const peer = yield* rawConnect({
            host: "127.0.0.1",
            port: server.port
          })
          const socket = yield* server.next
          const transport = NodeTransport.fromDuplex(socket)
          socket.removeAllListeners("error")
          const again = NodeTransport.fromDuplex(socket)
          peer.write("data")
          while (socket.readableLength === 0) yield* loops(1)
          yield* reset(peer)
          yield* event(socket, "close")
          const recorder = record(again)
          deepStrictEqual(recorder.events, [])
          yield* closed(recorder)
          strictEqual(recorder.text(), "data")
          strictEqual(recorder.error()?.reason._tag, "ConnectionReset")
          strictEqual(String(transport.remoteAddress), String(again.remoteAddress))
        })
      )
    )
  )

  it.live("is aborted when somebody else destroys the socket", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { peer, socket, transport } = yield* tcp
        const recorder = record(transport)
        transport.resume()
        peer.write("first")
        yield* until(recorder, () => recorder.text() === "first")
        transport.pause()
        peer.write("second")
        yield* loops(10)
        strictEqual(socket.readableLength, 6)
        socket.destroy()
        yield* closed(recorder)
        strictEqual(recorder.text(), "firstsecond")
        strictEqual(recorder.error()?.reason._tag, "ConnectionAborted")
      })
    )
  )

  it.live("takes a socket that is closed already", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { socket } = yield* tcp
        socket.destroy(Object.assign(new Error("gone"), { code: "ECONNRESET" }))
        yield* event(socket, "close")
        const recorder = record(NodeTransport.fromDuplex(socket))
        deepStrictEqual(recorder.events, [])
        yield* closed(recorder)
        strictEqual(recorder.error()?.reason._tag, "ConnectionReset")
      })
    )
  )

  it.live("lets its handler call back", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* tcp
          const recorder = record(transport)
          recorder.on = (name) => {
            if (name === "data") {
              transport.pause()
              transport.write("answer")
            }
            if (name === "drain") transport.close()
          }
          transport.resume()
          peer.write("request")
          strictEqual((yield* readToEnd(peer)).toString(), "answer")
          yield* closed(recorder)
          deepStrictEqual(recorder.events, ["data", "drain", "closed"])
        })
      )
    )
  )
})

describe("a Unix socket", () => {
  it.live("carries bytes both ways", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* unix
          strictEqual(transport.kind, "unix")
          const recorder = record(transport)
          transport.resume()
          peer.end("ping")
          yield* until(recorder, () => recorder.events.includes("end"))
          transport.write("pong")
          transport.close()
          strictEqual((yield* readToEnd(peer)).toString(), "pong")
          yield* closed(recorder)
          deepStrictEqual([recorder.text(), recorder.error()], ["ping", undefined])
        })
      )
    )
  )

  it.live("aborts and drops what was not sent", () =>
    leavingNothing(
      Effect.scoped(
        Effect.gen(function* () {
          const { peer, transport } = yield* unix
          const recorder = record(transport)
          transport.write(new Uint8Array(16 * MIB))
          transport.abort()
          yield* closed(recorder)
          const received = yield* Effect.exit(readToEnd(peer))
          assertTrue(received._tag === "Failure" || received.value.length < 16 * MIB)
          strictEqual(recorder.error(), undefined)
        })
      )
    )
  )
})

describe("writing", () => {
  it.live("counts bytes until they have left, and tells when they have", () =>
    Effect.gen(function* () {
      const sink = makeSink()
      const transport = NodeTransport.fromDuplex(sink.duplex)
      const recorder = record(transport)
      transport.write("äö")
      transport.writeAll(["u", new Uint8Array(5)])
      strictEqual(transport.bufferedBytes, 10)
      strictEqual(sink.writes.length, 0)
      yield* loops(1)
      deepStrictEqual(
        sink.writes.map((chunk) => chunk.length),
        [10]
      )
      strictEqual(transport.bufferedBytes, 10)
      deepStrictEqual(recorder.events, [])
      // One write at a time: these two are collected until the first is done.
      transport.write("a")
      yield* loops(1)
      transport.write("b")
      yield* loops(1)
      strictEqual(sink.writes.length, 1)
      strictEqual(transport.bufferedBytes, 12)
      sink.finish()
      deepStrictEqual(recorder.events, ["drain"])
      strictEqual(transport.bufferedBytes, 2)
      strictEqual(sink.text().slice(-2), "ab")
      sink.finish()
      deepStrictEqual(recorder.events, ["drain", "drain"])
      strictEqual(transport.bufferedBytes, 0)
    })
  )

  it.live("is done with the turn when the stream takes all at once", () =>
    Effect.gen(function* () {
      const sink = makeSink({ isImmediate: () => true })
      const transport = NodeTransport.fromDuplex(sink.duplex)
      const recorder = record(transport)
      transport.write("hello")
      strictEqual(transport.bufferedBytes, 5)
      yield* Effect.promise(() => new Promise<void>((resume) => process.nextTick(resume)))
      strictEqual(transport.bufferedBytes, 0)
      deepStrictEqual(recorder.events, ["drain"])
      yield* loops(3)
      deepStrictEqual(recorder.events, ["drain"])
    })
  )

  it.live("does not let 64 KiB wait, nor tell of it inside write", () =>
    Effect.gen(function* () {
      const sink = makeSink({ isImmediate: () => true })
      const transport = NodeTransport.fromDuplex(sink.duplex)
      const recorder = record(transport)
      transport.write(new Uint8Array(64 * KIB - 1))
      strictEqual(sink.writes.length, 0)
      transport.write("x")
      strictEqual(sink.writes.length, 1)
      strictEqual(transport.bufferedBytes, 0)
      deepStrictEqual(recorder.events, [])
      yield* loops(1)
      deepStrictEqual(recorder.events, ["drain"])
      // Nobody can have seen these bytes waiting.
      transport.write(new Uint8Array(64 * KIB))
      yield* loops(1)
      transport.end()
      yield* loops(1)
      deepStrictEqual(recorder.events, ["drain"])
    })
  )

  it.live("copies small chunks together, and gathers large ones", () =>
    Effect.gen(function* () {
      const sink = makeSink({ isImmediate: () => true })
      const transport = NodeTransport.fromDuplex(sink.duplex)
      record(transport)
      transport.writeAll([new Uint8Array(100), "x".repeat(100)])
      yield* loops(1)
      strictEqual(sink.gathered(), 0)
      transport.writeAll([new Uint8Array(8 * KIB), "x".repeat(8 * KIB)])
      yield* loops(1)
      strictEqual(sink.gathered(), 1)
      deepStrictEqual(
        sink.writes.map((chunk) => chunk.length),
        [200, 16 * KIB]
      )
    })
  )

  it.live("hands large writes on in steps, so that progress shows", () =>
    Effect.gen(function* () {
      const sink = makeSink()
      const transport = NodeTransport.fromDuplex(sink.duplex)
      const recorder = record(transport)
      const data = randomBytes(MIB)
      const text = "é".repeat(300 * KIB)
      transport.writeAll([data, text])
      const total = MIB + 600 * KIB
      strictEqual(transport.bufferedBytes, total)
      let before = total
      while (sink.isWaiting()) {
        sink.finish()
        assertTrue(transport.bufferedBytes < before)
        before = transport.bufferedBytes
      }
      strictEqual(before, 0)
      assertTrue(sink.writes.every((chunk) => chunk.length <= 256 * KIB))
      assertTrue(Buffer.concat([data, Buffer.from(text)]).equals(Buffer.concat(sink.writes)))
      strictEqual(recorder.events.filter((name) => name === "drain").length, sink.writes.length)
    })
  )

  it.live("does not count as sent what the stream failed to write", () =>
    Effect.gen(function* () {
      const sink = makeSink({
        error: Object.assign(new Error("no"), {
          code: "EPIPE",
          syscall: "write"
        })
      })
      const transport = NodeTransport.fromDuplex(sink.duplex)
      const recorder = record(transport)
      transport.write("lost")
      yield* closed(recorder)
      deepStrictEqual(recorder.events, ["closed"])
      strictEqual(transport.bufferedBytes, 4)
      strictEqual(
        recorder.error()?.message,
        "write: broken pipe: the connection is closed for writing (EPIPE)"
      )
    })
  )

  it.live("delivers any writes, in order and whole, however the stream takes them", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(
          fc.array(
            fc.record({
              chunks: fc.array(
                fc.oneof(
                  fc.string({ unit: "grapheme", minLength: 1 }),
                  fc.uint8Array({ minLength: 1 }),
                  fc.integer({ min: 1, max: 400 * KIB }).map((length) => new Uint8Array(length).fill(length))
                ),
                { minLength: 1, maxLength: 5 }
              ),
              turn: fc.constantFrom("none", "tick", "loop", "finish")
            }),
            { maxLength: 30 }
          ),
          fc.infiniteStream(fc.boolean()),
          fc.constantFrom("close", "end"),
          async (steps, immediate, last) => {
            const sink = makeSink({
              isImmediate: () => immediate.next().value === true
            })
            const transport = NodeTransport.fromDuplex(sink.duplex)
            const recorder = record(transport)
            const expected: Array<Buffer> = []
            for (const { chunks, turn } of steps) {
              const [first] = chunks
              if (chunks.length === 1 && first !== undefined) transport.write(first)
              else transport.writeAll(chunks)
              expected.push(...chunks.map((chunk) => Buffer.from(chunk)))
              if (turn === "tick") await Promise.resolve()
              if (turn === "loop") await new Promise((resume) => setImmediate(resume))
              if (turn === "finish") sink.finish()
              const sent = Buffer.concat(sink.writes).length
              const buffered = Buffer.concat(expected).length - sent
              assertTrue(transport.bufferedBytes >= buffered, "no fewer bytes than those not handed over")
              assertTrue(transport.bufferedBytes <= buffered + 256 * KIB, "and one write's more at most")
            }
            if (last === "close") {
              transport.close()
            } else {
              transport.end()
              sink.duplex.push(null)
              transport.resume()
            }
            while (!recorder.events.includes("closed")) {
              await new Promise((resume) => setImmediate(resume))
              sink.finish()
            }
            assertTrue(Buffer.concat(expected).equals(Buffer.concat(sink.writes)))
            strictEqual(transport.bufferedBytes, 0)
            strictEqual(recorder.error(), undefined)
          }
        ),
        { numRuns: 200 }
      )
    )
  )
})

describe("any Duplex", () => {
  it.live("is half-open and is destroyed when both directions have ended", () =>
    Effect.gen(function* () {
      const writes: Array<string> = []
      const duplex = new Duplex({
        allowHalfOpen: false,
        autoDestroy: false,
        read() {},
        write: (chunk: Buffer, _encoding, callback) => {
          writes.push(chunk.toString())
          callback()
        }
      })
      const transport = NodeTransport.fromDuplex(duplex)
      strictEqual(transport.kind, "duplex")
      const recorder = record(transport)
      transport.resume()
      duplex.push("in")
      duplex.push(null)
      yield* until(recorder, () => recorder.events.includes("end"))
      yield* loops(3)
      transport.write("out")
      transport.end()
      yield* closed(recorder)
      deepStrictEqual([recorder.text(), writes, recorder.error()], ["in", ["out"], undefined])
      strictEqual(duplex.destroyed, true)
    })
  )

  it.live("is destroyed after an error, also without autoDestroy", () =>
    Effect.gen(function* () {
      const duplex = new Duplex({ autoDestroy: false, read() {} })
      const recorder = record(NodeTransport.fromDuplex(duplex))
      duplex.emit("error", new Error("bad luck"))
      yield* closed(recorder)
      strictEqual(recorder.error()?.message, "read: bad luck")
      strictEqual(duplex.destroyed, true)
    })
  )
})
