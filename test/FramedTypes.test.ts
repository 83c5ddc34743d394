import { strictEqual } from "@effect/vitest/utils"
import { type Effect, Schema, type Scope, type Sink, type Stream } from "effect"
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
