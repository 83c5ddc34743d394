/** The part of a reason that decides what can be done about it. */
interface Reason {
  readonly _tag: string
  readonly code?: string | undefined
}

/** The port of an address as errors show it; none if it is the path of a Unix socket. */
const portOf = (address: string): number | undefined => {
  const port = address.includes("/") ? undefined : /:(\d+)$/.exec(address)?.[1]
  return port === undefined ? undefined : Number(port)
}

const PRIVILEGED = 1024

const inUse = (operation: string, port: number | undefined): string => {
  if (operation !== "listen") return "leave the port out of `localAddress`, or keep fewer connections open"
  return port === undefined
    ? "a server listens there, or something is there that is no socket: choose another path, or remove it"
    : "another program listens there: choose another port, port 0 for any that is free, or set `reusePort` for both"
}

const denied = (operation: string, port: number | undefined): string | undefined => {
  if (port === undefined) {
    return operation === "listen"
      ? "the process must be allowed to make files in the directory of the path"
      : "the process must be allowed to write to the socket's file"
  }
  return operation === "listen" && port < PRIVILEGED
    ? `a port below ${PRIVILEGED} takes privileges (CAP_NET_BIND_SERVICE on Linux): choose another port`
    : undefined
}

const exhausted = (code: string | undefined): string => {
  const fewer = "keep fewer connections open (`maxConnections` of a server)"
  switch (code) {
    case "ENOBUFS":
    case "ENOMEM":
      return fewer
    case "ENFILE":
      return `raise the system's limit of descriptors (fs.file-max on Linux), or ${fewer}`
    default:
      return `raise the process's limit of descriptors (ulimit -n), or ${fewer}`
  }
}

/** What to do about the failure of an operation, as the end of a message; empty where nothing is known to help. */
export const remedyFor = (operation: string, reason: Reason, address: string | undefined): string => {
  const text = remedyOf(operation, reason, address)
  return text === undefined ? "" : `; ${text}`
}

const remedyOf = (operation: string, reason: Reason, address: string | undefined): string | undefined => {
  if (reason._tag === "ResourcesExhausted") return exhausted(reason.code)
  if (address === undefined || (operation !== "listen" && operation !== "connect")) return undefined
  const port = portOf(address)
  switch (reason._tag) {
    case "AddressInUse":
      return inUse(operation, port)
    case "AddressNotAvailable":
      return operation === "listen"
        ? "choose an address of this machine, or leave `host` out to listen on all of them"
        : undefined
    case "PermissionDenied":
      return denied(operation, port)
    case "NotFound":
      if (port !== undefined) return undefined
      return operation === "listen"
        ? "make the directory of the path first"
        : "no server has made its socket there: start it, or correct the path"
    default:
      return undefined
  }
}
