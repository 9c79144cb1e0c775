/** Which runs are listed: in the address, in a request, and as the filter of a bulk action. */
import type { components, paths } from '../../api/schema'

export type Status = 'queued' | 'running' | 'paused' | 'completed' | 'degraded' | 'failed' | 'cancelled'
export const STATUSES: readonly Status[] = [
  'queued',
  'running',
  'paused',
  'completed',
  'degraded',
  'failed',
  'cancelled',
]

/** Filters of one text each, by their names in the address and in the interface. */
export const TEXTS = [
  'agent',
  'workflow',
  'project_id',
  'error',
  'on_behalf_of',
  'actor',
  'origin',
  'parent',
  'concurrency_key',
  'started_after',
  'started_before',
] as const
export type TextName = (typeof TEXTS)[number]
/** Filters of one number of seconds each. */
export const NUMBERS = ['longer_s', 'shorter_s', 'unmoved_s'] as const
export type NumberName = (typeof NUMBERS)[number]

export interface Filters {
  readonly status: readonly Status[]
  /** `name=value`, all of which hold. */
  readonly metadata: readonly string[]
  /** How long ago a run was started at most, such as `24h`: with it, a list that is kept stays right. */
  readonly since: string | null
  readonly texts: Readonly<Partial<Record<TextName, string>>>
  readonly numbers: Readonly<Partial<Record<NumberName, number>>>
}

export const NONE: Filters = { status: [], metadata: [], since: null, texts: {}, numbers: {} }
/** The interface takes no more of them. */
const MOST_METADATA = 8
const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800 }

/** Seconds of `90s`, `15m`, `24h`, `7d`, `2w`. Null: it is no such text. */
export function secondsOf(since: string): number | null {
  const found = /^(\d{1,9})([smhdw])$/.exec(since)
  return found === null ? null : Number(found[1]) * (UNITS[found[2] ?? ''] ?? 0)
}

/** What an address says. What is no filter, or none that can be, is left out. */
export function fromAddress(params: URLSearchParams): Filters {
  const status = (params.get('status') ?? '').split(',')
  const since = params.get('since')
  const texts: Partial<Record<TextName, string>> = {}
  for (const name of TEXTS) {
    const value = params.get(name)?.trim()
    if (value) texts[name] = value
  }
  const numbers: Partial<Record<NumberName, number>> = {}
  for (const name of NUMBERS) {
    const value = params.get(name)
    if (value !== null && value.trim() !== '' && Number.isFinite(Number(value)) && Number(value) >= 0) {
      numbers[name] = Number(value)
    }
  }
  return {
    status: STATUSES.filter(known => status.includes(known)),
    metadata: params
      .getAll('metadata')
      .filter(pair => pair.indexOf('=') > 0)
      .slice(0, MOST_METADATA),
    since: since !== null && secondsOf(since) !== null ? since : null,
    texts,
    numbers,
  }
}

/** The same in an address; the other way round is `fromAddress`. */
export function toAddress(filters: Filters): URLSearchParams {
  const params = new URLSearchParams()
  if (filters.status.length > 0) params.set('status', filters.status.join(','))
  for (const name of TEXTS) {
    const value = filters.texts[name]
    if (value !== undefined && value !== '') params.set(name, value)
  }
  for (const pair of filters.metadata) params.append('metadata', pair)
  if (filters.since !== null) params.set('since', filters.since)
  for (const name of NUMBERS) {
    const value = filters.numbers[name]
    if (value !== undefined) params.set(name, String(value))
  }
  return params
}

export function isNone(filters: Filters): boolean {
  return toAddress(filters).size === 0
}

function startedAfter({ since, texts }: Filters, now: number): string | undefined {
  const seconds = since === null ? null : secondsOf(since)
  return seconds === null ? texts.started_after : new Date(now - seconds * 1000).toISOString()
}

type Query = NonNullable<paths['/v1/runs']['get']['parameters']['query']>

/** The filters as `GET /v1/runs` takes them. `now`: milliseconds since the epoch. */
export function toQuery(filters: Filters, now: number): Query {
  const after = startedAfter(filters, now)
  return {
    ...filters.texts,
    ...(after === undefined ? {} : { started_after: after }),
    ...(filters.metadata.length === 0 ? {} : { metadata: [...filters.metadata] }),
    ...filters.numbers,
    ...(filters.status.length === 0 ? {} : { status: filters.status.join(',') }),
  }
}

type BulkFilter = components['schemas']['FilterBody']
/** Filters of the list that a bulk action does not have. */
const NOT_OF_BULK = ['concurrency_key', 'longer_s', 'shorter_s'] as const

/** The filters that a bulk action does not know: with one of them, not all that match can be meant. */
export function notOfBulk(filters: Filters): string[] {
  return NOT_OF_BULK.filter(name => name in filters.texts || name in filters.numbers)
}

/** The filters as `POST /v1/bulk-actions` takes them. */
export function toBulk(filters: Filters, now: number): BulkFilter {
  const { agent, workflow, project_id, error, on_behalf_of, actor, origin, parent, started_before } = filters.texts
  const metadata: Record<string, string> = {}
  for (const pair of filters.metadata) metadata[pair.slice(0, pair.indexOf('='))] = pair.slice(pair.indexOf('=') + 1)
  const given = {
    status: filters.status.length === 0 ? undefined : [...filters.status],
    ...{ agent, workflow, project_id, error, on_behalf_of, actor, origin, parent, started_before },
    started_after: startedAfter(filters, now),
    metadata: filters.metadata.length === 0 ? undefined : metadata,
    unmoved_s: filters.numbers.unmoved_s,
  }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as BulkFilter
}
