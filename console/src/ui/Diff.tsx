import './diff.css'

import { Fragment, useMemo, useState } from 'react'

import { diffLines, hunksOf, linesOf } from './diff'

const MARKS = { same: ' ', added: '+', removed: '-' } as const
const SAID = { same: '', added: 'added', removed: 'removed' } as const

/** Two values, line by line: what was removed, and what was added. */
export function Diff({
  before,
  after,
  what = 'difference',
}: {
  readonly before: unknown
  readonly after: unknown
  readonly what?: string
}) {
  const [whole, setWhole] = useState(false)
  const lines = useMemo(() => diffLines(linesOf(before), linesOf(after)), [before, after])
  const { hunks, skippedAtEnd } = hunksOf(lines, whole ? Number.MAX_SAFE_INTEGER : 3)
  if (hunks.length === 0) return <p className="soft">Nothing differs.</p>
  return (
    <div className="stack">
      {/* Scrolls, so the keyboard must reach it. */}
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
      <div className="diff mono" role="region" aria-label={what} tabIndex={0} data-testid="diff">
        {hunks.map(hunk => (
          <Fragment key={`${hunk.lines[0]?.before ?? ''} ${hunk.lines[0]?.after ?? ''}`}>
            {hunk.skipped > 0 && <Skipped count={hunk.skipped} />}
            {hunk.lines.map(line => (
              <div key={`${line.before ?? ''} ${line.after ?? ''}`} className={`diff-line ${line.is}`}>
                <span aria-hidden="true">{MARKS[line.is]}</span>
                {SAID[line.is] !== '' && <span className="hidden">{SAID[line.is]}: </span>}
                <span className="diff-text">{line.text}</span>
              </div>
            ))}
          </Fragment>
        ))}
        {skippedAtEnd > 0 && <Skipped count={skippedAtEnd} />}
      </div>
      {(whole || skippedAtEnd > 0 || hunks.some(hunk => hunk.skipped > 0)) && (
        <div className="row">
          <button type="button" className="button small" onClick={() => setWhole(!whole)}>
            {whole ? 'Only what differs' : 'Show all lines'}
          </button>
        </div>
      )}
    </div>
  )
}

function Skipped({ count }: { readonly count: number }) {
  return <div className="diff-skipped">{count === 1 ? '1 line' : `${count} lines`} the same</div>
}
