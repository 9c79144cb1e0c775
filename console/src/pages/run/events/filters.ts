import { useSearchParams } from 'wouter'

import type { EventRow } from '../../../api/types'
import { phrase } from './phrases'

/** Groups of types that people look for. A name that ends with a dot stands for all types that begin with it. */
export const GROUPS: readonly { name: string; label: string; types: readonly string[] }[] = [
  { name: 'run', label: 'Run and steps', types: ['run.'] },
  { name: 'agents', label: 'Agents', types: ['agent_run.'] },
  { name: 'calls', label: 'Tool calls', types: ['invocation.', 'chain.', 'agent_run.call_'] },
  { name: 'messages', label: 'Messages', types: ['message.', 'agent_run.mail_'] },
  { name: 'context', label: 'Shared values', types: ['context.'] },
  { name: 'approvals', label: 'Approvals', types: ['approval.', 'invocation.held', 'invocation.released'] },
  { name: 'budgets', label: 'Budgets', types: ['allowance.', 'agent_run.portion_'] },
  { name: 'effects', label: 'Effects taken back', types: ['compensation.'] },
  {
    name: 'trouble',
    label: 'Failures and retries',
    types: [
      'run.failed',
      'run.step_failed',
      'run.part_failed',
      'run.step_fell_back',
      'run.retried',
      'agent_run.failed',
      'agent_run.retry_scheduled',
      'agent_run.reopened',
      'invocation.failed',
      'invocation.retry_scheduled',
      'invocation.fell_back',
      'invocation.became_ambiguous',
      'invocation.requeued',
      'chain.failed',
      'compensation.effect_not_compensated',
      'invocation.reconcile_failed',
    ],
  },
]

/** What of a run's events is looked at. All of it stands in the address. */
export interface Filters {
  /** Names of groups, or whole types. Empty: all. */
  readonly types: readonly string[]
  readonly step: string
  /** Words that must all stand in the line. */
  readonly find: string
}

const NAMES = ['types', 'step', 'find'] as const

export function useFilters(): [Filters, (change: Partial<Filters>) => void] {
  const [params, setParams] = useSearchParams()
  const types = params.get('types') ?? ''
  const filters = {
    types: types.split(',').filter(type => type !== ''),
    step: params.get('step') ?? '',
    find: params.get('find') ?? '',
  }
  return [
    filters,
    change =>
      setParams(
        before => {
          const next = new URLSearchParams(before)
          for (const name of NAMES) {
            const given = change[name]
            if (given === undefined) continue
            const text = typeof given === 'string' ? given : given.join(',')
            if (text === '') next.delete(name)
            else next.set(name, text)
          }
          return next
        },
        { replace: true },
      ),
  ]
}

/** The types that a filter means, of all that there are; sorted and joined as the interface takes them. Null: all. */
export function typesOf(wanted: readonly string[], known: readonly string[]): string | null {
  if (wanted.length === 0) return null
  const patterns = wanted.flatMap(name => GROUPS.find(group => group.name === name)?.types ?? [name])
  const found = known.filter(type =>
    patterns.some(pattern => type === pattern || (/[._]$/.test(pattern) && type.startsWith(pattern))),
  )
  return found.length === 0 ? null : found.sort().join(',')
}

/** Whether a row is of a step, or of one part of one (`reviews.3`), and has all words. */
export function matcher({ step, find }: { step: string; find: string }): (row: EventRow) => boolean {
  const words = find
    .toLowerCase()
    .split(/\s+/)
    .filter(word => word !== '')
  return row => {
    if (step !== '' && row.step !== step && (row.part === undefined || `${row.step ?? ''}.${row.part}` !== step))
      return false
    if (words.length === 0) return true
    const text = [row.position, row.type, row.step, row.call, row.tool, row.agent, row.actor, row.stream, phrase(row)]
      .join(' ')
      .toLowerCase()
    return words.every(word => text.includes(word))
  }
}
