import { cleanup, fireEvent, render, screen } from '@testing-library/react'
import { afterEach, expect, it } from 'vitest'

import { SchemaForm, useSchemaForm } from './SchemaForm'

afterEach(cleanup)

function Shown({ schema, begin }: { readonly schema: unknown; readonly begin?: unknown }) {
  const form = useSchemaForm(schema, begin)
  return (
    <>
      <SchemaForm form={form} name="Input" />
      <output>{JSON.stringify({ value: form.value, valid: form.valid })}</output>
    </>
  )
}

const result = () =>
  JSON.parse(document.querySelector('output')?.textContent ?? '') as { value: unknown; valid: boolean }
const type = (label: string, value: string) => fireEvent.change(screen.getByLabelText(label), { target: { value } })

const SCHEMA = {
  type: 'object',
  properties: {
    to: { type: 'string', description: 'Who gets it' },
    count: { type: 'integer', minimum: 1 },
    urgent: { type: 'boolean' },
    note: { anyOf: [{ type: 'string' }, { type: 'null' }] },
    tags: { type: 'array', items: { type: 'string' } },
    place: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
    how: {
      oneOf: [
        { type: 'string', title: 'By name' },
        { type: 'integer', title: 'By number' },
      ],
    },
    rest: {},
  },
  required: ['to', 'note'],
}

it('gives what is typed, and leaves out what is emptied', () => {
  render(<Shown schema={SCHEMA} />)
  expect(result()).toEqual({ value: {}, valid: false })
  type('to', 'ada')
  type('note', 'x')
  type('note', '')
  type('count', '2')
  expect(result()).toEqual({ value: { to: 'ada', note: null, count: 2 }, valid: true })
  type('count', 'two')
  expect(result()).toEqual({ value: { to: 'ada', note: null, count: 'two' }, valid: false })
  expect(screen.getByText('must be a whole number')).toBeTruthy()
  type('count', '')
  type('urgent', '1')
  expect(result()).toEqual({ value: { to: 'ada', note: null, urgent: false }, valid: true })
})

it('adds and takes away entries, objects and choices', () => {
  render(<Shown schema={SCHEMA} begin={{ to: 'ada', note: null }} />)
  fireEvent.click(screen.getByRole('button', { name: 'Add to tags' }))
  type('tags[0]', 'a')
  fireEvent.click(screen.getByRole('button', { name: 'Add to tags' }))
  type('tags[1]', 'b')
  fireEvent.click(screen.getByRole('button', { name: 'Leave out tags[0]' }))
  fireEvent.click(screen.getByRole('button', { name: 'Give place' }))
  type('city', 'Kiel')
  type('Kind of how', '1')
  type('how', '7')
  expect(result()).toEqual({
    value: { to: 'ada', note: null, tags: ['b'], place: { city: 'Kiel' }, how: 7 },
    valid: true,
  })
  fireEvent.click(screen.getByRole('button', { name: 'Leave out place' }))
  fireEvent.click(screen.getByRole('button', { name: 'Leave out tags[0]' }))
  expect(result().value).toEqual({ to: 'ada', note: null, how: 7 })
})

it('is the same value as JSON', () => {
  render(<Shown schema={SCHEMA} begin={{ to: 'ada', note: null }} />)
  fireEvent.click(screen.getByRole('button', { name: 'JSON' }))
  type('Input as JSON', '{"to": "bob", ')
  expect(result().valid).toBe(false)
  expect(screen.getByText(/not JSON/)).toBeTruthy()
  expect(screen.getByRole('button', { name: 'Form' })).toHaveProperty('disabled', true)
  type('Input as JSON', '{"to": "bob", "note": 5}')
  expect(screen.getByText('fits none of the choices')).toBeTruthy()
  type('Input as JSON', '{"to": "bob", "note": "", "rest": [1]}')
  fireEvent.click(screen.getByRole('button', { name: 'Form' }))
  expect(screen.getByLabelText('to')).toHaveProperty('value', 'bob')
  type('rest', '[1, 2]')
  expect(result()).toEqual({ value: { to: 'bob', note: '', rest: [1, 2] }, valid: true })
  type('rest', '[1, 2')
  expect(result().valid).toBe(false)
})

it('takes any JSON where there is no schema', () => {
  render(<Shown schema={null} />)
  expect(result()).toEqual({ valid: true })
  type('Input as JSON', '"tides"')
  expect(result()).toEqual({ value: 'tides', valid: true })
  type('Input as JSON', '')
  expect(result()).toEqual({ valid: true })
})

it('shows texts of strangers as texts, and values that do not fit', () => {
  render(
    <Shown
      schema={SCHEMA}
      begin={{ to: '<img src=x onerror=alert(1)>', note: null, tags: 'none', place: 4, other: 1 }}
    />,
  )
  expect(document.querySelector('img')).toBeNull()
  expect(screen.getByLabelText('to')).toHaveProperty('value', '<img src=x onerror=alert(1)>')
  expect(screen.getByText('is string, not a list')).toBeTruthy()
  expect(screen.getByText('is number, not an object')).toBeTruthy()
  expect(screen.getByLabelText('other')).toHaveProperty('value', '1')
  expect(result().valid).toBe(false)
})
