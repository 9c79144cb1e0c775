import { useCallback, useEffect, useReducer, useRef, useState } from 'react'

import type { FeedEvent, Filter } from '../../live/feed'
import { useEvents } from '../../live/hooks'
import { after, around, headOf, newestUpTo, olderThan, type Wanted } from './read'
import { rowOf } from './rows'
import { Tail } from './tail'

/** Milliseconds between two renderings while events come: faster nobody reads. */
const SHOWN_EVERY_MS = 100

type State = { is: 'loading' } | { is: 'ready'; head: number; from: number | null } | { is: 'failed'; error: unknown }

export interface LiveTail {
  readonly tail: Tail
  readonly state: State
  readonly reading: 'older' | 'newer' | null
  /** What went wrong with the last page. */
  readonly fault: unknown
  readonly follow: () => void
  readonly hold: () => void
  readonly readOlder: () => void
  readonly readNewer: () => void
  readonly again: () => void
}

/** The end of the log, live; or a part of it around a time. Another filter or time is another component (by its key). */
export function useTail(wanted: Wanted, time: string | null): LiveTail {
  const [tail] = useState(() => new Tail())
  const [state, setState] = useState<State>({ is: 'loading' })
  const [round, again] = useReducer((count: number) => count + 1, 0)
  const [, show] = useReducer((count: number) => count + 1, 0)
  const [reading, setReading] = useState<'older' | 'newer' | null>(null)
  const [fault, setFault] = useState<unknown>(null)
  const older = useRef<{ cursor: string | null; first: number }>({ cursor: null, first: 0 })
  const newer = useRef<{ cursor: string | null; last: number }>({ cursor: null, last: 0 })
  const busy = useRef<AbortController | null>(null)
  const asked = useRef({ wanted, time })

  useEffect(() => {
    const stop = new AbortController()
    const { wanted, time } = asked.current
    const load = async () => {
      const head = await headOf(stop.signal)
      if (time === null || round > 0) {
        const found = await newestUpTo(wanted, head, stop.signal)
        tail.begin(found.rows, found.cursor !== null)
        older.current = { cursor: found.cursor, first: found.rows[0]?.position ?? 0 }
        return { is: 'ready', head, from: null } as const
      }
      const [before, following] = await around(wanted, time, stop.signal)
      tail.begin([...before.rows, ...following.rows], before.cursor !== null, false)
      older.current = { cursor: before.cursor, first: before.rows[0]?.position ?? 0 }
      newer.current = { cursor: following.cursor, last: tail.end }
      return { is: 'ready', head, from: before.rows.length } as const
    }
    load().then(setState, (error: unknown) => {
      if (!stop.signal.aborted) setState({ is: 'failed', error })
    })
    return () => {
      stop.abort()
      busy.current?.abort()
    }
  }, [tail, round])

  const shower = useRef<ReturnType<typeof setTimeout> | undefined>(undefined)
  useEffect(() => () => clearTimeout(shower.current), [])
  const onEvents = (events: readonly FeedEvent[]) => {
    tail.take(events.map(rowOf))
    shower.current ??= setTimeout(() => {
      shower.current = undefined
      show()
    }, SHOWN_EVERY_MS)
  }
  const begin = useCallback(() => {
    setState({ is: 'loading' })
    setFault(null)
    again()
  }, [])
  useEvents(filterOf(wanted), {
    enabled: state.is === 'ready',
    after: state.is === 'ready' ? String(state.head) : null,
    onEvents,
    onReset: begin,
  })

  const read = useCallback((what: 'older' | 'newer', act: (signal: AbortSignal) => Promise<void>) => {
    if (busy.current !== null) return
    const stop = new AbortController()
    busy.current = stop
    setReading(what)
    act(stop.signal)
      .then(
        () => setFault(null),
        (error: unknown) => {
          if (!stop.signal.aborted) setFault(error)
        },
      )
      .finally(() => {
        busy.current = null
        setReading(null)
      })
  }, [])

  const readOlder = useCallback(() => {
    if (!tail.older) return
    read('older', async signal => {
      const first = tail.rows[0]?.position ?? 0
      const known = older.current
      const { wanted } = asked.current
      const found =
        known.cursor !== null && (known.first === first || first === 0)
          ? await olderThan(wanted, known.cursor, signal)
          : await newestUpTo(wanted, first - 1, signal)
      tail.prepend(found.rows, found.cursor !== null)
      older.current = { cursor: found.cursor, first: tail.rows[0]?.position ?? 0 }
    })
  }, [read, tail])

  const readNewer = useCallback(() => {
    if (tail.joined) return
    read('newer', async signal => {
      const end = tail.end
      const known = newer.current
      const found = await after(asked.current.wanted, end, known.last === end ? known.cursor : null, signal)
      tail.append(found.rows, found.cursor !== null)
      newer.current = { cursor: found.cursor, last: tail.end }
    })
  }, [read, tail])

  return {
    tail,
    state,
    reading,
    fault,
    again: begin,
    readOlder,
    readNewer,
    hold: () => {
      tail.hold()
      show()
    },
    follow: () => {
      if (tail.follow()) show()
      else begin()
    },
  }
}

function filterOf(wanted: Wanted): Filter {
  return {
    ...(wanted.types === undefined ? {} : { types: wanted.types }),
    ...(wanted.run === undefined ? {} : { runId: wanted.run }),
    ...(wanted.actor === undefined ? {} : { actor: wanted.actor }),
    ...(wanted.behalf === undefined ? {} : { onBehalfOf: wanted.behalf }),
  }
}

/** A time whose zone the browser knows, as the interface takes it. Null: it is no time. */
export function instantOf(local: string): string | null {
  const at = new Date(local)
  return Number.isNaN(at.getTime()) ? null : at.toISOString()
}
