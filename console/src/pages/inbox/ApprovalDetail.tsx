import { useState } from 'react'
import { Link } from 'wouter'

import { useSession } from '../../app/session'
import { Id } from '../../ui/Copy'
import { Json } from '../../ui/Json'
import { Loading, ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Time } from '../../ui/Time'
import { Arguments, type Changed } from './Arguments'
import { Before } from './Before'
import { type Approval, useApproval, useCall } from './data'
import { Decide } from './Decide'
import { History } from './History'
import { because, headline, kindOf, told, who, why } from './words'

/** One approval: what is asked, why, by whom, until when, who may decide, and the decision. */
export function ApprovalDetail({ id }: { readonly id: string }) {
  const found = useApproval(id)
  const [changed, setChanged] = useState<Changed | null>(null)
  if (found.isPending) return <Loading what="the approval" />
  if (found.isError) return <ProblemBox error={found.error} retry={() => void found.refetch()} />
  const approval = found.data
  return (
    <>
      <header className="stack">
        <div className="spread">
          <h2 className="what">{headline(approval)}</h2>
          <span className="row">
            <span className="tag">{kindOf(approval)}</span>
            <Status of={approval.status === 'open' ? 'waiting' : approval.status} />
          </span>
        </div>
        <p className="soft">{why(approval)}</p>
        <Settled approval={approval} />
        {approval.tainted && (
          <p className="notice warn">The arguments may come from output that nobody vouches for: look twice.</p>
        )}
      </header>
      {approval.status === 'open' && <Decide approval={approval} changed={changed} />}
      {approval.kind !== 'budget' && <Arguments approval={approval} onChanged={setChanged} />}
      <Facts approval={approval} />
      <Before approval={approval} />
      <History approval={approval} />
    </>
  )
}

/** How it was decided, seen at once by everybody who looks at it. */
function Settled({ approval }: { readonly approval: Approval }) {
  const session = useSession()
  if (approval.status === 'open') return null
  const last = approval.words.findLast(word => word.counts)
  const good = approval.status === 'approved'
  return (
    <p className={`notice ${good ? 'good' : approval.status === 'denied' ? 'bad' : ''}`} role="status">
      {approval.status === 'withdrawn' && 'Nobody needs it any more: it was withdrawn '}
      {approval.expired && `Nobody decided in time: ${approval.status} `}
      {!approval.expired && approval.status !== 'withdrawn' && last && (
        <>
          {good ? 'Approved' : 'Denied'} by <span className="mono">{who(last.by, session.key_id)}</span>{' '}
        </>
      )}
      <Time of={approval.settled_at} />
      {!approval.expired && last?.reason && `: ${last.reason}`}
    </p>
  )
}

function Facts({ approval }: { readonly approval: Approval }) {
  const session = useSession()
  const budget = approval.kind === 'budget' ? approval.budget : null
  const call = useCall(budget && approval.invocation_id ? approval.invocation_id : null)
  const runId = budget ? (budget.run_id ?? call.data?.run_id ?? null) : approval.run_id
  const alone = runId !== null && runId === approval.invocation_id
  const roles = approval.roles.join(', ') || 'nobody'
  return (
    <section className="panel" aria-label="Facts">
      <dl className="facts">
        <dt>Why</dt>
        <dd className="stack tight">
          {approval.because.map(one => (
            <div key={`${one.policy ?? ''} ${one.number ?? ''} ${one.expression ?? ''}`}>
              <code>{because(one)}</code>
              {one.policy && one.version && <span className="soft"> version {one.version}</span>}
              {one.number !== null && <span className="soft">, rule {one.number + 1}</span>}
              {one.error && <div className="fault">It could not be evaluated: {one.error}</div>}
              {Object.keys(one.saw).length > 0 && (
                <details>
                  <summary>What the rule saw</summary>
                  <Json of={one.saw} what="what the rule saw" />
                </details>
              )}
            </div>
          ))}
          {approval.because.length === 0 && (budget ? 'The budget is used up.' : 'An agent asks.')}
        </dd>
        {budget && (
          <>
            <dt>Budget</dt>
            <dd>{told(budget.limits, budget.currency) || 'nothing'}</dd>
            <dt>Spent</dt>
            <dd>{told(budget.spent, budget.currency) || 'nothing'}</dd>
            {told(budget.reserved, budget.currency) !== '' && (
              <>
                <dt>Reserved</dt>
                <dd>{told(budget.reserved, budget.currency)}</dd>
              </>
            )}
            <dt>Next call</dt>
            <dd>
              <Link href={`/tools/${approval.tool}`}>{approval.tool}</Link>, which may cost{' '}
              {told(budget.asked, budget.currency) || 'nothing'}
            </dd>
            {approval.waiting && (
              <>
                <dt>Waiting now</dt>
                <dd>
                  {approval.waiting.calls.toLocaleString('en')} {approval.waiting.calls === 1 ? 'call' : 'calls'},{' '}
                  {told(approval.waiting.amounts, budget.currency) || 'which cost nothing'}
                </dd>
              </>
            )}
          </>
        )}
        {!budget && approval.kind === 'call' && (
          <>
            <dt>Tool</dt>
            <dd>
              <Link href={`/tools/${approval.tool}`}>{approval.tool}</Link>
              {approval.tool_version && <span className="soft"> version {approval.tool_version}</span>}
            </dd>
          </>
        )}
        <dt>Run</dt>
        <dd>
          {runId === null || alone ? (
            'none: the call was made by itself'
          ) : (
            <>
              <Link className="mono" href={`/runs/${runId}`}>
                {runId}
              </Link>
            </>
          )}
        </dd>
        {approval.invocation_id && (
          <>
            <dt>Call</dt>
            <dd>
              <span className="mono">{approval.key}</span> <Id of={approval.invocation_id} what="call id" />
            </dd>
          </>
        )}
        <dt>Asked by</dt>
        <dd>{approval.asked_by === 'client' ? 'a client' : approval.asked_by.replaceAll('_', ' ')}</dd>
        {approval.on_behalf_of && (
          <>
            <dt>On behalf of</dt>
            <dd>{approval.on_behalf_of}</dd>
          </>
        )}
        <dt>Asked</dt>
        <dd>
          <Time of={approval.requested_at} />
        </dd>
        <dt>Deadline</dt>
        <dd>
          {approval.deadline_at ? (
            <>
              <Time of={approval.deadline_at} />; then it is {approval.default === 'approve' ? 'approved' : 'denied'}
            </>
          ) : (
            'none: it waits as long as the run does'
          )}
        </dd>
        <dt>Who decides</dt>
        <dd>
          {approval.needed === 1 ? 'one of' : `${approval.needed} of`} {roles}
          {approval.four_eyes && ', other than who started the run and for whom it works (four eyes)'}
          {approval.needed > 1 && <span className="soft"> · {approval.approvals} approved so far</span>}
        </dd>
        {approval.status === 'open' && !approval.may_decide && (
          <>
            <dt>You</dt>
            <dd>do not decide it: {approval.why_not ?? `your role is ${session.role}`}</dd>
          </>
        )}
      </dl>
    </section>
  )
}
