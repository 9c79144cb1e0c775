import { useId, useState } from 'react'

import { useSession } from '../../app/session'
import { type Filters, isNone, toAddress } from './filters'
import { opened, save, savedFilters } from './keptFilters'

interface Props {
  readonly filters: Filters
  readonly onFilters: (filters: Filters) => void
}

/** Filters by name, kept in this browser. */
export function Saved({ filters, onFilters }: Props) {
  const { tenant_id: tenant } = useSession()
  const [kept, setKept] = useState(() => savedFilters(tenant))
  const [name, setName] = useState<string | null>(null)
  const id = useId()
  const now = toAddress(filters).toString()
  const current = Object.entries(kept).find(([, address]) => address === now)?.[0]
  if (name !== null) {
    return (
      <form
        className="field saved"
        onSubmit={event => {
          event.preventDefault()
          if (name.trim() !== '') setKept(save(tenant, name.trim(), filters))
          setName(null)
        }}
      >
        <label htmlFor={`${id}-name`}>Name of these filters</label>
        <span className="row">
          <input
            id={`${id}-name`}
            className="input"
            maxLength={60}
            autoComplete="off"
            value={name}
            onChange={event => setName(event.target.value)}
          />
          <button type="submit" className="button small main">
            Save
          </button>
          <button type="button" className="button small" onClick={() => setName(null)}>
            Back
          </button>
        </span>
      </form>
    )
  }
  return (
    <div className="field saved">
      <label htmlFor={id}>Saved filters</label>
      <span className="row">
        <select
          id={id}
          className="input"
          value={current ?? ''}
          disabled={Object.keys(kept).length === 0}
          onChange={event => {
            const address = kept[event.target.value]
            if (address !== undefined) onFilters(opened(address))
          }}
        >
          <option value="">{Object.keys(kept).length === 0 ? 'none' : 'choose'}</option>
          {Object.keys(kept).map(one => (
            <option key={one} value={one}>
              {one}
            </option>
          ))}
        </select>
        {current !== undefined ? (
          <button type="button" className="button small" onClick={() => setKept(save(tenant, current, null))}>
            Forget
          </button>
        ) : (
          <button type="button" className="button small" disabled={isNone(filters)} onClick={() => setName('')}>
            Save as …
          </button>
        )}
      </span>
    </div>
  )
}
