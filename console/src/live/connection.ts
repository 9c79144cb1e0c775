/** The browser's one connection: in a SharedWorker, for all tabs of the console. */
import { currentSession } from '../api/session'
import { SERVER } from '../api/place'
import type { Feed, FeedEvent, Filter, Link, Listener } from './feed'
import { MOST_ON_WAY, type ToConnection, type ToTab } from './shared'
import { SocketFeed } from './socketFeed'
import { StreamFeed } from './streamFeed'

/** A feed over a socket; over server-sent events where no socket can be had. */
export class BestFeed implements Feed {
  private readonly watchers = new Set<(link: Link) => void>()
  private readonly subscriptions = new Map<
    object,
    { filter: Filter; after: string | null; listener: Listener; end: () => void }
  >()
  private feed: SocketFeed | StreamFeed

  constructor(private readonly onSignedOut: () => void) {
    this.feed = new SocketFeed({
      open: protocol => new WebSocket(`${location.origin.replace(/^http/, 'ws')}${SERVER}/v1/ws`, protocol),
      signedIn: async () => (await currentSession()) !== null,
      onSignedOut,
      onImpossible: () => this.fall(),
    })
    this.feed.watch(link => this.tell(link))
  }

  get link(): Link {
    return this.feed.link
  }

  watch(onLink: (link: Link) => void): () => void {
    this.watchers.add(onLink)
    return () => this.watchers.delete(onLink)
  }

  subscribe(filter: Filter, after: string | null, listener: Listener): () => void {
    const key = {}
    this.subscriptions.set(key, { filter, after, listener, end: this.feed.subscribe(filter, after, listener) })
    return () => {
      this.subscriptions.get(key)?.end()
      this.subscriptions.delete(key)
    }
  }

  /** No socket was ever open, so no subscription has had an event. */
  private fall(): void {
    this.feed.close()
    this.feed = new StreamFeed(SERVER, this.onSignedOut)
    this.feed.watch(link => this.tell(link))
    for (const kept of this.subscriptions.values())
      kept.end = this.feed.subscribe(kept.filter, kept.after, kept.listener)
  }

  private tell(link: Link): void {
    for (const watcher of this.watchers) watcher(link)
  }
}

interface Asked {
  end: () => void
  onWay: number
  /** Events did not go to the tab, which was too slow. */
  missed: boolean
}

/** What one tab has asked for. */
export class Tab {
  private readonly asked = new Map<string, Asked>()
  private readonly unwatch: () => void

  constructor(
    private readonly feed: Feed,
    private readonly say: (message: ToTab) => void,
  ) {
    this.unwatch = feed.watch(link => say({ is: 'link', link }))
    say({ is: 'link', link: feed.link })
  }

  take(message: ToConnection): void {
    switch (message.do) {
      case 'subscribe':
        this.subscribe(message.id, message.filter, message.after)
        return
      case 'unsubscribe':
        this.asked.get(message.id)?.end()
        this.asked.delete(message.id)
        return
      case 'done':
        this.done(message.id, message.count)
        return
      case 'hello':
        return
    }
  }

  close(): void {
    this.unwatch()
    for (const subscription of this.asked.values()) subscription.end()
    this.asked.clear()
  }

  private subscribe(id: string, filter: Filter, after: string | null): void {
    const state: Asked = { end: () => undefined, onWay: 0, missed: false }
    this.asked.set(id, state)
    state.end = this.feed.subscribe(filter, after, {
      onEvents: (events: readonly FeedEvent[]) => {
        if (state.missed || state.onWay + events.length > MOST_ON_WAY) {
          state.missed = true
          return
        }
        state.onWay += events.length
        this.say({ is: 'events', id, events })
      },
      onReset: () => this.say({ is: 'reset', id }),
      onEnd: () => {
        this.asked.delete(id)
        if (state.missed) this.say({ is: 'reset', id })
        this.say({ is: 'end', id })
      },
      onRefused: problem => {
        this.asked.delete(id)
        this.say({ is: 'refused', id, problem })
      },
    })
  }

  /** What was missed meanwhile is told once the tab has taken all that was on its way. */
  private done(id: string, count: number): void {
    const state = this.asked.get(id)
    if (state === undefined) return
    state.onWay -= count
    if (state.missed && state.onWay <= 0) {
      state.missed = false
      this.say({ is: 'reset', id })
    }
  }
}
