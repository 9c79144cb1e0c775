import { keepPreviousData, useInfiniteQuery } from '@tanstack/react-query'

/** A page of a list, as every list of the interface answers. */
export interface Page<T> {
  readonly data: readonly T[]
  readonly next_cursor: string | null
}

/** A list, page by page. `rows`: of all pages so far. While other filters are loaded, the rows of the old ones stay. */
export function usePages<T>(
  key: readonly unknown[],
  read: (cursor: { cursor?: string }, signal: AbortSignal) => Promise<Page<T>>,
) {
  const found = useInfiniteQuery({
    queryKey: key,
    placeholderData: keepPreviousData,
    initialPageParam: null as string | null,
    queryFn: ({ pageParam, signal }) => read(pageParam === null ? {} : { cursor: pageParam }, signal),
    getNextPageParam: page => page.next_cursor,
  })
  return { ...found, rows: found.data?.pages.flatMap(page => page.data) ?? [] }
}
