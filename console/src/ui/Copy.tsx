import { useEffect, useState } from 'react'

/** Takes the old way where the page is not secure (plain HTTP from another machine): browsers give it no clipboard there. */
async function copy(text: string): Promise<void> {
  if (window.isSecureContext) return navigator.clipboard.writeText(text)
  const box = document.createElement('textarea')
  box.value = text
  box.setAttribute('readonly', '')
  const before = document.activeElement
  ;(before?.closest('dialog') ?? document.body).append(box)
  box.select()
  // eslint-disable-next-line @typescript-eslint/no-deprecated -- there is nothing else on a page that is not secure
  document.execCommand('copy')
  box.remove()
  if (before instanceof HTMLElement) before.focus()
}

/** A button that copies a text: an id, a request for curl. */
export function Copy({ text, what }: { readonly text: string; readonly what: string }) {
  const [copied, setCopied] = useState(false)
  useEffect(() => {
    if (!copied) return
    const timer = setTimeout(() => setCopied(false), 1500)
    return () => clearTimeout(timer)
  }, [copied])
  return (
    <button
      type="button"
      className="button plain small"
      aria-label={copied ? `Copied ${what}` : `Copy ${what}`}
      title={`Copy ${what}`}
      onClick={() => void copy(text).then(() => setCopied(true))}
    >
      <svg className="copy" viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
        {copied ? <path d="M3 8.5 6.5 12 13 4.5" /> : <path d="M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3" />}
      </svg>
    </button>
  )
}

/** An id in short, whole in its title and in its copy. */
export function Id({ of, what = 'id' }: { readonly of: string; readonly what?: string }) {
  return (
    <span className="mono id" title={of}>
      {of.length > 16 ? `${of.slice(0, 8)}…${of.slice(-6)}` : of}
      <Copy text={of} what={what} />
    </span>
  )
}
