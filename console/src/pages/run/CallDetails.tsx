import { useQuery } from '@tanstack/react-query'
import { Link } from 'wouter'

import { api, dataOf } from '../../api/client'
import type { Invocation, Run } from '../../api/types'
import { Id } from '../../ui/Copy'
import { Loading, ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Time } from '../../ui/Time'
import { Value } from '../../ui/Value'
import { CallActs } from './actions/CallActs'
import { Fault } from './Fault'
import { asOf } from './moment'

interface Props {
  readonly run: Run
  readonly id: string
  readonly step?: string | undefined
  readonly at: string | null
  readonly onClose: () => void
}

/** All of one tool call: arguments, result or error, and what people said of it. */
export function CallDetails({ run, id, step, at, onClose }: Props) {
  const found = useQuery({
    queryKey: ['run', run.run_id, 'call', id, at],
    queryFn: async ({ signal }) =>
      dataOf(
        await api.GET('/v1/invocations/{invocation_id}', {
          params: { path: { invocation_id: id }, query: asOf(at) },
          signal,
        }),
      ),
  })
  return (
    <section className="panel stack" aria-label="Call" data-testid="call-panel">
      {found.isPending && <Loading what="the call" />}
      {found.isError && <ProblemBox error={found.error} retry={() => void found.refetch()} />}
      {found.isSuccess && <Details run={run} call={found.data} step={step} at={at} onClose={onClose} />}
    </section>
  )
}

function Details({ run, call, step, at, onClose }: Omit<Props, 'id'> & { readonly call: Invocation }) {
  return (
    <>
      <div className="spread">
        <h2 className="row">
          <span className="mono">{call.key}</span>
          <Status of={call.status} />
        </h2>
        <button type="button" className="button small" onClick={onClose}>
          Close the call
        </button>
      </div>
      <dl className="run-facts">
        <div>
          <dt>Tool</dt>
          <dd>{call.tool}</dd>
        </div>
        <div>
          <dt>Call</dt>
          <dd>
            <Id of={call.invocation_id} what="call id" />
          </dd>
        </div>
        <div>
          <dt>Asked for</dt>
          <dd>
            <Time of={call.requested_at} />
          </dd>
        </div>
        <div>
          <dt>Attempt</dt>
          <dd>{call.attempt}</dd>
        </div>
        <div>
          <dt>Idempotent</dt>
          <dd>{call.idempotent ? 'yes' : 'no'}</dd>
        </div>
        {call.worker_id != null && (
          <div>
            <dt>Worker</dt>
            <dd>
              <Id of={call.worker_id} what="worker id" />
            </dd>
          </div>
        )}
      </dl>
      {call.fallback != null && (
        <p>
          Answered by the fallback {call.fallback}
          {call.fallback_because != null && `, because: ${call.fallback_because}`}.
        </p>
      )}
      {call.cached_from != null && (
        <p className="row">
          The result is that of an earlier call: <Id of={call.cached_from} what="id of the earlier call" />
        </p>
      )}
      {call.effect === 'unknown' && <p className="fault">Nobody knows whether this call took effect.</p>}
      {call.approval_id != null && (
        <p>
          It needs an approval: <Link href={`/inbox/${call.approval_id}`}>look at the approval</Link>.
        </p>
      )}
      {call.reconcile != null && (
        <div className="notice">
          <strong>Asked whether it took effect</strong> ({call.reconcile.because}):{' '}
          {call.reconcile.outcome ?? 'no answer yet'}
          {call.reconcile.gave_up != null && `; gave up: ${call.reconcile.gave_up}`}
          <Fault of={call.reconcile} />
        </div>
      )}
      <Fault of={call} open />
      <CallActs run={run} call={call} step={step} at={at} />
      <div className="values">
        <div className="stack">
          <h3 className="small">Arguments</h3>
          <Value of={call} field="arguments" what="arguments" />
          {call.asked_arguments != null && (
            <>
              <h3 className="small">Arguments as they were asked for</h3>
              <Value of={call} field="asked_arguments" what="arguments as asked for" />
            </>
          )}
        </div>
        {call.status === 'succeeded' && (
          <div className="stack">
            <h3 className="small">Result</h3>
            <Value of={call} field="result" what="result of the call" />
          </div>
        )}
      </div>
      {call.resolution != null && (
        <div className="stack">
          <h3 className="small">A person said its outcome</h3>
          <p>
            <Time of={call.resolution.at} /> by <span className="mono">{call.resolution.by}</span>:{' '}
            {call.resolution.reason}
          </p>
          <Value of={call.resolution} field="evidence" what="evidence" />
        </div>
      )}
    </>
  )
}
