import { Effect } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import type * as net from "node:net"

export const BLOCK = 65_536

/** Bytes that differ from place to place, so that nothing can be lost, doubled or swapped unseen. */
export const block = (index: number): Uint8Array => {
  const bytes = new Uint8Array(BLOCK).fill(index % 251)
  new DataView(bytes.buffer).setUint32(0, index)
  return bytes
}

/** A digest of so many blocks. */
export const digestOfBlocks = (count: number): string => {
  const hash = createHash("sha1")
  for (let i = 0; i < count; i++) hash.update(block(i))
  return hash.digest("hex")
}

/** Writes blocks to a plain socket as fast as they are taken, then ends it. `taken` is what the system has got so far. */
export const pour = (socket: net.Socket, count: number): { readonly taken: () => number } => {
  let next = 0
  const go = (): void => {
    while (next < count) if (!socket.write(block(next++))) return void socket.once("drain", go)
    socket.end()
  }
  go()
  return { taken: () => socket.bytesWritten - socket.writableLength }
}

/** Reads a plain socket to its end, and digests what came; fails if there is no end. */
export const drink = (socket: net.Socket): Effect.Effect<string, unknown> =>
  Effect.callback((resume) => {
    const hash = createHash("sha1")
    socket.on("data", (chunk: Buffer) => hash.update(chunk))
    socket.once("end", () => resume(Effect.succeed(hash.digest("hex"))))
    socket.once("error", (error) => resume(Effect.fail(error)))
    socket.once("close", () => resume(Effect.fail(new Error("closed without an end"))))
    socket.resume()
  })

const STATES: Record<string, string> = {
  "01": "ESTABLISHED",
  "02": "SYN_SENT",
  "03": "SYN_RECV",
  "04": "FIN_WAIT1",
  "05": "FIN_WAIT2",
  "06": "TIME_WAIT",
  "07": "CLOSE",
  "08": "CLOSE_WAIT",
  "09": "LAST_ACK",
  "0A": "LISTEN",
  "0B": "CLOSING"
}

/**
 * The states of all TCP sockets of this machine that have one of the ports, at either end, but for those that are quite
 * normal: the listening ones, and those in TIME_WAIT, which belong to no process.
 */
export const socketsOn = (...ports: ReadonlyArray<number>): ReadonlyArray<string> =>
  ["/proc/net/tcp", "/proc/net/tcp6"]
    .filter((file) => fs.existsSync(file))
    .flatMap((file) => fs.readFileSync(file, "utf8").trim().split("\n").slice(1))
    .flatMap((line) => {
      const [, local = "", remote = "", state = ""] = line.trim().split(/\s+/)
      const own = [local, remote].some((address) => ports.includes(parseInt(address.split(":")[1] ?? "", 16)))
      return own ? [STATES[state] ?? state] : []
    })
    .filter((state) => state !== "LISTEN" && state !== "TIME_WAIT")

/** How many descriptors of this process are sockets. */
export const socketDescriptors = (): number =>
  fs.readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`).startsWith("socket:")
    } catch {
      // That of the directory itself.
      return false
    }
  }).length
