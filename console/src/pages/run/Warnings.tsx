import { Link } from 'wouter'

import type { Run } from '../../api/types'
import { Time } from '../../ui/Time'
import { partHref } from './address'
import { isOver, useWaits } from './data'
import { placeOf } from './Fault'
import { helpOf, isStuck, isWait, whereOf } from './waits'

const MOST = 20

interface Props {
  readonly run: Run
  readonly at: string | null
}

/** What a person should know of a run beside its status. */
export function Warnings({ run, at }: Props) {
  const steps = run.steps
  const unused = steps.filter(step => step.unused_keys.length > 0)
  return (
    <>
      {run.pause != null && !isOver(run) && (
        <div className="notice warn">
          <strong>The run is paused.</strong> Nothing begins until it is resumed. Paused <Time of={run.pause.at} /> by{' '}
          <span className="mono">{run.pause.by ?? 'the run above'}</span>
          {run.pause.reason != null && <>: {run.pause.reason}</>}
          {run.pause.parent_id != null && (
            <>
              {' '}
              with <Link href={partHref(run.pause.parent_id, 'overview', null)}>the run above</Link>.
            </>
          )}
        </div>
      )}
      {run.cancel_reason != null && (
        <div className="notice">
          <strong>Cancelled:</strong> {run.cancel_reason}
        </div>
      )}
      {run.degraded && (
        <div className="notice warn stack">
          <strong>The run is degraded: it was completed without {run.missing.length} of its steps.</strong>
          <ul>
            {run.missing.slice(0, MOST).map(key => {
              const error = steps.find(step => step.key === key)?.error
              return (
                <li key={key}>
                  <Link href={partHref(run.run_id, 'overview', at, { step: key })}>{key}</Link>
                  {error != null && (
                    <>
                      : {error.type}: {error.message} <span className="soft mono">{placeOf(error)}</span>
                    </>
                  )}
                </li>
              )
            })}
          </ul>
        </div>
      )}
      {unused.map(step => (
        <div key={step.key} className="notice warn">
          <strong>
            <Link href={partHref(run.run_id, 'overview', at, { step: step.key })}>{step.key}</Link>:{' '}
            {step.unused_keys.length} recorded results were not used.
          </strong>{' '}
          The code of the agent was changed between two attempts, and its new steps ran anew:{' '}
          <span className="mono">{step.unused_keys.slice(0, MOST).join(', ')}</span>. Was an effect made twice? Look at
          the calls of the step.
        </div>
      ))}
      <Compensation run={run} />
      <Waits run={run} at={at} />
    </>
  )
}

function Compensation({ run }: { readonly run: Run }) {
  const taken = run.compensation
  if (taken == null) return null
  const of = `${taken.compensated ?? 0} of ${taken.effects ?? 0} effects`
  const failed = (taken.failed ?? 0) > 0 ? `, ${taken.failed ?? 0} failed` : ''
  return (
    <div className={`notice ${taken.status === 'partial' ? 'bad' : ''}`}>
      <strong>
        {taken.status === 'running' ? 'The effects of the run are being taken back' : `Taken back: ${of}${failed}`}.
      </strong>{' '}
      {taken.status === 'running' && `${of} so far${failed}.`}
      {taken.status === 'partial' && 'A person says how it goes on: see Effects below.'}
    </div>
  )
}

function Waits({ run, at }: Props) {
  const waits = useWaits(run, at)
  const shown = (waits.data?.data ?? []).filter(isWait)
  if (at !== null || isOver(run) || shown.length === 0) return null
  return (
    <div className={`notice stack ${shown.some(isStuck) ? 'warn' : ''}`} data-testid="waits">
      <strong>The run waits</strong>
      <ul>
        {shown.slice(0, MOST).map((wait, n) => (
          <li key={n}>
            <strong>{whereOf(wait)}</strong>: {wait.detail}
            {wait.until != null && (
              <>
                {' '}
                (until <Time of={wait.until} />)
              </>
            )}
            . <span className="soft">{helpOf(wait)}</span>{' '}
            {wait.waits_for === 'approval' && <Link href={`/inbox/${wait.approval_id ?? ''}`}>Open the inbox</Link>}
            {wait.waits_for === 'person' && wait.id != null && (
              <Link href={partHref(run.run_id, 'calls', null, { call: wait.id })}>Look at the call</Link>
            )}
            {wait.waits_for === 'run' && wait.id != null && (
              <Link href={partHref(wait.id, 'overview', null)}>Look at the child run</Link>
            )}
          </li>
        ))}
      </ul>
      {shown.length + (waits.data?.more ?? 0) > MOST && (
        <span className="soft">and {shown.length + (waits.data?.more ?? 0) - MOST} more</span>
      )}
    </div>
  )
}
