import { keepPreviousData, useQuery } from '@tanstack/react-query'
import { useSearchParams } from 'wouter'

import { api, dataOf } from '../../../api/client'
import type { Run, RunSummary } from '../../../api/types'
import { readRows } from '../past/rows'

/** What a run is compared with: a run, as it was at a moment. */
export interface Other {
  readonly run: string
  /** A position or a time; null: now. */
  readonly at: string | null
}

/** What stands in the address (`?with=RUN&with_at=…`). Null: nothing has been chosen. */
export function useOther(runId: string): [Other | null, (other: Other | null) => void] {
  const [params, setParams] = useSearchParams()
  const [run, at] = [params.get('with'), params.get('with_at')]
  return [
    run === null && at === null ? null : { run: run ?? runId, at },
    other =>
      setParams(before => {
        const next = new URLSearchParams(before)
        next.delete('with')
        next.delete('with_at')
        if (other !== null) next.set('with', other.run)
        if (other !== null && other.at !== null) next.set('with_at', other.at)
        return next
      }),
  ]
}

/** How the two differ: by their events, and by what became of them. */
export function useDiff(runId: string, at: string | null, other: Other) {
  return useQuery({
    queryKey: ['run', runId, 'diff', other.run, other.at, at],
    staleTime: at !== null && other.at !== null ? 'static' : Number.POSITIVE_INFINITY,
    placeholderData: keepPreviousData,
    queryFn: async ({ signal }) => {
      const moments = { ...(at === null ? {} : { as_of: at }), ...(other.at === null ? {} : { with_as_of: other.at }) }
      const query = { with: other.run, ...moments, limit: 500 }
      return dataOf(await api.GET('/v1/runs/{run_id}/diff', { params: { path: { run_id: runId }, query }, signal }))
    },
  })
}

export interface Suggestion {
  readonly name: string
  readonly other: Other
}

/** Runs and moments that are worth comparing with. */
export function useSuggestions(run: Run): readonly Suggestion[] {
  const runId = run.run_id
  const forks = useQuery({
    queryKey: ['forks', runId],
    queryFn: async ({ signal }) => {
      const wanted = { params: { path: { run_id: runId }, query: { limit: 5 } }, signal }
      return dataOf(await api.GET('/v1/runs/{run_id}/forks', wanted)).data
    },
  })
  const agent = run.steps.find(step => step.agent !== null)?.agent ?? null
  const workflow = run.workflow ?? null
  const by = workflow !== null ? { workflow: workflow.name } : agent !== null ? { agent } : null
  const alike = useQuery({
    queryKey: ['alike', by],
    enabled: by !== null,
    queryFn: async ({ signal }) => {
      const query = { ...by, status: 'completed' as const, limit: 3 }
      return dataOf(await api.GET('/v1/runs', { params: { query }, signal })).data
    },
  })
  const turns = useQuery({
    queryKey: ['turns', runId, run.retries],
    queryFn: async ({ signal }) =>
      (await readRows({ runId, types: 'agent_run.failed,run.retried,run.step_failed' }, {}, 20, signal)).data,
  })
  const found: Suggestion[] = []
  // Fields with nothing to say are missing, whatever their types say.
  const forked = run.forked_from ?? null
  if (forked !== null) {
    found.push({ name: 'the run it was forked from', other: { run: forked.run_id, at: null } })
  }
  const retried = turns.data?.find(row => row.type === 'run.retried')
  if (retried !== undefined) {
    found.push({ name: 'itself, before it was tried again', other: { run: runId, at: String(retried.position - 1) } })
  }
  const failed = turns.data?.find(row => row.type !== 'run.retried')
  if (failed !== undefined) {
    found.push({ name: 'itself, before the first failure', other: { run: runId, at: String(failed.position - 1) } })
  }
  for (const fork of forks.data ?? [])
    found.push({ name: `fork ${brief(fork)}`, other: { run: fork.run_id, at: null } })
  for (const like of alike.data ?? []) {
    if (like.run_id === runId) continue
    found.push({ name: `a completed run like it, ${brief(like)}`, other: { run: like.run_id, at: null } })
  }
  return found
}

function brief(run: RunSummary): string {
  return `${run.run_id.slice(0, 8)}…${run.run_id.slice(-6)}`
}
