import { useState } from 'react'
import { useLocation } from 'wouter'

import type { Run } from '../../../api/types'
import { useMoment } from '../moment'
import { typed } from '../past/slider'
import type { Other, Suggestion } from './useComparison'

interface Props {
  readonly run: Run
  readonly other: Other | null
  readonly suggestions: readonly Suggestion[]
  readonly onChoose: (other: Other | null) => void
}

const ID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i

/** What to compare with: an id and a moment, or one of the suggestions. */
export function Choice({ run, other, suggestions, onChoose }: Props) {
  const [at] = useMoment()
  const [, go] = useLocation()
  const [id, setId] = useState(other === null || other.run === run.run_id ? '' : other.run)
  const [moment, setMoment] = useState(other?.at ?? '')
  const found = moment.trim() === '' ? null : typed(moment, Date.parse(run.created_at))
  const wrongId = id.trim() !== '' && !ID.test(id.trim())
  const wrongMoment = moment.trim() !== '' && (found === null || !('at' in found))
  return (
    <form
      className="panel compare-choice"
      onSubmit={event => {
        event.preventDefault()
        if (wrongId || wrongMoment) return
        const until = found !== null && 'at' in found ? found.at : null
        onChoose({ run: id.trim() === '' ? run.run_id : id.trim().toLowerCase(), at: until })
      }}
    >
      <div className="field">
        <label htmlFor="compare-id">Compare with the run</label>
        <input
          id="compare-id"
          className="input mono"
          placeholder="its id; empty: this run"
          autoComplete="off"
          spellCheck={false}
          aria-invalid={wrongId}
          value={id}
          onChange={event => setId(event.target.value)}
        />
      </div>
      <div className="field">
        <label htmlFor="compare-at">as it was at</label>
        <input
          id="compare-at"
          className="input mono"
          placeholder="position or time; empty: now"
          autoComplete="off"
          spellCheck={false}
          aria-invalid={wrongMoment}
          value={moment}
          onChange={event => setMoment(event.target.value)}
        />
      </div>
      <button type="submit" className="button main">
        Compare
      </button>
      {other !== null && (
        <button
          type="button"
          className="button"
          onClick={() => {
            const query = new URLSearchParams({ with: run.run_id })
            if (at !== null) query.set('with_at', at)
            if (other.at !== null) query.set('at', other.at)
            go(`/runs/${other.run}/compare?${query.toString()}`)
          }}
        >
          Swap sides
        </button>
      )}
      {(wrongId || wrongMoment) && (
        <span className="fault" role="alert">
          {wrongId ? 'That is not the id of a run.' : 'a position (2330), a time (14:29:50) or +90s'}
        </span>
      )}
      {suggestions.length > 0 && (
        <div className="row compare-suggestions">
          <span className="soft">Or with</span>
          {suggestions.map(({ name, other: suggested }) => (
            <button
              key={`${suggested.run} ${suggested.at ?? ''}`}
              type="button"
              className="button small"
              data-testid="suggestion"
              onClick={() => onChoose(suggested)}
            >
              {name}
            </button>
          ))}
        </div>
      )}
    </form>
  )
}
