/** What every server program in JavaScript shares: its arguments, and how it tells its port and ends. */
import * as fs from "node:fs"
import * as net from "node:net"

// `PROGRAM MODE BYTES SIZE`: what to do, and how much is sent or received where the mode has a fixed amount.
const [, , modeArgument = "", bytesArgument = "0", sizeArgument = "64"] = process.argv

export const mode = modeArgument
export const bytes = Number(bytesArgument)
export const size = Number(sizeArgument)

/** One line of the length that the mode is about: the reply to a request. */
export const line = Buffer.from(`${"r".repeat(Math.max(0, size - 1))}\n`)

/** Tells the harness the port, and ends with it. */
export const announce = (port: number): void => {
  // At the end of input the harness is gone.
  process.stdin.on("end", () => process.exit(0)).resume()
  // Before memory is read, garbage is collected.
  process.on("SIGUSR2", () => globalThis.gc?.())
  fs.writeSync(1, `PORT ${port}\n`)
}

/** Says that this program has no such mode. */
export const unknownMode = (): never => {
  console.error(`no mode ${mode}`)
  process.exit(2)
}

/** Serves with plain node:net. */
export const serve = (onConnection: (socket: net.Socket) => void): void => {
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    // The generator resets its connections when its time is over.
    socket.on("error", () => socket.destroy())
    onConnection(socket)
  })
  server.listen({ host: "127.0.0.1", port: 0, backlog: 1024 }, () => {
    const address = server.address()
    if (address !== null && typeof address === "object") announce(address.port)
  })
}
