import { useInfiniteQuery } from '@tanstack/react-query'
import { useState } from 'react'
import { Link } from 'wouter'

import { api, dataOf } from '../../../api/client'
import { usePages } from '../../../api/pages'
import type { CausedEvent, CauseLink, EventRow } from '../../../api/types'
import { Id } from '../../../ui/Copy'
import { Loading, ProblemBox } from '../../../ui/States'
import { Time } from '../../../ui/Time'
import { phrase, toneOfType, whereOf } from './phrases'

interface Props {
  readonly runId: string
  readonly position: number
  readonly onOpen: (position: number) => void
}

/** Why an event happened, back to the request that began it. */
export function Why({ runId, position, onOpen }: Props) {
  const causes = useInfiniteQuery({
    queryKey: ['causes', position],
    staleTime: 'static',
    initialPageParam: position,
    queryFn: async ({ pageParam, signal }) =>
      dataOf(await api.GET('/v1/events/{position}/causes', { params: { path: { position: pageParam } }, signal })),
    getNextPageParam: page => page.next,
  })
  const chain = causes.data?.pages.flatMap(page => page.data) ?? []
  const end = chain.at(-1)
  const origin = causes.data?.pages[0]?.origin ?? null
  return (
    <section className="stack why" aria-label="Why it happened" data-testid="why">
      <h3>Why</h3>
      {causes.isPending && <Loading what="its causes" />}
      {causes.isError && <ProblemBox error={causes.error} retry={() => void causes.refetch()} />}
      {chain.length > 0 && (
        <ol className="causes">
          {chain.map((link, place) => (
            <li key={link.event.position} data-testid="cause" data-position={link.event.position}>
              {place > 0 && <Step row={link.event as EventRow} root={link.root_id} runId={runId} onOpen={onOpen} />}
              {place === 0 && <strong>This event</strong>}
              <How link={link} />
            </li>
          ))}
        </ol>
      )}
      {causes.hasNextPage && (
        <button
          type="button"
          className="button small"
          disabled={causes.isFetchingNextPage}
          onClick={() => void causes.fetchNextPage()}
        >
          Further back
        </button>
      )}
      {origin !== null && end !== undefined && !chain.some(link => link.event.position === origin.event.position) && (
        <div className="soft origin">
          The run itself: <Step row={origin.event as EventRow} root={origin.root_id} runId={runId} onOpen={onOpen} />
          <How link={origin} />
        </div>
      )}
    </section>
  )
}

/** What came of an event. */
export function CameOfIt({ runId, position, onOpen }: Props) {
  return (
    <section className="stack why" aria-label="What came of it">
      <h3>What came of it</h3>
      <Effects runId={runId} position={position} onOpen={onOpen} />
    </section>
  )
}

/** How an event came about, where its cause is not simply the next event. */
function How({ link }: { readonly link: CauseLink }) {
  const { by, request } = link
  if (by === 'event') return <span className="how soft">because of</span>
  if (by === 'unknown')
    return <span className="how soft">Its cause is not there, or not to be seen with your key.</span>
  if (request === null) return null
  const who = (
    <>
      <span className="mono">{request.actor}</span>
      {request.on_behalf_of !== null && (
        <>
          {' '}
          for <span className="mono">{request.on_behalf_of}</span>
        </>
      )}
    </>
  )
  if (by === 'work') return <span className="how soft">reported by a worker ({who}), about</span>
  return (
    <span className="how request" data-testid="request">
      <strong>Asked for</strong> by {who} <Time of={request.at} />
      <br />
      <span className="soft">
        command <Id of={request.command_id} what="command id" />
        {request.trace_id !== null && (
          <>
            {' '}
            trace <Id of={request.trace_id} what="trace id" />
          </>
        )}
      </span>
    </span>
  )
}

interface StepProps {
  readonly row: EventRow
  readonly root: string
  readonly runId: string
  readonly onOpen: (position: number) => void
}

/** One event of a chain or tree, to walk on from. */
function Step({ row, root, runId, onOpen }: StepProps) {
  const where = whereOf(row)
  const words = (
    <>
      <span className={`mono ${toneOfType(row.type)}`}>{row.type}</span>
      {where !== '' && <span className="mono soft"> {where}</span>}
      <span className="soft"> {phrase(row)}</span>
    </>
  )
  const title = `${row.time} · position ${row.position}`
  if (root !== runId) {
    return (
      <Link className="step" title={title} href={`/runs/${root}/events?event=${row.position}`}>
        {words} <span className="tag">in {root.slice(0, 8)}…</span>
      </Link>
    )
  }
  return (
    <button type="button" className="step" title={title} onClick={() => onOpen(row.position)}>
      {words}
    </button>
  )
}

/** What came of an event directly; what came of that opens beneath. */
function Effects({ runId, position, onOpen }: Props) {
  const effects = usePages<CausedEvent>(['effects', position], async (cursor, signal) =>
    dataOf(
      await api.GET('/v1/events/{position}/effects', {
        params: { path: { position }, query: { limit: 50, ...cursor } },
        signal,
      }),
    ),
  )
  if (effects.isPending) return <Loading what="its effects" />
  if (effects.isError) return <ProblemBox error={effects.error} retry={() => void effects.refetch()} />
  return (
    <>
      {effects.rows.length > 0 && (
        <ul className="effects">
          {effects.rows.map(effect => (
            <Branch key={effect.event.position} effect={effect} runId={runId} onOpen={onOpen} />
          ))}
        </ul>
      )}
      {effects.rows.length === 0 && !effects.hasNextPage && <span className="soft">Nothing so far.</span>}
      {effects.hasNextPage && (
        <button
          type="button"
          className="button small"
          disabled={effects.isFetchingNextPage}
          onClick={() => void effects.fetchNextPage()}
        >
          Look further
        </button>
      )}
    </>
  )
}

interface BranchProps {
  readonly effect: CausedEvent
  readonly runId: string
  readonly onOpen: (position: number) => void
}

function Branch({ effect, runId, onOpen }: BranchProps) {
  const [open, setOpen] = useState(false)
  const row = effect.event as EventRow
  return (
    <li data-testid="effect" data-position={row.position}>
      <div className="branch">
        <button
          type="button"
          className="button small plain"
          aria-expanded={open}
          aria-label={`What came of ${row.type} at ${row.position}`}
          onClick={() => setOpen(!open)}
        >
          {open ? '▾' : '▸'}
        </button>
        <Step row={row} root={effect.root_id} runId={runId} onOpen={onOpen} />
      </div>
      {open && <Effects runId={runId} position={row.position} onOpen={onOpen} />}
    </li>
  )
}
