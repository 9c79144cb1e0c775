import { useEffect } from 'react'

/** The act of a key: `data-act` of what stands around its button. */
const ACTS: Readonly<Record<string, string>> = { a: 'approve', d: 'deny' }

function isTyping(target: EventTarget | null): boolean {
  const element = target instanceof HTMLElement ? target : null
  return element !== null && element.closest('textarea, select, dialog, input:not([type=checkbox])') !== null
}

/**
 * The keys of the inbox: j and k, and in the list the arrows too, go through the list; Enter on what is open reads it; a and d decide:
 * their dialogs ask.
 */
export function useInboxKeys(
  ids: readonly string[],
  selected: string | null,
  open: (id: string) => void,
  read: () => void,
): void {
  useEffect(() => {
    const go = (by: number) => {
      const at = selected === null ? -1 : ids.indexOf(selected)
      const next = ids[Math.max(0, Math.min(ids.length - 1, at + by))]
      if (next !== undefined && next !== selected) open(next)
    }
    const onKey = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return
      const target = event.target instanceof HTMLElement ? event.target : document.body
      const inList = target.closest('.inbox-list') !== null
      const act = ACTS[event.key]
      if (event.key === 'j' || (inList && event.key === 'ArrowDown')) go(1)
      else if (event.key === 'k' || (inList && event.key === 'ArrowUp')) go(-1)
      else if (act !== undefined) {
        document.querySelector<HTMLButtonElement>(`[data-act='${act}'] button:not(:disabled)`)?.click()
      } else if (
        event.key === 'Enter' &&
        selected !== null &&
        (target === document.body || (inList && target.getAttribute('aria-current') === 'true'))
      ) {
        read()
      } else return
      event.preventDefault()
    }
    document.addEventListener('keydown', onKey)
    return () => document.removeEventListener('keydown', onKey)
  })
}
