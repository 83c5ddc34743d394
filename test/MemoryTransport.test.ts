import { it as effectIt } from "@effect/vitest"
import { assertInstanceOf, deepStrictEqual, strictEqual } from "@effect/vitest/utils"
import { Cause, Effect, Exit, Fiber, Scheduler } from "effect"
import { NetAddress } from "effect/net"
import fc from "fast-check"
import { describe, it } from "vitest"
import * as MemoryTransport from "effect-wire/MemoryTransport"
import { manualScheduler, record, type Recorder } from "./support/transports.ts"

const setup = (options?: MemoryTransport.PairOptions) => {
  const manual = manualScheduler()
  const [left, right] = Effect.runSync(
    Effect.provideService(MemoryTransport.makePair(options), Scheduler.Scheduler, manual.scheduler)
  )
  return { ...manual, left, right }
}

const started = (options?: MemoryTransport.PairOptions) => {
  const { left, right, ...manual } = setup(options)
  const a = record(left)
  const b = record(right)
  left.resume()
  right.resume()
  manual.settle()
  return { ...manual, left, right, a, b }
}

const expectReset = (recorder: Recorder, operation: string) => {
  const error = recorder.error()
  strictEqual(error?.reason._tag, "ConnectionReset")
  strictEqual(error?.reason.code, "ECONNRESET")
  strictEqual(error?.operation, operation)
}

const bytes = (...values: Array<number>) => Uint8Array.from(values)

describe("makePair", () => {
  it("describes both ends, before and after the end", () => {
    const localAddress = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:1000")
    const remoteAddress = NetAddress.unixPathAddress("/run/a.sock")
    const { left, right, settle, b } = started({ localAddress, remoteAddress })
    const check = () => {
      strictEqual(left.localAddress, localAddress)
      strictEqual(left.remoteAddress, remoteAddress)
      strictEqual(right.localAddress, remoteAddress)
      strictEqual(right.remoteAddress, localAddress)
    }
    check()
    left.abort()
    settle()
    check()
    deepStrictEqual(
      [left.kind, left.canEnd, left.readAhead, left.tls, right.kind, right.canEnd, right.readAhead],
      ["memory", true, true, undefined, "memory", true, true]
    )
    strictEqual(b.error()?.address, "127.0.0.1:1000")
  })

  it("dies of a capacity that is no number of bytes", () => {
    for (const capacity of [-1, 1.5, NaN, -Infinity]) {
      const exit = Effect.runSyncExit(MemoryTransport.makePair({ capacity }))
      assertInstanceOf(Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined, RangeError)
    }
    strictEqual(Exit.isSuccess(Effect.runSyncExit(MemoryTransport.makePair({ capacity: Infinity }))), true)
  })
})

describe("write", () => {
  it("delivers bytes and strings in order, never inside write, in one task per burst", () => {
    const { left, right, a, b, pending, step } = started()
    left.write("häl")
    left.writeAll([bytes(108, 111), " ", ""])
    left.write(bytes(119))
    right.write("back")
    deepStrictEqual([a.events, b.events], [[], []])
    strictEqual(pending(), 2)
    step()
    strictEqual(b.text(), "hällo w")
    strictEqual(a.text(), "")
    step()
    strictEqual(a.text(), "back")
    strictEqual(pending(), 0)
  })

  it("ignores empty chunks", () => {
    const { left, b, pending } = started()
    left.write("")
    left.writeAll([new Uint8Array(0), ""])
    strictEqual(pending(), 0)
    deepStrictEqual(b.events, [])
  })

  it("shares no memory between the two sides", () => {
    const { left, b, settle } = started()
    const chunk = Buffer.from("abc")
    left.write(chunk)
    chunk[0] = 120
    settle()
    strictEqual(b.text(), "abc")
    b.chunks[0]?.fill(0)
    strictEqual(chunk.toString(), "xbc")
  })

  it("delivers at most 65536 bytes at a time", () => {
    const { left, b, settle } = started()
    left.write(new Uint8Array(150_000).fill(7))
    settle()
    deepStrictEqual(
      b.chunks.map((chunk) => chunk.length),
      [65_536, 65_536, 18_928]
    )
    strictEqual(
      Buffer.concat(b.chunks).every((byte) => byte === 7),
      true
    )
  })

  it("delivers nothing before start and while paused, and loses nothing", () => {
    const { left, right, pending, settle } = setup()
    left.write("early")
    strictEqual(pending(), 0)
    const b = record(right)
    settle()
    deepStrictEqual(b.events, [])
    right.resume()
    deepStrictEqual(b.events, [])
    settle()
    strictEqual(b.text(), "early")
    right.pause()
    left.write("later")
    strictEqual(pending(), 0)
    strictEqual(b.text(), "early")
    right.resume()
    settle()
    strictEqual(b.text(), "earlylater")
  })

  it("stops in the middle of a burst when the handler pauses", () => {
    const { left, right, b, settle } = started()
    b.on = () => right.pause()
    left.writeAll(["one", "two", "three"])
    settle()
    strictEqual(b.text(), "one")
    right.resume()
    settle()
    strictEqual(b.text(), "onetwo")
  })

  it("keeps the order of thousands of chunks", () => {
    const { left, b, settle } = started()
    const numbers = Array.from({ length: 5000 }, (_, n) => `${n} `)
    for (const number of numbers) left.write(number)
    settle()
    strictEqual(b.text(), numbers.join(""))
  })

  it("lets other tasks run between two bursts", () => {
    const { left, right, a, b, step } = started()
    b.on = () => left.write(".")
    left.write(".")
    right.write("in between")
    for (let n = 0; n < 5; n++) step()
    strictEqual(a.text(), "in between")
    strictEqual(b.text(), "....")
  })
})

describe("bufferedBytes and onDrain", () => {
  it("counts what is beyond the capacity, and tells when it falls", () => {
    const { left, right, a, settle } = started({ capacity: 10 })
    right.pause()
    left.write(new Uint8Array(10))
    strictEqual(left.bufferedBytes, 0)
    left.write(new Uint8Array(5))
    strictEqual(left.bufferedBytes, 5)
    settle()
    deepStrictEqual(a.events, [])
    right.resume()
    settle()
    strictEqual(left.bufferedBytes, 0)
    deepStrictEqual(a.events, ["drain"])
  })

  it("does not tell of bytes that were never buffered", () => {
    const { left, a, b, settle } = started({ capacity: 10 })
    left.write("12345")
    settle()
    strictEqual(b.text(), "12345")
    deepStrictEqual(a.events, [])
  })

  it("goes down piece by piece while the reader pauses", () => {
    const { left, right, a, b, settle } = started({ capacity: 0 })
    b.on = () => right.pause()
    left.write(new Uint8Array(65_536 + 100))
    left.write(new Uint8Array(50))
    const seen = [left.bufferedBytes]
    for (let n = 0; n < 3; n++) {
      right.resume()
      settle()
      seen.push(left.bufferedBytes)
    }
    deepStrictEqual(seen, [65_686, 150, 50, 0])
    deepStrictEqual(a.events, ["drain", "drain", "drain"])
  })

  it("holds 65536 bytes unless told otherwise", () => {
    const { left } = setup()
    left.write(new Uint8Array(65_537))
    strictEqual(left.bufferedBytes, 1)
  })

  it("may be written to from onDrain", () => {
    const { left, a, b, settle } = started({ capacity: 0 })
    let more = 3
    a.on = (event) => {
      if (event === "drain" && more-- > 0) left.write("x")
    }
    left.write("x")
    settle()
    strictEqual(b.text(), "xxxx")
    strictEqual(left.bufferedBytes, 0)
  })
})

describe("end", () => {
  it("is the peer's end of input, after the last byte; the other direction stays open", () => {
    const { left, right, a, b, settle } = started()
    left.write("request")
    left.end()
    left.end()
    settle()
    deepStrictEqual(b.events, ["data", "end"])
    deepStrictEqual(a.events, [])
    right.write("response")
    settle()
    strictEqual(a.text(), "response")
    deepStrictEqual(a.events, ["data"])
  })

  it("of both directions closes both sides, without an error", () => {
    const { left, right, a, b, settle } = started()
    left.end()
    settle()
    right.write("bye")
    right.end()
    settle()
    deepStrictEqual(a.events, ["data", "end", "closed"])
    deepStrictEqual(b.events, ["end", "closed"])
    deepStrictEqual([a.error(), b.error()], [undefined, undefined])
  })

  it("waits behind bytes that a paused peer has not taken, and not for a peer that has them all", () => {
    const { left, right, b, settle } = started()
    right.pause()
    left.write("x")
    left.end()
    settle()
    deepStrictEqual(b.events, [])
    b.on = () => right.pause()
    right.resume()
    settle()
    deepStrictEqual(b.events, ["data", "end"])
  })

  it("does not close a side that has bytes left to send", () => {
    const { left, right, a, settle } = started({ capacity: 2 })
    right.pause()
    left.write("xxxxx")
    left.end()
    right.end()
    settle()
    deepStrictEqual(a.events, ["end"])
    right.resume()
    settle()
    deepStrictEqual(a.events, ["end", "drain", "closed"])
  })

  it("ignores later writes", () => {
    const { left, b, settle } = started()
    left.end()
    left.write("lost")
    settle()
    deepStrictEqual(b.events, ["end"])
  })
})

describe("close", () => {
  it("sends everything, then lets go; the peer sees the end and can end itself", () => {
    const { left, right, a, b, settle } = started()
    left.write("bye")
    left.close()
    left.close()
    deepStrictEqual(a.events, [])
    settle()
    deepStrictEqual(a.events, ["closed"])
    deepStrictEqual(b.events, ["data", "end"])
    right.end()
    settle()
    deepStrictEqual(b.events, ["data", "end", "closed"])
    deepStrictEqual([a.error(), b.error()], [undefined, undefined])
  })

  it("lets go although a paused peer has not taken what is within the capacity", () => {
    const { left, right, a, b, settle } = started({ capacity: 3 })
    right.pause()
    left.write("bye")
    left.close()
    settle()
    deepStrictEqual(a.events, ["closed"])
    deepStrictEqual(b.events, [])
    right.resume()
    settle()
    deepStrictEqual(b.events, ["data", "end"])
  })

  it("waits until what is beyond the capacity was taken", () => {
    const { left, right, a, b, settle } = started({ capacity: 3 })
    right.pause()
    left.write("byes")
    left.close()
    settle()
    deepStrictEqual(a.events, [])
    right.resume()
    settle()
    deepStrictEqual(a.events, ["drain", "closed"])
    deepStrictEqual(b.events, ["data", "end"])
  })

  it("may follow end, and does not wait for the peer", () => {
    const { left, a, b, settle } = started()
    left.end()
    settle()
    deepStrictEqual(a.events, [])
    left.close()
    settle()
    deepStrictEqual(a.events, ["closed"])
    deepStrictEqual(b.events, ["end"])
  })

  it("followed by an abort once it has let go takes nothing back", () => {
    const { left, right, b, settle } = started()
    right.pause()
    left.write("bye")
    left.close()
    settle()
    left.abort()
    right.resume()
    settle()
    strictEqual(b.text(), "bye")
    deepStrictEqual(b.events, ["data", "end"])
  })

  it("of both sides at once ends both without an error", () => {
    const { left, right, a, b, settle } = started()
    left.write("from left")
    right.write("from right")
    left.close()
    right.close()
    settle()
    deepStrictEqual(
      [a.events, b.events],
      [
        ["data", "end", "closed"],
        ["data", "end", "closed"]
      ]
    )
    deepStrictEqual([a.error(), b.error()], [undefined, undefined])
  })

  it("resets a peer that writes afterwards", () => {
    const { left, right, a, b, settle } = started()
    left.write("bye")
    left.close()
    settle()
    right.write("too late")
    settle()
    deepStrictEqual(b.events, ["data", "end", "closed"])
    expectReset(b, "write")
    deepStrictEqual(a.events, ["closed"])
  })

  it("does not reset a peer that writes nothing", () => {
    const { left, right, b, settle } = started()
    left.close()
    settle()
    right.write("")
    right.writeAll([])
    right.close()
    settle()
    deepStrictEqual(b.events, ["end", "closed"])
    strictEqual(b.error(), undefined)
  })

  it("resets a peer whose bytes it never took, which still gets what was sent", () => {
    const { left, right, a, b, settle } = started({ capacity: 3 })
    left.pause()
    right.write("never read")
    left.write("bye")
    left.close()
    settle()
    deepStrictEqual(a.events, ["closed"])
    strictEqual(a.error(), undefined)
    deepStrictEqual(b.events, ["data", "end", "closed"])
    expectReset(b, "read")
    strictEqual(right.bufferedBytes, 0)
  })
})

describe("abort", () => {
  it("resets the peer and drops what neither side has taken", () => {
    const { left, right, a, b, settle } = started({ capacity: 0 })
    left.write("delivered")
    settle()
    left.write("dropped")
    right.write("dropped")
    left.end()
    left.abort()
    left.abort()
    left.close()
    strictEqual(left.bufferedBytes, 0)
    deepStrictEqual(a.events, ["drain"])
    settle()
    deepStrictEqual(a.events, ["drain", "closed"])
    strictEqual(a.error(), undefined)
    deepStrictEqual(b.events, ["data", "closed"])
    strictEqual(b.text(), "delivered")
    expectReset(b, "read")
    strictEqual(right.bufferedBytes, 0)
  })

  it("reaches a paused peer, and one that has not started", () => {
    const paused = started()
    paused.right.pause()
    paused.left.write("dropped")
    paused.left.abort()
    paused.settle()
    deepStrictEqual(paused.b.events, ["closed"])

    const { left, right, settle } = setup()
    left.abort()
    settle()
    const b = record(right)
    settle()
    deepStrictEqual(b.events, ["closed"])
    expectReset(b, "read")
  })

  it("works before start", () => {
    const { left, right, settle } = setup()
    const b = record(right)
    left.abort()
    settle()
    deepStrictEqual(b.events, ["closed"])
    const a = record(left)
    settle()
    deepStrictEqual(a.events, ["closed"])
    strictEqual(a.error(), undefined)
  })

  it("overtakes close", () => {
    const { left, right, a, b, settle } = started({ capacity: 0 })
    right.pause()
    left.write("stuck")
    left.close()
    settle()
    deepStrictEqual(a.events, [])
    left.abort()
    settle()
    deepStrictEqual(a.events, ["closed"])
    strictEqual(a.error(), undefined)
    expectReset(b, "read")
  })

  it("fails a close of the peer that has bytes left to send", () => {
    const { left, right, b, settle } = started({ capacity: 0 })
    left.pause()
    right.write("stuck")
    right.close()
    settle()
    left.abort()
    settle()
    deepStrictEqual(b.events, ["closed"])
    expectReset(b, "read")
  })

  it("after the end of both is without effect", () => {
    const { left, right, a, b, settle } = started()
    left.close()
    right.close()
    settle()
    left.abort()
    right.abort()
    left.close()
    settle()
    deepStrictEqual(
      [a.events, b.events],
      [
        ["end", "closed"],
        ["end", "closed"]
      ]
    )
    strictEqual(b.error(), undefined)
  })

  it("tells of nothing else afterwards, and takes nothing", () => {
    const { left, a, b, settle } = started({ capacity: 0 })
    b.on = () => left.abort()
    left.write("x")
    settle()
    left.write("ignored")
    deepStrictEqual(a.events, ["closed"])
    deepStrictEqual(b.events, ["data", "closed"])
    strictEqual(left.bufferedBytes, 0)
  })

  it("may be called from every handler", () => {
    for (const event of ["data", "end", "drain"]) {
      const { left, right, a, b, settle } = started({ capacity: 0 })
      b.on = (now) => {
        if (now === event) right.abort()
      }
      right.write("x")
      left.writeAll(["x", "y"])
      left.end()
      settle()
      strictEqual(b.events.indexOf("closed"), b.events.indexOf(event) + 1)
      strictEqual(b.error(), undefined)
      expectReset(a, "read")
    }
  })
})

describe("under any sequence of calls", () => {
  const side = fc.constantFrom<"left" | "right">("left", "right")
  const capacity = fc.constantFrom(0, 1, 7, 100, Infinity)
  const chunk = fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.string({ maxLength: 20, unit: "grapheme" }))
  const carry = fc.oneof(
    fc.record({ do: fc.constant("write" as const), side, chunk }),
    fc.record({ do: fc.constant("pause" as const), side }),
    fc.record({ do: fc.constant("resume" as const), side }),
    fc.record({ do: fc.constant("step" as const) })
  )
  const finish = fc.record({ do: fc.constantFrom("end" as const, "close" as const, "abort" as const), side })

  interface Model {
    readonly self: Recorder
    readonly sent: Array<Uint8Array>
    open: boolean
    gone: boolean
    paused: boolean
  }

  const model = (self: Recorder): Model => {
    const it: Model = { self, sent: [], open: true, gone: false, paused: true }
    self.on = (event) => {
      if (event === "data" && it.paused) throw new Error("data while paused")
      if (event === "closed") it.open = false
    }
    return it
  }

  const received = (it: Model) => Buffer.concat(it.self.chunks)
  const sent = (it: Model) => Buffer.concat(it.sent)

  const play = (
    capacity: number,
    actions: ReadonlyArray<typeof carry | typeof finish extends fc.Arbitrary<infer A> ? A : never>,
    check: (left: Model, right: Model) => void
  ) => {
    const { left, right, step, settle } = setup({ capacity })
    const models = { left: model(record(left)), right: model(record(right)) }
    for (const action of actions) {
      if (action.do === "step") step()
      else {
        const it = models[action.side]
        const { transport } = it.self
        switch (action.do) {
          case "write": {
            if (!it.open) break
            it.sent.push(typeof action.chunk === "string" ? Buffer.from(action.chunk) : action.chunk)
            transport.write(action.chunk)
            break
          }
          case "pause":
          case "resume": {
            it.paused = action.do === "pause"
            transport[action.do]()
            break
          }
          case "end": {
            if (it.open) transport.end()
            it.open = false
            break
          }
          case "close":
          case "abort": {
            transport[action.do]()
            it.open = false
            it.gone = true
          }
        }
      }
      check(models.left, models.right)
    }
    return { ...models, settle }
  }

  const resume = (it: Model) => {
    it.paused = false
    it.self.transport.resume()
  }

  it("every byte arrives, in order, and the buffered bytes are those beyond the capacity", () => {
    fc.assert(
      fc.property(capacity, fc.array(carry, { maxLength: 60 }), (capacity, actions) => {
        const { left, right, settle } = play(capacity, actions, (left, right) => {
          for (const [from, to] of [
            [left, right],
            [right, left]
          ] as const) {
            const waiting = sent(from).length - received(to).length
            strictEqual(from.self.transport.bufferedBytes, Math.max(0, waiting - capacity))
          }
        })
        for (const it of [left, right]) resume(it)
        settle()
        deepStrictEqual(received(right), sent(left))
        deepStrictEqual(received(left), sent(right))
        for (const it of [left, right]) it.self.transport.end()
        settle()
        for (const it of [left, right]) {
          deepStrictEqual(it.self.events.slice(-2), ["end", "closed"])
          strictEqual(it.self.error(), undefined)
        }
      }),
      { numRuns: 500 }
    )
  })

  it("the end is told once and last, and end of input means all of the input", () => {
    fc.assert(
      fc.property(
        capacity,
        fc.array(fc.oneof({ weight: 5, arbitrary: carry }, { weight: 1, arbitrary: finish }), {
          maxLength: 60
        }),
        (capacity, actions) => {
          const check = (left: Model, right: Model) => {
            for (const [from, to] of [
              [left, right],
              [right, left]
            ] as const) {
              const got = received(to)
              deepStrictEqual(got, sent(from).subarray(0, got.length))
              if (to.self.events.includes("end")) strictEqual(got.length, sent(from).length)
              strictEqual(from.self.events.includes("closed") && from.open, false)
            }
          }
          const { left, right, settle } = play(capacity, actions, check)
          settle()
          check(left, right)
          // A side that let go without an error, and was neither closed nor aborted, has seen both ends.
          for (const it of [left, right]) {
            if (it.self.events.includes("closed") && it.self.error() === undefined && !it.gone) {
              strictEqual(it.self.events.includes("end"), true)
            }
          }
          for (const it of [left, right]) it.self.transport.abort()
          settle()
          // The recorder throws if anything is told after it.
          for (const it of [left, right]) strictEqual(it.self.events.at(-1), "closed")
        }
      ),
      { numRuns: 1000 }
    )
  })
})

describe("on the runtime's own scheduler", () => {
  effectIt.effect("two sides that answer at once do not recurse", () =>
    Effect.gen(function* () {
      const [left, right] = yield* MemoryTransport.makePair()
      const rounds = 5_000
      const fiber = yield* Effect.callback<number>((resume) => {
        let count = 0
        const a = record(left)
        const b = record(right)
        a.on = (event) => {
          if (event === "closed") resume(Effect.succeed(count))
          else if (event === "data" && ++count < rounds) left.write("ping")
          else if (event === "data") left.abort()
        }
        b.on = (event) => {
          if (event === "data") right.write("pong")
        }
        left.resume()
        right.resume()
        left.write("ping")
      }).pipe(Effect.forkChild)
      strictEqual(yield* Fiber.join(fiber), rounds)
    })
  )

  effectIt.effect("uses the scheduler of the fiber that made the pair", () =>
    Effect.gen(function* () {
      const manual = manualScheduler()
      const [left, right] = yield* Effect.provideService(
        MemoryTransport.makePair(),
        Scheduler.Scheduler,
        manual.scheduler
      )
      const b = record(right)
      right.resume()
      left.write("x")
      yield* Effect.yieldNow
      deepStrictEqual(b.events, [])
      manual.settle()
      deepStrictEqual(b.events, ["data"])
    })
  )
})
