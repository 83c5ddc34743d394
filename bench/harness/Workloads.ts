/** What is measured: every workload, who takes part in it, and what must come out. */
import { type Argv } from "./Processes.ts"

/** How big everything is. */
export interface Size {
  readonly rounds: number
  /** Of a run of the workloads that have a duration. */
  readonly seconds: number
  /** Of the workloads that have an amount: 1, or less. */
  readonly scale: number
}

export const full: Size = { rounds: 7, seconds: 2, scale: 1 }
export const quick: Size = { rounds: 3, seconds: 0.4, scale: 0.1 }

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
const seconds = (size: Size): string => String(size.seconds)

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
    contestants: everyServer("receive"),
    serverArgs: (size) => [bulkBytes(size), "65536"],
    load: (size) => ["send", "--size", "65536", "--bytes", bulkBytes(size)],
    inBytes: true,
    targets: [{ metric: "rate", of: wire, versus: plain, atLeast: 0.97 }]
  }
]

/** Only the library and plain node:net, and only what is said of the two, with margins for a busy machine. */
export const toQuick = <W extends Workload>(workload: W): W => ({
  ...workload,
  contestants: workload.contestants.filter(({ label }) => label === wire || label === plain),
  targets: workload.targets.filter(({ versus }) => versus === plain).map(lenient)
})

const MARGIN = 1.5

const lenient = (target: Target): Target => ({
  ...target,
  ...(target.atLeast !== undefined && { atLeast: Number((target.atLeast / MARGIN).toFixed(2)) }),
  ...(target.atMost !== undefined && { atMost: Number((target.atMost * MARGIN).toFixed(2)) })
})
