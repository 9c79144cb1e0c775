import { expect, test } from 'vitest'

import type { Run, Step } from '../../../api/types'
import { layout } from './layout'
import { boxesOf, edgesOf, firstToSee, lineOf, near, nodesOf } from './nodes'

const step = (key: string, after: string[], changes: Partial<Step> = {}): Step =>
  ({ key, after, form: 'agent', status: 'pending', calls: [], ...changes }) as unknown as Step
const run = (...steps: Step[]): Run =>
  ({
    steps,
    plan: { steps: steps.map(({ key }) => ({ key, when: key === 'c' ? 'input.x > 1' : null })) },
  }) as unknown as Run

const diamond = run(
  step('a', [], { status: 'completed' }),
  step('b', ['a'], { status: 'failed', scheduled_at: '2026-01-01T00:00:00Z' }),
  step('c', ['a'], { status: 'skipped' }),
  step('d', ['b', 'c', 'not in the plan']),
)

test('a step stands to the right of those before it, and none covers another', () => {
  const boxes = boxesOf(diamond)
  const { places, width, height } = layout(boxes)
  const at = (key: string) => places[key] ?? { x: -1, y: -1 }
  expect(at('a').x).toBeLessThan(at('b').x)
  expect(at('b').x).toBe(at('c').x)
  expect(at('c').x).toBeLessThan(at('d').x)
  expect(Math.abs(at('b').y - at('c').y)).toBeGreaterThan(60)
  expect(width).toBeGreaterThan(0)
  expect(height).toBeGreaterThan(0)
})

test('a step with a condition has room for it, and its node says it', () => {
  const boxes = boxesOf(diamond)
  const heights = new Map(boxes.map(box => [box.key, box.height]))
  expect(heights.get('c')).toBeGreaterThan(heights.get('b') ?? 0)
  const nodes = nodesOf(diamond, boxes, layout(boxes), 'c')
  expect(nodes.find(node => node.id === 'c')?.data).toMatchObject({ when: 'input.x > 1', chosen: true })
  expect(nodes.find(node => node.id === 'b')?.data).toMatchObject({ when: null, chosen: false })
})

test('an edge is quiet where nothing went along it', () => {
  const looks = Object.fromEntries(edgesOf(diamond).map(edge => [edge.id, edge.className]))
  expect(looks).toEqual({ 'a b': 'gone', 'a c': 'quiet', 'b d': 'quiet', 'c d': 'quiet' })
})

test('the step that failed is seen first, else the one that goes on', () => {
  expect(firstToSee(diamond)).toBe('b')
  expect(firstToSee(run(step('a', [], { status: 'completed' }), step('b', ['a'], { status: 'running' })))).toBe('b')
  expect(firstToSee(run(step('a', []), step('b', ['a'])))).toBe('a')
})

test('of a large plan the steps near one are drawn', () => {
  const chain = run(...Array.from({ length: 1000 }, (_, n) => step(`s${n}`, n === 0 ? [] : [`s${n - 1}`])))
  const keys = near(chain, 's500', 21).steps.map(each => each.key)
  expect(keys).toHaveLength(21)
  expect(keys[0]).toBe('s490')
  expect(keys.at(-1)).toBe('s510')
  expect(near(diamond, 'a', 21)).toBe(diamond)
})

test('progress and parts are told in a line', () => {
  const progress = { done: 3, total: 10, message: 'pages', at: '', attempt: 1, part: null }
  expect(lineOf(step('a', [], { status: 'running', progress }))).toBe('3 of 10: pages')
  expect(lineOf(step('a', [], { status: 'completed', progress }))).toBe('')
  const parts = { total: 1000, started: 40, completed: 37, failed: 2, cancelled: 0, first: [] }
  expect(lineOf(step('a', [], { form: 'each', parts }))).toBe('37 of 1,000 done, 2 failed')
})
