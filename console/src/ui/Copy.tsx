import { useEffect, useState } from 'react'

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
      onClick={() => void navigator.clipboard.writeText(text).then(() => setCopied(true))}
    >
      {copied ? '✓' : '⧉'}
    </button>
  )
}

/** An id in short, whole in its title and in its copy. */
export function Id({ of, what = 'id' }: { readonly of: string; readonly what?: string }) {
  return (
    <span className="mono" title={of}>
      {of.length > 16 ? `${of.slice(0, 8)}…${of.slice(-6)}` : of}
      <Copy text={of} what={what} />
    </span>
  )
}
