/** What the inbox says, in words. */
import type { components } from '../../api/schema'
import type { Amounts, ApprovalSummary } from './data'

type Because = components['schemas']['Because']
type Limits = Partial<Record<'money' | 'tokens' | 'calls' | 'wall_s', string | number | null>>

/** `0.01 usd, 500 tokens`: what of an amount is not nothing. */
export function told(amounts: Limits | Amounts, currency: string): string {
  const { money, tokens, calls, wall_s } = amounts as Limits
  const some = (value: string | number | null | undefined) =>
    value !== null && value !== undefined && Number(value) !== 0
  return [
    some(money) ? `${money ?? ''} ${currency}` : '',
    some(tokens) ? `${Number(tokens).toLocaleString('en')} tokens` : '',
    some(calls) ? `${Number(calls).toLocaleString('en')} ${Number(calls) === 1 ? 'call' : 'calls'}` : '',
    some(wall_s) ? `${Number(wall_s).toLocaleString('en')} s` : '',
  ]
    .filter(Boolean)
    .join(', ')
}

/** What waits, in a line. */
export function headline(approval: ApprovalSummary): string {
  if (approval.kind === 'budget' && approval.budget) {
    const { budget, day } = approval.budget
    return `More of the budget ${budget}${day ? ` of ${day}` : ''}`
  }
  return approval.title ?? approval.tool
}

export function kindOf(approval: ApprovalSummary): string {
  if (approval.kind === 'budget') return 'budget'
  return approval.title === null ? 'call' : 'question'
}

/** Why it waits, in a line. */
export function why(approval: ApprovalSummary): string {
  if (approval.kind === 'budget' && approval.budget) {
    const { limits, asked, currency } = approval.budget
    return `${told(limits, currency) || 'nothing'} is used up; the next call may cost ${told(asked, currency) || 'nothing'}`
  }
  return approval.because.map(because).join('; ') || 'an agent asks'
}

export function because(one: Because): string {
  const by = one.policy ? `policy ${one.policy}` : 'the tool itself'
  return `${by}: ${one.expression ?? 'every call'}`
}

/** `key:0190…` in short, or `you`. */
export function who(actor: string, keyId: string): string {
  if (actor === `key:${keyId}`) return 'you'
  return actor.replace(/^(\w+):([0-9a-f]{8})-[0-9a-f-]{20,}([0-9a-f]{6})$/, '$1:$2…$3')
}

/** The names of the fields at the top that two objects have differently. */
export function changedFields(before: Readonly<Record<string, unknown>>, after: unknown): string[] {
  const now = typeof after === 'object' && after !== null ? (after as Record<string, unknown>) : {}
  const names = [...new Set([...Object.keys(before), ...Object.keys(now)])]
  return names.filter(name => JSON.stringify(before[name]) !== JSON.stringify(now[name]))
}
