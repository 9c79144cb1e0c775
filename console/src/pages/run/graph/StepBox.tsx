import { Handle, type NodeProps, Position, useReactFlow } from '@xyflow/react'
import { createContext, memo, useContext } from 'react'

import { Status, toneOf } from '../../../ui/Status'
import { Took } from '../../../ui/Time'
import { whatIs } from '../StepList'
import { BOX_WIDTH } from './box'
import type { StepNode } from './nodes'

/** Chooses a step. */
export const ChooseContext = createContext<(key: string) => void>(() => undefined)

/** A step in the graph: a button that shows its panel. */
export const StepBox = memo(function StepBox({ data, positionAbsoluteX, positionAbsoluteY }: NodeProps<StepNode>) {
  const choose = useContext(ChooseContext)
  const flow = useReactFlow()
  const { step, when, line, chosen } = data
  const status = step.status
  return (
    <>
      <Handle type="target" position={Position.Left} isConnectable={false} />
      <button
        type="button"
        className={`step-box ${toneOf(status)} ${chosen ? 'chosen' : ''} nopan`}
        aria-pressed={chosen}
        data-testid="step-node"
        data-step={step.key}
        data-status={status}
        onClick={() => choose(step.key)}
        onFocus={event => {
          if (event.target.matches(':focus-visible')) {
            void flow.setCenter(positionAbsoluteX + BOX_WIDTH / 2, positionAbsoluteY + 31, { zoom: flow.getZoom() })
          }
        }}
      >
        <span className="step-box-head">
          <span className="step-box-key mono" title={step.key}>
            {step.key}
          </span>
          {step.started_at != null && (
            <span className="soft">
              <Took from={step.started_at} to={step.finished_at} />
            </span>
          )}
        </span>
        {when !== null && (
          <span className="step-box-line mono soft" title={when}>
            if {when}
          </span>
        )}
        {step.form !== 'agent' && (
          <span className="step-box-line soft" title={line}>
            {line === '' ? whatIs(step) : `${step.form} ${line}`}
          </span>
        )}
        <span className="step-box-head">
          <Status of={status} />
          <span className="step-box-line soft" title={whatIs(step)}>
            {step.agent ?? ''}
            {step.attempt > 1 && ` · attempt ${step.attempt}`}
          </span>
        </span>
      </button>
      <Handle type="source" position={Position.Right} isConnectable={false} />
    </>
  )
})
