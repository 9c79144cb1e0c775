/** A feed by server-sent events, one request a subscription: where there are no sockets. Read by `fetch`, which hears all types. */
import type { ProblemBody } from '../api/problem'
import { type Feed, type FeedEvent, type Filter, type Link, LinkState, type Listener, pauseBefore } from './feed'

/** Milliseconds without a byte after which the server counts as gone: it sends a comment every 15 s. */
const SILENCE_MS = 40_000

interface SentEvent {
  readonly id: string | null
  readonly type: string
  readonly data: string
}

/** The events in the text of a stream, and the rest that is not whole yet. */
export function parseStream(text: string): [SentEvent[], string] {
  const parts = text.split('\n\n')
  const rest = parts.pop() ?? ''
  const events: SentEvent[] = []
  for (const part of parts) {
    let id: string | null = null
    let type = 'message'
    const data: string[] = []
    for (const line of part.split('\n')) {
      if (line.startsWith('id: ')) id = line.slice(4)
      else if (line.startsWith('event: ')) type = line.slice(7)
      else if (line.startsWith('data: ')) data.push(line.slice(6))
    }
    if (data.length > 0) events.push({ id, type, data: data.join('\n') })
  }
  return [events, rest]
}

export function pathOf(server: string, filter: Filter): string {
  const query = new URLSearchParams()
  const types = filter.types ?? []
  if (types.length > 0) query.set('types', types.join(','))
  if (filter.actor !== undefined) query.set('actor', filter.actor)
  if (filter.onBehalfOf !== undefined) query.set('on_behalf_of', filter.onBehalfOf)
  return `${server}${filter.runId === undefined ? '/v1/events' : `/v1/runs/${filter.runId}/events`}?${query.toString()}`
}

export class StreamFeed implements Feed {
  private readonly state = new LinkState()
  private readonly lost = new Set<object>()
  private readonly ends = new Set<() => void>()

  constructor(
    private readonly server: string,
    private readonly onSignedOut: () => void,
  ) {}

  get link(): Link {
    return this.state.link
  }

  watch(onLink: (link: Link) => void): () => void {
    return this.state.watch(onLink)
  }

  subscribe(filter: Filter, after: string | null, listener: Listener): () => void {
    const stopped = new AbortController()
    const end = () => {
      this.ends.delete(end)
      stopped.abort()
      this.is(stopped, false)
    }
    this.ends.add(end)
    void this.follow(filter, after, listener, stopped).finally(end)
    return end
  }

  close(): void {
    for (const end of [...this.ends]) end()
  }

  private async follow(
    filter: Filter,
    after: string | null,
    listener: Listener,
    stopped: AbortController,
  ): Promise<void> {
    let cursor = after
    const slices = filter.types === undefined ? filter.slices : undefined
    const wanted = (event: FeedEvent) => slices === undefined || slices.includes(event.type.split('.')[0] ?? '')
    for (let attempt = 0; !stopped.signal.aborted; attempt++) {
      try {
        for await (const event of this.read(filter, cursor, stopped)) {
          if (event === null) {
            attempt = 0
            this.is(stopped, false)
            continue
          }
          cursor = event.id ?? cursor
          if (event.type === 'end') {
            listener.onEnd?.()
            return
          }
          if (event.type === 'reset') listener.onReset?.()
          else if (event.type !== 'resync') {
            const told = JSON.parse(event.data) as FeedEvent
            if (wanted(told)) listener.onEvents([told])
          }
        }
      } catch (error) {
        if (error instanceof Refused) {
          if (error.problem.status === 401) this.onSignedOut()
          else listener.onRefused?.(error.problem)
          return
        }
        if (error instanceof Over) {
          listener.onEnd?.()
          return
        }
        if (isOver(stopped)) return
        this.is(stopped, true)
      }
      await new Promise(resolve => setTimeout(resolve, pauseBefore(attempt)))
    }
  }

  /** The events of one request. Null: the answer has begun. Throws Refused, Over, and what `fetch` throws. */
  private async *read(
    filter: Filter,
    cursor: string | null,
    stopped: AbortController,
  ): AsyncGenerator<SentEvent | null> {
    const silent = new AbortController()
    const signal = AbortSignal.any([stopped.signal, silent.signal])
    let timer = setTimeout(() => silent.abort(), SILENCE_MS)
    try {
      const headers: Record<string, string> = { Accept: 'text/event-stream' }
      if (cursor !== null) headers['Last-Event-ID'] = cursor
      const response = await fetch(pathOf(this.server, filter), { headers, credentials: 'same-origin', signal })
      if (response.status === 204) throw new Over()
      if (!response.ok || response.body === null) {
        const problem = (await response.json().catch(() => null)) as ProblemBody | null
        if (problem !== null && response.status < 500 && response.status !== 429) throw new Refused(problem)
        throw new Error(`status ${response.status}`)
      }
      yield null
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
      let rest = ''
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return
        clearTimeout(timer)
        timer = setTimeout(() => silent.abort(), SILENCE_MS)
        const [events, remaining] = parseStream(rest + value)
        rest = remaining
        yield* events
      }
    } finally {
      clearTimeout(timer)
    }
  }

  private is(subscription: object, lost: boolean): void {
    if (lost) this.lost.add(subscription)
    else this.lost.delete(subscription)
    this.state.is(this.lost.size > 0 ? 'lost' : 'open')
  }
}

function isOver(stopped: AbortController): boolean {
  return stopped.signal.aborted
}

class Refused extends Error {
  constructor(readonly problem: ProblemBody) {
    super(problem.title)
  }
}

class Over extends Error {}
