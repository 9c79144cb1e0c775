import { useQueryClient } from '@tanstack/react-query'

import type { Run } from '../../api/types'

interface Props {
  readonly query: {
    readonly dataUpdatedAt: number
    readonly data?: { readonly pages: readonly unknown[] } | undefined
    readonly refetch: () => unknown
  }
  readonly run: Run
  readonly at: string | null
}

/** Says that a long list is older than the run, which events do not read anew by themselves. */
export function NewRows({ query, run, at }: Props) {
  const client = useQueryClient()
  const shown = client.getQueryState(['run', run.run_id, 'view', null])?.dataUpdatedAt ?? 0
  if (at !== null || (query.data?.pages.length ?? 0) <= 2 || shown <= query.dataUpdatedAt) return null
  return (
    <button type="button" className="button small" onClick={() => void query.refetch()}>
      The run went on: read anew
    </button>
  )
}
