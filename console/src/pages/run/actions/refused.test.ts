import { expect, test } from 'vitest'

import type { Run, Step } from '../../../api/types'
import { refusal, type RunAct, stepRefusal, type Who } from './refused'

const NOW: Who = { role: 'owner', at: null }
const run = (changes: Partial<Run>): Run => ({ run_id: 'r', status: 'running', steps: [], ...changes }) as Run
const possible = (of: Run, who = NOW) =>
  (
    [
      'pause',
      'resume',
      'cancel',
      'signal',
      'retry',
      'fork',
      'priority',
      'deadline',
      'compensate',
      'compensation',
    ] as RunAct[]
  ).filter(act => refusal(act, of, who) === undefined)

test('what can be done to a run depends on its status', () => {
  expect(possible(run({}))).toEqual(['pause', 'cancel', 'signal', 'fork', 'priority', 'deadline'])
  expect(possible(run({ status: 'paused' }))).toEqual(['resume', 'cancel', 'signal', 'fork', 'priority', 'deadline'])
  expect(possible(run({ status: 'failed' }))).toEqual(['retry', 'fork', 'compensate'])
  expect(possible(run({ status: 'completed' }))).toEqual(['fork', 'compensate'])
  expect(possible(run({ status: 'completed', degraded: true }))).toEqual(['retry', 'fork', 'compensate'])
  expect(possible(run({ status: 'failed', compensation: { status: 'partial' } as Run['compensation'] }))).toEqual([
    'fork',
    'compensation',
  ])
})

test('in the past only a fork begins', () => {
  expect(possible(run({}), { role: 'owner', at: '42' })).toEqual(['fork'])
})

test('an auditor changes nothing, and is told who may', () => {
  expect(possible(run({}), { role: 'auditor', at: null })).toEqual([])
  expect(refusal('compensate', run({ status: 'failed' }), { role: 'developer', at: null })).toContain(
    'owner, admin, operator',
  )
})

test('a child run is retried by its parent', () => {
  const child = run({ status: 'failed', parent: { run_id: 'p', step: 'sub' } as NonNullable<Run['parent']> })
  expect(refusal('retry', child, NOW)).toContain('child run')
})

test('a failed step of a run that goes on can be tried again', () => {
  const step = { key: 'a', status: 'failed' } as Step
  expect(refusal('retry', run({ steps: [step] }), NOW)).toBeUndefined()
  expect(stepRefusal('retry', run({ steps: [step] }), step, NOW)).toBeUndefined()
  expect(stepRefusal('skip', run({ steps: [step] }), step, NOW)).toContain('failed')
})

test('a step that has not begun can be skipped, but not dispatched', () => {
  const step = { key: 'a', status: 'pending' } as Step
  expect(stepRefusal('skip', run({ steps: [step] }), step, NOW)).toBeUndefined()
  expect(stepRefusal('dispatch', run({ steps: [step] }), step, NOW)).toContain('under way')
})
