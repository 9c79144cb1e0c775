import { useSyncExternalStore } from 'react'

const EVERY_MS = 10_000
const listeners = new Set<() => void>()
let now = Date.now()
let timer: ReturnType<typeof setInterval> | undefined

function tick(): void {
  if (document.hidden) return
  now = Date.now()
  for (const listener of listeners) listener()
}

/** The time, anew every ten seconds while something on the page shows it. One timer for all. Nothing is asked of the server. */
export function useNow(): number {
  return useSyncExternalStore(
    onChange => {
      listeners.add(onChange)
      timer ??= setInterval(tick, EVERY_MS)
      return () => {
        listeners.delete(onChange)
        if (listeners.size === 0) {
          clearInterval(timer)
          timer = undefined
        }
      }
    },
    () => now,
  )
}
