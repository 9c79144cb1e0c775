import type { ReactNode } from 'react'

/** A table that scrolls sideways where it is wider than the page. What scrolls must be reached by the keyboard. */
export function TableBox({ name, children }: { readonly name: string; readonly children: ReactNode }) {
  return (
    // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
    <div className="table-box" role="group" aria-label={name} tabIndex={0}>
      {children}
    </div>
  )
}
