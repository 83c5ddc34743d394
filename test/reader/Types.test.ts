import { strictEqual } from "@effect/vitest/utils"
import { type Effect, type Option, type Scope, Stream } from "effect"
import { type StreamError, StreamReader } from "effect-wire"
import { describe, expectTypeOf, it } from "vitest"

type Reader = StreamReader.StreamReader
type ReadError = StreamError.ReadError
type Incomplete = StreamError.IncompleteReadError
type Overrun = StreamError.LimitOverrunError

describe("types of StreamReader", () => {
  it("what operations give, and fail with", () => {
    expectTypeOf<Reader["limit"]>().toEqualTypeOf<number>()
    expectTypeOf<ReturnType<Reader["read"]>>().toEqualTypeOf<Effect.Effect<Uint8Array, ReadError>>()
    expectTypeOf<ReturnType<Reader["readAll"]>>().toEqualTypeOf<
      Effect.Effect<Uint8Array, Overrun | ReadError>
    >()
    expectTypeOf<ReturnType<Reader["readExactly"]>>().toEqualTypeOf<
      Effect.Effect<Uint8Array, Incomplete | ReadError>
    >()
    expectTypeOf<ReturnType<Reader["readUntil"]>>().toEqualTypeOf<
      Effect.Effect<Uint8Array, Incomplete | Overrun | ReadError>
    >()
    expectTypeOf<Reader["readLine"]>().toEqualTypeOf<Effect.Effect<Uint8Array, Overrun | ReadError>>()
    expectTypeOf<Reader["readLineString"]>().toEqualTypeOf<
      Effect.Effect<Option.Option<string>, Overrun | ReadError>
    >()
    expectTypeOf<ReturnType<Reader["peek"]>>().toEqualTypeOf<
      Effect.Effect<Uint8Array, Incomplete | ReadError>
    >()
    expectTypeOf<ReturnType<Reader["skip"]>>().toEqualTypeOf<Effect.Effect<void, Incomplete | ReadError>>()
    expectTypeOf<ReturnType<Reader["skipUntil"]>>().toEqualTypeOf<
      Effect.Effect<number, Incomplete | ReadError>
    >()
    expectTypeOf<Reader["atEof"]>().toEqualTypeOf<Effect.Effect<boolean>>()
    expectTypeOf<Reader["bufferedBytes"]>().toEqualTypeOf<Effect.Effect<number>>()
    expectTypeOf<Reader["stream"]>().toEqualTypeOf<Stream.Stream<Uint8Array, ReadError>>()
    expectTypeOf<Reader["lines"]>().toEqualTypeOf<Stream.Stream<string, Overrun | ReadError>>()
  })

  it("what operations take", () => {
    expectTypeOf<Parameters<Reader["read"]>>().toEqualTypeOf<[max?: number | undefined]>()
    expectTypeOf<Parameters<Reader["readAll"]>>().toEqualTypeOf<
      [options?: { readonly maxBytes?: number | undefined } | undefined]
    >()
    expectTypeOf<Parameters<Reader["readExactly"]>>().toEqualTypeOf<[n: number]>()
    expectTypeOf<Parameters<Reader["readUntil"]>>().toEqualTypeOf<
      [separator: StreamReader.Separator, options?: { readonly limit?: number | undefined } | undefined]
    >()
    expectTypeOf<Parameters<Reader["skipUntil"]>>().toEqualTypeOf<[separator: StreamReader.Separator]>()
    expectTypeOf<StreamReader.Separator>().toEqualTypeOf<
      Uint8Array | string | ReadonlyArray<Uint8Array | string>
    >()
    expectTypeOf<readonly ["\r", "\n"]>().toExtend<StreamReader.Separator>()
    expectTypeOf<Buffer>().toExtend<StreamReader.Separator>()
    expectTypeOf<number>().not.toExtend<StreamReader.Separator>()
    expectTypeOf<ReadError>().toEqualTypeOf<StreamError.ConnectionError | StreamError.TimeoutError>()
  })

  it("constructors", () => {
    expectTypeOf(StreamReader.feedable).parameters.toEqualTypeOf<
      [options?: StreamReader.FeedableOptions | undefined]
    >()
    expectTypeOf(StreamReader.feedable).returns.toEqualTypeOf<StreamReader.Feedable>()
    expectTypeOf<StreamReader.Feedable["feed"]>().toEqualTypeOf<(chunk: Uint8Array) => void>()
    expectTypeOf<StreamReader.Feedable["feedEof"]>().toEqualTypeOf<() => void>()
    expectTypeOf<StreamReader.Feedable["fail"]>().toEqualTypeOf<(error: ReadError) => void>()
    const stream: Stream.Stream<Uint8Array, "mine", "service"> = Stream.empty
    expectTypeOf(StreamReader.fromStream(stream)).toEqualTypeOf<
      Effect.Effect<Reader, never, Scope.Scope | "service">
    >()
  })

  it("isStreamReader narrows, and tells readers from the rest", () => {
    const { reader } = StreamReader.feedable()
    expectTypeOf(StreamReader.isStreamReader).guards.toEqualTypeOf<Reader>()
    strictEqual(StreamReader.isStreamReader(reader), true)
    for (const other of [undefined, null, {}, "reader", { read: reader.read }]) {
      strictEqual(StreamReader.isStreamReader(other), false)
    }
  })
})
