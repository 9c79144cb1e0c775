import { useState } from 'react'
import { Link } from 'wouter'

import { api, dataOf } from '../../api/client'
import { largeOf } from '../../api/large'
import { usePages } from '../../api/pages'
import type { JournalEntry, Run } from '../../api/types'
import { Empty, Loading, ProblemBox } from '../../ui/States'
import { Time } from '../../ui/Time'
import { Value } from '../../ui/Value'
import { type Column, VirtualTable } from '../../ui/VirtualTable'
import { partHref, useParam } from './address'
import { Fault } from './Fault'
import { asOf } from './moment'
import { NewRows } from './NewRows'
import type { PartProps } from './RunPage'

const PAGE = 500

const COLUMNS: readonly Column<JournalEntry>[] = [
  { key: 'position', name: 'Position', track: '5rem', number: true, cell: entry => entry.position },
  { key: 'at', name: 'At', track: '7.5rem', wide: true, cell: entry => <Time of={entry.at} /> },
  { key: 'step', name: 'Step', track: 'minmax(6rem, 1fr)', cell: entry => entry.step },
  { key: 'kind', name: 'Kind', track: '7rem', wide: true, cell: entry => entry.kind.replaceAll('_', ' ') },
  { key: 'key', name: 'Key', track: 'minmax(8rem, 1.4fr)', cell: entry => <span className="mono">{entry.key}</span> },
  {
    key: 'what',
    name: 'What',
    track: 'minmax(10rem, 2fr)',
    wide: true,
    cell: entry => <span className="mono soft">{gist(entry)}</span>,
  },
]

/** What the agents of the run have finished or begun, so that their next attempts do not repeat it. */
export function Journal({ run, at }: PartProps) {
  const [of, setOf] = useParam('of')
  return (
    <>
      <div className="row">
        <label className="row">
          Step
          <select className="input" value={of ?? ''} onChange={event => setOf(event.target.value || null)}>
            <option value="">all</option>
            {run.steps.map(step => (
              <option key={step.key} value={step.key}>
                {step.key}
              </option>
            ))}
          </select>
        </label>
        <span className="soft">What agents have recorded: a next attempt does not do it again.</span>
      </div>
      <JournalTable run={run} at={at} of={of} />
    </>
  )
}

interface Props {
  readonly run: Run
  readonly at: string | null
  /** Only entries of this step. */
  readonly of: string | null
}

export function JournalTable({ run, at, of }: Props) {
  const [chosen, choose] = useState<number | null>(null)
  const found = usePages(['run', run.run_id, 'journal', at], async (cursor, signal) =>
    dataOf(
      await api.GET('/v1/runs/{run_id}/journal', {
        params: { path: { run_id: run.run_id }, query: { limit: PAGE, ...cursor, ...asOf(at) } },
        signal,
      }),
    ),
  )
  if (found.isPending) return <Loading what="the journal" />
  if (found.isError) return <ProblemBox error={found.error} retry={() => void found.refetch()} />
  const rows = of === null ? found.rows : found.rows.filter(entry => entry.step === of)
  const entry = rows.find(each => each.position === chosen)
  const more = found.hasNextPage && !found.isFetchingNextPage ? () => void found.fetchNextPage() : undefined
  return (
    <div className="stack">
      <NewRows query={found} run={run} at={at} />
      {entry !== undefined && <EntryDetails run={run} entry={entry} at={at} onClose={() => choose(null)} />}
      {rows.length === 0 ? (
        <Empty>{found.hasNextPage ? 'None among those that are loaded.' : 'Nothing was recorded.'}</Empty>
      ) : (
        <VirtualTable
          label="Journal"
          rows={rows}
          columns={COLUMNS}
          rowKey={each => String(each.position)}
          testId="journal-row"
          data={each => ({ 'data-position': each.position, 'data-kind': each.kind })}
          opened={chosen === null ? null : String(chosen)}
          onOpen={each => choose(each.position === chosen ? null : each.position)}
          onEnd={more}
        />
      )}
      {found.hasNextPage && (
        <div>
          <button type="button" className="button" disabled={found.isFetchingNextPage} onClick={more}>
            Load more entries
          </button>
        </div>
      )}
    </div>
  )
}

/** What an entry says, in a line. */
export function gist(entry: JournalEntry): string {
  if (entry.error != null) return `${entry.error.type}: ${entry.error.message}`.slice(0, 300)
  if (entry.kind === 'call') return entry.tool ?? ''
  if (entry.kind === 'call_finished') return entry.succeeded ? 'succeeded' : 'failed'
  if (largeOf(entry, 'result') !== null) return '(a large value)'
  if (entry.name != null) return entry.name
  return entry.result === null || entry.result === undefined ? '' : JSON.stringify(entry.result).slice(0, 300)
}

function EntryDetails({
  run,
  entry,
  at,
  onClose,
}: {
  run: Run
  entry: JournalEntry
  at: string | null
  onClose: () => void
}) {
  return (
    <section className="panel stack" aria-label={`Entry ${entry.key}`}>
      <div className="spread">
        <h2 className="mono">{entry.key}</h2>
        <button type="button" className="button small" onClick={onClose}>
          Close the entry
        </button>
      </div>
      <div className="row soft">
        <span>{entry.kind.replaceAll('_', ' ')}</span>
        {entry.attempt != null && <span>attempt {entry.attempt}</span>}
        {entry.taken_over && <span className="tag">taken over</span>}
        {entry.invocation_id != null && (
          <Link href={partHref(run.run_id, 'calls', at, { call: entry.invocation_id })}>Look at the call</Link>
        )}
      </div>
      <Fault of={entry} open />
      {entry.invocation_id == null && <Value of={entry} field="result" what="recorded value" />}
    </section>
  )
}
