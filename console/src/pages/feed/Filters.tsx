import { type KeyboardEvent, useId, useState } from 'react'

import { type FeedFilter, suggestionsOf } from './filter'
import { instantOf } from './useTail'

interface Props {
  readonly filter: FeedFilter
  readonly time: string | null
  readonly known: readonly string[]
  readonly onChange: (change: Partial<FeedFilter>) => void
  readonly onTime: (at: string | null) => void
}

export function Filters({ filter, time, known, onChange, onTime }: Props) {
  const id = useId()
  const some =
    filter.types.length > 0 || filter.run !== '' || filter.actor !== '' || filter.behalf !== '' || time !== null
  return (
    <div className="panel feed-filters" role="search" aria-label="Filters">
      <Types types={filter.types} known={known} onChange={types => onChange({ types })} />
      <Word id={`${id}-run`} name="Run" hint="id of a run" value={filter.run} onChange={run => onChange({ run })} />
      <Word id={`${id}-actor`} name="Actor" hint="key:…" value={filter.actor} onChange={actor => onChange({ actor })} />
      <Word
        id={`${id}-behalf`}
        name="On behalf of"
        hint="user:ada@example.org"
        value={filter.behalf}
        onChange={behalf => onChange({ behalf })}
      />
      <Moment id={`${id}-time`} time={time} onTime={onTime} />
      {some && (
        <button
          type="button"
          className="button plain"
          onClick={() => {
            onChange({ types: [], run: '', actor: '', behalf: '' })
            onTime(null)
          }}
        >
          Clear filters
        </button>
      )}
    </div>
  )
}

function Types({
  types,
  known,
  onChange,
}: {
  readonly types: readonly string[]
  readonly known: readonly string[]
  readonly onChange: (types: readonly string[]) => void
}) {
  const id = useId()
  const [text, setText] = useState('')
  const suggestions = suggestionsOf(known)
  const add = (type: string) => {
    const said = type.trim()
    if (said !== '' && !types.includes(said)) onChange([...types, said])
    setText('')
  }
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Enter') {
      event.preventDefault()
      add(text)
    } else if (event.key === 'Backspace' && text === '') onChange(types.slice(0, -1))
  }
  return (
    <div className="field feed-types">
      <label htmlFor={id}>Type</label>
      <div className="feed-chips">
        {types.map(type => (
          <button
            key={type}
            type="button"
            className="tag mono"
            aria-label={`Remove ${type}`}
            onClick={() => onChange(types.filter(one => one !== type))}
          >
            {type} ×
          </button>
        ))}
        <input
          id={id}
          className="input"
          list={`${id}-all`}
          placeholder={types.length === 0 ? 'run.*, invocation.failed' : ''}
          autoComplete="off"
          spellCheck={false}
          value={text}
          onKeyDown={onKeyDown}
          onBlur={() => add(text)}
          onChange={event => {
            // A suggestion that was chosen is taken at once.
            if (suggestions.includes(event.target.value) && !isPrefix(event.target.value, suggestions))
              add(event.target.value)
            else setText(event.target.value)
          }}
        />
        <datalist id={`${id}-all`}>
          {suggestions.map(type => (
            <option key={type} value={type} />
          ))}
        </datalist>
      </div>
    </div>
  )
}

/** Whether more may be typed that is a suggestion, too: `run.step_failed` goes on from nothing, `run.paused` neither. */
function isPrefix(text: string, suggestions: readonly string[]): boolean {
  return suggestions.some(one => one !== text && one.startsWith(text))
}

interface WordProps {
  readonly id: string
  readonly name: string
  readonly hint: string
  readonly value: string
  readonly onChange: (value: string) => void
}

/** A text that counts once it is done: on Enter, or when the field is left. */
function Word({ id, name, hint, value, onChange }: WordProps) {
  const [typed, setTyped] = useState<string | null>(null)
  const done = () => {
    if (typed !== null && typed.trim() !== value) onChange(typed.trim())
    setTyped(null)
  }
  return (
    <div className="field">
      <label htmlFor={id}>{name}</label>
      <input
        id={id}
        className="input"
        placeholder={hint}
        autoComplete="off"
        spellCheck={false}
        maxLength={500}
        value={typed ?? value}
        onChange={event => setTyped(event.target.value)}
        onBlur={done}
        onKeyDown={event => {
          if (event.key === 'Enter') done()
        }}
      />
    </div>
  )
}

function Moment({ id, time, onTime }: { readonly id: string; readonly time: string | null } & Pick<Props, 'onTime'>) {
  const [typed, setTyped] = useState<string | null>(null)
  const value = typed ?? (time === null ? '' : localOf(time))
  const done = () => {
    if (typed === null) return
    const at = instantOf(typed)
    if (at !== null || typed === '') onTime(at)
    setTyped(null)
  }
  return (
    <div className="field">
      <label htmlFor={id}>Go to a time</label>
      <input
        id={id}
        className="input"
        type="datetime-local"
        step="1"
        value={value}
        onChange={event => setTyped(event.target.value)}
        onBlur={done}
        onKeyDown={event => {
          if (event.key === 'Enter') done()
        }}
      />
    </div>
  )
}

/** A time as a field for local times takes it. */
function localOf(time: string): string {
  const at = new Date(time)
  if (Number.isNaN(at.getTime())) return ''
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19)
}
