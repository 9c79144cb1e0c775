import { describe, expect, it } from 'vitest'

import { matches } from './data'
import { schemaRows } from './schemaRows'

const said = (schema: unknown) =>
  schemaRows(schema)?.map(row => `${row.path}: ${row.type}${row.required ? '!' : ''} ${row.bounds.join('; ')}`.trim())

describe('schemaRows', () => {
  it('tells fields with their types and bounds', () => {
    expect(
      said({
        type: 'object',
        required: ['item'],
        properties: {
          item: { type: 'string', minLength: 1, description: 'What is ordered.' },
          count: { type: 'integer', default: 1, minimum: 1, exclusiveMaximum: 9 },
          size: { enum: ['s', 'm'] },
          due: { anyOf: [{ type: 'string', format: 'date' }, { type: 'null' }] },
        },
      }),
    ).toEqual([
      ': object!',
      'item: string! at least 1 characters',
      'count: integer at least 1; less than 9; default 1',
      'size: one of "s", "m"',
      'due: string (date) or null',
    ])
  })

  it('goes into objects, lists and what is pointed to', () => {
    expect(
      said({
        $defs: { 'Li/ne': { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] } },
        type: 'object',
        properties: {
          lines: { type: 'array', items: { $ref: '#/$defs/Li~1ne' } },
          first: { anyOf: [{ $ref: '#/$defs/Li~1ne' }, { type: 'null' }] },
        },
      }),
    ).toEqual([
      ': object!',
      'lines: list of object',
      'lines[].name: string!',
      'first: object or null',
      'first.name: string!',
    ])
  })

  it('ends where a schema contains itself, and at what leads nowhere', () => {
    const node = { type: 'object', properties: { next: { $ref: '#' } } }
    expect(schemaRows(node)?.length).toBe(7)
    expect(said({ $ref: '#/$defs/nothing' })).toEqual([': any!'])
    expect(said({ $ref: '#' })).toEqual([': any!'])
    expect(said({ $ref: '#/__proto__/x' })).toEqual([': any!'])
  })

  it('bounds what it tells', () => {
    const many = Object.fromEntries(Array.from({ length: 1000 }, (_, at) => [`f${at}`, {}]))
    expect(schemaRows({ properties: many })?.length).toBe(200)
  })

  it.each([null, undefined, true, 'x', [], {}])('has nothing to tell of %s', schema => {
    expect(schemaRows(schema)).toBeNull()
  })
})

it('finds all words, wherever they stand', () => {
  expect(matches('mail SEND', ['mail.send', 'x'])).toBe(true)
  expect(matches('', [])).toBe(true)
  expect(matches('mail x', ['mail.send'])).toBe(false)
})
