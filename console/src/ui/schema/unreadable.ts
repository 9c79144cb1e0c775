import { isObject } from './shape'

/** A text that is no JSON (yet). A value with one in it is not sent. */
export class Unreadable {
  constructor(
    readonly text: string,
    readonly why: string,
  ) {}

  toJSON(): string {
    return this.text
  }
}

/** The value of a text, or the text as what cannot be read. */
export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    return new Unreadable(text, error instanceof Error ? `not JSON: ${error.message}` : 'not JSON')
  }
}

/** Whether something in the value is no JSON yet. */
export function isUnreadable(value: unknown): boolean {
  if (value instanceof Unreadable) return true
  if (Array.isArray(value)) return value.some(isUnreadable)
  return isObject(value) && Object.values(value).some(isUnreadable)
}
