import './schema/schema.css'

import { useDeferredValue, useMemo, useState } from 'react'

import { Field, JsonInput } from './schema/Field'
import { type Fault, faultsOf } from './schema/faults'
import { told } from './schema/shape'
import { isUnreadable } from './schema/unreadable'
import { firstOf } from './schema/values'

export interface SchemaFormState {
  readonly schema: unknown
  /** Undefined: nothing is given. */
  readonly value: unknown
  readonly set: (value: unknown) => void
  /** What does not fit the schema. The server has the last word. */
  readonly faults: readonly Fault[]
  /** Whether the value is JSON, and fits the schema as far as a browser can tell. */
  readonly valid: boolean
}

/** The state of a form for one value. `begin`: the value to begin with; without one, what the schema says is its default. */
export function useSchemaForm(schema: unknown, begin?: unknown): SchemaFormState {
  const [value, set] = useState<unknown>(() => begin ?? firstOf(schema, schema))
  const late = useDeferredValue(value)
  const broken = useMemo(() => isUnreadable(late), [late])
  const faults = useMemo(
    () => (schema === null || schema === undefined || late === undefined ? [] : faultsOf(schema, late)),
    [schema, late],
  )
  return { schema, value, set, faults, valid: !broken && faults.length === 0 && late === value }
}

interface Props {
  readonly form: SchemaFormState
  /** What the value is called, such as `Arguments`. */
  readonly name: string
  /** Faults that the server has found. */
  readonly more?: readonly Fault[]
  /** Whether what is missing is said before anything was typed. */
  readonly strict?: boolean
  /** Without its name above it. */
  readonly bare?: boolean
}

/** A form for a value, made from its JSON Schema; the same value as JSON one click away. Fields that a form cannot show are written as JSON. */
export function SchemaForm({ form, name, more = [], strict = true, bare = false }: Props) {
  const { schema, value, set, faults } = form
  const shape = useMemo(() => told(schema, schema).shape, [schema])
  const [wanted, setWanted] = useState<'form' | 'json'>('form')
  const simple = shape.is === 'json'
  const view = simple ? 'json' : wanted
  const shown = [...faults, ...more]
  return (
    <div className="schema-form stack">
      <div className="spread">
        {bare ? <span /> : <strong>{name}</strong>}
        {!simple && (
          <div className="switch" role="group" aria-label={`How to write ${name}`}>
            {(['form', 'json'] as const).map(one => (
              <button
                key={one}
                type="button"
                className="button small"
                aria-pressed={view === one}
                disabled={one === 'form' && isUnreadable(value)}
                onClick={() => setWanted(one)}
              >
                {one === 'form' ? 'Form' : 'JSON'}
              </button>
            ))}
          </div>
        )}
      </div>
      {view === 'form' ? (
        <Field
          root={schema}
          schema={schema}
          name={name}
          at=""
          depth={0}
          required
          value={value}
          faults={shown}
          strict={strict}
          onChange={set}
        />
      ) : (
        <>
          <JsonInput value={value} nothing={undefined} onChange={set} shown={{ 'aria-label': `${name} as JSON` }} />
          <Faults of={shown} />
        </>
      )}
      {view === 'form' && <Faults of={more.filter(fault => fault.pointer === '')} />}
    </div>
  )
}

function Faults({ of }: { readonly of: readonly Fault[] }) {
  if (of.length === 0) return null
  return (
    <ul className="faults">
      {of.map(fault => (
        <li className="fault" key={`${fault.pointer} ${fault.detail}`}>
          {fault.pointer !== '' && <code>{fault.pointer}</code>} {fault.detail}
        </li>
      ))}
    </ul>
  )
}
