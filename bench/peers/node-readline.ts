// node:readline over a socket, with its `line` event.
import type * as net from "node:net"
import * as readline from "node:readline"
import { mode, serve, unknownMode } from "./shared.ts"

const open = (socket: net.Socket): readline.Interface => {
  const reader = readline.createInterface({ input: socket, crlfDelay: Infinity })
  // It hands on its input's errors, which the socket's own listener has dealt with.
  reader.on("error", () => {})
  reader.on("close", () => socket.end())
  return reader
}

/** Every line is written as it comes. */
const lines = (socket: net.Socket): void => {
  const reader = open(socket)
  let congested = false
  reader.on("line", (line) => {
    // A paused interface still hands out the lines of the chunk it has.
    if (socket.write(`${line}\n`) || congested) return
    congested = true
    reader.pause()
    socket.once("drain", () => {
      congested = false
      reader.resume()
    })
  })
}

/** The lines of one chunk, each written by itself, leave in one system call. */
const linesCorked = (socket: net.Socket): void => {
  const reader = open(socket)
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
}

const modes: Record<string, ((socket: net.Socket) => void) | undefined> = {
  lines,
  "lines-corked": linesCorked
}

serve(modes[mode] ?? unknownMode())
