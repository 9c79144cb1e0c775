/** The event streams, live. One connection a browser, whatever its tabs and pages ask for; nothing is polled. */

/** An event of the log as the interface gives it: a CloudEvent. */
export interface FeedEvent {
  readonly id: string
  readonly type: string
  readonly time: string
  readonly subject?: string
  readonly data: Readonly<Record<string, unknown>>
  readonly [extension: string]: unknown
}

/** Which events. Nothing: all of the tenant. */
export interface Filter {
  readonly types?: readonly string[]
  /** Only events inside this run. The subscription ends with the run. */
  readonly runId?: string
}

/** How it goes with the connection: `lost` while the server is away. It comes back by itself, without a gap. */
export type Link = 'connecting' | 'open' | 'lost'

export interface Listener {
  /** Events in the order of the log, in batches. */
  readonly onEvents: (events: readonly FeedEvent[]) => void
  /** Something may be missing between what was shown and what comes (the log was restored, or this reader was too slow): read anew. */
  readonly onReset?: () => void
  /** The run has ended, and all its events were given. */
  readonly onEnd?: () => void
}

/** Where events come from. */
export interface Feed {
  /** Begins after `after` (`<position>` or an event's id in a stream), or now. Returns what ends it. */
  subscribe(filter: Filter, after: string | null, listener: Listener): () => void
  /** The present state, and what is called when it changes. Returns what ends it. */
  watch(onLink: (link: Link) => void): () => void
  readonly link: Link
}
