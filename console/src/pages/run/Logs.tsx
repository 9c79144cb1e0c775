import { type QueryClient, useQuery, useQueryClient } from '@tanstack/react-query'
import { useEffect } from 'react'

import { api, dataOf } from '../../api/client'
import type { LogLine, Run } from '../../api/types'
import { Empty, Loading, ProblemBox } from '../../ui/States'
import { useNarrow } from '../../ui/narrow'
import { VirtualRows } from '../../ui/VirtualRows'
import { useParam } from './address'
import { goesOn } from './data'
import type { PartProps } from './RunPage'

const COLUMNS = ['Time', 'Level', 'Step', 'Text']
const WIDE = '7rem 5rem minmax(6rem, 10rem) minmax(0, 1fr)'
/** The text has a line of its own. */
const NARROW = '6.5rem 4.5rem minmax(0, 1fr)'
const LEVELS = ['debug', 'info', 'warning', 'error', 'critical'] as const
type Level = (typeof LEVELS)[number]

/** Workers send lines in batches, a moment after the events of the work that wrote them: so long after the last event we look again. */
const BEHIND_MS = 1500

/** What the agents and tools of the run have logged and printed. */
export function Logs({ run, at }: PartProps) {
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
      </div>
      <LogTable run={run} at={at} step={of} />
    </>
  )
}

interface Props {
  readonly run: Run
  readonly at: string | null
  readonly step: string | null
}

interface Lines {
  readonly lines: readonly LogLine[]
  /** Lines of the run that were not kept, as the server tells at the end. */
  readonly dropped: LogLine | null
}

/** Reads the lines behind those that are here. A run has 10,000 at most. */
async function readOn(
  client: QueryClient,
  key: readonly unknown[],
  run: string,
  query: { level?: Level; step?: string },
  signal: AbortSignal,
): Promise<Lines> {
  const before = client.getQueryData<Lines>(key)
  const lines = [...(before?.lines ?? [])]
  let dropped = before?.dropped ?? null
  let cursor: string | null = null
  do {
    const after = lines.at(-1)?.line ?? 0
    const place: { cursor?: string; after?: number } = cursor === null ? { after } : { cursor }
    const page = dataOf(
      await api.GET('/v1/runs/{run_id}/logs', {
        params: { path: { run_id: run }, query: { limit: 1000, ...query, ...place } },
        signal,
      }),
    )
    for (const line of page.data) {
      if (line.line === null) dropped = line
      else lines.push(line)
    }
    cursor = page.next_cursor
  } while (cursor !== null)
  return { lines, dropped }
}

function useLines(run: Run, step: string | null, level: Level | null) {
  const client = useQueryClient()
  const key = ['run', run.run_id, 'logs', step, level]
  const query = { ...(step === null ? {} : { step }), ...(level === null ? {} : { level }) }
  const found = useQuery({ queryKey: key, queryFn: ({ signal }) => readOn(client, key, run.run_id, query, signal) })
  const { refetch } = found
  useEffect(() => {
    const timer = setTimeout(() => void refetch(), BEHIND_MS)
    return () => clearTimeout(timer)
  }, [run.event_count, run.status, refetch])
  return found
}

/** Lines of a run or of a step of it. New ones come with the run's events. */
export function LogTable({ run, at, step }: Props) {
  const narrow = useNarrow()
  const [level, setLevel] = useParam('level')
  const [text, setText] = useParam('text')
  const [still, setStill] = useParam('still')
  const known = LEVELS.find(each => each === level) ?? null
  const found = useLines(run, step, known)
  const wanted = (text ?? '').toLowerCase()
  // Lines are not part of the log of events: those of a moment are the ones that were written by then.
  const until = at === null ? null : Date.parse(run.updated_at)
  const rows = (found.data?.lines ?? []).filter(
    line =>
      (until === null || Date.parse(line.at) <= until) &&
      (wanted === '' || `${line.text} ${line.agent ?? ''} ${line.tool ?? ''}`.toLowerCase().includes(wanted)),
  )
  const follows = at === null && goesOn(run)
  return (
    <div className="stack">
      <div className="row">
        <label className="row">
          Level
          <select className="input" value={known ?? ''} onChange={event => setLevel(event.target.value || null)}>
            <option value="">all</option>
            {LEVELS.map(each => (
              <option key={each} value={each}>
                {each} and above
              </option>
            ))}
          </select>
        </label>
        <label className="row">
          Text
          <input
            className="input"
            type="search"
            value={text ?? ''}
            onChange={event => setText(event.target.value || null)}
          />
        </label>
        {follows && (
          <label className="row">
            <input type="checkbox" checked={still === null} onChange={() => setStill(still === null ? '1' : null)} />
            Follow
          </label>
        )}
        <button type="button" className="button small" onClick={() => void found.refetch()}>
          Look for new lines
        </button>
        {follows && <span className="soft">New lines come with the run’s events.</span>}
      </div>
      {found.isPending && <Loading what="the lines" />}
      {found.isError && <ProblemBox error={found.error} retry={() => void found.refetch()} />}
      {found.isSuccess && rows.length === 0 && (
        <Empty>
          Nothing was logged{known !== null || wanted !== '' ? ' that fits' : ''}. Lines are kept for 30 days.
        </Empty>
      )}
      {rows.length > 0 && (
        <VirtualRows
          rows={rows}
          keyOf={line => line.line ?? 'dropped'}
          label="Log lines"
          columns={COLUMNS}
          widths={narrow ? NARROW : WIDE}
          estimate={28}
          testId="log-row"
          stick={follows && still === null}
          render={line => (
            <>
              <div role="cell" className="mono soft" title={line.at}>
                {line.at.slice(11, 23)}
              </div>
              <div role="cell" className={`level ${line.level}`}>
                {line.level}
              </div>
              <div role="cell" className="soft clip" title={line.tool ?? line.agent ?? undefined}>
                {line.step ?? ''}
                {line.tool !== null && ` · ${line.tool}`}
                {(line.attempt ?? 1) > 1 && ` #${line.attempt ?? 0}`}
              </div>
              <div role="cell" className="mono log-text">
                {line.text}
              </div>
            </>
          )}
        />
      )}
      {found.data?.dropped != null && (
        <p className="soft">
          {found.data.dropped.dropped?.toLocaleString('en')} lines are missing: {found.data.dropped.text}
        </p>
      )}
    </div>
  )
}
