// node:readline over a socket, with its `line` event.
import * as net from "node:net"
import * as readline from "node:readline"
import { announce, mode, unknownMode } from "./shared.ts"

/** Every line is written as it comes. */
const lines = (socket: net.Socket): void => {
  const reader = readline.createInterface({ input: socket, crlfDelay: Infinity })
  reader.on("line", (line) => {
    if (!socket.write(`${line}\n`)) {
      reader.pause()
      socket.once("drain", () => reader.resume())
    }
  })
  reader.on("close", () => socket.end())
}

/** The lines of one chunk, each written by itself, leave in one system call. */
const linesCorked = (socket: net.Socket): void => {
  const reader = readline.createInterface({ input: socket, crlfDelay: Infinity })
  let corked = false
  const uncork = (): void => {
    corked = false
    socket.uncork()
    if (socket.writableNeedDrain) {
      reader.pause()
      socket.once("drain", () => reader.resume())
    }
  }
  reader.on("line", (line) => {
    if (!corked) {
      corked = true
      socket.cork()
      process.nextTick(uncork)
    }
    socket.write(`${line}\n`)
  })
  reader.on("close", () => socket.end())
}

const modes: Record<string, ((socket: net.Socket) => void) | undefined> = {
  lines,
  "lines-corked": linesCorked
}

const onConnection = modes[mode] ?? unknownMode()

const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
  socket.on("error", () => socket.destroy())
  onConnection(socket)
})

server.listen({ host: "127.0.0.1", port: 0, backlog: 1024 }, () => {
  const address = server.address()
  if (address !== null && typeof address === "object") announce(address.port)
})
