import './events.css'

import { useQuery } from '@tanstack/react-query'
import { useSearchParams } from 'wouter'

import { api, dataOf } from '../../../api/client'
import { Empty, Loading, ProblemBox } from '../../../ui/States'
import { isOver } from '../data'
import { useMoment } from '../moment'
import { useRows, useWant } from '../past/rows'
import type { PartProps } from '../RunPage'
import { EventList } from './EventList'
import { EventPanel } from './EventPanel'
import { matcher, typesOf, useFilters } from './filters'
import { Toolbar } from './Toolbar'
import { useCountUntil } from './useCountUntil'
import { useScan } from './useScan'

/** All events of a run, however many, up to the moment that is shown. */
export function EventsTab({ run, at }: PartProps) {
  const [filters, setFilters] = useFilters()
  const [params, setParams] = useSearchParams()
  const [, setMoment] = useMoment()
  const opened = positionOf(params.get('event'))
  const known = useTypes()
  const types = typesOf(filters.types, known.data ?? [])
  // Without the types, a filter of types would be no filter, and all rows would be read first.
  const ready = filters.types.length === 0 || known.data !== undefined
  const rows = useRows(run.run_id, types)
  // How many there are is known from the first rows; the list asks for more once it is there.
  useWant(rows, 0, 0)
  const until = useCountUntil(run.run_id, types, at)
  const looks = filters.step !== '' || filters.find.trim() !== ''
  const count = at === null ? rows.total : until
  const scanned = useScan(ready && looks, run.run_id, types, `${filters.step} ${filters.find}`, matcher(filters), count)
  const open = (position: number | null) =>
    setParams(
      before => {
        const next = new URLSearchParams(before)
        if (position === null) next.delete('event')
        else next.set('event', String(position))
        return next
      },
      { replace: true },
    )
  const error = looks ? (scanned.error ?? rows.error) : rows.error
  const shown = looks ? scanned.rows.length : (count ?? 0)
  return (
    <div className="events">
      <Toolbar
        filters={filters}
        change={setFilters}
        steps={run.steps.map(step => step.key)}
        types={known.data ?? []}
        shown={looks ? scanned.rows.length : count}
        total={run.event_count}
        looking={looks && !scanned.done ? scanned.looked : null}
        more={looks && scanned.more}
      />
      {error !== null && <ProblemBox error={error} retry={() => rows.retry()} />}
      <div className={opened === null ? 'events-both' : 'events-both open'}>
        {count === null || !ready ? (
          error === null && <Loading what="events" />
        ) : shown === 0 ? (
          <Empty>{looks && !scanned.done ? 'Looking …' : 'No event is like that.'}</Empty>
        ) : (
          <EventList
            key={`${types ?? ''} ${filters.step} ${filters.find}`}
            rows={rows}
            found={looks ? scanned.rows : null}
            count={shown}
            opened={opened}
            which={{ runId: run.run_id, types }}
            startAtEnd={at !== null}
            live={at === null && !isOver(run)}
            onOpen={open}
          />
        )}
        {opened !== null && (
          <EventPanel
            runId={run.run_id}
            position={opened}
            onOpen={open}
            onMoment={position => setMoment(String(position))}
          />
        )}
      </div>
    </div>
  )
}

function positionOf(text: string | null): number | null {
  return text !== null && /^[1-9]\d{0,17}$/.test(text) ? Number(text) : null
}

/** All types of events that there are. */
function useTypes() {
  return useQuery({
    queryKey: ['event-types'],
    staleTime: 'static',
    queryFn: async ({ signal }) => {
      const found = dataOf(await api.GET('/schemas', { signal })) as unknown as { events: readonly { type: string }[] }
      return [...new Set(found.events.map(event => event.type))].sort()
    },
  })
}
