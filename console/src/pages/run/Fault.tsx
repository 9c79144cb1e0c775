import type { Failure } from '../../api/types'
import { largeOf } from '../../api/large'
import { Copy } from '../../ui/Copy'
import { LargeValue } from '../../ui/Value'

const RELATIONS: Readonly<Record<string, string>> = {
  member: 'of the group',
  cause: 'caused by',
  context: 'while handling',
}

/** Where in the code, as `agents/shop.py:86`. Empty: nobody knows. */
export function placeOf(error: { file?: string | null; line?: number | null }): string {
  if (error.file == null) return ''
  return error.line == null ? error.file : `${error.file}:${error.line}`
}

interface Props {
  /** The object that failed, with its `error` and `large`. */
  readonly of: { readonly error?: Failure | null }
  /** Whether the traceback is open at first. */
  readonly open?: boolean
}

/** A failure: its class, message and place, what was behind it, and the traceback. */
export function Fault({ of, open = false }: Props) {
  const error = of.error
  const large = largeOf(of, 'error')
  if (error == null) return large === null ? null : <LargeValue large={large} what="error" />
  const place = placeOf(error)
  // An error in short, in the place of a large one, has no causes.
  const causes = (error as Partial<Failure>).causes ?? []
  return (
    <div className="fault-box stack" data-testid="error">
      <div className="fault-message">
        <strong className="mono">{error.type}</strong>
        {error.message !== '' && <>: {error.message}</>}
      </div>
      <div className="row soft">
        {place !== '' && (
          <span className="mono">
            {place}
            <Copy text={place} what="place in the code" />
          </span>
        )}
        <span className="tag">{error.kind.replaceAll('_', ' ')}</span>
        {error.retry_after_s != null && <span>to be tried again after {error.retry_after_s} s</span>}
      </div>
      {causes.length > 0 && (
        <ul className="causes">
          {causes.map((cause, at) => (
            <li key={at}>
              <span className="soft">{RELATIONS[cause.relation] ?? 'with'}</span>{' '}
              <strong className="mono">{cause.type}</strong>
              {cause.message !== '' && <>: {cause.message}</>} <span className="soft mono">{placeOf(cause)}</span>
            </li>
          ))}
        </ul>
      )}
      {error.traceback != null && error.traceback !== '' && (
        <details open={open}>
          <summary>Traceback</summary>
          {/* Scrolls, so the keyboard must reach it. */}
          {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
          <div className="json" role="region" aria-label="Traceback" tabIndex={0}>
            <pre data-testid="traceback">{`Traceback (most recent call last):\n${error.traceback}`}</pre>
          </div>
          <Copy text={error.traceback} what="traceback" />
        </details>
      )}
      {large !== null && <LargeValue large={large} what="whole error" />}
    </div>
  )
}
