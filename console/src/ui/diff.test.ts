import { describe, expect, it } from 'vitest'

import { diffLines, hunksOf, linesOf } from './diff'

const marks = { same: ' ', added: '+', removed: '-' } as const
const shown = (before: string, after: string) =>
  diffLines(before.split(''), after.split('')).map(line => `${marks[line.is]}${line.text}`)

describe('diffLines', () => {
  it.each([
    ['abc', 'abc', [' a', ' b', ' c']],
    ['abc', 'axc', [' a', '-b', '+x', ' c']],
    ['', 'ab', ['+a', '+b']],
    ['ab', '', ['-a', '-b']],
    ['abcd', 'bd', ['-a', ' b', '-c', ' d']],
    ['bd', 'abcd', ['+a', ' b', '+c', ' d']],
    ['abab', 'baba', ['-a', ' b', ' a', ' b', '+a']],
  ])('%s → %s', (before, after, lines) => {
    expect(shown(before, after)).toEqual(lines)
  })

  it('numbers the lines of both texts', () => {
    expect(diffLines(['a', 'b'], ['a', 'x', 'b']).map(line => [line.before, line.after])).toEqual([
      [1, 1],
      [null, 2],
      [2, 3],
    ])
  })

  it('replaces as a whole what is too large to compare, and keeps the ends', () => {
    const many = (of: string) => Array.from({ length: 2100 }, (_, at) => `${of} ${at}`)
    const lines = diffLines(['first', ...many('a'), 'last'], ['first', ...many('b'), 'last'])
    expect(lines.filter(line => line.is === 'same').map(line => line.text)).toEqual(['first', 'last'])
    expect(lines.filter(line => line.is === 'added')).toHaveLength(2100)
  })
})

it('is blind to the order of names, and no name is special', () => {
  expect(linesOf({ b: 1, a: [{ d: 1, c: 2 }] })).toEqual(linesOf({ a: [{ c: 2, d: 1 }], b: 1 }))
  expect(linesOf(JSON.parse('{"__proto__": 1}')).join('')).toContain('__proto__')
  expect(linesOf(null)).toEqual([])
})

it('leaves out what is the same, but for some lines around', () => {
  const before = 'abcdefghij'.split('')
  const after = 'abcdefXhij'.split('')
  const { hunks, skippedAtEnd } = hunksOf(diffLines(before, after), 1)
  expect(hunks.map(hunk => [hunk.skipped, hunk.lines.map(line => line.text).join('')])).toEqual([[5, 'fgXh']])
  expect(skippedAtEnd).toBe(2)
  expect(hunksOf(diffLines(before, before))).toEqual({ hunks: [], skippedAtEnd: 10 })
})
