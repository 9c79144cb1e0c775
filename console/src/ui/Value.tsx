import { useQuery } from '@tanstack/react-query'
import { useState } from 'react'

import { type Large, largeOf, readLarge } from '../api/large'
import { Json } from './Json'
import { Loading, ProblemBox } from './States'

interface Props {
  /** The object that has the value, with its `large`. */
  readonly of: unknown
  /** The value's field. */
  readonly field: string
  readonly what: string
}

/** A value of a document, wherever it is: in the document, or behind a reference, which is read when somebody asks for it. */
export function Value({ of, field, what }: Props) {
  const large = largeOf(of, field)
  if (large !== null) return <LargeValue large={large} what={what} />
  return <Json of={(of as Readonly<Record<string, unknown>>)[field] ?? null} what={what} />
}

/** How large a value is, and a button that reads it. */
export function LargeValue({ large, what }: { readonly large: Large; readonly what: string }) {
  const [asked, setAsked] = useState(false)
  const found = useQuery({
    queryKey: ['large', large.ref],
    enabled: asked,
    queryFn: async ({ signal }) => ({ value: await readLarge(large, signal) }),
  })
  if (found.isSuccess) return <Json of={found.data.value} what={what} />
  if (found.isError) return <ProblemBox error={found.error} retry={() => void found.refetch()} />
  if (asked) return <Loading what={`the ${what}`} />
  return (
    <div className="row">
      <span className="soft">{bytes(large.bytes)}, not loaded yet.</span>
      <button type="button" className="button small" onClick={() => setAsked(true)}>
        Show the {what}
      </button>
    </div>
  )
}

/** `16 bytes`, `17 kB`, `2.5 MB`. */
export function bytes(count: number): string {
  if (count < 1000) return `${count} bytes`
  if (count < 1_000_000) return `${Math.round(count / 1000)} kB`
  return `${(count / 1_000_000).toFixed(1)} MB`
}
