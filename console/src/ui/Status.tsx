type Tone = 'good' | 'bad' | 'warn' | 'busy' | 'idle'

/** How every status of the product looks, wherever it stands: of runs, steps, calls, approvals, breakers, workers. */
const TONES: Readonly<Record<string, Tone>> = {
  completed: 'good',
  succeeded: 'good',
  approved: 'good',
  closed: 'good',
  online: 'good',
  ready: 'good',
  ok: 'good',
  failed: 'bad',
  denied: 'bad',
  open: 'bad',
  ambiguous: 'bad',
  timed_out: 'bad',
  degraded: 'warn',
  paused: 'warn',
  waiting: 'warn',
  suspended: 'warn',
  requested: 'warn',
  held: 'warn',
  half_open: 'warn',
  running: 'busy',
  started: 'busy',
  claimed: 'busy',
}

export function toneOf(status: string): Tone {
  return TONES[status] ?? 'idle'
}

/** A status as a word with a colour; the word alone says it. */
export function Status({ of }: { readonly of: string }) {
  return <span className={`badge ${toneOf(of)}`}>{of.replaceAll('_', ' ')}</span>
}
