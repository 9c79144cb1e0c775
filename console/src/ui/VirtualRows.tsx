import './rows.css'

import { useVirtualizer } from '@tanstack/react-virtual'
import { type ReactNode, useEffect, useRef } from 'react'

interface Props<T> {
  readonly rows: readonly T[]
  readonly keyOf: (row: T, index: number) => string | number
  /** The cells of a row: elements with the role `cell`. */
  readonly render: (row: T, index: number) => ReactNode
  readonly label: string
  /** Names of the columns. */
  readonly columns: readonly string[]
  /** Widths of the columns, as of `grid-template-columns`. */
  readonly widths: string
  /** Pixels of a row that was not measured yet. */
  readonly estimate?: number
  readonly testId: string
  readonly attributesOf?: (row: T) => Readonly<Record<string, string | undefined>>
  /** Called when the last rows are seen: there may be more. */
  readonly onEnd?: (() => void) | undefined
  /** Keeps the end in sight when rows come. */
  readonly stick?: boolean
  /** How many rows there are in all, where not all are here. */
  readonly total?: number
}

/** A table of any length: only the rows in sight are in the page. Rows have the height that they need. */
export function VirtualRows<T>({
  rows,
  keyOf,
  render,
  label,
  columns,
  widths,
  estimate = 34,
  testId,
  attributesOf,
  onEnd,
  stick = false,
  total,
}: Props<T>) {
  const scroller = useRef<HTMLDivElement>(null)
  // The library's functions change with each scroll; that is what this component is for.
  // eslint-disable-next-line react-hooks/incompatible-library
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => estimate,
    getItemKey: index => keyOf(rows[index] as T, index),
    overscan: 12,
    initialRect: { width: 800, height: 600 },
  })
  const items = virtual.getVirtualItems()
  const last = items.at(-1)?.index ?? -1
  useEffect(() => {
    if (rows.length > 0 && last >= rows.length - 1) onEnd?.()
  }, [last, rows.length, onEnd])
  useEffect(() => {
    if (stick && rows.length > 0) virtual.scrollToIndex(rows.length - 1, { align: 'end' })
  }, [stick, rows.length, virtual])
  const grid = { gridTemplateColumns: widths }
  return (
    <div className="rows-box" ref={scroller}>
      {/* Scrolls, so the keyboard must reach it. */}
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
      <div role="table" aria-label={label} aria-rowcount={(total ?? rows.length) + 1} tabIndex={0}>
        <div role="row" className="rows-head" style={grid} aria-rowindex={1}>
          {columns.map(name => (
            <div key={name} role="columnheader">
              {name}
            </div>
          ))}
        </div>
        <div role="rowgroup" className="rows-body" style={{ height: virtual.getTotalSize() }}>
          {items.map(item => {
            const row = rows[item.index]
            return row === undefined ? null : (
              <div
                key={item.key}
                role="row"
                className="rows-row"
                aria-rowindex={item.index + 2}
                data-index={item.index}
                data-testid={testId}
                ref={virtual.measureElement}
                style={{ ...grid, transform: `translateY(${item.start}px)` }}
                {...attributesOf?.(row)}
              >
                {render(row, item.index)}
              </div>
            )
          })}
        </div>
      </div>
    </div>
  )
}
