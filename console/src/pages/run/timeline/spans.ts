/** What happened when, as bars over time. */
import type { Call, Run, Step } from '../../../api/types'
import { toneOf } from '../../../ui/Status'

/** Types of the events that tell what rows of the run do not: attempts, retries, waits, pauses, and effects that are taken back. */
export const TYPES = [
  'agent_run.claimed',
  'agent_run.retry_scheduled',
  'agent_run.completed',
  'agent_run.failed',
  'agent_run.suspended',
  'agent_run.wait_started',
  'agent_run.wait_finished',
  'invocation.held',
  'invocation.released',
  'invocation.retry_scheduled',
  'run.paused',
  'run.resumed',
  'compensation.effect_started',
  'compensation.effect_compensated',
  'compensation.effect_not_compensated',
  'compensation.effect_skipped',
] as const

export interface SpanEvent {
  readonly type: string
  readonly time: string
  readonly subject?: string | null
  readonly data?: unknown
}

export type Kind = 'run' | 'step' | 'part' | 'attempt' | 'call' | 'wait' | 'pause' | 'effect'
export type Look = 'good' | 'bad' | 'warn' | 'busy' | 'idle' | 'quiet'

/** A stretch of a bar. Milliseconds since the epoch; `to` null: it goes on. */
export interface Stretch {
  readonly from: number
  readonly to: number | null
  readonly look: Look
  readonly what: string
}

export interface Row {
  readonly id: string
  readonly kind: Kind
  readonly label: string
  readonly depth: number
  readonly stretches: readonly Stretch[]
  /** The step that the row belongs to. Null: the run itself. */
  readonly step: string | null
  readonly call?: string
  readonly status: string
  /** Whether there are rows below that can be shown. */
  readonly opens?: boolean
  /** How many calls of the step are not loaded. */
  readonly missing?: number
}

const time = (at: string | null | undefined): number | null => (at == null ? null : Date.parse(at))
const text = (data: unknown, field: string): string => {
  const value = (data as Readonly<Record<string, unknown>> | null)?.[field]
  return typeof value === 'string' || typeof value === 'number' ? String(value) : ''
}
const reasonOf = (data: unknown): string => {
  const error = (data as { error?: { type?: string; message?: string } } | null)?.error
  return error?.type === undefined ? '' : `: ${error.type}: ${(error.message ?? '').slice(0, 200)}`
}

/** Events by the stream they belong to: an agent run, a call, the run. */
export function bySubject(events: readonly SpanEvent[]): ReadonlyMap<string, SpanEvent[]> {
  const all = new Map<string, SpanEvent[]>()
  for (const event of events) {
    const of = event.subject ?? ''
    const known = all.get(of)
    if (known === undefined) all.set(of, [event])
    else known.push(event)
  }
  return all
}

/** The attempts of an agent run, and the pauses between them. */
export function attempts(events: readonly SpanEvent[], end: number | null, look: Look): Stretch[] {
  const found: Stretch[] = []
  let began: number | null = null
  let attempt = ''
  const close = (to: number, how: Look, what: string) => {
    if (began !== null) found.push({ from: began, to, look: how, what })
    began = null
  }
  for (const event of events) {
    const at = Date.parse(event.time)
    switch (event.type) {
      case 'agent_run.claimed':
        if (began !== null) close(at, 'warn', `attempt ${attempt}, taken from its worker`)
        began = at
        attempt = text(event.data, 'attempt')
        break
      case 'agent_run.retry_scheduled':
        close(at, 'bad', `attempt ${attempt} failed${reasonOf(event.data)}`)
        found.push({
          from: at,
          to: at + Number(text(event.data, 'delay_s') || 0) * 1000,
          look: 'quiet',
          what: 'waits for the next attempt',
        })
        break
      case 'agent_run.suspended':
        close(at, 'busy', `attempt ${attempt}, until it left its worker to wait`)
        break
      case 'agent_run.completed':
        close(at, look, `attempt ${attempt} completed`)
        break
      case 'agent_run.failed':
        close(at, 'bad', `attempt ${attempt} failed${reasonOf(event.data)}`)
        break
    }
  }
  if (began !== null) found.push({ from: began, to: end, look, what: `attempt ${attempt}` })
  return found
}

/** What an agent waits for: sleeps, signals, approvals, child runs. */
export function waitsOf(events: readonly SpanEvent[], step: string, depth: number, end: number | null): Row[] {
  const open = new Map<string, { from: number; kind: string; name: string }>()
  const rows: Row[] = []
  const row = (key: string, to: number | null) => {
    const wait = open.get(key)
    if (wait === undefined) return
    open.delete(key)
    const what = `waits for ${wait.kind === 'sleep' ? 'the clock' : wait.kind}${wait.name === '' ? '' : ` ${wait.name}`}`
    rows.push({
      id: `wait ${step} ${key} ${wait.from}`,
      kind: 'wait',
      label: key,
      depth,
      step,
      status: to === null ? 'waiting' : 'over',
      stretches: [{ from: wait.from, to, look: 'warn', what }],
    })
  }
  for (const event of events) {
    const key = text(event.data, 'key')
    if (event.type === 'agent_run.wait_started') {
      open.set(key, { from: Date.parse(event.time), kind: text(event.data, 'kind'), name: text(event.data, 'name') })
    } else if (event.type === 'agent_run.wait_finished') row(key, Date.parse(event.time))
  }
  for (const key of [...open.keys()]) row(key, end)
  return rows
}

/** A call: held for an approval, tried, and tried again. */
export function callRow(call: Call, events: readonly SpanEvent[]): Row {
  const stretches: Stretch[] = []
  let from = Date.parse(call.started_at)
  let held = false
  for (const event of events) {
    const at = Date.parse(event.time)
    if (event.type === 'invocation.held') held = true
    else if (event.type === 'invocation.released') {
      stretches.push({ from, to: at, look: 'warn', what: 'held: waits for an approval or a budget' })
      from = at
      held = false
    } else if (event.type === 'invocation.retry_scheduled') {
      const next = at + Number(text(event.data, 'delay_s') || 0) * 1000
      stretches.push({ from, to: at, look: 'bad', what: `attempt failed${reasonOf(event.data)}` })
      stretches.push({ from: at, to: next, look: 'quiet', what: 'waits for the next attempt' })
      from = next
    }
  }
  const status = call.status
  const what = `${call.tool} ${status}${reasonOf({ error: call.error })}`
  stretches.push({ from, to: time(call.finished_at), look: held ? 'warn' : toneOf(status), what })
  return {
    id: `call ${call.invocation_id}`,
    kind: 'call',
    label: call.key,
    depth: 2,
    step: call.step,
    call: call.invocation_id,
    status,
    stretches,
  }
}

interface Told {
  readonly run: Run
  readonly calls: readonly Call[]
  readonly events: readonly SpanEvent[]
  readonly open: (step: string) => boolean
}

/** All rows, in the order of their beginning, those below a step only where it is open. */
export function rowsOf({ run, calls, events, open }: Told): Row[] {
  const told = bySubject(events)
  const callsOf = new Map<string, Call[]>()
  for (const call of calls) {
    const known = callsOf.get(call.step)
    if (known === undefined) callsOf.set(call.step, [call])
    else known.push(call)
  }
  const begun = run.steps
    .filter(step => step.scheduled_at != null || step.started_at != null)
    .sort((a, b) => (a.scheduled_at ?? a.started_at ?? '').localeCompare(b.scheduled_at ?? b.started_at ?? ''))
  const rows: Row[] = [runRow(run, told.get(run.run_id) ?? [])]
  for (const step of begun) {
    const own = callsOf.get(step.key) ?? []
    const inside = partsOf(step, told)
    const waits = waitsOf(told.get(step.agent_run_id ?? '') ?? [], step.key, 2, time(step.finished_at))
    const opens = inside.length + waits.length + step.call_count > 0
    rows.push({ ...stepRow(step, told), opens })
    if (!opens || !open(step.key)) continue
    rows.push(...inside)
    const below = [...waits, ...own.map(call => callRow(call, told.get(call.invocation_id) ?? []))]
    rows.push(...below.sort((a, b) => (a.stretches[0]?.from ?? 0) - (b.stretches[0]?.from ?? 0)))
    const missing = step.call_count - own.length
    if (missing > 0) {
      const label = `${missing.toLocaleString('en')} more calls`
      rows.push({
        id: `more ${step.key}`,
        kind: 'call',
        label,
        depth: 2,
        step: step.key,
        status: '',
        stretches: [],
        missing,
      })
    }
  }
  return [...rows, ...effectsOf(events)]
}

function runRow(run: Run, events: readonly SpanEvent[]): Row {
  const pauses: Stretch[] = []
  let paused: number | null = null
  for (const event of events) {
    if (event.type === 'run.paused') paused = Date.parse(event.time)
    else if (event.type === 'run.resumed' && paused !== null) {
      pauses.push({ from: paused, to: Date.parse(event.time), look: 'warn', what: 'paused' })
      paused = null
    }
  }
  const end = time(run.finished_at)
  if (paused !== null) pauses.push({ from: paused, to: end, look: 'warn', what: 'paused' })
  const whole = { from: Date.parse(run.created_at), to: end, look: toneOf(run.status), what: `the run: ${run.status}` }
  return {
    id: 'run',
    kind: 'run',
    label: 'run',
    depth: 0,
    step: null,
    status: run.status,
    stretches: [whole, ...pauses],
  }
}

function stepRow(step: Step, told: ReadonlyMap<string, SpanEvent[]>): Row {
  const status = step.status
  const look = toneOf(status)
  const end = time(step.finished_at)
  const asked = time(step.scheduled_at) ?? time(step.started_at) ?? 0
  const began = time(step.started_at)
  const tried = attempts(told.get(step.agent_run_id ?? '') ?? [], end, look)
  const queue: Stretch = { from: asked, to: tried[0]?.from ?? began ?? end, look: 'quiet', what: 'waits for a worker' }
  const stretches = tried.length > 0 ? [queue, ...tried] : [{ from: began ?? asked, to: end, look, what: status }]
  return { id: `step ${step.key}`, kind: 'step', label: step.key, depth: 1, step: step.key, status, stretches }
}

function partsOf(step: Step, told: ReadonlyMap<string, SpanEvent[]>): Row[] {
  return (step.parts?.first ?? []).map(part => {
    const status = part.status
    const end = time(part.finished_at)
    const tried = attempts(told.get(part.agent_run_id ?? '') ?? [], end, toneOf(status))
    const from = time(part.started_at) ?? Date.parse(part.scheduled_at)
    return {
      id: `part ${step.key} ${part.number}`,
      kind: 'part',
      label: `${step.key}.${part.number}`,
      depth: 2,
      step: step.key,
      status,
      stretches: tried.length > 0 ? tried : [{ from, to: end, look: toneOf(status), what: status }],
    }
  })
}

/** Effects that are taken back, each from the begin of its compensating call to its end. */
function effectsOf(events: readonly SpanEvent[]): Row[] {
  const rows = new Map<string, Row>()
  for (const event of events) {
    if (!event.type.startsWith('compensation.effect_')) continue
    const number = text(event.data, 'number')
    const at = Date.parse(event.time)
    const before = rows.get(number)
    const begin = (what: string): Stretch => ({ from: at, to: null, look: 'busy', what })
    if (event.type === 'compensation.effect_started' || before === undefined) {
      const stretches = [...(before?.stretches ?? []), begin('is taken back')]
      const label = `take back effect ${number}`
      rows.set(number, {
        id: `effect ${number}`,
        kind: 'effect',
        label,
        depth: 1,
        step: null,
        status: 'running',
        stretches,
      })
      continue
    }
    const good = event.type === 'compensation.effect_compensated'
    const last = before.stretches.at(-1) ?? begin('')
    const end: Stretch = {
      ...last,
      to: at,
      look: good ? 'good' : 'bad',
      what: good ? 'taken back' : `not taken back${reasonOf(event.data)}`,
    }
    rows.set(number, {
      ...before,
      status: good ? 'completed' : 'failed',
      stretches: [...before.stretches.slice(0, -1), end],
    })
  }
  return [...rows.values()]
}

/** From when to when something is shown. */
export interface Span {
  readonly from: number
  readonly to: number
}

/** The whole time of all rows; what goes on, goes on until now. */
export function wholeOf(rows: readonly Row[], now: number): Span {
  let from = Number.POSITIVE_INFINITY
  let to = 0
  for (const row of rows) {
    for (const each of row.stretches) {
      if (each.from < from) from = each.from
      const end = each.to ?? Math.max(now, each.from)
      if (end > to) to = end
    }
  }
  if (!Number.isFinite(from)) return { from: now - 1000, to: now }
  return { from, to: Math.max(to, from + 10) }
}

const STEPS_MS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5, 72e5, 216e5, 432e5,
  864e5,
]

/** Round times since the beginning, a handful of them. */
export function ticks({ from, to }: Span, origin: number): number[] {
  const wanted = (to - from) / 6
  const step = STEPS_MS.find(each => each >= wanted) ?? Math.ceil(wanted / 864e5) * 864e5
  const found: number[] = []
  for (let at = Math.ceil((from - origin) / step) * step; origin + at <= to; at += step) found.push(origin + at)
  return found
}

/** Where a stretch stands in what is shown, in per cent. Null: outside. */
export function placeOf(each: Stretch, shown: Span, now: number): { left: number; width: number } | null {
  const end = each.to ?? Math.max(now, each.from)
  if (end < shown.from || each.from > shown.to) return null
  const size = shown.to - shown.from
  const left = (Math.max(each.from, shown.from) - shown.from) / size
  const right = (Math.min(end, shown.to) - shown.from) / size
  return { left: left * 100, width: (right - left) * 100 }
}

/** Another part of the time: nearer (`by` < 1) or farther around the middle, or moved by a part of itself. */
export function zoomed(shown: Span, whole: Span, by: number, moved = 0): Span {
  const size = Math.min((shown.to - shown.from) * by, whole.to - whole.from)
  const middle = (shown.from + shown.to) / 2 + moved * (shown.to - shown.from)
  const from = Math.max(whole.from, Math.min(middle - size / 2, whole.to - size))
  return { from, to: from + Math.max(size, 1) }
}
