import { useSession } from '../../../app/session'
import { isOver } from '../data'
import type { PartProps } from '../RunPage'
import { Compensate, GoOnCompensating } from './Compensate'
import { Fork } from './Fork'
import { refusal, type RunAct } from './refused'
import { Retry } from './Retry'
import { Cancel, Deadline, Pause, Priority, Resume, Signal } from './Steer'

/** What can be done to the run. What cannot is off, and says why. */
export function Actions({ run, at }: PartProps) {
  const { role } = useSession()
  const why = (act: RunAct) => refusal(act, run, { role, at })
  const all: readonly { readonly act: RunAct; readonly button: React.ReactNode; readonly often: boolean }[] = [
    {
      act: 'retry',
      often: run.status === 'failed' || run.status === 'cancelled' || run.degraded,
      button: <Retry run={run} refused={why('retry')} tone={why('retry') === undefined ? 'main' : ''} />,
    },
    {
      act: 'fork',
      often: isOver(run) || at !== null,
      button: <Fork key={`${at ?? ''} ${run.status}`} run={run} at={at} refused={why('fork')} />,
    },
    {
      act: 'pause',
      often: run.status !== 'paused' && !isOver(run),
      button: <Pause run={run} refused={why('pause')} />,
    },
    { act: 'resume', often: run.status === 'paused', button: <Resume run={run} refused={why('resume')} /> },
    { act: 'cancel', often: !isOver(run), button: <Cancel run={run} refused={why('cancel')} /> },
    { act: 'signal', often: !isOver(run), button: <Signal run={run} refused={why('signal')} /> },
    { act: 'priority', often: false, button: <Priority run={run} refused={why('priority')} /> },
    { act: 'deadline', often: false, button: <Deadline run={run} refused={why('deadline')} /> },
    { act: 'compensate', often: false, button: <Compensate run={run} refused={why('compensate')} /> },
    {
      act: 'compensation',
      often: run.compensation?.status === 'partial',
      button: <GoOnCompensating run={run} refused={why('compensation')} />,
    },
  ]
  const often = all.filter(each => each.often)
  const seldom = all.filter(each => !each.often)
  return (
    <div className="actions">
      {often.map(each => (
        <span key={each.act}>{each.button}</span>
      ))}
      {[...new Set(often.map(each => why(each.act)).filter(each => each !== undefined))].map(each => (
        <span key={each} className="soft act-why">
          {each}
        </span>
      ))}
      <details className="more">
        <summary>More actions</summary>
        <dl className="panel act-list">
          {[...seldom, ...often.filter(each => why(each.act) !== undefined)].map(each => (
            <div key={each.act}>
              <dt>{often.includes(each) ? each.act : each.button}</dt>
              <dd className="soft">{why(each.act) ?? 'possible now'}</dd>
            </div>
          ))}
        </dl>
      </details>
    </div>
  )
}
