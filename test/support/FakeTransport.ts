import type { NetAddress } from "effect/net"
import { StreamError, type Transport } from "effect-wire"

export interface FakeOptions {
  /** Default `true`. */
  readonly canEnd?: boolean | undefined
  /** Default: not given. */
  readonly canLinger?: boolean | undefined
  /** Default `true`. */
  readonly readAhead?: boolean | undefined
  /** How many bytes the system takes without being told. Default 0: it takes what `accept` says. */
  readonly room?: number | undefined
  /** Calls `onClosed` from within `abort`, and from within `close` once nothing is buffered. Default: when the test says. */
  readonly prompt?: boolean | undefined
  readonly localAddress?: NetAddress.SocketAddress | undefined
  readonly remoteAddress?: NetAddress.SocketAddress | undefined
}

/** A transport that writes down what it is told and does what the test says. It throws when it is misused. */
export interface FakeTransport extends Transport.Transport {
  /** What the connection called, in order; a write with its text (`"write abc"`, `"writeAll a|b"`). */
  readonly calls: ReadonlyArray<string>
  /** The calls so far; the next ones begin a new list. */
  readonly takeCalls: () => ReadonlyArray<string>
  /** All the bytes that were written, whether the system has them or not. */
  readonly written: () => Uint8Array
  readonly text: () => string
  readonly paused: boolean
  /** Called at the begin of every write. */
  onWrite: () => void
  /** The system takes bytes: all that are buffered, or some. */
  readonly accept: (bytes?: number) => void
  /** The peer's bytes. */
  readonly receive: (chunk: Uint8Array | string) => void
  /** The peer's FIN. */
  readonly receiveEnd: () => void
  /** The transport lets go. */
  readonly letGo: (error?: StreamError.ConnectionError) => void
  /** The transport lets go because the peer reset it. */
  readonly reset: () => StreamError.ConnectionError
  /** The transport lets go, unless it has. */
  readonly finish: () => void
}

export const connectionError = (
  reason: StreamError.ConnectionErrorReason,
  operation = "read"
): StreamError.ConnectionError => new StreamError.ConnectionError({ operation, reason })

const encoder = new TextEncoder()
const decoder = new TextDecoder()

const encode = (chunk: Uint8Array | string) => (typeof chunk === "string" ? encoder.encode(chunk) : chunk)

export const makeFake = (options: FakeOptions = {}): FakeTransport => {
  let handler: Transport.Handler | undefined
  let calls: Array<string> = []
  const chunks: Array<Uint8Array> = []
  let room = options.room ?? 0
  let buffered = 0
  let paused = true
  let ended = false
  let closing = false
  let aborted = false
  let closed = false
  const note = (call: string) => {
    calls.push(call)
  }
  const live = (): Transport.Handler => {
    if (handler === undefined) throw new Error("the transport was not started")
    if (closed) throw new Error("the transport has let go")
    return handler
  }
  const push = (call: string, batch: ReadonlyArray<Uint8Array | string>) => {
    if (ended || closing || aborted || closed) throw new Error(`${call} after the end`)
    if (batch.length === 0) throw new Error(`${call} of nothing`)
    self.onWrite()
    for (const chunk of batch) {
      const bytes = encode(chunk)
      if (bytes.length === 0) throw new Error(`${call} of an empty chunk`)
      chunks.push(bytes.slice())
      buffered += bytes.length
    }
    const now = Math.min(room, buffered)
    room -= now
    buffered -= now
    note(`${call} ${batch.map((chunk) => decoder.decode(encode(chunk))).join("|")}`)
  }
  const letGo = (error?: StreamError.ConnectionError) => {
    const { onClosed } = live()
    closed = true
    onClosed(error)
  }
  const self: FakeTransport = {
    kind: "fake",
    localAddress: options.localAddress,
    remoteAddress: options.remoteAddress,
    canEnd: options.canEnd ?? true,
    canLinger: options.canLinger,
    readAhead: options.readAhead ?? true,
    get bufferedBytes() {
      return buffered
    },
    get calls() {
      return calls
    },
    get paused() {
      return paused
    },
    onWrite() {},
    takeCalls() {
      const taken = calls
      calls = []
      return taken
    },
    written: () => Buffer.concat(chunks),
    text: () => decoder.decode(Buffer.concat(chunks)),
    start(given) {
      if (handler !== undefined) throw new Error("a second start")
      handler = given
      note("start")
    },
    pause() {
      paused = true
      note("pause")
    },
    resume() {
      if (closed) throw new Error("resume after the end")
      paused = false
      note("resume")
    },
    write: (chunk) => push("write", [chunk]),
    writeAll: (batch) => push("writeAll", batch),
    end() {
      if (options.canEnd === false && options.canLinger !== true) throw new Error("this transport cannot end")
      if (ended || closing || aborted || closed) throw new Error("end after the end")
      ended = true
      note("end")
    },
    close() {
      live()
      closing = true
      note("close")
      if (options.prompt === true && buffered === 0) letGo()
    },
    abort() {
      live()
      aborted = true
      buffered = 0
      note("abort")
      if (options.prompt === true) letGo()
    },
    accept(bytes = Infinity) {
      const { onDrain } = live()
      const now = Math.min(bytes, buffered)
      buffered -= now
      if (now > 0) onDrain()
      if (options.prompt === true && closing && buffered === 0 && !closed) letGo()
    },
    receive: (chunk) => live().onData(encode(chunk)),
    receiveEnd: () => live().onEnd(),
    letGo,
    reset() {
      const error = connectionError(new StreamError.ConnectionReset({ code: "ECONNRESET" }))
      letGo(error)
      return error
    },
    finish() {
      if (!closed) letGo()
    }
  }
  return self
}
