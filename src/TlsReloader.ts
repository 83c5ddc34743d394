/**
 * Certificates that are replaced while a server runs.
 *
 * A `TlsReloader` is an identity for the options of TLS. It loads a certificate and its key, and again when it is told to or
 * at intervals. A pair that does not work is reported and changes nothing. New handshakes show the new certificate;
 * connections that are open stay as they are.
 *
 * **Example** (A server whose certificate is replaced)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Server, TlsReloader } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const issue = (name: string) => TestNetwork.identity({ names: [name, "localhost"] })
 *
 * const program = Effect.gen(function* () {
 *   let present = issue("first")
 *   // Over `NodeNetwork` for example `TlsReloader.files({ certificate: "fullchain.pem", key: "key.pem" })`.
 *   const load = Effect.sync(() => present)
 *   const identity = yield* TlsReloader.make(load, { every: "1 hour" })
 *   yield* Server.serve(({ reader }) => reader.readAll(), { listen: { port: 6514 }, tls: { identity } })
 *
 *   const shown = Connection.use("localhost:6514", { tls: true }, ({ info }) =>
 *     Effect.sync(() => info.tls?.peerCertificate?.subject["CN"])
 *   )
 *   console.log(yield* shown) // first
 *   present = issue("second")
 *   console.log(yield* identity.reload, yield* shown) // true second
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer)))
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as PlatformError from "effect/PlatformError"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Limits from "./internal/limits.ts"
import { Network } from "./Network.ts"
import { TlsError } from "./StreamError.ts"
import * as Tls from "./Tls.ts"

/**
 * Runtime type identifier of reloaders.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-wire/TlsReloader"

/**
 * A certificate that can be used: one whose dates are dates.
 *
 * @category models
 * @since 0.1.0
 */
export interface OwnCertificate extends Tls.Certificate {
  readonly validFrom: DateTime.Utc
  readonly validTo: DateTime.Utc
}

/**
 * An identity that can be loaded anew; `E` is what loading fails with.
 *
 * @category models
 * @since 0.1.0
 */
export interface TlsReloader<E = never> extends Tls.IdentitySource {
  readonly [TypeId]: typeof TypeId
  /** The certificate that handshakes show now. */
  readonly certificate: Effect.Effect<OwnCertificate>
  /**
   * Loads the identity, and switches to it if it is another one; tells whether it was. Fails, and keeps the old one, when it
   * cannot be loaded, when certificate and key are no pair (`InvalidIdentity`), or when the certificate has expired
   * (`CertificateExpired`) or is not valid yet (`CertificateNotYetValid`).
   */
  readonly reload: Effect.Effect<boolean, E | TlsError>
}

/**
 * Tells whether a value is a reloader.
 *
 * @category guards
 * @since 0.1.0
 */
export const isTlsReloader = (u: unknown): u is TlsReloader<unknown> => Predicate.hasProperty(u, TypeId)

/**
 * Options of a reloader.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<E, R> {
  /**
   * How often to reload without being told. Default: never. One that fails is tried again after 1, 2, 4, … seconds, at
   * most after this time: a pair of which only one file is new yet is complete soon.
   */
  readonly every?: Duration.Input | undefined
  /**
   * Runs each time that such a reload has failed. Default: a warning in the log, with the names of the certificate that stays
   * (annotation `certificate`). A defect of `load`, or of this, is an error in the log, and the reloading goes on.
   */
  readonly onError?: ((error: E | TlsError) => Effect.Effect<unknown, never, R>) | undefined
}

/**
 * Loads an identity and keeps it. Fails if the first one cannot be loaded or used. With `every`, the scope ends the reloading.
 *
 * **Example** (A certificate that cannot be used changes nothing)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { TlsReloader } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   let present = TestNetwork.identity({ names: ["mail.example"] })
 *   const identity = yield* TlsReloader.make(
 *     Effect.sync(() => present),
 *     { every: "1 hour", onError: (error) => Effect.logWarning(error.message) }
 *   )
 *   present = TestNetwork.identity({ names: ["mail.example"], validTo: "2020-01-01" })
 *   console.log((yield* Effect.flip(identity.reload)).kind) // CertificateExpired
 *   console.log((yield* identity.certificate).subject["CN"]) // mail.example
 * })
 *
 * await program.pipe(Effect.scoped, Effect.provide(TestNetwork.layer), Effect.runPromise)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <E, R, R2 = never>(
  load: Effect.Effect<Tls.Identity, E, R>,
  options?: Options<E, R2>
): Effect.Effect<TlsReloader<E>, E | TlsError, Network | Scope.Scope | R | R2> =>
  Effect.gen(function* () {
    const every = options?.every === undefined ? undefined : interval(options.every)
    const { checkTls } = yield* Network
    const context = yield* Effect.context<R>()
    const loaded = Effect.gen(function* () {
      const identity = yield* Effect.provide(load, context)
      if (checkTls === undefined) {
        return yield* new TlsError({ kind: "Failed", detail: "this network knows no TLS" })
      }
      // As a source: a file that is empty, since somebody is writing it, is a pair that does not work, and no wrong option.
      const certificate = yield* checkTls(Tls.checkServer({ identity: { current: () => identity } }))
      const now = yield* Clock.currentTimeMillis
      const { validFrom, validTo } = certificate
      if (validFrom === undefined || validTo === undefined) {
        return yield* new TlsError({
          kind: "InvalidIdentity",
          detail: "the dates of the certificate are none"
        })
      }
      if (DateTime.toEpochMillis(validTo) < now) {
        const detail = `valid until ${DateTime.formatIso(validTo)}`
        return yield* new TlsError({ kind: "CertificateExpired", peer: "this side", detail })
      }
      if (DateTime.toEpochMillis(validFrom) > now) {
        const detail = `valid from ${DateTime.formatIso(validFrom)}`
        return yield* new TlsError({ kind: "CertificateNotYetValid", peer: "this side", detail })
      }
      const own: OwnCertificate = { ...certificate, validFrom, validTo }
      return { identity, certificate: own }
    })

    let present = yield* loaded
    const turn = Semaphore.makeUnsafe(1)
    const reload = turn.withPermits(1)(
      Effect.map(loaded, (next) => {
        if (isSame(present.identity, next.identity)) return false
        present = next
        return true
      })
    )
    if (every !== undefined) {
      const report =
        options?.onError ?? ((error: E | TlsError) => Effect.logWarning("TLS reload failed", error))
      // Of several reloaders, the log tells which one it is.
      const about = (loggable: Effect.Effect<unknown, never, R2>) =>
        Effect.suspend(() => Effect.annotateLogs(loggable, "certificate", nameOf(present.certificate)))
      yield* Effect.forkScoped(reloading(reload, report, every, about))
    }
    return {
      [TypeId]: TypeId,
      current: () => present.identity,
      certificate: Effect.sync(() => present.certificate),
      reload
    }
  })

/** Reloads for ever, whatever becomes of a round: nobody else would notice that a certificate runs out. */
const reloading = <E, R>(
  reload: Effect.Effect<unknown, E>,
  report: (error: E) => Effect.Effect<unknown, never, R>,
  every: Duration.Duration,
  about: (loggable: Effect.Effect<unknown, never, R>) => Effect.Effect<unknown, never, R>
): Effect.Effect<never, never, R> => {
  const reported = (cause: Cause.Cause<E>): Effect.Effect<unknown, never, R> => {
    const error = Cause.findErrorOption(cause)
    if (Option.isNone(error)) return Effect.logError("TLS reload failed", cause)
    return Effect.catchCause(
      Effect.suspend(() => report(error.value)),
      (ownCause) => Effect.logError("onError of a TLS reload failed", ownCause)
    )
  }
  return Effect.gen(function* () {
    let wait = every
    let retry = FIRST_RETRY
    while (true) {
      yield* Effect.sleep(wait)
      const exit = yield* Effect.exit(reload)
      if (Exit.isSuccess(exit)) {
        wait = every
        retry = FIRST_RETRY
      } else {
        yield* about(reported(exit.cause))
        wait = Duration.min(retry, every)
        retry = Duration.times(retry, 2)
      }
    }
  })
}

const nameOf = ({ fingerprint256, subject, subjectAltName }: OwnCertificate): string =>
  subjectAltName.length > 0 ? subjectAltName.join(", ") : String(subject["CN"] ?? fingerprint256)

// Whoever replaces the files of a pair replaces one after the other.
const FIRST_RETRY = Duration.seconds(1)

const interval = (input: Duration.Input): Duration.Duration => Duration.millis(Limits.timeout("every", input))

// The same identity is kept: sessions are resumed with it.
const isSame = (a: Tls.Identity, b: Tls.Identity): boolean =>
  text(a.certificate) === text(b.certificate) && text(a.key) === text(b.key)

const decoder = new TextDecoder()

const text = (pem: Tls.Pem): string => {
  const value = Redacted.isRedacted(pem) ? Redacted.value(pem) : pem
  return typeof value === "string" ? value : decoder.decode(value)
}

/**
 * Where the files of an identity are.
 *
 * @category models
 * @since 0.1.0
 */
export interface Files {
  /** PEM: the certificate, followed by its intermediate ones. */
  readonly certificate: string
  readonly key: string
  readonly passphrase?: string | Redacted.Redacted<string> | undefined
}

/**
 * Loads an identity from its files.
 *
 * **Example** (Files that are replaced)
 *
 * ```ts
 * import { NodeFileSystem } from "@effect/platform-node"
 * import { Effect, FileSystem } from "effect"
 * import { type Tls, TlsReloader } from "effect-wire"
 * import { TestNetwork } from "effect-wire/testing"
 *
 * const program = Effect.gen(function* () {
 *   const fs = yield* FileSystem.FileSystem
 *   const folder = yield* fs.makeTempDirectoryScoped()
 *   const paths = { certificate: `${folder}/fullchain.pem`, key: `${folder}/key.pem` }
 *   const replace = ({ certificate, key }: Tls.Identity) =>
 *     Effect.andThen(
 *       fs.writeFileString(paths.certificate, String(certificate)),
 *       fs.writeFileString(paths.key, String(key))
 *     )
 *
 *   yield* replace(TestNetwork.identity({ names: ["first.example"] }))
 *   const identity = yield* TlsReloader.make(TlsReloader.files(paths), { every: "1 hour" })
 *   yield* replace(TestNetwork.identity({ names: ["second.example"] }))
 *   console.log(yield* identity.reload) // true
 *   console.log((yield* identity.certificate).subject["CN"]) // second.example
 * })
 *
 * await program.pipe(
 *   Effect.scoped,
 *   Effect.provide([TestNetwork.layer, NodeFileSystem.layer]),
 *   Effect.runPromise
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const files = ({
  certificate,
  key,
  passphrase
}: Files): Effect.Effect<Tls.Identity, PlatformError.PlatformError, FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    return {
      certificate: yield* fs.readFileString(certificate),
      key: Redacted.make(yield* fs.readFileString(key)),
      passphrase
    }
  })
