import { useState } from 'react'

import { api } from '../../../api/client'
import type { Run } from '../../../api/types'
import { Act } from '../../../ui/Act'
import { useReread } from '../data'
import { Choice, Tick } from './Choice'
import { sent } from './sent'

interface Props {
  readonly run: Run
  readonly refused: string | undefined
  /** The failed step that is tried again, where it is asked for at a step. */
  readonly step?: string
  readonly tone?: 'main' | ''
}

/** What failed runs again, and the run goes on. */
export function Retry({ run, refused, step, tone = '' }: Props) {
  const reread = useReread(run.run_id)
  const failed = run.steps.filter(each => each.status === 'failed').map(each => each.key)
  const [which, setWhich] = useState(step ?? '')
  const [fresh, setFresh] = useState(false)
  return (
    <Act
      name="Retry"
      tone={tone}
      needsReason
      refused={refused}
      onDone={reread}
      what="What failed runs again, in this run. Steps that have ended keep their results, and nothing that they did is done again. Agents go on from what they had recorded."
      act={reason =>
        api.POST('/v1/runs/{run_id}/retry', {
          params: { path: { run_id: run.run_id } },
          body: sent({ reason: reason.trim(), steps: which === '' ? [] : [which], fresh }),
        })
      }
    >
      {step === undefined && failed.length > 1 && (
        <Choice
          label="Which steps"
          value={which}
          onValue={setWhich}
          options={[
            { value: '', name: `All that failed (${failed.length})` },
            ...failed.map(key => ({ value: key, name: `Only ${key}` })),
          ]}
        />
      )}
      <Tick
        label="From nothing: their journals are emptied, and their effects happen again"
        value={fresh}
        onValue={setFresh}
      />
    </Act>
  )
}
