import { describe, expect, it } from 'vitest'

import { between, duration, relative } from './time'

describe('duration', () => {
  it.each([
    [0, '0 ms'],
    [849.6, '850 ms'],
    [4_249, '4.2 s'],
    [59_400, '59 s'],
    [60_000, '1 min'],
    [185_000, '3 min 5 s'],
    [7_800_000, '2 h 10 min'],
    [273_600_000, '3 d 4 h'],
    [-1, '–'],
    [Number.NaN, '–'],
  ])('%d ms is %s', (ms, text) => {
    expect(duration(ms)).toBe(text)
  })
})

describe('relative', () => {
  const now = Date.parse('2026-11-30T12:00:00Z')
  it.each([
    ['2026-11-30T11:59:57Z', 'now'],
    ['2026-11-30T11:59:20Z', '40 seconds ago'],
    ['2026-11-30T11:57:00Z', '3 minutes ago'],
    ['2026-11-29T12:00:00Z', 'yesterday'],
    ['2026-11-30T14:00:00Z', 'in 2 hours'],
    ['2024-11-30T12:00:00Z', '2 years ago'],
  ])('%s is %s', (time, text) => {
    expect(relative(Date.parse(time), now)).toBe(text)
  })
})

it('counts until now while there is no end', () => {
  expect(between('2026-11-30T12:00:00Z', null, Date.parse('2026-11-30T12:00:03Z'))).toBe(3000)
  expect(between('2026-11-30T12:00:00Z', '2026-11-30T12:00:01Z', 0)).toBe(1000)
})
