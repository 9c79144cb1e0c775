import { describe, expect, it } from 'vitest'

import { ticksOf } from './marks'
import { clockTime, keyed, numberOf, share, spread, typed } from './slider'

describe('keyed', () => {
  it.each([
    ['ArrowLeft', 500, 499],
    ['ArrowRight', 500, 501],
    ['ArrowRight', 1000, 1000],
    ['ArrowLeft', 0, 0],
    ['PageUp', 500, 550],
    ['PageDown', 20, 0],
    ['Home', 500, 0],
    ['End', 500, 1000],
    ['a', 500, null],
  ])('%s at %d leads to %s', (key, number, next) => {
    expect(keyed(key, number, 1000)).toBe(next)
  })

  it('leaps at least one event of a short run', () => {
    expect(keyed('PageUp', 0, 5)).toBe(1)
  })
})

it('shares the way from the first event to the last', () => {
  expect([share(0, 11), share(5, 11), share(10, 11), share(99, 11), share(-1, 11)]).toEqual([0, 0.5, 1, 1, 0])
  expect(share(0, 1)).toBe(1)
})

describe('numberOf', () => {
  const known = [
    { number: 0, position: 100 },
    { number: 10, position: 120 },
    { number: 20, position: 1120 },
  ]
  it.each([
    [100, 0],
    [110, 5],
    [120, 10],
    [620, 15],
    [1120, 20],
    [9999, 20],
    [1, 0],
  ])('position %d has about the number %d', (position, number) => {
    expect(numberOf(position, known)).toBe(number)
  })

  it('is 0 where nothing is known', () => {
    expect(numberOf(5, [])).toBe(0)
  })
})

it('spreads numbers evenly, the first and the last among them', () => {
  expect(spread(100_001, 5)).toEqual([0, 25_000, 50_000, 75_000, 100_000])
  expect(spread(3, 24)).toEqual([0, 1, 2])
  expect(spread(1, 24)).toEqual([0])
  expect(spread(0, 24)).toEqual([])
})

describe('typed', () => {
  const began = new Date(2026, 10, 30, 14, 29, 47, 618).getTime()
  const local = (...parts: [number, number, number, number, number, number, number]) => new Date(...parts).toISOString()

  it.each([
    ['2330', { at: '2330' }],
    ['#512', { number: 511 }],
    ['# 1', { number: 0 }],
    ['+90s', { at: new Date(began + 90_000).toISOString() }],
    ['+1.5 h', { at: new Date(began + 5_400_000).toISOString() }],
    ['14:29:50.5', { at: local(2026, 10, 30, 14, 29, 50, 500) }],
    ['14:29:50', { at: local(2026, 10, 30, 14, 29, 50, 999) }],
    ['14:29', { at: local(2026, 10, 30, 14, 29, 59, 999) }],
    ['0:10', { at: local(2026, 11, 1, 0, 10, 59, 999) }],
    ['2026-11-30T14:29:50Z', { at: '2026-11-30T14:29:50.000Z' }],
    ['25:00', null],
    ['tomorrow', null],
    ['', null],
    ['12345678901234567890', null],
  ])('%s', (text, found) => {
    expect(typed(text, began)).toEqual(found)
  })
})

it('tells a time to the millisecond', () => {
  expect(clockTime(new Date(2026, 10, 30, 4, 9, 7, 61).toISOString())).toBe('04:09:07.061')
})

it('shows the gravest of the marks at one place', () => {
  const ticks = ticksOf([
    { at: 0.5, mark: 'retry' },
    { at: 0.501, mark: 'failure' },
    { at: 0.502, mark: 'end' },
    { at: 0.1, mark: 'pause' },
  ])
  expect(ticks.map(tick => tick.mark)).toEqual(['pause', 'failure'])
  expect(ticksOf(Array.from({ length: 5000 }, (_, place) => ({ at: place / 5000, mark: 'retry' }))).length).toBe(241)
})
