import type { Run, Step } from '../../../api/types'

type Call = Step['calls'][number]

/** What is told of a step or call, on one side. */
export interface Side {
  readonly status: string
  readonly who: string
  readonly attempts: number
  readonly started: string | null
  readonly finished: string | null
  readonly said: string
}

/** A step, or a call of it, of both runs. */
export interface Pair {
  readonly id: string
  readonly step: string
  /** The key of a call; null: the step itself. */
  readonly call: string | null
  readonly one: Side | null
  readonly other: Side | null
  /** What differs, in words. Empty: nothing. */
  readonly differs: readonly string[]
}

/** Characters of a result that are compared and shown. */
const SAID = 400

function text(value: unknown): string {
  if (value === null || value === undefined) return ''
  const said = typeof value === 'string' ? value : JSON.stringify(value)
  return said.length > SAID ? `${said.slice(0, SAID)}…` : said
}

function failure(error: Step['error']): string {
  return !error ? '' : `${error.type}: ${error.message}`
}

function ofStep(step: Step): Side {
  const large = step.large?.['result']
  const result = large === undefined ? text(step.result) : `${large.bytes} bytes`
  return {
    status: step.status,
    who: `${step.agent ?? step.form}${step.agent_version ? ` v${step.agent_version}` : ''}`,
    attempts: step.attempt,
    started: step.started_at,
    finished: step.finished_at,
    said: step.error ? failure(step.error) : result,
  }
}

function ofCall(call: Call): Side {
  return {
    status: call.status,
    who: `${call.tool}${call.fallback ? ` → ${call.fallback}` : ''}`,
    attempts: call.attempts,
    started: call.started_at,
    finished: call.finished_at,
    said: failure(call.error),
  }
}

function differing(one: Side | null, other: Side | null): string[] {
  if (one === null) return ['only on the other side']
  if (other === null) return ['only on this side']
  const found: string[] = []
  if (one.status !== other.status) found.push('status')
  if (one.who !== other.who) found.push('who')
  if (one.attempts !== other.attempts) found.push('attempts')
  if (one.said !== other.said) found.push('outcome')
  return found
}

/** Entries of both lists by their keys, in the order of the first; what only the other has stands behind what comes before it there. */
export function aligned<T>(
  one: readonly T[],
  other: readonly T[],
  keyOf: (entry: T) => string,
): readonly { key: string; one: T | null; other: T | null }[] {
  const ones = new Map(one.map(entry => [keyOf(entry), entry]))
  const others = new Map(other.map(entry => [keyOf(entry), entry]))
  // What only the other has, by the entry of both that comes before it.
  const behind = new Map<string | null, string[]>()
  let last: string | null = null
  for (const key of others.keys()) {
    if (ones.has(key)) last = key
    else behind.set(last, [...(behind.get(last) ?? []), key])
  }
  const order = [...(behind.get(null) ?? [])]
  for (const key of ones.keys()) order.push(key, ...(behind.get(key) ?? []))
  return order.map(key => ({ key, one: ones.get(key) ?? null, other: others.get(key) ?? null }))
}

/** Steps of two runs side by side, each followed by its calls. */
export function alignedRuns(one: Run, other: Run): Pair[] {
  const found: Pair[] = []
  // A run shows the newest of many calls: one that only one side shows may well be on the other, too.
  const whole = showsAll(one) && showsAll(other)
  for (const steps of aligned(one.steps, other.steps, step => step.key)) {
    const [left, right] = [steps.one && ofStep(steps.one), steps.other && ofStep(steps.other)]
    found.push({ id: steps.key, step: steps.key, call: null, one: left, other: right, differs: differing(left, right) })
    for (const call of aligned(steps.one?.calls ?? [], steps.other?.calls ?? [], keyOfCall)) {
      const [before, after] = [call.one && ofCall(call.one), call.other && ofCall(call.other)]
      if (!whole && (before === null || after === null)) continue
      const id = `${steps.key} ${call.key}`
      found.push({ id, step: steps.key, call: call.key, one: before, other: after, differs: differing(before, after) })
    }
  }
  return found
}

function keyOfCall(call: Call): string {
  const part = call.part ?? null
  return part === null ? call.key : `${part} ${call.key}`
}

function showsAll(run: Run): boolean {
  return run.call_count <= run.steps.reduce((sum, step) => sum + step.calls.length, 0)
}
