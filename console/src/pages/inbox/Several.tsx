import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'

import { api } from '../../api/client'
import { asProblem } from '../../api/problem'
import { Act } from '../../ui/Act'
import type { ApprovalSummary } from './data'
import { headline } from './words'

interface Props {
  readonly approvals: readonly ApprovalSummary[]
  readonly picked: ReadonlySet<string>
  readonly onPicked: (picked: ReadonlySet<string>) => void
}

/** One word on several approvals. Each is decided by itself, about exactly what its row showed; what was refused stays picked. */
export function Several({ approvals, picked, onPicked }: Props) {
  const client = useQueryClient()
  const [refused, setRefused] = useState<readonly string[]>([])
  const meant = approvals.filter(approval => picked.has(approval.approval_id))
  const decide = async (decision: 'approve' | 'deny', reason: string) => {
    const left = new Set<string>()
    const faults: string[] = []
    for (const approval of meant) {
      try {
        await api.POST('/v1/approvals/{approval_id}/decision', {
          params: { path: { approval_id: approval.approval_id } },
          body: {
            decision,
            arguments_hash: approval.arguments_hash,
            reason: reason.trim() || null,
            arguments: null,
            add: null,
          },
        })
      } catch (error) {
        const problem = asProblem(error)
        left.add(approval.approval_id)
        faults.push(`${headline(approval)}: ${problem.detail || problem.message}`)
      }
    }
    setRefused(faults)
    onPicked(left)
    await client.invalidateQueries({ queryKey: ['approvals'] })
  }
  if (meant.length === 0 && refused.length === 0) {
    return approvals.length < 2 ? null : (
      <div className="row">
        <button
          type="button"
          className="button small"
          onClick={() => onPicked(new Set(approvals.map(approval => approval.approval_id)))}
        >
          Pick all
        </button>
      </div>
    )
  }
  const what = (
    <ul className="short">
      {meant.slice(0, 20).map(approval => (
        <li key={approval.approval_id}>{headline(approval)}</li>
      ))}
      {meant.length > 20 && <li>and {meant.length - 20} more</li>}
    </ul>
  )
  const name = (verb: string) => `${verb} ${meant.length}`
  return (
    <div className="stack">
      {meant.length > 0 && (
        <div className="row">
          <Act name={name('Approve')} what={what} act={reason => decide('approve', reason)} />
          <Act name={name('Deny')} what={what} tone="danger" needsReason act={reason => decide('deny', reason)} />
          <button type="button" className="button small" onClick={() => onPicked(new Set())}>
            Pick none
          </button>
        </div>
      )}
      {refused.length > 0 && (
        <div className="notice bad" role="alert">
          <strong>Not decided</strong>
          <ul className="short">
            {refused.map(text => (
              <li key={text}>{text}</li>
            ))}
          </ul>
          <button type="button" className="button small" onClick={() => setRefused([])}>
            Close
          </button>
        </div>
      )}
    </div>
  )
}
