import { Link } from 'wouter'

import { Status } from '../../ui/Status'
import { Time } from '../../ui/Time'
import { type Approval, useRunOf } from './data'

/** How many calls are shown. */
const MOST = 5

/** Who asks, and what the agent did just before. */
export function Before({
  approval,
}: {
  readonly approval: Pick<Approval, 'run_id' | 'invocation_id' | 'agent_run_id' | 'kind' | 'budget'>
}) {
  const ofRun = approval.kind === 'budget' ? (approval.budget?.run_id ?? null) : approval.run_id
  const runId = ofRun === approval.invocation_id ? null : ofRun
  const run = useRunOf(runId)
  if (runId === null || run.data === undefined) return null
  const step = run.data.steps.find(one => one.agent_run_id === approval.agent_run_id)
  const calls = (step?.calls ?? [])
    .filter(call => call.invocation_id !== approval.invocation_id)
    .toSorted((one, other) => other.started_at.localeCompare(one.started_at))
    .slice(0, MOST)
  return (
    <section className="panel stack" aria-label="What came before">
      <h2>What came before</h2>
      <p>
        Run <Status of={run.data.status} /> started <Time of={run.data.created_at} />
        {run.data.actor && (
          <>
            {' '}
            by <span className="mono">{run.data.actor}</span>
          </>
        )}
        {step && (
          <>
            , step <Link href={`/runs/${runId}`}>{step.key}</Link>
            {step.agent && (
              <>
                {' '}
                of the agent <Link href={`/agents/${step.agent}`}>{step.agent}</Link>
              </>
            )}
          </>
        )}
        .
      </p>
      {calls.length > 0 && (
        <ol className="plain-list">
          {calls.map(call => (
            <li key={call.invocation_id} className="spread">
              <span>
                <span className="mono">{call.tool}</span> <Status of={call.status} />
              </span>
              <Time of={call.started_at} />
            </li>
          ))}
        </ol>
      )}
      {step && (
        <p className="soft">
          {step.recorded_steps} recorded {step.recorded_steps === 1 ? 'step' : 'steps'}, {step.call_count}{' '}
          {step.call_count === 1 ? 'call' : 'calls'} in this step.
        </p>
      )}
    </section>
  )
}
