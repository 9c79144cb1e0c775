import { useQuery } from '@tanstack/react-query'
import { useEffect, useRef } from 'react'
import { Link } from 'wouter'

import { api, dataOf } from '../../api/client'
import { Problem } from '../../api/problem'
import { watched } from '../../api/watch'
import { Id } from '../../ui/Copy'
import { Loading, ProblemBox } from '../../ui/States'
import { Time } from '../../ui/Time'
import type { Worker } from './data'

interface Props {
  readonly session: string
  /** Undefined: no such session goes on. */
  readonly worker: Worker | undefined
  readonly onClose: () => void
}

/** One worker: what it has in hand, since when, and what it offers. */
export function WorkerPanel({ session, worker, onClose }: Props) {
  const panel = useRef<HTMLElement>(null)
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
      className="panel stack catalog-panel"
      aria-label={worker === undefined ? 'A worker' : `Worker ${worker.worker_id}`}
      tabIndex={-1}
      ref={panel}
      onKeyDown={pressed => {
        if (pressed.key === 'Escape') onClose()
      }}
    >
      <div className="spread">
        <h2 className="mono">{worker?.worker_id ?? 'Gone'}</h2>
        <button type="button" className="button small" onClick={onClose}>
          Close
        </button>
      </div>
      {worker === undefined ? (
        <p className="soft">This worker has no session any more. What it had in hand went to others.</p>
      ) : (
        <Shown session={session} worker={worker} />
      )}
    </section>
  )
}

function Shown({ session, worker }: { readonly session: string; readonly worker: Worker }) {
  return (
    <>
      <dl className="facts">
        <dt>Session</dt>
        <dd>
          <Id of={session} what="session id" />
        </dd>
        <dt>Release</dt>
        <dd>{worker.release}</dd>
        <dt>Since</dt>
        <dd>
          <Time of={worker.since} />
        </dd>
        <dt>Seen</dt>
        <dd>
          <Time of={worker.seen_at} />
        </dd>
      </dl>
      <InHand session={session} />
      <Offers kind="agents" of={worker.agents} />
      <Offers kind="tools" of={worker.tools} />
    </>
  )
}

function InHand({ session }: { readonly session: string }) {
  const work = useQuery({
    queryKey: ['workers', session, 'work'],
    queryFn: async ({ signal }) => {
      const path = { session_id: session }
      try {
        return dataOf(
          await api.GET('/v1/workers/{session_id}/work', { params: { path, query: { limit: 200 } }, signal }),
        ).data
      } catch (error) {
        if (error instanceof Problem && error.status === 404) return []
        throw error
      }
    },
    ...watched,
  })
  return (
    <section className="stack" aria-label="In hand">
      <h3>In hand</h3>
      {work.isPending && <Loading what="its work" />}
      {work.isError && <ProblemBox error={work.error} retry={() => void work.refetch()} />}
      {work.isSuccess && work.data.length === 0 && <p className="soft">Nothing at this moment.</p>}
      {work.isSuccess && work.data.length > 0 && (
        <ul className="plain-list">
          {work.data.map(one => (
            <li key={one.id} className="spread" data-testid="work-row" data-name={one.name}>
              <span className="row">
                <span className="tag">{one.kind === 'agent' ? 'agent' : one.kind === 'tool' ? 'call' : 'asks'}</span>
                <span className="mono">{one.name}</span>
                {one.attempt > 1 && <span className="soft">attempt {one.attempt}</span>}
              </span>
              <span className="row">
                <span className="soft" title="when it was dispatched">
                  <Time of={one.dispatched_at} />
                </span>
                {one.run_id !== one.id && <Link href={`/runs/${one.run_id}`}>Run</Link>}
              </span>
            </li>
          ))}
        </ul>
      )}
    </section>
  )
}

function Offers({ kind, of }: { readonly kind: 'agents' | 'tools'; readonly of: Worker['agents'] }) {
  return (
    <section className="stack" aria-label={kind === 'agents' ? 'Agents' : 'Tools'}>
      <h3>{kind === 'agents' ? 'Agents' : 'Tools'}</h3>
      {of === null && <p className="soft">Not known yet: its definitions are being read.</p>}
      {of?.length === 0 && <p className="soft">None.</p>}
      {of !== null && of.length > 0 && (
        <ul className="plain-list">
          {of.slice(0, 500).map(one => (
            <li key={one.name} className="spread">
              <Link className="mono" href={`/${kind}/${encodeURIComponent(one.name)}`}>
                {one.name}
              </Link>
              <span className="soft">version {one.version}</span>
            </li>
          ))}
        </ul>
      )}
    </section>
  )
}
