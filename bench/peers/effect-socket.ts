// Effect's own Socket and NodeSocketServer.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as NetAddress from "effect/net/NetAddress"
import * as Socket from "effect/socket/Socket"
import { announce, bytes, line, mode, size, unknownMode } from "./shared.ts"

type Handler = (socket: Socket.Socket) => Effect.Effect<void, unknown, Scope.Scope>

const echo: Handler = Effect.fnUntraced(function* (socket) {
  const { pull } = yield* socket.reader
  const { writeAll } = yield* socket.writer
  while (true) yield* writeAll(yield* pull)
})

const echoTimeouts: Handler = Effect.fnUntraced(function* (socket) {
  const { pull } = yield* socket.reader
  const { writeAll } = yield* socket.writer
  const timedPull = Effect.timeout(pull, "30 seconds")
  while (true) yield* Effect.timeout(writeAll(yield* timedPull), "30 seconds")
})

const splitLines = (socket: Socket.Socket) =>
  Socket.toStream(socket).pipe(Stream.decodeText, Stream.splitLines)

const lines: Handler = Effect.fnUntraced(function* (socket) {
  const { write } = yield* socket.writer
  yield* Stream.runForEach(splitLines(socket), (line) => write(`${line}\n`))
})

/** One write for all lines that came together. */
const linesBatched: Handler = Effect.fnUntraced(function* (socket) {
  const { write } = yield* socket.writer
  yield* Stream.runForEachArray(splitLines(socket), (lines) => write(`${lines.join("\n")}\n`))
})

const send: Handler = Effect.fnUntraced(function* (socket) {
  // The reader is what keeps the connection open.
  yield* socket.reader
  const { write } = yield* socket.writer
  const chunk = new Uint8Array(size).fill(0x78)
  for (let sent = 0; sent < bytes; sent += size) yield* write(chunk)
})

const receive: Handler = Effect.fnUntraced(function* (socket) {
  const { pull } = yield* socket.reader
  const { write } = yield* socket.writer
  let received = 0
  while (received < bytes) {
    for (const chunk of yield* pull) received += chunk.length
  }
  yield* write(`${received}\n`)
})

const request: Handler = Effect.fnUntraced(function* (socket) {
  const { pull } = yield* socket.reader
  const { write } = yield* socket.writer
  let received = 0
  while (received < size) {
    for (const chunk of yield* pull) received += chunk.length
  }
  yield* write(line)
})

const modes: Record<string, Handler | undefined> = {
  echo,
  "echo-timeouts": echoTimeouts,
  lines,
  "lines-batched": linesBatched,
  send,
  receive,
  writes: send,
  requests: request
}

const main = Effect.gen(function* () {
  const handler = modes[mode] ?? unknownMode()
  const server = yield* NodeSocketServer.make({
    host: "127.0.0.1",
    port: 0,
    backlog: 1024,
    allowHalfOpen: true,
    noDelay: true
  })
  announce(NetAddress.isInetAddress(server.address) ? server.address.port : 0)
  // Every end of a socket is a failure of its reader, the peer's end of input too.
  return yield* server.run((socket) => Effect.ignore(Effect.scoped(handler(socket))))
})

main.pipe(Effect.scoped, NodeRuntime.runMain)
