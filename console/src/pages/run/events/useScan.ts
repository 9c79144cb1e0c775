import { useEffect, useRef, useState } from 'react'

import type { EventRow } from '../../../api/types'
import { readRows } from '../past/rows'
import { scan, type Scanned } from './scan'

const NOTHING: Scanned<EventRow> = { rows: [], looked: 0, total: 0, done: false, more: false }
/** Milliseconds after the last key before looking begins. */
const PAUSE_MS = 200

interface Result extends Scanned<EventRow> {
  readonly error: unknown
}

/**
 * The rows that match, as far as they have been found. `wanted`: what `matches` looks for, as a text. `total`: how many rows there are; when
 * there are more, looking goes on behind those that were looked at.
 */
export function useScan(
  enabled: boolean,
  runId: string,
  types: string | null,
  wanted: string,
  matches: (row: EventRow) => boolean,
  total: number | null,
): Result {
  const key = JSON.stringify([runId, types, wanted])
  const [found, setFound] = useState<{ key: string; result: Result }>({ key: '', result: { ...NOTHING, error: null } })
  const latest = useRef({ matches, found })
  useEffect(() => {
    latest.current = { matches, found }
  })
  useEffect(() => {
    if (!enabled || total === null) return
    const stop = new AbortController()
    const before = latest.current.found.key === key ? latest.current.found.result : null
    const from = before === null || before.looked > total ? null : before
    if (from !== null && from.looked === total && from.done) return
    const read = async (first: number, limit: number, signal: AbortSignal) => {
      // Of the past, what came later is not looked at.
      const found = await readRows(
        { runId, types },
        { from: first },
        Math.max(1, Math.min(limit, total - first)),
        signal,
      )
      return { data: found.data, total }
    }
    const timer = setTimeout(
      () => {
        void (async () => {
          try {
            for await (const result of scan(read, row => latest.current.matches(row), stop.signal, from)) {
              setFound({ key, result: { ...result, error: null } })
            }
          } catch (error) {
            if (stop.signal.aborted) return
            setFound({
              key,
              result: { ...(latest.current.found.key === key ? latest.current.found.result : NOTHING), error },
            })
          }
        })()
      },
      from === null ? PAUSE_MS : 0,
    )
    return () => {
      clearTimeout(timer)
      stop.abort()
    }
  }, [enabled, key, runId, types, total])
  return found.key === key ? found.result : { ...NOTHING, error: null }
}
