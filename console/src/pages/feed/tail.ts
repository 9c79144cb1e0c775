import type { FeedRow } from './rows'

/** Rows that are kept, and rows that are kept aside while nobody follows. Whatever is older or between can be read again. */
export const MOST_ROWS = 10_000

/**
 * The end of a log, as it is shown: a window of rows that follows what comes, or stands still while what comes is kept aside.
 *
 * Nothing is lost: the log has all, and what is not kept here is read by pages.
 */
export class Tail {
  rows: FeedRow[] = []
  /** The number of the first row, by which rows keep their place while others come in front or go. */
  first = 0
  /** Events before the first row may be there. */
  older = false
  /** Between the last row and what is kept aside, nothing is missing. */
  joined = true
  /** What comes is shown at once. */
  following = true
  /** How many came while it stood still, also those that are not kept. */
  waiting = 0
  /** How many have come at all. */
  came = 0
  private aside: FeedRow[] = []
  /** Some of those that came are not kept. */
  private lost = false
  private readonly most: number

  constructor(most = MOST_ROWS) {
    this.most = most
  }

  begin(rows: readonly FeedRow[], older: boolean, joined = true): void {
    this.rows = rows.slice(-this.most)
    this.first = 0
    this.older = older || rows.length > this.most
    this.joined = joined
    this.following = joined
    this.aside = []
    this.lost = false
    this.waiting = 0
  }

  /** Events have come, in order. */
  take(rows: readonly FeedRow[]): void {
    this.came += rows.length
    if (this.following && this.joined) {
      this.push(rows)
      return
    }
    this.waiting += rows.length
    this.aside.push(...rows)
    if (this.aside.length > this.most) {
      this.aside = this.aside.slice(-this.most)
      this.lost = true
    }
  }

  /** Stands still from now on. */
  hold(): void {
    this.following = false
  }

  /** Shows what came, and follows. False: something between is not kept, so the end must be read anew. */
  follow(): boolean {
    if (!this.joined || this.lost) return false
    this.following = true
    this.push(this.aside)
    this.aside = []
    this.waiting = 0
    return true
  }

  /** A page of older events, in order. */
  prepend(page: readonly FeedRow[], older: boolean): void {
    const begin = this.rows[0]?.position ?? Number.POSITIVE_INFINITY
    const fresh = page.filter(row => row.position < begin)
    this.rows = [...fresh, ...this.rows]
    this.first -= fresh.length
    this.older = older
    if (this.rows.length > this.most) {
      this.rows = this.rows.slice(0, this.most)
      this.joined = false
      this.following = false
    }
  }

  /** A page of the events after the last row, in order. `more`: others follow it. */
  append(page: readonly FeedRow[], more: boolean): void {
    this.push(page)
    if (more) return
    const end = this.end
    const next = this.aside.filter(row => row.position > end)
    // What was not kept stands before what was: the page reaches into what was kept, or another page is needed.
    if (this.lost && (this.aside[0]?.position ?? 0) > end) return
    this.push(next)
    this.aside = []
    this.lost = false
    this.waiting = 0
    this.joined = true
  }

  /** The position of the last row. */
  get end(): number {
    return this.rows.at(-1)?.position ?? 0
  }

  private push(rows: readonly FeedRow[]): void {
    const end = this.end
    const fresh = rows.filter(row => row.position > end)
    if (fresh.length === 0) return
    const all = [...this.rows, ...fresh]
    const over = Math.max(0, all.length - this.most)
    this.rows = over === 0 ? all : all.slice(over)
    this.first += over
    if (over > 0) this.older = true
  }
}
