import { expect, it } from 'vitest'

import { callsOf } from './calls'
import { limitsOf, policyOf } from './policy'

it('says the limits of a tool', () => {
  expect(limitsOf({ max_parallel: 3, rate: { calls: 10, per_s: 60 } })).toEqual(['at most 3 at once', '10 in 60 s'])
  expect(limitsOf({ rate: { calls: 5 } })).toEqual(['5 in 1 s'])
  expect([limitsOf(null), limitsOf('x'), limitsOf({ max_parallel: 'x', rate: 5 })]).toEqual([[], [], []])
})

it('says the whole policy', () => {
  expect(
    policyOf({
      max_parallel: 3,
      breaker: { failures: 5, rate: 0.5, calls: 20, window_s: 30, open_s: 30 },
      fallbacks: ['a', 'b'],
      compensation: { tool: 'undo' },
      cache_s: 60,
      approval: 'arguments.sum > 5',
      max_cost: { money: '0.5', tokens: 100 },
    }),
  ).toEqual([
    ['Limits', 'at most 3 at once'],
    [
      'Breaker',
      'opens after 5 failures in a row, or when 50 % failed of at least 20 calls within 30 s; tries again after 30 s',
    ],
    ['Instead of it', 'a, b'],
    ['Taken back by', 'undo'],
    ['Results answer for', '60 s'],
    ['Approval', 'a call waits for a person if arguments.sum > 5'],
    ['Costs at most', '0.5 of money, 100 tokens'],
  ])
  expect(policyOf(null)).toEqual([])
})

it('makes calls of their events', () => {
  const event = (position: number, type: string, subject: string, data: object) => ({
    position,
    type,
    subject,
    time: `t${position}`,
    rootid: `run of ${subject}`,
    data,
  })
  const newestFirst = [
    event(9, 'invocation.failed', 'b', { error: { type: 'E', message: 'no' } }),
    event(8, 'invocation.succeeded', 'x', {}),
    event(7, 'invocation.requested', 'b', { tool: 'mail', key: 'k' }),
    event(6, 'invocation.requested', 'a', { tool: 'other' }),
    event(5, 'invocation.requested', 'c', { tool: 'mail' }),
  ]
  expect(callsOf(newestFirst, 'mail')).toEqual([
    { id: 'b', run: 'run of b', asked: 't7', ended: 't9', status: 'failed', error: 'E: no', position: 7 },
    { id: 'c', run: 'run of c', asked: 't5', ended: null, status: 'running', error: '', position: 5 },
  ])
})
