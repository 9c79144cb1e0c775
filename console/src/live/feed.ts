/** The event streams, live. One connection a browser, whatever its tabs and pages ask for; nothing is polled. */
import type { ProblemBody } from '../api/problem'

/** An event of the log as the interface gives it: a CloudEvent. */
export interface FeedEvent {
  readonly id: string
  readonly type: string
  readonly time: string
  readonly subject?: string
  readonly data: Readonly<Record<string, unknown>>
  readonly [extension: string]: unknown
}

/** Which events. Nothing: all of the tenant that the signed-in key sees. */
export interface Filter {
  readonly types?: readonly string[]
  /** First words of types, such as `run`; in addition to `types`. */
  readonly slices?: readonly string[]
  /** Only events of this run. The subscription ends with the run. */
  readonly runId?: string
  readonly actor?: string
  readonly onBehalfOf?: string
}

/** How it goes with the connection: `lost` while the server is away. It comes back by itself, without a gap. */
export type Link = 'connecting' | 'open' | 'lost'

export interface Listener {
  /** Events in the order of the log, in batches. */
  readonly onEvents: (events: readonly FeedEvent[]) => void
  /** Something may be missing between what was shown and what comes (the log was restored, or this tab was too slow): read anew. */
  readonly onReset?: () => void
  /** The run has ended, and all its events were given. */
  readonly onEnd?: () => void
  /** The server refuses what was asked for. Nothing comes. */
  readonly onRefused?: (problem: ProblemBody) => void
}

/** Where events come from. */
export interface Feed {
  /** Begins after `after` (a position, or a cursor of the interface), or now. Returns what ends it. */
  subscribe(filter: Filter, after: string | null, listener: Listener): () => void
  /** What is called when the state changes. Returns what ends it. */
  watch(onLink: (link: Link) => void): () => void
  readonly link: Link
}

const FIRST_MS = 400
const LONGEST_MS = 15_000

/** Milliseconds before a next attempt: longer each time, and by chance, so that a thousand browsers do not come at once. */
export function pauseBefore(attempt: number, chance = Math.random()): number {
  return Math.min(LONGEST_MS, FIRST_MS * 2 ** attempt) * (0.5 + chance / 2)
}

/** The state of a connection, and who is told when it changes. */
export class LinkState {
  private readonly watchers = new Set<(link: Link) => void>()
  private state: Link = 'connecting'

  get link(): Link {
    return this.state
  }

  is(link: Link): void {
    if (link === this.state) return
    this.state = link
    for (const watcher of this.watchers) watcher(link)
  }

  watch(onLink: (link: Link) => void): () => void {
    this.watchers.add(onLink)
    return () => this.watchers.delete(onLink)
  }
}
