import { useQuery } from '@tanstack/react-query'
import { useState } from 'react'

import { api, dataOf } from '../../api/client'
import { Json } from '../../ui/Json'
import { isInexact } from '../../ui/schema/values'
import { SchemaForm, useSchemaForm } from '../../ui/SchemaForm'
import { Loading, ProblemBox } from '../../ui/States'
import { type Approval, useTool } from './data'
import { useServerFaults } from './useServerFaults'
import { useTold } from './useTold'
import { changedFields } from './words'

type Object = Readonly<Record<string, unknown>>

/** What a person has made of the arguments. Null: nothing, they stay as they are. */
export interface Changed {
  readonly value: Object
  readonly valid: boolean
  readonly fields: readonly string[]
}

interface Props {
  readonly approval: Approval
  readonly onChanged: (changed: Changed | null) => void
}

/** The arguments with which the call would begin, and how to change them before it does. */
export function Arguments({ approval, onChanged }: Props) {
  const [editing, setEditing] = useState(false)
  const isCall = approval.kind === 'call'
  const place = approval.large?.['arguments']
  const [wanted, setWanted] = useState(false)
  const large = useQuery({
    queryKey: ['approvals', 'arguments', approval.invocation_id, approval.arguments_hash],
    enabled: wanted && approval.invocation_id !== null,
    queryFn: async ({ signal }) =>
      dataOf(
        await api.GET('/v1/invocations/{invocation_id}/arguments', {
          params: { path: { invocation_id: approval.invocation_id ?? '' } },
          signal,
        }),
      ) as Object,
  })
  const value: Object | undefined = place === undefined ? approval.arguments : large.data
  const mayChange = isCall && approval.status === 'open' && approval.may_decide && value !== undefined
  const inexact = isInexact(value)
  return (
    <section className="panel stack" aria-label={isCall ? 'Arguments' : 'Details'}>
      <div className="spread">
        <h2>{isCall ? 'Arguments' : 'Details'}</h2>
        {mayChange && !editing && (
          <button
            type="button"
            className="button small"
            disabled={inexact}
            title={inexact ? 'A number in them is too large for a browser: tidelog inbox approve --edit' : undefined}
            onClick={() => setEditing(true)}
          >
            Change arguments
          </button>
        )}
        {editing && (
          <button
            type="button"
            className="button small"
            onClick={() => {
              setEditing(false)
              onChanged(null)
            }}
          >
            Leave them as they are
          </button>
        )}
      </div>
      {approval.asked_arguments && (
        <p className="notice warn">A person has changed them; below is how they were asked for.</p>
      )}
      {place !== undefined && !wanted && (
        <button type="button" className="button" onClick={() => setWanted(true)}>
          Load {place.bytes.toLocaleString('en')} bytes
        </button>
      )}
      {wanted && large.isPending && <Loading what="the arguments" />}
      {large.isError && <ProblemBox error={large.error} retry={() => void large.refetch()} />}
      {value !== undefined &&
        (editing && mayChange ? (
          <Editor key={approval.arguments_hash} approval={approval} value={value} onChanged={onChanged} />
        ) : (
          <Json of={value} what={isCall ? 'arguments' : 'details'} />
        ))}
      {approval.asked_arguments && (
        <details>
          <summary>As they were asked for</summary>
          <Json of={approval.asked_arguments} what="arguments as they were asked for" />
        </details>
      )}
    </section>
  )
}

function Editor({ approval, value, onChanged }: Props & { readonly value: Object }) {
  const tool = useTool(approval.tool)
  if (tool.isPending) return <Loading what="the tool" />
  if (tool.isError) return <ProblemBox error={tool.error} retry={() => void tool.refetch()} />
  return (
    <Form
      schema={tool.data === null ? null : tool.data.parameters}
      tool={tool.data === null ? null : approval.tool}
      value={value}
      onChanged={onChanged}
    />
  )
}

interface FormProps {
  readonly schema: unknown
  readonly tool: string | null
  readonly value: Object
  readonly onChanged: (changed: Changed | null) => void
}

function Form({ schema, tool, value, onChanged }: FormProps) {
  const form = useSchemaForm(schema, value)
  const fields = changedFields(value, form.value)
  const served = useServerFaults(fields.length > 0 ? tool : null, form.value)
  const more = form.faults.length === 0 ? served : []
  const valid = form.valid && more.length === 0
  const told = fields.length === 0 ? null : { value: form.value as Object, valid, fields }
  useTold(told, onChanged)
  return (
    <>
      <SchemaForm form={form} name="Arguments" more={more} bare />
      <p className="soft" role="status">
        {fields.length === 0 ? 'Nothing is changed.' : `Changed: ${fields.join(', ')}.`}
      </p>
    </>
  )
}
