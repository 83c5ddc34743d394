import { execFileSync } from "node:child_process"
import { createPrivateKey, sign, X509Certificate } from "node:crypto"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { afterAll } from "vitest"

export interface Issued {
  readonly certificate: string
  readonly key: string
  readonly certificateFile: string
  readonly keyFile: string
}

export interface Wanted {
  readonly name?: string
  /** Default: that of `localhost` and of 127.0.0.1. */
  readonly altName?: string
  /** As `20200101000000Z`; both or none. */
  readonly from?: string
  readonly to?: string
}

const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

const directories: Array<string> = []

// A worker of the test runner is killed: it has no end of its own at which it could clean up.
afterAll(() => {
  for (const directory of directories.splice(0)) fs.rmSync(directory, { recursive: true, force: true })
})

/** A certificate authority of the `openssl` command line, in a temporary directory that is removed after the tests of the file. */
export class Authority {
  readonly directory: string
  readonly file: string
  private count = 0

  constructor(name = "Test CA") {
    this.directory = fs.mkdtempSync(path.join(os.tmpdir(), "wire-ca-"))
    directories.push(this.directory)
    this.file = this.at("ca.pem")
    this.openssl(
      "req",
      "-x509",
      ...newKey,
      "-keyout",
      this.at("ca.key"),
      "-out",
      this.file,
      "-subj",
      `/CN=${name}`
    )
    fs.writeFileSync(this.at("index"), "")
    fs.writeFileSync(
      this.at("ca.conf"),
      `[ca]\ndefault_ca=own\n[own]\ndatabase=${this.at("index")}\nnew_certs_dir=${this.directory}\nrand_serial=yes\n` +
        `default_md=sha256\npolicy=any\nunique_subject=no\ncopy_extensions=copy\ndefault_days=10\n[any]\ncommonName=supplied\n`
    )
  }

  get certificate(): string {
    return fs.readFileSync(this.file, "utf8")
  }

  /** The authority itself. */
  get root(): Issued {
    return issued(this.file, this.at("ca.key"))
  }

  issue({ altName = "DNS:localhost,IP:127.0.0.1", from, name = "localhost", to }: Wanted = {}): Issued {
    const [keyFile, request, certificateFile] = this.files("key", "csr", "pem")
    this.openssl(
      ...["req", "-new", ...newKey, "-keyout", keyFile, "-out", request, "-subj", `/CN=${name}`],
      ...["-addext", `subjectAltName=${altName}`]
    )
    this.openssl(
      ...["ca", "-batch", "-notext", "-config", this.at("ca.conf"), "-cert", this.file],
      ...["-keyfile", this.at("ca.key"), "-in", request, "-out", certificateFile],
      ...(from === undefined || to === undefined ? [] : ["-startdate", from, "-enddate", to])
    )
    return issued(certificateFile, keyFile)
  }

  /** An empty `altName` leaves it out. */
  selfSigned(name = "localhost", altName = `DNS:${name}`): Issued {
    const [keyFile, , certificateFile] = this.files("key", "csr", "pem")
    this.openssl(
      ...["req", "-x509", ...newKey, "-keyout", keyFile, "-out", certificateFile, "-utf8"],
      ...["-subj", `/CN=${name}`],
      ...(altName === "" ? [] : ["-addext", `subjectAltName=${altName}`])
    )
    return issued(certificateFile, keyFile)
  }

  /**
   * The same with its dates replaced, as they are written in a certificate (`YYMMDDhhmmssZ`), and signed anew: no
   * program would issue one with dates that are none.
   */
  withDates({ certificate, key }: Issued, from: string, to: string): Issued {
    const { raw } = new X509Certificate(certificate)
    const outer = contentOf(raw)
    const body = Buffer.from(element(outer, 0))
    const algorithm = element(outer, body.length)
    // Two UTCTimes of 13 characters, one behind the other.
    const dates = body.indexOf(Buffer.from([0x17, 13]))
    body.write(from, dates + 2, "latin1")
    body.write(to, dates + 17, "latin1")
    const signature = sign("sha256", body, createPrivateKey(fs.readFileSync(this.at("ca.key"))))
    const bits = encoded(0x03, Buffer.concat([Buffer.of(0), signature]))
    const der = encoded(0x30, Buffer.concat([body, algorithm, bits]))
    const lines = der.toString("base64").match(/.{1,64}/g) ?? []
    const [keyFile, , certificateFile] = this.files("key", "csr", "pem")
    fs.writeFileSync(keyFile, key)
    fs.writeFileSync(
      certificateFile,
      `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`
    )
    return issued(certificateFile, keyFile)
  }

  private at(file: string): string {
    return path.join(this.directory, file)
  }

  private files(...extensions: [string, string, string]): [string, string, string] {
    const n = ++this.count
    const [a, b, c] = extensions
    return [this.at(`${n}.${a}`), this.at(`${n}.${b}`), this.at(`${n}.${c}`)]
  }

  private openssl(...args: ReadonlyArray<string>): void {
    execFileSync("openssl", args, { stdio: ["ignore", "ignore", "pipe"] })
  }
}

const issued = (certificateFile: string, keyFile: string): Issued => ({
  certificate: fs.readFileSync(certificateFile, "utf8"),
  key: fs.readFileSync(keyFile, "utf8"),
  certificateFile,
  keyFile
})

// As much of DER as a certificate takes: elements of less than 64 KiB.

/** Where the content of the element at `at` begins and ends. */
const bounds = (der: Buffer, at: number): readonly [start: number, end: number] => {
  const first = der.readUInt8(at + 1)
  const bytes = first < 0x80 ? 0 : first & 0x7f
  const start = at + 2 + bytes
  return [start, start + (bytes === 0 ? first : der.readUIntBE(at + 2, bytes))]
}

const contentOf = (der: Buffer): Buffer => der.subarray(...bounds(der, 0))

const element = (der: Buffer, at: number): Buffer => der.subarray(at, bounds(der, at)[1])

const encoded = (tag: number, content: Buffer): Buffer => {
  const { length: size } = content
  const length = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff]
  return Buffer.concat([Buffer.from([tag, ...length]), content])
}
