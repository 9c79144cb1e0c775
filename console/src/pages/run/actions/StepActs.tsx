import { useState } from 'react'

import { api } from '../../../api/client'
import type { Failure, Run, Step } from '../../../api/types'
import { useSession } from '../../../app/session'
import { Act } from '../../../ui/Act'
import { useReread } from '../data'
import { Choice, Line } from './Choice'
import { Fork } from './Fork'
import { JsonField, parsed } from './JsonField'
import { refusal, stepRefusal } from './refused'
import { Retry } from './Retry'
import { sent } from './sent'

interface Props {
  readonly run: Run
  readonly step: Step
  readonly at: string | null
}

/** What can be done about a step. */
export function StepActs({ run, step, at }: Props) {
  const who = { role: useSession().role, at }
  const began = step.status !== 'pending' && step.status !== 'skipped'
  return (
    <div className="actions">
      {step.status === 'failed' && <Retry run={run} step={step.key} refused={stepRefusal('retry', run, step, who)} />}
      <Fork
        run={run}
        at={at}
        before={step.key}
        name="Fork before this step"
        refused={refusal('fork', run, who) ?? (began ? undefined : 'The step has not begun.')}
      />
      <Dispatch run={run} step={step} refused={stepRefusal('dispatch', run, step, who)} />
      <Skip run={run} step={step} refused={stepRefusal('skip', run, step, who)} />
      <Force run={run} step={step} refused={stepRefusal('force', run, step, who)} />
    </div>
  )
}

interface ActProps {
  readonly run: Run
  readonly step: Step
  readonly refused: string | undefined
}

/** The step itself, or one of its parts. */
function usePart(step: Step) {
  const [part, setPart] = useState('')
  const open = (step.parts?.first ?? []).filter(each => !['completed', 'failed', 'cancelled'].includes(each.status))
  const field =
    open.length === 0 ? null : (
      <Choice
        label="Which part"
        value={part}
        onValue={setPart}
        options={[
          { value: '', name: 'The whole step' },
          ...open.map(each => ({
            value: `.${each.number}`,
            name: `Part ${each.number} (${each.status})`,
          })),
        ]}
      />
    )
  return { key: `${step.key}${part}`, field }
}

function Skip({ run, step, refused }: ActProps) {
  const reread = useReread(run.run_id)
  const { key, field } = usePart(step)
  return (
    <Act
      name="Skip"
      needsReason
      refused={refused}
      onDone={reread}
      what={`The step ${step.key} ends without a result. Steps after it see that as they see a false condition.`}
      act={reason =>
        api.POST('/v1/runs/{run_id}/steps/{step}/skip', {
          params: { path: { run_id: run.run_id, step: key } },
          body: sent({ reason: reason.trim() }),
        })
      }
    >
      {field}
    </Act>
  )
}

function Force({ run, step, refused }: ActProps) {
  const reread = useReread(run.run_id)
  const { key, field } = usePart(step)
  const [how, setHow] = useState<'completed' | 'failed'>('completed')
  const [result, setResult] = useState('null')
  const [type, setType] = useState('')
  const [message, setMessage] = useState('')
  const read = parsed(result)
  return (
    <Act
      name="Say how it ends"
      needsReason
      refused={refused}
      onDone={reread}
      valid={how === 'completed' ? read.ok : type.trim() !== ''}
      what={`The step ${step.key} ends as you say. Its agent, if it is under way, is cancelled.`}
      act={reason =>
        api.POST('/v1/runs/{run_id}/steps/{step}/force', {
          params: { path: { run_id: run.run_id, step: key } },
          body: sent({
            reason: reason.trim(),
            ...(how === 'completed'
              ? { result: read.ok ? read.value : null }
              : { error: sent<Failure>({ type: type.trim(), message }) }),
          }),
        })
      }
    >
      {field}
      <Choice
        label="How it ends"
        value={how}
        onValue={setHow}
        options={[
          { value: 'completed', name: 'It completes with a result' },
          { value: 'failed', name: 'It fails with an error' },
        ]}
      />
      {how === 'completed' ? (
        <JsonField label="Result (JSON)" text={result} onText={setResult} />
      ) : (
        <>
          <Line label="Class of the error" value={type} onValue={setType} required />
          <Line label="Message" value={message} onValue={setMessage} />
        </>
      )}
    </Act>
  )
}

function Dispatch({ run, step, refused }: ActProps) {
  const reread = useReread(run.run_id)
  const { key, field } = usePart(step)
  return (
    <Act
      name="Dispatch again"
      needsReason
      refused={refused}
      onDone={reread}
      what="The agent goes to the queue again. One that a worker has is taken from it, and goes on from its journal with another; a retry does not wait for its delay."
      act={reason =>
        api.POST('/v1/runs/{run_id}/steps/{step}/dispatch', {
          params: { path: { run_id: run.run_id, step: key } },
          body: sent({ reason: reason.trim() }),
        })
      }
    >
      {field}
    </Act>
  )
}
