// A server for HTTP/1.1: requests after each other on one connection, with bodies of any length. See RFC 9112.
import { Cause, Clock, Effect, Exit, Stream } from "effect"
import { Codec, type Connection, FrameError, Framed, Server, StreamError, StreamReader } from "effect-wire"
import {
  type BodyError,
  chunksOf,
  type Head,
  heads,
  HttpError,
  inChunks,
  MAX_HEAD,
  only,
  parseHead,
  trim
} from "./http.ts"

export interface Request {
  readonly method: string
  readonly target: string
  /** By their names in small letters; the values of one that comes several times are joined with a comma. */
  readonly headers: ReadonlyMap<string, string>
  /** The body as it comes. What the handler does not read is skipped afterwards. */
  readonly body: Stream.Stream<Uint8Array, BodyError>
}

export interface Response {
  readonly status: number
  readonly headers?: Record<string, string>
  /** A stream is sent in chunks. */
  readonly body?: string | Uint8Array | Stream.Stream<Uint8Array, unknown>
}

export type Handler<R> = (request: Request) => Effect.Effect<Response, unknown, R>

const MAX_SKIPPED = 65_536

// --- The body of a request.

interface Body {
  readonly stream: Stream.Stream<Uint8Array, BodyError>
  /** Lets a client send it that waits for leave. */
  readonly admit: Effect.Effect<void, StreamError.WriteError>
  /** Whether the client waits for leave to send it. It may also go on without. */
  readonly isHeldBack: () => boolean
  /** Goes past what was not read of it, unless that is too much; whether the next request begins here. */
  readonly skipRest: Effect.Effect<boolean, Exclude<BodyError, HttpError>>
}

const noBody: Body = {
  stream: Stream.empty,
  admit: Effect.void,
  isHeldBack: () => false,
  skipRest: Effect.succeed(true)
}

/** The body of a request, which may be read in several goes. */
const openBody = Effect.fnUntraced(function* ({ reader, writer }: Connection.Connection, head: Head) {
  if (head.length === 0) return noBody
  let heldBack = head.minor > 0 && head.headers.get("expect")?.toLowerCase() === "100-continue"
  let ended = false
  const admit = Effect.suspend(() => {
    if (!heldBack) return Effect.void
    heldBack = false
    return writer.write("HTTP/1.1 100 Continue\r\n\r\n")
  })
  const pull = yield* Stream.toPull(
    only(admit).pipe(
      Stream.concat(
        head.length === "chunked" ? chunksOf(reader) : StreamReader.streamExactly(reader, head.length)
      ),
      Stream.concat(only(Effect.sync(() => (ended = true))))
    )
  )
  const stream = Stream.suspend(() => (ended ? Stream.empty : Stream.fromPull(Effect.succeed(pull))))
  let skipped = 0
  const skipping = Stream.takeWhile(stream, (bytes) => (skipped += bytes.length) <= MAX_SKIPPED)
  const body: Body = {
    stream,
    admit,
    isHeldBack: () => heldBack,
    skipRest: Stream.runDrain(skipping).pipe(
      Effect.map(() => ended),
      Effect.catchTag("HttpError", () => Effect.succeed(false))
    )
  }
  return body
})

/** A body in memory, if it is not too long for that. */
export const readBody = ({ body }: Request, limit: number): Effect.Effect<Uint8Array, BodyError> =>
  body.pipe(
    Stream.runFoldEffect(
      () => ({ chunks: new Array<Uint8Array>(), length: 0 }),
      ({ chunks, length }, chunk) => {
        if (length + chunk.length > limit)
          return Effect.fail(new HttpError({ status: 413, message: "too much" }))
        chunks.push(chunk)
        return Effect.succeed({ chunks, length: length + chunk.length })
      }
    ),
    Effect.map(({ chunks }) => new Uint8Array(Buffer.concat(chunks)))
  )

// --- The response.

const reasons: Record<number, string> = {
  200: "OK",
  204: "No Content",
  400: "Bad Request",
  404: "Not Found",
  405: "Method Not Allowed",
  413: "Content Too Large",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  505: "HTTP Version Not Supported"
}

const encoder = new TextEncoder()

const respond = Effect.fnUntraced(function* (
  { writer }: Connection.Connection,
  { method, minor }: Pick<Head, "method" | "minor">,
  { body: given = "", headers, status }: Response,
  keepAlive: boolean
) {
  const body = typeof given === "string" ? encoder.encode(given) : given
  const hasBody = status !== 204 && status !== 304
  const fields: Record<string, string> = {
    date: new Date(yield* Clock.currentTimeMillis).toUTCString(),
    ...headers
  }
  if (hasBody && body instanceof Uint8Array) fields["content-length"] = String(body.length)
  // To who does not know chunks, the end of the connection is the end of the body.
  else if (hasBody && minor > 0) fields["transfer-encoding"] = "chunked"
  if (!keepAlive) fields["connection"] = "close"
  else if (minor === 0) fields["connection"] = "keep-alive"

  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}`)
  if (lines.some((line) => /[\r\n]/.test(line))) {
    return yield* Effect.die(new Error("a header field must be one line"))
  }
  const head = [`HTTP/1.1 ${status} ${reasons[status] ?? ""}`, ...lines, "\r\n"].join("\r\n")
  if (method === "HEAD" || !hasBody) return yield* writer.write(head)
  if (body instanceof Uint8Array) return yield* writer.writeAll([head, body])
  yield* writer.write(head)
  yield* Stream.runForEachArray(body, (pieces) => writer.writeAll(minor > 0 ? inChunks(pieces) : pieces))
  if (minor > 0) yield* writer.write("0\r\n\r\n")
})

const refuse = (connection: Connection.Connection, { message, status }: HttpError, method = "GET") =>
  respond(connection, { method, minor: 1 }, { status, body: `${message}\n` }, false)

// --- The connection.

/** Answers a request; whether there may be another one. */
const exchange = <R>(connection: Connection.Connection, head: Head, handler: Handler<R>) =>
  Effect.gen(function* () {
    const body = yield* openBody(connection, head)
    const { headers, method, minor, target } = head
    const handled = yield* Effect.exit(
      Effect.suspend(() => handler({ method, target, headers, body: body.stream }))
    )
    if (Exit.isFailure(handled)) {
      const error = Cause.squash(handled.cause)
      // Nobody is there to be told.
      if (Cause.hasInterruptsOnly(handled.cause) || StreamError.isStreamError(error)) {
        return yield* Effect.failCause(handled.cause)
      }
      const isRefusal = error instanceof HttpError
      if (!isRefusal) yield* Effect.logError(`${method} ${target} failed`, handled.cause)
      yield* refuse(connection, isRefusal ? error : new HttpError({ status: 500, message: "sorry" }), method)
      return false
    }
    const response = handled.value
    // A stream may be made of the body, and then it is too late to ask for that.
    if (Stream.isStream(response.body)) yield* body.admit
    const wishes = (headers.get("connection") ?? "").toLowerCase().split(",").map(trim)
    const keepAlive =
      !(yield* Server.isDraining) &&
      !body.isHeldBack() &&
      (minor > 0
        ? !wishes.includes("close")
        : wishes.includes("keep-alive") && !Stream.isStream(response.body))
    yield* respond(connection, head, response, keepAlive)
    return keepAlive && (yield* body.skipRest)
  }).pipe(Effect.scoped)

const serveClient = <R>(handler: Handler<R>) =>
  Effect.fnUntraced(function* (connection: Connection.Connection) {
    const { receive } = Framed.receiver(connection.reader, heads, Codec.string("latin1"))
    // Who goes away before a head is complete, or says nothing, has not asked for anything.
    const ended = () => Effect.fail(new FrameError.EndOfStream({}))
    // Nobody would miss a connection that waits for a request when the server shuts down.
    const next = receive.pipe(
      Effect.catchTags({ ConnectionError: ended, IncompleteReadError: ended, TimeoutError: ended }),
      Effect.raceFirst(Effect.flatMap(Server.draining, ended))
    )
    for (let goesOn = true; goesOn;) {
      // Empty lines before a request are no request.
      const text = (yield* next).replace(/^(\r\n)+/, "")
      if (text === "") continue
      const head = parseHead(text)
      if (head instanceof HttpError) return yield* refuse(connection, head)
      goesOn = yield* exchange(connection, head, handler)
    }
  })

/** Serves HTTP. A client that says nothing for half a minute has to connect again. */
export const serve = <R>(handler: Handler<R>, options: Server.Options) =>
  Server.serve(
    (connection) =>
      Effect.catchTags(serveClient(handler)(connection), {
        EndOfStream: () => Effect.void,
        FrameError: () =>
          refuse(connection, new HttpError({ status: 431, message: `a head has at most ${MAX_HEAD} bytes` }))
      }),
    {
      readTimeout: "30 seconds",
      writeTimeout: "30 seconds",
      // Who vanishes, or is too slow, is no news.
      onError: (cause) => Effect.logDebug("a client was lost", cause),
      ...options
    }
  )
