import { useId } from 'react'

/** A text that may be JSON. */
export type Parsed = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly why: string }

export function parsed(text: string): Parsed {
  try {
    return { ok: true, value: JSON.parse(text) as unknown }
  } catch (error) {
    return { ok: false, why: error instanceof Error ? error.message : 'This is not JSON.' }
  }
}

interface Props {
  readonly label: string
  readonly text: string
  readonly onText: (text: string) => void
}

/** A field for a JSON value, which says what is wrong with it. */
export function JsonField({ label, text, onText }: Props) {
  const id = useId()
  const read = parsed(text)
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <textarea
        id={id}
        className="input mono"
        spellCheck={false}
        rows={6}
        value={text}
        aria-invalid={!read.ok}
        aria-describedby={read.ok ? undefined : `${id}-fault`}
        onChange={event => onText(event.target.value)}
      />
      {!read.ok && (
        <span id={`${id}-fault`} className="fault">
          {read.why}
        </span>
      )}
    </div>
  )
}
