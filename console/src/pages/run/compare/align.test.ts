import { expect, it } from 'vitest'

import type { Run, Step } from '../../../api/types'
import { aligned, alignedRuns } from './align'

it('aligns by keys, in the order of the first, with what only the other has where it stands there', () => {
  const rows = aligned(['a', 'b', 'c'], ['x', 'a', 'y', 'z', 'c', 'w'], key => key)
  expect(rows.map(row => `${row.one ?? '-'}${row.other ?? '-'}`)).toEqual(['-x', 'aa', '-y', '-z', 'b-', 'cc', '-w'])
})

type Call = Step['calls'][number]

function call(key: string, more: Partial<Call> = {}): Call {
  const empty = {
    large: null,
    invocation_id: key,
    worker_id: null,
    error: null,
    cancel_requested: false,
    fallback: null,
    effect: null,
  }
  const times = { started_at: '2026-11-30T14:00:00Z', finished_at: null, part: null, resolution: null }
  return { ...empty, ...times, key, tool: 'shop.find', status: 'succeeded', attempts: 1, ...more }
}

function step(key: string, more: Partial<Step> = {}): Step {
  return {
    key,
    agent: 'critic',
    agent_version: '1',
    form: 'agent',
    status: 'completed',
    attempt: 1,
    result: 'good',
    error: null,
    large: null,
    started_at: null,
    finished_at: null,
    calls: [],
    ...more,
  } as unknown as Step
}

function run(...steps: Step[]): Run {
  return { steps, call_count: steps.reduce((sum, each) => sum + each.calls.length, 0) } as unknown as Run
}

it('says what differs between steps and calls', () => {
  const error = { type: 'ToolError', message: 'no address' } as Step['error']
  const rows = alignedRuns(
    run(step('find', { calls: [call('a'), call('b')] }), step('review')),
    run(
      step('find', { calls: [call('a', { attempts: 2 })] }),
      step('review', { status: 'failed', error }),
      step('more'),
    ),
  )
  expect(rows.map(row => [row.id, row.differs])).toEqual([
    ['find', []],
    ['find a', ['attempts']],
    ['find b', ['only on this side']],
    ['review', ['status', 'outcome']],
    ['more', ['only on the other side']],
  ])
  expect(rows[3]?.other?.said).toBe('ToolError: no address')
})

it('does not call a call missing that a run of many calls does not show', () => {
  const many = { ...run(step('find', { calls: [call('z')] })), call_count: 500 }
  expect(
    alignedRuns(many, run(step('find', { calls: [call('a'), call('z', { tool: 'other' })] }))).map(row => [
      row.id,
      row.differs,
    ]),
  ).toEqual([
    ['find', []],
    ['find z', ['who']],
  ])
})

it('compares results by a short text, and large ones by their size', () => {
  const large = (bytes: number) => step('a', { result: null, large: { result: { ref: '/x', bytes } } })
  expect(alignedRuns(run(large(20_000)), run(large(20_001)))[0]?.differs).toEqual(['outcome'])
  expect(alignedRuns(run(large(20_000)), run(large(20_000)))[0]?.differs).toEqual([])
  expect(alignedRuns(run(step('a', { result: { n: 1 } })), run(step('a', { result: { n: 2 } })))[0]?.differs).toEqual([
    'outcome',
  ])
})
