import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useId, useState } from 'react'
import { Link } from 'wouter'

import { api, dataOf } from '../../api/client'
import type { RunSummary } from '../../api/types'
import { Act } from '../../ui/Act'
import { SchemaForm, useSchemaForm } from '../../ui/SchemaForm'
import { Loading, ProblemBox } from '../../ui/States'
import { actOn, actOnEach, bulkBody, type Options, type Outcome, type Priority, type Verb } from './acts'
import { BulkProgress } from './BulkProgress'
import { type Filters, notOfBulk, toBulk } from './filters'

interface Props {
  readonly filters: Filters
  readonly rows: readonly RunSummary[]
  readonly picked: ReadonlySet<string>
  readonly onPicked: (picked: ReadonlySet<string>) => void
  readonly onDone: () => void
}

const VERBS: readonly { verb: Verb; name: string; what: string; tone?: 'danger' }[] = [
  { verb: 'pause', name: 'Pause', what: 'Nothing begins in them until they are resumed.' },
  { verb: 'resume', name: 'Resume', what: 'They go on where they were.' },
  { verb: 'retry', name: 'Retry', what: 'What failed in them runs again. Finished steps keep their results.' },
  { verb: 'signal', name: 'Signal', what: 'Their agents get a signal.' },
  { verb: 'priority', name: 'Priority', what: 'What they dispatch from now on has the priority.' },
  { verb: 'cancel', name: 'Cancel', what: 'They end. What their agents have begun is told to stop.', tone: 'danger' },
]

/** Acts on several runs: on those that are picked, or on all that match the filters. */
export function Many({ filters, rows, picked, onPicked, onDone }: Props) {
  const [all, setAll] = useState(false)
  const [outcome, setOutcome] = useState<Outcome | null>(null)
  const [bulk, setBulk] = useState<string | null>(null)
  const unknown = notOfBulk(filters)
  const shown = rows.filter(run => picked.has(run.run_id))
  const meant = all || picked.size > 0
  const none = () => {
    setAll(false)
    onPicked(new Set())
  }
  return (
    <>
      <div className="row many-runs">
        <button
          type="button"
          className="button small"
          disabled={rows.length === 0}
          onClick={() => {
            setAll(false)
            onPicked(new Set(rows.map(run => run.run_id)))
          }}
        >
          Pick all shown
        </button>
        <button
          type="button"
          className="button small"
          aria-pressed={all}
          disabled={rows.length === 0 || unknown.length > 0}
          title={unknown.length > 0 ? `Not with the filter ${unknown.join(', ')}` : undefined}
          onClick={() => setAll(!all)}
        >
          All that match
        </button>
        {meant && (
          <>
            <strong role="status">
              {all
                ? 'All that match'
                : `${picked.size} picked${shown.length < picked.size ? `, ${shown.length} shown` : ''}`}
            </strong>
            {VERBS.map(one => (
              <OneVerb
                key={one.verb}
                {...one}
                filters={all ? filters : null}
                runIds={[...picked]}
                onOutcome={found => {
                  setOutcome(found)
                  onPicked(new Set(found.refused.map(refused => refused.runId)))
                  onDone()
                }}
                onBulk={id => {
                  setBulk(id)
                  none()
                }}
              />
            ))}
            <button type="button" className="button plain small" onClick={none}>
              Pick none
            </button>
          </>
        )}
      </div>
      {outcome !== null && <Told outcome={outcome} onClose={() => setOutcome(null)} />}
      {bulk !== null && <BulkProgress key={bulk} id={bulk} onClose={() => setBulk(null)} />}
    </>
  )
}

function Told({ outcome, onClose }: { readonly outcome: Outcome; readonly onClose: () => void }) {
  return (
    <div className={`notice ${outcome.refused.length > 0 ? 'bad' : 'good'}`} role="status">
      <div className="spread">
        <span>
          {outcome.done} {outcome.done === 1 ? 'run was' : 'runs were'} told
          {outcome.refused.length > 0 && `; ${outcome.refused.length} refused, and are still picked`}.
        </span>
        <button type="button" className="button small" onClick={onClose}>
          Close
        </button>
      </div>
      <ul className="short">
        {outcome.refused.slice(0, 10).map(({ runId, why }) => (
          <li key={runId}>
            <Link className="mono" href={`/runs/${runId}`}>
              {runId}
            </Link>
            : {why}
          </li>
        ))}
      </ul>
    </div>
  )
}

interface VerbProps {
  readonly verb: Verb
  readonly name: string
  readonly what: string
  readonly tone?: 'danger'
  /** Null: the picked runs are meant. */
  readonly filters: Filters | null
  readonly runIds: readonly string[]
  readonly onOutcome: (outcome: Outcome) => void
  readonly onBulk: (id: string) => void
}

function OneVerb({ verb, name, what, tone, filters, runIds, onOutcome, onBulk }: VerbProps) {
  const client = useQueryClient()
  const id = useId()
  const [fresh, setFresh] = useState(false)
  const [priority, setPriority] = useState<Priority>('high')
  const [signal, setSignal] = useState('')
  const payload = useSchemaForm(null)
  const act = async (reason: string) => {
    const options: Options = {
      reason,
      fresh,
      priority,
      signal: { name: signal.trim(), payload: payload.value ?? null },
    }
    if (filters === null) {
      onOutcome(await actOnEach(runIds, runId => actOn(verb, runId, options)))
    } else {
      const body = bulkBody(verb, toBulk(filters, Date.now()), options)
      const started = dataOf(await api.POST('/v1/bulk-actions', { body }))
      if ('id' in started) onBulk(started.id)
    }
    await client.invalidateQueries({ queryKey: ['runs', 'counts'] })
  }
  return (
    <Act
      name={name}
      what={
        <>
          <p>
            {filters === null ? (
              `${runIds.length} ${runIds.length === 1 ? 'run' : 'runs'}: `
            ) : (
              <strong>All runs that match the filters, and were started before: </strong>
            )}
            {what}
          </p>
          {filters !== null && <DryRun verb={verb} filters={filters} />}
        </>
      }
      tone={tone ?? ''}
      needsReason={filters !== null || verb === 'retry'}
      valid={verb !== 'signal' || (signal.trim() !== '' && payload.valid)}
      act={act}
    >
      {verb === 'retry' && (
        <label className="row">
          <input type="checkbox" checked={fresh} onChange={event => setFresh(event.target.checked)} />
          From the beginning: what failed forgets what it had recorded
        </label>
      )}
      {verb === 'priority' && (
        <div className="field">
          <label htmlFor={`${id}-priority`}>Priority</label>
          <select
            id={`${id}-priority`}
            className="input"
            value={priority}
            onChange={event => setPriority(event.target.value as Priority)}
          >
            <option value="high">high</option>
            <option value="normal">normal</option>
            <option value="low">low</option>
          </select>
        </div>
      )}
      {verb === 'signal' && (
        <>
          <div className="field">
            <label htmlFor={`${id}-signal`}>Name of the signal</label>
            <input
              id={`${id}-signal`}
              className="input"
              maxLength={500}
              autoComplete="off"
              value={signal}
              onChange={event => setSignal(event.target.value)}
            />
          </div>
          <SchemaForm form={payload} name="Payload" />
        </>
      )}
    </Act>
  )
}

/** How many runs a bulk action would be about, counted when its dialog is opened. */
function DryRun({ verb, filters }: { readonly verb: Verb; readonly filters: Filters }) {
  const counted = useQuery({
    queryKey: ['bulk', 'dry run', verb, filters],
    gcTime: 0,
    queryFn: async ({ signal }) => {
      const body = bulkBody(verb, toBulk(filters, Date.now()), null)
      const found = dataOf(await api.POST('/v1/bulk-actions', { body, signal }))
      return 'matched' in found ? found : null
    },
  })
  if (counted.isPending) return <Loading what="how many runs are meant" />
  if (counted.isError) return <ProblemBox error={counted.error} retry={() => void counted.refetch()} />
  if (counted.data === null) return null
  const { matched, complete } = counted.data
  return (
    <p className="notice warn" role="status">
      The command goes to {complete ? '' : 'at least '}
      <strong>
        {matched.toLocaleString('en')} {matched === 1 ? 'run' : 'runs'}
      </strong>
      .
    </p>
  )
}
