import { keepPreviousData, useQuery, useQueryClient } from '@tanstack/react-query'

import { api, dataOf, mustShow } from '../../api/client'
import type { Run } from '../../api/types'
import { useEvents } from '../../live/hooks'
import { asOf } from './moment'

/** Statuses after which nothing more happens by itself. */
const OVER: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled'])

export function isOver(run: Run): boolean {
  return OVER.has(run.status)
}

/** A run as it was at a moment, or as it is. While a next moment is loaded, the one before stays. */
export function useRun(runId: string, at: string | null) {
  return useQuery({
    queryKey: ['run', runId, 'view', at],
    placeholderData: keepPreviousData,
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/runs/{run_id}', { params: { path: { run_id: runId }, query: asOf(at) }, signal })),
  })
}

/** Reads all that is shown of a run anew when an event of the run comes, at most once in a while. */
export function useLiveRun(runId: string, enabled: boolean): void {
  const client = useQueryClient()
  useEvents(
    { runId },
    {
      enabled,
      onEvents: events => {
        const last = Number(events.at(-1)?.['position'] ?? 0)
        if (last > 0) mustShow(last)
        void client.invalidateQueries({ queryKey: ['run', runId] }, { cancelRefetch: false })
      },
      onReset: () => void client.invalidateQueries({ queryKey: ['run', runId] }),
    },
  )
}
