import { expect, test } from 'vitest'

import type { Run, RunWait, Step } from '../../api/types'
import { pointOf } from './actions/Fork'
import { followsEvents } from './data'
import { failedStep } from './FailureBox'
import { isStuck, isWait, whereOf } from './waits'
import { whyOf } from './why'

const step = (key: string, changes: Partial<Step>): Step =>
  ({
    key,
    after: [],
    form: 'agent',
    status: 'completed',
    scheduled_at: '2026-01-01T00:00:00Z',
    ...changes,
  }) as unknown as Step
const run = (...steps: Step[]): Run => ({ steps, error: null }) as unknown as Run
const why = (changes: object) => changes as Step['why']

test('why a step ran is said in a sentence', () => {
  const a = step('a', {})
  expect(whyOf(a, run(a))).toBe('Ran at once: no step comes before it.')
  const b = step('b', { after: ['a'] })
  expect(whyOf(b, run(a, b))).toBe('Ran after a (completed).')
  const c = step('c', { why: why({ condition: 'steps.a.result > 1', value: true, saw: { 'steps.a.result': 2 } }) })
  expect(whyOf(c, run(a, c))).toBe(
    'Ran, because its condition was true: steps.a.result > 1, as it saw steps.a.result = 2.',
  )
})

test('why a step did not run is said in a sentence', () => {
  const skipped = (reason: string, more: object = {}) => step('x', { status: 'skipped', why: why({ reason, ...more }) })
  expect(whyOf(skipped('condition', { condition: 'input.x', saw: {} }), run())).toContain(
    'its condition was false: input.x',
  )
  expect(whyOf(skipped('upstream'), run())).toContain('all steps before it were skipped')
  expect(whyOf(skipped('not_needed', { by: 'vote' }), run())).toContain('vote had enough results')
  expect(whyOf(skipped('person', { person: { by: 'key:1', reason: 'no need' } }), run())).toContain('key:1: no need')
  const pending = step('y', { status: 'pending', after: ['z'], scheduled_at: null })
  expect(whyOf(pending, run(step('z', { status: 'running' }), pending))).toBe(
    'Has not begun: it waits for z (running).',
  )
  expect(whyOf(step('y', { status: 'cancelled', scheduled_at: null }), run())).toContain('the run ended before')
})

test('the step that ended the run is the one whose failure the run has', () => {
  const error = { type: 'KeyError', message: 'x' } as Step['error']
  const other = step('early', {
    status: 'failed',
    error: { type: 'Other', message: '' } as Step['error'],
    finished_at: '1',
  })
  const told = { ...run(other, step('late', { status: 'failed', error, finished_at: '2' })), error }
  expect(failedStep(told)?.key).toBe('late')
  expect(failedStep({ ...told, error: null })?.key).toBe('early')
})

test('work that goes on is no wait, and what needs somebody is told apart', () => {
  const wait = (waits_for: RunWait['waits_for'], more: object = {}) =>
    ({ waits_for, step: 's', name: null, ...more }) as unknown as RunWait
  expect(isWait(wait('agent'))).toBe(false)
  expect(isWait(wait('clock'))).toBe(true)
  expect(isStuck(wait('clock'))).toBe(false)
  expect(isStuck(wait('worker'))).toBe(true)
  expect(whereOf(wait('tool', { name: 'mail.send' }))).toBe('s · mail.send')
})

test('a fork begins where its maker says', () => {
  expect(pointOf('fails', 7)).toBeNull()
  expect(pointOf('position', 7)).toEqual({ position: 7 })
  expect(pointOf('step a b', 7)).toEqual({ step: 'a b' })
  expect(pointOf('before review', 7)).toEqual({ before: 'review' })
})

test('an event does not read a list of many pages anew', () => {
  const query = (data: unknown) => ({ state: { data } }) as unknown as Parameters<typeof followsEvents>[0]
  expect(followsEvents(query({ run_id: 'r' }))).toBe(true)
  expect(followsEvents(query({ pages: [1, 2] }))).toBe(true)
  expect(followsEvents(query({ pages: [1, 2, 3] }))).toBe(false)
})
