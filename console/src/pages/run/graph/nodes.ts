/** The plan of a run as nodes and edges. */
import type { Edge, Node } from '@xyflow/react'

import type { PlanStep, Run, Step } from '../../../api/types'
import { partsOf } from '../why'
import { type Box, BOX_WIDTH, type Drawing } from './box'

export interface StepData extends Record<string, unknown> {
  readonly step: Step
  readonly when: string | null
  readonly line: string
  readonly chosen: boolean
}

export type StepNode = Node<StepData, 'step'>

const HEIGHT = 62
const LINE = 20

/** How a step goes on, in a line: its parts, or how far its agent is. Empty: nothing to say. */
export function lineOf(step: Step): string {
  const progress = step.progress
  if (step.parts != null) return partsOf(step)
  if (progress == null || step.status === 'completed') return ''
  const of = progress.total == null ? `${progress.done}` : `${progress.done} of ${progress.total}`
  return progress.message == null ? of : `${of}: ${progress.message}`
}

function plansOf(run: Run): ReadonlyMap<string, PlanStep> {
  return new Map(run.plan.steps.map(step => [step.key, step]))
}

/** What the place of each step depends on. A step that gets parts later has the room for them from the beginning. */
export function boxesOf(run: Run): Box[] {
  const plans = plansOf(run)
  return run.steps.map(step => {
    const plan = plans.get(step.key)
    const lines = (plan?.when != null ? 1 : 0) + (step.form === 'agent' ? 0 : 1)
    return { key: step.key, after: step.after, height: HEIGHT + LINE * lines }
  })
}

export function nodesOf(run: Run, boxes: readonly Box[], drawing: Drawing, chosen: string | null): StepNode[] {
  const plans = plansOf(run)
  const heights = new Map(boxes.map(box => [box.key, box.height]))
  return run.steps.map(step => {
    const size = { width: BOX_WIDTH, height: heights.get(step.key) ?? HEIGHT }
    return {
      id: step.key,
      type: 'step',
      position: drawing.places[step.key] ?? { x: 0, y: 0 },
      ...size,
      measured: size,
      data: { step, when: plans.get(step.key)?.when ?? null, line: lineOf(step), chosen: step.key === chosen },
    }
  })
}

/** Whether the run has come to a step. */
function wentThere(step: Step): boolean {
  return step.scheduled_at != null || step.status === 'completed' || step.status === 'failed'
}

/** An edge is quiet where nothing went along it. */
export function edgesOf(run: Run): Edge[] {
  const steps = new Map(run.steps.map(step => [step.key, step]))
  return [...steps.values()].flatMap(step =>
    step.after
      .filter(key => steps.has(key))
      .map(key => {
        const from = steps.get(key)?.status
        const quiet = from === 'skipped' || step.status === 'skipped' || !wentThere(step)
        const busy = step.status === 'running' || step.status === 'scheduled'
        return {
          id: `${key} ${step.key}`,
          source: key,
          target: step.key,
          className: quiet ? 'quiet' : busy ? 'busy' : 'gone',
        }
      }),
  )
}

/** The run with the steps that are nearest to one of them, along the edges: of a plan that is too large to be drawn. */
export function near(run: Run, center: string | undefined, most: number): Run {
  if (run.steps.length <= most || center === undefined) return run
  const next = new Map<string, string[]>(run.steps.map(step => [step.key, [...step.after]]))
  for (const step of run.steps) for (const before of step.after) next.get(before)?.push(step.key)
  const found = new Set([center])
  for (const key of found) {
    for (const other of next.get(key) ?? []) {
      if (found.size >= most) break
      found.add(other)
    }
  }
  return { ...run, steps: run.steps.filter(step => found.has(step.key)) }
}

/** The step that a reader wants to see first: one that failed, else one that goes on, else the first. */
export function firstToSee(run: Run): string | undefined {
  const steps = run.steps
  const failed = steps.find(step => step.status === 'failed')
  const open = steps.find(step => step.status === 'running' || step.status === 'retrying' || step.status === 'waiting')
  return (failed ?? open ?? steps[0])?.key
}
