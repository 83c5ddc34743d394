import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { type EndOfStream, type ReceiveError, type SendError } from "../FrameError.ts"
import { ConnectionClosed, ConnectionError } from "../StreamError.ts"
import type { Deadline, TimeLimits } from "./Deadlines.ts"
import type { Content, Decoder } from "./Decoder.ts"
import { type Destination, isChunk, Unsendable } from "./Encoder.ts"
import type { Input } from "./Input.ts"
import * as Limits from "./limits.ts"
import { Transmission } from "./Output.ts"
import { within } from "./within.ts"

/** What requests are made with. */
export interface Wire<In, Out> extends Destination<Out> {
  readonly input: Input
  readonly reading: TimeLimits
  readonly decoder: Decoder<In>
}

type Request<In, Out> = (message: Out) => Effect.Effect<In, ReceiveError | SendError>

type StreamFailure = Exclude<ReceiveError, EndOfStream>

/**
 * `onTaken` is called when the transport takes the message: from then on a reply is to come, even if the write then
 * fails.
 */
const transmit = <In, Out>(
  { encode, output, writing }: Wire<In, Out>,
  message: Out,
  onTaken: () => void
): Effect.Effect<void, SendError> => {
  const encoded = encode(message)
  if (encoded instanceof Unsendable) return encoded.exit
  return new Transmission(output, writing, isChunk(encoded) ? [encoded] : encoded, onTaken)
}

/** Requests and replies in turn. */
export const inTurn = <In, Out>(wire: Wire<In, Out>): Request<In, Out> => {
  const turn = Semaphore.makeUnsafe(1)
  // Replies to come: that of the request whose turn it is, after those of requests that were given up.
  let owed = 0
  const onTaken = (): void => {
    owed++
  }
  // One that does not decode is a reply all the same.
  const reply: Effect.Effect<In, ReceiveError> = Effect.matchEffect(wire.decoder.content(wire.reading), {
    onSuccess: ({ exit }) => (--owed > 0 ? reply : exit),
    onFailure: (error) => (error._tag === "FrameError" && --owed > 0 ? reply : Effect.fail(error))
  })
  return (message) =>
    turn.withPermit(Effect.suspend(() => Effect.andThen(transmit(wire, message, onTaken), reply)))
}

/** A reply that a request waits for, for as long as a read of it would. */
class Reply<In> {
  private exit: Exit.Exit<In, ReceiveError> | undefined = undefined
  private resume: ((exit: Exit.Exit<In, ReceiveError>) => void) | undefined = undefined
  private deadline: Deadline | undefined = undefined
  private readonly wire: Wire<In, never>
  isGivenUp = false

  constructor(wire: Wire<In, never>) {
    this.wire = wire
  }

  /** It has come, or never will; `wake` is to follow. */
  settle(exit: Exit.Exit<In, ReceiveError>): void {
    this.exit = exit
    this.wire.input.disarm(this.deadline)
  }

  /** Has whoever waits for it go on. */
  wake(): void {
    if (this.exit !== undefined) this.resume?.(this.exit)
    this.wire.input.settle()
  }

  get come(): Effect.Effect<In, ReceiveError> {
    const { input, reading } = this.wire
    return Effect.callback((resume) => {
      if (this.exit !== undefined) return resume(this.exit)
      this.resume = resume
      this.deadline = input.arm(reading, (error) => resume(Exit.fail(error)))
      return Effect.sync(() => {
        input.disarm(this.deadline)
        input.settle()
      })
    })
  }
}

/** Options of requests that are in flight at once. */
export interface Options {
  readonly timeout?: Duration.Input | undefined
  readonly unsolicitedCapacity?: number | undefined
}

/** Many requests in flight at once. */
export interface Requests<In, Out> {
  readonly request: (
    message: Out,
    options?: { readonly timeout?: Duration.Input | undefined }
  ) => Effect.Effect<In, ReceiveError | SendError>
  readonly unsolicited: Stream.Stream<In, StreamFailure>
  readonly inFlight: Effect.Effect<number>
  readonly unmatched: Effect.Effect<number>
  readonly dropped: Effect.Effect<number>
}

const DEFAULT_UNSOLICITED = 256

/**
 * Whose a frame is: a request's, a request's that nobody waits for any more, nobody's at all; or why that cannot be
 * told.
 */
type Owner<In> = Reply<In> | "given up" | "none" | Exit.Failure<unknown, ReceiveError>

interface Matching<In, Out> {
  readonly receive: Effect.Effect<ReadonlyArray<Content<In>>, ReceiveError>
  readonly ownerOf: (content: Content<In>) => Owner<In>
  readonly takeAll: () => ReadonlyArray<Reply<In>>
  readonly inFlight: () => number
  readonly request: (
    message: Out,
    ended: () => Exit.Exit<never, ReceiveError> | undefined
  ) => Effect.Effect<In, ReceiveError | SendError>
}

/** Hands every frame to the request that it answers, in a fiber of the scope, and all requests the end. */
const dispatch = Effect.fnUntraced(function* <In, Out>(
  { input }: Wire<In, Out>,
  options: Options | undefined,
  matching: Matching<In, Out>
): Effect.fn.Return<Requests<In, Out>, never, Scope.Scope> {
  const capacity = Limits.positive(
    "unsolicitedCapacity",
    options?.unsolicitedCapacity ?? DEFAULT_UNSOLICITED,
    "messages"
  )
  const defaultTimeout = Limits.timeout("timeout", options?.timeout)
  const unsolicited = yield* Queue.sliding<In, StreamFailure | Cause.Done>(capacity)
  let unmatched = 0
  let dropped = 0
  // What requests fail with once nothing more is received.
  let ended: Exit.Exit<never, ReceiveError> | undefined

  const hand = (contents: ReadonlyArray<Content<In>>): Exit.Exit<unknown, ReceiveError> => {
    const settled: Array<Reply<In>> = []
    let failure: Exit.Exit<unknown, ReceiveError> = Exit.void
    for (const content of contents) {
      const owner = matching.ownerOf(content)
      if (owner instanceof Reply) {
        owner.settle(content.exit)
        settled.push(owner)
      } else if (owner === "given up") unmatched++
      else if (owner !== "none") {
        failure = owner
        break
      } else if (Exit.isSuccess(content.exit)) {
        if (Queue.isFullUnsafe(unsolicited)) dropped++
        Queue.offerUnsafe(unsolicited, content.exit.value)
      }
    }
    // Not before all have been told apart: a request that is made now is answered by none of them.
    for (const reply of settled) reply.wake()
    return failure
  }

  const end = (cause: Cause.Cause<ReceiveError>): void => {
    const why = Cause.hasInterruptsOnly(cause) ? Cause.fail(closed(input.address)) : cause
    ended = Exit.failCause(why)
    const toDone = (error: ReceiveError) => (error._tag === "EndOfStream" ? Cause.Done() : error)
    Queue.failCauseUnsafe(unsolicited, Cause.map(why, toDone))
    for (const reply of matching.takeAll()) {
      reply.settle(ended)
      reply.wake()
    }
  }

  yield* matching.receive.pipe(
    Effect.flatMap(hand),
    Effect.forever({ disableYield: true }),
    Effect.onError((cause) => Effect.sync(() => end(cause))),
    Effect.exit,
    Effect.forkScoped({ startImmediately: true })
  )

  return {
    request: (message, own) =>
      Effect.suspend(() => {
        const millis = own?.timeout === undefined ? defaultTimeout : Limits.timeout("timeout", own.timeout)
        const request = Effect.suspend(() => ended ?? matching.request(message, () => ended))
        return within(request, "request", "timeout", Duration.millis(millis), () => input.address)
      }),
    unsolicited: Stream.fromQueue(unsolicited),
    inFlight: Effect.sync(matching.inFlight),
    unmatched: Effect.sync(() => unmatched),
    dropped: Effect.sync(() => dropped)
  }
})

const closed = (address: string | undefined): ConnectionError =>
  new ConnectionError({ operation: "request", address, reason: new ConnectionClosed({}) })

const refused = (detail: string): Effect.Effect<never> => Effect.die(new RangeError(`request: ${detail}`))

// How many ids are kept of requests that were given up; what a peer never answers must not fill the memory.
const MOST_OWED = 10_000

const toContent = <In>(message: In): Content<In> => ({ exit: Exit.succeed(message), isSkipped: false })

/** Requests and replies by their ids. */
export const byId = <In, Out, Id>(
  wire: Wire<In, Out>,
  options: Options & { readonly idOf: (message: In | Out) => Id | undefined }
): Effect.Effect<Requests<In, Out>, never, Scope.Scope> =>
  Effect.suspend(() => {
    const { idOf } = options
    const waiting = new Map<Id, Reply<In>>()
    // Of requests that were given up, until their replies come: another one's could not be told from those.
    const owed = new Set<Id>()
    const giveUp = (id: Id): void => {
      waiting.delete(id)
      owed.add(id)
      if (owed.size <= MOST_OWED) return
      const [oldest] = owed
      if (oldest !== undefined) owed.delete(oldest)
    }
    return dispatch(wire, options, {
      // Of one that does not decode nobody can tell whom it answers: it ends everything, unless it is skipped.
      receive: Effect.map(wire.decoder.receiveMany(Limits.noTimeouts), Arr.map(toContent)),
      ownerOf: ({ exit }) => {
        if (Exit.isFailure(exit)) return exit
        const id = idOf(exit.value)
        if (id === undefined) return "none"
        const reply = waiting.get(id)
        waiting.delete(id)
        owed.delete(id)
        return reply ?? "given up"
      },
      takeAll: () => {
        const all = [...waiting.values()]
        waiting.clear()
        return all
      },
      inFlight: () => waiting.size,
      request: (message) => {
        const id = idOf(message)
        if (id === undefined) return refused("a message without an id")
        const reply = new Reply<In>(wire)
        let isSent = false
        const onTaken = (): void => {
          isSent = true
        }
        const exchange = Effect.suspend((): Effect.Effect<In, ReceiveError | SendError> => {
          if (waiting.has(id)) return refused(`a request with the id ${String(id)} is in flight already`)
          if (owed.has(id)) {
            return refused(`a request with the id ${String(id)} was given up, and its reply is still to come`)
          }
          waiting.set(id, reply)
          return Effect.andThen(transmit(wire, message, onTaken), reply.come)
        })
        return Effect.onExit(exchange, (exit) => {
          // The id of one that was answered may be in flight again.
          if (Exit.isSuccess(exit) || waiting.get(id) !== reply) return Effect.void
          if (isSent) giveUp(id)
          else waiting.delete(id)
          return Effect.void
        })
      }
    })
  })

/** Requests and replies by their order. */
export const inOrder = <In, Out>(
  wire: Wire<In, Out>,
  options:
    | (Options & { readonly isReply?: ((message: In, request: Out | undefined) => boolean) | undefined })
    | undefined
): Effect.Effect<Requests<In, Out>, never, Scope.Scope> =>
  Effect.suspend(() => {
    const isReply = options?.isReply
    // In the order of sending. The place of a request that was given up is kept for its reply.
    const places = new Map<Reply<In>, Out>()
    let inFlight = 0
    return dispatch(wire, options, {
      receive: wire.decoder.contents(Limits.noTimeouts),
      ownerOf: ({ exit, isSkipped }) => {
        const [place] = places
        if (Exit.isFailure(exit)) {
          // It may be a reply or not: with either, all that follow could be taken for others'.
          if (isReply !== undefined) return exit
          // Nobody else could be told.
          if (place === undefined && !isSkipped) return exit
        } else if (isReply?.(exit.value, place?.[1]) === false) return "none"
        if (place === undefined) return "given up"
        const [first] = place
        places.delete(first)
        return first.isGivenUp ? "given up" : first
      },
      takeAll: () => {
        const all = [...places.keys()]
        places.clear()
        return all
      },
      inFlight: () => inFlight,
      request: (message, ended) => {
        const reply = new Reply<In>(wire)
        const onTaken = (): void => {
          const failure = ended()
          // It has not begun to wait yet.
          if (failure === undefined) places.set(reply, message)
          else reply.settle(failure)
        }
        let isInFlight = false
        const exchange = Effect.suspend(() => {
          isInFlight = true
          inFlight++
          return Effect.andThen(transmit(wire, message, onTaken), reply.come)
        })
        return Effect.onExit(exchange, (exit) => {
          if (isInFlight) inFlight--
          reply.isGivenUp = Exit.isFailure(exit)
          return Effect.void
        })
      }
    })
  })
