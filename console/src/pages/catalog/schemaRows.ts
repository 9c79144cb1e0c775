/** A JSON Schema as the rows of a table: each field with its type, and what is said about it. */

export interface SchemaRow {
  /** As `order.items[].name`. Empty: the value itself. */
  readonly path: string
  readonly depth: number
  readonly name: string
  readonly type: string
  readonly required: boolean
  readonly about: string
  /** Bounds and defaults, as `at least 1`, `default "x"`. */
  readonly bounds: readonly string[]
}

const MOST_ROWS = 200
const MOST_DEPTH = 6

type Schema = Readonly<Record<string, unknown>>

function schemaOf(value: unknown): Schema | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Schema) : null
}

/** The schema itself, where it only points to another place in the document. */
function resolved(schema: Schema, root: Schema): Schema {
  let found = schema
  for (let hops = 0; hops < 8 && typeof found['$ref'] === 'string'; hops++) {
    if (found['$ref'] !== '#' && !found['$ref'].startsWith('#/')) return found
    let at: unknown = root
    for (const part of found['$ref'].split('/').slice(1)) {
      const name = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~')
      const inner = schemaOf(at)
      at = inner !== null && Object.hasOwn(inner, name) ? inner[name] : undefined
    }
    const next = schemaOf(at)
    if (next === null) return found
    found = { ...next, ...Object.fromEntries(Object.entries(found).filter(([name]) => name !== '$ref')) }
  }
  return found
}

function json(value: unknown): string {
  const text = JSON.stringify(value) as string | undefined
  return text === undefined ? '' : text.length > 80 ? `${text.slice(0, 79)}…` : text
}

function typeOf(schema: Schema, root: Schema, depth = 0): string {
  if (Array.isArray(schema['enum'])) return 'one of'
  if ('const' in schema) return json(schema['const'])
  const choices = schema['anyOf'] ?? schema['oneOf']
  if (Array.isArray(choices) && depth < 3) {
    const types = choices.map(one => typeOf(resolved(schemaOf(one) ?? {}, root), root, depth + 1))
    return [...new Set(types)].join(' or ')
  }
  const type = schema['type']
  if (Array.isArray(type)) return type.map(String).join(' or ')
  if (type === 'array' && depth < 3) {
    const items = schemaOf(schema['items'])
    return items === null ? 'list' : `list of ${typeOf(resolved(items, root), root, depth + 1)}`
  }
  if (type === 'array') return 'list'
  if (typeof type === 'string') return typeof schema['format'] === 'string' ? `${type} (${schema['format']})` : type
  return schemaOf(schema['properties']) === null ? 'any' : 'object'
}

const BOUNDS: readonly (readonly [string, (value: string) => string])[] = [
  ['minimum', value => `at least ${value}`],
  ['exclusiveMinimum', value => `more than ${value}`],
  ['maximum', value => `at most ${value}`],
  ['exclusiveMaximum', value => `less than ${value}`],
  ['multipleOf', value => `a multiple of ${value}`],
  ['minLength', value => `at least ${value} characters`],
  ['maxLength', value => `at most ${value} characters`],
  ['pattern', value => `fits ${value}`],
  ['minItems', value => `at least ${value} entries`],
  ['maxItems', value => `at most ${value} entries`],
]

function boundsOf(schema: Schema): string[] {
  const bounds: string[] = []
  if (Array.isArray(schema['enum'])) bounds.push(schema['enum'].slice(0, 20).map(json).join(', '))
  for (const [name, say] of BOUNDS) if (schema[name] !== undefined) bounds.push(say(json(schema[name])))
  if (schema['uniqueItems'] === true) bounds.push('no entry twice')
  if ('default' in schema) bounds.push(`default ${json(schema['default'])}`)
  return bounds
}

/** The rows of a schema, its own first. Null: the schema says nothing. */
export function schemaRows(given: unknown): SchemaRow[] | null {
  const root = schemaOf(given)
  if (root === null || Object.keys(root).length === 0) return null
  const rows: SchemaRow[] = []
  const add = (schema: Schema, name: string, path: string, depth: number, required: boolean) => {
    if (rows.length >= MOST_ROWS) return
    const said = resolved(schema, root)
    const about = typeof said['description'] === 'string' ? said['description'] : ''
    rows.push({ path, depth, name, type: typeOf(said, root), required, about, bounds: boundsOf(said) })
    if (depth >= MOST_DEPTH) return
    inside(said, path, depth)
  }
  const inside = (schema: Schema, path: string, depth: number) => {
    const [object, at] = objectIn(schema, root, path)
    const properties = object === null ? null : schemaOf(object['properties'])
    if (object === null || properties === null) return
    const needed = Array.isArray(object['required']) ? object['required'] : []
    for (const [name, inner] of Object.entries(properties)) {
      add(schemaOf(inner) ?? {}, name, at === '' ? name : `${at}.${name}`, depth + 1, needed.includes(name))
    }
  }
  add(root, '', '', 0, true)
  return rows
}

/** The object whose fields are told below a row: the value itself, an entry of a list, or the only object among choices. */
function objectIn(schema: Schema, root: Schema, path: string): [Schema | null, string] {
  if (schemaOf(schema['properties']) !== null) return [schema, path]
  const items = schemaOf(schema['items'])
  if (items !== null) return objectIn(resolved(items, root), root, `${path}[]`)
  const choices = schema['anyOf'] ?? schema['oneOf']
  if (Array.isArray(choices)) {
    const objects = choices
      .map(one => resolved(schemaOf(one) ?? {}, root))
      .filter(one => schemaOf(one['properties']) !== null)
    if (objects.length === 1) return [objects[0] ?? null, path]
  }
  return [null, path]
}
