/** What a JSON Schema asks for, as a form shows it. What a form cannot show is `json`: it is written as JSON. */

export type Schema = Readonly<Record<string, unknown>>

export interface Field {
  readonly name: string
  readonly schema: Schema
  readonly required: boolean
}

export type Shape =
  | { readonly is: 'text' }
  | { readonly is: 'number'; readonly integer: boolean }
  | { readonly is: 'flag' }
  | { readonly is: 'choice'; readonly values: readonly unknown[] }
  | { readonly is: 'list'; readonly items: Schema }
  | { readonly is: 'object'; readonly fields: readonly Field[]; readonly open: boolean }
  | { readonly is: 'oneOf'; readonly options: readonly { readonly name: string; readonly schema: Schema }[] }
  | { readonly is: 'json' }

export interface Told {
  readonly shape: Shape
  readonly nullable: boolean
  readonly title: string
  readonly description: string
  readonly default: unknown
  /** Bounds in words, such as `1 to 10`. */
  readonly bounds: string
}

/** References that lead further are not followed. */
const MOST_HOPS = 20
/** Fields inside fields; deeper ones are written as JSON. */
const DEEPEST = 6
const JSON_SHAPE: Shape = { is: 'json' }

export function isObject(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** What a reference inside the schema leads to; undefined for any other place. */
function pointed(root: unknown, reference: string): unknown {
  if (reference !== '#' && !reference.startsWith('#/')) return undefined
  let at: unknown = root
  for (const part of reference.split('/').slice(1)) {
    const name = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~')
    if (Array.isArray(at)) at = at[Number(name)]
    else if (isObject(at) && Object.hasOwn(at, name)) at = at[name]
    else return undefined
  }
  return at
}

/** The schema without its references, and without an `allOf` of one. Null: it leads to nowhere, or in a circle. */
export function resolved(root: unknown, schema: unknown): Schema | null {
  let at = schema === true ? {} : schema
  for (let hops = 0; hops < MOST_HOPS; hops++) {
    if (!isObject(at)) return null
    const { $ref: reference, allOf, ...rest } = at
    if (typeof reference === 'string') {
      let target: unknown
      try {
        target = pointed(root, reference)
      } catch {
        return null
      }
      if (target === true) target = {}
      if (!isObject(target)) return null
      at = { ...target, ...rest, ...(allOf === undefined ? {} : { allOf }) }
    } else if (Array.isArray(allOf) && allOf.length === 1 && isObject(allOf[0])) {
      at = { ...allOf[0], ...rest }
    } else return at
  }
  return null
}

function isNull(schema: Schema | null): boolean {
  return schema !== null && (schema['type'] === 'null' || ('const' in schema && schema['const'] === null))
}

/** The schema, or what is left of it where `null` may stand instead. */
function withoutNull(root: unknown, schema: Schema): [Schema, boolean] {
  const types = schema['type']
  if (Array.isArray(types) && types.includes('null')) {
    const left = types.filter(type => type !== 'null')
    return [{ ...schema, type: left.length === 1 ? (left[0] as unknown) : left }, true]
  }
  for (const word of ['anyOf', 'oneOf']) {
    const options = listOf(schema[word]).map(option => resolved(root, option))
    const left = options.filter(option => option !== null && !isNull(option))
    if (options.length === 0 || left.length === options.length) continue
    const rest = Object.fromEntries(Object.entries(schema).filter(([name]) => name !== word))
    const [first] = left
    if (left.length === 1 && first) return [{ ...first, ...rest }, true]
    return [{ ...rest, [word]: left }, true]
  }
  return [schema, false]
}

function nameOf(option: Schema, number: number): string {
  const tag = Object.values(isObject(option['properties']) ? option['properties'] : {}).find(
    property => isObject(property) && 'const' in property,
  )
  if (typeof option['title'] === 'string') return option['title']
  if (isObject(tag)) return String(tag['const'])
  return typeof option['type'] === 'string' ? option['type'] : `Choice ${number + 1}`
}

function shape(root: unknown, schema: Schema, depth: number): Shape {
  if ('const' in schema) return { is: 'choice', values: [schema['const']] }
  if (Array.isArray(schema['enum'])) return { is: 'choice', values: schema['enum'] }
  if (listOf(schema['allOf']).length > 0 || 'if' in schema || 'not' in schema) return JSON_SHAPE
  for (const word of ['oneOf', 'anyOf']) {
    if (!(word in schema)) continue
    const options = listOf(schema[word]).map(option => resolved(root, option))
    if (options.length === 0 || options.includes(null) || depth >= DEEPEST || 'properties' in schema) return JSON_SHAPE
    const given = options as Schema[]
    if (given.every(option => 'const' in option)) return { is: 'choice', values: given.map(option => option['const']) }
    return { is: 'oneOf', options: given.map((option, number) => ({ name: nameOf(option, number), schema: option })) }
  }
  const properties = schema['properties']
  switch (schema['type'] ?? (properties === undefined ? undefined : 'object')) {
    case 'string':
      return { is: 'text' }
    case 'integer':
    case 'number':
      return { is: 'number', integer: schema['type'] === 'integer' }
    case 'boolean':
      return { is: 'flag' }
    case 'array': {
      const items = 'prefixItems' in schema ? null : resolved(root, schema['items'] ?? true)
      return items === null || depth >= DEEPEST ? JSON_SHAPE : { is: 'list', items }
    }
    case 'object': {
      if (!isObject(properties) || depth >= DEEPEST || 'patternProperties' in schema) return JSON_SHAPE
      const required = new Set(listOf(schema['required']))
      const fields = Object.entries(properties).map(([name, field]) => ({
        name,
        schema: (field === true ? {} : field) as Schema,
        required: required.has(name),
      }))
      if (fields.some(field => !isObject(field.schema))) return JSON_SHAPE
      if (fields.length === 0 && schema['additionalProperties'] !== false) return JSON_SHAPE
      return { is: 'object', fields, open: schema['additionalProperties'] !== false }
    }
    default:
      return JSON_SHAPE
  }
}

function bounds(schema: Schema): string {
  const number = (name: string) => (typeof schema[name] === 'number' ? schema[name] : null)
  const range = (low: number | null, high: number | null, unit: string) => {
    if (low !== null && high !== null) return low === high ? `${low}${unit}` : `${low} to ${high}${unit}`
    if (low !== null) return `at least ${low}${unit}`
    return high === null ? '' : `at most ${high}${unit}`
  }
  const above = number('exclusiveMinimum')
  const below = number('exclusiveMaximum')
  return [
    range(number('minimum'), number('maximum'), ''),
    above === null ? '' : `more than ${above}`,
    below === null ? '' : `less than ${below}`,
    range(number('minLength'), number('maxLength'), ' characters'),
    range(number('minItems'), number('maxItems'), ' entries'),
    textOf(schema['pattern']) === '' ? '' : `like ${textOf(schema['pattern'])}`,
    textOf(schema['format']),
  ]
    .filter(Boolean)
    .join(', ')
}

/** How a form shows a value of this schema. `root`: the whole schema, for references. `depth`: how many fields are around it. */
export function told(root: unknown, schema: unknown, depth = 0): Told {
  const at = resolved(root, schema)
  if (at === null) {
    return { shape: JSON_SHAPE, nullable: false, title: '', description: '', default: undefined, bounds: '' }
  }
  const [bare, nullable] = withoutNull(root, at)
  return {
    shape: shape(root, bare, depth),
    nullable,
    title: textOf(bare['title']),
    description: textOf(bare['description']),
    default: bare['default'],
    bounds: bounds(bare),
  }
}
