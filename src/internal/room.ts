import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Lendable } from "./lendable.ts"

/** Whose connections share a room with those of others. */
interface Tenant {
  readonly items: ReadonlySet<Lendable>
  /** How many borrowers it has that have nothing yet: so many of its idle connections are spoken for. */
  readonly borrowing: number
  readonly evict: (item: Lendable) => Effect.Effect<void>
}

/** Who waits for a place. */
interface Guest {
  readonly tenant: Tenant
  readonly enter: () => void
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** Room for so many connections, which the pools of many targets share: first come, first served. */
export class Room {
  readonly size: number
  private taken = 0
  private queue: ReadonlyArray<Guest> = []
  private readonly tenants = new Set<Tenant>()

  constructor(size: number) {
    this.size = size
  }

  get isFull(): boolean {
    return this.taken >= this.size
  }

  /** Adds a tenant, and gives how to remove it. */
  admit(tenant: Tenant): () => void {
    this.tenants.add(tenant)
    return () => this.tenants.delete(tenant)
  }

  /** A place, if there is one. */
  tryEnter(): boolean {
    if (this.isFull || this.next !== undefined) return false
    this.taken++
    return true
  }

  /** A place: there is one, or somebody's longest idle connection gives it up, or it is waited for. */
  enter(restore: Restore, tenant: Tenant): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.tryEnter()) return Effect.void
      const eviction = this.longestIdle()
      return eviction === undefined
        ? this.wait(restore, tenant)
        : Effect.andThen(eviction, this.enter(restore, tenant))
    })
  }

  leave(): void {
    this.taken--
    this.wake()
  }

  /** Lets in whoever can be let in, after a tenant's borrowers have become more or fewer. */
  get settle(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.wake()
      const eviction = this.next === undefined ? undefined : this.longestIdle()
      return eviction === undefined ? Effect.void : Effect.andThen(eviction, this.settle)
    })
  }

  /** Whether a tenant has to give up a connection that comes back: it is another one's turn. */
  claims(tenant: Tenant): boolean {
    const { next } = this
    return next !== undefined && next.tenant !== tenant
  }

  /** Whether a tenant has to give up a connection that has come: its own borrowers do not wait for it any more. */
  reclaims(tenant: Tenant): boolean {
    return this.next !== undefined && spareOf(tenant).length > 0
  }

  /** Whether a tenant has to give up a connection that has come for its reserve, where who waits for a place does not look. */
  recalls(tenant: Tenant): boolean {
    return this.next !== undefined || this.queue.some((guest) => guest.tenant === tenant)
  }

  /** Whose turn it is. A guest for whose borrowers there are connections by now stays where it is. */
  private get next(): Guest | undefined {
    return this.queue.find(({ tenant }) => tenant.borrowing > idleOf(tenant).length)
  }

  private wake(): void {
    for (let guest = this.next; guest !== undefined && !this.isFull; guest = this.next) {
      this.taken++
      this.forget(guest)
      guest.enter()
    }
  }

  private forget(guest: Guest): void {
    this.queue = this.queue.filter((_) => _ !== guest)
  }

  private wait(restore: Restore, tenant: Tenant): Effect.Effect<void> {
    let isIn = false
    const waiting = Effect.callback<void>((resume) => {
      const guest: Guest = {
        tenant,
        enter: () => {
          isIn = true
          resume(Effect.void)
        }
      }
      this.queue = [...this.queue, guest]
      return Effect.sync(() => this.forget(guest))
    })
    return Effect.onExit(restore(waiting), (exit) =>
      Effect.sync(() => {
        if (Exit.isFailure(exit) && isIn) this.leave()
      })
    )
  }

  private longestIdle(): Effect.Effect<void> | undefined {
    let eviction: Effect.Effect<void> | undefined = undefined
    let since = Infinity
    for (const tenant of this.tenants) {
      for (const item of spareOf(tenant)) {
        if (item.idleSince >= since) continue
        since = item.idleSince
        eviction = tenant.evict(item)
      }
    }
    return eviction
  }
}

const idleOf = ({ items }: Tenant): ReadonlyArray<Lendable> =>
  Array.from(items).filter((item) => !item.lent && !item.unfit)

/** What a tenant can give up: nothing, while it has as many borrowers that wait for it. */
const spareOf = (tenant: Tenant): ReadonlyArray<Lendable> => {
  const idle = idleOf(tenant)
  return idle.length > tenant.borrowing ? idle : []
}
