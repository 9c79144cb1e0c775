import './run.css'

import type { ComponentType } from 'react'
import { Link } from 'wouter'

import type { Run } from '../../api/types'
import { Id } from '../../ui/Copy'
import { Empty, Loading, ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Time, Took } from '../../ui/Time'
import { isOver, useLiveRun, useRun } from './data'
import { useMoment } from './moment'
import { Overview } from './Overview'

/** What every part of the page gets: the run as it was at the moment that is shown. */
export interface PartProps {
  readonly run: Run
  /** A position or a time; null: now. */
  readonly at: string | null
}

const PARTS: Readonly<Record<string, { name: string; part: ComponentType<PartProps> }>> = {
  overview: { name: 'Overview', part: Overview },
}

export default function RunPage({ runId, part }: { readonly runId: string; readonly part: string }) {
  const [at] = useMoment()
  const run = useRun(runId, at)
  useLiveRun(runId, at === null && run.isSuccess && !isOver(run.data))
  if (run.isPending) return <Loading what="the run" />
  if (run.isError) return <ProblemBox error={run.error} retry={() => void run.refetch()} />
  const Part = PARTS[part]?.part
  return (
    <>
      <Header run={run.data} />
      <nav className="tabs" aria-label="Parts of the run">
        {Object.entries(PARTS).map(([path, { name }]) => (
          <Link
            key={path}
            href={`/runs/${runId}/${path}${at === null ? '' : `?at=${encodeURIComponent(at)}`}`}
            aria-current={path === part ? 'page' : undefined}
          >
            {name}
          </Link>
        ))}
      </nav>
      {Part === undefined ? <Empty>A run has no such part.</Empty> : <Part run={run.data} at={at} />}
    </>
  )
}

function Header({ run }: { readonly run: Run }) {
  return (
    <header className="stack">
      <div className="spread">
        <h1 className="row">
          Run <Id of={run.run_id} what="run id" />
          <Status of={run.status} />
          {run.degraded && <Status of="degraded" />}
        </h1>
      </div>
      <div className="row soft">
        <span>
          started <Time of={run.created_at} />
        </span>
        <span>
          took <Took from={run.created_at} to={run.finished_at} />
        </span>
        <span>{run.event_count.toLocaleString('en')} events</span>
      </div>
    </header>
  )
}
