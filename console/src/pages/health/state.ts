import type { Readiness } from './data'

export interface Consumer {
  readonly name: string
  readonly kind: 'saga' | 'copy' | 'other'
  readonly position: number
  readonly lag: number
  readonly parked: number
}

/** Lags up to which a consumer is as good as there: it takes events in batches. */
const NEAR = 100

/** What follows the log and is no read model: sagas, triggers, copies in JetStream. The partitions of the sagas as one. */
export function consumersOf(report: Readiness, models: ReadonlySet<string>): Consumer[] {
  const parked = report.parked ?? {}
  const found: Consumer[] = []
  const sagas: Consumer[] = []
  for (const [name, progress] of Object.entries(report.consumers)) {
    if (models.has(name)) continue
    const one = { name, kind: 'other' as const, ...progress, parked: parked[name] ?? 0 }
    if (name.startsWith('sagas:')) sagas.push({ ...one, kind: 'saga' })
    else found.push(one)
  }
  if (sagas.length > 0) {
    found.push({
      name: sagas.length === 1 ? 'sagas' : `sagas (${sagas.length} partitions)`,
      kind: 'saga',
      position: Math.min(...sagas.map(one => one.position)),
      lag: Math.max(...sagas.map(one => one.lag)),
      parked: sagas.reduce((sum, one) => sum + one.parked, 0),
    })
  }
  for (const [name, progress] of Object.entries(report.streams ?? {}))
    found.push({ name: `copy for ${name}`, kind: 'copy', ...progress, parked: 0 })
  if ((parked['due-timers'] ?? 0) > 0)
    found.push({
      name: 'due-timers',
      kind: 'other',
      position: report.head ?? 0,
      lag: 0,
      parked: parked['due-timers'] ?? 0,
    })
  return found.sort((a, b) => b.lag - a.lag || (a.name < b.name ? -1 : 1))
}

/** `up to date`, `nearly`, `behind`, and how that looks. */
export function standOf(lag: number, parked: number): { text: string; tone: 'good' | 'warn' | 'bad' } {
  if (parked > 0) return { text: `${parked.toLocaleString('en')} parked`, tone: 'bad' }
  if (lag === 0) return { text: 'up to date', tone: 'good' }
  return { text: `${lag.toLocaleString('en')} behind`, tone: lag <= NEAR ? 'good' : 'warn' }
}

/** The parts of the engine's work of a process, by their first word: `projection` → [names]. */
export function unitsOf(units: readonly string[]): (readonly [string, readonly string[]])[] {
  const groups = new Map<string, string[]>()
  for (const unit of units) {
    const at = unit.indexOf(':')
    const group = at < 0 ? 'alone' : unit.slice(0, at)
    const name = at < 0 ? unit : unit.slice(at + 1)
    groups.set(group, [...(groups.get(group) ?? []), name])
  }
  return [...groups].sort(([a], [b]) => (a < b ? -1 : 1))
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

export function bytes(count: number): string {
  let amount = count
  let unit = 0
  while (amount >= 1024 && unit < UNITS.length - 1) {
    amount /= 1024
    unit++
  }
  return `${amount >= 100 || unit === 0 ? Math.round(amount) : amount.toFixed(1)} ${UNITS[unit] ?? ''}`
}

/** Where a trouble is mended. */
export const CURES: Readonly<Record<string, { path: string; name: string }>> = {
  'ambiguous-calls': { path: '/inbox', name: 'Decide in the inbox' },
  'no-worker': { path: '/workers', name: 'Workers' },
  'work-waits': { path: '/workers', name: 'Workers' },
  'import-problems': { path: '/workers', name: 'Which, and why' },
  'many-open-runs': { path: '/runs?status=running', name: 'Runs' },
}
