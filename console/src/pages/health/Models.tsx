import type { UseQueryResult } from '@tanstack/react-query'

import { asProblem } from '../../api/problem'
import type { components } from '../../api/schema'
import { Loading, ProblemBox } from '../../ui/States'
import { Time } from '../../ui/Time'
import { duration } from '../../ui/time'
import { type Build, isUnderWay, type Model } from './data'
import { ModelActs } from './ModelActs'
import { Parked } from './Parked'
import { standOf } from './state'

/** Read models, with what is being done with them. Only keys of the default tenant see and move them: they hold rows of all. */
export function ModelTable({ models }: { readonly models: UseQueryResult<components['schemas']['ProjectionList']> }) {
  return (
    <section className="panel stack" aria-label="Read models">
      <h2>Read models</h2>
      {models.isPending && <Loading what="read models" />}
      {models.isError && asProblem(models.error).status === 403 && (
        <p className="soft">
          Read models hold rows of all tenants, so only a key of the operator&rsquo;s tenant sees their state and
          rebuilds them. {asProblem(models.error).detail}
        </p>
      )}
      {models.isError && asProblem(models.error).status !== 403 && (
        <ProblemBox error={models.error} retry={() => void models.refetch()} />
      )}
      {models.isSuccess && (
        <>
          {models.data.problems.map(problem => (
            <div key={problem.entry_point} className="notice bad">
              <strong>The plug-in {problem.entry_point}</strong> of {problem.distribution} provides no read model:{' '}
              {problem.error}
            </div>
          ))}
          <ul className="plain-list model-list">
            {models.data.data.map(model => (
              <Row key={model.name} model={model} />
            ))}
          </ul>
        </>
      )}
    </section>
  )
}

function Row({ model }: { readonly model: Model }) {
  const stand = standOf(model.lag, model.parked)
  return (
    <li className="model" data-testid="read-model" data-name={model.name} data-status={stand.text}>
      <div className="spread">
        <span className="row">
          <strong className="mono">{model.name}</strong>
          <span className={`badge ${stand.tone}`}>{stand.text}</span>
          {model.plugin !== null && <span className="tag">{model.plugin}</span>}
          {model.previous !== null && (
            <span className="soft">
              the version before is kept since <Time of={model.previous.replaced_at} />
            </span>
          )}
        </span>
        <ModelActs model={model} />
      </div>
      {model.build !== null && <Job job={model.build} />}
      {model.check !== null && <Job job={model.check} />}
      {model.parked > 0 && <Parked name={model.name} />}
    </li>
  )
}

const TONES: Readonly<Record<string, string>> = {
  swapped: 'good',
  equal: 'good',
  different: 'bad',
  failed: 'bad',
  ready: 'warn',
  cancelled: 'idle',
}
const SAID: Readonly<Record<string, string>> = {
  swapped: 'is live',
  equal: 'is as the log says',
  different: 'differs from the log',
  ready: 'is ready to go live',
}
const KINDS: Readonly<Record<string, string>> = { rebuild: 'Rebuild', rollback: 'Roll back', verify: 'Check' }

function Job({ job }: { readonly job: Build }) {
  const goesOn = isUnderWay(job)
  const percent = Math.round(job.progress * 100)
  return (
    <div className="stack job" data-testid="job" data-kind={job.kind} data-status={job.status}>
      <div className="row">
        <span>{KINDS[job.kind]}</span>
        <span className={`badge ${TONES[job.status] ?? 'busy'}`}>{SAID[job.status] ?? job.status}</span>
        <span className="soft">
          {job.events.toLocaleString('en')} events
          {job.rate !== null && goesOn && `, ${Math.round(job.rate).toLocaleString('en')} a second`}
          {job.eta_s !== null && goesOn && `, ${duration(job.eta_s * 1000)} left`}
          {job.rows > 0 && `, ${job.rows.toLocaleString('en')} rows compared`}
        </span>
        <Time of={job.finished_at ?? job.started_at ?? job.requested_at} />
      </div>
      {goesOn && (
        <progress value={job.progress} max={1} aria-label={`${KINDS[job.kind] ?? job.kind}: ${percent} %`}>
          {percent} %
        </progress>
      )}
      {job.error !== null && <pre className="fault">{job.error}</pre>}
      {job.difference !== null && job.difference !== undefined && (
        <pre className="fault">{JSON.stringify(job.difference, null, 2).slice(0, 5000)}</pre>
      )}
    </div>
  )
}
