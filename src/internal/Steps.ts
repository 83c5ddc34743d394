import type * as Scheduler from "effect/Scheduler"

/** So many steps may follow each other before others run. */
const IN_A_ROW = 1024

/**
 * Steps each of which is begun by the one before, in the same turn of the event loop: so it is with the reads and writes of a
 * stream in memory. Without a pause now and then, nobody else would run.
 */
export class Steps {
  private readonly dispatcher: Scheduler.SchedulerDispatcher
  private count = 0

  constructor(scheduler: Scheduler.Scheduler) {
    this.dispatcher = scheduler.makeDispatcher()
  }

  /** Takes a step by `now`, or, if a pause is due, once others have run. */
  next(step: () => void, now: (step: () => void) => void): void {
    if (++this.count < IN_A_ROW) return now(step)
    this.count = 0
    this.dispatcher.scheduleTask(step, 0)
  }
}
