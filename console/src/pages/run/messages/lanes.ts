import type { Message } from '../../../api/types'

/** Characters of a message that stand beside its arrow. */
const GIST = 160

/** A message without its body, which is read when somebody opens it. */
export type Sent = Omit<Message, 'body' | 'large'> & { readonly gist: string }

/** The beginning of a value, on one line. */
export function gistOf(body: unknown, bytes: number | null): string {
  if (bytes !== null) return `${bytes.toLocaleString('en')} bytes`
  const text = typeof body === 'string' ? body : JSON.stringify(body ?? null)
  const line = text.slice(0, 2 * GIST).replaceAll(/\s+/g, ' ')
  return line.length > GIST || text.length > 2 * GIST ? `${line.slice(0, GIST)}…` : line
}

export function briefly(message: Message): Sent {
  const { body, large, ...rest } = message
  return { ...rest, gist: gistOf(body, large?.['body']?.bytes ?? null) }
}

/** Who takes part, in the order of the plan. A part of a step (`reviews.2`) stands behind its step; whom the plan does not name, at the end. */
export function lanesOf(messages: readonly Sent[], steps: readonly string[]): string[] {
  const found = new Set(messages.flatMap(message => [message.sender, message.recipient]))
  const place = (name: string): [number, string] => {
    const whole = steps.indexOf(name)
    const dot = name.lastIndexOf('.')
    const step = whole >= 0 || dot < 0 ? whole : steps.indexOf(name.slice(0, dot))
    return [step < 0 ? steps.length : step, name]
  }
  return [...found].sort((one, other) => {
    const [[first, a], [second, b]] = [place(one), place(other)]
    return first - second || a.localeCompare(b, 'en', { numeric: true })
  })
}

export interface Arrow {
  /** From the left, in hundredths of the width. */
  readonly left: number
  readonly width: number
  readonly toRight: boolean
}

/** Where the arrow from a lane to another stands; lanes have one width. To the same lane: no width. */
export function arrowOf(from: number, to: number, lanes: number): Arrow {
  const middle = (lane: number) => ((lane + 0.5) / Math.max(1, lanes)) * 100
  const [start, end] = [middle(Math.min(from, to)), middle(Math.max(from, to))]
  return { left: start, width: end - start, toRight: to >= from }
}
