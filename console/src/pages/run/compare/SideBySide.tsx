import { useMemo } from 'react'

import type { Run, RunDifference } from '../../../api/types'
import { Status } from '../../../ui/Status'
import { between, duration } from '../../../ui/time'
import { type Column, VirtualTable } from '../../../ui/VirtualTable'
import { alignedRuns, type Pair, type Side } from './align'

const COLUMNS: readonly Column<Pair>[] = [
  {
    key: 'place',
    name: 'Step or call',
    track: 'minmax(8rem, 1.2fr)',
    cell: row => (
      <span className={row.call === null ? 'mono' : 'mono compare-call'} title={row.call ?? row.step}>
        {row.call ?? row.step}
      </span>
    ),
  },
  { key: 'one', name: 'This side', track: 'minmax(7rem, 2fr)', cell: row => <Told side={row.one} /> },
  { key: 'other', name: 'Other side', track: 'minmax(7rem, 2fr)', cell: row => <Told side={row.other} /> },
  {
    key: 'differs',
    name: 'Differs',
    track: 'minmax(6rem, 1fr)',
    wide: true,
    cell: row =>
      row.differs.length === 0 ? (
        <span className="soft">same</span>
      ) : (
        <span className="badge warn">{row.differs.join(', ')}</span>
      ),
  },
]

interface Props {
  readonly one: Run
  readonly other: Run
  readonly first: RunDifference | null
}

/** Steps and calls of both sides, row by row. */
export function SideBySide({ one, other, first }: Props) {
  const rows = useMemo(() => alignedRuns(one, other), [one, other])
  const step = first?.step ?? null
  const firstRow = rows.find(row => row.differs.length > 0 && (step === null || row.step === step))
  return (
    <section className="stack" aria-label="Steps and calls">
      <h2>Steps and calls</h2>
      <VirtualTable
        label="Steps and calls side by side"
        rows={rows}
        columns={COLUMNS}
        rowKey={row => row.id}
        testId="pair-row"
        data={row => ({ 'data-differs': row.differs.length > 0 ? 'yes' : 'no' })}
        opened={firstRow?.id ?? null}
      />
    </section>
  )
}

function Told({ side }: { readonly side: Side | null }) {
  if (side === null) return <span className="soft">–</span>
  return (
    <span title={side.said}>
      <Status of={side.status} />{' '}
      <span className="soft">
        {side.attempts > 1 && `${side.attempts} attempts · `}
        {side.started !== null && side.finished !== null && duration(between(side.started, side.finished))}
      </span>{' '}
      {side.said}
    </span>
  )
}
