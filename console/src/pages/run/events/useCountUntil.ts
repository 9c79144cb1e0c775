import { keepPreviousData, useQuery } from '@tanstack/react-query'

import { readRows } from '../past/rows'

/** How many rows there are up to a moment. Null: not known yet, or there is no moment. While the next is asked for: of the one before. */
export function useCountUntil(runId: string, types: string | null, at: string | null): number | null {
  const found = useQuery({
    queryKey: ['run', runId, 'rows-until', types, at],
    enabled: at !== null,
    staleTime: 'static',
    placeholderData: keepPreviousData,
    queryFn: async ({ signal }) =>
      (await readRows({ runId, types }, at === null ? {} : { as_of: at }, 1, signal)).total,
  })
  return at === null ? null : (found.data ?? null)
}
