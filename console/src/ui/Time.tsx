import { createContext, use } from 'react'

import { useNow } from './clock'
import { between, duration, relative } from './time'

/** A time as `3 minutes ago`, with the exact one at hand. */
export function Time({ of }: { readonly of: string | null | undefined }) {
  const now = useNow()
  if (of === null || of === undefined) return <span className="soft">–</span>
  return (
    <time dateTime={of} title={`${new Date(of).toLocaleString()} (${of})`}>
      {relative(Date.parse(of), now)}
    </time>
  )
}

/** Until when what goes on is measured, in milliseconds since the epoch: a moment of the past. Null: until now. */
export const UntilContext = createContext<number | null>(null)

/** How long something took, or has taken until now. */
export function Took({
  from,
  to,
}: {
  readonly from: string | null | undefined
  readonly to: string | null | undefined
}) {
  const clock = useNow()
  const now = use(UntilContext) ?? clock
  if (from === null || from === undefined) return <span className="soft">–</span>
  return <span title={to ?? 'until now'}>{duration(between(from, to ?? null, Math.max(now, Date.parse(from))))}</span>
}
