import type { Call } from '../../api/types'
import { Status } from '../../ui/Status'
import { Time, Took } from '../../ui/Time'
import { type Column, VirtualTable } from '../../ui/VirtualTable'

/** A call as a run's document or its list of calls has it. */
export type ListedCall = Omit<Call, 'step' | 'agent_run_id' | 'position'> & { readonly step?: string }

interface Props {
  readonly calls: readonly ListedCall[]
  readonly chosen: string | null
  readonly onChoose: (id: string | null) => void
  readonly onEnd?: (() => void) | undefined
  readonly total?: number | undefined
}

const COLUMNS: readonly Column<ListedCall>[] = [
  {
    key: 'call',
    name: 'Call',
    track: 'minmax(9rem, 1.6fr)',
    cell: call => <span className="mono">{call.key}</span>,
  },
  {
    key: 'step',
    name: 'Step',
    track: 'minmax(5rem, 1fr)',
    wide: true,
    cell: call => (
      <span className="soft">
        {call.step}
        {call.part != null && ` part ${call.part}`}
      </span>
    ),
  },
  { key: 'status', name: 'Status', track: '7.5rem', cell: call => <Status of={call.status} /> },
  { key: 'began', name: 'Began', track: '7.5rem', wide: true, cell: call => <Time of={call.started_at} /> },
  { key: 'took', name: 'Took', track: '5rem', cell: call => <Took from={call.started_at} to={call.finished_at} /> },
  { key: 'attempts', name: 'Attempts', track: '4.5rem', number: true, wide: true, cell: call => call.attempts },
  {
    key: 'what',
    name: 'What became of it',
    track: 'minmax(10rem, 2fr)',
    wide: true,
    cell: call => (
      <>
        {call.error != null && `${call.error.type}: ${call.error.message.slice(0, 300)}`}
        {call.fallback != null && <span className="tag">answered by {call.fallback}</span>}
        {call.resolution != null && <span className="tag">a person said its outcome</span>}
        {call.cancel_requested && <span className="tag">cancelled</span>}
      </>
    ),
  },
]

/** Calls of tools, in the order of their start. */
export function CallRows({ calls, chosen, onChoose, onEnd, total }: Props) {
  return (
    <VirtualTable
      label="Calls"
      rows={calls}
      columns={COLUMNS}
      rowKey={call => call.invocation_id}
      testId="call-row"
      data={call => ({ 'data-status': call.status, 'data-call': call.invocation_id })}
      opened={chosen}
      onOpen={call => onChoose(call.invocation_id === chosen ? null : call.invocation_id)}
      onEnd={onEnd}
      {...(total === undefined ? {} : { total })}
    />
  )
}
