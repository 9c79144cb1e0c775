import { useMutation } from '@tanstack/react-query'
import { type ReactNode, useEffect, useId, useRef, useState } from 'react'

import { ProblemBox } from './States'

interface Props {
  /** What the button and the dialog are called, such as `Cancel`. */
  readonly name: string
  /** What will happen, in a sentence. */
  readonly what: ReactNode
  readonly act: (reason: string) => Promise<unknown>
  readonly onDone?: () => void
  readonly tone?: 'main' | 'danger' | ''
  /** Whether a reason must be given; else it may be. */
  readonly needsReason?: boolean
  /** Why the act is not possible now. Then the button is off, and says so. */
  readonly refused?: string | undefined
  /** Further fields of the dialog. */
  readonly children?: ReactNode
  /** Whether the further fields are filled in rightly. */
  readonly valid?: boolean
}

/** A button that asks for a reason, does one thing, and shows what went wrong. Every act of the console goes through it. */
export function Act({
  name,
  what,
  act,
  onDone,
  tone = '',
  needsReason = false,
  refused,
  children,
  valid = true,
}: Props) {
  const dialog = useRef<HTMLDialogElement>(null)
  const [open, setOpen] = useState(false)
  const [reason, setReason] = useState('')
  const id = useId()
  const doing = useMutation({
    mutationFn: act,
    onSuccess: () => {
      setOpen(false)
      setReason('')
      onDone?.()
    },
  })
  useEffect(() => {
    if (open) dialog.current?.showModal()
  }, [open])
  return (
    <>
      <button
        type="button"
        className={`button ${tone}`}
        disabled={refused !== undefined}
        title={refused}
        onClick={() => {
          doing.reset()
          setOpen(true)
        }}
      >
        {name}
      </button>
      {open && (
        <dialog ref={dialog} aria-labelledby={`${id}-title`} onClose={() => setOpen(false)}>
          <form
            onSubmit={event => {
              event.preventDefault()
              doing.mutate(reason)
            }}
          >
            <h2 id={`${id}-title`}>{name}</h2>
            <div>{what}</div>
            {children}
            <div className="field">
              <label htmlFor={`${id}-reason`}>Reason{needsReason ? '' : ' (optional)'}, for the audit log</label>
              <input
                id={`${id}-reason`}
                className="input"
                maxLength={500}
                required={needsReason}
                value={reason}
                autoComplete="off"
                onChange={event => setReason(event.target.value)}
              />
            </div>
            {doing.isError && <ProblemBox error={doing.error} />}
            <div className="row end">
              <button type="button" className="button" onClick={() => setOpen(false)}>
                Back
              </button>
              <button
                type="submit"
                className={`button ${tone === '' ? 'main' : tone}`}
                disabled={doing.isPending || !valid}
              >
                {doing.isPending ? 'Working …' : name}
              </button>
            </div>
          </form>
        </dialog>
      )}
    </>
  )
}
