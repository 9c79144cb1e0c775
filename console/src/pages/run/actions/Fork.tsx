import { useState } from 'react'
import { useLocation } from 'wouter'

import { api, dataOf } from '../../../api/client'
import { largeOf } from '../../../api/large'
import type { components } from '../../../api/schema'
import type { Run } from '../../../api/types'
import { Act } from '../../../ui/Act'
import { partHref } from '../address'
import { Choice, Tick } from './Choice'
import { JsonField, parsed } from './JsonField'
import { reasoned, sent } from './sent'

type ForkBody = components['schemas']['ForkBody']
type ForkPoint = components['schemas']['ForkPoint']

interface Props {
  readonly run: Run
  readonly at: string | null
  readonly refused: string | undefined
  /** The step before which the fork begins, where it is asked for at a step. */
  readonly before?: string
  readonly name?: string
  readonly tone?: 'main' | ''
}

/** `fails`: where it failed; `step KEY`, `before KEY`: at a step; `position`: as it was at the moment that is shown. */
export function pointOf(point: string, position: number): { step?: string; before?: string; position?: number } | null {
  if (point === 'fails') return null
  if (point === 'position') return { position }
  return point.startsWith('step ') ? { step: point.slice(5) } : { before: point.slice(7) }
}

/** Starts a run that begins with what this one was, and goes to it. */
export function Fork({ run, at, refused, before, name = 'Fork from here', tone = '' }: Props) {
  const [, go] = useLocation()
  const ended = run.status === 'completed' && !run.degraded
  const first = run.steps[0]?.key ?? ''
  const start =
    before !== undefined ? `before ${before}` : at !== null ? 'position' : ended ? `before ${first}` : 'fails'
  const [point, setPoint] = useState(start)
  const [changes, setChanges] = useState(false)
  const [input, setInput] = useState(() => JSON.stringify(run.input ?? null, null, 2))
  const read = parsed(input)
  const large = largeOf(run, 'input') !== null
  const began = run.steps.filter(step => step.status !== 'pending' && step.status !== 'skipped')
  const options = [
    ...(ended ? [] : [{ value: 'fails', name: run.status === 'failed' ? 'Where it failed' : 'As it is now' }]),
    { value: 'position', name: `As it was at position ${run.position}${at === null ? ' (now)' : ''}` },
    ...began.map(step => ({ value: `step ${step.key}`, name: `At ${step.key}: it goes on from what it had recorded` })),
    ...began.map(step => ({
      value: `before ${step.key}`,
      name: `Before ${step.key}: it begins anew, its effects happen again`,
    })),
  ]
  return (
    <Act
      name={name}
      tone={tone}
      refused={refused}
      valid={!changes || read.ok}
      what="A new run begins with what this one was. What had ended is taken over, and its effects are not repeated. This run stays as it is."
      act={async reason => {
        const at = pointOf(point, run.position)
        const body = sent<ForkBody>({
          ...(at === null ? {} : { at: sent<ForkPoint>(at) }),
          ...(changes && read.ok ? { input: read.value } : {}),
          ...reasoned(reason),
        })
        const made = dataOf(
          await api.POST('/v1/runs/{run_id}/fork', { params: { path: { run_id: run.run_id } }, body }),
        )
        go(partHref(made.run_id, 'overview', null))
      }}
    >
      <Choice label="Where it begins" value={point} options={options} onValue={setPoint} />
      {large ? (
        <p className="soft">The input is too large to be changed here: the fork takes it over.</p>
      ) : (
        <Tick label="With another input" value={changes} onValue={setChanges} />
      )}
      {changes && <JsonField label="Input (JSON)" text={input} onText={setInput} />}
    </Act>
  )
}
