/** Looks through all rows of a run for those that match: page by page, from the first on, while somebody waits for it. */

export interface Scanned<T> {
  readonly rows: readonly T[]
  /** How many rows were looked at, of how many. */
  readonly looked: number
  readonly total: number
  readonly done: boolean
  /** Whether more rows match than are kept. */
  readonly more: boolean
}

export const PAGE = 1_000
/** Rows that are kept. */
export const MOST = 20_000

export async function* scan<T>(
  read: (first: number, limit: number, signal: AbortSignal) => Promise<{ data: readonly T[]; total: number }>,
  matches: (row: T) => boolean,
  signal: AbortSignal,
  from: Scanned<T> | null = null,
): AsyncGenerator<Scanned<T>, void> {
  const rows: T[] = from === null ? [] : [...from.rows]
  let looked = from?.looked ?? 0
  while (true) {
    const page = await read(looked, PAGE, signal)
    signal.throwIfAborted()
    looked += page.data.length
    for (const row of page.data) if (rows.length <= MOST && matches(row)) rows.push(row)
    const done = looked >= page.total || page.data.length === 0
    const more = rows.length > MOST
    yield { rows: rows.slice(0, MOST), looked, total: page.total, done: done || more, more }
    if (done || more) return
  }
}
