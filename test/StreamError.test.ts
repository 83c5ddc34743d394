import { assert, describe, it } from "@effect/vitest"
import { Duration, Schema } from "effect"
import { StreamError } from "effect-wire"
import { remedies } from "./support/remedies.ts"

const { AddressInUse, AddressNotAvailable, ConnectionError, ListenError, NotFound, PermissionDenied } =
  StreamError

const exhausted = (code?: string) => new StreamError.ResourcesExhausted({ code })

const fewer = "keep fewer connections open (`maxConnections` of a server)"
const moreDescriptors = `; raise the process's limit of descriptors (ulimit -n), or ${fewer}`
const privileges = "; a port below 1024 takes privileges (CAP_NET_BIND_SERVICE on Linux): choose another port"

describe("what a message says to do", () => {
  const listening: ReadonlyArray<
    readonly [address: string, reason: StreamError.ListenErrorReason, remedy: string]
  > = [
    ["*:80", new AddressInUse({}), remedies.portInUse],
    ["/run/s", new AddressInUse({}), remedies.pathInUse],
    ["/run/s:80", new AddressInUse({}), remedies.pathInUse],
    ["1.2.3.4:80", new AddressNotAvailable({}), remedies.notOurs],
    ["[::1]:80", new PermissionDenied({}), privileges],
    ["[::1]:1023", new PermissionDenied({}), privileges],
    ["[::1]:1024", new PermissionDenied({}), ""],
    [
      "./s",
      new PermissionDenied({}),
      "; the process must be allowed to make files in the directory of the path"
    ],
    ["/none/s", new NotFound({}), remedies.noDirectory],
    ["*:80", exhausted("EMFILE"), moreDescriptors],
    ["*:80", exhausted(), moreDescriptors],
    [
      "*:80",
      exhausted("ENFILE"),
      `; raise the system's limit of descriptors (fs.file-max on Linux), or ${fewer}`
    ],
    ["*:80", exhausted("ENOMEM"), `; ${fewer}`],
    ["*:80", new StreamError.UnknownReason({ code: "EINVAL" }), ""]
  ]
  for (const [address, reason, remedy] of listening) {
    it(`listening on ${address}: ${reason._tag} ${reason.code ?? ""}`, () => {
      const code = reason.code === undefined ? "" : ` (${reason.code})`
      assert.strictEqual(
        new ListenError({ address, reason }).message,
        `listen on ${address}: ${reason.message}${code}${remedy}`
      )
    })
  }

  it("accepting: which of the two it was", () => {
    const error = StreamError.listenErrorFromCause({
      operation: "accept",
      address: "127.0.0.1:80",
      cause: Object.assign(new Error(), { code: "EMFILE" })
    })
    assert.strictEqual(
      error.message,
      `accept on 127.0.0.1:80: out of file descriptors or memory (EMFILE)${moreDescriptors}`
    )
    const reason = new AddressInUse({})
    const message = new ListenError({ operation: "accept", address: "127.0.0.1:80", reason }).message
    assert.strictEqual(message, "accept on 127.0.0.1:80: address already in use")
  })

  const connecting: ReadonlyArray<
    readonly [
      address: string | undefined,
      reason: StreamError.ConnectionErrorReason,
      remedy: string,
      operation?: string
    ]
  > = [
    ["1.2.3.4:80", new AddressInUse({}), remedies.localPortInUse],
    ["/run/s", new NotFound({}), remedies.noSocket],
    ["/run/s", new PermissionDenied({}), "; the process must be allowed to write to the socket's file"],
    ["1.2.3.4:80", new PermissionDenied({}), ""],
    ["1.2.3.4:80", new AddressNotAvailable({}), ""],
    ["1.2.3.4:80", exhausted("EMFILE"), moreDescriptors],
    ["/run/s", new PermissionDenied({}), "", "read"],
    [undefined, new NotFound({}), ""]
  ]
  for (const [address, reason, remedy, operation = "connect"] of connecting) {
    it(`${operation}, ${address}: ${reason._tag}`, () => {
      const { message } = new ConnectionError({ operation, address, reason })
      const where = address === undefined ? "" : ` ${operation === "connect" ? "to" : "on"} ${address}`
      const code = reason.code === undefined ? "" : ` (${reason.code})`
      assert.strictEqual(message, `${operation}${where}: ${reason.message}${code}${remedy}`)
    })
  }

  it("a time limit: the option that raises it, behind everything else", () => {
    const limits = { operation: "connect", duration: Duration.seconds(1), address: "name:80", attempts: [] }
    const message = "connect to name:80: timed out after 1s; its name was not resolved by then"
    assert.strictEqual(new StreamError.TimeoutError(limits).message, message)
    const option = "connectTimeout"
    assert.strictEqual(
      new StreamError.TimeoutError({ ...limits, option }).message,
      message + remedies.raise(option)
    )
  })

  it("a time limit with more to say: raising it helps only if nothing else was wrong, also after encoding", () => {
    const limits = { operation: "acquire", duration: Duration.seconds(1), option: "acquireTimeout" }
    const busy = new StreamError.TimeoutError({ ...limits, detail: "all 2 connections are in use" })
    assert.strictEqual(
      busy.message,
      `acquire: timed out after 1s; all 2 connections are in use${remedies.raise("acquireTimeout")}`
    )
    const cause = new ConnectionError({ operation: "connect", reason: new StreamError.ConnectionRefused({}) })
    const refused = new StreamError.TimeoutError({
      ...limits,
      detail: "attempt 2 follows after 1s",
      cause
    })
    assert.strictEqual(
      refused.message,
      "acquire: timed out after 1s; attempt 2 follows after 1s; the last error: connect: connection refused"
    )
    assert.strictEqual(refused.cause, cause)
    const codec = Schema.toCodecJson(StreamError.TimeoutError)
    for (const error of [busy, refused]) {
      const again = Schema.decodeSync(codec)(JSON.parse(JSON.stringify(Schema.encodeSync(codec)(error))))
      assert.strictEqual(again.message, error.message)
      assert.strictEqual(again.detail, error.detail)
      assert.strictEqual(again.cause instanceof Error, error.cause instanceof Error)
    }
  })

  it("the end of the input in the middle of something that has no known length", () => {
    const message = (operation?: string) =>
      new StreamError.IncompleteReadError({ operation, partial: new Uint8Array(3), address: "name:80" })
        .message
    assert.strictEqual(
      message("readUntil"),
      "readUntil: end of input from name:80, 3 bytes read, and no separator among them"
    )
    assert.strictEqual(
      message("receive"),
      "receive: end of input from name:80, 3 bytes read of a frame that is not complete"
    )
  })
})

describe("what a verification found", () => {
  const codes = [
    ...[
      "ERROR_IN_CERT_NOT_BEFORE_FIELD",
      "ERROR_IN_CERT_NOT_AFTER_FIELD",
      "UNABLE_TO_DECRYPT_CERT_SIGNATURE"
    ],
    ...["UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY", "CERT_SIGNATURE_FAILURE", "CERT_REVOKED", "CERT_REJECTED"],
    ...["UNABLE_TO_GET_CRL", "UNABLE_TO_DECRYPT_CRL_SIGNATURE", "CRL_SIGNATURE_FAILURE", "CRL_NOT_YET_VALID"],
    ...["CRL_HAS_EXPIRED", "ERROR_IN_CRL_LAST_UPDATE_FIELD", "ERROR_IN_CRL_NEXT_UPDATE_FIELD", "UNSPECIFIED"]
  ]
  for (const code of codes) {
    it(`${code} is about a bad certificate`, () => {
      const reason = StreamError.reasonFromCause(Object.assign(new Error(), { code }))
      assert(reason._tag === "TlsError", reason._tag)
      assert.strictEqual(reason.kind, "BadCertificate")
    })
  }
})

describe("what a TLS error says to do", () => {
  const { TlsError } = StreamError
  const cases: ReadonlyArray<readonly [reason: StreamError.TlsError, message: string]> = [
    [new TlsError({ kind: "CertificateExpired", peer: "a" }), "the certificate of a has expired"],
    [
      new TlsError({ kind: "UnknownCa", peer: "a", detail: "issued by b" }),
      "the certificate of a is not from an authority that is trusted: issued by b; the option `ca` names others, and the peer has to send intermediate certificates"
    ],
    [
      new TlsError({ kind: "NotTls", peer: "a" }),
      "what a sent is not TLS; it may be another port, or one where TLS is asked for first (`upgradeTls`)"
    ],
    [
      new TlsError({ kind: "Refused", peer: "a", code: "ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE" }),
      "a refused the TLS handshake; it may have no cipher in common, or want a client certificate (`identity`)"
    ],
    ...[
      "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA",
      "ERR_SSL_SSL/TLS_ALERT_CERTIFICATE_EXPIRED",
      "ERR_SSL_SSL/TLS_ALERT_BAD_CERTIFICATE"
    ].map(
      (code) =>
        [
          new TlsError({ kind: "Refused", peer: "a", code }),
          "a refused the TLS handshake; it does not accept the certificate of this side (`identity`)"
        ] as const
    ),
    [
      new TlsError({ kind: "Refused", peer: "a", code: "ERR_SSL_TLSV1_UNRECOGNIZED_NAME" }),
      "a refused the TLS handshake"
    ]
  ]
  it("Failed, unless it says more", () => {
    const reason = new TlsError({ code: "ERR_SSL_INTERNAL_ERROR" })
    assert.deepStrictEqual([reason.kind, reason.message], ["Failed", "TLS with the peer failed"])
  })

  for (const [reason, message] of cases) {
    it(`${reason.kind} ${reason.code ?? ""}`, () => {
      assert.strictEqual(reason.message, message)
    })
  }
})
