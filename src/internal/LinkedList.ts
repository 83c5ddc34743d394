/** A member of one list. */
export interface Linked<Self> {
  previous: Self | undefined
  next: Self | undefined
}

/**
 * Members in the order of their coming, any of which can go at any time.
 *
 * For many that stay for a short time, where a `Set` costs much: a removed member stays in its table until that is made anew,
 * and the table before may be so old that only a full garbage collection frees it, and with it all that it has ever held.
 */
export class LinkedList<A extends Linked<A>> implements Iterable<A> {
  size = 0
  private first: A | undefined = undefined
  private last: A | undefined = undefined

  add(member: A): void {
    this.size++
    member.previous = this.last
    if (this.last === undefined) this.first = member
    else this.last.next = member
    this.last = member
  }

  remove(member: A): void {
    const { next, previous } = member
    this.size--
    if (previous === undefined) this.first = next
    else previous.next = next
    if (next === undefined) this.last = previous
    else next.previous = previous
    // One that is gone must not keep the others alive.
    member.previous = undefined
    member.next = undefined
  }

  /** Whoever may change the list on the way goes through a copy: one that is removed does not know the next one any more. */
  *[Symbol.iterator](): Iterator<A> {
    for (let member = this.first; member !== undefined;) {
      const { next } = member
      yield member
      member = next
    }
  }
}
