import { useQueryClient } from '@tanstack/react-query'
import { useId, useState } from 'react'

import { api, withReason } from '../../api/client'
import { useRefusal } from '../../app/roles'
import { Act } from '../../ui/Act'
import { isUnderWay, type Model } from './data'

/** What an operator does with a read model: each with a reason, in the audit trail. */
export function ModelActs({ model }: { readonly model: Model }) {
  const client = useQueryClient()
  const mayBuild = useRefusal('projections.rebuild')
  const mayVerify = useRefusal('projections.verify')
  const [swap, setSwap] = useState(true)
  const id = useId()
  const path = { name: model.name }
  const onDone = () => void client.invalidateQueries({ queryKey: ['health'] })
  const building = isUnderWay(model.build)
  const checking = isUnderWay(model.check)
  const goesLive = (
    <div className="row">
      <input id={`${id}-swap`} type="checkbox" checked={swap} onChange={event => setSwap(event.target.checked)} />
      <label htmlFor={`${id}-swap`}>Let it go live as soon as it is ready</label>
    </div>
  )
  const asked = (reason: string) => ({ params: { path }, headers: withReason(reason) })
  return (
    <span className="row">
      {model.build?.status === 'ready' && (
        <Act
          name="Let it go live"
          what={<>The new version of {model.name} replaces the live one, which is kept.</>}
          tone="main"
          refused={mayBuild}
          act={reason => api.POST('/v1/projections/{name}/swap', { ...asked(reason), body: {} })}
          onDone={onDone}
        />
      )}
      {(building || model.build?.status === 'ready') && (
        <Act
          name="Cancel"
          what={<>What was built of {model.name} is dropped. The live version stays.</>}
          refused={mayBuild}
          act={reason =>
            api.POST('/v1/projections/{name}/cancel', { ...asked(reason), body: { purpose: 'version' as const } })
          }
          onDone={onDone}
        />
      )}
      {!building && (
        <Act
          name="Rebuild"
          what={
            <>
              A new version of {model.name} is built from the log, beside the live one, which serves until it is
              replaced.
            </>
          }
          refused={mayBuild}
          act={reason => api.POST('/v1/projections/{name}/rebuild', { ...asked(reason), body: { swap } })}
          onDone={onDone}
        >
          {goesLive}
        </Act>
      )}
      {!checking && (
        <Act
          name="Verify"
          what={<>{model.name} is built again from the log and compared with the live tables. Nothing changes.</>}
          refused={mayVerify}
          act={reason => api.POST('/v1/projections/{name}/verify', { ...asked(reason), body: {} })}
          onDone={onDone}
        />
      )}
      {checking && (
        <Act
          name="Cancel the check"
          what={<>The check of {model.name} ends, and what it has built is dropped.</>}
          refused={mayBuild}
          act={reason =>
            api.POST('/v1/projections/{name}/cancel', { ...asked(reason), body: { purpose: 'check' as const } })
          }
          onDone={onDone}
        />
      )}
      {model.previous !== null && !building && (
        <>
          <Act
            name="Roll back"
            what={
              <>
                The version before of {model.name} catches up from its own position, and takes the place of the live
                one.
              </>
            }
            refused={mayBuild}
            act={reason => api.POST('/v1/projections/{name}/rollback', { ...asked(reason), body: { swap } })}
            onDone={onDone}
          >
            {goesLive}
          </Act>
          <Act
            name="Drop the one before"
            what={<>The version of {model.name} that was kept is dropped. There is no way back to it.</>}
            tone="danger"
            refused={mayBuild}
            act={reason => api.DELETE('/v1/projections/{name}/previous', asked(reason))}
            onDone={onDone}
          />
        </>
      )}
    </span>
  )
}
