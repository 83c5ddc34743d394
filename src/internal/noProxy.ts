import * as Result from "effect/Result"
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"
import type { TunnelTarget } from "./tunnel.ts"

type Exemption = (target: TunnelTarget) => boolean

/** A name stands for itself and for all below it. */
const named = (name: string): Exemption => {
  const top = name
    .toLowerCase()
    .replace(/^\*?\./, "")
    .replace(/\.$/, "")
  return (target) => {
    if (target._tag !== "Host") return false
    const host = target.host.replace(/\.$/, "")
    return host === top || host.endsWith(`.${top}`)
  }
}

const hostsOf = (text: string): Exemption => {
  const network = Result.getOrUndefined(IpNetwork.fromString(text))
  if (network !== undefined) {
    return (target) => target._tag === "Inet" && IpNetwork.contains(network, target.address.address)
  }
  const ip = Result.getOrUndefined(NetAddress.ipFromString(text.replace(/^\[(.*)\]$/, "$1")))
  if (ip === undefined) return named(text)
  const shown = NetAddress.formatIp(ip)
  return (target) => target._tag === "Inet" && NetAddress.formatIp(target.address.address) === shown
}

const entryOf = (text: string): Exemption => {
  if (text === "*") return () => true
  // A colon more is an IPv6 address without brackets.
  const [, host, port] = /^(\[.*\]|[^:]*):(\d+)$/.exec(text) ?? []
  if (host === undefined) return hostsOf(text)
  const isHost = hostsOf(host)
  return (target) =>
    String(target._tag === "Host" ? target.port : target.address.port) === port && isHost(target)
}

/** What `NO_PROXY` exempts: names, with what is below them, addresses, networks, each with a port or without, or `*`. */
export const noProxy = (text: string): Exemption => {
  const entries = text
    .split(/[\s,]+/)
    .filter((entry) => entry !== "")
    .map(entryOf)
  return (target) => entries.some((isExempt) => isExempt(target))
}
