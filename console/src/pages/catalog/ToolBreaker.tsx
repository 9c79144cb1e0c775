import { useQuery, useQueryClient } from '@tanstack/react-query'

import { api, dataOf } from '../../api/client'
import type { components } from '../../api/schema'
import { useRefusal } from '../../app/roles'
import { Act } from '../../ui/Act'
import { Loading, ProblemBox } from '../../ui/States'
import { Status } from '../../ui/Status'
import { Time } from '../../ui/Time'
import { policyOf } from './policy'

type State = 'open' | 'closed' | 'auto'

const WHAT: Readonly<Record<State, { name: string; what: string }>> = {
  open: { name: 'Hold open', what: 'Nobody calls the tool until a person says otherwise. Calls under way go on.' },
  closed: { name: 'Hold closed', what: 'Calls go on, however they end, until a person says otherwise.' },
  auto: { name: 'Let it follow', what: 'It follows the outcomes of calls again.' },
}

/** The buttons with which a person holds a breaker, or lets it go. */
export function BreakerActs({ tool, forced }: { readonly tool: string; readonly forced: string | null }) {
  const client = useQueryClient()
  const refused = useRefusal('breakers.force')
  const states: readonly State[] =
    forced === null ? ['open', 'closed'] : ['auto', forced === 'open' ? 'closed' : 'open']
  return (
    <span className="row">
      {states.map(state => (
        <Act
          key={state}
          name={WHAT[state].name}
          what={
            <>
              <b className="mono">{tool}</b>: {WHAT[state].what}
            </>
          }
          tone={state === 'open' ? 'danger' : ''}
          needsReason
          refused={refused}
          act={reason =>
            api.POST('/v1/tools/{name}/breaker', { params: { path: { name: tool } }, body: { state, reason } })
          }
          onDone={() => {
            void client.invalidateQueries({ queryKey: ['breakers'] })
            void client.invalidateQueries({ queryKey: ['tool', tool] })
          }}
        />
      ))}
    </span>
  )
}

/** The breaker of a tool: its state, why, and what became of it before. */
export function ToolBreaker({ name }: { readonly name: string }) {
  const breaker = useQuery({
    queryKey: ['tool', name, 'breaker'],
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/tools/{name}/breaker', { params: { path: { name } }, signal })),
  })
  if (breaker.isPending) return <Loading what="the breaker" />
  if (breaker.isError) return <ProblemBox error={breaker.error} retry={() => void breaker.refetch()} />
  const { data } = breaker
  const [, declared] = policyOf({ breaker: data.policy }).find(([what]) => what === 'Breaker') ?? []
  return (
    <>
      <section className="panel stack" aria-label="Breaker">
        <div className="spread">
          <h2 className="row">
            Breaker <Status of={data.state} />
          </h2>
          <BreakerActs tool={name} forced={data.forced} />
        </div>
        <dl className="facts">
          <dt>Since</dt>
          <dd>{data.since === null ? 'always, as far as is known' : <Time of={data.since} />}</dd>
          <dt>Declared</dt>
          <dd>{declared ?? 'nothing: only a person opens it'}</dd>
          {data.forced !== null && (
            <>
              <dt>Held {data.forced}</dt>
              <dd>
                by <span className="mono">{data.on_behalf_of ?? data.by}</span>
                {data.reason !== null && <>: {data.reason}</>}
              </dd>
            </>
          )}
          {data.because !== null && (
            <>
              <dt>Opened by</dt>
              <dd>
                {data.because.replaceAll('_', ' ')}
                {data.failures !== null && ` (${data.failures} of ${data.calls ?? data.failures} calls failed)`}
              </dd>
            </>
          )}
          {data.error !== null && (
            <>
              <dt>Last failure</dt>
              <dd>
                <pre>{data.error}</pre>
              </dd>
            </>
          )}
          {data.tried_at !== null && (
            <>
              <dt>Tried again</dt>
              <dd>
                <Time of={data.tried_at} />
              </dd>
            </>
          )}
          {data.counts !== null && (
            <>
              <dt>Counted</dt>
              <dd>
                {data.counts.failures} of {data.counts.calls} calls failed, {data.counts.in_a_row} in a row
              </dd>
            </>
          )}
        </dl>
      </section>
      <History name={name} />
    </>
  )
}

const TYPES = ['breaker.opened', 'breaker.half_opened', 'breaker.closed', 'breaker.forced']
const SAID: Readonly<Record<string, string>> = {
  'breaker.opened': 'open',
  'breaker.half_opened': 'half_open',
  'breaker.closed': 'closed',
}

/** Changes of a breaker are few: those of this tool are looked for among the newest of all. */
function History({ name }: { readonly name: string }) {
  const history = useQuery({
    queryKey: ['tool', name, 'breaker', 'history'],
    queryFn: async ({ signal }) => {
      const query = { newest_first: true, limit: 500, types: TYPES.join(',') }
      const { data } = await api.GET('/v1/events', { params: { query }, signal })
      const page = data as unknown as { data: readonly components['schemas']['CloudEvent'][] }
      return page.data.filter(event => (event.data as { tool?: unknown } | undefined)?.tool === name).slice(0, 50)
    },
  })
  return (
    <section className="panel stack" aria-label="What became of it">
      <h2>What became of it</h2>
      {history.isPending && <Loading what="its changes" />}
      {history.isError && <ProblemBox error={history.error} retry={() => void history.refetch()} />}
      {history.isSuccess && history.data.length === 0 && <p className="soft">It has never changed.</p>}
      {history.isSuccess && history.data.length > 0 && (
        <ul className="plain-list" data-testid="breaker-history">
          {history.data.map(event => {
            const data = (event.data ?? {}) as Readonly<Record<string, unknown>>
            const text = (field: string) => (typeof data[field] === 'string' ? data[field] : '')
            return (
              <li key={event.position} className="row">
                <Time of={event.time} />
                <Status of={SAID[event.type] ?? text('state')} />
                <span>
                  {event.type === 'breaker.forced' ? 'by hand' : text('because').replaceAll('_', ' ')}
                  {text('reason') !== '' && `: ${text('reason')}`}
                </span>
                {text('error') !== '' && <span className="soft clamped">{text('error')}</span>}
              </li>
            )
          })}
        </ul>
      )}
    </section>
  )
}
