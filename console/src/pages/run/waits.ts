/** What a run waits for, and what helps, in words. */
import type { RunWait } from '../../api/types'

const HELP: Readonly<Partial<Record<RunWait['waits_for'], string>>> = {
  resume: 'Resume the run, or the run above it.',
  worker: 'No worker has it: start one that does.',
  version: 'No worker has this version of the agent: start one that does.',
  free_worker: 'All workers with it are busy: start more.',
  signal: 'Send the signal.',
  retry: 'It is tried again after its delay; dispatch the step to begin now.',
  breaker: 'The breaker of the tool is open.',
  approval: 'Somebody must decide: see the inbox.',
  person: 'Nobody knows whether the call took effect: say what became of it.',
  run: 'A child run goes on.',
  key: 'Another run holds the concurrency key.',
  unknown: 'Nothing that is known: please report it as a defect.',
}

/** Waits in which nothing is wrong: work goes on. */
const WORKING: ReadonlySet<string> = new Set(['agent', 'tool', 'chain', 'reconcile'])

/** Whether somebody should look at it. */
export function isStuck(wait: RunWait): boolean {
  return ['worker', 'version', 'free_worker', 'approval', 'person', 'breaker', 'unknown'].includes(wait.waits_for)
}

/** Whether it waits for something else than work that goes on. */
export function isWait(wait: RunWait): boolean {
  return !WORKING.has(wait.waits_for)
}

/** What helps; empty: time. */
export function helpOf(wait: RunWait): string {
  return HELP[wait.waits_for] ?? ''
}

/** `ship · carrier.book` */
export function whereOf(wait: RunWait): string {
  const place = wait.step ?? 'the run'
  return wait.name == null || wait.name === wait.step ? place : `${place} · ${wait.name}`
}
