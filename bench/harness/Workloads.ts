/** What is measured: every workload, who takes part in it, and what must come out. */
import { descriptorLimit } from "./Machine.ts"
import type { Argv } from "./Processes.ts"

/** How big everything is. */
export interface Size {
  readonly rounds: number
  /** At most so many of the idle connections, which take their time and vary little. */
  readonly idleRounds: number
  /** At most so many of the programs in memory, which begin anew and warm up in each. */
  readonly memoryRounds: number
  /** Of a run of the workloads that have a duration. */
  readonly seconds: number
  /** Of the workloads that have an amount: 1, or less. */
  readonly scale: number
}

export const full: Size = { rounds: 7, idleRounds: 3, memoryRounds: Infinity, seconds: 1, scale: 1 }
export const quick: Size = { rounds: 3, idleRounds: 1, memoryRounds: 1, seconds: 0.3, scale: 0.1 }

/** One who takes part: a peer in one of its modes. */
export interface Contestant {
  readonly peer: string
  readonly mode: string
  /** What its row is called: the peer's name, and the variant if there are several. */
  readonly label: string
}

/** What a target is about. */
export type Metric = "rate" | "cpu" | "memory" | "wakeups" | "growth"

/** What must come out, against a peer (`versus`) or as it is. */
export interface Target {
  readonly metric: Metric
  readonly of: string
  readonly versus?: string
  readonly atLeast?: number
  readonly atMost?: number
}

interface Common {
  readonly id: string
  readonly title: string
  /** What one message is, in the singular. */
  readonly unit: string
  readonly contestants: ReadonlyArray<Contestant>
  readonly targets: ReadonlyArray<Target>
}

/** A server under the load of the generator. */
export interface Loaded extends Common {
  readonly kind: "loaded"
  /** Arguments of the server program after its mode. */
  readonly serverArgs: (size: Size) => ReadonlyArray<string>
  /** Arguments of the generator. */
  readonly load: (size: Size) => Argv
  /** Rates are shown as bytes per second, not messages. */
  readonly inBytes: boolean
}

/** Connections that do nothing. */
export interface Idle extends Common {
  readonly kind: "idle"
  readonly connections: (size: Size) => number
}

/** A program that works in memory, without the generator. */
export interface InMemory extends Common {
  readonly kind: "memory"
  readonly args: (size: Size, contestant: Contestant) => ReadonlyArray<string>
  readonly inBytes: boolean
}

export type Workload = Loaded | Idle | InMemory

const entry = (peer: string, mode: string, variant?: string): Contestant => ({
  peer,
  mode,
  label: variant === undefined ? peer : `${peer} ${variant}`
})

const MIB = 1024 * 1024
const GIB = 1024 * MIB

const SERVERS = ["effect-wire", "node-net", "effect-socket", "asyncio", "uvloop", "go", "epoll"]

const everyServer = (mode: string): ReadonlyArray<Contestant> => SERVERS.map((peer) => entry(peer, mode))

const wire = "effect-wire"
const plain = "node-net"

const bulkBytes = (size: Size): string => String(Math.round((2 * GIB * size.scale) / 65_536) * 65_536)
const writeBytes = (size: Size): string => String(Math.round(1_000_000 * size.scale) * 64)
const megabytes = (n: number): number => Math.max(1, Math.round(n)) * MIB
const seconds = (size: Size): string => String(size.seconds)

const inMemory = (options: {
  readonly id: string
  readonly title: string
  readonly unit: string
  /** The case of the programs. */
  readonly name: string
  readonly peers: ReadonlyArray<string>
  readonly more?: ReadonlyArray<Contestant>
  readonly targets: ReadonlyArray<Target>
}): InMemory => ({
  id: options.id,
  kind: "memory",
  title: options.title,
  unit: options.unit,
  contestants: [...options.peers.map((peer) => entry(peer, options.name)), ...(options.more ?? [])],
  args: (size, { mode }) => [mode, String(megabytes(64 * size.scale))],
  inBytes: false,
  targets: options.targets
})

export const all: ReadonlyArray<Workload> = [
  {
    id: "W1",
    kind: "loaded",
    title: "echo: 64-byte messages, 50 connections, one message each on its way",
    unit: "message",
    contestants: everyServer("echo"),
    serverArgs: () => ["0", "64"],
    load: (size) => ["pingpong", "--connections", "50", "--size", "64", "--seconds", seconds(size)],
    inBytes: false,
    targets: [
      { metric: "cpu", of: wire, versus: plain, atMost: 1.05 },
      { metric: "rate", of: wire, versus: "asyncio", atLeast: 1.3 },
      { metric: "rate", of: wire, versus: "uvloop", atLeast: 1 }
    ]
  },
  {
    id: "W2",
    kind: "loaded",
    title:
      "line echo: 10 connections, 100 lines of 64 bytes each on their way, read and written line by line",
    unit: "line",
    contestants: [
      entry(wire, "lines"),
      entry(plain, "lines"),
      entry("node-readline", "lines"),
      entry("node-readline", "lines-corked", "(corked)"),
      entry("effect-socket", "lines"),
      entry("effect-socket", "lines-batched", "(batched)"),
      entry("asyncio", "lines"),
      entry("uvloop", "lines"),
      entry("go", "lines"),
      entry("epoll", "lines")
    ],
    serverArgs: () => ["0", "64"],
    load: (size) => [
      "lines",
      ...["--connections", "10", "--in-flight", "100", "--size", "64", "--seconds", seconds(size)]
    ],
    inBytes: false,
    targets: [
      { metric: "rate", of: wire, versus: "node-readline", atLeast: 5 },
      { metric: "rate", of: wire, versus: "asyncio", atLeast: 6 },
      { metric: "rate", of: wire, versus: "effect-socket", atLeast: 6 },
      { metric: "rate", of: wire, versus: "uvloop", atLeast: 2 }
    ]
  },
  {
    id: "W3-send",
    kind: "loaded",
    title: "one-way bulk: the server sends chunks of 64 KiB",
    unit: "chunk",
    contestants: everyServer("send"),
    serverArgs: (size) => [bulkBytes(size), "65536"],
    load: (size) => ["receive", "--size", "65536", "--bytes", bulkBytes(size)],
    inBytes: true,
    targets: [{ metric: "rate", of: wire, versus: plain, atLeast: 0.97 }]
  },
  {
    id: "W3-receive",
    kind: "loaded",
    title: "one-way bulk: the server counts what comes in chunks of 64 KiB",
    unit: "chunk",
    contestants: [
      entry(wire, "receive-into"),
      entry(wire, "receive", "(read)"),
      ...SERVERS.filter((peer) => peer !== wire).map((peer) => entry(peer, "receive"))
    ],
    serverArgs: (size) => [bulkBytes(size), "65536"],
    load: (size) => ["send", "--size", "65536", "--bytes", bulkBytes(size)],
    inBytes: true,
    targets: [{ metric: "rate", of: wire, versus: plain, atLeast: 0.97 }]
  },
  {
    id: "W4",
    kind: "loaded",
    title: "separate writes of 64 bytes, each awaited; the peer counts bytes",
    unit: "write",
    contestants: [
      entry(wire, "writes"),
      entry(plain, "writes"),
      entry(plain, "writes-corked", "(corked)"),
      ...["effect-socket", "asyncio", "uvloop", "go", "epoll"].map((peer) => entry(peer, "writes"))
    ],
    serverArgs: (size) => [writeBytes(size), "64"],
    load: (size) => ["receive", "--size", "64", "--bytes", writeBytes(size)],
    inBytes: false,
    targets: [
      { metric: "rate", of: wire, versus: plain, atLeast: 15 },
      { metric: "rate", of: wire, versus: "asyncio", atLeast: 15 }
    ]
  },
  {
    id: "W5",
    kind: "loaded",
    title: "connect, one request, one reply, close: 200 at a time",
    unit: "connection",
    contestants: everyServer("requests"),
    serverArgs: () => ["0", "64"],
    load: (size) => ["requests", "--connections", "200", "--size", "64", "--seconds", seconds(size)],
    inBytes: false,
    targets: [{ metric: "rate", of: wire, versus: plain, atLeast: 0.9 }]
  },
  {
    id: "W6",
    kind: "idle",
    title: "idle connections: resident memory of each, and whether anything runs",
    unit: "connection",
    contestants: everyServer("echo"),
    connections: (size) => Math.min(Math.round(10_000 * Math.max(size.scale, 0.2)), descriptorLimit() - 200),
    targets: [
      { metric: "memory", of: wire, versus: plain, atMost: 1.5 },
      { metric: "wakeups", of: wire, atMost: 2 }
    ]
  },
  inMemory({
    id: "W7-readLine",
    title: "in memory: readLine over lines of 64 bytes",
    unit: "line",
    name: "readLine",
    peers: [wire, plain, "asyncio", "go"],
    targets: [{ metric: "rate", of: wire, versus: "asyncio", atLeast: 4 }]
  }),
  inMemory({
    id: "W7-lines",
    title: "in memory: a stream of the lines of 64 bytes as text",
    unit: "line",
    name: "lines",
    peers: [wire, plain, "node-readline", "effect-socket", "asyncio", "go"],
    more: [
      entry(wire, "lines-one-by-one", "(one by one)"),
      entry("node-readline", "lines-for-await", "(for await)"),
      entry("effect-socket", "lines-one-by-one", "(one by one)")
    ],
    targets: [
      { metric: "rate", of: wire, versus: "asyncio", atLeast: 10 },
      { metric: "rate", of: wire, versus: "node-readline", atLeast: 3 }
    ]
  }),
  inMemory({
    id: "W7-frames",
    title: "in memory: readExactly(4) and readExactly(60) per frame",
    unit: "frame",
    name: "frames",
    peers: [wire, plain, "asyncio", "go"],
    targets: []
  }),
  inMemory({
    id: "W7-framed",
    title:
      "in memory: length-prefixed frames of 64 bytes by Framed.receive, as a stream, and by a framing of one's own",
    unit: "frame",
    name: "framed",
    peers: [wire],
    more: [
      entry(wire, "framed-messages", "(messages)"),
      entry(wire, "framed-own", "(Framing.make)"),
      entry(wire, "frames", "(readExactly)"),
      entry("go", "frames")
    ],
    targets: [
      { metric: "rate", of: wire, versus: `${wire} (readExactly)`, atLeast: 0.7 },
      { metric: "rate", of: `${wire} (messages)`, versus: `${wire} (readExactly)`, atLeast: 0.7 },
      { metric: "rate", of: `${wire} (Framing.make)`, versus: wire, atLeast: 0.33 }
    ]
  }),
  inMemory({
    id: "W7-readUntil",
    title: 'in memory: readUntil("\\r\\n\\r\\n") over heads of 256 bytes',
    unit: "head",
    name: "readUntil",
    peers: [wire, plain, "asyncio", "go"],
    targets: []
  }),
  {
    id: "W8",
    kind: "memory",
    title: "in memory: one line that arrives in pieces of 1 KiB, and one twice as long",
    unit: "piece",
    contestants: [wire, plain, "node-readline", "asyncio", "go"].map((peer) => entry(peer, "long-line")),
    args: (size, { mode }) => [mode, String(megabytes(64 * size.scale))],
    inBytes: true,
    targets: [{ metric: "growth", of: wire, atMost: 2.3 }]
  },
  {
    id: "W9",
    kind: "loaded",
    title: "the echo of W1 with time limits for reading, writing and idling",
    unit: "message",
    contestants: [wire, plain, "effect-socket", "asyncio", "uvloop", "go"].flatMap((peer) => [
      entry(peer, "echo"),
      entry(peer, "echo-timeouts", "(timeouts)")
    ]),
    serverArgs: () => ["0", "64"],
    load: (size) => ["pingpong", "--connections", "50", "--size", "64", "--seconds", seconds(size)],
    inBytes: false,
    targets: [{ metric: "rate", of: `${wire} (timeouts)`, versus: wire, atLeast: 0.9 }]
  },
  {
    id: "W10-echo",
    kind: "loaded",
    title:
      "the echo of W1 by a server with events, metrics and spans that nobody looks at, and by a bare loop of accepts",
    unit: "message",
    contestants: [
      entry(wire, "echo"),
      entry(wire, "echo-bare", "(bare)"),
      entry(wire, "echo-watched", "(watched)")
    ],
    serverArgs: () => ["0", "64"],
    load: (size) => ["pingpong", "--connections", "50", "--size", "64", "--seconds", seconds(size)],
    inBytes: false,
    targets: [{ metric: "rate", of: wire, versus: `${wire} (bare)`, atLeast: 0.98 }]
  },
  {
    id: "W10-connect",
    kind: "loaded",
    title:
      "the connections of W5 to a server with events, metrics and spans that nobody looks at, and to a bare loop",
    unit: "connection",
    contestants: [
      entry(wire, "requests"),
      entry(wire, "requests-bare", "(bare)"),
      entry(wire, "requests-watched", "(watched)")
    ],
    serverArgs: () => ["0", "64"],
    load: (size) => ["requests", "--connections", "200", "--size", "64", "--seconds", seconds(size)],
    inBytes: false,
    targets: [{ metric: "rate", of: wire, versus: `${wire} (bare)`, atLeast: 0.98 }]
  }
]

/** Who takes part in a quick run. */
export const quickPeers: ReadonlyArray<string> = [wire, plain]

/** A workload with some of its contestants, and the targets that are about them. */
export const withPeers = <W extends Workload>(workload: W, peers: ReadonlyArray<string>): W => {
  const contestants = workload.contestants.filter(({ peer }) => peers.includes(peer))
  const isThere = (label: string): boolean => contestants.some((_) => _.label === label)
  return {
    ...workload,
    contestants,
    targets: workload.targets.filter(
      ({ of, versus }) => isThere(of) && (versus === undefined || isThere(versus))
    )
  }
}

/** A workload with those only that its targets are about, and with margins for short runs on a busy machine. */
export const toQuick = <W extends Workload>(workload: W): W => {
  const isMeant = ({ label, peer }: Contestant): boolean =>
    workload.targets.length === 0
      ? label === peer
      : workload.targets.some(({ of, versus }) => of === label || versus === label)
  return {
    ...workload,
    contestants: workload.contestants.filter(isMeant),
    targets: workload.targets.map(widen)
  }
}

const MARGIN = 1.5

const widen = (target: Target): Target => ({
  ...target,
  ...(target.atLeast !== undefined && { atLeast: Number((target.atLeast / MARGIN).toFixed(2)) }),
  ...(target.atMost !== undefined && { atMost: Number((target.atMost * MARGIN).toFixed(2)) })
})
