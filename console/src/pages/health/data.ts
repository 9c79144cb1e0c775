import { useQuery } from '@tanstack/react-query'

import { api, dataOf } from '../../api/client'
import { Problem } from '../../api/problem'
import type { components } from '../../api/schema'
import { watched, watchedClosely } from '../../api/watch'

export type Readiness = components['schemas']['Readiness']
export type Model = components['schemas']['ProjectionView']
export type Build = components['schemas']['BuildView']
export type Member = components['schemas']['MemberShown']

/** What the report leaves out while PostgreSQL is away. */
const UNKNOWN = {
  head: null,
  durable: null,
  row_level_security: null,
  history: null,
  streams: null,
  parked: null,
  members: null,
  upkeep: null,
  work: null,
  import_problems: null,
  free_bytes: null,
} as const

function whole(report: Partial<Readiness>): Readiness {
  return { ...UNKNOWN, consumers: {}, degraded: [], ...report } as Readiness
}

/** The report of the server on itself. An unavailable server answers 503, with the same report. */
export function useReadiness() {
  return useQuery({
    queryKey: ['health', 'ready'],
    queryFn: async ({ signal }): Promise<Readiness> => {
      try {
        return whole(dataOf<Partial<Readiness>>(await api.GET('/health/ready', { signal })))
      } catch (error) {
        if (error instanceof Problem && error.body['status'] === 'unavailable') return whole(error.body)
        throw error
      }
    },
    ...watched,
  })
}

const OVER: ReadonlySet<string> = new Set(['swapped', 'equal', 'different', 'cancelled', 'failed', 'ready'])

/** Whether a job goes on by itself. */
export function isUnderWay(job: Build | null): boolean {
  return job !== null && !OVER.has(job.status)
}

/** Read models with what is being done with them. For keys of the default tenant, else 403. */
export function useModels() {
  return useQuery({
    queryKey: ['health', 'models'],
    queryFn: async ({ signal }) => dataOf(await api.GET('/v1/projections', { signal })),
    ...watched,
    refetchInterval: query =>
      query.state.error !== null
        ? false
        : query.state.data?.data.some(model => isUnderWay(model.build) || isUnderWay(model.check)) === true
          ? watchedClosely.refetchInterval
          : watched.refetchInterval,
  })
}

/** When the oldest event that a consumer at this position has not seen was recorded, of the events of this tenant. */
export function useSince(position: number | null) {
  return useQuery({
    queryKey: ['health', 'since', position],
    enabled: position !== null,
    queryFn: async ({ signal }) => {
      const { data } = await api.GET('/v1/events', { params: { query: { after: String(position), limit: 1 } }, signal })
      const page = data as unknown as { data: readonly { time: string }[] }
      return page.data[0]?.time ?? null
    },
  })
}
