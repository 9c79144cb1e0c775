import './compare.css'

import { Link } from 'wouter'

import type { Run } from '../../../api/types'
import { Id } from '../../../ui/Copy'
import { Empty, Loading, ProblemBox } from '../../../ui/States'
import { Status } from '../../../ui/Status'
import { useRun } from '../data'
import type { PartProps } from '../RunPage'
import { Choice } from './Choice'
import { Differences } from './Differences'
import { SideBySide } from './SideBySide'
import { StateChanges } from './StateChanges'
import { type Other, useDiff, useOther, useSuggestions } from './useComparison'

/** Two moments of a run, or two runs, side by side. */
export function CompareTab({ run, at }: PartProps) {
  const [other, setOther] = useOther(run.run_id)
  const suggestions = useSuggestions(run)
  return (
    <div className="stack">
      <Choice key={JSON.stringify(other)} run={run} other={other} suggestions={suggestions} onChoose={setOther} />
      {other === null ? (
        <Empty>Choose what to compare with: another run, or this one at another moment.</Empty>
      ) : (
        <Compared run={run} at={at} other={other} />
      )}
    </div>
  )
}

function Compared({ run, at, other }: { readonly run: Run; readonly at: string | null; readonly other: Other }) {
  const second = useRun(other.run, other.at)
  const diff = useDiff(run.run_id, at, other)
  if (second.isError) return <ProblemBox error={second.error} retry={() => void second.refetch()} />
  if (diff.isError) return <ProblemBox error={diff.error} retry={() => void diff.refetch()} />
  if (second.isPending || diff.isPending) return <Loading what="the comparison" />
  const { data } = diff
  return (
    <>
      <div className="compare-heads">
        <Head name="This side" run={run} at={at} />
        <Head name="Other side" run={second.data} at={other.at} />
      </div>
      <p className="compare-sum" role="status">
        {data.count === 0 && data.state.length === 0 ? (
          <strong>Nothing differs.</strong>
        ) : (
          <strong>
            {data.count.toLocaleString('en')} {data.count === 1 ? 'thing differs' : 'things differ'}
          </strong>
        )}
        <span className="soft"> · {data.same.toLocaleString('en')} said alike</span>
      </p>
      {data.count > 0 && <Differences diff={data} />}
      <SideBySide one={run} other={second.data} first={data.first} />
      {data.state.length > 0 && <StateChanges changes={data.state} />}
    </>
  )
}

function Head({ name, run, at }: { readonly name: string; readonly run: Run; readonly at: string | null }) {
  return (
    <div className="panel row">
      <strong>{name}</strong>
      <Id of={run.run_id} what="run id" />
      <Status of={run.status} />
      <span className="soft">
        {at === null ? 'now' : `at ${at}`} · {run.event_count.toLocaleString('en')} events
      </span>
      <Link href={`/runs/${run.run_id}${at === null ? '' : `?at=${encodeURIComponent(at)}`}`}>Open</Link>
    </div>
  )
}
