import { afterEach, beforeEach, expect, it, vi } from 'vitest'

import type { FeedEvent, Listener } from './feed'
import { type Surroundings, SocketFeed } from './socketFeed'

/** The browser's end of a socket, played by hand. */
class Socket {
  readonly said: Record<string, unknown>[] = []
  onmessage: ((message: { data: string }) => void) | null = null
  onclose: (() => void) | null = null
  closed = false

  send(text: string) {
    this.said.push(JSON.parse(text) as Record<string, unknown>)
  }
  close() {
    this.closed = true
  }
  tell(message: object) {
    this.onmessage?.({ data: JSON.stringify(message) })
  }
}

let sockets: Socket[]
let signedIn: boolean
const onSignedOut = vi.fn()
const onImpossible = vi.fn()

function feed(): SocketFeed {
  const around: Surroundings = {
    open: () => {
      const socket = new Socket()
      sockets.push(socket)
      return socket as unknown as WebSocket
    },
    signedIn: () => Promise.resolve(signedIn),
    onSignedOut,
    onImpossible,
  }
  return new SocketFeed(around)
}

function listener() {
  const seen: string[] = []
  const told: Listener = {
    onEvents: (events: readonly FeedEvent[]) => seen.push(...events.map(event => event.id)),
    onReset: () => seen.push('reset'),
    onEnd: () => seen.push('end'),
    onRefused: problem => seen.push(problem.code),
  }
  return { seen, ...told, onEvents: told.onEvents }
}

function last(): Socket {
  const socket = sockets.at(-1)
  if (socket === undefined) throw new Error('no socket was opened')
  return socket
}

beforeEach(() => {
  vi.useFakeTimers()
  sockets = []
  signedIn = true
  vi.clearAllMocks()
})
afterEach(() => {
  vi.useRealTimers()
})

it('asks for all subscriptions on one socket', () => {
  const live = feed()
  live.subscribe({ types: ['run.started'] }, null, listener())
  live.subscribe({ runId: 'r' }, '17', listener())
  expect(sockets).toHaveLength(1)
  last().tell({ type: 'welcome' })
  expect(last().said).toEqual([
    { type: 'subscribe', id: '1', filter: { types: ['run.started'] }, after: null },
    { type: 'subscribe', id: '2', filter: { run_id: 'r' }, after: '17' },
  ])
  expect(live.link).toBe('open')
})

it('goes on after the last event on a new socket', () => {
  const live = feed()
  const heard = listener()
  live.subscribe({}, null, heard)
  last().tell({ type: 'welcome' })
  last().tell({ type: 'subscribed', id: '1', cursor: '4-a' })
  last().tell({ type: 'events', id: '1', cursor: '6-a', events: [{ id: 'e5' }, { id: 'e6' }] })
  last().onclose?.()
  expect(live.link).toBe('lost')
  vi.advanceTimersByTime(1_000)
  expect(sockets).toHaveLength(2)
  last().tell({ type: 'welcome' })
  expect(last().said).toEqual([{ type: 'subscribe', id: '1', filter: {}, after: '6-a' }])
  expect(heard.seen).toEqual(['e5', 'e6'])
  expect(live.link).toBe('open')
})

it('hears nothing of a socket that it has given up', () => {
  const live = feed()
  const heard = listener()
  live.subscribe({}, null, heard)
  const old = last()
  old.tell({ type: 'welcome' })
  vi.advanceTimersByTime(50_000)
  expect(old.closed).toBe(true)
  old.tell({ type: 'events', id: '1', cursor: '6-a', events: [{ id: 'late' }] })
  expect(heard.seen).toEqual([])
  expect(live.link).toBe('lost')
})

it('goes on where it stopped after a resync, and tells of a reset', () => {
  const live = feed()
  const heard = listener()
  live.subscribe({}, null, heard)
  last().tell({ type: 'welcome' })
  last().tell({ type: 'resync', id: '1', cursor: '9-a' })
  last().tell({ type: 'reset', id: '1', cursor: '3-b' })
  expect(last().said.slice(1)).toEqual([
    { type: 'subscribe', id: '1', filter: {}, after: '9-a' },
    { type: 'subscribe', id: '1', filter: {}, after: '3-b' },
  ])
  expect(heard.seen).toEqual(['reset'])
})

it('comes back when the server says so', () => {
  const live = feed()
  live.subscribe({}, null, listener())
  last().tell({ type: 'welcome' })
  last().tell({ type: 'reconnect', after_ms: 1_500 })
  vi.advanceTimersByTime(1_400)
  expect(sockets).toHaveLength(1)
  vi.advanceTimersByTime(200)
  expect(sockets).toHaveLength(2)
})

it('tells what was refused, and asks again for what may succeed later', () => {
  const live = feed()
  const [wrong, busy] = [listener(), listener()]
  live.subscribe({ runId: 'none' }, null, wrong)
  live.subscribe({}, null, busy)
  last().tell({ type: 'welcome' })
  last().tell({ type: 'error', id: '1', ended: true, problem: { code: 'not-found', status: 404, retryable: false } })
  last().tell({
    type: 'error',
    id: '2',
    ended: true,
    cursor: '7',
    problem: { code: 'unavailable', status: 503, retryable: true },
  })
  expect(wrong.seen).toEqual(['not-found'])
  expect(busy.seen).toEqual([])
  vi.advanceTimersByTime(5_000)
  expect(last().said.at(-1)).toEqual({ type: 'subscribe', id: '2', filter: {}, after: '7' })
})

it('gives sockets up where none was ever open and somebody is signed in', async () => {
  feed().subscribe({}, null, listener())
  for (let attempt = 0; attempt < 3; attempt++) {
    last().onclose?.()
    await vi.advanceTimersByTimeAsync(10_000)
  }
  expect(onImpossible).toHaveBeenCalledTimes(1)
  expect(onSignedOut).not.toHaveBeenCalled()
})

it('tells that nobody is signed in any more', async () => {
  const live = feed()
  live.subscribe({}, null, listener())
  last().tell({ type: 'welcome' })
  last().tell({ type: 'error', problem: { code: 'unauthenticated', status: 401, retryable: false } })
  expect(onSignedOut).toHaveBeenCalledTimes(1)
  signedIn = false
  last().onclose?.()
  await vi.advanceTimersByTimeAsync(2_000)
  last().onclose?.()
  await vi.advanceTimersByTimeAsync(0)
  expect(onSignedOut).toHaveBeenCalledTimes(2)
})

it('keeps a socket for the next page, and not for longer', () => {
  const live = feed()
  const end = live.subscribe({}, null, listener())
  last().tell({ type: 'welcome' })
  end()
  expect(last().said.at(-1)).toEqual({ type: 'unsubscribe', id: '1' })
  const next = live.subscribe({ runId: 'r' }, null, listener())
  expect(sockets).toHaveLength(1)
  next()
  vi.advanceTimersByTime(11_000)
  expect(last().closed).toBe(true)
})
