import { Link } from 'wouter'

import { api, dataOf } from '../../api/client'
import { usePages } from '../../api/pages'
import type { RunSummary } from '../../api/types'
import { Empty, Loading, ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Time, Took } from '../../ui/Time'

/** All runs, newest first. */
export default function RunsPage() {
  const runs = usePages(['runs'], async (cursor, signal) =>
    dataOf(await api.GET('/v1/runs', { params: { query: { limit: 50, ...cursor } }, signal })),
  )
  const shown = runs.rows
  return (
    <>
      <h1>Runs</h1>
      {runs.isPending && <Loading what="runs" />}
      {runs.isError && <ProblemBox error={runs.error} retry={() => void runs.refetch()} />}
      {runs.isSuccess && shown.length === 0 && (
        <Empty>
          There are no runs yet. <code>tidelog demo</code> shows some.
        </Empty>
      )}
      {shown.length > 0 && (
        <div className="panel table-box">
          <table className="table">
            <thead>
              <tr>
                <th scope="col">Run</th>
                <th scope="col">Status</th>
                <th scope="col">Agents</th>
                <th scope="col">Started</th>
                <th scope="col">Took</th>
                <th scope="col" className="number">
                  Events
                </th>
              </tr>
            </thead>
            <tbody>
              {shown.map(run => (
                <Row key={run.run_id} run={run} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {runs.hasNextPage && (
        <button
          type="button"
          className="button"
          disabled={runs.isFetchingNextPage}
          onClick={() => void runs.fetchNextPage()}
        >
          Older runs
        </button>
      )}
    </>
  )
}

function Row({ run }: { readonly run: RunSummary }) {
  return (
    <tr data-testid="run-row">
      <td>
        <Link className="mono" href={`/runs/${run.run_id}`}>
          {run.run_id}
        </Link>
      </td>
      <td>
        <Status of={run.degraded ? 'degraded' : run.status} />
      </td>
      <td>{run.agents.join(', ')}</td>
      <td>
        <Time of={run.created_at} />
      </td>
      <td>
        <Took from={run.created_at} to={run.finished_at} />
      </td>
      <td className="number">{run.event_count.toLocaleString('en')}</td>
    </tr>
  )
}
