/** Pages of the tenant's events, in both directions. */
import { api } from '../../api/client'
import type { components } from '../../api/schema'
import { type FeedRow, rowOf } from './rows'

/** Which events, as the server is asked for them. */
export interface Wanted {
  readonly types?: readonly string[] | undefined
  readonly run?: string | undefined
  readonly actor?: string | undefined
  readonly behalf?: string | undefined
}

interface Page {
  readonly data: readonly components['schemas']['CloudEvent'][]
  readonly next_cursor: string | null
}

/** Rows in the order of the log, and where the reading goes on. Null: there are no more. */
export interface Found {
  readonly rows: readonly FeedRow[]
  readonly cursor: string | null
}

const PAGE = 200
/** A page with a filter may be short though others follow: so many are read at once to have enough to show. */
const MOST_READS = 6
const ENOUGH = 60

function queryOf(wanted: Wanted) {
  return {
    ...(wanted.types === undefined ? {} : { types: wanted.types.join(',') }),
    ...(wanted.run === undefined ? {} : { root_id: wanted.run }),
    ...(wanted.actor === undefined ? {} : { actor: wanted.actor }),
    ...(wanted.behalf === undefined ? {} : { on_behalf_of: wanted.behalf }),
  }
}

interface Place {
  readonly after?: string
  readonly as_of?: string
  readonly recorded_after?: string
  readonly recorded_before?: string
  readonly newest_first?: boolean
  readonly cursor?: string
  readonly limit?: number
}

async function page(wanted: Wanted, place: Place, signal: AbortSignal): Promise<{ page: Page; position: number }> {
  const query = { limit: PAGE, ...queryOf(wanted), ...place }
  const { data, response } = await api.GET('/v1/events', { params: { query }, signal })
  return { page: data as unknown as Page, position: Number(response.headers.get('Tidelog-Position') ?? 0) }
}

async function several(wanted: Wanted, place: Place, signal: AbortSignal): Promise<Found> {
  const rows: FeedRow[] = []
  let at = place
  for (let read = 1; ; read++) {
    const { page: found } = await page(wanted, at, signal)
    for (const event of found.data) rows.push(rowOf(event))
    if (found.next_cursor === null || rows.length >= ENOUGH || read === MOST_READS)
      return { rows: place.newest_first === true ? rows.reverse() : rows, cursor: found.next_cursor }
    at = { ...place, cursor: found.next_cursor }
  }
}

/** The position of the newest event, whatever is wanted: what comes after it comes live. */
export async function headOf(signal: AbortSignal): Promise<number> {
  const { page: found, position } = await page({}, { newest_first: true, limit: 1 }, signal)
  return found.data[0]?.position ?? position
}

/** The newest events up to a position. */
export function newestUpTo(wanted: Wanted, position: number, signal: AbortSignal): Promise<Found> {
  return several(wanted, { newest_first: true, as_of: String(position) }, signal)
}

/** Older events than a page had. */
export function olderThan(wanted: Wanted, cursor: string, signal: AbortSignal): Promise<Found> {
  return several(wanted, { newest_first: true, cursor }, signal)
}

/** Events after a position. */
export function after(wanted: Wanted, position: number, cursor: string | null, signal: AbortSignal): Promise<Found> {
  return several(wanted, { after: String(position), ...(cursor === null ? {} : { cursor }) }, signal)
}

/** Events before a time, and from it on. */
export async function around(wanted: Wanted, time: string, signal: AbortSignal): Promise<[Found, Found]> {
  return Promise.all([
    several(wanted, { newest_first: true, recorded_before: time }, signal),
    several(wanted, { recorded_after: time }, signal),
  ])
}
