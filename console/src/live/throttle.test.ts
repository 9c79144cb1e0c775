import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { throttled } from './throttle'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

test('a thousand calls in a second are a few', async () => {
  const act = vi.fn(() => Promise.resolve())
  const one = throttled(300, act)
  for (let n = 0; n < 1000; n++) {
    one.call()
    await vi.advanceTimersByTimeAsync(1)
  }
  await vi.advanceTimersByTimeAsync(1000)
  expect(act.mock.calls.length).toBeGreaterThanOrEqual(4)
  expect(act.mock.calls.length).toBeLessThanOrEqual(5)
})

test('the first call acts at once, and the last one is not lost', async () => {
  const act = vi.fn(() => Promise.resolve())
  const one = throttled(300, act)
  one.call()
  expect(act).toHaveBeenCalledTimes(1)
  one.call()
  await vi.advanceTimersByTimeAsync(299)
  expect(act).toHaveBeenCalledTimes(1)
  await vi.advanceTimersByTimeAsync(1)
  expect(act).toHaveBeenCalledTimes(2)
  await vi.advanceTimersByTimeAsync(5000)
  expect(act).toHaveBeenCalledTimes(2)
})

test('a slow answer is waited for', async () => {
  let most = 0
  let open = 0
  const act = vi.fn(async () => {
    most = Math.max(most, ++open)
    await new Promise(done => setTimeout(done, 1000))
    open--
  })
  const one = throttled(100, act)
  for (let n = 0; n < 50; n++) {
    one.call()
    await vi.advanceTimersByTimeAsync(50)
  }
  await vi.advanceTimersByTimeAsync(5000)
  expect(most).toBe(1)
})

test('a failure does not stop it, the end does', async () => {
  const act = vi.fn(() => Promise.reject(new Error('away')))
  const one = throttled(100, act)
  one.call()
  await vi.advanceTimersByTimeAsync(200)
  one.call()
  await vi.advanceTimersByTimeAsync(200)
  expect(act).toHaveBeenCalledTimes(2)
  one.end()
  one.call()
  await vi.advanceTimersByTimeAsync(200)
  expect(act).toHaveBeenCalledTimes(2)
})
