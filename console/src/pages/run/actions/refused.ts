/** What can be done to a run or to a step of it, and why not. The server decides; this says beforehand what it would refuse. */
import { type Action, refusedTo } from '../../../api/rights'
import type { Run, Step } from '../../../api/types'
import { isOver } from '../data'

export type RunAct =
  | 'pause'
  | 'resume'
  | 'cancel'
  | 'signal'
  | 'retry'
  | 'fork'
  | 'priority'
  | 'deadline'
  | 'compensate'
  | 'compensation'
  | 'skip'
  | 'force'
  | 'dispatch'

const ACTIONS: Readonly<Record<RunAct, Action>> = {
  pause: 'runs.steer',
  resume: 'runs.steer',
  cancel: 'runs.cancel',
  signal: 'runs.signal',
  retry: 'runs.retry',
  fork: 'runs.fork',
  priority: 'runs.steer',
  deadline: 'runs.deadline',
  compensate: 'runs.compensate',
  compensation: 'runs.compensate',
  skip: 'runs.force',
  force: 'runs.force',
  dispatch: 'runs.steer',
}

const STEP_OVER: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled', 'skipped'])
const UNDER_WAY: ReadonlySet<string> = new Set(['scheduled', 'running', 'retrying', 'suspended'])

export function stepIsOver(step: Step): boolean {
  return STEP_OVER.has(step.status)
}

/** Who wants to do something, and when they look at the run. */
export interface Who {
  readonly role: string
  /** A moment of the past; null: now. */
  readonly at: string | null
}

/** Why an act on a run is not possible. Undefined: it is. */
export function refusal(act: RunAct, run: Run, { role, at }: Who): string | undefined {
  const byRole = refusedTo(role, ACTIONS[act])
  if (byRole !== undefined) return byRole
  if (act === 'fork') return undefined
  if (at !== null) return 'You look at the past, where only a fork can begin. Go back to now.'
  const ended = isOver(run) ? `The run has ended: it is ${run.status}.` : undefined
  switch (act) {
    case 'pause':
      return ended ?? (run.status === 'paused' ? 'The run is paused already.' : undefined)
    case 'resume':
      if (ended !== undefined) return ended
      if (run.status !== 'paused') return 'The run is not paused.'
      return run.pause?.parent_id ? 'It was paused with the run above it: resume that one.' : undefined
    case 'cancel':
    case 'signal':
    case 'priority':
    case 'deadline':
      return ended
    case 'retry':
      return retryRefusal(run)
    case 'compensate':
      if (ended === undefined) return 'Effects are taken back after the end of a run. Cancel it first.'
      return run.compensation == null ? undefined : `Its effects are taken back already: ${run.compensation.status}.`
    case 'compensation':
      return run.compensation?.status === 'partial' ? undefined : 'No taking back of effects waits for a person.'
    case 'skip':
    case 'force':
    case 'dispatch':
      return ended
  }
}

function retryRefusal(run: Run): string | undefined {
  if (run.parent != null) return 'This is a child run: retry its step in the run above, and this one goes on.'
  if (run.status === 'paused') return 'The run is paused: resume it first.'
  if (run.compensation != null) return 'Its effects were taken back: fork it, or start another run.'
  if (run.status === 'failed' || run.status === 'cancelled' || run.degraded) return undefined
  if (run.steps.some(step => step.status === 'failed')) return undefined
  return 'No step of the run has failed.'
}

/** Why an act on a step is not possible. Undefined: it is. */
export function stepRefusal(act: 'skip' | 'force' | 'dispatch' | 'retry', run: Run, step: Step, who: Who) {
  const ofRun = refusal(act, run, who)
  if (ofRun !== undefined) return ofRun
  switch (act) {
    case 'skip':
    case 'force':
      return stepIsOver(step) ? `The step has ended: it is ${step.status}.` : undefined
    case 'dispatch':
      return UNDER_WAY.has(step.status) ? undefined : 'No agent is under way in this step.'
    case 'retry':
      return step.status === 'failed' ? undefined : 'The step has not failed.'
  }
}
