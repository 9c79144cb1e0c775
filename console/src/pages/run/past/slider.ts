/** The arithmetic of the slider: numbers of events, positions of the log, and times. */

export interface Place {
  readonly number: number
  readonly position: number
}

/** Where a number stands from the first event (0) to the last (1). */
export function share(number: number, total: number): number {
  return total <= 1 ? 1 : Math.min(1, Math.max(0, number / (total - 1)))
}

/** The number after a key of the keyboard; null: the key does nothing here. Beyond the last event is now. */
export function keyed(key: string, number: number, total: number): number | null {
  const leap = Math.max(1, Math.round(total / 20))
  const steps: Readonly<Record<string, number>> = {
    ArrowLeft: -1,
    ArrowDown: -1,
    ArrowRight: 1,
    ArrowUp: 1,
    PageDown: -leap,
    PageUp: leap,
  }
  if (key === 'Home') return 0
  if (key === 'End') return total
  const step = steps[key]
  return step === undefined ? null : Math.min(total, Math.max(0, number + step))
}

/**
 * About which number the event at a position has, by known places around it. Positions of other runs stand between those of a run, so this
 * is a guess, good enough for a mark on the slider.
 */
export function numberOf(position: number, known: readonly Place[]): number {
  let low = 0
  let high = known.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((known[middle]?.position ?? 0) <= position) low = middle + 1
    else high = middle
  }
  const before = known[low - 1]
  const after = known[low]
  if (before === undefined) return after?.number ?? 0
  if (after === undefined || before.position === position) return before.number
  const part = (position - before.position) / (after.position - before.position)
  return before.number + Math.round(part * (after.number - before.number))
}

/** Numbers that are evenly spread from the first to the last. */
export function spread(total: number, count: number): number[] {
  if (total <= 0) return []
  const last = total - 1
  const most = Math.min(count, total)
  if (most === 1) return [0]
  return [...new Set(Array.from({ length: most }, (_, place) => Math.round((place * last) / (most - 1))))]
}

export type Typed = { readonly number: number } | { readonly at: string } | null

/**
 * What somebody typed to go to: `#512` the 512th event, `2330` a position of the log, `14:29` or `14:29:50.5` a time of the day on which
 * the run began, `+90s` so long after its begin, or a date with a time. Null: nothing of these.
 */
export function typed(text: string, began: number): Typed {
  const given = text.trim()
  const number = /^#\s*(\d{1,9})$/.exec(given)
  if (number !== null) return { number: Math.max(0, Number(number[1]) - 1) }
  if (/^\d{1,18}$/.test(given)) return { at: given }
  const after = /^\+\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)$/.exec(given)
  if (after !== null) {
    const units: Readonly<Record<string, number>> = {
      ms: 1,
      s: 1000,
      m: 60_000,
      min: 60_000,
      h: 3_600_000,
      d: 86_400_000,
    }
    return { at: new Date(began + Number(after[1]) * (units[after[2] ?? ''] ?? 0)).toISOString() }
  }
  const clock = /^(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,3}))?)?$/.exec(given)
  if (clock !== null) {
    const [hour, minute, second] = [Number(clock[1]), Number(clock[2]), Number(clock[3] ?? 0)]
    if (hour > 23 || minute > 59 || second > 59) return null
    const day = new Date(began)
    day.setHours(hour, minute, second, Number((clock[4] ?? '').padEnd(3, '0')))
    // Of a run over midnight, a time before its begin is one of the next day. A minute or second means all of it.
    const unit = clock[4] !== undefined ? 0 : clock[3] !== undefined ? 999 : 59_999
    if (day.getTime() + unit < began) day.setDate(day.getDate() + 1)
    return { at: new Date(day.getTime() + unit).toISOString() }
  }
  const date = /^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}/.test(given) ? Date.parse(given.replace(' ', 'T')) : Number.NaN
  return Number.isNaN(date) ? null : { at: new Date(date).toISOString() }
}

/** A time of a day, to the millisecond, as it is where the browser stands. */
export function clockTime(time: string): string {
  const at = new Date(time)
  const two = (value: number) => String(value).padStart(2, '0')
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`
}
