import { useState } from 'react'
import { Link } from 'wouter'

import type { RunDiff, RunDifference } from '../../../api/types'
import { Diff } from '../../../ui/Diff'
import { Loading, ProblemBox } from '../../../ui/States'
import { useEvent } from '../past/useEvent'

/** Differences that are shown at first. */
const FIRST = 20

/** What the two sides say differently, the first difference in front. */
export function Differences({ diff }: { readonly diff: RunDiff }) {
  const [shown, setShown] = useState(FIRST)
  return (
    <section className="panel stack" aria-label="What differs">
      <h2>What differs</h2>
      <ol className="differences">
        {diff.data.slice(0, shown).map((difference, place) => (
          <One
            key={`${difference.step ?? ''} ${difference.key ?? ''} ${difference.what} ${difference.position ?? ''}`}
            difference={difference}
            isFirst={place === 0}
            sides={[diff.run_id, diff.with_id]}
          />
        ))}
      </ol>
      <div className="row">
        {shown < diff.data.length && (
          <button type="button" className="button small" onClick={() => setShown(shown + 100)}>
            More differences
          </button>
        )}
        {diff.count > diff.data.length && (
          <span className="soft">
            the first {diff.data.length.toLocaleString('en')} of {diff.count.toLocaleString('en')}
          </span>
        )}
      </div>
    </section>
  )
}

interface OneProps {
  readonly difference: RunDifference
  readonly isFirst: boolean
  readonly sides: readonly [string, string]
}

function One({ difference, isFirst, sides }: OneProps) {
  const { step, key, what, before, after, position, other_position: otherPosition } = difference
  const [open, setOpen] = useState(isFirst)
  const where = [step, key].filter(part => part !== null).join(' · ')
  return (
    <li className={isFirst ? 'first' : ''} data-testid={isFirst ? 'first-difference' : 'difference'}>
      <div className="row">
        <button
          type="button"
          className="button small plain"
          aria-expanded={open}
          aria-label={`${what} ${where}`}
          onClick={() => setOpen(!open)}
        >
          {open ? '▾' : '▸'}
        </button>
        {isFirst && <span className="badge warn">first difference</span>}
        <strong>{what}</strong>
        {where !== '' && <span className="mono">{where}</span>}
        {before === null && <span className="soft">only on the other side</span>}
        {after === null && <span className="soft">only on this side</span>}
        {position !== null && <Link href={`/runs/${sides[0]}/events?event=${position}`}>event {position}</Link>}
        {otherPosition !== null && (
          <Link href={`/runs/${sides[1]}/events?event=${otherPosition}`}>event {otherPosition} of the other side</Link>
        )}
      </div>
      {open &&
        (position !== null && otherPosition !== null && (isCut(before) || isCut(after)) ? (
          <OfEvents positions={[position, otherPosition]} what={what} />
        ) : (
          <Diff before={pretty(before)} after={pretty(after)} what={`difference of ${what} ${where}`} />
        ))}
    </li>
  )
}

/** The difference of two whole events, where the short texts do not tell it. */
function OfEvents({ positions, what }: { readonly positions: readonly [number, number]; readonly what: string }) {
  const [one, other] = [useEvent(positions[0]), useEvent(positions[1])]
  const failed = one.error ?? other.error
  if (failed !== null) return <ProblemBox error={failed} />
  if (one.data === undefined || other.data === undefined) return <Loading what="both events" />
  return (
    <Diff before={one.data.data ?? null} after={other.data.data ?? null} what={`difference of the events of ${what}`} />
  )
}

/** Whether a text is only the beginning of what was said. */
function isCut(text: string | null): boolean {
  return text !== null && text.endsWith('…')
}

/** A short text of a value: as the value itself, where it is whole. */
function pretty(text: string | null): unknown {
  if (text === null) return null
  try {
    return JSON.parse(text) as unknown
  } catch {
    return text
  }
}
