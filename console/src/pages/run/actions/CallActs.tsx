import { useState } from 'react'

import { api } from '../../../api/client'
import { refusedTo } from '../../../api/rights'
import type { Failure, Invocation, Run } from '../../../api/types'
import { useSession } from '../../../app/session'
import { Act } from '../../../ui/Act'
import { isOver, useReread } from '../data'
import { Choice, Line } from './Choice'
import { JsonField, parsed } from './JsonField'
import { sent } from './sent'

interface Props {
  readonly run: Run
  readonly call: Invocation
  readonly step?: string | undefined
  readonly at: string | null
}

const PAST = 'You look at the past. Go back to now.'
const WAITING: ReadonlySet<string> = new Set(['requested', 'retrying'])

/** What can be done about a tool call. */
export function CallActs({ run, call, step, at }: Props) {
  const { role } = useSession()
  const unclear = call.status === 'ambiguous' || call.status === 'reconciling'
  const past = at === null ? undefined : PAST
  return (
    <div className="actions">
      {unclear && <Resolve run={run} call={call} refused={refusedTo(role, 'invocations.resolve') ?? past} />}
      {step !== undefined && !isOver(run) && WAITING.has(call.status) && (
        <DispatchCall run={run} call={call} step={step} refused={refusedTo(role, 'runs.steer') ?? past} />
      )}
    </div>
  )
}

type How = 'result' | 'error' | 'not_happened'

function Resolve({ run, call, refused }: { run: Run; call: Invocation; refused: string | undefined }) {
  const reread = useReread(run.run_id)
  const [how, setHow] = useState<How>('result')
  const [result, setResult] = useState('null')
  const [type, setType] = useState('')
  const [message, setMessage] = useState('')
  const [evidence, setEvidence] = useState('null')
  const value = parsed(result)
  const proof = parsed(evidence)
  const outcome = () => {
    if (how === 'result') return { result: value.ok ? value.value : null }
    if (how === 'error') return { error: sent<Failure>({ type: type.trim(), message }) }
    return { not_happened: true as const, attempt: call.attempt }
  }
  return (
    <Act
      name="Resolve"
      tone="main"
      needsReason
      refused={refused}
      onDone={reread}
      valid={proof.ok && (how === 'result' ? value.ok : how !== 'error' || type.trim() !== '')}
      what="Nobody knows whether the call took effect. Say what became of it; the agent goes on with that. The first answer counts."
      act={reason =>
        api.POST('/v1/invocations/{invocation_id}/resolve', {
          params: { path: { invocation_id: call.invocation_id } },
          body: sent({
            ...outcome(),
            reason: reason.trim(),
            ...(proof.ok && proof.value !== null ? { evidence: proof.value } : {}),
          }),
        })
      }
    >
      <Choice
        label="What became of it"
        value={how}
        onValue={setHow}
        options={[
          { value: 'result', name: 'It took effect, with this result' },
          { value: 'error', name: 'It failed' },
          { value: 'not_happened', name: 'It did not happen: it is called again' },
        ]}
      />
      {how === 'result' && <JsonField label="Result (JSON)" text={result} onText={setResult} />}
      {how === 'error' && (
        <>
          <Line label="Class of the error" value={type} onValue={setType} required />
          <Line label="Message" value={message} onValue={setMessage} />
        </>
      )}
      <JsonField label="Evidence (JSON, may stay null)" text={evidence} onText={setEvidence} />
    </Act>
  )
}

function DispatchCall({
  run,
  call,
  step,
  refused,
}: {
  run: Run
  call: Invocation
  step: string
  refused: string | undefined
}) {
  const reread = useReread(run.run_id)
  return (
    <Act
      name="Dispatch the call again"
      needsReason
      refused={refused}
      onDone={reread}
      what="The call goes to the queue again, without waiting for the delay of a retry."
      act={reason =>
        api.POST('/v1/runs/{run_id}/steps/{step}/dispatch', {
          params: { path: { run_id: run.run_id, step } },
          body: sent({ reason: reason.trim(), invocation_id: call.invocation_id }),
        })
      }
    />
  )
}
