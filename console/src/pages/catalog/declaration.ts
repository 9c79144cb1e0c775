import type { ToolVersion } from './data'

const FIELDS = [
  'version',
  'kind',
  'description',
  'capabilities',
  'parameters',
  'result',
  'idempotent',
  'timeout_s',
  'max_attempts',
  'examples',
  'needs_tools',
  'needs_services',
  'untrusted_output',
  'request',
  'builtin',
  'chain',
  'policy',
] as const

/** What a version declares, as it would be declared again: without what the server adds. */
export function declarationOf(version: ToolVersion): Record<string, unknown> {
  const declared: Record<string, unknown> = {}
  for (const field of FIELDS) {
    const value = version[field]
    if (value !== null) declared[field] = value
  }
  return declared
}

/** A name for a version after the current one that none has yet: `8` after `7`, `1.3-2` after `1.3`. */
export function nextVersion(current: string, known: readonly string[]): string {
  const number = /^\d{1,9}$/.test(current) ? Number(current) : null
  for (let at = 1; ; at++) {
    const name = number === null ? `${current.slice(0, 40)}-${at + 1}` : String(number + at)
    if (!known.includes(name)) return name
  }
}
