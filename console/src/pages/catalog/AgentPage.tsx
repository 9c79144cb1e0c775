import { useQuery } from '@tanstack/react-query'
import { Link } from 'wouter'

import { api, dataOf } from '../../api/client'
import { watched } from '../../api/watch'
import { useEvents } from '../../live/hooks'
import { useRefresh } from '../../live/useRefresh'
import { Loading, ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Time, Took } from '../../ui/Time'
import { type Agent, useWorkers } from './data'
import { SchemaTable } from './SchemaTable'
import { Online, Tags } from './Search'
import { TableBox } from '../../ui/TableBox'

export function AgentPage({ name }: { readonly name: string }) {
  const agent = useQuery({
    queryKey: ['agent', name],
    queryFn: async ({ signal }) => dataOf(await api.GET('/v1/agents/{name}', { params: { path: { name } }, signal })),
    ...watched,
  })
  return (
    <>
      <nav aria-label="Where this is">
        <Link href="/agents">Agents</Link>
      </nav>
      {agent.isPending && <Loading what="the agent" />}
      {agent.isError && (
        <>
          <h1 className="mono">{name}</h1>
          <ProblemBox error={agent.error} retry={() => void agent.refetch()} />
        </>
      )}
      {agent.isSuccess && <Shown agent={agent.data} />}
    </>
  )
}

function Shown({ agent }: { readonly agent: Agent }) {
  return (
    <>
      <header className="spread">
        <h1 className="row">
          <span className="mono">{agent.name}</span>
          <Online workers={agent.workers} />
        </h1>
        <Link className="button main" href={`/runs?start=${encodeURIComponent(`agent:${agent.name}`)}`}>
          Start a run
        </Link>
      </header>
      {agent.description !== '' && <p className="about">{agent.description}</p>}
      <dl className="facts panel">
        <dt>Version</dt>
        <dd>{agent.version}</dd>
        <dt>Capabilities</dt>
        <dd>
          <Tags of={agent.capabilities} />
        </dd>
        <dt>Announced</dt>
        <dd>
          <Time of={agent.registered_at} />
        </dd>
      </dl>
      <div className="catalog-pair">
        <SchemaTable of={agent.input_schema} name="Input" none="It takes any JSON value." />
        <SchemaTable of={agent.output_schema} name="Result" none="It answers with any JSON value." />
      </div>
      <div className="catalog-pair">
        <Runs name={agent.name} />
        <Offering kind="agents" name={agent.name} version={agent.version} />
      </div>
    </>
  )
}

function Runs({ name }: { readonly name: string }) {
  const key = ['runs', 'of-agent', name]
  const runs = useQuery({
    queryKey: key,
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/runs', { params: { query: { agent: name, limit: 10 } }, signal })),
  })
  useEvents(
    { types: ['run.started', 'run.completed', 'run.failed', 'run.cancelled', 'run.paused', 'run.resumed'] },
    { onEvents: useRefresh([key], 3_000) },
  )
  return (
    <section className="panel stack" aria-label="Newest runs">
      <div className="spread">
        <h2>Newest runs</h2>
        <Link href={`/runs?agent=${encodeURIComponent(name)}`}>All its runs</Link>
      </div>
      {runs.isPending && <Loading what="runs" />}
      {runs.isError && <ProblemBox error={runs.error} retry={() => void runs.refetch()} />}
      {runs.isSuccess && runs.data.data.length === 0 && <p className="soft">No run has a step of this agent yet.</p>}
      {runs.isSuccess && runs.data.data.length > 0 && (
        <TableBox name="Newest runs">
          <table className="table">
            <thead>
              <tr>
                <th scope="col">Run</th>
                <th scope="col">Status</th>
                <th scope="col">Started</th>
                <th scope="col">Took</th>
              </tr>
            </thead>
            <tbody>
              {runs.data.data.map(run => (
                <tr key={run.run_id} data-testid="run-row" data-run-id={run.run_id}>
                  <td>
                    <Link className="mono" href={`/runs/${run.run_id}`} title={run.run_id}>
                      …{run.run_id.slice(-12)}
                    </Link>
                  </td>
                  <td>
                    <Status of={run.degraded ? 'degraded' : run.status} />
                  </td>
                  <td>
                    <Time of={run.created_at} />
                  </td>
                  <td>
                    <Took from={run.created_at} to={run.finished_at} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableBox>
      )}
    </section>
  )
}

/** The workers that offer an agent or a tool, and in which version. */
export function Offering({
  kind,
  name,
  version,
}: {
  readonly kind: 'agents' | 'tools'
  readonly name: string
  readonly version: string
}) {
  const workers = useWorkers()
  const found = (workers.data?.rows ?? []).flatMap(worker => {
    const offered = worker[kind]?.find(one => one.name === name)
    return offered === undefined ? [] : [{ worker, offered }]
  })
  return (
    <section className="panel stack" aria-label="Workers">
      <h2>Workers that have it</h2>
      {workers.isPending && <Loading what="workers" />}
      {workers.isError && <ProblemBox error={workers.error} retry={() => void workers.refetch()} />}
      {workers.isSuccess && found.length === 0 && (
        <p className="soft">Nobody at this moment. Its work waits until a worker comes that offers it.</p>
      )}
      {found.length > 0 && (
        <ul className="plain-list scrolls">
          {found.slice(0, 200).map(({ worker, offered }) => (
            <li key={worker.session_id} className="spread">
              <Link href={`/workers?worker=${worker.session_id}`}>{worker.worker_id}</Link>
              <span className="row">
                {offered.version !== version && <span className="badge warn">version {offered.version}</span>}
                <span className="soft">
                  since <Time of={worker.since} />
                </span>
              </span>
            </li>
          ))}
        </ul>
      )}
      {found.length > 200 && <p className="soft">and {found.length - 200} others</p>}
    </section>
  )
}
