/** What can be done to many runs: each by itself, or by a bulk action of the server. */
import { api } from '../../api/client'
import { asProblem } from '../../api/problem'
import type { components } from '../../api/schema'

export type Verb = components['schemas']['BulkActionBody']['action']
export type Priority = 'high' | 'normal' | 'low'

/** What goes with a verb. */
export interface Options {
  readonly reason: string
  readonly fresh: boolean
  readonly priority: Priority
  readonly signal: { readonly name: string; readonly payload: unknown }
}

/** Requests at a time. */
const AT_ONCE = 5
const NONE = { expected_version: null }

export async function actOn(verb: Verb, runId: string, { reason, fresh, priority, signal }: Options): Promise<void> {
  const params = { path: { run_id: runId } }
  const said = { reason: reason.trim() || null }
  switch (verb) {
    case 'pause':
      await api.POST('/v1/runs/{run_id}/pause', { params, body: { ...said, ...NONE } })
      return
    case 'resume':
      await api.POST('/v1/runs/{run_id}/resume', { params, body: { ...said, ...NONE } })
      return
    case 'cancel':
      await api.POST('/v1/runs/{run_id}/cancel', { params, body: { ...said, ...NONE, compensate: null } })
      return
    case 'retry': {
      const body = { reason: reason.trim(), fresh, steps: [], versions: {}, deadline_s: null, ...NONE }
      await api.POST('/v1/runs/{run_id}/retry', { params, body })
      return
    }
    case 'signal':
      await api.POST('/v1/runs/{run_id}/signals', { params, body: { ...said, ...signal, step: null, id: null } })
      return
    case 'priority':
      await api.POST('/v1/runs/{run_id}/priority', { params, body: { ...said, ...NONE, priority } })
      return
  }
}

export interface Outcome {
  readonly done: number
  readonly refused: readonly { readonly runId: string; readonly why: string }[]
}

/** Does it to each run, a few at a time. Those that refuse do not keep the others from it. */
export async function actOnEach(runIds: readonly string[], act: (runId: string) => Promise<void>): Promise<Outcome> {
  const waiting = [...runIds]
  const refused: { runId: string; why: string }[] = []
  const work = async () => {
    for (let runId = waiting.shift(); runId !== undefined; runId = waiting.shift()) {
      try {
        await act(runId)
      } catch (error) {
        const problem = asProblem(error)
        refused.push({ runId, why: problem.detail || problem.message })
      }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  return { done: runIds.length - refused.length, refused }
}

type Bulk = components['schemas']['BulkActionBody']

/** The body of a bulk action: only what goes with its verb is said. */
export function bulkBody(verb: Verb, filter: Bulk['filter'], options: Options | null): Bulk {
  const nothing = Object.keys(filter).length === 0
  return {
    action: verb,
    filter,
    ...(nothing ? { all: true } : {}),
    ...(options === null ? { dry_run: true } : { reason: options.reason.trim() }),
    ...(verb === 'retry' && options !== null ? { fresh: options.fresh } : {}),
    ...(verb === 'priority' ? { priority: options?.priority ?? 'normal' } : {}),
    ...(verb === 'signal' ? { signal: { ...(options?.signal ?? { name: 'any', payload: null }), step: null } } : {}),
  } as Bulk
}
