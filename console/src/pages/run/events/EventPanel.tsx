import { useEffect, useRef } from 'react'

import { CONSOLE } from '../../../api/place'
import type { CloudEvent } from '../../../api/types'
import { Copy, Id } from '../../../ui/Copy'
import { Json } from '../../../ui/Json'
import { Loading, ProblemBox } from '../../../ui/States'
import { Time } from '../../../ui/Time'
import { useEvent } from '../past/useEvent'
import { toneOfType } from './phrases'
import { CameOfIt, Why } from './Why'

interface Props {
  readonly runId: string
  readonly position: number
  readonly onOpen: (position: number | null) => void
  readonly onMoment: (position: number) => void
}

/** One event: all that it says, who and what it is of, and why it happened. */
export function EventPanel({ runId, position, onOpen, onMoment }: Props) {
  const panel = useRef<HTMLElement>(null)
  const event = useEvent(position)
  useEffect(() => {
    if (panel.current !== null && panel.current.getBoundingClientRect().top > window.innerHeight - 80) {
      panel.current.scrollIntoView({ block: 'start' })
    }
  }, [position])
  const close = useRef(onOpen)
  useEffect(() => {
    close.current = onOpen
  })
  useEffect(() => {
    const onKey = (press: KeyboardEvent) => {
      if (press.key === 'Escape' && !press.defaultPrevented && document.querySelector('dialog[open]') === null) {
        close.current(null)
      }
    }
    document.addEventListener('keydown', onKey)
    return () => document.removeEventListener('keydown', onKey)
  }, [])
  return (
    <aside ref={panel} className="event-panel panel stack" aria-label={`Event ${position}`}>
      <div className="spread">
        <h2 className={`mono ${event.data === undefined ? '' : toneOfType(event.data.type)}`}>
          {event.data?.type ?? `Event ${position}`}
        </h2>
        <button type="button" className="button small plain" aria-label="Close the event" onClick={() => onOpen(null)}>
          ✕
        </button>
      </div>
      {event.isPending && <Loading what="the event" />}
      {event.isError && <ProblemBox error={event.error} retry={() => void event.refetch()} />}
      {event.data !== undefined && (
        <>
          <div className="row">
            <button type="button" className="button small" onClick={() => onMoment(position)}>
              Show the run at this moment
            </button>
            <Copy text={addressOf(runId, position)} what="link to this event" />
            <Copy text={JSON.stringify(event.data, null, 2)} what="whole event" />
          </div>
          <Why key={`why ${position}`} position={position} runId={runId} onOpen={onOpen} />
          <Json of={event.data.data ?? null} what="data of the event" />
          <CameOfIt key={`effects ${position}`} position={position} runId={runId} onOpen={onOpen} />
          <Facts event={event.data} />
        </>
      )}
    </aside>
  )
}

/** What to send to somebody who should see this event. */
function addressOf(runId: string, position: number): string {
  return `${location.origin}${CONSOLE}/runs/${runId}/events?event=${position}`
}

function Facts({ event }: { readonly event: CloudEvent }) {
  const [, version] = /\/v(\d+)$/.exec(event.dataschema) ?? []
  const trace = event.traceparent?.split('-')[1]
  return (
    <dl className="facts">
      <dt>position</dt>
      <dd className="mono">{event.position}</dd>
      <dt>time</dt>
      <dd>
        <span className="mono">{event.time}</span> <Time of={event.time} />
      </dd>
      <dt>event</dt>
      <dd>
        <Id of={event.id} what="event id" />
      </dd>
      <dt>actor</dt>
      <dd className="mono">{event.actor}</dd>
      {event.onbehalfof !== undefined && (
        <>
          <dt>on behalf of</dt>
          <dd className="mono">{event.onbehalfof}</dd>
        </>
      )}
      <dt>caused by</dt>
      <dd>
        <Id of={event.causationid} what="id of the cause" />
      </dd>
      <dt>correlation</dt>
      <dd>
        <Id of={event.correlationid} what="correlation id" />
      </dd>
      {trace !== undefined && (
        <>
          <dt>trace</dt>
          <dd>
            <Id of={trace} what="trace id" />
          </dd>
        </>
      )}
      <dt>schema</dt>
      <dd className="mono">
        {event.type} version {version ?? '?'}
      </dd>
    </dl>
  )
}
