import { useEffect, useMemo, useState, useSyncExternalStore } from 'react'

import { api, dataOf } from '../../../api/client'
import type { EventRow } from '../../../api/types'
import { Windows } from './windows'

/** Which rows: all of a run, or those of some types. */
export interface Which {
  readonly runId: string
  /** Types of events, separated by commas. Null: all. */
  readonly types: string | null
}

/** Rows from a number on, or those around the event at a position. */
export async function readRows(
  { runId, types }: Which,
  place: { from?: number; around?: number; as_of?: string },
  limit: number,
  signal?: AbortSignal,
) {
  const query = { ...place, limit, ...(types === null ? {} : { types }) }
  const wanted = { params: { path: { run_id: runId }, query }, ...(signal === undefined ? {} : { signal }) }
  const found = dataOf(await api.GET('/v1/runs/{run_id}/rows', wanted))
  return { ...found, data: found.data as readonly EventRow[] }
}

interface Held {
  readonly windows: Windows<EventRow>
  users: number
}

/** What parts of the page look at now. All parts of one page share the rows; they are let go with the last of these parts. */
const held = new Map<string, Held>()

function open(key: string, which: Which): Held {
  let found = held.get(key)
  if (found === undefined) {
    found = { windows: new Windows((from, limit, signal) => readRows(which, { from }, limit, signal)), users: 0 }
    held.set(key, found)
  }
  return found
}

/** Keeps rows for one who looks. Returns what ends that. */
function hold(key: string, rows: Held): () => void {
  rows.users += 1
  held.set(key, rows)
  return () => {
    rows.users -= 1
    // The next part of the page may look at the same rows, in a moment.
    setTimeout(() => {
      if (rows.users === 0 && held.get(key) === rows) held.delete(key)
    }, 1000)
  }
}

/** The rows of a run, shared by all who look at them. Draws anew when some have come. */
export function useRows(runId: string, types: string | null = null): Windows<EventRow> {
  const key = JSON.stringify([runId, types])
  const mine = useMemo(() => open(key, { runId, types }), [key, runId, types])
  useEffect(() => hold(key, mine), [key, mine])
  useSyncExternalStore(mine.windows.watch, () => mine.windows.version)
  return mine.windows
}

/**
 * Says what somebody looks at, until they look no more. `pause`: milliseconds for which they must look at the same, so that what somebody
 * only passes by is not asked for.
 */
export function useWant(windows: Windows<EventRow>, first: number, last: number, pause = 0): void {
  const [who] = useState(() => ({}))
  useEffect(() => {
    if (pause === 0) {
      windows.want(who, first, last)
      return
    }
    const timer = setTimeout(() => windows.want(who, first, last), pause)
    return () => clearTimeout(timer)
  }, [windows, who, first, last, pause])
  useEffect(() => () => windows.leave(who), [windows, who])
}
