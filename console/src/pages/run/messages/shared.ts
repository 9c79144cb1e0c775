import type { CloudEvent } from '../../../api/types'
import { gistOf } from './lanes'

export interface Change {
  readonly position: number
  readonly time: string
  readonly version: number
  /** The step that set it. */
  readonly by: string
  readonly value: unknown
  readonly gist: string
}

export interface SharedValue {
  readonly name: string
  /** The newest first. */
  readonly history: readonly Change[]
}

/** The histories of all shared values, by name. `events`: the newest first. `steps`: agent run → step. */
export function historiesOf(events: readonly CloudEvent[], steps: ReadonlyMap<string | null, string>): SharedValue[] {
  const found = new Map<string, Change[]>()
  for (const event of events) {
    const data = event.data as Readonly<Record<string, unknown>> | undefined
    const name = data?.['name']
    if (typeof name !== 'string') continue
    const [version, agentRun] = [data?.['value_version'], data?.['agent_run_id']]
    const change: Change = {
      position: event.position,
      time: event.time,
      version: typeof version === 'number' ? version : 0,
      by: typeof agentRun === 'string' ? (steps.get(agentRun) ?? agentRun) : 'the run that this one was forked from',
      value: data?.['value'],
      gist: gistOf(data?.['value'], null),
    }
    found.set(name, [...(found.get(name) ?? []), change])
  }
  return [...found].map(([name, history]) => ({ name, history })).sort((one, other) => (one.name < other.name ? -1 : 1))
}
