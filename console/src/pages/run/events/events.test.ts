import { describe, expect, it } from 'vitest'

import type { EventRow } from '../../../api/types'
import { matcher, typesOf } from './filters'
import { phrase, toneOfType, whereOf } from './phrases'
import { PAGE, scan, type Scanned } from './scan'

function row(type: string, more: Partial<EventRow> = {}): EventRow {
  return { position: 7, type, time: '2026-11-30T14:29:47.618Z', stream: 's', version: 1, ...more }
}

describe('phrase', () => {
  it.each([
    [row('run.started'), 'the run starts'],
    [row('run.step_scheduled', { agent: 'critic' }), 'scheduled for critic'],
    [row('run.step_scheduled'), 'scheduled'],
    [row('agent_run.claimed', { attempt: 1 }), 'a worker begins'],
    [row('agent_run.claimed', { attempt: 3 }), 'a worker begins, attempt 3'],
    [row('agent_run.failed', { text: 'ToolError: no address' }), 'the agent failed: ToolError: no address'],
    [row('invocation.requested', { tool: 'shop.find' }), 'shop.find is asked for'],
    [row('message.sent', { text: 'a → b' }), 'a message: a → b'],
    [row('allowance.opened'), 'allowance opened'],
    [row('something.new_here', { text: '<b>' }), 'something new here: <b>'],
  ])('%#', (given, words) => {
    expect(phrase(given)).toBe(words)
  })
})

it('says where in the plan', () => {
  expect(whereOf(row('x', { step: 'review' }))).toBe('review')
  expect(whereOf(row('x', { step: 'review', part: 0, call: 'shop.find#1', tool: 'shop.find' }))).toBe(
    'review.0 · shop.find#1',
  )
  expect(whereOf(row('x', { tool: 'shop.find' }))).toBe('shop.find')
  expect(whereOf(row('x'))).toBe('')
})

it('colours what went wrong and what went well', () => {
  expect(['run.failed', 'invocation.became_ambiguous', 'agent_run.mail_refused'].map(toneOfType)).toEqual([
    'bad',
    'bad',
    'bad',
  ])
  expect(['run.completed', 'invocation.succeeded', 'run.step_completed'].map(toneOfType)).toEqual([
    'good',
    'good',
    'good',
  ])
  expect(['invocation.retry_scheduled', 'run.paused'].map(toneOfType)).toEqual(['warn', 'warn'])
  expect(toneOfType('run.started')).toBe('')
})

describe('filters', () => {
  const known = [
    'run.started',
    'run.failed',
    'agent_run.call_started',
    'agent_run.failed',
    'invocation.held',
    'run_key.taken',
  ]

  it('means types by groups, beginnings and names', () => {
    expect(typesOf([], known)).toBeNull()
    expect(typesOf(['run'], known)).toBe('run.failed,run.started')
    expect(typesOf(['calls'], known)).toBe('agent_run.call_started,invocation.held')
    expect(typesOf(['trouble', 'invocation.held'], known)).toBe('agent_run.failed,invocation.held,run.failed')
    expect(typesOf(['never.heard'], known)).toBeNull()
  })

  it('finds rows by step, part and words', () => {
    const given = row('agent_run.failed', { step: 'review', part: 2, text: 'ToolError: no Address' })
    expect(matcher({ step: 'review', find: '' })(given)).toBe(true)
    expect(matcher({ step: 'review.2', find: '' })(given)).toBe(true)
    expect(matcher({ step: 'review.1', find: '' })(given)).toBe(false)
    expect(matcher({ step: '', find: ' address  FAILED ' })(given)).toBe(true)
    expect(matcher({ step: '', find: 'address missing' })(given)).toBe(false)
    expect(matcher({ step: '', find: '7' })(given)).toBe(true)
    expect(matcher({ step: 'other', find: 'address' })(given)).toBe(false)
  })
})

describe('scan', () => {
  const read = (total: number) => (first: number, limit: number) =>
    Promise.resolve({
      data: Array.from({ length: Math.max(0, Math.min(limit, total - first)) }, (_, n) => first + n),
      total,
    })

  async function all(total: number, matches: (n: number) => boolean, from: Scanned<number> | null = null) {
    const found: Scanned<number>[] = []
    for await (const step of scan(read(total), matches, new AbortController().signal, from)) found.push(step)
    return found
  }

  it('looks at every row, page by page', async () => {
    const found = await all(2 * PAGE + 5, n => n % 1000 === 3)
    expect(found.map(step => step.looked)).toEqual([PAGE, 2 * PAGE, 2 * PAGE + 5])
    expect(found.at(-1)).toEqual({ rows: [3, 1003, 2003], looked: 2005, total: 2005, done: true, more: false })
  })

  it('goes on where it was', async () => {
    const before = (await all(1500, n => n % 700 === 0)).at(-1) ?? null
    const after = await all(2200, n => n % 700 === 0, before)
    expect(after.map(step => step.looked)).toEqual([2200])
    expect(after[0]?.rows).toEqual([0, 700, 1400, 2100])
  })

  it('stops when it has found too much, and when nobody waits', async () => {
    const found = (await all(50_000, () => true)).at(-1)
    expect([found?.rows.length, found?.more, found?.done, found?.looked]).toEqual([20_000, true, true, 21_000])
    const stop = new AbortController()
    const looking = scan(read(50_000), () => true, stop.signal)
    await looking.next()
    stop.abort()
    await expect(looking.next()).rejects.toThrow()
  })
})
