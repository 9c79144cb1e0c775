import { useMutation } from '@tanstack/react-query'
import { useState } from 'react'
import { Link } from 'wouter'

import { api, dataOf, withReason } from '../../api/client'
import type { components } from '../../api/schema'
import { useRefusal } from '../../app/roles'
import { Act } from '../../ui/Act'
import { Json } from '../../ui/Json'
import { SchemaForm, useSchemaForm } from '../../ui/SchemaForm'
import { ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Took } from '../../ui/Time'
import type { Tool } from './data'

type Call = components['schemas']['InvocationView']

/** Seconds for which the answer waits for the outcome. Then the call goes on, and is looked at where it is. */
const WAIT_S = 20

interface Answer {
  readonly id: string
  readonly call: Call | null
}

function exampleOf(tool: Tool): unknown {
  const [first] = tool.examples
  return typeof first === 'object' && first !== null && 'arguments' in first ? first.arguments : undefined
}

function argumentsOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {}
}

/** Calls a tool without a run: for real, with its effect. */
export function ToolTry({ tool }: { readonly tool: Tool }) {
  const { name } = tool
  const form = useSchemaForm(tool.parameters, exampleOf(tool))
  const refused = useRefusal('tools.call')
  const [answer, setAnswer] = useState<Answer | null>(null)
  const given = argumentsOf(form.value)
  const checking = useMutation({
    mutationFn: async () =>
      dataOf(
        await api.POST('/v1/tools/{name}/validate', {
          params: { path: { name } },
          body: { arguments: given } as never,
        }),
      ),
  })
  const nobody = tool.workers === 0 && tool.kind !== 'chain'
  return (
    <div className="catalog-pair">
      <section className="panel stack" aria-label="Arguments">
        <SchemaForm form={form} name="Arguments" strict={false} more={checking.data?.errors ?? []} />
        {checking.isError && <ProblemBox error={checking.error} />}
        {checking.isSuccess && checking.data.valid && (
          <p className="notice good" role="status">
            The arguments fit{checking.data.warning !== null && `; ${checking.data.warning}`}.
          </p>
        )}
        <div className="row end">
          <button type="button" className="button" disabled={checking.isPending} onClick={() => checking.mutate()}>
            Check
          </button>
          <Act
            name="Call"
            what={
              <>
                <p>
                  <b className="mono">{name}</b> is called for real, with its effect, and without a run.
                </p>
                {nobody && <p>No worker offers it at this moment: the call will wait.</p>}
                <Json of={given} what="arguments" />
              </>
            }
            tone="main"
            valid={form.valid}
            refused={refused}
            act={async reason => {
              const { data } = await api.POST('/v1/tools/{name}/calls', {
                params: { path: { name } },
                headers: { ...withReason(reason), Prefer: `wait=${WAIT_S}` },
                body: { arguments: given } as never,
              })
              const done = data as { invocation_id: string; invocation?: Call | null }
              setAnswer({ id: done.invocation_id, call: done.invocation ?? null })
            }}
          />
        </div>
      </section>
      <section className="panel stack" aria-label="Outcome" aria-live="polite">
        <h2>Outcome</h2>
        {answer === null ? (
          <p className="soft">
            The call is in the log like every other: its intent is recorded first, and its effect happens at most once.
          </p>
        ) : (
          <Outcome answer={answer} />
        )}
      </section>
    </div>
  )
}

function Outcome({ answer }: { readonly answer: Answer }) {
  const { call, id } = answer
  return (
    <div className="stack" data-testid="outcome" data-status={call?.status ?? 'requested'}>
      <div className="row">
        <Status of={call?.status ?? 'requested'} />
        {call !== null && (
          <span className="soft">
            took <Took from={call.requested_at} to={call.since} />
            {call.cached_from !== null && ', answered by a result of before'}
          </span>
        )}
        <Link href={`/feed?run=${id}`}>Its events</Link>
      </div>
      {call === null && <p>It goes on. Its events tell what becomes of it.</p>}
      {call?.status === 'succeeded' && <Json of={call.result} what="result" />}
      {call?.error !== null && call?.error !== undefined && <Json of={call.error} what="error" />}
      {call?.status === 'ambiguous' && (
        <p>
          Nobody knows whether it had its effect: <Link href="/inbox">the inbox</Link> asks a person.
        </p>
      )}
    </div>
  )
}
