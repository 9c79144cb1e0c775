import './run.css'

import { type ComponentType, useEffect } from 'react'
import { Link } from 'wouter'

import type { Run } from '../../api/types'
import { Empty, Loading, ProblemBox } from '../../ui/States'
import { UntilContext } from '../../ui/Time'
import { Actions } from './actions/Actions'
import { partHref } from './address'
import { Calls } from './Calls'
import { Children } from './Children'
import { CompareTab } from './compare/CompareTab'
import { goesOn, useLiveRun, useRun } from './data'
import { EventsTab } from './events/EventsTab'
import { Header } from './Header'
import { Journal } from './Journal'
import { Logs } from './Logs'
import { MessagesTab } from './messages/MessagesTab'
import { MomentBar } from './MomentBar'
import { useMoment } from './moment'
import { Overview } from './Overview'
import { Timeline } from './timeline/Timeline'

/** What every part of the page gets: the run as it was at the moment that is shown. */
export interface PartProps {
  readonly run: Run
  /** A position or a time; null: now. */
  readonly at: string | null
}

const PARTS: Readonly<Record<string, { name: string; part: ComponentType<PartProps> }>> = {
  overview: { name: 'Overview', part: Overview },
  timeline: { name: 'Timeline', part: Timeline },
  events: { name: 'Events', part: EventsTab },
  messages: { name: 'Messages', part: MessagesTab },
  calls: { name: 'Calls', part: Calls },
  journal: { name: 'Journal', part: Journal },
  logs: { name: 'Logs', part: Logs },
  children: { name: 'Children & forks', part: Children },
  compare: { name: 'Compare', part: CompareTab },
}

export default function RunPage({ runId, part }: { readonly runId: string; readonly part: string }) {
  const [at] = useMoment()
  const run = useRun(runId, at)
  useEffect(() => {
    document.title = `Run ${runId.slice(0, 8)} · Tidelog`
  }, [runId])
  if (run.isPending) return <Loading what="the run" />
  if (run.isError) {
    return (
      <>
        {/* Before a run began there is nothing to see: one can go on from there. */}
        {at !== null && <MomentBar runId={runId} />}
        <ProblemBox error={run.error} retry={() => void run.refetch()} />
      </>
    )
  }
  const Part = PARTS[part]?.part
  return (
    <UntilContext value={at === null ? null : Date.parse(run.data.updated_at)}>
      {at === null && goesOn(run.data) && <Live runId={runId} after={run.data.position} />}
      <Header run={run.data} at={at} />
      <Actions run={run.data} at={at} />
      <MomentBar runId={runId} />
      <nav className="tabs" aria-label="Parts of the run">
        {Object.entries(PARTS).map(([path, { name }]) => (
          <Link key={path} href={partHref(runId, path, at)} aria-current={path === part ? 'page' : undefined}>
            {name}
          </Link>
        ))}
      </nav>
      {Part === undefined ? <Empty>A run has no such part.</Empty> : <Part run={run.data} at={at} />}
    </UntilContext>
  )
}

/** Keeps what is shown of a run up to date while the run goes on. */
function Live({ runId, after }: { readonly runId: string; readonly after: number }) {
  useLiveRun(runId, after)
  return null
}
