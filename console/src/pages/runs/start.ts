/** What a run is started with. */
import type { components } from '../../api/schema'

export type Kind = 'agent' | 'sequential' | 'parallel' | 'workflow' | 'command' | 'plan'
export const KINDS: readonly { kind: Kind; name: string }[] = [
  { kind: 'agent', name: 'One agent' },
  { kind: 'sequential', name: 'Agents, one after the other' },
  { kind: 'parallel', name: 'Agents, at the same time' },
  { kind: 'workflow', name: 'A workflow' },
  { kind: 'command', name: 'A slash command' },
  { kind: 'plan', name: 'A plan as JSON' },
]

export interface Form {
  readonly kind: Kind
  /** The agent, or the workflow. */
  readonly name: string
  readonly agents: readonly string[]
  readonly aggregator: string
  /** The line of a slash command. */
  readonly line: string
  readonly plan: unknown
  readonly input: unknown
  readonly projectId: string
  readonly priority: '' | 'high' | 'normal' | 'low'
  /** Seconds, or nothing. */
  readonly deadline: string
  readonly concurrencyKey: string
  readonly onBusy: 'queue' | 'reject' | 'replace'
  readonly metadata: unknown
  readonly money: string
}

export const EMPTY: Form = {
  kind: 'agent',
  name: '',
  agents: [''],
  aggregator: '',
  line: '',
  plan: undefined,
  input: undefined,
  projectId: '',
  priority: '',
  deadline: '',
  concurrencyKey: '',
  onBusy: 'queue',
  metadata: undefined,
  money: '',
}

/** The form that an address asks for: `agent:greeter`, `workflow:digest`, `command:/task …`, or nothing. */
export function begun(what: string): Form {
  const at = what.indexOf(':')
  const kind = KINDS.find(one => one.kind === what.slice(0, at))?.kind
  const rest = what.slice(at + 1)
  if (kind === 'agent' || kind === 'workflow') return { ...EMPTY, kind, name: rest }
  if (kind === 'command') return { ...EMPTY, kind, line: rest }
  return EMPTY
}

export type StartBody = components['schemas']['StartRunBody']
export type CommandBody = components['schemas']['CommandBody']

/** Why a form cannot be sent yet. Null: it can. */
export function lacks(form: Form): string | null {
  const agents = form.agents.filter(agent => agent.trim() !== '')
  const seconds = Number(form.deadline)
  if (form.kind === 'agent' && form.name.trim() === '') return 'Name the agent'
  if (form.kind === 'workflow' && form.name.trim() === '') return 'Name the workflow'
  if ((form.kind === 'sequential' || form.kind === 'parallel') && agents.length === 0) return 'Name the agents'
  if (form.kind === 'command' && !form.line.trim().startsWith('/')) return 'A command begins with /'
  if (form.kind === 'plan' && form.plan === undefined) return 'Write the plan'
  if (form.deadline.trim() !== '' && !(seconds > 0)) return 'The deadline is a number of seconds'
  if (form.money.trim() !== '' && !/^\d{1,15}(\.\d{1,9})?$/.test(form.money.trim())) return 'The budget is an amount'
  return null
}

/** The body of `POST /v1/runs`. What is not given is not said: the workflow, or the server, says it. */
export function startBody(form: Form): StartBody {
  const agents = form.agents.map(agent => agent.trim()).filter(Boolean)
  const what = {
    agent: { agent: form.name.trim() },
    workflow: { workflow: { name: form.name.trim() } },
    sequential: { plan: { kind: 'sequential', agents } },
    parallel: {
      plan: { kind: 'parallel', agents, ...(form.aggregator.trim() ? { aggregator: form.aggregator.trim() } : {}) },
    },
    plan: { plan: form.plan },
    command: {},
  }[form.kind]
  return {
    ...what,
    ...(form.input === undefined ? {} : { input: form.input }),
    ...(form.projectId === '' ? {} : { project_id: form.projectId }),
    ...(form.priority === '' ? {} : { priority: form.priority }),
    ...(form.deadline.trim() === '' ? {} : { deadline_s: Number(form.deadline) }),
    ...(form.concurrencyKey.trim() === ''
      ? {}
      : { concurrency: { key: form.concurrencyKey.trim(), on_busy: form.onBusy } }),
    ...(form.metadata === undefined ? {} : { metadata: form.metadata }),
    ...(form.money.trim() === '' ? {} : { budget: { money: form.money.trim() } }),
  } as unknown as StartBody
}

/** The body of `POST /v1/commands`. */
export function commandBody(form: Form, dryRun: boolean): CommandBody {
  return {
    text: form.line.trim(),
    ...(form.projectId === '' ? {} : { project_id: form.projectId }),
    ...(form.deadline.trim() === '' ? {} : { deadline_s: Number(form.deadline) }),
    ...(dryRun ? { dry_run: true } : {}),
  } as CommandBody
}
