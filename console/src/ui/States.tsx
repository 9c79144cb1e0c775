import type { ReactNode } from 'react'

import { asProblem } from '../api/problem'
import { Copy } from './Copy'

/** What is shown while an answer is on its way. */
export function Loading({ what }: { readonly what: string }) {
  return (
    <div className="loading" role="status" data-testid="loading">
      Loading {what} …
    </div>
  )
}

/** What is shown where there is nothing, and what to do about it. */
export function Empty({ children }: { readonly children: ReactNode }) {
  return (
    <div className="empty" data-testid="empty">
      {children}
    </div>
  )
}

/** What went wrong, with its code and trace for whoever is asked about it. */
export function ProblemBox({ error, retry }: { readonly error: unknown; readonly retry?: () => void }) {
  const problem = asProblem(error)
  return (
    <div className="notice bad stack" role="alert">
      <strong>{problem.message}</strong>
      {problem.detail !== '' && <div>{problem.detail}</div>}
      {problem.errors.length > 0 && (
        <ul>
          {problem.errors.map(fault => (
            <li key={`${fault.pointer} ${fault.detail}`}>
              <code>{fault.pointer}</code> {fault.detail}
            </li>
          ))}
        </ul>
      )}
      <div className="row soft">
        <code>{problem.code}</code>
        {problem.traceId !== null && (
          <span>
            trace <code>{problem.traceId}</code>
            <Copy text={problem.traceId} what="trace id" />
          </span>
        )}
        {retry !== undefined && (
          <button type="button" className="button small" onClick={retry}>
            Try again
          </button>
        )}
      </div>
    </div>
  )
}
