import { type KeyboardEvent, useEffect, useLayoutEffect, useRef, useState } from 'react'
import { Link } from 'wouter'

import { Empty, ProblemBox } from '../../ui/States'
import { type FeedRow, runOf, toneOfType } from './rows'
import { MOST_ROWS } from './tail'
import type { LiveTail } from './useTail'

const OVERSCAN = 12
const NARROW_PX = 640

interface Props {
  readonly live: LiveTail
  /** The row that stands at the top at first, where the page shows a time. Null: the end. */
  readonly from: number | null
  readonly open: string | null
  readonly onOpen: (position: number) => void
  /** Back from a time to what comes now. Null: that is shown. */
  readonly onNow: (() => void) | null
}

/**
 * The rows in sight, of rows of one height. They are placed here and not by a library: when rows come in front or go, those in
 * sight must not move, and while the page follows, what is in sight is known before the browser has scrolled.
 */
export function FeedRows({ live, from, open, onOpen, onNow }: Props) {
  const { tail, reading, readOlder, readNewer } = live
  const scroller = useRef<HTMLDivElement>(null)
  const [top, setTop] = useState(0)
  const [size, setSize] = useState({ height: 600, narrow: false })
  const [paused, setPaused] = useState(false)
  const [active, setActive] = useState<number | null>(null)
  const placed = useRef({ first: tail.first, top: 0, rowHeight: 0, begun: false })
  const rowHeight = size.narrow ? 50 : 30
  const count = tail.rows.length
  const last = tail.end
  const { following, joined, first } = tail

  useEffect(() => {
    const box = scroller.current
    if (box === null) return
    const observer = new ResizeObserver(() =>
      setSize({ height: box.clientHeight, narrow: box.clientWidth < NARROW_PX }),
    )
    observer.observe(box)
    return () => observer.disconnect()
  }, [])

  // After each rendering, before it is painted: the end stays in sight, or the rows in sight stay where they are.
  useLayoutEffect(() => {
    const box = scroller.current
    if (box === null) return
    const before = placed.current
    const moved = before.first - first
    if (following) box.scrollTop = box.scrollHeight
    else if (!before.begun && from !== null) box.scrollTop = from * rowHeight
    else if (before.rowHeight !== rowHeight) box.scrollTop = (before.top / before.rowHeight) * rowHeight
    else if (moved !== 0) box.scrollTop += moved * rowHeight
    placed.current = { first, top: box.scrollTop, rowHeight, begun: true }
    if (!following && box.scrollTop !== top) setTop(box.scrollTop)
  }, [first, count, following, from, rowHeight, top, last, size.height])

  const inSight = Math.ceil(size.height / rowHeight)
  const start = Math.max(0, (following ? count - inSight : Math.floor(top / rowHeight)) - OVERSCAN)
  const end = Math.min(count, start + inSight + 2 * OVERSCAN)
  const wantsOlder = tail.older && reading === null && live.fault === null && !following && start === 0
  useEffect(() => {
    if (wantsOlder) readOlder()
  }, [wantsOlder, readOlder])
  const wantsNewer = !joined && reading === null && live.fault === null && end === count
  useEffect(() => {
    if (wantsNewer) readNewer()
  }, [wantsNewer, readNewer])

  const onScroll = () => {
    const box = scroller.current
    if (box === null) return
    setTop(box.scrollTop)
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < rowHeight
    if (following && box.scrollTop < placed.current.top - 4) live.hold()
    else if (!following && !paused && atEnd && joined && onNow === null) live.follow()
  }
  const pause = () => {
    setPaused(true)
    live.hold()
  }
  const goOn = () => {
    setPaused(false)
    if (onNow === null) live.follow()
    else onNow()
  }

  const openOne = (position: number) => {
    live.hold() // the row stays where it is
    onOpen(position)
  }

  const go = (to: number) => {
    const box = scroller.current
    const index = Math.max(0, Math.min(count - 1, to))
    const row = tail.rows[index]
    if (box === null || row === undefined) return
    setActive(row.position)
    if (index < count - 1) live.hold()
    const y = index * rowHeight
    if (y < box.scrollTop) box.scrollTop = y
    else if (y + rowHeight > box.scrollTop + box.clientHeight) box.scrollTop = y + rowHeight - box.clientHeight
    requestAnimationFrame(() => box.querySelector<HTMLElement>(`[data-position="${row.position}"]`)?.focus())
  }
  const onKeyDown = (event: KeyboardEvent, index: number) => {
    if (event.target !== event.currentTarget) return
    const row = tail.rows[index]
    const steps: Readonly<Record<string, number>> = {
      ArrowDown: index + 1,
      ArrowUp: index - 1,
      PageDown: index + inSight - 1,
      PageUp: index - inSight + 1,
      Home: 0,
      End: count - 1,
    }
    const to = steps[event.key]
    if (to !== undefined) go(to)
    else if (event.key === 'Enter' && row !== undefined) openOne(row.position)
    else return
    event.preventDefault()
  }
  const shown = tail.rows.slice(start, end)
  const focusable = shown.some(row => row.position === active) ? active : (shown.at(-1)?.position ?? null)

  return (
    <section className="feed-main" aria-label="Events">
      <div className="spread feed-bar">
        <span className="row" role="status">
          <State following={following} past={onNow !== null} waiting={tail.waiting} />
        </span>
        <span className="row">
          <span className="soft" data-testid="feed-count" data-came={tail.came}>
            {count.toLocaleString('en')} shown
            {tail.came > 0 && `, ${tail.came.toLocaleString('en')} have come`}
          </span>
          {following ? (
            <button type="button" className="button small" onClick={pause}>
              Pause
            </button>
          ) : (
            <button type="button" className="button small main" onClick={goOn}>
              Go on
            </button>
          )}
        </span>
      </div>
      {live.fault !== null && <ProblemBox error={live.fault} retry={live.again} />}
      <div
        className={`feed-scroller ${size.narrow ? 'narrow' : ''}`}
        ref={scroller}
        onScroll={onScroll}
        data-testid="feed"
        data-following={following}
      >
        {count === 0 && !tail.older && (
          <Empty>No event yet that the filters let through. What comes is shown here at once.</Empty>
        )}
        {count < inSight && tail.older && (
          <div className="row feed-more">
            <button type="button" className="button small" disabled={reading !== null} onClick={readOlder}>
              {reading === 'older' ? 'Looking …' : 'Look further back'}
            </button>
          </div>
        )}
        <div
          className="feed-body"
          role="table"
          aria-label="Events"
          aria-rowcount={tail.older || !joined ? -1 : count}
          style={{ height: count * rowHeight }}
        >
          {shown.map((row, at) => (
            <Row
              key={row.position}
              row={row}
              y={(start + at) * rowHeight}
              height={rowHeight}
              opened={open === String(row.position)}
              focusable={row.position === focusable}
              onKeyDown={event => onKeyDown(event, start + at)}
              onFocus={() => setActive(row.position)}
              onOpen={openOne}
            />
          ))}
        </div>
      </div>
      <p className="soft feed-note">
        The newest {MOST_ROWS.toLocaleString('en')} are kept here; scroll up for older ones. While paused, as many are
        kept aside; of more, all are counted, and read from the log again.
      </p>
    </section>
  )
}

function State({ following, past, waiting }: { following: boolean; past: boolean; waiting: number }) {
  if (following) return <span className="badge good">live</span>
  return (
    <>
      <span className="badge warn">{past ? 'in the past' : 'paused'}</span>
      {waiting > 0 && (
        <span data-testid="feed-waiting" data-count={waiting}>
          {waiting.toLocaleString('en')} {waiting === 1 ? 'event has' : 'events have'} come meanwhile
        </span>
      )}
    </>
  )
}

interface RowProps {
  readonly row: FeedRow
  readonly y: number
  readonly height: number
  readonly opened: boolean
  readonly focusable: boolean
  readonly onKeyDown: (event: KeyboardEvent) => void
  readonly onFocus: () => void
  readonly onOpen: (position: number) => void
}

function Row({ row, y, height, opened, focusable, onKeyDown, onFocus, onOpen }: RowProps) {
  const run = runOf(row)
  return (
    <div
      role="row"
      className={`feed-row ${opened ? 'opened' : ''}`}
      data-testid="event-row"
      data-position={row.position}
      data-topic={row.type}
      style={{ transform: `translateY(${y}px)`, height }}
      tabIndex={focusable ? 0 : -1}
      onKeyDown={onKeyDown}
      onFocus={onFocus}
      onClick={event => {
        if ((event.target as Element).closest('a') === null) onOpen(row.position)
      }}
    >
      <time
        role="cell"
        className="feed-time"
        dateTime={row.time}
        title={`${new Date(row.time).toLocaleString()} (${row.time})`}
      >
        {clock(row.time)}
      </time>
      <span role="cell" className={`feed-type ${toneOfType(row.type)}`}>
        {row.type}
      </span>
      <span role="cell" className="feed-text" title={row.text}>
        {row.text}
      </span>
      <span role="cell" className="feed-run mono">
        {run !== null && (
          <Link href={`/runs/${run}`} tabIndex={focusable ? 0 : -1} title={`Run ${run}`}>
            …{run.slice(-8)}
          </Link>
        )}
      </span>
      <span role="cell" className="feed-actor soft" title={row.actor}>
        {row.behalf === '' ? shortActor(row.actor) : row.behalf}
      </span>
    </div>
  )
}

/** `14:05:09.123` in the zone of the browser. */
function clock(time: string): string {
  const at = new Date(time)
  const two = (number: number) => String(number).padStart(2, '0')
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`
}

function shortActor(actor: string): string {
  return actor.startsWith('key:') && actor.length > 16 ? `key …${actor.slice(-6)}` : actor
}
