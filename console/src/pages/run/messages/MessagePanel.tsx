import { useQuery } from '@tanstack/react-query'
import { Link } from 'wouter'

import { api, dataOf } from '../../../api/client'
import { Id } from '../../../ui/Copy'
import { Json } from '../../../ui/Json'
import { Loading, ProblemBox } from '../../../ui/States'
import { useMoment } from '../moment'
import { clockTime } from '../past/slider'
import type { Sent } from './lanes'

/** One message, with its body. */
export function MessagePanel({ message, onClose }: { readonly message: Sent; readonly onClose: () => void }) {
  const [, setMoment] = useMoment()
  const { run_id, message_id } = message
  const body = useQuery({
    queryKey: ['body', run_id, message_id],
    staleTime: 'static',
    queryFn: async ({ signal }) => {
      const wanted = { params: { path: { run_id, message_id } }, signal }
      const is: unknown = dataOf(await api.GET('/v1/runs/{run_id}/messages/{message_id}/body', wanted))
      return { is }
    },
  })
  return (
    <section className="panel stack" aria-label="The message">
      <div className="spread">
        <h3 className="mono">
          {message.sender} → {message.recipient}
        </h3>
        <button type="button" className="button small plain" aria-label="Close the message" onClick={onClose}>
          ✕
        </button>
      </div>
      <div className="row">
        <span className="soft">
          sent {clockTime(message.sent_at)}
          {message.delivered_at !== null && ` · delivered ${clockTime(message.delivered_at)}`}
          {message.received_at !== null && ` · read ${clockTime(message.received_at)}`}
        </span>
        <Id of={message_id} what="message id" />
        <button type="button" className="button small" onClick={() => setMoment(String(message.position))}>
          Show the run at this moment
        </button>
        <Link href={`/runs/${run_id}/events?event=${message.position}`}>Why</Link>
      </div>
      {message.refused !== null && <div className="fault">Not taken: {message.refused}</div>}
      {body.isPending && <Loading what="the body" />}
      {body.isError && <ProblemBox error={body.error} retry={() => void body.refetch()} />}
      {body.data !== undefined && <Json of={body.data.is} what="body of the message" />}
    </section>
  )
}
