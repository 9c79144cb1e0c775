import type { ComponentType } from 'react'

import type { Run, Step } from '../../../api/types'
import { Id } from '../../../ui/Copy'
import { Status } from '../../../ui/Status'
import { Time, Took } from '../../../ui/Time'
import { Value } from '../../../ui/Value'
import { Json } from '../../../ui/Json'
import { StepActs } from '../actions/StepActs'
import { useParam } from '../address'
import { Fault } from '../Fault'
import { JournalTable } from '../Journal'
import { LogTable } from '../Logs'
import { whatIs } from '../StepList'
import { whyOf } from '../why'
import { Parts } from './Parts'
import { StepCalls } from './StepCalls'

export interface StepProps {
  readonly run: Run
  readonly step: Step
  readonly at: string | null
}

interface Shown {
  readonly name: string
  readonly count?: number | undefined
  readonly view: ComponentType<StepProps>
}

/** All of one step: why it ran, what it got and gave, what it called, recorded and logged, and what can be done about it. */
export function StepPanel({ run, step, at, onClose }: StepProps & { readonly onClose: () => void }) {
  const [wanted, show] = useParam('show')
  const views = viewsOf(step)
  const chosen = views[wanted ?? ''] === undefined ? firstOf(step) : (wanted ?? 'result')
  const View = views[chosen]?.view
  return (
    <section className="panel stack step-panel" aria-labelledby="step-title" data-testid="step-panel">
      <div className="spread">
        <h2 id="step-title" className="row">
          <span className="mono">{step.key}</span>
          <Status of={step.status} />
          {step.taken_over && <span className="tag">taken over</span>}
          {step.exhausted && <span className="tag">ended by its bound</span>}
        </h2>
        <button type="button" className="button small" onClick={onClose}>
          Close the step
        </button>
      </div>
      <p>{whyOf(step, run)}</p>
      <dl className="run-facts">
        <Fact name="What">{whatIs(step)}</Fact>
        {step.attempt > 0 && <Fact name="Attempt">{step.attempt}</Fact>}
        <Fact name="Began">
          <Time of={step.started_at} />
        </Fact>
        <Fact name="Took">
          <Took from={step.started_at} to={step.finished_at} />
        </Fact>
        {step.waits_until != null && (
          <Fact name={step.status === 'waiting' ? 'Waits until' : 'Waited until'}>
            <Time of={step.waits_until} />
          </Fact>
        )}
        {step.worker_id != null && (
          <Fact name="Worker">
            <Id of={step.worker_id} what="worker id" />
          </Fact>
        )}
        {step.agent_run_id != null && (
          <Fact name="Agent run">
            <Id of={step.agent_run_id} what="agent run id" />
          </Fact>
        )}
      </dl>
      {(step.fallbacks ?? []).map(tried => (
        <div key={tried.number} className="notice warn stack">
          <strong>It went on with {tried.agent}, because:</strong>
          <Fault of={tried} />
        </div>
      ))}
      {/* The box at the top of a failed run has the traceback already. */}
      <Fault of={step} open={run.status !== 'failed'} />
      <StepActs run={run} step={step} at={at} />
      <div className="tabs" role="group" aria-label="What is shown of the step">
        {Object.entries(views).map(([path, { name, count }]) => (
          <button key={path} type="button" aria-pressed={path === chosen} className="tab" onClick={() => show(path)}>
            {name}
            {count !== undefined && count > 0 && <span className="soft"> {count.toLocaleString('en')}</span>}
          </button>
        ))}
      </div>
      {View !== undefined && <View run={run} step={step} at={at} />}
    </section>
  )
}

function Fact({ name, children }: { readonly name: string; readonly children: React.ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  )
}

/** What a reader of this step wants to see at first. */
function firstOf(step: Step): string {
  if (step.parts != null) return 'parts'
  if (step.status === 'completed') return 'result'
  if (step.call_count > 0) return 'calls'
  return 'input'
}

function viewsOf(step: Step): Readonly<Record<string, Shown>> {
  const views: Record<string, Shown> = {
    result: { name: 'Result', view: ({ step: of }) => <Value of={of} field="result" what="result" /> },
    input: { name: 'Input', view: StepInput },
  }
  if (step.parts != null) views['parts'] = { name: 'Parts', count: step.parts.started, view: Parts }
  if (step.call_count > 0) views['calls'] = { name: 'Calls', count: step.call_count, view: StepCalls }
  if (step.recorded_steps > 0 || step.call_count > 0) {
    views['journal'] = {
      name: 'Journal',
      view: ({ run, step: of, at }) => <JournalTable run={run} at={at} of={of.key} />,
    }
  }
  views['logs'] = { name: 'Logs', view: ({ run, step: of, at }) => <LogTable run={run} at={at} step={of.key} /> }
  views['plan'] = {
    name: 'Definition',
    view: ({ run, step: of }) => (
      <Json of={run.plan.steps.find(each => each.key === of.key) ?? null} what="definition" />
    ),
  }
  return views
}

function StepInput({ run, step }: StepProps) {
  const plan = run.plan.steps.find(each => each.key === step.key)
  const before = step.after
  return (
    <div className="stack">
      {plan?.input_from != null && (
        <p>
          Made by <code>{JSON.stringify(plan.input_from)}</code>
        </p>
      )}
      {step.input != null ? (
        <Value of={step} field="input" what="input of the step" />
      ) : plan?.input != null || plan?.input_from != null ? (
        <Value of={{ ...step, input: plan.input }} field="input" what="input of the step" />
      ) : (
        <>
          <p className="soft">
            The step has no input of its own: it sees the input of the run
            {before.length > 0 && ` and the results of ${before.slice(0, 10).join(', ')}`}.
          </p>
          <Value of={run} field="input" what="input of the run" />
        </>
      )}
    </div>
  )
}
