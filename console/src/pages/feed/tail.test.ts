import { describe, expect, it } from 'vitest'

import type { FeedRow } from './rows'
import { Tail } from './tail'

const row = (position: number): FeedRow => ({
  position,
  type: 'run.started',
  time: '',
  actor: '',
  behalf: '',
  root: '',
  stream: '',
  text: '',
})
const rows = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => row(from + at))
const shown = (tail: Tail) => tail.rows.map(one => one.position)

function begun(most = 5, from = 1, to = 3): Tail {
  const tail = new Tail(most)
  tail.begin(rows(from, to), false)
  return tail
}

describe('the tail of a log', () => {
  it('follows, and keeps the newest', () => {
    const tail = begun()
    tail.take(rows(4, 5))
    expect([shown(tail), tail.older, tail.first]).toEqual([[1, 2, 3, 4, 5], false, 0])
    tail.take(rows(6, 7))
    expect([shown(tail), tail.older, tail.first, tail.came]).toEqual([[3, 4, 5, 6, 7], true, 2, 4])
  })

  it('shows no event twice', () => {
    const tail = begun()
    tail.take([row(3), row(4)])
    tail.take([row(4)])
    expect(shown(tail)).toEqual([1, 2, 3, 4])
  })

  it('counts what comes while it stands still, and shows it afterwards', () => {
    const tail = begun()
    tail.hold()
    tail.take(rows(4, 6))
    expect([shown(tail), tail.waiting]).toEqual([[1, 2, 3], 3])
    expect(tail.follow()).toBe(true)
    expect([shown(tail), tail.waiting, tail.following]).toEqual([[2, 3, 4, 5, 6], 0, true])
  })

  it('keeps as many aside as it may, counts all, and says that the end must be read anew', () => {
    const tail = begun()
    tail.hold()
    tail.take(rows(4, 12))
    expect(tail.waiting).toBe(9)
    expect(tail.follow()).toBe(false)
    expect([shown(tail), tail.waiting, tail.following]).toEqual([[1, 2, 3], 9, false])
    tail.append(rows(4, 6), true)
    expect([shown(tail), tail.waiting]).toEqual([[2, 3, 4, 5, 6], 9])
    tail.append(rows(7, 12), false)
    expect([shown(tail), tail.waiting, tail.joined]).toEqual([[8, 9, 10, 11, 12], 0, true])
    expect(tail.follow()).toBe(true)
  })

  it('does not join over a gap', () => {
    const tail = begun()
    tail.hold()
    tail.take(rows(4, 12)) // 8 to 12 are kept
    tail.append(rows(4, 6), false)
    expect([shown(tail).at(-1), tail.waiting, tail.follow()]).toEqual([6, 9, false])
  })

  it('puts older ones in front, and lets go of the newest beyond the bound', () => {
    const tail = begun(5, 7, 9)
    tail.hold()
    tail.prepend(rows(5, 7), true)
    expect([shown(tail), tail.first, tail.joined, tail.older]).toEqual([[5, 6, 7, 8, 9], -2, true, true])
    tail.prepend(rows(3, 4), false)
    expect([shown(tail), tail.first, tail.joined, tail.older]).toEqual([[3, 4, 5, 6, 7], -4, false, false])
    tail.take([row(10)])
    expect([tail.waiting, tail.follow()]).toEqual([1, false])
    tail.append(rows(8, 9), false)
    expect([shown(tail), tail.joined, tail.waiting, tail.follow()]).toEqual([[6, 7, 8, 9, 10], true, 0, true])
  })

  it('begins in the past without following', () => {
    const tail = new Tail(5)
    tail.begin(rows(1, 3), false, false)
    tail.take([row(9)])
    expect([shown(tail), tail.following, tail.waiting]).toEqual([[1, 2, 3], false, 1])
  })
})
