import { useSession } from '../../app/session'
import { useLiveInbox, useWaiting } from './data'

/** How much waits for whoever is signed in. It listens for the whole inbox, since it is on every page. */
export function InboxCount() {
  const { role } = useSession()
  useLiveInbox(role)
  const { approvals, calls, more } = useWaiting(role)
  const count = approvals + calls
  if (count === 0) return null
  return (
    <span className="count">
      {more ? '99+' : count}
      <span className="hidden"> waiting</span>
    </span>
  )
}
