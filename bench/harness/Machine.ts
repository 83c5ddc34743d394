/** What the machine is, and what the operating system says of a process. */
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"

/** Seconds of processor time that a process has spent, as the operating system accounts for it. */
export interface CpuTime {
  readonly user: number
  readonly system: number
}

// What `sysconf(_SC_CLK_TCK)` and `sysconf(_SC_PAGESIZE)` are.
const configured = (name: string, otherwise: number): number => {
  try {
    return Number(execFileSync("getconf", [name], { encoding: "utf8" })) || otherwise
  } catch {
    return otherwise
  }
}
const ticksPerSecond = configured("CLK_TCK", 100)
const pageSize = configured("PAGESIZE", 4096)

/** Processor time of a process and all its threads since it began. */
export const cpuTime = (pid: number): CpuTime => {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8")
  // The name, in parentheses, may hold spaces; the fields are counted after it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return { user: Number(fields[11]) / ticksPerSecond, system: Number(fields[12]) / ticksPerSecond }
}

export const cpuSince = (before: CpuTime, after: CpuTime): CpuTime => ({
  user: after.user - before.user,
  system: after.system - before.system
})

/** Resident memory of a process, in bytes. */
export const residentBytes = (pid: number): number =>
  Number(fs.readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]) * pageSize

/** How often a process gave up its core, by itself or not: grows only while it runs. */
export const contextSwitches = (pid: number): number => {
  let switches = 0
  for (const task of fs.readdirSync(`/proc/${pid}/task`)) {
    const status = fs.readFileSync(`/proc/${pid}/task/${task}/status`, "utf8")
    for (const [, count] of status.matchAll(/ctxt_switches:\s+(\d+)/g)) switches += Number(count)
  }
  return switches
}

/** The cores that this process may use. */
const allowedCores = (): ReadonlyArray<number> => {
  const list = /Cpus_allowed_list:\s+(\S+)/.exec(fs.readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0"
  return list.split(",").flatMap((range) => {
    const [first = 0, last = first] = range.split("-").map(Number)
    return Array.from({ length: last - first + 1 }, (_, i) => first + i)
  })
}

/** Where server and generator run; both anywhere on a machine with one core or without `taskset`. */
export interface Cores {
  readonly server: number | undefined
  readonly generator: number | undefined
}

export const cores: Effect.Effect<Cores> = Effect.sync(() => {
  const allowed = allowedCores()
  return allowed.length < 2 || !hasProgram("taskset")
    ? { server: undefined, generator: undefined }
    : { server: allowed[0], generator: allowed[allowed.length - 1] }
})

/** Whether a program can be found on the PATH. */
export const hasProgram = (name: string): boolean => {
  try {
    execFileSync("sh", ["-c", `command -v ${name}`], { stdio: "ignore" })
    return true
  } catch {
    return false
  }
}

/** What a program prints about its version, or nothing if it cannot run. */
export const versionOf = (program: string, ...args: ReadonlyArray<string>): string | undefined => {
  try {
    return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim()
  } catch {
    return undefined
  }
}

/** How many descriptors a process can open at most. */
export const descriptorLimit = (): number => {
  const limit = versionOf("sh", "-c", "ulimit -Hn")
  return limit === undefined || limit === "unlimited" ? Infinity : Number(limit)
}

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly kernel: string
  readonly loadAverage: number
}

export const machine = (): Machine => ({
  cpu: os.cpus()[0]?.model ?? "unknown",
  cores: os.availableParallelism(),
  memoryGiB: Math.round(os.totalmem() / 2 ** 30),
  kernel: `${os.type()} ${os.release()}`,
  loadAverage: Math.round((os.loadavg()[0] ?? 0) * 100) / 100
})
