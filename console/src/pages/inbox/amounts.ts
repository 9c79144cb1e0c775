export type Kind = 'money' | 'tokens' | 'calls'

interface Added {
  money: string | null
  tokens: number
  calls: number
}

/** The amounts that were typed. Null: nothing was; undefined: something is no amount. */
export function amountsOf(more: Partial<Record<Kind, string>>): Added | null | undefined {
  const typed = Object.entries(more).filter(([, text]) => text.trim() !== '')
  if (typed.length === 0) return null
  const added: Added = { money: null, tokens: 0, calls: 0 }
  for (const [kind, text] of typed) {
    const given = text.trim()
    if (kind === 'money') {
      if (!/^\d{1,15}(\.\d{1,9})?$/.test(given)) return undefined
      added.money = given
    } else {
      if (!/^\d{1,15}$/.test(given)) return undefined
      added[kind as 'tokens' | 'calls'] = Number(given)
    }
  }
  return added
}
