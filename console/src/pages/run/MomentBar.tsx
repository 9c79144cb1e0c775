import './past/past.css'

import { useEffect } from 'react'

import { duration } from '../../ui/time'
import { ProblemBox } from '../../ui/States'
import { useRun } from './data'
import { useMoment } from './moment'
import { GoTo } from './past/GoTo'
import { NAMES } from './past/marks'
import { useRows } from './past/rows'
import { clockTime, keyed, share } from './past/slider'
import { useMarks } from './past/useMarks'
import { useMover } from './past/useMover'

/** The slider over a run's events: which moment all parts of the page show. */
export function MomentBar({ runId }: { readonly runId: string }) {
  const [at, setAt] = useMoment()
  const rows = useRows(runId)
  const now = useRun(runId, null).data
  const mover = useMover(runId, rows)
  const { marks, ticks } = useMarks(runId, rows)
  const count = now?.event_count ?? 0
  useEffect(() => {
    if (count > 0 && rows.total !== null && count > rows.total) rows.grow()
  }, [rows, count])

  if (rows.error !== null && rows.total === null) return <ProblemBox error={rows.error} retry={() => rows.retry()} />
  const total = rows.total ?? 0
  const number = Math.min(mover.number ?? total, total)
  const [first, last] = [rows.row(0), rows.row(total - 1)]
  const event = number < total ? rows.row(number) : undefined
  const began = Date.parse(first?.time ?? now?.created_at ?? '')
  const isNow = number >= total
  const told = isNow
    ? `now, after all ${total.toLocaleString('en')} events`
    : number < 0
      ? 'before the first event'
      : `event ${(number + 1).toLocaleString('en')} of ${total.toLocaleString('en')}` +
        (event === undefined ? '' : `, ${clockTime(event.time)}, ${event.type}`)
  const here = event?.position ?? (isNow ? Number.POSITIVE_INFINITY : 0)
  const before = marks.findLast(mark => mark.position < here)
  const after = marks.find(mark => mark.position > here)
  return (
    <section className="moment" aria-label="Moment that is shown">
      <div className="moment-bar">
        <button
          type="button"
          className="button small"
          aria-label="Previous event"
          title="Previous event"
          disabled={total === 0 || number <= 0}
          onClick={() => mover.move(Math.max(0, number - 1))}
        >
          ‹
        </button>
        <div className="moment-track">
          <div className="moment-ticks" aria-hidden="true">
            {ticks.map(tick => (
              <i key={tick.at} className={tick.mark} title={NAMES[tick.mark]} style={{ left: `${tick.at * 100}%` }} />
            ))}
            <b style={{ width: `${share(number, total + 1) * 100}%` }} />
          </div>
          <input
            type="range"
            aria-label="Position"
            aria-valuetext={told}
            min={0}
            max={Math.max(1, total)}
            step={1}
            value={Math.max(0, number)}
            disabled={total === 0}
            onChange={change => mover.move(Number(change.target.value))}
            onKeyDown={press => {
              if (press.altKey || press.ctrlKey || press.metaKey) return
              const next = keyed(press.key, Math.max(0, number), total)
              if (next === null) return
              press.preventDefault()
              mover.move(next)
            }}
          />
        </div>
        <button
          type="button"
          className="button small"
          aria-label="Next event"
          title="Next event"
          disabled={isNow}
          onClick={() => mover.move(number + 1)}
        >
          ›
        </button>
      </div>
      <div className="moment-line">
        <span className="soft mono" title={first?.time}>
          {first === undefined ? '' : clockTime(first.time)}
        </span>
        <span
          className="moment-told"
          data-testid="shown-position"
          data-position={mover.settled ? (event ?? last)?.position : undefined}
        >
          {isNow ? (
            <>
              <strong>Now</strong> <span className="soft">{total.toLocaleString('en')} events</span>
            </>
          ) : (
            <>
              <strong>
                {number < 0 ? 'Before the first event' : `Event ${(number + 1).toLocaleString('en')}`}
                {number >= 0 && <span className="soft"> of {total.toLocaleString('en')}</span>}
              </strong>
              {event !== undefined && (
                <>
                  <span className="mono"> {event.type}</span>
                  <span className="soft"> {duration(Math.max(0, Date.parse(event.time) - began))} after the start</span>
                </>
              )}
            </>
          )}
        </span>
        <span className="row moment-jumps">
          <button
            type="button"
            className="button small"
            disabled={before === undefined}
            title={before === undefined ? 'Nothing is marked before' : `To the ${NAMES[before.mark]} before`}
            onClick={() => before !== undefined && setAt(String(before.position))}
          >
            ‹ mark
          </button>
          <button
            type="button"
            className="button small"
            disabled={after === undefined}
            title={after === undefined ? 'Nothing is marked after' : `To the next ${NAMES[after.mark]}`}
            onClick={() => after !== undefined && setAt(String(after.position))}
          >
            mark ›
          </button>
          <GoTo began={began} total={total} onNumber={mover.move} onMoment={setAt} />
        </span>
        <span className="soft mono" title={last?.time}>
          {last === undefined ? '' : clockTime(last.time)}
        </span>
      </div>
      {at !== null && (
        <div className="notice warn spread" role="note" aria-label="The past">
          <span>
            You see the run as it was{' '}
            {event === undefined ? (
              <>at {at}</>
            ) : (
              <>
                at {clockTime(event.time)} (position {event.position})
              </>
            )}
            .
          </span>
          <button type="button" className="button main" onClick={() => setAt(null)}>
            Back to now
          </button>
        </div>
      )}
    </section>
  )
}
