/** A call that may be made at any rate, and does its work at most once in a while. */
export interface Throttled {
  readonly call: () => void
  /** Nothing more is done. */
  readonly end: () => void
}

/**
 * Does `act` at the first call, and after it at most once in `ms`: calls in between are one more, at the end. Two never overlap,
 * so a slow server is not asked again before it has answered; and what takes long is done more seldom, a third of the time at most.
 */
export function throttled(ms: number, act: () => Promise<unknown>): Throttled {
  let wanted = false
  let busy = false
  let ended = false
  const run = () => {
    if (busy || ended) return
    busy = true
    wanted = false
    const began = Date.now()
    const after = () => {
      setTimeout(
        () => {
          busy = false
          if (wanted) run()
        },
        Math.max(2 * (Date.now() - began), ms - (Date.now() - began)),
      )
    }
    act().then(after, after)
  }
  return {
    call: () => {
      wanted = true
      run()
    },
    end: () => {
      ended = true
    },
  }
}
