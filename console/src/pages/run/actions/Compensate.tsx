import { useState } from 'react'

import { api } from '../../../api/client'
import { Act } from '../../../ui/Act'
import { useReread } from '../data'
import { Choice } from './Choice'
import type { RunActProps } from './Steer'
import { sent } from './sent'

/** Takes the effects of a run back that has ended. */
export function Compensate({ run, refused }: RunActProps) {
  const reread = useReread(run.run_id)
  return (
    <Act
      name="Take effects back"
      tone="danger"
      needsReason
      refused={refused}
      onDone={reread}
      what="Calls that succeeded, of tools that name a compensation, are taken back one after the other, the last one first. Effects of other tools stay."
      act={reason =>
        api.POST('/v1/runs/{run_id}/compensation', {
          params: { path: { run_id: run.run_id } },
          body: sent({ reason: reason.trim() }),
        })
      }
    />
  )
}

/** Says how the taking back of effects goes on where it waits for a person. */
export function GoOnCompensating({ run, refused }: RunActProps) {
  const reread = useReread(run.run_id)
  const [how, setHow] = useState<'again' | 'on'>('again')
  return (
    <Act
      name="Go on taking back"
      needsReason
      refused={refused}
      onDone={reread}
      what="The taking back of effects stands at one that could not be taken back."
      act={reason =>
        api.POST('/v1/runs/{run_id}/compensation/resume', {
          params: { path: { run_id: run.run_id } },
          body: sent({ reason: reason.trim(), ...(how === 'on' ? { go_on: true } : {}) }),
        })
      }
    >
      <Choice
        label="How it goes on"
        value={how}
        onValue={setHow}
        options={[
          { value: 'again', name: 'What failed is tried again' },
          { value: 'on', name: 'What failed is left as it is, and the effects before it are taken back' },
        ]}
      />
    </Act>
  )
}
