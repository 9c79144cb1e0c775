import { useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { Link } from 'wouter'

import { api } from '../../api/client'
import { useSession } from '../../app/session'
import { Act } from '../../ui/Act'
import { Id } from '../../ui/Copy'
import { Json } from '../../ui/Json'
import { Loading, ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Time } from '../../ui/Time'
import { SchemaForm, useSchemaForm } from '../../ui/SchemaForm'
import { Before } from './Before'
import { type Call, decides, useCall, useTool } from './data'
import { who } from './words'

/** A call of which nobody knows how it ended, and how a person says so. */
export function CallDetail({ id }: { readonly id: string }) {
  const found = useCall(id)
  const session = useSession()
  if (found.isPending) return <Loading what="the call" />
  if (found.isError) return <ProblemBox error={found.error} retry={() => void found.refetch()} />
  const call = found.data
  const waits = call.status === 'ambiguous' || call.status === 'reconciling'
  const alone = call.run_id === call.invocation_id
  return (
    <>
      <header className="stack">
        <div className="spread">
          <h2 className="what">{call.tool}</h2>
          <Status of={call.status} />
        </div>
        {waits ? (
          <p className="notice warn">
            The call was begun, and nobody knows whether it happened. Find out, and say so: the agent goes on with what
            you say.
          </p>
        ) : (
          <Resolved call={call} />
        )}
      </header>
      {waits && (
        <Resolve
          call={call}
          alone={alone}
          refused={decides(session.role) ? undefined : `Your role is ${session.role}`}
        />
      )}
      <section className="panel stack" aria-label="Arguments">
        <h2>Arguments</h2>
        {call.large?.['arguments'] ? (
          <p>{call.large['arguments'].bytes.toLocaleString('en')} bytes: too large to be shown here.</p>
        ) : (
          <Json of={call.arguments} what="arguments" />
        )}
      </section>
      <section className="panel" aria-label="Facts">
        <dl className="facts">
          <dt>Tool</dt>
          <dd>
            <Link href={`/tools/${call.tool}`}>{call.tool}</Link>
          </dd>
          <dt>Run</dt>
          <dd>
            {alone ? (
              'none: the call was made by itself'
            ) : (
              <Link className="mono" href={`/runs/${call.run_id}`}>
                {call.run_id}
              </Link>
            )}
          </dd>
          <dt>Call</dt>
          <dd>
            <span className="mono">{call.key}</span> <Id of={call.invocation_id} what="call id" />
          </dd>
          <dt>Since</dt>
          <dd>
            <Time of={call.since} />, asked <Time of={call.requested_at} />
          </dd>
          <dt>Attempt</dt>
          <dd>
            {call.attempt}
            {call.worker_id && (
              <>
                {' '}
                at the worker <Id of={call.worker_id} what="worker id" />
              </>
            )}
          </dd>
          {call.error && (
            <>
              <dt>Last error</dt>
              <dd>
                <strong>{call.error.type}</strong>: {call.error.message}
              </dd>
            </>
          )}
          {call.reconcile && (
            <>
              <dt>Reconciliation</dt>
              <dd>
                {call.reconcile.because}; asked {call.reconcile.asked} times
                {call.reconcile.outcome && `, answered ${call.reconcile.outcome.replaceAll('_', ' ')}`}
                {call.reconcile.gave_up && `; ${call.reconcile.gave_up}`}
                {call.reconcile.error && (
                  <div className="fault">
                    {call.reconcile.error.type}: {call.reconcile.error.message}
                  </div>
                )}
              </dd>
            </>
          )}
          {call.not_happened && (
            <>
              <dt>Said before</dt>
              <dd>
                {who(call.not_happened.by, session.key_id)}: it had not happened. {call.not_happened.reason}{' '}
                <Time of={call.not_happened.at} />
              </dd>
            </>
          )}
        </dl>
      </section>
      <Before approval={{ ...call, kind: 'call', budget: null }} />
    </>
  )
}

function Resolved({ call }: { readonly call: Call }) {
  const session = useSession()
  const { resolution } = call
  return (
    <p className="notice good" role="status">
      {resolution ? (
        <>
          Resolved by <span className="mono">{who(resolution.by, session.key_id)}</span> <Time of={resolution.at} />:{' '}
          {resolution.reason}
        </>
      ) : (
        <>
          It is known how the call ended: {call.status} <Time of={call.since} />.
        </>
      )}
    </p>
  )
}

interface ResolveProps {
  readonly call: Call
  readonly alone: boolean
  readonly refused: string | undefined
}

function Resolve({ call, alone, refused }: ResolveProps) {
  const client = useQueryClient()
  const tool = useTool(call.tool)
  const [type, setType] = useState('')
  const [message, setMessage] = useState('')
  const again = () => client.invalidateQueries({ queryKey: ['calls', 'ambiguous'] })
  type Said =
    { result: unknown } | { error: { type: string; message: string } } | { not_happened: true; attempt: number }
  const resolve = async (said: Said, reason: string) => {
    try {
      await api.POST('/v1/invocations/{invocation_id}/resolve', {
        params: { path: { invocation_id: call.invocation_id } },
        body: { ...said, reason: reason.trim() } as never,
      })
    } finally {
      await again()
    }
  }
  if (tool.isPending) return <Loading what="the tool" />
  return (
    <div className="row decide">
      <Happened
        key={tool.data === null ? 'unknown' : 'known'}
        schema={tool.data?.result ?? null}
        refused={refused}
        act={(result, reason) => resolve({ result }, reason)}
      />
      <Act
        name="It failed"
        what="The agent gets this error."
        needsReason
        refused={refused}
        valid={type.trim() !== '' && message.trim() !== ''}
        act={reason => resolve({ error: { type: type.trim(), message: message.trim() } }, reason)}
      >
        <div className="field">
          <label htmlFor="error-type">Kind of error</label>
          <input
            id="error-type"
            className="input"
            value={type}
            maxLength={500}
            onChange={event => setType(event.target.value)}
          />
        </div>
        <div className="field">
          <label htmlFor="error-message">Message</label>
          <textarea
            id="error-message"
            className="input"
            value={message}
            onChange={event => setMessage(event.target.value)}
          />
        </div>
      </Act>
      <Act
        name="It did not happen"
        what="The tool is called again, with the same idempotency key."
        needsReason
        refused={refused}
        act={reason => resolve({ not_happened: true, attempt: call.attempt }, reason)}
      />
      {alone && (
        <Act
          name="Cancel the call"
          what="It is not tried again. Its outcome is recorded if it comes."
          tone="danger"
          refused={refused}
          act={async reason => {
            await api.POST('/v1/invocations/{invocation_id}/cancel', {
              params: { path: { invocation_id: call.invocation_id } },
              body: { reason: reason.trim() || null },
            })
            await again()
          }}
        />
      )}
      {refused !== undefined && <span className="soft">{refused}</span>}
    </div>
  )
}

interface HappenedProps {
  readonly schema: unknown
  readonly refused: string | undefined
  readonly act: (result: unknown, reason: string) => Promise<unknown>
}

function Happened({ schema, refused, act }: HappenedProps) {
  const form = useSchemaForm(schema)
  return (
    <Act
      name="It happened"
      what="The agent gets this result, as if the tool had given it. Nothing typed: null."
      tone="main"
      needsReason
      refused={refused}
      valid={form.valid}
      act={reason => act(form.value ?? null, reason)}
    >
      <SchemaForm form={form} name="Result" />
    </Act>
  )
}
