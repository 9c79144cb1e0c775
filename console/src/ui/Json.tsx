import { useState } from 'react'

import { Copy } from './Copy'

/** Characters of a value that are shown at first. */
const FIRST = 5_000

/** A value of strangers, as a text. */
export function Json({ of, what = 'value' }: { readonly of: unknown; readonly what?: string }) {
  const [whole, setWhole] = useState(false)
  const text = typeof of === 'string' ? of : ((JSON.stringify(of, null, 2) as string | undefined) ?? 'null')
  const cut = !whole && text.length > FIRST
  return (
    <div className="stack">
      {/* Scrolls, so the keyboard must reach it. */}
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
      <div className="json" role="region" aria-label={what} tabIndex={0}>
        <pre>{cut ? `${text.slice(0, FIRST)}…` : text}</pre>
      </div>
      <div className="row">
        <Copy text={text} what={what} />
        {cut && (
          <button type="button" className="button small" onClick={() => setWhole(true)}>
            Show all {text.length.toLocaleString('en')} characters
          </button>
        )}
      </div>
    </div>
  )
}
