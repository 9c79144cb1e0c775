import { useState } from 'react'
import { Link } from 'wouter'

import { api, dataOf } from '../../../api/client'
import { usePages } from '../../../api/pages'
import { largeOf } from '../../../api/large'
import type { Part } from '../../../api/types'
import { Loading, ProblemBox } from '../../../ui/States'
import { Status } from '../../../ui/Status'
import { Took } from '../../../ui/Time'
import { Value } from '../../../ui/Value'
import { type Column, VirtualTable } from '../../../ui/VirtualTable'
import { partHref } from '../address'
import { Fault } from '../Fault'
import { asOf } from '../moment'
import type { StepProps } from './StepPanel'

const PAGE = 200

const COLUMNS: readonly Column<Part>[] = [
  { key: 'part', name: 'Part', track: '4rem', cell: part => part.number },
  { key: 'status', name: 'Status', track: '7.5rem', cell: part => <Status of={part.status} /> },
  {
    key: 'agent',
    name: 'Agent',
    track: 'minmax(7rem, 1fr)',
    cell: part => (
      <>
        {part.run_id == null ? (
          part.agent
        ) : (
          <Link href={partHref(part.run_id, 'overview', null)}>run …{part.run_id.slice(-6)}</Link>
        )}
        {part.attempt > 1 && ` (attempt ${part.attempt})`}
      </>
    ),
  },
  {
    key: 'took',
    name: 'Took',
    track: '6rem',
    cell: part => <Took from={part.started_at ?? part.scheduled_at} to={part.finished_at} />,
  },
  {
    key: 'what',
    name: 'What',
    track: 'minmax(10rem, 3fr)',
    wide: true,
    cell: part => <span className="mono soft">{gist(part)}</span>,
  },
]

/** The items of a list, the times of a loop, the agents of an adaptive step, a child run. */
export function Parts({ run, step, at }: StepProps) {
  const [chosen, choose] = useState<number | null>(null)
  const parts = usePages(['run', run.run_id, 'parts', step.key, at], async (cursor, signal) =>
    dataOf(
      await api.GET('/v1/runs/{run_id}/steps/{step}/parts', {
        params: { path: { run_id: run.run_id, step: step.key }, query: { limit: PAGE, ...cursor, ...asOf(at) } },
        signal,
      }),
    ),
  )
  if (parts.isPending) return <Loading what="the parts" />
  if (parts.isError) return <ProblemBox error={parts.error} retry={() => void parts.refetch()} />
  const part = parts.rows.find(each => each.number === chosen)
  return (
    <div className="stack">
      {part !== undefined && <PartDetails part={part} onClose={() => choose(null)} />}
      <VirtualTable
        label={`Parts of ${step.key}`}
        rows={parts.rows}
        columns={COLUMNS}
        rowKey={each => String(each.number)}
        testId="part-row"
        data={each => ({ 'data-part': each.number, 'data-status': each.status })}
        opened={chosen === null ? null : String(chosen)}
        onOpen={each => choose(each.number === chosen ? null : each.number)}
        total={step.parts?.started ?? parts.rows.length}
        onEnd={parts.hasNextPage && !parts.isFetchingNextPage ? () => void parts.fetchNextPage() : undefined}
      />
    </div>
  )
}

function gist(part: Part): string {
  if (part.error != null) return `${part.error.type}: ${part.error.message}`.slice(0, 300)
  if (largeOf(part, 'result') !== null) return '(a large result)'
  return (JSON.stringify(part.result ?? part.input ?? null) as string | undefined)?.slice(0, 300) ?? ''
}

function PartDetails({ part, onClose }: { readonly part: Part; readonly onClose: () => void }) {
  return (
    <section className="panel stack" aria-label={`Part ${part.number}`}>
      <div className="spread">
        <h3 className="row">
          Part {part.number} <Status of={part.status} />
        </h3>
        <button type="button" className="button small" onClick={onClose}>
          Close the part
        </button>
      </div>
      <Fault of={part} open />
      {part.person != null && (
        <p>
          A person said how it ended: {part.person.by}
          {part.person.reason ? ` – ${part.person.reason}` : ''}
        </p>
      )}
      <div className="values">
        <div className="stack">
          <h4>Input</h4>
          <Value of={part} field="input" what="input of the part" />
        </div>
        {part.status === 'completed' && (
          <div className="stack">
            <h4>Result</h4>
            <Value of={part} field="result" what="result of the part" />
          </div>
        )}
      </div>
    </section>
  )
}
