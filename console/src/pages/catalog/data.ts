import { keepPreviousData, useQuery } from '@tanstack/react-query'

import { api, dataOf } from '../../api/client'
import type { Page } from '../../api/pages'
import type { components } from '../../api/schema'
import { watched } from '../../api/watch'
import { useEvents } from '../../live/hooks'
import { useRefresh } from '../../live/useRefresh'

export type Agent = components['schemas']['AgentView']
export type Tool = components['schemas']['ToolView']
export type ToolVersion = components['schemas']['ToolVersionView']
export type Worker = components['schemas']['WorkerView']
export type Breaker = components['schemas']['BreakerView']

const PAGE = 1000
/** Pages of a list that are read at most: a search looks at all of it. */
const MOST_PAGES = 20
/** A list of this length is not read again by itself: an installation with so many has many who look. */
const LONG = 1000

interface All<T> {
  readonly rows: readonly T[]
  /** There are more than were read. */
  readonly more: boolean
}

async function all<T>(read: (query: { limit: number; cursor?: string }) => Promise<Page<T>>): Promise<All<T>> {
  const rows: T[] = []
  let cursor: string | null = null
  for (let page = 0; page < MOST_PAGES; page++) {
    const found: Page<T> = await read({ limit: PAGE, ...(cursor === null ? {} : { cursor }) })
    rows.push(...found.data)
    cursor = found.next_cursor
    if (cursor === null) return { rows, more: false }
  }
  return { rows, more: true }
}

const AGENTS = ['agents']
const TOOLS = ['tools']
const WORKERS = ['workers']
const BREAKERS = ['breakers']

/** How a whole list is read: again while in sight, as how many workers are there is no event; a very long one not. */
function whole<T>(queryKey: readonly unknown[], read: (signal: AbortSignal) => Promise<All<T>>) {
  return {
    queryKey,
    placeholderData: keepPreviousData,
    queryFn: ({ signal }: { signal: AbortSignal }) => read(signal),
    ...watched,
    refetchInterval: (query: { state: { data: All<T> | undefined } }) =>
      (query.state.data?.rows.length ?? 0) > LONG ? false : watched.refetchInterval,
  }
}

export function useAgents() {
  return useQuery(
    whole<Agent>(AGENTS, signal =>
      all(async query => dataOf(await api.GET('/v1/agents', { params: { query }, signal }))),
    ),
  )
}

export function useTools() {
  return useQuery(
    whole<Tool>(TOOLS, signal => all(async query => dataOf(await api.GET('/v1/tools', { params: { query }, signal })))),
  )
}

export function useWorkers() {
  return useQuery(
    whole<Worker>(WORKERS, signal =>
      all(async query => dataOf(await api.GET('/v1/workers', { params: { query }, signal }))),
    ),
  )
}

/** Breakers that have ever changed. A tool that is not among them has a closed one. */
export function useBreakers() {
  return useQuery({
    queryKey: BREAKERS,
    queryFn: ({ signal }) => all(async query => dataOf(await api.GET('/v1/breakers', { params: { query }, signal }))),
  })
}

/** Reads agents and tools again when one was announced, declared or changed. */
export function useCatalogEvents(): void {
  const onEvents = useRefresh([AGENTS, ['agent'], TOOLS, ['tool'], BREAKERS])
  useEvents({ types: ['agent.registered'], slices: ['tool', 'breaker'] }, { onEvents })
}

/** Whether all words stand in one of the texts, whatever their case. */
export function matches(search: string, texts: readonly string[]): boolean {
  const text = texts.join('\n').toLowerCase()
  return search
    .toLowerCase()
    .split(/\s+/)
    .every(word => text.includes(word))
}
