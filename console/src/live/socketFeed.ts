/** A feed over `/v1/ws` (docs/reference/streams.md): all subscriptions on one socket, which comes back by itself. */
import type { ProblemBody } from '../api/problem'
import { type Feed, type FeedEvent, type Filter, type Link, LinkState, type Listener, pauseBefore } from './feed'

export const PROTOCOL = 'tidelog.events.v1'
/** Milliseconds without any message after which the server counts as gone: it says something every 20 s. */
const SILENCE_MS = 50_000
/** Milliseconds for which a socket without subscriptions is kept, for the next page. */
const KEPT_MS = 10_000
/** Attempts without a single success after which sockets count as impossible here (a proxy that knows none). */
const ATTEMPTS = 3

type Message =
  | { type: 'welcome' | 'heartbeat' | 'pong' }
  | { type: 'subscribed' | 'live'; id: string; cursor: string }
  | { type: 'unsubscribed'; id: string; cursor: string | null }
  | { type: 'events'; id: string; cursor: string; events: FeedEvent[] }
  | { type: 'end' | 'resync' | 'reset'; id: string; cursor: string }
  | { type: 'error'; id?: string | null; ended?: boolean | null; cursor?: string | null; problem: ProblemBody }
  | { type: 'reconnect'; after_ms: number }

interface Subscription {
  readonly id: string
  readonly filter: Filter
  readonly listener: Listener
  cursor: string | null
}

export interface Surroundings {
  /** Opens a socket. */
  readonly open: (protocol: string) => WebSocket
  /** Asked after a failed attempt: is anybody signed in? Then attempts go on. */
  readonly signedIn: () => Promise<boolean>
  readonly onSignedOut: () => void
  /** No socket could be opened, ever. */
  readonly onImpossible: () => void
}

export class SocketFeed implements Feed {
  private readonly state = new LinkState()
  private readonly subscriptions = new Map<string, Subscription>()
  private socket: WebSocket | null = null
  private open = false
  private opened = false
  private attempt = 0
  private number = 0
  private retry: ReturnType<typeof setTimeout> | undefined
  private silence: ReturnType<typeof setTimeout> | undefined
  private idle: ReturnType<typeof setTimeout> | undefined
  private closed = false

  constructor(private readonly around: Surroundings) {}

  get link(): Link {
    return this.state.link
  }

  watch(onLink: (link: Link) => void): () => void {
    return this.state.watch(onLink)
  }

  subscribe(filter: Filter, after: string | null, listener: Listener): () => void {
    const subscription: Subscription = { id: String(++this.number), filter, listener, cursor: after }
    this.subscriptions.set(subscription.id, subscription)
    clearTimeout(this.idle)
    if (this.open) this.ask(subscription)
    else if (this.socket === null && this.retry === undefined) this.connect()
    return () => {
      if (!this.subscriptions.delete(subscription.id)) return
      if (this.open) this.say({ type: 'unsubscribe', id: subscription.id })
      if (this.subscriptions.size === 0) this.idle = setTimeout(() => this.rest(), KEPT_MS)
    }
  }

  /** Ends everything: the feed is not used any more. */
  close(): void {
    this.closed = true
    this.subscriptions.clear()
    this.rest()
  }

  private rest(): void {
    clearTimeout(this.retry)
    clearTimeout(this.silence)
    clearTimeout(this.idle)
    this.retry = undefined
    const socket = this.socket
    this.socket = null
    this.open = false
    socket?.close(1000)
  }

  private connect(): void {
    this.retry = undefined
    const socket = this.around.open(PROTOCOL)
    this.socket = socket
    this.listen()
    socket.onmessage = (message: MessageEvent<string>) => {
      if (this.socket === socket) this.take(JSON.parse(message.data) as Message)
    }
    socket.onclose = () => {
      if (this.socket === socket) this.lose()
    }
  }

  private listen(): void {
    clearTimeout(this.silence)
    this.silence = setTimeout(() => {
      const socket = this.socket
      this.lose()
      socket?.close()
    }, SILENCE_MS)
  }

  private lose(pauseMs?: number): void {
    clearTimeout(this.silence)
    this.socket = null
    this.open = false
    if (this.closed || this.subscriptions.size === 0) return
    this.state.is('lost')
    const attempt = this.attempt++
    if (!this.opened && attempt + 1 >= ATTEMPTS) {
      void this.judge()
      return
    }
    this.retry = setTimeout(() => this.connect(), pauseMs ?? pauseBefore(attempt))
    if (attempt === 1) void this.checkSession()
  }

  /** A refused socket does not say why. The session does. */
  private async checkSession(): Promise<void> {
    if (!(await this.around.signedIn().catch(() => true))) this.around.onSignedOut()
  }

  private async judge(): Promise<void> {
    const answer = await this.around.signedIn().then(
      signedIn => (signedIn ? 'in' : 'out'),
      () => 'away' as const,
    )
    if (this.closed) return
    if (answer === 'out') this.around.onSignedOut()
    else if (answer === 'in') this.around.onImpossible()
    else this.retry = setTimeout(() => this.connect(), pauseBefore(this.attempt))
  }

  private ask(subscription: Subscription): void {
    const { types, slices, runId, actor, onBehalfOf } = subscription.filter
    const filter = { types, slices, run_id: runId, actor, on_behalf_of: onBehalfOf }
    this.say({ type: 'subscribe', id: subscription.id, filter, after: subscription.cursor })
  }

  private say(message: object): void {
    this.socket?.send(JSON.stringify(message))
  }

  private take(message: Message): void {
    this.listen()
    switch (message.type) {
      case 'welcome':
        this.open = this.opened = true
        this.attempt = 0
        this.state.is('open')
        for (const subscription of this.subscriptions.values()) this.ask(subscription)
        return
      case 'reconnect': {
        const socket = this.socket
        this.lose(message.after_ms)
        socket?.close(1000)
        return
      }
      case 'heartbeat':
      case 'pong':
      case 'unsubscribed':
        return
      case 'error':
        this.refused(message.id ?? null, message.ended ?? false, message.cursor ?? null, message.problem)
        return
    }
    const subscription = this.subscriptions.get(message.id)
    if (subscription === undefined) return
    subscription.cursor = message.cursor
    switch (message.type) {
      case 'events':
        subscription.listener.onEvents(message.events)
        return
      case 'resync': // nothing was lost: it goes on where it stopped
        this.ask(subscription)
        return
      case 'reset':
        subscription.listener.onReset?.()
        this.ask(subscription)
        return
      case 'end':
        this.subscriptions.delete(subscription.id)
        subscription.listener.onEnd?.()
        return
      case 'subscribed':
      case 'live':
        return
    }
  }

  private refused(id: string | null, ended: boolean, cursor: string | null, problem: ProblemBody): void {
    const subscription = id === null ? undefined : this.subscriptions.get(id)
    if (subscription === undefined) {
      if (problem.status === 401) this.around.onSignedOut()
      return
    }
    if (!ended) return
    if (problem.retryable) {
      subscription.cursor = cursor ?? subscription.cursor
      setTimeout(() => {
        if (this.open && this.subscriptions.get(subscription.id) === subscription) this.ask(subscription)
      }, pauseBefore(2))
      return
    }
    this.subscriptions.delete(subscription.id)
    subscription.listener.onRefused?.(problem)
  }
}
