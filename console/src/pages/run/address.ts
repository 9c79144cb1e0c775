import { useSearchParams } from 'wouter'

/** A part of the address that says what is looked at, such as the step (`?step=`). Null: nothing is chosen. */
export function useParam(name: string): [string | null, (value: string | null) => void] {
  const [params, setParams] = useSearchParams()
  return [
    params.get(name),
    value =>
      setParams(
        before => {
          const next = new URLSearchParams(before)
          if (value === null) next.delete(name)
          else next.set(name, value)
          return next
        },
        { replace: true },
      ),
  ]
}

/** The address of a part of a run, at the moment that is looked at. */
export function partHref(runId: string, part: string, at: string | null, more: Readonly<Record<string, string>> = {}) {
  const query = new URLSearchParams({ ...(at === null ? {} : { at }), ...more }).toString()
  return `/runs/${runId}/${part}${query === '' ? '' : `?${query}`}`
}
