import { expect, it } from 'vitest'

import { SIZE, Windows, windowsOf } from './windows'

interface Asked {
  first: number
  signal: AbortSignal
  answer: (total: number) => Promise<void>
  fail: () => Promise<void>
}

/** A log of numbers, whose answers come when the test says so. */
function log() {
  const asked: Asked[] = []
  const windows = new Windows<number>(
    (first, limit, signal) =>
      new Promise((resolve, reject) => {
        const settled = () => new Promise<void>(done => setTimeout(done, 0))
        asked.push({
          first,
          signal,
          answer: total => {
            const count = Math.max(0, Math.min(limit, total - first))
            resolve({ data: Array.from({ length: count }, (_, place) => first + place), first, total })
            return settled()
          },
          fail: () => {
            reject(new Error('no'))
            return settled()
          },
        })
      }),
  )
  return { windows, asked }
}

const firsts = (asked: readonly Asked[]) => asked.map(request => request.first / SIZE)

it('asks for the middle of what is looked at first', () => {
  expect(windowsOf(0, 10)).toEqual([0])
  expect(windowsOf(SIZE - 1, SIZE)).toEqual([0, 1])
  expect(windowsOf(SIZE, 5 * SIZE)).toEqual([3, 2, 4, 1, 5])
})

it('reads a window once, and gives its rows by their numbers', async () => {
  const { windows, asked } = log()
  const me = {}
  windows.want(me, 210, 220)
  expect(windows.row(215)).toBeUndefined()
  await asked[0]?.answer(1000)
  expect(windows.row(215)).toBe(215)
  expect(windows.total).toBe(1000)
  windows.want(me, 300, 330)
  expect(firsts(asked)).toEqual([1])
})

it('asks for two windows at once, and gives up those that nobody wants any more', async () => {
  const { windows, asked } = log()
  const me = {}
  windows.want(me, 0, 1000)
  expect(asked.length).toBe(2)
  for (const window of [20, 30, 40]) windows.want(me, window * SIZE, window * SIZE + 10)
  expect(asked.map(request => request.signal.aborted)).toEqual([true, true, true, true, false])
  expect(firsts(asked).at(-1)).toBe(40)
  await asked[0]?.answer(10_000)
  expect(windows.row(0)).toBeUndefined()
  await asked.at(-1)?.answer(10_000)
  expect(windows.row(40 * SIZE)).toBe(40 * SIZE)
})

it('keeps asking for what another one looks at', async () => {
  const { windows, asked } = log()
  const [one, other] = [{}, {}]
  windows.want(one, 0, 10)
  windows.want(other, 5 * SIZE, 5 * SIZE)
  windows.leave(one)
  expect(asked.map(request => request.signal.aborted)).toEqual([true, false])
  await asked[1]?.answer(5000)
  expect(windows.row(5 * SIZE)).toBe(5 * SIZE)
})

it('reads the end again when there are more rows, and no window that is full', async () => {
  const { windows, asked } = log()
  const me = {}
  windows.want(me, 0, 10)
  await asked[0]?.answer(150)
  windows.grow()
  expect(firsts(asked)).toEqual([0, 0])
  await asked[1]?.answer(450)
  expect(windows.total).toBe(450)
  windows.want(me, 380, 449)
  expect(firsts(asked)).toEqual([0, 0, 1, 2])
  await asked[2]?.answer(450)
  await asked[3]?.answer(450)
  windows.grow()
  await asked[4]?.answer(451)
  expect(firsts(asked)).toEqual([0, 0, 1, 2, 2])
  expect(windows.row(450)).toBe(450)
})

it('does not lose that there are more while the end is being read', async () => {
  const { windows, asked } = log()
  windows.want({}, 0, 10)
  await asked[0]?.answer(50)
  windows.grow()
  windows.grow()
  expect(asked.length).toBe(2)
  await asked[1]?.answer(60)
  expect(asked.length).toBe(3)
  await asked[2]?.answer(70)
  expect(windows.total).toBe(70)
  expect(asked.length).toBe(3)
})

it('lets windows go that were not looked at for long', async () => {
  const { windows, asked } = log()
  const me = {}
  for (let window = 0; window < 120; window += 1) {
    windows.want(me, window * SIZE, window * SIZE)
    await asked[window]?.answer(1_000_000)
  }
  expect(windows.row(0)).toBeUndefined()
  expect(windows.row(119 * SIZE)).toBe(119 * SIZE)
  expect(windows.ends().length).toBe(200)
})

it('stops at an error until somebody tries again', async () => {
  const { windows, asked } = log()
  windows.want({}, 0, 0)
  await asked[0]?.fail()
  expect(windows.error).toBeInstanceOf(Error)
  expect(asked.length).toBe(1)
  windows.retry()
  await asked[1]?.answer(1)
  expect(windows.error).toBeNull()
  expect(windows.row(0)).toBe(0)
})

it('tells those who watch', async () => {
  const { windows, asked } = log()
  let told = 0
  const end = windows.watch(() => (told += 1))
  windows.want({}, 0, 0)
  await asked[0]?.answer(1)
  expect(told).toBe(1)
  end()
  windows.forget()
  expect(told).toBe(1)
  expect(windows.total).toBeNull()
})
