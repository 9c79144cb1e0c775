import type { EventRow } from '../../../api/types'

type Say = string | ((row: EventRow) => string)

const agent = (row: EventRow) => row.agent ?? 'its agent'
const tool = (row: EventRow) => row.tool ?? 'the tool'
const attempt = (words: string) => (row: EventRow) =>
  row.attempt === undefined || row.attempt <= 1 ? words : `${words}, attempt ${row.attempt}`

/** What each event says, in the words of the command line (`tidelog replay`). Step, part and call stand beside it. */
const WORDS: Readonly<Record<string, Say>> = {
  'run.started': 'the run starts',
  'run.queued': 'the run waits for its turn',
  'run.begun': 'the run has its turn',
  'run.step_scheduled': row => (row.agent === undefined ? 'scheduled' : `scheduled for ${row.agent}`),
  'run.step_started': 'begins',
  'run.step_completed': 'completed',
  'run.step_failed': 'failed',
  'run.step_skipped': 'skipped',
  'run.step_fell_back': row => (row.agent === undefined ? 'falls back to another agent' : `falls back to ${row.agent}`),
  'run.step_taken_over': 'taken over from the run that this one was forked from',
  'run.part_scheduled': row => `waits for ${agent(row)}`,
  'run.part_completed': 'completed',
  'run.part_failed': 'failed',
  'run.part_taken_over': 'taken over from the run that this one was forked from',
  'run.completed': 'the run completed',
  'run.failed': 'the run failed',
  'run.cancelled': 'the run was cancelled',
  'run.tainted': 'text of strangers has come in',
  'run.paused': 'the run is paused',
  'run.pause_lifted': 'one of two pauses is over',
  'run.resumed': 'the run goes on',
  'run.retried': 'what failed runs again',
  'run.deadline_set': 'the run has another deadline',
  'run.priority_changed': 'the run has another priority',
  'run.signalled': 'a signal comes',
  'run.signal_awaited': 'waits for a signal',
  'run.signal_received': 'receives a signal',
  'run.signal_wait_ended': 'waits for the signal no more',
  'agent_run.requested': 'waits for a worker',
  'agent_run.claimed': attempt('a worker begins'),
  'agent_run.step_recorded': 'recorded',
  'agent_run.call_started': 'calls a tool',
  'agent_run.call_finished': 'has the outcome of the call',
  'agent_run.call_covered': 'may pay for the call',
  'agent_run.call_paid': 'has paid for the call',
  'agent_run.call_unpaid': 'has not paid for the call',
  'agent_run.wait_started': 'waits',
  'agent_run.wait_finished': 'has waited',
  'agent_run.suspended': 'only waits, and has left its worker',
  'agent_run.progressed': 'tells how far it is',
  'agent_run.portion_granted': 'has a share of the budget',
  'agent_run.portion_settled': 'gives the rest of its share back',
  'agent_run.entry_taken_over': 'takes over what was recorded',
  'agent_run.mail_taken_over': 'takes over a message',
  'agent_run.mail_delivered': 'has a message',
  'agent_run.mail_refused': 'does not take a message',
  'agent_run.mail_received': 'read a message',
  'agent_run.retry_scheduled': attempt('will try again'),
  'agent_run.resumed': 'waits for a worker again',
  'agent_run.completed': 'the agent completed',
  'agent_run.failed': 'the agent failed',
  'agent_run.cancelled': 'the agent was cancelled',
  'agent_run.paused': 'paused with the run',
  'agent_run.unpaused': 'goes on with the run',
  'agent_run.reopened': 'goes on: waits for a worker',
  'agent_run.priority_changed': 'has the new priority of the run',
  'invocation.requested': row => `${tool(row)} is asked for`,
  'invocation.attempt_started': attempt('a worker calls it'),
  'invocation.retry_scheduled': attempt('will be tried again'),
  'invocation.requeued': 'waits for a worker again',
  'invocation.succeeded': 'succeeded',
  'invocation.failed': 'failed',
  'invocation.fell_back': row => (row.tool === undefined ? 'falls back to another tool' : `falls back to ${row.tool}`),
  'invocation.became_ambiguous': 'nobody knows whether it took effect',
  'invocation.reconcile_requested': 'whether it took effect is found out',
  'invocation.reconcile_started': 'its reconcile function is called',
  'invocation.reconcile_failed': 'its reconcile function failed',
  'invocation.reconciled': 'its reconcile function has found the outcome',
  'invocation.not_happened': 'had no effect',
  'invocation.resolved': 'resolved by a person',
  'invocation.cancel_requested': 'is to be cancelled',
  'invocation.cancelled': 'cancelled',
  'invocation.compensation_requested': 'its effect is to be taken back',
  'invocation.compensation_refused': 'its effect cannot be taken back',
  'invocation.held': 'is held',
  'invocation.released': 'is released',
  'invocation.paused': 'paused with the run',
  'invocation.priority_changed': 'has the new priority of the run',
  'chain.started': 'the chain begins',
  'chain.released': 'the chain goes on',
  'chain.step_requested': row => `the chain calls ${tool(row)}`,
  'chain.step_skipped': 'the chain leaves out a step',
  'chain.step_finished': 'the chain is done with a step',
  'chain.completed': 'the chain completed',
  'chain.failed': 'the chain failed',
  'chain.cancelled': 'the chain was cancelled',
  'compensation.call_expected': 'may have an effect that can be taken back',
  'compensation.effect_recorded': 'an effect that can be taken back',
  'compensation.effect_ruled_out': 'no effect that could be taken back',
  'compensation.started': 'taking effects back begins',
  'compensation.effect_started': 'an effect is being taken back',
  'compensation.effect_compensated': 'an effect was taken back',
  'compensation.effect_not_compensated': 'an effect could not be taken back',
  'compensation.effect_skipped': 'an effect stays',
  'compensation.resumed': 'taking effects back goes on',
  'compensation.ended': 'taking effects back has ended',
  'message.sent': 'a message',
  'context.value_set': 'sets a shared value',
  'context.value_taken_over': 'takes over a shared value',
  'approval.requested': 'people are asked',
  'approval.decided': 'people have decided',
  'approval.expired': 'nobody decided in time',
  'approval.withdrawn': 'the question is withdrawn',
  'approval.notice_planned': 'a notice is to be sent',
  'approval.notice_started': 'a notice is being sent',
  'approval.notice_ended': 'a notice was sent, or not',
  'allowance.asked': 'people are asked for more of a budget',
  'allowance.spent': 'a budget is spent',
  'allowance.refused': 'a budget refuses',
  'allowance.denied': 'more of a budget is denied',
  'allowance.lifted': 'more of a budget is given',
}

/** One line of what an event says: what happened, and the reason, error or name that it gives. */
export function phrase(row: EventRow): string {
  const say = WORDS[row.type]
  const words = say === undefined ? plain(row.type) : typeof say === 'string' ? say : say(row)
  return row.text === undefined || row.text === '' ? words : `${words}: ${row.text}`
}

/** `allowance.opened` → `allowance opened`, for events that have no words of their own. */
function plain(type: string): string {
  return type.replaceAll(/[._]/g, ' ')
}

/** Where in the plan: `review`, `reviews.3`, with the call. */
export function whereOf(row: EventRow): string {
  const step = row.step === undefined ? '' : row.part === undefined ? row.step : `${row.step}.${row.part}`
  return [step, row.call ?? row.tool].filter(part => part !== undefined && part !== '').join(' · ')
}

const BAD = /(\.|_)(failed|refused|denied|became_ambiguous|not_compensated|expired)$/
const GOOD = /\.(completed|succeeded|step_completed|part_completed)$/
const WARN = /(retry_scheduled|retried|fell_back|held|paused|requested_again|cancelled|spent|asked)$/

/** The colour of an event's type. */
export function toneOfType(type: string): 'good' | 'bad' | 'warn' | '' {
  if (BAD.test(type) || type === 'invocation.became_ambiguous') return 'bad'
  if (GOOD.test(type)) return 'good'
  return WARN.test(type) ? 'warn' : ''
}
