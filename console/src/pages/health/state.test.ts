import { expect, it } from 'vitest'

import { type Build, isUnderWay, type Readiness } from './data'
import { bytes, consumersOf, standOf, unitsOf } from './state'

const at = (position: number, lag: number) => ({ position, lag })

it('tells what follows the log and is no read model, the last one first', () => {
  const report = {
    head: 100,
    consumers: { runs: at(100, 0), 'sagas:0': at(90, 10), 'sagas:1': at(95, 5), 'trigger-matcher': at(100, 0) },
    streams: { relay: at(80, 20) },
    parked: { 'sagas:1': 2, runs: 1, 'due-timers': 3 },
  } as unknown as Readiness
  expect(consumersOf(report, new Set(['runs'])).map(one => [one.name, one.lag, one.parked])).toEqual([
    ['copy for relay', 20, 0],
    ['sagas (2 partitions)', 10, 2],
    ['due-timers', 0, 3],
    ['trigger-matcher', 0, 0],
  ])
  expect(consumersOf({ consumers: {} } as unknown as Readiness, new Set())).toEqual([])
})

it('says how far something is', () => {
  expect([standOf(0, 0).text, standOf(5, 0).tone, standOf(5_000, 0)]).toEqual([
    'up to date',
    'good',
    { text: '5,000 behind', tone: 'warn' },
  ])
  expect(standOf(0, 2)).toEqual({ text: '2 parked', tone: 'bad' })
})

it('groups what a process does', () => {
  expect(unitsOf(['projection:runs', 'upkeep', 'projection:tools', 'sagas:0'])).toEqual([
    ['alone', ['upkeep']],
    ['projection', ['runs', 'tools']],
    ['sagas', ['0']],
  ])
})

it.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1536, '1.5 KiB'],
  [250 * 1024 ** 3, '250 GiB'],
])('%d bytes are %s', (count, text) => {
  expect(bytes(count)).toBe(text)
})

it('knows which jobs go on by themselves', () => {
  const job = (status: string) => ({ status }) as unknown as Build
  expect(['requested', 'building', 'comparing', 'ready', 'failed'].map(status => isUnderWay(job(status)))).toEqual([
    true,
    true,
    true,
    false,
    false,
  ])
  expect(isUnderWay(null)).toBe(false)
})
