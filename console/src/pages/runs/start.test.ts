import { expect, it } from 'vitest'

import { begun, commandBody, EMPTY, lacks, startBody } from './start'

it.each([
  ['agent:greeter', { kind: 'agent', name: 'greeter' }],
  ['workflow:a.b', { kind: 'workflow', name: 'a.b' }],
  ['command:/task Write: notes', { kind: 'command', line: '/task Write: notes' }],
  ['', {}],
  ['plan:x', {}],
  ['__proto__:x', {}],
])('an address with start=%s', (what, form) => {
  expect(begun(what)).toEqual({ ...EMPTY, ...form })
})

it('says only what is given', () => {
  expect(startBody({ ...EMPTY, name: ' greeter ' })).toEqual({ agent: 'greeter' })
  const all = {
    ...EMPTY,
    kind: 'parallel' as const,
    agents: ['a ', '', 'b'],
    aggregator: 'c',
    input: null,
    projectId: 'p',
    priority: 'low' as const,
    deadline: '60',
    concurrencyKey: 'k',
    onBusy: 'reject' as const,
    metadata: { customer: 'acme' },
    money: '0.5',
  }
  expect(startBody(all)).toEqual({
    plan: { kind: 'parallel', agents: ['a', 'b'], aggregator: 'c' },
    input: null,
    project_id: 'p',
    priority: 'low',
    deadline_s: 60,
    concurrency: { key: 'k', on_busy: 'reject' },
    metadata: { customer: 'acme' },
    budget: { money: '0.5' },
  })
  expect(startBody({ ...EMPTY, kind: 'workflow', name: 'w' })).toEqual({ workflow: { name: 'w' } })
  expect(startBody({ ...EMPTY, kind: 'sequential', agents: ['a'] })).toEqual({
    plan: { kind: 'sequential', agents: ['a'] },
  })
  expect(startBody({ ...EMPTY, kind: 'plan', plan: { kind: 'graph' } })).toEqual({ plan: { kind: 'graph' } })
  expect(commandBody({ ...EMPTY, line: ' /task x ', deadline: '5' }, true)).toEqual({
    text: '/task x',
    deadline_s: 5,
    dry_run: true,
  })
})

it.each([
  [{ name: 'a' }, null],
  [{}, 'Name the agent'],
  [{ kind: 'workflow' }, 'Name the workflow'],
  [{ kind: 'parallel', agents: [' '] }, 'Name the agents'],
  [{ kind: 'command', line: 'task' }, 'A command begins with /'],
  [{ kind: 'plan' }, 'Write the plan'],
  [{ name: 'a', deadline: 'soon' }, 'The deadline is a number of seconds'],
  [{ name: 'a', deadline: '0' }, 'The deadline is a number of seconds'],
  [{ name: 'a', money: '5usd' }, 'The budget is an amount'],
] as const)('%j lacks: %s', (given, why) => {
  expect(lacks({ ...EMPTY, ...given })).toBe(why)
})
