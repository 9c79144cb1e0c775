import { describe, expect, it } from 'vitest'

import { filterOf, suggestionsOf, typesOf, unknownOf, withFilter } from './filter'
import { rowOf, runOf, textOf, toneOfType } from './rows'

const KNOWN = ['run.started', 'run.failed', 'run_key.taken', 'tool.registered']

describe('the filter of the feed', () => {
  it('stands in the address', () => {
    const filter = filterOf(new URLSearchParams('type=run.*,tool.registered,,run.*&actor=key:1'))
    expect(filter).toEqual({ types: ['run.*', 'tool.registered'], run: '', actor: 'key:1', behalf: '' })
    const params = withFilter(new URLSearchParams('type=run.*&event=5'), { types: [], run: 'x' })
    expect(params.toString()).toBe('event=5&run=x')
    expect(filterOf(withFilter(params, { behalf: 'user:a&b' })).behalf).toBe('user:a&b')
  })

  it('takes slices for their types', () => {
    expect(typesOf([], KNOWN)).toBeUndefined()
    expect(typesOf(['run.*'], KNOWN)).toEqual(['run.failed', 'run.started'])
    expect(typesOf(['tool.registered', 'run.started'], KNOWN)).toEqual(['run.started', 'tool.registered'])
    expect(typesOf(['nothing.*'], KNOWN)).toEqual([])
    expect(unknownOf(['run.*', 'run.starte', 'x.*'], KNOWN)).toEqual(['run.starte', 'x.*'])
    expect(suggestionsOf(KNOWN).slice(0, 4)).toEqual(['run.*', 'run_key.*', 'tool.*', 'run.failed'])
  })
})

describe('a row', () => {
  it('says what the event says', () => {
    expect(
      textOf({ step: 'review', agent: 'critic', attempt: 2, error: { type: 'ValueError', message: 'no\n such' } }),
    ).toBe('review · critic · attempt 2 · ValueError: no such')
    expect(textOf({ name: 'a', key: 'a' })).toBe('a')
    expect(textOf({ plan: { steps: [{ agent: 'a' }, { agent: 'b' }, { agent: 'a' }, null] } })).toBe('a, b')
    expect([textOf(null), textOf('x'), textOf({ step: { x: 1 } })]).toEqual(['', '', ''])
    expect(textOf({ reason: 'x'.repeat(50_000) }).length).toBe(240)
  })

  it('leaves out the data', () => {
    const row = rowOf({
      id: 's:1',
      type: 'run.started',
      time: 't',
      subject: 's',
      position: 5,
      actor: 'key:1',
      rootid: 's',
      data: { input: 'x'.repeat(1000) },
    })
    expect(row).toEqual({
      position: 5,
      type: 'run.started',
      time: 't',
      actor: 'key:1',
      behalf: '',
      root: 's',
      stream: 's',
      text: '',
    })
  })

  it('leads to its run, if it is in one', () => {
    expect(runOf({ type: 'run.started', root: 'r', stream: 'r' })).toBe('r')
    expect(runOf({ type: 'invocation.failed', root: 'r', stream: 'i' })).toBe('r')
    expect(runOf({ type: 'invocation.failed', root: 'i', stream: 'i' })).toBeNull()
    expect(runOf({ type: 'tool.registered', root: 't', stream: 't' })).toBeNull()
  })

  it.each([
    ['run.failed', 'bad'],
    ['run.step_failed', 'bad'],
    ['breaker.opened', 'bad'],
    ['allowance.opened', 'warn'],
    ['run.completed', 'good'],
    ['run.paused', 'warn'],
    ['run.started', 'idle'],
  ])('%s looks %s', (type, tone) => {
    expect(toneOfType(type)).toBe(tone)
  })
})
