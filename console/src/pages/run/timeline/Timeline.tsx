import './timeline.css'

import { useVirtualizer } from '@tanstack/react-virtual'
import { useEffect, useMemo, useRef, useState } from 'react'
import { Link } from 'wouter'

import { api, dataOf } from '../../../api/client'
import { type Page, usePages } from '../../../api/pages'
import { useNow } from '../../../ui/clock'
import { Loading, ProblemBox } from '../../../ui/States'
import { duration } from '../../../ui/time'
import { partHref } from '../address'
import { useCalls } from '../Calls'
import { goesOn } from '../data'
import { asOf } from '../moment'
import type { PartProps } from '../RunPage'
import { placeOf, type Row, rowsOf, type Span, type SpanEvent, ticks, TYPES, wholeOf, zoomed } from './spans'

/** Calls up to which all steps are open at first. */
const FEW_CALLS = 100
const FEW_STEPS = 40

/** Steps, attempts, calls, retries, waits and effects that are taken back, as bars over time. */
export function Timeline({ run, at }: PartProps) {
  const calls = useCalls(run.run_id, at)
  const events = usePages<SpanEvent>(['run', run.run_id, 'spans', at], async (cursor, signal) => {
    const query = { limit: 1000, types: TYPES.join(','), ...cursor, ...asOf(at) }
    const params = { path: { run_id: run.run_id }, query }
    // The same route answers with a stream where one is asked for.
    return dataOf(await api.GET('/v1/runs/{run_id}/events', { params, signal })) as unknown as Page<SpanEvent>
  })
  const few = run.call_count <= FEW_CALLS && run.steps.length <= FEW_STEPS
  const [turned, setTurned] = useState<ReadonlySet<string>>(new Set())
  const [zoom, setZoom] = useState<Span | null>(null)
  const [seen, setSeen] = useState<Row | null>(null)
  const clock = useNow()
  const rows = useMemo(() => {
    const failed = new Set(run.steps.filter(step => step.status === 'failed').map(step => step.key))
    const open = (key: string) => (few || failed.has(key)) !== turned.has(key)
    return rowsOf({ run, calls: calls.rows, events: events.rows, open })
    // The rows of a query are new objects each time; its time says whether they changed.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [run, calls.dataUpdatedAt, events.dataUpdatedAt, few, turned])
  const live = at === null && goesOn(run)
  const now = live ? Math.max(clock, Date.parse(run.updated_at)) : Date.parse(run.updated_at)
  const whole = wholeOf(rows, now)
  const shown = zoom ?? whole
  if (events.isPending || calls.isPending) return <Loading what="the timeline" />
  if (events.isError) return <ProblemBox error={events.error} retry={() => void events.refetch()} />
  const begun = rows.filter(row => row.kind === 'step').length
  const turn = (key: string) =>
    setTurned(before => {
      const next = new Set(before)
      if (!next.delete(key)) next.add(key)
      return next
    })
  return (
    <section className="stack" aria-label="Timeline" data-testid="timeline">
      <div className="spread">
        <div className="row" role="group" aria-label="Which time is shown">
          <button type="button" className="button small" onClick={() => setZoom(zoomed(shown, whole, 0.5))}>
            Zoom in
          </button>
          <button
            type="button"
            className="button small"
            disabled={zoom === null}
            onClick={() => setZoom(zoomed(shown, whole, 2))}
          >
            Zoom out
          </button>
          <button
            type="button"
            className="button small"
            disabled={zoom === null}
            onClick={() => setZoom(zoomed(shown, whole, 1, -0.5))}
          >
            Earlier
          </button>
          <button
            type="button"
            className="button small"
            disabled={zoom === null}
            onClick={() => setZoom(zoomed(shown, whole, 1, 0.5))}
          >
            Later
          </button>
          <button type="button" className="button small" disabled={zoom === null} onClick={() => setZoom(null)}>
            All
          </button>
        </div>
        <Legend />
      </div>
      <p className="timeline-seen" role="status">
        {seen === null ? (
          <span className="soft">
            {begun} of {run.steps.length} steps have begun. Point at a row, or go to it by the keyboard, for its exact
            times.
          </span>
        ) : (
          <Seen row={seen} now={now} />
        )}
      </p>
      <Bars
        rows={rows}
        shown={shown}
        origin={whole.from}
        now={now}
        live={live}
        runId={run.run_id}
        at={at}
        onSeen={setSeen}
        onTurn={turn}
        isOpen={key => rows.some(row => row.depth === 2 && row.step === key)}
        onZoom={row => setZoom(around(row, now))}
        onMore={calls.hasNextPage && !calls.isFetchingNextPage ? () => void calls.fetchNextPage() : undefined}
      />
      {events.hasNextPage && (
        <div>
          <button
            type="button"
            className="button"
            disabled={events.isFetchingNextPage}
            onClick={() => void events.fetchNextPage()}
          >
            Load more attempts and waits
          </button>
        </div>
      )}
    </section>
  )
}

function around(row: Row, now: number): Span {
  const { from, to } = wholeOf([row], now)
  const edge = (to - from) * 0.05
  return { from: from - edge, to: to + edge }
}

function Legend() {
  return (
    <ul className="legend" aria-label="Colours">
      {[
        ['good', 'done'],
        ['bad', 'failed'],
        ['busy', 'works'],
        ['warn', 'waits'],
        ['quiet', 'queue, delay'],
      ].map(([look, name]) => (
        <li key={look}>
          <span className={`swatch ${look}`} aria-hidden="true" /> {name}
        </li>
      ))}
    </ul>
  )
}

function exact(at: number | null): string {
  return at === null ? 'now' : new Date(at).toISOString().slice(11, 23)
}

function Seen({ row, now }: { readonly row: Row; readonly now: number }) {
  const { from, to } = wholeOf([row], now)
  return (
    <>
      <strong className="mono">{row.label}</strong> {row.status}, {duration(to - from)}:{' '}
      {row.stretches.slice(0, 8).map((each, n) => (
        <span key={n} className="timeline-stretch">
          {exact(each.from)} – {exact(each.to)} {each.what} ({duration((each.to ?? now) - each.from)})
        </span>
      ))}
    </>
  )
}

interface BarsProps {
  readonly rows: readonly Row[]
  readonly shown: Span
  readonly origin: number
  readonly now: number
  readonly live: boolean
  readonly runId: string
  readonly at: string | null
  readonly onSeen: (row: Row) => void
  readonly onTurn: (step: string) => void
  readonly isOpen: (step: string) => boolean
  readonly onZoom: (row: Row) => void
  readonly onMore: (() => void) | undefined
}

const ROW_PX = 28

function Bars(props: BarsProps) {
  const { rows, shown, origin, now, live } = props
  const scroller = useRef<HTMLDivElement>(null)
  // The library's functions change with each scroll; that is what this component is for.
  // eslint-disable-next-line react-hooks/incompatible-library
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PX,
    getItemKey: index => rows[index]?.id ?? index,
    overscan: 15,
    initialRect: { width: 800, height: 600 },
  })
  const latest = useRef(props)
  useEffect(() => {
    latest.current = props
  })
  useEffect(() => {
    const box = scroller.current
    const see = (event: Event) => {
      const row = (event.target as Element).closest<HTMLElement>('[data-index]')
      const found = latest.current.rows[Number(row?.dataset['index'] ?? -1)]
      if (found !== undefined) latest.current.onSeen(found)
    }
    box?.addEventListener('pointerover', see)
    box?.addEventListener('focusin', see)
    return () => {
      box?.removeEventListener('pointerover', see)
      box?.removeEventListener('focusin', see)
    }
  }, [])
  const size = shown.to - shown.from
  const nowAt = live && now >= shown.from && now <= shown.to ? ((now - shown.from) / size) * 100 : null
  return (
    <div className="timeline" ref={scroller}>
      <div className="timeline-axis" aria-hidden="true">
        <div className="timeline-track">
          {ticks(shown, origin).map(tick => (
            <span key={tick} className="tick" style={{ left: `${((tick - shown.from) / size) * 100}%` }}>
              {tick === origin ? '0' : `+${duration(tick - origin)}`}
            </span>
          ))}
        </div>
      </div>
      <ul className="timeline-rows" style={{ height: virtual.getTotalSize() }}>
        {virtual.getVirtualItems().map(item => {
          const row = rows[item.index]
          return row === undefined ? null : (
            <li
              key={item.key}
              className="timeline-row"
              data-testid="timeline-bar"
              data-kind={row.kind}
              data-status={row.status}
              style={{ transform: `translateY(${item.start}px)` }}
              data-index={item.index}
            >
              <Label {...props} row={row} />
              <button
                type="button"
                className="timeline-track"
                tabIndex={-1}
                aria-hidden="true"
                onClick={() => props.onZoom(row)}
              >
                {row.stretches.map((each, n) => {
                  const place = placeOf(each, shown, now)
                  return place === null ? null : (
                    <span
                      key={n}
                      className={`bar ${row.kind} ${each.look} ${each.to === null ? 'open' : ''}`}
                      style={{ left: `${place.left}%`, width: `max(2px, ${place.width}%)` }}
                    />
                  )
                })}
                {nowAt !== null && <span className="now-line" style={{ left: `${nowAt}%` }} />}
              </button>
            </li>
          )
        })}
      </ul>
    </div>
  )
}

function Label({ row, runId, at, onTurn, isOpen, onMore }: BarsProps & { readonly row: Row }) {
  const step = row.step
  const place =
    step === null
      ? ''
      : partHref(
          runId,
          row.call === undefined ? 'overview' : 'calls',
          at,
          row.call === undefined ? { step } : { call: row.call },
        )
  return (
    <div className={`timeline-label depth-${row.depth}`}>
      {row.opens && step !== null ? (
        <button
          type="button"
          className="turn"
          aria-expanded={isOpen(step)}
          aria-label={`Rows of ${step}`}
          onClick={() => onTurn(step)}
        >
          {isOpen(step) ? '▾' : '▸'}
        </button>
      ) : (
        <span className="turn" aria-hidden="true" />
      )}
      {row.missing !== undefined ? (
        <button type="button" className="link" disabled={onMore === undefined} onClick={onMore}>
          Load {row.label}
        </button>
      ) : step === null ? (
        // A row without a place of its own is reached by the keyboard for its times.
        // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
        <span tabIndex={0} className="clip">
          {row.label}
        </span>
      ) : (
        <Link className="clip mono" href={place} title={row.label}>
          {row.label}
        </Link>
      )}
      <span className="hidden">
        {row.kind}, {row.status}
      </span>
    </div>
  )
}
