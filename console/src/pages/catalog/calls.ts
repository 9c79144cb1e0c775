/** The newest calls of a tool, from the events of all calls. */

export interface CallRow {
  readonly id: string
  readonly run: string
  readonly asked: string
  readonly ended: string | null
  readonly status: string
  readonly error: string
  readonly position: number
}

interface CallEvent {
  readonly position: number
  readonly type: string
  readonly subject: string
  readonly time: string
  readonly rootid: string
  readonly data?: unknown
}

const ENDS: Readonly<Record<string, string>> = {
  'invocation.succeeded': 'succeeded',
  'invocation.failed': 'failed',
  'invocation.cancelled': 'cancelled',
  'invocation.became_ambiguous': 'ambiguous',
}

export const TYPES_OF_CALLS = ['invocation.requested', ...Object.keys(ENDS)]

function text(data: unknown, ...path: string[]): string {
  let at: unknown = data
  for (const name of path)
    at = typeof at === 'object' && at !== null ? (at as Record<string, unknown>)[name] : undefined
  return typeof at === 'string' ? at : ''
}

/** `events`: the newest first. */
export function callsOf(events: readonly CallEvent[], tool: string): CallRow[] {
  const ended = new Map<string, CallEvent>()
  const calls: CallRow[] = []
  for (const event of events) {
    if (event.type !== 'invocation.requested') {
      if (!ended.has(event.subject)) ended.set(event.subject, event)
      continue
    }
    if (text(event.data, 'tool') !== tool) continue
    const end = ended.get(event.subject)
    const error = [text(end?.data, 'error', 'type'), text(end?.data, 'error', 'message')].filter(part => part !== '')
    calls.push({
      id: event.subject,
      run: event.rootid,
      asked: event.time,
      ended: end?.time ?? null,
      status: end === undefined ? 'running' : (ENDS[end.type] ?? 'running'),
      error: error.join(': '),
      position: event.position,
    })
  }
  return calls
}
