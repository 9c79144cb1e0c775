import './signin.css'

import { useMutation } from '@tanstack/react-query'
import { useState } from 'react'

import { type Session, signIn } from '../../api/session'
import icon from '../../icon.svg'
import { ProblemBox } from '../../ui/States'

interface Props {
  /** Why nobody is signed in, if that needs to be said: a link that did not work. */
  readonly why: unknown
  readonly onSignedIn: (session: Session) => void
}

/** Signing in by an API key. The key goes to the server once; the browser keeps a cookie that scripts cannot read. */
export function SignIn({ why, onSignedIn }: Props) {
  const [key, setKey] = useState('')
  const doing = useMutation({ mutationFn: () => signIn({ key: key.trim() }), onSuccess: onSignedIn })
  const error = doing.error ?? why
  return (
    <main className="sign-in">
      <form
        className="panel stack"
        onSubmit={event => {
          event.preventDefault()
          doing.mutate()
        }}
      >
        <h1 className="row">
          <img src={icon} alt="" width="28" height="28" /> Sign in to Tidelog
        </h1>
        <div className="field">
          <label htmlFor="key">API key</label>
          <input
            id="key"
            className="input mono"
            type="password"
            autoComplete="off"
            spellCheck={false}
            required
            placeholder="tl_…"
            value={key}
            onChange={event => setKey(event.target.value)}
          />
        </div>
        {error !== null && <ProblemBox error={error} />}
        <div className="row end">
          <button type="submit" className="button main" disabled={doing.isPending}>
            {doing.isPending ? 'Signing in …' : 'Sign in'}
          </button>
        </div>
        <p className="soft">
          On this machine, <code>tidelog console --open</code> signs you in without a key.
        </p>
      </form>
    </main>
  )
}
