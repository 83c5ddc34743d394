import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as References from "effect/References"
import * as Result from "effect/Result"
import * as Tracer from "effect/Tracer"
import * as NetAddress from "effect/net/NetAddress"
import type { Target } from "../Network.ts"
import type { TlsInfo } from "../Tls.ts"
import type { Kind } from "../Transport.ts"
import { formatTarget, parseTarget } from "./target.ts"

// Spans of connections, with the attributes of OpenTelemetry's semantic conventions.

type Attributes = Readonly<Record<string, unknown>>

/** Whether anybody sees spans: Effect's own tracer keeps them for nobody. */
export const isTraced = (context: Context.Context<never>): boolean =>
  Context.get(context, Tracer.Tracer) !== Tracer.nativeTracer &&
  Context.get(context, References.TracerEnabled)

const endpoint = (name: string, address: NetAddress.SocketAddress | undefined): Attributes => {
  if (NetAddress.isInetAddress(address)) {
    return { [`${name}.address`]: NetAddress.formatHost(address), [`${name}.port`]: address.port }
  }
  // The client of a Unix socket mostly has no path.
  return address === undefined || address.path === "" ? {} : { [`${name}.address`]: address.path }
}

const server = (target: Target): Attributes => {
  const parsed = Result.getOrUndefined(parseTarget(target))
  if (parsed === undefined) return { "server.address": formatTarget(target) }
  return parsed._tag === "Host"
    ? { "server.address": parsed.host, "server.port": parsed.port }
    : endpoint("server", parsed.address)
}

/** What a connection runs on. */
interface Link {
  readonly kind: Kind
  readonly localAddress: NetAddress.SocketAddress | undefined
  readonly remoteAddress: NetAddress.SocketAddress | undefined
}

const network = ({ kind, localAddress, remoteAddress }: Link): Attributes => {
  const address = localAddress ?? remoteAddress
  const isInet = NetAddress.isInetAddress(address)
  // TLS is no transport in its own right.
  const below = isInet ? "tcp" : "unix"
  return {
    "network.transport": kind === "tls" && address !== undefined ? below : kind,
    ...(isInet && { "network.type": NetAddress.isInetAddressV4(address) ? "ipv4" : "ipv6" }),
    ...endpoint("network.local", localAddress),
    ...endpoint("network.peer", remoteAddress)
  }
}

const secured = (tls: TlsInfo | undefined): Attributes =>
  tls === undefined
    ? {}
    : {
        "tls.protocol.name": "tls",
        "tls.protocol.version": tls.protocol.replace("TLSv", ""),
        "tls.cipher": tls.cipher,
        ...(tls.alpn !== undefined && { "tls.next_protocol": tls.alpn })
      }

const describe = (span: Tracer.Span, attributes: Attributes): void => {
  for (const [key, value] of Object.entries(attributes)) span.attribute(key, value)
}

const inSpan = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  span: Tracer.Span
): Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>> => Effect.provideService(self, Tracer.ParentSpan, span)

/** Runs what serves a connection in a span, which the caller may keep. */
export const serving = <A, E, R>(
  id: string,
  transport: Link,
  serve: (span: Tracer.Span) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>> =>
  Effect.useSpan(
    "Server.connection",
    { kind: "server", attributes: { "effect_wire.connection.id": id, ...network(transport) } },
    (span) => inSpan(serve(span), span)
  )

/** The connection has come to its handler, and what there is to know of the client is known. */
export const opened = (
  span: Tracer.Span,
  client: Pick<Link, "remoteAddress"> & { readonly tls?: TlsInfo | undefined }
): void => describe(span, { ...endpoint("client", client.remoteAddress), ...secured(client.tls) })

/** Ends the span of a connection that did not come to its handler. */
export const refused = (span: Tracer.Span, context: Context.Context<never>, error: unknown): void => {
  const isTimed = Context.get(context, References.TracerTimingEnabled)
  const now = isTimed ? Context.get(context, Clock.Clock).currentTimeNanosUnsafe() : 0n
  span.end(now, Exit.fail(error))
}

/** Connects in a span. */
export const connecting = <A, E, R>(
  target: Target,
  self: Effect.Effect<A, E, R>,
  of: (connection: A) => { readonly transport: Link; readonly tls: TlsInfo | undefined }
): Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>> =>
  Effect.useSpan("Connection.connect", { kind: "client", attributes: server(target) }, (span) =>
    Effect.tap(inSpan(self, span), (connection) =>
      Effect.sync(() => {
        const { tls, transport } = of(connection)
        describe(span, { ...network(transport), ...secured(tls) })
      })
    )
  )
