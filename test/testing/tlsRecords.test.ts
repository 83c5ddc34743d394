import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { StreamError, Tls, type Transport } from "effect-wire"
import { TestNetwork } from "effect-wire/testing"
import { upgradable } from "../../src/testing/internal/tls.ts"
import { outcomeOf, start } from "../support/effects.ts"
import { type FakeTransport, makeFake } from "../support/FakeTransport.ts"
import { manualScheduler, record } from "../support/transports.ts"

const ignore: Transport.Handler = { onData() {}, onEnd() {}, onDrain() {}, onClosed() {} }

const nothing = new Uint8Array(0)

const serverSide = Tls.serverHandshake(
  Tls.checkServer({ identity: TestNetwork.identity({ names: ["service.test"] }) })
)
const clientSide = Tls.clientHandshake(Tls.checkClient(true), "service.test")

/** One end of a connection, whose bytes travel when the test says so. */
const side = Effect.fnUntraced(function* (handshake: Tls.Handshake) {
  const { scheduler, settle } = manualScheduler()
  const below = makeFake({ room: Infinity })
  const transport = upgradable(below, scheduler.makeDispatcher())
  transport.start(ignore)
  const upgrading = yield* start(transport.upgradeTls?.(handshake, nothing) ?? Effect.die("no TLS"))
  let sent = 0
  const take = (): Uint8Array => {
    const bytes = below.written().slice(sent)
    sent += bytes.length
    return bytes
  }
  return { below, settle, take, transport, upgrading, secured: Fiber.join(upgrading.fiber) }
})

const toThe = (peer: FakeTransport, bytes: Uint8Array): void => {
  peer.receive(bytes)
}

const byteByByte = (peer: FakeTransport, bytes: Uint8Array): void => {
  for (const byte of bytes) peer.receive(Uint8Array.of(byte))
}

/** A server whose client has sent all of its records together, and the client. */
const handshaken = Effect.fnUntraced(function* (say: (client: Transport.Transport) => void, carry = toThe) {
  const client = yield* side(clientSide)
  const server = yield* side(serverSide)
  carry(server.below, client.take())
  carry(client.below, server.take())
  const near = yield* client.secured
  near.start(ignore)
  say(near)
  carry(server.below, client.take())
  return { client, near, server, far: yield* server.secured }
})

describe("records", () => {
  it.effect("that come with the end of the handshake wait until they are wanted", () =>
    Effect.gen(function* () {
      const { far, server } = yield* handshaken((client) => {
        client.write("first ")
        client.writeAll(["se", "cond"])
        client.end()
      })
      assert.isTrue(server.below.paused)
      const seen = record(far)
      server.settle()
      assert.deepStrictEqual(seen.events, [])
      far.resume()
      assert.deepStrictEqual(seen.events, [])
      server.settle()
      assert.deepStrictEqual(seen.events, ["data", "end"])
      assert.strictEqual(seen.text(), "first second")
    })
  )

  it.effect("are whole, however they are cut", () =>
    Effect.gen(function* () {
      const large = new Uint8Array(40_000).map((_, i) => i % 251)
      const { client, far, near, server } = yield* handshaken(() => {}, byteByByte)
      const seen = record(far)
      far.resume()
      near.write(large)
      byteByByte(server.below, client.take())
      assert.strictEqual(seen.chunks.length, 3)
      assert.deepStrictEqual(new Uint8Array(Buffer.concat(seen.chunks)), large)
    })
  )

  it.effect("that are being delivered when somebody pauses are one chunk, and no more come after it", () =>
    Effect.gen(function* () {
      const { far, server } = yield* handshaken((client) => client.write("first"))
      const seen = record(far)
      far.resume()
      far.pause()
      server.settle()
      assert.deepStrictEqual(seen.events, [])
      far.resume()
      server.settle()
      assert.strictEqual(seen.text(), "first")
    })
  )

  it.effect("that nobody has asked for yet come before a loss", () =>
    Effect.gen(function* () {
      const { far, server } = yield* handshaken((client) => client.write("last words"))
      const seen = record(far)
      const error = server.below.reset()
      assert.deepStrictEqual(seen.events, ["data", "closed"])
      assert.strictEqual(seen.error(), error)
    })
  )
})

describe("the end", () => {
  it.effect("without a close_notify is found when it is looked for", () =>
    Effect.gen(function* () {
      const { far, server } = yield* handshaken(() => {})
      const seen = record(far)
      server.below.receiveEnd()
      assert.notInclude(server.below.calls, "abort")
      far.resume()
      server.settle()
      assert.include(server.below.calls, "abort")
      server.below.letGo()
      assert.deepStrictEqual(seen.events, ["closed"])
      assert.strictEqual(seen.error()?.reason._tag, "TlsTruncated")
    })
  )

  it.effect("that comes before the start is told after it", () =>
    Effect.gen(function* () {
      const { far, server } = yield* handshaken(() => {})
      const error = server.below.reset()
      const seen = record(far)
      assert.deepStrictEqual(seen.events, [])
      server.settle()
      assert.deepStrictEqual(seen.events, ["closed"])
      assert.strictEqual(seen.error(), error)
    })
  )

  it.effect("is said once, by end and close and close again", () =>
    Effect.gen(function* () {
      const { client, near } = yield* handshaken(() => {})
      near.close()
      near.close()
      assert.strictEqual(Buffer.from(client.take()).toString("latin1"), "\x15\x03\x03\x00\x0cclose_notify")
    })
  )
})

describe("a handshake", () => {
  it.effect("on a transport that has gone fails", () =>
    Effect.gen(function* () {
      const below = makeFake()
      const transport = upgradable(below, manualScheduler().scheduler.makeDispatcher())
      transport.start(ignore)
      below.letGo()
      assert.strictEqual(
        yield* outcomeOf(transport.upgradeTls?.(clientSide, nothing) ?? Effect.die("no TLS")),
        "ConnectionReset"
      )
    })
  )

  it.effect("that is interrupted aborts the transport, and whoever had it before is told of its end", () =>
    Effect.gen(function* () {
      const below = makeFake({ prompt: true })
      const transport = upgradable(below, manualScheduler().scheduler.makeDispatcher())
      let closed = 0
      transport.start({ ...ignore, onClosed: () => closed++ })
      const upgrading = yield* start(transport.upgradeTls?.(clientSide, nothing) ?? Effect.die("no TLS"))
      assert.strictEqual(closed, 0)
      yield* upgrading.interrupt
      assert.include(below.calls, "abort")
      assert.strictEqual(closed, 1)
    })
  )

  it.effect("that fails closes the transport when the alert is sent", () =>
    Effect.gen(function* () {
      const server = yield* side(serverSide)
      server.below.receive("GET / HTTP/1.1\r\n\r\n")
      const error = yield* Effect.flip(server.secured)
      assert.instanceOf(error, StreamError.TlsError)
      assert.deepStrictEqual(server.below.calls, [
        "start",
        "resume",
        "writeAll \x15\x03\x03\x00\x07|Refused",
        "close"
      ])
    })
  )
})
