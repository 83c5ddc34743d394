import { assert, describe, it } from "@effect/vitest"
import { Tls } from "effect-wire"

const identity: Tls.Identity = { certificate: "a certificate", key: "a key" }

const peerOf = (host: string) => {
  const handshake = Tls.clientHandshake(Tls.checkClient({}), host)
  return handshake.role === "client" ? handshake.peer : undefined
}

const nameOf = (servername: string) => {
  const handshake = Tls.clientHandshake(Tls.checkClient({ servername }), undefined)
  return handshake.role === "client" ? handshake.peer : undefined
}

describe("whom a client expects", () => {
  for (const [host, expected, isName] of [
    ["Example.ORG", "example.org", true],
    ["example.org.", "example.org", true],
    ["my_service", "my_service", true],
    ["bücher.example", "xn--bcher-kva.example", true],
    ["BÜCHER.example.", "xn--bcher-kva.example", true],
    ["127.0.0.1", "127.0.0.1", false],
    ["0:0::1", "::1", false],
    // A zone is this machine's affair: no certificate has one.
    ["fe80::1%eth0", "fe80::1", false],
    ["fe80::0:1%2", "fe80::1", false]
  ] as const) {
    it(`${host} is ${isName ? "the name" : "the address"} ${expected}`, () => {
      assert.deepStrictEqual(peerOf(host), { host: expected, isName })
      assert.deepStrictEqual(nameOf(host), { host: expected, isName })
    })
  }

  for (const servername of [
    "a b",
    "a..b",
    "-a.example",
    "[::1]",
    "example.org:443",
    "https://example.org",
    "ü b"
  ]) {
    it(`${servername} is nobody`, () => {
      assert.throws(
        () => Tls.checkClient({ servername }),
        RangeError,
        `tls: servername must be a host name or an IP address, received ${JSON.stringify(servername)}`
      )
    })
  }
})

describe("a server's identity for a name", () => {
  const other: Tls.Identity = { ...identity }
  const all: Tls.Identity = { ...identity }
  const settings = Tls.checkServer({
    identity,
    names: { "bücher.example": other, "*.Bücher.example.": all }
  })

  for (const [servername, expected] of [
    ["xn--bcher-kva.example", other],
    ["XN--BCHER-KVA.example.", other],
    ["a.xn--bcher-kva.example", all],
    ["a.b.xn--bcher-kva.example", identity],
    ["", identity],
    ["*", identity],
    ["a b", identity],
    [undefined, identity]
  ] as const) {
    it(`${servername}`, () => {
      assert.strictEqual(Tls.identityFor(settings, servername).current(), expected)
    })
  }

  for (const name of ["", "*", "*.", "a.*.b", "**.a", "a b", "127.0.0.1", "[::1]"]) {
    it(`${JSON.stringify(name)} is none`, () => {
      assert.throws(
        () => Tls.checkServer({ identity, names: { [name]: other } }),
        RangeError,
        "tls: names must be"
      )
    })
  }
})
