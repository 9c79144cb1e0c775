/** Why a step ran or did not, in a sentence: as `tidelog runs explain` says it. */
import type { Run, Step } from '../../api/types'
import { stepIsOver } from './actions/refused'

const MOST = 6
const WIDTH = 160

function short(text: string): string {
  return text.length > WIDTH ? `${text.slice(0, WIDTH)}…` : text
}

/** `steps.a.result = 3, input.x = "y"` */
export function seen(saw: Readonly<Record<string, unknown>> | undefined): string {
  return short(
    Object.entries(saw ?? {})
      .map(([name, value]) => `${name} = ${JSON.stringify(value)}`)
      .join(', '),
  )
}

function listed(keys: readonly string[]): string {
  const more = keys.length - MOST
  return keys.slice(0, MOST).join(', ') + (more > 0 ? ` and ${more} more` : '')
}

/** `each 37 of 1,000 done, 2 failed`. Empty: the step has no parts. */
export function partsOf(step: Step): string {
  const parts = step.parts
  if (parts == null) return ''
  const count = (n: number | null | undefined) => (n ?? 0).toLocaleString('en')
  const total = parts.total ?? parts.started
  const failed = parts.failed > 0 ? `, ${count(parts.failed)} failed` : ''
  const cancelled = parts.cancelled > 0 ? `, ${count(parts.cancelled)} cancelled` : ''
  const most = step.form === 'repeat' ? 'at most ' : ''
  return `${count(parts.completed)} of ${most}${count(total)} done${failed}${cancelled}`
}

function condition(step: Step): string {
  const saw = seen(step.why?.saw)
  return `${short(step.why?.condition ?? '')}${saw === '' ? '' : `, as it saw ${saw}`}`
}

function skipped(step: Step): string {
  switch (step.why?.reason) {
    case 'condition':
      return `Did not run, because its condition was false: ${condition(step)}.`
    case 'upstream':
      return 'Did not run, because all steps before it were skipped.'
    case 'not_needed':
      return `Did not run: ${step.why.by ?? 'the step after it'} had enough results without it.`
    case 'person':
      return `Was skipped by a person${said(step)}.`
    default:
      return 'Was skipped.'
  }
}

function said(step: Step): string {
  const person = step.why?.person
  if (person == null) return ''
  return ` (${person.by}${person.reason ? `: ${short(person.reason)}` : ''})`
}

/** Why the step ran or did not, and what it saw. */
export function whyOf(step: Step, run: Run): string {
  const steps = new Map(run.steps.map(each => [each.key, each]))
  const before = step.after.map(key => steps.get(key)).filter(each => each !== undefined)
  if (step.status === 'skipped') return skipped(step)
  if (step.status === 'pending') {
    const open = before.filter(each => !stepIsOver(each))
    return open.length === 0
      ? 'Has not begun.'
      : `Has not begun: it waits for ${listed(open.map(each => `${each.key} (${each.status})`))}.`
  }
  if (step.why?.person != null) return `A person said how it ended${said(step)}.`
  if (step.taken_over) return 'Was taken over from the run that this one was forked from, and did not run again.'
  if (step.scheduled_at == null && step.status === 'cancelled') return 'Did not run: the run ended before.'
  if (step.scheduled_at == null && step.status === 'failed') return 'Could not begin.'
  if (step.why?.condition != null) return `Ran, because its condition was true: ${condition(step)}.`
  if (before.length === 0) return 'Ran at once: no step comes before it.'
  return `Ran after ${listed(before.map(each => `${each.key} (${each.status})`))}.`
}
