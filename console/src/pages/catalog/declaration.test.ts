import { expect, it } from 'vitest'

import type { ToolVersion } from './data'
import { declarationOf, nextVersion } from './declaration'

it('declares again what was declared, and nothing that the server adds', () => {
  const version = {
    version: '1',
    kind: 'http',
    revision: 5,
    pinned: true,
    tool_id: 'x',
    name: 'a',
    chain: null,
    parameters: {},
  }
  expect(declarationOf(version as unknown as ToolVersion)).toEqual({
    version: '1',
    kind: 'http',
    parameters: {},
  })
})

it.each([
  ['7', ['7'], '8'],
  ['7', ['7', '8', '9'], '10'],
  ['1.3', ['1.3'], '1.3-2'],
  ['1.3', ['1.3', '1.3-2'], '1.3-3'],
])('after %s of %s comes %s', (current, known, next) => {
  expect(nextVersion(current, known)).toBe(next)
})
