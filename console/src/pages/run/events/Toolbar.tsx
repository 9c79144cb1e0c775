import { type Filters, GROUPS } from './filters'

interface Props {
  readonly filters: Filters
  readonly change: (change: Partial<Filters>) => void
  readonly steps: readonly string[]
  readonly types: readonly string[]
  readonly shown: number | null
  readonly total: number
  /** How many rows were looked at so far. Null: nobody looks. */
  readonly looking: number | null
  readonly more: boolean
}

/** What is looked for among the events of a run. */
export function Toolbar({ filters, change, steps, types, shown, total, looking, more }: Props) {
  const known = new Set([...GROUPS.map(group => group.name), ...types])
  const chosen = filters.types.filter(type => known.has(type))
  const without = (type: string) => filters.types.filter(other => other !== type)
  const isFiltered = filters.types.length > 0 || filters.step !== '' || filters.find !== ''
  return (
    <div className="events-tools" role="search" aria-label="Events">
      <select
        className="input"
        aria-label="Type"
        value=""
        onChange={event => change({ types: [...without(event.target.value), event.target.value] })}
      >
        <option value="">{chosen.length === 0 ? 'All types' : 'Another type …'}</option>
        <optgroup label="Kinds">
          {GROUPS.map(group => (
            <option key={group.name} value={group.name}>
              {group.label}
            </option>
          ))}
        </optgroup>
        <optgroup label="Types">
          {types.filter(isOfRuns).map(type => (
            <option key={type} value={type}>
              {type}
            </option>
          ))}
        </optgroup>
      </select>
      <select
        className="input"
        aria-label="Step"
        value={filters.step}
        onChange={event => change({ step: event.target.value })}
      >
        <option value="">All steps</option>
        {(filters.step === '' || steps.includes(filters.step) ? steps : [filters.step, ...steps]).map(step => (
          <option key={step} value={step}>
            {step}
          </option>
        ))}
      </select>
      <input
        className="input"
        type="search"
        aria-label="Find"
        placeholder="Find words: an error, a tool, a position …"
        value={filters.find}
        maxLength={200}
        autoComplete="off"
        spellCheck={false}
        onChange={event => change({ find: event.target.value })}
      />
      <span className="soft events-count" role="status">
        {looking !== null
          ? `${(shown ?? 0).toLocaleString('en')} found in ${looking.toLocaleString('en')} …`
          : shown === null
            ? ''
            : isFiltered
              ? `${shown.toLocaleString('en')}${more ? ' and more' : ''} of ${total.toLocaleString('en')} events`
              : `${shown.toLocaleString('en')} events`}
      </span>
      {filters.types.map(type => (
        <button
          key={type}
          type="button"
          className="button small"
          aria-label={`Without the filter ${type}`}
          onClick={() => change({ types: without(type) })}
        >
          {GROUPS.find(group => group.name === type)?.label ?? type} ✕
        </button>
      ))}
      {isFiltered && (
        <button type="button" className="button small plain" onClick={() => change({ types: [], step: '', find: '' })}>
          All events
        </button>
      )}
    </div>
  )
}

/** Whether a run can have events of a type. */
function isOfRuns(type: string): boolean {
  return /^(run|agent_run|invocation|chain|compensation|message|context|approval|allowance)\./.test(type)
}
