/** Rows of a list too long to hold: windows of it, read where they are looked at, and let go when they are not any more. */

export interface Found<T> {
  readonly data: readonly T[]
  readonly first: number
  readonly total: number
}

export type Read<T> = (first: number, limit: number, signal: AbortSignal) => Promise<Found<T>>

/** Rows of one window: one request. */
export const SIZE = 200
/** Windows that are kept: some 5 MB of rows. */
const KEPT = 100
/** Requests at once. What is wanted later is not asked for before these have ended, so the newest wish is never far back in a queue. */
const AT_ONCE = 2

/** The windows that hold the rows from `first` to `last`, the middle ones first. */
export function windowsOf(first: number, last: number): number[] {
  const from = Math.floor(Math.max(0, first) / SIZE)
  const to = Math.floor(Math.max(0, last) / SIZE)
  const middle = (from + to) / 2
  return Array.from({ length: to - from + 1 }, (_, number) => from + number).sort(
    (one, other) => Math.abs(one - middle) - Math.abs(other - middle) || one - other,
  )
}

/**
 * The rows of a list that only grows at its end. Rows never change, so a full window is read once while it is kept.
 *
 * Several may look: each `want` names what one of them (`who`) looks at now, and replaces what it looked at before. A request that nobody
 * wants any more is given up.
 */
export class Windows<T> {
  /** How many rows there are, as far as is known. Null: not known yet. */
  total: number | null = null
  /** Why the last request failed. */
  error: unknown = null
  /** Grows with each change, for whoever watches. */
  version = 0
  private readonly kept = new Map<number, readonly T[]>()
  private readonly asked = new Map<number, AbortController>()
  private readonly wishes = new Map<object, readonly number[]>()
  private readonly watchers = new Set<() => void>()
  private grown = false

  constructor(private readonly read: Read<T>) {}

  readonly watch = (onChange: () => void): (() => void) => {
    this.watchers.add(onChange)
    return () => this.watchers.delete(onChange)
  }

  /** The row of a number, if it is here. */
  row(number: number): T | undefined {
    return this.kept.get(Math.floor(number / SIZE))?.[number % SIZE]
  }

  /** The first and the last row of each window that is here, with their numbers, in order. */
  ends(): [number, T][] {
    const found: [number, T][] = []
    for (const [window, rows] of [...this.kept].sort(([one], [other]) => one - other)) {
      const [first, last] = [rows[0], rows.at(-1)]
      if (first !== undefined) found.push([window * SIZE, first])
      if (last !== undefined && rows.length > 1) found.push([window * SIZE + rows.length - 1, last])
    }
    return found
  }

  /** Rows that somebody looks at now. */
  want(who: object, first: number, last: number): void {
    this.wishes.set(who, windowsOf(first, last))
    this.work()
  }

  /** Somebody looks no more. */
  leave(who: object): void {
    this.wishes.delete(who)
    this.work()
  }

  /** There may be more rows at the end. */
  grow(): void {
    this.grown = true
    this.work()
  }

  /** After an error. */
  retry(): void {
    this.error = null
    this.changed()
    this.work()
  }

  /** Other rows are true now: the log was restored. */
  forget(): void {
    for (const request of this.asked.values()) request.abort()
    this.asked.clear()
    this.kept.clear()
    this.total = null
    this.changed()
    this.work()
  }

  private isWhole(window: number): boolean {
    const rows = this.kept.get(window)
    if (rows === undefined) return false
    return rows.length === SIZE || (this.total !== null && window * SIZE + rows.length >= this.total)
  }

  private work(): void {
    const wanted = new Set([...this.wishes.values()].flat())
    for (const [window, request] of this.asked)
      if (!wanted.has(window) && !(this.grown && this.isTail(window))) this.drop(window, request)
    if (this.error !== null) return
    for (const window of wanted) {
      if (this.asked.size >= AT_ONCE) return
      if (this.asked.has(window) || this.isWhole(window) || this.isBehindEnd(window)) continue
      void this.ask(window)
    }
    if (this.grown && this.asked.size < AT_ONCE && ![...this.asked.keys()].some(window => this.isTail(window))) {
      this.grown = false
      void this.ask(this.tail())
    }
  }

  private tail(): number {
    return Math.floor((this.total ?? 0) / SIZE)
  }

  private isTail(window: number): boolean {
    return window >= this.tail()
  }

  private isBehindEnd(window: number): boolean {
    return this.total !== null && window > 0 && window * SIZE >= this.total
  }

  private drop(window: number, request: AbortController): void {
    request.abort()
    this.asked.delete(window)
  }

  private async ask(window: number): Promise<void> {
    const request = new AbortController()
    this.asked.set(window, request)
    try {
      const found = await this.read(window * SIZE, SIZE, request.signal)
      if (request.signal.aborted) return
      this.keep(window, found)
    } catch (error) {
      if (request.signal.aborted) return
      this.error = error
    }
    this.asked.delete(window)
    this.changed()
    this.work()
  }

  private keep(window: number, found: Found<T>): void {
    this.total = Math.max(this.total ?? 0, found.total)
    this.kept.delete(window)
    this.kept.set(window, found.data)
    const wanted = new Set([...this.wishes.values()].flat())
    for (const old of this.kept.keys()) {
      if (this.kept.size <= KEPT) break
      if (!wanted.has(old)) this.kept.delete(old)
    }
  }

  private changed(): void {
    this.version += 1
    for (const watcher of this.watchers) watcher()
  }
}
