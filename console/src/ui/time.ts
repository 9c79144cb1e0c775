/** Times and durations as people read them. */

const STEPS: readonly [number, Intl.RelativeTimeFormatUnit][] = [
  [60, 'second'],
  [60, 'minute'],
  [24, 'hour'],
  [30, 'day'],
  [12, 'month'],
  [Number.POSITIVE_INFINITY, 'year'],
]
const words = new Intl.RelativeTimeFormat('en', { numeric: 'auto' })

/** `3 minutes ago`. `from`, `now`: milliseconds since the epoch. */
export function relative(from: number, now: number): string {
  let amount = (from - now) / 1000
  if (Math.abs(amount) < 5) return 'now'
  for (const [size, unit] of STEPS) {
    if (Math.abs(amount) < size) return words.format(Math.round(amount), unit)
    amount /= size
  }
  return ''
}

/** `850 ms`, `4.2 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`. */
export function duration(ms: number): string {
  if (!Number.isFinite(ms) || ms < 0) return '–'
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`
  const pair = (large: number, big: string, small: number, little: string) =>
    small === 0 ? `${large} ${big}` : `${large} ${big} ${small} ${little}`
  const seconds = Math.round(ms / 1000)
  if (seconds < 3600) return pair(Math.floor(seconds / 60), 'min', seconds % 60, 's')
  const minutes = Math.round(seconds / 60)
  if (minutes < 1440) return pair(Math.floor(minutes / 60), 'h', minutes % 60, 'min')
  const hours = Math.round(minutes / 60)
  return pair(Math.floor(hours / 24), 'd', hours % 24, 'h')
}

/** Milliseconds between two times as the interface gives them; until now while the second is not there. */
export function between(start: string, end: string | null, now = Date.now()): number {
  return (end === null ? now : Date.parse(end)) - Date.parse(start)
}
