/** Values of a form. */
import { faultsOf } from './faults'
import { isObject, type Schema, told } from './shape'

/** A value to begin with: what the schema says is its default; an object with what in it is fixed; else nothing. */
export function firstOf(root: unknown, schema: unknown, depth = 0): unknown {
  const { shape, default: given } = told(root, schema, depth)
  if (given !== undefined && given !== null) return structuredClone(given)
  if (shape.is === 'choice' && shape.values.length === 1) return shape.values[0]
  if (shape.is === 'object') {
    const begun: Record<string, unknown> = {}
    for (const field of shape.fields) {
      if (!field.required) continue
      const value = firstOf(root, field.schema, depth + 1)
      if (value !== undefined) begun[field.name] = value
    }
    return begun
  }
  if (shape.is === 'list') return []
  if (shape.is === 'oneOf') return firstOf(root, shape.options[0]?.schema, depth + 1)
  return undefined
}

/** The object with a field set, or without it where the value is undefined. Fields keep their order. */
export function having(object: unknown, name: string, value: unknown): Schema {
  const before = isObject(object) ? object : {}
  if (value !== undefined) return { ...before, [name]: value }
  return Object.fromEntries(Object.entries(before).filter(([known]) => known !== name))
}

/** The number of the choice that a value fits; else of the one with the fewest faults. */
export function choiceOf(root: unknown, options: readonly { readonly schema: Schema }[], value: unknown): number {
  const faults = options.map(({ schema }) => faultsOf(root, value, schema).length)
  return Math.max(0, faults.indexOf(Math.min(...faults)))
}

/** Whether a number in the value is too large for a browser to keep exactly. */
export function isInexact(value: unknown): boolean {
  if (typeof value === 'number') return Number.isInteger(value) && !Number.isSafeInteger(value)
  if (Array.isArray(value)) return value.some(isInexact)
  return isObject(value) && Object.values(value).some(isInexact)
}
