import { useQueryClient } from '@tanstack/react-query'
import { useEffect, useRef } from 'react'

import { mustShow } from '../api/client'
import type { FeedEvent } from './feed'

/** Milliseconds between two readings of the same thing, however many events say that it changed. */
const EVERY_MS = 1_000

/**
 * Returns what is called with events after which something is read again: at once, and at most once a second while more come. What
 * is read shows the events. The last event is never missed: a reading that was under way when it came is followed by another one.
 */
export function useThrottled(read: () => Promise<unknown>, everyMs = EVERY_MS): (events: readonly FeedEvent[]) => void {
  const state = useRef({ busy: false, again: false, gone: false })
  const latest = useRef(read)
  useEffect(() => {
    latest.current = read
  })
  useEffect(() => {
    const mine = state.current
    mine.gone = false
    return () => {
      mine.gone = true
    }
  }, [])
  return events => {
    const last = Number(events.at(-1)?.['position'] ?? 0)
    if (last > 0) mustShow(last)
    const mine = state.current
    const begin = () => {
      if (mine.busy) {
        mine.again = true
        return
      }
      mine.busy = true
      mine.again = false
      const pause = new Promise(resolve => setTimeout(resolve, everyMs))
      void Promise.allSettled([latest.current(), pause]).then(() => {
        mine.busy = false
        if (mine.again && !mine.gone) begin()
      })
    }
    begin()
  }
}

/** The same for what `useQuery` reads: `keys` are how it is known. */
export function useRefresh(
  keys: readonly (readonly unknown[])[],
  everyMs = EVERY_MS,
): (events: readonly FeedEvent[]) => void {
  const client = useQueryClient()
  return useThrottled(() => Promise.all(keys.map(queryKey => client.invalidateQueries({ queryKey }))), everyMs)
}
