import './inbox.css'

import { useEffect, useRef, useState } from 'react'
import { Link, useLocation, useSearchParams } from 'wouter'

import { useSession } from '../../app/session'
import { Empty, Loading, ProblemBox } from '../../ui/States'
import { ApprovalDetail } from './ApprovalDetail'
import { CallDetail } from './CallDetail'
import { type Show, useAmbiguous, useApprovals, useWaiting } from './data'
import { useInboxKeys } from './keys'
import { InboxList, type Item } from './InboxList'
import { Several } from './Several'

const SHOWN: readonly { show: Show; name: string; empty: string }[] = [
  { show: 'mine', name: 'For you', empty: 'Nothing waits for you.' },
  { show: 'calls', name: 'Unknown outcomes', empty: 'Of every call it is known how it ended.' },
  { show: 'open', name: 'All open', empty: 'Nothing waits for anybody.' },
  { show: 'decided', name: 'Decided', empty: 'Nothing was decided yet.' },
]
const CALL = 'call-'

/** What waits for people: approvals, questions, budgets, and calls of which nobody knows how they ended. */
export default function InboxPage({ approvalId }: { readonly approvalId: string | null }) {
  const [params, setParams] = useSearchParams()
  const [, navigate] = useLocation()
  const [picked, setPicked] = useState<ReadonlySet<string>>(new Set())
  const detail = useRef<HTMLElement>(null)
  const session = useSession()
  const waiting = useWaiting(session.role)
  const wanted = params.get('show')
  const given = SHOWN.find(one => one.show === wanted)?.show
  const show = given ?? (approvalId?.startsWith(CALL) ? 'calls' : 'mine')
  const narrowed = { tool: params.get('tool'), run: params.get('run') }
  const approvals = useApprovals(show, narrowed)
  const calls = useAmbiguous(show === 'calls', narrowed)
  const list = show === 'calls' ? calls : approvals
  const items: readonly Item[] =
    show === 'calls'
      ? calls.rows.map(call => ({ id: `${CALL}${call.invocation_id}`, call }))
      : approvals.rows.map(approval => ({ id: approval.approval_id, approval }))
  const query = params.toString()
  const pathOf = (id: string | null) => `/inbox${id === null ? '' : `/${id}`}${query === '' ? '' : `?${query}`}`
  useInboxKeys(
    items.map(item => item.id),
    approvalId,
    id => navigate(pathOf(id), { replace: approvalId !== null }),
    () => detail.current?.focus(),
  )
  // On a wide page the first entry is opened, as mail programs do.
  const first = items[0]?.id
  useEffect(() => {
    if (approvalId === null && first !== undefined && window.innerWidth > 900) {
      navigate(pathOf(first), { replace: true })
    }
  })
  const narrow = (name: string, value: string | null) =>
    setParams(before => {
      const next = new URLSearchParams(before)
      if (value === null || value === '') next.delete(name)
      else next.set(name, value)
      return next
    })
  const counts: Partial<Record<Show, string>> = {
    mine: waiting.approvals === 100 ? '99+' : String(waiting.approvals),
    calls: waiting.calls === 100 ? '99+' : String(waiting.calls),
  }
  return (
    <div className="inbox">
      <div className={approvalId === null ? 'stack' : 'stack has-detail'}>
        <h1>Inbox</h1>
        <nav className="tabs" aria-label="What is shown">
          {SHOWN.map(({ show: one, name }) => (
            <Link key={one} href={`/inbox?show=${one}`} aria-current={one === show ? 'page' : undefined}>
              {name} {counts[one] !== undefined && counts[one] !== '0' && <span className="tag">{counts[one]}</span>}
            </Link>
          ))}
        </nav>
        {(narrowed.tool ?? narrowed.run) !== null && (
          <div className="row">
            {narrowed.tool !== null && <span className="tag">tool {narrowed.tool}</span>}
            {narrowed.run !== null && <span className="tag">run {narrowed.run}</span>}
            <button
              type="button"
              className="button small"
              onClick={() => {
                narrow('tool', null)
                narrow('run', null)
              }}
            >
              Show all
            </button>
          </div>
        )}
        {show === 'mine' && <Several approvals={approvals.rows} picked={picked} onPicked={setPicked} />}
        {list.isPending && <Loading what="the inbox" />}
        {list.isError && <ProblemBox error={list.error} retry={() => void list.refetch()} />}
        {list.isSuccess && items.length === 0 && !list.hasNextPage && (
          <Empty>
            <p>{SHOWN.find(one => one.show === show)?.empty}</p>
            {show === 'mine' && (
              <p>
                A call waits here if its tool or a policy asks for an approval. An agent asks with{' '}
                <code>ctx.approval</code>, a budget with <code>--on-spent ask</code>.
              </p>
            )}
          </Empty>
        )}
        {(items.length > 0 || list.hasNextPage) && (
          <InboxList
            items={items}
            selected={approvalId}
            pathOf={pathOf}
            picked={show === 'mine' ? picked : null}
            onPicked={setPicked}
            more={list.hasNextPage && !list.isFetchingNextPage ? () => void list.fetchNextPage() : null}
          />
        )}
        <p className="soft keys">
          <kbd>j</kbd> <kbd>k</kbd> through the list · <kbd>Enter</kbd> reads · <kbd>a</kbd> approves · <kbd>d</kbd>{' '}
          denies
        </p>
      </div>
      {approvalId !== null && (
        <section className="detail stack" ref={detail} tabIndex={-1} aria-label="What waits">
          <Link className="back" href={pathOf(null)}>
            ← Inbox
          </Link>
          {approvalId.startsWith(CALL) ? (
            <CallDetail key={approvalId} id={approvalId.slice(CALL.length)} />
          ) : (
            <ApprovalDetail key={approvalId} id={approvalId} />
          )}
        </section>
      )}
    </div>
  )
}
