import { keepPreviousData, useQuery, useQueryClient } from '@tanstack/react-query'
import { useRef, useState } from 'react'

import { api, dataOf, positionOf } from '../../api/client'
import type { Page } from '../../api/pages'
import type { RunSummary } from '../../api/types'
import type { FeedEvent } from '../../live/feed'
import { useEvents } from '../../live/hooks'
import { useRefresh, useThrottled } from '../../live/useRefresh'
import { type Filters, type Status, toAddress, toQuery } from './filters'
import { type Chunk, inSight, readAgain } from './pages'

type Chunks = readonly Chunk<RunSummary>[]

/** Events after which a list of runs is another one. */
const TYPES = [
  'run.started',
  'run.queued',
  'run.begun',
  'run.completed',
  'run.failed',
  'run.cancelled',
  'run.paused',
  'run.pause_lifted',
  'run.resumed',
  'run.retried',
  'run.priority_changed',
]
const PAGE = 60
/** Rows that fill a window. */
const ENOUGH = 30
/** Pages that are read for them at most. */
const MOST_AT_ONCE = 10
/** Milliseconds between two countings. */
const COUNT_MS = 2_500

async function read(filters: Filters, page: { cursor?: string; limit: number }, signal?: AbortSignal) {
  const query = { ...toQuery(filters, Date.now()), ...page }
  const answer = await api.GET('/v1/runs', { params: { query }, ...(signal === undefined ? {} : { signal }) })
  return { ...dataOf(answer), after: positionOf(answer) }
}

/**
 * The list of runs, live. At the top, the newest page is read again when runs begin or change; further down, only the pages in sight
 * are, and newer runs wait above (`newer`), so that nothing moves under one's eyes.
 */
export function useRuns(filters: Filters) {
  const client = useQueryClient()
  const key = ['runs', 'list', toAddress(filters).toString()]
  const [newer, setNewer] = useState(false)
  // Events are heard from the first reading on, so that nothing is missed between it and the first event.
  const [after, setAfter] = useState<string | null>(null)
  const [more, setMore] = useState<'no' | 'reading' | 'failed'>('no')
  const sight = useRef({ first: 0, last: 0 })
  const reading = useRef(false)
  const list = useQuery({
    queryKey: key,
    placeholderData: keepPreviousData,
    refetchOnMount: 'always',
    queryFn: async ({ signal }): Promise<Chunks> => {
      const found: Chunk<RunSummary>[] = []
      let cursor: string | null = null
      // With several filters, a page may have few rows, or none, while there is a next one.
      do {
        const page: Page<RunSummary> & { after: string | null } = await read(
          filters,
          { limit: PAGE, ...(cursor === null ? {} : { cursor }) },
          signal,
        )
        found.push({ cursor, rows: page.data, next: page.next_cursor })
        setAfter(before => before ?? page.after)
        cursor = page.next_cursor
      } while (cursor !== null && found.length < MOST_AT_ONCE && found.flatMap(chunk => chunk.rows).length < ENOUGH)
      return found
    },
  })
  const chunks: Chunks = list.data ?? []
  const next = list.isPlaceholderData ? null : (chunks.at(-1)?.next ?? null)

  const readMore = async () => {
    if (reading.current || next === null) return
    reading.current = true
    setMore('reading')
    try {
      const page = await read(filters, { limit: PAGE, cursor: next })
      client.setQueryData<Chunks>(key, now =>
        // Read again from the top meanwhile: then the page is of another list.
        now?.at(-1)?.next === next
          ? [
              ...now,
              {
                cursor: next,
                rows: page.data.filter(row => !now.some(chunk => chunk.rows.some(one => one.run_id === row.run_id))),
                next: page.next_cursor,
              },
            ]
          : now,
      )
      setMore('no')
    } catch {
      setMore('failed')
    } finally {
      reading.current = false
    }
  }

  const readSight = async () => {
    const now = client.getQueryData<Chunks>(key) ?? []
    for (const number of inSight(now, sight.current.first, sight.current.last)) {
      const chunk = now[number]
      if (chunk === undefined || chunk.rows.length === 0) continue
      const limit = Math.min(1_000, chunk.rows.length)
      const page = await read(filters, chunk.cursor === null ? { limit } : { limit, cursor: chunk.cursor })
      client.setQueryData<Chunks>(key, later =>
        later?.[number]?.cursor === chunk.cursor
          ? readAgain(later, number, page.data, page.next_cursor === null)
          : later,
      )
    }
  }
  const fromTop = () => {
    setNewer(false)
    return client.invalidateQueries({ queryKey: key })
  }
  const atTop = () => sight.current.first < 3
  const refresh = useThrottled(() => (atTop() ? fromTop() : readSight()))
  const count = useRefresh([['runs', 'counts']], COUNT_MS)
  const onEvents = (events: readonly FeedEvent[]) => {
    if (!atTop() && events.some(event => event.type === 'run.started')) setNewer(true)
    refresh(events)
    count(events)
  }
  useEvents({ types: TYPES }, { enabled: after !== null, after, onEvents, onReset: () => onEvents([]) })

  return {
    list,
    rows: chunks.flatMap(chunk => chunk.rows),
    hasMore: next !== null,
    more,
    readMore: () => void readMore(),
    newer,
    fromTop: () => void fromTop(),
    onSight: (first: number, last: number) => {
      sight.current = { first, last }
    },
  }
}

export type Counts = Readonly<Partial<Record<Status, { readonly count: number; readonly more: boolean }>>>

/** How many runs of each status there are, with the other filters. */
export function useCounts(filters: Filters) {
  const others = { ...filters, status: [] }
  return useQuery({
    queryKey: ['runs', 'counts', toAddress(others).toString()],
    placeholderData: keepPreviousData,
    queryFn: async ({ signal }): Promise<Counts> =>
      dataOf(await api.GET('/v1/runs/counts', { params: { query: toQuery(others, Date.now()) }, signal })),
  })
}

/** Agents by name, for choosing one. */
export function useAgents() {
  return useQuery({
    queryKey: ['agents', 'names'],
    refetchOnMount: 'always',
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/agents', { params: { query: { limit: 1000 } }, signal })).data,
  })
}

export function useWorkflows() {
  return useQuery({
    queryKey: ['workflows', 'names'],
    refetchOnMount: 'always',
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/workflows', { params: { query: { limit: 1000, deprecated: false } }, signal })).data,
  })
}

export function useProjects() {
  return useQuery({
    queryKey: ['projects', 'names'],
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/projects', { params: { query: { limit: 1000 } }, signal })).data,
  })
}
