import { useSession } from './session'

/** Which roles may do what the pages of operators offer. The server decides; this only says so before somebody tries. */
export const MAY = {
  'tools.define': ['owner', 'admin', 'developer'],
  'tools.remove': ['owner', 'admin', 'developer'],
  'tools.call': ['owner', 'admin', 'developer'],
  'breakers.force': ['owner', 'admin', 'operator'],
  'projections.verify': ['owner', 'admin', 'operator'],
  'projections.rebuild': ['owner', 'admin', 'operator'],
  'projections.retry': ['owner', 'admin', 'operator'],
  'log.read': ['owner', 'admin', 'operator', 'auditor'],
} as const satisfies Readonly<Record<string, readonly string[]>>

/** Why whoever is signed in may not do something. Undefined: they may. */
export function useRefusal(action: keyof typeof MAY): string | undefined {
  const { role } = useSession()
  const roles: readonly string[] = MAY[action]
  return roles.includes(role) ? undefined : `A key of the role ${role} may not do this; ${roles.join(', ')} may.`
}
