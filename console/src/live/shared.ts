/** What tabs and the browser's one connection tell each other. */
import type { ProblemBody } from '../api/problem'
import type { FeedEvent, Filter, Link } from './feed'

export type ToConnection =
  /** `lock`: a lock that the tab holds for as long as it lives. */
  | { do: 'hello'; lock: string }
  | { do: 'subscribe'; id: string; filter: Filter; after: string | null }
  | { do: 'unsubscribe'; id: string }
  /** The tab is done with so many events. */
  | { do: 'done'; id: string; count: number }

export type ToTab =
  | { is: 'link'; link: Link }
  | { is: 'events'; id: string; events: readonly FeedEvent[] }
  | { is: 'reset' | 'end'; id: string }
  | { is: 'refused'; id: string; problem: ProblemBody }
  | { is: 'signed-out' }

/** Events that may be on their way to one subscription of a tab. A tab that sleeps gets no more, and reads anew when it wakes up. */
export const MOST_ON_WAY = 5_000
