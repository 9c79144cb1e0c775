import './feed.css'

import { useQuery } from '@tanstack/react-query'
import { useSearchParams } from 'wouter'

import { api, dataOf } from '../../api/client'
import { Loading, ProblemBox } from '../../ui/States'
import { EventPanel } from './EventPanel'
import { Filters } from './Filters'
import { filterOf, isId, typesOf, unknownOf, withFilter } from './filter'
import { FeedRows } from './FeedRows'
import type { Wanted } from './read'
import { useTail } from './useTail'

/** The names of all events that the server records. They change with a release alone. */
export function useKnownTypes() {
  return useQuery({
    queryKey: ['schemas'],
    queryFn: async ({ signal }) => {
      const index = dataOf(await api.GET('/schemas', { signal }))
      return [...new Set(index.events.map(event => event.type))]
    },
  })
}

/** All that happens, as it happens: the events of the tenant. */
export default function FeedPage() {
  const [params, setParams] = useSearchParams()
  const known = useKnownTypes()
  const filter = filterOf(params)
  const time = params.get('at')
  const open = params.get('event')
  const set = (change: (before: URLSearchParams) => URLSearchParams) => setParams(change, { replace: true })
  const setOne = (name: string, value: string | null) =>
    set(before => {
      const next = new URLSearchParams(before)
      if (value === null) next.delete(name)
      else next.set(name, value)
      return next
    })
  if (known.isPending) return <Loading what="the feed" />
  if (known.isError) return <ProblemBox error={known.error} retry={() => void known.refetch()} />
  const unknown = unknownOf(filter.types, known.data)
  const faults = [
    ...unknown.map(type => `No event is of the type ${type}.`),
    ...(filter.run === '' || isId(filter.run) ? [] : ['The id of a run is a UUID.']),
    ...(time === null || !Number.isNaN(Date.parse(time)) ? [] : ['The time in the address is no time.']),
  ]
  const wanted: Wanted = {
    types: typesOf(filter.types, known.data),
    run: filter.run === '' ? undefined : filter.run,
    actor: filter.actor === '' ? undefined : filter.actor,
    behalf: filter.behalf === '' ? undefined : filter.behalf,
  }
  return (
    <div className="feed-page">
      <h1>Feed</h1>
      <Filters
        filter={filter}
        time={time}
        known={known.data}
        onChange={change => set(before => withFilter(before, change))}
        onTime={at => setOne('at', at)}
      />
      {faults.map(fault => (
        <p key={fault} className="fault" role="alert">
          {fault}
        </p>
      ))}
      {faults.length === 0 && (
        <div className={`feed-split ${open === null ? '' : 'has-panel'}`}>
          <Shown
            key={JSON.stringify([wanted, time])}
            wanted={wanted}
            time={time}
            open={open}
            onOpen={position => setOne('event', String(position))}
            onNow={() => setOne('at', null)}
          />
          {open !== null && (
            <EventPanel
              key={open}
              position={open}
              onFilter={change => set(before => withFilter(before, change))}
              onClose={() => setOne('event', null)}
            />
          )}
        </div>
      )}
    </div>
  )
}

interface ShownProps {
  readonly wanted: Wanted
  readonly time: string | null
  readonly open: string | null
  readonly onOpen: (position: number) => void
  readonly onNow: () => void
}

function Shown({ wanted, time, open, onOpen, onNow }: ShownProps) {
  const live = useTail(wanted, time)
  if (live.state.is === 'failed') return <ProblemBox error={live.state.error} retry={live.again} />
  if (live.state.is === 'loading') return <Loading what="events" />
  return (
    <FeedRows live={live} from={live.state.from} open={open} onOpen={onOpen} onNow={time === null ? null : onNow} />
  )
}
