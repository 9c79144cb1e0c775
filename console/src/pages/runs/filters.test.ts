import { describe, expect, it } from 'vitest'

import { type Filters, fromAddress, isNone, NONE, notOfBulk, secondsOf, toAddress, toBulk, toQuery } from './filters'

const NOW = Date.parse('2026-11-30T12:00:00Z')
const ALL: Filters = {
  status: ['paused', 'failed'],
  metadata: ['customer=acme & sons', 'n=5=6'],
  since: '24h',
  texts: { agent: 'writer', error: 'no "such" file', workflow: 'digest@2', origin: 'schedule:nightly' },
  numbers: { longer_s: 60, unmoved_s: 0 },
}

describe('filters', () => {
  it('are in the address, and come back from it', () => {
    expect(toAddress(ALL).toString()).toBe(
      'status=paused%2Cfailed&agent=writer&workflow=digest%402&error=no+%22such%22+file&origin=schedule%3Anightly' +
        '&metadata=customer%3Dacme+%26+sons&metadata=n%3D5%3D6&since=24h&longer_s=60&unmoved_s=0',
    )
    expect(fromAddress(new URLSearchParams(toAddress(ALL).toString()))).toEqual(ALL)
    expect(fromAddress(new URLSearchParams())).toEqual(NONE)
  })

  it('are none where an address says nonsense', () => {
    const address =
      'status=failing&metadata=x&metadata==y&since=soon&longer_s=-1&shorter_s=&unmoved_s=ten&agent=+&other=1'
    expect(fromAddress(new URLSearchParams(address))).toEqual(NONE)
    expect(isNone(fromAddress(new URLSearchParams(address)))).toBe(true)
    expect(isNone(ALL)).toBe(false)
  })

  it('are at most eight of metadata, as the interface takes them', () => {
    const params = new URLSearchParams(Array.from({ length: 9 }, (_, n) => ['metadata', `n${n}=1`]))
    expect(fromAddress(params).metadata).toHaveLength(8)
  })

  it('are a request', () => {
    expect(toQuery(NONE, NOW)).toEqual({})
    expect(toQuery(ALL, NOW)).toEqual({
      status: 'paused,failed',
      agent: 'writer',
      error: 'no "such" file',
      workflow: 'digest@2',
      origin: 'schedule:nightly',
      metadata: ['customer=acme & sons', 'n=5=6'],
      started_after: '2026-11-29T12:00:00.000Z',
      longer_s: 60,
      unmoved_s: 0,
    })
  })

  it('are the filter of a bulk action, unless it does not know one', () => {
    expect(toBulk(NONE, NOW)).toEqual({})
    expect(toBulk({ ...ALL, numbers: {} }, NOW)).toEqual({
      status: ['paused', 'failed'],
      agent: 'writer',
      error: 'no "such" file',
      workflow: 'digest@2',
      origin: 'schedule:nightly',
      metadata: { customer: 'acme & sons', n: '5=6' },
      started_after: '2026-11-29T12:00:00.000Z',
    })
    expect(notOfBulk(ALL)).toEqual(['longer_s'])
    expect(notOfBulk({ ...NONE, texts: { concurrency_key: 'k' } })).toEqual(['concurrency_key'])
  })
})

it.each([
  ['90s', 90],
  ['15m', 900],
  ['24h', 86_400],
  ['7d', 604_800],
  ['2w', 1_209_600],
  ['1y', null],
  ['h', null],
  ['-1h', null],
])('%s is %s seconds', (text, seconds) => {
  expect(secondsOf(text)).toBe(seconds)
})
