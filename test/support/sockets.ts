import { Effect } from "effect"
import type { NetAddress } from "effect/net"
import { once } from "node:events"
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import type { Recorder } from "./transports.ts"

/** Waits until a transport has told its handler what makes `condition` true. */
export const until = (recorder: Recorder, condition: () => boolean): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const check = (): void => {
      if (condition()) resume(Effect.void)
    }
    recorder.on = check
    check()
  })

/** Waits until a transport has let go. */
export const closed = (recorder: Recorder): Effect.Effect<void> =>
  until(recorder, () => recorder.events.includes("closed"))

/** Waits for an event of Node's. */
export const event = (emitter: NodeJS.EventEmitter, name: string): Effect.Effect<void> =>
  Effect.callback((resume) => {
    emitter.once(name, () => resume(Effect.void))
  })

/** Lets the event loop go round, so that whatever can happen without time passing has happened. */
export const loops = (count: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    let left = count
    const turn = (): void => {
      if (left-- > 0) setImmediate(turn)
      else resume(Effect.void)
    }
    turn()
  })

/** What keeps the process alive on behalf of sockets. */
export const openHandles = (): ReadonlyArray<string> =>
  process.getActiveResourcesInfo().filter((name) => /^(TCP|Pipe)/.test(name))

/**
 * Watches the timers that are set from now on, and tells where those were that still keep the process alive. The test runner
 * has timers of its own, which it sets with what it took aside when it began.
 */
const watchTimers = () => {
  const set = globalThis.setTimeout
  const places = new Map<NodeJS.Timeout, string>()
  globalThis.setTimeout = new Proxy(set, {
    apply: (target, self, parameters) => {
      const timer: NodeJS.Timeout = Reflect.apply(target, self, parameters)
      places.set(timer, new Error(`a timer of ${String(parameters[1])} ms`).stack ?? "")
      return timer
    }
  })
  // Node marks those that have fired or were cleared.
  const isSet = (timer: NodeJS.Timeout): boolean =>
    timer.hasRef() && Reflect.get(timer, "_destroyed") === false
  return {
    left: () => Array.from(places).flatMap(([timer, place]) => (isSet(timer) ? [place] : [])),
    stop: () => {
      globalThis.setTimeout = set
    }
  }
}

/** Runs a test and holds it to leave no socket, no server and no timer behind. */
export const leavingNothing = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => ({ before: openHandles().length, timers: watchTimers() })),
    ({ before, timers }) =>
      Effect.tap(self, () =>
        Effect.flatMap(loops(20), () => {
          const after = openHandles()
          const left = [...(after.length > before ? after : []), ...timers.left()]
          return left.length === 0 ? Effect.void : Effect.die(new Error(`left behind: ${left.join(", ")}`))
        })
      ),
    ({ timers }) => Effect.sync(timers.stop)
  )

/** A server of plain Node sockets: `next` waits for a connection, as it came. */
export const rawServer = (
  listen: net.ListenOptions = { host: "127.0.0.1", port: 0 },
  options?: net.ServerOpts
) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const sockets: Array<net.Socket> = []
      const all = new Set<net.Socket>()
      const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true, ...options }, (socket) => {
        sockets.push(socket)
        all.add(socket)
        socket.once("close", () => all.delete(socket))
        socket.on("error", () => {})
        server.emit("accepted")
      })
      server.listen(listen)
      await once(server, "listening")
      const address = server.address()
      const next = Effect.promise(async () => {
        for (let socket = sockets.shift(); ; socket = sockets.shift()) {
          if (socket !== undefined) return socket
          await once(server, "accepted")
        }
      })
      return {
        server,
        next,
        all,
        port: typeof address === "object" && address !== null ? address.port : 0
      }
    }),
    ({ all, server }) =>
      Effect.sync(() => {
        server.close()
        for (const socket of all) socket.destroy()
      })
  )

/** A port that nobody listens on. */
export const freePort = Effect.map(Effect.scoped(rawServer()), ({ port }) => port)

/** A plain Node socket, connected, that reads nothing until told. Its errors are ignored. */
export const rawConnect = (options: net.NetConnectOpts) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const socket = net.connect({ allowHalfOpen: true, ...options })
      socket.pause()
      await once(socket, "connect")
      socket.on("error", () => {})
      return socket
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** Everything that a plain socket receives until its peer's end; fails if that does not come. */
export const readToEnd = (socket: net.Socket): Effect.Effect<Buffer, unknown> =>
  Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    socket.on("data", (chunk: Buffer) => chunks.push(chunk))
    socket.once("end", () => resume(Effect.succeed(Buffer.concat(chunks))))
    socket.once("error", (error) => resume(Effect.fail(error)))
    socket.once("close", () => resume(Effect.fail(new Error("closed without an end"))))
    socket.resume()
  })

/** A directory that is removed with the scope. */
export const tempDirectory = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "wire-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
)

/** The port of an address that has one. */
export const portOf = (address: NetAddress.SocketAddress | undefined): number =>
  address !== undefined && "port" in address ? address.port : 0

/** Whether a plain socket of this Node takes a reset behind bytes for an end: libuv before 1.52 does. */
export const hidesResets = ((): boolean => {
  const [major = 0, minor = 0] = process.versions.uv.split(".").map(Number)
  return major === 1 && minor < 52
})()
