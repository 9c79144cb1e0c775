import './health.css'

import { Link } from 'wouter'

import { Loading, ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Problems } from '../catalog/WorkersPage'
import { type Readiness, useModels, useReadiness, useSince } from './data'
import { Gaps, OpenBreakers } from './More'
import { ModelTable } from './Models'
import { Processes, Upkeep } from './Processes'
import { bytes, consumersOf, CURES, standOf } from './state'
import { Time } from '../../ui/Time'
import { TableBox } from '../../ui/TableBox'

/** How the installation is: what it depends on, how far its parts are, and what cannot go on. */
export default function HealthPage() {
  const report = useReadiness()
  if (report.isPending) return <Loading what="health" />
  if (report.isError) {
    return (
      <>
        <h1>Health</h1>
        <ProblemBox error={report.error} retry={() => void report.refetch()} />
      </>
    )
  }
  const { data } = report
  return (
    <>
      <header className="spread">
        <h1 className="row">
          Health <Status of={data.status} />
        </h1>
        <span className="row soft">
          as of <Time of={new Date(report.dataUpdatedAt).toISOString()} />
          <button
            type="button"
            className="button small"
            disabled={report.isFetching}
            onClick={() => void report.refetch()}
          >
            Ask now
          </button>
        </span>
      </header>
      <Troubles report={data} />
      <Problems />
      <Dependencies report={data} />
      <Work report={data} />
      <OpenBreakers />
      <Following report={data} />
      <Processes members={data.members ?? []} />
      <Upkeep chores={data.upkeep ?? []} />
      <Gaps />
      <p className="soft">
        None of this is an event of the log, so the page asks every ten seconds while it is in sight. Metrics for a
        monitoring system are under <code>/metrics</code>.
      </p>
    </>
  )
}

function Troubles({ report }: { readonly report: Readiness }) {
  if (report.degraded.length === 0) return null
  return (
    <section className="stack" aria-label="What cannot go on">
      {report.degraded.map(trouble => {
        const cure = CURES[trouble.code]
        return (
          <div key={trouble.code} className="notice warn spread" data-testid="trouble" data-name={trouble.code}>
            <span>
              <strong>{trouble.code.replaceAll('-', ' ')}</strong> <span>{trouble.detail}</span>
            </span>
            {cure !== undefined && <Link href={cure.path}>{cure.name}</Link>}
          </div>
        )
      })}
    </section>
  )
}

const WHAT: Readonly<Record<string, string>> = {
  postgres: 'PostgreSQL',
  nats: 'NATS',
  durability: 'Appends on disk',
  disk: 'Room for PostgreSQL',
  setup: 'Set-up',
}

function Dependencies({ report }: { readonly report: Readiness }) {
  return (
    <section className="health-cards" aria-label="Dependencies">
      {Object.entries(report.dependencies).map(([name, state]) => (
        <div
          key={name}
          className="panel health-card"
          data-testid="health-part"
          data-name={name}
          data-status={state === 'ok' ? 'ok' : 'failed'}
        >
          <span className="soft">{WHAT[name] ?? name}</span>
          {state === 'ok' ? <Status of="ok" /> : <span className="badge bad">{state}</span>}
        </div>
      ))}
      <Figure name="Server" value={report.version} />
      {report.head !== null && <Figure name="Newest event" value={report.head.toLocaleString('en')} />}
      {report.free_bytes !== null && <Figure name="Free on the disk" value={bytes(report.free_bytes)} />}
      {report.durable === false && <Figure name="Durability" value="a throw-away database" />}
      {report.row_level_security !== null && (
        <Figure name="Row level security" value={report.row_level_security ? 'in force' : 'off'} />
      )}
    </section>
  )
}

function Figure({ name, value }: { readonly name: string; readonly value: string }) {
  return (
    <div className="panel health-card">
      <span className="soft">{name}</span>
      <strong>{value}</strong>
    </div>
  )
}

const SUMS = ['waiting', 'running', 'retrying', 'held', 'suspended', 'paused', 'ambiguous'] as const

function Work({ report }: { readonly report: Readiness }) {
  const { work } = report
  if (work === null) return null
  const queues = [
    ...work.unoffered.map(queue => ({ ...queue, running: 0, why: 'no worker offers it' })),
    ...work.waits_long.map(queue => ({ ...queue, why: 'waits for a free worker' })),
  ]
  return (
    <section className="panel stack" aria-label="Work">
      <div className="spread">
        <h2>Work</h2>
        <span className="soft">
          {work.runs.toLocaleString('en')} of at most {work.max_runs.toLocaleString('en')} runs are open
        </span>
      </div>
      <div className="health-sums">
        {SUMS.map(name => (
          <span key={name} className={work[name] > 0 ? '' : 'soft'}>
            <strong>{work[name].toLocaleString('en')}</strong> {name}
          </span>
        ))}
      </div>
      {queues.length > 0 && (
        <TableBox name="Queues">
          <table className="table">
            <thead>
              <tr>
                <th scope="col">Queue</th>
                <th scope="col">Why</th>
                <th scope="col" className="number">
                  Waiting
                </th>
                <th scope="col" className="number">
                  Running
                </th>
                <th scope="col" className="number">
                  The oldest waits
                </th>
              </tr>
            </thead>
            <tbody>
              {queues.map(queue => (
                <tr key={`${queue.kind} ${queue.name}`} data-testid="queue-row" data-name={queue.name}>
                  <td>
                    <Link className="mono" href={`/${queue.kind}s/${encodeURIComponent(queue.name)}`}>
                      {queue.name}
                    </Link>
                  </td>
                  <td>{queue.why}</td>
                  <td className="number">{queue.waiting}</td>
                  <td className="number">{queue.running}</td>
                  <td className="number">{Math.round(queue.oldest_waiting_s)} s</td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableBox>
      )}
    </section>
  )
}

/** What follows the log: read models, which operators may rebuild, and the rest. */
function Following({ report }: { readonly report: Readiness }) {
  const models = useModels()
  const names = new Set(models.data?.data.map(model => model.name) ?? [])
  const consumers = consumersOf(report, names)
  const positions = [...consumers, ...(models.data?.data ?? [])].filter(one => one.lag > 0).map(one => one.position)
  const since = useSince(positions.length === 0 ? null : Math.min(...positions))
  return (
    <>
      {positions.length > 0 && since.data !== undefined && since.data !== null && (
        <p className="soft" data-testid="oldest-unseen">
          The oldest event that not every part has seen was recorded <Time of={since.data} />.
        </p>
      )}
      <ModelTable models={models} />
      <section className="panel stack" aria-label="Others that follow the log">
        <h2>{names.size === 0 ? 'What follows the log' : 'Others that follow the log'}</h2>
        <TableBox name="Parts that follow the log">
          <table className="table">
            <thead>
              <tr>
                <th scope="col">Part</th>
                <th scope="col">State</th>
                <th scope="col" className="number">
                  Position
                </th>
              </tr>
            </thead>
            <tbody>
              {consumers.map(one => {
                const stand = standOf(one.lag, one.parked)
                return (
                  <tr
                    key={one.name}
                    data-testid="health-part"
                    data-name={one.name}
                    data-status={stand.tone === 'good' ? 'ok' : stand.text}
                  >
                    <td>{one.name}</td>
                    <td>
                      <span className={`badge ${stand.tone}`}>{stand.text}</span>
                    </td>
                    <td className="number">{one.position.toLocaleString('en')}</td>
                  </tr>
                )
              })}
            </tbody>
          </table>
        </TableBox>
      </section>
    </>
  )
}
