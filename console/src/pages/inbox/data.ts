import { useQuery } from '@tanstack/react-query'
import { useState } from 'react'

import { api, dataOf, positionOf } from '../../api/client'
import { usePages } from '../../api/pages'
import { Problem } from '../../api/problem'
import type { components } from '../../api/schema'
import { useEvents } from '../../live/hooks'
import { useRefresh } from '../../live/useRefresh'

export type Approval = components['schemas']['ApprovalView']
export type ApprovalSummary = components['schemas']['ApprovalSummary']
export type Call = components['schemas']['InvocationView']
export type CallSummary = components['schemas']['InvocationSummary']
export type Amounts = components['schemas']['AmountsView']

/** The events after which something else waits for people than before. */
const TYPES = [
  'approval.requested',
  'approval.decided',
  'approval.expired',
  'approval.withdrawn',
  'invocation.became_ambiguous',
  'invocation.resolved',
  'invocation.not_happened',
  'invocation.reconciled',
  'invocation.cancelled',
]
const KEYS = [['approvals'], ['calls', 'ambiguous']]
/** More than this is shown as `99+`. */
const MOST = 100

/** Roles that may decide approvals and resolve calls (docs/reference/access.md). What counts is what the server says of each. */
export function decides(role: string): boolean {
  return ['owner', 'admin', 'operator'].includes(role)
}

/** Keeps all that is shown of the inbox as it is now. For the one place that is always there. */
export function useLiveInbox(role: string): void {
  const refresh = useRefresh(KEYS)
  const { after } = useWaiting(role)
  // From the first reading on, so that nothing is missed between it and the first event.
  const [from, setFrom] = useState<string | null>(null)
  if (from === null && after !== null) setFrom(after)
  useEvents({ types: TYPES }, { enabled: from !== null, after: from, onEvents: refresh, onReset: () => refresh([]) })
}

/** How much waits: `more` where not all was counted. */
export function useWaiting(role: string) {
  const enabled = decides(role)
  const approvals = useQuery({
    queryKey: ['approvals', 'waiting'],
    queryFn: async ({ signal }) => {
      const query = enabled ? { mine: true, limit: MOST } : { limit: 1 }
      const answer = await api.GET('/v1/approvals', { params: { query }, signal })
      return { ...dataOf(answer), after: positionOf(answer) }
    },
  })
  const calls = useQuery({
    queryKey: ['calls', 'ambiguous', 'waiting'],
    enabled,
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/invocations', { params: { query: { status: 'ambiguous', limit: MOST } }, signal })),
  })
  return {
    after: approvals.data?.after ?? null,
    approvals: enabled ? (approvals.data?.data.length ?? 0) : 0,
    calls: calls.data?.data.length ?? 0,
    more: enabled && Boolean(approvals.data?.next_cursor ?? calls.data?.next_cursor),
  }
}

/** What a list of the inbox shows. `mine`: what waits for whoever is signed in. */
export type Show = 'mine' | 'open' | 'calls' | 'decided'

export interface Narrowed {
  readonly tool: string | null
  readonly run: string | null
}

export function useApprovals(show: Show, { tool, run }: Narrowed) {
  const query = {
    ...(show === 'mine' ? { mine: true } : {}),
    ...(show === 'open' ? { status: 'open' as const } : {}),
    ...(tool === null ? {} : { tool }),
    ...(run === null ? {} : { run_id: run }),
  }
  return usePages(['approvals', 'list', show, tool, run], async (cursor, signal) => {
    const page = dataOf(
      await api.GET('/v1/approvals', { params: { query: { limit: 50, ...query, ...cursor } }, signal }),
    )
    return show === 'decided' ? { ...page, data: page.data.filter(one => one.status !== 'open') } : page
  })
}

export function useAmbiguous(enabled: boolean, { run }: Narrowed) {
  return usePages(['calls', 'ambiguous', 'list', enabled, run], async (cursor, signal) =>
    enabled
      ? dataOf(
          await api.GET('/v1/invocations', {
            params: { query: { status: 'ambiguous', limit: 50, ...(run === null ? {} : { run_id: run }), ...cursor } },
            signal,
          }),
        )
      : { data: [] as CallSummary[], next_cursor: null },
  )
}

export function useApproval(id: string) {
  return useQuery({
    queryKey: ['approvals', 'one', id],
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/approvals/{approval_id}', { params: { path: { approval_id: id } }, signal })),
  })
}

export function useCall(id: string | null) {
  return useQuery({
    queryKey: ['calls', 'ambiguous', 'one', id],
    enabled: id !== null,
    queryFn: async ({ signal }) =>
      dataOf(
        await api.GET('/v1/invocations/{invocation_id}', { params: { path: { invocation_id: id ?? '' } }, signal }),
      ),
  })
}

/** The tool of a call. Null: it is not known any more, or the call has none. */
export function useTool(name: string | null) {
  return useQuery({
    queryKey: ['tools', 'one', name],
    enabled: name !== null,
    queryFn: async ({ signal }) => {
      try {
        return dataOf(await api.GET('/v1/tools/{name}', { params: { path: { name: name ?? '' } }, signal }))
      } catch (error) {
        if (error instanceof Problem && error.status === 404) return null
        throw error
      }
    },
  })
}

/** The run in which something waits, as it is now. */
export function useRunOf(runId: string | null) {
  return useQuery({
    queryKey: ['approvals', 'run', runId],
    enabled: runId !== null,
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/runs/{run_id}', { params: { path: { run_id: runId ?? '' } }, signal })),
  })
}
