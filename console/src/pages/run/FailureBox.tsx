import { Link } from 'wouter'

import { largeOf } from '../../api/large'
import type { Run, Step } from '../../api/types'
import { partHref } from './address'
import { Fault } from './Fault'

/** The step whose failure ended the run, if one did: the first one that failed. */
export function failedStep(run: Run): Step | undefined {
  const failed = run.steps.filter(step => step.status === 'failed')
  const told = failed.find(
    step => step.error != null && step.error.message === run.error?.message && step.error.type === run.error.type,
  )
  return told ?? failed.sort((a, b) => (a.finished_at ?? '').localeCompare(b.finished_at ?? ''))[0]
}

/** Why the run failed: which step, in which attempt, with what, and where in the code. */
export function FailureBox({ run, at }: { readonly run: Run; readonly at: string | null }) {
  if (run.status !== 'failed') return null
  const step = failedStep(run)
  const from = step !== undefined && (step.error != null || largeOf(step, 'error') !== null) ? step : run
  const part = step?.parts?.first.find(each => each.status === 'failed')
  return (
    <section className="notice bad stack" aria-labelledby="why-failed">
      <div className="spread">
        <h2 id="why-failed">
          {step === undefined ? (
            'The run failed'
          ) : (
            <>
              Failed at{' '}
              <Link href={partHref(run.run_id, 'overview', at, { step: step.key })}>
                {step.key}
                {part !== undefined && `.${part.number}`}
              </Link>
            </>
          )}
        </h2>
        {step !== undefined && (
          <span className="soft">
            {step.agent != null && `agent ${step.agent}`}
            {step.agent_version != null && `@${step.agent_version}`}
            {step.attempt > 0 && `, attempt ${step.attempt}`}
          </span>
        )}
      </div>
      <Fault of={from} open />
      {step !== undefined && (
        <div className="row">
          <Link className="button small" href={partHref(run.run_id, 'overview', at, { step: step.key })}>
            What it had done
          </Link>
          <Link className="button small" href={partHref(run.run_id, 'logs', at, { of: step.key })}>
            Its logs
          </Link>
          <Link className="button small" href={partHref(run.run_id, 'timeline', at)}>
            Timeline
          </Link>
        </div>
      )}
    </section>
  )
}
