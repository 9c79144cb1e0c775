import './virtual-table.css'

import { useVirtualizer } from '@tanstack/react-virtual'
import { type KeyboardEvent, type ReactNode, useEffect, useId, useRef, useState } from 'react'

import { useNarrow } from './narrow'

export interface Column<Row> {
  readonly key: string
  readonly name: ReactNode
  /** The width, as a track of a CSS grid: `minmax(8rem, 2fr)`, `6rem`. */
  readonly track: string
  readonly cell: (row: Row) => ReactNode
  /** Numbers stand at the right. */
  readonly number?: boolean
  /** Left out where the page is narrow. */
  readonly wide?: boolean
}

interface Props<Row> {
  readonly label: string
  readonly rows: readonly Row[]
  readonly columns: readonly Column<Row>[]
  readonly rowKey: (row: Row) => string
  /** `data-testid` of the rows. */
  readonly testId: string
  /** Further `data-…` attributes of a row. */
  readonly data?: (row: Row) => Readonly<Record<`data-${string}`, string | number>>
  /** A click on a row, or Enter. Links and buttons inside keep their own. */
  readonly onOpen?: (row: Row) => void
  /** The key of the row that is open. */
  readonly opened?: string | null
  /** Called when the last rows are near: reads the next page. */
  readonly onEnd?: (() => void) | undefined
  /** Called with the numbers of the first and the last row in sight. */
  readonly onSight?: (first: number, last: number) => void
  /** Pixels of a row. A cell does not break into lines. */
  readonly rowHeight?: number
  /** How many rows there are in all, if that is known. */
  readonly total?: number
}

/** A table of any length in a scroller of its own: only the rows in sight are there. Arrow keys go from row to row. */
export function VirtualTable<Row>({
  label,
  rows,
  columns,
  rowKey,
  testId,
  data,
  onOpen,
  opened = null,
  onEnd,
  onSight,
  rowHeight = 37,
  total,
}: Props<Row>) {
  const scroller = useRef<HTMLDivElement>(null)
  const [active, setActive] = useState(0)
  const id = useId()
  const narrow = useNarrow()
  const shown = narrow ? columns.filter(column => column.wide !== true) : columns
  const tracks = { gridTemplateColumns: shown.map(column => column.track).join(' ') }
  // React's compiler is not in use here, so that the functions of the virtualizer change is no matter.
  // eslint-disable-next-line react-hooks/incompatible-library
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => rowHeight,
    overscan: 12,
  })
  const items = virtual.getVirtualItems()
  const last = items.at(-1)?.index ?? 0
  useEffect(() => {
    if (rows.length > 0 && last >= rows.length - 20) onEnd?.()
  }, [last, rows.length, onEnd])

  const { startIndex, endIndex } = virtual.range ?? { startIndex: 0, endIndex: 0 }
  useEffect(() => onSight?.(startIndex, endIndex), [onSight, startIndex, endIndex])

  const go = (to: number) => {
    const next = Math.max(0, Math.min(rows.length - 1, to))
    setActive(next)
    virtual.scrollToIndex(next)
    requestAnimationFrame(() => document.getElementById(`${id}-${next}`)?.focus())
  }
  const onKeyDown = (event: KeyboardEvent, index: number) => {
    if (event.target !== event.currentTarget) return
    const page = Math.max(1, Math.floor((scroller.current?.clientHeight ?? 0) / rowHeight) - 1)
    const steps: Readonly<Record<string, number>> = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }
    const step = steps[event.key]
    if (step !== undefined) go(index + step)
    else if (event.key === 'Home') go(0)
    else if (event.key === 'End') go(rows.length - 1)
    else if (event.key === 'Enter' && onOpen !== undefined && rows[index] !== undefined) onOpen(rows[index])
    else return
    event.preventDefault()
  }
  const focusable = Math.min(active, rows.length - 1)

  return (
    <div className="virtual" ref={scroller} role="table" aria-label={label} aria-rowcount={(total ?? rows.length) + 1}>
      <div role="rowgroup" className="virtual-head">
        <div role="row" className="virtual-row" style={tracks} aria-rowindex={1}>
          {shown.map(column => (
            <div key={column.key} role="columnheader" className={column.number === true ? 'number' : undefined}>
              {column.name}
            </div>
          ))}
        </div>
      </div>
      <div role="rowgroup" className="virtual-body" style={{ height: virtual.getTotalSize() }}>
        {items.map(item => {
          const row = rows[item.index]
          if (row === undefined) return null
          const key = rowKey(row)
          return (
            <div
              key={key}
              id={`${id}-${item.index}`}
              role="row"
              aria-rowindex={item.index + 2}
              className={`virtual-row ${onOpen === undefined ? '' : 'opens'} ${opened === key ? 'opened' : ''}`}
              data-testid={testId}
              {...data?.(row)}
              style={{ ...tracks, height: rowHeight, transform: `translateY(${item.start}px)` }}
              tabIndex={item.index === focusable ? 0 : -1}
              onFocus={() => setActive(item.index)}
              onKeyDown={event => onKeyDown(event, item.index)}
              onClick={event => {
                if (onOpen !== undefined && (event.target as Element).closest('a, button, input') === null) onOpen(row)
              }}
            >
              {shown.map(column => (
                <div key={column.key} role="cell" className={column.number === true ? 'number' : undefined}>
                  {column.cell(row)}
                </div>
              ))}
            </div>
          )
        })}
      </div>
    </div>
  )
}
