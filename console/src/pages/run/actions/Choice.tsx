import { type ReactNode, useId } from 'react'

interface Props<T extends string> {
  readonly label: string
  readonly value: T
  readonly options: readonly { readonly value: T; readonly name: string }[]
  readonly onValue: (value: T) => void
  readonly hint?: ReactNode
}

/** A field with a few possible values. */
export function Choice<T extends string>({ label, value, options, onValue, hint }: Props<T>) {
  const id = useId()
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <select id={id} className="input" value={value} onChange={event => onValue(event.target.value as T)}>
        {options.map(option => (
          <option key={option.value} value={option.value}>
            {option.name}
          </option>
        ))}
      </select>
      {hint !== undefined && <span className="soft">{hint}</span>}
    </div>
  )
}

/** A field for a line of text. */
export function Line({
  label,
  value,
  onValue,
  type = 'text',
  required = false,
}: {
  readonly label: string
  readonly value: string
  readonly onValue: (value: string) => void
  readonly type?: 'text' | 'number'
  readonly required?: boolean
}) {
  const id = useId()
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        className="input"
        type={type}
        min={type === 'number' ? 1 : undefined}
        required={required}
        autoComplete="off"
        value={value}
        onChange={event => onValue(event.target.value)}
      />
    </div>
  )
}

/** A box to tick. */
export function Tick({ label, value, onValue }: { label: string; value: boolean; onValue: (value: boolean) => void }) {
  return (
    <label className="row">
      <input type="checkbox" checked={value} onChange={event => onValue(event.target.checked)} />
      {label}
    </label>
  )
}
