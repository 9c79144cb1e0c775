import './runs.css'

import { lazy, Suspense, useState } from 'react'
import { Link, useLocation, useSearchParams } from 'wouter'

import type { RunSummary } from '../../api/types'
import { Copy } from '../../ui/Copy'
import { Empty, Loading, ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Time, Took } from '../../ui/Time'
import { type Column, VirtualTable } from '../../ui/VirtualTable'
import { useCounts, useRuns } from './data'
import { FilterBar } from './FilterBar'
import { type Filters, fromAddress, isNone, toAddress } from './filters'
import { Many } from './Many'
import { StatusTabs } from './StatusTabs'

const StartRun = lazy(() => import('./StartRun'))

/** All runs, newest first; or the form that starts one (`?start`). */
export default function RunsPage() {
  const [params] = useSearchParams()
  const start = params.get('start')
  if (start === null) return <Runs />
  return (
    <Suspense fallback={<Loading what="the form" />}>
      <StartRun what={start} />
    </Suspense>
  )
}

function Runs() {
  const [params, setParams] = useSearchParams()
  const [, navigate] = useLocation()
  const filters = fromAddress(params)
  const onFilters = (next: Filters) => setParams(toAddress(next))
  const runs = useRuns(filters)
  const counts = useCounts(filters)
  const [picked, setPicked] = useState<ReadonlySet<string>>(new Set())
  const { list, rows } = runs
  return (
    <>
      <div className="spread">
        <h1>Runs</h1>
        <Link className="button main" href="/runs?start">
          Start a run
        </Link>
      </div>
      <StatusTabs filters={filters} counts={counts.data} onFilters={onFilters} />
      <FilterBar filters={filters} onFilters={onFilters} />
      <Many filters={filters} rows={rows} picked={picked} onPicked={setPicked} onDone={runs.fromTop} />
      {list.isPending && <Loading what="runs" />}
      {list.isError && <ProblemBox error={list.error} retry={() => void list.refetch()} />}
      {list.isSuccess && rows.length === 0 && !runs.hasMore && <NoRuns filtered={!isNone(filters)} />}
      {rows.length > 0 && (
        <div className="panel runs-table">
          {runs.newer && (
            <button type="button" className="button main small newer-runs" onClick={runs.fromTop}>
              Newer runs
            </button>
          )}
          <VirtualTable
            key={toAddress(filters).toString()}
            label="Runs"
            rows={rows}
            columns={columns(picked, setPicked)}
            rowKey={run => run.run_id}
            testId="run-row"
            data={run => ({ 'data-run-id': run.run_id, 'data-status': run.status })}
            onOpen={run => navigate(`/runs/${run.run_id}`)}
            onEnd={runs.hasMore ? runs.readMore : undefined}
            onSight={runs.onSight}
          />
        </div>
      )}
      {runs.more === 'failed' && (
        <button type="button" className="button" onClick={runs.readMore}>
          Older runs could not be read: try again
        </button>
      )}
      {runs.hasMore && runs.more === 'reading' && (
        <span className="hidden" role="status">
          Loading older runs
        </span>
      )}
    </>
  )
}

/** What a run is: its workflow, or its agents. */
export function titleOf(run: RunSummary): string {
  if (run.workflow) return `${run.workflow.name} @${run.workflow.version}`
  const agents = [...new Set(run.agents)]
  if (agents.length === 0) return 'no agents'
  return agents.length > 4 ? `${agents.slice(0, 4).join(', ')} and ${agents.length - 4} more` : agents.join(', ')
}

function columns(
  picked: ReadonlySet<string>,
  onPicked: (picked: ReadonlySet<string>) => void,
): readonly Column<RunSummary>[] {
  return [
    {
      key: 'pick',
      name: <span className="hidden">Picked</span>,
      track: '1.3rem',
      cell: run => (
        <input
          type="checkbox"
          aria-label={`Pick ${run.run_id}`}
          checked={picked.has(run.run_id)}
          onChange={event => {
            const next = new Set(picked)
            if (event.target.checked) next.add(run.run_id)
            else next.delete(run.run_id)
            onPicked(next)
          }}
        />
      ),
    },
    {
      key: 'status',
      name: 'Status',
      track: 'minmax(6.3rem, 7.2rem)',
      cell: run => <Status of={run.degraded ? 'degraded' : run.status} />,
    },
    {
      key: 'what',
      name: 'What',
      track: 'minmax(5rem, 3fr)',
      cell: run => (
        <Link href={`/runs/${run.run_id}`} title={titleOf(run)}>
          {titleOf(run)}
        </Link>
      ),
    },
    {
      key: 'run',
      name: 'Run',
      track: '11.5rem',
      wide: true,
      cell: run => (
        <span className="mono soft" title={run.run_id}>
          {run.run_id.slice(0, 8)}…{run.run_id.slice(-6)}
          <Copy text={run.run_id} what="run id" />
        </span>
      ),
    },
    {
      key: 'by',
      name: 'Started by',
      track: 'minmax(6rem, 2fr)',
      wide: true,
      cell: run => <span className="soft">{starter(run)}</span>,
    },
    { key: 'started', name: 'Started', track: 'minmax(5rem, 8.5rem)', cell: run => <Time of={run.created_at} /> },
    {
      key: 'took',
      name: 'Took',
      track: '6.5rem',
      wide: true,
      number: true,
      cell: run => <Took from={run.created_at} to={run.finished_at} />,
    },
    {
      key: 'events',
      name: 'Events',
      track: '5.5rem',
      wide: true,
      number: true,
      cell: run => run.event_count.toLocaleString('en'),
    },
  ]
}

/** What started a run, or for whom. */
export function starter(run: RunSummary): string {
  if (run.origin) return `${run.origin.kind} ${run.origin.name}`
  if (run.parent) return 'another run'
  return run.on_behalf_of ?? run.actor?.replace(/^(\w+):([0-9a-f]{8})-[0-9a-f-]{20,}([0-9a-f]{6})$/, '$1 …$3') ?? ''
}

const COMMANDS = [
  'tidelog demo',
  `curl ${location.origin}/v1/runs -H "Authorization: Bearer $TIDELOG_API_KEY" -H "Content-Type: application/json" -d '{"agent": "NAME"}'`,
  'tidelog up --agents ./agents',
  `tidelog runs start AGENT --input '{"name": "Ada"}'`,
]

function NoRuns({ filtered }: { readonly filtered: boolean }) {
  if (filtered) {
    return (
      <Empty>
        <p>No run is like that.</p>
        <Link className="button" href="/runs">
          Clear all filters
        </Link>
      </Empty>
    )
  }
  const [demo, curl, up, start] = COMMANDS
  const line = (command: string | undefined) => (
    <div className="command-line">
      <code>{command}</code>
      <Copy text={command ?? ''} what="command" />
    </div>
  )
  return (
    <section className="panel stack first-steps" aria-label="First steps">
      <h2>There are no runs yet</h2>
      <p>A run is one piece of work of one or more agents. See four agents at work, in a server of its own:</p>
      {line(demo)}
      <p>Give this server agents of your own, from a folder of Python files, and start a run:</p>
      {line(up)}
      {line(start)}
      <p>The same over HTTP:</p>
      {line(curl)}
      <p>
        Or <Link href="/runs?start">start one here</Link>.
      </p>
    </section>
  )
}
