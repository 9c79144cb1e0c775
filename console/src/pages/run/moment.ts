import { useSearchParams } from 'wouter'

/** The moment that a run's page shows: a position or an RFC 3339 time in the address (`?at=`). Null: now, and live. */
export function useMoment(): [string | null, (at: string | null) => void] {
  const [params, setParams] = useSearchParams()
  return [
    params.get('at'),
    at =>
      setParams(
        before => {
          const next = new URLSearchParams(before)
          if (at === null) next.delete('at')
          else next.set('at', at)
          return next
        },
        { replace: true },
      ),
  ]
}

/** `as_of` of a read at this moment. */
export function asOf(at: string | null): { as_of?: string } {
  return at === null ? {} : { as_of: at }
}
