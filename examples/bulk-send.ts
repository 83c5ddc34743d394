// Sends 100 MiB in chunks of 1 KiB. `write` suspends while more than 64 KiB wait, so memory stays flat however slow the
// receiver is.
//   npm run example -- bulk-send
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Stream } from "effect"
import { Connection, Server } from "effect-wire"
import { NodeNetwork } from "effect-wire/node"

const MIB = 1024 * 1024
const TOTAL = 100 * MIB
const CHUNK = new Uint8Array(1024)
const HIGH = 65_536

const count = ({ reader, writer }: Connection.Connection) =>
  reader.stream.pipe(
    Stream.runFold(
      () => 0,
      (bytes, chunk) => bytes + chunk.length
    ),
    Effect.flatMap((bytes) => writer.write(`${bytes}\n`))
  )

const send = Effect.fnUntraced(function* ({ reader, writer }: Connection.Connection) {
  const before = process.memoryUsage.rss()
  let peakBuffered = 0
  let peakMemory = before
  for (let sent = 0; sent < TOTAL; sent += CHUNK.length) {
    yield* writer.write(CHUNK)
    peakBuffered = Math.max(peakBuffered, yield* writer.bufferedBytes)
    if (sent % (10 * MIB) === 0) {
      peakMemory = Math.max(peakMemory, process.memoryUsage.rss())
      yield* Console.log(
        `${String(sent / MIB).padStart(3)} MiB sent, ${yield* writer.bufferedBytes} bytes buffered`
      )
    }
  }
  yield* writer.end
  yield* Console.log("received by the peer:", yield* reader.readLineString)
  yield* Console.log(`peak of buffered bytes: ${peakBuffered} (high watermark ${HIGH})`)
  yield* Console.log(`memory grew by ${Math.round((peakMemory - before) / MIB)} MiB at most`)
})

const program = Effect.gen(function* () {
  const server = yield* Server.serve(count, { listen: { host: "127.0.0.1" } })
  const started = performance.now()
  yield* Connection.use(server.addresses[0], { watermarks: { high: HIGH } }, send)
  yield* Console.log(`${Math.round(TOTAL / MIB / ((performance.now() - started) / 1000))} MiB/s`)
})

program.pipe(Effect.scoped, Effect.provide(NodeNetwork.layer), NodeRuntime.runMain)
