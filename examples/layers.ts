// An application composed of layers, in which a service uses an injected connection. The test below it gives the same
// service a network in memory.
//   npm run example -- layers
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Layer, Option, Schema, Stream } from "effect"
import { Connection, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"
import { TestNetwork } from "effect-wire/testing"

class CalculatorError extends Schema.TaggedError<CalculatorError>()("CalculatorError", {
  message: Schema.String
}) {}

/** A remote calculator: one line asks, one line answers. */
class Calculator extends Context.Service<
  Calculator,
  { readonly add: (a: number, b: number) => Effect.Effect<number, CalculatorError> }
>()("examples/Calculator") {
  static readonly layer = Layer.effect(
    Calculator,
    Effect.gen(function* () {
      const { reader, writer } = yield* Connection.Connection
      const add = Effect.fn("Calculator.add")(
        function* (a: number, b: number) {
          yield* writer.write(`${a} ${b}\n`)
          const reply = yield* reader.readLineString
          return Number(Option.getOrElse(reply, () => "NaN"))
        },
        Effect.mapError((error) => new CalculatorError({ message: error.message }))
      )
      return Calculator.of({ add })
    })
  )
}

const calculate = ({ reader, writer }: Connection.Connection) =>
  Stream.runForEach(reader.lines, (line) =>
    writer.write(`${line.split(" ").reduce((sum, word) => sum + Number(word), 0)}\n`)
  )

/** A connection to the server, wherever that listens. */
const connected = Layer.unwrap(
  Effect.map(Server.Server, ({ addresses }) => Connection.layer(addresses[0], { readTimeout: "1 second" }))
)

/** The server and a client of it; what they run on is left open. */
const application = Calculator.layer.pipe(
  Layer.provide(connected),
  Layer.provide(Server.layer(calculate, { listen: { host: "127.0.0.1", port: 0 } }))
)

const sums = Effect.gen(function* () {
  const calculator = yield* Calculator
  yield* Console.log(`1 + 2 = ${yield* calculator.add(1, 2)}`)
  yield* Console.log(`20 + 22 = ${yield* calculator.add(20, 22)}`)
})

const program = Effect.gen(function* () {
  yield* Console.log("--- over TCP")
  yield* sums.pipe(Effect.provide(application), Effect.provide(NodeNetwork.layer))
  yield* Console.log("--- in memory, as a test would")
  yield* sums.pipe(Effect.provide(application), Effect.provide(TestNetwork.layer))
})

NodeRuntime.runMain(program)
