import { Link } from 'wouter'

import { partHref, useParam } from '../address'
import { CallDetails } from '../CallDetails'
import { CallRows } from '../CallRows'
import type { StepProps } from './StepPanel'

/** The newest calls of a step, and one of them in full. */
export function StepCalls({ run, step, at }: StepProps) {
  const [chosen, choose] = useParam('call')
  const calls = step.calls
  const missing = step.call_count - calls.length
  return (
    <div className="stack">
      {chosen !== null && <CallDetails run={run} id={chosen} step={step.key} at={at} onClose={() => choose(null)} />}
      <CallRows calls={calls} chosen={chosen} onChoose={choose} />
      {missing > 0 && (
        <p className="soft">
          These are among the newest 50 calls of the run; {missing.toLocaleString('en')} more are in{' '}
          <Link href={partHref(run.run_id, 'calls', at, { of: step.key })}>all calls</Link>.
        </p>
      )}
    </div>
  )
}
