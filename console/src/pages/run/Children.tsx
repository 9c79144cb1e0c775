import { Link, useLocation } from 'wouter'

import { api, dataOf } from '../../api/client'
import { usePages } from '../../api/pages'
import type { RunSummary } from '../../api/types'
import { Empty, Loading, ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Time, Took } from '../../ui/Time'
import { type Column, VirtualTable } from '../../ui/VirtualTable'
import { partHref } from './address'
import { asOf } from './moment'
import type { PartProps } from './RunPage'

const PAGE = 100

const COLUMNS: readonly Column<RunSummary>[] = [
  {
    key: 'run',
    name: 'Run',
    track: 'minmax(9rem, 1.2fr)',
    cell: run => (
      <Link className="mono" href={partHref(run.run_id, 'overview', null)} title={run.run_id}>
        {run.run_id.slice(0, 8)}…{run.run_id.slice(-6)}
      </Link>
    ),
  },
  {
    key: 'status',
    name: 'Status',
    track: '7.5rem',
    cell: run => <Status of={run.degraded ? 'degraded' : run.status} />,
  },
  {
    key: 'what',
    name: 'Agents',
    track: 'minmax(8rem, 2fr)',
    wide: true,
    cell: run => (run.workflow == null ? run.agents.join(', ') : `${run.workflow.name} v${run.workflow.version}`),
  },
  { key: 'started', name: 'Started', track: '7.5rem', wide: true, cell: run => <Time of={run.created_at} /> },
  { key: 'took', name: 'Took', track: '6rem', cell: run => <Took from={run.created_at} to={run.finished_at} /> },
]

/** The runs that came of this one: those that its steps started, and its forks. */
export function Children({ run, at }: PartProps) {
  const path = { run_id: run.run_id }
  const children = usePages<RunSummary>(['run', run.run_id, 'children', at], async (cursor, signal) =>
    dataOf(
      await api.GET('/v1/runs/{run_id}/children', {
        params: { path, query: { limit: PAGE, ...cursor, ...asOf(at) } },
        signal,
      }),
    ),
  )
  const forks = usePages<RunSummary>(['run', run.run_id, 'forks', at], async (cursor, signal) =>
    dataOf(
      await api.GET('/v1/runs/{run_id}/forks', {
        params: { path, query: { limit: PAGE, ...cursor, ...asOf(at) } },
        signal,
      }),
    ),
  )
  return (
    <>
      {(run.parent != null || run.forked_from != null) && (
        <div className="notice">
          {run.parent != null && (
            <>
              Started by the step {run.parent.step} of{' '}
              <Link href={partHref(run.parent.run_id, 'overview', null, { step: run.parent.step })}>
                run {run.parent.run_id}
              </Link>
              .{' '}
            </>
          )}
          {run.forked_from != null && (
            <>
              Forked from{' '}
              <Link href={partHref(run.forked_from.run_id, 'overview', String(run.forked_from.position))}>
                run {run.forked_from.run_id}
              </Link>{' '}
              at position {run.forked_from.position}.
            </>
          )}
        </div>
      )}
      <RunList name="Child runs" none="Its steps have started no runs." found={children} />
      <RunList name="Forks" none="Nobody has forked this run." found={forks} />
    </>
  )
}

interface ListProps {
  readonly name: string
  readonly none: string
  readonly found: ReturnType<typeof usePages<RunSummary>>
}

function RunList({ name, none, found }: ListProps) {
  const [, go] = useLocation()
  return (
    <section className="stack" aria-label={name}>
      <h2>{name}</h2>
      {found.isPending && <Loading what={name.toLowerCase()} />}
      {found.isError && <ProblemBox error={found.error} retry={() => void found.refetch()} />}
      {found.isSuccess && found.rows.length === 0 && <Empty>{none}</Empty>}
      {found.rows.length > 0 && (
        <VirtualTable
          label={name}
          rows={found.rows}
          columns={COLUMNS}
          rowKey={run => run.run_id}
          testId="child-row"
          data={run => ({ 'data-run-id': run.run_id, 'data-status': run.status })}
          onOpen={run => go(partHref(run.run_id, 'overview', null))}
          onEnd={found.hasNextPage && !found.isFetchingNextPage ? () => void found.fetchNextPage() : undefined}
        />
      )}
    </section>
  )
}
