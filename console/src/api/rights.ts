/**
 * Which roles may do what the console offers: a part of the table in `domain/access.py`, and a test compares the two
 * (tests/architecture/test_console_rights.py). The server decides; this only says beforehand what it would refuse.
 */
const ALL = ['owner', 'admin', 'operator', 'developer'] as const
const OPERATORS = ['owner', 'admin', 'operator'] as const
const STARTERS = ['owner', 'admin', 'developer'] as const

export const MAY = {
  'runs.start': STARTERS,
  'runs.cancel': ALL,
  'runs.steer': ALL,
  'runs.force': OPERATORS,
  'runs.deadline': ALL,
  'runs.retry': ALL,
  'runs.signal': ALL,
  'runs.fork': ALL,
  'runs.compensate': OPERATORS,
  'invocations.resolve': OPERATORS,
  'invocations.cancel': ALL,
} as const satisfies Readonly<Record<string, readonly string[]>>

export type Action = keyof typeof MAY

/** Why a role may not do an action. Undefined: it may. */
export function refusedTo(role: string, action: Action): string | undefined {
  const roles: readonly string[] = MAY[action]
  return roles.includes(role)
    ? undefined
    : `The role ${role} may not do this (${action}). These may: ${roles.join(', ')}.`
}
