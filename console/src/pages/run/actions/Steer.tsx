import { useState } from 'react'

import { api } from '../../../api/client'
import type { Run } from '../../../api/types'
import { Act } from '../../../ui/Act'
import { useReread } from '../data'
import { Choice, Line } from './Choice'
import { JsonField, parsed } from './JsonField'
import { reasoned, sent } from './sent'

export interface RunActProps {
  readonly run: Run
  readonly refused: string | undefined
}

const pathOf = (run: Run) => ({ path: { run_id: run.run_id } })

export function Pause({ run, refused }: RunActProps) {
  const reread = useReread(run.run_id)
  return (
    <Act
      name="Pause"
      refused={refused}
      onDone={reread}
      what="Nothing of the run begins until it is resumed. A call that has begun ends, and its outcome is kept. Its child runs are paused with it."
      act={reason => api.POST('/v1/runs/{run_id}/pause', { params: pathOf(run), body: sent(reasoned(reason)) })}
    />
  )
}

export function Resume({ run, refused }: RunActProps) {
  const reread = useReread(run.run_id)
  return (
    <Act
      name="Resume"
      tone={refused === undefined ? 'main' : ''}
      refused={refused}
      onDone={reread}
      what="The run goes on where it was."
      act={reason => api.POST('/v1/runs/{run_id}/resume', { params: pathOf(run), body: sent(reasoned(reason)) })}
    />
  )
}

export function Cancel({ run, refused }: RunActProps) {
  const reread = useReread(run.run_id)
  const [compensate, setCompensate] = useState<'' | 'yes' | 'no'>('')
  return (
    <Act
      name="Cancel run"
      tone="danger"
      refused={refused}
      onDone={reread}
      what="The run ends. What is under way is cancelled; the outcome of a call in the middle of an attempt is still recorded."
      act={reason =>
        api.POST('/v1/runs/{run_id}/cancel', {
          params: pathOf(run),
          body: sent({ ...reasoned(reason), ...(compensate === '' ? {} : { compensate: compensate === 'yes' }) }),
        })
      }
    >
      <Choice
        label="Take its effects back"
        value={compensate}
        onValue={setCompensate}
        options={[
          { value: '', name: `As its start said (${run.compensate.replaceAll('_', ' ')})` },
          { value: 'yes', name: 'Yes' },
          { value: 'no', name: 'No' },
        ]}
      />
    </Act>
  )
}

export function Signal({ run, refused, name: first = '' }: RunActProps & { readonly name?: string }) {
  const reread = useReread(run.run_id)
  const [name, setName] = useState(first)
  const [payload, setPayload] = useState('null')
  const [step, setStep] = useState('')
  const read = parsed(payload)
  return (
    <Act
      name="Send signal"
      refused={refused}
      onDone={reread}
      valid={name.trim() !== '' && read.ok}
      what="The first agent that waits for a signal of this name receives the payload. A signal that nobody waits for is kept."
      act={reason =>
        api.POST('/v1/runs/{run_id}/signals', {
          params: pathOf(run),
          body: sent({
            name: name.trim(),
            payload: read.ok ? read.value : null,
            ...(step === '' ? {} : { step }),
            ...reasoned(reason),
          }),
        })
      }
    >
      <Line label="Name of the signal" value={name} onValue={setName} required />
      <JsonField label="Payload (JSON)" text={payload} onText={setPayload} />
      <Choice
        label="To"
        value={step}
        onValue={setStep}
        options={[
          { value: '', name: 'The first agent that waits for it' },
          ...run.steps.map(each => ({ value: each.key, name: `The agent of ${each.key}` })),
        ]}
      />
    </Act>
  )
}

export function Priority({ run, refused }: RunActProps) {
  const reread = useReread(run.run_id)
  const [priority, setPriority] = useState(run.priority)
  return (
    <Act
      name="Priority"
      refused={refused}
      onDone={reread}
      what="Work of the run that waits goes to the queue of the other class, and so does what comes later."
      act={reason =>
        api.POST('/v1/runs/{run_id}/priority', { params: pathOf(run), body: sent({ priority, ...reasoned(reason) }) })
      }
    >
      <Choice
        label="New priority"
        value={priority}
        onValue={setPriority}
        options={[
          { value: 'high', name: 'high' },
          { value: 'normal', name: 'normal' },
          { value: 'low', name: 'low' },
        ]}
      />
    </Act>
  )
}

export function Deadline({ run, refused }: RunActProps) {
  const reread = useReread(run.run_id)
  const [minutes, setMinutes] = useState('')
  const seconds = minutes === '' ? null : Number(minutes) * 60
  return (
    <Act
      name="Deadline"
      needsReason
      refused={refused}
      onDone={reread}
      valid={seconds === null || seconds > 0}
      what="By its deadline the run must have ended; else it fails. The time counts from now on."
      act={reason =>
        api.POST('/v1/runs/{run_id}/deadline', {
          params: pathOf(run),
          body: sent({ deadline_s: seconds, reason: reason.trim() }),
        })
      }
    >
      <Line label="Minutes from now (empty: no deadline)" type="number" value={minutes} onValue={setMinutes} />
    </Act>
  )
}
