import { useState } from 'react'

import { typed } from './slider'

interface Props {
  /** When the run began, in milliseconds. */
  readonly began: number
  readonly total: number
  readonly onNumber: (number: number) => void
  readonly onMoment: (at: string) => void
}

/** A field for a moment: a position, a time, or the number of an event. */
export function GoTo({ began, total, onNumber, onMoment }: Props) {
  const [text, setText] = useState('')
  const [wrong, setWrong] = useState(false)
  return (
    <form
      className="row"
      onSubmit={event => {
        event.preventDefault()
        const found = Number.isNaN(began) ? null : typed(text, began)
        setWrong(found === null && text.trim() !== '')
        if (found === null) return
        if ('number' in found) onNumber(Math.min(found.number, Math.max(0, total - 1)))
        else onMoment(found.at)
        setText('')
      }}
    >
      <input
        className="input small moment-go"
        aria-label="Go to a position or time"
        placeholder="position or time"
        title="2330: a position · 14:29:50: a time · #512: the 512th event · +90s: after the start"
        autoComplete="off"
        spellCheck={false}
        aria-invalid={wrong}
        value={text}
        onChange={event => {
          setText(event.target.value)
          setWrong(false)
        }}
      />
      <button type="submit" className="button small">
        Go
      </button>
      {wrong && (
        <span className="fault" role="alert">
          a position (2330), a time (14:29:50), #512 or +90s
        </span>
      )}
    </form>
  )
}
