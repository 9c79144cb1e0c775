import { useId } from 'react'
import { useSearchParams } from 'wouter'

/** What is searched for, in the address as `?q=`. */
export function useSearch(): [string, (text: string) => void] {
  const [params, setParams] = useSearchParams()
  return [
    params.get('q') ?? '',
    text =>
      setParams(
        before => {
          const next = new URLSearchParams(before)
          if (text === '') next.delete('q')
          else next.set('q', text)
          return next
        },
        { replace: true },
      ),
  ]
}

interface Props {
  readonly what: string
  readonly shown: number
  readonly of: number
  readonly more: boolean
}

/** The field above a list, and how much of it is shown. */
export function Search({ what, shown, of, more }: Props) {
  const [text, setText] = useSearch()
  const id = useId()
  return (
    <div className="spread" role="search">
      <span className="catalog-search">
        <label className="hidden" htmlFor={id}>
          Search {what}
        </label>
        <input
          id={id}
          className="input"
          type="search"
          placeholder={`Search ${what}`}
          autoComplete="off"
          value={text}
          onChange={event => setText(event.target.value)}
        />
      </span>
      <span className="soft" role="status">
        {shown === of ? of.toLocaleString('en') : `${shown.toLocaleString('en')} of ${of.toLocaleString('en')}`}
        {more && ', and more that are not searched'}
      </span>
    </div>
  )
}

/** How many workers offer something at this moment. */
export function Online({ workers }: { readonly workers: number | null | undefined }) {
  if (workers === null || workers === undefined) return <span className="soft">–</span>
  if (workers === 0) return <span className="badge idle">no worker</span>
  return <span className="badge good">{workers === 1 ? '1 worker' : `${workers} workers`}</span>
}

/** Names beside one another. */
export function Tags({ of }: { readonly of: readonly string[] }) {
  if (of.length === 0) return <span className="soft">–</span>
  return (
    <span className="tags">
      {of.map(name => (
        <span key={name} className="tag">
          {name}
        </span>
      ))}
    </span>
  )
}
