import { expect, it } from 'vitest'

import { actOnEach, bulkBody, type Options } from './acts'

const OPTIONS: Options = { reason: ' why ', fresh: true, priority: 'high', signal: { name: 'go', payload: { n: 1 } } }
const FILTER = { agent: 'critic' } as never

it('one run that refuses does not keep the others from it', async () => {
  const told: string[] = []
  const outcome = await actOnEach(
    Array.from({ length: 20 }, (_, n) => `run-${n}`),
    runId => {
      told.push(runId)
      return runId === 'run-3' ? Promise.reject(new Error('it has ended')) : Promise.resolve()
    },
  )
  expect(new Set(told).size).toBe(20)
  expect(outcome).toEqual({ done: 19, refused: [{ runId: 'run-3', why: 'it has ended' }] })
})

it('a bulk action says what goes with its verb, and no more', () => {
  expect(bulkBody('cancel', FILTER, OPTIONS)).toEqual({ action: 'cancel', filter: FILTER, reason: 'why' })
  expect(bulkBody('retry', FILTER, OPTIONS)).toMatchObject({ fresh: true })
  expect(bulkBody('priority', FILTER, OPTIONS)).toMatchObject({ priority: 'high' })
  expect(bulkBody('signal', FILTER, OPTIONS)).toMatchObject({ signal: { name: 'go', payload: { n: 1 }, step: null } })
})

it('a dry run says no reason, and all runs are asked for by name', () => {
  expect(bulkBody('pause', {} as never, null)).toEqual({ action: 'pause', filter: {}, all: true, dry_run: true })
  expect(bulkBody('pause', FILTER, null)).toEqual({ action: 'pause', filter: FILTER, dry_run: true })
})
