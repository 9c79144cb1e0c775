import type { ReactNode } from 'react'
import { Link } from 'wouter'

import { SERVER } from '../../api/place'
import type { Run } from '../../api/types'
import { Copy, Id } from '../../ui/Copy'
import { Status } from '../../ui/Status'
import { Time, Took } from '../../ui/Time'
import { partHref } from './address'
import { useCost } from './data'

interface Props {
  readonly run: Run
  readonly at: string | null
}

/** What the run is, how it goes with it, and who wanted it. */
export function Header({ run, at }: Props) {
  return (
    <header className="stack">
      <div className="spread">
        <h1 className="row" data-testid="run-status" data-status={run.status}>
          {run.workflow == null ? 'Run' : `${run.workflow.name} v${run.workflow.version}`}
          <Id of={run.run_id} what="id" />
          <Status of={run.status} />
          {run.degraded && <Status of="degraded" />}
        </h1>
        <span className="row">
          <span className="soft">curl</span>
          <Copy text={curlOf(run.run_id, at)} what="as curl" />
        </span>
      </div>
      <dl className="run-facts">
        <Fact name="Started">
          <Time of={run.created_at} />
        </Fact>
        <Fact name="Took">
          <Took from={run.created_at} to={run.finished_at} />
        </Fact>
        <Fact name="Events">{run.event_count.toLocaleString('en')}</Fact>
        <Fact name="Calls">{run.call_count.toLocaleString('en')}</Fact>
        <Cost run={run} at={at} />
        {run.actor != null && (
          <Fact name="By">
            <Id of={run.actor} what="who started it" />
          </Fact>
        )}
        {run.on_behalf_of != null && <Fact name="For">{run.on_behalf_of}</Fact>}
        <Origin run={run} />
        {run.deadline_at != null && (
          <Fact name="Deadline">
            <Time of={run.deadline_at} />
          </Fact>
        )}
        {run.priority !== 'normal' && <Fact name="Priority">{run.priority}</Fact>}
        {run.concurrency != null && (
          <Fact name="Concurrency key">
            <Link href={`/runs?concurrency_key=${encodeURIComponent(run.concurrency.key)}`}>{run.concurrency.key}</Link>{' '}
            <span className="soft">({run.status === 'queued' ? 'waits for it' : run.concurrency.on_busy})</span>
          </Fact>
        )}
        {run.retries > 0 && <Fact name="Retried">{run.retries}×</Fact>}
      </dl>
    </header>
  )
}

function Fact({ name, children }: { readonly name: string; readonly children: ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  )
}

/** Where the run came from, if not from a request of its own. */
function Origin({ run }: { readonly run: Run }) {
  const { parent, origin, forked_from: fork } = run
  return (
    <>
      {parent != null && (
        <Fact name="Started by">
          <Link href={partHref(parent.run_id, 'overview', null, { step: parent.step })}>
            step {parent.step} of the run above
          </Link>
        </Fact>
      )}
      {origin != null && (
        <Fact name="Origin">
          {origin.kind} {origin.name}
        </Fact>
      )}
      {fork != null && (
        <Fact name="Forked from">
          <Link href={partHref(fork.run_id, 'overview', String(fork.position))}>
            {fork.run_id.slice(0, 8)}… at {fork.position}
          </Link>
          {fork.step != null && ` (${fork.anew ? 'before ' : ''}${fork.step})`}
        </Fact>
      )}
    </>
  )
}

function Cost({ run, at }: Props) {
  const cost = useCost(run, at).data
  if (cost == null) return null
  const { used, budget } = cost
  return (
    <>
      <Fact name="Cost">
        {used.money} {budget?.currency ?? ''}
        {used.tokens > 0 && ` · ${used.tokens.toLocaleString('en')} tokens`}
      </Fact>
      {budget !== null && (
        <Fact name="Budget">{budget.is_spent ? 'spent' : `${budget.left.money ?? '∞'} ${budget.currency} left`}</Fact>
      )}
    </>
  )
}

/** The request that answers with what the page shows. The key stays in the shell's environment. */
export function curlOf(runId: string, at: string | null): string {
  const query = at === null ? '' : `?as_of=${encodeURIComponent(at)}`
  return `curl -H "Authorization: Bearer $TIDELOG_API_KEY" '${location.origin}${SERVER}/v1/runs/${runId}${query}'`
}
