import { expect, test } from 'vitest'

import type { Call, Run, Step } from '../../../api/types'
import { attempts, callRow, placeOf, rowsOf, type SpanEvent, ticks, waitsOf, wholeOf, zoomed } from './spans'

const T0 = Date.parse('2026-01-01T00:00:00.000Z')
const at = (ms: number) => new Date(T0 + ms).toISOString()
const event = (type: string, ms: number, data: object = {}, subject = 'agent'): SpanEvent => ({
  type,
  time: at(ms),
  data,
  subject,
})
const looks = (stretches: readonly { from: number; to: number | null; look: string }[]) =>
  stretches.map(each => [each.from - T0, each.to === null ? null : each.to - T0, each.look])

const step = (key: string, changes: Partial<Step>): Step =>
  ({ key, after: [], form: 'agent', status: 'completed', calls: [], call_count: 0, ...changes }) as unknown as Step
const run = (steps: Step[], changes: Partial<Run> = {}): Run =>
  ({
    run_id: 'run',
    status: 'completed',
    created_at: at(0),
    finished_at: at(9000),
    steps,
    ...changes,
  }) as unknown as Run
const call = (id: string, of: string, from: number, to: number | null, changes: Partial<Call> = {}): Call =>
  ({
    invocation_id: id,
    key: id,
    tool: 't',
    step: of,
    status: 'succeeded',
    error: null,
    started_at: at(from),
    finished_at: to === null ? null : at(to),
    ...changes,
  }) as unknown as Call

test('attempts that failed are red, and the delay before the next one is quiet', () => {
  const events = [
    event('agent_run.claimed', 10, { attempt: 1 }),
    event('agent_run.retry_scheduled', 100, { delay_s: 0.5, error: { type: 'KeyError', message: 'x' } }),
    event('agent_run.claimed', 620, { attempt: 2 }),
    event('agent_run.completed', 900),
  ]
  const found = attempts(events, T0 + 900, 'good')
  expect(looks(found)).toEqual([
    [10, 100, 'bad'],
    [100, 600, 'quiet'],
    [620, 900, 'good'],
  ])
  expect(found[0]?.what).toBe('attempt 1 failed: KeyError: x')
})

test('an attempt that was taken from its worker ends where the next one begins', () => {
  const events = [event('agent_run.claimed', 0, { attempt: 1 }), event('agent_run.claimed', 50, { attempt: 2 })]
  expect(looks(attempts(events, null, 'busy'))).toEqual([
    [0, 50, 'warn'],
    [50, null, 'busy'],
  ])
})

test('waits have their begin and their end, and one that is open goes on', () => {
  const events = [
    event('agent_run.wait_started', 10, { key: 'sleep#1', kind: 'sleep' }),
    event('agent_run.wait_started', 20, { key: 'signal:go#1', kind: 'signal', name: 'go' }),
    event('agent_run.wait_finished', 30, { key: 'sleep#1' }),
  ]
  const rows = waitsOf(events, 'ship', 2, null)
  expect(rows.map(row => [row.label, row.status, looks(row.stretches)[0]])).toEqual([
    ['sleep#1', 'over', [10, 30, 'warn']],
    ['signal:go#1', 'waiting', [20, null, 'warn']],
  ])
  expect(rows[1]?.stretches[0]?.what).toBe('waits for signal go')
})

test('a call shows its tries, and that it was held', () => {
  const events = [
    event('invocation.held', 0),
    event('invocation.released', 40),
    event('invocation.retry_scheduled', 60, { delay_s: 0.1, error: { type: 'Away', message: '' } }),
  ]
  expect(looks(callRow(call('c', 'a', 0, 300), events).stretches)).toEqual([
    [0, 40, 'warn'],
    [40, 60, 'bad'],
    [60, 160, 'quiet'],
    [160, 300, 'good'],
  ])
  expect(
    callRow(call('c', 'a', 0, null, { status: 'held' }), [event('invocation.held', 0)]).stretches.at(-1)?.look,
  ).toBe('warn')
})

test('rows stand in the order of their begin, and those of a closed step are left out', () => {
  const told = {
    run: run([
      step('late', { scheduled_at: at(500), finished_at: at(900) }),
      step('first', { scheduled_at: at(0), started_at: at(5), finished_at: at(400), call_count: 3 }),
      step('never', { status: 'pending' }),
    ]),
    calls: [call('one', 'first', 20, 30), call('two', 'first', 40, 50)],
    events: [],
  }
  expect(rowsOf({ ...told, open: () => false }).map(row => row.label)).toEqual(['run', 'first', 'late'])
  const open = rowsOf({ ...told, open: key => key === 'first' })
  expect(open.map(row => row.label)).toEqual(['run', 'first', 'one', 'two', '1 more calls', 'late'])
  expect(open[4]?.missing).toBe(1)
})

test('effects that are taken back are rows of their own', () => {
  const events = [
    event('compensation.effect_started', 10, { number: 2 }, 'c'),
    event('compensation.effect_compensated', 30, { number: 2 }, 'c'),
    event('compensation.effect_started', 30, { number: 1 }, 'c'),
    event('compensation.effect_not_compensated', 50, { number: 1, error: { type: 'Down', message: 'x' } }, 'c'),
  ]
  const rows = rowsOf({ run: run([]), calls: [], events, open: () => true }).slice(1)
  expect(rows.map(row => [row.label, row.status, looks(row.stretches)])).toEqual([
    ['take back effect 2', 'completed', [[10, 30, 'good']]],
    ['take back effect 1', 'failed', [[30, 50, 'bad']]],
  ])
})

test('pauses lie over the run', () => {
  const events = [event('run.paused', 100, {}, 'run'), event('run.resumed', 300, {}, 'run')]
  expect(looks(rowsOf({ run: run([]), calls: [], events, open: () => true })[0]?.stretches ?? [])).toEqual([
    [0, 9000, 'good'],
    [100, 300, 'warn'],
  ])
})

test('what goes on is shown until now', () => {
  const rows = rowsOf({
    run: run([], { finished_at: null, status: 'running' }),
    calls: [],
    events: [],
    open: () => true,
  })
  expect(wholeOf(rows, T0 + 5000)).toEqual({ from: T0, to: T0 + 5000 })
})

test('a stretch is cut to what is shown', () => {
  const shown = { from: T0 + 100, to: T0 + 200 }
  const stretch = (from: number, to: number | null) => ({
    from: T0 + from,
    to: to === null ? null : T0 + to,
    look: 'good' as const,
    what: '',
  })
  expect(placeOf(stretch(0, 150), shown, T0)).toEqual({ left: 0, width: 50 })
  expect(placeOf(stretch(150, null), shown, T0 + 900)).toEqual({ left: 50, width: 50 })
  expect(placeOf(stretch(0, 50), shown, T0)).toBeNull()
  expect(placeOf(stretch(250, 300), shown, T0)).toBeNull()
})

test('zooming stays inside the whole time', () => {
  const whole = { from: 0, to: 1000 }
  const half = zoomed(whole, whole, 0.5)
  expect(half).toEqual({ from: 250, to: 750 })
  expect(zoomed(half, whole, 1, -0.5)).toEqual({ from: 0, to: 500 })
  expect(zoomed(half, whole, 1, 5)).toEqual({ from: 500, to: 1000 })
  expect(zoomed(half, whole, 8)).toEqual(whole)
})

test('ticks are round times since the beginning', () => {
  expect(ticks({ from: 1000, to: 7000 }, 1000)).toEqual([1000, 2000, 3000, 4000, 5000, 6000, 7000])
  expect(ticks({ from: 4500, to: 5500 }, 1000).every(tick => (tick - 1000) % 200 === 0)).toBe(true)
  expect(ticks({ from: 0, to: 40 * 864e5 }, 0).length).toBeLessThan(9)
})
