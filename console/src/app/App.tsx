import { QueryClientProvider } from '@tanstack/react-query'
import { useEffect, useState } from 'react'
import { Router } from 'wouter'

import { whenSignedOut } from '../api/client'
import { CONSOLE } from '../api/place'
import { currentSession, onOthersChange, type Session, signIn, takeLink } from '../api/session'
import { SignIn } from '../pages/signin/SignIn'
import { Loading, ProblemBox } from '../ui/States'
import { Layout } from './Layout'
import { Pages } from './Pages'
import { queries } from './queries'
import { SessionContext } from './session'

type State =
  { is: 'asking' } | { is: 'out'; why: unknown } | { is: 'in'; session: Session } | { is: 'broken'; error: unknown }

async function begin(): Promise<State> {
  const link = takeLink()
  try {
    if (link !== null) return { is: 'in', session: await signIn({ link }) }
  } catch (error) {
    const session = await currentSession().catch(() => null)
    return session === null ? { is: 'out', why: error } : { is: 'in', session }
  }
  const session = await currentSession()
  return session === null ? { is: 'out', why: null } : { is: 'in', session }
}

export function App() {
  const [state, setState] = useState<State>({ is: 'asking' })
  useEffect(() => {
    whenSignedOut(() => {
      queries.clear()
      setState({ is: 'out', why: null })
    })
    begin().then(setState, (error: unknown) => setState({ is: 'broken', error }))
    return onOthersChange(() => location.reload())
  }, [])
  return (
    <QueryClientProvider client={queries}>
      <Router base={CONSOLE}>
        {state.is === 'asking' && <Loading what="the console" />}
        {state.is === 'broken' && (
          <main className="page">
            <ProblemBox error={state.error} retry={() => location.reload()} />
          </main>
        )}
        {state.is === 'out' && <SignIn why={state.why} onSignedIn={session => setState({ is: 'in', session })} />}
        {state.is === 'in' && (
          <SessionContext value={state.session}>
            <Layout onSignedOut={() => setState({ is: 'out', why: null })}>
              <Pages />
            </Layout>
          </SessionContext>
        )}
      </Router>
    </QueryClientProvider>
  )
}
