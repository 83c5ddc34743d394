import { deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Result } from "effect"
import { NetAddress } from "effect/net"
import { describe, it } from "vitest"
import {
  formatListen,
  formatTarget,
  parseListen,
  parseLocalAddress,
  parseTarget,
  type ListenDestination
} from "../../src/internal/target.ts"
import type { ListenAddress, Target } from "../../src/Network.ts"
import type { InvalidAddress } from "../../src/StreamError.ts"

const show = (result: Result.Result<ListenDestination, InvalidAddress>): string => {
  if (Result.isFailure(result)) return `failure: ${result.failure.detail}`
  const to = result.success
  switch (to._tag) {
    case "Inet":
      return `inet ${NetAddress.formatInet(to.address)}`
    case "Host":
      return `host ${to.host} port ${to.port}`
    case "Unix":
      return `unix ${to.path}`
    case "Any":
      return `any port ${to.port}`
  }
}

// Targets come from configurations, so what the types forbid is tested as well.
const untyped = (input: unknown): Target => input as Target

const ipv6 = NetAddress.inetAddressFromStringUnsafe("[fe80::1%3]:80")

describe("parseTarget", () => {
  const good: ReadonlyArray<readonly [Target, string]> = [
    ["localhost:80", "host localhost port 80"],
    ["DB_1.Internal:5432", "host db_1.internal port 5432"],
    ["127.0.0.1:1", "inet 127.0.0.1:1"],
    ["[::1]:65535", "inet [::1]:65535"],
    ["[fe80::1%2]:80", "inet [fe80::1%2]:80"],
    ["[fe80::1%eth0]:80", "host fe80::1%eth0 port 80"],
    [{ host: "::1", port: 80 }, "inet [::1]:80"],
    [{ host: "fe80::1%eth0", port: 80 }, "host fe80::1%eth0 port 80"],
    [{ host: "bücher.example", port: 80 }, "host xn--bcher-kva.example port 80"],
    [{ path: "/run/a.sock" }, "unix /run/a.sock"],
    [{ path: "\0abstract" }, "unix \0abstract"],
    [{ path: "a".repeat(107) }, `unix ${"a".repeat(107)}`],
    [NetAddress.unixPathAddress("/run/b.sock"), "unix /run/b.sock"],
    [ipv6, "inet [fe80::1%3]:80"]
  ]
  for (const [target, expected] of good) {
    it(`takes ${JSON.stringify(target)}`, () => strictEqual(show(parseTarget(target)), expected))
  }

  const port = (not: string) => `failure: the port must be an integer from 1 to 65535, not ${not}`
  const bad: ReadonlyArray<readonly [Target, string]> = [
    ["localhost:0", port("0")],
    ["localhost:65536", port("65536")],
    ["localhost:http", port('"http"')],
    ["localhost:080", port('"080"')],
    ["localhost:-1", port('"-1"')],
    [{ host: "localhost", port: 0 }, port("0")],
    [{ host: "localhost", port: 65_536 }, port("65536")],
    [{ host: "localhost", port: NaN }, port("NaN")],
    [{ host: "localhost", port: 1.5 }, port("1.5")],
    [untyped({ host: "localhost", port: "http" }), port('"http"')],
    [NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"), port("0")],
    [untyped({ host: "localhost", port: null }), port("a value of type object")],
    [untyped({ host: "localhost" }), "failure: the port is missing, expected an integer from 1 to 65535"],
    ["localhost", 'failure: the port is missing, expected "host:port"'],
    ["localhost:", 'failure: the port is missing, expected "host:port"'],
    ["[::1]", 'failure: the port is missing, expected "host:port"'],
    ["", 'failure: the port is missing, expected "host:port"'],
    [":80", "failure: the host is empty"],
    [{ host: "", port: 80 }, "failure: the host is empty"],
    [untyped({ port: 80 }), "failure: the host is empty"],
    ["::1:80", 'failure: an IPv6 address is written in brackets, "[::1]:80"'],
    ["[::1:80", 'failure: expected "[IPv6]:port", the bracket is not closed'],
    ["[::1]80", 'failure: expected "[IPv6]:port"'],
    ["[localhost]:80", "failure: only IPv6 addresses are written in brackets"],
    ["http://localhost:80", 'failure: expected "host:port", without a scheme or a path'],
    ["/run/a.sock", 'failure: expected "host:port"; a Unix socket is written { path }'],
    [{ path: "" }, "failure: the Unix socket's path is empty"],
    [untyped({ path: 1 }), "failure: the Unix socket's path is not a string"],
    [{ path: "/run/a\0b" }, "failure: the Unix socket's path contains a zero byte"],
    [{ path: "a".repeat(108) }, "failure: the Unix socket's path has 108 bytes, 107 are allowed"],
    [{ path: "ä".repeat(54) }, "failure: the Unix socket's path has 108 bytes, 107 are allowed"],
    [untyped(null), 'failure: expected "host:port", { host, port }, { path } or a socket address'],
    [untyped(80), 'failure: expected "host:port", { host, port }, { path } or a socket address']
  ]
  for (const [target, expected] of bad) {
    it(`refuses ${JSON.stringify(target)} (${expected.slice(9)})`, () =>
      strictEqual(show(parseTarget(target)), expected))
  }

  for (const host of ["256.1.1.1", "a b", "-x", "[::1]", "x:y"]) {
    it(`refuses the host ${host}`, () =>
      strictEqual(
        show(parseTarget({ host, port: 80 })).startsWith(
          `failure: "${host}" is neither an IP address nor a host name: `
        ),
        true
      ))
  }
})

describe("parseListen", () => {
  const cases: ReadonlyArray<readonly [ListenAddress, string]> = [
    [{}, "any port 0"],
    [{ host: "", port: 80 }, "any port 80"],
    [{ host: "0.0.0.0" }, "inet 0.0.0.0:0"],
    [{ host: "::", port: 80 }, "inet [::]:80"],
    [{ host: "localhost", port: 0 }, "host localhost port 0"],
    [{ path: "/run/a.sock" }, "unix /run/a.sock"],
    [{ port: 65_536 }, "failure: the port must be an integer from 0 to 65535, not 65536"],
    [{ port: -1 }, "failure: the port must be an integer from 0 to 65535, not -1"],
    [{ host: "127.0.0.1", port: 1.5 }, "failure: the port must be an integer from 0 to 65535, not 1.5"],
    [{ path: "" }, "failure: the Unix socket's path is empty"],
    [{ path: "a".repeat(108) }, "failure: the Unix socket's path has 108 bytes, 107 are allowed"]
  ]
  for (const [address, expected] of cases) {
    it(JSON.stringify(address), () => strictEqual(show(parseListen(address)), expected))
  }
})

describe("parseLocalAddress", () => {
  it("takes an IP address, with port 0 unless set", () => {
    deepStrictEqual(
      Result.map(parseLocalAddress({ host: "127.0.0.2" }), NetAddress.formatInet),
      Result.succeed("127.0.0.2:0")
    )
    deepStrictEqual(
      Result.map(parseLocalAddress({ host: "::1", port: 5000 }), NetAddress.formatInet),
      Result.succeed("[::1]:5000")
    )
  })

  it("refuses a name", () => {
    const result = parseLocalAddress({ host: "localhost" })
    strictEqual(
      Result.isFailure(result) && result.failure.message,
      'invalid address: the local address must be numeric, not "localhost"'
    )
  })
})

describe("formatTarget, formatListen", () => {
  it("shows whatever was given", () => {
    deepStrictEqual(
      [
        "no port",
        { host: "::1", port: 80 },
        { host: "a", port: NaN },
        { path: "/x" },
        NetAddress.unixPathAddress("/y"),
        ipv6,
        untyped(null),
        untyped({ host: "a" })
      ].map(formatTarget),
      ["no port", "[::1]:80", "a:NaN", "/x", "/y", "[fe80::1%3]:80", "null", "a"]
    )
    deepStrictEqual([{}, { host: "", port: 1 }, { host: "::", port: 1 }, { path: "/x" }].map(formatListen), [
      "*:0",
      "*:1",
      "[::]:1",
      "/x"
    ])
  })
})
