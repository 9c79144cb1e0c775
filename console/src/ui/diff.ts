/** What differs between two texts, line by line: the longest common run of lines stays. */

export interface DiffLine {
  readonly is: 'same' | 'added' | 'removed'
  readonly text: string
  /** Numbers of the line in the text before and in the text after, from 1. */
  readonly before: number | null
  readonly after: number | null
}

/** Lines beyond which a middle part counts as changed as a whole: the table of the comparison would be too large. */
const MOST_CELLS = 4_000_000

/** A value as lines of JSON, with the names of objects in order, so that only what was said differently differs. */
export function linesOf(value: unknown): string[] {
  if (value === undefined || value === null) return []
  if (typeof value === 'string') return value.split('\n')
  return JSON.stringify(sorted(value), null, 2).split('\n')
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  // Without a prototype, so that a name like __proto__ is a name.
  const copy = Object.create(null) as Record<string, unknown>
  for (const [name, inner] of Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) copy[name] = sorted(inner)
  return copy
}

export function diffLines(before: readonly string[], after: readonly string[]): DiffLine[] {
  let start = 0
  while (start < before.length && start < after.length && before[start] === after[start]) start++
  let endBefore = before.length
  let endAfter = after.length
  while (endBefore > start && endAfter > start && before[endBefore - 1] === after[endAfter - 1]) {
    endBefore--
    endAfter--
  }
  const lines: DiffLine[] = []
  const same = (i: number, j: number) => {
    lines.push({ is: 'same', text: before[i] ?? '', before: i + 1, after: j + 1 })
  }
  for (let i = 0; i < start; i++) same(i, i)
  for (const [i, j] of path(before.slice(start, endBefore), after.slice(start, endAfter))) {
    if (i !== null && j !== null) same(start + i, start + j)
    else if (i !== null)
      lines.push({ is: 'removed', text: before[start + i] ?? '', before: start + i + 1, after: null })
    else if (j !== null) lines.push({ is: 'added', text: after[start + j] ?? '', before: null, after: start + j + 1 })
  }
  for (let i = endBefore, j = endAfter; i < before.length; i++, j++) same(i, j)
  return lines
}

type Step = readonly [number | null, number | null]

/** The steps from one text to the other, by the lengths of common runs (as in `diff`). */
function path(a: readonly string[], b: readonly string[]): Step[] {
  const steps: Step[] = []
  if (a.length * b.length > MOST_CELLS) {
    for (let i = 0; i < a.length; i++) steps.push([i, null])
    for (let j = 0; j < b.length; j++) steps.push([null, j])
    return steps
  }
  const width = b.length + 1
  const lengths = new Uint32Array((a.length + 1) * width)
  const at = (i: number, j: number) => lengths[i * width + j] ?? 0
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      lengths[i * width + j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1))
  let i = 0
  let j = 0
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) steps.push([i++, j++])
    else if (j >= b.length || (i < a.length && at(i + 1, j) >= at(i, j + 1))) steps.push([i++, null])
    else steps.push([null, j++])
  }
  return steps
}

/** A run of lines that are the same, or of changes with some lines around them. */
export interface Hunk {
  readonly lines: readonly DiffLine[]
  /** Lines that are the same and left out before these. */
  readonly skipped: number
}

/** The changes with `around` lines around each. Empty: nothing differs. */
export function hunksOf(lines: readonly DiffLine[], around = 3): { hunks: Hunk[]; skippedAtEnd: number } {
  const near = new Set<number>()
  lines.forEach((line, at) => {
    if (line.is !== 'same') for (let i = at - around; i <= at + around; i++) near.add(i)
  })
  const hunks: { lines: DiffLine[]; skipped: number }[] = []
  let skipped = 0
  let open: { lines: DiffLine[]; skipped: number } | null = null
  lines.forEach((line, at) => {
    if (!near.has(at)) {
      skipped++
      open = null
      return
    }
    if (open === null) {
      open = { lines: [], skipped }
      hunks.push(open)
      skipped = 0
    }
    open.lines.push(line)
  })
  return { hunks, skippedAtEnd: skipped }
}
