import { keepPreviousData, type Query, useQuery, useQueryClient } from '@tanstack/react-query'
import { useEffect, useRef, useState } from 'react'

import { api, dataOf, mustShow } from '../../api/client'
import type { Page } from '../../api/pages'
import { Problem } from '../../api/problem'
import type { Run } from '../../api/types'
import { useEvents } from '../../live/hooks'
import { type Throttled, throttled } from '../../live/throttle'
import { asOf } from './moment'

/** Statuses after which nothing more happens by itself. */
const OVER: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled'])

/** Milliseconds between two reads of a run that goes on, whatever the number of its events. */
const EVERY_MS = 300

/** Pages of a list beyond which an event does not read all of them anew. */
const FEW_PAGES = 2

export function isOver(run: Run): boolean {
  return OVER.has(run.status)
}

/** Whether something may still happen: its effects are taken back after the end of a run. */
export function goesOn(run: Run): boolean {
  return !isOver(run) || run.compensation?.status === 'running'
}

/** A run as it was at a moment, or as it is. While a next moment is loaded, the one before stays. */
export function useRun(runId: string, at: string | null) {
  return useQuery({
    queryKey: ['run', runId, 'view', at],
    // The past never changes, whatever happens.
    staleTime: at === null ? Number.POSITIVE_INFINITY : 'static',
    placeholderData: keepPreviousData,
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/runs/{run_id}', { params: { path: { run_id: runId }, query: asOf(at) }, signal })),
  })
}

/** What each open step of a run waits for. Of now alone. */
export function useWaits(run: Run, at: string | null) {
  return useQuery({
    queryKey: ['run', run.run_id, 'waits'],
    enabled: at === null && !isOver(run),
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/runs/{run_id}/waits', { params: { path: { run_id: run.run_id } }, signal })),
  })
}

/** What the calls of a run have used, and the run's own budget, if it has one. Of now alone. Null: nothing was used. */
export function useCost(run: Run, at: string | null) {
  const runId = run.run_id
  return useQuery({
    queryKey: ['run', runId, 'cost'],
    enabled: at === null && run.call_count > 0,
    queryFn: async ({ signal }) => {
      const query = { by: 'run', run_id: runId, limit: 1 } as const
      const used = dataOf(await api.GET('/v1/usage', { params: { query }, signal })).data[0]
      if (used === undefined) return null
      return { used, budget: await budgetOf(runId, signal) }
    },
  })
}

async function budgetOf(runId: string, signal: AbortSignal) {
  try {
    return dataOf(await api.GET('/v1/runs/{run_id}/budget', { params: { path: { run_id: runId } }, signal }))
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return null
    throw error
  }
}

/** Whether an event reads this query anew: a list of many pages is read when its reader asks for what is new. */
export function followsEvents(query: Pick<Query, 'state'>): boolean {
  const pages = (query.state.data as { pages?: readonly Page<unknown>[] } | undefined)?.pages
  return pages === undefined || pages.length <= FEW_PAGES
}

/** Reads all that is shown of a run anew when its events come, at most once in a while. `after`: the position that is shown at first. */
export function useLiveRun(runId: string, after: number): void {
  const client = useQueryClient()
  const [begin] = useState(String(after))
  const reads = useRef<Throttled | null>(null)
  useEffect(() => {
    const those = throttled(EVERY_MS, () =>
      client.invalidateQueries({ queryKey: ['run', runId], predicate: followsEvents }, { cancelRefetch: false }),
    )
    reads.current = those
    return () => those.end()
  }, [client, runId])
  useEvents(
    { runId },
    {
      after: begin,
      onEvents: events => {
        const last = Number(events.at(-1)?.['position'] ?? 0)
        if (last > 0) mustShow(last)
        reads.current?.call()
      },
      onReset: () => void client.invalidateQueries({ queryKey: ['run', runId] }),
      onEnd: () => reads.current?.call(),
    },
  )
}

/** What was done to a run shows at once: everything of it is read anew. */
export function useReread(runId: string): () => void {
  const client = useQueryClient()
  return () => {
    void client.invalidateQueries({ queryKey: ['run', runId] })
    void client.invalidateQueries({ queryKey: ['runs'] })
  }
}
