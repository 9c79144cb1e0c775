import type { Step } from '../../api/types'
import { Status } from '../../ui/Status'
import { Took } from '../../ui/Time'
import { type Column, VirtualTable } from '../../ui/VirtualTable'
import { partsOf } from './why'

interface Props {
  readonly steps: readonly Step[]
  readonly chosen: string | null
  readonly onChoose: (key: string | null) => void
}

/** What a step is made of, in a word or two. */
export function whatIs(step: Step): string {
  const agent = step.agent ?? ''
  const version = step.agent_version == null ? '' : `@${step.agent_version}`
  switch (step.form) {
    case 'agent':
      return agent + version
    case 'each':
      return `each: ${agent}${version}`
    case 'repeat':
      return `repeat: ${agent}${version}`
    case 'adaptive':
      return 'adaptive'
    case 'run':
      return 'child run'
    default:
      return step.form
  }
}

const COLUMNS: readonly Column<Step>[] = [
  { key: 'step', name: 'Step', track: 'minmax(7rem, 1.4fr)', cell: step => <span className="mono">{step.key}</span> },
  {
    key: 'what',
    name: 'What',
    track: 'minmax(8rem, 1.4fr)',
    wide: true,
    cell: step => (
      <>
        {whatIs(step)} <span className="soft">{partsOf(step)}</span>
      </>
    ),
  },
  { key: 'status', name: 'Status', track: '7.5rem', cell: step => <Status of={step.status} /> },
  { key: 'took', name: 'Took', track: '5.5rem', cell: step => <Took from={step.started_at} to={step.finished_at} /> },
  {
    key: 'calls',
    name: 'Calls',
    track: '4rem',
    number: true,
    wide: true,
    cell: step => (step.call_count > 0 ? step.call_count.toLocaleString('en') : ''),
  },
  {
    key: 'after',
    name: 'After',
    track: 'minmax(8rem, 1.5fr)',
    wide: true,
    cell: step => <span className="soft">{step.after.slice(0, 20).join(', ')}</span>,
  },
]

/** The steps of a run as a list: of any number, for screen readers, and for small screens. */
export function StepList({ steps, chosen, onChoose }: Props) {
  return (
    <VirtualTable
      label="Steps"
      rows={steps}
      columns={COLUMNS}
      rowKey={step => step.key}
      testId="step-row"
      data={step => ({ 'data-step': step.key, 'data-status': step.status })}
      opened={chosen}
      onOpen={step => onChoose(step.key === chosen ? null : step.key)}
    />
  )
}
