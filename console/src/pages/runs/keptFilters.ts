/** Filters that this browser keeps by name, for the tenant that is signed in: as addresses, so that old ones can be read for ever. */
import { type Filters, fromAddress, toAddress } from './filters'

const MOST = 100

function placeOf(tenant: string): string {
  return `tidelog-runs-${tenant}`
}

export type SavedFilters = Readonly<Record<string, string>>

export function savedFilters(tenant: string): SavedFilters {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(placeOf(tenant)) ?? '{}')
    if (typeof kept !== 'object' || kept === null) return {}
    return Object.fromEntries(Object.entries(kept).filter(([, address]) => typeof address === 'string'))
  } catch {
    return {}
  }
}

/** Keeps filters by a name, or forgets the name where they are null. */
export function save(tenant: string, name: string, filters: Filters | null): SavedFilters {
  const others = Object.entries(savedFilters(tenant)).filter(([known]) => known !== name)
  const own: [string, string][] = filters === null ? [] : [[name, toAddress(filters).toString()]]
  const next = Object.fromEntries([...others, ...own].slice(-MOST))
  try {
    localStorage.setItem(placeOf(tenant), JSON.stringify(next))
  } catch {
    // A browser that keeps nothing: the names are there until the page is left.
  }
  return next
}

export function opened(address: string): Filters {
  return fromAddress(new URLSearchParams(address))
}
