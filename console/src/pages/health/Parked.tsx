import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useState } from 'react'
import { Link } from 'wouter'

import { api, dataOf, withReason } from '../../api/client'
import { useRefusal } from '../../app/roles'
import { Act } from '../../ui/Act'
import { Loading, ProblemBox } from '../../ui/States'
import { Time } from '../../ui/Time'

/** Events that a consumer could not handle, and another attempt at them. */
export function Parked({ name }: { readonly name: string }) {
  const client = useQueryClient()
  const refused = useRefusal('projections.retry')
  const [failed, setFailed] = useState<readonly string[]>([])
  const key = ['health', 'parked', name]
  const parked = useQuery({
    queryKey: key,
    queryFn: async ({ signal }) =>
      dataOf(
        await api.GET('/v1/projections/{name}/parked', { params: { path: { name }, query: { limit: 20 } }, signal }),
      ),
  })
  return (
    <div className="stack job">
      <div className="spread">
        <strong>Parked events</strong>
        <Act
          name="Try again"
          what={<>The parked events of {name} are handled again, in their order. Those that fail again stay parked.</>}
          refused={refused}
          act={async reason => {
            const done = dataOf(
              await api.POST('/v1/projections/{name}/retry', {
                params: { path: { name } },
                headers: withReason(reason),
                body: { root_id: null },
              }),
            )
            setFailed(done.data.flatMap(root => (root.error === null ? [] : [root.error])))
          }}
          onDone={() => void client.invalidateQueries({ queryKey: ['health'] })}
        />
      </div>
      {failed.length > 0 && (
        <div className="notice bad" role="alert">
          {failed.length} still fail; the first: {failed[0]}
        </div>
      )}
      {parked.isPending && <Loading what="parked events" />}
      {parked.isError && <ProblemBox error={parked.error} retry={() => void parked.refetch()} />}
      {parked.isSuccess && (
        <ul className="plain-list scrolls">
          {parked.data.data.map(event => (
            <li key={event.position} data-testid="parked-row" data-position={event.position}>
              <span className="row">
                <Link href={`/feed?event=${event.position}`}>{event.position}</Link>
                <span className="mono">{event.topic}</span>
                <Time of={event.since} />
              </span>
              <pre className="fault">{event.error}</pre>
            </li>
          ))}
        </ul>
      )}
      {parked.data?.next_cursor !== null && parked.isSuccess && <p className="soft">and others</p>}
    </div>
  )
}
