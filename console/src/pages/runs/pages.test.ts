import { expect, it } from 'vitest'

import { type Chunk, inSight, readAgain } from './pages'

const row = (minute: number, status = 'running') => ({
  run_id: `run-${minute}`,
  created_at: `2026-11-30T12:${String(minute).padStart(2, '0')}:00Z`,
  status,
})
type R = ReturnType<typeof row>
const chunk = (minutes: number[], cursor: string | null, next: string | null): Chunk<R> => ({
  cursor,
  next,
  rows: minutes.map(minute => row(minute)),
})
const CHUNKS = [chunk([50, 49, 48], null, 'a'), chunk([47, 46, 45], 'a', 'b'), chunk([44, 43], 'b', null)]
const ids = (chunks: readonly Chunk<R>[]) => chunks.map(one => one.rows.map(each => Number(each.run_id.slice(4))))

it('a page that is read again takes the place of the old one, and leaves the others', () => {
  const read = readAgain(CHUNKS, 1, [row(47, 'failed'), row(46), row(45)], false)
  expect(ids(read)).toEqual(ids(CHUNKS))
  expect(read[1]?.rows[0]?.status).toBe('failed')
  expect(read[0]).toBe(CHUNKS[0])
})

it('rows that left the list are gone, and those of the next page are there once', () => {
  expect(ids(readAgain(CHUNKS, 1, [row(47), row(45), row(44)], false))[1]).toEqual([47, 45])
})

it('rows that came between push none out', () => {
  expect(ids(readAgain(CHUNKS, 2, [row(44), { ...row(43), run_id: 'run-99' }], false))[2]).toEqual([44, 99])
  const between = { ...row(46), run_id: 'run-98', created_at: '2026-11-30T12:46:30Z' }
  expect(ids(readAgain(CHUNKS, 1, [row(47), between, row(46)], false))[1]).toEqual([47, 98, 46, 45])
})

it('of a page that is all there is, nothing old stays', () => {
  expect(ids(readAgain(CHUNKS, 2, [], true))[2]).toEqual([])
  expect(ids(readAgain(CHUNKS, 2, [row(44)], true))[2]).toEqual([44])
})

it('only pages in sight are meant', () => {
  expect(inSight(CHUNKS, 0, 2)).toEqual([0])
  expect(inSight(CHUNKS, 2, 3)).toEqual([0, 1])
  expect(inSight(CHUNKS, 3, 7)).toEqual([1, 2])
  expect(inSight([], 0, 0)).toEqual([])
})
