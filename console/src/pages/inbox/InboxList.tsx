import { useVirtualizer } from '@tanstack/react-virtual'
import { useEffect, useRef } from 'react'
import { Link } from 'wouter'

import { Status } from '../../ui/Status'
import { Time } from '../../ui/Time'
import type { ApprovalSummary, CallSummary } from './data'
import { headline, kindOf, why } from './words'

export type Item =
  { readonly id: string; readonly approval: ApprovalSummary } | { readonly id: string; readonly call: CallSummary }

interface Props {
  readonly items: readonly Item[]
  readonly selected: string | null
  readonly pathOf: (id: string) => string
  /** The ids that are picked for a common decision; null: none can be. */
  readonly picked: ReadonlySet<string> | null
  readonly onPicked: (picked: ReadonlySet<string>) => void
  readonly more: (() => void) | null
}

const HEIGHT = 82

export function InboxList({ items, selected, pathOf, picked, onPicked, more }: Props) {
  const box = useRef<HTMLDivElement>(null)
  // eslint-disable-next-line react-hooks/incompatible-library -- rows are measured by the library on each rendering
  const rows = useVirtualizer({
    count: items.length,
    getScrollElement: () => box.current,
    estimateSize: () => HEIGHT,
    getItemKey: index => items[index]?.id ?? index,
    overscan: 8,
  })
  const shown = rows.getVirtualItems()
  const last = shown.at(-1)?.index ?? 0
  useEffect(() => {
    if (more !== null && last >= items.length - 10) more()
  }, [more, last, items.length])
  const at = items.findIndex(item => item.id === selected)
  useEffect(() => {
    if (at >= 0) rows.scrollToIndex(at, { align: 'auto' })
    // eslint-disable-next-line react-hooks/exhaustive-deps -- only when another one is selected
  }, [at])
  return (
    <div className="inbox-list panel" ref={box}>
      <ul aria-label="What waits" style={{ height: rows.getTotalSize() }}>
        {shown.map(({ index, key, start }) => {
          const item = items[index]
          if (item === undefined) return null
          return (
            <li
              key={key}
              ref={rows.measureElement}
              data-index={index}
              data-testid={'call' in item ? 'call-row' : 'approval-row'}
              data-id={'call' in item ? item.call.invocation_id : item.id}
              style={{ transform: `translateY(${start}px)` }}
            >
              {picked !== null && 'approval' in item && (
                <input
                  type="checkbox"
                  aria-label={`Pick ${headline(item.approval)}`}
                  checked={picked.has(item.id)}
                  onChange={event => {
                    const next = new Set(picked)
                    if (event.target.checked) next.add(item.id)
                    else next.delete(item.id)
                    onPicked(next)
                  }}
                />
              )}
              <Link href={pathOf(item.id)} aria-current={item.id === selected}>
                {'approval' in item ? <ApprovalRow of={item.approval} /> : <CallRow of={item.call} />}
              </Link>
            </li>
          )
        })}
      </ul>
    </div>
  )
}

function ApprovalRow({ of }: { readonly of: ApprovalSummary }) {
  return (
    <>
      <span className="spread">
        <strong className="one-line">{headline(of)}</strong>
        {of.status === 'open' ? <span className="tag">{kindOf(of)}</span> : <Status of={of.status} />}
      </span>
      <span className="one-line soft">{why(of)}</span>
      <span className="one-line soft">
        <Time of={of.requested_at} />
        {of.status === 'open' && of.deadline_at && (
          <>
            {' '}
            · {of.default === 'approve' ? 'approved' : 'denied'} <Time of={of.deadline_at} />
          </>
        )}
        {of.status === 'open' && of.needed > 1 && ` · ${of.approvals} of ${of.needed} approved`}
        {of.tainted && ' · tainted'}
      </span>
    </>
  )
}

function CallRow({ of }: { readonly of: CallSummary }) {
  return (
    <>
      <span className="spread">
        <strong className="one-line">{of.tool}</strong>
        <Status of={of.status} />
      </span>
      <span className="one-line mono soft">{of.arguments_preview}</span>
      <span className="one-line soft">
        since <Time of={of.since} /> · attempt {of.attempt}
      </span>
    </>
  )
}
