import { useQuery } from '@tanstack/react-query'

import { api, dataOf } from '../../../api/client'

/** One event, with all that it says. It never changes. */
export function useEvent(position: number) {
  return useQuery({
    queryKey: ['event', position],
    staleTime: 'static',
    queryFn: async ({ signal }) =>
      dataOf(await api.GET('/v1/events/{position}', { params: { path: { position } }, signal })),
  })
}
