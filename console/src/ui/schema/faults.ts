/**
 * What of a value does not fit a JSON Schema, while it is typed. The server has the last word: what is not understood here is
 * left to it. So are regular expressions that could take this page forever, since the server matches them in linear time.
 */
import { isObject, resolved, type Schema } from './shape'
import { Unreadable } from './unreadable'

export interface Fault {
  /** The JSON Pointer of its place. */
  readonly pointer: string
  readonly detail: string
  /** Something is not there that must be: said of an empty form as well. */
  readonly missing?: boolean
}

const MOST = 100
const DEEPEST = 20
/** Entries of a list that are looked at. */
const LONGEST = 1_000

export function pointerTo(above: string, name: string | number): string {
  return `${above}/${String(name).replaceAll('~', '~0').replaceAll('/', '~1')}`
}

/** Whether two JSON values are the same. */
export function same(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) return true
  if (Array.isArray(one) && Array.isArray(other)) {
    return one.length === other.length && one.every((value, index) => same(value, other[index]))
  }
  if (!isObject(one) || !isObject(other)) return one === 0 && other === 0
  const names = Object.keys(one)
  return (
    names.length === Object.keys(other).length &&
    names.every(name => Object.hasOwn(other, name) && same(one[name], other[name]))
  )
}

export function typeOf(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'array'
  return typeof value
}

function isOf(value: unknown, type: unknown): boolean {
  const is = typeOf(value)
  return is === type || (type === 'integer' && Number.isInteger(value))
}

const WORDS: Readonly<Record<string, string>> = {
  string: 'a text',
  integer: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  null: 'null',
}

function worded(types: readonly unknown[]): string {
  return types.map(type => WORDS[String(type)] ?? String(type)).join(' or ')
}

/** The expression, unless matching it here could take long: repeated groups are left to the server. */
function harmless(pattern: string): RegExp | null {
  if (/\)[*+{?]/.test(pattern) || (pattern.match(/[*+]|,\}/g) ?? []).length > 3) return null
  try {
    return new RegExp(pattern, 'u')
  } catch {
    return null
  }
}

class Search {
  readonly found: Fault[] = []
  constructor(private readonly root: unknown) {}

  private say(pointer: string, detail: string, missing = false): void {
    if (this.found.length < MOST) this.found.push({ pointer, detail, ...(missing ? { missing } : {}) })
  }

  look(schema: unknown, value: unknown, at: string, depth: number): void {
    if (value instanceof Unreadable) return // the field says so itself
    if (schema === false) {
      this.say(at, 'must not be given')
      return
    }
    const own = resolved(this.root, schema)
    if (own === null || depth > DEEPEST || this.found.length >= MOST) return
    const types = own['type'] === undefined ? [] : [own['type']].flat()
    if (types.length > 0 && !types.some(type => isOf(value, type))) {
      this.say(at, `must be ${worded(types)}`)
      return
    }
    if ('const' in own && !same(value, own['const'])) this.say(at, `must be ${JSON.stringify(own['const'])}`)
    if (Array.isArray(own['enum']) && !own['enum'].some(one => same(one, value))) {
      this.say(at, 'must be one of the choices')
    }
    for (const each of Array.isArray(own['allOf']) ? own['allOf'] : []) this.look(each, value, at, depth + 1)
    this.options(own, value, at, depth)
    if (typeof value === 'number') this.number(own, value, at)
    else if (typeof value === 'string') this.text(own, value, at)
    else if (Array.isArray(value)) this.list(own, value, at, depth)
    else if (isObject(value)) this.object(own, value, at, depth)
  }

  private options(own: Schema, value: unknown, at: string, depth: number): void {
    for (const word of ['anyOf', 'oneOf']) {
      const options = own[word]
      if (!Array.isArray(options)) continue
      const each = options.map(option => {
        const inside = new Search(this.root)
        inside.look(option, value, at, depth + 1)
        return inside.found
      })
      const fitting = each.filter(faults => faults.length === 0).length
      if (fitting === 0) {
        // The choice that is meant is the one that goes wrong deepest inside.
        const inner = each.filter(faults => faults.some(fault => fault.pointer !== at || fault.missing))
        if (inner.length === 1) this.found.push(...(inner[0] ?? []))
        else if (each.length > 0)
          this.say(at, each.length === 1 ? (each[0]?.[0]?.detail ?? '') : 'fits none of the choices')
      } else if (word === 'oneOf' && fitting > 1) this.say(at, 'fits more than one of the choices')
    }
  }

  private number(own: Schema, value: number, at: string): void {
    const bound = (name: string, holds: (bound: number) => boolean, words: string) => {
      const given = own[name]
      if (typeof given === 'number' && !holds(given)) this.say(at, `must be ${words} ${given}`)
    }
    bound('minimum', least => value >= least, 'at least')
    bound('maximum', most => value <= most, 'at most')
    bound('exclusiveMinimum', least => value > least, 'more than')
    bound('exclusiveMaximum', most => value < most, 'less than')
    bound('multipleOf', step => step <= 0 || Math.abs(value / step - Math.round(value / step)) < 1e-9, 'a multiple of')
  }

  private text(own: Schema, value: string, at: string): void {
    const { minLength, maxLength, pattern } = own
    const bounded = typeof minLength === 'number' || typeof maxLength === 'number'
    const length = bounded ? Array.from(value).length : 0
    if (typeof minLength === 'number' && length < minLength) {
      this.say(at, minLength === 1 ? 'must not be empty' : `must have at least ${minLength} characters`, value === '')
    }
    if (typeof maxLength === 'number' && length > maxLength) {
      this.say(at, `must have at most ${maxLength} characters: it has ${length}`)
    }
    if (typeof pattern === 'string' && value.length <= 1_000 && harmless(pattern)?.test(value) === false) {
      this.say(at, `must be like ${pattern}`)
    }
  }

  private list(own: Schema, value: readonly unknown[], at: string, depth: number): void {
    const { minItems, maxItems, items, prefixItems, uniqueItems } = own
    if (typeof minItems === 'number' && value.length < minItems)
      this.say(at, `must have at least ${minItems} entries`, true)
    if (typeof maxItems === 'number' && value.length > maxItems) this.say(at, `must have at most ${maxItems} entries`)
    const first: readonly unknown[] = Array.isArray(prefixItems) ? prefixItems : []
    value.slice(0, LONGEST).forEach((entry, index) => {
      const schema = index < first.length ? first[index] : items
      if (schema !== undefined) this.look(schema, entry, pointerTo(at, index), depth + 1)
    })
    if (uniqueItems === true && new Set(value.map(entry => JSON.stringify(entry))).size < value.length) {
      this.say(at, 'has an entry twice')
    }
  }

  private object(own: Schema, value: Schema, at: string, depth: number): void {
    const properties = isObject(own['properties']) ? own['properties'] : {}
    for (const name of Array.isArray(own['required']) ? own['required'] : []) {
      if (!Object.hasOwn(value, String(name))) this.say(pointerTo(at, String(name)), 'is required', true)
    }
    const rest = 'patternProperties' in own ? undefined : own['additionalProperties']
    for (const [name, inner] of Object.entries(value)) {
      const place = pointerTo(at, name)
      if (Object.hasOwn(properties, name)) this.look(properties[name], inner, place, depth + 1)
      else if (rest === false) this.say(place, 'is not known')
      else if (isObject(rest)) this.look(rest, inner, place, depth + 1)
    }
  }
}

/** The faults of a value, the first hundred. None where the schema is no schema. `part`: the part of the schema that is meant. */
export function faultsOf(schema: unknown, value: unknown, part: unknown = schema): readonly Fault[] {
  const search = new Search(schema)
  search.look(part, value, '', 0)
  return search.found
}
