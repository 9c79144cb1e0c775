import { QueryClient } from '@tanstack/react-query'

import { Problem } from '../api/problem'

/** Reads are kept until an event says that they changed: nothing is polled, and nothing is read again because a window got the focus. */
export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: Number.POSITIVE_INFINITY,
      gcTime: 5 * 60_000,
      refetchOnWindowFocus: false,
      refetchOnReconnect: true,
      retry: (count, error) => count < 3 && error instanceof Problem && error.retryable,
      retryDelay: attempt => Math.min(8000, 400 * 2 ** attempt),
    },
    mutations: { retry: false },
  },
})
