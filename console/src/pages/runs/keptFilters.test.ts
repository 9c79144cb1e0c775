import { afterEach, expect, it } from 'vitest'

import { NONE } from './filters'
import { opened, save, savedFilters } from './keptFilters'

afterEach(() => localStorage.clear())

it('keeps filters by name, for each tenant alone', () => {
  const failed = { ...NONE, status: ['failed'] as const, since: '24h' }
  save('one', 'failed today', failed)
  save('one', 'all', NONE)
  expect(Object.keys(savedFilters('one'))).toEqual(['failed today', 'all'])
  expect(opened(savedFilters('one')['failed today'] ?? '')).toEqual(failed)
  expect(savedFilters('two')).toEqual({})
  expect(save('one', 'failed today', null)).toEqual({ all: '' })
})

it('a name is no part of an object', () => {
  save('one', '__proto__', { ...NONE, since: '1h' })
  expect(savedFilters('one')).toEqual(Object.fromEntries([['__proto__', 'since=1h']]))
})

it.each(['', '[', '5', 'null', '{"a": 5}'])('takes %j for nothing', kept => {
  localStorage.setItem('tidelog-runs-one', kept)
  expect(savedFilters('one')).toEqual({})
})
