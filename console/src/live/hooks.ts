import { useEffect, useRef, useSyncExternalStore } from 'react'

import type { FeedEvent, Filter, Link } from './feed'
import { theFeed } from './tabFeed'

/** Milliseconds after which events are given without a frame: a hidden tab has none. */
const LATE_MS = 1_000

/** How it goes with the live connection. */
export function useLink(): Link {
  return useSyncExternalStore(
    onChange => theFeed().watch(onChange),
    () => theFeed().link,
  )
}

interface Wants {
  /** False: nothing is listened to, as for a moment in the past. */
  readonly enabled?: boolean
  /** Where to begin: an event's id in a stream, or a position. Without one: now. */
  readonly after?: string | null
  readonly onEvents: (events: readonly FeedEvent[]) => void
  readonly onReset?: () => void
  readonly onEnd?: () => void
}

/** Listens to events while a component is shown. Events of one frame come in one call, so a burst costs one rendering a frame. */
export function useEvents(filter: Filter, wants: Wants): void {
  const latest = useRef(wants)
  useEffect(() => {
    latest.current = wants
  })
  const key = JSON.stringify(filter)
  const enabled = wants.enabled ?? true
  const after = wants.after ?? null
  useEffect(() => {
    if (!enabled) return
    let waiting: FeedEvent[] = []
    let frame = 0
    let late: ReturnType<typeof setTimeout> | undefined
    const stop = () => {
      cancelAnimationFrame(frame)
      clearTimeout(late)
      frame = 0
    }
    const flush = () => {
      stop()
      const events = waiting
      waiting = []
      if (events.length > 0) latest.current.onEvents(events)
    }
    const close = theFeed().subscribe(JSON.parse(key) as Filter, after, {
      onEvents: events => {
        waiting.push(...events)
        if (frame !== 0) return
        frame = requestAnimationFrame(flush)
        late = setTimeout(flush, LATE_MS) // a hidden tab has no frames
      },
      onReset: () => latest.current.onReset?.(),
      onEnd: () => {
        flush()
        latest.current.onEnd?.()
      },
    })
    return () => {
      stop()
      close()
    }
  }, [key, enabled, after])
}
