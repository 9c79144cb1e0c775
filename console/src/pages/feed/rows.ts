import type { components } from '../../api/schema'
import type { FeedEvent } from '../../live/feed'

/** What is kept of an event. Its data stay where they are: they may be large, and ten thousand events are kept. */
export interface FeedRow {
  readonly position: number
  readonly type: string
  readonly time: string
  readonly actor: string
  /** On whose behalf; empty: nobody's. */
  readonly behalf: string
  readonly root: string
  readonly stream: string
  /** What the event says, in a line. */
  readonly text: string
}

const MOST_TEXT = 240
/** Fields whose values say what an event is about, in this order. */
const SAY = [
  'step',
  'key',
  'agent',
  'tool',
  'name',
  'from_step',
  'to',
  'action',
  'status',
  'decision',
  'reason',
  'message',
  'text',
  'worker',
  'worker_id',
  'label',
]

function said(value: unknown): string {
  if (typeof value === 'string') return value.slice(0, MOST_TEXT)
  if (typeof value === 'number' || typeof value === 'boolean') return String(value)
  return ''
}

function field(data: unknown, name: string): unknown {
  return typeof data === 'object' && data !== null && Object.hasOwn(data, name)
    ? (data as Record<string, unknown>)[name]
    : undefined
}

/** What an event says, in a line: names and reasons that are in it. */
export function textOf(data: unknown): string {
  const words: string[] = []
  for (const name of SAY) {
    const word = said(field(data, name))
    if (word !== '' && !words.includes(word)) words.push(word)
  }
  const attempt = field(data, 'attempt')
  if (typeof attempt === 'number' && attempt > 1) words.push(`attempt ${attempt}`)
  const steps = field(field(data, 'plan'), 'steps')
  if (Array.isArray(steps)) {
    const agents = new Set(steps.slice(0, 20).map(step => said(field(step, 'agent'))))
    words.push([...agents].filter(agent => agent !== '').join(', '))
  }
  for (const name of ['error', 'failure']) {
    const error = field(data, name)
    const text = [said(field(error, 'type')), said(field(error, 'message'))].filter(part => part !== '').join(': ')
    if (text !== '') words.push(text)
  }
  return words
    .filter(word => word !== '')
    .join(' · ')
    .replaceAll(/\s+/g, ' ')
    .slice(0, MOST_TEXT)
}

type Event = components['schemas']['CloudEvent'] | FeedEvent

const text = (value: unknown): string => (typeof value === 'string' ? value : '')

export function rowOf(event: Event): FeedRow {
  return {
    position: Number(event['position']),
    type: event.type,
    time: event.time,
    actor: text(event['actor']),
    behalf: text(event['onbehalfof']),
    root: text(event['rootid']),
    stream: text(event.subject),
    text: textOf(event.data),
  }
}

const OF_RUNS: ReadonlySet<string> = new Set(['run', 'agent_run', 'message', 'context', 'invocation', 'chain'])

/** The run in which an event is. Null: it is in none, as a call without a run. */
export function runOf(row: Pick<FeedRow, 'type' | 'root' | 'stream'>): string | null {
  const slice = sliceOf(row.type)
  if (!OF_RUNS.has(slice)) return null
  return slice !== 'run' && row.root === row.stream ? null : row.root
}

/** The slice of an event: `agent_run` of `agent_run.claimed`. */
export function sliceOf(type: string): string {
  return type.split('.', 1)[0] ?? ''
}

const BAD = /\.(failed|.*_failed|became_ambiguous|opened|denied|refused|refusals_counted|misfired|limited|expired)$/
const GOOD = /\.(completed|.*_completed|succeeded|resolved|reconciled|ended)$/
const WARN =
  /\.(cancelled|paused|held|suspended|retry_scheduled|requeued|timed_out|withdrawn|.*_skipped|deprecated|removed)$/

/** How an event looks: whether something went well, wrong, or stands still. */
export function toneOfType(type: string): 'good' | 'bad' | 'warn' | 'idle' {
  if (BAD.test(type)) return type.startsWith('allowance.') ? 'warn' : 'bad'
  if (GOOD.test(type)) return 'good'
  return WARN.test(type) ? 'warn' : 'idle'
}
