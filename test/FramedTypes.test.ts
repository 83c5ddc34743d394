import { strictEqual } from "@effect/vitest/utils"
import { Effect, Result, Schema, type Scope, type Sink, type Stream } from "effect"
import {
  Codec,
  type Connection,
  FrameError,
  Framed,
  Framing,
  type Network,
  Server,
  type StreamError,
  type StreamReader
} from "effect-wire"
import { describe, expectTypeOf, it } from "vitest"

type ReceiveError =
  FrameError.EndOfStream | FrameError.FrameError | StreamError.IncompleteReadError | StreamError.ReadError
type SendError = FrameError.FrameError | StreamError.WriteError

declare const connection: Connection.Connection
declare const reader: StreamReader.StreamReader

class Ask extends Schema.Class<Ask>("Ask")({ id: Schema.Number, at: Schema.DateFromString }) {}
class Answer extends Schema.Class<Answer>("Answer")({ id: Schema.Number }) {}

// Only the types count: nothing of this runs.
const types = () => {
  const duplex = Codec.duplex({ receive: Codec.schema(Answer), send: Codec.schema(Ask) })
  const framed = Framed.make(connection, Framing.lines(), duplex)
  const records = Framing.make<ReadonlyArray<string>>({
    decode: (reader) => {
      expectTypeOf(reader).toEqualTypeOf<Framing.FrameReader>()
      throw new Error("not run")
    },
    encode: (frame) => {
      expectTypeOf(frame).toEqualTypeOf<ReadonlyArray<string>>()
      return []
    }
  })
  return { duplex, framed, records }
}

type Types = ReturnType<typeof types>

describe("types", () => {
  it("Framing", () => {
    expectTypeOf(Framing.lines).returns.toEqualTypeOf<Framing.Framing<Uint8Array>>()
    expectTypeOf<Types["records"]>().toEqualTypeOf<Framing.Framing<ReadonlyArray<string>>>()
    expectTypeOf<Framing.LengthPrefixedOptions["width"]>().toEqualTypeOf<1 | 2 | 3 | 4 | 8 | "varint">()
    expectTypeOf<ReturnType<Framing.FrameReader["readExactly"]>>().toEqualTypeOf<
      Effect.Effect<
        Uint8Array,
        FrameError.FrameTooLong | StreamError.IncompleteReadError | StreamError.ReadError
      >
    >()
    expectTypeOf<Framing.DecodeError>().toEqualTypeOf<
      | FrameError.MalformedFrame
      | FrameError.FrameTooLong
      | StreamError.IncompleteReadError
      | StreamError.ReadError
    >()
    // @ts-expect-error: a framing of strings takes no codec of bytes
    void (() => Framed.make(connection, types().records, Codec.bytes))
  })

  it("Framing of two kinds of frames", () => {
    interface Request {
      readonly verb: string
    }
    interface Reply {
      readonly line: string
    }
    const decode = (reader: Framing.FrameReader) =>
      Effect.map(reader.readUntil("\n"), (line): Reply => ({ line: String(line) }))
    const lines = () =>
      Framing.make({
        decode,
        encode: (request: Request) => {
          expectTypeOf(request).toEqualTypeOf<Request>()
          return request.verb
        }
      })
    expectTypeOf(lines).returns.toEqualTypeOf<Framing.Framing<Reply, Request>>()
    expectTypeOf<Framing.Framing<string>>().toEqualTypeOf<Framing.Framing<string, string>>()
    // What is sent is what is received unless it says otherwise.
    const inferred = () =>
      Framing.make({
        decode,
        encode: (frame) => {
          expectTypeOf(frame).toEqualTypeOf<Reply>()
          return frame.line
        }
      })
    expectTypeOf(inferred).returns.toEqualTypeOf<Framing.Framing<Reply>>()
    const generated = () =>
      Framing.make({
        *decode(reader) {
          expectTypeOf(reader).toEqualTypeOf<Framing.FrameReader>()
          const line = yield* reader.readUntil("\n")
          if (line.length > 3) return yield* new FrameError.MalformedFrame({ detail: "too long" })
          return line.length
        },
        encode: (frame: number) => String(frame)
      })
    expectTypeOf(generated).returns.toEqualTypeOf<Framing.Framing<number>>()

    expectTypeOf(() => Framed.make(connection, lines())).returns.toEqualTypeOf<
      Framed.Framed<Reply, Request>
    >()
    expectTypeOf(() => Framed.receiver(reader, lines())).returns.toEqualTypeOf<Framed.Receiver<Reply>>()
    expectTypeOf(() => Framed.sender(connection.writer, lines())).returns.toEqualTypeOf<
      Framed.Sender<Request>
    >()

    const codec = Codec.map(Codec.identity<Reply, Request>(), {
      decode: ({ line }) => line.length,
      encode: (verb: boolean) => ({ verb: String(verb) })
    })
    expectTypeOf(codec).toEqualTypeOf<Codec.Codec<number, boolean, Reply, Request>>()
    const framed = () => Framed.make(connection, lines(), codec)
    expectTypeOf(framed).returns.toEqualTypeOf<Framed.Framed<number, boolean>>()
    expectTypeOf(() => Framed.receiver(reader, lines(), codec)).returns.toEqualTypeOf<
      Framed.Receiver<number>
    >()
    expectTypeOf(() => Framed.sender(connection.writer, lines(), codec)).returns.toEqualTypeOf<
      Framed.Sender<boolean>
    >()
    const serve = () => Server.serveFramed(lines(), codec, ({ send }) => send(true), { listen: { port: 0 } })
    expectTypeOf(serve).returns.toEqualTypeOf<
      Effect.Effect<Server.Server, StreamError.ListenError, Network.Network | Scope.Scope>
    >()
    // @ts-expect-error: requests are not received
    void (() => Framed.make(connection, lines(), Codec.identity<Request>()))
    // @ts-expect-error: replies are not sent
    void (() => Framed.make(connection, lines(), Codec.identity<Reply>()))
    // One that may do more fits where less is asked for.
    expectTypeOf<Framing.Framing<string, unknown>>().toExtend<Framing.Framing<string | number, string>>()
    expectTypeOf<Codec.Codec<string, unknown>>().toExtend<Codec.Codec<string | number, string>>()
  })

  it("Codec", () => {
    expectTypeOf<Types["duplex"]>().toEqualTypeOf<Codec.Codec<Answer, Ask>>()
    expectTypeOf(Codec.json).toEqualTypeOf<Codec.Codec<unknown>>()
    expectTypeOf(Codec.bytes).toEqualTypeOf<Codec.Codec<Uint8Array>>()
    expectTypeOf(Codec.string()).toEqualTypeOf<Codec.Codec<string>>()
    const dates = Codec.schema(Schema.Struct({ at: Schema.DateFromString }))
    expectTypeOf(dates).toEqualTypeOf<Codec.Codec<{ readonly at: Date }>>()
    expectTypeOf(Codec.schemaBinary(Schema.Number)).toEqualTypeOf<Codec.Codec<number>>()
    expectTypeOf(
      Codec.map(Codec.string(), { decode: (text) => text.length, encode: (n: number) => "x".repeat(n) })
    ).toEqualTypeOf<Codec.Codec<number>>()
    expectTypeOf(Codec.compose(Codec.bytes, Codec.json)).toEqualTypeOf<Codec.Codec<unknown>>()
    // What is sent is what is received unless it says otherwise.
    const lengths = Codec.map(Codec.string(), {
      decode: (text) => text.length,
      encode: (length) => {
        expectTypeOf(length).toEqualTypeOf<number>()
        return "x".repeat(length)
      }
    })
    expectTypeOf(lengths).toEqualTypeOf<Codec.Codec<number>>()
    const ids = () =>
      Codec.map(types().duplex, {
        decode: ({ id }) => id,
        encode: (id: number) => new Ask({ id, at: new Date() })
      })
    expectTypeOf(ids).returns.toEqualTypeOf<Codec.Codec<number>>()
    const words = Codec.make<string, number, ReadonlyArray<string>, string>({
      decode: (frame) => Result.succeed(frame.join(" ")),
      encode: (message) => Result.succeed(String(message))
    })
    expectTypeOf(words).toEqualTypeOf<Codec.Codec<string, number, ReadonlyArray<string>, string>>()
    const upon = Codec.compose(
      words,
      Codec.make<boolean, symbol, string, number>({
        decode: () => Result.succeed(true),
        encode: () => Result.succeed(1)
      })
    )
    expectTypeOf(upon).toEqualTypeOf<Codec.Codec<boolean, symbol, ReadonlyArray<string>, string>>()
    expectTypeOf(Codec.duplex({ receive: words, send: Codec.json })).toEqualTypeOf<
      Codec.Codec<string, unknown, ReadonlyArray<string>, Uint8Array>
    >()
    // @ts-expect-error: a message is no frame of the other
    void (() => Codec.compose(Codec.string(), Codec.json))
  })

  it("Framed", () => {
    type Client = Types["framed"]
    expectTypeOf<Client>().toEqualTypeOf<Framed.Framed<Answer, Ask>>()
    expectTypeOf<Client["receive"]>().toEqualTypeOf<Effect.Effect<Answer, ReceiveError>>()
    expectTypeOf<Client["messages"]>().toEqualTypeOf<
      Stream.Stream<Answer, Exclude<ReceiveError, FrameError.EndOfStream>>
    >()
    expectTypeOf<Client["send"]>().toEqualTypeOf<(message: Ask) => Effect.Effect<void, SendError>>()
    expectTypeOf<Client["sink"]>().toEqualTypeOf<Sink.Sink<void, Ask, never, SendError>>()
    expectTypeOf<Client["request"]>().toEqualTypeOf<
      (message: Ask) => Effect.Effect<Answer, ReceiveError | SendError>
    >()
    expectTypeOf<Framed.Framed<Answer, Ask>>().toExtend<Framed.Receiver<Answer>>()
    expectTypeOf<Framed.Framed<Answer, Ask>>().toExtend<Framed.Sender<Ask>>()
    expectTypeOf<FrameError.ReceiveError>().toEqualTypeOf<ReceiveError>()
    expectTypeOf<FrameError.SendError>().toEqualTypeOf<SendError>()
    const bare = () => Framed.receiver(reader, Framing.lines())
    expectTypeOf(bare).returns.toEqualTypeOf<Framed.Receiver<Uint8Array>>()
    const Point = Schema.Struct({ at: Schema.DateFromString })
    expectTypeOf(() => Framed.jsonLines(connection, Point)).returns.toEqualTypeOf<
      Framed.Framed<{ readonly at: Date }>
    >()
    expectTypeOf(() =>
      Framed.jsonLines(connection, { receive: Answer, send: Ask }, { maxLength: 100, onInvalid: "skip" })
    ).returns.toEqualTypeOf<Framed.Framed<Answer, Ask>>()
    const correlated = () => types().framed.correlate({ idOf: ({ id }) => id })
    expectTypeOf(correlated).returns.toEqualTypeOf<
      Effect.Effect<Framed.Correlated<Answer, Ask>, never, Scope.Scope>
    >()
    const pipelined = () =>
      types().framed.pipeline({
        isReply: (message, request) => {
          expectTypeOf(message).toEqualTypeOf<Answer>()
          expectTypeOf(request).toEqualTypeOf<Ask | undefined>()
          return true
        }
      })
    expectTypeOf(pipelined).returns.toEqualTypeOf<
      Effect.Effect<Framed.Correlated<Answer, Ask>, never, Scope.Scope>
    >()
    // Whoever needs the message alone says nothing of requests.
    expectTypeOf<Framed.PipelineOptions<Answer>>().toExtend<Framed.PipelineOptions<Answer, Ask>>()
  })

  it("Server.serveFramed", () => {
    const serve = () =>
      Server.serveFramed(
        Framing.lines(),
        types().duplex,
        (framed) => {
          expectTypeOf(framed).toEqualTypeOf<Framed.Framed<Answer, Ask>>()
          return framed.receive
        },
        {
          listen: { port: 0 },
          onInvalid: "skip",
          onError: (cause) => {
            expectTypeOf(cause).toExtend<object>()
            throw new Error("not run")
          }
        }
      )
    expectTypeOf(serve).returns.toEqualTypeOf<
      Effect.Effect<Server.Server, StreamError.ListenError, Network.Network | Scope.Scope>
    >()
  })

  it("errors are matched by tag and by reason", () => {
    expectTypeOf<FrameError.FrameError["reason"]>().toEqualTypeOf<
      FrameError.FrameTooLong | FrameError.MalformedFrame | FrameError.InvalidMessage
    >()
    strictEqual(new FrameError.EndOfStream({})._tag, "EndOfStream")
  })
})
