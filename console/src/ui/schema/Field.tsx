import { useId, useState } from 'react'

import { type Fault, pointerTo, typeOf } from './faults'
import { isObject, type Schema, told, type Told } from './shape'
import { jsonOf, Unreadable } from './unreadable'
import { choiceOf, firstOf, having } from './values'

export interface FieldProps {
  /** The whole schema, for references. */
  readonly root: unknown
  readonly schema: unknown
  readonly name: string
  readonly at: string
  readonly depth: number
  readonly required: boolean
  readonly value: unknown
  readonly faults: readonly Fault[]
  /** Whether what is missing is said, too. */
  readonly strict: boolean
  /** Undefined takes the field out of what is given. */
  readonly onChange: (value: unknown) => void
}

/** One value, as its schema asks for it. */
export function Field(props: FieldProps) {
  const about = told(props.root, props.schema, props.depth)
  switch (about.shape.is) {
    case 'object':
      return <ObjectField {...props} about={about} />
    case 'list':
      return <ListField {...props} about={about} items={about.shape.items} />
    case 'oneOf':
      return <OneOfField {...props} about={about} options={about.shape.options} />
    default:
      return <PlainField {...props} about={about} />
  }
}

type Inner = FieldProps & { readonly about: Told }

function own({ faults, at, strict }: FieldProps): string {
  return faults
    .filter(fault => fault.pointer === at && (strict || !fault.missing))
    .map(fault => fault.detail)
    .join(', ')
}

function Hint({ about, id }: { readonly about: Told; readonly id: string }) {
  const text = [about.description, about.bounds].filter(Boolean).join(' · ')
  return text === '' ? null : (
    <span className="soft hint" id={id}>
      {text}
    </span>
  )
}

function Label({
  name,
  required,
  htmlFor,
}: {
  readonly name: string
  readonly required: boolean
  readonly htmlFor: string
}) {
  return (
    <span className="label">
      <label className="mono" htmlFor={htmlFor}>
        {name}
      </label>
      {required && (
        <span aria-hidden className="needed" title="required">
          {' *'}
        </span>
      )}
    </span>
  )
}

/** A field of one input. What is emptied is not given; where it must be given, it is null, if it may be. */
function PlainField(props: Inner) {
  const { about, name, required, value, onChange } = props
  const id = useId()
  const fault = own(props)
  const nothing = required && about.nullable ? null : undefined
  const shown = {
    id,
    'aria-invalid': fault !== '',
    'aria-required': required,
    'aria-describedby': `${id}-hint ${id}-fault`,
  }
  return (
    <div className="field">
      <Label name={name} required={required} htmlFor={id} />
      <Input about={about} value={value} nothing={nothing} required={required} onChange={onChange} shown={shown} />
      <Hint about={about} id={`${id}-hint`} />
      {fault !== '' && (
        <span className="fault" id={`${id}-fault`}>
          {fault}
        </span>
      )}
    </div>
  )
}

interface InputProps {
  readonly about: Told
  readonly value: unknown
  readonly nothing: null | undefined
  readonly required: boolean
  readonly onChange: (value: unknown) => void
  readonly shown: Readonly<Record<string, string | boolean>>
}

function absent({ about, value }: InputProps): string {
  if (value === null) return 'null'
  if (value === '') return 'empty'
  if (about.default !== undefined && about.default !== null) return `${JSON.stringify(about.default)}, if not given`
  return ''
}

function Input(props: InputProps) {
  const { about, value, nothing, required, onChange, shown } = props
  const { shape } = about
  if (shape.is === 'choice' || shape.is === 'flag') {
    const values = shape.is === 'flag' ? [true, false] : shape.values
    const all = about.nullable && !values.includes(null) ? [...values, null] : values
    const at = all.findIndex(one => JSON.stringify(one) === JSON.stringify(value))
    const other = at < 0 && value !== undefined
    return (
      <select
        {...shown}
        className="input"
        value={at < 0 ? '' : at}
        onChange={event => onChange(event.target.value === '' ? nothing : all[Number(event.target.value)])}
      >
        {(at < 0 || !required) && (
          <option value="">{other ? JSON.stringify(value) : absent(props) || 'not given'}</option>
        )}
        {all.map((one, index) => (
          <option key={JSON.stringify(one)} value={index}>
            {typeof one === 'string' ? one : JSON.stringify(one)}
          </option>
        ))}
      </select>
    )
  }
  if (shape.is === 'number') return <NumberInput {...props} />
  if (shape.is === 'text' && (typeof value === 'string' || value === undefined || value === null)) {
    const text = value ?? ''
    const take = (typed: string) => onChange(typed === '' && (!required || about.nullable) ? nothing : typed)
    return (
      <textarea
        {...shown}
        className="input grows"
        rows={1}
        placeholder={absent(props)}
        spellCheck={false}
        value={text}
        onChange={event => take(event.target.value)}
      />
    )
  }
  return <JsonInput {...props} />
}

/** Keeps what is typed: what is no number is kept as a text, so that it is seen to be wrong. */
function NumberInput(props: InputProps) {
  const { value, nothing, onChange, shown } = props
  const [typed, setTyped] = useState<string | null>(null)
  const now = typeof value === 'number' || typeof value === 'string' ? String(value) : ''
  const kept = typed !== null && numberOf(typed) === value ? typed : now
  return (
    <input
      {...shown}
      className="input"
      inputMode="decimal"
      autoComplete="off"
      placeholder={absent(props)}
      value={kept}
      onChange={event => {
        setTyped(event.target.value)
        onChange(event.target.value.trim() === '' ? nothing : numberOf(event.target.value))
      }}
    />
  )
}

function numberOf(typed: string): number | string {
  const number = Number(typed)
  const exact =
    typed.trim() !== '' && Number.isFinite(number) && (!Number.isInteger(number) || Number.isSafeInteger(number))
  return exact ? number : typed
}

/** A value as JSON. What is no JSON is kept as a text until it is. */
export function JsonInput({ value, nothing, onChange, shown }: Omit<InputProps, 'about' | 'required'>) {
  const [typed, setTyped] = useState<{ text: string; gave: unknown } | null>(null)
  const text =
    typed !== null && typed.gave === value ? typed.text : value === undefined ? '' : JSON.stringify(value, null, 2)
  const broken = typed !== null && typed.gave === value ? jsonFault(typed.text) : ''
  return (
    <>
      <textarea
        {...shown}
        className="input mono grows"
        rows={2}
        spellCheck={false}
        placeholder="JSON"
        value={text}
        onChange={event => {
          const gave = event.target.value.trim() === '' ? nothing : jsonOf(event.target.value)
          setTyped({ text: event.target.value, gave })
          onChange(gave)
        }}
      />
      {broken !== '' && <span className="fault">{broken}</span>}
    </>
  )
}

function jsonFault(text: string): string {
  const value = text.trim() === '' ? null : jsonOf(text)
  return value instanceof Unreadable ? value.why : ''
}

function ObjectField(props: Inner) {
  const { about, name, value, required, onChange, root, at, depth, faults, strict } = props
  if (about.shape.is !== 'object') return null
  const fields = about.shape.fields
  if (!isObject(value)) {
    return (
      <Frame {...props}>
        {value !== undefined && value !== null && <span className="fault">is {typeOf(value)}, not an object</span>}
        <div>
          <button
            type="button"
            className="button small"
            onClick={() => onChange(firstOf(root, props.schema, depth) ?? {})}
          >
            Give {name}
          </button>
        </div>
      </Frame>
    )
  }
  const known = new Set(fields.map(field => field.name))
  const others = Object.keys(value).filter(other => !known.has(other))
  const inner = (field: { name: string; schema: unknown; required: boolean }) => (
    <Field
      key={field.name}
      root={root}
      schema={field.schema}
      name={field.name}
      at={pointerTo(at, field.name)}
      depth={depth + 1}
      required={field.required}
      value={Object.hasOwn(value, field.name) ? value[field.name] : undefined}
      faults={faults}
      strict={strict}
      onChange={next => onChange(having(value, field.name, next))}
    />
  )
  const body = (
    <>
      {fields.map(inner)}
      {others.map(other => inner({ name: other, schema: {}, required: false }))}
    </>
  )
  if (depth === 0) return <div className="stack">{body}</div>
  return (
    <Frame {...props} onRemove={required ? undefined : () => onChange(undefined)}>
      {body}
    </Frame>
  )
}

function Frame(props: Inner & { readonly children?: React.ReactNode; readonly onRemove?: (() => void) | undefined }) {
  const fault = own(props)
  const id = useId()
  return (
    <fieldset className="frame stack" aria-describedby={`${id}-hint`}>
      <legend className="mono">
        {props.name}
        {props.required && (
          <span aria-hidden className="needed">
            {' '}
            *
          </span>
        )}
        {props.onRemove !== undefined && (
          <button
            type="button"
            className="button plain small"
            aria-label={`Leave out ${props.name}`}
            onClick={props.onRemove}
          >
            ✕
          </button>
        )}
      </legend>
      <Hint about={props.about} id={`${id}-hint`} />
      {fault !== '' && <span className="fault">{fault}</span>}
      {props.children}
    </fieldset>
  )
}

function ListField(props: Inner & { readonly items: Schema }) {
  const { name, value, items, root, at, depth, faults, strict, onChange, required } = props
  const entries: readonly unknown[] = Array.isArray(value) ? value : []
  const put = (next: readonly unknown[]) => onChange(next.length === 0 && !required ? undefined : next)
  // Entries are told apart by their number alone: what stands in a field comes from the value.
  return (
    <Frame {...props}>
      {value !== undefined && value !== null && !Array.isArray(value) && (
        <span className="fault">is {typeOf(value)}, not a list</span>
      )}
      {entries.map((entry, index) => (
        <div className="entry" key={`${index} of ${entries.length}`}>
          <Field
            root={root}
            schema={items}
            name={`${name}[${index}]`}
            at={pointerTo(at, index)}
            depth={depth + 1}
            required
            value={entry ?? undefined}
            faults={faults}
            strict={strict}
            onChange={next => put(entries.map((other, place) => (place === index ? (next ?? null) : other)))}
          />
          <button
            type="button"
            className="button plain small"
            aria-label={`Leave out ${name}[${index}]`}
            onClick={() => put(entries.filter((_, place) => place !== index))}
          >
            ✕
          </button>
        </div>
      ))}
      <div>
        <button
          type="button"
          className="button small"
          onClick={() => onChange([...entries, firstOf(root, items, depth + 1) ?? empty(root, items, depth + 1)])}
        >
          Add to {name}
        </button>
      </div>
    </Frame>
  )
}

/** What a new entry of a list is, where the schema does not say it. */
function empty(root: unknown, schema: unknown, depth: number): unknown {
  const { shape } = told(root, schema, depth)
  return shape.is === 'text' ? '' : null
}

function OneOfField(
  props: Inner & { readonly options: readonly { readonly name: string; readonly schema: Schema }[] },
) {
  const { options, root, value, name, required, onChange, about } = props
  const [chosen, setChosen] = useState<number | null>(null)
  const id = useId()
  const now = chosen ?? (value === undefined ? null : choiceOf(root, options, value))
  const option = now === null ? undefined : options[now]
  return (
    <Frame {...props}>
      <div className="field">
        <label htmlFor={id}>Kind of {name}</label>
        <select
          id={id}
          className="input"
          value={value === null ? 'null' : (now ?? '')}
          onChange={event => {
            const picked = event.target.value
            const number = picked === '' || picked === 'null' ? null : Number(picked)
            setChosen(number)
            if (number === null) onChange(picked === 'null' ? null : undefined)
            else onChange(firstOf(root, options[number]?.schema, props.depth + 1))
          }}
        >
          {(now === null || !required) && <option value="">not given</option>}
          {about.nullable && <option value="null">null</option>}
          {options.map((one, number) => (
            <option key={`${number} ${one.name}`} value={number}>
              {one.name}
            </option>
          ))}
        </select>
      </div>
      {option !== undefined && value !== null && (
        <Field {...props} schema={option.schema} depth={props.depth + 1} required onChange={onChange} />
      )}
    </Frame>
  )
}
