import { useQuery } from '@tanstack/react-query'
import { useEffect, useRef } from 'react'
import { Link } from 'wouter'

import { api, dataOf } from '../../api/client'
import { SERVER } from '../../api/place'
import type { components } from '../../api/schema'
import { Copy, Id } from '../../ui/Copy'
import { Json } from '../../ui/Json'
import { Loading, ProblemBox } from '../../ui/States'
import { Time } from '../../ui/Time'
import type { FeedFilter } from './filter'
import { rowOf, runOf } from './rows'

type Event = components['schemas']['CloudEvent']

interface Props {
  readonly position: string
  readonly onFilter: (change: Partial<FeedFilter>) => void
  readonly onClose: () => void
}

/** The whole event, beside the rows. */
export function EventPanel({ position, onFilter, onClose }: Props) {
  const panel = useRef<HTMLElement>(null)
  const event = useQuery({
    queryKey: ['event', position],
    queryFn: async ({ signal }) =>
      dataOf<Event>(
        await api.GET('/v1/events/{position}', { params: { path: { position: Number(position) } }, signal }),
      ),
  })
  useEffect(() => {
    const before = document.activeElement
    panel.current?.focus()
    return () => {
      if (before instanceof HTMLElement) before.focus()
    }
  }, [])
  return (
    // Escape closes it, wherever the focus is inside.
    // eslint-disable-next-line jsx-a11y/no-noninteractive-element-interactions
    <section
      className="panel stack feed-panel"
      aria-label={`Event ${position}`}
      tabIndex={-1}
      ref={panel}
      onKeyDown={pressed => {
        if (pressed.key === 'Escape') onClose()
      }}
    >
      <div className="spread">
        <h2>Event {position}</h2>
        <button type="button" className="button small" onClick={onClose}>
          Close
        </button>
      </div>
      {event.isPending && <Loading what="the event" />}
      {event.isError && <ProblemBox error={event.error} retry={() => void event.refetch()} />}
      {event.isSuccess && <Whole event={event.data} onFilter={onFilter} />}
    </section>
  )
}

function Whole({ event, onFilter }: { readonly event: Event; readonly onFilter: Props['onFilter'] }) {
  const run = runOf(rowOf(event))
  const path = `${location.origin}${SERVER}/v1/events/${event.position}`
  return (
    <>
      <div className="row">
        <strong className="mono">{event.type}</strong>
        <Time of={event.time} />
      </div>
      <div className="row">
        {run !== null && (
          <>
            <Link className="button small" href={`/runs/${run}`}>
              Run
            </Link>
            <Link className="button small" href={`/runs/${run}/events?event=${event.position}`}>
              Why it happened
            </Link>
            <Link className="button small" href={`/runs/${run}?at=${event.position}`}>
              The run at this moment
            </Link>
            <button type="button" className="button small" onClick={() => onFilter({ run: event.rootid })}>
              Only this run
            </button>
          </>
        )}
        <button type="button" className="button small" onClick={() => onFilter({ types: [event.type] })}>
          Only this type
        </button>
      </div>
      <dl className="facts">
        <dt>Recorded</dt>
        <dd className="mono">{event.time}</dd>
        <dt>By</dt>
        <dd>
          <Fact value={event.actor} onOnly={() => onFilter({ actor: event.actor })} />
        </dd>
        {event.onbehalfof !== undefined && (
          <>
            <dt>On behalf of</dt>
            <dd>
              <Fact value={event.onbehalfof} onOnly={() => onFilter({ behalf: event.onbehalfof ?? '' })} />
            </dd>
          </>
        )}
        <dt>Stream</dt>
        <dd>
          <Id of={event.subject} what="stream id" /> version {event.streamversion}
        </dd>
        <dt>Caused by</dt>
        <dd>
          <Id of={event.causationid} what="cause" />
        </dd>
        <dt>Correlation</dt>
        <dd>
          <Id of={event.correlationid} what="correlation id" />
        </dd>
      </dl>
      <Json of={event.data ?? event['dataref'] ?? event['data_base64'] ?? null} what="data of the event" />
      <div className="row">
        <span className="soft">
          Event as JSON <Copy text={JSON.stringify(event, null, 2)} what="event" />
        </span>
        <span className="soft">
          For curl <Copy text={`curl -H "Authorization: Bearer $TIDELOG_API_KEY" ${path}`} what="as curl" />
        </span>
      </div>
    </>
  )
}

function Fact({ value, onOnly }: { readonly value: string; readonly onOnly: () => void }) {
  return (
    <span className="row">
      <span className="mono">{value}</span>
      <button type="button" className="button plain small" onClick={onOnly} aria-label={`Only events of ${value}`}>
        only
      </button>
    </span>
  )
}
