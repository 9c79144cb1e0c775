import { type Counts } from './data'
import { type Filters, type Status, STATUSES } from './filters'

interface Props {
  readonly filters: Filters
  readonly counts: Counts | undefined
  readonly onFilters: (filters: Filters) => void
}

/** Statuses with their counts. Each is shown or not; none chosen shows all. */
export function StatusTabs({ filters, counts, onFilters }: Props) {
  const toggle = (status: Status) => {
    const on = filters.status.includes(status)
    const next = STATUSES.filter(one => (one === status ? !on : filters.status.includes(one)))
    onFilters({ ...filters, status: next })
  }
  return (
    <div className="tabs status-tabs" role="group" aria-label="Statuses">
      <button
        type="button"
        aria-pressed={filters.status.length === 0}
        onClick={() => onFilters({ ...filters, status: [] })}
      >
        All
      </button>
      {STATUSES.map(status => {
        const counted = counts?.[status]
        return (
          <button
            key={status}
            type="button"
            aria-pressed={filters.status.includes(status)}
            onClick={() => toggle(status)}
          >
            {status.slice(0, 1).toUpperCase() + status.slice(1)}
            {counted !== undefined && (
              <span className="count" data-testid={`count-${status}`}>
                {counted.count.toLocaleString('en')}
                {counted.more && '+'}
              </span>
            )}
          </button>
        )
      })}
    </div>
  )
}
