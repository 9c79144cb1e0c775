/** Values that are too large to stand in a document: `large` of the same object says where each is (docs/reference/http.md#large-values). */
import { api } from './client'
import type { components } from './schema'

export type Large = components['schemas']['LargeValue']

/** The reference that stands in the place of a value. Null: the value is there itself. */
export function largeOf(object: unknown, field: string): Large | null {
  const all = (object as { large?: Readonly<Record<string, Large>> | null } | null)?.large
  return all?.[field] ?? null
}

/** Reads a value by its reference. A reference names the position of an event, so its answer never changes. Throws `Problem`. */
export async function readLarge(large: Large, signal: AbortSignal): Promise<unknown> {
  // A reference is a path of this server with `as_of`; the paths of the document are templates.
  const read = api.GET as unknown as (path: string, how: object) => Promise<{ data?: unknown }>
  return (await read(large.ref, { signal })).data
}
