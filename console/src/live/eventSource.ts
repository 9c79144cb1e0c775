/** A feed by server-sent events: one EventSource a subscription, for browsers without a SharedWorker. */
import { SERVER } from '../api/place'
import type { Feed, FeedEvent, Filter, Link, Listener } from './feed'

const FIRST_MS = 500
const LONGEST_MS = 15_000

/** Milliseconds before a next attempt: longer each time, and by chance, so that a thousand browsers do not come at once. */
export function pauseBefore(attempt: number): number {
  return Math.min(LONGEST_MS, FIRST_MS * 2 ** attempt) * (0.5 + Math.random() / 2)
}

export function pathOf(filter: Filter, after: string | null): string {
  const query = new URLSearchParams()
  if (filter.types !== undefined) query.set('types', filter.types.join(','))
  if (after !== null) query.set('after', after)
  const path = filter.runId === undefined ? '/v1/events' : `/v1/runs/${filter.runId}/events`
  return `${SERVER}${path}?${query.toString()}`
}

export class EventSourceFeed implements Feed {
  link: Link = 'connecting'
  private readonly watchers = new Set<(link: Link) => void>()
  private readonly lost = new Set<object>()

  watch(onLink: (link: Link) => void): () => void {
    this.watchers.add(onLink)
    return () => this.watchers.delete(onLink)
  }

  subscribe(filter: Filter, after: string | null, listener: Listener): () => void {
    const self = {}
    let last = after
    let attempt = 0
    let source: EventSource | null = null
    let timer: ReturnType<typeof setTimeout> | undefined
    const open = () => {
      source = new EventSource(pathOf(filter, last), { withCredentials: true })
      source.onopen = () => {
        attempt = 0
        this.is(self, false)
      }
      source.onerror = () => {
        source?.close()
        this.is(self, true)
        timer = setTimeout(open, pauseBefore(attempt++))
      }
      const take = (message: MessageEvent<string>) => {
        last = message.lastEventId || last
        listener.onEvents([JSON.parse(message.data) as FeedEvent])
      }
      source.onmessage = take
      for (const type of filter.types ?? []) source.addEventListener(type, take)
      source.addEventListener('end', () => {
        close()
        listener.onEnd?.()
      })
      source.addEventListener('reset', message => {
        last = (message as MessageEvent<string>).lastEventId || null
        listener.onReset?.()
      })
    }
    const close = () => {
      clearTimeout(timer)
      source?.close()
      this.is(self, false)
    }
    open()
    return close
  }

  private is(subscription: object, lost: boolean): void {
    if (lost) this.lost.add(subscription)
    else this.lost.delete(subscription)
    const link: Link = this.lost.size > 0 ? 'lost' : 'open'
    if (link === this.link) return
    this.link = link
    for (const watcher of this.watchers) watcher(link)
  }
}
