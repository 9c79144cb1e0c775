import './layout.css'

import { useIsFetching } from '@tanstack/react-query'
import { type ReactNode, useEffect, useRef } from 'react'
import { Link, useLocation } from 'wouter'

import { signOut } from '../api/session'
import icon from '../icon.svg'
import { useLink } from '../live/hooks'
import { InboxCount } from '../pages/inbox/InboxCount'
import { queries } from './queries'
import { useSession } from './session'
import { setTheme, type Theme, useTheme } from './theme'

const PLACES: readonly { path: string; name: string }[] = [
  { path: '/runs', name: 'Runs' },
  { path: '/inbox', name: 'Inbox' },
  { path: '/feed', name: 'Feed' },
  { path: '/agents', name: 'Agents' },
  { path: '/tools', name: 'Tools' },
  { path: '/workers', name: 'Workers' },
  { path: '/health', name: 'Health' },
]

/** What surrounds every page: where one can go, who one is, and whether the server is there. */
export function Layout({ children, onSignedOut }: { readonly children: ReactNode; readonly onSignedOut: () => void }) {
  const [location] = useLocation()
  const session = useSession()
  const link = useLink()
  const page = useRef<HTMLElement>(null)
  const theme = useTheme()
  const busy = useIsFetching({ predicate: query => query.state.status === 'pending' }) > 0
  const place = location.split('/')[1] ?? ''
  useEffect(() => {
    document.title = `${PLACES.find(known => known.path === `/${place}`)?.name ?? 'Console'} · Tidelog`
    window.scrollTo(0, 0)
  }, [place])
  return (
    <div className="shell">
      <a
        className="button skip"
        href="#page"
        onClick={event => {
          event.preventDefault()
          page.current?.focus()
        }}
      >
        Skip to content
      </a>
      <header className="side">
        <Link className="brand" href="/runs">
          <img src={icon} alt="" />
          Tidelog
        </Link>
        <nav aria-label="Console">
          {PLACES.map(({ path, name }) => (
            <Link key={path} href={path} aria-current={`/${place}` === path ? 'page' : undefined}>
              {name}
              {path === '/inbox' && <InboxCount />}
            </Link>
          ))}
        </nav>
        <div className="foot">
          <label className="row">
            <span className="hidden">Theme</span>
            <select className="input" value={theme} onChange={event => setTheme(event.target.value as Theme)}>
              <option value="auto">Theme of the system</option>
              <option value="light">Light</option>
              <option value="dark">Dark</option>
            </select>
          </label>
          <span className="soft mono" title={`key ${session.key_id}`}>
            {session.role} · {session.key_id.slice(-6)}
          </span>
          <button
            type="button"
            className="button small"
            onClick={() => {
              void signOut().finally(() => {
                queries.clear()
                onSignedOut()
              })
            }}
          >
            Sign out
          </button>
        </div>
      </header>
      <div>
        <div
          role="status"
          data-testid="connection"
          data-state={link}
          className={link === 'lost' ? 'offline' : 'hidden'}
        >
          {link === 'lost'
            ? 'The server cannot be reached. What you see may be old; it goes on by itself.'
            : link === 'open'
              ? 'Live'
              : 'Connecting'}
        </div>
        <main id="page" className="page" tabIndex={-1} ref={page} aria-busy={busy}>
          {children}
        </main>
      </div>
    </div>
  )
}
