import './messages.css'

import { useQueryClient } from '@tanstack/react-query'
import { useEffect, useMemo, useState } from 'react'

import { api, dataOf } from '../../../api/client'
import { usePages } from '../../../api/pages'
import type { Run } from '../../../api/types'
import { useNarrow } from '../../../ui/narrow'
import { Empty, Loading, ProblemBox } from '../../../ui/States'
import { type Column, VirtualTable } from '../../../ui/VirtualTable'
import { asOf } from '../moment'
import { clockTime } from '../past/slider'
import type { PartProps } from '../RunPage'
import { arrowOf, briefly, lanesOf, type Sent } from './lanes'
import { MessagePanel } from './MessagePanel'
import { SharedValues } from './SharedValues'

/** Messages between the agents of a run as a sequence, and the values that they share. */
export function MessagesTab({ run, at }: PartProps) {
  return (
    <div className="stack">
      <Messages run={run} at={at} />
      <SharedValues run={run} at={at} />
    </div>
  )
}

/** Pages that are read anew by themselves when the run goes on. Of more, somebody asks for the new ones. */
const FRESH_PAGES = 3

function Messages({ run, at }: { readonly run: Run; readonly at: string | null }) {
  const [opened, setOpened] = useState<string | null>(null)
  const client = useQueryClient()
  // Of now: not with each event of the run, as the page's other reads, but as the effect below says.
  const key = useMemo(
    () => (at === null ? ['messages', run.run_id] : ['run', run.run_id, 'messages', at]),
    [run.run_id, at],
  )
  const messages = usePages<Sent>(key, async (cursor, signal) => {
    const wanted = { params: { path: { run_id: run.run_id }, query: { limit: 200, ...asOf(at), ...cursor } }, signal }
    const page = dataOf(await api.GET('/v1/runs/{run_id}/messages', wanted))
    return { ...page, data: page.data.map(briefly) }
  })
  const pages = messages.data?.pages.length ?? 0
  const { event_count: events } = run
  useEffect(() => {
    if (at === null && pages <= FRESH_PAGES) void client.invalidateQueries({ queryKey: key })
    // Once for each change of the run.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [client, key, at, events])
  const { rows, hasNextPage, isFetchingNextPage, fetchNextPage } = messages
  const lanes = useMemo(
    () =>
      lanesOf(
        rows,
        run.steps.map(step => step.key),
      ),
    [rows, run.steps],
  )
  const narrow = useNarrow()
  const columns = useMemo(() => (narrow ? NARROW : columnsOf(lanes)), [narrow, lanes])
  if (messages.isPending) return <Loading what="messages" />
  if (messages.isError) return <ProblemBox error={messages.error} retry={() => void messages.refetch()} />
  if (rows.length === 0) return <Empty>No agent has sent a message{at === null ? '' : ' by then'}.</Empty>
  const shown = rows.find(message => message.message_id === opened)
  return (
    <section className="stack" aria-label="Messages">
      <div className="spread">
        <h2>Messages</h2>
        <span className="soft" role="status">
          {rows.length.toLocaleString('en')}
          {hasNextPage && ' and more'}
          {at === null && pages > FRESH_PAGES && rows.length < run.message_count && (
            <button type="button" className="button small" onClick={() => void messages.refetch()}>
              Read anew
            </button>
          )}
        </span>
      </div>
      {shown !== undefined && <MessagePanel key={shown.message_id} message={shown} onClose={() => setOpened(null)} />}
      <VirtualTable
        label="Messages between agents"
        rows={rows}
        columns={columns}
        rowKey={message => message.message_id}
        testId="message-row"
        rowHeight={46}
        total={Math.max(rows.length, run.message_count)}
        opened={opened}
        onOpen={message => setOpened(message.message_id)}
        onEnd={hasNextPage && !isFetchingNextPage ? () => void fetchNextPage() : undefined}
      />
    </section>
  )
}

const NARROW: readonly Column<Sent>[] = [
  {
    key: 'message',
    name: 'Message',
    track: 'minmax(0, 1fr)',
    cell: message => (
      <>
        <div className="mono">
          {message.sender} → {message.recipient} <span className="soft">{clockTime(message.sent_at)}</span>
        </div>
        <div className="soft">{message.gist}</div>
      </>
    ),
  },
]

function columnsOf(lanes: readonly string[]): readonly Column<Sent>[] {
  const places = new Map(lanes.map((lane, place) => [lane, place]))
  const lines = lanes.map(lane => <i key={lane} aria-hidden="true" />)
  return [
    {
      key: 'time',
      name: 'Time',
      track: '6.5rem',
      cell: message => <span className="mono soft">{clockTime(message.sent_at)}</span>,
    },
    {
      key: 'lanes',
      name: (
        <span className="lanes head">
          {lanes.map(lane => (
            <span key={lane} className="mono" title={lane}>
              {lane}
            </span>
          ))}
        </span>
      ),
      track: `minmax(${lanes.length * 6.5}rem, 1fr)`,
      cell: message => {
        const arrow = arrowOf(places.get(message.sender) ?? 0, places.get(message.recipient) ?? 0, lanes.length)
        return (
          <span className="lanes">
            {lines}
            <span className="hidden">
              {message.sender} to {message.recipient}:
            </span>
            <span className="lane-text" style={{ left: `${arrow.left}%` }} title={message.gist}>
              {message.gist}
            </span>
            <span
              aria-hidden="true"
              className={`arrow ${message.status} ${arrow.toRight ? 'right' : 'left'}`}
              style={{ left: `${arrow.left}%`, width: `${arrow.width}%` }}
            />
          </span>
        )
      },
    },
    {
      key: 'status',
      name: 'Status',
      track: '5.5rem',
      cell: message => <span className={message.status === 'refused' ? 'fault' : 'soft'}>{message.status}</span>,
    },
  ]
}
