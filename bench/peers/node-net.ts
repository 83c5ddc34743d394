// Plain node:net as it is written by hand: `data` events, and reading stops while a write is congested.
import type * as net from "node:net"
import { Readable, Writable } from "node:stream"
import { bytes, line, mode, serve, size, unknownMode } from "./shared.ts"

const LF = 0x0a
const IDLE_MILLIS = 60_000

/** Stops reading until what was written is sent. */
const pauseUntilDrain = (socket: net.Socket): void => {
  socket.pause()
  socket.once("drain", () => socket.resume())
}

const echo = (socket: net.Socket): void => {
  socket.on("data", (chunk: Buffer) => {
    if (!socket.write(chunk)) pauseUntilDrain(socket)
  })
  socket.on("end", () => socket.end())
}

const echoTimeouts = (socket: net.Socket): void => {
  socket.setTimeout(IDLE_MILLIS, () => socket.destroy())
  echo(socket)
}

/** Calls `onLine` with every line, its "\n" included. */
const eachLine = (socket: net.Socket, onLine: (line: Buffer) => void, onChunk: () => void): void => {
  let rest: Array<Buffer> = []
  socket.on("data", (chunk: Buffer) => {
    let start = 0
    for (;;) {
      const end = chunk.indexOf(LF, start)
      if (end < 0) break
      const last = chunk.subarray(start, end + 1)
      if (rest.length === 0) onLine(last)
      else {
        rest.push(last)
        onLine(Buffer.concat(rest))
        rest = []
      }
      start = end + 1
    }
    if (start < chunk.length) rest.push(chunk.subarray(start))
    onChunk()
  })
}

const lines = (socket: net.Socket): void => {
  let corked = false
  eachLine(
    socket,
    (line) => {
      if (!corked) {
        corked = true
        socket.cork()
      }
      socket.write(line)
    },
    () => {
      if (!corked) return
      corked = false
      socket.uncork()
      if (socket.writableNeedDrain) pauseUntilDrain(socket)
    }
  )
  socket.on("end", () => socket.end())
}

const send = (socket: net.Socket): void => {
  const chunk = Buffer.alloc(size, "x")
  let left = bytes
  const source = new Readable({
    highWaterMark: size,
    read() {
      if (left === 0) this.push(null)
      else {
        left -= size
        this.push(chunk)
      }
    }
  })
  source.pipe(socket)
}

const receive = (socket: net.Socket): void => {
  let received = 0
  socket.pipe(
    new Writable({
      write(chunk: Buffer, _encoding, done) {
        received += chunk.length
        if (received === bytes) socket.end(`${received}\n`)
        done()
      }
    })
  )
}

const writes = (socket: net.Socket): void => {
  const chunk = Buffer.alloc(size, "x")
  let left = bytes / size
  const more = (): void => {
    while (left > 0) {
      left--
      if (!socket.write(chunk)) {
        socket.once("drain", more)
        return
      }
    }
    socket.end()
  }
  more()
}

const writesCorked = (socket: net.Socket): void => {
  const chunk = Buffer.alloc(size, "x")
  let left = bytes / size
  const more = (): void => {
    socket.cork()
    let free = true
    while (left > 0 && free) {
      left--
      free = socket.write(chunk)
    }
    if (!free) socket.once("drain", more)
    socket.uncork()
    if (free) socket.end()
  }
  more()
}

const requests = (socket: net.Socket): void => {
  eachLine(
    socket,
    () => socket.end(line),
    () => {}
  )
}

const modes: Record<string, ((socket: net.Socket) => void) | undefined> = {
  echo,
  "echo-timeouts": echoTimeouts,
  lines,
  send,
  receive,
  writes,
  "writes-corked": writesCorked,
  requests
}

serve(modes[mode] ?? unknownMode())
