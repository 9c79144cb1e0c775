import { useQuery } from '@tanstack/react-query'
import { useVirtualizer } from '@tanstack/react-virtual'
import { type KeyboardEvent, memo, useEffect, useRef, useState } from 'react'

import type { EventRow } from '../../../api/types'
import { readRows, useWant, type Which } from '../past/rows'
import { clockTime } from '../past/slider'
import type { Windows } from '../past/windows'
import { useNarrow } from '../../../ui/narrow'
import { phrase, toneOfType, whereOf } from './phrases'

interface Props {
  readonly rows: Windows<EventRow>
  /** Rows that were looked for. Null: all of `rows`. */
  readonly found: readonly EventRow[] | null
  readonly count: number
  readonly opened: number | null
  readonly which: Which
  readonly startAtEnd: boolean
  /** Whether more rows come. */
  readonly live: boolean
  readonly onOpen: (position: number) => void
}

const PAGE_ROWS = 20
/** Rows by which what is asked for moves. */
const STEP = 50
/** Milliseconds for which rows that are not here must be looked at before they are asked for. */
const PAUSE_MS = 40

/** The rows of events. Only those that are seen are drawn, and only windows around them are read. */
export function EventList({ rows, found, count, opened, which, startAtEnd, live, onOpen }: Props) {
  const box = useRef<HTMLDivElement>(null)
  const narrow = useNarrow()
  const [cursor, setCursor] = useState(startAtEnd ? count - 1 : 0)
  const [follow, setFollow] = useState(live && opened === null)
  const openedAt = useNumberOfOpened(which, opened, found)
  // The library hands out functions that change with what is scrolled; nothing here is kept by them.
  // eslint-disable-next-line react-hooks/incompatible-library
  const virtual = useVirtualizer({
    count,
    getScrollElement: () => box.current,
    estimateSize: () => (narrow ? 50 : 30),
    overscan: 12,
    useFlushSync: false,
  })
  const seen = virtual.getVirtualItems()
  const [first, last] = [seen[0]?.index ?? 0, seen.at(-1)?.index ?? 0]
  // In steps, so that slow scrolling asks for what comes next, and fast scrolling for where it rests.
  const from = Math.max(0, Math.floor(first / STEP) * STEP - STEP)
  const to = Math.min(Math.max(0, count - 1), (Math.floor(last / STEP) + 2) * STEP)
  useWant(rows, found === null ? from : 0, found === null ? to : 0, rows.row(first) === undefined ? PAUSE_MS : 0)

  useEffect(() => virtual.measure(), [virtual, narrow])
  const end = useRef(startAtEnd)
  useEffect(() => {
    if ((live && follow) || end.current) virtual.scrollToIndex(count - 1, { align: 'end' })
  }, [virtual, count, live, follow])
  useEffect(() => {
    if (openedAt === null || openedAt >= count) return
    end.current = false
    virtual.scrollToIndex(openedAt, { align: 'auto' })
    setCursor(openedAt)
    // Only when another event is opened: new rows must not bring it back.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [virtual, openedAt])

  const rowAt = (index: number) => (found === null ? rows.row(index) : found[index])
  const goTo = (index: number) => {
    const next = Math.min(count - 1, Math.max(0, index))
    end.current = false
    setCursor(next)
    virtual.scrollToIndex(next, { align: 'auto' })
    requestAnimationFrame(() =>
      box.current?.querySelector<HTMLElement>(`[data-index="${next}"]`)?.focus({ preventScroll: true }),
    )
  }
  const onKeyDown = (press: KeyboardEvent) => {
    const moves: Readonly<Record<string, number>> = {
      ArrowDown: cursor + 1,
      ArrowUp: cursor - 1,
      PageDown: cursor + PAGE_ROWS,
      PageUp: cursor - PAGE_ROWS,
      Home: 0,
      End: count - 1,
    }
    const next = moves[press.key]
    if (next !== undefined && !press.altKey && !press.ctrlKey && !press.metaKey) {
      press.preventDefault()
      goTo(next)
    } else if (press.key === 'Enter' || press.key === ' ') {
      const row = rowAt(cursor)
      if (row === undefined || !(press.target instanceof HTMLElement) || press.target.dataset['index'] === undefined)
        return
      press.preventDefault()
      onOpen(row.position)
    }
  }
  const onScroll = () => {
    const scrolled = box.current
    if (scrolled === null) return
    const isAtEnd = scrolled.scrollHeight - scrolled.scrollTop - scrolled.clientHeight < 40
    if (!isAtEnd) end.current = false
    if (live) setFollow(isAtEnd)
  }
  return (
    <div className="events-list">
      <div
        ref={box}
        className="events-scroll"
        data-testid="events"
        role="grid"
        tabIndex={-1}
        aria-label="Events of the run"
        aria-rowcount={count}
        onKeyDown={onKeyDown}
        onScroll={onScroll}
      >
        <div className="events-all" role="rowgroup" style={{ height: virtual.getTotalSize() }}>
          {seen.map(item => {
            const row = rowAt(item.index)
            return (
              <Line
                key={item.index}
                index={item.index}
                start={item.start}
                row={row}
                isOpen={row !== undefined && row.position === opened}
                isCursor={item.index === Math.min(cursor, count - 1)}
                onOpen={onOpen}
                onFocus={setCursor}
              />
            )
          })}
        </div>
      </div>
      {live && (
        <label className="events-follow row">
          <input
            type="checkbox"
            checked={follow}
            onChange={change => {
              setFollow(change.target.checked)
            }}
          />
          Follow new events
        </label>
      )}
    </div>
  )
}

interface LineProps {
  readonly index: number
  readonly start: number
  readonly row: EventRow | undefined
  readonly isOpen: boolean
  readonly isCursor: boolean
  readonly onOpen: (position: number) => void
  readonly onFocus: (index: number) => void
}

const Line = memo(function Line({ index, start, row, isOpen, isCursor, onOpen, onFocus }: LineProps) {
  return (
    <div
      role="row"
      data-testid="event-row"
      data-position={row?.position}
      data-topic={row?.type}
      data-index={index}
      className={isOpen ? 'event-row open' : 'event-row'}
      aria-rowindex={index + 1}
      aria-selected={isOpen}
      tabIndex={isCursor ? 0 : -1}
      style={{ transform: `translateY(${start}px)` }}
      onClick={() => row !== undefined && onOpen(row.position)}
      onKeyDown={() => undefined}
      onFocus={() => onFocus(index)}
    >
      {row === undefined ? (
        <span role="gridcell" className="soft">
          …
        </span>
      ) : (
        <>
          <span role="gridcell" className="position mono soft">
            {row.position}
          </span>
          <span role="gridcell" className="time mono soft" title={row.time}>
            {clockTime(row.time)}
          </span>
          <span role="gridcell" className={`type mono ${toneOfType(row.type)}`} title={row.type}>
            {row.type}
          </span>
          <span role="gridcell" className="where mono" title={whereOf(row)}>
            {whereOf(row)}
          </span>
          <span role="gridcell" className="says" title={phrase(row)}>
            {phrase(row)}
          </span>
        </>
      )}
    </div>
  )
})

/** Where the opened event stands among the rows. */
function useNumberOfOpened(which: Which, opened: number | null, found: readonly EventRow[] | null): number | null {
  const answer = useQuery({
    queryKey: ['around', which.runId, which.types, opened],
    enabled: opened !== null && found === null,
    staleTime: 'static',
    queryFn: async ({ signal }) => (await readRows(which, opened === null ? {} : { around: opened }, 1, signal)).number,
  })
  if (opened === null) return null
  if (found === null) return answer.data ?? null
  const index = found.findIndex(row => row.position === opened)
  return index < 0 ? null : index
}
