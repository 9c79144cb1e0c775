/** What the feed shows, as its address says it: `?type=run.*,invocation.failed&run=…&actor=…&behalf=…&at=…`. */

export interface FeedFilter {
  /** Types, and slices as `run.*`. Empty: all. */
  readonly types: readonly string[]
  readonly run: string
  readonly actor: string
  readonly behalf: string
}

export function filterOf(params: URLSearchParams): FeedFilter {
  const types = (params.get('type') ?? '').split(',').map(type => type.trim())
  return {
    types: [...new Set(types.filter(type => type !== ''))],
    run: params.get('run') ?? '',
    actor: params.get('actor') ?? '',
    behalf: params.get('behalf') ?? '',
  }
}

/** The address with this part of the filter in the place of what was there. */
export function withFilter(params: URLSearchParams, change: Partial<FeedFilter>): URLSearchParams {
  const next = new URLSearchParams(params)
  for (const [name, value] of Object.entries(change)) {
    const key = name === 'types' ? 'type' : name
    const said = Array.isArray(value) ? value.join(',') : String(value)
    if (said === '') next.delete(key)
    else next.set(key, said)
  }
  return next
}

/** The types that are asked of the server. Undefined: all of them. `known`: every type that the server has. */
export function typesOf(wanted: readonly string[], known: readonly string[]): string[] | undefined {
  if (wanted.length === 0) return undefined
  const types = new Set<string>()
  for (const one of wanted) {
    if (one.endsWith('.*')) for (const type of known) if (type.startsWith(one.slice(0, -1))) types.add(type)
    if (known.includes(one)) types.add(one)
  }
  return [...types].sort()
}

/** What of the wanted types is neither a type nor a slice of the server. */
export function unknownOf(wanted: readonly string[], known: readonly string[]): string[] {
  return wanted.filter(one => typesOf([one], known)?.length === 0)
}

/** What may be typed: every slice and every type, with the slices in front. */
export function suggestionsOf(known: readonly string[]): string[] {
  const slices = new Set(known.map(type => `${type.split('.', 1)[0] ?? ''}.*`))
  return [...[...slices].sort(), ...[...known].sort()]
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

export function isId(text: string): boolean {
  return UUID.test(text)
}
