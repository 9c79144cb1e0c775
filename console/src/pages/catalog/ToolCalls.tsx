import { useQuery } from '@tanstack/react-query'
import { Link } from 'wouter'

import { api } from '../../api/client'
import type { components } from '../../api/schema'
import { useEvents } from '../../live/hooks'
import { useRefresh } from '../../live/useRefresh'
import { Loading, ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Time, Took } from '../../ui/Time'
import { callsOf, TYPES_OF_CALLS } from './calls'
import { TableBox } from '../../ui/TableBox'

/** Events of calls that are looked at: those of all tools. */
const LOOKED_AT = 400

interface Events {
  readonly data: readonly components['schemas']['CloudEvent'][]
  readonly next_cursor: string | null
}

/** The newest calls of a tool. */
export function ToolCalls({ name }: { readonly name: string }) {
  const key = ['tool', name, 'calls']
  const calls = useQuery({
    queryKey: key,
    queryFn: async ({ signal }) => {
      const query = { newest_first: true, limit: LOOKED_AT, types: TYPES_OF_CALLS.join(',') }
      const { data } = await api.GET('/v1/events', { params: { query }, signal })
      const events = data as unknown as Events
      return { calls: callsOf(events.data, name), more: events.next_cursor !== null }
    },
  })
  useEvents({ types: TYPES_OF_CALLS }, { onEvents: useRefresh([key], 3_000) })
  return (
    <section className="panel stack" aria-label="Newest calls">
      <h2>Newest calls</h2>
      {calls.isPending && <Loading what="calls" />}
      {calls.isError && <ProblemBox error={calls.error} retry={() => void calls.refetch()} />}
      {calls.isSuccess && calls.data.calls.length === 0 && (
        <p className="soft">
          {calls.data.more ? 'None among the newest calls of all tools.' : 'It has never been called.'}
        </p>
      )}
      {calls.isSuccess && calls.data.calls.length > 0 && (
        <TableBox name="Newest calls">
          <table className="table">
            <thead>
              <tr>
                <th scope="col">Call</th>
                <th scope="col">Outcome</th>
                <th scope="col">Asked</th>
                <th scope="col">Took</th>
                <th scope="col">Where</th>
              </tr>
            </thead>
            <tbody>
              {calls.data.calls.slice(0, 100).map(call => (
                <tr key={call.id} data-testid="call-row" data-status={call.status}>
                  <td>
                    <Link className="mono" href={`/feed?run=${call.run}&event=${call.position}`} title={call.id}>
                      …{call.id.slice(-12)}
                    </Link>
                  </td>
                  <td>
                    <Status of={call.status} />
                    {call.error !== '' && <div className="clamped">{call.error}</div>}
                  </td>
                  <td>
                    <Time of={call.asked} />
                  </td>
                  <td>
                    <Took from={call.asked} to={call.ended} />
                  </td>
                  <td>{call.run === call.id ? 'no run' : <Link href={`/runs/${call.run}`}>Run</Link>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableBox>
      )}
      {calls.data?.more === true && (
        <p className="soft">Found among the newest {LOOKED_AT} events of calls of all tools.</p>
      )}
    </section>
  )
}
