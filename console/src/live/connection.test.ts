import { expect, it } from 'vitest'

import { Tab } from './connection'
import type { Feed, FeedEvent, Listener } from './feed'
import { MOST_ON_WAY, type ToTab } from './shared'
import { parseStream } from './streamFeed'

const event = (id: string) => ({ id }) as FeedEvent

function asked() {
  const listeners: Listener[] = []
  const ended: number[] = []
  const feed: Feed = {
    link: 'open',
    watch: () => () => undefined,
    subscribe: (_filter, _after, listener) => {
      const number = listeners.push(listener)
      return () => ended.push(number)
    },
  }
  const said: ToTab[] = []
  const tab = new Tab(feed, message => said.push(message))
  tab.take({ do: 'subscribe', id: 'a', filter: {}, after: null })
  const [listener] = listeners
  if (listener === undefined) throw new Error('nothing was subscribed')
  return { tab, said, listener, ended }
}

it('gives a tab its events', () => {
  const { said, listener } = asked()
  listener.onEvents([event('1')])
  expect(said).toEqual([
    { is: 'link', link: 'open' },
    { is: 'events', id: 'a', events: [event('1')] },
  ])
})

it('keeps nothing for a tab that sleeps, and tells it when it wakes up', () => {
  const { tab, said, listener } = asked()
  listener.onEvents(Array.from({ length: MOST_ON_WAY }, (_, at) => event(String(at))))
  listener.onEvents([event('too many')])
  listener.onEvents([event('after it')])
  expect(said).toHaveLength(2)
  tab.take({ do: 'done', id: 'a', count: MOST_ON_WAY })
  expect(said.at(-1)).toEqual({ is: 'reset', id: 'a' })
  listener.onEvents([event('again')])
  expect(said.at(-1)).toEqual({ is: 'events', id: 'a', events: [event('again')] })
})

it('ends what a closed tab had asked for', () => {
  const { tab, ended } = asked()
  tab.close()
  expect(ended).toEqual([1])
})

it('reads server-sent events in any pieces', () => {
  const text = 'retry: 1000\n\n: heartbeat\n\nid: 5-a\nevent: run.started\ndata: {"x":1}\n\nid: 6-a\nevent: run'
  const [events, rest] = parseStream(text)
  expect(events).toEqual([{ id: '5-a', type: 'run.started', data: '{"x":1}' }])
  const [later] = parseStream(`${rest}.completed\ndata: {}\n\n`)
  expect(later).toEqual([{ id: '6-a', type: 'run.completed', data: '{}' }])
})
