import { api, dataOf } from '../../api/client'
import { usePages } from '../../api/pages'
import { Empty, Loading, ProblemBox } from '../../ui/States'
import { useParam } from './address'
import { CallDetails } from './CallDetails'
import { CallRows } from './CallRows'
import { asOf } from './moment'
import { NewRows } from './NewRows'
import type { PartProps } from './RunPage'

const PAGE = 500

/** The calls of a run, page by page. */
export function useCalls(runId: string, at: string | null) {
  return usePages(['run', runId, 'calls', at], async (cursor, signal) =>
    dataOf(
      await api.GET('/v1/runs/{run_id}/calls', {
        params: { path: { run_id: runId }, query: { limit: PAGE, ...cursor, ...asOf(at) } },
        signal,
      }),
    ),
  )
}

/** All tool calls of a run, in the order of their start. */
export function Calls({ run, at }: PartProps) {
  const [chosen, choose] = useParam('call')
  const [of, setOf] = useParam('of')
  const calls = useCalls(run.run_id, at)
  if (calls.isPending) return <Loading what="the calls" />
  if (calls.isError) return <ProblemBox error={calls.error} retry={() => void calls.refetch()} />
  const rows = of === null ? calls.rows : calls.rows.filter(call => call.step === of)
  const step = calls.rows.find(call => call.invocation_id === chosen)?.step
  const more = calls.hasNextPage && !calls.isFetchingNextPage ? () => void calls.fetchNextPage() : undefined
  return (
    <>
      <div className="row">
        <label className="row">
          Step
          <select className="input" value={of ?? ''} onChange={event => setOf(event.target.value || null)}>
            <option value="">all</option>
            {run.steps
              .filter(each => each.call_count > 0)
              .map(each => (
                <option key={each.key} value={each.key}>
                  {each.key} ({each.call_count})
                </option>
              ))}
          </select>
        </label>
        <span className="soft" role="status">
          {calls.rows.length.toLocaleString('en')} of {run.call_count.toLocaleString('en')} calls loaded
        </span>
        <NewRows query={calls} run={run} at={at} />
      </div>
      {chosen !== null && <CallDetails run={run} id={chosen} step={step} at={at} onClose={() => choose(null)} />}
      {rows.length === 0 ? (
        <Empty>{calls.hasNextPage ? 'None among those that are loaded.' : 'The run has called no tools.'}</Empty>
      ) : (
        <CallRows calls={rows} chosen={chosen} onChoose={choose} onEnd={more} total={run.call_count} />
      )}
      {calls.hasNextPage && (
        <div>
          <button type="button" className="button" disabled={calls.isFetchingNextPage} onClick={more}>
            Load more calls
          </button>
        </div>
      )}
    </>
  )
}
