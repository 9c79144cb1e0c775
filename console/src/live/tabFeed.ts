/** The feed as a tab sees it: over the SharedWorker, or of its own where there is none. */
import { signedOut } from '../api/client'
import { BestFeed } from './connection'
import { type Feed, type Filter, type Link, LinkState, type Listener } from './feed'
import type { ToConnection, ToTab } from './shared'

class SharedFeed implements Feed {
  private readonly state = new LinkState()
  private readonly listeners = new Map<string, Listener>()
  private number = 0

  constructor(private readonly port: MessagePort) {
    port.onmessage = (message: MessageEvent<ToTab>) => this.take(message.data)
    const lock = `tidelog-tab-${crypto.randomUUID()}`
    // Only when this tab holds its lock: a worker that gets the lock first would take this tab for one that is closed.
    void navigator.locks.request(lock, () => {
      this.say({ do: 'hello', lock })
      return new Promise(() => undefined)
    })
  }

  get link(): Link {
    return this.state.link
  }

  watch(onLink: (link: Link) => void): () => void {
    return this.state.watch(onLink)
  }

  subscribe(filter: Filter, after: string | null, listener: Listener): () => void {
    const id = String(++this.number)
    this.listeners.set(id, listener)
    this.say({ do: 'subscribe', id, filter, after })
    return () => {
      if (this.listeners.delete(id)) this.say({ do: 'unsubscribe', id })
    }
  }

  private say(message: ToConnection): void {
    this.port.postMessage(message)
  }

  private take(message: ToTab): void {
    switch (message.is) {
      case 'link':
        this.state.is(message.link)
        return
      case 'signed-out':
        signedOut()
        return
      case 'events':
        this.listeners.get(message.id)?.onEvents(message.events)
        this.say({ do: 'done', id: message.id, count: message.events.length })
        return
      case 'reset':
        this.listeners.get(message.id)?.onReset?.()
        return
      case 'end':
        this.listeners.get(message.id)?.onEnd?.()
        this.listeners.delete(message.id)
        return
      case 'refused':
        this.listeners.get(message.id)?.onRefused?.(message.problem)
        this.listeners.delete(message.id)
        return
    }
  }
}

/** Safari and others on phones have no SharedWorker; a page that is not secure has no locks. */
function open(): Feed {
  if (typeof SharedWorker === 'undefined' || !('locks' in navigator)) return new BestFeed(signedOut)
  const worker = new SharedWorker(new URL('./live.ts', import.meta.url), { type: 'module', name: 'tidelog' })
  return new SharedFeed(worker.port)
}

let feed: Feed | null = null

/** The feed of this tab, opened when it is first asked for. */
export function theFeed(): Feed {
  return (feed ??= open())
}
