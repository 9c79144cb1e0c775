import { useQuery } from '@tanstack/react-query'
import { Link } from 'wouter'

import { api, dataOf } from '../../api/client'
import { useEvents } from '../../live/hooks'
import { useRefresh } from '../../live/useRefresh'
import { Act } from '../../ui/Act'
import { ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'

const TYPES = ['started', 'runs_selected', 'advanced', 'completed', 'cancelled', 'failed'].map(
  type => `bulk_action.${type}`,
)

/** How far a bulk action has come, live. It goes on when this page is left. */
export function BulkProgress({ id, onClose }: { readonly id: string; readonly onClose: () => void }) {
  const key = ['bulk', 'one', id]
  const found = useQuery({
    queryKey: key,
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/bulk-actions/{bulk_action_id}', { params: { path: { bulk_action_id: id } }, signal })),
  })
  const goesOn = found.data === undefined || found.data.status === 'selecting' || found.data.status === 'acting'
  const refresh = useRefresh([key], 500)
  useEvents({ types: TYPES }, { enabled: goesOn, onEvents: refresh, onReset: () => refresh([]) })
  if (found.isError) return <ProblemBox error={found.error} retry={() => void found.refetch()} />
  if (found.data === undefined) return null
  const bulk = found.data
  return (
    <section className="notice stack" aria-label="Bulk action">
      <div className="spread">
        <span className="row">
          <strong>{bulk.action} of many</strong> <Status of={bulk.status} />
          <span role="status">
            {bulk.handled.toLocaleString('en')} of {bulk.matched.toLocaleString('en')} runs
            {bulk.unchanged > 0 && `, ${bulk.unchanged.toLocaleString('en')} of them so already`}
          </span>
        </span>
        <span className="row">
          {goesOn ? (
            <Act
              name="Stop"
              what="Runs that have not had their turn are left alone. What the others were told stays."
              tone="danger"
              act={reason =>
                api.POST('/v1/bulk-actions/{bulk_action_id}/cancel', {
                  params: { path: { bulk_action_id: id } },
                  body: { reason: reason.trim() || null },
                })
              }
            />
          ) : (
            <button type="button" className="button small" onClick={onClose}>
              Close
            </button>
          )}
        </span>
      </div>
      <progress max={Math.max(1, bulk.matched)} value={bulk.handled} aria-label="Runs that were told" />
      {bulk.error !== null && <p className="fault">{bulk.error}</p>}
      {bulk.refused.length > 0 && (
        <ul className="short">
          {bulk.refused.map(refused => (
            <li key={refused.code}>
              {refused.count.toLocaleString('en')} refused: <code>{refused.code}</code>{' '}
              {bulk.examples
                .filter(example => example.code === refused.code)
                .slice(0, 3)
                .map(example => (
                  <Link key={example.run_id} className="mono" href={`/runs/${example.run_id}`} title={example.message}>
                    …{example.run_id.slice(-6)}{' '}
                  </Link>
                ))}
            </li>
          ))}
        </ul>
      )}
    </section>
  )
}
