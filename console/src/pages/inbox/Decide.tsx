import { useQueryClient } from '@tanstack/react-query'
import { useId, useState } from 'react'

import { api } from '../../api/client'
import { Act } from '../../ui/Act'
import { amountsOf, type Kind } from './amounts'
import type { Changed } from './Arguments'
import type { Approval } from './data'
import { headline, told } from './words'

/** The two words that a person can say. What is decided is what this page shows: if it was changed meanwhile, the server refuses. */
export function Decide({ approval, changed }: { readonly approval: Approval; readonly changed: Changed | null }) {
  const client = useQueryClient()
  const [more, setMore] = useState<Partial<Record<Kind, string>>>({})
  const budget = approval.kind === 'budget' ? approval.budget : null
  const refused = approval.may_decide ? undefined : (approval.why_not ?? 'You do not decide it')
  const readAgain = () => client.invalidateQueries({ queryKey: ['approvals'] })
  const decide = async (decision: 'approve' | 'deny', reason: string) => {
    const add = amountsOf(more)
    try {
      await api.POST('/v1/approvals/{approval_id}/decision', {
        params: { path: { approval_id: approval.approval_id } },
        body: {
          decision,
          reason: reason.trim() || null,
          arguments_hash: budget ? null : approval.arguments_hash,
          arguments: decision === 'approve' && changed !== null ? changed.value : null,
          add: decision === 'approve' && budget ? (add ?? null) : null,
        },
      })
    } finally {
      await readAgain()
    }
  }
  const what = budget
    ? `All calls that wait for more of the budget ${budget.budget} go on.`
    : approval.kind === 'step'
      ? 'The agent goes on with your answer.'
      : approval.needed - approval.approvals > 1
        ? `Your word counts as one of ${approval.needed}.`
        : `${approval.tool} is called.`
  return (
    <div className="row decide">
      <span data-act="approve">
        <Act
          name={changed === null ? 'Approve' : 'Approve with changes'}
          what={
            <>
              <p>
                <strong>{headline(approval)}</strong>
              </p>
              <p>{what}</p>
              {changed !== null && <p>You have changed: {changed.fields.join(', ')}.</p>}
            </>
          }
          tone="main"
          act={reason => decide('approve', reason)}
          refused={refused ?? (changed === null || changed.valid ? undefined : 'The arguments do not fit the tool')}
          valid={amountsOf(more) !== undefined}
        >
          {budget && <Add budget={budget} more={more} onMore={setMore} />}
        </Act>
      </span>
      <span data-act="deny">
        <Act
          name="Deny"
          what={
            <>
              <p>
                <strong>{headline(approval)}</strong>
              </p>
              <p>
                {budget
                  ? 'The runs that wait for more of the budget stop.'
                  : approval.kind === 'step'
                    ? 'The agent goes on with your answer, and gets the reason.'
                    : `${approval.tool} is not called; the agent gets the reason.`}
              </p>
            </>
          }
          tone="danger"
          needsReason
          act={reason => decide('deny', reason)}
          refused={refused}
        />
      </span>
      {refused !== undefined && <span className="soft">{refused}</span>}
    </div>
  )
}

interface AddProps {
  readonly budget: NonNullable<Approval['budget']>
  readonly more: Partial<Record<Kind, string>>
  readonly onMore: (more: Partial<Record<Kind, string>>) => void
}

/** How much more of a budget there is. Nothing typed: as much as the question says. */
function Add({ budget, more, onMore }: AddProps) {
  const id = useId()
  const kinds = (['money', 'tokens', 'calls'] as const).filter(kind => budget.limits[kind] !== null)
  return (
    <fieldset className="stack amounts">
      <legend>How much more</legend>
      {kinds.map(kind => {
        const typed = more[kind] ?? ''
        const fault = typed !== '' && amountsOf({ [kind]: typed }) === undefined
        return (
          <div className="field" key={kind}>
            <label htmlFor={`${id}-${kind}`}>
              {kind === 'money' ? `Money, in ${budget.currency}` : kind === 'tokens' ? 'Tokens' : 'Calls'}
            </label>
            <input
              id={`${id}-${kind}`}
              className="input"
              inputMode="decimal"
              autoComplete="off"
              placeholder={String(budget.add[kind])}
              aria-invalid={fault}
              value={typed}
              onChange={event => onMore({ ...more, [kind]: event.target.value })}
            />
          </div>
        )
      })}
      <span className="soft">With nothing typed: {told(budget.add, budget.currency)}.</span>
    </fieldset>
  )
}
