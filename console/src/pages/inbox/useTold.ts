import { useEffect, useRef } from 'react'

import { same } from '../../ui/schema/faults'

/** Tells a value to a parent when it is another one. */
export function useTold<T>(value: T, tell: (value: T) => void): void {
  const last = useRef<T | undefined>(undefined)
  useEffect(() => {
    if (same(last.current, value)) return
    last.current = value
    tell(value)
  })
}
