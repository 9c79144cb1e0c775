import { describe, expect, it } from 'vitest'

import type { Message } from '../../../api/types'
import { arrowOf, briefly, gistOf, lanesOf, type Sent } from './lanes'

function sent(sender: string, recipient: string): Sent {
  return briefly({
    message_id: 'm',
    run_id: 'r',
    sender,
    recipient,
    body: 'hello',
    large: null,
    unreadable: false,
    status: 'sent',
    refused: null,
    position: 1,
    sent_at: '2026-11-30T14:29:47Z',
    delivered_at: null,
    received_at: null,
  } satisfies Message)
}

describe('gistOf', () => {
  it.each([
    ['a\n  b', null, 'a b'],
    [{ n: 1 }, null, '{"n":1}'],
    [null, null, 'null'],
    [null, 150_002, '150,002 bytes'],
  ])('%#', (body, bytes, gist) => {
    expect(gistOf(body, bytes)).toBe(gist)
  })

  it('is short, whatever the value is', () => {
    expect(gistOf('x'.repeat(50_000), null)).toBe(`${'x'.repeat(160)}…`)
    expect(gistOf(' '.repeat(50_000), null)).toBe(' …')
  })
})

it('keeps no bodies', () => {
  expect(briefly({ ...sent('a', 'b'), body: 'x'.repeat(1000), large: null })).not.toHaveProperty('body')
})

it('has lanes in the order of the plan, parts behind their step, others at the end', () => {
  const messages = [sent('zoe', 'reviews.10'), sent('reviews.2', 'write'), sent('reviews', 'write')]
  expect(lanesOf(messages, ['write', 'reviews', 'end'])).toEqual(['write', 'reviews', 'reviews.2', 'reviews.10', 'zoe'])
})

it('draws arrows between the middles of lanes', () => {
  expect(arrowOf(0, 1, 2)).toEqual({ left: 25, width: 50, toRight: true })
  expect(arrowOf(3, 1, 4)).toEqual({ left: 37.5, width: 50, toRight: false })
  expect(arrowOf(0, 0, 1)).toEqual({ left: 50, width: 0, toRight: true })
})
