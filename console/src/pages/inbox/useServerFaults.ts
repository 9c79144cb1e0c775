import { useQuery } from '@tanstack/react-query'
import { useEffect, useState } from 'react'

import { api, dataOf } from '../../api/client'
import type { Fault } from '../../ui/schema/faults'

/** Milliseconds without typing after which the server is asked. */
const PAUSE_MS = 400

/** What the server finds wrong with the arguments of a call, while they are typed. Null: nothing is asked. */
export function useServerFaults(tool: string | null, value: unknown): readonly Fault[] {
  const [settled, setSettled] = useState<unknown>(undefined)
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), PAUSE_MS)
    return () => clearTimeout(timer)
  }, [value])
  const asked = tool !== null && settled !== undefined
  const found = useQuery({
    queryKey: ['validate', tool, JSON.stringify(settled)],
    enabled: asked,
    gcTime: 10_000,
    retry: false,
    queryFn: async ({ signal }) =>
      dataOf(
        await api.POST('/v1/tools/{name}/validate', {
          params: { path: { name: tool ?? '' } },
          // The server takes either of them: null would be given, too.
          body: { arguments: settled } as { arguments: unknown; declaration: null },
          signal,
        }),
      ),
  })
  if (!asked || settled !== value || found.data === undefined) return []
  return found.data.errors
}
