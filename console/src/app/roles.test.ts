import { readFileSync } from 'node:fs'

import { expect, it } from 'vitest'

import { MAY } from './roles'

// `npm run generate` writes it; the types of the client are made from the same file.
const described = readFileSync('openapi.json', 'utf8')

it.each(Object.entries(MAY))('the server says the same of %s', (action, roles) => {
  const said = new RegExp(`may not \`${action.replace('.', '\\.')}\`; roles that may: ([a-z, ]+)`).exec(described)
  expect(said?.[1]).toBe(roles.join(', '))
})
