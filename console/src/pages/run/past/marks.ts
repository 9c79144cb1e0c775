/** What is marked on the slider: where a run failed, tried again, waited for people. */

export type Mark = 'failure' | 'retry' | 'pause' | 'approval' | 'end'

const MARKS: Readonly<Record<string, Mark>> = {
  'agent_run.failed': 'failure',
  'invocation.failed': 'failure',
  'invocation.became_ambiguous': 'failure',
  'chain.failed': 'failure',
  'run.part_failed': 'failure',
  'run.step_failed': 'failure',
  'run.failed': 'failure',
  'agent_run.retry_scheduled': 'retry',
  'agent_run.reopened': 'retry',
  'invocation.retry_scheduled': 'retry',
  'invocation.fell_back': 'retry',
  'run.step_fell_back': 'retry',
  'run.retried': 'retry',
  'run.paused': 'pause',
  'run.resumed': 'pause',
  'run.signal_awaited': 'pause',
  'approval.requested': 'approval',
  'approval.decided': 'approval',
  'approval.expired': 'approval',
  'allowance.asked': 'approval',
  'run.completed': 'end',
  'run.cancelled': 'end',
}

/** The types of events that are marked, as the interface takes them. */
export const MARKED = Object.keys(MARKS).join(',')

export function markOf(type: string): Mark | null {
  return MARKS[type] ?? null
}

export const NAMES: Readonly<Record<Mark, string>> = {
  failure: 'failure',
  retry: 'retry',
  pause: 'pause or wait',
  approval: 'approval',
  end: 'end',
}

/** The gravest goes before the others where marks stand at one place. */
const GRAVITY: readonly Mark[] = ['failure', 'approval', 'pause', 'retry', 'end']

export interface Tick {
  /** From 0 to 1. */
  readonly at: number
  readonly mark: Mark
}

/** At most `places` ticks for any number of marks: of those at one place the gravest. */
export function ticksOf(marks: readonly Tick[], places = 240): Tick[] {
  const found = new Map<number, Tick>()
  for (const tick of marks) {
    const place = Math.round(tick.at * places)
    const there = found.get(place)
    if (there === undefined || GRAVITY.indexOf(tick.mark) < GRAVITY.indexOf(there.mark)) {
      found.set(place, { at: place / places, mark: tick.mark })
    }
  }
  return [...found.values()].sort((one, other) => one.at - other.at)
}
