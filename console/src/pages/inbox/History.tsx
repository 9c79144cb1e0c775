import { useSession } from '../../app/session'
import { Status } from '../../ui/Status'
import { Time } from '../../ui/Time'
import type { Approval } from './data'
import { told, who } from './words'

/** Who has said what, and who was told. */
export function History({ approval }: { readonly approval: Approval }) {
  const session = useSession()
  const words = approval.words
  const notices = approval.notices
  if (words.length === 0 && notices.length === 0) return null
  const currency = approval.budget?.currency ?? ''
  return (
    <section className="panel stack" aria-label="History">
      <h2>History</h2>
      <ol className="plain-list">
        {words.map(word => (
          <li key={`${word.by} ${word.at}`}>
            <Status of={word.decision === 'approve' ? 'approved' : 'denied'} /> by{' '}
            <span className="mono" title={word.by}>
              {who(word.by, session.key_id)}
            </span>{' '}
            ({word.role}){word.on_behalf_of && ` for ${word.on_behalf_of}`}
            {word.via === 'link' && ', by a link'}
            {word.changed && ', with other arguments'}
            {word.add && told(word.add, currency) !== '' && `, ${told(word.add, currency)} more`}
            {!word.counts && ', before the arguments were changed: it does not count'} <Time of={word.at} />
            {word.reason && <div className="said">{word.reason}</div>}
          </li>
        ))}
        {notices.map(notice => (
          <li key={`notice ${notice.number} ${notice.key ?? ''}`}>
            <Status of={notice.status} /> notice by <span className="mono">{notice.tool}</span>
            {notice.key ? ` to key ${notice.key}` : ' to nobody by name'}
            {notice.address && ` at ${notice.address}`}{' '}
            <Time of={notice.ended_at ?? notice.begun_at ?? notice.due_at} />
            {notice.error && <div className="fault">{notice.error}</div>}
          </li>
        ))}
      </ol>
    </section>
  )
}
