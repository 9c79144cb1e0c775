import { describe, expect, it } from 'vitest'

import type { ApprovalSummary } from './data'
import { amountsOf } from './amounts'
import { changedFields, headline, kindOf, told, who, why } from './words'

const CALL = { kind: 'call', title: null, tool: 'mail.send', because: [], budget: null } as unknown as ApprovalSummary

describe('what waits', () => {
  it('is a call, with the rules that ask for its approval', () => {
    const rules = [
      { policy: 'mails', expression: 'tainted' },
      { policy: null, expression: null },
    ]
    const call = { ...CALL, because: rules } as ApprovalSummary
    expect([headline(call), kindOf(call)]).toEqual(['mail.send', 'call'])
    expect(why(call)).toBe('policy mails: tainted; the tool itself: every call')
  })

  it('is a question', () => {
    const question = { ...CALL, kind: 'step', title: 'Shall the letter go out?' } as ApprovalSummary
    expect([headline(question), kindOf(question), why(question)]).toEqual([
      'Shall the letter go out?',
      'question',
      'an agent asks',
    ])
  })

  it('is a budget', () => {
    const nothing = { money: '0', tokens: 0, calls: 0 }
    const budget = {
      budget: 'tenant',
      day: '2026-11-30',
      currency: 'usd',
      limits: { money: '25', tokens: null, calls: null, wall_s: null },
      asked: { ...nothing, money: '0.002', calls: 1 },
    }
    const asked = { ...CALL, kind: 'budget', budget } as unknown as ApprovalSummary
    expect([headline(asked), kindOf(asked)]).toEqual(['More of the budget tenant of 2026-11-30', 'budget'])
    expect(why(asked)).toBe('25 usd is used up; the next call may cost 0.002 usd, 1 call')
  })
})

it('amounts leave out what is nothing', () => {
  expect(told({ money: '0.00', tokens: 1234, calls: 2, wall_s: null }, 'usd')).toBe('1,234 tokens, 2 calls')
  expect(told({ money: '0', tokens: 0, calls: 0 }, 'usd')).toBe('')
})

it('says who somebody is', () => {
  const key = '01900000-0000-7000-8000-00000000000a'
  expect(who(`key:${key}`, key)).toBe('you')
  expect(who(`key:${key}`, 'another')).toBe('key:01900000…00000a')
  expect(who('timer', key)).toBe('timer')
})

it('tells the fields that were changed', () => {
  expect(changedFields({ a: 1, b: [1], c: 'x' }, { a: 1, b: [2], d: null })).toEqual(['b', 'c', 'd'])
  expect(changedFields({ a: 1 }, undefined)).toEqual(['a'])
})

it('takes amounts as they are typed', () => {
  expect(amountsOf({})).toBeNull()
  expect(amountsOf({ money: ' ', calls: '' })).toBeNull()
  expect(amountsOf({ money: '0.004', calls: '3' })).toEqual({ money: '0.004', tokens: 0, calls: 3 })
  expect(amountsOf({ money: '5usd' })).toBeUndefined()
  expect(amountsOf({ tokens: '1.5' })).toBeUndefined()
  expect(amountsOf({ money: '-1' })).toBeUndefined()
})
