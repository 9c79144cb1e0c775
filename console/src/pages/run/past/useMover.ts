import { useIsFetching, useQuery, useQueryClient } from '@tanstack/react-query'
import { useEffect, useState } from 'react'

import type { EventRow } from '../../../api/types'
import { useMoment } from '../moment'
import { readRows, useWant } from './rows'
import type { Windows } from './windows'

/** Of a run with at most so many events all rows are read, so that the slider knows every position. */
const ALL = 2_000

export interface Mover {
  /** The number of the event that is shown, or that was moved to. As many as there are events: now. Null: not known yet. */
  readonly number: number | null
  /** Whether all parts of the page show this moment. */
  readonly settled: boolean
  readonly move: (number: number) => void
}

/**
 * Moves the moment of the page by numbers of events.
 *
 * While the page still reads what belongs to one moment, the slider moves on alone. When the page has it, the newest place counts, and those
 * between are left out. So there is never more than one moment on its way, however fast somebody moves.
 */
export function useMover(runId: string, rows: Windows<EventRow>): Mover {
  const [at, setAt] = useMoment()
  const client = useQueryClient()
  const [draft, setDraft] = useState<number | null>(null)
  const total = rows.total ?? 0
  const shown = useNumber(runId, at)
  const number = draft ?? (at === null ? rows.total : shown)
  const busy = useIsFetching({ queryKey: ['run', runId], type: 'active' }) > 0
  const near = Math.min(number ?? 0, Math.max(0, total - 1))
  useWant(rows, total <= ALL ? 0 : near, total <= ALL ? Math.max(0, total - 1) : near)
  const target = draft === null || draft >= total ? null : (rows.row(draft)?.position ?? undefined)
  useEffect(() => {
    if (draft === null || busy || target === undefined) return
    const frame = requestAnimationFrame(() => {
      const next = target === null ? null : String(target)
      if (next !== null) client.setQueryData(numberKey(runId, next), draft)
      if (next !== at) setAt(next)
      setDraft(null)
    })
    return () => cancelAnimationFrame(frame)
  }, [draft, busy, target, at, setAt, client, runId])
  return { number, settled: draft === null && !busy && number !== null, move: setDraft }
}

function numberKey(runId: string, at: string | null): readonly unknown[] {
  return ['number', runId, at]
}

/** The number of the last event up to a moment; -1: before the first. Null: not known yet, or there is no such moment. */
function useNumber(runId: string, at: string | null): number | null {
  const found = useQuery({
    queryKey: numberKey(runId, at),
    enabled: at !== null,
    staleTime: 'static',
    queryFn: async ({ signal }) =>
      (await readRows({ runId, types: null }, at === null ? {} : { as_of: at }, 1, signal)).total - 1,
  })
  return found.data ?? null
}
