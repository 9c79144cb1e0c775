import { useEffect, useMemo, useState } from 'react'
import { useQueryClient } from '@tanstack/react-query'
import { Link } from 'wouter'

import { api, dataOf } from '../../../api/client'
import { type Page, usePages } from '../../../api/pages'
import type { CloudEvent, Run } from '../../../api/types'
import { Json } from '../../../ui/Json'
import { ProblemBox } from '../../../ui/States'
import { asOf } from '../moment'
import { clockTime } from '../past/slider'
import { historiesOf, type SharedValue } from './shared'

const TYPES = 'context.value_set,context.value_taken_over'

/** The values that the agents of a run share, and what each was before. */
export function SharedValues({ run, at }: { readonly run: Run; readonly at: string | null }) {
  const client = useQueryClient()
  const key = useMemo(
    () => (at === null ? ['shared', run.run_id] : ['run', run.run_id, 'shared', at]),
    [run.run_id, at],
  )
  const changes = usePages<CloudEvent>(key, async (cursor, signal) => {
    const query = { root_id: run.run_id, types: TYPES, newest_first: true, limit: 100, ...asOf(at), ...cursor }
    // A page, as nobody asked for a stream.
    return dataOf(await api.GET('/v1/events', { params: { query }, signal })) as Page<CloudEvent>
  })
  const pages = changes.data?.pages.length ?? 0
  const { event_count: events } = run
  useEffect(() => {
    if (at === null && pages <= 1) void client.invalidateQueries({ queryKey: key })
    // Once for each change of the run.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [client, key, at, events])
  const { rows } = changes
  const steps = useMemo(() => new Map(run.steps.map(step => [step.agent_run_id, step.key])), [run.steps])
  const values = useMemo(() => historiesOf(rows, steps), [rows, steps])
  if (changes.isError) return <ProblemBox error={changes.error} retry={() => void changes.refetch()} />
  if (values.length === 0) return null
  return (
    <section className="stack" aria-label="Shared values">
      <h2>Shared values</h2>
      <div className="panel shared">
        {values.map(value => (
          <Value key={value.name} value={value} runId={run.run_id} />
        ))}
      </div>
      {changes.hasNextPage && (
        <button
          type="button"
          className="button small"
          disabled={changes.isFetchingNextPage}
          onClick={() => void changes.fetchNextPage()}
        >
          Older values
        </button>
      )}
    </section>
  )
}

function Value({ value, runId }: { readonly value: SharedValue; readonly runId: string }) {
  const [open, setOpen] = useState(false)
  const [now] = value.history
  if (now === undefined) return null
  return (
    <div className="stack" data-testid="shared-value">
      <div className="row">
        <button
          type="button"
          className="button small plain"
          aria-expanded={open}
          aria-label={`History of ${value.name}`}
          onClick={() => setOpen(!open)}
        >
          {open ? '▾' : '▸'}
        </button>
        <strong className="mono">{value.name}</strong>
        <span className="soft">
          version {now.version} by {now.by}
        </span>
        {!open && <span className="mono shared-gist">{now.gist}</span>}
      </div>
      {open && (
        <ol className="shared-history">
          {value.history.map((change, place) => (
            <li key={change.position}>
              <div className="row">
                <strong>version {change.version}</strong>
                <span className="soft">
                  {clockTime(change.time)} by {change.by}
                </span>
                <Link href={`/runs/${runId}/events?event=${change.position}`}>event {change.position}</Link>
              </div>
              {place === 0 ? (
                <Json of={change.value} what={`value of ${value.name}`} />
              ) : (
                <div className="mono">{change.gist}</div>
              )}
            </li>
          ))}
        </ol>
      )}
    </div>
  )
}
