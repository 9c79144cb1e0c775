import { useQuery } from '@tanstack/react-query'
import { useMemo } from 'react'

import type { EventRow } from '../../../api/types'
import { type Mark, MARKED, markOf, type Tick, ticksOf } from './marks'
import { readRows, useRows, useWant } from './rows'
import { numberOf, type Place, share, spread } from './slider'
import type { Windows } from './windows'

/** Marks that are looked at: the first ones of a run. Many more would be a bar of marks. */
const MOST = 2_000
/** Places of a long run that are asked for, so that marks stand where they belong. */
const PLACES = 24

export interface Marked {
  readonly position: number
  readonly mark: Mark
}

/** The marked events of a run, in order, and their ticks on the slider. */
export function useMarks(runId: string, rows: Windows<EventRow>): { marks: readonly Marked[]; ticks: readonly Tick[] } {
  const total = rows.total ?? 0
  const marked = useRows(runId, MARKED)
  useWant(marked, 0, Math.min(MOST, Math.max(1, marked.total ?? 1)) - 1)
  const places = usePlaces(runId, total)
  const [rowsSeen, marksSeen] = [rows.version, marked.version]
  return useMemo(() => {
    const known = new Map<number, Place>()
    for (const place of places ?? []) known.set(place.number, place)
    for (const [number, row] of rows.ends()) known.set(number, { number, position: row.position })
    const sorted = [...known.values()].sort((one, other) => one.number - other.number)
    const marks: Marked[] = []
    for (let number = 0; number < Math.min(MOST, marked.total ?? 0); number += 1) {
      const row = marked.row(number)
      const mark = row === undefined ? null : markOf(row.type)
      if (row !== undefined && mark !== null) marks.push({ position: row.position, mark })
    }
    const ticks = marks.map(({ position, mark }) => ({ at: share(numberOf(position, sorted), total + 1), mark }))
    return { marks, ticks: ticksOf(ticks) }
    // The rows are kept outside of React; their versions tell that there are others.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [rows, marked, places, total, rowsSeen, marksSeen])
}

/** Positions of some events, spread over a long run. Of a short one all rows are here. */
function usePlaces(runId: string, total: number): readonly Place[] | undefined {
  // A run that goes on asks again when it has become half as long again.
  const size = total === 0 ? 0 : Math.ceil(Math.log(total) / Math.log(1.5))
  return useQuery({
    queryKey: ['places', runId, size],
    enabled: total > MOST,
    staleTime: 'static',
    queryFn: async ({ signal }) => {
      const found: Place[] = []
      for (const number of spread(total, PLACES)) {
        const row = (await readRows({ runId, types: null }, { from: number }, 1, signal)).data[0]
        if (row !== undefined) found.push({ number, position: row.position })
      }
      return found
    },
  }).data
}
