/** What a tool says of its calls, in words. */

type Said = Readonly<Record<string, unknown>>

function inside(value: unknown): Said {
  return typeof value === 'object' && value !== null ? (value as Said) : {}
}

/** `at most 3 at once`, `10 in 1 s`. */
export function limitsOf(policy: unknown): string[] {
  const said = inside(policy)
  const limits: string[] = []
  if (typeof said['max_parallel'] === 'number') limits.push(`at most ${said['max_parallel']} at once`)
  const rate = inside(said['rate'])
  if (typeof rate['calls'] === 'number') {
    const per = typeof rate['per_s'] === 'number' ? rate['per_s'] : 1
    limits.push(`${rate['calls']} in ${per} s`)
  }
  return limits
}

/** Everything that the policy of a tool says, as pairs of a name and a sentence. */
export function policyOf(policy: unknown): (readonly [string, string])[] {
  const said = inside(policy)
  const facts: (readonly [string, string])[] = []
  const limits = limitsOf(policy)
  if (limits.length > 0) facts.push(['Limits', limits.join(', ')])
  const breaker = inside(said['breaker'])
  if (Object.keys(breaker).length > 0) facts.push(['Breaker', breakerOf(breaker)])
  const fallbacks = said['fallbacks']
  if (Array.isArray(fallbacks) && fallbacks.length > 0) facts.push(['Instead of it', fallbacks.map(String).join(', ')])
  const compensation = inside(said['compensation'])
  if (typeof compensation['tool'] === 'string') facts.push(['Taken back by', compensation['tool']])
  if (typeof said['cache_s'] === 'number') facts.push(['Results answer for', `${said['cache_s']} s`])
  if (said['approval'] === true) facts.push(['Approval', 'every call waits for a person'])
  else if (typeof said['approval'] === 'string')
    facts.push(['Approval', `a call waits for a person if ${said['approval']}`])
  const cost = inside(said['max_cost'])
  const costs = [
    ...(typeof cost['money'] === 'string' ? [`${cost['money']} of money`] : []),
    ...(typeof cost['tokens'] === 'number' ? [`${cost['tokens']} tokens`] : []),
  ]
  if (costs.length > 0) facts.push(['Costs at most', costs.join(', ')])
  return facts
}

function breakerOf(breaker: Said): string {
  const when: string[] = []
  if (typeof breaker['failures'] === 'number') when.push(`${breaker['failures']} failures in a row`)
  if (typeof breaker['rate'] === 'number') {
    const calls = typeof breaker['calls'] === 'number' ? ` of at least ${breaker['calls']} calls` : ''
    const window = typeof breaker['window_s'] === 'number' ? ` within ${breaker['window_s']} s` : ''
    when.push(`${Math.round(breaker['rate'] * 100)} % failed${calls}${window}`)
  }
  const open = typeof breaker['open_s'] === 'number' ? `; tries again after ${breaker['open_s']} s` : ''
  return `opens after ${when.join(', or when ')}${open}`
}
