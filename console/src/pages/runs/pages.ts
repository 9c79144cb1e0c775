/** The rows of a long list that are read so far, page by page, and how a page that is read again takes the place of an old one. */

export interface Row {
  readonly run_id: string
  readonly created_at: string
}

export interface Chunk<R extends Row> {
  readonly cursor: string | null
  readonly rows: readonly R[]
  readonly next: string | null
}

/** The rows of a page in the place of those of a chunk. Rows of the chunk that are older than the page stay: the page was too short. */
export function readAgain<R extends Row>(
  chunks: readonly Chunk<R>[],
  number: number,
  fresh: readonly R[],
  whole: boolean,
): Chunk<R>[] {
  const elsewhere = new Set(
    chunks.flatMap((chunk, index) => (index === number ? [] : chunk.rows.map(row => row.run_id))),
  )
  const rows = fresh.filter(row => !elsewhere.has(row.run_id))
  const known = new Set(rows.map(row => row.run_id))
  const last = fresh.at(-1)
  return chunks.map((chunk, index) => {
    if (index !== number) return chunk
    const older =
      whole || last === undefined ? [] : chunk.rows.filter(row => isOlder(row, last) && !known.has(row.run_id))
    return { ...chunk, rows: [...rows, ...older] }
  })
}

function isOlder(row: Row, than: Row): boolean {
  return Date.parse(row.created_at) < Date.parse(than.created_at)
}

/** The numbers of the chunks of which rows from `first` to `last` are. */
export function inSight<R extends Row>(chunks: readonly Chunk<R>[], first: number, last: number): number[] {
  let begin = 0
  return chunks.flatMap((chunk, number) => {
    const end = begin + chunk.rows.length
    const seen = begin <= last && end > first
    begin = end
    return seen ? [number] : []
  })
}
