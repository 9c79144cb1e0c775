import { lazy, Suspense } from 'react'

import { Empty, Loading } from '../../ui/States'
import { Value } from '../../ui/Value'
import { useParam } from './address'
import { FailureBox } from './FailureBox'
import type { PartProps } from './RunPage'
import { StepPanel } from './step/StepPanel'
import { StepList } from './StepList'
import { useNarrow } from '../../ui/narrow'
import { Warnings } from './Warnings'

// The graph's library is large, and not every look at a run needs it.
const PlanGraph = lazy(() => import('./graph/PlanGraph'))

/** Steps from which on a plan is shown as a list at first: nobody reads a drawing of a thousand boxes. */
const MANY = 300

/** Why it failed or what it waits for, the plan with the state of each step, and the values of the run. */
export function Overview({ run, at }: PartProps) {
  const [chosen, choose] = useParam('step')
  const [view, setView] = useParam('view')
  const narrow = useNarrow()
  const steps = run.steps
  const shown = view ?? (narrow || steps.length > MANY ? 'list' : 'graph')
  const step = steps.find(each => each.key === chosen)
  return (
    <>
      <FailureBox run={run} at={at} />
      <Warnings run={run} at={at} />
      <section className="stack" aria-labelledby="plan">
        <div className="spread">
          <h2 id="plan">Plan</h2>
          <div className="row" role="group" aria-label="How the plan is shown">
            {(['graph', 'list'] as const).map(name => (
              <button
                key={name}
                type="button"
                className="button small"
                aria-pressed={shown === name}
                onClick={() => setView(name)}
              >
                {name === 'graph' ? 'Graph' : 'List'}
              </button>
            ))}
          </div>
        </div>
        {shown === 'graph' ? (
          <Suspense fallback={<Loading what="the graph" />}>
            <PlanGraph run={run} chosen={chosen} onChoose={choose} />
          </Suspense>
        ) : (
          <StepList steps={steps} chosen={chosen} onChoose={choose} />
        )}
      </section>
      {step !== undefined && (
        <StepPanel key={`${step.key} ${at ?? ''}`} run={run} step={step} at={at} onClose={() => choose(null)} />
      )}
      {chosen !== null && step === undefined && <Empty>The run has no step {chosen}.</Empty>}
      <section className="values" aria-label="Values of the run">
        {run.status === 'completed' && (
          <div className="stack">
            <h2>Result</h2>
            <Value of={run} field="result" what="result" />
          </div>
        )}
        <div className="stack">
          <h2>Input</h2>
          <Value of={run} field="input" what="input" />
        </div>
        {Object.keys(run.metadata).length > 0 && (
          <div className="stack">
            <h2>Metadata</h2>
            <Value of={run} field="metadata" what="metadata" />
          </div>
        )}
      </section>
    </>
  )
}
