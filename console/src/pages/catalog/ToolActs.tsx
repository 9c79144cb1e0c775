import { useQueryClient } from '@tanstack/react-query'
import { useId, useState } from 'react'
import { useLocation } from 'wouter'

import { api, withReason } from '../../api/client'
import { useRefusal } from '../../app/roles'
import { Act } from '../../ui/Act'
import type { Tool } from './data'

/** Deprecating a tool, taking that back, and removing it. */
export function ToolActs({ tool }: { readonly tool: Tool }) {
  const client = useQueryClient()
  const [, navigate] = useLocation()
  const mayDefine = useRefusal('tools.define')
  const mayRemove = useRefusal('tools.remove')
  const [note, setNote] = useState('')
  const [instead, setInstead] = useState('')
  const id = useId()
  const { name } = tool
  const path = { name }
  const read = () => {
    void client.invalidateQueries({ queryKey: ['tool', name] })
    void client.invalidateQueries({ queryKey: ['tools'] })
  }
  return (
    <span className="row">
      {tool.deprecated === null ? (
        <Act
          name="Deprecate"
          what={
            <>
              <b className="mono">{name}</b> can still be called. Each call warns in the log of its run.
            </>
          }
          refused={mayDefine}
          act={reason =>
            api.PATCH('/v1/tools/{name}', {
              params: { path },
              headers: withReason(reason),
              body: {
                deprecated: true,
                note: note.trim() === '' ? null : note.trim(),
                replaced_by: instead.trim() === '' ? null : instead.trim(),
              },
            })
          }
          onDone={read}
        >
          <div className="field">
            <label htmlFor={`${id}-instead`}>Tool to use instead (optional)</label>
            <input
              id={`${id}-instead`}
              className="input"
              value={instead}
              onChange={event => setInstead(event.target.value)}
            />
          </div>
          <div className="field">
            <label htmlFor={`${id}-note`}>Note for those who use it (optional)</label>
            <input
              id={`${id}-note`}
              className="input"
              maxLength={500}
              value={note}
              onChange={event => setNote(event.target.value)}
            />
          </div>
        </Act>
      ) : (
        <Act
          name="Reinstate"
          what={
            <>
              <b className="mono">{name}</b> is no longer deprecated.
            </>
          }
          refused={mayDefine}
          act={reason =>
            api.PATCH('/v1/tools/{name}', {
              params: { path },
              headers: withReason(reason),
              body: { deprecated: false, note: null, replaced_by: null },
            })
          }
          onDone={read}
        />
      )}
      <Act
        name="Remove"
        tone="danger"
        what={
          <>
            <b className="mono">{name}</b> cannot be called any more. Calls that were made go on.
          </>
        }
        refused={
          (tool.workers ?? 0) > 0
            ? 'Workers offer it, and would announce it again: end them, or take it out of their code.'
            : mayRemove
        }
        act={reason => api.DELETE('/v1/tools/{name}', { params: { path }, headers: withReason(reason) })}
        onDone={() => {
          navigate('/tools')
          void client.invalidateQueries({ queryKey: ['tools'] })
        }}
      />
    </span>
  )
}
