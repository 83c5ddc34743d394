import { it } from "@effect/vitest"
import { type Effect, type PlatformError, type Scope, type Sink, type Stdio, Stream } from "effect"
import { Connection, Relay, type StreamError, Subprocess, type Tap } from "effect-wire"
import { TestNetwork } from "effect-wire/testing"
import type { ChildProcess, ChildProcessSpawner } from "effect/process"
import { expectTypeOf } from "vitest"

declare const connection: Connection.Connection
declare const custom: Stream.Stream<string, "mine", "service">
declare const observer: Tap.Observer<"observer", "needs">
declare const lines: Sink.Sink<void, string, never, "disk", "files">
declare const command: ChildProcess.Command
declare const received: (
  stream: Stream.Stream<Uint8Array, StreamError.ReadError>
) => Stream.Stream<Uint8Array, "torn", "scissors">

it("the types of streams and of connections over connections", () => {
  const types = () => {
    expectTypeOf(Connection.stream(connection)).toEqualTypeOf<
      Stream.Stream<Uint8Array, StreamError.ReadError>
    >()
    const sent = Stream.run(custom, Connection.sink(connection))
    expectTypeOf(sent).toEqualTypeOf<Effect.Effect<void, "mine" | StreamError.WriteError, "service">>()

    const answered = Stream.runDrain(Stream.pipeThroughChannel(custom, Connection.channel(connection)))
    expectTypeOf(answered).toEqualTypeOf<
      Effect.Effect<void, "mine" | StreamError.ReadError | StreamError.WriteError, "service">
    >()

    // What an observer or a transform fails with is the connection's failure; what it needs is asked for.
    expectTypeOf(Connection.tap(connection, observer)).toEqualTypeOf<
      Effect.Effect<Connection.Connection, never, "needs" | Scope.Scope>
    >()
    expectTypeOf(Connection.record(connection, lines)).toEqualTypeOf<
      Effect.Effect<Connection.Connection, never, "files" | Scope.Scope>
    >()
    expectTypeOf(Connection.through(connection, { received })).toEqualTypeOf<
      Effect.Effect<Connection.Connection, never, "scissors" | Scope.Scope>
    >()
    expectTypeOf(Connection.through(connection, {})).toEqualTypeOf<
      Effect.Effect<Connection.Connection, never, Scope.Scope>
    >()
    expectTypeOf(Connection.throttle({ read: 1 })(connection)).toEqualTypeOf<
      Effect.Effect<Connection.Connection, never, Scope.Scope>
    >()
    expectTypeOf(Connection.stdio()).toEqualTypeOf<
      Effect.Effect<Connection.Connection, never, Stdio.Stdio | Scope.Scope>
    >()
    expectTypeOf(Relay.copy(connection, connection)).toEqualTypeOf<Effect.Effect<number, Relay.CopyError>>()
    expectTypeOf(TestNetwork.replay).returns.returns.toEqualTypeOf<
      Effect.Effect<void, TestNetwork.ReplayError | StreamError.ReadError | StreamError.WriteError>
    >()
    expectTypeOf(Subprocess.run(command, { input: "x", maxBytes: 1, readTimeout: "1 second" })).toEqualTypeOf<
      Effect.Effect<
        Subprocess.Completed,
        | PlatformError.PlatformError
        | StreamError.LimitOverrunError
        | StreamError.ReadError
        | StreamError.WriteError,
        ChildProcessSpawner.ChildProcessSpawner
      >
    >()
    // @ts-expect-error no bytes, and no text
    Stream.run(Stream.make(1), Connection.sink(connection))
    // @ts-expect-error not a direction
    Connection.throttle(connection, { both: 1 })
  }
  expectTypeOf(types).toBeFunction()
})
