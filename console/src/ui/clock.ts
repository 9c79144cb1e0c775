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

// One function for all: were it another one at each rendering, a page that renders often would begin its ten seconds anew each time.
function subscribe(onChange: () => void): () => void {
  listeners.add(onChange)
  if (timer === undefined) {
    now = Date.now()
    timer = setInterval(tick, EVERY_MS)
  }
  return () => {
    listeners.delete(onChange)
    if (listeners.size === 0) {
      clearInterval(timer)
      timer = undefined
    }
  }
}

/** The time, anew every ten seconds while something on the page shows it. One timer for all. Nothing is asked of the server. */
export function useNow(): number {
  return useSyncExternalStore(subscribe, () => now)
}
