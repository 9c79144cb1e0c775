import { useQuery } from '@tanstack/react-query'
import { Link } from 'wouter'

import { api, dataOf } from '../../api/client'
import { asProblem } from '../../api/problem'
import { useRefusal } from '../../app/roles'
import { useEvents } from '../../live/hooks'
import { useRefresh } from '../../live/useRefresh'
import { ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Time } from '../../ui/Time'
import { useBreakers } from '../catalog/data'
import { BreakerActs } from '../catalog/ToolBreaker'

/** Breakers that keep tools from being called, and those that a person holds. */
export function OpenBreakers() {
  const breakers = useBreakers()
  useEvents({ slices: ['breaker'] }, { onEvents: useRefresh([['breakers']]) })
  if (breakers.isError) return <ProblemBox error={breakers.error} retry={() => void breakers.refetch()} />
  const found = (breakers.data?.rows ?? []).filter(one => one.state !== 'closed' || one.forced !== null)
  return (
    <section className="panel stack" aria-label="Breakers">
      <h2>Breakers</h2>
      {found.length === 0 && <p className="soft">No breaker keeps a tool from being called.</p>}
      {found.length > 0 && (
        <ul className="plain-list model-list">
          {found.slice(0, 200).map(one => (
            <li key={one.tool} className="model" data-testid="breaker-row" data-name={one.tool} data-status={one.state}>
              <div className="spread">
                <span className="row">
                  <Link className="mono" href={`/tools/${encodeURIComponent(one.tool)}?part=breaker`}>
                    {one.tool}
                  </Link>
                  <Status of={one.state} />
                  <span className="soft">
                    {one.forced !== null && 'held by a person, '}since <Time of={one.since} />
                    {one.tried_at !== null && (
                      <>
                        , tried again <Time of={one.tried_at} />
                      </>
                    )}
                  </span>
                </span>
                <BreakerActs tool={one.tool} forced={one.forced} />
              </div>
              {(one.reason ?? one.error) !== null && <div className="soft clamped">{one.reason ?? one.error}</div>}
            </li>
          ))}
        </ul>
      )}
    </section>
  )
}

/** Whether positions of the log are missing. The look reads an index of a million positions, so only a person asks for it. */
export function Gaps() {
  const refused = useRefusal('log.read')
  const gaps = useQuery({
    queryKey: ['health-gaps'],
    enabled: false,
    queryFn: async ({ signal }) => dataOf(await api.GET('/v1/log/gaps', { signal })),
  })
  return (
    <section className="panel stack" aria-label="Gaps of the log">
      <div className="spread">
        <h2>Gaps of the log</h2>
        <button
          type="button"
          className="button small"
          disabled={gaps.isFetching || refused !== undefined}
          title={refused}
          onClick={() => void gaps.refetch()}
        >
          {gaps.isFetching ? 'Looking …' : 'Look'}
        </button>
      </div>
      {gaps.isError && asProblem(gaps.error).status === 403 && <p className="soft">{asProblem(gaps.error).detail}</p>}
      {gaps.isError && asProblem(gaps.error).status !== 403 && <ProblemBox error={gaps.error} />}
      {gaps.isSuccess && gaps.data.missing === 0 && (
        <p>
          <span className="badge good">whole</span> Every position from {gaps.data.looked_from.toLocaleString('en')} to{' '}
          {gaps.data.head.toLocaleString('en')} has its event.
        </p>
      )}
      {gaps.isSuccess && gaps.data.missing > 0 && (
        <div className="notice bad" role="alert">
          {gaps.data.missing.toLocaleString('en')} positions have no event: somebody deleted rows. The first:{' '}
          {gaps.data.gaps.map(([first, last]) => (first === last ? first : `${first} to ${last}`)).join(', ')}
        </div>
      )}
      {!gaps.isSuccess && !gaps.isError && (
        <p className="soft">
          Every position has an event, unless somebody deleted rows. The newest million are looked at.
        </p>
      )}
    </section>
  )
}
