import './catalog.css'

import { useQuery } from '@tanstack/react-query'
import { useSearchParams } from 'wouter'

import { api, dataOf } from '../../api/client'
import { watched } from '../../api/watch'
import { Empty, Loading, ProblemBox } from '../../ui/States'
import { Time } from '../../ui/Time'
import { type Column, VirtualTable } from '../../ui/VirtualTable'
import { matches, useWorkers, type Worker } from './data'
import { Search, useSearch } from './Search'
import { WorkerPanel } from './WorkerPanel'

const COLUMNS: readonly Column<Worker>[] = [
  {
    key: 'worker',
    name: 'Worker',
    track: 'minmax(9rem, 2fr)',
    cell: worker => (
      <span className="mono" title={worker.worker_id}>
        {worker.worker_id}
      </span>
    ),
  },
  {
    key: 'hand',
    name: 'In hand',
    track: 'minmax(7rem, 1fr)',
    cell: worker =>
      worker.agent_runs + worker.calls === 0 ? (
        <span className="badge idle">idle</span>
      ) : (
        <span className="badge busy">{handOf(worker)}</span>
      ),
  },
  {
    key: 'agents',
    name: 'Agents',
    track: '5rem',
    number: true,
    wide: true,
    cell: worker => worker.agents?.length ?? '–',
  },
  { key: 'tools', name: 'Tools', track: '5rem', number: true, wide: true, cell: worker => worker.tools?.length ?? '–' },
  { key: 'release', name: 'Release', track: '6rem', wide: true, cell: worker => worker.release },
  { key: 'since', name: 'Since', track: '8rem', wide: true, cell: worker => <Time of={worker.since} /> },
  { key: 'seen', name: 'Seen', track: '7rem', wide: true, cell: worker => <Time of={worker.seen_at} /> },
]

function handOf(worker: Worker): string {
  const parts: string[] = []
  if (worker.agent_runs > 0) parts.push(worker.agent_runs === 1 ? '1 agent run' : `${worker.agent_runs} agent runs`)
  if (worker.calls > 0) parts.push(worker.calls === 1 ? '1 call' : `${worker.calls} calls`)
  return parts.join(', ')
}

/** Workers that have a session at this moment, what each has in hand, and what is wrong with their files. */
export default function WorkersPage() {
  const workers = useWorkers()
  const [search] = useSearch()
  const [params, setParams] = useSearchParams()
  const open = params.get('worker')
  const show = (session: string | null) =>
    setParams(
      before => {
        const next = new URLSearchParams(before)
        if (session === null) next.delete('worker')
        else next.set('worker', session)
        return next
      },
      { replace: true },
    )
  const all = workers.data?.rows ?? []
  const rows = all.filter(worker =>
    matches(search, [
      worker.worker_id,
      worker.release,
      ...(worker.agents ?? []).map(one => one.name),
      ...(worker.tools ?? []).map(one => one.name),
    ]),
  )
  const opened = all.find(worker => worker.session_id === open)
  return (
    <>
      <h1>Workers</h1>
      <Problems />
      {workers.isPending && <Loading what="workers" />}
      {workers.isError && <ProblemBox error={workers.error} retry={() => void workers.refetch()} />}
      {workers.isSuccess && all.length === 0 && (
        <Empty>
          No worker is there: agents and tools of yours wait. <code>tidelog worker --agents FOLDER</code> starts one.
        </Empty>
      )}
      {all.length > 0 && (
        <>
          <Search
            what="workers, their agents and tools"
            shown={rows.length}
            of={all.length}
            more={workers.data?.more === true}
          />
          <div className={`catalog-split ${open === null ? '' : 'has-panel'}`}>
            {rows.length === 0 ? (
              <Empty>No worker has these words.</Empty>
            ) : (
              <VirtualTable
                label="Workers"
                rows={rows}
                columns={COLUMNS}
                rowKey={worker => worker.session_id}
                testId="worker-row"
                data={worker => ({ 'data-name': worker.worker_id })}
                opened={open}
                onOpen={worker => show(worker.session_id)}
              />
            )}
            {open !== null && <WorkerPanel key={open} session={open} worker={opened} onClose={() => show(null)} />}
          </div>
        </>
      )}
    </>
  )
}

/** Files, and definitions in them, that workers cannot use. */
export function Problems() {
  const problems = useQuery({
    queryKey: ['workers', 'problems'],
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/workers/problems', { params: { query: { limit: 200 } }, signal })),
    ...watched,
  })
  if (problems.isError) return <ProblemBox error={problems.error} retry={() => void problems.refetch()} />
  const found = problems.data?.data ?? []
  if (found.length === 0) return null
  return (
    <section className="notice warn stack" aria-label="Problems of workers">
      <strong>
        {found.length === 1 ? 'One definition cannot be used' : `${found.length} definitions cannot be used`}
      </strong>
      <ul className="plain-list scrolls">
        {found.map(problem => (
          <li key={`${problem.worker_id} ${problem.path} ${problem.message}`} data-testid="worker-problem">
            <div>
              <code>{problem.path}</code> <span className="soft">{problem.kind.replaceAll('_', ' ')}</span>
            </div>
            <pre>{problem.message}</pre>
            <div className="soft">
              reported by {problem.worker_id}, <Time of={problem.reported_at} />
            </div>
          </li>
        ))}
      </ul>
    </section>
  )
}
