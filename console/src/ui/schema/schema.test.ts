import { describe, expect, it } from 'vitest'

import { faultsOf } from './faults'
import { told } from './shape'
import { isUnreadable, jsonOf } from './unreadable'
import { choiceOf, firstOf, having, isInexact } from './values'

const is = (schema: unknown, root: unknown = schema) => told(root, schema).shape.is

describe('what a form shows', () => {
  it.each([
    [{ type: 'string' }, 'text'],
    [{ type: 'integer' }, 'number'],
    [{ type: 'boolean' }, 'flag'],
    [{ enum: ['a', 1] }, 'choice'],
    [{ const: 3 }, 'choice'],
    [{ oneOf: [{ const: 'a' }, { const: 'b' }] }, 'choice'],
    [{ type: 'array', items: { type: 'string' } }, 'list'],
    [{ type: 'object', properties: { a: { type: 'string' } } }, 'object'],
    [{ properties: { a: true } }, 'object'],
    [{ oneOf: [{ type: 'string' }, { type: 'integer' }] }, 'oneOf'],
    [{ allOf: [{ type: 'string' }] }, 'text'],
    [{ type: 'object' }, 'json'],
    [{ type: 'object', properties: {}, additionalProperties: { type: 'string' } }, 'json'],
    [{ type: 'array', prefixItems: [{}] }, 'json'],
    [{ if: {} }, 'json'],
    [{ allOf: [{ type: 'string' }, { minLength: 2 }] }, 'json'],
    [{}, 'json'],
    [true, 'json'],
    [false, 'json'],
    [null, 'json'],
    ['nonsense', 'json'],
    [{ properties: { a: 5 } }, 'json'],
  ])('%j is %s', (schema, shape) => {
    expect(is(schema)).toBe(shape)
  })

  it('follows references inside the schema, and no others', () => {
    const root = { $defs: { 'a/b': { type: 'integer' }, round: { $ref: '#/$defs/round' } } }
    expect(is({ $ref: '#/$defs/a~1b' }, root)).toBe('number')
    expect(is({ $ref: '#/$defs/round' }, root)).toBe('json')
    expect(is({ $ref: '#/$defs/none' }, root)).toBe('json')
    expect(is({ $ref: 'https://example.org/schema' }, root)).toBe('json')
    expect(is({ $ref: '#/%E0' }, root)).toBe('json')
    expect(is({ $ref: '#/constructor' }, root)).toBe('json')
  })

  it('ends where a schema contains itself', () => {
    const root = { type: 'object', properties: { inner: { $ref: '#' } } }
    expect(told(root, root, 5).shape.is).toBe('object')
    expect(told(root, root, 6).shape.is).toBe('json')
  })

  it('knows what may be null', () => {
    const maybe = told(null, {
      anyOf: [{ type: 'string', title: 'In' }, { type: 'null' }],
      title: 'Out',
      default: null,
    })
    expect(maybe).toMatchObject({ shape: { is: 'text' }, nullable: true, title: 'Out', default: null })
    expect(told(null, { type: ['integer', 'null'] })).toMatchObject({
      shape: { is: 'number', integer: true },
      nullable: true,
    })
    expect(told(null, { anyOf: [{ type: 'string' }, { type: 'integer' }, { type: 'null' }] })).toMatchObject({
      shape: { is: 'oneOf', options: [{ name: 'string' }, { name: 'integer' }] },
      nullable: true,
    })
    expect(told(null, { type: 'string' }).nullable).toBe(false)
  })

  it('says bounds in words', () => {
    expect(told(null, { type: 'integer', minimum: 1, maximum: 10 }).bounds).toBe('1 to 10')
    expect(told(null, { type: 'string', maxLength: 5, pattern: '^a' }).bounds).toBe('at most 5 characters, like ^a')
    expect(told(null, { type: 'number', exclusiveMinimum: 0 }).bounds).toBe('more than 0')
  })

  it('names choices by their title, their tag, or their type', () => {
    const options = [
      { title: 'By mail', type: 'object', properties: {} },
      { type: 'object', properties: { kind: { const: 'sms' } } },
      { type: 'string' },
      {},
    ]
    const { shape } = told(null, { oneOf: options })
    expect(shape.is === 'oneOf' && shape.options.map(option => option.name)).toEqual([
      'By mail',
      'sms',
      'string',
      'Choice 4',
    ])
  })
})

describe('faults', () => {
  const mail = {
    type: 'object',
    properties: {
      to: { type: 'string', minLength: 1, pattern: '@' },
      count: { type: 'integer', minimum: 1, maximum: 3 },
      tags: { type: 'array', items: { enum: ['a', 'b'] }, maxItems: 2, uniqueItems: true },
      note: { anyOf: [{ type: 'string' }, { type: 'null' }] },
    },
    required: ['to'],
    additionalProperties: false,
  }
  const said = (schema: unknown, value: unknown) =>
    faultsOf(schema, value).map(fault => `${fault.pointer} ${fault.detail}`)

  it.each([
    [{ to: 'ada@example.org' }, []],
    [{ to: 'a@b', count: 3, tags: ['a', 'b'], note: null }, []],
    [{}, ['/to is required']],
    [{ to: '' }, ['/to must not be empty', '/to must be like @']],
    [{ to: 5 }, ['/to must be a text']],
    [{ to: 'a@b', count: 4 }, ['/count must be at most 3']],
    [{ to: 'a@b', count: 1.5 }, ['/count must be a whole number']],
    [{ to: 'a@b', tags: ['a', 'c'] }, ['/tags/1 must be one of the choices']],
    [{ to: 'a@b', tags: ['a', 'a', 'b'] }, ['/tags must have at most 2 entries', '/tags has an entry twice']],
    [{ to: 'a@b', note: 5 }, ['/note fits none of the choices']],
    [{ to: 'a@b', 'b/c': 1 }, ['/b~1c is not known']],
    ['text', [' must be an object']],
  ])('of %j', (value, faults) => {
    expect(said(mail, value)).toEqual(faults)
  })

  it('says of a choice what is wrong in the one that is meant', () => {
    const kinds = {
      oneOf: [
        { type: 'object', properties: { kind: { const: 'mail' }, to: { type: 'string' } }, required: ['kind', 'to'] },
        { type: 'string' },
      ],
    }
    expect(said(kinds, { kind: 'mail' })).toEqual(['/to is required'])
    expect(said({ oneOf: [{ type: 'integer' }, { type: 'number' }] }, 1)).toEqual([
      ' fits more than one of the choices',
    ])
  })

  it('leaves to the server what could take forever, or is no expression here', () => {
    const text = 'a'.repeat(40) + '!'
    for (const pattern of ['^(a+)+$', '^a*a*a*a*a*$', '(', '(?P<x>a)'])
      expect(said({ type: 'string', pattern }, text)).toEqual([])
    expect(said({ $ref: 'https://example.org' }, text)).toEqual([])
  })

  it('compares numbers and objects by their value', () => {
    expect(said({ enum: [{ a: 1, b: [0] }] }, { b: [-0], a: 1 })).toEqual([])
    expect(said({ const: 1 }, '1')).toEqual([' must be 1'])
    expect(said({ type: 'number', multipleOf: 0.1 }, 0.3)).toEqual([])
  })

  it('counts characters as people do', () => {
    expect(said({ type: 'string', maxLength: 2 }, '🌊🌊')).toEqual([])
    expect(said({ type: 'string', maxLength: 1 }, '🌊🌊')).toEqual([' must have at most 1 characters: it has 2'])
  })

  it('stops at a hundred', () => {
    expect(faultsOf({ items: { type: 'string' } }, Array(500).fill(1))).toHaveLength(100)
  })
})

describe('values', () => {
  it('begin with defaults and with what is fixed', () => {
    const schema = {
      type: 'object',
      properties: {
        kind: { const: 'mail' },
        count: { type: 'integer', default: 3 },
        to: { type: 'string' },
        cc: { default: 'x' },
      },
      required: ['kind', 'count', 'to'],
    }
    expect(firstOf(schema, schema)).toEqual({ kind: 'mail', count: 3 })
    expect(firstOf(null, { type: 'string' })).toBeUndefined()
  })

  it('keep the order of fields', () => {
    expect(Object.keys(having({ a: 1, b: 2, c: 3 }, 'b', 5))).toEqual(['a', 'b', 'c'])
    expect(having({ a: 1, b: 2 }, 'a', undefined)).toEqual({ b: 2 })
    expect(having(undefined, 'a', null)).toEqual({ a: null })
  })

  it('find the choice that they fit best', () => {
    const options = [{ schema: { type: 'string' } }, { schema: { $ref: '#/$defs/n' } }]
    const root = { type: 'object', $defs: { n: { type: 'integer' } } }
    expect(choiceOf(root, options, 'a')).toBe(0)
    expect(choiceOf(root, options, 3)).toBe(1)
    expect(choiceOf(root, options, null)).toBe(0)
  })

  it('are not JSON until they can be read', () => {
    const broken = jsonOf('{"a": ')
    expect(isUnreadable({ deep: [broken] })).toBe(true)
    expect(isUnreadable({ deep: [jsonOf('{"a": 1}')] })).toBe(false)
    expect(JSON.stringify(broken)).toBe('"{\\"a\\": "')
  })

  it('tell numbers that a browser does not keep exactly', () => {
    expect(isInexact(JSON.parse('{"id": [12345678901234567890]}'))).toBe(true)
    expect(isInexact({ id: [1e3, 0.1, 9007199254740991] })).toBe(false)
  })
})
